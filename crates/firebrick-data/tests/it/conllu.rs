//! Malformed treebanks, one line a case: what is wrong, and the exact outcome.

use std::{fs, path::PathBuf};

use firebrick_data::{
    conllu::{Treebank, read},
    error::DataError,
    table::{Limits, Reason},
};
use proptest::prelude::*;

const GOOD: &str = "# text = Dogs\n1\tDogs\tdog\tNOUN\t_\t_\t_\t_\t_\t_\n\n";

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.conllu");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read_bytes(bytes: &[u8], strict: bool, limits: Limits) -> Result<Treebank, DataError> {
    let (_dir, path) = written(bytes);
    read(&path, strict, &limits)
}

/// A good sentence, `lines`, a good sentence: the middle one is set aside at `line`, and refused in strict mode.
#[track_caller]
fn check_bad(lines: &[u8], line: u64, reason: Reason, mention: &str) {
    let text = [GOOD.as_bytes(), lines, b"\n\n", GOOD.as_bytes()].concat();
    let limits = Limits { line_bytes: 60, ..Limits::default() };
    let treebank = read_bytes(&text, false, limits).unwrap();
    assert_eq!(treebank.sentences.len(), 2);
    let bad = &treebank.bad[0];
    assert_eq!((treebank.bad.len(), bad.row, bad.line, bad.reason), (1, 1, line, reason), "{bad}");
    assert!(bad.detail.contains(mention), "{bad}");
    let error = read_bytes(&text, true, limits).unwrap_err();
    assert_eq!(error.kind(), reason.name());
    assert!(error.to_string().contains(&format!("row 2 (line {line})")), "{error}");
}

#[test]
fn a_bad_sentence_is_set_aside() {
    let rest = "\t_\t_\t_\t_\t_\t_";
    let word = |line: String| line.into_bytes();
    check_bad(b"1\tDogs", 4, Reason::RaggedRow, "2 fields, where a word has 10");
    check_bad(&word(format!("1\ta\ta\tDET{rest}\t_")), 4, Reason::RaggedRow, "11 fields or more");
    check_bad(
        &word(format!("2\ta\ta\tDET{rest}")),
        4,
        Reason::BadValue,
        "ID is `2`, where 1 is due",
    );
    check_bad(&word(format!("x\ta\ta\tDET{rest}")), 4, Reason::BadValue, "ID is `x`");
    check_bad(&word(format!("1-\ta\ta\tDET{rest}")), 4, Reason::BadValue, "ID is `1-`");
    check_bad(&word(format!("1\t\ta\tDET{rest}")), 4, Reason::MissingField, "FORM is empty");
    check_bad(&word(format!("1\ta\ta\t{rest}")), 4, Reason::MissingField, "UPOS is empty");
    check_bad(&word(format!("1\ta\ta\t_{rest}")), 4, Reason::MissingField, "`a` has no UPOS tag");
    check_bad(&word(format!("1\ta\u{1b}\ta\tDET{rest}")), 4, Reason::BadEncoding, r"`a\u{1b}`");
    check_bad(b"1\t\xff\ta\tDET\t_\t_\t_\t_\t_\t_", 4, Reason::BadEncoding, "byte 3 is not UTF-8");
    check_bad(&[b'1'; 61], 4, Reason::LineTooLong, "61 bytes, where at most 60");
    let second = format!("1\ta\ta\tDET{rest}\n3\tb\tb\tDET{rest}\n4\tc");
    check_bad(&word(second), 5, Reason::BadValue, "ID is `3`, where 2 is due");
}

#[test]
fn what_is_no_word_is_skipped() {
    let rest = "\t_\t_\t_\t_\t_\t_";
    let text = format!(
        "\n\n# only a comment\n\n# text\r\n1-2\tIt's\t_\t_{rest}\r\n1\tIt\tit\tPRON{rest}\r\n1.1\t_\t_\t_{rest}\r\n\
         2\t's\tbe\tAUX{rest}"
    );
    let treebank = read_bytes(text.as_bytes(), true, Limits::default()).unwrap();
    let forms: Vec<_> =
        treebank.sentences[0].tokens.iter().map(|token| token.form.as_str()).collect();
    assert_eq!((treebank.sentences.len(), treebank.sentences[0].line), (1, 7));
    assert_eq!(forms, ["It", "'s"]);
}

#[test]
fn a_file_that_is_wrong_as_a_whole() {
    let refused = |bytes: &[u8], limits| read_bytes(bytes, false, limits).unwrap_err();
    assert_eq!(refused(b"", Limits::default()).kind(), "Empty");
    assert!(refused(b"# nothing\n\n", Limits::default()).to_string().contains("no sentences"));
    let one = Limits { rows: 1, ..Limits::default() };
    assert!(refused(GOOD.repeat(2).as_bytes(), one).to_string().contains("more than 1 sentences"));
    let few = Limits { bytes: 20, ..Limits::default() };
    assert_eq!(refused(GOOD.as_bytes(), few).kind(), "TooLarge");
}

proptest! {
    #[test]
    fn whatever_the_bytes(bytes in prop::collection::vec(
        prop_oneof![4 => prop::sample::select(b"\t\t\t\t\t\n\n\r#112.-_aN\0\xff".to_vec()), 1 => any::<u8>()], 0..200),
        strict: bool) {
        match read_bytes(&[GOOD.as_bytes(), &bytes].concat(), strict, Limits::default()) {
            Ok(treebank) => for bad in treebank.bad {
                prop_assert!(!bad.to_string().contains(char::is_control), "{bad:?}");
            },
            Err(e) => prop_assert!(!e.to_string().contains(char::is_control), "{e:?}"),
        }
    }
}
