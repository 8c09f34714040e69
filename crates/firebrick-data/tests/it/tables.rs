//! Malformed tables, one line a case: what is wrong, and the exact outcome.

use std::{fs, io::Write, path::PathBuf, time::Instant};

use firebrick_data::{
    error::DataError,
    table::{Columns, Format, LabelKind, Limits, ReadOptions, Reason, Table, read},
};
use flate2::{Compression, write::GzEncoder};

fn options() -> ReadOptions {
    ReadOptions {
        label_kind: Some(LabelKind::Integer),
        ..ReadOptions::new(Columns::named("text", Some("label")))
    }
}

fn write(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read_bytes(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Table, DataError> {
    let (_dir, path) = write(name, bytes);
    let start = Instant::now();
    let result = read(&path, options);
    assert!(start.elapsed().as_secs() < 5, "{name} took {:?}", start.elapsed());
    result
}

/// `ok` good rows, and the bad ones as (row from 0, line from 1, reason). Strict mode must refuse at the first.
#[track_caller]
fn check_rows(name: &str, bytes: impl AsRef<[u8]>, ok: usize, bad: &[(usize, u64, Reason)]) {
    let table = read_bytes(name, bytes.as_ref(), &options()).unwrap();
    let found: Vec<_> = table.bad.iter().map(|b| (b.row, b.line, b.reason)).collect();
    assert_eq!((table.rows.len(), found.as_slice()), (ok, bad), "{:?}", table.bad);
    let strict = read_bytes(name, bytes.as_ref(), &ReadOptions { strict: true, ..options() });
    match (bad.first(), strict) {
        (None, strict) => assert_eq!(strict.unwrap(), table),
        (Some(&(row, line, reason)), strict) => {
            let error = strict.unwrap_err();
            assert_eq!(error.kind(), reason.name());
            check_message(&error, &format!("row {} (line {line})", row + 1));
        }
    }
}

/// The file as a whole is refused; the message holds `mention`.
#[track_caller]
fn check_refused(name: &str, bytes: impl AsRef<[u8]>, kind: &str, mention: &str) {
    let error = read_bytes(name, bytes.as_ref(), &options()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    check_message(&error, mention);
}

#[track_caller]
fn check_message(error: &DataError, mention: &str) {
    let message = error.to_string();
    assert!(message.contains(mention), "no {mention:?} in {message:?}");
    assert!(!message.chars().any(char::is_control) && message.len() < 2000, "{message:?}");
}

fn csv(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut lines = vec![b"text,label".to_vec()];
    lines.extend((0..100).map(|i| format!("text number {i},{}", i % 2).into_bytes()));
    change(&mut lines);
    [lines.join(&b'\n'), b"\n".to_vec()].concat()
}

/// 100 lines; line `k` (from 1) replaced by `bad`.
fn jsonl(k: usize, bad: &str) -> String {
    let mut lines: Vec<_> =
        (0..100).map(|i| format!(r#"{{"text": "number {i}", "label": {}}}"#, i % 2)).collect();
    if k > 0 {
        lines[k - 1] = bad.to_owned();
    }
    lines.join("\n") + "\n"
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

use Reason::*;

#[test]
fn sound_csv() {
    check_rows("ok.csv", csv(|_| {}), 100, &[]);
    check_rows("bom.csv", "\u{feff}text,label\r\n\"two\r\nlines\",1\r\nb,0\r\n", 2, &[]);
    check_rows("quotes.csv", "text,label\n\"a \"\"b\"\", c\",1\n5\" pipe,0\n", 2, &[]);
    check_rows("formula.csv", "text,label\n=HYPERLINK(\"x\"),1\n@SUM(A1),0\n+1+1,1\n", 3, &[]);
    check_rows("lone_cr.csv", "text,label\ra,1\rb,0\rc,1\r", 3, &[]);
    check_rows("no_last_newline.csv", "text,label\na,1\nb,0", 2, &[]);
    check_rows("empty_text.csv", "text,label\n,1\n", 1, &[]);
}

#[test]
fn bad_rows_of_csv() {
    let at = |row, line, reason| vec![(row, line, reason)];
    let nul = csv(|lines| lines[50] = b"te\0xt,1".to_vec());
    check_rows("nul.csv", nul, 99, &at(49, 51, BadEncoding));
    let overlong = csv(|lines| lines[10] = b"abc\xc0\xaf,1".to_vec());
    check_rows("bad_utf8.csv", overlong, 99, &at(9, 11, BadEncoding));
    let latin1 = b"text,label\ncaf\xe9,1\n\xe9t\xe9,0\nplain,1\n";
    check_rows("latin1.csv", latin1, 1, &[(0, 2, BadEncoding), (1, 3, BadEncoding)]);
    let ragged = "text,label\na,1\nb\nc,1\nd,1,9\ne,0\n";
    check_rows("ragged.csv", ragged, 3, &[(1, 3, RaggedRow), (3, 5, RaggedRow)]);
    check_rows(
        "crlf.csv",
        ragged.replace('\n', "\r\n"),
        3,
        &[(1, 3, RaggedRow), (3, 5, RaggedRow)],
    );
    let blank = "text,label\n\n\n\"a\n\",1\n\nb\n";
    check_rows("blank_lines.csv", blank, 1, &at(1, 7, RaggedRow));
    let labels = "text,label\na,1\nb,NaN\nc,\nd,1e999\ne,yes\nf,0\n";
    let bad = [(1, 3, BadValue), (2, 4, BadValue), (3, 5, BadValue), (4, 6, BadValue)];
    check_rows("label_not_number.csv", labels, 2, &bad);
    let long = format!("text,label\na,1\n{},0\nb,1\n", "x".repeat(10_000_000));
    check_rows("line_10MB.csv", long, 2, &at(1, 3, LineTooLong));
}

#[test]
fn csv_files_that_are_refused() {
    check_refused("empty.csv", "", "Empty", "no bytes");
    check_refused("bom_only.csv", "\u{feff}", "Empty", "no rows");
    check_refused("header_only.csv", "text,label\n", "Empty", "no rows");
    let text = String::from_utf8(csv(|_| {})).unwrap();
    check_refused(
        "utf16.csv",
        [b"\xff\xfe".to_vec(), utf16(&text)].concat(),
        "BadEncoding",
        "UTF-16",
    );
    check_refused("utf16_no_mark.csv", utf16(&text), "BadEncoding", "UTF-16");
    let unclosed = format!("text,label\na,1\nb,0\n\"c,1\n{text}");
    check_refused("unclosed_quote.csv", unclosed, "BadSyntax", "row 3 (line 4): a quote");
    let endless = format!("text,label\na,1\n\"{}", "x\n".repeat(10_000_000));
    check_refused(
        "endless_record.csv",
        endless,
        "BadSyntax",
        "line 3 has no end within 16777216 bytes",
    );
    let commas = format!("text,label\n{}\n", ",".repeat(20_000_000));
    check_refused("endless_columns.csv", commas, "BadSyntax", "line 2 has no end");
    check_refused("unclosed_header.csv", "\"text,label\na,1\n", "BadSyntax", "quote");
    check_refused("duplicate_header.csv", "text,label,label\na,1,0\n", "DuplicateKey", "`label`");
    check_refused(
        "missing_column.csv",
        "text,score\na,1\n",
        "MissingField",
        "`label`; its columns are `text`, `score`",
    );
    let many: Vec<_> = (0..100_000).map(|i| format!("c{i}")).collect();
    check_refused("columns_100000.csv", many.join(","), "TooLarge", "100000 columns");
    check_refused("escape.csv", "te\u{1b}[31mxt,label\na,1\n", "MissingField", r"\u{1b}");
    check_refused("strange.xyz", "text\n", "Unsupported", ".jsonl");
}

#[test]
fn sound_jsonl() {
    check_rows("ok.jsonl", jsonl(0, ""), 100, &[]);
    check_rows("blank_lines.jsonl", jsonl(0, "").replace('\n', "\n\n\r\n"), 100, &[]);
    check_rows(
        "more_keys.jsonl",
        r#"{"id":[1,{"a":null}],"label":"1","text":"\ud83d\ude00"}"#,
        1,
        &[],
    );
    check_rows("ok.jsonl.gz", gz(jsonl(0, "").as_bytes()), 100, &[]);
    let two = [gz(jsonl(0, "").as_bytes()), gz(jsonl(0, "").as_bytes())].concat();
    check_rows("two_members.jsonl.gz", two, 200, &[]);
}

#[test]
fn bad_rows_of_jsonl() {
    #[track_caller]
    fn one(line: usize, bad: &str, reason: Reason) {
        check_rows("one.jsonl", jsonl(line, bad), 99, &[(line - 1, line as u64, reason)]);
    }
    one(37, r#"{"text": "x", "label": }"#, BadJson);
    one(5, r#"{"text":"x","label":1,}"#, BadJson);
    one(6, r#"{"text":"x","label":NaN}"#, BadJson);
    one(7, &format!(r#"{{"text":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000)), TooDeep);
    one(8, r#"{"text":"\ud800","label":1}"#, BadEncoding);
    one(9, r#"{"text":"kind","text":"evil","label":1}"#, DuplicateKey);
    one(9, r#"{"text":"kind","label":1,"more":1,"more":2}"#, DuplicateKey);
    one(10, r#"{"text":5,"label":1}"#, BadValue);
    one(11, r#"{"text":null,"label":1}"#, BadValue);
    one(12, r#"{"text":["a"],"label":1}"#, BadValue);
    one(12, r#""just a string""#, BadValue);
    one(12, r#"{"text":"x","label":1} {"text":"y","label":1}"#, BadJson);
    one(13, r#"{"label":1}"#, MissingField);
    one(13, r#"{"text":"x"}"#, MissingField);
    one(14, &format!(r#"{{"text":"x","label":{}}}"#, "9".repeat(400)), BadValue);
    one(14, r#"{"text":"x","label":0.5}"#, BadValue);
    one(15, "{\"text\":\"a\0b\",\"label\":1}", BadJson);
    one(15, r#"{"text":"a\u0000b","label":1}"#, BadEncoding);
    let cut = jsonl(0, "");
    check_rows("cut_last.jsonl", &cut[..cut.len() - 9], 99, &[(99, 100, BadJson)]);
    let long =
        format!("{}\n{{\"text\":\"{}\"}}\n", r#"{"text":"a","label":1}"#, "x".repeat(10_000_000));
    check_rows("line_10MB.jsonl", long, 1, &[(1, 2, LineTooLong)]);
}

#[test]
fn jsonl_files_that_are_refused() {
    check_refused("empty.jsonl", "", "Empty", "no bytes");
    check_refused("blank.jsonl", "\n\n \n", "Empty", "no rows");
    check_refused(
        "utf16.jsonl",
        [b"\xff\xfe".to_vec(), utf16(&jsonl(0, ""))].concat(),
        "BadEncoding",
        "UTF-16",
    );
    check_refused("one_array.jsonl", "[\n{\"text\":\"a\",\"label\":1}\n]\n", "BadJson", "array");
    let sound = gz(jsonl(0, "").as_bytes());
    check_refused("truncated.jsonl.gz", &sound[..sound.len() - 30], "Truncated", "cut");
    let bad_crc = [&sound[..sound.len() - 8], &[0; 8]].concat();
    check_refused("bad_crc.jsonl.gz", bad_crc, "BadChecksum", "checksum");
    check_refused("not_gzip.jsonl.gz", jsonl(0, ""), "Unsupported", "named .gz");
}

/// 64 MiB from 64 kB, as one line and as many: refused early, by the ratio, and never held in memory.
#[test]
fn a_gzip_bomb() {
    let bomb = |chunk: &[u8]| {
        let mut encoder = GzEncoder::new(vec![], Compression::best());
        encoder.write_all(b"text,label\n").unwrap();
        (0..(64 << 20) / chunk.len()).for_each(|_| encoder.write_all(chunk).unwrap());
        encoder.finish().unwrap()
    };
    check_refused("bomb.jsonl.gz", bomb(&[b'a'; 1 << 16]), "Bomb", "200 times");
    let line = ["a".repeat(1021).as_str(), ",1\n"].concat();
    check_refused("bomb.csv.gz", bomb(line.as_bytes()), "Bomb", "200 times");
}

#[test]
fn limits_are_kept() {
    let small = |limits| ReadOptions { limits, ..options() };
    let rows = small(Limits { rows: 50, ..Limits::default() });
    assert_eq!(read_bytes("a.csv", &csv(|_| {}), &rows).unwrap_err().kind(), "TooLarge");
    let bytes = small(Limits { bytes: 500, ..Limits::default() });
    assert_eq!(read_bytes("a.csv", &csv(|_| {}), &bytes).unwrap_err().kind(), "TooLarge");
    assert_eq!(
        read_bytes("a.jsonl", jsonl(0, "").as_bytes(), &bytes).unwrap_err().kind(),
        "TooLarge"
    );
}

#[test]
fn tsv_has_no_quotes() {
    let plain = ReadOptions { header: false, ..ReadOptions::new(Columns::indexed(0, Some(1))) };
    let table = read_bytes("a.tsv", b"\"open\t1\na, b\t0\nragged\n", &plain).unwrap();
    assert_eq!(table.rows[0].text, "\"open");
    assert_eq!(table.rows[1].text, "a, b");
    assert_eq!(table.bad[0].to_string(), "row 3 (line 3): 1 field, where the first row has 2");
    let named = ReadOptions { header: false, ..options() };
    assert_eq!(read_bytes("a.tsv", b"a\t1\n", &named).unwrap_err().kind(), "BadValue");
    let beyond = ReadOptions { header: false, ..ReadOptions::new(Columns::indexed(0, Some(2))) };
    assert_eq!(read_bytes("a.tsv", b"a\t1\n", &beyond).unwrap_err().kind(), "MissingField");
}

#[test]
fn a_text_file_is_one_text_a_line() {
    let plain = ReadOptions::new(Columns::named("text", None));
    let marked = read_bytes("a.txt", "\u{feff}one\n".as_bytes(), &plain).unwrap();
    assert_eq!(marked.rows[0].text, "one");
    let table = read_bytes("a.txt", b"one\r\n\ntw\xffo\nthree", &plain).unwrap();
    let texts: Vec<_> = table.rows.iter().map(|row| (row.row, row.text.as_str())).collect();
    assert_eq!(texts, [(0, "one"), (1, ""), (3, "three")]);
    let worded = table.clone().worded();
    assert_eq!(worded.rows.iter().map(|row| row.row).collect::<Vec<_>>(), [0, 3]);
    let bad: Vec<_> = worded.bad.iter().map(|bad| (bad.row, bad.reason)).collect();
    assert_eq!(bad, [(1, BadValue), (2, BadEncoding)]);
    assert_eq!((table.bad[0].row, table.bad[0].reason), (2, BadEncoding));
    assert_eq!(read_bytes("a.txt", b"one\n", &options()).unwrap_err().kind(), "MissingField");
    let forced = ReadOptions { format: Some(Format::Lines), ..plain };
    assert_eq!(read_bytes("a.whatever", b"one\n", &forced).unwrap().rows.len(), 1);
}

#[test]
fn a_table_without_a_good_row() {
    let (_dir, path) = write("a.jsonl", b"{}\n{}\n");
    let table = read(&path, &options()).unwrap();
    assert_eq!(table.bad_counts(), [(MissingField, 2)].into());
    let error = table.usable(&path).unwrap_err();
    assert_eq!(error.kind(), "MissingField");
    check_message(&error, "none of its 2 rows is usable; the first: row 1 (line 1): no key `text`");
}

#[test]
fn what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |path: PathBuf| read(&path, &options()).unwrap_err().kind();
    assert_eq!(kind(dir.path().to_owned()), "NotRegularFile");
    assert_eq!(kind(dir.path().join("absent.csv")), "Read");
    #[cfg(unix)]
    {
        assert_eq!(kind("/dev/null".into()), "NotRegularFile");
        let pipe = dir.path().join("pipe.csv");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert_eq!(kind(pipe), "NotRegularFile"); // and does not wait for a writer
    }
}
