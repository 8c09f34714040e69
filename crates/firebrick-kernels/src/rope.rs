//! Rotary positions (Su et al. 2021, <https://arxiv.org/abs/2104.09864>) in the halves layout of Llama: channel `i` of
//! a head turns together with channel `i + D / 2`.
//!
//! Axis letters: `B` batch, `T` tokens, `H` heads, `D` channels of a head.

use rayon::prelude::*;

use crate::BLOCK;

/// By how much every pair of channels turns.
#[derive(Debug, Clone, Copy)]
pub struct Angles<'a> {
    /// `[1 or B, T, D / 2]` each.
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    /// `D / 2`
    pub half: usize,
}

/// Turns all pairs of `x`: `[B, T, H * D]`; `width` is `H * D`.
pub fn forward(x: &[f32], width: usize, angles: Angles, y: &mut [f32]) {
    turn(x, width, angles, 1.0, y);
}

/// Gradient of [`forward`]: turns back.
pub fn backward(dy: &[f32], width: usize, angles: Angles, dx: &mut [f32]) {
    turn(dy, width, angles, -1.0, dx);
}

fn turn(x: &[f32], width: usize, angles: Angles, sign: f32, y: &mut [f32]) {
    let Angles { cos, sin, half } = angles;
    assert!(half > 0 && width > 0 && width.is_multiple_of(2 * half), "heads of {half} pairs");
    assert!(x.len() == y.len() && x.len().is_multiple_of(width) && cos.len() == sin.len());
    let (tokens, known) = (x.len() / width, cos.len() / half);
    assert!(known > 0 && tokens.is_multiple_of(known), "angles of {known} tokens for {tokens}");
    let rows = (BLOCK / width).max(1);
    let block = |(block, (y, x)): (usize, (&mut [f32], &[f32]))| {
        dispatch(x, width, angles, block * rows, sign, y);
    };
    y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).enumerate().for_each(block);
}

/// Tokens from `first` on.
#[inline(always)]
fn turn_tokens(x: &[f32], width: usize, angles: Angles, first: usize, sign: f32, y: &mut [f32]) {
    let half = angles.half;
    let known = angles.cos.len() / half;
    for (token, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
        let at = (first + token) % known * half;
        let (cos, sin) = (&angles.cos[at..][..half], &angles.sin[at..][..half]);
        for (y, x) in y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
            let (y1, y2) = y.split_at_mut(half);
            let (x1, x2) = x.split_at(half);
            for i in 0..half {
                let sin = sign * sin[i];
                y1[i] = x1[i] * cos[i] - x2[i] * sin;
                y2[i] = x2[i] * cos[i] + x1[i] * sin;
            }
        }
    }
}

crate::for_this_cpu!(dispatch = turn_tokens(
    x: &[f32], width: usize, angles: Angles, first: usize, sign: f32, y: &mut [f32]
));

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair as a complex number; turning back gives what was.
    #[track_caller]
    fn check(batch: usize, known: usize, tokens: usize, heads: usize, half: usize) {
        let width = heads * 2 * half;
        let x: Vec<f32> =
            (0..batch * tokens * width).map(|i| (i * 7919 % 211) as f32 / 105.0 - 1.0).collect();
        let angle = |i: usize| (i * 31 % 17) as f32;
        let (sin, cos): (Vec<f32>, Vec<f32>) =
            (0..known * half).map(|i| angle(i).sin_cos()).unzip();
        let angles = Angles { cos: &cos, sin: &sin, half };
        let (mut y, mut back) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        forward(&x, width, angles, &mut y);
        backward(&y, width, angles, &mut back);
        for i in (0..x.len()).filter(|i| i % (2 * half) < half) {
            let by = f64::from(angle(i / width % known * half + i % (2 * half)));
            let (re, im) = (f64::from(x[i]), f64::from(x[i + half]));
            let expected = (re * by.cos() - im * by.sin(), im * by.cos() + re * by.sin());
            assert!((f64::from(y[i]) - expected.0).abs() < 1e-6);
            assert!((f64::from(y[i + half]) - expected.1).abs() < 1e-6);
        }
        assert!(x.iter().zip(&back).all(|(x, back)| (x - back).abs() < 1e-6));
    }

    #[test]
    fn pairs_are_complex_numbers() {
        check(1, 1, 1, 1, 1);
        check(3, 5, 5, 2, 3);
        // Angles of every row; more than a block.
        check(2, 2 * 40, 40, 9, 32);
    }
}
