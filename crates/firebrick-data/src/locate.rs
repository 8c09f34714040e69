//! Finds a data set on this machine and unpacks it once.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    archive::{self, Limits},
    error::DataError,
    hash::{sha256_bytes, sha256_file},
    manifest::{DataSet, data_set, nearest},
};

/// Written last into an unpacked folder; holds the archive's sha256. A folder without it is not complete.
const MARKER: &str = ".firebrick-complete";

/// Where data sets may be, in the order of looking. The caller knows the environment; this crate does not read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// What the user named, e.g. in `$FIREBRICK_DATA`.
    pub explicit: Option<PathBuf>,
    /// Where archives are unpacked; made when absent.
    pub cache: PathBuf,
    /// Archives beside the repository.
    pub shared: Option<PathBuf>,
}

/// A data set as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Unpacked, ready to use.
    Folder(PathBuf),
    /// Neither verified nor unpacked yet.
    Archive(PathBuf),
}

/// Looks for `id` in the roots: first for the unpacked folder, then for the archive, root by root.
///
/// A folder in the cache counts only with its marker; one in the other roots was put there by the user and is taken
/// as it is.
pub fn find_archive(roots: &Roots, id: &str) -> Result<Found, DataError> {
    let set = known(id)?;
    let explicit = roots.explicit.as_deref().map(|root| (root, false));
    let shared = roots.shared.as_deref().map(|root| (root, false));
    let all: Vec<_> =
        explicit.into_iter().chain([(roots.cache.as_path(), true)]).chain(shared).collect();
    for &(root, ours) in &all {
        let folder = root.join(&set.id);
        if folder.is_dir() && (!ours || is_complete(&folder, &set.sha256)) {
            return Ok(Found::Folder(folder));
        }
        let archive = root.join(&set.archive);
        if archive.is_file() {
            return Ok(Found::Archive(archive));
        }
    }
    Err(DataError::NotHere {
        id: set.id.clone(),
        archive: set.archive.clone(),
        source_name: set.source.clone(),
        licence: set.licence.clone(),
        searched: all.iter().map(|(root, _)| root.to_path_buf()).collect(),
    })
}

/// The folder of data set `id`, unpacked into the cache if need be after its sha256 was verified.
///
/// A kill at any moment leaves either no folder or a complete one, and two processes may fetch at once.
pub fn fetch(roots: &Roots, id: &str) -> Result<PathBuf, DataError> {
    let set = known(id)?;
    let archive = match find_archive(roots, id)? {
        Found::Folder(folder) => return Ok(folder),
        Found::Archive(archive) => archive,
    };
    let found = sha256_file(&archive)?;
    if found != set.sha256 {
        let detail = format!("its sha256 is {found}, but the manifest says {}", set.sha256);
        return Err(DataError::BadChecksum { path: archive, detail });
    }
    let dest = roots.cache.join(&set.id);
    install(&dest, &set.sha256, |folder| {
        let files = archive::unpack(&archive, folder, Limits::default())?;
        if files != set.files {
            let (path, expected) = (archive.clone(), set.files);
            return Err(DataError::FileCount { path, expected, found: files });
        }
        Ok(())
    })?;
    Ok(dest)
}

/// Unpacks an archive that is part of the program into `dest`, unless it is there already.
///
/// If the archive holds one folder and nothing beside it, that folder's content becomes `dest`.
pub fn unpack_embedded(bytes: &[u8], dest: &Path) -> Result<(), DataError> {
    let sha256 = sha256_bytes(bytes);
    if is_complete(dest, &sha256) {
        return Ok(());
    }
    let name = PathBuf::from(format!("embedded {}", dest.display()));
    install(dest, &sha256, |folder| {
        archive::unpack_bytes(bytes, &name, folder, Limits::default()).map(|_| ())
    })
}

fn known(id: &str) -> Result<&'static DataSet, DataError> {
    data_set(id).ok_or_else(|| DataError::UnknownSet { id: id.to_owned(), guess: nearest(id) })
}

fn is_complete(folder: &Path, sha256: &str) -> bool {
    fs::read_to_string(folder.join(MARKER)).is_ok_and(|marker| marker.trim() == sha256)
}

/// Has `unpack` fill a temporary folder beside `dest`, marks it complete and renames it.
fn install(
    dest: &Path,
    sha256: &str,
    unpack: impl FnOnce(&Path) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| DataError::Write { path, source }
    };
    let parent = dest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(write(parent))?;
    let temporary = tempfile::Builder::new()
        .prefix(".firebrick-")
        .suffix(".tmp")
        .tempdir_in(parent)
        .map_err(write(parent))?;
    let unpacked = temporary.path().join("unpacked");
    unpack(&unpacked)?;
    let content = only_folder(&unpacked).unwrap_or(unpacked);

    let marker = content.join(MARKER);
    let mut file = File::create(&marker).map_err(write(&marker))?;
    writeln!(file, "{sha256}").and_then(|()| file.sync_all()).map_err(write(&marker))?;

    let mut renamed = fs::rename(&content, dest);
    if renamed.is_err() && dest.exists() {
        if is_complete(dest, sha256) {
            return Ok(()); // another process was faster
        }
        // Not ours to delete: someone may have unpacked by hand. Out of the way it goes.
        let aside = aside(dest);
        fs::rename(dest, &aside).map_err(write(&aside))?;
        renamed = fs::rename(&content, dest);
    }
    renamed.map_err(write(dest))
}

/// The folder in `folder`, if there is nothing else.
fn only_folder(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?;
    let first = entries.next()?.ok()?;
    let alone = entries.next().is_none() && first.file_type().ok()?.is_dir();
    alone.then(|| first.path())
}

/// A free name for an incomplete folder: `sst2.incomplete-0`.
fn aside(dest: &Path) -> PathBuf {
    let name = dest.file_name().unwrap_or(OsStr::new("data")).to_string_lossy();
    let names = (0u32..).map(|n| dest.with_file_name(format!("{name}.incomplete-{n}")));
    names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| dest.with_extension("old"))
}
