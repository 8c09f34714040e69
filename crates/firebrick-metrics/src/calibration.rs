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

/// The temperature that makes rows with known classes likeliest: temperature scaling of Guo et al. 2017, section 4.2.
///
/// Each row has the probabilities of its classes and the place of the right one. Above 1 the model was too sure of
/// itself. Between 0.05 and 20; 1 without rows, and 1 at least if the model is right in all of them, which say nothing of how much
/// surer it may be.
///
/// ```
/// use firebrick_metrics::calibration::temperature;
///
/// // Says 0.9 and is right in 3 of 4 cases: ln 9 / T = ln 3.
/// let rows = [([0.9, 0.1], 0), ([0.9, 0.1], 0), ([0.9, 0.1], 0), ([0.9, 0.1], 1)];
/// let found = temperature(rows.iter().map(|(p, class)| (p.as_slice(), *class)));
/// assert!((found - 2.0).abs() < 1e-4);
/// ```
pub fn temperature<'a>(rows: impl Iterator<Item = (&'a [f32], usize)> + Clone) -> f64 {
    if rows.clone().next().is_none() {
        return 1.0;
    }
    // Convex in the sharpness 1 / T: shrink around the lowest of two points by the golden section.
    let nats = |sharpness: f64| {
        let of_row = |(p, class): (&[f32], usize)| {
            let log = |p: f32| f64::from(p).max(1e-30).ln() * sharpness;
            let largest = p.iter().map(|p| log(*p)).fold(f64::MIN, f64::max);
            let sum: f64 = p.iter().map(|p| (log(*p) - largest).exp()).sum();
            largest + sum.ln() - log(p[class])
        };
        rows.clone().map(of_row).sum::<f64>()
    };
    let right = |(p, class): (&[f32], usize)| p.iter().all(|other| *other <= p[class]);
    let sharpest = if rows.clone().all(right) { 1.0 } else { 20.0 };
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.05, sharpest);
    for _ in 0..60 {
        let step = golden * (high - low);
        match nats(high - step) < nats(low + step) {
            true => high = low + step,
            false => low = high - step,
        }
    }
    2.0 / (low + high)
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

    /// Rows drawn from tempered probabilities give the temperature back.
    #[test]
    fn the_temperature_is_found() {
        for wanted in [0.5, 1.0, 3.0] {
            let mut rows = vec![];
            for i in 0..2000_u32 {
                let said = 0.02 + 0.96 * (i % 100) as f32 / 100.0;
                let odds = (said / (1.0 - said)).powf(1.0 / wanted);
                let coin = (i / 100) as f32 / 20.0 + 0.025;
                rows.push(([said, 1.0 - said], usize::from(coin > odds / (1.0 + odds))));
            }
            let found = temperature(rows.iter().map(|(p, class)| (p.as_slice(), *class)));
            assert!((found / f64::from(wanted) - 1.0).abs() < 0.1, "{found} for {wanted}");
        }
        assert_eq!(temperature([].into_iter()), 1.0);
    }

    /// Thirty rows that are all right would have any sharpness.
    #[test]
    fn a_model_that_is_always_right_is_not_made_surer() {
        let rows = [([0.98_f32, 0.02], 0); 30];
        let found = temperature(rows.iter().map(|(p, class)| (p.as_slice(), *class)));
        assert!((1.0..1.01).contains(&found), "{found}");
    }
}
