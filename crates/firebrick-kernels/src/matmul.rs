//! Matrix products over strided views, by the `gemm` crate.
//!
//! Burn's flex backend runs a product below 7 M multiplications on one thread; here blocks of rows are
//! shared among threads, so that small models use all of them.

use gemm::Parallelism;
use rayon::prelude::*;

/// Multiplications above which `gemm` shares the work itself.
const LARGE: usize = 1 << 25;
/// Multiplications worth a task of their own.
const TASK: usize = 1 << 16;

/// `rows x cols` numbers in `data`, element `(r, c)` at `r * row_stride + c * col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// All of `data`, row by row.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    pub fn strided(
        data: &'a [f32],
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

    fn block_of_rows(self, first: usize, rows: usize) -> Self {
        let data = &self.data[first * self.row_stride..];
        Self::strided(data, rows, self.cols, self.row_stride, self.col_stride)
    }
}

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

/// `out = a b`, or `out += a b` if `add`; `out` has rows of `out_stride` elements. On this thread.
pub(crate) fn product(out: &mut [f32], out_stride: usize, add: bool, a: Matrix, b: Matrix) {
    gemm(out, out_stride, add, a, b, Parallelism::None);
}

fn gemm(out: &mut [f32], out_stride: usize, add: bool, a: Matrix, b: Matrix, by: Parallelism) {
    assert_eq!(a.cols, b.rows);
    assert!(fits(out.len(), a.rows, b.cols, out_stride, 1), "a product beyond its output");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    #[expect(unsafe_code, reason = "gemm takes pointers and strides")]
    // SAFETY: every index that the three sizes and strides reach is inside its slice: checked above for
    // `out`, by `Matrix::strided` for the others. `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
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
    let (n, work) = (b.cols, a.rows * a.cols * b.cols);
    let start = |out: &mut [f32]| {
        if let Some(bias) = bias {
            out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias));
        }
    };
    if work >= LARGE {
        out.par_chunks_mut(n * 64).for_each(start);
        gemm(out, n, bias.is_some(), a, b, Parallelism::Rayon(0));
        return;
    }
    // Sizes alone choose the blocks, so the result does not depend on the number of threads.
    let tasks = (work / TASK).clamp(1, 8);
    let rows = a.rows.div_ceil(tasks).next_multiple_of(16);
    out.par_chunks_mut(n * rows).enumerate().for_each(|(block, out)| {
        start(out);
        let part = a.block_of_rows(block * rows, out.len() / n);
        product(out, n, bias.is_some(), part, b);
    });
}

/// `out[c] = sum of x[r, c] over r`; `x` is row by row.
pub fn sum_rows(x: &[f32], out: &mut [f32]) {
    let n = out.len();
    let rows = (crate::BLOCK / n.max(1)).max(1);
    let parts: Vec<Vec<f32>> = x
        .par_chunks(n * rows)
        .map(|part| {
            let mut total = vec![0.0; n];
            part.chunks_exact(n).for_each(|row| add(&mut total, row));
            total
        })
        .collect();
    out.fill(0.0);
    parts.iter().for_each(|part| add(out, part));
}

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
        for (m, k, n) in
            [(1, 1, 1), (3, 5, 7), (100, 64, 33), (1, 300, 2), (65, 1, 64), (400, 300, 300)]
        {
            let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
            let views = [
                (Matrix::new(&a, m, k), Matrix::new(&b, k, n)),
                (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, n, k).transposed()),
            ];
            for (a, b) in views {
                let mut out = vec![f32::NAN; m * n];
                matmul(a, b, Some(&bias), &mut out);
                for (found, expected) in out.iter().zip(reference(a, b, &bias)) {
                    assert!((f64::from(*found) - expected).abs() < 1e-4, "{m} x {k} x {n}");
                }
            }
        }
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
