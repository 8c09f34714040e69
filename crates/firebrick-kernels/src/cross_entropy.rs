//! Cross entropy of logits and class numbers, with label smoothing (Szegedy et al. 2015,
//! <https://arxiv.org/abs/1512.00567>, section 7); value and gradient in one pass over memory.
//!
//! Agrees with `torch.nn.functional.cross_entropy` but for a batch in which every row is ignored: its loss is 0, not
//! 0 / 0.

use rayon::prelude::*;

use crate::{
    BLOCK,
    math::{max, sum},
    softmax::exponentials,
};

/// Axis letters: `N` rows, `V` classes.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy<'a> {
    /// `[N, V]`
    pub logits: &'a [f32],
    /// `[N]`, each in `0..V` or `ignore`.
    pub targets: &'a [i32],
    /// Rows with this target count for nothing.
    pub ignore: Option<i32>,
    /// Share of the target that all classes get alike, in `[0, 1]`.
    pub smoothing: f32,
}

impl CrossEntropy<'_> {
    fn classes(&self) -> usize {
        self.logits.len() / self.targets.len()
    }

    /// The class of row `r` if it counts.
    fn target(&self, r: usize) -> Option<usize> {
        let target = self.targets[r];
        (self.ignore != Some(target)).then_some(target as usize)
    }

    fn check(&self) {
        let n = self.targets.len();
        assert!(n > 0 && !self.logits.is_empty(), "the loss of nothing");
        assert!(self.logits.len().is_multiple_of(n));
        assert!((0.0..=1.0).contains(&self.smoothing), "a smoothing of {}", self.smoothing);
        let classes = self.classes();
        for (r, target) in self.targets.iter().enumerate() {
            let fits =
                self.ignore == Some(*target) || (0..classes as i64).contains(&(*target).into());
            assert!(fits, "row {r} has class {target} of {classes}");
        }
    }
}

/// Mean loss over the rows that count.
pub fn loss(a: &CrossEntropy) -> f32 {
    a.check();
    let rows = (BLOCK / a.classes()).max(1);
    let blocks: Vec<f64> = (0..a.targets.len().div_ceil(rows))
        .into_par_iter()
        .map_init(
            || vec![0.0; a.classes()],
            |powers, block| {
                let rows = block * rows..((block + 1) * rows).min(a.targets.len());
                rows.map(|r| row_loss(a, r, powers).0).sum()
            },
        )
        .collect();
    mean(a, &blocks)
}

/// As [`loss`], with its gradient with respect to the logits.
pub fn loss_and_gradient(a: &CrossEntropy, dlogits: &mut [f32]) -> f32 {
    a.check();
    assert_eq!(dlogits.len(), a.logits.len());
    let scale = 1.0 / counted(a).max(1) as f32;
    let classes = a.classes();
    let rows = (BLOCK / classes).max(1);
    let blocks: Vec<f64> = dlogits
        .par_chunks_mut(rows * classes)
        .enumerate()
        .map(|(block, dlogits)| {
            let grads = dlogits.chunks_exact_mut(classes).enumerate();
            grads.map(|(r, grad)| row_gradient(a, block * rows + r, scale, grad)).sum()
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

/// Loss of row `r`, with `exp(logits - largest)` and its sum if the row counts.
fn row_loss(a: &CrossEntropy, r: usize, powers: &mut [f32]) -> (f64, f64) {
    let Some(target) = a.target(r) else { return (0.0, 0.0) };
    let logits = &a.logits[r * a.classes()..][..a.classes()];
    let mut sums = Sums::default();
    dispatch_sums(logits, a.smoothing > 0.0, powers, &mut sums);
    let log = f64::from(sums.largest) + sums.powers.ln();
    let smoothing = f64::from(a.smoothing);
    let expected = (1.0 - smoothing) * f64::from(logits[target])
        + smoothing * sums.logits / logits.len() as f64;
    (log - expected, sums.powers)
}

/// Also writes the gradient, times `scale`.
fn row_gradient(a: &CrossEntropy, r: usize, scale: f32, grad: &mut [f32]) -> f64 {
    let Some(target) = a.target(r) else {
        grad.fill(0.0);
        return 0.0;
    };
    let (loss, total) = row_loss(a, r, grad);
    let shared = scale * a.smoothing / grad.len() as f32;
    dispatch_scale((f64::from(scale) / total) as f32, shared, grad);
    grad[target] -= scale * (1.0 - a.smoothing);
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
fn sums(logits: &[f32], of_logits: bool, powers: &mut [f32], out: &mut Sums) {
    out.largest = max(logits);
    out.powers = exponentials(logits, out.largest, powers);
    if of_logits {
        out.logits = logits.chunks(1024).map(|logits| f64::from(sum(logits))).sum();
    }
}

#[inline(always)]
fn scale_and_shift(scale: f32, shift: f32, x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = *x * scale - shift);
}

crate::for_this_cpu!(dispatch_sums = sums(
    logits: &[f32], of_logits: bool, powers: &mut [f32], out: &mut Sums
));
crate::for_this_cpu!(dispatch_scale = scale_and_shift(scale: f32, shift: f32, x: &mut [f32]));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mean loss in f64, by the smoothed distribution.
    fn twin(a: &CrossEntropy) -> f64 {
        let v = a.classes();
        let mut losses = vec![];
        for (row, target) in a.logits.chunks_exact(v).zip(a.targets) {
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
            let a = CrossEntropy { logits: &logits, targets: &targets, ignore, smoothing };
            let mut grad = vec![f32::NAN; n];
            let found = loss_and_gradient(&a, &mut grad);
            prop_assert_eq!(found, loss(&a));
            let expected = twin(&a);
            prop_assert!((f64::from(found) - expected).abs() < 1e-6 * expected.max(1.0));
            for i in (0..n).step_by(n / 20 + 1) {
                let at = |h: f32| {
                    let mut logits = logits.clone();
                    logits[i] += h;
                    twin(&CrossEntropy { logits: &logits, ..a })
                };
                let slope = (at(1.0 / 128.0) - at(-1.0 / 128.0)) * 64.0;
                prop_assert!((f64::from(grad[i]) - slope).abs() < 3e-5, "{} {}", grad[i], slope);
            }
        }
    }

    /// By hand: two classes alike cost `ln 2`; a row that is ignored changes nothing.
    #[test]
    fn two_classes_alike() {
        let a = CrossEntropy {
            logits: &[5.0, 5.0, 9.0, -9.0],
            targets: &[1, -100],
            ignore: Some(-100),
            smoothing: 0.0,
        };
        let mut grad = [f32::NAN; 4];
        assert!((loss_and_gradient(&a, &mut grad) - 2f32.ln()).abs() < 1e-6);
        assert_eq!(grad, [0.5, -0.5, 0.0, 0.0]);
        let none = CrossEntropy { targets: &[-100, -100], ..a };
        assert_eq!(loss_and_gradient(&none, &mut grad), 0.0);
        assert_eq!(grad, [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "row 1 has class 2 of 2")]
    fn a_class_too_far() {
        loss(&CrossEntropy { logits: &[0.0; 4], targets: &[0, 2], ignore: None, smoothing: 0.0 });
    }
}
