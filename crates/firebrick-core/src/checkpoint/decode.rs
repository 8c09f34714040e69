//! Little-endian numbers of a file to f32: one pass that converts, checks and, where asked,
//! transposes. It is shared among rayon's threads in blocks, so that beside the result no more than
//! a few blocks are in memory.

use std::ops::Deref;

use burn::tensor::bf16;
use firebrick_kernels::{
    allocator::lasting,
    transpose::{Format, transposed, widened},
};
use rayon::prelude::*;

use super::header::Dtype;

/// Numbers per block, 4 MiB of f32: mapping one costs little beside reading it.
const BLOCK: usize = 1 << 20;

/// Numbers of f32 in a cache line.
const LINE: usize = 16;

/// How a tensor's numbers are laid out for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As in the file.
    Flat,
    /// A matrix of `[rows, columns]` as `[columns, rows]`.
    Transposed { rows: usize, columns: usize },
}

pub(super) struct Decoded<T = f32> {
    pub numbers: Vec<T>,
    /// The first number found that is not finite.
    pub bad: Option<f32>,
}

/// Decodes `count` numbers, of which `bytes(begin, len)` gives a range; `None` when `dtype` is not
/// a float.
pub(super) fn decode<B: Deref<Target = [u8]> + Sync, E: Send>(
    dtype: Dtype,
    count: usize,
    order: Order,
    bytes: impl Fn(usize, usize) -> Result<B, E> + Sync,
) -> Option<Result<Decoded, E>> {
    let format = match dtype {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::Bf16,
        Dtype::F64 => Format::F64,
        _ => return None,
    };
    Some(match order {
        Order::Flat => flat(format, count, bytes),
        Order::Transposed { rows, columns } => turned(format, [rows, columns], bytes),
    })
}

fn flat<B: Deref<Target = [u8]>, E: Send>(
    format: Format,
    count: usize,
    bytes: impl Fn(usize, usize) -> Result<B, E> + Sync,
) -> Result<Decoded, E> {
    let mut floats = lasting(count);
    let bad = floats.par_chunks_mut(BLOCK).enumerate().map(|(block, out)| {
        let bytes = bytes(block * BLOCK * format.size(), out.len() * format.size())?;
        Ok(widened(&bytes, format, out).map(|at| out[at]))
    });
    let bad = bad.collect::<Result<Vec<_>, E>>()?.into_iter().flatten().next();
    Ok(Decoded { numbers: floats, bad })
}

fn turned<B: Deref<Target = [u8]>, E>(
    format: Format,
    [rows, columns]: [usize; 2],
    bytes: impl Fn(usize, usize) -> Result<B, E>,
) -> Result<Decoded, E> {
    let mut floats = lasting(rows * columns);
    let mut bad = None;
    // About a block, of whole lines of the result.
    let step = (BLOCK / columns.max(1)).max(1).next_multiple_of(LINE);
    for top in (0..rows).step_by(step) {
        let size = columns * format.size();
        let bytes = bytes(top * size, step.min(rows - top) * size)?;
        let found = transposed(&bytes, format, columns, top, &mut floats);
        bad = bad.or(found.map(|at| floats[at % columns * rows + top + at / columns]));
    }
    Ok(Decoded { numbers: floats, bad })
}

/// As [`decode`], but the numbers of a bf16 tensor stay what they are.
pub(super) fn bf16s<B: Deref<Target = [u8]>, E: Send>(
    count: usize,
    bytes: impl Fn(usize, usize) -> Result<B, E> + Sync,
) -> Result<Decoded<bf16>, E> {
    let mut numbers: Vec<bf16> = lasting(count);
    let bad = numbers.par_chunks_mut(BLOCK).enumerate().map(|(block, out)| {
        let bytes = bytes(block * BLOCK * 2, out.len() * 2)?;
        let mut odd = false;
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *out = bf16::from_le_bytes(*bytes);
            odd |= !out.is_finite();
        }
        Ok(out.iter().find(|x| odd && !x.is_finite()).map(|x| x.to_f32()))
    });
    let bad = bad.collect::<Result<Vec<_>, E>>()?.into_iter().flatten().next();
    Ok(Decoded { numbers, bad })
}

/// The elements of a strided tensor, row by row. `bytes` begin with its first one and reach to its last.
pub(super) fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use burn::tensor::f16;

    use super::*;

    /// Against the definition, with sizes that end within a tile and within a block.
    #[track_caller]
    fn check(dtype: Dtype, rows: usize, columns: usize, encode: impl Fn(f32) -> Vec<u8>) {
        let x: Vec<f32> = (0..rows * columns).map(|i| (i % 997) as f32 - 30.0).collect();
        let file: Vec<u8> = x.iter().flat_map(|x| encode(*x)).collect();
        let bytes = |begin: usize, len: usize| Ok::<_, ()>(&file[begin..begin + len]);
        let decode = |order| decode(dtype, x.len(), order, bytes).unwrap().unwrap();

        let flat = decode(Order::Flat);
        assert!(flat.numbers == x && flat.bad.is_none());
        let turned = decode(Order::Transposed { rows, columns });
        assert!(turned.bad.is_none());
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(turned.numbers[column * rows + row], x[row * columns + column]);
            }
        }
    }

    #[test]
    fn every_float_type_in_both_orders() {
        check(Dtype::F32, 1500, 701, |x| x.to_le_bytes().to_vec());
        check(Dtype::F16, 17, 33, |x| f16::from_f32(x).to_le_bytes().to_vec());
        check(Dtype::BF16, 6, 7, |x| bf16::from_f32(x).to_le_bytes().to_vec());
        check(Dtype::F64, 1, 16, |x| f64::from(x).to_le_bytes().to_vec());
        check(Dtype::F32, 0, 5, |x| x.to_le_bytes().to_vec());
        check(Dtype::F32, 3, 2_000_000, |x| x.to_le_bytes().to_vec());
    }

    #[test]
    fn a_strided_tensor_is_put_in_order() {
        // Every second column of a 2 x 4 matrix, transposed.
        assert_eq!(gather(&[0, 1, 2, 3, 4, 5, 6], 1, &[2, 2], &[2, 4]), [0, 4, 2, 6]);
        assert_eq!(gather(&[1, 2, 3, 4], 2, &[], &[]), [1, 2]);
    }

    #[test]
    fn what_is_not_finite_is_found() {
        let file: Vec<u8> =
            [1.0, 2.0, f32::NEG_INFINITY, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let bytes = |begin: usize, len: usize| Ok::<_, ()>(&file[begin..begin + len]);
        for order in [Order::Flat, Order::Transposed { rows: 2, columns: 2 }] {
            let decoded = decode(Dtype::F32, 4, order, bytes).unwrap().unwrap();
            assert_eq!(decoded.bad, Some(f32::NEG_INFINITY));
        }
        // The same bytes are 0, 1, 0, 2, 0, -inf, 0, 3 as bf16.
        let decoded = bf16s(8, bytes).unwrap();
        assert_eq!(decoded.numbers[3], bf16::from_f32(2.0));
        assert_eq!(decoded.bad, Some(f32::NEG_INFINITY));
        assert!(decode(Dtype::I64, 4, Order::Flat, bytes).is_none());
    }
}
