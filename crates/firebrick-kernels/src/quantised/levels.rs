//! Which levels and scales stand for weights.

use rayon::prelude::*;

use super::Format;

/// How the largest weight that a scale reaches is chosen; what lies beyond is cut off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// The largest of its group.
    MinMax,
    /// That below which this share of its group lies, as 0.999.
    Percentile(f32),
    /// Of some shares of the largest, the one with the smallest squared error.
    Mse,
}

/// A matrix `[O, I]` of levels.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// `[O, I]` row by row
    pub levels: Vec<i8>,
    /// `[O, G]`
    pub scales: Vec<f32>,
}

/// Rounds `weights` `[O, inputs]` to the nearest level of each group's scale. They must be finite.
pub fn levels(weights: &[f32], inputs: usize, format: Format, range: Range) -> Levels {
    let groups = format.groups(inputs);
    let group = format.group(inputs);
    let outputs = weights.len() / inputs.max(1);
    let (mut levels, mut scales) = (vec![0; weights.len()], vec![0.0; outputs * groups]);
    if !weights.is_empty() {
        levels
            .par_chunks_mut(inputs)
            .zip(scales.par_chunks_mut(groups))
            .zip(weights.par_chunks(inputs))
            .for_each(|((levels, scales), weights)| {
                let parts = levels.chunks_mut(group).zip(weights.chunks(group)).zip(scales);
                for ((levels, weights), scale) in parts {
                    *scale = choose(weights, format.largest(), range);
                    round(weights, *scale, format.largest(), levels);
                }
            });
    }
    Levels { levels, scales }
}

/// The scale of a group; 1 where all weights are zero.
pub(super) fn choose(weights: &[f32], most: f32, range: Range) -> f32 {
    let largest = weights.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
    if largest == 0.0 {
        return 1.0;
    }
    let reached = match range {
        Range::MinMax => largest,
        Range::Percentile(share) => {
            let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
            let last = sizes.len() - 1;
            let at = (share * last as f32).round() as usize;
            let (_, reached, _) = sizes.select_nth_unstable_by(at.min(last), f32::total_cmp);
            if *reached > 0.0 { *reached } else { largest }
        }
        Range::Mse => {
            // Below a third nothing has been seen to win, even with fifteen levels.
            let shares = (0..=40).map(|step| largest * (1.0 - step as f32 / 60.0));
            let errors = shares.map(|reached| (error(weights, reached / most, most), reached));
            let best = errors.min_by(|a, b| a.0.total_cmp(&b.0));
            best.expect("some shares").1
        }
    };
    (reached / most).max(f32::MIN_POSITIVE)
}

fn round(weights: &[f32], scale: f32, most: f32, levels: &mut [i8]) {
    for (w, level) in weights.iter().zip(levels) {
        *level = nearest(*w, scale, most) as i8;
    }
}

#[inline(always)]
pub(super) fn nearest(w: f32, scale: f32, most: f32) -> f32 {
    (w / scale).round_ties_even().clamp(-most, most)
}

fn error(weights: &[f32], scale: f32, most: f32) -> f64 {
    let square = |w: &f32| f64::from(nearest(*w, scale, most) * scale - w).powi(2);
    weights.iter().map(square).sum()
}
