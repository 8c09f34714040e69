//! Arrays of whole numbers in NumPy's files: `.npy`, and `.npz`, which is a ZIP archive of them.
//!
//! The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. Everything is checked before
//! memory is taken: a header says how much follows, and an archive how much it expands to.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use crate::{
    error::DataError,
    quote::{quoted, quoted_bytes},
    stream,
};

/// Bytes of one array.
const ARRAY_LIMIT: u64 = 1 << 30;

/// Arrays in one file.
const MEMBERS: usize = 64;

/// How many times its packed size an array may have once it is larger than 16 MiB.
const RATIO: u64 = 200;

/// Bytes of a header: NumPy's own limit is 10,000.
const HEADER_LIMIT: usize = 1 << 16;

/// An array as it lies in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    /// As NumPy writes it: `|u1`, `<i8`, `<f4`.
    pub dtype: String,
    /// Row by row.
    bytes: Vec<u8>,
}

impl Array {
    /// The numbers of an array of bytes; `None` for another type.
    pub fn bytes(&self) -> Option<&[u8]> {
        matches!(self.dtype.as_str(), "|u1" | "|b1").then_some(&self.bytes)
    }

    /// The numbers of an array of whole numbers; `None` for another type.
    pub fn integers(&self) -> Option<Vec<i64>> {
        fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> i64) -> Vec<i64> {
            bytes.as_chunks::<N>().0.iter().map(|b| number(*b)).collect()
        }
        let bytes = self.bytes.as_slice();
        Some(match self.dtype.as_str() {
            "|u1" | "|b1" => each(bytes, |b| i64::from(u8::from_le_bytes(b))),
            "|i1" => each(bytes, |b| i64::from(i8::from_le_bytes(b))),
            "<u2" => each(bytes, |b| i64::from(u16::from_le_bytes(b))),
            "<i2" => each(bytes, |b| i64::from(i16::from_le_bytes(b))),
            "<u4" => each(bytes, |b| i64::from(u32::from_le_bytes(b))),
            "<i4" => each(bytes, |b| i64::from(i32::from_le_bytes(b))),
            "<i8" => each(bytes, i64::from_le_bytes),
            _ => return None,
        })
    }
}

/// All arrays of an `.npz` file by their names, or the one of an `.npy` file by the name `array`.
pub fn read(path: &Path) -> Result<BTreeMap<String, Array>, DataError> {
    let (mut file, size) = stream::open_regular(path)?;
    let fault = |source| DataError::Read { path: path.to_owned(), source };
    let mut start = [0; 6];
    let found = file.read(&mut start).map_err(fault)?;
    let file = File::open(path).map_err(fault)?;
    if &start[..found] == MAGIC {
        let array = array(BufReader::new(file), size, path, "array")?;
        return Ok([("array".to_owned(), array)].into());
    }
    if !start.starts_with(b"PK") {
        let detail =
            format!("begins with {}, neither .npy nor .npz", quoted_bytes(&start[..found]));
        return Err(DataError::Unsupported { path: path.to_owned(), detail });
    }
    members(file, path)
}

fn members(file: File, path: &Path) -> Result<BTreeMap<String, Array>, DataError> {
    let broken = |error: zip::result::ZipError| DataError::BadSyntax {
        path: path.to_owned(),
        detail: format!("the archive: {error}"),
    };
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    if archive.len() > MEMBERS {
        let detail = format!("{} arrays, above the limit of {MEMBERS}", archive.len());
        return Err(DataError::TooLarge { path: path.to_owned(), detail });
    }
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(broken)?;
        let name = member.name().trim_end_matches(".npy").to_owned();
        if name.is_empty() || name.contains(['/', '\\', ':']) || name.starts_with("..") {
            let (path, member) = (path.to_owned(), name);
            let problem = "is a path; an array has a plain name";
            return Err(DataError::UnsafePath { path, member, problem });
        }
        let (packed, size) = (member.compressed_size(), member.size());
        if size > (16 << 20) && size / RATIO > packed {
            let detail = format!("{packed} bytes become {size} in {}", quoted(&name));
            return Err(DataError::Bomb { path: path.to_owned(), detail });
        }
        let array = array(member, size, path, &name)?;
        if arrays.insert(name.clone(), array).is_some() {
            return Err(DataError::DuplicateMember { path: path.to_owned(), member: name });
        }
    }
    Ok(arrays)
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// One array; `size` is what the file or the archive says there is.
fn array(mut from: impl Read, size: u64, path: &Path, name: &str) -> Result<Array, DataError> {
    let fail = |detail: String| DataError::BadSyntax {
        path: path.to_owned(),
        detail: format!("{}: {detail}", quoted(name)),
    };
    let cut = |what: &str| DataError::Truncated {
        path: path.to_owned(),
        detail: format!("{}: {what}", quoted(name)),
    };
    let mut head = [0; 8];
    from.read_exact(&mut head).map_err(|_| cut("the header is cut off"))?;
    if !head.starts_with(MAGIC) {
        return Err(fail("does not begin as an array does".into()));
    }
    let width = if head[6] == 1 { 2 } else { 4 };
    let mut length = [0; 4];
    from.read_exact(&mut length[..width]).map_err(|_| cut("the header is cut off"))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_LIMIT {
        return Err(fail(format!("a header of {length} bytes, above the limit of {HEADER_LIMIT}")));
    }
    let mut header = vec![0; length];
    from.read_exact(&mut header).map_err(|_| cut("the header is cut off"))?;
    let header = str::from_utf8(&header).map_err(|_| fail("the header is not text".into()))?;
    let Header { dtype, fortran, shape } = parse(header).map_err(&fail)?;
    if dtype.contains('O') {
        let detail = format!(
            "holds objects (dtype {dtype}) in {}, which only Python's pickle reads",
            quoted(name)
        );
        return Err(DataError::Unsupported { path: path.to_owned(), detail });
    }
    if fortran && shape.len() > 1 {
        let detail = format!("has {} column by column; save it with order=\"C\"", quoted(name));
        return Err(DataError::Unsupported { path: path.to_owned(), detail });
    }
    let item = item_size(&dtype).ok_or_else(|| fail(format!("dtype {}", quoted(&dtype))))?;
    let count = shape.iter().try_fold(1u64, |product, n| product.checked_mul(*n as u64));
    let total =
        count.and_then(|count| count.checked_mul(item)).filter(|total| *total <= ARRAY_LIMIT);
    let total = total.ok_or_else(|| DataError::TooLarge {
        path: path.to_owned(),
        detail: format!("{} of shape {shape:?}; the limit is {ARRAY_LIMIT} bytes", quoted(name)),
    })?;
    if total > size {
        return Err(cut(&format!("{total} bytes are promised, {size} are there")));
    }
    let mut bytes = Vec::with_capacity(total as usize);
    let read = from.take(total).read_to_end(&mut bytes);
    read.map_err(|error| fail(format!("cannot be unpacked: {error}")))?;
    if bytes.len() as u64 != total {
        return Err(cut(&format!("{total} bytes are promised, {} are there", bytes.len())));
    }
    Ok(Array { shape, dtype, bytes })
}

/// Bytes of a number of this type.
fn item_size(dtype: &str) -> Option<u64> {
    let mut chars = dtype.chars();
    let (order, kind) = (chars.next()?, chars.next()?);
    let size: u64 = chars.as_str().parse().ok()?;
    let known = matches!((kind, size), ('b' | 'i' | 'u', 1) | ('i' | 'u' | 'f', 2 | 4 | 8));
    (known && (order == '<' || order == '|' && size == 1)).then_some(size)
}

struct Header {
    dtype: String,
    fortran: bool,
    shape: Vec<usize>,
}

/// `{'descr': '|u1', 'fortran_order': False, 'shape': (624, 28, 28), }`: a dictionary of Python with these keys and
/// nothing else.
fn parse(header: &str) -> Result<Header, String> {
    let wrong = || format!("the header is {}", quoted(header.trim_end()));
    let inner = header.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let mut rest = inner.ok_or_else(wrong)?.trim();
    let (mut dtype, mut fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':').ok_or_else(wrong)?;
        let after = after.trim_start();
        // A tuple holds commas of its own.
        let end = match after.starts_with('(') {
            true => after.find(')').map(|at| at + 1),
            false => after.find(',').or(Some(after.len())),
        };
        let (value, after) = after.split_at(end.ok_or_else(wrong)?);
        let text = |value: &str| {
            let quote = value.chars().next().filter(|c| "'\"".contains(*c))?;
            value.strip_prefix(quote)?.strip_suffix(quote).map(str::to_owned)
        };
        match text(key.trim()).as_deref() {
            Some("descr") => dtype = text(value.trim()),
            Some("fortran_order") => {
                fortran = [("True", true), ("False", false)]
                    .into_iter()
                    .find_map(|(word, means)| (value.trim() == word).then_some(means));
            }
            Some("shape") => shape = tuple(value),
            _ => return Err(wrong()),
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    match (dtype, fortran, shape) {
        (Some(dtype), Some(fortran), Some(shape)) => Ok(Header { dtype, fortran, shape }),
        _ => Err(wrong()),
    }
}

/// `(624, 28, 28)`, `(4,)`, `()`
fn tuple(text: &str) -> Option<Vec<usize>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?.trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    let numbers = inner.split(',').map(str::trim).filter(|n| !(n.is_empty() && inner.is_empty()));
    numbers.map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn npy(header: &str, body: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), body].concat()
    }

    fn read_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        read(file.path()).map_err(|error| error.kind().to_owned())
    }

    #[test]
    fn one_array() {
        let header = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 1), }   \n";
        let arrays = read_bytes(&npy(header, &[1, 0, 0xff, 0xff])).unwrap();
        let array = &arrays["array"];
        assert_eq!((array.shape.as_slice(), array.integers()), (&[2, 1][..], Some(vec![1, -1])));
        assert_eq!(array.bytes(), None);
    }

    #[test]
    fn arrays_by_name() {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
        for name in ["x.npy", "y.npy"] {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }";
            archive.write_all(&npy(header, &[7, 8, 9])).unwrap();
        }
        let bytes = archive.finish().unwrap().into_inner();
        let arrays = read_bytes(&bytes).unwrap();
        assert_eq!(arrays.keys().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(arrays["y"].bytes(), Some(&[7, 8, 9][..]));
        assert_eq!(read_bytes(&bytes[..bytes.len() - 40]), Err("BadSyntax".into()));
    }

    #[test]
    fn defects_are_told_apart() {
        let check = |header: &str, kind: &str| {
            assert_eq!(read_bytes(&npy(header, &[0; 16])).unwrap_err(), kind, "{header}");
        };
        check("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "Unsupported");
        check("{'descr': __import__('os'), 'fortran_order': False, 'shape': (4,), }", "BadSyntax");
        check(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }",
            "TooLarge",
        );
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }", "BadSyntax");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000,), }", "Truncated");
        check("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", "Unsupported");
        check("{'descr': '<f4', 'shape': (2, 2), }", "BadSyntax");
        let long = [MAGIC, &[2, 0], &[0xff; 4], b"{'descr'"].concat();
        assert_eq!(read_bytes(&long), Err("BadSyntax".into()));
    }
}
