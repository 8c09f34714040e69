//! Positions that are computed, and learned ones of another number of places.

use std::ops::Range;

use burn::{
    prelude::*,
    tensor::{
        TensorData, module,
        ops::{InterpolateMode, InterpolateOptions},
    },
};
use serde::{Deserialize, Serialize};

use super::fused;

/// Rotary positions (Su et al. 2021, <https://arxiv.org/abs/2104.09864>), in the halves layout of Llama:
/// channel `i` of a head turns together with channel `i + D / 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Angle a position, for each of the `D / 2` pairs.
    frequencies: Vec<f32>,
}

/// `rope_parameters` of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case")]
pub enum RopeScaling {
    Default {
        #[serde(default = "ten_thousand")]
        rope_theta: f64,
    },
    /// Positions divided by `factor`.
    Linear {
        #[serde(default = "ten_thousand")]
        rope_theta: f64,
        factor: f64,
    },
    /// Llama 3.1: slow pairs are slowed by `factor`, fast ones kept, those between interpolated.
    Llama3 {
        #[serde(default = "ten_thousand")]
        rope_theta: f64,
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: usize,
    },
}

fn ten_thousand() -> f64 {
    10_000.0
}

impl Rope {
    /// For heads of `head_dim` channels, an even number.
    pub fn new(head_dim: usize, scaling: &RopeScaling) -> Self {
        let plain = |theta: f64| {
            // As the reference does, in single precision.
            (0..head_dim / 2)
                .map(move |i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32))
        };
        let frequencies = match *scaling {
            RopeScaling::Default { rope_theta } => plain(rope_theta).collect(),
            RopeScaling::Linear { rope_theta, factor } => {
                plain(rope_theta).map(|f| f / factor as f32).collect()
            }
            RopeScaling::Llama3 {
                rope_theta,
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let slow = |f: f32| {
                    let turns = original as f64 * f64::from(f) / std::f64::consts::TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    ((1.0 - kept) * f64::from(f) / factor + kept * f64::from(f)) as f32
                };
                plain(rope_theta).map(slow).collect()
            }
        };
        Self { frequencies }
    }

    /// Angle of each pair at a distance of one position, `[D / 2]`.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Cosine and sine of every pair's angle, `[B, T, D / 2]` each; `positions`: `[B, T]`.
    pub fn angles(&self, positions: Tensor<2, Int>) -> [Tensor<3>; 2] {
        let half = self.frequencies.len();
        let data = TensorData::new(self.frequencies.clone(), [1, 1, half]);
        let frequencies = Tensor::<3>::from_data(data, &positions.device());
        let angles = positions.float().unsqueeze_dim::<3>(2) * frequencies; // [B, T, D / 2]
        [angles.clone().cos(), angles.sin()]
    }
}

/// Turns every head's pairs: `x`: `[B, T, H * D]`; `angles` as of [`Rope::angles`], `B` may be 1.
pub fn rotate(x: Tensor<3>, angles: [Tensor<3>; 2]) -> Tensor<3> {
    if fused::applies(&x) { fused::rotate(x, angles) } else { composed(x, angles) }
}

/// [`rotate`] from Burn's operations.
pub(super) fn composed(x: Tensor<3>, [cos, sin]: [Tensor<3>; 2]) -> Tensor<3> {
    let [b, t, width] = x.dims();
    let half = cos.dims()[2];
    let heads = width / (2 * half);
    let x = x.reshape([b, t, heads, 2 * half]);
    let (cos, sin) = (cos.unsqueeze_dim::<4>(2), sin.unsqueeze_dim::<4>(2)); // [B, T, 1, D / 2]
    let first = x.clone().narrow(3, 0, half);
    let second = x.narrow(3, half, half);
    let turned = Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        3,
    );
    turned.reshape([b, t, width])
}

/// Rows of the table of Vaswani et al. 2017, `[positions, width]`: all sines, then all cosines, as Marian and Whisper
/// lay it out. Channel `i` of either half has the wave length `2 pi 10000^(i / steps)`.
pub fn sinusoids(positions: Range<usize>, width: usize, steps: f64, device: &Device) -> Tensor<2> {
    let half = width.div_ceil(2);
    let lengths: Vec<f64> = (0..half).map(|i| 10_000f64.powf(i as f64 / steps)).collect();
    let mut table = Vec::with_capacity(positions.len() * width);
    for position in positions.clone() {
        let angles = lengths.iter().map(|length| position as f64 / length);
        table.extend(angles.clone().map(|angle| angle.sin() as f32));
        table.extend(angles.take(width - half).map(|angle| angle.cos() as f32));
    }
    Tensor::from_data(TensorData::new(table, [positions.len(), width]), device)
}

/// A table of learned positions on a grid of `from` rows and columns, for one of `to`, by bicubic interpolation:
/// `[B, from, C]` -> `[B, to, C]`, places row by row
pub fn resize_grid(table: Tensor<3>, from: [usize; 2], to: [usize; 2]) -> Tensor<3> {
    if from == to {
        return table;
    }
    let [b, _, c] = table.dims();
    let options = InterpolateOptions::new(InterpolateMode::Bicubic)
        .with_align_corners(false)
        .with_output_size(to);
    let image = table.swap_dims(1, 2).reshape([b, c, from[0], from[1]]);
    let image = module::interpolate(image, options); // [B, C, rows, columns]
    image.reshape([b, c, to[0] * to[1]]).swap_dims(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turning keeps the length of every pair, and position 0 turns nothing.
    #[test]
    fn rotation_keeps_lengths() {
        let device = Device::flex();
        let rope = Rope::new(4, &RopeScaling::Default { rope_theta: 10_000.0 });
        let x = Tensor::<1, Int>::arange(1..17, &device).float().reshape([1, 2, 8]);
        let y = rotate(x.clone(), rope.angles(Tensor::from_data([[0, 5]], &device)));
        let [x, y] = [x, y].map(|x| x.into_data().try_into_vec::<f32>().unwrap());
        assert_eq!(x[..8], y[..8]);
        for (i, j) in [(8, 10), (9, 11), (12, 14), (13, 15)] {
            let length = |v: &[f32]| v[i].hypot(v[j]);
            assert!((length(&x) - length(&y)).abs() < 1e-4);
        }
        // The first pair turns by 5 radians.
        assert!((y[8] - (9.0 * 5f32.cos() - 11.0 * 5f32.sin())).abs() < 1e-4);
    }
}
