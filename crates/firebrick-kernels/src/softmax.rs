//! Softmax and its logarithm over the last axis, of rows of `width` numbers.
//!
//! A row is read from memory once and then from cache. A number that is not one makes all of its row so.

use rayon::prelude::*;

use crate::{
    BLOCK,
    math::{dot, exp, max, sum},
};

/// `y = exp(x) / sum(exp(x))`
pub fn forward(x: &[f32], width: usize, y: &mut [f32]) {
    by_rows(width, [x], y, |[x], y| dispatch_softmax(x, width, y));
}

/// Gradient of [`forward`] from its result.
pub fn backward(y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
    by_rows(width, [y, dy], dx, |[y, dy], dx| dispatch_softmax_gradient(y, dy, width, dx));
}

/// `x -= log(sum(exp(x)))`
pub fn log_in_place(x: &mut [f32], width: usize) {
    by_rows(width, [], x, |[], x| dispatch_log_softmax(width, x));
}

/// Gradient of [`log_in_place`] from its result.
pub fn log_backward(y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
    by_rows(width, [y, dy], dx, |[y, dy], dx| dispatch_log_softmax_gradient(y, dy, width, dx));
}

/// Blocks of whole rows, each a task.
fn by_rows<const N: usize>(
    width: usize,
    x: [&[f32]; N],
    y: &mut [f32],
    one: impl Fn([&[f32]; N], &mut [f32]) + Sync,
) {
    assert!(width > 0 && y.len().is_multiple_of(width), "rows of {width} in {}", y.len());
    assert!(x.iter().all(|x| x.len() == y.len()));
    let size = (BLOCK / width).max(1) * width;
    y.par_chunks_mut(size).enumerate().for_each(|(block, y)| {
        one(x.map(|x| &x[block * size..][..y.len()]), y);
    });
}

/// Writes `exp(x - largest)` and returns its sum, exact to f32 for rows of any length.
#[inline(always)]
pub(crate) fn exponentials(x: &[f32], largest: f32, y: &mut [f32]) -> f64 {
    let mut total = 0.0;
    for (y, x) in y.chunks_mut(1024).zip(x.chunks(1024)) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = exp(x - largest);
        }
        total += f64::from(sum(y));
    }
    total
}

#[inline(always)]
fn softmax(x: &[f32], width: usize, y: &mut [f32]) {
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let inverse = (1.0 / exponentials(x, max(x), y)) as f32;
        y.iter_mut().for_each(|y| *y *= inverse);
    }
}

#[inline(always)]
fn softmax_gradient(y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
    let rows = dx.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(dy.chunks_exact(width));
    for ((dx, y), dy) in rows {
        let along = dot(y, dy);
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = y * (dy - along);
        }
    }
}

#[inline(always)]
fn log_softmax(width: usize, x: &mut [f32]) {
    const PIECE: usize = 1024;
    for x in x.chunks_exact_mut(width) {
        let largest = max(x);
        let mut total = 0.0;
        for x in x.chunks(PIECE) {
            total += exponentials(x, largest, &mut [0.0; PIECE][..x.len()]);
        }
        let log = total.ln() as f32;
        x.iter_mut().for_each(|x| *x = (*x - largest) - log);
    }
}

#[inline(always)]
fn log_softmax_gradient(y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
    let rows = dx.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(dy.chunks_exact(width));
    for ((dx, y), dy) in rows {
        let total = sum(dy);
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = dy - exp(*y) * total;
        }
    }
}

crate::for_this_cpu!(dispatch_softmax = softmax(x: &[f32], width: usize, y: &mut [f32]));
crate::for_this_cpu!(dispatch_softmax_gradient = softmax_gradient(
    y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]
));
crate::for_this_cpu!(dispatch_log_softmax = log_softmax(width: usize, x: &mut [f32]));
crate::for_this_cpu!(dispatch_log_softmax_gradient = log_softmax_gradient(
    y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]
));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Softmax of one row in f64.
    fn twin(x: &[f32]) -> Vec<f64> {
        let largest = x.iter().copied().fold(f32::MIN, f32::max);
        let powers: Vec<f64> = x.iter().map(|x| f64::from(x - largest).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.iter().map(|power| power / total).collect()
    }

    #[track_caller]
    fn close(found: f32, expected: f64, allowed: f64) {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= allowed, "{found}, not {expected}");
    }

    proptest! {
        #[test]
        fn all_agree_with_the_twin(
            width in prop_oneof![1usize..70, Just(3000usize)],
            rows in 1usize..30,
            spread in 0.1f32..60.0,
        ) {
            let n = rows * width;
            let mixed = |by: usize| (0..n).map(move |i| (i * by % 211) as f32 / 105.0 - 1.0);
            let x: Vec<f32> = mixed(7919).map(|x| x * spread).collect();
            let dy: Vec<f32> = mixed(977).collect();
            let [mut y, mut dx, mut dlog] = [0; 3].map(|_| vec![f32::NAN; n]);
            let mut log = x.clone();
            forward(&x, width, &mut y);
            backward(&y, &dy, width, &mut dx);
            log_in_place(&mut log, width);
            log_backward(&log, &dy, width, &mut dlog);
            for r in 0..rows {
                let row = r * width..(r + 1) * width;
                let expected = twin(&x[row.clone()]);
                let dy: Vec<f64> = dy[row.clone()].iter().map(|dy| f64::from(*dy)).collect();
                let along: f64 = expected.iter().zip(&dy).map(|(y, dy)| y * dy).sum();
                let total: f64 = dy.iter().sum();
                for (c, i) in row.enumerate() {
                    // exp's error (2.6e-7) above and below the line, the sum's and the quotient's rounding.
                    close(y[i], expected[c], 7e-7 * expected[c] + 1e-37);
                    close(dx[i], expected[c] * (dy[c] - along), 2e-6 * expected[c] + 1e-37);
                    // The sum's relative error, and two roundings.
                    close(log[i], expected[c].ln(), 6e-7 + 2e-7 * expected[c].ln().abs());
                    // Its exponent is a logarithm's rounding away.
                    let allowed = 2e-7 + 2e-5 * expected[c] * total.abs().max(1.0);
                    close(dlog[i], dy[c] - expected[c] * total, allowed);
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_shows() {
        let mut y = [0.0; 4];
        forward(&[1.0, f32::NAN, 2.0, 3.0], 2, &mut y);
        assert!(y[0].is_nan() && y[1].is_nan() && y[2] > 0.0 && y[3] > 0.0, "{y:?}");
        forward(&[1.0, f32::NEG_INFINITY, 2.0, 2.0], 2, &mut y);
        assert_eq!(y, [1.0, 0.0, 0.5, 0.5]);
    }
}
