//! Whatever the bytes: an error or a table, never a panic, and never a message that a terminal would obey.

use std::{fs, path::Path};

use firebrick_data::{
    archive::{Limits, unpack_bytes},
    clean::{CleanRules, clean},
    quote::{quoted, quoted_bytes},
    table::{Columns, Format, ReadOptions, Row, read},
};
use proptest::prelude::*;

/// Bytes that matter to some parser come often.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(
        b"\"\"\",,\t\n\n\r\0{}[]:\\u\xef\xbb\xbf\xff\xfe\x1f\x8btext".to_vec(),
    );
    prop::collection::vec(prop_oneof![3 => special, 1 => any::<u8>()], 0..200)
}

/// Characters that UTF-8 turns into when it is read as a single-byte code.
fn mojibake() -> impl Strategy<Value = String> {
    let special = prop::sample::select(
        "ÃÂâ€™œž©¢ï¿½ðŸ˜ŠŠ&;amp \u{a0}\u{92}\u{1a}\u{fffd}é味".chars().collect::<Vec<_>>(),
    );
    prop::collection::vec(prop_oneof![3 => special, 1 => any::<char>()], 0..60)
        .prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn tables(bytes in bytes(), header: bool, strict: bool, prefix in prop::sample::select(vec!["", "text,label\n", "{\"text\":"])) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, [prefix.as_bytes(), &bytes].concat()).unwrap();
        for format in [Format::Csv, Format::Tsv, Format::Jsonl, Format::Lines, Format::Parquet] {
            let columns = match format {
                Format::Jsonl => Columns::named("text", None),
                _ => Columns::indexed(0, None),
            };
            let options = ReadOptions { header, strict, format: Some(format), ..ReadOptions::new(columns) };
            match read(&path, &options) {
                Ok(table) => {
                    prop_assert!(!table.rows.is_empty() || !table.bad.is_empty());
                    for bad in table.bad {
                        let message = bad.to_string();
                        prop_assert!(!message.chars().any(char::is_control), "{message:?}");
                    }
                }
                Err(e) => prop_assert!(!e.to_string().chars().any(char::is_control), "{e:?}"),
            }
        }
    }

    #[test]
    fn parquet(bytes in bytes(), at in 0usize..10_000, way in 0..5usize, whole: bool) {
        // A sound file with some bytes overwritten.
        let way = ["snappy", "gzip", "zstd", "none", "delta"][way];
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
        let mut file = fs::read(golden.join(way).with_extension("parquet")).unwrap();
        let length = if whole { bytes.len() } else { bytes.len().min(3) };
        let at = at % (file.len() - length);
        file[at..at + length].copy_from_slice(&bytes[..length]);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        fs::write(&path, file).unwrap();
        for label in ["label", "wide", "score", "flag", "kind", "pair.fr"] {
            match read(&path, &ReadOptions::new(Columns::named("text", Some(label)))) {
                Ok(table) => prop_assert!(!table.rows.is_empty() || !table.bad.is_empty()),
                Err(e) => prop_assert!(!e.to_string().chars().any(char::is_control), "{e:?}"),
            }
        }
    }

    #[test]
    fn archives(mut bytes in bytes(), at in 0usize..2000, packed: bool) {
        // A sound archive with some bytes overwritten.
        let mut builder = tar::Builder::new(vec![]);
        let mut header = tar::Header::new_gnu();
        header.set_size(100);
        builder.append_data(&mut header, "a/b.txt", [7u8; 100].as_slice()).unwrap();
        let mut archive = builder.into_inner().unwrap();
        if packed {
            let mut encoder = liblzma::write::XzEncoder::new(vec![], 6);
            std::io::Write::write_all(&mut encoder, &archive).unwrap();
            archive = encoder.finish().unwrap();
        }
        bytes.truncate(archive.len() / 10);
        let at = at % (archive.len() - bytes.len());
        archive[at..at + bytes.len()].copy_from_slice(&bytes);

        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("dest");
        let result = unpack_bytes(&archive, Path::new("x.tar"), &dest, Limits::default());
        prop_assert_eq!(dest.exists(), result.is_ok());
        if let Err(e) = result {
            prop_assert!(!e.to_string().chars().any(char::is_control), "{e:?}");
        }
    }

    #[test]
    fn texts(texts in prop::collection::vec(mojibake(), 1..6)) {
        let rows: Vec<_> =
            texts.into_iter().enumerate().map(|(row, text)| Row { row, text, label: None }).collect();
        let count = rows.len();
        let (kept, ledger) = clean(rows, &CleanRules::default());
        prop_assert_eq!(kept.len() + ledger.dropped.len(), count);
        // What was cleaned is clean.
        let (again, ledger) = clean(kept.clone(), &CleanRules::default());
        prop_assert!(ledger.dropped.is_empty() && again == kept, "{kept:?} became {again:?}, {ledger:?}");
    }

    #[test]
    fn quotations(bytes in prop::collection::vec(any::<u8>(), 0..400), text: String) {
        for quotation in [quoted_bytes(&bytes), quoted(&text)] {
            prop_assert!(!quotation.chars().any(char::is_control));
            prop_assert!(quotation.chars().count() < 1000);
        }
    }
}
