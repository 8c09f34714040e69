//! What can go wrong between a file and its rows.

use std::{io, path::PathBuf};

use crate::{
    quote::{quoted, quoted_list, shown},
    table::BadRow,
};

/// Each variant names the file and what was found; messages are one line without control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    #[error("cannot read {}", shown(path))]
    Read { path: PathBuf, source: io::Error },

    #[error("cannot write {}", shown(path))]
    Write { path: PathBuf, source: io::Error },

    #[error("{} is {found}, where a file is due", shown(path))]
    NotRegularFile { path: PathBuf, found: String },

    #[error("{} is empty: {detail}", shown(path))]
    Empty { path: PathBuf, detail: &'static str },

    #[error("{} is not UTF-8 text: {detail}", shown(path))]
    BadEncoding { path: PathBuf, detail: String },

    #[error("{}: {detail}", shown(path))]
    BadSyntax { path: PathBuf, detail: String },

    #[error("{} is not JSON lines: {detail}", shown(path))]
    BadJson { path: PathBuf, detail: String },

    #[error("{} ends too early: {detail}", shown(path))]
    Truncated { path: PathBuf, detail: String },

    /// A CRC, a tar header sum or the manifest's sha256.
    #[error("{} is damaged: {detail}", shown(path))]
    BadChecksum { path: PathBuf, detail: String },

    #[error("{} expands without end: {detail}", shown(path))]
    Bomb { path: PathBuf, detail: String },

    #[error("{} is too large: {detail}", shown(path))]
    TooLarge { path: PathBuf, detail: String },

    /// A member of an archive that would land outside the destination, or is a link.
    #[error(
        "{}: member {} {problem}; nothing of the archive was kept",
        shown(path),
        quoted(member)
    )]
    UnsafePath { path: PathBuf, member: String, problem: &'static str },

    #[error("{}: member {} is in the archive twice", shown(path), quoted(member))]
    DuplicateMember { path: PathBuf, member: String },

    #[error("{} {detail}", shown(path))]
    Unsupported { path: PathBuf, detail: String },

    /// A value in the file lies outside its domain.
    #[error("{} {detail}", shown(path))]
    BadValue { path: PathBuf, detail: String },

    #[error("{} has no column {column}; its columns are {}", shown(path),
        quoted_list(found.iter().map(String::as_str)))]
    MissingColumn { path: PathBuf, column: String, found: Vec<String> },

    #[error("{} has two columns named {}", shown(path), quoted(column))]
    DuplicateColumn { path: PathBuf, column: String },

    /// Strict mode: the first row that the default mode would have set aside.
    #[error("{}: {bad}", shown(path))]
    BadRow { path: PathBuf, bad: Box<BadRow> },

    #[error("{}: none of its {count} rows is usable; the first: {first}", shown(path))]
    NoUsableRow { path: PathBuf, count: usize, first: Box<BadRow> },

    #[error("there is no data set {}{}", quoted(id), guess.map_or(String::new(), |g| format!("; did you mean `{g}`?")))]
    UnknownSet { id: String, guess: Option<&'static str> },

    /// A set of another kind than the task's, or a part that a set does not have.
    #[error("{0}")]
    WrongSet(String),

    /// Whole and sound, and too little to learn from.
    #[error("{0}")]
    TooLittle(String),

    /// The same rows in two parts.
    #[error("{0}")]
    Leaks(String),

    #[error("data set `{id}` is not on this machine; looked for {archive} or the folder {id}/ in {}; \
        it comes from {source_name} (licence: {licence})",
        searched.iter().map(|p| shown(p)).collect::<Vec<_>>().join(", "))]
    NotHere {
        id: String,
        archive: String,
        source_name: String,
        licence: String,
        searched: Vec<PathBuf>,
    },

    #[error("{} holds {found} files, but the manifest says {expected}", shown(path))]
    FileCount { path: PathBuf, expected: usize, found: usize },

    #[error("{} is there already", shown(path))]
    Exists { path: PathBuf },

    /// A rule or an option of ours outside its domain.
    #[error("{name} is {value}, but must be {expected}")]
    BadOption { name: &'static str, value: String, expected: &'static str },
}

impl DataError {
    /// The class of the error as one word, for programs: `BadEncoding`, `Truncated`, `UnsafePath`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Read",
            Self::Write { .. } => "Write",
            Self::NotRegularFile { .. } => "NotRegularFile",
            Self::Empty { .. } => "Empty",
            Self::BadEncoding { .. } => "BadEncoding",
            Self::BadSyntax { .. } => "BadSyntax",
            Self::BadJson { .. } => "BadJson",
            Self::Truncated { .. } => "Truncated",
            Self::BadChecksum { .. } => "BadChecksum",
            Self::Bomb { .. } => "Bomb",
            Self::TooLarge { .. } => "TooLarge",
            Self::UnsafePath { .. } => "UnsafePath",
            Self::DuplicateMember { .. } | Self::DuplicateColumn { .. } => "DuplicateKey",
            Self::Unsupported { .. } => "Unsupported",
            Self::MissingColumn { .. } => "MissingField",
            Self::BadRow { bad, .. } | Self::NoUsableRow { first: bad, .. } => bad.reason.name(),
            Self::UnknownSet { .. } | Self::WrongSet(_) => "UnknownSet",
            Self::TooLittle(_) => "TooLittle",
            Self::Leaks(_) => "Leaks",
            Self::NotHere { .. } => "NotHere",
            Self::FileCount { .. } => "Mismatch",
            Self::Exists { .. } => "Exists",
            Self::BadValue { .. } | Self::BadOption { .. } => "BadValue",
        }
    }
}
