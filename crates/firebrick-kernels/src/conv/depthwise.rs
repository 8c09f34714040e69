//! Convolutions of every channel by itself, for AVX-512: so few multiplications a number that a copy of the image, as
//! `planes` are, would cost more than they do. Columns beyond the edge are lanes that are not read.

use rayon::prelude::*;

use super::{Conv2d, TASK, tile::LANES};
use crate::affine::{Finish, Line};

/// Columns of a kernel; a loop is compiled for each.
const KERNELS: [usize; 3] = [3, 5, 7];
/// Columns of an image below which most lanes would be idle.
const NARROW: usize = 4;

pub(super) fn takes(conv: &Conv2d) -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512f")
        && conv.channels == [conv.groups; 2]
        && KERNELS.contains(&conv.kernel[1])
        && conv.stride[1] <= 2
        && conv.size[1] >= NARROW;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Of a convolution that [`takes`] lets through.
pub(super) fn forward(x: &[f32], weight: &[f32], finish: Finish, conv: &Conv2d, out: &mut [f32]) {
    assert!(takes(conv));
    let source = conv.size[0] * conv.size[1];
    let [rows, cols] = conv.out_size();
    let (area, taps) = (rows * cols, conv.kernel[0] * conv.kernel[1]);
    if out.is_empty() {
        return;
    }
    let least = (TASK / (taps * area)).clamp(1, 32);
    let planes = out.par_chunks_exact_mut(area).enumerate();
    planes.with_min_len(least).for_each(|(plane, out)| {
        let channel = plane % conv.groups;
        let (x, weight) = (&x[plane * source..][..source], &weight[channel * taps..][..taps]);
        let residual = finish.residual.map(|residual| &residual[plane * area..][..area]);
        let line = finish.line(channel);
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "a function of a wider instruction set")]
        // SAFETY: `takes` has seen that the CPU has AVX-512.
        unsafe {
            match (conv.kernel[1], conv.stride[1]) {
                (3, 1) => channel_of::<3, 1>(x, weight, conv, line, residual, out),
                (3, _) => channel_of::<3, 2>(x, weight, conv, line, residual, out),
                (5, 1) => channel_of::<5, 1>(x, weight, conv, line, residual, out),
                (5, _) => channel_of::<5, 2>(x, weight, conv, line, residual, out),
                (_, 1) => channel_of::<7, 1>(x, weight, conv, line, residual, out),
                _ => channel_of::<7, 2>(x, weight, conv, line, residual, out),
            }
        }
    });
}

/// One channel of one image, by `K` columns of weights; `STEP` is the stride.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "registers of which some lanes are read and written")]
fn channel_of<const K: usize, const STEP: usize>(
    x: &[f32],
    weight: &[f32],
    conv: &Conv2d,
    line: Line,
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_permutex2var_ps,
        _mm512_set1_ps, _mm512_setzero_ps,
    };
    const EVEN: [u32; LANES] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
    let ([height, width], [rows, cols]) = (conv.size, conv.out_size());
    assert!(x.len() == height * width && out.len() == rows * cols);
    assert!(weight.len() == conv.kernel[0] * K);
    assert!(residual.is_none_or(|residual| residual.len() == out.len()));
    // SAFETY: sixteen numbers.
    let even = unsafe { _mm512_loadu_si512(EVEN.as_ptr().cast()) };
    let (scale, shift) = (_mm512_set1_ps(line.scale), _mm512_set1_ps(line.shift));
    let (low, high) = (_mm512_set1_ps(line.low), _mm512_set1_ps(line.high));
    for col in (0..cols).step_by(LANES) {
        let written = lanes(0, cols - col) as u16;
        // Where each column of the kernel reads from a row, and which of the 32 numbers there are on it.
        let reads: [(isize, u32); K] = std::array::from_fn(|k| {
            let at = (col * STEP + k * conv.dilation[1]) as isize - conv.padding[1][0] as isize;
            (at, lanes(at, width))
        });
        for row in 0..rows {
            let mut sum = _mm512_setzero_ps();
            for (k, weight) in weight.as_chunks::<K>().0.iter().enumerate() {
                let from = row * conv.stride[0] + k * conv.dilation[0];
                let from = from.wrapping_sub(conv.padding[0][0]);
                if from >= height {
                    continue; // above the image or below
                }
                let from = x[from * width..].as_ptr();
                for ((at, on), weight) in reads.iter().zip(weight) {
                    let from = from.wrapping_offset(*at);
                    // SAFETY: the lanes of the masks are on the row, which is inside `x`.
                    let pixels = unsafe {
                        let first = _mm512_maskz_loadu_ps(*on as u16, from);
                        if STEP == 1 {
                            first
                        } else {
                            let from = from.wrapping_add(LANES);
                            let second = _mm512_maskz_loadu_ps((*on >> LANES) as u16, from);
                            _mm512_permutex2var_ps(first, even, second)
                        }
                    };
                    sum = _mm512_fmadd_ps(pixels, _mm512_set1_ps(*weight), sum);
                }
            }
            let mut y = _mm512_fmadd_ps(sum, scale, shift);
            let at = row * cols + col;
            if let Some(residual) = residual {
                // SAFETY: the lanes of the mask are in this row of the residual.
                let residual = unsafe { _mm512_maskz_loadu_ps(written, residual[at..].as_ptr()) };
                y = _mm512_add_ps(y, residual);
            }
            // Of two numbers of which one is none, these give the second.
            let y = _mm512_min_ps(high, _mm512_max_ps(low, y));
            // SAFETY: the lanes of the mask are in this row of `out`.
            unsafe { _mm512_mask_storeu_ps(out[at..].as_mut_ptr(), written, y) };
        }
    }
}

/// Which of 32 places from `at` on are within a row of `width`.
fn lanes(at: isize, width: usize) -> u32 {
    let first = (-at).clamp(0, 32);
    let end = (width as isize - at).clamp(first, 32);
    ((1u64 << end) - (1u64 << first)) as u32
}
