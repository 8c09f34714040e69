//! Tensors of weight files into a module, and back.
//!
//! Format: <https://huggingface.co/docs/safetensors>. PyTorch stores a linear layer as
//! `[output, input]`, Burn as `[input, output]`: two-dimensional weights of `Linear` are transposed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs::File,
    io::Write,
    ops::Deref,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    prelude::*,
    tensor::{DType, TensorData, bf16},
};
use firebrick_kernels::{
    conv::levels,
    quantised::{Format, Packed},
};
use memmap2::Mmap;

use super::{
    LoadError,
    decode::{self, Decoded, Order},
    folder, header,
    lora::Overlay,
    quantise::{self, Plan, Rounding},
    sparse,
    window::WeightFile,
    write::{Planned, SHARD_LIMIT, Writer, sync_folder},
};
use crate::layers::{fused, moments, split::Split};

/// Numbers that are taken off a device at a time.
const SAVED_AT_ONCE: usize = 1 << 20;

/// Number type that weights are written in.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum SaveType {
    #[default]
    F32,
    F16,
    Bf16,
    /// Matrices as whole numbers with scales, the rest in f32.
    Quantised(Plan),
    /// With this share of the weights set to zero, [`sparse::pruned`].
    Sparse(f64, Box<Self>),
}

/// Tensors by name, read one at a time and a block at a time: beside what is returned, a few MiB.
pub struct Weights {
    /// File to name in messages.
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    bytes: Storage,
    /// An adapter over them.
    overlay: Option<Overlay>,
}

#[derive(Clone)]
struct Entry {
    file: usize,
    dtype: header::Dtype,
    shape: Vec<usize>,
    /// Bytes from the start of the file.
    begin: u64,
    end: u64,
    strides: Option<Vec<usize>>,
    /// Of a matrix `[O, I]` that lies in the file as levels: how, and where its scales are.
    levels: Option<Box<(Format, Entry)>>,
}

enum Storage {
    Files(Vec<WeightFile>),
    Embedded(&'static [u8]),
}

/// Some bytes of a tensor.
enum Window {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

impl Weights {
    /// `model.safetensors` or `pytorch_model.bin`, or the shards that an index of theirs names.
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

    /// One file of weights by its path; `model.safetensors` may be in shards.
    pub fn open_file(path: &Path) -> Result<Self, LoadError> {
        let sharded = path.file_name().is_some_and(|name| name == "model.safetensors");
        if sharded && !path.exists() {
            return Self::open(path.parent().unwrap_or(Path::new(".")));
        }
        Self::of_files(path.to_path_buf(), vec![path.to_path_buf()])
    }

    fn of_files(path: PathBuf, files: Vec<PathBuf>) -> Result<Self, LoadError> {
        let mut entries = BTreeMap::new();
        let mut opened = vec![];
        for (index, path) in files.iter().enumerate() {
            let header = header::read_header(path).map_err(|e| LoadError::Checkpoint {
                path: path.clone(),
                problem: e.to_string(),
            })?;
            add(&mut entries, index, header);
            let file = WeightFile::open(path)
                .map_err(|source| LoadError::Read { path: path.clone(), source })?;
            opened.push(file);
        }
        Self { path, entries, bytes: Storage::Files(opened), overlay: None }.join_quantised()
    }

    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self, LoadError> {
        let header = header::parse_header(bytes, bytes.len() as u64).map_err(|e| {
            LoadError::Checkpoint { path: path.to_path_buf(), problem: e.to_string() }
        })?;
        let mut entries = BTreeMap::new();
        add(&mut entries, 0, header);
        let (path, bytes) = (path.to_path_buf(), Storage::Embedded(bytes));
        Self { path, entries, bytes, overlay: None }.join_quantised()
    }

    /// Levels, scales and shape of a quantised matrix are one tensor from here on.
    fn join_quantised(mut self) -> Result<Self, LoadError> {
        let scales = self.entries.keys().filter_map(|name| name.strip_suffix("_scale"));
        let names: Vec<String> = scales.map(str::to_string).collect();
        for name in names {
            let [scale, packed, shape] =
                ["_scale", "_packed", "_shape"].map(|suffix| format!("{name}{suffix}"));
            let scales = self.entries[&scale].clone();
            let joined = match (self.entries.get(&name), self.entries.get(&packed)) {
                (Some(levels), None) if levels.dtype == header::Dtype::I8 => {
                    int8(levels.clone(), scales)
                }
                (None, Some(levels)) if levels.dtype == header::Dtype::I32 => {
                    let shape = self.entries.get(&shape).cloned();
                    let shape = shape.map(|shape| self.integers(&shape)).transpose()?;
                    int4(levels.clone(), scales, shape)
                }
                // A float called so, or the half of something that the model will miss.
                _ => continue,
            };
            let joined = joined.map_err(|problem| LoadError::Checkpoint {
                path: self.path.clone(),
                problem: format!("tensor {name}: {problem}"),
            })?;
            for part in [scale, packed, shape] {
                self.entries.remove(&part);
            }
            self.entries.insert(name, joined);
        }
        Ok(self)
    }

    /// A few whole numbers.
    fn integers(&self, entry: &Entry) -> Result<Vec<i64>, LoadError> {
        if entry.dtype != header::Dtype::I64 || entry.shape != [2] {
            return Ok(vec![]);
        }
        let bytes = self.window(entry, 0, 16)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    /// The same weights with an adapter's products added, and its own tensors in place of theirs.
    pub fn with_adapter(mut self, overlay: Overlay) -> Result<Self, LoadError> {
        if let Some(prefix) = overlay.prefix(&self) {
            let entries = self.entries.into_iter();
            self.entries = entries.map(|(name, entry)| (prefix.clone() + &name, entry)).collect();
        }
        overlay.check(&self)?;
        for (name, factor) in &overlay.whole {
            let entry = Entry {
                file: 0,
                dtype: header::Dtype::F32,
                shape: factor.shape.clone(),
                begin: 0,
                end: 0,
                strides: None,
                levels: None,
            };
            self.entries.insert(name.clone(), entry);
        }
        self.overlay = Some(overlay);
        Ok(self)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The tensor's numbers as f32, in the file's order.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        self.adapted(name, Order::Flat)
    }

    /// [`Self::decode`], and what an adapter makes of it.
    fn adapted(&self, name: &str, order: Order) -> Result<Vec<f32>, LoadError> {
        let Some(overlay) = &self.overlay else { return self.decode(name, order) };
        let floats = match overlay.whole.get(name) {
            Some(factor) => factor.floats.clone(),
            None => {
                let mut floats = self.decode(name, Order::Flat)?;
                overlay.apply(name, &mut floats);
                floats
            }
        };
        Ok(match order {
            Order::Flat => floats,
            Order::Transposed { .. } => turned(bytemuck::cast_slice(&floats), order),
        })
    }

    fn decode(&self, name: &str, order: Order) -> Result<Vec<f32>, LoadError> {
        match self.packed(name)? {
            Some(packed) => {
                let floats = Packed::new(&packed).floats();
                Ok(match order {
                    Order::Flat => floats,
                    Order::Transposed { .. } => turned(bytemuck::cast_slice(&floats), order),
                })
            }
            None => self.decode_entry(name, &self.entries[name], order),
        }
    }

    /// The matrix of this name in the order of our kernels, if it lies in the file as levels.
    fn packed(&self, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
        let entry = &self.entries[name];
        let Some((format, scales)) = entry.levels.as_deref() else { return Ok(None) };
        let [outputs, inputs] = [entry.shape[0], entry.shape[1..].iter().product()];
        let scales = self.decode_entry(name, scales, Order::Flat)?;
        let bytes = self.window(entry, 0, (entry.end - entry.begin) as usize)?;
        let packed = match format {
            Format::Int8 => {
                Packed::pack(*format, [inputs, outputs], bytemuck::cast_slice(&bytes), &scales)
            }
            Format::Int4 { .. } => {
                let levels = quantise::unpack_halves(&bytes, [outputs, inputs]);
                Packed::pack(*format, [inputs, outputs], &levels, &scales)
            }
        };
        Ok(Some(packed))
    }

    /// As [`Self::packed`], of the weight of a convolution; `None` also where one of floats is faster.
    fn convolved(&self, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
        let entry = &self.entries[name];
        let (Some((Format::Int8, scales)), [outputs, channels, taps @ ..]) =
            (entry.levels.as_deref(), &entry.shape[..])
        else {
            return Ok(None);
        };
        let sizes @ [_, _, taps] = [*outputs, *channels, taps.iter().product()];
        if *channels < quantise::CONVOLVED || channels.next_multiple_of(4) * taps > levels::MOST {
            return Ok(None);
        }
        let scales = self.decode_entry(name, scales, Order::Flat)?;
        let bytes = self.window(entry, 0, (entry.end - entry.begin) as usize)?;
        Ok(Some(levels::pack(sizes, bytemuck::cast_slice(&bytes), &scales)))
    }

    fn decode_entry(&self, name: &str, entry: &Entry, order: Order) -> Result<Vec<f32>, LoadError> {
        let count = entry.shape.iter().product();
        let decoded = match &entry.strides {
            None => {
                let bytes = |begin, len| self.window(entry, begin, len);
                decode::decode(entry.dtype, count, order, bytes)
            }
            Some(strides) => {
                let bytes = self.window(entry, 0, (entry.end - entry.begin) as usize)?;
                let bytes = decode::gather(&bytes, entry.dtype.size(), &entry.shape, strides);
                let part = |begin, len| Ok(&bytes[begin..begin + len]);
                decode::decode(entry.dtype, count, order, part)
            }
        };
        match decoded {
            Some(decoded) => self.finite(name, decoded?),
            None => Err(LoadError::Checkpoint {
                path: self.path.clone(),
                problem: format!("tensor {name} is {:?}, not a float", entry.dtype),
            }),
        }
    }

    fn finite<T>(&self, name: &str, decoded: Decoded<T>) -> Result<Vec<T>, LoadError> {
        match decoded.bad {
            None => Ok(decoded.numbers),
            Some(bad) => Err(LoadError::Checkpoint {
                path: self.path.clone(),
                problem: format!("tensor {name} holds {bad}: the weights are broken"),
            }),
        }
    }

    /// The numbers of a tensor that lies in the file as bf16, row by row, and that no adapter changes.
    fn bf16s(&self, name: &str) -> Result<Option<Vec<bf16>>, LoadError> {
        let entry = &self.entries[name];
        if entry.dtype != header::Dtype::BF16 || entry.strides.is_some() || self.overlay.is_some() {
            return Ok(None);
        }
        let bytes = |begin, len| self.window(entry, begin, len);
        let decoded = decode::bf16s(entry.shape.iter().product(), bytes)?;
        self.finite(name, decoded).map(Some)
    }

    /// Which of several names for one tensor the file uses: the first that it holds. Where it holds more, they must
    /// be equal.
    pub fn one_of<'a>(&self, names: &[&'a str]) -> Result<&'a str, LoadError> {
        let mut held = names.iter().copied().filter(|name| self.shape(name).is_some());
        let Some(first) = held.next() else { return Ok(names[0]) };
        for other in held {
            if !self.equal(first, other)? {
                let problem =
                    format!("tensors {first} and {other} differ, but the model ties them");
                return Err(LoadError::Checkpoint { path: self.path.clone(), problem });
            }
        }
        Ok(first)
    }

    /// Whether two tensors of the file hold the same numbers.
    pub fn equal(&self, one: &str, other: &str) -> Result<bool, LoadError> {
        Ok(self.shape(one) == self.shape(other) && self.floats(one)? == self.floats(other)?)
    }

    /// Some of a tensor's bytes.
    fn window(&self, entry: &Entry, begin: usize, len: usize) -> Result<Window, LoadError> {
        match &self.bytes {
            Storage::Embedded(bytes) => {
                let begin = entry.begin as usize + begin;
                Ok(Window::Embedded(&bytes[begin..begin + len]))
            }
            Storage::Files(files) => {
                let file = &files[entry.file];
                let map = file.window(entry.begin + begin as u64, len);
                map.map(Window::Mapped)
                    .map_err(|source| LoadError::Read { path: file.path.clone(), source })
            }
        }
    }
}

fn add(entries: &mut BTreeMap<String, Entry>, file: usize, header: header::Header) {
    for tensor in header.tensors {
        let entry = Entry {
            file,
            dtype: tensor.dtype,
            begin: header.data_start + tensor.begin,
            end: header.data_start + tensor.end,
            strides: tensor.strides,
            shape: tensor.shape,
            levels: None,
        };
        // TensorFlow's names for a norm's parameters survive in old checkpoints.
        let name = tensor.name.replace(".gamma", ".weight").replace(".beta", ".bias");
        entries.insert(name, entry);
    }
}

/// Levels with a scale a row: of a matrix, or of the outputs of a convolution.
fn int8(levels: Entry, scales: Entry) -> Result<Entry, String> {
    let fits = match (levels.shape.as_slice(), scales.shape.as_slice()) {
        ([rows, _, ..], [count, ones @ ..]) => rows == count && ones.iter().all(|one| *one == 1),
        _ => false,
    };
    match fits && levels.strides.is_none() {
        true => Ok(Entry { levels: Some(Box::new((Format::Int8, scales))), ..levels }),
        false => Err(format!("levels {:?} and scales {:?} do not fit", levels.shape, scales.shape)),
    }
}

/// A matrix of this shape, eight levels in a word, with a scale for each row and group.
fn int4(words: Entry, scales: Entry, shape: Option<Vec<i64>>) -> Result<Entry, String> {
    let sizes = shape.iter().flatten().filter_map(|size| usize::try_from(*size).ok());
    let shape: Vec<usize> = sizes.collect();
    let group = match (shape.as_slice(), words.shape.as_slice(), scales.shape.as_slice()) {
        ([o, i], [rows, columns], [count, groups])
            if o == rows && o == count && i.div_ceil(8) == *columns && *groups > 0 =>
        {
            (i % groups == 0).then(|| i / groups)
        }
        _ => None,
    };
    match group.filter(|group| *group > 0 && group.is_multiple_of(8) && words.strides.is_none()) {
        Some(group) => {
            let levels = Some(Box::new((Format::Int4 { group }, scales)));
            Ok(Entry { levels, shape, ..words })
        }
        None => Err(format!(
            "words {:?}, scales {:?} and shape {shape:?} do not fit; groups must be of 8, 16, .. inputs",
            words.shape, scales.shape
        )),
    }
}

/// f32 numbers that are in memory, in another order.
pub(super) fn turned(bytes: &[u8], order: Order) -> Vec<f32> {
    let part = |begin, len| Ok::<_, Infallible>(&bytes[begin..begin + len]);
    let decoded = decode::decode(header::Dtype::F32, bytes.len() / 4, order, part);
    let Ok(turned) = decoded.expect("f32 can be decoded");
    turned.numbers
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
    fill_part(model, weights, coverage, &Split::default(), name_of)
}

/// As [`fill`], of this member's part of a model; the checkpoint holds all of it.
pub fn fill_part<M: Module>(
    model: M,
    weights: &Weights,
    coverage: &Coverage,
    split: &Split,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<M, LoadError> {
    let mut filler = Filler {
        at: Place::default(),
        weights,
        name_of,
        fresh: coverage.fresh,
        split,
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
pub(super) struct Place {
    path: Vec<String>,
    kinds: Vec<String>,
}

impl Place {
    pub(super) fn enter(&mut self, name: &str, kind: &str) {
        self.path.push(name.to_string());
        self.kinds.push(kind.to_string());
    }

    pub(super) fn exit(&mut self) {
        self.path.pop();
        self.kinds.pop();
    }

    pub(super) fn field(&self) -> String {
        self.path.join(".")
    }

    /// Whether PyTorch stores this parameter transposed.
    fn transposed<const D: usize>(&self) -> bool {
        let turned = ["Struct:Linear", "Struct:LoraAdapter"];
        D == 2 && self.kinds.last().is_some_and(|kind| turned.contains(&kind.as_str()))
    }

    /// Whether this is a weight that only [`crate::layers::linear`] reads.
    pub(super) fn factor<const D: usize>(&self) -> bool {
        let linear = ["Struct:Linear", "Struct:Conv1D"];
        D == 2 && self.kinds.last().is_some_and(|kind| linear.contains(&kind.as_str()))
    }

    /// Whether this weight meets one token at a time, so that memory is what it waits for: its columns then lie in one
    /// piece each, which is read faster. Many rows at once, as a translator's, would be slower for it.
    fn streams<const D: usize>(&self) -> bool {
        let inside = |kind: &str| self.kinds.iter().any(|other| other == kind);
        let whisper = || inside("Struct:Whisper") && self.path.iter().any(|name| name == "decoder");
        self.factor::<D>() && (inside("Struct:Gpt2") || inside("Struct:Llama") || whisper())
    }

    /// Whether this is a weight that our kernels read packed, or in bf16: a linear layer's, or a table.
    fn packs<const D: usize>(&self) -> bool {
        let table = self.kinds.last().is_some_and(|kind| kind == "Struct:Embedding");
        self.factor::<D>() || D == 2 && table
    }

    /// Whether this is the weight of a convolution.
    fn convolves<const D: usize>(&self) -> bool {
        let convolutions = ["Struct:Conv1d", "Struct:Conv2d"];
        D > 2 && self.kinds.last().is_some_and(|kind| convolutions.contains(&kind.as_str()))
    }

    /// Whether these are weights, and not what else a model learns: a matrix, or those of a convolution.
    pub(super) fn weight<const D: usize>(&self) -> bool {
        (D == 2 || self.convolves::<D>())
            && self.path.last().is_some_and(|name| name.starts_with("weight"))
    }

    /// Whether these are weights that something is multiplied by, and no table that rows are read from.
    pub(super) fn multiplies<const D: usize>(&self) -> bool {
        self.weight::<D>() && self.kinds.last().is_some_and(|kind| kind != "Struct:Embedding")
    }

    /// Whether PyTorch stores this parameter without an axis.
    fn scalar(&self) -> bool {
        self.kinds.last().is_some_and(|kind| kind == "Struct:Scalar")
    }
}

struct Filler<'a, F> {
    at: Place,
    weights: &'a Weights,
    name_of: F,
    fresh: &'a [&'a str],
    split: &'a Split,
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
                let id = param.id;
                moments::loaded(id, &name);
                self.used.insert(name);
                param.transform_for_load(tensor, id) // what is frozen stays so
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
        let field = self.at.field();
        let whole = self.split.whole_shape(&field, param.lazy_shape().to_vec());
        let mut expected = whole.clone();
        // Levels are always `[O, I]`.
        let quantised = self.weights.entries[name].levels.is_some();
        let turned = self.at.transposed::<D>() || quantised && self.at.factor::<D>();
        if turned {
            expected.reverse();
        }
        if self.at.scalar() {
            expected.clear();
        }
        if found != expected {
            let path = self.weights.path.clone();
            return Err(LoadError::Shape { path, tensor: name.to_string(), found, expected });
        }
        let device = param.lazy_device();
        if quantised && self.split.is_whole() && self.weights.overlay.is_none() {
            let packed = if self.at.packs::<D>() && fused::reads_packed(&device) {
                self.weights.packed(name)?
            } else if self.at.convolves::<D>() && fused::convolves_packed(&device) {
                self.weights.convolved(name)?
            } else {
                None
            };
            if let Some(packed) = packed {
                let shape = whole.try_into().expect("a size for each axis");
                return Ok(fused::packed::<D>(packed, shape, &device));
            }
        }
        // Half the memory, and half to read for every token; the products are those of the same numbers as f32.
        if self.split.is_whole()
            && self.at.packs::<D>()
            && fused::reads_bf16(&device)
            && let Some(numbers) = self.weights.bf16s(name)?
        {
            let weight = Tensor::from_data(TensorData::new(numbers, found), (&device, DType::BF16));
            return Ok(if self.at.transposed::<D>() { weight.transpose() } else { weight });
        }
        let streams = self.at.streams::<D>() && self.split.is_whole() && fused::reads_bf16(&device);
        let order = match turned != streams {
            true => Order::Transposed { rows: found[0], columns: found[1] },
            false => Order::Flat,
        };
        let floats = self.split.part(&field, self.weights.adapted(name, order)?, &whole);
        let mut shape = param.lazy_shape();
        if streams {
            shape = shape.swapped(0, 1).expect("two axes");
        }
        let weight = Tensor::from_data(TensorData::new(floats, shape), &device);
        Ok(if streams { weight.transpose() } else { weight })
    }
}

/// Writes every parameter of `model` under the name that `name_of` gives its field.
///
/// The file appears whole or not at all: it is written beside, synced and renamed. Above 5 GB there are
/// several with an index, as [`save_sharded`] says.
pub fn save<M: Module>(
    model: &M,
    path: &Path,
    dtype: SaveType,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    save_sharded(model, path, dtype, SHARD_LIMIT, name_of)
}

/// As [`save`], with at most `limit` bytes of tensors in a file: `model.safetensors` becomes
/// `model-00001-of-00002.safetensors`, .. and `model.safetensors.index.json`.
pub fn save_sharded<M: Module>(
    model: &M,
    path: &Path,
    dtype: SaveType,
    limit: u64,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    if let SaveType::Sparse(share, dtype) = dtype {
        return save_sharded(&sparse::pruned(model.clone(), share), path, *dtype, limit, name_of);
    }
    let mut planner = Planner::new(&name_of, dtype);
    model.visit(&mut planner);
    if !planner.nameless.is_empty() {
        return Err(LoadError::Unmatched {
            path: path.to_path_buf(),
            missing: planner.nameless,
            unused: vec![],
        });
    }
    planner.write(model, path, limit)
}

/// As [`save`] in f32, of a model that several processes hold. All of them call this, and the first one writes: a
/// tensor is put together when its turn comes, so that none ever has the whole model.
pub fn save_joined<M: Module>(
    model: &M,
    path: &Path,
    split: &Split,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    let mut planner = Planner { split: split.clone(), ..Planner::new(&name_of, SaveType::F32) };
    model.visit(&mut planner);
    planner.write(model, path, SHARD_LIMIT)
}

/// As [`save`], of the parameters that have a name, in one file.
pub(super) fn save_named<M: Module>(
    model: &M,
    path: &Path,
    dtype: SaveType,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    let mut planner = Planner::new(&name_of, dtype);
    model.visit(&mut planner);
    planner.write(model, path, u64::MAX)
}

/// Writes the tensors of a checkpoint under the names that `name_of` gives them; those without one are left out.
pub fn rename(
    weights: &Weights,
    path: &Path,
    dtype: SaveType,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    let kept: Vec<(&str, Planned)> = weights
        .names()
        .filter_map(|name| {
            let shape = weights.entries[name].shape.clone();
            Some((name, Planned::floats(name_of(name)?, shape)))
        })
        .collect();
    let (names, plan): (Vec<&str>, _) = kept.into_iter().unzip();
    let mut writer = Writer::new(path, SHARD_LIMIT, &dtype, plan)?;
    let failed = |source| LoadError::Write { path: path.to_path_buf(), source };
    for name in names {
        writer.put(&weights.floats(name)?).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

/// Writes vectors of numbers by name, each with its length; read back with [`Weights::floats`]. They are asked for in
/// this order, one at a time.
pub fn save_vectors<'a>(
    vectors: Vec<(String, usize)>,
    path: &Path,
    numbers: impl FnMut(&str) -> std::io::Result<Cow<'a, [f32]>>,
) -> Result<(), LoadError> {
    let names: Vec<String> = vectors.iter().map(|(name, _)| name.clone()).collect();
    let plan = vectors.into_iter().map(|(name, length)| Planned::floats(name, vec![length]));
    let mut writer = Writer::new(path, u64::MAX, &SaveType::F32, plan.collect())?;
    let mut vectors = names.iter().map(String::as_str).map(numbers);
    let written = vectors.try_for_each(|x| writer.put(&x?));
    written
        .and_then(|()| writer.finish())
        .map_err(|source| LoadError::Write { path: path.to_path_buf(), source })
}

/// Temporary name, sync, rename, sync of the folder: after a kill the old file or the new one is there. A link's target is
/// written, not the link, and what is no file, as a device or a pipe, as it is.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let target = match std::fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            return File::options().write(true).open(path)?.write_all(bytes);
        }
        Ok(_) => path.canonicalize()?,
        Err(_) => path.to_path_buf(), // what is wrong with it is found below
    };
    // Always the same name, so that kills leave one at most; hidden, so that it is no one else's.
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".firebrick.tmp");
    let temporary = target.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })?;
    sync_folder(&target)
}

/// What [`save`] will write.
struct Planner<F> {
    at: Place,
    name_of: F,
    dtype: SaveType,
    split: Split,
    /// Of batch norms; they go first.
    counts: Vec<Planned>,
    plan: Vec<Planned>,
    /// Of the parameters with a name: what they become if not floats.
    roundings: Vec<Option<Rounding>>,
    nameless: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Planner<F> {
    fn new(name_of: F, dtype: SaveType) -> Self {
        let (at, split, counts, plan, roundings, nameless) = Default::default();
        Self { at, name_of, dtype, split, counts, plan, roundings, nameless }
    }

    /// Goes through the model once more, for the numbers.
    fn write<M: Module>(self, model: &M, path: &Path, limit: u64) -> Result<(), LoadError> {
        let failed = |source| LoadError::Write { path: path.to_path_buf(), source };
        let counts = self.counts.len();
        let plan = self.counts.into_iter().chain(self.plan).collect();
        let mut writer = match self.split.rank() {
            0 => Some(Writer::new(path, limit, &self.dtype, plan)?),
            _ => None,
        };
        let mut zeros = (0..counts).map(|_| writer.as_mut().map_or(Ok(()), |w| w.put(&[0.0])));
        zeros.try_for_each(|put| put).map_err(failed)?;
        let (at, skipped, split) = (Place::default(), self.nameless, self.split);
        let roundings = self.roundings.into_iter();
        let mut collector = Collector { at, skipped, split, roundings, writer, result: Ok(()) };
        model.visit(&mut collector);
        let finish = || collector.writer.map_or(Ok(()), Writer::finish);
        collector.result.and_then(|()| finish()).map_err(failed)
    }
}

impl<F: Fn(&str) -> Option<String>> ModuleVisitor for Planner<F> {
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
        let mut shape = self.split.whole_shape(&field, param.lazy_shape().to_vec());
        if self.at.transposed::<D>() {
            shape.reverse();
        }
        if self.at.scalar() {
            shape.clear();
        }
        if let Some(norm) = name.strip_suffix("running_var") {
            let (name, dtype) = (format!("{norm}{BATCHES}"), Some(header::Dtype::I64));
            let count = Planned { name, shape: vec![], dtype };
            self.counts.push(count);
        }
        if let SaveType::Quantised(plan) = &self.dtype
            && self.at.weight::<D>()
        {
            let mut shape = shape.clone();
            if self.at.factor::<D>() && !self.at.transposed::<D>() {
                shape.reverse();
            }
            let sizes = [shape[0], shape[1..].iter().product()];
            if let Some(rounding) = plan.rounding(&name, self.at.factor::<D>(), sizes) {
                self.plan.extend(quantise::planned(&name, rounding.format, &shape));
                self.roundings.push(Some(rounding));
                return;
            }
        }
        self.roundings.push(None);
        self.plan.push(Planned::floats(name, shape));
    }
}

/// Writes the numbers, in the order of the plan.
struct Collector {
    at: Place,
    /// Fields that are not in the plan.
    skipped: Vec<String>,
    split: Split,
    roundings: std::vec::IntoIter<Option<Rounding>>,
    /// `None` where another process writes.
    writer: Option<Writer>,
    result: std::io::Result<()>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.at.enter(name, kind);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let field = self.at.field();
        if self.skipped.contains(&field) {
            return;
        }
        let rounding = self.roundings.next().expect("as many as in the plan");
        let mut tensor = param.val();
        // Whatever became of the file: the others wait.
        if self.split.axis(&field).is_some() {
            match self.split.join_tensor(&field, tensor) {
                Ok(whole) => tensor = whole,
                Err(lost) => {
                    self.result = Err(std::io::Error::other(lost));
                    return;
                }
            }
        }
        if let Some(writer) = self.writer.as_mut().filter(|_| self.result.is_ok()) {
            self.result = match rounding {
                Some(rounding) => put_quantised(writer, by_output(tensor, &self.at), &rounding),
                // Its numbers are `[O, I]` already, the order of all files but GPT-2's.
                None if fused::is_packed(&tensor) => {
                    let turned = self.at.factor::<D>() && !self.at.transposed::<D>();
                    put(writer, fused::unpacked(tensor), turned)
                }
                None => put(writer, tensor, self.at.transposed::<D>()),
            };
        }
    }
}

/// The numbers of a matrix as `[O, I]`; a convolution's inputs are all that an output is made of.
fn by_output<const D: usize>(tensor: Tensor<D>, at: &Place) -> Tensor<2> {
    if fused::is_packed(&tensor) {
        return fused::unpacked(tensor);
    }
    let [outputs, count] = [tensor.dims()[0], tensor.shape().num_elements()];
    let tensor: Tensor<2> = tensor.reshape([outputs, count / outputs.max(1)]);
    if at.factor::<D>() { tensor.transpose() } else { tensor }
}

/// Rounds a matrix `[O, I]` to levels.
fn put_quantised(
    writer: &mut Writer,
    matrix: Tensor<2>,
    rounding: &Rounding,
) -> std::io::Result<()> {
    let [_, inputs] = matrix.dims();
    let data = matrix.detach().into_data().convert_dtype(DType::F32);
    let floats = data.as_slice::<f32>().expect("just converted to f32");
    let tensors = rounding.encode(floats, inputs);
    tensors.iter().try_for_each(|bytes| writer.put_bytes(bytes))
}

/// Takes the tensor off its device some rows of the file at a time: a vocabulary's table is a
/// fifth of a small model.
fn put<const D: usize>(
    writer: &mut Writer,
    tensor: Tensor<D>,
    transposed: bool,
) -> std::io::Result<()> {
    let tensor = tensor.detach();
    let axis = usize::from(transposed);
    let rows = tensor.dims()[axis];
    let count = tensor.shape().num_elements();
    if count == 0 {
        return writer.put(&[]);
    }
    let step = (SAVED_AT_ONCE * rows / count).max(1);
    for row in (0..rows).step_by(step) {
        let part = tensor.clone().slice_dim(axis, row..rows.min(row + step));
        let data = part.into_data().convert_dtype(DType::F32);
        if transposed {
            let order = Order::Transposed { rows: data.shape()[0], columns: data.shape()[1] };
            writer.put(&turned(data.as_bytes(), order))?;
        } else {
            writer.put(data.as_slice::<f32>().expect("just converted to f32"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::LinearConfig,
        tensor::{Distribution, Tolerance},
    };

    use super::*;
    use crate::layers::linear::Linear;

    #[test]
    fn shards_fill_the_model_that_they_were_saved_from() {
        let device = Device::flex();
        // Larger than what is taken off the device at a time.
        let linear = || LinearConfig::new(300, 5001).init(&device);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let name = |field: &str| Some(format!("layer.{field}"));
        let saved = linear();
        save_sharded(&saved, &path, SaveType::F32, 5001 * 4, name).unwrap();
        assert!(dir.path().join("model-00002-of-00002.safetensors").exists());
        for weights in [Weights::open(dir.path()).unwrap(), Weights::open_file(&path).unwrap()] {
            assert_eq!(weights.shape("layer.weight"), Some(&[5001, 300][..]));
            let all = Coverage { ignored: &[], fresh: &[] };
            let loaded = fill(linear(), &weights, &all, name).unwrap();
            assert_eq!(loaded.weight.val().into_data(), saved.weight.val().into_data());
        }
    }

    #[test]
    fn a_linear_layer_keeps_bf16_and_says_the_same() {
        let device = Device::flex();
        let linear = |device: &Device| Linear::new(40, 30, 1.0, device);
        let dir = tempfile::tempdir().unwrap();
        let [path, again] = ["one", "two"].map(|name| dir.path().join(name));
        let name = |field: &str| Some(field.to_string());
        save(&linear(&device), &path, SaveType::Bf16, name).unwrap();
        let weights = Weights::open_file(&path).unwrap();
        assert!(weights.bf16s("weight").unwrap().is_some());
        let all = Coverage { ignored: &[], fresh: &[] };
        let load = |device: &Device| fill(linear(device), &weights, &all, name).unwrap();
        let (kept, trained) = (load(&device), load(&device.clone().autodiff()).valid());
        for rows in [1, 20] {
            let x = Tensor::<2>::random([rows, 40], Distribution::Normal(0.0, 1.0), &device);
            let [y, expected] = [&kept, &trained].map(|layer| layer.forward(x.clone()).into_data());
            y.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
        }
        save(&kept, &again, SaveType::Bf16, name).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(again).unwrap());
    }
}
