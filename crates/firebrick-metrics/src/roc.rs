//! How well a score tells two classes apart, at every threshold and at one.

use crate::interval::Z;

/// Scores of examples whose class is known.
///
/// scikit-learn is the reference: `roc_auc_score`, `roc_curve`.
///
/// ```
/// use firebrick_metrics::roc::Roc;
///
/// let mut seen = Roc::default();
/// for (score, positive) in [(0.1, false), (0.4, false), (0.35, true), (0.8, true)] {
///     seen.add(score, positive);
/// }
/// assert_eq!(seen.auc(), Some(0.75)); // of scikit-learn's documentation
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roc {
    pub positives: Vec<f64>,
    pub negatives: Vec<f64>,
}

/// How often each answer was right and wrong at one threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub true_positives: u64,
    pub false_negatives: u64,
    pub true_negatives: u64,
    pub false_positives: u64,
}

impl Roc {
    pub fn add(&mut self, score: f64, positive: bool) {
        match positive {
            true => self.positives.push(score),
            false => self.negatives.push(score),
        }
    }

    /// Probability that a positive example scores higher than a negative one, half of it where they are equal; `None`
    /// where a class has no example.
    pub fn auc(&self) -> Option<f64> {
        if self.positives.is_empty() || self.negatives.is_empty() {
            return None;
        }
        let shares = placements(&self.positives, &self.negatives);
        Some(shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// 95 % interval of [`Self::auc`] by its standard error (DeLong, DeLong and Clarke-Pearson 1988); `None` with fewer
    /// than two examples of a class.
    pub fn auc_interval(&self) -> Option<(f64, f64)> {
        if self.positives.len() < 2 || self.negatives.len() < 2 {
            return None;
        }
        let auc = self.auc()?;
        let above = placements(&self.positives, &self.negatives);
        // A negative's share of the positives above it.
        let below: Vec<f64> =
            placements(&self.negatives, &self.positives).into_iter().map(|s| 1.0 - s).collect();
        let variance = |shares: &[f64]| {
            let squares: f64 = shares.iter().map(|s| (s - auc).powi(2)).sum();
            squares / (shares.len() - 1) as f64 / shares.len() as f64
        };
        let half = Z * (variance(&above) + variance(&below)).sqrt();
        Some(((auc - half).max(0.0), (auc + half).min(1.0)))
    }

    /// Highest threshold at which this share of the positives scores as much or more; `None` without positives.
    pub fn threshold(&self, sensitivity: f64) -> Option<f64> {
        let mut scores = self.positives.clone();
        scores.sort_by(|a, b| b.total_cmp(a));
        let needed = (sensitivity * scores.len() as f64 - 1e-9).ceil() as usize;
        scores.get(needed.max(1) - 1).copied()
    }

    /// Lowest threshold that at most this share of the negatives reaches; `None` without negatives.
    pub fn threshold_of_false_alarms(&self, share: f64) -> Option<f64> {
        let mut scores = self.negatives.clone();
        scores.sort_by(|a, b| b.total_cmp(a));
        let allowed = (share * scores.len() as f64 + 1e-9).floor() as usize;
        match scores.get(allowed) {
            // Just above the first one that is not allowed.
            Some(score) => Some(score.next_up()),
            None => scores.last().copied(),
        }
    }

    /// Equal error rate: the share of false alarms at the threshold where it is nearest to the share of positives that
    /// are missed, the mean of both where they differ; `None` where a class has no example.
    pub fn eer(&self) -> Option<f64> {
        if self.positives.is_empty() || self.negatives.is_empty() {
            return None;
        }
        let sorted = |scores: &[f64]| {
            let mut scores = scores.to_vec();
            scores.sort_by(f64::total_cmp);
            scores
        };
        let (positives, negatives) = (sorted(&self.positives), sorted(&self.negatives));
        let below = |scores: &[f64], threshold: f64| {
            scores.partition_point(|score| *score < threshold) as f64 / scores.len() as f64
        };
        let rates = positives.iter().chain(&negatives).map(|threshold| {
            let (missed, alarms) =
                (below(&positives, *threshold), 1.0 - below(&negatives, *threshold));
            ((missed - alarms).abs(), (missed + alarms) / 2.0)
        });
        rates.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, rate)| rate)
    }

    /// What is called positive scores `threshold` or more.
    pub fn at(&self, threshold: f64) -> Counts {
        let above = |scores: &[f64]| scores.iter().filter(|s| **s >= threshold).count() as u64;
        let (hits, alarms) = (above(&self.positives), above(&self.negatives));
        Counts {
            true_positives: hits,
            false_negatives: self.positives.len() as u64 - hits,
            true_negatives: self.negatives.len() as u64 - alarms,
            false_positives: alarms,
        }
    }

    /// Share of false alarms and of hits at every threshold, from the highest on.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let mut scores: Vec<f64> = self.positives.iter().chain(&self.negatives).copied().collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.dedup();
        let share = |count: u64, all: &[f64]| count as f64 / all.len().max(1) as f64;
        let point = |threshold: f64| {
            let counts = self.at(threshold);
            let alarms = share(counts.false_positives, &self.negatives);
            (alarms, share(counts.true_positives, &self.positives))
        };
        std::iter::once((0.0, 0.0)).chain(scores.into_iter().map(point)).collect()
    }
}

impl Counts {
    pub fn total(self) -> u64 {
        self.correct() + self.false_negatives + self.false_positives
    }

    pub fn correct(self) -> u64 {
        self.true_positives + self.true_negatives
    }

    pub fn accuracy(self) -> Option<f64> {
        ratio(self.correct(), self.total())
    }

    /// Share of the positives that were found.
    pub fn sensitivity(self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of the negatives that were left alone.
    pub fn specificity(self) -> Option<f64> {
        ratio(self.true_negatives, self.true_negatives + self.false_positives)
    }
}

/// For each score the share of `others` below it, equal ones counted half.
fn placements(scores: &[f64], others: &[f64]) -> Vec<f64> {
    let mut sorted = others.to_vec();
    sorted.sort_by(f64::total_cmp);
    let share = |score: &f64| {
        let below = sorted.partition_point(|other| other < score);
        let up_to = sorted.partition_point(|other| other <= score);
        (below + up_to) as f64 / (2 * sorted.len()) as f64
    };
    scores.iter().map(share).collect()
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(positives: &[f64], negatives: &[f64]) -> Roc {
        Roc { positives: positives.to_vec(), negatives: negatives.to_vec() }
    }

    /// Against all pairs, one by one.
    #[test]
    fn auc_counts_pairs() {
        let positives: Vec<f64> = (0..37).map(|i| f64::from(i * 7 % 20)).collect();
        let negatives: Vec<f64> = (0..23).map(|i| f64::from(i * 5 % 17)).collect();
        let pairs = positives.iter().flat_map(|p| negatives.iter().map(move |n| (p, n)));
        let won: f64 = pairs
            .map(|(p, n)| {
                if p > n {
                    1.0
                } else if p == n {
                    0.5
                } else {
                    0.0
                }
            })
            .sum();
        let auc = seen(&positives, &negatives).auc().unwrap();
        assert!((auc - won / (37.0 * 23.0)).abs() < 1e-12, "{auc}");
        assert_eq!(seen(&[1.0], &[]).auc(), None);
        assert_eq!(seen(&[1.0, 1.0], &[1.0]).auc(), Some(0.5));
    }

    /// By hand. Shares of the negatives below a positive: 1, 1/2; of the positives above a negative: 1, 1/2. Each
    /// variance is (1/16 + 1/16) / 1, halved by the two examples; the sum of both is 1/8.
    #[test]
    fn delong_by_hand() {
        let seen = seen(&[0.9, 0.4], &[0.5, 0.1]);
        assert_eq!(seen.auc(), Some(0.75));
        let (low, high) = seen.auc_interval().unwrap();
        assert!((low - (0.75 - Z * 0.125f64.sqrt())).abs() < 1e-12 && high == 1.0, "{low} {high}");
        assert_eq!(Roc::default().auc_interval(), None);
    }

    #[test]
    fn a_threshold_keeps_its_sensitivity() {
        let seen = seen(&[0.9, 0.8, 0.7, 0.2], &[0.75, 0.1]);
        assert_eq!(seen.threshold(0.75), Some(0.7));
        assert_eq!(seen.threshold(0.76), Some(0.2));
        assert_eq!(seen.threshold(0.0), Some(0.9));
        let counts = seen.at(0.7);
        assert_eq!((counts.sensitivity(), counts.specificity()), (Some(0.75), Some(0.5)));
        assert_eq!((counts.correct(), counts.total()), (4, 6));
        assert_eq!(Roc::default().threshold(0.9), None);
    }

    #[test]
    fn a_threshold_keeps_its_false_alarms() {
        let seen = seen(&[], &[0.1, 0.2, 0.3, 0.4]);
        let alarms =
            |share: f64| seen.at(seen.threshold_of_false_alarms(share).unwrap()).false_positives;
        assert_eq!([0.0, 0.24, 0.25, 0.6, 1.0].map(alarms), [0, 0, 1, 2, 4]);
        assert_eq!(Roc::default().threshold_of_false_alarms(0.1), None);
    }

    /// By hand: at 0.5 one of four positives is missed, and one of four negatives is an alarm.
    #[test]
    fn equal_errors_by_hand() {
        let apart = seen(&[0.4, 0.5, 0.8, 0.9], &[0.1, 0.2, 0.3, 0.6]);
        assert_eq!(apart.eer(), Some(0.25));
        assert_eq!(seen(&[0.9, 0.8], &[0.1]).eer(), Some(0.0));
        assert_eq!(seen(&[0.1], &[0.9]).eer(), Some(1.0));
        assert_eq!(seen(&[0.5], &[0.5]).eer(), Some(0.5));
        assert_eq!(seen(&[0.5], &[]).eer(), None);
    }

    #[test]
    fn the_curve_goes_from_corner_to_corner() {
        let curve = seen(&[0.9, 0.8], &[0.8, 0.1]).curve();
        assert_eq!(curve, [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
    }
}
