//! Operations that flex runs as one pass of our own kernels, with their gradients.
//!
//! Burn's flex backend makes a pass over memory for every addition, on one thread, and computes the error
//! function one number at a time. Where [`applies`] says no, the layers compose the same from Burn's operations,
//! which is the specification that the tests hold the kernels to.

mod autodiff;
mod conv;
mod flex;
mod packed;
mod recurrence;
mod reorder;
mod rerun;
#[cfg(test)]
mod tests;

use burn::{
    backend::{
        Backend, Dispatch, ExtensionType, backend_extension,
        tensor::{BoolTensor, FloatTensor, IntTensor},
    },
    prelude::*,
    tensor::DType,
};
use firebrick_kernels::{activation::Activation, dropout::Dropout};

use super::{
    attention::{Heads, Mask},
    split::Split,
};

pub use reorder::{ReorderOps, reorder, reorders};
pub use rerun::{Rerun, RerunOps, rerun};

pub use conv::{
    ConvOps, InferenceOps, NormForm, batch_norm, convolution, convolution_norm, global_average,
    max_pool,
};
pub use packed::{PackedOps, convolves_packed, is_packed, packed, plain, reads_packed, unpacked};
pub use recurrence::{RecurrenceForm, RecurrenceOps, recurrence};

/// What a backend must bring for the functions below.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    fn fused_activation(x: FloatTensor<Self>, f: Activation) -> FloatTensor<Self>;

    fn fused_gated(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        f: Activation,
    ) -> FloatTensor<Self>;

    fn fused_dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self>;

    fn fused_enter(x: FloatTensor<Self>, split: Split) -> FloatTensor<Self>;

    fn fused_leave(x: FloatTensor<Self>, split: Split) -> FloatTensor<Self>;

    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn fused_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    fn fused_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;

    fn fused_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;

    fn fused_residual_norm(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
        dropout: Dropout,
    ) -> FloatTensor<Self>;

    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] pad: Optional<Self>,
        #[extension_type] bias: Optional<Self>,
        form: AttentionForm,
    ) -> FloatTensor<Self>;

    fn fused_packed_attention(
        all: FloatTensor<Self>,
        #[extension_type] pad: Optional<Self>,
        form: AttentionForm,
    ) -> FloatTensor<Self>;

    fn fused_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn fused_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn fused_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        ignore: Option<i32>,
        smoothing: f32,
    ) -> FloatTensor<Self>;

    fn fused_embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self>;

    fn fused_rotation(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// A tensor that an operation can do without.
#[derive(Debug, Clone, ExtensionType)]
pub enum Optional<B: Backend> {
    Absent,
    Bool(BoolTensor<B>),
    Float(FloatTensor<B>),
}

/// What attention is told beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct AttentionForm {
    heads: Heads,
    causal: bool,
    window: Option<usize>,
    dropout: Dropout,
}

impl AttentionForm {
    fn new(heads: Heads, mask: &Mask, dropout: Dropout) -> Self {
        Self { heads, causal: mask.causal, window: mask.window, dropout }
    }
}

/// Are there kernels for this tensor? The functions below panic where there are none.
pub fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().inner() == Device::flex()
}

/// May a weight of [`linear`] and [`product`] on this device be bf16? Where it trains, it stays f32.
pub fn reads_bf16(device: &Device) -> bool {
    *device == Device::flex() && !device.is_autodiff()
}

/// `f(x)`, `[..]` -> `[..]`.
pub fn activation<const D: usize>(x: Tensor<D>, f: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_activation(x.into_dispatch(), f))
}

/// `f(gate) * up`, `[..]` each -> `[..]`.
pub fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, f: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_gated(gate.into_dispatch(), up.into_dispatch(), f))
}

/// `[..]` -> `[..]`
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_dropout(x.into_dispatch(), dropout))
}

/// `x`, whose gradient is the sum of the members' ones: the `f` of Megatron-LM.
pub fn enter<const D: usize>(x: Tensor<D>, split: Split) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_enter(x.into_dispatch(), split))
}

/// The sum of the members' `x`, whose gradient is that of each: the `g` of Megatron-LM.
pub fn leave<const D: usize>(x: Tensor<D>, split: Split) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_leave(x.into_dispatch(), split))
}

/// `x weight + bias`, `[.., I]` -> `[.., O]`; `weight`: `[I, O]`, also in bf16 or packed.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// `x weight`, `[.., I]` -> `[.., O]`; `weight`: `[I, O]`, also in bf16 or packed.
pub fn product<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_product(x.into_dispatch(), weight.into_dispatch()))
}

/// Layer norm over the last axis, `[.., C]` -> `[.., C]`.
pub fn norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        eps as f32,
    ))
}

/// RMS norm over the last axis, `[.., C]` -> `[.., C]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_rms_norm(x, weight, eps as f32))
}

/// Layer norm of `x + dropout(branch)`, `[.., C]` -> `[.., C]`.
pub fn residual_norm<const D: usize>(
    x: Tensor<D>,
    branch: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    dropout: Dropout,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_residual_norm(
        x.into_dispatch(),
        branch.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        eps as f32,
        dropout,
    ))
}

/// Multi-head attention over projections. Keys and values may be the first rows of longer buffers: they are read
/// where they lie.
///
/// - `query`: `[B, Tq, H * D]`; `key`, `value`: `[B, Tk, G * D]`
/// - returns `[B, Tq, H * D]`
pub fn attention(
    [query, key, value]: [Tensor<3>; 3],
    heads: Heads,
    mask: &Mask,
    dropout: Dropout,
) -> Tensor<3> {
    let bias = mask.bias.clone();
    let bias = bias.map_or(Optional::Absent, |bias| Optional::Float(bias.into_dispatch()));
    Tensor::from_dispatch(Dispatch::fused_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        padding(mask),
        bias,
        AttentionForm::new(heads, mask, dropout),
    ))
}

/// [`attention`] over query, key and value side by side, `[B, T, 3 * H * D]` -> `[B, T, H * D]`; without a bias.
pub fn packed_attention(all: Tensor<3>, heads: Heads, mask: &Mask, dropout: Dropout) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_packed_attention(
        all.into_dispatch(),
        padding(mask),
        AttentionForm::new(heads, mask, dropout),
    ))
}

fn padding(mask: &Mask) -> Optional<Dispatch> {
    mask.pad.clone().map_or(Optional::Absent, |pad| Optional::Bool(pad.into_dispatch()))
}

/// Softmax over the last axis, `[..]` -> `[..]`.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_softmax(x.into_dispatch()))
}

/// Logarithm of [`softmax`], `[..]` -> `[..]`.
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_log_softmax(x.into_dispatch()))
}

/// Mean over the rows whose target is not `ignore`; `logits`: `[N, V]`, `targets`: `[N]`.
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    ignore: Option<i32>,
    smoothing: f64,
) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::fused_cross_entropy(
        logits.into_dispatch(),
        targets.into_dispatch(),
        ignore,
        smoothing as f32,
    ))
}

/// Rows of a table, also a packed one: `[V, C]` and `[B, T]` -> `[B, T, C]`.
pub fn embedding(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_embedding(table.into_dispatch(), ids.into_dispatch()))
}

/// Turns every head's pairs: `x`: `[B, T, H * D]`; `cos`, `sin`: `[1 or B, T, D / 2]`, which get no gradient.
pub fn rotate(x: Tensor<3>, [cos, sin]: [Tensor<3>; 2]) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_rotation(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
    ))
}
