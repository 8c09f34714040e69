//! The real data sets: counts checked with a few lines of Python (`csv`, `unicodedata`) beside this code.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::PathBuf,
    time::Instant,
};

use firebrick_data::{
    audio::{
        read,
        resample::resample,
        voice::{self, segments},
    },
    clean::{CleanRules, clean},
    conllu,
    hash::sha256_file,
    leaks::{self, LeakRules},
    ledger::DropReason::{self, *},
    locate::{Roots, fetch},
    manifest::{layout, manifest},
    normalise::normalise,
    table::{Limits, Row, read},
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

/// The sets below 4 MB; the largest ones hold thousands of files and would take most of this crate's test time.
#[test]
fn sets_unpack_as_the_manifest_says() {
    let cache = tempfile::tempdir().unwrap();
    let roots = Roots { explicit: None, cache: cache.path().to_owned(), shared: Some(shared()) };
    for set in manifest().datasets.iter().filter(|set| set.bytes < 4_000_000) {
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

/// Every row that a comparison of all pairs finds is in the report, and no other. 200 test rows, to stay quick.
#[track_caller]
fn check_leaks(id: &str, near: f64) {
    let parts = parts(id);
    let (train, test) = (&parts[0], &parts[1][..200]);
    let start = Instant::now();
    let rules = LeakRules { near, ..LeakRules::default() };
    let report = leaks::check(&[("train", train), ("test", test)], &rules).unwrap();
    assert!(start.elapsed().as_secs() < 5, "{id} took {:?}", start.elapsed());

    let grams = |row: &Row| {
        let key = normalise(&row.text);
        let chars: Vec<_> = key.chars().collect();
        let long = chars.len() >= rules.near_chars;
        let grams = chars.windows(5).map(<[char]>::to_vec).filter(|_| long);
        (key, grams.collect::<HashSet<_>>())
    };
    type Grams = (String, HashSet<Vec<char>>);
    let alike = |a: &Grams, b: &Grams| {
        let (few, many) = (a.1.len().min(b.1.len()), a.1.len().max(b.1.len()));
        let overlap = || {
            let both = a.1.intersection(&b.1).count();
            both as f64 >= near * (a.1.len() + b.1.len() - both) as f64
        };
        !a.0.is_empty()
            && (a.0 == b.0 || (few > 0 && few as f64 >= near * many as f64 && overlap()))
    };
    let all: [Vec<Grams>; 2] =
        [train.iter().map(grams).collect(), test.iter().map(grams).collect()];
    let (mut in_train, mut in_test) = (BTreeSet::new(), BTreeSet::new());
    for (i, a) in all[0].iter().enumerate() {
        for j in (0..all[1].len()).filter(|&j| alike(a, &all[1][j])) {
            in_train.insert(i);
            in_test.insert(j);
        }
    }
    assert_eq!(report.rows_of("train"), in_train.into_iter().collect::<Vec<_>>());
    assert_eq!(report.rows_of("test"), in_test.into_iter().collect::<Vec<_>>());
}

#[test]
fn leaks_of_waimai() {
    check_leaks("waimai-10k", 0.6);
}

#[test]
fn leaks_of_hotel() {
    check_leaks("chnsenticorp-hotel", 0.5); // boilerplate of a web site, in many
    check_leaks("chnsenticorp-hotel", 0.8);
}

/// Sentences, words and different tags; the words by `awk -F'\t' '$1 ~ /^[0-9]+$/'`, the sentences by `# sent_id`.
#[test]
fn a_treebank_is_read_whole() {
    let cache = tempfile::tempdir().unwrap();
    let roots = Roots { explicit: None, cache: cache.path().to_owned(), shared: Some(shared()) };
    let folder = fetch(&roots, "ud-english-ewt").unwrap();
    for (file, sentences, words) in
        [("train", 12_544, 204_577), ("dev", 2_001, 25_147), ("test", 1_068, 12_572)]
    {
        let path = folder.join(format!("{file}.conllu"));
        let treebank = conllu::read(&path, true, &Limits::default()).unwrap();
        let tokens = || treebank.sentences.iter().flat_map(|sentence| &sentence.tokens);
        assert_eq!((treebank.sentences.len(), tokens().count()), (sentences, words), "{file}");
        let tags: BTreeSet<&str> = tokens().map(|token| token.upos.as_str()).collect();
        assert_eq!(tags.len(), 17, "{file}");
    }
}

/// A clip whose upper half of the spectrum is cut away has the same four parts.
#[test]
fn voice_is_found_at_the_rate_of_a_telephone() {
    let cache = tempfile::tempdir().unwrap();
    let roots = Roots { explicit: None, cache: cache.path().to_owned(), shared: Some(shared()) };
    let clip = fetch(&roots, "jfk").unwrap().join("jfk.flac");
    for rate in [8_000, 11_025, voice::RATE] {
        let samples = read::read(&clip, rate, &read::Limits::default()).unwrap();
        let found = segments(&resample(&samples, rate, voice::RATE), &voice::Options::default());
        assert_eq!(found.len(), 4, "{rate} Hz: {found:?}");
    }
}
