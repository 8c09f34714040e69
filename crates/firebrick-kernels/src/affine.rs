//! `y = act(x * scale + shift + residual)` with a scale and a shift a channel: batch normalisation when it only
//! applies what it has learned (Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>), and what follows it in a
//! residual network, in one pass over memory.

use rayon::prelude::*;

use crate::BLOCK;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    #[default]
    None,
    Relu,
    /// Relu that ends at 6.
    Relu6,
}

/// What becomes of the sums of a convolution before they are written: `act(sum * scale + shift + residual)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finish<'a> {
    /// A number a channel, as below; 1 where absent.
    pub scale: Option<&'a [f32]>,
    /// 0 where absent.
    pub shift: Option<&'a [f32]>,
    /// As large as what is written.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
}

impl<'a> Finish<'a> {
    pub fn bias(bias: Option<&'a [f32]>) -> Self {
        Self { shift: bias, ..Self::default() }
    }

    pub(crate) fn line(&self, channel: usize) -> Line {
        Line::new(
            self.scale.map_or(1.0, |scale| scale[channel]),
            self.shift.map_or(0.0, |shift| shift[channel]),
            self.activation,
        )
    }
}

/// What becomes of the numbers of one channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub scale: f32,
    pub shift: f32,
    pub low: f32,
    pub high: f32,
}

impl Line {
    pub fn new(scale: f32, shift: f32, activation: Activation) -> Self {
        let (low, high) = match activation {
            Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Relu6 => (0.0, 6.0),
        };
        Self { scale, shift, low, high }
    }

    #[inline(always)]
    pub fn of(self, x: f32, residual: f32) -> f32 {
        let x = x.mul_add(self.scale, self.shift) + residual;
        // Comparisons, because `max` would make a number of a NaN.
        let x = if x < self.low { self.low } else { x };
        if x > self.high { self.high } else { x }
    }

    /// All slices are of one length.
    pub fn write(self, x: &[f32], residual: Option<&[f32]>, y: &mut [f32]) {
        line(x, residual, self, y);
    }
}

/// One number a channel each.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Affine {
    pub fn new(scale: Vec<f32>, shift: Vec<f32>) -> Self {
        assert_eq!(scale.len(), shift.len());
        Self { scale, shift }
    }

    /// `(x - mean) / sqrt(variance + eps) * weight + bias`; rounds as PyTorch does, which shows in deep models.
    pub fn of_batch_norm(
        weight: &[f32],
        bias: &[f32],
        mean: &[f32],
        variance: &[f32],
        eps: f32,
    ) -> Self {
        let inverse = variance.iter().map(|variance| 1.0 / (variance + eps).sqrt());
        let scale: Vec<f32> = weight.iter().zip(inverse).map(|(w, inverse)| w * inverse).collect();
        let shift =
            bias.iter().zip(mean).zip(&scale).map(|((b, m), s)| (-m).mul_add(*s, *b)).collect();
        Self::new(scale, shift)
    }

    /// As the last part of a convolution.
    pub fn finish<'a>(&'a self, residual: Option<&'a [f32]>, activation: Activation) -> Finish<'a> {
        Finish { scale: Some(&self.scale), shift: Some(&self.shift), residual, activation }
    }

    /// `x`, `residual` and `y`: `[N, C, area]`.
    pub fn apply(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        activation: Activation,
        area: usize,
        y: &mut [f32],
    ) {
        assert!(x.len() == y.len() && residual.is_none_or(|residual| residual.len() == x.len()));
        assert!(x.len().is_multiple_of((self.scale.len() * area).max(1)));
        let planes = y.par_chunks_exact_mut(area.max(1)).enumerate();
        planes.with_min_len((BLOCK / area.max(1)).max(1)).for_each(|(plane, y)| {
            let (channel, here) = (plane % self.scale.len(), plane * area..(plane + 1) * area);
            let residual = residual.map(|residual| &residual[here.clone()]);
            let line = Line::new(self.scale[channel], self.shift[channel], activation);
            line.write(&x[here], residual, y);
        });
    }
}

#[inline(always)]
fn any_line(x: &[f32], residual: Option<&[f32]>, line: Line, y: &mut [f32]) {
    match residual {
        Some(residual) => {
            for ((y, x), residual) in y.iter_mut().zip(x).zip(residual) {
                *y = line.of(*x, *residual);
            }
        }
        None => y.iter_mut().zip(x).for_each(|(y, x)| *y = line.of(*x, 0.0)),
    }
}

crate::for_this_cpu!(line = any_line(
    x: &[f32], residual: Option<&[f32]>, line: Line, y: &mut [f32]
));

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the formula of batch normalisation, for planes with a rest behind whole registers.
    #[test]
    fn is_batch_norm_and_an_activation() {
        const AREA: usize = 37;
        let channel = |from: f32| [from, from + 0.3, from - 0.7];
        let (weight, bias) = (channel(1.5), channel(0.2));
        let (mean, variance) = (channel(-0.4), channel(1.0));
        let affine = Affine::of_batch_norm(&weight, &bias, &mean, &variance, 1e-5);
        let x: Vec<f32> = (0..2 * 3 * AREA).map(|i| (i * 7919 % 211) as f32 / 20.0 - 5.0).collect();
        let residual: Vec<f32> = x.iter().rev().copied().collect();
        for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
            for residual in [None, Some(&residual[..])] {
                let mut y = vec![f32::NAN; x.len()];
                affine.apply(&x, residual, activation, AREA, &mut y);
                for (i, y) in y.iter().enumerate() {
                    let c = i / AREA % 3;
                    let normal = (x[i] - mean[c]) / (variance[c] + 1e-5).sqrt();
                    let sum = normal * weight[c] + bias[c] + residual.map_or(0.0, |r| r[i]);
                    let expected = match activation {
                        Activation::None => sum,
                        Activation::Relu => sum.max(0.0),
                        Activation::Relu6 => sum.clamp(0.0, 6.0),
                    };
                    assert!((y - expected).abs() < 1e-5, "{activation:?} {i}: {y}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_nan_stays() {
        let mut y = [0.0];
        let affine = Affine::new(vec![1.0], vec![0.0]);
        affine.apply(&[f32::NAN], None, Activation::Relu6, 1, &mut y);
        assert!(y[0].is_nan());
    }
}
