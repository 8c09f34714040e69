//! Which files of a folder hold a model's weights.
//!
//! Either `model.safetensors`, or the shards that `model.safetensors.index.json` names; where there is
//! neither, `pytorch_model.bin` in the same two forms. Nothing
//! outside the folder is opened, whatever a name or a link in it says; only in the cache of Hugging Face do
//! links lead to where it keeps the files. Messages name files relative
//! to the folder, and leave the folder to the caller.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    header::{Header, HeaderProblem, foreign, read_header},
    json::{JsonProblem, irregular, quoted, read_strict},
};

/// Names that one kind of weights goes by.
struct Kind {
    single: &'static str,
    index: &'static str,
    /// Of shards.
    extension: &'static str,
}

const SAFETENSORS: Kind =
    Kind { single: SINGLE, index: "model.safetensors.index.json", extension: ".safetensors" };

const TORCH: Kind =
    Kind { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", extension: ".bin" };

const SINGLE: &str = "model.safetensors";

/// The index of a model with 100,000 tensors takes some 10 MB.
const INDEX_LIMIT: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderProblem {
    #[error("cannot be read: {0}")]
    Read(std::io::Error),

    #[error("is not a folder")]
    NotAFolder,

    #[error("holds no {SINGLE}{0}")]
    Missing(String),

    #[error("holds no {SINGLE}, and {} is {what}: convert it to safetensors", quoted(file))]
    Unsupported { file: String, what: &'static str },

    #[error("{} {problem}", quoted(file))]
    File { file: String, problem: String },

    #[error("{index}: {problem}")]
    Json { index: &'static str, problem: JsonProblem },

    #[error("{index}: {problem}")]
    Index { index: &'static str, problem: String },

    #[error("{index}: weight_map places tensor {} in {}: {problem}", quoted(tensor), quoted(shard))]
    Shard { index: &'static str, tensor: String, shard: String, problem: String },

    #[error("shard {}: {problem}", quoted(shard))]
    Header { shard: String, problem: HeaderProblem },

    #[error("shard {} lacks tensor {}, which {index} places there", quoted(shard), quoted(tensor))]
    Lacks { index: &'static str, shard: String, tensor: String },

    #[error(
        "shard {} holds tensor {}, which {index} does not place there",
        quoted(shard),
        quoted(tensor)
    )]
    Unlisted { index: &'static str, shard: String, tensor: String },

    #[error("{index}: total_size is {said}, the tensors take {found} bytes")]
    TotalSize { index: &'static str, said: String, found: u64 },
}

/// The weight files of a model folder, in the order of their names.
pub fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, FolderProblem> {
    let root = dir.canonicalize().map_err(FolderProblem::Read)?;
    if !root.is_dir() {
        return Err(FolderProblem::NotAFolder);
    }
    for kind in [SAFETENSORS, TORCH] {
        if present(dir, kind.single)? {
            check_file(&root, dir, kind.single)?;
            return Ok(vec![dir.join(kind.single)]);
        }
        if present(dir, kind.index)? {
            check_file(&root, dir, kind.index)?;
            return shards(&root, dir, &kind);
        }
    }
    Err(absent(dir)?)
}

/// Whether the name exists; a link counts, wherever it leads.
fn present(dir: &Path, name: &str) -> Result<bool, FolderProblem> {
    match fs::symlink_metadata(dir.join(name)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FolderProblem::Read(error)),
    }
}

/// `name` must be a regular file that lies within `root`, once its links are followed.
fn check_file(root: &Path, dir: &Path, name: &str) -> Result<(), FolderProblem> {
    let problem = |problem: String| FolderProblem::File { file: name.into(), problem };
    let path = dir.join(name);
    let link = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink());
    let target = path.canonicalize().map_err(|error| match link {
        true => problem(format!("is a link that leads nowhere: {error}")),
        false => problem(format!("cannot be read: {error}")),
    })?;
    let in_cache = blobs(root).is_some_and(|blobs| target.parent() == Some(&blobs));
    if !target.starts_with(root) && !in_cache {
        return Err(problem(
            "is a link that leads outside the folder: put the file itself there".into(),
        ));
    }
    let meta =
        fs::metadata(&target).map_err(|error| problem(format!("cannot be read: {error}")))?;
    match irregular(&meta) {
        Some(what) => Err(problem(format!("is {what}, not a regular file"))),
        None => Ok(()),
    }
}

/// Where the files of a folder of Hugging Face's cache lie: those of
/// `models--ORG--NAME/snapshots/COMMIT` are links into `models--ORG--NAME/blobs`.
fn blobs(root: &Path) -> Option<PathBuf> {
    let snapshots =
        root.parent().filter(|dir| dir.file_name().is_some_and(|n| n == "snapshots"))?;
    let model = snapshots.parent()?;
    let cached = model.file_name()?.to_str()?.starts_with("models--");
    cached.then(|| model.join("blobs"))
}

/// Whether the folder holds the file: a regular one, within the folder once links are followed.
pub fn holds(dir: &Path, name: &str) -> Result<bool, FolderProblem> {
    if !present(dir, name)? {
        return Ok(false);
    }
    let root = dir.canonicalize().map_err(FolderProblem::Read)?;
    check_file(&root, dir, name).map(|()| true)
}

fn shards(root: &Path, dir: &Path, kind: &Kind) -> Result<Vec<PathBuf>, FolderProblem> {
    let index = kind.index;
    let problem = |problem: String| FolderProblem::Index { index, problem };
    let value = read_strict(&dir.join(index), INDEX_LIMIT)
        .map_err(|problem| FolderProblem::Json { index, problem })?;
    let map = match value.get("weight_map") {
        Some(Value::Object(map)) if !map.is_empty() => map,
        Some(Value::Object(_)) => return Err(problem("weight_map is empty".into())),
        Some(_) => return Err(problem("weight_map is not an object".into())),
        None => return Err(problem("weight_map is missing".into())),
    };
    let mut headers = BTreeMap::new();
    for (tensor, shard) in map {
        let Value::String(shard) = shard else {
            return Err(problem(format!("weight_map places tensor {} in no file", quoted(tensor))));
        };
        if headers.contains_key(shard.as_str()) {
            continue;
        }
        let bad = |problem: String| {
            let (tensor, shard) = (tensor.clone(), shard.clone());
            FolderProblem::Shard { index, tensor, shard, problem }
        };
        if let Some(problem) = unsafe_name(shard, kind.extension) {
            return Err(bad(problem));
        }
        if !present(dir, shard)? {
            return Err(bad("no such file".into()));
        }
        check_file(root, dir, shard)?;
        let header = read_header(&dir.join(shard))
            .map_err(|problem| FolderProblem::Header { shard: shard.clone(), problem })?;
        headers.insert(shard.as_str(), header);
    }
    pair_up(index, map, &headers)?;
    check_total(index, &value, &headers)?;
    Ok(headers.keys().map(|shard| dir.join(shard)).collect())
}

/// Why a shard's name is not that of a file in the folder.
fn unsafe_name(name: &str, extension: &str) -> Option<String> {
    if name.contains("://") {
        return Some("a URL, which is not fetched".into());
    }
    if name.contains(['/', '\\', ':']) || name.starts_with("..") {
        return Some("a path that can leave the folder; only a file's name is taken".into());
    }
    if name.chars().any(char::is_control) || name.len() > 255 {
        return Some("not a file's name".into());
    }
    (!name.ends_with(extension)).then(|| format!("not a {extension} file"))
}

/// Index and headers must agree both ways.
fn pair_up(
    index: &'static str,
    map: &Map<String, Value>,
    headers: &BTreeMap<&str, Header>,
) -> Result<(), FolderProblem> {
    let mut held = 0;
    for (shard, header) in headers {
        for tensor in &header.tensors {
            if map.get(&tensor.name).and_then(Value::as_str) != Some(*shard) {
                let (shard, tensor) = (shard.to_string(), tensor.name.clone());
                return Err(FolderProblem::Unlisted { index, shard, tensor });
            }
            held += 1;
        }
    }
    if held == map.len() {
        return Ok(());
    }
    let names: BTreeMap<_, _> = headers
        .iter()
        .flat_map(|(shard, header)| header.tensors.iter().map(|t| (t.name.as_str(), *shard)))
        .collect();
    match map.iter().find(|(tensor, _)| !names.contains_key(tensor.as_str())) {
        Some((tensor, shard)) => {
            let shard = shard.as_str().unwrap_or_default().into();
            Err(FolderProblem::Lacks { index, shard, tensor: tensor.clone() })
        }
        None => Ok(()),
    }
}

fn check_total(
    index: &'static str,
    value: &Value,
    headers: &BTreeMap<&str, Header>,
) -> Result<(), FolderProblem> {
    let Some(said) = value.get("metadata").and_then(|metadata| metadata.get("total_size")) else {
        return Ok(());
    };
    let (mut found, mut distinct) = (0, 0);
    for header in headers.values() {
        let mut places = BTreeSet::new();
        for tensor in &header.tensors {
            let bytes = tensor.elements() * tensor.dtype.size() as u64;
            found += bytes;
            distinct += if places.insert((tensor.begin, tensor.end)) { bytes } else { 0 };
        }
    }
    // Some writers put a float there, and some count weights that are tied in a PyTorch file once.
    match [found, distinct].iter().any(|bytes| said.as_f64() == Some(*bytes as f64)) {
        true => Ok(()),
        false => Err(FolderProblem::TotalSize { index, said: quoted(&said.to_string()), found }),
    }
}

/// Says what is there instead.
fn absent(dir: &Path) -> Result<FolderProblem, FolderProblem> {
    let mut half_written = None;
    let mut names = vec![];
    for entry in fs::read_dir(dir).map_err(FolderProblem::Read)? {
        names.push(entry.map_err(FolderProblem::Read)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for file in names {
        if let Some(what) = foreign(&[], Path::new(&file)) {
            return Ok(FolderProblem::Unsupported { file, what });
        }
        if file.starts_with(SINGLE) {
            half_written = Some(format!(
                ", only {}, which a save that was cut off left behind",
                quoted(&file)
            ));
        }
    }
    Ok(FolderProblem::Missing(half_written.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INDEX: &str = SAFETENSORS.index;

    fn file(names: &[&str]) -> Vec<u8> {
        let header: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let layout =
                    json!({"dtype": "U8", "shape": [4], "data_offsets": [4 * i, 4 * i + 4]});
                (name.to_string(), layout)
            })
            .collect();
        let header = Value::from(header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; 4 * names.len()]]
            .concat()
    }

    #[track_caller]
    fn check_refused(index: Value, files: &[(&str, &[&str])], expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        for (name, tensors) in files {
            fs::write(dir.path().join(name), file(tensors)).unwrap();
        }
        let message = weight_files(dir.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn one_file_or_shards_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("b.safetensors"), file(&["x"])).unwrap();
        fs::write(path("a.safetensors"), file(&["y", "z"])).unwrap();
        let map = json!({"x": "b.safetensors", "y": "a.safetensors", "z": "a.safetensors"});
        let index = json!({"metadata": {"total_size": 12}, "weight_map": map});
        fs::write(path(INDEX), index.to_string()).unwrap();
        let files = weight_files(dir.path()).unwrap();
        assert_eq!(files, [path("a.safetensors"), path("b.safetensors")]);

        fs::write(path(SINGLE), file(&["x"])).unwrap();
        assert_eq!(weight_files(dir.path()).unwrap(), [path(SINGLE)]);
    }

    #[test]
    fn index_defects_are_named() {
        let at = |shard: &str| json!({"weight_map": {"a": shard}});
        check_refused(at("../../outside/secret.safetensors"), &[], "tensor \"a\"");
        check_refused(at("../../outside/secret.safetensors"), &[], "leave the folder");
        check_refused(at("/etc/hostname"), &[], "leave the folder");
        check_refused(at("..\\secret.safetensors"), &[], "leave the folder");
        check_refused(at("http://127.0.0.1:9/x.safetensors"), &[], "URL");
        check_refused(at("model-2.safetensors"), &[], "model-2.safetensors\": no such file");
        check_refused(at("m.safetensors"), &[("m.safetensors", &["b"])], "holds tensor \"b\"");
        let two = json!({"weight_map": {"a": "m.safetensors", "b": "m.safetensors"}});
        check_refused(two, &[("m.safetensors", &["a"])], "lacks tensor \"b\"");
        let total =
            json!({"metadata": {"total_size": 1u64 << 62}, "weight_map": {"a": "m.safetensors"}});
        check_refused(total, &[("m.safetensors", &["a"])], "total_size");
        check_refused(json!({"weight_map": ["m.safetensors"]}), &[], "weight_map is not an object");
        check_refused(json!({"weight_map": {"a": 1}}), &[], "weight_map");
    }

    #[test]
    fn what_is_there_instead_is_named() {
        let check = |name: &str, expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), b"x").unwrap();
            let message = weight_files(dir.path()).unwrap_err().to_string();
            assert!(message.contains(expected), "{name}: {message}");
        };
        check("config.json", "holds no model.safetensors");
        check("model.safetensors.tmp", "cut off");
        check("model.h5", "convert it to safetensors");
        check("q4.gguf", "GGUF");
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_in_the_folder() {
        use std::os::unix::fs::symlink;

        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        fs::create_dir(&dir).unwrap();
        fs::write(parent.path().join("secret"), file(&["x"])).unwrap();
        let link = dir.join(SINGLE);
        let check = |target: &str, expected: &str| {
            symlink(target, &link).unwrap();
            let message = weight_files(&dir).unwrap_err().to_string();
            fs::remove_file(&link).unwrap();
            assert!(message.contains(expected), "{target}: {message}");
        };
        check("../secret", "leads outside");
        check("model.safetensors", "leads nowhere");
        check("absent", "leads nowhere");
        check("/dev/null", "leads outside");
        fs::create_dir(dir.join("sub")).unwrap();
        check("sub", "is a folder");

        fs::write(dir.join("real.safetensors"), file(&["x"])).unwrap();
        symlink("real.safetensors", &link).unwrap();
        assert_eq!(weight_files(&dir).unwrap(), [link]);
    }

    #[cfg(unix)]
    #[test]
    fn links_of_the_hub_cache_are_followed() {
        use std::os::unix::fs::symlink;

        let parent = tempfile::tempdir().unwrap();
        let model = parent.path().join("models--org--name");
        let dir = model.join("snapshots/0123");
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir(model.join("blobs")).unwrap();
        fs::write(model.join("blobs/abcd"), file(&["x"])).unwrap();
        let link = dir.join(SINGLE);
        symlink("../../blobs/abcd", &link).unwrap();
        assert_eq!(weight_files(&dir).unwrap(), std::slice::from_ref(&link));
        assert!(holds(&dir, SINGLE).unwrap() && !holds(&dir, "vocab.txt").unwrap());

        let check = |target: &str, make: &str| {
            let path = parent.path().join(make);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file(&["x"])).unwrap();
            fs::remove_file(&link).unwrap();
            symlink(target, &link).unwrap();
            let message = weight_files(&dir).unwrap_err().to_string();
            assert!(message.contains("leads outside"), "{target}: {message}");
        };
        check("../../../secret", "secret");
        check("../4567/abcd", "models--org--name/snapshots/4567/abcd");
        check("../../blobs/sub/abcd", "models--org--name/blobs/sub/abcd");
        check("../../../models--org--other/blobs/abcd", "models--org--other/blobs/abcd");

        // The same links in a folder of another form.
        let dir = parent.path().join("plain/snapshots/0123");
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir(parent.path().join("plain/blobs")).unwrap();
        fs::write(parent.path().join("plain/blobs/abcd"), file(&["x"])).unwrap();
        symlink("../../blobs/abcd", dir.join(SINGLE)).unwrap();
        assert!(weight_files(&dir).unwrap_err().to_string().contains("leads outside"));
    }
}
