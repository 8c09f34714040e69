//! The product of a recurrence: few rows times a weight that is the same in every step, and so is laid out once.

use rayon::prelude::*;

use crate::matmul::Matrix;

/// Numbers of an AVX-512 register.
pub(super) const LANES: usize = 16;
/// Registers of columns of a tile.
pub(super) const VECTORS: usize = 4;
/// Rows of a tile: with [`VECTORS`], 24 sums of a register each, of which there are 32.
pub(super) const ROWS: usize = 6;

/// By row, by register.
pub(super) type Sums = [[[f32; LANES]; VECTORS]; ROWS];

/// Columns of a weight of `depth` rows, in panels of [`VECTORS`] registers: what a panel's tile reads lies together.
pub(super) struct Panels {
    data: Vec<f32>,
    depth: usize,
}

impl Panels {
    /// `columns`: by panel, where in `weight` the column of each of its lanes is, if it has one.
    pub fn new(
        weight: Matrix,
        count: usize,
        column: impl Fn(usize, usize, usize) -> Option<usize> + Sync,
    ) -> Self {
        /// Rows taken together, so that what is read and written stays in the nearest cache.
        const TOGETHER: usize = 16;
        let depth = weight.rows();
        let (row_stride, col_stride) = weight.strides();
        let mut data = vec![0.0; count * depth * VECTORS * LANES];
        let panels = data.par_chunks_mut((depth * VECTORS * LANES).max(1)).enumerate();
        panels.for_each(|(panel, data)| {
            for (block, rows) in data.chunks_mut(TOGETHER * VECTORS * LANES).enumerate() {
                for at in 0..VECTORS * LANES {
                    let Some(column) = column(panel, at / LANES, at % LANES) else { continue };
                    let from = &weight.data()[column * col_stride..];
                    for (k, row) in rows.chunks_exact_mut(VECTORS * LANES).enumerate() {
                        row[at] = from[(block * TOGETHER + k) * row_stride];
                    }
                }
            }
        });
        Self { data, depth }
    }

    pub fn panel(&self, index: usize) -> Panel<'_> {
        let size = self.depth * VECTORS * LANES;
        let (_, rest) = self.data.split_at(index * size);
        let (data, after) = rest.split_at(size);
        let next = if after.is_empty() { &self.data } else { after };
        Panel { data, next: &next[..size], depth: self.depth }
    }
}

/// `[depth, VECTORS * LANES]`
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    data: &'a [f32],
    /// The panel after it, most likely the next to be read.
    next: &'a [f32],
    depth: usize,
}

impl Panel<'_> {
    /// The product of the first `rows` rows of `a`, `depth` numbers each, and the first `vectors` registers of columns.
    /// `tile`: how many rows' tiles went before.
    #[inline(always)]
    pub fn sums(self, a: &[f32], rows: usize, vectors: usize, tile: usize, sums: &mut Sums) {
        let a = &a[..rows * self.depth];
        // A weight does not fit a core's cache. While the first tiles are multiplied, the next panel comes nearer.
        let part = self.depth * LANES;
        let ahead = if tile < VECTORS { &self.next[tile * part..][..part] } else { self.data };
        assert!((1..=ROWS).contains(&rows) && (1..=VECTORS).contains(&vectors));
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx512f") {
            macro_rules! tile {
                ($($r:literal)+) => {
                    match (rows, vectors) {
                        $(($r, 1) => wide::<$r, 1>(a, self, ahead, sums),
                        ($r, 2) => wide::<$r, 2>(a, self, ahead, sums),
                        ($r, 3) => wide::<$r, 3>(a, self, ahead, sums),
                        ($r, 4) => wide::<$r, 4>(a, self, ahead, sums),)+
                        _ => unreachable!("checked above"),
                    }
                };
            }
            #[expect(unsafe_code, reason = "a function of a wider instruction set")]
            // SAFETY: the CPU has AVX-512; `a` is as long as its rows, the panel as `Panels::panel` cuts it.
            unsafe {
                tile!(1 2 3 4 5 6);
            }
            return;
        }
        let _ = ahead;
        for (a, sums) in a.chunks_exact(self.depth.max(1)).zip(sums) {
            *sums = [[0.0; LANES]; VECTORS];
            for (a, row) in a.iter().zip(self.data.as_chunks::<LANES>().0.chunks_exact(VECTORS)) {
                for (sums, row) in sums.iter_mut().zip(row).take(vectors) {
                    for (sum, x) in sums.iter_mut().zip(row) {
                        *sum += a * x;
                    }
                }
            }
        }
    }
}

/// Written with intrinsics because the compiler does not keep this many sums in registers by itself. `a` holds `R` rows of
/// the panel's depth.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "checks in this loop would cost a tenth of the speed")]
unsafe fn wide<const R: usize, const V: usize>(
    a: &[f32],
    panel: Panel,
    ahead: &[f32],
    sums: &mut Sums,
) {
    use std::arch::x86_64::{
        _MM_HINT_T1, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };
    let depth = panel.depth;
    let (a, data) = (a.as_ptr(), panel.data.as_ptr());
    let mut total = [[_mm512_setzero_ps(); V]; R];
    for k in 0..depth {
        // SAFETY: `k` is below the depth, of which the panel and each row of `a` hold as many.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(ahead.as_ptr().wrapping_add(k * LANES).cast());
            let row = data.add(k * VECTORS * LANES);
            let mut columns = [_mm512_setzero_ps(); V];
            for (v, columns) in columns.iter_mut().enumerate() {
                *columns = _mm512_loadu_ps(row.add(v * LANES));
            }
            for (r, total) in total.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(r * depth + k));
                for (total, columns) in total.iter_mut().zip(columns) {
                    *total = _mm512_fmadd_ps(x, columns, *total);
                }
            }
        }
    }
    for (total, sums) in total.into_iter().zip(sums) {
        for (total, sums) in total.into_iter().zip(sums) {
            // SAFETY: sixteen numbers.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), total) };
        }
    }
}
