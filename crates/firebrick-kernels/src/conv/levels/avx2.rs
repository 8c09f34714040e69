//! The tile of [`super`] for AVX2, which has no product of eight bits that adds up without loss: levels and weights of two
//! channels are pairs of sixteen bits, of which one instruction multiplies and adds up eight.

#![expect(unsafe_code, reason = "checks in these loops would cost much of their speed")]

use std::arch::x86_64::*;

use super::{CHANNELS, Pieces, Tile};
use crate::{
    conv::tile::Piece,
    lanes::Lanes,
    quantised::{Packed, array},
};

/// Channels whose sums stay in registers, beside sixteen pixels' levels.
const ROWS: usize = 4;
/// Lanes of a register.
const EIGHT: usize = 8;
/// Registers of sixteen pixels.
const V: usize = Pieces::LANES / EIGHT;

/// Of a word of four channels: the first and third weight as a pair, then the others, each for the channels of a tile.
pub(super) type Pairs = [[i32; CHANNELS]; 2];

/// The weights of a tile, a word each.
pub(super) fn pairs(weight: &[&[u8]; CHANNELS], words: usize) -> Vec<Pairs> {
    let mut pairs = vec![[[0; CHANNELS]; 2]; words];
    fill(weight, &mut pairs);
    pairs
}

#[inline(always)]
fn any_fill(weight: &[&[u8]; CHANNELS], pairs: &mut [Pairs]) {
    for (k, pairs) in pairs.iter_mut().enumerate() {
        let words = weight.map(|weight| i32::from_le_bytes(array(&weight[k * Packed::STRIDE..])));
        // The third byte stays where it is, the first goes to the lower half: both with their sign.
        let pair = |word: i32| (word << 8 >> 24 << 16) | (word << 24 >> 24 & 0xffff);
        *pairs = [words.map(pair), words.map(|word| pair(word >> 8))];
    }
}

crate::for_this_cpu!(fill = any_fill(weight: &[&[u8]; CHANNELS], pairs: &mut [Pairs]));

/// For `16 * vectors` pixels. All that is read is inside the planes and the weights, and all pieces inside `out`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn write(tile: Tile, vectors: usize, pieces: &Pieces, out: &mut [&mut [f32]]) {
    for (first, out) in (0..).step_by(ROWS).zip(out.chunks_mut(ROWS)) {
        for (v, pieces) in pieces.vectors().iter().take(vectors).enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let sums = sums(tile, first, v * Pieces::LANES);
                for ((r, sums), out) in (first..).zip(sums).zip(out.iter_mut()) {
                    let scale = _mm256_set1_ps(tile.panel.scale[r]);
                    let bias = _mm256_set1_ps(tile.panel.bias[r]);
                    let y = sums.map(|sum| {
                        _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale), bias)
                    });
                    for Piece { mask, at } in pieces {
                        let at = out.as_mut_ptr().wrapping_offset(*at);
                        for (half, y) in y.into_iter().enumerate() {
                            let lanes = Lanes::of((mask >> (half * EIGHT)) as u8);
                            lanes.store(at.wrapping_add(half * EIGHT), y);
                        }
                    }
                }
            }
        }
    }
}

/// Of [`ROWS`] channels from `first` on and sixteen pixels from `pixel` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums(tile: Tile, first: usize, pixel: usize) -> [[__m256i; V]; ROWS] {
    let Tile { panel, planes, starts, first: before } = tile;
    let mut sums = [[_mm256_setzero_si256(); V]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        *sums = [_mm256_set1_epi32(panel.start[first + r]); V];
    }
    let low = _mm256_set1_epi32(0x00ff_00ff);
    for (start, pairs) in starts.as_slice().iter().zip(&panel.pairs) {
        // SAFETY: the run is inside the planes, by the caller's promise.
        let words = unsafe {
            let run = planes.as_ptr().add(before + pixel + *start as usize);
            [run, run.add(EIGHT)].map(|run| _mm256_loadu_si256(run.cast()))
        };
        let levels =
            words.map(|words| [_mm256_and_si256(words, low), _mm256_srli_epi16::<8>(words)]);
        for r in 0..ROWS {
            for (half, pairs) in pairs.iter().enumerate() {
                let weight = _mm256_set1_epi32(pairs[first + r]);
                for v in 0..V {
                    let products = _mm256_madd_epi16(levels[v][half], weight);
                    sums[r][v] = _mm256_add_epi32(sums[r][v], products);
                }
            }
        }
    }
    sums
}
