//! Which part of a data set a picture is in: VOC's lists, `data.yaml` of YOLO, or folders by name.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use firebrick_data::{error::DataError, quote::escaped};

use super::annotations;

/// How a data set tells its parts.
#[derive(Debug)]
pub enum Parts {
    /// VOC's lists of pictures: the part of each by its name's stem.
    Lists(HashMap<String, &'static str>),
    /// Folders that `data.yaml` names, the deepest first.
    Folders(Vec<(PathBuf, &'static str)>),
    /// Folders with the names of parts.
    Named,
    /// All is to learn from.
    One,
}

impl Parts {
    /// What the boxes at `path` say.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        if !path.is_dir() {
            return Ok(Self::One);
        }
        if let Some(lists) = image_sets(path)? {
            return Ok(Self::Lists(lists));
        }
        let folders = yaml_folders(path)?;
        Ok(if folders.is_empty() { Self::Named } else { Self::Folders(folders) })
    }

    /// The part of a picture; `None` where lists or folders leave it out.
    pub fn part(&self, path: &Path, file_name: &str) -> anyhow::Result<Option<&'static str>> {
        Ok(match self {
            Self::Lists(parts) => {
                let stem = Path::new(file_name).file_stem().unwrap_or_default().to_string_lossy();
                parts.get(&*stem).copied()
            }
            Self::Folders(folders) => {
                let file = annotations::picture(path, file_name)?;
                let folder = file.parent().unwrap_or(Path::new("")).canonicalize()?;
                folders.iter().find(|(of, _)| folder.starts_with(of)).map(|(_, part)| *part)
            }
            Self::Named => Some(named(file_name)),
            Self::One => Some("train"),
        })
    }
}

/// The part that a picture's folders name, as YOLO's do, and COCO's with the year: `val2017`.
fn named(file_name: &str) -> &'static str {
    let mut folders = file_name.split('/').rev().skip(1);
    let part = |folder: &str| match folder.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "train" => Some("train"),
        "val" | "valid" => Some("valid"),
        "test" => Some("test"),
        _ => None,
    };
    folders.find_map(part).unwrap_or("train")
}

fn image_sets(path: &Path) -> anyhow::Result<Option<HashMap<String, &'static str>>> {
    let folder = path.join("ImageSets/Main");
    let mut parts = HashMap::new();
    for (file, part) in [("train.txt", "train"), ("val.txt", "valid"), ("test.txt", "test")] {
        let file = folder.join(file);
        if file.is_file() {
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let names = text.lines().filter_map(|line| line.split_whitespace().next());
            parts.extend(names.map(|name| (name.to_string(), part)));
        }
    }
    Ok((!parts.is_empty()).then_some(parts))
}

/// The folders that `train`, `val` and `test` of `data.yaml` name, relative to its `path` or to itself; none without them.
fn yaml_folders(path: &Path) -> anyhow::Result<Vec<(PathBuf, &'static str)>> {
    let file = path.join("data.yaml");
    if !file.is_file() {
        return Ok(vec![]);
    }
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let wrong =
        |detail: String| DataError::BadValue { path: file.clone(), detail: escaped(&detail) };
    let own = path.canonicalize()?;
    // Where the data lay for who wrote the file; what is here lies beside it.
    let root = values(&text, "path").map_err(&wrong)?.first().map(|root| path.join(root));
    let roots = [root.unwrap_or_else(|| path.to_owned()), path.to_owned()];
    let mut folders: Vec<(PathBuf, &'static str)> = vec![];
    for (key, part) in [("train", "train"), ("val", "valid"), ("test", "test")] {
        for value in values(&text, key).map_err(&wrong)? {
            let is_list = Path::new(&value).extension().is_some_and(|ending| ending == "txt");
            let list = || format!("{key}: {value} is a list of pictures, where a folder is due");
            ensure!(!is_list, wrong(list()));
            // Roboflow writes `../train/images` for a folder beside the file.
            let inside = value.strip_prefix("../").unwrap_or(&value);
            let places = [&value[..], inside].into_iter();
            let mut places =
                places.flat_map(|place| roots.iter().map(move |root| root.join(place)));
            let found = places.find_map(|place| {
                let place = place.canonicalize().ok()?;
                (place.is_dir() && place.starts_with(&own)).then_some(place)
            });
            let absent = || wrong(format!("{key}: {value} is no folder beside it"));
            let folder = found.ok_or_else(absent)?;
            let taken = folders.iter().find(|(other, of)| *other == folder && *of != part);
            let twice = || wrong(format!("{key}: {value} is the folder of another part, too"));
            ensure!(taken.is_none(), twice());
            folders.push((folder, part));
        }
    }
    folders.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.components().count()));
    Ok(folders)
}

/// What a key at the top of a YAML file has: nothing, a value, or a list of them.
fn values(text: &str, key: &str) -> Result<Vec<String>, String> {
    let mut lines = text.lines().map(uncommented);
    let after = |line: &str| {
        Some(line.strip_prefix(key)?.trim_start().strip_prefix(':')?.trim().to_owned())
    };
    let Some(value) = lines.by_ref().find_map(after) else { return Ok(vec![]) };
    let found: Vec<String> = match value.strip_prefix('[') {
        Some(list) => {
            let list = list
                .strip_suffix(']')
                .ok_or_else(|| format!("{key}: a list is not closed on its line"))?;
            list.split(',').map(unquoted).filter(|item| !item.is_empty()).collect()
        }
        None if value.is_empty() => {
            let lines = lines.map(str::trim).filter(|line| !line.is_empty());
            lines.map_while(|line| line.strip_prefix("- ")).map(unquoted).collect()
        }
        None => vec![unquoted(&value)],
    };
    let odd = |item: &&String| item.starts_with(['{', '|', '>', '&', '*']);
    match found.iter().find(odd) {
        Some(item) => {
            Err(format!("{key}: {item} is not read here: a folder, or a list of folders, is due"))
        }
        None => {
            Ok(found.into_iter().filter(|item| !matches!(&item[..], "" | "~" | "null")).collect())
        }
    }
}

/// A line without what is after `#`.
fn uncommented(line: &str) -> &str {
    match line.starts_with('#') {
        true => "",
        false => line.split(" #").next().unwrap_or_default().trim_end(),
    }
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(text).to_string()
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::{Colour, Picture, decode};

    use super::*;

    /// A folder with `data.yaml` and a picture in each of `folders`.
    fn folder(yaml: &str, folders: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in folders {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            let picture = decode::png(&Picture::filled(2, 2, Colour::Grey, 9));
            fs::write(folder.join("a.png"), picture).unwrap();
        }
        fs::write(dir.path().join("data.yaml"), yaml).unwrap();
        dir
    }

    #[track_caller]
    fn check(yaml: &str, due: &[(&str, Option<&str>)]) {
        let folders: Vec<&str> = due.iter().map(|(folder, _)| *folder).collect();
        let dir = folder(yaml, &folders);
        let parts = Parts::of(dir.path()).unwrap();
        for (folder, part) in due {
            let found = parts.part(dir.path(), &format!("{folder}/a.png")).unwrap();
            assert_eq!(found, *part, "{yaml}: {folder}");
        }
    }

    #[test]
    fn the_file_says_which_folder_is_which_part() {
        let (a, b) = ("images/train2017", "images/val2017");
        let year = [(a, Some("train")), (b, Some("valid"))];
        check("names: [x]\n", &year);
        check(
            "path: ../datasets/mine # gone\ntrain: images/train2017\nval: images/val2017\ntest:\n",
            &year,
        );
        check(
            "train: 'images/val2017'\nval: [\"images/train2017\"]\n",
            &[(b, Some("train")), (a, Some("valid"))],
        );
        check(
            "train:\n  - images/one\n  - images/two\nval: images/three\n",
            &[
                ("images/one", Some("train")),
                ("images/two/deep", Some("train")),
                ("images/three", Some("valid")),
                ("images/four", None),
            ],
        );
        check(
            "train: ../train/images\nval: ../valid/images\n",
            &[("train/images", Some("train")), ("valid/images", Some("valid"))],
        );
        check(
            "path: data\ntrain: images\nval: images/held\n",
            &[("data/images", Some("train")), ("data/images/held", Some("valid"))],
        );
    }

    #[track_caller]
    fn check_refused(yaml: &str, told: &str) {
        let dir = folder(yaml, &["images/train"]);
        let error = Parts::of(dir.path()).unwrap_err().to_string();
        assert!(error.contains("data.yaml") && error.contains(told), "{error}");
    }

    #[test]
    fn what_names_no_folder_is_refused() {
        check_refused("train: train.txt\n", "train.txt is a list of pictures");
        check_refused("train: images/train\nval: images/val\n", "images/val is no folder");
        check_refused("train: images/train\nval: images/train\n", "folder of another part");
        check_refused("train: [images/train,\n", "not closed");
        check_refused("train: {a: b}\n", "is not read here");
    }
}
