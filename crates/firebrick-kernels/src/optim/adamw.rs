//! AdamW (Loshchilov and Hutter 2017, <https://arxiv.org/abs/1711.05101>), one pass over memory.
//!
//! Agrees with `torch.optim.AdamW`.

use rayon::prelude::*;

use crate::BLOCK;

/// The numbers of one step, the same for every parameter but the decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    pub weight_decay: f32,
    /// Steps taken before this one, plus one.
    pub time: u32,
    /// Factor on the gradient, from clipping.
    pub scale: f32,
}

/// Updates `weights` and both moments in place; all four slices have the same length.
pub fn step(weights: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32], s: &Step) {
    assert!(grads.len() == weights.len() && first.len() == weights.len());
    assert_eq!(second.len(), weights.len());
    // In f64: in f32 the second moment's correction, 0.002 after two steps with the usual 0.999, has but five digits.
    let [rate, decay, beta1, beta2] =
        [s.learning_rate, s.weight_decay, s.beta1, s.beta2].map(f64::from);
    let correction1 = 1.0 - beta1.powi(s.time as i32);
    let correction2 = (1.0 - beta2.powi(s.time as i32)).sqrt();
    let factors = Factors {
        step: *s,
        keep: (1.0 - rate * decay) as f32,
        rate: (rate / correction1) as f32,
        lengthen: (1.0 / correction2) as f32,
    };
    weights
        .par_chunks_mut(BLOCK)
        .zip(grads.par_chunks(BLOCK))
        .zip(first.par_chunks_mut(BLOCK))
        .zip(second.par_chunks_mut(BLOCK))
        .for_each(|(((w, g), m), v)| dispatch(&factors, w, g, m, v));
}

/// A step's numbers, and what follows from them for every weight.
struct Factors {
    step: Step,
    /// What decay leaves of a weight.
    keep: f32,
    /// Learning rate for the first moment, which starts short.
    rate: f32,
    /// Factor on the second moment's root, which starts short. A factor: divisions are what a step waits for.
    lengthen: f32,
}

#[inline(always)]
fn block(f: &Factors, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let Factors { step: s, keep, rate, lengthen } = f;
    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
        let g = g * s.scale;
        *m = s.beta1 * *m + (1.0 - s.beta1) * g;
        *v = s.beta2 * *v + (1.0 - s.beta2) * g * g;
        *w = *w * keep - rate * *m / (v.sqrt() * lengthen + s.epsilon);
    }
}

crate::for_this_cpu!(dispatch = block(
    f: &Factors, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]
));

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: with zero moments the first step moves every weight by the learning rate.
    #[test]
    fn first_step_is_the_sign_times_the_rate() {
        let s = Step {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.5,
            time: 1,
            scale: 1.0,
        };
        let mut w = [1.0, -2.0];
        step(&mut w, &[3.0, -0.5], &mut [0.0; 2], &mut [0.0; 2], &s);
        // 1 * (1 - 0.1 * 0.5) - 0.1 and -2 * 0.95 + 0.1
        assert!((w[0] - 0.85).abs() < 1e-5 && (w[1] + 1.8).abs() < 1e-5, "{w:?}");
    }

    /// torch 2.15: w = [1, 2], g = [0.5, -1], AdamW(lr 0.01, betas (0.9, 0.98), eps 1e-6, decay 0.1), 3 steps
    /// with the same gradient: every step moves by the rate after the decay.
    #[test]
    fn constant_gradient_moves_by_the_rate_each_step() {
        let (mut w, mut m, mut v) = ([1.0, 2.0], [0.0; 2], [0.0; 2]);
        let mut expected = [1.0f64, 2.0];
        for time in 1..=3 {
            let s = Step {
                learning_rate: 0.01,
                beta1: 0.9,
                beta2: 0.98,
                epsilon: 0.0,
                weight_decay: 0.1,
                time,
                scale: 2.0,
            };
            step(&mut w, &[0.5, -1.0], &mut m, &mut v, &s);
            expected = [expected[0] * 0.999 - 0.01, expected[1] * 0.999 + 0.01];
        }
        for (found, expected) in w.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{w:?}");
        }
    }

    /// Vectors and what is left over do the same as one weight at a time in f64.
    #[test]
    fn every_weight_takes_its_step() {
        let s = Step {
            learning_rate: 0.01,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            weight_decay: 0.1,
            time: 7,
            scale: 0.5,
        };
        let n = BLOCK + 21;
        let numbers = |by: usize| (0..n).map(move |i| (i * by % 211) as f32 / 105.0 - 1.0);
        let (before, g) = (numbers(7919).collect::<Vec<_>>(), numbers(977).collect::<Vec<_>>());
        let (m, v) =
            (numbers(31).collect::<Vec<_>>(), numbers(17).map(f32::abs).collect::<Vec<_>>());
        let (mut w, mut m_now, mut v_now) = (before.clone(), m.clone(), v.clone());
        step(&mut w, &g, &mut m_now, &mut v_now, &s);
        let [beta1, beta2] = [s.beta1, s.beta2].map(f64::from);
        for i in 0..n {
            let [w_before, g, m, v] = [before[i], g[i] * s.scale, m[i], v[i]].map(f64::from);
            let m = beta1 * m + (1.0 - beta1) * g;
            let v = beta2 * v + (1.0 - beta2) * g * g;
            let root = (v / (1.0 - beta2.powi(7))).sqrt();
            let expected =
                w_before * (1.0 - 0.01 * 0.1) - 0.01 * m / (1.0 - beta1.powi(7)) / (root + 1e-6);
            for (found, expected) in [(w[i], expected), (m_now[i], m), (v_now[i], v)] {
                assert!((f64::from(found) - expected).abs() < 1e-6, "{i}: {found}, not {expected}");
            }
        }
    }
}
