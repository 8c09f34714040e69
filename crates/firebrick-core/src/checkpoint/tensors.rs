//! Tensors of safetensors files into a module, and back.
//!
//! Format: <https://huggingface.co/docs/safetensors>. PyTorch stores a linear layer as
//! `[output, input]`, Burn as `[input, output]`: two-dimensional weights of `Linear` are transposed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    prelude::*,
    tensor::{DType, TensorData, bf16, f16},
};

use safetensors::tensor::{Dtype, View};

use super::{LoadError, folder, header};

/// Number type that weights are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveType {
    #[default]
    F32,
    F16,
    Bf16,
}

/// Tensors by name, read one at a time: memory is that of the largest.
pub struct Weights {
    /// File to name in messages.
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    bytes: Storage,
}

struct Entry {
    file: usize,
    dtype: header::Dtype,
    shape: Vec<usize>,
    /// Bytes from the start of the file.
    begin: u64,
    len: usize,
}

enum Storage {
    Files(Vec<PathBuf>),
    Embedded(&'static [u8]),
}

impl Weights {
    /// `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub fn open(dir: &Path) -> Result<Self, LoadError> {
        let files = folder::weight_files(dir).map_err(|e| LoadError::Checkpoint {
            path: dir.to_path_buf(),
            problem: e.to_string(),
        })?;
        let path = match files.as_slice() {
            [one] => one.clone(),
            _ => dir.to_path_buf(),
        };
        Self::of_files(path, files)
    }

    /// One safetensors file by its path.
    pub fn open_file(path: &Path) -> Result<Self, LoadError> {
        Self::of_files(path.to_path_buf(), vec![path.to_path_buf()])
    }

    fn of_files(path: PathBuf, files: Vec<PathBuf>) -> Result<Self, LoadError> {
        let mut entries = BTreeMap::new();
        for (index, path) in files.iter().enumerate() {
            let header = header::read_header(path).map_err(|e| LoadError::Checkpoint {
                path: path.clone(),
                problem: e.to_string(),
            })?;
            add(&mut entries, index, header);
        }
        Ok(Self { path, entries, bytes: Storage::Files(files) })
    }

    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self, LoadError> {
        let header = header::parse_header(bytes, bytes.len() as u64).map_err(|e| {
            LoadError::Checkpoint { path: path.to_path_buf(), problem: e.to_string() }
        })?;
        let mut entries = BTreeMap::new();
        add(&mut entries, 0, header);
        Ok(Self { path: path.to_path_buf(), entries, bytes: Storage::Embedded(bytes) })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The tensor's numbers as f32, in the file's order.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        let problem = |problem: String| LoadError::Checkpoint { path: self.path.clone(), problem };
        let entry = &self.entries[name];
        let bytes = self.bytes(entry)?;
        let floats: Vec<f32> = match entry.dtype {
            header::Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(array(b))).collect()
            }
            header::Dtype::F16 => {
                bytes.chunks_exact(2).map(|b| f16::from_le_bytes(array(b)).to_f32()).collect()
            }
            header::Dtype::BF16 => {
                bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(array(b)).to_f32()).collect()
            }
            header::Dtype::F64 => {
                bytes.chunks_exact(8).map(|b| f64::from_le_bytes(array(b)) as f32).collect()
            }
            other => return Err(problem(format!("tensor {name} is {other:?}, not a float"))),
        };
        if let Some(bad) = floats.iter().find(|x| !x.is_finite()) {
            return Err(problem(format!("tensor {name} holds {bad}: the weights are broken")));
        }
        Ok(floats)
    }

    fn bytes(&self, entry: &Entry) -> Result<Cow<'static, [u8]>, LoadError> {
        match &self.bytes {
            Storage::Embedded(bytes) => {
                let begin = entry.begin as usize;
                Ok(Cow::Borrowed(&bytes[begin..begin + entry.len]))
            }
            Storage::Files(files) => {
                let path = &files[entry.file];
                let read = || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(entry.begin))?;
                    let mut bytes = vec![0; entry.len];
                    file.read_exact(&mut bytes)?;
                    Ok(Cow::Owned(bytes))
                };
                read().map_err(|source| LoadError::Read { path: path.clone(), source })
            }
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("`chunks_exact` gives N bytes")
}

fn add(entries: &mut BTreeMap<String, Entry>, file: usize, header: header::Header) {
    for tensor in header.tensors {
        let entry = Entry {
            file,
            dtype: tensor.dtype,
            begin: header.data_start + tensor.begin,
            len: (tensor.end - tensor.begin) as usize,
            shape: tensor.shape,
        };
        // TensorFlow's names for a norm's parameters survive in old checkpoints.
        let name = tensor.name.replace(".gamma", ".weight").replace(".beta", ".bias");
        entries.insert(name, entry);
    }
}

/// What a checkpoint may hold beyond the model, and the model beyond the checkpoint.
pub struct Coverage<'a> {
    /// Tensors whose name contains one of these may stay unused.
    pub ignored: &'a [&'a str],
    /// Fields that begin with one of these may be absent, and keep their fresh weights.
    pub fresh: &'a [&'a str],
}

/// Fills every parameter of `model`; `name_of` gives a field's name in the checkpoint.
pub fn fill<M: Module>(
    model: M,
    weights: &Weights,
    coverage: &Coverage,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<M, LoadError> {
    let mut filler = Filler {
        at: Place::default(),
        weights,
        name_of,
        fresh: coverage.fresh,
        used: BTreeSet::new(),
        missing: vec![],
        error: None,
    };
    let model = model.map(&mut filler);
    let unused: Vec<String> = weights
        .names()
        .filter(|name| !filler.used.contains(*name))
        .filter(|name| !coverage.ignored.iter().any(|part| name.contains(part)))
        .filter(|name| {
            let norm = name.strip_suffix(BATCHES);
            !norm.is_some_and(|norm| filler.used.contains(&format!("{norm}running_var")))
        })
        .map(str::to_string)
        .collect();
    if let Some(error) = filler.error {
        return Err(error);
    }
    if !filler.missing.is_empty() || !unused.is_empty() {
        return Err(LoadError::Unmatched {
            path: weights.path.clone(),
            missing: filler.missing,
            unused,
        });
    }
    Ok(model)
}

/// What PyTorch's batch norm keeps beside its `running_var`: a count of batches, which no number here depends on.
const BATCHES: &str = "num_batches_tracked";

/// Where in the module a walk is: the field path and the kinds of struct around it.
#[derive(Default)]
struct Place {
    path: Vec<String>,
    kinds: Vec<String>,
}

impl Place {
    fn enter(&mut self, name: &str, kind: &str) {
        self.path.push(name.to_string());
        self.kinds.push(kind.to_string());
    }

    fn exit(&mut self) {
        self.path.pop();
        self.kinds.pop();
    }

    fn field(&self) -> String {
        self.path.join(".")
    }

    /// Whether PyTorch stores this parameter transposed.
    fn transposed<const D: usize>(&self) -> bool {
        D == 2 && self.kinds.last().is_some_and(|kind| kind == "Struct:Linear")
    }
}

struct Filler<'a, F> {
    at: Place,
    weights: &'a Weights,
    name_of: F,
    fresh: &'a [&'a str],
    used: BTreeSet<String>,
    missing: Vec<String>,
    error: Option<LoadError>,
}

impl<F: Fn(&str) -> Option<String>> ModuleMapper for Filler<'_, F> {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.at.enter(name, kind);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let field = self.at.field();
        let name = (self.name_of)(&field);
        let Some(name) = name.filter(|name| self.weights.entries.contains_key(name)) else {
            if !self.fresh.iter().any(|prefix| field.starts_with(prefix)) {
                self.missing.push((self.name_of)(&field).unwrap_or(field));
            }
            return param;
        };
        match self.tensor::<D>(&name, &param) {
            Ok(tensor) => {
                self.used.insert(name);
                let trains = tensor.device().is_autodiff();
                let tensor = if trains { tensor.require_grad() } else { tensor };
                Param::initialized(param.id, tensor)
            }
            Err(error) => {
                self.error.get_or_insert(error);
                param
            }
        }
    }
}

impl<F> Filler<'_, F> {
    fn tensor<const D: usize>(
        &self,
        name: &str,
        param: &Param<Tensor<D>>,
    ) -> Result<Tensor<D>, LoadError> {
        let found = self.weights.entries[name].shape.clone();
        let mut expected = param.lazy_shape().to_vec();
        if self.at.transposed::<D>() {
            expected.reverse();
        }
        if found != expected {
            let path = self.weights.path.clone();
            return Err(LoadError::Shape { path, tensor: name.to_string(), found, expected });
        }
        let device = param.lazy_device();
        let floats = match self.at.transposed::<D>() {
            true => transpose(&self.weights.floats(name)?, found[0], found[1]),
            false => self.weights.floats(name)?,
        };
        let shape = param.lazy_shape();
        Ok(Tensor::from_data(TensorData::new(floats, shape), &device))
    }
}

/// `[rows, columns]` -> `[columns, rows]`
fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| x[row * columns + column]));
    }
    out
}

/// Writes every parameter of `model` under the name that `name_of` gives its field.
///
/// The file appears whole or not at all: it is written beside, synced and renamed.
pub fn save<M: Module>(
    model: &M,
    path: &Path,
    dtype: SaveType,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    let mut collector =
        Collector { at: Place::default(), name_of, dtype, tensors: vec![], nameless: vec![] };
    model.visit(&mut collector);
    if !collector.nameless.is_empty() {
        return Err(LoadError::Unmatched {
            path: path.to_path_buf(),
            missing: collector.nameless,
            unused: vec![],
        });
    }
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    let bytes = safetensors::serialize(collector.tensors, metadata)
        .map_err(|e| LoadError::Checkpoint { path: path.to_path_buf(), problem: e.to_string() })?;
    write_atomically(path, &bytes)
        .map_err(|source| LoadError::Write { path: path.to_path_buf(), source })
}

/// Writes vectors of numbers by name; read back with [`Weights::floats`].
pub fn save_vectors<'a>(
    vectors: impl Iterator<Item = (String, &'a [f32])>,
    path: &Path,
) -> Result<(), LoadError> {
    let tensors = vectors.map(|(name, x)| {
        let bytes = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        (name, Saved { dtype: Dtype::F32, shape: vec![x.len()], bytes })
    });
    let bytes = safetensors::serialize(tensors, None)
        .map_err(|e| LoadError::Checkpoint { path: path.to_path_buf(), problem: e.to_string() })?;
    write_atomically(path, &bytes)
        .map_err(|source| LoadError::Write { path: path.to_path_buf(), source })
}

/// Temporary name, sync, rename, sync of the folder: after a kill the old file or the new one is there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

struct Collector<F> {
    at: Place,
    name_of: F,
    dtype: SaveType,
    tensors: Vec<(String, Saved)>,
    nameless: Vec<String>,
}

struct Saved {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Saved {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl<F: Fn(&str) -> Option<String>> ModuleVisitor for Collector<F> {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.at.enter(name, kind);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let field = self.at.field();
        let Some(name) = (self.name_of)(&field) else {
            self.nameless.push(field);
            return;
        };
        let data = param.val().into_data().convert_dtype(DType::F32);
        let mut shape = data.shape().to_vec();
        let mut floats = data.try_into_vec::<f32>().expect("just converted to f32");
        if self.at.transposed::<D>() {
            floats = transpose(&floats, shape[0], shape[1]);
            shape.reverse();
        }
        let (dtype, bytes) = match self.dtype {
            SaveType::F32 => (Dtype::F32, floats.iter().flat_map(|x| x.to_le_bytes()).collect()),
            SaveType::F16 => {
                (Dtype::F16, floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect())
            }
            SaveType::Bf16 => (
                Dtype::BF16,
                floats.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            ),
        };
        if let Some(norm) = name.strip_suffix("running_var") {
            let bytes = 0i64.to_le_bytes().to_vec();
            let count = Saved { dtype: Dtype::I64, shape: vec![], bytes };
            self.tensors.push((format!("{norm}{BATCHES}"), count));
        }
        self.tensors.push((name, Saved { dtype, shape, bytes }));
    }
}
