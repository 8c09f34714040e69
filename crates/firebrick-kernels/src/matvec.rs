//! Products of a few rows with a large matrix, as when a language model writes one token at a time.
//!
//! Every weight is read once and used a few times, so the speed is that of memory: the weight streams through in
//! whole rows, is widened to `f32` in registers and never copied.

use rayon::prelude::*;

use crate::matmul::{Matrix, add};

/// For more, `gemm` is faster: it pays to copy the weight into its order.
pub(crate) const MOST_ROWS: usize = 8;

/// Bytes of weight worth a task of their own.
const TASK: usize = 1 << 18;

/// Sums and pieces of weight rows that a task works on at once, in numbers a row of `x`: one long piece is what memory
/// delivers fastest, and for several rows the pieces stay in the nearest cache.
const WIDEST: usize = 8192;

/// A number as weights store it: `f32`, or the sixteen bits of a bf16.
pub(crate) trait Weight: Copy + Send + Sync + 'static {
    fn widen(self) -> f32;

    fn down(part: Part<Self>, y: &mut [f32]);

    fn across(part: Part<Self>, y: &mut [f32]);
}

/// A block of the product.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a, W> {
    x: &'a [&'a [f32]],
    /// From the first element of the block's first row and column on.
    w: &'a [W],
    /// From one row of the stored matrix to the next.
    stride: usize,
}

macro_rules! weight {
    ($type:ty, $widen:expr) => {
        impl Weight for $type {
            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }

            fn down(part: Part<Self>, y: &mut [f32]) {
                crate::for_this_cpu!(dispatch = down(part: Part<$type>, y: &mut [f32]));
                dispatch(part, y);
            }

            fn across(part: Part<Self>, y: &mut [f32]) {
                crate::for_this_cpu!(dispatch = across(part: Part<$type>, y: &mut [f32]));
                dispatch(part, y);
            }
        }
    };
}

weight!(f32, |w| w);
weight!(u16, |w| f32::from_bits(u32::from(w) << 16));

/// Whether [`matvec`] takes these: few rows of `x`, and rows or columns of `w` that lie together.
pub(crate) fn takes<W>(x: &Matrix, w: &Matrix<W>) -> bool {
    x.rows() <= MOST_ROWS && x.strides().1 == 1 && (w.strides().0 == 1 || w.strides().1 == 1)
}

/// `out = x w + bias`; `out` is `[x.rows, w.cols]` row by row.
pub(crate) fn matvec<W: Weight>(x: Matrix, w: Matrix<W>, bias: Option<&[f32]>, out: &mut [f32]) {
    let (rows, n, depth) = (x.rows(), w.cols(), w.rows());
    let (row_stride, col_stride) = w.strides();
    crate::awake::keep_awake();
    // Sizes alone choose the blocks, so the result does not depend on the number of threads.
    let tasks = (depth * n * size_of::<W>() / TASK).clamp(1, 16);
    let (width, height) = if col_stride == 1 {
        let width = n.div_ceil(tasks).max(WIDEST / rows).min(n);
        (width, depth.div_ceil((tasks / n.div_ceil(width)).max(1)).next_multiple_of(8))
    } else {
        (n.div_ceil(tasks), depth)
    };
    let blocks: Vec<(usize, usize)> = (0..n)
        .step_by(width)
        .flat_map(|c| (0..depth.max(1)).step_by(height.max(1)).map(move |i| (c, i)))
        .collect();
    let parts: Vec<Vec<f32>> = blocks
        .par_iter()
        .map(|&(c, i)| {
            let x_row = |r| &x.data()[r * x.strides().0..][i..depth.min(i + height)];
            let x: Vec<&[f32]> = (0..rows).map(x_row).collect();
            let mut y = vec![0.0; rows * width.min(n - c)];
            let w = &w.data()[i * row_stride + c * col_stride..];
            if col_stride == 1 {
                W::down(Part { x: &x, w, stride: row_stride }, &mut y);
            } else {
                W::across(Part { x: &x, w, stride: col_stride }, &mut y);
            }
            y
        })
        .collect();
    for (r, out) in out.chunks_exact_mut(n).enumerate() {
        match bias {
            Some(bias) => out.copy_from_slice(bias),
            None => out.fill(0.0),
        }
        for (&(c, _), part) in blocks.iter().zip(&parts) {
            let cols = part.len() / rows;
            add(&mut out[c..c + cols], &part[r * cols..][..cols]);
        }
    }
}

/// `w` row by row: rows of it, times a number each, add up.
#[inline(always)]
fn down<W: Weight>(part: Part<W>, y: &mut [f32]) {
    const TOGETHER: usize = 8;
    let count = part.x[0].len();
    let whole = count - count % TOGETHER;
    for i in (0..whole).step_by(TOGETHER) {
        add_rows::<W, TOGETHER>(part, i, y);
    }
    for i in whole..count {
        add_rows::<W, 1>(part, i, y);
    }
}

/// Rows `i .. i + K`: several at once, so that the sums are read and written less often.
#[inline(always)]
fn add_rows<W: Weight, const K: usize>(part: Part<W>, i: usize, y: &mut [f32]) {
    let Part { x, w, stride } = part;
    let n = y.len() / x.len();
    let w: [&[W]; K] = std::array::from_fn(|k| &w[(i + k) * stride..][..n]);
    for (x, y) in x.iter().zip(y.chunks_exact_mut(n)) {
        let x: [f32; K] = std::array::from_fn(|k| x[i + k]);
        for c in 0..n {
            let mut total = y[c];
            for k in 0..K {
                total = w[k][c].widen().mul_add(x[k], total);
            }
            y[c] = total;
        }
    }
}

/// `w` column by column: dot products of each with every row of `x`.
#[inline(always)]
fn across<W: Weight>(part: Part<W>, y: &mut [f32]) {
    let Part { x, w, stride } = part;
    let n = y.len() / x.len();
    let depth = x[0].len();
    // Loops, not closures: a closure would not be compiled for the instruction set of its function.
    if let [x] = x {
        // Memory delivers several columns at once faster than one.
        let whole = n - n % 4;
        for c in (0..whole).step_by(4) {
            let next = w.get((c + 4) * stride..).unwrap_or_default();
            let w = [c, c + 1, c + 2, c + 3].map(|c| &w[c * stride..][..depth]);
            y[c..c + 4].copy_from_slice(&dots_with_four(x, w, next));
        }
        for c in whole..n {
            y[c] = dot(x, &w[c * stride..][..depth]);
        }
        return;
    }
    let (fours, rest) = x.as_chunks::<4>();
    for c in 0..n {
        let w = &w[c * stride..][..depth];
        for (r, x) in fours.iter().enumerate() {
            let four = four_dots(*x, w);
            for (k, dot) in four.into_iter().enumerate() {
                y[(4 * r + k) * n + c] = dot;
            }
        }
        for (r, x) in rest.iter().enumerate() {
            y[(4 * fours.len() + r) * n + c] = dot(x, w);
        }
    }
}

/// `next`: what is read after `w`. The hardware would need some lines of every column to see where it goes.
#[inline(always)]
fn dots_with_four<W: Weight>(x: &[f32], w: [&[W]; 4], next: &[W]) -> [f32; 4] {
    // Named, because an array of arrays would not be kept in registers.
    let [mut sums0, mut sums1, mut sums2, mut sums3] = [[0.0f32; 32]; 4];
    let [(w0, rest0), (w1, rest1), (w2, rest2), (w3, rest3)] = w.map(|w| w.as_chunks::<32>());
    let (x, x_rest) = x.as_chunks::<32>();
    let count = x.len();
    let (w0, w1, w2, w3) = (&w0[..count], &w1[..count], &w2[..count], &w3[..count]);
    for (i, x) in x.iter().enumerate() {
        // As many numbers as this turn reads of all four.
        fetch(next, 128 * i, 128);
        for lane in 0..32 {
            sums0[lane] = w0[i][lane].widen().mul_add(x[lane], sums0[lane]);
            sums1[lane] = w1[i][lane].widen().mul_add(x[lane], sums1[lane]);
            sums2[lane] = w2[i][lane].widen().mul_add(x[lane], sums2[lane]);
            sums3[lane] = w3[i][lane].widen().mul_add(x[lane], sums3[lane]);
        }
    }
    [
        total(sums0, x_rest, rest0),
        total(sums1, x_rest, rest1),
        total(sums2, x_rest, rest2),
        total(sums3, x_rest, rest3),
    ]
}

/// Asks for `count` numbers of `w` from `from` on, before they are read.
#[inline(always)]
fn fetch<W>(w: &[W], from: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        let start = w.as_ptr().cast::<i8>().wrapping_add(from * size_of::<W>());
        for line in 0..count * size_of::<W>() / LINE {
            #[expect(unsafe_code, reason = "a hint")]
            // SAFETY: a hint reads nothing that the program sees, and faults nowhere.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE));
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (w, from, count);
}

#[inline(always)]
pub(crate) fn dot<W: Weight>(x: &[f32], w: &[W]) -> f32 {
    // Four registers of sixteen: enough sums at once to hide the time of an addition.
    let mut sums = [0.0f32; 64];
    let (x, x_rest) = x.as_chunks::<64>();
    let (w, w_rest) = w.as_chunks::<64>();
    for (x, w) in x.iter().zip(w) {
        for lane in 0..64 {
            sums[lane] = w[lane].widen().mul_add(x[lane], sums[lane]);
        }
    }
    total(sums, x_rest, w_rest)
}

/// Four rows at once, so that a weight is read and widened once.
#[inline(always)]
fn four_dots<W: Weight>(x: [&[f32]; 4], w: &[W]) -> [f32; 4] {
    // Named, because an array of arrays would not be kept in registers.
    let [mut sums0, mut sums1, mut sums2, mut sums3] = [[0.0f32; 32]; 4];
    let [(x0, rest0), (x1, rest1), (x2, rest2), (x3, rest3)] = x.map(|x| x.as_chunks::<32>());
    let (w, w_rest) = w.as_chunks::<32>();
    let count = w.len();
    let (x0, x1, x2, x3) = (&x0[..count], &x1[..count], &x2[..count], &x3[..count]);
    for (i, w) in w.iter().enumerate() {
        for lane in 0..32 {
            let w = w[lane].widen();
            sums0[lane] = w.mul_add(x0[i][lane], sums0[lane]);
            sums1[lane] = w.mul_add(x1[i][lane], sums1[lane]);
            sums2[lane] = w.mul_add(x2[i][lane], sums2[lane]);
            sums3[lane] = w.mul_add(x3[i][lane], sums3[lane]);
        }
    }
    [
        total(sums0, rest0, w_rest),
        total(sums1, rest1, w_rest),
        total(sums2, rest2, w_rest),
        total(sums3, rest3, w_rest),
    ]
}

/// The sums of a dot product's lanes, and what is left at its end.
#[inline(always)]
fn total<W: Weight, const LANES: usize>(mut sums: [f32; LANES], x: &[f32], w: &[W]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    for (x, w) in x.iter().zip(w) {
        sums[0] = w.widen().mul_add(*x, sums[0]);
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed * 31) % 201) as f32 / 100.0 - 1.0).collect()
    }

    /// Three nested loops.
    fn reference(
        x: &[f32],
        rows: usize,
        w: impl Fn(usize, usize) -> f32,
        bias: &[f32],
    ) -> Vec<f64> {
        let depth = x.len() / rows;
        let mut out = vec![];
        for r in 0..rows {
            for (c, bias) in bias.iter().enumerate() {
                let term = |i| f64::from(x[r * depth + i]) * f64::from(w(i, c));
                out.push(f64::from(*bias) + (0..depth).map(term).sum::<f64>());
            }
        }
        out
    }

    fn check<W: Weight>(rows: usize, depth: usize, n: usize, transposed: bool, w: &[W]) {
        let (x, bias) = (numbers(rows * depth, 1), numbers(n, 2));
        let view = match transposed {
            true => Matrix::new(w, n, depth).transposed(),
            false => Matrix::new(w, depth, n),
        };
        let (row, col) = view.strides();
        let expected = reference(&x, rows, |i, c| w[i * row + c * col].widen(), &bias);
        let mut out = vec![f32::NAN; rows * n];
        matvec(Matrix::new(&x, rows, depth), view, Some(&bias), &mut out);
        for (found, expected) in out.iter().zip(expected) {
            let error = (f64::from(*found) - expected).abs();
            // These numbers repeat, so sums grow with the depth.
            assert!(error < 1e-5 + 1e-6 * depth as f64, "{rows} x {depth} x {n}: off by {error}");
        }
    }

    fn narrow(w: &[f32]) -> Vec<u16> {
        w.iter().map(|w| (w.to_bits() >> 16) as u16).collect()
    }

    proptest! {
        #[test]
        fn any_size(rows in 1..=8usize, depth in 0..200usize, n in 1..200usize, transposed: bool) {
            let w = numbers(depth * n, 3);
            check(rows, depth, n, transposed, &w);
            check(rows, depth, n, transposed, &narrow(&w));
        }
    }

    /// Large enough for several blocks, with a rest.
    #[test]
    fn many_blocks() {
        for (depth, n) in [(1003, 517), (77, 9003)] {
            let w = numbers(depth * n, 3);
            for rows in [1, 5] {
                for transposed in [false, true] {
                    check(rows, depth, n, transposed, &w);
                    check(rows, depth, n, transposed, &narrow(&w));
                }
            }
        }
    }
}
