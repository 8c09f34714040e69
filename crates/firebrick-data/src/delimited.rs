//! CSV and TSV.

use std::{collections::HashSet, io::Read};

use csv::{ByteRecord, ReaderBuilder};

use crate::{
    error::DataError,
    line_starts::LineStarts,
    quote::{quoted, quoted_bytes},
    stream::{Text, stream_error},
    table::{ColumnRef, Parsed, Reason, Sink, too_long, utf8},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Csv,
    Tsv,
}

/// Comes after the file's last byte. If it comes back inside a record, a quote was never closed: the `csv` crate would
/// end the field at the end of the file and say nothing.
const SENTINEL: &[u8] = b"\n\0firebrick end of file\0\n";

pub fn read(text: Text, dialect: Dialect, sink: &mut Sink) -> Result<(), DataError> {
    let limits = sink.options.limits;
    // A record a little above the limit is set aside; one far above it is not even read to its end.
    let record_bytes = (limits.line_bytes as u64).saturating_mul(16);
    let mut reader = ReaderBuilder::new()
        .has_headers(false) // the header is a record that we check ourselves
        .flexible(true) // so that *we* count the fields
        .delimiter(if dialect == Dialect::Csv { b',' } else { b'\t' })
        .quoting(dialect == Dialect::Csv)
        .from_reader(LineStarts::new(text.chain(SENTINEL), record_bytes));
    let mut record = ByteRecord::new();
    let mut columns: Option<Resolved> = None;
    loop {
        let start = reader.position().byte();
        reader.get_mut().mark(start);
        let more = reader.read_byte_record(&mut record).map_err(|e| match e.into_kind() {
            csv::ErrorKind::Io(e) => stream_error(sink.path, e),
            other => {
                DataError::BadSyntax { path: sink.path.to_owned(), detail: format!("{other:?}") }
            }
        })?;
        let line = reader.get_ref().marked_line();
        if !more || record.as_slice() == SENTINEL.trim_ascii() {
            return Ok(());
        }
        if record.as_slice().ends_with(&SENTINEL[1..]) {
            let place = match columns {
                None => "the header".to_owned(),
                Some(_) => format!("row {} (line {line})", sink.next_row() + 1),
            };
            let detail = format!("{place}: a quote is opened there and never closed");
            return Err(DataError::BadSyntax { path: sink.path.to_owned(), detail });
        }
        if columns.is_none() {
            if record.len() > limits.columns {
                let detail =
                    format!("{} columns, where at most {} are taken", record.len(), limits.columns);
                return Err(DataError::TooLarge { path: sink.path.to_owned(), detail });
            }
            columns = Some(resolve(&record, sink)?);
            if sink.options.header {
                continue;
            }
        }
        if let Some(columns) = &columns {
            sink.push(line, parse(&record, columns, limits.line_bytes, sink.options.header))?;
        }
    }
}

/// Positions of the columns that were asked for.
struct Resolved {
    text: usize,
    label: Option<usize>,
    /// Number of fields of every record.
    width: usize,
}

fn resolve(first: &ByteRecord, sink: &Sink) -> Result<Resolved, DataError> {
    let path = || sink.path.to_owned();
    let mut names = vec![];
    if sink.options.header {
        for name in first {
            let name = utf8(name).map_err(|(_, detail)| DataError::BadEncoding {
                path: path(),
                detail: format!("in the header, {detail}"),
            })?;
            if name.contains('\0') {
                let detail = format!("NUL in the header, column {}", quoted(name));
                return Err(DataError::BadEncoding { path: path(), detail });
            }
            names.push(name.to_owned());
        }
        let mut seen = HashSet::new();
        let again = names.iter().find(|name| !name.is_empty() && !seen.insert(name.as_str()));
        if let Some(column) = again.cloned() {
            return Err(DataError::DuplicateColumn { path: path(), column });
        }
    }
    let position = |column: &ColumnRef| {
        let found = match column {
            ColumnRef::Index(index) => (*index < first.len()).then_some(*index),
            ColumnRef::Name(_) if !sink.options.header => {
                return Err(DataError::BadOption {
                    name: "a column",
                    value: column.to_string(),
                    expected: "a number from 0, because the file is read without a header",
                });
            }
            ColumnRef::Name(name) => names.iter().position(|found| found == name),
        };
        found.ok_or_else(|| DataError::MissingColumn {
            path: path(),
            column: column.to_string(),
            found: match sink.options.header {
                true => names.clone(),
                false => (0..first.len()).map(|index| index.to_string()).collect(),
            },
        })
    };
    Ok(Resolved {
        text: position(&sink.options.columns.text)?,
        label: sink.options.columns.label.as_ref().map(position).transpose()?,
        width: first.len(),
    })
}

fn parse(record: &ByteRecord, columns: &Resolved, line_bytes: usize, header: bool) -> Parsed {
    let bytes = record.as_slice().len();
    if bytes > line_bytes {
        return Err(too_long(bytes as u64, line_bytes));
    }
    if record.len() != columns.width {
        let (n, width) = (record.len(), columns.width);
        let fields = if n == 1 { "field" } else { "fields" };
        let model = if header { "header" } else { "first row" };
        return Err((Reason::RaggedRow, format!("{n} {fields}, where the {model} has {width}")));
    }
    // Other columns count too: a row with broken bytes anywhere is a row that went wrong somewhere.
    for field in record {
        utf8(field)?;
        if field.contains(&0) {
            return Err((Reason::BadEncoding, format!("NUL in {}", quoted_bytes(field))));
        }
    }
    let field = |index: usize| utf8(&record[index]).map(str::to_owned);
    Ok((field(columns.text)?, columns.label.map(field).transpose()?))
}
