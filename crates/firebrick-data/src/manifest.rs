//! The data sets that Firebrick knows by name.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::table::{Columns, LabelKind, ReadOptions};

/// All known data sets, in the order of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub datasets: Vec<DataSet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Name on the command line; also the one folder in the archive.
    pub id: String,
    /// File name of the archive.
    pub archive: String,
    /// Of the archive, in lower-case hex.
    pub sha256: String,
    /// Size of the archive.
    pub bytes: u64,
    /// Number of files in the archive.
    pub files: usize,
    pub task: String,
    pub licence: String,
    pub source: String,
    pub note: String,
}

static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../manifest.json"))
        .expect("manifest.json is part of this crate, and a test parses it")
});

/// The manifest that this crate was built with.
pub fn manifest() -> &'static Manifest {
    &MANIFEST
}

/// Sets that lie in another set's archive, each in a folder of its name, and the id of that set.
const INNER: &[(&str, &str)] =
    &[("snips", "intents"), ("atis", "intents"), ("hwu64", "intents"), ("smp2019-zh", "intents")];

/// The set called `id`, or the one whose archive holds it.
///
/// ```
/// use firebrick_data::manifest::{data_set, nearest};
///
/// assert_eq!(data_set("sst2").unwrap().task, "sentiment");
/// assert_eq!(data_set("hwu64").unwrap().id, "intents");
/// assert!(data_set("sst-2").is_none());
/// assert_eq!(nearest("sst-2"), Some("sst2"));
/// ```
pub fn data_set(id: &str) -> Option<&'static DataSet> {
    let id = INNER.iter().find(|(inner, _)| *inner == id).map_or(id, |(_, outer)| *outer);
    manifest().datasets.iter().find(|set| set.id == id)
}

/// The id most like `id`, for "did you mean"; `None` when nothing is close.
pub fn nearest(id: &str) -> Option<&'static str> {
    let typed: Vec<char> = id.to_lowercase().chars().take(64).collect();
    let distance = |set: &DataSet| match set.id.starts_with(id) && id.len() >= 3 {
        true => 0, // `waimai` for `waimai-10k`
        false => edits(&typed, &set.id.chars().collect::<Vec<_>>()),
    };
    let sets = manifest().datasets.iter();
    let (distance, set) = sets.map(|set| (distance(set), set)).min_by_key(|(d, _)| *d)?;
    (distance <= 2.max(set.id.len() / 3)).then_some(set.id.as_str())
}

/// Levenshtein distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// How a text classification set comes: its official parts, and how to read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Name of the part and its file within the set's folder; the part to learn from first, the part to judge by last.
    pub splits: &'static [(&'static str, &'static str)],
    pub options: ReadOptions,
}

/// The layout of text classification set `id`; `None` for other sets.
pub fn layout(id: &str) -> Option<Layout> {
    let whole =
        |columns| ReadOptions { label_kind: Some(LabelKind::Integer), ..ReadOptions::new(columns) };
    match id {
        "sst2" => Some(Layout {
            splits: &[("train", "train.tsv"), ("dev", "dev.tsv")],
            options: ReadOptions { header: false, ..whole(Columns::indexed(0, Some(1))) },
        }),
        "waimai-10k" | "chnsenticorp-hotel" => Some(Layout {
            splits: &[("train", "train.csv"), ("test", "test.csv")],
            options: whole(Columns::named("review", Some("label"))),
        }),
        // The label is the intent.
        "snips" | "atis" | "hwu64" => Some(Layout {
            splits: &[("train", "train.tsv"), ("valid", "valid.tsv"), ("test", "test.tsv")],
            options: ReadOptions {
                header: false,
                ..ReadOptions::new(Columns::indexed(0, Some(1)))
            },
        }),
        "smp2019-zh" => Some(Layout {
            splits: &[("train", "train.jsonl"), ("valid", "valid.jsonl")],
            options: ReadOptions::new(Columns::named("text", Some("domain"))),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_described() {
        assert_eq!(manifest().datasets.len(), 27);
        for set in &manifest().datasets {
            assert!(set.sha256.len() == 64 && set.bytes > 0 && set.files > 0, "{}", set.id);
            assert!(!set.licence.is_empty() && !set.source.is_empty(), "{}", set.id);
            assert_eq!(data_set(&set.id), Some(set), "an id is there twice");
        }
        for (id, outer) in INNER {
            assert_eq!(data_set(id).map(|set| set.id.as_str()), Some(*outer));
            assert!(layout(id).is_some(), "{id}");
        }
    }

    #[track_caller]
    fn check(typed: &str, expected: Option<&str>) {
        assert_eq!(nearest(typed), expected);
    }

    #[test]
    fn guesses() {
        check("sst", Some("sst2"));
        check("SST2", Some("sst2"));
        check("waimai", Some("waimai-10k"));
        check("wiamai-10k", Some("waimai-10k"));
        check("chnsenticorp_hotel", Some("chnsenticorp-hotel"));
        check("zzzzzzzzzzzz", None);
        check(&"x".repeat(100_000), None);
    }
}
