//! Hostile and broken archives: each is refused, and nothing of it stays on disk.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use firebrick_data::archive::{Limits, unpack, unpack_bytes};
use flate2::{Compression, write::GzEncoder};
use liblzma::write::XzEncoder;
use tar::{Builder, EntryType, Header};

/// A member with any name at all: `Header::set_path` would refuse the evil ones.
fn member(name: &str, kind: EntryType, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn tar(members: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(vec![]);
    for (name, kind, link, data) in members {
        builder.append(&member(name, *kind, link, data.len() as u64), *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn file<'a>(name: &'a str, data: &'a [u8]) -> (&'a str, EntryType, &'a str, &'a [u8]) {
    (name, EntryType::Regular, "", data)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = XzEncoder::new(vec![], 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The archive is refused as `kind`, and the folder around the destination is as empty as before.
#[track_caller]
fn check_refused(bytes: &[u8], limits: Limits, kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    let error = unpack_bytes(bytes, Path::new("x.tar"), &inner.join("dest"), limits).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    assert!(message.starts_with("x.tar") && !message.chars().any(char::is_control), "{message:?}");
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn sound_archives() {
    let tar = tar(&[
        ("set", EntryType::Directory, "", b""),
        file("./set/a.txt", b"one"),
        file("set/deep/er/b.txt", b""),
    ]);
    for bytes in [gz(&tar), xz(&tar), tar] {
        let dir = tempfile::tempdir().unwrap();
        let (archive, dest) = (dir.path().join("x"), dir.path().join("dest"));
        fs::write(&archive, &bytes).unwrap();
        assert_eq!(unpack(&archive, &dest, Limits::default()).unwrap(), 2);
        assert_eq!(fs::read(dest.join("set/a.txt")).unwrap(), b"one");
        assert!(dest.join("set/deep/er/b.txt").is_file());
        // What is there is never overwritten.
        assert_eq!(unpack(&archive, &dest, Limits::default()).unwrap_err().kind(), "Exists");
        assert!(dest.join("set/a.txt").is_file());
    }
}

#[test]
fn members_that_leave_the_folder() {
    let check = |members: &[(&str, EntryType, &str, &[u8])]| {
        check_refused(&tar(members), Limits::default(), "UnsafePath");
    };
    check(&[file("ok.txt", b"ok"), file("../../evil.txt", b"evil")]);
    check(&[file("a/../../evil.txt", b"evil")]);
    check(&[file("/firebrick_evil.txt", b"evil")]);
    check(&[file("..\\evil.txt", b"evil")]);
    check(&[file("a\u{1b}[31m.txt", b"evil")]);
    check(&[("d", EntryType::Symlink, "../..", b""), file("d/evil.txt", b"evil")]);
    check(&[("h", EntryType::Link, "../../outside", b"")]);
    check(&[("null", EntryType::Char, "", b"")]);
    check(&[("pipe", EntryType::Fifo, "", b"")]);
}

#[test]
fn broken_archives() {
    let sound = tar(&[file("big.txt", &[b'x'; 5000])]);
    check_refused(&sound[..2000], Limits::default(), "Truncated");
    check_refused(&sound[..512 + 5120], Limits::default(), "Truncated"); // no end mark
    check_refused(&gz(&sound)[..60], Limits::default(), "Truncated");
    check_refused(&xz(&sound)[..100], Limits::default(), "Truncated");
    let mut bad_crc = gz(&sound);
    let crc = bad_crc.len() - 8;
    bad_crc[crc] ^= 1;
    check_refused(&bad_crc, Limits::default(), "BadChecksum");
    let mut bad_sum = sound.clone();
    bad_sum[148..156].copy_from_slice(b"000001\0 ");
    check_refused(&bad_sum, Limits::default(), "BadChecksum");
    let mut huge = member("big.bin", EntryType::Regular, "", 8 << 30).as_bytes().to_vec();
    huge.resize(2048, 0);
    check_refused(&huge, Limits::default(), "TooLarge");
    check_refused(b"PK\x03\x04", Limits::default(), "Unsupported");
    check_refused(b"", Limits::default(), "Unsupported");
    check_refused(&tar(&[file("a", b"1"), file("./a", b"2")]), Limits::default(), "DuplicateKey");
    check_refused(&tar(&[("d", EntryType::Directory, "", b"")]), Limits::default(), "Empty");
}

#[test]
fn limits_are_kept() {
    let many: Vec<_> = (0..30).map(|i| format!("f{i}")).collect();
    let many: Vec<_> = many.iter().map(|name| file(name, b"x")).collect();
    let limits = |entries, bytes| Limits { entries, bytes, ..Limits::default() };
    check_refused(&tar(&many), limits(29, 1 << 20), "TooLarge");
    check_refused(&tar(&many), limits(100, 10_000), "TooLarge");
}

/// 64 MiB of zeros, as the content of a member and as its name.
#[test]
fn bombs() {
    const SIZE: u64 = 64 << 20;
    for (name, kind) in [("z.bin", EntryType::Regular), ("././@LongLink", EntryType::GNULongName)] {
        let zeros = Cursor::new(member(name, kind, "", SIZE).as_bytes().to_vec());
        let mut bomb = std::io::Read::chain(zeros, std::io::Read::take(std::io::repeat(0), SIZE));
        let mut gzip = GzEncoder::new(vec![], Compression::best());
        std::io::copy(&mut bomb, &mut gzip).unwrap();
        check_refused(&gzip.finish().unwrap(), Limits::default(), "Bomb");
    }
}
