//! Parquet as pyarrow and the `parquet` crate write it, and as neither would.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use ::parquet::{
    data_type::{ByteArrayType, Int64Type},
    file::{
        properties::{WriterProperties, WriterVersion},
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use firebrick_data::{
    error::DataError,
    table::{ColumnRef, Columns, Limits, ReadOptions, Reason, Table, read},
};
use flate2::{Compression, write::GzEncoder};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/parquet/{name}.parquet"))
}

/// As pyarrow wrote them with snappy in three row groups, in gzip and zstd with pages of version 2, plain, and in the
/// encodings of differences.
const WAYS: [&str; 5] = ["snappy", "gzip", "zstd", "none", "delta"];

fn column(way: &str, text: &str, label: Option<&str>) -> Result<Table, DataError> {
    read(&golden(way), &ReadOptions::new(Columns::named(text, label)))
}

/// The labels of the rows whose text is `id`'s neighbour, or why not; the same in every way of writing.
#[track_caller]
fn check_labels(label: &str, expected: [Result<&str, &str>; 7]) {
    for way in WAYS {
        let table = column(way, "pair.en", Some(label)).unwrap();
        let mut found = vec![Err(String::new()); 7];
        table.rows.iter().for_each(|row| found[row.row] = Ok(row.label.clone().unwrap()));
        table.bad.iter().for_each(|bad| found[bad.row] = Err(bad.detail.clone()));
        // Row 2 has no pair at all, which is said before its label is looked at.
        let null = "`pair.en` is null, where a string is due";
        for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
            match (row, expected) {
                (2, _) => assert_eq!(found.as_ref().unwrap_err(), null, "{way}"),
                (_, Ok(label)) => assert_eq!(found.as_deref(), Ok(label), "{way}, row {row}"),
                (_, Err(detail)) => {
                    let problem = found.as_ref().unwrap_err();
                    assert!(problem.contains(detail), "{way}, row {row}: {problem}");
                }
            }
        }
    }
}

#[test]
fn texts_and_labels_as_pyarrow_writes_them() {
    for way in WAYS {
        let table = column(way, "text", Some("label")).unwrap();
        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|row| (row.row, row.text.as_str(), row.label.as_deref().unwrap()))
            .collect();
        let expected = [
            (0, "good", "1"),
            (1, "味道很好", "1"),
            (4, "", "0"),
            (5, "bad", "-5"),
            (6, "good", "1"),
        ];
        assert_eq!(rows, expected, "{way}");
        let bad: Vec<_> = table.bad.iter().map(ToString::to_string).collect();
        let nulls = [
            "row 3: `text` is null, where a string is due",
            "row 4: `label` is null, where a label is due",
        ];
        assert_eq!(bad, nulls, "{way}");
    }
}

#[test]
fn labels_of_every_kind() {
    check_labels("id", ["0", "1", "2", "3", "4", "5", "6"].map(Ok));
    let wide = ["18446744073709551615", "9223372036854775808", "0", "1", "2", "3", "4"];
    check_labels("wide", wide.map(Ok));
    check_labels("small", ["255", "0", "1", "2", "3", "4", "5"].map(Ok));
    check_labels("half", ["0.1", "1", "2", "3", "4", "5", "6"].map(Ok));
    check_labels("flag", ["true", "false", "", "true", "false", "true", "false"].map(Ok));
    let infinite = Err("`score` is no finite number");
    let score =
        [Ok("1"), Ok("0.5"), infinite, infinite, Ok("-2.25"), Ok("0.001"), Err("`score` is null")];
    check_labels("score", score);
    let mut kind = ["a", "b", "a", "b", "a", "b", ""].map(Ok);
    kind[6] = Err("`kind` is null");
    check_labels("kind", kind);
    let mut french = ["un", "", "", "x", "x", "x", "x"].map(Ok);
    french[1] = Err("`pair.fr` is null");
    check_labels("pair.fr", french);
}

#[test]
fn bytes_need_not_be_text() {
    let table = column("snappy", "bytes", None).unwrap();
    let bad: Vec<_> = table.bad.iter().map(|bad| (bad.row, bad.reason)).collect();
    assert_eq!(bad, [(1, Reason::BadEncoding), (2, Reason::BadEncoding)]);
    assert_eq!(table.rows.len(), 5);
}

#[track_caller]
fn check_column(text: &str, label: Option<&str>, kind: &str, mention: &str) {
    check_error(column("snappy", text, label), kind, mention);
}

#[track_caller]
fn check_error(result: Result<Table, DataError>, kind: &str, mention: &str) {
    let error = result.unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    assert!(message.contains(".parquet") && message.contains(mention), "{message}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

#[test]
fn columns_that_do_not_fit() {
    check_column("review", None, "MissingField", "`review`; its columns are `text`, `label`");
    check_column("text", Some("labels"), "MissingField", "no column `labels`");
    check_column("label", None, "BadValue", "whole numbers in column `label`, where strings");
    check_column("text", Some("day"), "BadValue", "dates in column `day`");
    check_column("tokens.list.element", None, "BadValue", "lists in column");
    let label = Some("label");
    check_error(column("brotli", "text", label), "Unsupported", "by Brotli, which is not read");
    check_error(
        column("delta", "bytes", None),
        "BadSyntax",
        "row group 1: its encoding DELTA_BYTE",
    );
    let third = ReadOptions::new(Columns { text: ColumnRef::Index(99), label: None });
    check_error(read(&golden("none"), &third), "MissingField", "column number 99");
}

fn read_bytes(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Table, DataError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let start = Instant::now();
    let result = read(&path, options);
    assert!(start.elapsed().as_secs() < 5, "{name} took {:?}", start.elapsed());
    result
}

fn both() -> ReadOptions {
    ReadOptions::new(Columns::named("text", Some("label")))
}

#[track_caller]
fn check_bytes(bytes: &[u8], kind: &str, mention: &str) {
    check_error(read_bytes("x.parquet", bytes, &both()), kind, mention);
}

/// Texts that may be null and labels that may not, in row groups of 3500 rows and pages of 700.
fn written(rows: &[(Option<String>, i64)], version: WriterVersion, dictionary: bool) -> Vec<u8> {
    let schema = "message m { optional binary text (UTF8); required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_dictionary_enabled(dictionary)
        .set_data_page_row_count_limit(700)
        .set_write_batch_size(100)
        .build();
    let mut writer = SerializedFileWriter::new(vec![], schema, properties.into()).unwrap();
    for rows in rows.chunks(3500) {
        let mut group = writer.next_row_group().unwrap();
        let texts: Vec<_> = rows.iter().filter_map(|row| Some(row.0.as_deref()?.into())).collect();
        let levels: Vec<_> = rows.iter().map(|row| i16::from(row.0.is_some())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
        column.close().unwrap();
        let labels: Vec<_> = rows.iter().map(|row| row.1).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn many_pages_and_row_groups() {
    let text = |i: i64| (i % 7 != 3).then(|| format!("text {}", i * i % 5000));
    let rows: Vec<_> = (0..10_000).map(|i| (text(i), i)).collect();
    use WriterVersion::{PARQUET_1_0 as V1, PARQUET_2_0 as V2};
    for (version, dictionary) in [(V1, true), (V1, false), (V2, true)] {
        let bytes = written(&rows, version, dictionary);
        // Whatever the name: the bytes say what it is.
        let table = read_bytes("x.data", &bytes, &both()).unwrap();
        assert_eq!(table.rows.len() + table.bad.len(), rows.len());
        for row in &table.rows {
            let (text, label) = &rows[row.row];
            assert_eq!(Some(&row.text), text.as_ref());
            assert_eq!(row.label, Some(label.to_string()));
        }
        assert!(table.bad.iter().all(|bad| rows[bad.row].0.is_none()));

        let with = |limits| read_bytes("x.parquet", &bytes, &ReadOptions { limits, ..both() });
        let limits = Limits::default();
        check_error(with(Limits { rows: 5000, ..limits }), "TooLarge", "more than 5000 rows");
        check_error(with(Limits { bytes: 20_000, ..limits }), "TooLarge", "more");
        check_error(with(Limits { columns: 1, ..limits }), "TooLarge", "more than 1 columns");
        let long = rows.iter().flat_map(|row| &row.0).filter(|text| text.len() > 8).count();
        let counts = with(Limits { line_bytes: 8, ..limits }).unwrap().bad_counts();
        assert_eq!(counts.get(&Reason::LineTooLong), Some(&long), "{counts:?}");
    }
    // Strings that repeat the one before: a method that unpacks to any size.
    let bytes = written(&rows, V2, false);
    check_bytes(&bytes, "BadSyntax", "column `text` of row group 1: its encoding DELTA_BYTE_ARRAY");
}

#[test]
fn files_that_are_refused() {
    let whole = fs::read(golden("none")).unwrap();
    check_bytes(b"text,label\na,1\n", "Unsupported", "is no Parquet file: it begins with `text`");
    check_bytes(b"", "Empty", "no bytes");
    check_bytes(b"PAR1PAR1", "Truncated", "8 bytes are no Parquet file");
    for cut in [whole.len() / 4, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        check_bytes(&whole[..cut], "Truncated", "the mark PAR1 is not at its end");
    }
    // Both ends are there, and what lies between is not.
    let hole = [&whole[..40], &whole[600..]].concat();
    check_error(read_bytes("x.parquet", &hole, &both()), "Truncated", "outside the file");
    let tail = |tail: &[u8]| [&whole[..whole.len() - 8], tail].concat();
    check_bytes(&tail(b"\xff\xff\xff\x7fPAR1"), "Truncated", "a footer of 2147483647 bytes");
    check_bytes(&tail(b"\xff\xff\xff\xffPAR1"), "Truncated", "a footer of 4294967295 bytes");
    check_bytes(&tail(b"\0\0\0\0PAR1"), "Truncated", "the footer is cut off");
    check_bytes(&tail(b"\x10\0\0\0PARE"), "Unsupported", "encrypted");
}

/// A struct of Thrift's compact protocol from (number, value).
fn thrift(fields: &[(u8, Value)]) -> Vec<u8> {
    let mut bytes = vec![];
    let mut last = 0;
    for (id, value) in fields {
        let (kind, body) = match value {
            I32(value) => (5, zigzag(*value)),
            I64(value) => (6, zigzag(*value)),
            Name(name) => (8, [varint(name.len() as u64), name.as_bytes().to_vec()].concat()),
            Structs(count, items) => {
                (9, [&[0xfc], varint(*count).as_slice(), &items.concat()].concat())
            }
            Struct(body) => (12, body.clone()),
        };
        bytes.push((id - last) << 4 | kind);
        bytes.extend(body);
        last = *id;
    }
    bytes.push(0);
    bytes
}

enum Value {
    I32(i64),
    I64(i64),
    Name(&'static str),
    /// How many are promised, and those that are there.
    Structs(u64, Vec<Vec<u8>>),
    Struct(Vec<u8>),
}

use Value::*;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn zigzag(value: i64) -> Vec<u8> {
    varint((value << 1 ^ value >> 63) as u64)
}

fn list(items: Vec<Vec<u8>>) -> Value {
    Structs(items.len() as u64, items)
}

fn root(children: i64) -> Vec<u8> {
    thrift(&[(4, Name("m")), (5, I32(children))])
}

/// A file of these pages, which are the one column `text`, required, in one group of `rows` rows.
fn forged(codec: i64, rows: i64, pages: &[u8]) -> Vec<u8> {
    let text = thrift(&[(1, I32(6)), (3, I32(0)), (4, Name("text")), (6, I32(0))]);
    let meta = thrift(&[(1, I32(6)), (4, I32(codec)), (7, I64(pages.len() as i64)), (9, I64(4))]);
    let group =
        thrift(&[(1, list(vec![thrift(&[(2, I64(4)), (3, Struct(meta))])])), (3, I64(rows))]);
    let footer = thrift(&[
        (1, I32(1)),
        (2, list(vec![root(1), text])),
        (3, I64(rows)),
        (4, list(vec![group])),
    ]);
    closed(pages, &footer)
}

fn closed(pages: &[u8], footer: &[u8]) -> Vec<u8> {
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", pages, footer, &length, b"PAR1"].concat()
}

/// A data page of version 1 whose header says `size` bytes and `count` values.
fn page(body: &[u8], size: i64, count: i64, encoding: i64) -> Vec<u8> {
    let header = thrift(&[(1, I32(count)), (2, I32(encoding)), (3, I32(3)), (4, I32(3))]);
    let packed = body.len() as i64;
    let header = thrift(&[(1, I32(0)), (2, I32(size)), (3, I32(packed)), (5, Struct(header))]);
    [header, body.to_vec()].concat()
}

#[track_caller]
fn check_forged(bytes: &[u8], kind: &str, mention: &str) {
    let options = ReadOptions::new(Columns::named("text", None));
    check_error(read_bytes("x.parquet", bytes, &options), kind, mention);
}

#[test]
fn pages_that_promise_too_much() {
    let sound = b"\x02\0\0\0hi";
    let options = ReadOptions::new(Columns::named("text", None));
    let table = read_bytes("x.parquet", &forged(0, 1, &page(sound, 6, 1, 0)), &options).unwrap();
    assert_eq!(table.rows[0].text, "hi");

    let gigabytes = i64::from(i32::MAX);
    let refused = |codec, page: &[u8], kind, mention| {
        check_forged(&forged(codec, 1, page), kind, mention);
    };
    for codec in [0, 1, 2, 6] {
        refused(codec, &page(sound, gigabytes, 1, 0), "TooLarge", "a page of 2147483647 bytes");
        refused(codec, &page(sound, -1, 1, 0), "BadSyntax", "header is not whole");
        refused(codec, &page(sound, 6, gigabytes, 0), "TooLarge", "more than 1000000 rows");
    }
    refused(0, &page(b"\xff\xff\xff\x7fhi", 6, 1, 0), "BadSyntax", "Not enough bytes");
    refused(0, &page(b"\x02", 1, 1, 0), "BadSyntax", "column `text` of row group 1");
    refused(0, &page(sound, 6, 1, 8), "BadSyntax", "column `text`"); // without a dictionary
    refused(0, &page(sound, 6, 1, 77), "BadSyntax", "encoding 77");
    refused(0, &page(sound, 6, 0, 0), "BadSyntax", "fewer values than the group has rows");
    refused(0, &[0xff; 40], "BadSyntax", "column `text`");
    refused(99, &page(sound, 6, 1, 0), "Unsupported", "an unknown method");
    // Blocks of 128 in four parts, and billions of strings.
    let strings = [varint(128), varint(4), varint(1 << 40), varint(0)].concat();
    refused(0, &page(&strings, 9, 1, 6), "BadSyntax", "more strings than values");
    let dictionary = thrift(&[(1, I32(gigabytes)), (2, I32(0))]);
    let dictionary = thrift(&[(1, I32(2)), (2, I32(6)), (3, I32(6)), (7, Struct(dictionary))]);
    refused(0, &[&dictionary[..], sound].concat(), "TooLarge", "more than 1000000 rows");
    let dictionary = thrift(&[(1, I32(500_000)), (2, I32(0))]);
    let dictionary = thrift(&[(1, I32(2)), (2, I32(6)), (3, I32(6)), (7, Struct(dictionary))]);
    refused(0, &[&dictionary[..], sound].concat(), "BadSyntax", "500000 values in 6 bytes");

    // 256 MiB of nothing in 256 kB.
    let mut bomb = GzEncoder::new(vec![], Compression::best());
    (0..256).for_each(|_| std::io::Write::write_all(&mut bomb, &[0; 1 << 20]).unwrap());
    refused(2, &page(&bomb.finish().unwrap(), 6, 1, 0), "BadSyntax", "not the 6 bytes");
    // Snappy begins with the size that it unpacks to.
    refused(1, &page(b"\xff\xff\xff\xff\x0f", 6, 1, 0), "BadSyntax", "not the 6 bytes");
    refused(6, &page(sound, 6, 1, 0), "BadSyntax", "column `text`");

    let rows = forged(0, i64::MAX, &page(sound, 6, 1, 0));
    check_forged(&rows, "BadSyntax", "fewer values than the group has rows");
}

#[test]
fn footers_that_promise_too_much() {
    let footer = |schema: Value| thrift(&[(2, schema), (3, I64(0)), (4, list(vec![]))]);
    let refused = |schema: Value, mention: &str| {
        check_forged(&closed(&[], &footer(schema)), "BadSyntax", mention);
    };
    refused(list(vec![root(i64::from(i32::MAX))]), "fewer columns");
    refused(list(vec![root(-1), root(-1)]), "more columns");
    // A hundred thousand groups, each in the one before: more than a stack holds.
    refused(list(vec![root(1); 100_000]), "nested deeper than 64");
    let column = |name| thrift(&[(1, I32(6)), (3, I32(0)), (4, Name(name))]);
    refused(list(vec![root(1), thrift(&[(4, Name("text"))])]), "without a known type");
    // What is promised is not there; the end of the struct is taken for an element without a field.
    let billions = thrift(&[(2, Structs(u64::from(u32::MAX), vec![root(1)]))]);
    check_forged(&closed(&[], &billions), "BadSyntax", "without a known type");
    let groups = thrift(&[(2, list(vec![root(1), column("text")])), (4, Structs(1 << 40, vec![]))]);
    check_forged(&closed(&[], &groups), "BadSyntax", "without a number of rows");
    let twice = footer(list(vec![root(2), column("text"), column("text")]));
    check_forged(&closed(&[], &twice), "DuplicateKey", "`text`");
    let none = footer(list(vec![root(1), column("text")]));
    check_forged(&closed(&[], &none), "Empty", "no rows");
    check_forged(&closed(&[], &[0x19; 5000]), "BadSyntax", "the footer is not sound");
}
