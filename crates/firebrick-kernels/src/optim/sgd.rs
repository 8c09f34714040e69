//! Gradient descent, plain and with momentum (Sutskever et al. 2013,
//! <https://proceedings.mlr.press/v28/sutskever13.html>).
//!
//! Agrees with `torch.optim.SGD`.

use rayon::prelude::*;

use crate::BLOCK;

/// The numbers of one step, the same for every parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub learning_rate: f32,
    /// What is kept of the velocity.
    pub momentum: f32,
    /// Share of the gradient that does not become velocity.
    pub dampening: f32,
    /// Steps along the velocity that the next step will have.
    pub nesterov: bool,
    /// Steps taken before this one, plus one; the first is not dampened.
    pub time: u32,
    pub scale: f32,
}

/// Against the gradient: `weights -= learning_rate * scale * grads`.
pub fn plain(weights: &mut [f32], grads: &[f32], learning_rate: f32, scale: f32) {
    assert_eq!(weights.len(), grads.len());
    weights.par_chunks_mut(BLOCK).zip(grads.par_chunks(BLOCK)).for_each(|(w, g)| {
        w.iter_mut().zip(g).for_each(|(w, g)| *w -= learning_rate * (g * scale))
    });
}

/// Along a velocity, which starts as zeros.
pub fn step(weights: &mut [f32], grads: &[f32], velocity: &mut [f32], s: &Step) {
    assert!(grads.len() == weights.len() && velocity.len() == weights.len());
    weights
        .par_chunks_mut(BLOCK)
        .zip(grads.par_chunks(BLOCK))
        .zip(velocity.par_chunks_mut(BLOCK))
        .for_each(|((w, g), v)| dispatch(s, w, g, v));
}

#[inline(always)]
fn block(s: &Step, w: &mut [f32], g: &[f32], v: &mut [f32]) {
    let gain = if s.time == 1 { 1.0 } else { 1.0 - s.dampening };
    let (ahead, now) = if s.nesterov { (s.momentum, 1.0) } else { (1.0, 0.0) };
    for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
        let g = g * s.scale;
        *v = s.momentum * *v + gain * g;
        *w -= s.learning_rate * (now * g + ahead * *v);
    }
}

crate::for_this_cpu!(dispatch = block(s: &Step, w: &mut [f32], g: &[f32], v: &mut [f32]));

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: velocities 1 and 1.5; Nesterov looks half of them further.
    #[test]
    fn velocity_adds_up() {
        let s = Step {
            learning_rate: 0.5,
            momentum: 0.5,
            dampening: 0.0,
            nesterov: false,
            time: 1,
            scale: 2.0,
        };
        for (nesterov, expected) in [(false, -1.25), (true, -1.625)] {
            let (mut w, mut v) = ([0.0], [0.0]);
            for time in 1..=2 {
                step(&mut w, &[0.5], &mut v, &Step { nesterov, time, ..s });
            }
            assert_eq!((w, v), ([expected], [1.5]));
        }
        let mut w = [1.0];
        plain(&mut w, &[0.5], 0.5, 2.0);
        assert_eq!(w, [0.5]);
    }
}
