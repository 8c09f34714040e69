//! Tiles of 6 rows and 16 columns: 12 sums of an AVX2 register each, of which there are 16.

#![expect(unsafe_code, reason = "checks in these loops would cost much of their speed")]
#![expect(clippy::needless_range_loop, reason = "rows index sums and addresses")]

use std::{arch::x86_64::*, array};

use super::{
    LANES, ROWS, Runs,
    panels::{Ahead, DEPTH, Finish, From, Instructions, Right, Tile},
};
use crate::lanes::Lanes;

/// Lanes of a register.
const EIGHT: usize = 8;
/// Columns that are too few for a copy of the rows.
const FEW: usize = 128;
/// Registers of a panel's row.
const V: usize = LANES / EIGHT;

pub(super) struct Single;

impl Instructions for Single {
    const COLS: usize = LANES;
    const DEPTH: usize = DEPTH;
    /// The rows of a tile lie side by side.
    const LEFT: [usize; 2] = [1, ROWS];
    const PAIR: usize = 1;

    fn reads(a: From, cols: usize) -> bool {
        a.col == 1 && cols <= FEW
    }

    unsafe fn left(from: From, rows: usize, depth: usize, to: *mut f32) {
        for row in (0..rows).step_by(ROWS) {
            let rows = ROWS.min(rows - row);
            // SAFETY: the caller's promise.
            unsafe { side_by_side(from.at(row, 0), rows, depth, to.wrapping_add(row * DEPTH)) };
        }
    }

    unsafe fn right(from: From, depth: usize, width: usize, panel: *mut f32) {
        unsafe { pack(from, depth, width, panel) }
    }

    unsafe fn tile(tile: Tile, _: usize, rows: usize) {
        unsafe {
            let few = tile.mask <= u8::MAX.into();
            match (tile.a.col, few) {
                (ROWS, false) => rows_of::<ROWS, V>(tile, rows),
                (ROWS, true) => rows_of::<ROWS, 1>(tile, rows),
                (_, false) => rows_of::<1, V>(tile, rows),
                (_, true) => rows_of::<1, 1>(tile, rows),
            }
        }
    }
}

impl Right<Single> for Runs<'_> {
    unsafe fn copy(self, first: [usize; 2], depth: usize, width: usize, panel: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { gather(self, first, depth, width, panel) }
    }

    /// They were just written.
    fn ahead(self, _: [usize; 2], _: usize, _: usize, _: usize) -> Ahead {
        Ahead::NOTHING
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn rows_of<const COL: usize, const V: usize>(tile: Tile, rows: usize) {
    unsafe {
        match rows {
            1 => multiply::<1, COL, V>(tile),
            2 => multiply::<2, COL, V>(tile),
            3 => multiply::<3, COL, V>(tile),
            4 => multiply::<4, COL, V>(tile),
            5 => multiply::<5, COL, V>(tile),
            _ => multiply::<6, COL, V>(tile),
        }
    }
}

/// `R` rows, whose numbers are `COL` apart, times `V` registers of columns.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const R: usize, const COL: usize, const V: usize>(tile: Tile) {
    tile.expect(R, 1);
    // SAFETY: the caller's promise.
    unsafe {
        let sums = sums::<R, COL, V>(tile);
        match tile.finish {
            None => write(tile, sums),
            Some(finish) => finished(finish, tile, sums.as_ptr().cast(), [R, V]),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums<const R: usize, const COL: usize, const V: usize>(tile: Tile) -> [[__m256; V]; R] {
    let Tile { a, panel, depth, mut next, .. } = tile;
    // At once: in the loop it would cost registers.
    (0..depth.div_ceil(LANES)).for_each(|_| next.fetch());
    let row = if COL == ROWS { 1 } else { a.row };
    let mut sums = [[_mm256_setzero_ps(); V]; R];
    let (mut x, mut b) = (a.data, panel);
    for _ in 0..depth {
        // SAFETY: the numbers are inside the panel and the rows.
        unsafe {
            let cols: [__m256; V] = array::from_fn(|v| _mm256_load_ps(b.add(v * EIGHT)));
            for r in 0..R {
                let x = _mm256_broadcast_ss(&*x.add(r * row));
                for v in 0..V {
                    sums[r][v] = _mm256_fmadd_ps(x, cols[v], sums[r][v]);
                }
            }
        }
        (x, b) = (x.wrapping_add(COL), b.wrapping_add(LANES));
    }
    sums
}

/// Up to six rows of `depth` numbers, one after the other for each of the columns.
#[target_feature(enable = "avx2")]
unsafe fn side_by_side(from: From, rows: usize, depth: usize, to: *mut f32) {
    let whole = if from.col == 1 && rows == ROWS { depth - depth % EIGHT } else { 0 };
    // SAFETY: what is read is inside the matrix, and `to` holds six rows.
    unsafe {
        for k in (0..whole).step_by(EIGHT) {
            let x = array::from_fn(|r| _mm256_loadu_ps(from.at(r.min(ROWS - 1), k).data));
            for (i, x) in turned(x).into_iter().enumerate() {
                let to = to.add((k + i) * ROWS);
                _mm_storeu_ps(to, _mm256_castps256_ps128(x));
                _mm_storel_pd(to.add(4).cast(), _mm_castps_pd(_mm256_extractf128_ps::<1>(x)));
            }
        }
        for k in whole..depth {
            (0..rows).for_each(|r| *to.add(k * ROWS + r) = *from.at(r, k).data);
        }
    }
}

/// Those of each register of a row.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(mask: u16) -> [Lanes; V] {
    array::from_fn(|v| Lanes::of((mask >> (v * EIGHT)) as u8))
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn write<const R: usize, const V: usize>(tile: Tile, sums: [[__m256; V]; R]) {
    let lanes = lanes(tile.mask);
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let at = tile.out.wrapping_add(r * tile.out_row + v * EIGHT);
            let mut sum = *sum;
            // SAFETY: the lanes are inside `out` and the bias.
            unsafe {
                if tile.add {
                    sum = _mm256_add_ps(sum, lanes[v].load(at));
                }
                if !tile.bias.is_null() {
                    let bias = tile.bias.wrapping_add(v * EIGHT);
                    sum = _mm256_add_ps(sum, lanes[v].load(bias));
                }
                lanes[v].store(at, sum);
            }
        }
    }
}

/// Writes so many rows of so many registers of sums. Not a part of the loop that adds them up: there they would no longer stay in
/// registers.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn finished(finish: Finish, tile: Tile, sums: *const __m256, [rows, registers]: [usize; 2]) {
    let (low, high) = (_mm256_set1_ps(finish.low), _mm256_set1_ps(finish.high));
    let lanes = lanes(tile.mask);
    for r in 0..rows {
        // SAFETY: what is not null has a number for every row and lane of the tile, as `out` has.
        unsafe {
            let scale = if finish.scale.is_null() { 1.0 } else { *finish.scale.add(r) };
            let shift = if finish.shift.is_null() { 0.0 } else { *finish.shift.add(r) };
            let (scale, shift) = (_mm256_set1_ps(scale), _mm256_set1_ps(shift));
            for (v, lanes) in lanes.iter().take(registers).enumerate() {
                let at = tile.out.wrapping_add(r * tile.out_row + v * EIGHT);
                let mut x = *sums.add(r * registers + v);
                if tile.add {
                    x = _mm256_add_ps(x, lanes.load(at));
                }
                x = _mm256_fmadd_ps(x, scale, shift);
                if !finish.residual.is_null() {
                    let from = finish.residual.wrapping_add(r * finish.residual_row + v * EIGHT);
                    x = _mm256_add_ps(x, lanes.load(from));
                }
                // Of two numbers of which one is none, these give the second.
                lanes.store(at, _mm256_min_ps(high, _mm256_max_ps(low, x)));
            }
        }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn pack(from: From, depth: usize, width: usize, panel: *mut f32) {
    // SAFETY: what is read is inside the matrix, and the panel has sixteen lanes a row.
    unsafe {
        if from.row == 1 && from.col != 1 {
            return turn(from, depth, width, panel, LANES);
        }
        for k in 0..depth {
            let (row, to) = (from.at(k, 0), panel.add(k * LANES));
            if from.col == 1 && width == LANES {
                for v in 0..V {
                    _mm256_store_ps(to.add(v * EIGHT), _mm256_loadu_ps(row.data.add(v * EIGHT)));
                }
            } else {
                (0..width).for_each(|c| *to.add(c) = *row.at(0, c).data);
            }
        }
    }
}

/// Up to sixteen pixels from column `col` on, of `depth` runs. What is copied behind the end of a row is written over by the
/// next row; behind the last, the panel goes on for a register.
#[target_feature(enable = "avx2")]
unsafe fn gather(
    runs: Runs,
    [first, col]: [usize; 2],
    depth: usize,
    width: usize,
    panel: *mut f32,
) {
    let Runs { planes, starts, width: line, pitch, .. } = runs;
    // From where in a run, and to which lane: one for each row that the pixels are of.
    let (mut rows, mut count, mut lane) = ([(0, 0); LANES], 0, 0);
    while lane < width {
        let (row, at) = ((col + lane) / line, (col + lane) % line);
        rows[count] = (row * pitch + at, lane);
        (count, lane) = (count + 1, if pitch == line { width } else { lane + line - at });
    }
    let starts = &starts[first..][..depth];
    // SAFETY: sixteen numbers of every run are inside the planes, and sixteen lanes of every row inside the panel.
    unsafe {
        match &rows[..count] {
            [one] => copy(planes, starts, [*one], panel),
            [one, two] => copy(planes, starts, [*one, *two], panel),
            rows => copy(planes, starts, rows, panel),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn copy(
    planes: &[f32],
    starts: &[u32],
    rows: impl AsRef<[(usize, usize)]>,
    panel: *mut f32,
) {
    for (k, start) in starts.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let (run, to) = (planes.as_ptr().add(*start as usize), panel.add(k * LANES));
            for (from, lane) in rows.as_ref() {
                let (run, to) = (run.add(*from), to.add(*lane));
                let x: [__m256; V] = array::from_fn(|v| _mm256_loadu_ps(run.add(v * EIGHT)));
                (0..V).for_each(|v| _mm256_storeu_ps(to.add(v * EIGHT), x[v]));
            }
        }
    }
}

/// `rows` rows of `cols` numbers, whose columns lie in one piece each, to rows that do, one every `stride`.
#[target_feature(enable = "avx2")]
unsafe fn turn(from: From, rows: usize, cols: usize, to: *mut f32, stride: usize) {
    for row in (0..rows).step_by(EIGHT) {
        for col in (0..cols).step_by(EIGHT) {
            let (from, to) = (from.at(row, col), to.wrapping_add(row * stride + col));
            let (rows, cols) = (EIGHT.min(rows - row), EIGHT.min(cols - col));
            // SAFETY: the numbers are inside the matrix, and those behind them in `to` inside it or not written.
            unsafe {
                if rows == EIGHT && cols == EIGHT {
                    let x = array::from_fn(|c| _mm256_loadu_ps(from.at(0, c).data));
                    for (r, x) in turned(x).into_iter().enumerate() {
                        _mm256_storeu_ps(to.add(r * stride), x);
                    }
                } else {
                    for r in 0..rows {
                        (0..cols).for_each(|c| *to.add(r * stride + c) = *from.at(r, c).data);
                    }
                }
            }
        }
    }
}

/// Eight columns as eight rows.
#[inline]
#[target_feature(enable = "avx2")]
fn turned(x: [__m256; EIGHT]) -> [__m256; EIGHT] {
    // Pairs of numbers, then fours, within each half of the registers; then the halves.
    let mut y = x;
    for i in 0..4 {
        y[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    let mut z = x;
    for i in 0..2 {
        for j in 0..2 {
            let (low, high) = (y[4 * i + j], y[4 * i + j + 2]);
            z[4 * i + 2 * j] = _mm256_shuffle_ps::<0x44>(low, high);
            z[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(low, high);
        }
    }
    for i in 0..4 {
        y[i] = _mm256_permute2f128_ps::<0x20>(z[i], z[i + 4]);
        y[i + 4] = _mm256_permute2f128_ps::<0x31>(z[i], z[i + 4]);
    }
    y
}
