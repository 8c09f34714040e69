//! Finds texts that stand in two splits: a model that saw the answer is not tested.
//!
//! Exact: the same normalised text. Near: Jaccard similarity of character 5-grams; candidates come from MinHash with
//! locality sensitive hashing (Broder 1997; Leskovec et al., "Mining of Massive Datasets", section 3.4), and every
//! candidate is verified on the 5-grams themselves, so nothing is reported that is not so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gaoya::minhash::{MinHashIndex, MinHasher, MinHasher32, calculate_minhash_params_with_proba};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    error::DataError,
    ledger::{DropReason, Entry, Ledger},
    normalise::normalise,
    quote::escaped,
    table::Row,
};

/// Characters of a shingle.
const SHINGLE: usize = 5;

/// Hash functions of a signature.
const HASHES: usize = 128;

/// Probability that a pair exactly at the threshold becomes a candidate; closer pairs are surer.
const RECALL: f64 = 0.999;

/// Characters of the excerpt in a report.
const EXCERPT: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeakRules {
    /// Jaccard similarity from which two texts count as nearly the same, in `[0.5, 1]`; 1 finds equal sets of
    /// 5-grams only.
    pub near: f64,
    /// Texts shorter than this many characters must be equal to count: "ok" is no leak of "okay".
    pub near_chars: usize,
}

impl Default for LeakRules {
    fn default() -> Self {
        Self { near: 0.8, near_chars: 10 }
    }
}

/// A text of split `a` and the one of split `b` that is most like it, or the other way round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    pub split_a: String,
    /// Number of the row in its file, as in [`Row::row`].
    pub row_a: usize,
    pub split_b: String,
    pub row_b: usize,
    /// Jaccard similarity; 1 also for the same normalised text.
    pub similarity: f64,
    /// Whether the normalised texts are the same.
    pub exact: bool,
    /// The beginning of row `a`.
    pub excerpt: String,
}

/// Every row that has a like in another split is in at least one pair.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LeakReport {
    pub pairs: Vec<Leak>,
}

impl LeakReport {
    /// The rows of `split` that leak, in order, each once.
    pub fn rows_of(&self, split: &str) -> Vec<usize> {
        self.like(split).into_keys().collect()
    }

    /// Leaking rows of `split`, each with its most similar partner: split, row, similarity.
    fn like(&self, split: &str) -> BTreeMap<usize, (&str, usize, f64)> {
        let mut rows: BTreeMap<usize, (&str, usize, f64)> = BTreeMap::new();
        let mut add = |row, partner: (_, _, f64)| {
            let best = rows.entry(row).or_insert(partner);
            if partner.2 > best.2 {
                *best = partner;
            }
        };
        for pair in &self.pairs {
            if pair.split_a == split {
                add(pair.row_a, (pair.split_b.as_str(), pair.row_b, pair.similarity));
            }
            if pair.split_b == split {
                add(pair.row_b, (pair.split_a.as_str(), pair.row_a, pair.similarity));
            }
        }
        rows
    }
}

/// Compares every two splits.
///
/// ```
/// use firebrick_data::{leaks::{LeakRules, check, remove}, table::Row};
///
/// let row = |row, text: &str| Row { row, text: text.to_owned(), label: None };
/// let train = vec![row(0, "a film about nothing much"), row(1, "The food was cold, and late")];
/// let test = vec![row(0, "the food  was cold, and late")];
/// let report = check(&[("train", &train), ("test", &test)], &LeakRules::default()).unwrap();
/// assert_eq!((report.pairs[0].row_a, report.pairs[0].row_b), (1, 0));
///
/// let (train, ledger) = remove(train, "train", &report);
/// assert_eq!((train.len(), ledger.dropped[0].row), (1, 1));
/// ```
pub fn check(splits: &[(&str, &[Row])], rules: &LeakRules) -> Result<LeakReport, DataError> {
    if !(0.5..=1.0).contains(&rules.near) {
        return Err(DataError::BadOption {
            name: "near",
            value: rules.near.to_string(),
            expected: "between 0.5 and 1",
        });
    }
    let names: BTreeSet<&str> = splits.iter().map(|(name, _)| *name).collect();
    if names.len() != splits.len() {
        return Err(DataError::BadOption {
            name: "the list of splits",
            value: format!("{:?}", splits.iter().map(|(name, _)| name).collect::<Vec<_>>()),
            expected: "different names",
        });
    }
    let (bands, width) = calculate_minhash_params_with_proba(rules.near, HASHES, RECALL);
    let hasher = MinHasher32::new(bands * width);
    let prepared: Vec<Split> = splits
        .iter()
        .map(|(name, rows)| Split::new(name, rows, rules, &hasher, (bands, width)))
        .collect();
    let mut report = LeakReport::default();
    for (i, a) in prepared.iter().enumerate() {
        for b in &prepared[i + 1..] {
            compare(a, b, rules, &mut report);
        }
    }
    Ok(report)
}

/// Drops the rows of split `name` that leak, each with a ledger entry.
pub fn remove(rows: Vec<Row>, name: &str, report: &LeakReport) -> (Vec<Row>, Ledger) {
    let leaking = report.like(name);
    let mut ledger = Ledger::default();
    let mut kept = vec![];
    for row in rows {
        match leaking.get(&row.row) {
            None => kept.push(row),
            Some((split, partner, similarity)) => ledger.dropped.push(Entry {
                row: row.row,
                reason: DropReason::Leak,
                detail: format!("like row {partner} of {split} (similarity {similarity:.2})"),
            }),
        }
    }
    (kept, ledger)
}

/// One split, its texts compared once however often they come.
struct Split<'a> {
    name: &'a str,
    texts: Vec<Text<'a>>,
    by_key: HashMap<String, usize>,
    index: MinHashIndex<u32, usize>,
}

struct Text<'a> {
    key: String,
    rows: Vec<&'a Row>,
    /// Hashes of the 5-grams, sorted, each once; empty when too short to be near anything.
    shingles: Vec<u64>,
    signature: Vec<u32>,
}

/// The text of the other split that is most like a text of this one.
#[derive(Clone, Copy)]
struct Match {
    text: usize,
    similarity: f64,
    exact: bool,
}

impl<'a> Split<'a> {
    fn new(
        name: &'a str,
        rows: &'a [Row],
        rules: &LeakRules,
        hasher: &(impl MinHasher<V = u32> + Sync),
        (bands, width): (usize, usize),
    ) -> Self {
        let keys: Vec<String> = rows.par_iter().map(|row| normalise(&row.text)).collect();
        let mut by_key: HashMap<String, usize> = HashMap::new();
        let mut groups: Vec<(String, Vec<&Row>)> = vec![];
        for (row, key) in rows.iter().zip(keys) {
            if key.is_empty() {
                continue; // an empty text is a matter for cleaning
            }
            match by_key.get(&key) {
                Some(&text) => groups[text].1.push(row),
                None => {
                    by_key.insert(key.clone(), groups.len());
                    groups.push((key, vec![row]));
                }
            }
        }
        let texts: Vec<Text> = groups
            .into_par_iter()
            .map(|(key, rows)| {
                let shingles = shingles(&key, rules.near_chars);
                let signature = match shingles.is_empty() {
                    true => vec![],
                    false => hasher.create_signature(shingles.iter()),
                };
                Text { key, rows, shingles, signature }
            })
            .collect();
        // Threshold 0: the index proposes, `jaccard` decides.
        let mut index = MinHashIndex::new(bands, width, 0.0);
        let near = texts.iter().enumerate().filter(|(_, text)| !text.shingles.is_empty());
        let (ids, signatures) = near.map(|(id, text)| (id, text.signature.clone())).unzip();
        index.par_bulk_insert(ids, signatures);
        Self { name, texts, by_key, index }
    }

    fn most_like(&self, text: &Text, near: f64) -> Option<Match> {
        if let Some(&text) = self.by_key.get(&text.key) {
            return Some(Match { text, similarity: 1.0, exact: true });
        }
        if text.shingles.is_empty() {
            return None;
        }
        let candidates = self.index.query_owned(&text.signature).into_iter();
        let similar = candidates.filter_map(|other| {
            let similarity = jaccard(&text.shingles, &self.texts[other].shingles);
            (similarity >= near).then_some(Match { text: other, similarity, exact: false })
        });
        // Of equals the first, so that the report does not depend on the order of a hash set.
        similar.max_by(|a, b| a.similarity.total_cmp(&b.similarity).then(b.text.cmp(&a.text)))
    }
}

fn compare(a: &Split, b: &Split, rules: &LeakRules, report: &mut LeakReport) {
    let matches = |from: &Split, to: &Split| -> Vec<Option<Match>> {
        from.texts.par_iter().map(|text| to.most_like(text, rules.near)).collect()
    };
    let mut found: BTreeMap<(usize, usize), (Match, &Row)> = BTreeMap::new();
    for (text, best) in a.texts.iter().zip(matches(a, b)) {
        let Some(best) = best else { continue };
        let partner = b.texts[best.text].rows[0];
        text.rows.iter().for_each(|row| {
            found.insert((row.row, partner.row), (best, row));
        });
    }
    for (text, best) in b.texts.iter().zip(matches(b, a)) {
        let Some(best) = best else { continue };
        let partner = a.texts[best.text].rows[0];
        text.rows.iter().for_each(|row| {
            found.insert((partner.row, row.row), (best, partner));
        });
    }
    report.pairs.extend(found.into_iter().map(|((row_a, row_b), (best, row))| Leak {
        split_a: a.name.to_owned(),
        row_a,
        split_b: b.name.to_owned(),
        row_b,
        similarity: best.similarity,
        exact: best.exact,
        excerpt: escaped(&row.text.chars().take(EXCERPT).collect::<String>()),
    }));
}

/// Hashes of the 5-grams of characters, sorted, each once.
fn shingles(text: &str, least: usize) -> Vec<u64> {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() < least.max(SHINGLE) {
        return vec![];
    }
    let mut hashes: Vec<u64> = chars.windows(SHINGLE).map(fnv1a).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// FNV-1a over whole characters.
fn fnv1a(chars: &[char]) -> u64 {
    chars.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &c| {
        (hash ^ u64::from(u32::from(c))).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Size of the intersection over size of the union, of two sorted sets.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                both += 1;
                i += 1;
                j += 1;
            }
        }
    }
    let union = a.len() + b.len() - both;
    if union == 0 { 0.0 } else { both as f64 / union as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<Row> {
        let row = |(row, text): (usize, &&str)| Row { row, text: (*text).to_owned(), label: None };
        texts.iter().enumerate().map(row).collect()
    }

    #[track_caller]
    fn check_pairs(a: &[&str], b: &[&str], near: f64, expected: &[(usize, usize, bool)]) {
        let (a, b) = (rows(a), rows(b));
        let rules = LeakRules { near, ..LeakRules::default() };
        let report = check(&[("train", &a), ("test", &b)], &rules).unwrap();
        let found: Vec<_> = report.pairs.iter().map(|p| (p.row_a, p.row_b, p.exact)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn exact_and_near() {
        check_pairs(&[], &[], 0.8, &[]);
        check_pairs(&["ok", ""], &["OK ", ""], 0.8, &[(0, 0, true)]);
        // 5-grams: 18 and 19 of them, 18 in common.
        let (a, b) = ("the food came cold now", "the food came cold now!");
        check_pairs(&[a], &[b], 0.9, &[(0, 0, false)]);
        check_pairs(&[a], &[b], 0.95, &[]);
        check_pairs(&["okay then"], &["okay then!"], 0.5, &[]); // too short to be near
    }

    /// Every row that leaks is in a pair, but a text that comes 100 times on both sides makes no 10,000 pairs.
    #[test]
    fn repeats_do_not_multiply() {
        let many = ["the very same text"; 100];
        let (a, b) = (rows(&many), rows(&many));
        let report = check(&[("a", &a), ("b", &b)], &LeakRules::default()).unwrap();
        assert_eq!(report.pairs.len(), 199);
        assert_eq!(report.rows_of("a").len(), 100);
        assert_eq!(report.rows_of("b").len(), 100);
        assert!(remove(b, "b", &report).0.is_empty());
    }

    #[test]
    fn refused() {
        let a = rows(&["a"]);
        let near = |near| LeakRules { near, ..LeakRules::default() };
        assert!(check(&[("a", &a), ("a", &a)], &near(0.8)).is_err());
        assert!(check(&[("a", &a)], &near(0.0)).is_err());
        assert!(check(&[("a", &a)], &near(f64::NAN)).is_err());
    }

    #[test]
    fn jaccard_by_hand() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[], &[]), 0.0);
    }
}
