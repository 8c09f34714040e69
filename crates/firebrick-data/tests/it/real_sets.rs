//! The real data sets: counts checked with a few lines of Python (`csv`, `unicodedata`) beside this code.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::Instant,
};

use firebrick_data::{
    clean::{CleanRules, clean},
    hash::sha256_file,
    leaks::{self, LeakRules},
    ledger::DropReason::{self, *},
    locate::{Roots, fetch},
    manifest::{layout, manifest},
    normalise::normalise,
    table::{Row, read},
};

/// The archives, beside the repository.
pub fn shared() -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    assert!(path.is_dir(), "the data sets are not at {}", path.display());
    path
}

/// All parts of a set, in the layout's order.
fn parts(id: &str) -> Vec<Vec<Row>> {
    let cache = tempfile::tempdir().unwrap();
    let roots = Roots { explicit: None, cache: cache.path().to_owned(), shared: Some(shared()) };
    let folder = fetch(&roots, id).unwrap();
    let layout = layout(id).unwrap();
    let read_part = |&(_, file): &(&str, &str)| {
        let table = read(&folder.join(file), &layout.options).unwrap();
        assert_eq!(table.bad, []);
        table.rows
    };
    layout.splits.iter().map(read_part).collect()
}

#[test]
fn archives_are_those_of_the_manifest() {
    for set in &manifest().datasets {
        let path = shared().join(&set.archive);
        assert_eq!(path.metadata().unwrap().len(), set.bytes, "{}", set.id);
        assert_eq!(sha256_file(&path).unwrap(), set.sha256, "{}", set.id);
    }
}

#[test]
fn every_set_unpacks() {
    let cache = tempfile::tempdir().unwrap();
    let roots = Roots { explicit: None, cache: cache.path().to_owned(), shared: Some(shared()) };
    for set in &manifest().datasets {
        fetch(&roots, &set.id).unwrap_or_else(|e| panic!("{}: {e}", set.id));
    }
}

/// Rows, and what cleaning drops of each part.
#[track_caller]
fn check_clean(id: &str, expected: &[(usize, &[(DropReason, usize)])]) {
    for (rows, (count, dropped)) in parts(id).into_iter().zip(expected) {
        assert_eq!(rows.len(), *count);
        let start = Instant::now();
        let (kept, ledger) = clean(rows, &CleanRules::default());
        assert!(start.elapsed().as_secs() < 5, "{id} took {:?}", start.elapsed());
        let mended: Vec<_> = kept.iter().filter(|r| ledger.mended.contains(&r.row)).collect();
        assert!(mended.is_empty(), "sound Chinese and English is not to be mended: {mended:?}");
        assert_eq!(ledger.counts(), dropped.iter().copied().collect::<BTreeMap<_, _>>());
        assert_eq!(kept.len() + ledger.dropped.len(), *count);
    }
}

#[test]
fn cleaning() {
    // waimai: 5 texts with both labels (10 rows), 3 repeats that differ in white space or width only.
    check_clean("waimai-10k", &[(9591, &[(Contradiction, 10), (Duplicate, 3)]), (1198, &[])]);
    check_clean("chnsenticorp-hotel", &[(6214, &[(Empty, 1)]), (776, &[])]);
    check_clean("sst2", &[(6920, &[(Duplicate, 9)]), (872, &[])]);
}

/// Every row that a comparison of all pairs finds is in the report, and no other.
#[track_caller]
fn check_leaks(id: &str, near: f64) {
    let parts = parts(id);
    let start = Instant::now();
    let rules = LeakRules { near, ..LeakRules::default() };
    let report = leaks::check(&[("train", &parts[0]), ("test", &parts[1])], &rules).unwrap();
    assert!(start.elapsed().as_secs() < 5, "{id} took {:?}", start.elapsed());

    let grams = |row: &Row| {
        let chars: Vec<_> = normalise(&row.text).chars().collect();
        let long = chars.len() >= rules.near_chars;
        let grams = chars.windows(5).map(|gram| gram.iter().collect::<String>());
        (normalise(&row.text), grams.filter(|_| long).collect::<HashSet<_>>())
    };
    let (train, test): (Vec<_>, Vec<_>) =
        (parts[0].iter().map(grams).collect(), parts[1].iter().map(grams).collect());
    let alike = |a: &(String, HashSet<String>), b: &(String, HashSet<String>)| {
        let (few, many) = (a.1.len().min(b.1.len()), a.1.len().max(b.1.len()));
        let overlap = || {
            let both = a.1.intersection(&b.1).count();
            both as f64 >= near * (a.1.len() + b.1.len() - both) as f64
        };
        !a.0.is_empty()
            && (a.0 == b.0 || (few > 0 && few as f64 >= near * many as f64 && overlap()))
    };
    let leaking: Vec<_> =
        (0..test.len()).filter(|&j| train.iter().any(|text| alike(text, &test[j]))).collect();
    assert_eq!(report.rows_of("test"), leaking);
    let leaking: Vec<_> =
        (0..train.len()).filter(|&i| test.iter().any(|text| alike(text, &train[i]))).collect();
    assert_eq!(report.rows_of("train"), leaking);
}

#[test]
fn leaks_of_waimai() {
    check_leaks("waimai-10k", 0.8);
    check_leaks("waimai-10k", 0.6);
}

#[test]
fn leaks_of_sst2() {
    check_leaks("sst2", 0.8);
}
