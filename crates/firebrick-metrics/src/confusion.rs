//! Confusion matrix and what is computed from it.

use std::ops::AddAssign;

/// Index of the largest score, which is the predicted class; the first of equals, and 0 of none.
pub fn argmax(scores: &[f32]) -> usize {
    let best = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (1..scores.len()).fold(0, best)
}

/// How often each true class was predicted as each class.
///
/// scikit-learn is the reference: `confusion_matrix`, `accuracy_score`, `precision_score`, `recall_score`, `f1_score`.
/// Where scikit-learn divides by zero and warns, the methods here return `None`.
///
/// ```
/// use firebrick_metrics::confusion::Confusion;
///
/// let mut counts = Confusion::new(2);
/// for (truth, predicted) in [(0, 0), (0, 1), (1, 1), (1, 1)] {
///     counts.add(truth, predicted);
/// }
/// assert_eq!(counts.accuracy(), Some(0.75));
/// assert_eq!(counts.precision(1), Some(2.0 / 3.0)); // two of three predicted 1s are 1
/// assert_eq!(counts.recall(0), Some(0.5)); // one of two 0s was found
/// assert_eq!(counts.macro_f1(), Some((2.0 / 3.0 + 0.8) / 2.0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// Row = truth, column = prediction, row by row.
    counts: Vec<u64>,
}

impl Confusion {
    /// All counts zero, for classes `0..classes`.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts one example.
    ///
    /// # Panics
    ///
    /// If a class is not below [`Self::classes`]: a class index comes from our own label list, not from a file.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        assert!(
            truth < self.classes && predicted < self.classes,
            "class {truth} predicted as {predicted}, but there are {} classes",
            self.classes
        );
        self.counts[truth * self.classes + predicted] += 1;
    }

    /// Examples of class `truth` that were predicted as `predicted`; 0 for a class that does not exist.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        if truth >= self.classes || predicted >= self.classes {
            return 0;
        }
        self.counts[truth * self.classes + predicted]
    }

    /// The matrix row by row: item `t` holds the counts of true class `t` by predicted class.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks(self.classes.max(1))
    }

    /// Examples seen.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Examples whose prediction was right.
    pub fn correct(&self) -> u64 {
        (0..self.classes).map(|class| self.count(class, class)).sum()
    }

    /// Right predictions / examples; `None` when nothing has been seen.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.correct(), self.total())
    }

    /// Of the examples predicted as `class`, the fraction that is; `None` when it was never predicted.
    pub fn precision(&self, class: usize) -> Option<f64> {
        ratio(self.count(class, class), self.predicted(class))
    }

    /// Of the examples of `class`, the fraction found; `None` when there was none.
    pub fn recall(&self, class: usize) -> Option<f64> {
        ratio(self.count(class, class), self.support(class))
    }

    /// `2 tp / (2 tp + fp + fn)`; `None` when the class is neither in the truth nor in the predictions.
    pub fn f1(&self, class: usize) -> Option<f64> {
        ratio(2 * self.count(class, class), self.predicted(class) + self.support(class))
    }

    /// Unweighted mean of [`Self::f1`] over the classes that were seen or predicted, as scikit-learn's
    /// `average="macro"` without `labels`; `None` when nothing has been seen.
    pub fn macro_f1(&self) -> Option<f64> {
        let scores: Vec<f64> = (0..self.classes).filter_map(|class| self.f1(class)).collect();
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// Examples whose true class is `class`.
    pub fn support(&self, class: usize) -> u64 {
        (0..self.classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// Examples that were predicted as `class`.
    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.classes).map(|truth| self.count(truth, class)).sum()
    }
}

impl AddAssign<&Confusion> for Confusion {
    /// # Panics
    ///
    /// If the two have different numbers of classes.
    fn add_assign(&mut self, other: &Confusion) {
        assert_eq!(self.classes, other.classes, "confusion matrices of different label lists");
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }
}

impl AddAssign for Confusion {
    fn add_assign(&mut self, other: Confusion) {
        *self += &other;
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected`: accuracy, macro F1, then (precision, recall, F1) of each class.
    #[track_caller]
    fn check(
        classes: usize,
        pairs: &[(usize, usize)],
        accuracy: Option<f64>,
        macro_f1: Option<f64>,
        expected: &[(Option<f64>, Option<f64>, Option<f64>)],
    ) {
        let mut counts = Confusion::new(classes);
        pairs.iter().for_each(|&(truth, predicted)| counts.add(truth, predicted));
        let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-12,
            (a, b) => a == b,
        };
        assert!(close(counts.accuracy(), accuracy), "accuracy {:?}", counts.accuracy());
        assert!(close(counts.macro_f1(), macro_f1), "macro F1 {:?}", counts.macro_f1());
        for (class, &(precision, recall, f1)) in expected.iter().enumerate() {
            assert!(close(counts.precision(class), precision), "{:?}", counts.precision(class));
            assert!(close(counts.recall(class), recall), "{:?}", counts.recall(class));
            assert!(close(counts.f1(class), f1), "{:?}", counts.f1(class));
        }
    }

    #[test]
    fn nothing_seen() {
        check(0, &[], None, None, &[]);
        check(2, &[], None, None, &[(None, None, None); 2]);
    }

    /// Numbers of scikit-learn's documentation of `classification_report`:
    /// `y_true = [0, 1, 2, 2, 2]`, `y_pred = [0, 0, 2, 2, 1]`.
    #[test]
    fn agrees_with_scikit_learn() {
        check(
            3,
            &[(0, 0), (1, 0), (2, 2), (2, 2), (2, 1)],
            Some(0.6),
            Some((2.0 / 3.0 + 0.0 + 0.8) / 3.0),
            &[
                (Some(0.5), Some(1.0), Some(2.0 / 3.0)),
                (Some(0.0), Some(0.0), Some(0.0)),
                (Some(1.0), Some(2.0 / 3.0), Some(0.8)),
            ],
        );
    }

    /// Class 2 is in the label list but nowhere in the data: it does not drag the mean down.
    #[test]
    fn an_unseen_class_is_left_out() {
        let one = (Some(1.0), Some(1.0), Some(1.0));
        check(3, &[(0, 0), (1, 1)], Some(1.0), Some(1.0), &[one, one, (None, None, None)]);
    }

    #[test]
    fn parts_add_up() {
        let (mut a, mut b, mut whole) = (Confusion::new(2), Confusion::new(2), Confusion::new(2));
        a.add(0, 1);
        b.add(1, 1);
        whole.add(0, 1);
        whole.add(1, 1);
        a += b;
        assert_eq!(a, whole);
        assert_eq!(a.rows().collect::<Vec<_>>(), [[0, 1], [0, 1]]);
    }
}
