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
    let outputs = weights.len() / inputs.max(1);
    let (mut levels, mut scales) = (vec![0; weights.len()], vec![0.0; outputs * groups]);
    if !weights.is_empty() {
        levels
            .par_chunks_mut(inputs)
            .zip(scales.par_chunks_mut(groups))
            .zip(weights.par_chunks(inputs))
            .for_each(|((levels, scales), weights)| row(weights, format, range, levels, scales));
    }
    Levels { levels, scales }
}

/// Makes each of `weights` `[O, inputs]` the float that its level of [`levels`] stands for. Once more, with a range that cuts
/// off no share, changes nothing.
pub fn snap(weights: &mut [f32], inputs: usize, format: Format, range: Range) {
    let rows = weights.par_chunks_mut(inputs.max(1));
    rows.for_each(|weights| snap_row(weights, format, range));
}

#[inline(always)]
fn any_row(weights: &[f32], format: Format, range: Range, levels: &mut [i8], scales: &mut [f32]) {
    let (group, most) = (format.group(weights.len()), format.largest());
    let parts = levels.chunks_mut(group).zip(weights.chunks(group)).zip(scales);
    for ((levels, weights), scale) in parts {
        *scale = choose(weights, format, range);
        for (w, level) in weights.iter().zip(levels) {
            *level = nearest(*w, *scale, most) as i8;
        }
    }
}

#[inline(always)]
fn any_snap_row(weights: &mut [f32], format: Format, range: Range) {
    let (group, most) = (format.group(weights.len()), format.largest());
    for weights in weights.chunks_mut(group) {
        let scale = choose(weights, format, range);
        weights.iter_mut().for_each(|w| *w = nearest(*w, scale, most) * scale);
    }
}

crate::for_this_cpu!(row = any_row(
    weights: &[f32], format: Format, range: Range, levels: &mut [i8], scales: &mut [f32]
));
crate::for_this_cpu!(snap_row = any_snap_row(weights: &mut [f32], format: Format, range: Range));

/// The scale of a group; 1 where all weights are zero.
#[inline(always)]
pub(super) fn choose(weights: &[f32], format: Format, range: Range) -> f32 {
    let most = format.largest();
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
            let mut best = (f32::INFINITY, largest);
            for step in 0..=40 {
                let reached = largest * (1.0 - step as f32 / 60.0);
                let error = error(weights, short(reached / most, format), most);
                if error < best.0 {
                    best = (error, reached);
                }
            }
            best.1
        }
    };
    short((reached / most).max(f32::MIN_POSITIVE), format)
}

/// The nearest number of sixteen bits of mantissa: times a level of eight it is exact, so that what was rounded once is
/// rounded to itself. Of seven bits, bf16, with levels of four: their scales would else be a fifth of what a product reads.
#[inline(always)]
fn short(scale: f32, format: Format) -> f32 {
    let dropped = match format {
        Format::Int8 => 8,
        Format::Int4 { .. } => 16,
    };
    f32::from_bits((scale.to_bits() + (1 << (dropped - 1))) >> dropped << dropped)
}

#[inline(always)]
pub(super) fn nearest(w: f32, scale: f32, most: f32) -> f32 {
    (w / scale).round_ties_even().clamp(-most, most)
}

#[inline(always)]
fn error(weights: &[f32], scale: f32, most: f32) -> f32 {
    const LANES: usize = 16;
    let inverse = 1.0 / scale;
    let square = |w: f32| (nearest(w * inverse, 1.0, most) * scale - w).powi(2);
    let (whole, rest) = weights.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for weights in whole {
        for i in 0..LANES {
            sums[i] += square(weights[i]);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|w| square(*w)).sum::<f32>()
}
