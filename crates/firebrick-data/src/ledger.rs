//! The record of what was dropped and why, one entry a row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why a row was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Not what a row of such a file looks like.
    Unreadable,
    /// Nothing but white space.
    Empty,
    /// U+FFFD, or mojibake that cannot be mended.
    BrokenEncoding,
    TooLong,
    /// The same text with different labels.
    Contradiction,
    /// The same text with the same label as an earlier row.
    Duplicate,
    /// The same or nearly the same text in another split.
    Leak,
    /// In a part that is judged, a label that no training row has.
    UnknownLabel,
    /// A box of no area, inside out, or outside its picture.
    NoArea,
    /// A box of a picture that is not there.
    NoPicture,
}

/// One dropped row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of the row in its file, from 0.
    pub row: usize,
    pub reason: DropReason,
    /// For a reader: which row it repeats, how long it is, ...
    pub detail: String,
}

/// What cleaning did to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// In the order of the rows.
    pub dropped: Vec<Entry>,
    /// Rows whose encoding was mended; they were kept unless another rule dropped them.
    pub mended: Vec<usize>,
}

impl Ledger {
    /// Drops those of `rows` for which `why_not` has a reason; a row's number is its place among them.
    pub fn keep<T>(
        &mut self,
        rows: &mut Vec<T>,
        mut why_not: impl FnMut(usize, &T) -> Option<(DropReason, String)>,
    ) {
        let mut row = 0;
        rows.retain(|item| {
            let dropped = why_not(row, item);
            let stays = dropped.is_none();
            self.dropped.extend(dropped.map(|(reason, detail)| Entry { row, reason, detail }));
            row += 1;
            stays
        });
    }

    /// The dropped rows as JSON lines, each with the name of its part.
    pub fn json_lines(&self, part: &str) -> String {
        let line = |entry: &Entry| {
            let mut value = serde_json::to_value(entry).expect("plain data");
            value["part"] = part.into();
            format!("{value}\n")
        };
        self.dropped.iter().map(line).collect()
    }

    /// How many rows were dropped, by reason.
    pub fn counts(&self) -> BTreeMap<DropReason, usize> {
        let mut counts = BTreeMap::new();
        self.dropped.iter().for_each(|entry| *counts.entry(entry.reason).or_default() += 1);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_json_lines() {
        let entry = |row, reason| Entry { row, reason, detail: "so".to_owned() };
        let ledger = Ledger {
            dropped: vec![entry(1, DropReason::Empty), entry(4, DropReason::BrokenEncoding)],
            mended: vec![],
        };
        assert_eq!(
            ledger.json_lines("train"),
            "{\"detail\":\"so\",\"part\":\"train\",\"reason\":\"empty\",\"row\":1}\n\
             {\"detail\":\"so\",\"part\":\"train\",\"reason\":\"broken_encoding\",\"row\":4}\n"
        );
        assert_eq!(ledger.counts()[&DropReason::Empty], 1);
    }
}
