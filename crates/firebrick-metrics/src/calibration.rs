//! Does a confidence of 0.8 mean right in 8 of 10 cases?

use std::ops::AddAssign;

/// Bins of the expected calibration error, as in Guo et al. 2017, <https://arxiv.org/abs/1706.04599>.
pub const BINS: usize = 15;

/// Confidences and hits, summed in 15 equally wide bins of confidence.
///
/// Bin `i` holds confidences in `(i / 15, (i + 1) / 15]`; bin 0 holds 0 too. The bins are those of scikit-learn's
/// `calibration_curve(strategy="uniform", n_bins=15)`, the sum over them is torchmetrics' `CalibrationError(norm="l1")`.
///
/// ```
/// use firebrick_metrics::calibration::Calibration;
///
/// let mut seen = Calibration::default();
/// seen.add(0.9, true);
/// seen.add(0.9, false); // said 0.9, was right in half of the cases
/// assert!((seen.ece().unwrap() - 0.4).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Calibration {
    bins: [Bin; BINS],
}

/// What fell into one bin of confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    pub examples: u64,
    pub correct: u64,
    /// Sum of the confidences.
    pub confidence: f64,
}

impl Calibration {
    /// Counts one prediction; `confidence` is the probability in `[0, 1]` that the model gave to what it predicted.
    ///
    /// A NaN stays visible: it makes [`Self::ece`] NaN.
    pub fn add(&mut self, confidence: f64, correct: bool) {
        let bin = ((confidence * BINS as f64).ceil() - 1.0).max(0.0) as usize;
        let bin = &mut self.bins[bin.min(BINS - 1)];
        bin.examples += 1;
        bin.correct += u64::from(correct);
        bin.confidence += confidence;
    }

    /// The bins in order of confidence, for a reliability diagram.
    pub fn bins(&self) -> &[Bin; BINS] {
        &self.bins
    }

    /// Expected calibration error: `sum of |correct - confidence| over bins / examples`, in `[0, 1]`;
    /// `None` when nothing has been seen.
    pub fn ece(&self) -> Option<f64> {
        let examples: u64 = self.bins.iter().map(|bin| bin.examples).sum();
        let gap: f64 =
            self.bins.iter().map(|bin| (bin.correct as f64 - bin.confidence).abs()).sum();
        (examples > 0).then(|| gap / examples as f64)
    }
}

impl AddAssign for Calibration {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in self.bins.iter_mut().zip(other.bins) {
            mine.examples += theirs.examples;
            mine.correct += theirs.correct;
            mine.confidence += theirs.confidence;
        }
    }
}

/// What logits are to be divided by so that their softmax is calibrated: the temperature of the lowest mean cross entropy
/// (Guo et al. 2017, section 4.2), within 0.05 and 20. 1 without examples.
///
/// ```
/// use firebrick_metrics::calibration::temperature;
///
/// // Always sure by the same margin, right in 3 of 4 cases: the softmax should say 0.75.
/// let logits = vec![vec![0.0, 5.0]; 4];
/// let t = temperature(&logits, &[1, 1, 1, 0]);
/// assert!((1.0 / (1.0 + (-5.0 / t).exp()) - 0.75).abs() < 1e-4);
/// ```
pub fn temperature(logits: &[Vec<f32>], truths: &[usize]) -> f64 {
    let loss = |log_t: f64| {
        let t = log_t.exp();
        let of_one = |(row, truth): (&Vec<f32>, &usize)| {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|x| (f64::from(x - most) / t).exp()).sum();
            sum.ln() - f64::from(row[*truth] - most) / t
        };
        logits.iter().zip(truths).map(of_one).sum::<f64>()
    };
    if logits.is_empty() {
        return 1.0;
    }
    // The loss is convex in 1 / t, so it has one valley: golden section search.
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.05f64.ln(), 20f64.ln());
    while high - low > 1e-6 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if loss(a) < loss(b) {
            high = b;
        } else {
            low = a;
        }
    }
    ((low + high) / 2.0).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seen: &[(f64, bool)], expected: Option<f64>) {
        let mut all = Calibration::default();
        for &(confidence, correct) in seen {
            let mut one = Calibration::default();
            one.add(confidence, correct);
            all += one;
        }
        match (all.ece(), expected) {
            (Some(a), Some(b)) => assert!((a - b).abs() < 1e-12, "{a}, not {b}"),
            (a, b) => assert_eq!(a, b),
        }
    }

    #[test]
    fn by_hand() {
        check(&[], None);
        check(&[(1.0, true), (0.0, false)], Some(0.0));
        check(&[(1.0, false)], Some(1.0));
        // One bin each: |1 - 0.7| and |0 - 0.6|, halved.
        check(&[(0.7, true), (0.6, false)], Some(0.45));
        // Same bin (0.6, 0.667]: |1 - 1.26| / 2.
        check(&[(0.62, true), (0.64, false)], Some(0.13));
    }

    #[test]
    fn a_bin_holds_its_upper_end() {
        let mut seen = Calibration::default();
        [0.0, 1.0 / 15.0, 1.0, 2.0, -1.0].into_iter().for_each(|c| seen.add(c, true));
        assert_eq!(seen.bins()[0].examples, 3);
        assert_eq!(seen.bins()[14].examples, 2);
    }

    #[test]
    fn nan_is_not_hidden() {
        let mut seen = Calibration::default();
        seen.add(f64::NAN, true);
        assert!(seen.ece().unwrap().is_nan());
    }
}
