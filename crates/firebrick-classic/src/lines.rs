//! Lines of model files: bounded, numbered, UTF-8.

use std::io::{BufRead, Read};

use crate::error::ReadError;

/// Longest quotation in a message, in characters.
const QUOTED_CHARS: usize = 80;

/// The lines of a file that are not empty, without white space at their ends.
pub(crate) struct Lines<R> {
    reader: R,
    limit: usize,
    line: String,
    /// Of `line`, from 1; 0 before the first.
    number: u64,
    /// `line` was looked at but not taken.
    peeked: bool,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    /// A line of more than `limit` bytes is an error.
    pub fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, line: String::new(), number: 0, peeked: false, ended: false }
    }

    /// The number of the line that [`Self::next`] gave last; blank lines count.
    pub fn number(&self) -> u64 {
        self.number - u64::from(self.peeked)
    }

    /// The next line that is not blank, `None` at the end.
    pub fn next(&mut self) -> Result<Option<&str>, ReadError> {
        self.fill()?;
        self.peeked = false;
        Ok((!self.ended).then(|| self.line.trim_ascii()))
    }

    /// What [`Self::next`] will give.
    pub fn peek(&mut self) -> Result<Option<&str>, ReadError> {
        self.fill()?;
        Ok((!self.ended).then(|| self.line.trim_ascii()))
    }

    /// Takes the next line, which must be `due`.
    pub fn expect(&mut self, due: &str) -> Result<(), ReadError> {
        match self.next()? {
            Some(line) if line == due => Ok(()),
            Some(line) => {
                let problem = format!("{}, where {} is due", quoted(line), quoted(due));
                Err(self.error(problem))
            }
            None => Err(self.ended(&quoted(due))),
        }
    }

    /// An error at the line that was taken last.
    pub fn error(&self, problem: String) -> ReadError {
        ReadError::line(self.number(), problem)
    }

    /// The file ended before `due`.
    pub fn ended(&self, due: &str) -> ReadError {
        self.error(format!("the file ends here, where {due} is still due"))
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        while !self.peeked && !self.ended {
            let mut bytes = std::mem::take(&mut self.line).into_bytes();
            bytes.clear();
            let most = self.limit as u64 + 1;
            let length = self.reader.by_ref().take(most).read_until(b'\n', &mut bytes)?;
            if length == 0 {
                self.ended = true;
                break;
            }
            self.number += 1;
            if bytes.len() > self.limit && bytes.last() != Some(&b'\n') {
                let problem = format!("more than {} bytes in one line", self.limit);
                return Err(ReadError::line(self.number, problem));
            }
            self.line = String::from_utf8(bytes)
                .map_err(|_| ReadError::line(self.number, "not UTF-8 text".to_owned()))?;
            self.peeked = !self.line.trim_ascii().is_empty();
        }
        Ok(())
    }
}

/// `text` between back-ticks on one line, control characters escaped, cut to 80 characters.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(QUOTED_CHARS)
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
