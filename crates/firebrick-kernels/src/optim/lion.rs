//! Lion (Chen et al. 2023, <https://arxiv.org/abs/2302.06675>): the sign of a moment, so that every weight moves by the rate.
//!
//! Agrees with algorithm 2 of the paper and with `lion-pytorch`.

use rayon::prelude::*;

use crate::BLOCK;

/// The numbers of one step, the same for every parameter but the decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub learning_rate: f32,
    /// Share of the moment in the direction.
    pub beta1: f32,
    /// Share of the moment in the next moment.
    pub beta2: f32,
    pub weight_decay: f32,
    pub scale: f32,
}

/// Updates `weights` and the moment, which starts as zeros.
pub fn step(weights: &mut [f32], grads: &[f32], moment: &mut [f32], s: &Step) {
    assert!(grads.len() == weights.len() && moment.len() == weights.len());
    weights
        .par_chunks_mut(BLOCK)
        .zip(grads.par_chunks(BLOCK))
        .zip(moment.par_chunks_mut(BLOCK))
        .for_each(|((w, g), m)| dispatch(s, w, g, m));
}

#[inline(always)]
fn block(s: &Step, w: &mut [f32], g: &[f32], m: &mut [f32]) {
    let keep = 1.0 - s.learning_rate * s.weight_decay;
    for ((w, g), m) in w.iter_mut().zip(g).zip(m) {
        let g = g * s.scale;
        let direction = s.beta1 * *m + (1.0 - s.beta1) * g;
        let sign = f32::from(direction > 0.0) - f32::from(direction < 0.0);
        *w = *w * keep - s.learning_rate * sign;
        *m = s.beta2 * *m + (1.0 - s.beta2) * g;
    }
}

crate::for_this_cpu!(dispatch = block(s: &Step, w: &mut [f32], g: &[f32], m: &mut [f32]));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_moves_by_the_rate() {
        let s = Step { learning_rate: 0.5, beta1: 0.5, beta2: 0.75, weight_decay: 0.5, scale: 1.0 };
        let (mut w, mut m) = ([4.0, 4.0, 4.0], [0.0, -8.0, 0.0]);
        step(&mut w, &[4.0, 4.0, 0.0], &mut m, &s);
        assert_eq!((w, m), ([2.5, 3.5, 3.0], [1.0, -5.0, 0.0]));
    }
}
