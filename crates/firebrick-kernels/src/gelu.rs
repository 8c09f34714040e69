//! Exact GELU (Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>): `x * cdf(x)` of the normal
//! distribution, and its derivative.
//!
//! The error function is the rational approximation of `torch.erf`'s vector path (Eigen's
//! `generic_fast_erf_float`): absolute error below 2e-7, no branch, so the loop vectorises.

use rayon::prelude::*;

use crate::BLOCK;

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
fn erf(x: f32) -> f32 {
    // Beyond 4 the function is 1 in f32.
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = -2.726_142_e-10_f32;
    for c in [
        2.770_681_7e-8,
        -2.101_024e-6,
        -5.692_506e-5,
        -7.349_906e-4,
        -2.954_600_1e-3,
        -1.609_603_8e-2,
    ] {
        p = p * x2 + c;
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474_5e-2] {
        q = q * x2 + c;
    }
    x * p / q
}

/// `exp(x)` for `x` in `[-87, 0]`, relative error below 2e-7 (Cephes).
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.max(-87.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
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
