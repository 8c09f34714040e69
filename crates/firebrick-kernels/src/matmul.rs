//! Matrix products over strided views: by `tile` where the CPU has AVX-512 or AVX2, else by the `gemm` crate.
//!
//! Burn's flex backend runs a product below 7 M multiplications on one thread; here blocks are shared among threads,
//! so that small models use all of them. A few rows go to `matvec` instead.

mod tile;

pub(crate) use tile::{ROWS, Runs, by_avx2, product_of_runs};

use std::{cell::Cell, marker::PhantomData};

use gemm::Parallelism;
use rayon::prelude::*;

use crate::{
    affine::{Activation, Line},
    awake::keep_awake,
    cpu::prefetch,
    math::dot,
    matvec::{self, Weight},
};

/// Multiplications above which `gemm`, which also copies the left matrix, is faster by a tenth with AVX-512, if it need not
/// turn the right one. With AVX2 tiles remain a twentieth faster.
const LARGE: usize = 1 << 29;
/// Rows of the left matrix up to which copying the right one costs more than it brings.
const FEW: usize = 4;
/// Rows or columns asked for in advance.
const AHEAD: usize = 8;
/// Numbers of a weight that are widened at a time: 2 MB, what a core's own cache holds.
const PANEL: usize = 1 << 19;
/// Multiplications worth a task of their own.
const TASK: usize = 1 << 16;

/// How the products of [`matmul`] are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    #[default]
    F32,
    /// Factors of 8 bits of mantissa, sums of 24, on CPUs that multiply so (`avx512_bf16`); elsewhere as `F32`.
    Bf16,
}

impl Precision {
    /// Whether this CPU computes so.
    pub fn is_here(self) -> bool {
        self == Self::F32 || tile::multiplies_bf16()
    }

    /// Of this thread's products while `f` runs.
    pub fn during<T>(self, f: impl FnOnce() -> T) -> T {
        struct Before(Precision);
        impl Drop for Before {
            fn drop(&mut self) {
                PRECISION.set(self.0);
            }
        }
        let _before = Before(PRECISION.replace(self));
        f()
    }
}

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// `rows x cols` numbers in `data`, element `(r, c)` at `r * row_stride + c * col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// All of `data`, row by row.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    pub fn strided(
        data: &'a [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride, col_stride), "a matrix beyond its data");
        Self { data, rows, cols, row_stride, col_stride }
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }

    /// Of rows, of columns.
    pub(crate) fn strides(&self) -> (usize, usize) {
        (self.row_stride, self.col_stride)
    }
}

impl<'a> Matrix<'a> {
    /// Of a matrix whose rows lie in one piece each.
    pub(crate) fn row(&self, r: usize) -> &'a [f32] {
        &self.data[r * self.row_stride..][..self.cols]
    }

    pub(crate) fn block_of_rows(self, first: usize, rows: usize) -> Self {
        // Rows of no numbers lie nowhere.
        let start = if self.cols == 0 { 0 } else { first * self.row_stride };
        Self::strided(&self.data[start..], rows, self.cols, self.row_stride, self.col_stride)
    }

    pub(crate) fn block_of_cols(self, first: usize, cols: usize) -> Self {
        self.transposed().block_of_rows(first, cols).transposed()
    }
}

/// `rows x cols` numbers to write, a row at a time; its parts may go to several threads.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    /// Of the first number; row `r` is `cols` numbers at `r * row_stride`, and no one else's.
    data: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

#[expect(unsafe_code, reason = "a slice with holes is sent as a slice is")]
// SAFETY: the rows are borrowed alone, so it may go where `&mut [f32]` may.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// All of `data`, row by row.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    pub(crate) fn strided(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride, 1), "a matrix beyond its data");
        assert!(cols <= row_stride, "rows that overlap");
        Self { data: data.as_mut_ptr(), rows, cols, row_stride, borrowed: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// One row as a matrix of `cols` columns.
    pub(crate) fn folded(self, cols: usize) -> Self {
        assert!(self.rows == 1 && self.cols.is_multiple_of(cols));
        Self { rows: self.cols / cols, cols, row_stride: cols, ..self }
    }

    pub(crate) fn row(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows);
        #[expect(unsafe_code, reason = "a row of a matrix with holes between its rows")]
        // SAFETY: the row is inside the data, as `strided` checked, and borrowed alone.
        unsafe {
            std::slice::from_raw_parts_mut(self.data.wrapping_add(r * self.row_stride), self.cols)
        }
    }

    /// All rows.
    pub(crate) fn as_rows(&mut self) -> Vec<&mut [f32]> {
        let row = |r| {
            #[expect(unsafe_code, reason = "rows of a matrix with holes between them")]
            // SAFETY: as in `row`; no two of them share a number.
            unsafe {
                std::slice::from_raw_parts_mut(
                    self.data.wrapping_add(r * self.row_stride),
                    self.cols,
                )
            }
        };
        (0..self.rows).map(row).collect()
    }

    pub(crate) fn fill(&mut self, x: f32) {
        (0..self.rows).for_each(|r| self.row(r).fill(x));
    }

    /// `rows` rows from `first`, borrowed for a while.
    pub(crate) fn block_of_rows(&mut self, first: usize, rows: usize) -> MatrixMut<'_> {
        assert!(first + rows <= self.rows);
        MatrixMut { data: self.data.wrapping_add(first * self.row_stride), rows, ..*self }
    }

    /// Blocks of `rows` rows, the last one perhaps of fewer.
    pub(crate) fn into_blocks_of_rows(self, rows: usize) -> impl Iterator<Item = Self> {
        (0..self.rows).step_by(rows).map(move |first| Self {
            data: self.data.wrapping_add(first * self.row_stride),
            rows: rows.min(self.rows - first),
            ..self
        })
    }

    /// Blocks of `cols` columns, the last one perhaps of fewer.
    pub fn into_blocks_of_cols(self, cols: usize) -> impl Iterator<Item = Self> {
        (0..self.cols).step_by(cols).map(move |first| Self {
            data: self.data.wrapping_add(first),
            cols: cols.min(self.cols - first),
            ..self
        })
    }
}

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

/// What is added to a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plus<'a> {
    Nothing,
    /// A number a column.
    Bias(&'a [f32]),
    /// What `out` holds.
    Itself,
    Rows(Rows<'a>),
}

/// What becomes of the rows of a product that are channels, as [`crate::affine::Finish`] says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub scale: Option<&'a [f32]>,
    pub shift: Option<&'a [f32]>,
    /// Its rows lie in one piece each.
    pub residual: Option<Matrix<'a>>,
    pub activation: Activation,
}

impl Rows<'_> {
    pub(crate) fn line(&self, r: usize) -> Line {
        let scale = self.scale.map_or(1.0, |scale| scale[r]);
        let shift = self.shift.map_or(0.0, |shift| shift[r]);
        Line::new(scale, shift, self.activation)
    }

    /// In the place of the product.
    fn apply(&self, out: &mut MatrixMut) {
        for r in 0..out.rows {
            let line = self.line(r);
            for (c, x) in out.row(r).iter_mut().enumerate() {
                *x = line.of(*x, self.residual.map_or(0.0, |residual| residual.row(r)[c]));
            }
        }
    }
}

impl Plus<'_> {
    /// For some of the rows and columns.
    fn part(self, first: [usize; 2], [rows, cols]: [usize; 2]) -> Self {
        let [row, col] = first;
        match self {
            Self::Bias(bias) => Self::Bias(&bias[col..col + cols]),
            Self::Rows(all) => Self::Rows(Rows {
                scale: all.scale.map(|all| &all[row..row + rows]),
                shift: all.shift.map(|all| &all[row..row + rows]),
                residual: all.residual.map(|r| r.block_of_rows(row, rows).block_of_cols(col, cols)),
                ..all
            }),
            plus => plus,
        }
    }

    /// Whether there is something to add to before the product.
    fn starts(self) -> bool {
        matches!(self, Self::Bias(_) | Self::Itself)
    }

    /// What `out` holds, if it holds anything.
    pub(crate) fn itself(started: bool) -> Self {
        if started { Self::Itself } else { Self::Nothing }
    }
}

/// `out = a b + plus`, on this thread.
pub(crate) fn product(out: MatrixMut, plus: Plus, a: Matrix, b: Matrix) {
    product_in(Precision::F32, out, plus, a, b);
}

fn product_in(precision: Precision, mut out: MatrixMut, plus: Plus, a: Matrix, b: Matrix) {
    check_shapes(&out, &a, &b);
    if a.rows <= FEW && a.col_stride == 1 && matches!(plus, Plus::Nothing) {
        if b.row_stride == 1 {
            return dispatch_dots(out, a, b);
        }
        if b.col_stride == 1 {
            return dispatch_sums(out, a, b);
        }
    }
    if tile::product(&mut out, plus, a, b, precision) {
        return;
    }
    begin(&mut out, plus);
    let rows = out.rows;
    gemm(out.block_of_rows(0, rows), plus.starts(), a, b, Parallelism::None);
    if let Plus::Rows(rows) = plus {
        rows.apply(&mut out);
    }
}

/// What `gemm` adds to.
fn begin(out: &mut MatrixMut, plus: Plus) {
    if let Plus::Bias(bias) = plus {
        (0..out.rows).for_each(|r| out.row(r).copy_from_slice(bias));
    }
}

/// `out = a b` for few rows of `a`, whose time is that of reading `b`: once, as it lies. Here `b`'s columns lie in
/// one piece each.
#[inline(always)]
fn dots(mut out: MatrixMut, a: Matrix, b: Matrix) {
    check_shapes(&out, &a, &b);
    for c in 0..b.cols {
        let col = &b.data[c * b.col_stride..][..b.rows];
        if let Some(later) = b.data.get((c + AHEAD) * b.col_stride..) {
            prefetch(&later[..b.rows.min(later.len())]);
        }
        for r in 0..a.rows {
            out.row(r)[c] = dot(a.row(r), col);
        }
    }
}

/// As [`dots`] where `b`'s rows lie in one piece each.
#[inline(always)]
fn sums(mut out: MatrixMut, a: Matrix, b: Matrix) {
    check_shapes(&out, &a, &b);
    out.fill(0.0);
    let n = b.cols;
    let b_row = |k: usize| &b.data[k * b.row_stride..][..n];
    let whole = b.rows - b.rows % 4;
    for k in (0..whole).step_by(4) {
        let [b0, b1, b2, b3] = [b_row(k), b_row(k + 1), b_row(k + 2), b_row(k + 3)];
        for k in k + AHEAD..k + AHEAD + 4 {
            if let Some(later) = b.data.get(k * b.row_stride..) {
                prefetch(&later[..n.min(later.len())]);
            }
        }
        for r in 0..a.rows {
            let [a0, a1, a2, a3] = a.row(r)[k..].first_chunk().expect("four more");
            let out = &mut out.row(r)[..n];
            for i in 0..n {
                out[i] += (a0 * b0[i] + a1 * b1[i]) + (a2 * b2[i] + a3 * b3[i]);
            }
        }
    }
    for k in whole..b.rows {
        for r in 0..a.rows {
            let x = a.row(r)[k];
            out.row(r).iter_mut().zip(b_row(k)).for_each(|(out, b)| *out += x * b);
        }
    }
}

crate::for_this_cpu!(dispatch_dots = dots(out: MatrixMut, a: Matrix, b: Matrix));
crate::for_this_cpu!(dispatch_sums = sums(out: MatrixMut, a: Matrix, b: Matrix));

fn check_shapes(out: &MatrixMut, a: &Matrix, b: &Matrix) {
    assert_eq!(a.cols, b.rows);
    assert!(out.rows == a.rows && out.cols == b.cols, "a product in another shape");
}

/// `out = a b`, or `out += a b` if `add`.
pub(crate) fn gemm(out: MatrixMut, add: bool, a: Matrix, b: Matrix, by: Parallelism) {
    check_shapes(&out, &a, &b);
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    #[expect(unsafe_code, reason = "gemm takes pointers and strides")]
    // SAFETY: every index that the three sizes and strides reach is inside its data, as `Matrix::strided` and
    // `MatrixMut::strided` check. `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.data,
            1,
            out.row_stride as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            by,
        );
    }
}

/// `out = a b + bias`; `out` is `[a.rows, b.cols]` row by row, `bias` one number a column.
pub fn matmul(a: Matrix, b: Matrix, bias: Option<&[f32]>, out: &mut [f32]) {
    assert_eq!(out.len(), a.rows * b.cols);
    if let Some(bias) = bias {
        assert_eq!(bias.len(), b.cols);
    }
    if out.is_empty() {
        return;
    }
    if matvec::takes(&a, &b) {
        return matvec::matvec(a, b, bias, out);
    }
    let plus = bias.map_or(Plus::Nothing, Plus::Bias);
    share(MatrixMut::new(out, a.rows, b.cols), plus, a, b);
}

/// As [`shared_product`], in this thread's precision.
fn share(out: MatrixMut, plus: Plus, a: Matrix, b: Matrix) {
    let precision = match PRECISION.get() {
        precision if precision.is_here() => precision,
        _ => Precision::F32,
    };
    share_in(precision, out, plus, a, b);
}

/// [`product`] by all threads. Every number is the same sum whatever the blocks, which may thus depend on their count.
pub(crate) fn shared_product(out: MatrixMut, plus: Plus, a: Matrix, b: Matrix) {
    share_in(Precision::F32, out, plus, a, b);
}

fn share_in(precision: Precision, out: MatrixMut, plus: Plus, a: Matrix, b: Matrix) {
    keep_awake();
    let (rows, cols, work) = (out.rows, out.cols, a.rows * a.cols * b.cols);
    let by_gemm = b.row_stride != 1
        && precision == Precision::F32
        && !matches!(plus, Plus::Rows(_))
        && !by_avx2();
    if work >= LARGE && by_gemm {
        let mut out = out;
        let blocks: Vec<_> = out.block_of_rows(0, rows).into_blocks_of_rows(64).collect();
        blocks.into_par_iter().for_each(|mut block| begin(&mut block, plus));
        return gemm(out, plus.starts(), a, b, Parallelism::Rayon(0));
    }
    let threads = rayon::current_num_threads();
    let tasks = (work / TASK).clamp(1, 2 * threads);
    let (panels, registers) = (cols.div_ceil(tile::COLS), cols.div_ceil(tile::LANES));
    // A task copies its columns of `b`, and its rows of `a` unless those lie in one piece and stay as they are.
    let across = if a.col_stride == 1 && precision == Precision::F32 {
        let parts = panels.min(tasks);
        // One a thread, if of two a thread the last would be left with less.
        let longest = |parts: usize| registers.div_ceil(parts) * parts.div_ceil(threads);
        if panels <= tasks && longest(threads) < longest(parts) { threads } else { parts }
    } else {
        (tasks * cols / rows).isqrt().clamp(1, panels.min(tasks))
    };
    let width = registers.div_ceil(across) * tile::LANES;
    let height = rows.div_ceil(tasks.div_ceil(cols.div_ceil(width))).next_multiple_of(ROWS);
    let parts: Vec<_> = out
        .into_blocks_of_rows(height)
        .zip((0..).step_by(height))
        .flat_map(|(out, row)| {
            let blocks = out.into_blocks_of_cols(width).zip((0..).step_by(width));
            blocks.map(move |(out, col)| (out, row, col))
        })
        .collect();
    parts.into_par_iter().with_max_len(1).for_each(|(out, row, col)| {
        let plus = plus.part([row, col], [out.rows, out.cols]);
        let (a, b) = (a.block_of_rows(row, out.rows), b.block_of_cols(col, out.cols));
        product_in(precision, out, plus, a, b);
    });
}

/// [`matmul`] with a weight of bf16 bits, which is widened a piece at a time and never as a whole.
pub fn matmul_bf16(a: Matrix, b: Matrix<u16>, bias: Option<&[f32]>, out: &mut [f32]) {
    assert_eq!(a.cols, b.rows);
    assert_eq!(out.len(), a.rows * b.cols);
    if let Some(bias) = bias {
        assert_eq!(bias.len(), b.cols);
    }
    if out.is_empty() {
        return;
    }
    if matvec::takes(&a, &b) {
        return matvec::matvec(a, b, bias, out);
    }
    let (depth, n) = (b.rows, b.cols);
    let width = (PANEL / depth.max(1)).next_multiple_of(64).min(n);
    let mut wide = vec![0.0; depth * width];
    for first in (0..n).step_by(width) {
        let width = width.min(n - first);
        let wide = &mut wide[..depth * width];
        // Row by row, or column by column if that is how the weight lies.
        let along_rows = b.col_stride == 1;
        let (length, outer, inner) = match along_rows {
            true => (width, b.row_stride, b.col_stride),
            false => (depth, b.col_stride, b.row_stride),
        };
        if length > 0 {
            wide.par_chunks_mut(length).enumerate().with_min_len(16).for_each(|(line, wide)| {
                let narrow = &b.data[first * b.col_stride + line * outer..];
                for (i, wide) in wide.iter_mut().enumerate() {
                    *wide = narrow[i * inner].widen();
                }
            });
        }
        let panel = match along_rows {
            true => Matrix::new(wide, depth, width),
            false => Matrix::new(wide, width, depth).transposed(),
        };
        let out = MatrixMut::strided(&mut out[first..], a.rows, width, n);
        share(
            out,
            bias.map_or(Plus::Nothing, |bias| Plus::Bias(&bias[first..][..width])),
            a,
            panel,
        );
    }
}

/// `out[c] = sum of x[r, c] over r`; `x` is row by row.
pub fn sum_rows(x: &[f32], out: &mut [f32]) {
    let n = out.len();
    let rows = (crate::BLOCK / n.max(1)).max(1);
    let parts: Vec<Vec<f32>> = x
        .par_chunks(n * rows)
        .map(|part| {
            let mut total = vec![0.0; n];
            dispatch_rows(part, &mut total);
            total
        })
        .collect();
    out.fill(0.0);
    parts.iter().for_each(|part| add(out, part));
}

#[inline(always)]
fn add_rows(x: &[f32], total: &mut [f32]) {
    for row in x.chunks_exact(total.len()) {
        add(total, row);
    }
}

crate::for_this_cpu!(dispatch_rows = add_rows(x: &[f32], total: &mut [f32]));

#[inline(always)]
pub(crate) fn add(total: &mut [f32], x: &[f32]) {
    total.iter_mut().zip(x).for_each(|(total, x)| *total += x);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed * 31) % 201) as f32 / 100.0 - 1.0).collect()
    }

    /// Three nested loops.
    fn reference(a: Matrix, b: Matrix, bias: &[f32]) -> Vec<f64> {
        let at = |m: &Matrix, r, c| f64::from(m.data[r * m.row_stride + c * m.col_stride]);
        let cell = |r, c| (0..a.cols).map(|k| at(&a, r, k) * at(&b, k, c)).sum::<f64>();
        (0..a.rows)
            .flat_map(|r| (0..b.cols).map(move |c| (r, c)))
            .map(|(r, c)| cell(r, c) + f64::from(bias[c]))
            .collect()
    }

    #[test]
    fn products_of_many_sizes() {
        let sizes = [
            (1, 1, 1),
            (3, 5, 7),
            (4, 66, 31),
            (100, 64, 33),
            (1, 300, 2),
            (65, 1, 64),
            (400, 300, 300),
        ];
        for (m, k, n) in sizes {
            let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
            let views = [
                (Matrix::new(&a, m, k), Matrix::new(&b, k, n)),
                (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, n, k).transposed()),
                (Matrix::new(&a, m, k), Matrix::new(&b, n, k).transposed()),
            ];
            for ((a, b), bias) in
                views.into_iter().flat_map(|view| [(view, Some(&bias[..])), (view, None)])
            {
                let mut out = vec![f32::NAN; m * n];
                matmul(a, b, bias, &mut out);
                let expected = reference(a, b, bias.unwrap_or(&vec![0.0; n]));
                for (found, expected) in out.iter().zip(expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-4, "{m} x {k} x {n}");
                }
            }
        }
    }

    /// The same as of the widened weight.
    #[test]
    fn products_with_bf16() {
        for (m, k, n) in [(3, 5, 7), (9, 64, 33), (100, 300, 200), (20, 4000, 300), (9, 0, 2)] {
            let (a, bias) = (numbers(m * k, 1), numbers(n, 3));
            let narrow: Vec<u16> =
                numbers(k * n, 2).iter().map(|x| (x.to_bits() >> 16) as u16).collect();
            let wide: Vec<f32> = narrow.iter().map(|x| x.widen()).collect();
            let a = Matrix::new(&a, m, k);
            let views = [
                (Matrix::new(&narrow, k, n), Matrix::new(&wide, k, n)),
                (Matrix::new(&narrow, n, k).transposed(), Matrix::new(&wide, n, k).transposed()),
            ];
            for (narrow, wide) in views {
                for bias in [None, Some(&bias[..])] {
                    let mut out = vec![f32::NAN; m * n];
                    matmul_bf16(a, narrow, bias, &mut out);
                    let zero = vec![0.0; n];
                    let expected = reference(a, wide, bias.unwrap_or(&zero));
                    for (found, expected) in out.iter().zip(expected) {
                        let error = (f64::from(*found) - expected).abs();
                        assert!(error < 1e-5 + 1e-6 * k as f64, "{m} x {k} x {n}: off by {error}");
                    }
                }
            }
        }
    }

    /// Of any size and strides, to any place, plus anything; small integers, whose sums are exact.
    fn check(sizes: [usize; 3], transposed: [bool; 2], spread: usize, plus: usize) {
        for precision in [Precision::F32, Precision::Bf16] {
            precision.during(|| check_here(sizes, transposed, spread, plus));
        }
    }

    fn check_here(sizes: [usize; 3], transposed: [bool; 2], spread: usize, plus: usize) {
        let [m, k, n] = sizes;
        let exact = |n, seed| -> Vec<f32> {
            numbers(n, seed).iter().map(|x: &f32| (x * 4.0).round()).collect()
        };
        let stored = |rows: usize, cols: usize, seed| exact(rows * cols * spread + 1, seed);
        let (a, b, bias) = (stored(m, k, 1), stored(k, n, 2), exact(n, 3));
        let view = |x, rows: usize, cols: usize, turned: bool| {
            let (row, col) = if turned { (1, rows) } else { (cols, 1) };
            Matrix::strided(x, rows, cols, row * spread, col * spread)
        };
        let (a, b) = (view(&a, m, k, transposed[0]), view(&b, k, n, transposed[1]));
        let (stride, before) = (n + spread, exact(m * (n + spread), 4));
        let mut out = before.clone();
        let (scale, shift, residual) = (exact(m, 5), exact(m, 6), exact(m * n, 7));
        let rows = Rows {
            scale: Some(&scale),
            shift: Some(&shift),
            residual: Some(Matrix::new(&residual, m, n)),
            activation: Activation::Relu,
        };
        let plus = [Plus::Nothing, Plus::Bias(&bias), Plus::Itself, Plus::Rows(rows)][plus];
        if !plus.starts() {
            MatrixMut::strided(&mut out, m, n, stride).fill(f32::NAN);
        }
        share(MatrixMut::strided(&mut out, m, n, stride), plus, a, b);
        let sums = reference(a, b, &vec![0.0; n]);
        for (r, (found, before)) in out.chunks(stride).zip(before.chunks(stride)).enumerate() {
            for c in 0..n {
                let sum = sums[r * n + c];
                let expected = match plus {
                    Plus::Nothing => sum,
                    Plus::Bias(bias) => sum + f64::from(bias[c]),
                    Plus::Itself => sum + f64::from(before[c]),
                    Plus::Rows(_) => {
                        let [scale, shift] = [scale[r], shift[r]].map(f64::from);
                        (sum * scale + shift + f64::from(residual[r * n + c])).max(0.0)
                    }
                };
                assert_eq!(f64::from(found[c]), expected, "{r}, {c}");
            }
            assert_eq!(found[n..], before[n..], "behind row {r}");
        }
    }

    proptest::proptest! {
        #[test]
        fn products_of_any_kind(
            (m, k, n) in (1..30usize, 0..70usize, 1..150usize),
            turned: [bool; 2],
            spread in 1..3usize,
            plus in 0..4usize,
        ) {
            check([m, k, n], turned, spread, plus);
        }
    }

    /// A block of columns that begins behind the data, of which there is none.
    #[test]
    fn products_of_no_depth() {
        for turned in [[false; 2], [true; 2], [true, false], [false, true]] {
            (0..4).for_each(|plus| check([3, 0, 40], turned, 1, plus));
        }
    }

    /// More than a panel and a block in every direction.
    #[test]
    fn large_products_of_any_kind() {
        for (turned, plus) in
            [([false; 2], 0), ([true, false], 1), ([false, true], 2), ([false; 2], 3)]
        {
            check([400, 1050, 70], turned, 1, plus);
        }
    }

    /// As of factors rounded to bf16, to the even of two equally near.
    #[test]
    fn bf16_rounds_the_factors_alone() {
        if !Precision::Bf16.is_here() {
            return;
        }
        let [m, k, n] = [40, 300, 90];
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let nearest = |x: &f32| {
            let bits = x.to_bits();
            f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
        };
        let round = |x: &[f32]| -> Vec<f32> { x.iter().map(nearest).collect() };
        let (narrow_a, narrow_b) = (round(&a), round(&b));
        let expected =
            reference(Matrix::new(&narrow_a, m, k), Matrix::new(&narrow_b, k, n), &vec![0.0; n]);
        let mut found = vec![f32::NAN; m * n];
        Precision::Bf16.during(|| {
            matmul(Matrix::new(&a, m, k), Matrix::new(&b, k, n), None, &mut found);
        });
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{found}, not {expected}");
        }
        assert_eq!(PRECISION.get(), Precision::F32);
    }

    /// Those that `gemm` makes are the same.
    #[test]
    fn the_largest_products() {
        let [m, k, n] = [600, 1000, 900];
        let exact = |n, seed| -> Vec<f32> {
            numbers(n, seed).iter().map(|x: &f32| (x * 4.0).round()).collect()
        };
        let (a, b, bias) = (exact(m * k, 1), exact(k * n, 2), exact(n, 3));
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        assert!(m * k * n >= LARGE);
        let [mut found, mut expected] = [0, 1].map(|_| vec![f32::NAN; m * n]);
        matmul(a, b, Some(&bias), &mut found);
        product(MatrixMut::new(&mut expected, m, n), Plus::Bias(&bias), a, b);
        assert_eq!(found, expected);
    }

    #[test]
    fn rows_add_up() {
        let x: Vec<f32> = (0..30_000).map(|i| (i % 3) as f32).collect();
        let mut out = [f32::NAN; 3];
        sum_rows(&x, &mut out);
        assert_eq!(out, [0.0, 10_000.0, 20_000.0]);
    }

    #[test]
    #[should_panic(expected = "beyond its data")]
    fn a_view_stays_inside() {
        Matrix::strided(&[0.0; 10], 3, 3, 4, 1);
    }
}
