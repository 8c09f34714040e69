//! The innermost loops of a matrix product, for AVX-512: a panel of the right matrix, copied so that it lies in one
//! piece, times a few rows of the left one, which is read where it lies (Goto and van de Geijn 2008,
//! <https://doi.org/10.1145/1356052.1356053>).
//!
//! A panel is copied just before it is used, and while it is used the next one is fetched: the time of memory is
//! hidden behind the multiplications, so that a weight need not be kept in a second order.

use super::{Matrix, MatrixMut, Plus};

/// Columns of a panel.
pub(super) const COLS: usize = 64;
/// Rows of a tile: with [`COLS`], 24 sums of an AVX-512 register each, of which there are 32.
pub(super) const ROWS: usize = 6;
/// Rows of a panel.
const DEPTH: usize = 256;
/// Rows of the left matrix that stay in the core's own cache, half of it with [`DEPTH`].
const BLOCK: usize = 64 * ROWS;
/// Numbers of a register.
const LANES: usize = 16;

/// `out = a b + plus`, on this thread; `false` where this CPU cannot.
pub(super) fn product(out: &mut MatrixMut, plus: Plus, a: Matrix, b: Matrix) -> bool {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") {
        assert!(a.rows == out.rows && b.cols == out.cols && a.cols == b.rows);
        if let Plus::Bias(bias) = plus {
            assert_eq!(bias.len(), out.cols);
        }
        #[expect(unsafe_code, reason = "a function of a wider instruction set")]
        // SAFETY: the CPU has AVX-512. Every index below the three sizes is inside its data, as `Matrix::strided` and
        // `MatrixMut::strided` check; `out` is borrowed alone.
        unsafe {
            avx512::product(out, plus, a, b);
        }
        return true;
    }
    let _ = (out, plus, a, b);
    false
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "checks in these loops would cost much of their speed")]
mod avx512 {
    use std::{arch::x86_64::*, array, cell::UnsafeCell};

    use super::{BLOCK, COLS, DEPTH, LANES, Matrix, MatrixMut, Plus, ROWS};

    #[repr(align(64))]
    struct Panel([f32; DEPTH * COLS]);

    struct Buffers {
        panel: Box<Panel>,
        /// Of a left matrix whose rows do not lie in one piece.
        block: Vec<f32>,
    }

    thread_local! {
        static BUFFERS: UnsafeCell<Buffers> = UnsafeCell::new(Buffers {
            panel: Box::new(Panel([0.0; DEPTH * COLS])),
            block: vec![],
        });
    }

    /// Where a number is read and how far it is to the next row and the next column.
    #[derive(Clone, Copy)]
    struct From {
        data: *const f32,
        row: usize,
        col: usize,
    }

    impl From {
        fn of(x: Matrix) -> Self {
            Self { data: x.data.as_ptr(), row: x.row_stride, col: x.col_stride }
        }

        fn at(self, row: usize, col: usize) -> Self {
            Self { data: self.data.wrapping_add(row * self.row + col * self.col), ..self }
        }
    }

    /// What a tile is multiplied from and written to.
    #[derive(Clone, Copy)]
    struct Tile {
        a: From,
        panel: *const f32,
        depth: usize,
        out: *mut f32,
        out_row: usize,
        /// Lanes of the last register of each row.
        mask: u16,
        /// A number a column, or null.
        bias: *const f32,
        /// Is `out` itself added?
        add: bool,
        next: Ahead,
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn product(out: &mut MatrixMut, plus: Plus, a: Matrix, b: Matrix) {
        // SAFETY: no other borrow of this thread's buffers is alive: nothing below calls back.
        let buffers = BUFFERS.with(|buffers| unsafe { &mut *buffers.get() });
        let (panel, block) = (buffers.panel.0.as_mut_ptr(), &mut buffers.block);
        let (rows, cols, depth) = (a.rows, b.cols, a.cols);
        let (a, b) = (From::of(a), From::of(b));
        for row in (0..rows).step_by(BLOCK) {
            let rows = BLOCK.min(rows - row);
            // At least once, to write what is added to nothing.
            for first in (0..depth.max(1)).step_by(DEPTH) {
                let depth = DEPTH.min(depth - first);
                let mut a = a.at(row, first);
                if a.col != 1 && a.row == 1 {
                    block.resize(BLOCK * DEPTH, 0.0);
                    unsafe { turn(a, rows, depth, block.as_mut_ptr()) };
                    a = From { data: block.as_ptr(), row: DEPTH, col: 1 };
                }
                for col in (0..cols).step_by(COLS) {
                    let width = COLS.min(cols - col);
                    let vectors = width.div_ceil(LANES);
                    unsafe { pack(b.at(first, col), depth, width, panel) };
                    let tiles = rows.div_ceil(ROWS);
                    let mut next = match col + COLS < cols {
                        true => {
                            let width = COLS.min(cols - col - COLS);
                            Ahead::new(b.at(first, col + COLS), depth, width, tiles)
                        }
                        false => Ahead::NOTHING,
                    };
                    let bias = match plus {
                        Plus::Bias(bias) if first == 0 => bias[col..].as_ptr(),
                        _ => std::ptr::null(),
                    };
                    for i in (0..rows).step_by(ROWS) {
                        let tile = Tile {
                            a: a.at(i, 0),
                            panel,
                            depth,
                            out: out.data.wrapping_add((row + i) * out.row_stride + col),
                            out_row: out.row_stride,
                            mask: u16::MAX >> (vectors * LANES - width),
                            bias,
                            add: first > 0 || matches!(plus, Plus::Itself),
                            next,
                        };
                        let rows = ROWS.min(rows - i);
                        // SAFETY: the tile is inside `out`, and what it reads inside `a` and the panel.
                        unsafe {
                            match vectors {
                                1 => rows_of::<1>(tile, rows),
                                2 => rows_of::<2>(tile, rows),
                                3 => rows_of::<3>(tile, rows),
                                _ => rows_of::<4>(tile, rows),
                            }
                        }
                        next = next.after(depth.div_ceil(LANES));
                    }
                }
            }
        }
    }

    /// What is fetched meanwhile: pieces of `length` numbers, one every `stride`, until none is `left`.
    #[derive(Clone, Copy)]
    struct Ahead {
        data: *const f32,
        left: usize,
        length: usize,
        stride: usize,
        /// Pieces at a time, with each sixteen rows of a panel.
        pieces: usize,
    }

    impl Ahead {
        const NOTHING: Self =
            Self { data: std::ptr::null(), left: 0, length: 0, stride: 0, pieces: 0 };

        /// Of a panel, during `tiles` tiles.
        fn new(from: From, depth: usize, width: usize, tiles: usize) -> Self {
            let From { data, row, col } = from;
            let (left, length, stride) =
                if col == 1 { (depth, width, row) } else { (width, depth, col) };
            let times = tiles * depth.div_ceil(LANES).max(1);
            Self { data, left, length, stride, pieces: left.div_ceil(times) }
        }

        #[inline(always)]
        fn fetch(&mut self) {
            let pieces = self.pieces.min(self.left);
            for piece in 0..pieces {
                let piece = self.data.wrapping_add(piece * self.stride);
                for at in (0..self.length).step_by(LANES) {
                    // SAFETY: a prefetch reads nothing.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(piece.wrapping_add(at).cast()) };
                }
            }
            *self = self.after(1);
        }

        /// Behind what `times` calls of [`Self::fetch`] fetch.
        #[inline(always)]
        fn after(self, times: usize) -> Self {
            let pieces = (times * self.pieces).min(self.left);
            let data = self.data.wrapping_add(pieces * self.stride);
            Self { data, left: self.left - pieces, ..self }
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

    #[inline]
    #[target_feature(enable = "avx512f")]
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
    #[target_feature(enable = "avx512f")]
    unsafe fn multiply<const V: usize, const R: usize>(tile: Tile) {
        let Tile { a, panel, depth, out, out_row, mask, bias, add, mut next } = tile;
        for r in 0..R {
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T0>(out.wrapping_add(r * out_row + v * LANES).cast());
            }
        }
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
                        sums[r][v] = _mm512_fmadd_ps(x, cols[v], sums[r][v]);
                    }
                }
                b = b.add(V * LANES);
            }
            at += a.col;
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let mask = if v + 1 == V { mask } else { u16::MAX };
                let at = out.wrapping_add(r * out_row + v * LANES);
                let mut sum = *sum;
                unsafe {
                    if add {
                        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, at));
                    }
                    if !bias.is_null() {
                        let bias = bias.wrapping_add(v * LANES);
                        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, bias));
                    }
                    _mm512_mask_storeu_ps(at, mask, sum);
                }
            }
        }
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
        for (k, y) in y.iter().enumerate().take(rows) {
            unsafe { _mm512_storeu_ps(to.add(k * stride), *y) };
        }
    }
}
