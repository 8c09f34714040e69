//! The table of tensors of a PyTorch file (`pytorch_model.bin`), read without running anything.
//!
//! `torch.save` since 1.6 writes a zip archive of uncompressed entries: `data.pkl` says which tensor
//! is which part of which storage, `data/0`, `data/1`, .. are the storages. A pickle is a program for
//! a stack machine that may name any function of Python; the machine here knows the few operations and
//! names that a table of tensors is made of, and a file with another one is refused by that name.
//!
//! The crate `pytorch-reader` of burn-store was looked at first: it takes a call of `os.system` for a
//! value that it leaves out, and holds whatever a pickle of 100 MiB unfolds to.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    header::{Dtype, Header, RANK_LIMIT, TensorInfo},
    json::quoted,
};

/// The table of the largest models takes a few MB.
const PICKLE_LIMIT: u64 = 32 << 20;

/// A tensor takes some 40; what they leave in memory is at most 200 MB.
const STEP_LIMIT: usize = 4_000_000;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchProblem {
    #[error("cannot be read: {0}")]
    Read(std::io::Error),

    #[error("is not a sound zip archive: {0}")]
    Zip(ZipError),

    #[error("the archive holds {0} entries data.pkl, not one")]
    Tables(usize),

    #[error("the archive's entry {} {problem}", quoted(name))]
    Entry { name: String, problem: String },

    #[error(
        "the pickle in it names {}, which is not part of a table of tensors; nothing was run. \
         Convert it to safetensors where it was made",
        quoted(.0)
    )]
    Name(String),

    #[error(
        "the pickle in it has operation {code:#04x} at byte {at}, which no table of tensors has"
    )]
    Operation { code: u8, at: usize },

    #[error("the pickle in it takes more than {STEP_LIMIT} steps")]
    TooLong,

    #[error("the pickle in it ends too early")]
    Truncated,

    #[error("the pickle in it is broken at byte {at}: {problem}")]
    Broken { problem: &'static str, at: usize },

    #[error("the pickle in it is not a table of tensors but {0}")]
    NotATable(&'static str),

    #[error("tensor {}: {problem}", quoted(name))]
    Tensor { name: String, problem: String },
}

/// Whether a file that begins so is a PyTorch archive, by its name; other zip archives are not.
pub(super) fn is_archive(start: &[u8], path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    start.starts_with(b"PK\x03\x04")
        && ["bin", "pt", "pth", "ckpt"].contains(&extension.to_ascii_lowercase().as_str())
}

/// Tensors in the order of the table; their bytes may overlap, as tied weights do.
pub(super) fn read_header(path: &Path) -> Result<Header, TorchProblem> {
    let file = File::open(path).map_err(TorchProblem::Read)?;
    let len = file.metadata().map_err(TorchProblem::Read)?.len();
    let mut archive = Archive::open(file, len)?;
    let pickle = archive.read("data.pkl", PICKLE_LIMIT)?;
    if archive.has("byteorder") && archive.read("byteorder", 64)? != b"little" {
        let (name, problem) = ("byteorder".into(), "does not say `little`".into());
        return Err(TorchProblem::Entry { name, problem });
    }
    let mut machine = Machine::new(&pickle);
    let table = machine.run()?;
    let mut tensors = Vec::with_capacity(machine.dicts[table].len());
    let mut names = HashSet::new();
    for (key, value) in &machine.dicts[table] {
        let Value::Text(key) = key else {
            return Err(TorchProblem::NotATable("one without names"));
        };
        let name = machine.text(*key)?.to_string();
        let problem = |problem: String| TorchProblem::Tensor { name: name.clone(), problem };
        let Value::Tensor(index) = value else {
            return Err(problem(format!("is {}, not a tensor", value.kind())));
        };
        if !names.insert(name.clone()) {
            return Err(problem("is there twice".into()));
        }
        let tensor = &machine.tensors[*index];
        let storage = &machine.storages[tensor.storage];
        let layout = tensor.layout(storage).map_err(problem)?;
        let key = machine.text(storage.key)?;
        let start = archive.storage(&format!("data/{key}"), storage.bytes())?;
        let size = storage.dtype.size() as u64;
        tensors.push(TensorInfo {
            dtype: storage.dtype,
            begin: start + layout.begin * size,
            end: start + layout.end * size,
            strides: layout.strides,
            shape: layout.shape,
            name,
        });
    }
    Ok(Header { tensors, metadata: [("format".into(), "pt".into())].into(), data_start: 0 })
}

struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The folder of all entries, with its slash; empty where they have none.
    root: String,
    /// Bytes of the file.
    len: u64,
    /// Where a storage's bytes begin in the file, and how many there are.
    storages: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn open(file: File, len: u64) -> Result<Self, TorchProblem> {
        let zip = ZipArchive::new(BufReader::new(file)).map_err(TorchProblem::Zip)?;
        let roots = zip.file_names().filter_map(|name| name.strip_suffix("data.pkl"));
        let roots: Vec<&str> = roots
            .filter(|root| match root.strip_suffix('/') {
                Some(folder) => !folder.contains('/'),
                None => root.is_empty(),
            })
            .collect();
        let [root] = roots.as_slice() else { return Err(TorchProblem::Tables(roots.len())) };
        let root = root.to_string();
        Ok(Self { zip, root, len, storages: HashMap::new() })
    }

    fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}{name}", self.root)).is_some()
    }

    /// Where an entry's bytes lie: its place in the file and their number.
    fn place(&mut self, name: &str) -> Result<(u64, u64), TorchProblem> {
        let problem =
            |problem: &str| TorchProblem::Entry { name: name.into(), problem: problem.into() };
        let index = self.zip.index_for_name(&format!("{}{name}", self.root));
        let index = index.ok_or_else(|| problem("is missing"))?;
        let entry = self.zip.by_index_raw(index).map_err(TorchProblem::Zip)?;
        if entry.encrypted() || entry.compression() != CompressionMethod::Stored {
            return Err(problem("is compressed or encrypted, which torch never does"));
        }
        let (begin, size) = (entry.data_start(), entry.size());
        let fits = begin.checked_add(size).is_some_and(|end| end <= self.len);
        match fits && size == entry.compressed_size() {
            true => Ok((begin, size)),
            false => Err(problem("is truncated")),
        }
    }

    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, TorchProblem> {
        let (_, size) = self.place(name)?;
        if size > limit {
            let problem = format!("has {size} bytes, above the limit of {limit}");
            return Err(TorchProblem::Entry { name: name.into(), problem });
        }
        let full = format!("{}{name}", self.root);
        let entry = self.zip.by_name(&full).map_err(TorchProblem::Zip)?;
        let mut bytes = vec![];
        entry.take(limit).read_to_end(&mut bytes).map_err(TorchProblem::Read)?;
        Ok(bytes)
    }

    /// Where the bytes of a storage begin, of which the table says that there are `expected`.
    fn storage(&mut self, name: &str, expected: Option<u64>) -> Result<u64, TorchProblem> {
        let (begin, size) = match self.storages.get(name) {
            Some(place) => *place,
            None => {
                let place = self.place(name)?;
                self.storages.insert(name.into(), place);
                place
            }
        };
        if Some(size) != expected {
            let expected = expected.map_or("more than can be".into(), |n| n.to_string());
            let problem = format!("has {size} bytes, the table says {expected}");
            return Err(TorchProblem::Entry { name: name.into(), problem });
        }
        Ok(begin)
    }
}

/// A part of the pickle, or of [`Machine::items`].
#[derive(Debug, Clone, Copy)]
struct Span {
    begin: u32,
    len: u32,
}

/// The names that a table of tensors needs.
#[derive(Debug, Clone, Copy)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    fn parse(module: &str, name: &str) -> Option<Self> {
        let dtype = match (module, name) {
            ("collections", "OrderedDict") => return Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => return Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => return Some(Self::RebuildParameter),
            ("torch", "DoubleStorage") => Dtype::F64,
            ("torch", "FloatStorage") => Dtype::F32,
            ("torch", "HalfStorage") => Dtype::F16,
            ("torch", "BFloat16Storage") => Dtype::BF16,
            ("torch", "LongStorage") => Dtype::I64,
            ("torch", "IntStorage") => Dtype::I32,
            ("torch", "ShortStorage") => Dtype::I16,
            ("torch", "CharStorage") => Dtype::I8,
            ("torch", "ByteStorage") => Dtype::U8,
            ("torch", "BoolStorage") => Dtype::BOOL,
            _ => return None,
        };
        Some(Self::Storage(dtype))
    }
}

/// Values refer to one another by number: nothing is copied, however often the pickle names it, and
/// nothing nests.
#[derive(Debug, Clone, Copy)]
enum Value {
    /// None, a truth value or a fraction: nothing that a tensor is made of.
    Plain,
    Int(i64),
    Text(Span),
    Tuple(Span),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value {
    fn kind(self) -> &'static str {
        match self {
            Self::Plain => "a plain value",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

struct Storage {
    dtype: Dtype,
    key: Span,
    /// Numbers, as the table says.
    count: u64,
}

impl Storage {
    fn bytes(&self) -> Option<u64> {
        self.count.checked_mul(self.dtype.size() as u64)
    }
}

struct Tensor {
    storage: usize,
    /// Numbers before its first.
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

/// A tensor's numbers within its storage.
struct Layout {
    shape: Vec<usize>,
    begin: u64,
    end: u64,
    strides: Option<Vec<usize>>,
}

impl Tensor {
    fn layout(&self, storage: &Storage) -> Result<Layout, String> {
        let Self { offset, shape, strides, .. } = self;
        let outside =
            || format!("shape {shape:?}, strides {strides:?} and offset {offset} do not fit");
        if shape.len() > RANK_LIMIT || shape.len() != strides.len() {
            return Err(outside());
        }
        let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).ok_or_else(outside)?;
        let mut extent = u64::from(count > 0);
        if count > 0 {
            for (d, stride) in shape.iter().zip(strides) {
                let reach = (d - 1).checked_mul(*stride).ok_or_else(outside)?;
                extent = extent.checked_add(reach).ok_or_else(outside)?;
            }
        }
        let end = offset.checked_add(extent).ok_or_else(outside)?;
        if end > storage.count {
            let held = storage.count;
            return Err(format!("{} into a storage of {held} numbers", outside()));
        }
        if count > extent {
            return Err(format!("repeats {extent} numbers of its storage as {count}"));
        }
        let (mut step, mut in_order) = (1, true);
        if count > 0 {
            for (d, stride) in shape.iter().zip(strides).rev() {
                in_order &= *d == 1 || *stride == step;
                step *= d;
            }
        }
        // All below 2^63, and the file is at least as long: they fit.
        let small = |x: &Vec<u64>| x.iter().map(|n| *n as usize).collect::<Vec<_>>();
        let strides = (!in_order).then(|| small(strides));
        Ok(Layout { shape: small(shape), begin: *offset, end, strides })
    }
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// Items of all tuples.
    items: Vec<Value>,
    dicts: Vec<Vec<(Value, Value)>>,
    storages: Vec<Storage>,
    tensors: Vec<Tensor>,
}

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self {
            pickle,
            at: 0,
            stack: vec![],
            marks: vec![],
            memo: HashMap::new(),
            items: vec![],
            dicts: vec![],
            storages: vec![],
            tensors: vec![],
        }
    }

    /// Runs to the end; the result is the number of a dict.
    fn run(&mut self) -> Result<usize, TorchProblem> {
        for _ in 0..STEP_LIMIT {
            let at = self.at;
            let [code] = self.take()?;
            match code {
                // PROTO, FRAME
                0x80 => match self.take()? {
                    [2..=5] => {}
                    _ => return Err(self.broken("an unknown protocol")),
                },
                0x95 => drop(self.take::<8>()?),
                // STOP
                b'.' => {
                    return match self.pop()? {
                        Value::Dict(table) => Ok(table),
                        other => Err(TorchProblem::NotATable(other.kind())),
                    };
                }
                // None, true, false, BINFLOAT
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Plain),
                b'G' => {
                    self.take::<8>()?;
                    self.stack.push(Value::Plain);
                }
                // BININT1, BININT2, BININT, LONG1
                b'K' => {
                    let [n] = self.take()?;
                    self.stack.push(Value::Int(n.into()));
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.take()?);
                    self.stack.push(Value::Int(n.into()));
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.take()?);
                    self.stack.push(Value::Int(n.into()));
                }
                0x8a => {
                    let n = self.long()?;
                    self.stack.push(Value::Int(n));
                }
                // BINUNICODE, SHORT_BINUNICODE
                b'X' => {
                    let len = u32::from_le_bytes(self.take()?);
                    let text = self.span(len)?;
                    self.stack.push(Value::Text(text));
                }
                0x8c => {
                    let [len] = self.take()?;
                    let text = self.span(len.into())?;
                    self.stack.push(Value::Text(text));
                }
                // MARK, EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
                b'(' => self.marks.push(self.stack.len()),
                b')' => self.tuple(self.stack.len())?,
                b't' => {
                    let from = self.mark()?;
                    self.tuple(from)?;
                }
                0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let from = self.stack.len().checked_sub(count);
                    let from = from.ok_or_else(|| self.broken("too few values"))?;
                    self.tuple(from)?;
                }
                // EMPTY_DICT, SETITEM, SETITEMS
                b'}' => self.dict(),
                b's' => {
                    let from = self.stack.len().checked_sub(2);
                    let from = from.ok_or_else(|| self.broken("too few values"))?;
                    self.set_items(from)?;
                }
                b'u' => {
                    let from = self.mark()?;
                    self.set_items(from)?;
                }
                // BINPUT, LONG_BINPUT, MEMOIZE
                b'q' => {
                    let [index] = self.take()?;
                    self.memoize(index.into())?;
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.take()?);
                    self.memoize(index)?;
                }
                0x94 => self.memoize(self.memo.len() as u32)?,
                // BINGET, LONG_BINGET
                b'h' => {
                    let [index] = self.take()?;
                    self.recall(index.into())?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.take()?);
                    self.recall(index)?;
                }
                // GLOBAL, STACK_GLOBAL
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err(self.broken("a name that is not a text"));
                    };
                    self.global(module, name)?;
                }
                // BINPERSID, REDUCE, BUILD
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                b'b' => {
                    // Attributes of the table (`_metadata`, versions of modules) are no tensors.
                    let attributes = self.pop()?;
                    if !matches!((attributes, self.top()?), (Value::Dict(_), Value::Dict(_))) {
                        return Err(self.broken("attributes of what is not a dict"));
                    }
                }
                code => return Err(TorchProblem::Operation { code, at }),
            }
        }
        Err(TorchProblem::TooLong)
    }

    fn broken(&self, problem: &'static str) -> TorchProblem {
        TorchProblem::Broken { problem, at: self.at }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], TorchProblem> {
        let bytes = self.pickle[self.at..].first_chunk().ok_or(TorchProblem::Truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    fn span(&mut self, len: u32) -> Result<Span, TorchProblem> {
        let begin = self.at as u32;
        if self.pickle.len() - self.at < len as usize {
            return Err(TorchProblem::Truncated);
        }
        self.at += len as usize;
        Ok(Span { begin, len })
    }

    fn line(&mut self) -> Result<Span, TorchProblem> {
        let rest = &self.pickle[self.at..];
        let len = rest.iter().position(|b| *b == b'\n').ok_or(TorchProblem::Truncated)?;
        let line = self.span(len as u32)?;
        self.at += 1;
        Ok(line)
    }

    fn text(&self, span: Span) -> Result<&str, TorchProblem> {
        let begin = span.begin as usize;
        let bytes = &self.pickle[begin..begin + span.len as usize];
        let broken = || TorchProblem::Broken { problem: "a text that is not UTF-8", at: begin };
        std::str::from_utf8(bytes).map_err(|_| broken())
    }

    /// LONG1 of at most 8 bytes.
    fn long(&mut self) -> Result<i64, TorchProblem> {
        let [len] = self.take()?;
        let span = self.span(len.into())?;
        let bytes = &self.pickle[span.begin as usize..][..span.len as usize];
        let fill = if bytes.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 };
        let mut number = [fill; 8];
        let number_part = number.get_mut(..bytes.len());
        number_part
            .ok_or_else(|| self.broken("a number of more than 64 bits"))?
            .copy_from_slice(bytes);
        Ok(i64::from_le_bytes(number))
    }

    fn pop(&mut self) -> Result<Value, TorchProblem> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(self.broken("a mark where a value is due"));
        }
        self.stack.pop().ok_or_else(|| self.broken("too few values"))
    }

    fn top(&self) -> Result<Value, TorchProblem> {
        self.stack.last().copied().ok_or_else(|| self.broken("too few values"))
    }

    /// Height of the stack at the last mark, which is taken off.
    fn mark(&mut self) -> Result<usize, TorchProblem> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        mark.ok_or_else(|| self.broken("no mark"))
    }

    /// Makes a tuple of all values from a height on.
    fn tuple(&mut self, from: usize) -> Result<(), TorchProblem> {
        if self.marks.last().is_some_and(|mark| *mark > from) {
            return Err(self.broken("a mark where a value is due"));
        }
        let begin = self.items.len() as u32;
        self.items.extend(self.stack.drain(from..));
        let len = self.items.len() as u32 - begin;
        self.stack.push(Value::Tuple(Span { begin, len }));
        Ok(())
    }

    fn dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(vec![]);
    }

    /// Puts the pairs from a height on into the dict below them.
    fn set_items(&mut self, from: usize) -> Result<(), TorchProblem> {
        let below = from.checked_sub(1).map(|at| self.stack[at]);
        let Some(Value::Dict(dict)) = below else { return Err(self.broken("items of no dict")) };
        if self.marks.last().is_some_and(|mark| *mark > from) {
            return Err(self.broken("a mark where a value is due"));
        }
        if !(self.stack.len() - from).is_multiple_of(2) {
            return Err(self.broken("a key without a value"));
        }
        let pairs = self.stack[from..].chunks_exact(2).map(|pair| (pair[0], pair[1]));
        self.dicts[dict].extend(pairs);
        self.stack.truncate(from);
        Ok(())
    }

    fn memoize(&mut self, index: u32) -> Result<(), TorchProblem> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), TorchProblem> {
        let value = self.memo.get(&index).copied();
        let value = value.ok_or_else(|| self.broken("a value that was not kept"))?;
        self.stack.push(value);
        Ok(())
    }

    fn global(&mut self, module: Span, name: Span) -> Result<(), TorchProblem> {
        let (module, name) = (self.text(module)?, self.text(name)?);
        let global = Global::parse(module, name);
        let global = global.ok_or_else(|| TorchProblem::Name(format!("{module}.{name}")))?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn fields(&self, value: Value) -> &[Value] {
        match value {
            Value::Tuple(span) => &self.items[span.begin as usize..][..span.len as usize],
            _ => &[],
        }
    }

    /// `("storage", class, key, device, count)`
    fn storage(&mut self) -> Result<(), TorchProblem> {
        let id = self.pop()?;
        let &[
            Value::Text(tag),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            _,
            Value::Int(count),
        ] = self.fields(id)
        else {
            return Err(self.broken("a reference to something other than a storage"));
        };
        if self.text(tag)? != "storage" || count < 0 {
            return Err(self.broken("a reference to something other than a storage"));
        }
        self.stack.push(Value::Storage(self.storages.len()));
        self.storages.push(Storage { dtype, key, count: count as u64 });
        Ok(())
    }

    fn call(&mut self) -> Result<(), TorchProblem> {
        let (arguments, called) = (self.pop()?, self.pop()?);
        let fields = self.fields(arguments);
        match (called, fields) {
            (Value::Global(Global::OrderedDict), []) => self.dict(),
            // data, requires_grad, hooks
            (Value::Global(Global::RebuildParameter), &[tensor @ Value::Tensor(_), _, _]) => {
                self.stack.push(tensor);
            }
            // storage, offset, shape, strides, requires_grad, hooks
            (
                Value::Global(Global::RebuildTensor),
                &[Value::Storage(storage), Value::Int(offset), shape, strides, _, _],
            ) => {
                let sizes = |of: Value| -> Option<Vec<u64>> {
                    let Value::Tuple(Span { len, .. }) = of else { return None };
                    let size = |value: &Value| match value {
                        Value::Int(n) => u64::try_from(*n).ok(),
                        _ => None,
                    };
                    match len as usize <= RANK_LIMIT {
                        true => self.fields(of).iter().map(size).collect(),
                        false => None,
                    }
                };
                let parts = (u64::try_from(offset).ok(), sizes(shape), sizes(strides));
                let (Some(offset), Some(shape), Some(strides)) = parts else {
                    return Err(self.broken("a tensor whose shape is not one"));
                };
                self.stack.push(Value::Tensor(self.tensors.len()));
                self.tensors.push(Tensor { storage, offset, shape, strides });
            }
            _ => return Err(self.broken("a call with other arguments than a tensor's")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::PathBuf};

    use proptest::prelude::*;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;
    use crate::checkpoint::{header, tensors::Weights};

    /// Written by torch itself, see `make.py` there.
    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch").join(name)
    }

    #[test]
    fn what_torch_wrote_is_read() {
        let expected = header::read_header(&golden("tensors.safetensors")).unwrap();
        let floats = Weights::open_file(&golden("tensors.safetensors")).unwrap();
        for name in ["tensors.bin", "protocol_4.bin"] {
            let found = header::read_header(&golden(name)).unwrap();
            assert_eq!(found.tensors.len(), expected.tensors.len());
            assert!(header::scan(&golden(name), &found).unwrap().is_empty());
            let weights = Weights::open_file(&golden(name)).unwrap();
            for tensor in &found.tensors {
                let other = expected.tensors.iter().find(|other| other.name == tensor.name);
                let other = other.expect("both hold the same");
                assert_eq!((tensor.dtype, &tensor.shape), (other.dtype, &other.shape));
                if !matches!(tensor.dtype, Dtype::I64 | Dtype::BOOL) {
                    let name = &tensor.name;
                    assert_eq!(weights.floats(name).unwrap(), floats.floats(name).unwrap());
                }
            }
            let strided = found.tensors.iter().filter(|tensor| tensor.strides.is_some());
            assert_eq!(strided.map(|t| t.name.as_str()).collect::<Vec<_>>(), ["turned", "part"]);
        }
    }

    #[track_caller]
    fn check_refused(path: &Path, expected: &str) {
        let message = header::read_header(path).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn what_is_not_a_table_of_tensors_is_refused() {
        check_refused(&golden("before_1_6.bin"), "PyTorch before 1.6");
        check_refused(&golden("with_a_number.bin"), "tensor \"step\": is a number");
        check_refused(&golden("with_a_dtype.bin"), "names \"torch.float32\"");
        check_refused(&golden("whole_module.bin"), "names \"torch.nn.modules.linear.Linear\"");
        check_refused(&golden("repeated.bin"), "repeats 1 numbers of its storage as 1000");
    }

    /// The call of `_rebuild_tensor_v2` on a storage of floats, with the given numbers.
    fn tensor(count: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
        let mut out =
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n\
            X\x01\0\0\x000X\x03\0\0\0cpu"
                .to_vec();
        let int = |out: &mut Vec<u8>, n: i32| {
            out.push(b'J');
            out.extend(n.to_le_bytes());
        };
        int(&mut out, count);
        out.extend(b"tQ");
        int(&mut out, offset);
        for sizes in [shape, strides] {
            out.push(b'(');
            sizes.iter().for_each(|n| int(&mut out, *n));
            out.push(b't');
        }
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        out
    }

    fn archive(
        dir: &Path,
        pickle: &[u8],
        more: &[(&str, &[u8])],
        options: SimpleFileOptions,
    ) -> PathBuf {
        let path = dir.join("pytorch_model.bin");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in [("m/data.pkl", pickle), ("m/data/0", &[0; 16])].iter().chain(more) {
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    #[test]
    fn defects_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let check = |items: &[&[u8]], expected: &str| {
            let pickle = [b"\x80\x02}(", items.concat().as_slice(), b"u."].concat();
            check_refused(&archive(dir.path(), &pickle, &[], stored), expected);
        };
        let key: &[u8] = b"X\x01\0\0\0w";
        let sound = tensor(4, 0, &[2, 2], &[2, 1]);
        let path = archive(dir.path(), &[b"\x80\x02}", key, &sound, b"s."].concat(), &[], stored);
        let found = header::read_header(&path).unwrap();
        assert_eq!((found.tensors[0].name.as_str(), found.tensors[0].elements()), ("w", 4));

        check(&[key, b"cos\nsystem\n(X\x04\0\0\0truetR"], "names \"os.system\"");
        check(&[key, b"cnt\n\x1b[2J\n(tR"], "\\u{1b}");
        check(&[key, &sound, key, &sound], "\"w\": is there twice");
        check(&[key, &tensor(5, 0, &[2], &[1])], "\"data/0\" has 16 bytes, the table says 20");
        check(&[key, &tensor(i32::MAX, 0, &[i32::MAX], &[1])], "the table says 8589934588");
        check(&[key, &tensor(4, 1, &[2, 2], &[2, 1])], "a storage of 4 numbers");
        check(&[key, &tensor(4, 0, &[i32::MAX; 3], &[0; 3])], "do not fit");
        check(&[key, &tensor(4, 0, &[-1], &[1])], "a tensor whose shape is not one");
        check(&[key, &tensor(4, 0, &[1; 17], &[1; 17])], "a tensor whose shape is not one");
        check(&[key, &tensor(4, 0, &[2, 2], &[1])], "do not fit");
        check(&[key], "a key without a value");
        check(&[b"N", &sound], "one without names");
        check(&[key, b"]"], "operation 0x5d");

        let pickle = [b"\x80\x02}", key, &sound, b"s."].concat();
        let cut = archive(dir.path(), &pickle[..40], &[], stored);
        check_refused(&cut, "ends too early");
        let many = archive(dir.path(), &pickle, &[("data.pkl", b"")], stored);
        check_refused(&many, "2 entries data.pkl");
        let big = archive(dir.path(), &pickle, &[("m/byteorder", b"big")], stored);
        check_refused(&big, "does not say `little`");
        let deflated = stored.compression_method(CompressionMethod::Deflated);
        check_refused(&archive(dir.path(), &pickle, &[], deflated), "is compressed");
        let long = archive(dir.path(), &vec![b'N'; STEP_LIMIT + 1], &[], stored);
        check_refused(&long, "steps");
        let path = archive(dir.path(), &pickle, &[], stored);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        check_refused(&path, "not a sound zip archive");
    }

    proptest! {
        #[test]
        fn no_pickle_panics(
            parts in prop::collection::vec(
                prop_oneof![
                    any::<u8>().prop_map(|byte| vec![byte]),
                    prop::sample::select(b"()tsu}qhQRbNK.\x85\x86\x87\x8c\x8a\x94\x93X".to_vec())
                        .prop_map(|byte| vec![byte]),
                    prop::sample::select(vec!["ctorch\nFloatStorage\n", "ccollections\nOrderedDict\n",
                        "ctorch._utils\n_rebuild_tensor_v2\n", "X\x07\0\0\0storage"])
                        .prop_map(|text| text.as_bytes().to_vec()),
                ],
                0..60,
            ),
        ) {
            let _ = Machine::new(&parts.concat()).run();
        }

        #[test]
        fn no_layout_panics(
            count: u64,
            offset: u64,
            sizes in prop::collection::vec((0u64..5, any::<u64>()), 0..4),
            large in any::<u64>(),
        ) {
            let storage = Storage { dtype: Dtype::F32, key: Span { begin: 0, len: 0 }, count };
            let (mut shape, strides): (Vec<u64>, Vec<u64>) = sizes.into_iter().unzip();
            shape.iter_mut().filter(|n| **n == 4).for_each(|n| *n = large);
            let tensor = Tensor { storage: 0, offset, shape, strides };
            let _ = (tensor.layout(&storage), storage.bytes());
        }
    }
}
