//! Tiles of 6 rows and 64 columns: 24 sums of an AVX-512 register each, of which there are 32.

#![expect(unsafe_code, reason = "checks in these loops would cost much of their speed")]

use std::{arch::x86_64::*, array, mem::transmute};

use super::{
    COLS, LANES,
    panels::{DEPTH, Finish, From, Instructions, Tile},
};

/// In f32.
pub(super) struct Single;

/// In bf16, by `avx512_bf16`.
pub(super) struct Half;

impl Instructions for Single {
    const COLS: usize = COLS;
    const DEPTH: usize = DEPTH;
    const LEFT: [usize; 2] = [DEPTH, 1];
    const PAIR: usize = 1;

    fn reads(a: From, _: usize) -> bool {
        a.col == 1 || a.row != 1
    }

    unsafe fn left(from: From, rows: usize, depth: usize, to: *mut f32) {
        unsafe { turn(from, rows, depth, to) }
    }

    unsafe fn right(from: From, depth: usize, width: usize, panel: *mut f32) {
        unsafe { pack(from, depth, width, panel) }
    }

    unsafe fn tile(tile: Tile, vectors: usize, rows: usize) {
        unsafe { single::tile(tile, vectors, rows) }
    }
}

impl Instructions for Half {
    const COLS: usize = COLS;
    const DEPTH: usize = DEPTH;
    const LEFT: [usize; 2] = [DEPTH, 1];
    const PAIR: usize = 2;

    fn reads(_: From, _: usize) -> bool {
        false
    }

    unsafe fn left(from: From, rows: usize, depth: usize, to: *mut f32) {
        unsafe { pair::<true>(from, rows, depth, to, DEPTH) }
    }

    unsafe fn right(from: From, depth: usize, width: usize, panel: *mut f32) {
        let stride = width.next_multiple_of(LANES);
        unsafe { pair::<false>(from.turned(), width, depth, panel, stride) }
    }

    unsafe fn tile(tile: Tile, vectors: usize, rows: usize) {
        unsafe { half::tile(tile, vectors, rows) }
    }
}

/// A block of the left matrix whose columns lie in one piece, to rows of `DEPTH` in one piece.
#[target_feature(enable = "avx512f")]
unsafe fn turn(from: From, rows: usize, depth: usize, to: *mut f32) {
    for row in (0..rows).step_by(LANES) {
        for k in (0..depth).step_by(LANES) {
            let (rows, depth) = (LANES.min(rows - row), LANES.min(depth - k));
            let to = to.wrapping_add(row * DEPTH + k);
            // SAFETY: `to` has whole registers of `DEPTH` numbers for whole registers of rows.
            unsafe { transpose(from.at(row, k), rows, depth, to, DEPTH) };
        }
    }
}

/// The innermost loop, where `$step(x, cols, sum)` adds to the lanes of `sum`.
macro_rules! kernel {
    ($name:ident, $features:literal, $step:expr) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn tile(tile: Tile, vectors: usize, rows: usize) {
                unsafe {
                    match vectors {
                        1 => rows_of::<1>(tile, rows),
                        2 => rows_of::<2>(tile, rows),
                        3 => rows_of::<3>(tile, rows),
                        _ => rows_of::<4>(tile, rows),
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn rows_of<const V: usize>(tile: Tile, rows: usize) {
                unsafe {
                    match rows {
                        1 => multiply::<V, 1>(tile),
                        2 => multiply::<V, 2>(tile),
                        3 => multiply::<V, 3>(tile),
                        4 => multiply::<V, 4>(tile),
                        5 => multiply::<V, 5>(tile),
                        _ => multiply::<V, 6>(tile),
                    }
                }
            }

            /// `R` rows times `V` registers of columns.
            #[target_feature(enable = $features)]
            unsafe fn multiply<const V: usize, const R: usize>(tile: Tile) {
                let Tile { a, panel, depth, mut next, .. } = tile;
                tile.expect(R, V);
                let rows: [*const f32; R] = array::from_fn(|r| a.data.wrapping_add(r * a.row));
                let mut sums = [[_mm512_setzero_ps(); V]; R];
                let (mut at, mut b) = (0, panel);
                for k in 0..depth {
                    if k % LANES == 0 {
                        next.fetch();
                    }
                    unsafe {
                        let mut cols = [_mm512_setzero_ps(); V];
                        for (v, cols) in cols.iter_mut().enumerate() {
                            *cols = _mm512_load_ps(b.add(v * LANES));
                        }
                        for r in 0..R {
                            let x = _mm512_set1_ps(*rows[r].add(at));
                            for v in 0..V {
                                sums[r][v] = $step(x, cols[v], sums[r][v]);
                            }
                        }
                        b = b.add(V * LANES);
                    }
                    at += a.col;
                }
                unsafe {
                    match tile.finish {
                        None => tile.write(sums),
                        Some(finish) => {
                            let stored = sums;
                            finish.write(tile, stored.as_ptr().cast(), R, V);
                        }
                    }
                }
            }
        }
    };
}

/// Lanes of two numbers each.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(x: __m512) -> __m512bh {
    // SAFETY: the same bits.
    unsafe { transmute::<__m512, __m512bh>(x) }
}

kernel!(single, "avx512f", |x, cols, sum| _mm512_fmadd_ps(x, cols, sum));
kernel!(half, "avx512f,avx512bf16", |x, cols, sum| {
    _mm512_dpbf16_ps(sum, pairs(x), pairs(cols))
});

impl Tile {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn write<const V: usize, const R: usize>(&self, sums: [[__m512; V]; R]) {
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let mask = if v + 1 == V { self.mask } else { u16::MAX };
                let at = self.out.wrapping_add(r * self.out_row + v * LANES);
                let mut sum = *sum;
                unsafe {
                    if self.add {
                        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, at));
                    }
                    if !self.bias.is_null() {
                        let bias = self.bias.wrapping_add(v * LANES);
                        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, bias));
                    }
                    _mm512_mask_storeu_ps(at, mask, sum);
                }
            }
        }
    }
}

impl Finish {
    /// Writes `rows` times `vectors` sums. Not a part of the loop that adds them up: there they would no longer
    /// stay in registers.
    #[inline(never)]
    #[target_feature(enable = "avx512f")]
    unsafe fn write(self, tile: Tile, sums: *const __m512, rows: usize, vectors: usize) {
        let (low, high) = (_mm512_set1_ps(self.low), _mm512_set1_ps(self.high));
        for r in 0..rows {
            // SAFETY: what is not null has a number for every row and lane of the tile, as `out` has.
            unsafe {
                let scale = if self.scale.is_null() { 1.0 } else { *self.scale.add(r) };
                let shift = if self.shift.is_null() { 0.0 } else { *self.shift.add(r) };
                let (scale, shift) = (_mm512_set1_ps(scale), _mm512_set1_ps(shift));
                for v in 0..vectors {
                    let mask = if v + 1 == vectors { tile.mask } else { u16::MAX };
                    let at = tile.out.wrapping_add(r * tile.out_row + v * LANES);
                    let mut x = *sums.add(r * vectors + v);
                    if tile.add {
                        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, at));
                    }
                    x = _mm512_fmadd_ps(x, scale, shift);
                    if !self.residual.is_null() {
                        let from = self.residual.wrapping_add(r * self.residual_row + v * LANES);
                        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, from));
                    }
                    // Of two numbers of which one is none, these give the second.
                    let x = _mm512_min_ps(high, _mm512_max_ps(low, x));
                    _mm512_mask_storeu_ps(at, mask, x);
                }
            }
        }
    }
}

/// `rows` rows of `depth` numbers, to bf16 and two to a lane, an odd one with a zero: `to` holds a row every
/// `stride` lanes, or, unless `BY_ROW`, a pair of every row every `stride` lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pair<const BY_ROW: bool>(
    from: From,
    rows: usize,
    depth: usize,
    to: *mut f32,
    stride: usize,
) {
    for row in (0..rows).step_by(LANES) {
        let rows = LANES.min(rows - row);
        for k in (0..depth).step_by(2 * LANES) {
            let depth = (2 * LANES).min(depth - k);
            let from = from.at(row, k);
            let mut x = [_mm512_setzero_ps(); LANES];
            // SAFETY: lanes behind the rows and the depth are neither read nor written, but for whole registers
            // of `to`, which has them.
            unsafe {
                let by_row = from.col == 1;
                if by_row {
                    for (r, x) in x.iter_mut().enumerate().take(rows) {
                        let row = from.at(r, 0).data;
                        let (low, high) = (mask(depth), mask(depth.saturating_sub(LANES)));
                        let low = _mm512_maskz_loadu_ps(low, row);
                        let high = _mm512_maskz_loadu_ps(high, row.wrapping_add(LANES));
                        *x = transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
                    }
                } else {
                    for (pair, x) in x.iter_mut().enumerate().take(depth.div_ceil(2)) {
                        let column = |k: usize| match k < depth {
                            true => gather(from.at(0, k), rows),
                            false => _mm512_setzero_ps(),
                        };
                        let (low, high) = (column(2 * pair), column(2 * pair + 1));
                        let both = _mm512_cvtne2ps_pbh(high, low);
                        *x = interleave(transmute::<__m512bh, __m512i>(both));
                    }
                }
                if by_row != BY_ROW {
                    x = turned(x);
                }
                let count = if BY_ROW { rows } else { depth.div_ceil(2) };
                let to = match BY_ROW {
                    true => to.wrapping_add(row * stride + k / 2),
                    false => to.wrapping_add(k / 2 * stride + row),
                };
                for (i, x) in x.iter().enumerate().take(count) {
                    _mm512_storeu_ps(to.add(i * stride), *x);
                }
            }
        }
    }
}

fn mask(lanes: usize) -> u16 {
    match lanes {
        0 => 0,
        lanes => u16::MAX >> (LANES - lanes.min(LANES)),
    }
}

/// The first column of up to sixteen rows.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather(from: From, rows: usize) -> __m512 {
    if from.row == 1 {
        return unsafe { _mm512_maskz_loadu_ps(mask(rows), from.data) };
    }
    let mut x = [0.0; LANES];
    for (r, x) in x.iter_mut().enumerate().take(rows) {
        *x = unsafe { *from.at(r, 0).data };
    }
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// The first and the second half of 32 numbers of 16 bits, by turns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleave(x: __m512i) -> __m512 {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, x))
}

/// `depth x width` numbers to whole registers a row; the lanes behind `width` hold anything finite or not, as
/// nothing of them is written.
#[target_feature(enable = "avx512f")]
unsafe fn pack(from: From, depth: usize, width: usize, panel: *mut f32) {
    let vectors = width.div_ceil(LANES);
    let stride = vectors * LANES;
    let mask = u16::MAX >> (stride - width);
    unsafe {
        if from.col == 1 {
            for k in 0..depth {
                let (row, to) = (from.data.add(k * from.row), panel.add(k * stride));
                for v in 0..vectors {
                    let mask = if v + 1 == vectors { mask } else { u16::MAX };
                    let x = _mm512_maskz_loadu_ps(mask, row.wrapping_add(v * LANES));
                    _mm512_store_ps(to.add(v * LANES), x);
                }
            }
        } else if from.row == 1 {
            for col in (0..width).step_by(LANES) {
                let cols = LANES.min(width - col);
                for k in (0..depth).step_by(LANES) {
                    let from = from.at(k, col);
                    let to = panel.add(k * stride + col);
                    transpose(from, LANES.min(depth - k), cols, to, stride);
                }
            }
        } else {
            for k in 0..depth {
                for c in 0..width {
                    *panel.add(k * stride + c) = *from.at(k, c).data;
                }
            }
        }
    }
}

/// Up to sixteen columns, each in one piece, to as many whole registers as there are rows.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose(from: From, rows: usize, cols: usize, to: *mut f32, stride: usize) {
    let mask = u16::MAX >> (LANES - rows);
    let mut x: [__m512; LANES] = [_mm512_setzero_ps(); LANES];
    for (c, x) in x.iter_mut().enumerate().take(cols) {
        *x = unsafe { _mm512_maskz_loadu_ps(mask, from.data.wrapping_add(c * from.col)) };
    }
    for (k, y) in turned(x).iter().enumerate().take(rows) {
        unsafe { _mm512_storeu_ps(to.add(k * stride), *y) };
    }
}

/// Sixteen columns as sixteen rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn turned(mut x: [__m512; LANES]) -> [__m512; LANES] {
    // Pairs of numbers, then fours, within each quarter of the registers; then the quarters.
    let mut y = x;
    for i in 0..8 {
        y[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    for i in 0..4 {
        for j in 0..2 {
            let low = _mm512_castps_pd(y[4 * i + j]);
            let high = _mm512_castps_pd(y[4 * i + j + 2]);
            x[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            x[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    // `x[4 i + j]` holds row `4 q + j` of columns `4 i ..` in quarter `q`.
    for j in 0..4 {
        let (a, b, c, d) = (x[j], x[4 + j], x[8 + j], x[12 + j]);
        let (ab_low, ab_high) =
            (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (cd_low, cd_high) =
            (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        y[j] = _mm512_shuffle_f32x4::<0x88>(ab_low, cd_low);
        y[8 + j] = _mm512_shuffle_f32x4::<0xdd>(ab_low, cd_low);
        y[4 + j] = _mm512_shuffle_f32x4::<0x88>(ab_high, cd_high);
        y[12 + j] = _mm512_shuffle_f32x4::<0xdd>(ab_high, cd_high);
    }
    y
}
