//! Exact GELU (Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>): `x * cdf(x)` of the normal
//! distribution, and its derivative.

use rayon::prelude::*;

use crate::{
    BLOCK,
    math::{erf, exp},
};

/// `y[i] = gelu(x[i])`
pub fn forward(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| dispatch_forward(x, y));
}

/// `dx[i] = dy[i] * gelu'(x[i])`
pub fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len());
    dx.par_chunks_mut(BLOCK)
        .zip(x.par_chunks(BLOCK))
        .zip(dy.par_chunks(BLOCK))
        .for_each(|((dx, x), dy)| dispatch_backward(x, dy, dx));
}

#[inline(always)]
fn forward_block(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

#[inline(always)]
fn backward_block(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    /// `1 / sqrt(2 pi)`
    const DENSITY: f32 = 0.398_942_3;
    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
        let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        *dx = dy * (cdf + x * DENSITY * exp(-0.5 * x * x));
    }
}

crate::for_this_cpu!(dispatch_forward = forward_block(x: &[f32], y: &mut [f32]));
crate::for_this_cpu!(dispatch_backward = backward_block(x: &[f32], dy: &[f32], dx: &mut [f32]));

#[cfg(test)]
mod tests {
    use super::*;

    /// Abramowitz and Stegun 26.2.17 in f64, an independent formula; error below 7.5e-8.
    fn cdf(x: f64) -> f64 {
        let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
        let p = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
        let sum: f64 = p.iter().enumerate().map(|(i, p)| p * t.powi(i as i32 + 1)).sum();
        let upper = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum;
        if x >= 0.0 { 1.0 - upper } else { upper }
    }

    #[test]
    fn values_and_slopes() {
        let x: Vec<f32> = (-4000..=4000).map(|i| i as f32 / 400.0).collect();
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        forward(&x, &mut y);
        backward(&x, &vec![2.0; x.len()], &mut dx);
        for ((x, y), dx) in x.iter().map(|x| f64::from(*x)).zip(&y).zip(&dx) {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(*y) - x * cdf(x)).abs() < 1.5e-6, "gelu({x}) = {y}");
            let slope = 2.0 * (cdf(x) + x * density);
            assert!((f64::from(*dx) - slope).abs() < 3e-6, "2 gelu'({x}) = {dx}");
        }
    }
}
