//! Images as levels of eight bits.

use rayon::prelude::*;

/// Channels whose levels are one word.
pub(super) const FOUR: usize = 4;
/// 1.5 * 2^23: a small number added to it stands in the lowest bits, rounded to even.
const MAGIC: f32 = 12_582_912.0;

/// What the levels of an image stand for: `scale * (level - zero)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pixels {
    pub scale: f32,
    inverse: f32,
    pub zero: f32,
}

impl Pixels {
    /// Of all numbers of an image.
    pub fn of(x: &[f32]) -> Self {
        let parts = x.par_chunks(crate::BLOCK).map(|x| {
            let mut range = Extremes { low: 0.0, high: 0.0, size: 0 };
            extend(x, &mut range);
            range
        });
        let nothing = || Extremes { low: 0.0, high: 0.0, size: 0 };
        let Extremes { low, high, size } = parts.reduce(nothing, |a, b| Extremes {
            low: a.low.min(b.low),
            high: a.high.max(b.high),
            size: a.size.max(b.size),
        });
        if size >= f32::INFINITY.to_bits() {
            return Self { scale: f32::NAN, inverse: 0.0, zero: 0.0 };
        }
        let scale = high / 255.0 - low / 255.0;
        // Below this the inverse is infinite, and the image as good as zero.
        let inverse = if scale > 1e-36 { 1.0 / scale } else { 0.0 };
        Self { scale, inverse, zero: (-low * inverse).round_ties_even().min(255.0) }
    }

    /// The levels of four channels, the first in the lowest bits.
    pub fn words(self, channels: [&[f32]; FOUR], words: &mut [u32]) {
        fill(channels, self, words);
    }
}

/// The least and the largest number, with zero among them, and the bits of the largest without its sign.
#[derive(Debug, Clone, Copy)]
struct Extremes {
    low: f32,
    high: f32,
    size: u32,
}

#[inline(always)]
fn any_extend(x: &[f32], range: &mut Extremes) {
    const LANES: usize = 16;
    let (mut low, mut high, mut size) = ([0.0f32; LANES], [0.0f32; LANES], [0u32; LANES]);
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut take = |i: usize, x: f32| {
        low[i] = if x < low[i] { x } else { low[i] };
        high[i] = if x > high[i] { x } else { high[i] };
        size[i] = size[i].max(x.to_bits() & 0x7fff_ffff);
    };
    for x in whole {
        x.iter().enumerate().for_each(|(i, x)| take(i, *x));
    }
    rest.iter().enumerate().for_each(|(i, x)| take(i, *x));
    for i in 0..LANES {
        range.low = range.low.min(low[i]);
        range.high = range.high.max(high[i]);
        range.size = range.size.max(size[i]);
    }
}

#[inline(always)]
fn any_fill(x: [&[f32]; FOUR], pixels: Pixels, words: &mut [u32]) {
    let Pixels { inverse, zero, .. } = pixels;
    let x = x.map(|x| &x[..words.len()]);
    let level = |x: f32| ((x * inverse + zero).clamp(0.0, 255.0) + MAGIC).to_bits() & 0xff;
    for (i, word) in words.iter_mut().enumerate() {
        *word = level(x[0][i]) | level(x[1][i]) << 8 | level(x[2][i]) << 16 | level(x[3][i]) << 24;
    }
}

crate::for_this_cpu!(extend = any_extend(x: &[f32], range: &mut Extremes));
crate::for_this_cpu!(fill = any_fill(x: [&[f32]; FOUR], pixels: Pixels, words: &mut [u32]));
