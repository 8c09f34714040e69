//! Lines of bounded length, and the plain text format: one text a line.

use std::io::{self, BufRead};

use crate::{
    error::DataError,
    stream::{Text, stream_error},
    table::{Sink, too_long, utf8},
};

/// Reads the next line into `line`, without its end (`\n` or `\r\n`).
///
/// Returns the line's length in bytes, `None` at the end. Of a line longer than `limit` only the first `limit` bytes
/// are kept: memory stays bounded whatever the file holds.
pub fn next_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Option<u64>> {
    line.clear();
    let mut length = 0;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if chunk.is_empty() && length == 0 {
            return Ok(None);
        }
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        line.extend_from_slice(&part[..part.len().min(limit - line.len())]);
        length += part.len() as u64;
        let (done, used) =
            (end.is_some() || chunk.is_empty(), part.len() + usize::from(end.is_some()));
        reader.consume(used);
        if done {
            if length == line.len() as u64 && line.last() == Some(&b'\r') {
                line.pop();
                length -= 1;
            }
            return Ok(Some(length));
        }
    }
}

pub fn read(mut text: Text, sink: &mut Sink) -> Result<(), DataError> {
    if let Some(column) = &sink.options.columns.label {
        return Err(DataError::MissingColumn {
            path: sink.path.to_owned(),
            column: column.to_string(),
            found: vec![],
        });
    }
    let limit = sink.options.limits.line_bytes;
    let mut line = vec![];
    let mut number = 0;
    while let Some(length) =
        next_line(&mut text, &mut line, limit).map_err(|e| stream_error(sink.path, e))?
    {
        number += 1;
        let parsed = match length > limit as u64 {
            true => Err(too_long(length, limit)),
            false => utf8(&line).map(|text| (text.to_owned(), None)),
        };
        sink.push(number, parsed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer of three bytes, so that every line crosses its end somewhere.
    #[track_caller]
    fn check(bytes: &str, limit: usize, expected: &[(&str, u64)]) {
        let mut reader = io::BufReader::with_capacity(3, bytes.as_bytes());
        let (mut line, mut found) = (vec![], vec![]);
        while let Some(length) = next_line(&mut reader, &mut line, limit).unwrap() {
            found.push((String::from_utf8(line.clone()).unwrap(), length));
        }
        let found: Vec<_> = found.iter().map(|(line, length)| (line.as_str(), *length)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn ends_of_line() {
        check("", 9, &[]);
        check("\n", 9, &[("", 0)]);
        check("abcd\nef", 9, &[("abcd", 4), ("ef", 2)]);
        check("abcd\r\n\r\nef\r\n", 9, &[("abcd", 4), ("", 0), ("ef", 2)]);
        check("a\rb\n", 9, &[("a\rb", 3)]);
    }

    #[test]
    fn a_long_line_is_measured_but_not_kept() {
        check("abcdefgh\nij\n", 4, &[("abcd", 8), ("ij", 2)]);
        check("abcd\nabcde", 4, &[("abcd", 4), ("abcd", 5)]);
    }
}
