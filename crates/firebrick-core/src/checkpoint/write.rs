//! Tensors to safetensors files, one at a time: the header is written from their shapes alone, so that
//! no second copy of a model is ever in memory.
//!
//! Above a limit they are spread over `model-00001-of-00003.safetensors`, .. with an index, as Hugging
//! Face `transformers` does. All files are written beside, synced and renamed, the index last.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use burn::tensor::{bf16, f16};
use serde_json::{Map, Value, json};

use super::{
    LoadError,
    header::Dtype,
    json::quoted,
    tensors::{SaveType, write_atomically},
};

/// Bytes of tensors in one file; what `save_pretrained` calls 5GB.
pub const SHARD_LIMIT: u64 = 5_000_000_000;

/// Numbers that are encoded at a time.
const BLOCK: usize = 1 << 16;

/// A tensor that is to come.
pub(super) struct Planned {
    pub name: String,
    pub shape: Vec<usize>,
    /// Whatever the floats are saved as.
    pub dtype: Option<Dtype>,
}

impl Planned {
    pub fn floats(name: String, shape: Vec<usize>) -> Self {
        Self { name, shape, dtype: None }
    }

    fn dtype(&self, floats: Dtype) -> Dtype {
        self.dtype.unwrap_or(floats)
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

pub(super) struct Writer {
    /// Of a model in one file.
    path: PathBuf,
    dtype: Dtype,
    plan: Vec<Planned>,
    /// Of `plan`, one a file.
    shards: Vec<Range<usize>>,
    /// Tensors written, and numbers of the next one.
    done: usize,
    within: usize,
    file: Option<File>,
    /// Written, but not in their place yet.
    temporary: Vec<PathBuf>,
    block: Vec<u8>,
}

impl Writer {
    /// Expects the tensors of `plan` in this order.
    pub fn new(
        path: &Path,
        limit: u64,
        dtype: &SaveType,
        plan: Vec<Planned>,
    ) -> Result<Self, LoadError> {
        let dtype = match dtype {
            SaveType::F32 | SaveType::Quantised(_) => Dtype::F32,
            SaveType::Sparse(_, floats) => return Self::new(path, limit, floats, plan),
            SaveType::F16 => Dtype::F16,
            SaveType::Bf16 => Dtype::BF16,
        };
        let mut names: Vec<&str> = plan.iter().map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let problem = format!("two parameters are named {}", quoted(pair[0]));
            return Err(LoadError::Checkpoint { path: path.to_path_buf(), problem });
        }
        let shards = shards(&plan, dtype, limit);
        let path = path.to_path_buf();
        let (file, temporary, block) = (None, vec![], vec![]);
        Ok(Self { path, dtype, plan, shards, done: 0, within: 0, file, temporary, block })
    }

    /// Numbers of the next tensor, row by row: all, or some that the rest follow.
    pub fn put(&mut self, floats: &[f32]) -> io::Result<()> {
        let Planned { name, .. } = &self.plan[self.done];
        let count = self.plan[self.done].count();
        assert!(self.within + floats.len() <= count, "{name} has {count} numbers");
        self.begin()?;
        let file = self.file.as_mut().expect("begun");
        for floats in floats.chunks(BLOCK) {
            self.block.clear();
            match self.plan[self.done].dtype(self.dtype) {
                Dtype::I64 => {
                    self.block.extend(floats.iter().flat_map(|x| (*x as i64).to_le_bytes()))
                }
                Dtype::F16 => {
                    self.block.extend(floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()))
                }
                Dtype::BF16 => {
                    self.block.extend(floats.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()))
                }
                _ => self.block.extend(floats.iter().flat_map(|x| x.to_le_bytes())),
            }
            file.write_all(&self.block)?;
        }
        self.within += floats.len();
        if self.within < count {
            return Ok(());
        }
        self.next()
    }

    /// All of the next tensor, as it lies in the file.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let tensor = &self.plan[self.done];
        let size = tensor.count() * tensor.dtype(self.dtype).size();
        assert_eq!(bytes.len(), size, "{} has {size} bytes", tensor.name);
        self.begin()?;
        self.file.as_mut().expect("begun").write_all(bytes)?;
        self.next()
    }

    fn next(&mut self) -> io::Result<()> {
        self.within = 0;
        self.done += 1;
        if self.shards.iter().any(|shard| shard.end == self.done) {
            self.end()?;
        }
        Ok(())
    }

    /// Opens the file of the next tensor, unless it is open.
    fn begin(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let shard = self.temporary.len();
        let mut name = self.file_path(shard).into_os_string();
        name.push(".tmp");
        let path = PathBuf::from(name);
        let mut file = File::create(&path)?;
        self.temporary.push(path);
        file.write_all(&header(&self.plan[self.shards[shard].clone()], self.dtype))?;
        self.file = Some(file);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }

    /// Puts the files into their place.
    pub fn finish(mut self) -> io::Result<()> {
        assert_eq!(self.done, self.plan.len(), "not all tensors came");
        if self.plan.is_empty() {
            self.begin()?;
            self.end()?;
        }
        for (shard, temporary) in self.temporary.iter().enumerate() {
            fs::rename(temporary, self.file_path(shard))?;
        }
        if self.shards.len() == 1 {
            return sync_folder(&self.path);
        }
        let mut map = Map::new();
        for (shard, tensors) in self.shards.iter().enumerate() {
            let file = self
                .file_path(shard)
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            for tensor in &self.plan[tensors.clone()] {
                map.insert(tensor.name.clone(), file.clone().into());
            }
        }
        let count: usize = self.plan.iter().map(Planned::count).sum();
        let size: usize = self.plan.iter().map(|t| t.count() * t.dtype(self.dtype).size()).sum();
        let index = json!({
            "metadata": {"total_parameters": count, "total_size": size},
            "weight_map": map,
        });
        let mut name = self.path.clone().into_os_string();
        name.push(".index.json");
        write_atomically(Path::new(&name), format!("{index:#}\n").as_bytes())?;
        // An older model in one file would go before the index.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_folder(&self.path),
        }
    }

    fn file_path(&self, shard: usize) -> PathBuf {
        if self.shards.len() == 1 {
            return self.path.clone();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let (number, count) = (shard + 1, self.shards.len());
        self.path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.safetensors"))
    }
}

impl Drop for Writer {
    /// What a failure leaves; after [`Writer::finish`] nothing is there under these names.
    fn drop(&mut self) {
        for path in &self.temporary {
            let _ = fs::remove_file(path);
        }
    }
}

/// A tensor goes into the last file, unless that would exceed the limit.
fn shards(plan: &[Planned], dtype: Dtype, limit: u64) -> Vec<Range<usize>> {
    let mut shards = vec![];
    let (mut begin, mut size) = (0, 0);
    for (index, tensor) in plan.iter().enumerate() {
        let bytes = (tensor.count() * tensor.dtype(dtype).size()) as u64;
        if index > begin && size + bytes > limit {
            shards.push(begin..index);
            (begin, size) = (index, 0);
        }
        size += bytes;
    }
    shards.push(begin..plan.len());
    shards
}

fn header(tensors: &[Planned], dtype: Dtype) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for tensor in tensors {
        let dtype = tensor.dtype(dtype);
        let end = at + tensor.count() * dtype.size();
        let layout = json!({
            "dtype": dtype.to_string(), "shape": tensor.shape, "data_offsets": [at, end],
        });
        object.insert(tensor.name.clone(), layout);
        at = end;
    }
    let mut text = Value::Object(object).to_string().into_bytes();
    // The data begins at a multiple of 8.
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
}

/// Makes the renames in a file's folder last.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tensors::Weights;

    fn plan() -> Vec<Planned> {
        [("b", vec![2, 3]), ("a", vec![4]), ("empty", vec![0, 2]), ("c", vec![])]
            .map(|(name, shape)| Planned::floats(name.into(), shape))
            .into()
    }

    fn write(path: &Path, limit: u64, dtype: SaveType) -> Vec<String> {
        let mut writer = Writer::new(path, limit, &dtype, plan()).unwrap();
        for (count, first) in [(6, 0.5), (4, 10.0), (0, 0.0), (1, -3.0)] {
            let floats: Vec<f32> = (0..count).map(|i| first + i as f32).collect();
            // In two parts, where there are enough.
            let (some, rest) = floats.split_at(count - count / 2);
            writer.put(some).unwrap();
            if !rest.is_empty() {
                writer.put(rest).unwrap();
            }
        }
        writer.finish().unwrap();
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[track_caller]
    fn check_read(dir: &Path) {
        let weights = Weights::open(dir).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c", "empty"]);
        assert_eq!(weights.shape("b"), Some(&[2, 3][..]));
        assert_eq!(weights.floats("b").unwrap(), [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
        assert_eq!(weights.floats("a").unwrap(), [10.0, 11.0, 12.0, 13.0]);
        assert_eq!(weights.floats("c").unwrap(), [-3.0]);
        assert!(weights.floats("empty").unwrap().is_empty());
    }

    #[test]
    fn one_file_is_read_by_the_reference_implementation() {
        for dtype in [SaveType::F32, SaveType::F16, SaveType::Bf16] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.safetensors");
            assert_eq!(write(&path, SHARD_LIMIT, dtype), ["model.safetensors"]);
            check_read(dir.path());
            let bytes = fs::read(&path).unwrap();
            let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(reference.tensor("b").unwrap().shape(), [2, 3]);
        }
    }

    #[test]
    fn above_the_limit_there_are_shards_and_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        fs::write(&path, "an older model").unwrap();
        let names = write(&path, 24, SaveType::F32);
        let expected = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(names, expected);
        check_read(dir.path());
        let index: Value =
            serde_json::from_slice(&fs::read(dir.path().join(expected[2])).unwrap()).unwrap();
        assert_eq!(index["weight_map"]["b"], expected[0]);
        assert_eq!(index["metadata"]["total_size"], 44);
    }

    #[test]
    fn a_failure_leaves_the_old_model() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        fs::write(&path, "an older model").unwrap();
        let mut writer = Writer::new(&path, SHARD_LIMIT, &SaveType::F32, plan()).unwrap();
        writer.put(&[0.0; 6]).unwrap();
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), b"an older model");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let twice = || Planned::floats("w".into(), vec![1]);
        let plan = vec![twice(), twice()];
        let error = Writer::new(&path, SHARD_LIMIT, &SaveType::F32, plan).err().unwrap();
        assert!(error.to_string().contains("two parameters are named \"w\""));
    }
}
