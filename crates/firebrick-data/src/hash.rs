//! sha256 of files and of rows, as lower-case hex.

use std::{fs::File, io, path::Path};

use sha2::{Digest, Sha256};

use crate::{error::DataError, stream, table::Row};

/// Hash of a file's bytes, read in pieces.
pub fn sha256_file(path: &Path) -> Result<String, DataError> {
    let (mut file, _): (File, u64) = stream::open_regular(path)?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    Ok(format!("{:x}", hash.finalize()))
}

pub fn sha256_bytes(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Hash of texts and labels in order; row numbers do not count, so it names what a model sees.
///
/// ```
/// use firebrick_data::{hash::sha256_rows, table::Row};
///
/// let row = |row, text: &str| Row { row, text: text.to_owned(), label: None };
/// let a = sha256_rows(&[row(0, "a"), row(1, "bc")]);
/// assert_eq!(a, sha256_rows(&[row(7, "a"), row(9, "bc")]));
/// assert_ne!(a, sha256_rows(&[row(0, "ab"), row(1, "c")]));
/// assert_ne!(a, sha256_rows(&[row(1, "bc"), row(0, "a")]));
/// ```
pub fn sha256_rows(rows: &[Row]) -> String {
    let mut hash = Sha256::new();
    // Lengths first, so that no two lists of rows give the same bytes.
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for row in rows {
        field(&row.text);
        match &row.label {
            Some(label) => {
                field("label");
                field(label);
            }
            None => field("no label"),
        }
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vector of FIPS 180-2, appendix B.1.
    #[test]
    fn abc() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_bytes(b"abc"), expected);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256_file(&path).unwrap(), expected);
        assert_eq!(sha256_file(dir.path()).unwrap_err().kind(), "NotRegularFile");
    }
}
