//! Operations that flex runs as one pass of our own kernels, with their gradients.
//!
//! Burn's flex backend makes a pass over memory for every addition, on one thread, and computes the error
//! function one number at a time. Where [`applies`] says no, the layers compose the same from Burn's operations,
//! which is the specification that the tests hold the kernels to.

mod autodiff;
mod conv;
mod flex;

use burn::{
    backend::{
        Backend, Dispatch, backend_extension,
        tensor::{BoolTensor, FloatTensor},
    },
    prelude::*,
    tensor::DType,
};
use firebrick_kernels::dropout::Dropout;

pub use conv::{ConvOps, convolution, global_average, max_pool};

/// What a backend must bring for the functions below.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn fused_dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self>;

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
        pad: BoolTensor<Self>,
        heads: usize,
        dropout: Dropout,
    ) -> FloatTensor<Self>;
}

/// Are there kernels for this tensor? The functions below panic where there are none.
pub fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().inner() == Device::flex()
}

/// Exact GELU, `[..]` -> `[..]`.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch()))
}

/// `[..]` -> `[..]`
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_dropout(x.into_dispatch(), dropout))
}

/// `x weight + bias`, `[.., I]` -> `[.., O]`; `weight`: `[I, O]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// `x weight`, `[.., I]` -> `[.., O]`; `weight`: `[I, O]`.
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

/// Multi-head attention over projections, `[B, T, C]` each; `pad`: `[B, T]`, true where a key is hidden.
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    pad: Tensor<2, Bool>,
    heads: usize,
    dropout: Dropout,
) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        pad.into_dispatch(),
        heads,
        dropout,
    ))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, TensorData, activation, activation::softmax};

    use super::*;

    const SHAPE: [usize; 3] = [3, 5, 8];

    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device).require_grad()
    }

    /// Equal values, and equal gradients of every input for a gradient that differs by element.
    fn same<const N: usize>(
        inputs: [Tensor<1>; N],
        fused: impl Fn(&[Tensor<1>; N]) -> Tensor<3>,
        composed: impl Fn(&[Tensor<1>; N]) -> Tensor<3>,
    ) {
        let run = |f: &dyn Fn(&[Tensor<1>; N]) -> Tensor<3>| {
            let y = f(&inputs);
            let n = y.shape().num_elements() as i64;
            let slope = Tensor::<1, Int>::arange(0..n, &y.device()).float().sin().reshape(y.dims());
            let grads = (y.clone() * slope).sum().backward();
            let grads = inputs.each_ref().map(|x| x.grad(&grads).expect("a gradient").into_data());
            (y.into_data(), grads)
        };
        let ((y, grads), (expected_y, expected)) = (run(&fused), run(&composed));
        let close = |found: &TensorData, expected: &TensorData| {
            let tolerance = burn::tensor::Tolerance::<f32>::rel_abs(2e-5, 2e-5);
            found.assert_approx_eq(expected, tolerance);
        };
        close(&y, &expected_y);
        grads.iter().zip(&expected).for_each(|(found, expected)| close(found, expected));
    }

    fn device() -> Device {
        let device = Device::flex().autodiff();
        device.seed(3);
        device
    }

    #[test]
    fn gelu_is_burns() {
        let x = random([120], &device());
        same(
            [x],
            |[x]| gelu(x.clone().reshape(SHAPE)),
            |[x]| activation::gelu(x.clone().reshape(SHAPE)),
        );
    }

    #[test]
    fn linear_is_a_product_and_a_sum() {
        let device = device();
        let inputs = [random([120], &device), random([48], &device), random([6], &device)];
        same(
            inputs,
            |[x, w, b]| {
                let (x, w) = (x.clone().reshape(SHAPE), w.clone().reshape([8, 6]));
                linear(x, w, b.clone())
            },
            |[x, w, b]| {
                let x = x.clone().reshape([15, 8]).matmul(w.clone().reshape([8, 6]));
                (x + b.clone().unsqueeze()).reshape([3, 5, 6])
            },
        );
    }

    #[test]
    fn a_product_has_no_bias() {
        let device = device();
        same(
            [random([120], &device), random([48], &device)],
            |[x, w]| product(x.clone().reshape(SHAPE), w.clone().reshape([6, 8]).transpose()),
            |[x, w]| {
                let w = w.clone().reshape([6, 8]).transpose();
                x.clone().reshape(SHAPE).matmul(w.unsqueeze())
            },
        );
    }

    /// Also with a transposed weight, as of tied embeddings, and a first axis cut from a larger tensor.
    #[test]
    fn linear_of_views() {
        let device = device();
        let inputs = [random([240], &device), random([48], &device), random([6], &device)];
        let views = |[x, w, b]: &[Tensor<1>; 3]| {
            let x = x.clone().reshape([3, 5, 16]).slice([0..3, 0..5, 4..12]);
            (x, w.clone().reshape([6, 8]).transpose(), b.clone())
        };
        same(
            inputs,
            |all| {
                let (x, w, b) = views(all);
                linear(x, w, b)
            },
            |all| {
                let (x, w, b) = views(all);
                x.matmul(w.unsqueeze()) + b.unsqueeze()
            },
        );
    }

    fn composed_norm(x: Tensor<3>, w: &Tensor<1>, b: &Tensor<1>) -> Tensor<3> {
        let centred = x.clone() - x.mean_dim(2);
        let deviation = (centred.clone().square().mean_dim(2) + 1e-5).sqrt();
        centred / deviation * w.clone().unsqueeze() + b.clone().unsqueeze()
    }

    #[test]
    fn norms_are_their_formula() {
        let device = device();
        let inputs = [random([120], &device), random([8], &device), random([8], &device)];
        same(
            inputs.clone(),
            |[x, w, b]| norm(x.clone().reshape(SHAPE), w.clone(), b.clone(), 1e-5),
            |[x, w, b]| composed_norm(x.clone().reshape(SHAPE), w, b),
        );
        let [x, w, b] = inputs;
        same(
            [x, random([120], &device), w, b],
            |[x, y, w, b]| {
                let (x, y) = (x.clone().reshape(SHAPE), y.clone().reshape(SHAPE));
                residual_norm(x, y, w.clone(), b.clone(), 1e-5, Dropout::NONE)
            },
            |[x, y, w, b]| composed_norm((x.clone() + y.clone()).reshape(SHAPE), w, b),
        );
    }

    #[test]
    fn attention_is_its_formula() {
        let device = device();
        let inputs = [0; 3].map(|_| random([120], &device));
        let pad = TensorData::from([[false; 5], [false, true, false, false, true], [true; 5]]);
        let pad = Tensor::<2, Bool>::from_data(pad, &device);
        same(
            inputs,
            |all| {
                let [q, k, v] = all.each_ref().map(|x| x.clone().reshape(SHAPE));
                attention(q, k, v, pad.clone(), 2, Dropout::NONE)
            },
            |all| {
                let [q, k, v] =
                    all.each_ref().map(|x| x.clone().reshape([3, 5, 2, 4]).swap_dims(1, 2));
                let scores = q.matmul(k.swap_dims(2, 3)) / 2.0;
                let hidden = pad.clone().reshape([3, 1, 1, 5]).expand([3, 2, 5, 5]);
                let weights = softmax(scores.mask_fill(hidden, f32::MIN), 3);
                weights.matmul(v).swap_dims(1, 2).reshape(SHAPE)
            },
        );
    }

    /// The gradient of a dropped element is zero and of a kept one its factor.
    #[test]
    fn dropout_drops_the_same_in_both_passes() {
        let x = random([120], &device());
        let y = dropout(x.clone(), Dropout::new(0.5, 1));
        let grads = y.clone().sum().backward();
        let factor = x.grad(&grads).expect("a gradient");
        y.into_data().assert_eq(&(x * Tensor::from_inner(factor)).into_data(), true);
    }
}
