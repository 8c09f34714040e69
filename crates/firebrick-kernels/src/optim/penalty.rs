//! Gradients of the L1 and the L2 penalty, added to those of the loss.

use rayon::prelude::*;

use crate::BLOCK;

/// What is added to the loss: `l1 * sum |w| + l2 / 2 * sum w^2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalty {
    pub l1: f32,
    /// As `weight_decay` of `torch.optim.Adam` and `SGD`.
    pub l2: f32,
}

/// `scale * grads` and the penalty's gradient; that of `|w|` at zero is zero.
pub fn penalized(grads: &[f32], weights: &[f32], scale: f32, s: Penalty) -> Vec<f32> {
    assert_eq!(grads.len(), weights.len());
    let sign = |w: f32| if w == 0.0 { 0.0 } else { w.signum() };
    let mut out = vec![0.0; grads.len()];
    out.par_chunks_mut(BLOCK).zip(grads.par_chunks(BLOCK)).zip(weights.par_chunks(BLOCK)).for_each(
        |((out, g), w)| {
            for ((out, g), w) in out.iter_mut().zip(g).zip(w) {
                *out = g * scale + s.l2 * w + s.l1 * sign(*w);
            }
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_pull_to_zero() {
        let s = Penalty { l1: 0.25, l2: 0.5 };
        let found = penalized(&[1.0, 1.0, 1.0], &[2.0, -2.0, 0.0], 0.5, s);
        assert_eq!(found, [0.5 + 1.0 + 0.25, 0.5 - 1.0 - 0.25, 0.5]);
    }
}
