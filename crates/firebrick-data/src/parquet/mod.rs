//! Parquet, as far as a table of texts and labels needs it: <https://parquet.apache.org/docs/file-format/>.
//!
//! Only the pages of the columns that are asked for are read, one by one. [`footer`] and [`pages`] keep to the limits
//! whatever the file says; the `parquet` crate decodes the values, and what panics in it is an unsound file.

use std::{
    collections::HashSet,
    fs::File,
    io::Read,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use ::parquet::{
    basic::Repetition,
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader},
    data_type::{ByteArray, DataType},
    errors::{ParquetError, Result as Decoded},
    schema::types::{ColumnDescriptor, ColumnPath, Type},
};

use crate::{
    contained::contained,
    error::DataError,
    quote::{escaped, quoted},
    stream,
    table::{ColumnRef, Parsed, Reason, Sink, too_long, utf8},
};
use footer::{Chunk, Column, Footer, Kind};
use pages::{Codec, Pages};

mod footer;
mod pages;
mod thrift;

/// Rows that are decoded at a time.
const BATCH: u64 = 1024;

/// Whether a file begins as Parquet does, plain or encrypted.
pub fn is_parquet(path: &Path) -> Result<bool, DataError> {
    let (file, _) = stream::open_regular(path)?;
    let mut head = vec![];
    let read = file.take(4).read_to_end(&mut head);
    read.map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    Ok(head == b"PAR1" || head == b"PARE")
}

pub fn read(sink: &mut Sink) -> Result<(), DataError> {
    let (path, limits) = (sink.path, sink.options.limits);
    let (file, size) = stream::open_regular(path)?;
    let footer = footer::read(&file, size, path, limits.columns)?;
    let columns = &sink.options.columns;
    let text = resolve(&footer, &columns.text, path)?;
    let label = columns.label.as_ref().map(|label| resolve(&footer, label, path)).transpose()?;
    let due = |index: usize, fits: bool, due: &str| {
        let Column { name, kind, .. } = &footer.columns[index];
        let detail = format!("holds {kind} in column {}, where {due} are due", quoted(name));
        match fits {
            true => Ok(()),
            false => Err(DataError::BadValue { path: path.to_owned(), detail }),
        }
    };
    due(text, footer.columns[text].kind == Kind::Text, "strings")?;
    if let Some(label) = label {
        let known = !matches!(footer.columns[label].kind, Kind::Other(_));
        due(label, known, "strings, numbers or truth values")?;
    }

    let opened = Opened {
        path,
        file: Arc::new(file),
        rows: limits.rows,
        budget: Arc::new(limits.bytes.into()),
    };
    let mut bytes = 0;
    for (group, number) in footer.groups.iter().zip(1..) {
        let cells = |index: usize| {
            Cells::open(&opened, &footer.columns[index], group.chunks[index], number)
        };
        let mut texts = cells(text)?;
        let mut labels = label.map(cells).transpose()?;
        let mut left = group.rows;
        while left > 0 {
            let count = left.min(BATCH) as usize;
            let batch = texts.next(count)?;
            let mut marks =
                labels.as_mut().map(|labels| labels.next(count)).transpose()?.map(Vec::into_iter);
            for cell in batch {
                // One for each text: both are `count`.
                let mark = marks.as_mut().and_then(Iterator::next);
                let parsed = parse(cell, mark, &texts, labels.as_ref(), limits.line_bytes);
                if let Ok((text, label)) = &parsed {
                    bytes += (text.len() + label.as_ref().map_or(0, String::len)) as u64;
                }
                if bytes > limits.bytes {
                    let detail = format!("more than {} bytes of text", limits.bytes);
                    return Err(DataError::TooLarge { path: path.to_owned(), detail });
                }
                sink.push(0, parsed)?;
            }
            left -= count as u64;
        }
    }
    Ok(())
}

/// Position of a column that was asked for.
fn resolve(footer: &Footer, wanted: &ColumnRef, path: &Path) -> Result<usize, DataError> {
    let names = || footer.columns.iter().map(|column| &column.name);
    let mut seen = HashSet::new();
    if let Some(again) = names().find(|name| !seen.insert(*name)) {
        return Err(DataError::DuplicateColumn { path: path.to_owned(), column: again.clone() });
    }
    let found = match wanted {
        ColumnRef::Name(wanted) => names().position(|name| name == wanted),
        ColumnRef::Index(index) => (*index < footer.columns.len()).then_some(*index),
    };
    found.ok_or_else(|| DataError::MissingColumn {
        path: path.to_owned(),
        column: wanted.to_string(),
        found: names().cloned().collect(),
    })
}

/// A file, and what reading it may cost.
struct Opened<'a> {
    path: &'a Path,
    file: Arc<File>,
    /// Most values of a page.
    rows: usize,
    /// Bytes that pages may still unpack to.
    budget: Arc<AtomicU64>,
}

/// A value, as a table wants to know it.
enum Cell {
    Text(ByteArray),
    /// A number or truth value, written out.
    Written(String),
    /// What is there in place of a value.
    Missing(&'static str),
}

/// The values of a column in a row group, in order.
struct Cells<'a> {
    path: &'a Path,
    column: &'a Column,
    /// Number of the row group, from 1.
    group: usize,
    reader: ColumnReader,
}

impl<'a> Cells<'a> {
    fn open(
        opened: &Opened<'a>,
        column: &'a Column,
        chunk: Chunk,
        group: usize,
    ) -> Result<Self, DataError> {
        let path = opened.path;
        let codec = Codec::of(chunk.codec).map_err(|name| {
            let detail = format!(
                "is compressed by {name}, which is not read here; write it with snappy, gzip or zstd"
            );
            DataError::Unsupported { path: path.to_owned(), detail }
        })?;
        let pages = Pages {
            path: path.to_owned(),
            file: opened.file.clone(),
            chunk,
            codec,
            levels: column.levels > 0,
            rows: opened.rows,
            budget: opened.budget.clone(),
        };
        // Name and repetition are of no matter for the decoder.
        let plain = Type::primitive_type_builder("", column.physical)
            .with_repetition(Repetition::OPTIONAL)
            .build()
            .expect("a type without an annotation has none that does not fit it");
        let descriptor =
            ColumnDescriptor::new(Arc::new(plain), column.levels, 0, ColumnPath::new(vec![]));
        let reader = get_column_reader(Arc::new(descriptor), Box::new(pages));
        Ok(Self { path, column, group, reader })
    }

    /// The next `count` values.
    fn next(&mut self, count: usize) -> Result<Vec<Cell>, DataError> {
        let problem = match contained(|| self.decode(count)) {
            Some(Ok(cells)) if cells.len() == count => return Ok(cells),
            Some(Ok(_)) => "it has fewer values than the group has rows".to_owned(),
            Some(Err(ParquetError::External(error))) => match error.downcast::<DataError>() {
                Ok(error) => return Err(*error),
                Err(error) => error.to_string(),
            },
            Some(Err(
                ParquetError::General(problem)
                | ParquetError::NYI(problem)
                | ParquetError::EOF(problem),
            )) => problem,
            Some(Err(error)) => error.to_string(),
            None => "its values are not what the headers of its pages say".to_owned(),
        };
        let (name, group) = (quoted(&self.column.name), self.group);
        Err(DataError::BadSyntax {
            path: self.path.to_owned(),
            detail: format!("column {name} of row group {group}: {}", escaped(&problem)),
        })
    }

    fn decode(&mut self, count: usize) -> Decoded<Vec<Cell>> {
        let levels = self.column.levels;
        let unsigned = self.column.kind == Kind::Unsigned;
        fn float(finite: bool, written: impl ToString) -> Cell {
            match finite {
                true => Cell::Written(written.to_string()),
                false => Cell::Missing("no finite number"),
            }
        }
        match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                values(reader, levels, count, Cell::Text)
            }
            ColumnReader::BoolColumnReader(reader) => {
                values(reader, levels, count, |value| Cell::Written(value.to_string()))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                values(reader, levels, count, |value| match unsigned {
                    true => Cell::Written(value.cast_unsigned().to_string()),
                    false => Cell::Written(value.to_string()),
                })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                values(reader, levels, count, |value| match unsigned {
                    true => Cell::Written(value.cast_unsigned().to_string()),
                    false => Cell::Written(value.to_string()),
                })
            }
            ColumnReader::FloatColumnReader(reader) => {
                values(reader, levels, count, |value| float(value.is_finite(), value))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                values(reader, levels, count, |value| float(value.is_finite(), value))
            }
            ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
                unreachable!("of a kind that is no text and no label")
            }
        }
    }
}

/// Up to `count` values, nulls among them: a value is there where its level is `levels`.
fn values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    levels: i16,
    count: usize,
    cell: impl Fn(T::T) -> Cell,
) -> Decoded<Vec<Cell>> {
    let (mut found, mut values) = (vec![], vec![]);
    reader.read_records(count, Some(&mut found), None, &mut values)?;
    let mut values = values.into_iter().map(cell);
    if levels == 0 {
        return Ok(values.collect());
    }
    let next = |level| match level == levels {
        true => values.next(),
        false => Some(Cell::Missing("null")),
    };
    Ok(found.into_iter().map_while(next).collect())
}

fn parse(
    text: Cell,
    label: Option<Cell>,
    texts: &Cells,
    labels: Option<&Cells>,
    line_bytes: usize,
) -> Parsed {
    let missing = |column: &str, found: &str, due: &str| {
        (Reason::BadValue, format!("{} is {found}, where {due} is due", quoted(column)))
    };
    let field = |cell: Cell, column: &str, due: &str| match cell {
        Cell::Text(bytes) if bytes.len() > line_bytes => {
            Err(too_long(bytes.len() as u64, line_bytes))
        }
        Cell::Text(bytes) => Ok(utf8(bytes.data())?.to_owned()),
        Cell::Written(value) => Ok(value),
        Cell::Missing(found) => Err(missing(column, found, due)),
    };
    let text = field(text, &texts.column.name, "a string")?;
    let label = match label.zip(labels) {
        Some((cell, labels)) => Some(field(cell, &labels.column.name, "a label")?),
        None => None,
    };
    Ok((text, label))
}
