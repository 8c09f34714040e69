//! Sentences of words and their part-of-speech tags from CoNLL-U files, also gzipped.
//!
//! Format: <https://universaldependencies.org/format.html>. Of the ten columns FORM and UPOS are taken; multiword
//! tokens (`1-2`) and empty nodes (`8.1`) are skipped: the words are those that the tree hangs on.
//!
//! As in [`crate::table`], a file that is wrong as a whole is an error, and a sentence that is wrong is set aside with
//! its line and the reason, or refused.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    error::DataError,
    lines::next_line,
    quote::quoted,
    stream::{open_text, stream_error},
    table::{BadRow, Limits, Reason, too_long, utf8},
};

const COLUMNS: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    pub form: String,
    pub upos: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sentence {
    /// Line of its first word, from 1.
    pub line: u64,
    pub tokens: Vec<Token>,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Treebank {
    pub sentences: Vec<Sentence>,
    /// Sentences that were set aside; `row` is the sentence's number, `line` the one that is wrong.
    pub bad: Vec<BadRow>,
}

/// Reads a whole file. `strict`: refuse at the first bad sentence instead of setting it aside; `limits.rows` are
/// sentences.
///
/// ```
/// use firebrick_data::{conllu::read, table::Limits};
///
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("small.conllu");
/// let rest = "\t_\t_\t_\t_\t_\t_";
/// let text = format!("# text = It's\n1-2\tIt's\t_\t_{rest}\n1\tIt\tit\tPRON{rest}\n2\t's\tbe\tAUX{rest}\n\n1\tBad\n\n");
/// std::fs::write(&path, text).unwrap();
///
/// let treebank = read(&path, false, &Limits::default()).unwrap();
/// let words: Vec<_> = treebank.sentences[0].tokens.iter().map(|t| (t.form.as_str(), t.upos.as_str())).collect();
/// assert_eq!(words, [("It", "PRON"), ("'s", "AUX")]);
/// assert_eq!(treebank.bad[0].to_string(), "row 2 (line 6): 2 fields, where a word has 10");
/// ```
pub fn read(path: &Path, strict: bool, limits: &Limits) -> Result<Treebank, DataError> {
    let mut text = open_text(path, limits.bytes, limits.ratio)?;
    let mut treebank = Treebank::default();
    let mut now = Pending::default();
    let mut line = vec![];
    let mut number = 0;
    while let Some(length) =
        next_line(&mut text, &mut line, limits.line_bytes).map_err(|e| stream_error(path, e))?
    {
        number += 1;
        if line.is_empty() {
            now.end(path, strict, limits, &mut treebank)?;
        } else if !line.starts_with(b"#") && now.bad.is_none() {
            let parsed = match length > limits.line_bytes as u64 {
                true => Err(too_long(length, limits.line_bytes)),
                false => utf8(&line).and_then(|line| word(line, now.tokens.len())),
            };
            now.add(number, parsed);
        }
    }
    now.end(path, strict, limits, &mut treebank)?;
    if treebank.sentences.is_empty() && treebank.bad.is_empty() {
        return Err(DataError::Empty { path: path.to_owned(), detail: "it has no sentences" });
    }
    Ok(treebank)
}

/// The sentence that is being read.
#[derive(Default)]
struct Pending {
    line: u64,
    tokens: Vec<Token>,
    /// The first line of it that is wrong, and why.
    bad: Option<(u64, Reason, String)>,
}

impl Pending {
    fn add(&mut self, line: u64, parsed: Result<Option<Token>, (Reason, String)>) {
        match parsed {
            Ok(None) => {}
            Ok(Some(token)) => {
                if self.tokens.is_empty() {
                    self.line = line;
                }
                self.tokens.push(token);
            }
            Err((reason, detail)) => self.bad = Some((line, reason, detail)),
        }
    }

    fn end(
        &mut self,
        path: &Path,
        strict: bool,
        limits: &Limits,
        treebank: &mut Treebank,
    ) -> Result<(), DataError> {
        let Self { line, tokens, bad } = std::mem::take(self);
        if tokens.is_empty() && bad.is_none() {
            return Ok(()); // blank lines, or only comments
        }
        let row = treebank.sentences.len() + treebank.bad.len();
        if row == limits.rows {
            let detail = format!("more than {row} sentences");
            return Err(DataError::TooLarge { path: path.to_owned(), detail });
        }
        let Some((line, reason, detail)) = bad else {
            treebank.sentences.push(Sentence { line, tokens });
            return Ok(());
        };
        let bad = BadRow { row, line, reason, detail };
        if strict {
            return Err(DataError::BadRow { path: path.to_owned(), bad: Box::new(bad) });
        }
        treebank.bad.push(bad);
        Ok(())
    }
}

/// A line that is neither blank nor a comment, after `before` words; `None` for what is not a word of the tree.
fn word(line: &str, before: usize) -> Result<Option<Token>, (Reason, String)> {
    let fields: Vec<&str> = line.split('\t').take(COLUMNS + 1).collect();
    if fields.len() != COLUMNS {
        let (found, s) = (fields.len(), if fields.len() == 1 { "" } else { "s" });
        let more = if found > COLUMNS { " or more" } else { "" };
        let detail = format!("{found} field{s}{more}, where a word has {COLUMNS}");
        return Err((Reason::RaggedRow, detail));
    }
    let (id, form, upos) = (fields[0], fields[1], fields[3]);
    let whole = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    if id.split_once(['-', '.']).is_some_and(|(a, b)| whole(a) && whole(b)) {
        return Ok(None);
    }
    if id.parse() != Ok(before + 1) {
        let detail = format!("ID is {}, where {} is due", quoted(id), before + 1);
        return Err((Reason::BadValue, detail));
    }
    for (name, value) in [("FORM", form), ("UPOS", upos)] {
        if value.trim().is_empty() {
            return Err((Reason::MissingField, format!("{name} is empty")));
        }
        if value.contains(char::is_control) {
            let detail = format!("{name} {} holds a control character", quoted(value));
            return Err((Reason::BadEncoding, detail));
        }
    }
    if upos == "_" {
        return Err((Reason::MissingField, format!("{} has no UPOS tag", quoted(form))));
    }
    Ok(Some(Token { form: form.to_owned(), upos: upos.to_owned() }))
}
