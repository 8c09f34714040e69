//! The innermost loops of a matrix product, for AVX-512 and AVX2: a panel of the right matrix, copied so that it lies in
//! one piece, times a few rows of the left one, which is read where it lies (Goto and van de Geijn 2008,
//! <https://doi.org/10.1145/1356052.1356053>).
//!
//! A panel is copied just before it is used, and while it is used the next one is fetched: the time of memory is
//! hidden behind the multiplications, so that a weight need not be kept in a second order.
//!
//! In [`Precision::Bf16`] both matrices are rounded to bf16 while they are copied, two numbers of a sum in one lane, and
//! one instruction multiplies and adds them both.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod panels;

use super::{Matrix, MatrixMut, Plus, Precision, Rows};
#[cfg(target_arch = "x86_64")]
use crate::cpu::{has_avx2, has_avx512};

/// Columns of the widest panel.
pub(super) const COLS: usize = 64;
/// Rows of a tile.
pub(crate) const ROWS: usize = 6;
/// Numbers of a register.
pub(super) const LANES: usize = 16;

/// A right matrix whose columns are the pixels of a convolution, row by row, and its rows where a weight meets them:
/// number `(r, c)` is `planes[starts[r] + c / width * pitch + c % width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs<'a> {
    pub planes: &'a [f32],
    pub starts: &'a [u32],
    pub width: usize,
    pub pitch: usize,
}

/// Whether tiles are AVX2's here. [`product_of_runs`] is there then, and `gemm` slower for any matrix.
pub(crate) fn by_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return has_avx2() && !has_avx512();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `out = a runs + plus`, on this thread, where [`by_avx2`].
pub(crate) fn product_of_runs(out: &mut MatrixMut, plus: Plus, a: Matrix, runs: Runs) {
    assert!(by_avx2() && a.rows == out.rows && a.cols == runs.starts.len());
    if let (Some(last), Some(end)) = (runs.starts.iter().max(), out.cols.checked_sub(1)) {
        let end = end / runs.width * runs.pitch + end % runs.width;
        // Sixteen at a time.
        assert!(*last as usize + end + LANES <= runs.planes.len());
    }
    #[cfg(target_arch = "x86_64")]
    {
        check_plus(plus, out);
        #[expect(unsafe_code, reason = "a function of a wider instruction set")]
        // SAFETY: the CPU has AVX2. Every index of `a` is inside its data, as `Matrix::strided` checks, and those of the runs
        // are, by what is asserted here; `out` is borrowed alone.
        unsafe {
            panels::product::<avx2::Single, _>(out, plus, a, runs);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = plus;
}

#[cfg(target_arch = "x86_64")]
fn check_plus(plus: Plus, out: &MatrixMut) {
    if let Plus::Bias(bias) = plus {
        assert_eq!(bias.len(), out.cols);
    }
    if let Plus::Rows(Rows { scale, shift, residual, .. }) = plus {
        let a_row = |numbers: Option<&[f32]>| numbers.is_none_or(|n| n.len() == out.rows);
        assert!(a_row(scale) && a_row(shift));
        let lies = |r: Matrix| r.rows == out.rows && r.cols == out.cols && r.col_stride == 1;
        assert!(residual.is_none_or(lies));
    }
}

/// `out = a b + plus`, on this thread; `false` where this CPU cannot.
pub(super) fn product(
    out: &mut MatrixMut,
    plus: Plus,
    a: Matrix,
    b: Matrix,
    precision: Precision,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() || has_avx2() {
        assert!(a.rows == out.rows && b.cols == out.cols && a.cols == b.rows);
        check_plus(plus, out);
        #[expect(unsafe_code, reason = "functions of wider instruction sets")]
        // SAFETY: the CPU has AVX-512, and its instructions for bf16 where those are asked for, or else AVX2. Every index
        // below the three sizes is inside its data, as `Matrix::strided` and `MatrixMut::strided` check; `out` is borrowed
        // alone.
        unsafe {
            match precision {
                _ if !has_avx512() => panels::product::<avx2::Single, _>(out, plus, a, b),
                Precision::Bf16 if multiplies_bf16() => {
                    panels::product::<avx512::Half, _>(out, plus, a, b);
                }
                _ => panels::product::<avx512::Single, _>(out, plus, a, b),
            }
        }
        return true;
    }
    let _ = (out, plus, a, b, precision);
    false
}

/// Whether this CPU multiplies numbers of 16 bits.
pub(super) fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return has_avx512()
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
