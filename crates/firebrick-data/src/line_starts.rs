//! On which line does a CSV record begin, and does it ever end?
//!
//! The `csv` crate's own answer is one line early after `\r\n` and after blank lines: it notes the position before it
//! skips them. Nor has it a limit on the size of a record.

use std::io::{self, Read};

use crate::stream::Fault;

/// Passes bytes through and remembers where lines begin.
///
/// Memory is bounded by the size of one read: what lies before the latest one has been parsed, except for the mark.
pub struct LineStarts<R> {
    inner: R,
    /// Offset and line of the first byte of lines that are not blank, ascending.
    starts: Vec<(u64, u64)>,
    mark: u64,
    /// Bytes that a record may have before reading stops.
    record_bytes: u64,
    offset: u64,
    line: u64,
    /// Whether only line ends came since the last line end.
    fresh: bool,
}

impl<R> LineStarts<R> {
    pub fn new(inner: R, record_bytes: u64) -> Self {
        Self { inner, starts: vec![], mark: 0, record_bytes, offset: 0, line: 1, fresh: true }
    }

    /// Says that the next record begins at byte `offset` or after the line ends that stand there.
    pub fn mark(&mut self, offset: u64) {
        self.mark = offset;
    }

    /// The line, from 1, on which the marked record begins; the last line when it is not known.
    pub fn marked_line(&self) -> u64 {
        let at = self.starts.partition_point(|(offset, _)| *offset < self.mark);
        self.starts.get(at).map_or(self.line, |(_, line)| *line)
    }
}

impl<R: Read> Read for LineStarts<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.offset.saturating_sub(self.mark) > self.record_bytes {
            return Err(io::Error::other(Fault::Record(self.marked_line(), self.record_bytes)));
        }
        let n = self.inner.read(buf)?;
        let at = self.starts.partition_point(|(offset, _)| *offset < self.mark);
        let marked = self.starts.get(at).copied();
        self.starts.clear();
        self.starts.extend(marked);
        for &byte in &buf[..n] {
            match byte {
                b'\n' => {
                    self.line += 1;
                    self.fresh = true;
                }
                b'\r' => self.fresh = true,
                _ if self.fresh => {
                    self.starts.push((self.offset, self.line));
                    self.fresh = false;
                }
                _ => {}
            }
            self.offset += 1;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of the records of `text`, read through buffers of every small size.
    #[track_caller]
    fn check(text: &str, expected: &[u64]) {
        for capacity in 1..20 {
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .buffer_capacity(capacity)
                .from_reader(LineStarts::new(text.as_bytes(), 1 << 20));
            let (mut record, mut found) = (csv::ByteRecord::new(), vec![]);
            loop {
                let at = reader.position().byte();
                reader.get_mut().mark(at);
                if !reader.read_byte_record(&mut record).unwrap() {
                    break;
                }
                found.push(reader.get_ref().marked_line());
            }
            assert_eq!(found, expected, "{text:?}, {capacity} bytes at once");
        }
    }

    #[test]
    fn lines() {
        check("a,b\nc,d\n", &[1, 2]);
        check("a,b\r\nc,d\r\ne", &[1, 2, 3]);
        check("\n\na\n\r\n\nb\n", &[3, 6]);
        check("\"a\n\nb\",c\nd\n\"\n\ne\"\nf", &[1, 4, 5, 8]);
        check("a\rb\rc", &[1, 1, 1]); // editors disagree; we count `\n`
    }
}
