//! From the bytes of a checkpoint to `f32`, transposed or not: PyTorch's `[out, in]` becomes our `[in, out]`.
//!
//! Numbers that are not finite are found in the same pass.

use rayon::prelude::*;

use crate::{BLOCK, cpu::prefetch};

/// Rows and columns that are turned at a time, in the nearest cache.
const TILE: usize = 64;

/// How a number is stored; little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    F32,
    F16,
    Bf16,
    /// Rounded to f32.
    F64,
}

impl Format {
    /// In bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F64 => 8,
        }
    }

    /// Number `index` of `bytes`.
    fn number(self, bytes: &[u8], index: usize) -> f32 {
        let mut out = [0.0];
        let size = self.size();
        widen(&bytes[index * size..][..size], self, &mut out, &mut false);
        out[0]
    }
}

/// Rows of a matrix of `cols` columns, from row `top` on, in `bytes` -> the same in `out`, where the whole matrix is
/// column by column.
///
/// Returns the index in `bytes` of the first number that is not finite.
pub fn transposed(
    bytes: &[u8],
    format: Format,
    cols: usize,
    top: usize,
    out: &mut [f32],
) -> Option<usize> {
    if bytes.is_empty() {
        return None;
    }
    assert!(out.len().is_multiple_of(cols), "{} numbers in rows of {cols}", out.len());
    let rows = out.len() / cols;
    let count = bytes.len() / (cols * format.size());
    assert_eq!(bytes.len(), count * cols * format.size(), "rows of {cols}");
    assert!(top + count <= rows, "{count} rows from row {top} of {rows}");
    let not_finite = out
        .par_chunks_mut(rows * TILE)
        .enumerate()
        .map(|(block, out)| {
            let mut not_finite = false;
            let source = Source { bytes, format, cols, first: block * TILE, rows, top };
            columns(source, out, &mut not_finite);
            not_finite
        })
        .reduce(|| false, |a, b| a | b);
    not_finite.then(|| first_not_finite(bytes, format))
}

/// The numbers of `bytes`, in the same order; returns as [`transposed`].
pub fn widened(bytes: &[u8], format: Format, out: &mut [f32]) -> Option<usize> {
    assert_eq!(bytes.len(), out.len() * format.size());
    let not_finite = out
        .par_chunks_mut(BLOCK)
        .zip(bytes.par_chunks(BLOCK * format.size()))
        .map(|(out, bytes)| {
            let mut not_finite = false;
            widen(bytes, format, out, &mut not_finite);
            not_finite
        })
        .reduce(|| false, |a, b| a | b);
    not_finite.then(|| first_not_finite(bytes, format))
}

#[cold]
fn first_not_finite(bytes: &[u8], format: Format) -> usize {
    let count = bytes.len() / format.size();
    (0..count).find(|i| !format.number(bytes, *i).is_finite()).expect("there is one")
}

/// Columns of a matrix from column `first` on; of its `rows` rows, those from row `top` on.
#[derive(Clone, Copy)]
struct Source<'a> {
    bytes: &'a [u8],
    format: Format,
    cols: usize,
    first: usize,
    rows: usize,
    top: usize,
}

/// Into the columns of `out`, one after the other.
#[inline(always)]
fn any_columns(source: Source, out: &mut [f32], not_finite: &mut bool) {
    let Source { bytes, format, cols, first, rows, top } = source;
    let size = format.size();
    let here = bytes.len() / size / cols;
    let count = out.len() / rows;
    let mut tile = [[0.0f32; TILE]; TILE];
    for start_row in (0..here).step_by(TILE) {
        let height = TILE.min(here - start_row);
        let top = top + start_row;
        for (r, row) in tile[..height].iter_mut().enumerate() {
            let start = ((start_row + r) * cols + first) * size;
            any_widen(&bytes[start..start + count * size], format, &mut row[..count], not_finite);
            // Rows and columns are pages apart, where the CPU does not see ahead by itself.
            let next = start + TILE * cols * size;
            prefetch(bytes.get(next..next + count * size).unwrap_or_default());
            if r < count {
                prefetch(&out[r * rows + top..][..height]);
            }
        }
        for (c, out) in out.chunks_exact_mut(rows).enumerate() {
            let out = &mut out[top..top + height];
            for (out, row) in out.iter_mut().zip(&tile) {
                *out = row[c];
            }
        }
    }
}

#[inline(always)]
fn any_widen(bytes: &[u8], format: Format, out: &mut [f32], not_finite: &mut bool) {
    match format {
        Format::F32 => widen_by::<4>(bytes, f32::from_le_bytes, out, not_finite),
        Format::F16 => widen_by::<2>(bytes, f16, out, not_finite),
        Format::Bf16 => widen_by::<2>(bytes, bf16, out, not_finite),
        Format::F64 => widen_by::<8>(bytes, |b| f64::from_le_bytes(b) as f32, out, not_finite),
    }
}

#[inline(always)]
fn widen_by<const SIZE: usize>(
    bytes: &[u8],
    number: impl Fn([u8; SIZE]) -> f32,
    out: &mut [f32],
    not_finite: &mut bool,
) {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut found = 0u32;
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
        *out = number(*bytes);
        found |= u32::from(out.to_bits() & EXPONENT == EXPONENT);
    }
    *not_finite |= found != 0;
}

#[inline(always)]
fn bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Without a branch, so that many are widened at once.
#[inline(always)]
fn f16(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let sign = (bits & 0x8000) << 16;
    // The exponent's bits where those of f32 are, then the difference of the two biases, 112, as a factor: that also
    // normalises what is below the normal range.
    let size = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let infinite = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(size.to_bits() | infinite | sign)
}

crate::for_this_cpu!(columns = any_columns(source: Source, out: &mut [f32], not_finite: &mut bool));
crate::for_this_cpu!(widen = any_widen(
    bytes: &[u8], format: Format, out: &mut [f32], not_finite: &mut bool
));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification of f16, by its parts.
    fn expected_f16(bits: u16) -> f64 {
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let fraction = f64::from(bits & 0x3ff) / 1024.0;
        sign * match i32::from(bits >> 10 & 0x1f) {
            0 => fraction * 2f64.powi(-14),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            exponent => (1.0 + fraction) * 2f64.powi(exponent - 15),
        }
    }

    #[test]
    fn every_f16() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = all.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let mut out = vec![0.0; all.len()];
        let first = widened(&bytes, Format::F16, &mut out);
        assert_eq!(first, Some(0x7c00));
        for (bits, found) in all.iter().zip(out) {
            let expected = expected_f16(*bits);
            let same = f64::from(found) == expected || (found.is_nan() && expected.is_nan());
            assert!(same, "{bits:#x}: {found}, not {expected}");
            assert_eq!(found.is_sign_negative(), bits & 0x8000 != 0, "{bits:#x}");
        }
    }

    fn check(format: Format, rows: usize, cols: usize, not_finite: Option<usize>) {
        let count = rows * cols;
        let mut bytes: Vec<u8> = (0..count as u32)
            .flat_map(|i| match format {
                Format::F32 => (i as f32).to_le_bytes().to_vec(),
                Format::F64 => f64::from(i).to_le_bytes().to_vec(),
                // Any bits but those of an infinite exponent.
                _ => ((i * 31 % 0x7c00) as u16).to_le_bytes().to_vec(),
            })
            .collect();
        if let Some(at) = not_finite {
            let end = (at + 1) * format.size();
            bytes[end - 2..end].copy_from_slice(&[0x80, 0xff]);
        }
        let (mut plain, mut turned) = (vec![0.0; count], vec![0.0; count]);
        assert_eq!(widened(&bytes, format, &mut plain), not_finite);
        let (upper, lower) = bytes.split_at(rows / 3 * cols * format.size());
        let found = transposed(upper, format, cols, 0, &mut turned);
        let found_below = transposed(lower, format, cols, rows / 3, &mut turned);
        assert_eq!(found.or(found_below.map(|at| at + rows / 3 * cols)), not_finite);
        for i in 0..count {
            let (found, bits) = (turned[i % cols * rows + i / cols], i as u32 * 31 % 0x7c00);
            let expected = match format {
                Format::F32 | Format::F64 => i as f32,
                Format::F16 => expected_f16(bits as u16) as f32,
                Format::Bf16 => f32::from_bits(bits << 16),
            };
            assert_eq!(found.to_bits(), plain[i].to_bits(), "{rows} x {cols}, {i}");
            assert!(found == expected || not_finite == Some(i), "{rows} x {cols}, {i}: {found}");
        }
    }

    proptest! {
        #[test]
        fn any_size(rows in 0..200usize, cols in 0..200usize, at in 0..100_000usize) {
            for format in [Format::F32, Format::F16, Format::Bf16, Format::F64] {
                check(format, rows, cols, None);
                check(format, rows, cols, (at < rows * cols).then_some(at));
            }
        }
    }
}
