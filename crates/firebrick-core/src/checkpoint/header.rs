//! The header of a safetensors file, checked whole before anything is allocated for a tensor, and the
//! table of a PyTorch file in the same form.
//!
//! Format: <https://huggingface.co/docs/safetensors>: 8 bytes of header length (little-endian), the
//! header as a JSON object, the data. Offsets count from the start of the data; the tensors cover it
//! without gap or overlap. Messages leave the path to the caller.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde_json::{Map, Value};

use super::{
    decode,
    json::{JsonProblem, irregular, parse_strict, quoted, shown},
    torch::{self, TorchProblem},
};

/// Longest header of the reference implementation.
const HEADER_LIMIT: u64 = 100_000_000;

/// Most dimensions; no model comes near.
pub(super) const RANK_LIMIT: usize = 16;

/// Bytes that [`scan`] holds at a time; a multiple of every element size.
const BLOCK: usize = 1 << 20;

/// Element type, in the format's own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the format's own names")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8_E4M3,
    F8_E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    BOOL,
}

impl Dtype {
    const ALL: [Self; 15] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8_E4M3,
        Self::F8_E5M2,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::BOOL,
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.to_string() == name)
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8_E4M3 | Self::F8_E5M2 | Self::I8 | Self::U8 | Self::BOOL => 1,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes from [`Header::data_start`].
    pub begin: u64,
    pub end: u64,
    /// Elements from one to the next along each axis, where they do not lie row by row. Only in
    /// PyTorch files.
    pub strides: Option<Vec<usize>>,
}

impl TensorInfo {
    /// Number of elements; fits, for so many lie in a file.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// In the order of their data.
    pub tensors: Vec<TensorInfo>,
    pub metadata: BTreeMap<String, String>,
    /// Bytes from the start of the file.
    pub data_start: u64,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    #[error("cannot be read: {0}")]
    Read(std::io::Error),

    #[error("is {0}, not a regular file")]
    NotRegularFile(&'static str),

    #[error("is {0}: convert it to safetensors")]
    Unsupported(&'static str),

    #[error("is a Git LFS pointer, not the file that it stands for: `git lfs pull` fetches that")]
    Pointer,

    #[error(transparent)]
    Torch(TorchProblem),

    #[error("truncated: {0}")]
    Truncated(String),

    #[error("the header says it has {size} bytes, above the limit of {HEADER_LIMIT}")]
    TooLarge { size: u64 },

    #[error("bad header: {0}")]
    BadHeader(&'static str),

    #[error("header {0}")]
    Json(JsonProblem),

    #[error("header key \"__metadata__\": {0}")]
    Metadata(String),

    #[error("tensor {}: {problem}", quoted(name))]
    Tensor { name: String, problem: TensorProblem },

    #[error("{0} bytes after the last tensor belong to nothing")]
    Trailing(u64),
}

/// What is wrong with one tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    #[error("is not an object with dtype, shape and data_offsets")]
    NotAnObject,

    #[error("{0} is missing")]
    MissingField(&'static str),

    #[error("unknown field {}", quoted(.0))]
    UnknownField(String),

    #[error("unknown dtype {0}")]
    BadDtype(String),

    #[error("{field} {problem}")]
    BadValue { field: &'static str, problem: String },

    #[error("{0} dimensions, above the limit of {RANK_LIMIT}")]
    Rank(usize),

    #[error("shape {shape:?} times {size} bytes overflows")]
    Overflow { shape: Vec<u64>, size: usize },

    #[error("shape {shape:?} of {dtype} takes {expected} bytes, data_offsets hold {found}")]
    Mismatch { shape: Vec<usize>, dtype: Dtype, expected: u64, found: u64 },

    #[error("data_offsets end at {end}, the data at {len}")]
    PastEnd { end: u64, len: u64 },

    #[error("data_offsets run backwards, from {begin} to {end}")]
    Reversed { begin: u64, end: u64 },

    #[error("overlaps the tensor before it: begins at {begin}, which ends at {before}")]
    Overlap { begin: u64, before: u64 },

    #[error("a hole before it: bytes {before} to {begin} belong to no tensor")]
    Hole { begin: u64, before: u64 },

    #[error("BOOL byte {value} at element {index} is neither 0 nor 1")]
    BadBool { index: u64, value: u8 },
}

/// Reads and checks the header of a safetensors file, or the table of a PyTorch file; the data is
/// not read.
pub fn read_header(path: &Path) -> Result<Header, HeaderProblem> {
    let (mut file, len) = open(path)?;
    let mut start = [0; 8];
    let found = read_up_to(&mut file, &mut start).map_err(HeaderProblem::Read)?;
    if torch::is_archive(&start[..found], path) {
        return torch::read_header(path).map_err(HeaderProblem::Torch);
    }
    if &start == b"version " {
        return Err(HeaderProblem::Pointer);
    }
    if let Some(what) = foreign(&start[..found], path) {
        return Err(HeaderProblem::Unsupported(what));
    }
    let size = header_size(&start[..found], len)?;
    let mut text = vec![0; size];
    let found = read_up_to(&mut file, &mut text).map_err(HeaderProblem::Read)?;
    if found < size {
        return Err(HeaderProblem::Truncated("the file became shorter while it was read".into()));
    }
    parse_text(&text, len - 8 - size as u64)
}

/// Checks the header of a file of `len` bytes that begins with `bytes`.
pub fn parse_header(bytes: &[u8], len: u64) -> Result<Header, HeaderProblem> {
    let size = header_size(bytes, len)?;
    let text = bytes.get(8..8 + size).ok_or_else(|| {
        HeaderProblem::Truncated(format!("a header of {size} bytes, {} are here", bytes.len()))
    })?;
    parse_text(text, len - 8 - size as u64)
}

fn open(path: &Path) -> Result<(File, u64), HeaderProblem> {
    // Looked at before it is opened: opening a pipe blocks.
    let meta = std::fs::metadata(path).map_err(HeaderProblem::Read)?;
    if let Some(what) = irregular(&meta) {
        return Err(HeaderProblem::NotRegularFile(what));
    }
    let file = File::open(path).map_err(HeaderProblem::Read)?;
    let len = file.metadata().map_err(HeaderProblem::Read)?.len();
    Ok((file, len))
}

/// Other formats of weights, by their first bytes or their name.
pub(super) fn foreign(start: &[u8], path: &Path) -> Option<&'static str> {
    const PICKLE: &str = "a pickle, which can run code when it is read";
    const TORCH: &str = "a PyTorch archive (pickle inside), which can run code when it is read";
    const LEGACY: &str = "a bare pickle, as PyTorch before 1.6 wrote it";
    const GGUF: &str = "GGUF, which is not supported";
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match start {
        [b'P', b'K', 3, 4, ..] => return Some(TORCH),
        [b'G', b'G', b'U', b'F', ..] => return Some(GGUF),
        [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46] => return Some(LEGACY),
        [0x80, 2..=5, b'c' | b'}' | b'(' | b'K' | 0x8a | 0x95, ..] => return Some(PICKLE),
        _ => {}
    }
    match extension.to_ascii_lowercase().as_str() {
        "pkl" | "pickle" | "pt" | "pth" | "bin" | "ckpt" => Some(PICKLE),
        "gguf" | "ggml" => Some(GGUF),
        "h5" | "msgpack" | "onnx" | "npz" | "npy" => Some("not a format that is supported"),
        _ => None,
    }
}

/// The checked length of the header.
fn header_size(bytes: &[u8], len: u64) -> Result<usize, HeaderProblem> {
    let Some(size) = bytes.first_chunk::<8>() else {
        return Err(HeaderProblem::Truncated(format!(
            "{len} bytes, the header length alone takes 8"
        )));
    };
    let size = u64::from_le_bytes(*size);
    if size > HEADER_LIMIT {
        return Err(HeaderProblem::TooLarge { size });
    }
    if size > len.saturating_sub(8) {
        let held = len.saturating_sub(8);
        return Err(HeaderProblem::Truncated(format!(
            "a header of {size} bytes, the file holds {held}"
        )));
    }
    if size < 2 {
        return Err(HeaderProblem::BadHeader("its length is below 2, too short for an object"));
    }
    Ok(size as usize)
}

fn read_up_to(file: &mut File, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// `data_len`: bytes after the header.
fn parse_text(text: &[u8], data_len: u64) -> Result<Header, HeaderProblem> {
    if text.first() != Some(&b'{') {
        return Err(HeaderProblem::BadHeader("it does not begin with `{`"));
    }
    let value = parse_strict(text).map_err(HeaderProblem::Json)?;
    let Value::Object(object) = value else {
        return Err(HeaderProblem::BadHeader("it is not a JSON object"));
    };
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::with_capacity(object.len());
    for (name, value) in object {
        if name == "__metadata__" {
            metadata = parse_metadata(value)?;
            continue;
        }
        match parse_tensor(value, data_len) {
            Ok((dtype, shape, [begin, end])) => {
                tensors.push(TensorInfo { name, dtype, shape, begin, end, strides: None });
            }
            Err(problem) => return Err(HeaderProblem::Tensor { name, problem }),
        }
    }
    tensors.sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    let mut before = 0;
    for tensor in &tensors {
        let begin = tensor.begin;
        let problem = match begin.cmp(&before) {
            std::cmp::Ordering::Less => TensorProblem::Overlap { begin, before },
            std::cmp::Ordering::Greater => TensorProblem::Hole { begin, before },
            std::cmp::Ordering::Equal => {
                before = tensor.end;
                continue;
            }
        };
        return Err(HeaderProblem::Tensor { name: tensor.name.clone(), problem });
    }
    if before < data_len {
        return Err(HeaderProblem::Trailing(data_len - before));
    }
    Ok(Header { tensors, metadata, data_start: 8 + text.len() as u64 })
}

fn parse_metadata(value: Value) -> Result<BTreeMap<String, String>, HeaderProblem> {
    let Value::Object(object) = value else {
        return Err(HeaderProblem::Metadata("is not an object of texts".into()));
    };
    object
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            _ => Err(HeaderProblem::Metadata(format!("{} is not a text", quoted(&key)))),
        })
        .collect()
}

type Layout = (Dtype, Vec<usize>, [u64; 2]);

fn parse_tensor(value: Value, data_len: u64) -> Result<Layout, TensorProblem> {
    let Value::Object(mut fields) = value else { return Err(TensorProblem::NotAnObject) };
    let mut take = |field: &'static str| take(&mut fields, field);
    let dtype = match take("dtype")? {
        Value::String(name) => {
            Dtype::parse(&name).ok_or_else(|| TensorProblem::BadDtype(quoted(&name)))?
        }
        other => return Err(TensorProblem::BadDtype(shown(&other))),
    };
    let shape = numbers("shape", take("shape")?)?;
    let offsets = numbers("data_offsets", take("data_offsets")?)?;
    if let Some(name) = fields.keys().next() {
        return Err(TensorProblem::UnknownField(name.clone()));
    }
    if shape.len() > RANK_LIMIT {
        return Err(TensorProblem::Rank(shape.len()));
    }
    let &[begin, end] = offsets.as_slice() else {
        let problem = format!("has {} entries, not a begin and an end", offsets.len());
        return Err(TensorProblem::BadValue { field: "data_offsets", problem });
    };
    if end < begin {
        return Err(TensorProblem::Reversed { begin, end });
    }
    if end > data_len {
        return Err(TensorProblem::PastEnd { end, len: data_len });
    }
    let overflow = || TensorProblem::Overflow { shape: shape.clone(), size: dtype.size() };
    let expected = shape
        .iter()
        .try_fold(dtype.size() as u64, |bytes, n| bytes.checked_mul(*n))
        .ok_or_else(overflow)?;
    let shape = shape.iter().map(|n| usize::try_from(*n)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| overflow())?;
    let found = end - begin;
    if expected != found {
        return Err(TensorProblem::Mismatch { shape, dtype, expected, found });
    }
    Ok((dtype, shape, [begin, end]))
}

fn take(fields: &mut Map<String, Value>, field: &'static str) -> Result<Value, TensorProblem> {
    fields.remove(field).ok_or(TensorProblem::MissingField(field))
}

fn numbers(field: &'static str, value: Value) -> Result<Vec<u64>, TensorProblem> {
    let bad = |problem: String| TensorProblem::BadValue { field, problem };
    let Value::Array(items) = value else { return Err(bad("is not an array".into())) };
    let number = |item: &Value| {
        item.as_u64().ok_or_else(|| bad(format!("holds {}, not a size of 64 bits", shown(item))))
    };
    items.iter().map(number).collect()
}

/// What a sound file holds that its user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A tensor with numbers that no computation survives.
    NotFinite { tensor: String, nan: u64, infinite: u64, elements: u64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NotFinite { tensor, nan, infinite, elements } => write!(
                f,
                "tensor {} is not finite: {nan} NaN and {infinite} infinite of {elements} numbers",
                quoted(tensor),
            ),
        }
    }
}

/// Reads all data once, a block at a time. A BOOL byte other than 0 and 1 is an error.
pub fn scan(path: &Path, header: &Header) -> Result<Vec<Finding>, HeaderProblem> {
    let (mut file, _) = open(path)?;
    let mut block = vec![];
    let mut findings = vec![];
    for tensor in &header.tensors {
        let count: fn(&[u8]) -> [u64; 2] = match tensor.dtype {
            Dtype::F64 => count_f64,
            Dtype::F32 => count_f32,
            Dtype::F16 => |bytes| count_16(bytes, 0x7c00),
            Dtype::BF16 => |bytes| count_16(bytes, 0x7f80),
            Dtype::BOOL => |_| [0, 0],
            _ => continue,
        };
        file.seek(SeekFrom::Start(header.data_start + tensor.begin))
            .map_err(HeaderProblem::Read)?;
        let len = tensor.end - tensor.begin;
        // What lies scattered is put together first.
        let size = if tensor.strides.is_some() { len } else { BLOCK as u64 };
        let (mut nan, mut infinite, mut done) = (0, 0, 0);
        while done < len {
            block.resize((len - done).min(size) as usize, 0);
            let found = read_up_to(&mut file, &mut block).map_err(HeaderProblem::Read)?;
            if found < block.len() {
                return Err(HeaderProblem::Truncated(format!(
                    "tensor {} is cut",
                    quoted(&tensor.name)
                )));
            }
            if let Some(strides) = &tensor.strides {
                block = decode::gather(&block, tensor.dtype.size(), &tensor.shape, strides);
            }
            if tensor.dtype == Dtype::BOOL
                && let Some(at) = block.iter().position(|byte| *byte > 1)
            {
                let problem = TensorProblem::BadBool { index: done + at as u64, value: block[at] };
                return Err(HeaderProblem::Tensor { name: tensor.name.clone(), problem });
            }
            let [nans, infinities] = count(&block);
            nan += nans;
            infinite += infinities;
            done += found as u64;
        }
        if nan + infinite > 0 {
            let elements = tensor.elements();
            let tensor = tensor.name.clone();
            findings.push(Finding::NotFinite { tensor, nan, infinite, elements });
        }
    }
    Ok(findings)
}

/// NaNs and infinities. Almost every block has none, which the first pass sees quickly.
fn count_f32(bytes: &[u8]) -> [u64; 2] {
    let numbers = bytes.as_chunks::<4>().0;
    let all_ones = |b: &[u8; 4]| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000;
    let odd: u32 = numbers.iter().map(|b| u32::from(all_ones(b))).sum();
    let nan = match odd {
        0 => 0,
        _ => numbers.iter().filter(|b| f32::from_le_bytes(**b).is_nan()).count() as u64,
    };
    [nan, u64::from(odd) - nan]
}

fn count_f64(bytes: &[u8]) -> [u64; 2] {
    let numbers = || bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
    let nan = numbers().filter(|x| x.is_nan()).count() as u64;
    let infinite = numbers().filter(|x| x.is_infinite()).count() as u64;
    [nan, infinite]
}

/// `exponent`: the bits that are all ones in a NaN or an infinity.
fn count_16(bytes: &[u8], exponent: u16) -> [u64; 2] {
    let odd = bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b) & 0x7fff);
    odd.filter(|bits| bits & exponent == exponent).fold([0, 0], |[nan, infinite], bits| {
        if bits == exponent { [nan, infinite + 1] } else { [nan + 1, infinite] }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn file(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
        let header = header.as_ref();
        [&(header.len() as u64).to_le_bytes(), header, data].concat()
    }

    fn tensor(dtype: &str, shape: Value, offsets: Value) -> Value {
        json!({"dtype": dtype, "shape": shape, "data_offsets": offsets})
    }

    fn parse(bytes: &[u8]) -> Result<Header, HeaderProblem> {
        parse_header(bytes, bytes.len() as u64)
    }

    #[track_caller]
    fn check_refused(header: Value, data_len: usize, expected: &str) {
        let bytes = file(header.to_string(), &vec![0; data_len]);
        let message = parse(&bytes).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn sound_header_is_read() {
        let header = json!({
            "__metadata__": {"format": "pt"},
            "b": tensor("F32", json!([2, 2]), json!([2, 18])),
            "a": tensor("BF16", json!([]), json!([0, 2])),
            "empty": tensor("I64", json!([0, 4]), json!([18, 18])),
        });
        let text = format!("{header}   ");
        let header = parse(&file(&text, &[0; 18])).unwrap();
        let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "empty"]);
        assert_eq!(header.tensors[1].shape, [2, 2]);
        assert_eq!(header.tensors[0].dtype, Dtype::BF16);
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(header.data_start, 8 + text.len() as u64);
    }

    #[test]
    fn defects_are_named() {
        let one =
            |dtype: &str, shape: Value, offsets: Value| json!({"w": tensor(dtype, shape, offsets)});
        check_refused(
            one("F33", json!([4]), json!([0, 16])),
            16,
            "tensor \"w\": unknown dtype \"F33\"",
        );
        check_refused(one("F32", json!([4]), json!([0, 16])), 20, "4 bytes after the last tensor");
        check_refused(one("F32", json!([4]), json!([0, 16])), 12, "data_offsets end at 16");
        check_refused(one("F32", json!([4]), json!([16, 0])), 16, "backwards");
        check_refused(one("F32", json!([4]), json!([-16, 0])), 16, "holds -16");
        check_refused(one("F32", json!([4]), json!([0.5, 16.5])), 16, "holds 0.5");
        check_refused(one("F32", json!([4]), json!([0, 16, 16])), 16, "has 3 entries");
        check_refused(one("F32", json!([4]), json!([0, 1.8e19])), 16, "data_offsets");
        check_refused(
            one("F32", json!([3, 3]), json!([0, 16])),
            16,
            "takes 36 bytes, data_offsets hold 16",
        );
        check_refused(one("F32", json!(vec![1; 17]), json!([0, 4])), 4, "17 dimensions");
        check_refused(
            one("F32", json!([4194305, 4194305, 211106198978564u64]), json!([0, 16])),
            16,
            "overflows",
        );
        check_refused(json!({"w": {"dtype": "F32", "shape": [1]}}), 4, "data_offsets is missing");
        check_refused(json!({"w": [1]}), 4, "is not an object");
        check_refused(json!({"__metadata__": {"step": 5}}), 0, "__metadata__");
        let two = |begin: u64| {
            json!({
                "a": tensor("U8", json!([4]), json!([0, 4])),
                "b": tensor("U8", json!([4]), json!([begin, begin + 4])),
            })
        };
        check_refused(two(2), 8, "\"b\": overlaps");
        check_refused(two(6), 10, "\"b\": a hole");
    }

    #[test]
    fn twenty_thousand_tensors_are_read_quickly() {
        let tensors: Map<String, Value> = (0..20_000)
            .map(|i| (format!("t{i}"), tensor("F32", json!([2, 2]), json!([16 * i, 16 * i + 16]))))
            .collect();
        let bytes = file(Value::from(tensors).to_string(), &[0; 320_000]);
        let start = std::time::Instant::now();
        assert_eq!(parse(&bytes).unwrap().tensors.len(), 20_000);
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    }

    #[test]
    fn other_formats_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let message = read_header(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{name}: {message}");
            message
        };
        assert!(check("a.pkl", b"cos\nsystem\n", "pickle").contains("safetensors"));
        check("model.safetensors", b"PK\x03\x04....", "PyTorch");
        check("a.gguf", b"GGUX", "GGUF");
        check("b.safetensors", b"cos\nsystem\n(S'", "above the limit");
        check("c.safetensors", b"", "truncated");
        check("d.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS");
    }

    #[test]
    fn scan_counts_what_is_not_finite() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let mut data: Vec<u8> =
            [f32::NAN, 1.0, f32::NEG_INFINITY].iter().flat_map(|x| x.to_le_bytes()).collect();
        data.extend([0x00, 0x7e, 0x00, 0x7c, 0x00, 0x3c]); // f16: NaN, infinity, 1
        data.extend([0xc0, 0x7f, 0x80, 0xff, 0x80, 0x3f]); // bf16: NaN, -infinity, 1
        data.extend([f64::NAN, f64::INFINITY].iter().flat_map(|x| x.to_le_bytes()));
        data.extend([0, 1]);
        let mut header = json!({
            "f32": tensor("F32", json!([3]), json!([0, 12])),
            "f16": tensor("F16", json!([3]), json!([12, 18])),
            "bf16": tensor("BF16", json!([3]), json!([18, 24])),
            "f64": tensor("F64", json!([2]), json!([24, 40])),
            "mask": tensor("BOOL", json!([2]), json!([40, 42])),
        });
        std::fs::write(&path, file(header.to_string(), &data)).unwrap();
        let found = scan(&path, &read_header(&path).unwrap()).unwrap();
        let expected = [("f32", 3), ("f16", 3), ("bf16", 3), ("f64", 2)].map(|(name, elements)| {
            Finding::NotFinite { tensor: name.into(), nan: 1, infinite: 1, elements }
        });
        assert_eq!(found, expected);
        assert_eq!(
            found[0].to_string(),
            "tensor \"f32\" is not finite: 1 NaN and 1 infinite of 3 numbers"
        );

        header["mask"] = tensor("BOOL", json!([2]), json!([40, 42]));
        data[41] = 2;
        std::fs::write(&path, file(header.to_string(), &data)).unwrap();
        let message = scan(&path, &read_header(&path).unwrap()).unwrap_err().to_string();
        assert_eq!(message, "tensor \"mask\": BOOL byte 2 at element 1 is neither 0 nor 1");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool) {
            let bytes = if header { file(&bytes, &[]) } else { bytes };
            let _ = parse(&bytes);
        }

        #[test]
        fn no_layout_panics(
            shape in prop::collection::vec(any::<u64>(), 0..5),
            begin: u64,
            end: u64,
            dtype in 0usize..15,
        ) {
            let dtype = Dtype::ALL[dtype].to_string();
            let header = json!({"w": tensor(&dtype, json!(shape), json!([begin, end]))});
            let _ = parse(&file(header.to_string(), &[0; 64]));
        }

        /// What is accepted here is accepted by the reference implementation, with the same layout.
        #[test]
        fn agrees_with_the_reference(sizes in prop::collection::vec((0usize..4, 0usize..4), 1..6), shift in 0u64..3) {
            let mut end = 0;
            let mut header = Map::new();
            for (i, (a, b)) in sizes.iter().enumerate() {
                let begin = end + if i == 1 { shift.saturating_sub(1) } else { 0 };
                end = begin + (a * b * 4) as u64;
                header.insert(format!("t{i}"), tensor("F32", json!([a, b]), json!([begin, end])));
            }
            let bytes = file(Value::from(header).to_string(), &vec![0; end as usize]);
            let reference = safetensors::SafeTensors::deserialize(&bytes);
            let ours = parse(&bytes);
            prop_assert_eq!(ours.is_ok(), reference.is_ok());
            if let (Ok(ours), Ok(reference)) = (ours, reference) {
                for tensor in ours.tensors {
                    let shape = reference.tensor(&tensor.name).unwrap().shape().to_vec();
                    prop_assert_eq!(&shape, &tensor.shape);
                }
            }
        }
    }
}
