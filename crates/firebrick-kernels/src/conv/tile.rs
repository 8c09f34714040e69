//! The innermost loop of a convolution: rows of weights times runs of pixels, for a few output channels and pixels.

use crate::affine::Line;
#[cfg(target_arch = "x86_64")]
use crate::cpu::has_avx512;

/// Output channels of a tile.
pub(super) const CHANNELS: usize = 8;
/// Pixels of a tile: with [`CHANNELS`], 24 sums of an AVX-512 register each, of which there are 32.
pub(super) const PIXELS: usize = 48;
/// Pixels that tiles are whole multiples of.
pub(super) const LANES: usize = 16;

/// The weights of the channels of a tile, and what becomes of the sums of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel<'a> {
    pub weight: [&'a [f32]; CHANNELS],
    pub lines: [Line; CHANNELS],
    /// Lies as what is written.
    pub residual: Option<[&'a [f32]; CHANNELS]>,
}

/// `out[r][i] = sum of weight[r][k] * planes[starts[k] + first + i] over k`
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub panel: &'a Panel<'a>,
    pub planes: &'a [f32],
    pub starts: &'a Starts,
    pub first: usize,
}

pub(super) type Sums = [[f32; PIXELS]; CHANNELS];

/// Where in the planes the run of every weight starts.
#[derive(Debug, Clone)]
pub(super) struct Starts {
    starts: Vec<u32>,
    /// The largest of them.
    last: usize,
}

impl Starts {
    pub fn new(starts: Vec<u32>) -> Self {
        let last = starts.iter().max().map_or(0, |last| *last as usize);
        Self { starts, last }
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn last(&self) -> usize {
        self.last
    }

    pub fn as_slice(&self) -> &[u32] {
        &self.starts
    }
}

/// Where the pixels of a tile are written: lane `i` of sixteen goes to `at + i` of its channel, if `mask` has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub mask: u16,
    pub at: isize,
}

/// The pieces of a tile, for each sixteen of its pixels.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    pieces: [Vec<Piece>; PIXELS / LANES],
    /// All are below.
    end: usize,
}

impl Pieces {
    /// Pixels of a register.
    pub const LANES: usize = LANES;

    /// Those of each register.
    pub fn vectors(&self) -> &[Vec<Piece>] {
        &self.pieces
    }

    /// All are below.
    pub fn end(&self) -> usize {
        self.end
    }

    /// `count` pixels of the tile, from `pixel` on, go to `at` and what follows.
    pub fn push(&mut self, pixel: usize, count: usize, at: usize) {
        let (first, last) = (pixel, pixel + count);
        for (sixteen, pieces) in self.pieces.iter_mut().enumerate() {
            let start = sixteen * LANES;
            let lanes = first.clamp(start, start + LANES)..last.clamp(start, start + LANES);
            if !lanes.is_empty() {
                let mask =
                    (lanes.start..lanes.end).fold(0, |mask, lane| mask | 1 << (lane - start));
                pieces.push(Piece { mask, at: (at + start) as isize - first as isize });
            }
        }
        self.end = self.end.max(at + count);
    }
}

/// Writes what becomes of [`sums`] for each of up to [`CHANNELS`] channels; `false` where this CPU cannot.
pub(super) fn write(tile: Tile, pixels: usize, pieces: &Pieces, out: &mut [&mut [f32]]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        let count = tile.check(pixels);
        assert!(out.iter().all(|out| pieces.end <= out.len()));
        let residual = tile.panel.residual.as_ref().map_or(&[][..], |residual| residual);
        assert!(residual.iter().all(|residual| pieces.end <= residual.len()));
        #[expect(unsafe_code, reason = "a function of a wider instruction set")]
        // SAFETY: the CPU has AVX-512; the reads are checked by `check`, the writes above.
        unsafe {
            match count / LANES {
                1 => wide::<1>(tile, pieces, out),
                2 => wide::<2>(tile, pieces, out),
                _ => wide::<3>(tile, pieces, out),
            }
        }
        return true;
    }
    let _ = (tile, pixels, pieces, out);
    false
}

impl Tile<'_> {
    /// `pixels` as whole registers; all that a tile reads is inside its slices.
    fn check(&self, pixels: usize) -> usize {
        let count = pixels.next_multiple_of(LANES);
        assert!(count <= PIXELS && self.starts.last + self.first + count <= self.planes.len());
        assert!(self.panel.weight.iter().all(|row| row.len() == self.starts.len()));
        count
    }
}

/// The first `pixels` of every row of `out`; what is behind them holds no meaning.
pub(super) fn sums(tile: Tile, pixels: usize, out: &mut Sums) {
    let count = tile.check(pixels);
    for (weight, out) in tile.panel.weight.iter().zip(out) {
        row(weight, tile, count, out);
    }
}

/// All pixels of one channel: `out[i] = sum of weight[k] * planes[starts[k] + i] over k`.
pub(super) fn whole_channel(weight: &[f32], planes: &[f32], starts: &Starts, out: &mut [f32]) {
    assert_eq!(weight.len(), starts.len());
    channel(weight, planes, starts, out);
}

/// For `16 * V` pixels. The caller checks that all runs are inside the planes, the lengths of the weights' rows and
/// that the pieces are inside `out` and the residual.
///
/// Written with intrinsics because the compiler does not keep this many sums in registers by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "checks in this loop would cost a tenth of the speed")]
unsafe fn wide<const V: usize>(tile: Tile, pieces: &Pieces, out: &mut [&mut [f32]]) {
    use std::arch::x86_64::{
        _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_set1_ps,
        _mm512_setzero_ps,
    };
    let Tile { panel, planes, starts, first } = tile;
    let weight = panel.weight.map(<[f32]>::as_ptr);
    // SAFETY: `first` alone is inside, as are all runs, by the caller's check.
    let planes = unsafe { planes.as_ptr().add(first) };
    let mut sums = [[_mm512_setzero_ps(); V]; CHANNELS];
    for out in out.iter() {
        for piece in pieces.pieces.iter().flat_map(|pieces| pieces.first()) {
            // Channels are pages apart, where the CPU does not see ahead by itself.
            _mm_prefetch::<_MM_HINT_T0>(out.as_ptr().wrapping_offset(piece.at).cast());
        }
    }
    for (k, start) in starts.starts.iter().enumerate() {
        if k % LANES == 0 {
            for weight in weight {
                // The next channels' weights, which are the next in memory; behind the last, nothing happens.
                let next = weight.wrapping_add(k + CHANNELS * starts.len());
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
            }
        }
        // SAFETY: the run of `16 * V` pixels is inside the planes, and `k` is below the length of every row.
        unsafe {
            let run = planes.add(*start as usize);
            let mut pixels = [_mm512_setzero_ps(); V];
            for (v, pixels) in pixels.iter_mut().enumerate() {
                *pixels = _mm512_loadu_ps(run.add(v * LANES));
            }
            for r in 0..CHANNELS {
                let weight = _mm512_set1_ps(*weight[r].add(k));
                for v in 0..V {
                    sums[r][v] = _mm512_fmadd_ps(weight, pixels[v], sums[r][v]);
                }
            }
        }
    }
    for (r, (sums, out)) in sums.iter().zip(out).enumerate() {
        let Line { scale, shift, low, high } = panel.lines[r];
        let (scale, shift) = (_mm512_set1_ps(scale), _mm512_set1_ps(shift));
        let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
        for (sum, pieces) in sums.iter().zip(&pieces.pieces) {
            let sum = _mm512_fmadd_ps(*sum, scale, shift);
            for Piece { mask, at } in pieces {
                let mut sum = sum;
                if let Some(residual) = &panel.residual {
                    let from = residual[r].as_ptr().wrapping_offset(*at);
                    // SAFETY: the lanes of the mask are inside the residual, by the caller's check.
                    sum = _mm512_add_ps(sum, unsafe { _mm512_maskz_loadu_ps(*mask, from) });
                }
                // Of two numbers of which one is none, these give the second.
                let sum = _mm512_min_ps(high, _mm512_max_ps(low, sum));
                let at = out.as_mut_ptr().wrapping_offset(*at);
                // SAFETY: the lanes of the mask are inside `out`, by the caller's check; others are not touched.
                unsafe { _mm512_mask_storeu_ps(at, *mask, sum) };
            }
        }
    }
}

#[inline(always)]
fn any_row(weight: &[f32], tile: Tile, count: usize, out: &mut [f32; PIXELS]) {
    let planes = &tile.planes[tile.first..];
    match count / LANES {
        1 => add_up::<16>(weight, planes, tile.starts, &mut out[..16]),
        2 => add_up::<32>(weight, planes, tile.starts, &mut out[..32]),
        _ => add_up::<48>(weight, planes, tile.starts, &mut out[..48]),
    }
}

#[inline(always)]
fn any_channel(weight: &[f32], planes: &[f32], starts: &Starts, out: &mut [f32]) {
    let mut first = 0;
    while first + 64 <= out.len() {
        add_up::<64>(weight, &planes[first..], starts, &mut out[first..first + 64]);
        first += 64;
    }
    while first < out.len() {
        let count = LANES.min(out.len() - first);
        add_up::<LANES>(weight, &planes[first..], starts, &mut out[first..first + count]);
        first += LANES;
    }
}

/// `N` pixels, of which `out` takes as many as it has.
#[inline(always)]
fn add_up<const N: usize>(weight: &[f32], planes: &[f32], starts: &Starts, out: &mut [f32]) {
    let mut sums = [0.0f32; N];
    for (weight, start) in weight.iter().zip(&starts.starts) {
        let run = &planes[*start as usize..][..N];
        for i in 0..N {
            sums[i] = run[i].mul_add(*weight, sums[i]);
        }
    }
    out.copy_from_slice(&sums[..out.len()]);
}

crate::for_this_cpu!(row = any_row(weight: &[f32], tile: Tile, count: usize, out: &mut [f32; PIXELS]));
crate::for_this_cpu!(channel = any_channel(
    weight: &[f32], planes: &[f32], starts: &Starts, out: &mut [f32]
));
