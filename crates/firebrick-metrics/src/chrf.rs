//! chrF2 of a corpus (Popović 2015, <https://aclanthology.org/W15-3049>): F-score of character n-grams, as sacrebleu
//! counts it: up to 6 characters, white space left out, recall twice as important as precision.

use std::{collections::HashMap, ops::AddAssign};

/// N-grams up to this many characters.
const ORDER: usize = 6;

/// `beta^2`: recall counts twice as much as precision.
const BETA_SQUARED: f64 = 4.0;

/// Character n-grams of a corpus: in the hypotheses, in the references, in both.
///
/// ```
/// use firebrick_metrics::chrf::Chrf;
///
/// let mut chrf = Chrf::default();
/// chrf.add("the cat", "the cat");
/// assert_eq!(chrf.score(), 100.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chrf {
    counts: [[u64; 3]; ORDER],
}

impl AddAssign for Chrf {
    fn add_assign(&mut self, other: Self) {
        for (sum, counts) in self.counts.iter_mut().zip(other.counts) {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

impl Chrf {
    /// Counts one segment.
    pub fn add(&mut self, hypothesis: &str, reference: &str) {
        let characters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect();
        let (found, wanted): (Vec<char>, Vec<char>) =
            (characters(hypothesis), characters(reference));
        for n in 1..=ORDER {
            let (found, wanted) = (grams(&found, n), grams(&wanted, n));
            let common = found.iter().map(|(gram, x)| (*x).min(*wanted.get(gram).unwrap_or(&0)));
            // Where a reference is too short for any, the hypothesis is not asked for them.
            let asked = if wanted.is_empty() { 0 } else { found.values().sum::<u64>() };
            let counts = [asked, wanted.values().sum(), common.sum()];
            self.counts[n - 1].iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    /// Within 0 and 100.
    pub fn score(&self) -> f64 {
        let there: Vec<&[u64; 3]> =
            self.counts.iter().filter(|[found, wanted, _]| *found > 0 && *wanted > 0).collect();
        let mean = |of: usize| {
            let shares = there.iter().map(|counts| counts[2] as f64 / counts[of] as f64);
            shares.sum::<f64>() / there.len().max(1) as f64
        };
        let (precision, recall) = (mean(0), mean(1));
        if precision + recall == 0.0 {
            return 0.0;
        }
        100.0 * (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    }

    /// As sacrebleu prints it, without its version.
    pub fn signature(&self) -> String {
        "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no".into()
    }
}

fn grams(text: &[char], n: usize) -> HashMap<&[char], u64> {
    let mut counts = HashMap::new();
    for gram in text.windows(n) {
        *counts.entry(gram).or_insert(0) += 1;
    }
    counts
}
