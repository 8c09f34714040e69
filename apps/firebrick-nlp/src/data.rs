//! Data sets inside the program and outside.

use std::path::PathBuf;

use firebrick_data::locate::{self, Roots};

/// Data sets inside the program, so that the first run needs no download.
const EMBEDDED: &[(&str, &[u8])] = &[("sst2", include_bytes!("../data/sst2.tar.xz"))];

/// A folder with a known data set's files: embedded, found, or unpacked into the cache.
pub fn fetch(roots: &Roots, id: &str) -> anyhow::Result<PathBuf> {
    match locate::fetch(roots, id) {
        Ok(folder) => Ok(folder),
        Err(error) => {
            let Some((_, bytes)) = EMBEDDED.iter().find(|(name, _)| *name == id) else {
                return Err(error.into());
            };
            let folder = roots.cache.join("embedded").join(id);
            if !folder.exists() {
                locate::unpack_embedded(bytes, &folder)?;
            }
            Ok(folder)
        }
    }
}
