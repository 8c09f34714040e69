//! What a tagger sees of a word: itself, its beginnings, its ends, its shape; each a number in a table of its own.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Number of what the training words did not have, or not often enough.
pub const UNKNOWN: u32 = 0;
/// Number of what stands where a word is too short to have the feature.
const NONE: u32 = 1;
const FIRST: u32 = 2;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The word in lower case, digits as 0.
    Word,
    /// Its first characters, so many.
    Prefix(usize),
    /// Its last characters, so many.
    Suffix(usize),
    /// Capitals, digits and other characters, runs shortened: `Xx`, `0.0`, `x-x`.
    Shape,
}

/// All that are used, in the order of the model's tables.
pub const KINDS: [Kind; 9] = [
    Kind::Word,
    Kind::Prefix(1),
    Kind::Prefix(2),
    Kind::Prefix(3),
    Kind::Suffix(1),
    Kind::Suffix(2),
    Kind::Suffix(3),
    Kind::Suffix(4),
    Kind::Shape,
];

impl Kind {
    /// `None` where the word is too short.
    ///
    /// ```
    /// use firebrick_nlp::tagging::features::Kind;
    ///
    /// assert_eq!(Kind::Word.of("Room-101"), Some("room-000".into()));
    /// assert_eq!(Kind::Suffix(3).of("running"), Some("ing".into()));
    /// assert_eq!(Kind::Suffix(3).of("it"), None);
    /// assert_eq!(Kind::Shape.of("McDonald's"), Some("XxXx'x".into()));
    /// ```
    pub fn of(self, word: &str) -> Option<String> {
        let lower = || word.chars().flat_map(char::to_lowercase);
        match self {
            Self::Word => Some(lower().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()),
            Self::Prefix(n) => {
                let text: String = lower().take(n).collect();
                (text.chars().count() == n).then_some(text)
            }
            Self::Suffix(n) => {
                let all: Vec<char> = lower().collect();
                Some(all[all.len().checked_sub(n)?..].iter().collect())
            }
            Self::Shape => {
                let kind = |c: char| match c {
                    c if c.is_numeric() => '0',
                    c if c.is_uppercase() => 'X',
                    c if c.is_alphabetic() => 'x',
                    c => c,
                };
                let mut shape: Vec<char> = word.chars().map(kind).collect();
                shape.dedup();
                Some(shape.into_iter().take(12).collect())
            }
        }
    }
}

/// The tables' rows by what stands in them; `features.json` of a model folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    pub kinds: Vec<Kind>,
    /// Of each kind, what has a row, from [`FIRST`] on.
    rows: Vec<Vec<String>>,
    /// Of each kind, how often the training words had it; for [`Self::encode_dropped`].
    #[serde(skip)]
    counts: Vec<Vec<u32>>,
    #[serde(skip)]
    index: Vec<HashMap<String, u32>>,
}

impl Features {
    /// What at least `min_frequency` of the words have gets a row.
    pub fn new<'a>(words: impl Iterator<Item = &'a str>, min_frequency: u32) -> Self {
        let mut found: Vec<BTreeMap<String, u32>> = vec![BTreeMap::new(); KINDS.len()];
        for word in words {
            for (kind, found) in KINDS.iter().zip(&mut found) {
                if let Some(text) = kind.of(word) {
                    *found.entry(text).or_default() += 1;
                }
            }
        }
        let mut features =
            Self { kinds: KINDS.to_vec(), rows: vec![], counts: vec![], index: vec![] };
        for found in found {
            let often = found.into_iter().filter(|(_, count)| *count >= min_frequency);
            let (rows, counts) = often.unzip();
            features.rows.push(rows);
            features.counts.push(counts);
        }
        features.indexed()
    }

    /// From the text of `features.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let features: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if features.kinds.is_empty() || features.kinds.len() != features.rows.len() {
            let (kinds, rows) = (features.kinds.len(), features.rows.len());
            return Err(format!("{kinds} kinds of features and {rows} lists of rows"));
        }
        if features
            .kinds
            .iter()
            .any(|kind| matches!(kind, Kind::Prefix(n) | Kind::Suffix(n) if *n > 64))
        {
            return Err("a prefix or suffix of more than 64 characters".into());
        }
        Ok(features.indexed())
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    fn indexed(mut self) -> Self {
        let index = |rows: &Vec<String>| rows.iter().cloned().zip(FIRST..).collect();
        self.index = self.rows.iter().map(index).collect();
        self
    }

    /// Rows of each table.
    pub fn sizes(&self) -> Vec<usize> {
        self.rows.iter().map(|rows| rows.len() + FIRST as usize).collect()
    }

    /// A number for each kind.
    pub fn encode(&self, word: &str) -> Vec<u32> {
        let number = |(kind, index): (&Kind, &HashMap<String, u32>)| match kind.of(word) {
            None => NONE,
            Some(text) => index.get(&text).copied().unwrap_or(UNKNOWN),
        };
        self.kinds.iter().zip(&self.index).map(number).collect()
    }

    /// How often the training words had the word of this number; 0 for one that has no row.
    pub fn word_count(&self, number: u32) -> u32 {
        let counts = self.counts.first();
        let place = number.checked_sub(FIRST).map(|place| place as usize);
        place.and_then(|place| counts?.get(place).copied()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_file() {
        let features = Features::new(["The", "cat", "cat", "sat"].into_iter(), 1);
        let again = Features::from_json(features.to_json().as_bytes()).unwrap();
        for word in ["The", "the", "cat", "sats", "", "é1"] {
            assert_eq!(again.encode(word), features.encode(word));
        }
        assert_eq!(features.encode("THE")[0], features.encode("the")[0]);
        assert_eq!(features.encode("dog")[0], UNKNOWN);
        assert_eq!(features.word_count(features.encode("cat")[0]), 2);
        assert!(Features::from_json(b"{\"kinds\": [\"word\"], \"rows\": []}").is_err());
    }
}
