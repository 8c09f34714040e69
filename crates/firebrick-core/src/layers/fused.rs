//! Operations that flex runs as one pass of our own kernels, with their gradients.
//!
//! Burn's flex backend computes the error function one number at a time on one thread: 64 times
//! PyTorch's time. Other backends keep their own implementation.

use burn::{
    backend::{
        Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind, unary},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    prelude::*,
    tensor::{DType, activation},
};
use burn_flex::FlexTensor;
use firebrick_kernels::gelu as kernel;

/// Exact GELU, `[..]` -> `[..]`.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.dtype() != DType::F32 || x.device().inner() != Device::flex() {
        return activation::gelu(x);
    }
    Tensor::from_dispatch(<Dispatch as FusedOps>::fused_gelu(x.into_dispatch()))
}

/// What a backend must bring for the functions above.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// The gradient with respect to `x`, given the one with respect to the output.
    fn fused_gelu_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl FusedOps for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let mut y = FlexTensor::empty(x.shape(), DType::F32);
        kernel::forward(floats(&x), y.storage_mut());
        y
    }

    fn fused_gelu_gradient(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let mut dx = FlexTensor::empty(x.shape(), DType::F32);
        kernel::backward(floats(&x), floats(&dy), dx.storage_mut());
        dx
    }
}

fn floats(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("contiguous, and f32 as the callers above check")
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gelu;

        impl<B: FusedOps> Backward<B, 1> for Gelu {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let x = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |dy| B::fused_gelu_gradient(x, dy));
            }
        }

        let (node, x) = (x.node(), x.primitive().clone());
        match Gelu.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), B::fused_gelu(x)),
            OpsKind::UnTracked(prep) => prep.finish(B::fused_gelu(x)),
        }
    }

    fn fused_gelu_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        // Second derivatives are not needed anywhere.
        Self::from_inner(B::fused_gelu_gradient(Self::inner(x), Self::inner(dy)))
    }
}
