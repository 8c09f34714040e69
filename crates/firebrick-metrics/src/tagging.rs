//! Tags of tokens, and the spans that BIO tags mark.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
};

/// Tokens, and those whose tag is right.
///
/// ```
/// use firebrick_metrics::tagging::TokenAccuracy;
///
/// let mut seen = TokenAccuracy::default();
/// seen.add(&["DET", "NOUN"], &["DET", "VERB"]);
/// assert_eq!(seen.accuracy(), Some(0.5));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenAccuracy {
    pub correct: u64,
    pub tokens: u64,
}

impl TokenAccuracy {
    /// Counts one sentence.
    ///
    /// # Panics
    ///
    /// If the two have different lengths.
    pub fn add<T: PartialEq<P>, P>(&mut self, truth: &[T], predicted: &[P]) {
        assert_eq!(truth.len(), predicted.len(), "one tag for each token");
        self.correct += truth.iter().zip(predicted).filter(|(t, p)| t == p).count() as u64;
        self.tokens += truth.len() as u64;
    }

    /// `None` when no token has been seen.
    pub fn accuracy(self) -> Option<f64> {
        (self.tokens > 0).then(|| self.correct as f64 / self.tokens as f64)
    }
}

impl AddAssign for TokenAccuracy {
    fn add_assign(&mut self, other: Self) {
        self.correct += other.correct;
        self.tokens += other.tokens;
    }
}

/// A span of tokens: its kind, its first token, and the one after its last.
pub type Span<'a> = (&'a str, usize, usize);

/// The spans of a sentence's BIO tags, in order.
///
/// As `conlleval` and seqeval (without `mode="strict"`) read them: `I-x` with nothing of kind `x` before it begins a
/// span too. What begins with neither `B-` nor `I-` is outside.
///
/// ```
/// use firebrick_metrics::tagging::spans;
///
/// let tags = ["B-city", "I-city", "O", "I-time", "B-time"];
/// assert_eq!(spans(&tags), [("city", 0, 2), ("time", 3, 4), ("time", 4, 5)]);
/// ```
pub fn spans<T: AsRef<str>>(tags: &[T]) -> Vec<Span<'_>> {
    let mut spans: Vec<Span> = vec![];
    for (place, tag) in tags.iter().enumerate() {
        let Some((prefix @ ("B" | "I"), kind)) = tag.as_ref().split_once('-') else { continue };
        match spans.last_mut() {
            Some(last) if prefix == "I" && (last.0, last.2) == (kind, place) => last.2 += 1,
            _ => spans.push((kind, place, place + 1)),
        }
    }
    spans
}

/// Spans of one kind, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// In the truth and in the predictions, kind and both ends.
    pub correct: u64,
    pub predicted: u64,
    /// In the truth: the support.
    pub truth: u64,
}

impl SpanCounts {
    /// Of the predicted spans, the fraction that is right; `None` when there is none.
    pub fn precision(self) -> Option<f64> {
        ratio(self.correct, self.predicted)
    }

    /// Of the true spans, the fraction found; `None` when there is none.
    pub fn recall(self) -> Option<f64> {
        ratio(self.correct, self.truth)
    }

    /// `2 correct / (predicted + truth)`; `None` when there is no span at all.
    pub fn f1(self) -> Option<f64> {
        ratio(2 * self.correct, self.predicted + self.truth)
    }
}

impl AddAssign for SpanCounts {
    fn add_assign(&mut self, other: Self) {
        self.correct += other.correct;
        self.predicted += other.predicted;
        self.truth += other.truth;
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Spans by kind.
///
/// seqeval is the reference: `classification_report`, `f1_score`. Where it divides by zero and warns, the methods of
/// [`SpanCounts`] return `None`.
///
/// ```
/// use firebrick_metrics::tagging::SpanScores;
///
/// let mut seen = SpanScores::default();
/// seen.add(&["B-city", "I-city", "O", "B-time"], &["B-city", "O", "O", "B-time"]);
/// assert_eq!(seen.total().f1(), Some(0.5)); // `time` is found, `city` has another end
/// assert_eq!(seen.kinds()["city"].recall(), Some(0.0));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanScores {
    kinds: BTreeMap<String, SpanCounts>,
}

impl SpanScores {
    /// Counts one sentence of BIO tags.
    ///
    /// # Panics
    ///
    /// If the two have different lengths.
    pub fn add<T: AsRef<str>, P: AsRef<str>>(&mut self, truth: &[T], predicted: &[P]) {
        assert_eq!(truth.len(), predicted.len(), "one tag for each token");
        let (truth, predicted) = (spans(truth), spans(predicted));
        let both: BTreeSet<&Span> = truth.iter().collect();
        for span in &truth {
            self.kind(span.0).truth += 1;
        }
        for span in &predicted {
            let counts = self.kind(span.0);
            counts.predicted += 1;
            counts.correct += u64::from(both.contains(span));
        }
    }

    fn kind(&mut self, kind: &str) -> &mut SpanCounts {
        // Not `entry`, which would copy the name each time.
        if !self.kinds.contains_key(kind) {
            self.kinds.insert(kind.to_owned(), SpanCounts::default());
        }
        self.kinds.get_mut(kind).expect("put in above")
    }

    /// Every kind that was in the truth or predicted.
    pub fn kinds(&self) -> &BTreeMap<String, SpanCounts> {
        &self.kinds
    }

    /// All kinds together: the micro average, which is what `conlleval` prints as F1.
    pub fn total(&self) -> SpanCounts {
        let mut total = SpanCounts::default();
        self.kinds.values().for_each(|counts| total += *counts);
        total
    }

    /// Unweighted mean of the kinds' F1; `None` when there is no span at all.
    pub fn macro_f1(&self) -> Option<f64> {
        let scores: Vec<f64> = self.kinds.values().filter_map(|counts| counts.f1()).collect();
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

impl AddAssign for SpanScores {
    fn add_assign(&mut self, other: Self) {
        for (kind, counts) in other.kinds {
            *self.kinds.entry(kind).or_default() += counts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/golden/seqeval.txt`, written by `tests/golden/seqeval.py` with seqeval 1.2.2. Re-make it, never edit it.
    ///
    /// Lines: `T` true tags, `P` predicted tags, and then of all sentences so far `=` kind, precision, recall, F1, support.
    #[test]
    fn agrees_with_seqeval() {
        let mut seen = SpanScores::default();
        let mut truth: Vec<&str> = vec![];
        let mut compared = 0;
        for line in include_str!("../tests/golden/seqeval.txt").lines() {
            let (mark, rest) = line.split_at(2);
            let fields: Vec<&str> = rest.split(' ').collect();
            match mark {
                "T " => truth = fields,
                "P " => {
                    let mut one = SpanScores::default();
                    one.add(&truth, &fields);
                    seen += one;
                }
                _ => {
                    let expected: Vec<f64> =
                        fields[1..].iter().map(|x| x.parse().unwrap()).collect();
                    let close = |a: Option<f64>, b: f64| (a.unwrap_or(0.0) - b).abs() < 1e-12;
                    compared += 1;
                    if fields[0] == "macro" {
                        assert!(
                            close(seen.macro_f1(), expected[2]),
                            "{line}: {:?}",
                            seen.macro_f1()
                        );
                        continue;
                    }
                    let counts =
                        if fields[0] == "micro" { seen.total() } else { seen.kinds()[fields[0]] };
                    assert!(close(counts.precision(), expected[0]), "{line}: {counts:?}");
                    assert!(close(counts.recall(), expected[1]), "{line}: {counts:?}");
                    assert!(close(counts.f1(), expected[2]), "{line}: {counts:?}");
                    assert_eq!(counts.truth as f64, expected[3], "{line}");
                }
            }
        }
        assert_eq!(compared, 30);
    }

    #[test]
    fn nothing_seen() {
        let seen = SpanScores::default();
        assert_eq!((seen.total().f1(), seen.macro_f1()), (None, None));
        assert_eq!(TokenAccuracy::default().accuracy(), None);
        assert_eq!(spans(&["O", "X", "", "Z-x"]), []);
    }
}
