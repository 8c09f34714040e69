//! Rows of text and label from CSV, TSV, JSON lines and plain text, each also gzipped, and from Parquet.
//!
//! A file that is wrong as a whole (another encoding, a missing column, a cut archive) is an error. A row that is
//! wrong is set aside with its line and the reason, and reading goes on; [`ReadOptions::strict`] refuses instead.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    delimited,
    error::DataError,
    jsonl, lines, parquet,
    quote::{quoted, quoted_bytes},
    stream,
};

/// One example.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Row {
    /// Number of the record in its file, from 0, counting bad records but neither header nor blank lines.
    pub row: usize,
    pub text: String,
    /// As the file writes it; `None` when no label column was asked for.
    pub label: Option<String>,
}

/// Which column of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnRef {
    /// Name in the header, or key of a JSON object; in Parquet `group.name` of what lies in a group.
    Name(String),
    /// Position from 0; not for JSON lines.
    Index(usize),
}

impl fmt::Display for ColumnRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(&quoted(name)),
            Self::Index(index) => write!(f, "number {index} (from 0)"),
        }
    }
}

/// Where text and label stand. A `.txt` file has no columns: `text` is then not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    pub text: ColumnRef,
    pub label: Option<ColumnRef>,
}

impl Columns {
    pub fn named(text: &str, label: Option<&str>) -> Self {
        Self {
            text: ColumnRef::Name(text.to_owned()),
            label: label.map(|name| ColumnRef::Name(name.to_owned())),
        }
    }

    pub fn indexed(text: usize, label: Option<usize>) -> Self {
        Self { text: ColumnRef::Index(text), label: label.map(ColumnRef::Index) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180: commas, fields may be quoted and then hold new lines.
    Csv,
    /// Tabs, no quoting: a quotation mark is a character like any other.
    Tsv,
    /// One JSON object a line; blank lines are skipped.
    Jsonl,
    /// One text a line; a blank line is an empty text.
    Lines,
    /// Columns of strings, numbers and truth values, by row groups; text must be a string.
    Parquet,
}

/// What a label must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelKind {
    /// A whole number; rewritten in its plain form (`+01` becomes `1`).
    Integer,
}

/// What a file may cost. The defaults keep a reader below 512 MiB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file, after gzip; of Parquet, of the columns that are read.
    pub bytes: u64,
    /// How many times its size a gzip file may grow (checked past 16 MiB).
    pub ratio: u64,
    /// Bytes of one line or record; a longer one is set aside.
    pub line_bytes: usize,
    pub columns: usize,
    /// Records, good and bad.
    pub rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 192 << 20, ratio: 200, line_bytes: 1 << 20, columns: 4096, rows: 1_000_000 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    pub columns: Columns,
    /// Whether the first record of CSV or TSV holds the names.
    pub header: bool,
    /// `None`: Parquet by the file's first bytes, the others by its name (`.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.txt`,
    /// then perhaps `.gz`).
    pub format: Option<Format>,
    pub label_kind: Option<LabelKind>,
    /// Refuse at the first bad row instead of setting it aside.
    pub strict: bool,
    pub limits: Limits,
}

impl ReadOptions {
    /// A file with a header (or keys), labels of any kind, bad rows set aside, default limits.
    pub fn new(columns: Columns) -> Self {
        Self {
            columns,
            header: true,
            format: None,
            label_kind: None,
            strict: false,
            limits: Limits::default(),
        }
    }
}

/// Why a row was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    BadEncoding,
    BadJson,
    BadValue,
    DuplicateKey,
    LineTooLong,
    MissingField,
    RaggedRow,
    TooDeep,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::BadEncoding => "BadEncoding",
            Self::BadJson => "BadJson",
            Self::BadValue => "BadValue",
            Self::DuplicateKey => "DuplicateKey",
            Self::LineTooLong => "LineTooLong",
            Self::MissingField => "MissingField",
            Self::RaggedRow => "RaggedRow",
            Self::TooDeep => "TooDeep",
        }
    }
}

/// A row that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// As [`Row::row`]: from 0. The message counts from 1, as editors count lines.
    pub row: usize,
    /// Line of the file on which the record begins, from 1; 0 where a file has no lines.
    pub line: u64,
    pub reason: Reason,
    pub detail: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.line {
            0 => write!(f, "row {}: {}", self.row + 1, self.detail),
            line => write!(f, "row {} (line {line}): {}", self.row + 1, self.detail),
        }
    }
}

/// What a file holds. `rows` may be empty when `bad` is not: see [`Table::usable`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub rows: Vec<Row>,
    pub bad: Vec<BadRow>,
}

impl Table {
    /// How many rows were set aside, by reason.
    pub fn bad_counts(&self) -> BTreeMap<Reason, usize> {
        let mut counts = BTreeMap::new();
        self.bad.iter().for_each(|bad| *counts.entry(bad.reason).or_default() += 1);
        counts
    }

    /// The table with rows that have no word among its bad ones: the class of nothing would be the commonest one, said with
    /// confidence.
    pub fn worded(mut self) -> Self {
        let (blank, rows): (Vec<Row>, Vec<Row>) =
            self.rows.into_iter().partition(|row| row.text.trim().is_empty());
        self.rows = rows;
        let bad = |Row { row, .. }| {
            let detail = "the text has no word in it".to_owned();
            BadRow { row, line: 0, reason: Reason::BadValue, detail }
        };
        self.bad.extend(blank.into_iter().map(bad));
        self.bad.sort_by_key(|bad| bad.row);
        self
    }

    /// The table, or an error that names the first bad row when no good one is left. For training and evaluation.
    pub fn usable(self, path: &Path) -> Result<Self, DataError> {
        match self.bad.first() {
            Some(first) if self.rows.is_empty() => Err(DataError::NoUsableRow {
                path: path.to_owned(),
                count: self.bad.len(),
                first: Box::new(first.clone()),
            }),
            _ => Ok(self),
        }
    }
}

/// Reads a whole file.
///
/// ```
/// use firebrick_data::table::{Columns, ReadOptions, read};
///
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("reviews.csv");
/// std::fs::write(&path, "label,review\n1,good\n0\n").unwrap();
///
/// let table = read(&path, &ReadOptions::new(Columns::named("review", Some("label")))).unwrap();
/// assert_eq!(table.rows[0].text, "good");
/// assert_eq!(table.bad[0].to_string(), "row 2 (line 3): 1 field, where the header has 2");
/// ```
pub fn read(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let mut sink = Sink { path, options, table: Table::default() };
    let packed = match options.format {
        Some(format) => format == Format::Parquet,
        None => parquet::is_parquet(path)?,
    };
    match packed {
        true => parquet::read(&mut sink)?,
        false => read_text(&mut sink)?,
    }
    if sink.next_row() == 0 {
        let detail = "it has no rows";
        return Err(DataError::Empty { path: path.to_owned(), detail });
    }
    Ok(sink.table)
}

fn read_text(sink: &mut Sink) -> Result<(), DataError> {
    let (path, limits) = (sink.path, sink.options.limits);
    // What the file is comes before what its name says.
    let text = stream::open_text(path, limits.bytes, limits.ratio)?;
    match sink.options.format.map_or_else(|| format_of(path), Ok)? {
        Format::Csv => delimited::read(text, delimited::Dialect::Csv, sink),
        Format::Tsv => delimited::read(text, delimited::Dialect::Tsv, sink),
        Format::Jsonl => jsonl::read(text, sink),
        Format::Lines => lines::read(text, sink),
        Format::Parquet => parquet::read(sink), // which says what it is instead
    }
}

fn format_of(path: &Path) -> Result<Format, DataError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "csv" => Ok(Format::Csv),
        "tsv" | "tab" => Ok(Format::Tsv),
        "jsonl" | "ndjson" => Ok(Format::Jsonl),
        "txt" | "text" => Ok(Format::Lines),
        "parquet" => Ok(Format::Parquet),
        _ => Err(DataError::Unsupported {
            path: path.to_owned(),
            detail:
                "is named like no table; known are .csv, .tsv, .jsonl and .txt, each also .gz, \
                     and .parquet"
                    .to_owned(),
        }),
    }
}

/// A row as a format's reader hands it over: text and label, or why not.
pub(crate) type Parsed = Result<(String, Option<String>), (Reason, String)>;

/// Where the formats' readers put their rows; holds the rules that all formats share.
pub(crate) struct Sink<'a> {
    pub path: &'a Path,
    pub options: &'a ReadOptions,
    table: Table,
}

impl Sink<'_> {
    /// Number that the next record gets.
    pub fn next_row(&self) -> usize {
        self.table.rows.len() + self.table.bad.len()
    }

    pub fn push(&mut self, line: u64, parsed: Parsed) -> Result<(), DataError> {
        let row = self.next_row();
        if row == self.options.limits.rows {
            let detail = format!("more than {row} rows");
            return Err(DataError::TooLarge { path: self.path.to_owned(), detail });
        }
        match parsed.and_then(|(text, label)| self.checked(text, label)) {
            Ok((text, label)) => self.table.rows.push(Row { row, text, label }),
            Err((reason, detail)) => {
                let bad = BadRow { row, line, reason, detail };
                if self.options.strict {
                    return Err(DataError::BadRow {
                        path: self.path.to_owned(),
                        bad: Box::new(bad),
                    });
                }
                self.table.bad.push(bad);
            }
        }
        Ok(())
    }

    fn checked(&self, text: String, label: Option<String>) -> Parsed {
        if text.contains('\0') {
            return Err((Reason::BadEncoding, format!("NUL in the text {}", quoted(&text))));
        }
        let label = match label {
            None => return Ok((text, None)),
            Some(label) => label,
        };
        match self.options.label_kind {
            Some(LabelKind::Integer) => match label.trim().parse::<i64>() {
                Ok(number) => Ok((text, Some(number.to_string()))),
                Err(_) => Err((
                    Reason::BadValue,
                    format!("label {} is not a whole number", quoted(&label)),
                )),
            },
            None if label.trim().is_empty() => {
                Err((Reason::BadValue, "the label is empty".to_owned()))
            }
            None if label.contains('\0') => {
                Err((Reason::BadEncoding, format!("NUL in the label {}", quoted(&label))))
            }
            None => Ok((text, Some(label))),
        }
    }
}

/// Bytes of a field or line as text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, (Reason, String)> {
    std::str::from_utf8(bytes).map_err(|e| {
        let from = e.valid_up_to().saturating_sub(10);
        let near = quoted_bytes(&bytes[from..(e.valid_up_to() + 10).min(bytes.len())]);
        (Reason::BadEncoding, format!("byte {} is not UTF-8: {near}", e.valid_up_to() + 1))
    })
}

pub(crate) fn too_long(bytes: u64, limit: usize) -> (Reason, String) {
    (Reason::LineTooLong, format!("{bytes} bytes, where at most {limit} are taken"))
}
