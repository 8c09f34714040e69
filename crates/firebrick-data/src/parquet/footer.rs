//! The end of a Parquet file, which says what lies where: `PAR1`, pages, footer, its length, `PAR1`.
//!
//! <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>; the numbers of fields and of
//! enumerations are those of that file. The `parquet` crate reads footers too, but takes memory and stack for whatever
//! a footer promises (children of a group, levels of nesting), and that ends a program rather than a call.

use std::{
    fmt,
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

use parquet::basic::Type;

use super::thrift::{BINARY, Compact, LIST, STRUCT, unsound};
use crate::{
    error::DataError,
    quote::{escaped, quoted_bytes},
};

/// Bytes of a footer; those of the largest data sets have some 100 kB.
const FOOTER_LIMIT: u64 = 8 << 20;

/// Bytes of a column's name with those of the groups it lies in.
const NAME_LIMIT: usize = 4096;

/// Deepest nesting of groups.
const DEPTH: usize = 64;

#[derive(Debug, PartialEq)]
pub struct Footer {
    pub columns: Vec<Column>,
    pub groups: Vec<Group>,
}

/// A column of values; what lies in a group is called `group.name`.
#[derive(Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub physical: Type,
    pub kind: Kind,
    /// Definition level of a value that is there: how many of its groups and itself may be null.
    pub levels: i16,
}

/// What a table takes a column's values for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    Integer,
    Unsigned,
    Float,
    Bool,
    /// Values that are not read, by name.
    Other(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "strings",
            Self::Integer | Self::Unsigned => "whole numbers",
            Self::Float => "floating-point numbers",
            Self::Bool => "truth values",
            Self::Other(name) => name,
        })
    }
}

/// A part of the rows.
#[derive(Debug, PartialEq)]
pub struct Group {
    pub rows: u64,
    /// In the order of the columns.
    pub chunks: Vec<Chunk>,
}

/// Where a column's pages of a group lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chunk {
    /// Of the file.
    pub start: u64,
    pub length: u64,
    /// As the format numbers compressions.
    pub codec: i64,
}

/// Reads the footer of a file of `size` bytes; `most` is how many columns are taken.
pub fn read(mut file: &File, size: u64, path: &Path, most: usize) -> Result<Footer, DataError> {
    let fault = |source| DataError::Read { path: path.to_owned(), source };
    let cut = |detail: String| DataError::Truncated { path: path.to_owned(), detail };
    let unsupported = |detail: String| DataError::Unsupported { path: path.to_owned(), detail };
    let mut head = vec![];
    file.take(4).read_to_end(&mut head).map_err(fault)?;
    if head != b"PAR1" && head != b"PARE" {
        let start = quoted_bytes(&head);
        return Err(unsupported(format!("is no Parquet file: it begins with {start}")));
    }
    // Both marks, and the length of the footer.
    let Some(space) = size.checked_sub(12) else {
        return Err(cut(format!("{size} bytes are no Parquet file")));
    };
    let mut tail = [0; 8];
    file.seek(SeekFrom::Start(size - 8)).map_err(fault)?;
    file.read_exact(&mut tail).map_err(fault)?;
    let [length @ .., b'P', b'A', b'R', last] = tail else {
        return Err(cut("the mark PAR1 is not at its end".to_owned()));
    };
    if last == b'E' || head == b"PARE" {
        return Err(unsupported("is encrypted Parquet, which is not read here".to_owned()));
    }
    let length = u64::from(u32::from_le_bytes(length));
    if length > space {
        return Err(cut(format!("a footer of {length} bytes in a file of {size}")));
    }
    if length > FOOTER_LIMIT {
        let detail = format!("a footer of {length} bytes, above the limit of {FOOTER_LIMIT}");
        return Err(DataError::TooLarge { path: path.to_owned(), detail });
    }
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(size - 8 - length)).map_err(fault)?;
    file.read_exact(&mut bytes).map_err(fault)?;

    let mut footer = parse(&bytes, most).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => cut("the footer is cut off".to_owned()),
        ErrorKind::Unsupported => unsupported(error.to_string()),
        ErrorKind::FileTooLarge => {
            DataError::TooLarge { path: path.to_owned(), detail: error.to_string() }
        }
        _ => DataError::BadSyntax {
            path: path.to_owned(),
            detail: format!("the footer is not sound: {}", escaped(&error.to_string())),
        },
    })?;
    footer.groups.retain(|group| group.rows > 0); // the others have no pages
    let end = size - 8 - length;
    let outside = |chunk: &Chunk| {
        chunk.start < 4 || chunk.start.checked_add(chunk.length).is_none_or(|to| to > end)
    };
    if footer.groups.iter().any(|group| group.chunks.iter().any(outside)) {
        return Err(cut("a column lies outside the file".to_owned()));
    }
    Ok(footer)
}

/// `FileMetaData`
fn parse(bytes: &[u8], most: usize) -> io::Result<Footer> {
    let mut input = Compact(bytes);
    let (mut columns, mut groups) = (None, None);
    let mut last = 0;
    while let Some(field) = input.field(&mut last)? {
        match field {
            (2, LIST) => columns = Some(schema(&mut input, most)?),
            (4, LIST) => groups = Some(row_groups(&mut input)?),
            (8, STRUCT) => return Err(encrypted()),
            (_, kind) => input.skip(kind)?,
        }
    }
    let (columns, groups) =
        columns.zip(groups).ok_or_else(|| unsound("no schema, or no row groups"))?;
    if let Some(group) = groups.iter().find(|group| group.chunks.len() != columns.len()) {
        let (found, all) = (group.chunks.len(), columns.len());
        return Err(unsound(format!("a row group of {found} columns, where the schema has {all}")));
    }
    Ok(Footer { columns, groups })
}

fn encrypted() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "is encrypted Parquet, which is not read here")
}

/// A group that is open while its children are read.
struct Open {
    path: String,
    children: i64,
    levels: i16,
    repeated: bool,
}

/// The columns of a list of `SchemaElement`, which is a tree, root first, every group before its children.
fn schema(input: &mut Compact<&[u8]>, most: usize) -> io::Result<Vec<Column>> {
    let mut columns = vec![];
    let mut open: Vec<Open> = vec![];
    for index in 0..input.structs()? {
        let element = Element::read(input)?;
        if index == 0 {
            let (children, path) = (element.children, String::new());
            open.push(Open { path, children, levels: 0, repeated: false });
            continue;
        }
        while open.pop_if(|group| group.children <= 0).is_some() {}
        let Some(parent) = open.last_mut() else {
            return Err(unsound("more columns than its groups have"));
        };
        parent.children -= 1;
        let path = match parent.path.as_str() {
            "" => element.name.clone(),
            group => format!("{group}.{}", element.name),
        };
        if path.len() > NAME_LIMIT {
            return Err(unsound(format!("a column's name is longer than {NAME_LIMIT} bytes")));
        }
        let repeated = parent.repeated || element.repetition == Some(2);
        let levels = parent.levels + i16::from(element.repetition != Some(0));
        if element.children > 0 {
            if open.len() == DEPTH {
                return Err(unsound(format!("groups nested deeper than {DEPTH}")));
            }
            open.push(Open { path, children: element.children, levels, repeated });
        } else {
            if columns.len() == most {
                let detail = format!("more than {most} columns");
                return Err(io::Error::new(ErrorKind::FileTooLarge, detail));
            }
            let kind = if repeated { Kind::Other("lists") } else { element.kind() };
            columns.push(Column { name: path, physical: element.physical()?, kind, levels });
        }
    }
    match open.iter().all(|group| group.children <= 0) {
        true => Ok(columns),
        false => Err(unsound("fewer columns than its groups have")),
    }
}

/// `SchemaElement`
#[derive(Default)]
struct Element {
    physical: Option<i64>,
    /// 0 required, 1 optional, 2 repeated.
    repetition: Option<i64>,
    name: String,
    children: i64,
    /// `ConvertedType`
    converted: Option<i64>,
    /// Which field of the union `LogicalType` is there.
    logical: Option<i16>,
    unsigned: bool,
}

impl Element {
    fn read(input: &mut Compact<&[u8]>) -> io::Result<Self> {
        let mut element = Self::default();
        let mut last = 0;
        while let Some(field) = input.field(&mut last)? {
            match field {
                (1, 5) => element.physical = Some(input.integer()?),
                (3, 5) => element.repetition = Some(input.integer()?),
                (4, BINARY) => {
                    let name = input.binary(NAME_LIMIT as u64)?;
                    element.name = String::from_utf8(name)
                        .map_err(|_| unsound("a column's name is not UTF-8"))?;
                }
                (5, 5) => element.children = input.integer()?,
                (6, 5) => element.converted = Some(input.integer()?),
                (10, STRUCT) => {
                    let mut last = 0;
                    while let Some((id, kind)) = input.field(&mut last)? {
                        element.logical = Some(id);
                        match (id, kind) {
                            // `IntType`: bits, whether signed.
                            (10, STRUCT) => element.unsigned = input.integers::<3>()?[2] == Some(0),
                            (_, kind) => input.skip(kind)?,
                        }
                    }
                }
                (_, kind) => input.skip(kind)?,
            }
        }
        element.unsigned |= element.logical.is_none() && matches!(element.converted, Some(11..=14));
        Ok(element)
    }

    fn physical(&self) -> io::Result<Type> {
        Ok(match self.physical {
            Some(0) => Type::BOOLEAN,
            Some(1) => Type::INT32,
            Some(2) => Type::INT64,
            Some(3) => Type::INT96,
            Some(4) => Type::FLOAT,
            Some(5) => Type::DOUBLE,
            Some(6) => Type::BYTE_ARRAY,
            Some(7) => Type::FIXED_LEN_BYTE_ARRAY,
            _ => return Err(unsound("a column without a known type")),
        })
    }

    fn kind(&self) -> Kind {
        match (self.logical, self.converted) {
            (Some(5), _) | (None, Some(5)) => Kind::Other("decimal numbers"),
            (Some(6), _) | (None, Some(6)) => Kind::Other("dates"),
            (Some(7), _) | (None, Some(7 | 8)) => Kind::Other("times"),
            (Some(8), _) | (None, Some(9 | 10)) => Kind::Other("time stamps"),
            // Strings, enumerations, whole numbers, nothing but nulls, JSON.
            (Some(1 | 4 | 10 | 11 | 12), _) | (None, None | Some(0 | 4 | 11..=19)) => {
                match self.physical {
                    Some(0) => Kind::Bool,
                    Some(1 | 2) if self.unsigned => Kind::Unsigned,
                    Some(1 | 2) => Kind::Integer,
                    Some(4 | 5) => Kind::Float,
                    Some(6) => Kind::Text,
                    _ => Kind::Other("values of a fixed number of bytes"),
                }
            }
            _ => Kind::Other("values of a type that is not known here"),
        }
    }
}

/// A list of `RowGroup`.
fn row_groups(input: &mut Compact<&[u8]>) -> io::Result<Vec<Group>> {
    let mut groups = vec![];
    for _ in 0..input.structs()? {
        let (mut rows, mut chunks) = (None, vec![]);
        let mut last = 0;
        while let Some(field) = input.field(&mut last)? {
            match field {
                (1, LIST) => {
                    for _ in 0..input.structs()? {
                        chunks.push(chunk(input)?);
                    }
                }
                (3, 6) => rows = Some(input.integer()?),
                (_, kind) => input.skip(kind)?,
            }
        }
        let rows = rows.and_then(|rows| u64::try_from(rows).ok());
        let rows = rows.ok_or_else(|| unsound("a row group without a number of rows"))?;
        groups.push(Group { rows, chunks });
    }
    Ok(groups)
}

/// `ColumnChunk`, of which `ColumnMetaData` is what counts.
fn chunk(input: &mut Compact<&[u8]>) -> io::Result<Chunk> {
    let mut chunk = None;
    let mut last = 0;
    while let Some(field) = input.field(&mut last)? {
        match field {
            (1, BINARY) => {
                let detail = "has its columns in other files, which is not read here";
                return Err(io::Error::new(ErrorKind::Unsupported, detail));
            }
            (3, STRUCT) => {
                let numbers = input.integers::<12>()?;
                let size = |id: usize| numbers[id].and_then(|number| u64::try_from(number).ok());
                // Some writers put 0 where there is no dictionary.
                let start = match (size(9), size(11)) {
                    (Some(data), Some(dictionary @ 1..)) => Some(data.min(dictionary)),
                    (data, _) => data,
                };
                chunk = start.zip(size(7)).zip(numbers[4]).map(|((start, length), codec)| Chunk {
                    start,
                    length,
                    codec,
                });
            }
            (8, STRUCT) => return Err(encrypted()),
            (_, kind) => input.skip(kind)?,
        }
    }
    chunk.ok_or_else(|| unsound("a column without a place in the file"))
}
