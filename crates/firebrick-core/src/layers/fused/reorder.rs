//! Rows of a cache in another order, as beam search wants them at every step.

use burn::{
    backend::{
        Backend, Dispatch, Flex, TensorMetadata, backend_extension,
        tensor::{FloatTensor, IntTensor},
    },
    prelude::*,
    tensor::DType,
};
use burn_flex::FlexTensor;

use super::flex::{dense, floats, fresh, ints};

/// What a backend must bring for [`reorder`].
#[backend_extension(Flex)]
pub trait ReorderOps: Backend {
    fn fused_reorder(
        x: FloatTensor<Self>,
        rows: IntTensor<Self>,
        kept: usize,
        room: usize,
    ) -> FloatTensor<Self>;
}

/// Is there a kernel for this tensor? [`reorder`] panics where there is none.
pub fn reorders(x: &Tensor<3>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex()
}

/// Row `i` is `x`'s row `rows[i]`: its first `kept` vectors, and room for `room` in all, which holds anything:
/// `[B, T, C]` -> `[rows, room, C]`. Burn's `select` copies what is not used too, onto zeros.
pub fn reorder(x: Tensor<3>, rows: Tensor<1, Int>, kept: usize, room: usize) -> Tensor<3> {
    let (x, rows) = (x.into_dispatch(), rows.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_reorder(x, rows, kept, room))
}

impl ReorderOps for Flex {
    fn fused_reorder(x: FlexTensor, rows: FlexTensor, kept: usize, room: usize) -> FlexTensor {
        let (x, rows) = (dense(x), dense(rows));
        let [_, t, c] = x.shape().dims();
        let (from, rows) = (floats(&x), ints(&rows));
        let mut y = fresh(Shape::new([rows.len(), room, c]));
        for (row, to) in rows.iter().zip(y.storage_mut::<f32>().chunks_exact_mut(room * c)) {
            to[..kept * c].copy_from_slice(&from[*row as usize * t * c..][..kept * c]);
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_select_does() {
        let device = Device::flex();
        let x = Tensor::<1, Int>::arange(0..24, &device).float().reshape([3, 4, 2]);
        let rows = Tensor::<1, Int>::from_data([2, 0, 2, 1], &device);
        let found = reorder(x.clone(), rows.clone(), 3, 7);
        assert_eq!(found.dims(), [4, 7, 2]);
        let expected = x.select(0, rows).narrow(1, 0, 3);
        assert_eq!(found.narrow(1, 0, 3).into_data(), expected.into_data());
    }
}
