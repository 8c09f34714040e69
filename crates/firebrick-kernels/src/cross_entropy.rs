//! Cross entropy of logits and class numbers, with label smoothing (Szegedy et al. 2015,
//! <https://arxiv.org/abs/1512.00567>, section 7); value and gradient in one pass over memory.
//!
//! Agrees with `torch.nn.functional.cross_entropy` but for a batch in which every row is ignored: its loss is 0, not
//! 0 / 0.

use rayon::prelude::*;

use crate::{
    BLOCK,
    math::{exp, max, sum},
};

/// Axis letters: `N` rows, `V` classes.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy<'a> {
    /// `[N]`, each in `0..V` or `ignore`.
    pub targets: &'a [i32],
    /// Rows with this target count for nothing.
    pub ignore: Option<i32>,
    /// Share of the target that all classes get alike, in `[0, 1]`.
    pub smoothing: f32,
}

impl CrossEntropy<'_> {
    /// The class of row `r` if it counts.
    fn target(&self, r: usize) -> Option<usize> {
        let target = self.targets[r];
        (self.ignore != Some(target)).then_some(target as usize)
    }

    /// `V`
    fn classes(&self, logits: &[f32]) -> usize {
        let n = self.targets.len();
        assert!(n > 0 && !logits.is_empty(), "the loss of nothing");
        assert!(logits.len().is_multiple_of(n));
        assert!((0.0..=1.0).contains(&self.smoothing), "a smoothing of {}", self.smoothing);
        let classes = logits.len() / n;
        for (r, target) in self.targets.iter().enumerate() {
            let fits =
                self.ignore == Some(*target) || (0..classes as i64).contains(&(*target).into());
            assert!(fits, "row {r} has class {target} of {classes}");
        }
        classes
    }
}

/// Mean loss over the rows that count; `logits`: `[N, V]`.
pub fn loss(a: &CrossEntropy, logits: &[f32]) -> f32 {
    let classes = a.classes(logits);
    let rows = (BLOCK / classes).max(1);
    let blocks: Vec<f64> = logits
        .par_chunks(rows * classes)
        .enumerate()
        .map_init(
            || vec![0.0; classes],
            |powers, (block, logits)| {
                let logits = logits.chunks_exact(classes).enumerate();
                let losses = logits.map(|(r, logits)| {
                    powers.copy_from_slice(logits);
                    row_loss(a, block * rows + r, powers).0
                });
                losses.sum()
            },
        )
        .collect();
    mean(a, &blocks)
}

/// As [`loss`]; the logits become its gradient, so that a large vocabulary needs no second buffer.
pub fn loss_and_gradient(a: &CrossEntropy, logits: &mut [f32]) -> f32 {
    let classes = a.classes(logits);
    let scale = 1.0 / counted(a).max(1) as f32;
    let rows = (BLOCK / classes).max(1);
    let blocks: Vec<f64> = logits
        .par_chunks_mut(rows * classes)
        .enumerate()
        .map(|(block, logits)| {
            let logits = logits.chunks_exact_mut(classes).enumerate();
            logits.map(|(r, logits)| row_gradient(a, block * rows + r, scale, logits)).sum()
        })
        .collect();
    mean(a, &blocks)
}

fn counted(a: &CrossEntropy) -> usize {
    (0..a.targets.len()).filter(|r| a.target(*r).is_some()).count()
}

fn mean(a: &CrossEntropy, blocks: &[f64]) -> f32 {
    (blocks.iter().sum::<f64>() / counted(a).max(1) as f64) as f32
}

/// Loss of row `r`, whose logits become `exp(logits - largest)` with the sum returned, if the row counts.
fn row_loss(a: &CrossEntropy, r: usize, row: &mut [f32]) -> (f64, f64) {
    let Some(target) = a.target(r) else { return (0.0, 0.0) };
    let (of_target, count) = (f64::from(row[target]), row.len() as f64);
    let mut sums = Sums::default();
    dispatch_sums(row, a.smoothing > 0.0, &mut sums);
    let log = f64::from(sums.largest) + sums.powers.ln();
    let smoothing = f64::from(a.smoothing);
    let expected = (1.0 - smoothing) * of_target + smoothing * sums.logits / count;
    (log - expected, sums.powers)
}

/// The logits of row `r` become the gradient, times `scale`.
fn row_gradient(a: &CrossEntropy, r: usize, scale: f32, row: &mut [f32]) -> f64 {
    let Some(target) = a.target(r) else {
        row.fill(0.0);
        return 0.0;
    };
    let (loss, total) = row_loss(a, r, row);
    let shared = scale * a.smoothing / row.len() as f32;
    dispatch_scale((f64::from(scale) / total) as f32, shared, row);
    row[target] -= scale * (1.0 - a.smoothing);
    loss
}

/// Of one row.
#[derive(Debug, Default)]
struct Sums {
    largest: f32,
    powers: f64,
    /// 0 unless asked for.
    logits: f64,
}

#[inline(always)]
fn sums(row: &mut [f32], of_logits: bool, out: &mut Sums) {
    out.largest = max(row);
    if of_logits {
        out.logits = row.chunks(1024).map(|logits| f64::from(sum(logits))).sum();
    }
    // Exact to f32 for rows of any length.
    for row in row.chunks_mut(1024) {
        for x in row.iter_mut() {
            *x = exp(*x - out.largest);
        }
        out.powers += f64::from(sum(row));
    }
}

#[inline(always)]
fn scale_and_shift(scale: f32, shift: f32, x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = *x * scale - shift);
}

crate::for_this_cpu!(dispatch_sums = sums(row: &mut [f32], of_logits: bool, out: &mut Sums));
crate::for_this_cpu!(dispatch_scale = scale_and_shift(scale: f32, shift: f32, x: &mut [f32]));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mean loss in f64, by the smoothed distribution.
    fn twin(a: &CrossEntropy, logits: &[f32]) -> f64 {
        let v = a.classes(logits);
        let mut losses = vec![];
        for (row, target) in logits.chunks_exact(v).zip(a.targets) {
            if a.ignore == Some(*target) {
                continue;
            }
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            let loss = row.iter().enumerate().map(|(c, x)| {
                let smoothing = f64::from(a.smoothing);
                let one = if c as i32 == *target { 1.0 - smoothing } else { 0.0 };
                -(one + smoothing / v as f64) * (f64::from(*x) - total.ln())
            });
            losses.push(loss.sum::<f64>());
        }
        losses.iter().sum::<f64>() / losses.len().max(1) as f64
    }

    proptest! {
        /// Values against the twin, the gradient against its finite differences.
        #[test]
        fn agrees_with_the_twin(
            rows in 1usize..20,
            classes in prop_oneof![1usize..40, Just(2500usize)],
            smoothing in prop_oneof![Just(0.0f32), 0.0f32..1.0],
            ignore in proptest::option::of(-1i32..3),
            seed in 0usize..100,
        ) {
            let n = rows * classes;
            let logits: Vec<f32> =
                (0..n).map(|i| ((i + seed) * 7919 % 211) as f32 / 30.0 - 3.0).collect();
            let mut targets: Vec<i32> =
                (0..rows).map(|r| ((r + seed) * 37 % classes) as i32).collect();
            if let Some(ignore) = ignore {
                targets[0] = ignore.min(classes as i32 - 1);
            }
            let ignore = ignore.map(|ignore| ignore.min(classes as i32 - 1));
            let a = CrossEntropy { targets: &targets, ignore, smoothing };
            let mut grad = logits.clone();
            let found = loss_and_gradient(&a, &mut grad);
            prop_assert_eq!(found, loss(&a, &logits));
            let expected = twin(&a, &logits);
            prop_assert!((f64::from(found) - expected).abs() < 1e-6 * expected.max(1.0));
            for i in (0..n).step_by(n / 20 + 1) {
                let at = |h: f32| {
                    let mut logits = logits.clone();
                    logits[i] += h;
                    twin(&a, &logits)
                };
                let slope = (at(1.0 / 128.0) - at(-1.0 / 128.0)) * 64.0;
                prop_assert!((f64::from(grad[i]) - slope).abs() < 3e-5, "{} {}", grad[i], slope);
            }
        }
    }

    /// By hand: two classes alike cost `ln 2`; a row that is ignored changes nothing.
    #[test]
    fn two_classes_alike() {
        let a = CrossEntropy { targets: &[1, -100], ignore: Some(-100), smoothing: 0.0 };
        let mut grad = [5.0, 5.0, 9.0, -9.0];
        assert!((loss_and_gradient(&a, &mut grad) - 2f32.ln()).abs() < 1e-6);
        assert_eq!(grad, [0.5, -0.5, 0.0, 0.0]);
        let none = CrossEntropy { targets: &[-100, -100], ..a };
        assert_eq!(loss_and_gradient(&none, &mut grad), 0.0);
        assert_eq!(grad, [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "row 1 has class 2 of 2")]
    fn a_class_too_far() {
        loss(&CrossEntropy { targets: &[0, 2], ignore: None, smoothing: 0.0 }, &[0.0; 4]);
    }
}
