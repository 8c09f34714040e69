//! Bytes of a weight file, mapped into memory for as long as a block of them is decoded.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use memmap2::{Mmap, MmapOptions};

/// A file that stays open, so that all tensors come from the one whose header was checked.
#[derive(Debug)]
pub(super) struct WeightFile {
    pub path: PathBuf,
    file: File,
}

impl WeightFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), file: File::open(path)? })
    }

    /// `len` bytes from `begin`. The pages count as ours only until the map is dropped: one map of
    /// the whole file would hold the weights twice, once as they lie on disk and once decoded.
    #[expect(unsafe_code, reason = "see the comment inside")]
    pub fn window(&self, begin: u64, len: usize) -> io::Result<Mmap> {
        // A page that has gone from the end of the file would be a signal, not an error.
        if self.file.metadata()?.len() < begin.saturating_add(len as u64) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        // SAFETY: the map is read-only, and read once. What cannot be ruled out is that another
        // program writes into the very file during the milliseconds that a window lives; then the
        // numbers are as torn as `read` would return them. Writers that replace a file by rename,
        // ours among them, leave the open one alone.
        unsafe { MmapOptions::new().offset(begin).len(len).map(&self.file) }
    }
}
