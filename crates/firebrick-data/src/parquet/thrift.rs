//! Apache Thrift's compact protocol, as far as the footer and the page headers of Parquet use it.
//!
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>. No memory is taken for what a
//! size promises: elements are read one by one, so that the end of the bytes is the end of them.

use std::io::{self, ErrorKind, Read};

/// Kinds of values; the numbers are the protocol's.
pub const TRUE: u8 = 1;
pub const FALSE: u8 = 2;
pub const BYTE: u8 = 3;
pub const I16: u8 = 4;
pub const I64: u8 = 6;
pub const DOUBLE: u8 = 7;
pub const BINARY: u8 = 8;
pub const LIST: u8 = 9;
pub const SET: u8 = 10;
pub const MAP: u8 = 11;
pub const STRUCT: u8 = 12;

/// Deepest nesting that is skipped; a footer has some ten levels.
const DEPTH: u8 = 32;

/// A failure with `UnexpectedEof` is an end of the bytes, one with `InvalidData` says what is wrong with them.
pub fn unsound(problem: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem.into())
}

pub struct Compact<R>(pub R);

impl<R: Read> Compact<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    pub fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(unsound("a number of more than 64 bits"))
    }

    pub fn integer(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64)) // zigzag
    }

    /// Bytes, at most `limit` of them.
    pub fn binary(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let length = self.varint()?;
        if length > limit {
            return Err(unsound(format!("a name of {length} bytes, above the limit of {limit}")));
        }
        let mut bytes = vec![];
        self.0.by_ref().take(length).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Number and kind of a struct's next field, `None` at its end; `last` is the number before, 0 at its start.
    pub fn field(&mut self, last: &mut i16) -> io::Result<Option<(i16, u8)>> {
        let head = self.byte()?;
        let (step, kind) = (i16::from(head >> 4), head & 0xf);
        if kind == 0 {
            return Ok(None);
        }
        *last = match step {
            0 => i16::try_from(self.integer()?).map_err(|_| unsound("a field without a number"))?,
            step => last.wrapping_add(step),
        };
        Ok(Some((*last, kind)))
    }

    /// Length of a list of structs.
    pub fn structs(&mut self) -> io::Result<u64> {
        match self.list()? {
            (length, kind) if length == 0 || kind == STRUCT => Ok(length),
            (_, kind) => Err(unsound(format!("a list of kind {kind}, where structs are due"))),
        }
    }

    /// Length of a list or set, and the kind of its elements.
    fn list(&mut self) -> io::Result<(u64, u8)> {
        let head = self.byte()?;
        let length = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        Ok((length, head & 0xf))
    }

    /// The whole numbers and truth values (as 0 and 1) of a struct by their number below `N`; the rest is skipped.
    pub fn integers<const N: usize>(&mut self) -> io::Result<[Option<i64>; N]> {
        let mut all = [None; N];
        let mut last = 0;
        while let Some((id, kind)) = self.field(&mut last)? {
            let value = match kind {
                TRUE => Some(1),
                FALSE => Some(0),
                BYTE => Some(i64::from(self.byte()? as i8)),
                I16..=I64 => Some(self.integer()?),
                other => {
                    self.skip(other)?;
                    None
                }
            };
            if let Some(place) = usize::try_from(id).ok().and_then(|id| all.get_mut(id)) {
                *place = value;
            }
        }
        Ok(all)
    }

    /// Passes over the value of a field.
    pub fn skip(&mut self, kind: u8) -> io::Result<()> {
        self.skip_nested(kind, DEPTH)
    }

    fn skip_nested(&mut self, kind: u8, depth: u8) -> io::Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(unsound(format!("nested deeper than {DEPTH}")));
        };
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.byte().map(|_| ()),
            I16..=I64 => self.varint().map(|_| ()),
            DOUBLE => self.pass(8),
            BINARY => {
                let length = self.varint()?;
                self.pass(length)
            }
            LIST | SET => {
                let (length, kind) = self.list()?;
                (0..length).try_for_each(|_| self.skip_element(kind, depth))
            }
            MAP => {
                let length = self.varint()?;
                let kinds = if length == 0 { 0 } else { self.byte()? };
                (0..length).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth)?;
                    self.skip_element(kinds & 0xf, depth)
                })
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip_nested(kind, depth)?;
                }
                Ok(())
            }
            unknown => Err(unsound(format!("a value of the unknown kind {unknown}"))),
        }
    }

    /// As a field's value; but a truth value, which lies in the kind of a field, is a byte of its own here.
    fn skip_element(&mut self, kind: u8, depth: u8) -> io::Result<()> {
        match kind {
            TRUE | FALSE => self.byte().map(|_| ()),
            other => self.skip_nested(other, depth),
        }
    }

    fn pass(&mut self, length: u64) -> io::Result<()> {
        match io::copy(&mut self.0.by_ref().take(length), &mut io::sink())? {
            passed if passed == length => Ok(()),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let integer = |bytes: &[u8]| Compact(bytes).integer().map_err(|error| error.kind());
        assert_eq!(integer(&[0]), Ok(0));
        assert_eq!(integer(&[1]), Ok(-1));
        assert_eq!(integer(&[0xac, 0x02]), Ok(150));
        assert_eq!(integer(&[[0xff; 9].as_slice(), &[1]].concat()), Ok(i64::MIN));
        assert_eq!(integer(&[0xff; 11]), Err(ErrorKind::InvalidData));
        assert_eq!(integer(&[0x80]), Err(ErrorKind::UnexpectedEof));
    }

    #[test]
    fn a_struct() {
        // 1: i32 5; 2: list of two truth values; 4: true; 20 (long form): i64 -1; stop.
        let bytes = [0x15, 10, 0x19, 0x21, 1, 2, 0x21, 0x06, 40, 1, 0, 99];
        let mut input = Compact(&bytes[..]);
        assert_eq!(input.integers::<5>().unwrap(), [None, Some(5), None, None, Some(1)]);
        assert_eq!(input.0, [99]);
    }

    #[test]
    fn what_promises_too_much() {
        let skip = |kind, bytes: &[u8]| Compact(bytes).skip(kind).unwrap_err().kind();
        let billions = [0xfc, 0xff, 0xff, 0xff, 0xff, 0x7f]; // structs
        assert_eq!(skip(LIST, &billions), ErrorKind::UnexpectedEof);
        assert_eq!(skip(BINARY, &billions[1..]), ErrorKind::UnexpectedEof);
        assert_eq!(skip(LIST, &[0x19; 100]), ErrorKind::InvalidData); // lists of one list
        assert_eq!(skip(14, &[]), ErrorKind::InvalidData);
    }
}
