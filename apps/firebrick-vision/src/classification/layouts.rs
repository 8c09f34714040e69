//! How labelled pictures lie on disk: a folder for each class, a table of files, arrays, and GTSRB's folders.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use firebrick_data::{
    error::DataError,
    image::{
        Colour, Picture,
        decode::{self, is_picture},
    },
    ledger::{DropReason, Entry, Ledger},
    npz::{self, Array},
    table::{BadRow, Columns, ReadOptions, read},
};
use rayon::prelude::*;

use super::{processor::fit, recipe::DataRecipe};

/// A picture with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The file's path relative to its folder, or the row of an array.
    pub id: String,
    /// As the data set writes it.
    pub label: String,
    /// Pictures of one thing have one, where the data says so.
    pub group: Option<String>,
    /// At the recipe's size.
    pub picture: Picture,
}

/// Parts by their names: `train`, `valid`, `test`; one that does not tell is `train`.
pub type Parts = BTreeMap<&'static str, Vec<Sample>>;

/// Deepest folder that is looked into.
const DEPTH: usize = 16;

/// Most pictures of a part.
const FILES: usize = 1_000_000;

/// A file that is to be read, and what is known of it.
struct File {
    path: PathBuf,
    id: String,
    label: String,
    group: Option<String>,
}

fn load(files: Vec<File>, data: &DataRecipe) -> anyhow::Result<Vec<Sample>> {
    let sample = |File { path, id, label, group }: File| {
        let picture = decode::read(&path, data.colour())?;
        Ok(Sample { id, label, group, picture: sized(&picture, data) })
    };
    files.into_par_iter().map(sample).collect()
}

fn sized(picture: &Picture, data: &DataRecipe) -> Picture {
    fit(picture, data.size, data.shortest_edge, data.filter)
}

/// Pictures of a user's path: a folder, an `.npz` file, or a table; and the rows of a table that cannot be read.
pub fn own(path: &Path, data: &DataRecipe) -> anyhow::Result<(Parts, Ledger)> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        _ if path.is_dir() => Ok(([("train", folders(path, data)?)].into(), Ledger::default())),
        "npz" => Ok((arrays(path, data)?, Ledger::default())),
        _ => {
            let (samples, ledger) = table(path, data)?;
            Ok(([("train", samples)].into(), ledger))
        }
    }
}

/// A table's rows that cannot be read, such as those without a label.
pub fn unreadable(bad: &[BadRow]) -> Ledger {
    let entry = |bad: &BadRow| Entry {
        row: bad.row,
        reason: DropReason::Unreadable,
        detail: bad.to_string(),
    };
    Ledger { dropped: bad.iter().map(entry).collect(), mended: vec![] }
}

/// Pictures under `path`, in the order of their names, those in folders too.
pub fn pictures(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files(path, is_picture)
}

/// Files under `path` that are `wanted`, as [`pictures`] has them.
pub fn files(path: &Path, wanted: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![];
    walk(path, DEPTH, &wanted, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(
    folder: &Path,
    depth: usize,
    wanted: &impl Fn(&Path) -> bool,
    found: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    ensure!(depth > 0, "{}: folders within folders, deeper than {DEPTH}", folder.display());
    let unread = |source| DataError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            walk(&path, depth - 1, wanted, found)?;
        } else if wanted(&path) {
            found.push(path);
            ensure!(found.len() <= FILES, "{}: more than {FILES} files", folder.display());
        }
    }
    Ok(())
}

/// `path` below `folder` with `/` between its parts.
pub fn relative(path: &Path, folder: &Path) -> String {
    let parts = path.strip_prefix(folder).unwrap_or(path).components();
    let parts: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// A folder for each class; its name is the label.
fn folders(path: &Path, data: &DataRecipe) -> anyhow::Result<Vec<Sample>> {
    let file = |found: PathBuf| {
        let id = relative(&found, path);
        let label = id.split_once('/').map(|(label, _)| label.to_string());
        let label = label.ok_or_else(|| DataError::BadValue {
            path: found.clone(),
            detail: format!("lies in no class's folder of {}", path.display()),
        })?;
        Ok(File { path: found, id, label, group: None })
    };
    let files: Vec<File> = pictures(path)?.into_iter().map(file).collect::<anyhow::Result<_>>()?;
    ensure!(
        !files.is_empty(),
        DataError::Empty { path: path.to_owned(), detail: "no picture is in it" }
    );
    load(files, data)
}

/// The columns `file`, relative to the table's folder, and `label`.
fn table(path: &Path, data: &DataRecipe) -> anyhow::Result<(Vec<Sample>, Ledger)> {
    let options = ReadOptions::new(Columns::named("file", Some("label")));
    let table = read(path, &options)?.usable(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = |row: firebrick_data::table::Row| File {
        path: folder.join(&row.text),
        id: row.text,
        label: row.label.unwrap_or_default(),
        group: None,
    };
    let ledger = unreadable(&table.bad);
    Ok((load(table.rows.into_iter().map(file).collect(), data)?, ledger))
}

/// `train_images` and `train_labels`, `val_`, `test_`; or `images` and `labels`.
pub fn arrays(path: &Path, data: &DataRecipe) -> anyhow::Result<Parts> {
    let arrays = npz::read(path)?;
    let names = [("train_", "train"), ("val_", "valid"), ("test_", "test"), ("", "train")];
    let mut parts = Parts::new();
    for (prefix, part) in names {
        let array = |name: &str| arrays.get(&format!("{prefix}{name}"));
        if let (Some(images), Some(labels)) = (array("images"), array("labels")) {
            let at = |problem: String| format!("{}: {prefix}images: {problem}", path.display());
            let labels =
                labels.integers().with_context(|| at("labels are no whole numbers".into()))?;
            let pictures = unpacked(images).map_err(|problem| anyhow::anyhow!(at(problem)))?;
            let (n, m) = (pictures.len(), labels.len());
            ensure!(n == m, at(format!("{n} pictures and {m} labels")));
            let sample = |(row, (picture, label)): (usize, (Picture, i64))| Sample {
                id: row.to_string(),
                label: label.to_string(),
                group: None,
                picture: sized(&picture.into_colour(data.colour()), data),
            };
            let numbered = pictures.into_iter().zip(labels).enumerate().collect::<Vec<_>>();
            parts.insert(part, numbered.into_par_iter().map(sample).collect());
        }
    }
    if parts.is_empty() {
        let found: Vec<&str> = arrays.keys().map(String::as_str).collect();
        bail!(
            "{}: neither images and labels nor train_images and train_labels; there are {}",
            path.display(),
            found.join(", ")
        );
    }
    Ok(parts)
}

/// Pictures of an array `[N, H, W]` or `[N, H, W, 1 or 3]` of bytes.
pub fn unpacked(images: &Array) -> Result<Vec<Picture>, String> {
    let wrong =
        || format!("{} of shape {:?}, where bytes [N, H, W] are due", images.dtype, images.shape);
    let bytes = images.bytes().ok_or_else(wrong)?;
    let (height, width, colour) = match *images.shape.as_slice() {
        [_, h, w] | [_, h, w, 1] => (h, w, Colour::Grey),
        [_, h, w, 3] => (h, w, Colour::Rgb),
        _ => return Err(wrong()),
    };
    if width == 0 || height == 0 {
        return Err(wrong());
    }
    let size = height * width * colour.channels();
    let picture = |pixels: &[u8]| Picture { width, height, colour, pixels: pixels.to_vec() };
    Ok(bytes.chunks_exact(size).map(picture).collect())
}

/// The German traffic sign benchmark: labels are class numbers, groups are tracks, which are of one sign each.
pub fn gtsrb(folder: &Path, data: &DataRecipe) -> anyhow::Result<Parts> {
    let training = folder.join("Final_Training/Images");
    let mut files = vec![];
    for path in pictures(&training)? {
        // 00014/00003_00012.ppm: class, track, picture.
        let id = relative(&path, &training);
        let parts = id.split_once('/').and_then(|(class, file)| {
            let track = file.split_once('_')?.0;
            Some((class.parse::<u32>().ok()?, format!("{class}/{track}")))
        });
        let (class, track) = parts
            .with_context(|| format!("{}: not named as GTSRB names pictures", path.display()))?;
        files.push(File { path, id, label: class.to_string(), group: Some(track) });
    }
    let test = folder.join("Final_Test/Images");
    let index = folder.join("Final_Test/GT-final_test.csv");
    let text =
        fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
    let line = |(row, line): (usize, &str)| {
        let fields: Vec<&str> = line.trim().split(';').collect();
        let wrong = || format!("{}: line {} is not Filename;..;ClassId", index.display(), row + 1);
        let &[file, .., class] = fields.as_slice() else { bail!(wrong()) };
        let class: u32 = class.parse().with_context(wrong)?;
        let (id, label) = (file.to_string(), class.to_string());
        Ok(File { path: test.join(file), id, label, group: None })
    };
    let tests = text.lines().enumerate().skip(1).map(line).collect::<anyhow::Result<_>>()?;
    Ok([("train", load(files, data)?), ("test", load(tests, data)?)].into())
}

/// Windows of pedestrians and of their background by `index.csv`: file,label,source,split. Windows of one source, which is
/// a photograph, are a group.
pub fn inria(folder: &Path, data: &DataRecipe) -> anyhow::Result<Parts> {
    let index = folder.join("index.csv");
    let text =
        fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
    let (mut train, mut test) = (vec![], vec![]);
    for (row, line) in text.lines().enumerate().skip(1) {
        let fields: Vec<&str> = line.trim().split(',').collect();
        let &[file, label, source, split] = fields.as_slice() else {
            bail!("{}: line {} is not file,label,source,split", index.display(), row + 1)
        };
        let part = if split == "test" { &mut test } else { &mut train };
        part.push(File {
            path: folder.join(file),
            id: file.into(),
            label: label.into(),
            group: Some(source.into()),
        });
    }
    Ok([("train", load(train, data)?), ("test", load(test, data)?)].into())
}

/// A class's folder each: the folders of a known set.
pub fn by_class(folder: &Path, data: &DataRecipe) -> anyhow::Result<Parts> {
    Ok([("train", folders(folder, data)?)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_label_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let picture = Picture::filled(4, 4, Colour::Grey, 7);
        fs::write(dir.path().join("a.png"), decode::png(&picture)).unwrap();
        let path = dir.path().join("t.csv");
        fs::write(&path, "file,label\na.png,x\na.png,\na.png\n").unwrap();
        let (parts, ledger) = own(&path, &DataRecipe::default()).unwrap();
        assert_eq!(parts["train"].len(), 1);
        let details: Vec<&str> = ledger.dropped.iter().map(|entry| entry.detail.as_str()).collect();
        let due = [
            "row 2 (line 3): the label is empty",
            "row 3 (line 4): 1 field, where the header has 2",
        ];
        assert_eq!(details, due);
    }
}
