//! Opens a file as a bounded stream of bytes: regular files only, gzip undone, expansion capped, encoding sniffed.

use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use crate::{error::DataError, quote::quoted_bytes};

/// Bytes looked at to tell the encoding and the format.
const HEAD: usize = 4096;

/// Below this many bytes an expansion is never called a bomb: small repetitive files shrink a lot too.
const RATIO_FREE: u64 = 16 << 20;

/// A failure inside the stream, carried through readers that only know `io::Error`.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum Fault {
    #[error("more than {0} bytes")]
    TooLarge(u64),
    #[error("more than {0} times its {1} compressed bytes")]
    Bomb(u64, u64),
    #[error("the record at line {0} has no end within {1} bytes; perhaps a quote is never closed")]
    Record(u64, u64),
}

/// Lets through at most `max` bytes, and no more than `ratio` times `packed` once past 16 MiB.
pub struct Capped<R> {
    inner: R,
    seen: u64,
    max: u64,
    ratio: u64,
    /// Size of what is being unpacked, in bytes.
    packed: u64,
    /// Zero bytes at the end of what has been read: a tar archive ends with 1024 of them.
    pub trailing_zeros: u64,
}

impl<R> Capped<R> {
    pub fn new(inner: R, max: u64, ratio: u64, packed: u64) -> Self {
        Self { inner, seen: 0, max, ratio, packed, trailing_zeros: 0 }
    }
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.seen += n as u64;
        if self.seen > self.max {
            return Err(io::Error::other(Fault::TooLarge(self.max)));
        }
        if self.seen > RATIO_FREE && self.seen / self.ratio.max(1) > self.packed {
            return Err(io::Error::other(Fault::Bomb(self.ratio, self.packed)));
        }
        match buf[..n].iter().rposition(|&byte| byte != 0) {
            Some(last) => self.trailing_zeros = (n - 1 - last) as u64,
            None => self.trailing_zeros += n as u64,
        }
        Ok(n)
    }
}

/// UTF-8's byte order mark, which some editors write before a text.
const BOM: &str = "\u{feff}";

/// A text without the mark.
///
/// ```
/// use firebrick_data::stream::without_bom;
///
/// assert_eq!(without_bom("\u{feff}tea"), "tea");
/// assert_eq!(without_bom("tea\u{feff}"), "tea\u{feff}");
/// ```
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix(BOM).unwrap_or(text)
}

/// The bytes of a text file after gzip and byte order mark.
pub type Text = BufReader<io::Chain<Cursor<Vec<u8>>, Capped<Box<dyn Read>>>>;

/// Opens `path`, which must be a regular file (a link to one is fine) and not empty.
pub fn open_regular(path: &Path) -> Result<(File, u64), DataError> {
    let read = |source| DataError::Read { path: path.to_owned(), source };
    // Before opening: opening a pipe waits for a writer.
    let meta = fs::metadata(path).map_err(read)?;
    if !meta.is_file() {
        let found = if meta.is_dir() { "a folder" } else { "a pipe, socket or device" };
        return Err(DataError::NotRegularFile { path: path.to_owned(), found: found.to_owned() });
    }
    if meta.len() == 0 {
        return Err(DataError::Empty { path: path.to_owned(), detail: "it has no bytes" });
    }
    Ok((File::open(path).map_err(read)?, meta.len()))
}

/// Opens a text file; undoes gzip (told by its magic, whatever the name) and drops a UTF-8 mark.
pub fn open_text(path: &Path, max: u64, ratio: u64) -> Result<Text, DataError> {
    let (file, packed) = open_regular(path)?;
    let mut file = BufReader::with_capacity(64 << 10, file);
    let magic = head(&mut file, 2).map_err(|e| stream_error(path, e))?;
    let gzip = magic == [0x1f, 0x8b];
    if !gzip && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
        let detail = format!("is named .gz but begins with {}", quoted_bytes(&magic));
        return Err(DataError::Unsupported { path: path.to_owned(), detail });
    }
    let raw = Cursor::new(magic).chain(file);
    let inner: Box<dyn Read> = match gzip {
        true => Box::new(MultiGzDecoder::new(BufReader::with_capacity(64 << 10, raw))),
        false => Box::new(raw),
    };
    let mut capped = Capped::new(inner, max, ratio, packed);
    let mut head = head(&mut capped, HEAD).map_err(|e| stream_error(path, e))?;
    if head.is_empty() {
        return Err(DataError::Empty { path: path.to_owned(), detail: "it has no bytes" });
    }
    sniff(path, &head)?;
    if head.starts_with(BOM.as_bytes()) {
        head.drain(..BOM.len());
    }
    Ok(BufReader::with_capacity(64 << 10, Cursor::new(head).chain(capped)))
}

/// Up to `n` bytes from the front of `reader`.
fn head(reader: &mut impl Read, n: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n);
    reader.take(n as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Refuses what is plainly not UTF-8 text, by name where it can be named.
fn sniff(path: &Path, head: &[u8]) -> Result<(), DataError> {
    let encoding = |detail: &str| {
        let detail = format!("{detail}; convert it to UTF-8 first");
        Err(DataError::BadEncoding { path: path.to_owned(), detail })
    };
    let format = |what: &str| {
        let detail = format!("is {what}, which is not read here; convert it to CSV or JSON lines");
        Err(DataError::Unsupported { path: path.to_owned(), detail })
    };
    // The UTF-32 little-endian mark begins with that of UTF-16.
    if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
        return encoding("it has a UTF-32 mark");
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return encoding("it has a UTF-16 mark");
    }
    match head {
        [b'P', b'A', b'R', b'1' | b'E', ..] => return format("Parquet"),
        [b'P', b'K', 3, 4, ..] => return format("a zip archive (or a spreadsheet)"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return format("xz-compressed"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return format("zstd-compressed"),
        _ => {}
    }
    let zeros = |parity: usize| {
        head.iter().skip(parity).step_by(2).filter(|&&byte| byte == 0).count() * 8 > head.len()
    };
    if zeros(0) || zeros(1) {
        return encoding("every second byte is NUL, so it looks like UTF-16 without a mark");
    }
    Ok(())
}

/// Names a failure of the stream below a reader: the cap, gzip or xz, or the file system.
pub fn stream_error(path: &Path, source: io::Error) -> DataError {
    let path = path.to_owned();
    let fault = source.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
    match fault {
        Some(fault @ Fault::TooLarge(_)) => {
            return DataError::TooLarge { path, detail: fault.to_string() };
        }
        Some(fault @ Fault::Bomb(..)) => {
            return DataError::Bomb { path, detail: fault.to_string() };
        }
        Some(fault @ Fault::Record(..)) => {
            return DataError::BadSyntax { path, detail: fault.to_string() };
        }
        None => {}
    }
    let text = source.to_string();
    let decoder = source.raw_os_error().is_none();
    match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            DataError::Truncated { path, detail: "the compressed data is cut".to_owned() }
        }
        _ if decoder && text.contains("checksum") => DataError::BadChecksum { path, detail: text },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if decoder => {
            DataError::BadSyntax {
                path,
                detail: format!("the compressed data is not sound: {text}"),
            }
        }
        _ => DataError::Read { path, source },
    }
}
