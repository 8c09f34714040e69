//! Unpacks tar archives that nobody vouches for.
//!
//! Only plain files and folders, only below the destination, only within the limits; anything else refuses the whole
//! archive, and the destination is removed again.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Cursor, Read},
    path::{Component, Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use tar::{Archive, Entry, EntryType};

use crate::{
    error::DataError,
    quote::escaped,
    stream::{Capped, open_regular, stream_error},
};

/// Memory that the xz decoder may take, in bytes; `xz -9` asks for 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// What an archive may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the tar stream, after decompression.
    pub bytes: u64,
    /// Files and folders.
    pub entries: usize,
    /// How many times its size the archive may grow (checked past 16 MiB).
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 20, entries: 100_000, ratio: 200 }
    }
}

/// Unpacks `archive` (.tar, .tar.gz or .tar.xz, told by its first bytes) into the new folder `dest`.
///
/// Returns the number of files. On an error `dest` does not exist afterwards.
pub fn unpack(archive: &Path, dest: &Path, limits: Limits) -> Result<usize, DataError> {
    let (file, packed) = open_regular(archive)?;
    unpack_from(file, packed, archive, dest, limits)
}

/// As [`unpack`], for an archive in memory; messages call it `name`.
pub fn unpack_bytes(
    bytes: &[u8],
    name: &Path,
    dest: &Path,
    limits: Limits,
) -> Result<usize, DataError> {
    unpack_from(bytes, bytes.len() as u64, name, dest, limits)
}

fn unpack_from(
    mut packed: impl Read,
    packed_bytes: u64,
    name: &Path,
    dest: &Path,
    limits: Limits,
) -> Result<usize, DataError> {
    let mut head = vec![];
    packed.by_ref().take(512).read_to_end(&mut head).map_err(|e| stream_error(name, e))?;
    let tar = head.get(257..262) == Some(b"ustar");
    let packed = BufReader::with_capacity(64 << 10, Cursor::new(head.clone()).chain(packed));
    let unpacked: Box<dyn Read + '_> = match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
                .map_err(|e| stream_error(name, e.into()))?;
            Box::new(XzDecoder::new_stream(packed, stream))
        }
        _ if tar => Box::new(packed),
        _ => {
            let detail = "is not an archive read here; known are .tar, .tar.gz and .tar.xz".into();
            return Err(DataError::Unsupported { path: name.to_owned(), detail });
        }
    };
    fs::create_dir(dest).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => DataError::Exists { path: dest.to_owned() },
        _ => DataError::Write { path: dest.to_owned(), source },
    })?;
    let capped = Capped::new(unpacked, limits.bytes, limits.ratio, packed_bytes);
    let result = Unpacker { name, dest, limits }.run(capped);
    if result.is_err() {
        let _ = fs::remove_dir_all(dest); // the first error is the one to tell
    }
    result
}

struct Unpacker<'a> {
    name: &'a Path,
    dest: &'a Path,
    limits: Limits,
}

impl Unpacker<'_> {
    fn run(&self, mut unpacked: Capped<Box<dyn Read + '_>>) -> Result<usize, DataError> {
        let mut files = HashSet::new();
        let mut archive = Archive::new(&mut unpacked);
        let entries = archive.entries().map_err(|e| self.tar_error(e))?;
        for (index, entry) in entries.enumerate() {
            if index == self.limits.entries {
                let detail = format!("more than {index} members");
                return Err(DataError::TooLarge { path: self.name.to_owned(), detail });
            }
            self.member(entry.map_err(|e| self.tar_error(e))?, &mut files)?;
        }
        // To the end, so that the decoder compares its check sums.
        io::copy(&mut unpacked, &mut io::sink()).map_err(|e| stream_error(self.name, e))?;
        if unpacked.trailing_zeros < 512 {
            let detail = "the mark at the archive's end is missing".to_owned();
            return Err(DataError::Truncated { path: self.name.to_owned(), detail });
        }
        if files.is_empty() {
            let detail = "no file in the archive";
            return Err(DataError::Empty { path: self.name.to_owned(), detail });
        }
        Ok(files.len())
    }

    fn member(
        &self,
        mut entry: Entry<impl Read>,
        files: &mut HashSet<PathBuf>,
    ) -> Result<(), DataError> {
        let raw = entry.path_bytes().into_owned();
        let member = String::from_utf8_lossy(&raw).into_owned();
        let unsafe_path = |problem| {
            let (path, member) = (self.name.to_owned(), member.clone());
            Err(DataError::UnsafePath { path, member, problem })
        };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::Directory => {}
            EntryType::XGlobalHeader => return Ok(()), // a comment, as `git archive` writes
            EntryType::Symlink | EntryType::Link => return unsafe_path("is a link"),
            EntryType::Char | EntryType::Block => return unsafe_path("is a device"),
            EntryType::Fifo => return unsafe_path("is a pipe"),
            _ => return unsafe_path("is neither a file nor a folder"),
        }
        let inside = match relative(&raw) {
            Ok(inside) => inside,
            Err(problem) => return unsafe_path(problem),
        };
        let target = self.dest.join(&inside);
        let write = |source| DataError::Write { path: target.clone(), source };
        if entry.header().entry_type() == EntryType::Directory {
            return fs::create_dir_all(&target).map_err(write);
        }
        if inside.as_os_str().is_empty() {
            return unsafe_path("has no name");
        }
        let size = entry.size();
        if size > self.limits.bytes {
            let detail = format!(
                "member `{}` says {size} bytes, where at most {} are taken",
                escaped(&member),
                self.limits.bytes
            );
            return Err(DataError::TooLarge { path: self.name.to_owned(), detail });
        }
        if !files.insert(inside) {
            return Err(DataError::DuplicateMember { path: self.name.to_owned(), member });
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(write)?;
        }
        // `create_new` follows no link and overwrites nothing, whatever happened on the way here.
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&target).map_err(write)?;
        let copied = self.copy(&mut entry, &mut file, &target)?;
        if copied != size {
            let detail = format!("member `{}` has {copied} of {size} bytes", escaped(&member));
            return Err(DataError::Truncated { path: self.name.to_owned(), detail });
        }
        Ok(())
    }

    /// `io::copy`, but telling a bad archive from a full disk.
    fn copy(&self, from: &mut impl Read, to: &mut File, target: &Path) -> Result<u64, DataError> {
        let mut buffer = vec![0; 64 << 10];
        let mut copied = 0;
        loop {
            let n = from.read(&mut buffer).map_err(|e| stream_error(self.name, e))?;
            if n == 0 {
                return Ok(copied);
            }
            io::Write::write_all(to, &buffer[..n])
                .map_err(|source| DataError::Write { path: target.to_owned(), source })?;
            copied += n as u64;
        }
    }

    fn tar_error(&self, e: io::Error) -> DataError {
        let path = self.name.to_owned();
        let text = escaped(&e.to_string());
        // The `tar` crate wraps errors of the stream below and has only words for its own.
        let cause = std::error::Error::source(&e).and_then(|s| s.downcast_ref::<io::Error>());
        let fault =
            |e: &io::Error| e.get_ref().is_some_and(|inner| inner.is::<crate::stream::Fault>());
        if fault(&e) {
            return stream_error(&path, e);
        }
        if text.contains("checksum") {
            return DataError::BadChecksum { path, detail: text };
        }
        if e.kind() == io::ErrorKind::UnexpectedEof
            || text.contains("unexpected EOF")
            || text.contains("failed to read entire block")
            || cause.is_some_and(|c| c.kind() == io::ErrorKind::UnexpectedEof)
        {
            return DataError::Truncated { path, detail: text };
        }
        DataError::BadSyntax { path, detail: text }
    }
}

/// The member's path as one below the destination, or why not.
fn relative(raw: &[u8]) -> Result<PathBuf, &'static str> {
    let text = std::str::from_utf8(raw).map_err(|_| "has a name that is not UTF-8")?;
    if text.len() > 1024 {
        return Err("has a name longer than 1024 bytes");
    }
    if text.contains('\\') {
        return Err("has a backslash in its name");
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters in its name");
    }
    let mut inside = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("leads out of the folder"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    Ok(inside)
}
