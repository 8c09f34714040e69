//! The pages of one column of one row group: undone compression within limits, for the decoders of the `parquet` crate.
//!
//! The crate has a reader of pages as well; it believes what page headers say about sizes, and unpacks gzip without end.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ::parquet::{
    basic::Encoding,
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
};
use flate2::bufread::MultiGzDecoder;

use super::{
    footer::Chunk,
    thrift::{Compact, STRUCT, unsound},
};
use crate::error::DataError;

/// Bytes of one page, packed or not. Writers aim at 1 MiB.
const PAGE_LIMIT: u64 = 64 << 20;

/// Bytes that a page counts for beside its own: many row groups may point to the same pages without values.
const PAGE_COST: u64 = 1 << 10;

/// How the pages of a chunk are compressed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Codec {
    None,
    Snappy,
    Gzip,
    Zstd,
}

impl Codec {
    /// By the format's number; the name of what is not read.
    pub fn of(number: i64) -> std::result::Result<Self, &'static str> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Snappy,
            2 => Self::Gzip,
            6 => Self::Zstd,
            3 => return Err("LZO"),
            4 => return Err("Brotli"),
            5 | 7 => return Err("LZ4"),
            _ => return Err("an unknown method"),
        })
    }

    /// What `packed` was before it was compressed, which is `size` bytes.
    fn unpack(self, packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
        if size == 0 {
            return Ok(vec![]); // of nulls alone; some writers compress nothing to nothing
        }
        let mut bytes = vec![];
        match self {
            Self::None => bytes.extend_from_slice(packed),
            Self::Snappy if snap::raw::decompress_len(packed)? == size => {
                bytes = snap::raw::Decoder::new().decompress_vec(packed)?;
            }
            Self::Snappy => {}
            Self::Gzip => {
                MultiGzDecoder::new(packed).take(size as u64 + 1).read_to_end(&mut bytes)?;
            }
            Self::Zstd => bytes = zstd::bulk::decompress(packed, size)?,
        }
        match bytes.len() == size {
            true => Ok(bytes),
            false => Err(unsound(format!("a page is not the {size} bytes that its header says"))),
        }
    }
}

pub struct Pages {
    pub path: PathBuf,
    pub file: Arc<File>,
    pub chunk: Chunk,
    pub codec: Codec,
    /// Whether values may be null, so that pages begin with levels.
    pub levels: bool,
    /// Most values of a page.
    pub rows: usize,
    /// Bytes that may still be unpacked, of all columns together.
    pub budget: Arc<AtomicU64>,
}

impl Pages {
    fn error(&self, error: io::Error) -> ParquetError {
        let path = self.path.clone();
        ParquetError::External(Box::new(match error.kind() {
            ErrorKind::UnexpectedEof => {
                DataError::Truncated { path, detail: "a page is cut off".to_owned() }
            }
            _ if error.raw_os_error().is_some() => DataError::Read { path, source: error },
            _ => return ParquetError::General(error.to_string()),
        }))
    }

    fn too_large(&self, detail: String) -> ParquetError {
        ParquetError::External(Box::new(DataError::TooLarge { path: self.path.clone(), detail }))
    }

    /// The next page but one of an index, which holds no values; `None` at the end.
    fn next_page(&mut self) -> Result<Option<Page>> {
        while self.chunk.length > 0 {
            let mut file = &*self.file;
            file.seek(SeekFrom::Start(self.chunk.start)).map_err(|e| self.error(e))?;
            let mut input = BufReader::new(file.take(self.chunk.length));
            let header = Header::read(&mut input).map_err(|e| self.error(e))?;
            let bytes = header.packed.max(header.size);
            if bytes > PAGE_LIMIT {
                let detail = format!("a page of {bytes} bytes, above the limit of {PAGE_LIMIT}");
                return Err(self.too_large(detail));
            }
            let enough = |left: u64| left.checked_sub(bytes + PAGE_COST);
            if self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_err() {
                let detail = "its columns unpack to more bytes than are taken".to_owned();
                return Err(self.too_large(detail));
            }
            let mut packed = vec![];
            input
                .by_ref()
                .take(header.packed)
                .read_to_end(&mut packed)
                .map_err(|e| self.error(e))?;
            if packed.len() as u64 != header.packed {
                return Err(self.error(ErrorKind::UnexpectedEof.into()));
            }
            let unread = input.get_ref().limit() + input.buffer().len() as u64;
            self.chunk.start += self.chunk.length - unread;
            self.chunk.length = unread;
            if header.kind != INDEX_PAGE {
                return self.page(&header, packed).map(Some);
            }
        }
        Ok(None)
    }

    fn page(&self, header: &Header, packed: Vec<u8>) -> Result<Page> {
        let count = |id: usize| {
            let found = header.numbers[id].and_then(|number| u32::try_from(number).ok());
            found.ok_or_else(|| ParquetError::General("a page's header is not whole".to_owned()))
        };
        let num_values = count(1)?;
        if num_values as usize > self.rows {
            return Err(self.too_large(format!("more than {} rows", self.rows)));
        }
        let size = header.size as usize;
        let whole = |packed: Vec<u8>| match self.codec {
            Codec::None => Ok(packed),
            codec => codec.unpack(&packed, size).map_err(|e| self.error(e)),
        };
        match header.kind {
            DATA_PAGE => {
                let buf = whole(packed)?;
                if self.levels && count(3)? != RLE {
                    return Err(ParquetError::General("levels in an old encoding".to_owned()));
                }
                let values = match (self.levels, buf.first_chunk()) {
                    (false, _) => 0,
                    (true, None) => buf.len(),
                    (true, Some(length)) => 4 + u32::from_le_bytes(*length) as usize,
                };
                let encoding = encoding(count(2)?, buf.get(values..), num_values)?;
                let (def_level_encoding, rep_level_encoding) = (Encoding::RLE, Encoding::RLE);
                Ok(Page::DataPage {
                    buf: buf.into(),
                    num_values,
                    encoding,
                    def_level_encoding,
                    rep_level_encoding,
                    statistics: None,
                })
            }
            DATA_PAGE_V2 => {
                let (def_levels_byte_len, rep_levels_byte_len) = (count(5)?, count(6)?);
                // Levels stand before the values, and are never compressed.
                let levels = def_levels_byte_len as usize + rep_levels_byte_len as usize;
                if levels > packed.len() || levels > size {
                    return Err(ParquetError::General("levels longer than their page".to_owned()));
                }
                let is_compressed = self.codec != Codec::None && header.numbers[7] != Some(0);
                let buf = match is_compressed {
                    false => packed,
                    true => {
                        let values = self.codec.unpack(&packed[levels..], size - levels);
                        [&packed[..levels], &values.map_err(|e| self.error(e))?].concat()
                    }
                };
                let encoding = encoding(count(4)?, buf.get(levels..), num_values)?;
                Ok(Page::DataPageV2 {
                    buf: buf.into(),
                    num_values,
                    encoding,
                    num_nulls: count(2)?,
                    num_rows: count(3)?,
                    def_levels_byte_len,
                    rep_levels_byte_len,
                    is_compressed,
                    statistics: None,
                })
            }
            DICTIONARY_PAGE => {
                let buf = whole(packed)?;
                // A value takes four bytes at least, the length of a string being four.
                if num_values as usize > buf.len() / 4 {
                    let bytes = buf.len();
                    let problem = format!("a dictionary of {num_values} values in {bytes} bytes");
                    return Err(ParquetError::General(problem));
                }
                let encoding = Encoding::PLAIN; // the only one that there is
                Ok(Page::DictionaryPage { buf: buf.into(), num_values, encoding, is_sorted: false })
            }
            _ => Err(ParquetError::General("a page of an unknown kind".to_owned())),
        }
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.next_page()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(ParquetError::NYI("only lists look ahead, and none is read".to_owned()))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        Err(ParquetError::NYI("no row is skipped".to_owned()))
    }
}

/// The format's number of the only encoding of levels in use.
const RLE: u32 = 3;

/// How values of a page are written, by the format's number. `values` are the bytes from the first value on.
fn encoding(number: u32, values: Option<&[u8]>, count: u32) -> Result<Encoding> {
    let unsound = |problem: String| Err(ParquetError::General(problem));
    Ok(match number {
        0 => Encoding::PLAIN,
        2 | 8 => Encoding::RLE_DICTIONARY,
        RLE => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => {
            // The lengths of the strings come first: sizes of blocks, then how many there are.
            let mut input = Compact(values.unwrap_or_default());
            let lengths = input.varint().and_then(|_| input.varint()).and_then(|_| input.varint());
            if lengths.is_ok_and(|lengths| lengths > count.into()) {
                return unsound("more strings than values".to_owned());
            }
            Encoding::DELTA_LENGTH_BYTE_ARRAY
        }
        // Strings that repeat the one before: a page of them may unpack to any size.
        7 => {
            return unsound(
                "its encoding DELTA_BYTE_ARRAY is not read here; write it with pages of version 1"
                    .to_owned(),
            );
        }
        9 => Encoding::BYTE_STREAM_SPLIT,
        other => return unsound(format!("its encoding {other} is not known")),
    })
}

const DATA_PAGE: i64 = 0;
const INDEX_PAGE: i64 = 1;
const DICTIONARY_PAGE: i64 = 2;
const DATA_PAGE_V2: i64 = 3;

/// `PageHeader`
struct Header {
    kind: i64,
    /// Bytes once unpacked.
    size: u64,
    /// Bytes in the file.
    packed: u64,
    /// Fields of the header that this kind of page has, by their number.
    numbers: [Option<i64>; 8],
}

impl Header {
    fn read(input: impl Read) -> io::Result<Self> {
        let mut input = Compact(input);
        let mut all = [None; 4];
        let mut numbers = [None; 8];
        let mut last = 0;
        while let Some(field) = input.field(&mut last)? {
            match field {
                (id @ 1..=3, 5) => all[id as usize] = Some(input.integer()?),
                (5 | 7 | 8, STRUCT) => numbers = input.integers()?,
                (_, kind) => input.skip(kind)?,
            }
        }
        let size = |id: usize| all[id].and_then(|number| u64::try_from(number).ok());
        match (all[1], size(2), size(3)) {
            (Some(kind), Some(size), Some(packed)) => Ok(Self { kind, size, packed, numbers }),
            _ => Err(unsound("a page's header is not whole")),
        }
    }
}
