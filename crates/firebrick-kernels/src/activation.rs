//! Element-wise activations with their derivatives, alone or as the gate of a product (Shazeer 2020,
//! <https://arxiv.org/abs/2002.05202>): `activation(gate) * up`.
//!
//! Each is one function without a branch that gives value and slope; who needs one of them pays for one.

use rayon::prelude::*;

use crate::{
    BLOCK,
    math::{exp, normal_tail, sigmoid},
};

/// Named as in Hugging Face's `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * cdf(x)` of the normal distribution (Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>).
    Gelu,
    /// GELU's approximation by `tanh`: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// GELU's approximation `x * sigmoid(1.702 x)`, of CLIP.
    QuickGelu,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
}

/// `y[i] = f(x[i])`
pub fn forward(f: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| dispatch_forward(f, x, y));
}

/// `dx[i] = dy[i] * f'(x[i])`
pub fn backward(f: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len());
    dx.par_chunks_mut(BLOCK)
        .zip(x.par_chunks(BLOCK))
        .zip(dy.par_chunks(BLOCK))
        .for_each(|((dx, x), dy)| dispatch_backward(f, x, dy, dx));
}

/// `y[i] = f(gate[i]) * up[i]`
pub fn gated(f: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == y.len() && up.len() == y.len());
    y.par_chunks_mut(BLOCK)
        .zip(gate.par_chunks(BLOCK))
        .zip(up.par_chunks(BLOCK))
        .for_each(|((y, gate), up)| dispatch_gated(f, gate, up, y));
}

/// Gradients of [`gated`].
pub fn gated_backward(
    f: Activation,
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let len = dy.len();
    assert!(gate.len() == len && up.len() == len && dgate.len() == len && dup.len() == len);
    dgate
        .par_chunks_mut(BLOCK)
        .zip(dup.par_chunks_mut(BLOCK))
        .zip(gate.par_chunks(BLOCK))
        .zip(up.par_chunks(BLOCK))
        .zip(dy.par_chunks(BLOCK))
        .for_each(|((((dgate, dup), gate), up), dy)| {
            dispatch_gated_backward(f, gate, up, dy, dgate, dup);
        });
}

/// Value and slope.
type Point = (f32, f32);

#[inline(always)]
fn gelu(x: f32) -> Point {
    /// `1 / sqrt(2 pi)`
    const DENSITY: f32 = 0.398_942_3;
    let bell = exp(-0.5 * x * x);
    let tail = bell * normal_tail(x.abs());
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (x * cdf, cdf + x * DENSITY * bell)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> Point {
    /// `2 sqrt(2 / pi)`
    const TWICE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    // Beyond 20 the sigmoid is 0 or 1; a cube may not overflow.
    let near = x.clamp(-20.0, 20.0);
    let square = near * near;
    // `0.5 (1 + tanh(u))` is the sigmoid of `2 u`, which loses nothing where it is near 0.
    let (s, rest) = sigmoid(TWICE * near * (1.0 + CUBE * square));
    (x * s, s + x * s * rest * TWICE * (1.0 + 3.0 * CUBE * square))
}

#[inline(always)]
fn swish(x: f32, beta: f32) -> Point {
    let (s, rest) = sigmoid(beta * x);
    (x * s, s + beta * x * s * rest)
}

/// `$each` with `$f` replaced by the function of the activation `$which`, so that every loop is of one function.
macro_rules! with {
    ($which:ident, $f:ident => $each:expr) => {
        match $which {
            Activation::Gelu => {
                let $f = gelu;
                $each
            }
            Activation::GeluTanh => {
                let $f = gelu_tanh;
                $each
            }
            Activation::QuickGelu => {
                let $f = |x| swish(x, 1.702);
                $each
            }
            Activation::Silu => {
                let $f = |x| swish(x, 1.0);
                $each
            }
        }
    };
}

#[inline(always)]
fn forward_block(f: Activation, x: &[f32], y: &mut [f32]) {
    with!(f, f => y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x).0));
}

#[inline(always)]
fn backward_block(f: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    with!(f, f => dx.iter_mut().zip(x).zip(dy).for_each(|((dx, x), dy)| *dx = dy * f(*x).1));
}

#[inline(always)]
fn gated_block(f: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    with!(f, f => y.iter_mut().zip(gate).zip(up).for_each(|((y, gate), up)| *y = f(*gate).0 * up));
}

#[inline(always)]
fn gated_backward_block(
    f: Activation,
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let n = dy.len();
    let (gate, up, dgate, dup) = (&gate[..n], &up[..n], &mut dgate[..n], &mut dup[..n]);
    with!(f, f => for i in 0..n {
        let (value, slope) = f(gate[i]);
        dgate[i] = dy[i] * up[i] * slope;
        dup[i] = dy[i] * value;
    });
}

crate::for_this_cpu!(dispatch_forward = forward_block(f: Activation, x: &[f32], y: &mut [f32]));
crate::for_this_cpu!(dispatch_backward = backward_block(
    f: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]
));
crate::for_this_cpu!(dispatch_gated = gated_block(
    f: Activation, gate: &[f32], up: &[f32], y: &mut [f32]
));
crate::for_this_cpu!(dispatch_gated_backward = gated_backward_block(
    f: Activation, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]
));

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal distribution below `-a`, in f64: a series near 0, beyond a continued fraction.
    fn tail(a: f64) -> f64 {
        let density = (-0.5 * a * a).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if a < 2.5 {
            let terms = (1..60).scan(a, |term, k| {
                let now = *term;
                *term *= a * a / f64::from(2 * k + 1);
                Some(now)
            });
            0.5 - density * terms.sum::<f64>()
        } else {
            density / (1..200).rev().fold(a, |below, k| a + f64::from(k) / below)
        }
    }

    /// Value and slope by their formulas, in f64.
    fn twin(f: Activation, x: f64) -> (f64, f64) {
        let swish = |beta: f64| {
            let s = 1.0 / (1.0 + (-beta * x).exp());
            (x * s, s + beta * x * s * (1.0 - s))
        };
        match f {
            Activation::Gelu => {
                let cdf = if x < 0.0 { tail(-x) } else { 1.0 - tail(x) };
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                (x * cdf, cdf + x * density)
            }
            Activation::GeluTanh => {
                let root = (2.0 / std::f64::consts::PI).sqrt();
                let u = root * (x + 0.044715 * x * x * x);
                // `1 + tanh(u)` without the difference of two numbers that are nearly equal
                let twice = 2.0 / (1.0 + (-2.0 * u).exp());
                let slope = root * (1.0 + 3.0 * 0.044715 * x * x) * twice * (2.0 - twice);
                (0.5 * x * twice, 0.5 * twice + 0.5 * x * slope)
            }
            Activation::QuickGelu => swish(1.702),
            Activation::Silu => swish(1.0),
        }
    }

    /// Relative errors where the value is of note, absolute ones in the tails, of all four functions.
    #[track_caller]
    fn check(f: Activation, relative: f64, absolute: f64) {
        let x: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 / 2000.0).collect();
        let n = x.len();
        let up: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
        let dy: Vec<f32> = (0..n).map(|i| (i % 5) as f32 - 1.5).collect();
        let [mut y, mut dx, mut product, mut dgate, mut dup] = [0; 5].map(|_| vec![f32::NAN; n]);
        forward(f, &x, &mut y);
        backward(f, &x, &dy, &mut dx);
        gated(f, &x, &up, &mut product);
        gated_backward(f, &x, &up, &dy, &mut dgate, &mut dup);
        for i in 0..n {
            let (up, dy) = (f64::from(up[i]), f64::from(dy[i]));
            let (value, slope) = twin(f, f64::from(x[i]));
            let close = |what: &str, found: f32, expected: f64, allowed: f64| {
                let error = (f64::from(found) - expected).abs();
                assert!(error <= allowed, "{f:?}({}): {what} {found}, not {expected}", x[i]);
            };
            let allowed = relative * value.abs() + absolute;
            close("value", y[i], value, allowed);
            close("product", product[i], value * up, allowed * up.abs());
            close("up", dup[i], value * dy, allowed * dy.abs());
            // A slope is a sum with a zero of its own.
            let allowed = 2.6e-7 * slope.abs().max(1.0);
            close("slope", dx[i], slope * dy, allowed * dy.abs());
            close("gate", dgate[i], slope * dy * up, allowed * (dy * up).abs());
        }
    }

    #[test]
    fn values_and_slopes() {
        // Measured: 2.5e-7 relative above 0; below, the rounding of exp's argument shows in ever smaller values, of
        // which 6e-8 is the largest error.
        check(Activation::Gelu, 2.6e-7, 3e-8);
        check(Activation::GeluTanh, 2.6e-7, 6e-8);
        check(Activation::QuickGelu, 2.6e-7, 3e-8);
        check(Activation::Silu, 2.6e-7, 0.0);
    }

    #[test]
    fn far_out_they_are_nothing_or_all() {
        let x = [-1e30, -1e9, -100.0, 100.0, 1e9, 1e30];
        for f in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu] {
            let (mut y, mut dx) = ([f32::NAN; 6], [f32::NAN; 6]);
            forward(f, &x, &mut y);
            backward(f, &x, &[1.0; 6], &mut dx);
            assert_eq!(y.map(|y| y + 0.0), [0.0, 0.0, 0.0, 100.0, 1e9, 1e30], "{f:?}");
            assert_eq!(dx.map(|dx| dx + 0.0), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], "{f:?}");
        }
    }
}
