//! The innermost loop of a convolution: rows of weights times runs of pixels, for a few output channels and pixels.

/// Output channels of a tile.
pub(super) const CHANNELS: usize = 8;
/// Pixels of a tile: with [`CHANNELS`], 24 sums of an AVX-512 register each, of which there are 32.
pub(super) const PIXELS: usize = 48;
/// Pixels that tiles are whole multiples of.
const LANES: usize = 16;

/// `out[r][i] = sum of weight[r][k] * planes[starts[k] + first + i] over k`
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub weight: [&'a [f32]; CHANNELS],
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
}

/// The first `pixels` of every row of `out`; what is behind them holds no meaning.
pub(super) fn tile(tile: Tile, pixels: usize, out: &mut Sums) {
    let count = pixels.next_multiple_of(LANES);
    assert!(count <= PIXELS && tile.starts.last + tile.first + count <= tile.planes.len());
    assert!(tile.weight.iter().all(|row| row.len() == tile.starts.len()));
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") {
        #[expect(unsafe_code, reason = "a function of a wider instruction set")]
        // SAFETY: the CPU has AVX-512; every run of `count` pixels is inside the planes and every row of weights
        // has one for each of them: checked above.
        unsafe {
            match count / LANES {
                1 => wide::<1>(tile, out),
                2 => wide::<2>(tile, out),
                _ => wide::<3>(tile, out),
            }
        }
        return;
    }
    for (weight, out) in tile.weight.iter().zip(out) {
        row(weight, tile, count, out);
    }
}

/// [`tile`] of one channel.
pub(super) fn tile_of_one(weight: &[f32], tile: Tile, pixels: usize, out: &mut [f32; PIXELS]) {
    row(weight, tile, pixels.next_multiple_of(LANES), out);
}

/// For `16 * V` pixels. The caller checks that all runs are inside the planes, and the lengths of the weights' rows.
///
/// Written with intrinsics because the compiler does not keep this many sums in registers by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "checks in this loop would cost a tenth of the speed")]
unsafe fn wide<const V: usize>(tile: Tile, out: &mut Sums) {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    let Tile { weight, planes, starts, first } = tile;
    let weight = weight.map(<[f32]>::as_ptr);
    // SAFETY: `first` alone is inside, as are all runs, by the caller's check.
    let planes = unsafe { planes.as_ptr().add(first) };
    let mut sums = [[_mm512_setzero_ps(); V]; CHANNELS];
    for (k, start) in starts.starts.iter().enumerate() {
        // SAFETY: the run of `16 * V` pixels is inside the planes, and `k` is below the length of every row.
        unsafe {
            let run = planes.add(*start as usize);
            let mut pixels = [_mm512_setzero_ps(); V];
            for v in 0..V {
                pixels[v] = _mm512_loadu_ps(run.add(v * LANES));
            }
            for r in 0..CHANNELS {
                let weight = _mm512_set1_ps(*weight[r].add(k));
                for v in 0..V {
                    sums[r][v] = _mm512_fmadd_ps(weight, pixels[v], sums[r][v]);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            // SAFETY: a chunk has sixteen numbers.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
}

#[inline(always)]
fn any_row(weight: &[f32], tile: Tile, count: usize, out: &mut [f32; PIXELS]) {
    match count / LANES {
        1 => some_pixels::<16>(weight, tile, out),
        2 => some_pixels::<32>(weight, tile, out),
        _ => some_pixels::<48>(weight, tile, out),
    }
}

#[inline(always)]
fn some_pixels<const N: usize>(weight: &[f32], tile: Tile, out: &mut [f32; PIXELS]) {
    let planes = &tile.planes[tile.first..];
    let mut sums = [0.0f32; N];
    for (weight, start) in weight.iter().zip(&tile.starts.starts) {
        let run = &planes[*start as usize..][..N];
        for i in 0..N {
            sums[i] = run[i].mul_add(*weight, sums[i]);
        }
    }
    out[..N].copy_from_slice(&sums);
}

crate::for_this_cpu!(row = any_row(weight: &[f32], tile: Tile, count: usize, out: &mut [f32; PIXELS]));
