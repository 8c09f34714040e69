//! Finding, verifying and unpacking, with the smallest real archive.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use firebrick_data::locate::{Found, Roots, fetch, find_archive, unpack_embedded};

use crate::real_sets::shared;

fn roots(cache: &Path) -> Roots {
    Roots { explicit: None, cache: cache.to_owned(), shared: Some(shared()) }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn unpacked_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("not/yet/there");
    let roots = roots(&cache);
    assert_eq!(find_archive(&roots, "sst2").unwrap(), Found::Archive(shared().join("sst2.tar.xz")));
    let folder = fetch(&roots, "sst2").unwrap();
    assert_eq!(folder, cache.join("sst2"));
    assert_eq!(names(&folder), [".firebrick-complete", "dev.tsv", "train.tsv"]);
    assert_eq!(names(&cache), ["sst2"], "temporary folders are gone");
    assert_eq!(find_archive(&roots, "sst2").unwrap(), Found::Folder(folder.clone()));
    assert_eq!(fetch(&roots, "sst2").unwrap(), folder);
}

/// A folder without the marker is not trusted, and not deleted either.
#[test]
fn an_incomplete_folder_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sst2")).unwrap();
    fs::write(dir.path().join("sst2/train.tsv"), "half").unwrap();
    let folder = fetch(&roots(dir.path()), "sst2").unwrap();
    assert!(fs::metadata(folder.join("train.tsv")).unwrap().len() > 700_000);
    assert_eq!(names(dir.path()), ["sst2", "sst2.incomplete-0"]);
}

#[test]
fn two_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    thread::scope(|scope| {
        let both: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(&roots, "sst2").unwrap())).collect();
        both.into_iter().for_each(|one| assert!(one.join().unwrap().join("dev.tsv").is_file()));
    });
    assert_eq!(names(dir.path()), ["sst2"]);
}

#[test]
fn what_the_user_names_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let mine: PathBuf = dir.path().join("mine");
    fs::create_dir_all(mine.join("sst2")).unwrap();
    let roots = Roots { explicit: Some(mine.clone()), ..roots(&dir.path().join("cache")) };
    assert_eq!(fetch(&roots, "sst2").unwrap(), mine.join("sst2"));
}

#[track_caller]
fn check_refused(roots: &Roots, id: &str, kind: &str, mentions: &[&str]) {
    let error = fetch(roots, id).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for mention in mentions {
        assert!(message.contains(mention), "no {mention:?} in {message:?}");
    }
}

#[test]
fn refused() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let nowhere = Roots { explicit: None, cache: cache.clone(), shared: None };
    check_refused(&nowhere, "sst2", "NotHere", &["`sst2`", "Stanford", "research use", "cache"]);
    check_refused(&nowhere, "sst", "UnknownSet", &["`sst`", "did you mean `sst2`?"]);
    check_refused(&nowhere, "../evil", "UnknownSet", &["../evil"]);

    let damaged = Roots { explicit: Some(dir.path().to_owned()), ..nowhere };
    let mut bytes = fs::read(shared().join("sst2.tar.xz")).unwrap();
    bytes[1000] ^= 1;
    fs::write(dir.path().join("sst2.tar.xz"), bytes).unwrap();
    check_refused(&damaged, "sst2", "BadChecksum", &["sst2.tar.xz", "c526720c"]);
    assert!(!cache.join("sst2").exists());
}

#[test]
fn embedded() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("sst2");
    let bytes = fs::read(shared().join("sst2.tar.xz")).unwrap();
    unpack_embedded(&bytes, &dest).unwrap();
    unpack_embedded(&bytes, &dest).unwrap();
    assert_eq!(names(&dest), [".firebrick-complete", "dev.tsv", "train.tsv"]);
    // The marker is that of the manifest: what was embedded also counts as fetched.
    let roots = Roots { explicit: None, cache: dir.path().to_owned(), shared: None };
    assert_eq!(fetch(&roots, "sst2").unwrap(), dest);
    assert_eq!(
        unpack_embedded(b"junk", &dir.path().join("junk")).unwrap_err().kind(),
        "Unsupported"
    );
    assert_eq!(names(dir.path()), ["sst2"]);
}
