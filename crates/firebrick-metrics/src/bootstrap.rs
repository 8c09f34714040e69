//! Confidence of a score that a whole corpus has and no row of it (BLEU, chrF, word error rate): the corpus is drawn again
//! and again from its own rows.
//!
//! Koehn 2004, <https://aclanthology.org/W04-3250>, for translations, as sacrebleu's `--confidence` does; Bisani and Ney 2004,
//! <https://doi.org/10.1109/ICASSP.2004.1326009>, for word error rates.

use std::ops::AddAssign;

/// Corpora that are drawn.
const SAMPLES: usize = 1000;

/// Score of `SAMPLES` corpora, each of as many rows as there are, drawn with replacement; nothing of no rows.
///
/// `rows` are the counts of each row, `score` is that of their sum. The draws are the same for any two systems that
/// answered equally many rows, so that the differences of their scores, one by one, tell how much one is better than the
/// other: the paired bootstrap.
///
/// ```
/// use firebrick_metrics::{bootstrap::{interval, resampled}, edit::Errors};
///
/// let answers = ["the cat sat", "a cat sat", "the bat sat", "the cat"];
/// let rows = answers.map(|answer| Errors::in_words("the cat sat", answer));
/// let rates = resampled(&rows, |sum| sum.rate().unwrap_or(0.0)); // 3 of 12 words are wrong
/// let (low, high) = interval(&rates).unwrap();
/// assert!(0.0 <= low && low < 0.25 && 0.25 < high && high <= 1.0 / 3.0);
/// ```
pub fn resampled<T: Copy + AddAssign>(rows: &[T], score: impl Fn(&T) -> f64) -> Vec<f64> {
    if rows.is_empty() {
        return vec![];
    }
    let mut draws = Draws(12345); // sacrebleu's seed; its generator is another
    let mut sample = || {
        let mut sum = rows[draws.below(rows.len())];
        (1..rows.len()).for_each(|_| sum += rows[draws.below(rows.len())]);
        score(&sum)
    };
    (0..SAMPLES).map(|_| sample()).collect()
}

/// What 95 % of the scores lie within; `None` without scores.
pub fn interval(scores: &[f64]) -> Option<(f64, f64)> {
    let mut scores = scores.to_vec();
    scores.sort_by(f64::total_cmp);
    let tail = scores.len() / 40;
    Some((*scores.get(tail)?, scores[scores.len() - 1 - tail]))
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{edit::Errors, interval::wilson_interval};

    /// Of one word a row, right or wrong, the rate is a share, whose interval is known by formula.
    #[test]
    fn a_share_has_the_interval_of_a_share() {
        let word = |wrong| Errors { errors: usize::from(wrong), of: 1 };
        let rows: Vec<Errors> = (0..1000).map(|i| word(i % 5 == 0)).collect();
        let (low, high) = interval(&resampled(&rows, |sum| sum.rate().unwrap())).unwrap();
        let (wanted_low, wanted_high) = wilson_interval(200, 1000).unwrap();
        // A deviation is 0.0126; the end of 1000 samples is off by a twelfth of one.
        let near = |a: f64, b: f64| (a - b).abs() < 0.004;
        assert!(near(low, wanted_low) && near(high, wanted_high), "{low} {high}");
    }

    /// Two systems of which one makes every twentieth error less: that is sure, though their intervals overlap.
    #[test]
    fn the_same_rows_are_drawn_for_two_systems() {
        let errors = |i: usize| usize::from(i % 7 < 3) * (1 + i % 3);
        let of = |errors| Errors { errors, of: 4 };
        let one: Vec<Errors> = (0..500).map(|i| of(errors(i))).collect();
        let other: Vec<Errors> =
            (0..500).map(|i| of(errors(i).saturating_sub(usize::from(i % 20 == 0)))).collect();
        let [one, other] = [one, other].map(|rows| resampled(&rows, |sum| sum.rate().unwrap()));
        let more: Vec<f64> = one.iter().zip(&other).map(|(a, b)| a - b).collect();
        let (low, high) = interval(&more).unwrap();
        assert!(0.0 < low && high < 0.02, "{low} {high}");
        assert!(interval(&other).unwrap().1 > interval(&one).unwrap().0);
    }

    #[test]
    fn of_nothing_nothing_is_known() {
        assert_eq!(interval(&resampled(&[] as &[Errors], |_| 0.0)), None);
        let alone = resampled(&[Errors { errors: 1, of: 4 }], |sum| sum.rate().unwrap());
        assert_eq!(interval(&alone), Some((0.25, 0.25)));
    }
}
