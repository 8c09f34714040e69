//! Convolutions of every channel by itself, for AVX-512 and AVX2: so few multiplications a number that a copy of the image,
//! as `planes` are, would cost more than they do. Columns beyond the edge are lanes that are not read.

use rayon::prelude::*;

use super::{Conv2d, TASK};
use crate::affine::{Finish, Line};
#[cfg(target_arch = "x86_64")]
use crate::cpu::{has_avx2, has_avx512};

/// Columns of a kernel; a loop is compiled for each.
const KERNELS: [usize; 3] = [3, 5, 7];
/// Columns of an image below which most lanes would be idle.
const NARROW: usize = 4;
/// Rows of the output for which a row of the image is read once, by kernels of 3 x 3.
const TOGETHER: usize = 4;

pub(super) fn takes(conv: &Conv2d) -> bool {
    #[cfg(target_arch = "x86_64")]
    return (has_avx512() || has_avx2())
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
        #[expect(unsafe_code, reason = "functions of wider instruction sets")]
        // SAFETY: `takes` has seen that the CPU has one of them.
        unsafe {
            match has_avx512() {
                true => sixteens(x, weight, conv, line, residual, out),
                false => eights(x, weight, conv, line, residual, out),
            }
        }
    });
}

/// A register of numbers; each of its functions wants a CPU that has it.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "registers of which some lanes are read and written")]
trait Register: Copy {
    const LANES: usize;
    /// Which lanes are read or written.
    type Mask: Copy;

    /// Of the lowest bits.
    unsafe fn mask(bits: u32) -> Self::Mask;
    unsafe fn of(x: f32) -> Self;
    /// Zero where the mask has no lane.
    unsafe fn load(mask: Self::Mask, from: *const f32) -> Self;
    unsafe fn store(self, mask: Self::Mask, to: *mut f32);
    /// Every other lane of this and the next register, from the first on, in the order that [`Self::ordered`] undoes.
    unsafe fn even(self, next: Self) -> Self;
    unsafe fn ordered(self) -> Self;
    /// `self * by + plus`
    unsafe fn times(self, by: Self, plus: Self) -> Self;
    unsafe fn plus(self, other: Self) -> Self;
    /// A lane that is no number becomes `low`.
    unsafe fn between(self, low: Self, high: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "registers of which some lanes are read and written")]
mod registers {
    use std::arch::x86_64::*;

    use super::Register;
    use crate::lanes::Lanes;

    impl Register for __m512 {
        const LANES: usize = 16;
        type Mask = u16;

        #[inline(always)]
        unsafe fn mask(bits: u32) -> u16 {
            bits as u16
        }

        #[inline(always)]
        unsafe fn of(x: f32) -> Self {
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(mask: u16, from: *const f32) -> Self {
            unsafe { _mm512_maskz_loadu_ps(mask, from) }
        }

        #[inline(always)]
        unsafe fn store(self, mask: u16, to: *mut f32) {
            unsafe { _mm512_mask_storeu_ps(to, mask, self) }
        }

        #[inline(always)]
        unsafe fn even(self, next: Self) -> Self {
            const EVEN: [u32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
            unsafe {
                let even = _mm512_loadu_si512(EVEN.as_ptr().cast());
                _mm512_permutex2var_ps(self, even, next)
            }
        }

        #[inline(always)]
        unsafe fn ordered(self) -> Self {
            self
        }

        #[inline(always)]
        unsafe fn times(self, by: Self, plus: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, by, plus) }
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn between(self, low: Self, high: Self) -> Self {
            // Of two numbers of which one is none, these give the second.
            unsafe { _mm512_min_ps(high, _mm512_max_ps(low, self)) }
        }
    }

    impl Register for __m256 {
        const LANES: usize = 8;
        type Mask = Lanes;

        #[inline(always)]
        unsafe fn mask(bits: u32) -> Lanes {
            unsafe { Lanes::of(bits as u8) }
        }

        #[inline(always)]
        unsafe fn of(x: f32) -> Self {
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(mask: Lanes, from: *const f32) -> Self {
            unsafe { mask.load(from) }
        }

        #[inline(always)]
        unsafe fn store(self, mask: Lanes, to: *mut f32) {
            unsafe { mask.store(to, self) }
        }

        #[inline(always)]
        unsafe fn even(self, next: Self) -> Self {
            // Of each half two of the one and two of the other.
            unsafe { _mm256_shuffle_ps::<0x88>(self, next) }
        }

        #[inline(always)]
        unsafe fn ordered(self) -> Self {
            unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(self))) }
        }

        #[inline(always)]
        unsafe fn times(self, by: Self, plus: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, by, plus) }
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn between(self, low: Self, high: Self) -> Self {
            unsafe { _mm256_min_ps(high, _mm256_max_ps(low, self)) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sixteens(
    x: &[f32],
    weight: &[f32],
    conv: &Conv2d,
    line: Line,
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    any_channel::<std::arch::x86_64::__m512>(x, weight, conv, line, residual, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn eights(
    x: &[f32],
    weight: &[f32],
    conv: &Conv2d,
    line: Line,
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    any_channel::<std::arch::x86_64::__m256>(x, weight, conv, line, residual, out);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn any_channel<R: Register>(
    x: &[f32],
    weight: &[f32],
    conv: &Conv2d,
    line: Line,
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    match (conv.kernel[1], conv.stride[1]) {
        (3, 1) => channel_of::<R, 3, 1>(x, weight, conv, line, residual, out),
        (3, _) => channel_of::<R, 3, 2>(x, weight, conv, line, residual, out),
        (5, 1) => channel_of::<R, 5, 1>(x, weight, conv, line, residual, out),
        (5, _) => channel_of::<R, 5, 2>(x, weight, conv, line, residual, out),
        (_, 1) => channel_of::<R, 7, 1>(x, weight, conv, line, residual, out),
        _ => channel_of::<R, 7, 2>(x, weight, conv, line, residual, out),
    }
}

/// One channel of one image, by `K` columns of weights; `STEP` is the stride.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(unsafe_code, reason = "registers of which some lanes are read and written")]
fn channel_of<R: Register, const K: usize, const STEP: usize>(
    x: &[f32],
    weight: &[f32],
    conv: &Conv2d,
    line: Line,
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    let ([height, width], [rows, cols]) = (conv.size, conv.out_size());
    assert!(x.len() == height * width && out.len() == rows * cols);
    assert!(weight.len() == conv.kernel[0] * K);
    assert!(residual.is_none_or(|residual| residual.len() == out.len()));
    let at = |col: usize, k: usize| {
        (col * STEP + k * conv.dilation[1]) as isize - conv.padding[1][0] as isize
    };
    let inside = |col: usize| {
        let end = at(col, K - 1) + (STEP * R::LANES) as isize;
        at(col, 0) >= 0 && end <= width as isize && col + R::LANES <= cols
    };
    // SAFETY: the callers are compiled for a CPU that has the register. Lanes of a mask of reads are on a row, which is inside
    // `x`, and those that are written in a row of `out` and of the residual.
    unsafe {
        // No closures around registers: they would be functions for any CPU.
        let mut channel = Channel::<R, K> {
            x,
            weight,
            conv,
            scale: R::of(line.scale),
            shift: R::of(line.shift),
            low: R::of(line.low),
            high: R::of(line.high),
            residual,
            out,
            cols,
        };
        // In the order of memory where all lanes are inside; then the edges, of which the masks are made once.
        let all = R::mask(u32::MAX);
        let mut row = 0;
        while row < rows {
            let together = channel.rows_together::<STEP>(row, rows);
            for col in (0..cols).step_by(R::LANES).filter(|col| inside(*col)) {
                let mut reads = [(0, all, all); K];
                for (k, reads) in reads.iter_mut().enumerate() {
                    reads.0 = at(col, k);
                }
                channel.rows::<STEP>(row, together, col, &reads, all);
            }
            row += together;
        }
        for col in (0..cols).step_by(R::LANES).filter(|col| !inside(*col)) {
            let mut reads = [(0, all, all); K];
            for (k, reads) in reads.iter_mut().enumerate() {
                let on = lanes(at(col, k), width);
                *reads = (at(col, k), R::mask(on), R::mask(on >> R::LANES));
            }
            let written = R::mask(lanes(0, cols - col));
            let mut row = 0;
            while row < rows {
                let together = channel.rows_together::<STEP>(row, rows);
                channel.rows::<STEP>(row, together, col, &reads, written);
                row += together;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Channel<'a, R, const K: usize> {
    x: &'a [f32],
    weight: &'a [f32],
    conv: &'a Conv2d,
    scale: R,
    shift: R,
    low: R,
    high: R,
    residual: Option<&'a [f32]>,
    out: &'a mut [f32],
    /// Of `out`.
    cols: usize,
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "registers of which some lanes are read and written")]
impl<R: Register, const K: usize> Channel<'_, R, K> {
    /// A register of the output. `reads` say where each column of the kernel reads from a row, and which lanes of two registers
    /// are on it.
    #[inline(always)]
    unsafe fn one<const STEP: usize>(
        &mut self,
        row: usize,
        col: usize,
        reads: &[(isize, R::Mask, R::Mask); K],
        written: R::Mask,
    ) {
        let conv = self.conv;
        let [height, width] = conv.size;
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = R::of(0.0);
            for (k, weight) in self.weight.as_chunks::<K>().0.iter().enumerate() {
                let from = row * conv.stride[0] + k * conv.dilation[0];
                let from = from.wrapping_sub(conv.padding[0][0]);
                if from >= height {
                    continue; // above the image or below
                }
                let from = self.x[from * width..].as_ptr();
                for ((at, first, second), weight) in reads.iter().zip(weight) {
                    let from = from.wrapping_offset(*at);
                    let mut pixels = R::load(*first, from);
                    if STEP > 1 {
                        let next = R::load(*second, from.wrapping_add(R::LANES));
                        pixels = pixels.even(next);
                    }
                    sum = pixels.times(R::of(*weight), sum);
                }
            }
            self.write::<STEP>(sum, row, col, written);
        }
    }

    /// Registers of as many rows as [`Self::rows_together`] says.
    #[inline(always)]
    unsafe fn rows<const STEP: usize>(
        &mut self,
        row: usize,
        together: usize,
        col: usize,
        reads: &[(isize, R::Mask, R::Mask); K],
        written: R::Mask,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match together {
                TOGETHER => self.several::<STEP>(row, col, reads, written),
                _ => self.one::<STEP>(row, col, reads, written),
            }
        }
    }

    /// [`TOGETHER`] if so many rows of the output from `row` on are [`Self::several`]'s, else 1.
    fn rows_together<const STEP: usize>(&self, row: usize, rows: usize) -> usize {
        let Conv2d { size, kernel, stride, dilation, padding, .. } = self.conv;
        let end = (row + TOGETHER - 1) * STEP + K;
        let inside = row * STEP >= padding[0][0] && end <= size[0] + padding[0][0];
        let plain = K == 3 && kernel[0] == K && stride[0] == STEP && dilation[0] == 1;
        if plain && inside && row + TOGETHER <= rows { TOGETHER } else { 1 }
    }

    /// As [`Self::one`], for [`TOGETHER`] rows that read none above or below the image.
    #[inline(always)]
    unsafe fn several<const STEP: usize>(
        &mut self,
        row: usize,
        col: usize,
        reads: &[(isize, R::Mask, R::Mask); K],
        written: R::Mask,
    ) {
        let (width, top) = (self.conv.size[1], row * STEP - self.conv.padding[0][0]);
        // SAFETY: the caller's promise.
        unsafe {
            let mut weights = [[self.low; K]; K];
            for (weights, row) in weights.iter_mut().zip(self.weight.as_chunks::<K>().0) {
                for (weight, x) in weights.iter_mut().zip(row) {
                    *weight = R::of(*x);
                }
            }
            let mut sums = [R::of(0.0); TOGETHER];
            for i in 0..(TOGETHER - 1) * STEP + K {
                let from = self.x[(top + i) * width..].as_ptr();
                if STEP > 1 {
                    // The rows to come, of a large image.
                    prefetch(from.wrapping_add(TOGETHER * STEP * width + col * STEP));
                }
                for (k, (at, first, second)) in reads.iter().enumerate() {
                    let from = from.wrapping_offset(*at);
                    let mut pixels = R::load(*first, from);
                    if STEP > 1 {
                        let next = R::load(*second, from.wrapping_add(R::LANES));
                        pixels = pixels.even(next);
                    }
                    for (r, sum) in sums.iter_mut().enumerate() {
                        if (r * STEP..r * STEP + K).contains(&i) {
                            *sum = pixels.times(weights[i - r * STEP][k], *sum);
                        }
                    }
                }
            }
            for (r, sum) in sums.into_iter().enumerate() {
                self.write::<STEP>(sum, row + r, col, written);
            }
        }
    }

    /// What becomes of a register of sums.
    #[inline(always)]
    unsafe fn write<const STEP: usize>(
        &mut self,
        sum: R,
        row: usize,
        col: usize,
        written: R::Mask,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = if STEP > 1 { sum.ordered() } else { sum };
            let mut y = sum.times(self.scale, self.shift);
            let at = row * self.cols + col;
            if let Some(residual) = self.residual {
                y = y.plus(R::load(written, residual[at..].as_ptr()));
            }
            y.between(self.low, self.high).store(written, self.out[at..].as_mut_ptr());
        }
    }
}

/// Asks for the line of a number that is read soon.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(unsafe_code, reason = "a prefetch reads nothing")]
fn prefetch(from: *const f32) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
}

/// Which of 32 places from `at` on are within a row of `width`.
fn lanes(at: isize, width: usize) -> u32 {
    let first = (-at).clamp(0, 32);
    let end = (width as isize - at).clamp(first, 32);
    ((1u64 << end) - (1u64 << first)) as u32
}
