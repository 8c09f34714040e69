use burn::tensor::{Distribution, TensorData, Tolerance, activation as burns, module};
use firebrick_kernels::dropout::Dropout;

use super::*;
use crate::layers::{
    activation::Activation,
    attention::{self, Heads, Mask},
    dropout, loss, position,
};

const SHAPE: [usize; 3] = [3, 5, 8];

pub(super) fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device).require_grad()
}

/// Equal values, and equal gradients of every input for a gradient that differs by element, and is nowhere 0 or 1.
pub(super) fn same<const N: usize, const D: usize>(
    inputs: [Tensor<1>; N],
    fused: impl Fn(&[Tensor<1>; N]) -> Tensor<D>,
    composed: impl Fn(&[Tensor<1>; N]) -> Tensor<D>,
) {
    let run = |f: &dyn Fn(&[Tensor<1>; N]) -> Tensor<D>| {
        let y = f(&inputs);
        let n = y.shape().num_elements() as i64;
        let slope = Tensor::<1, Int>::arange(1..n + 1, &y.device()).float().sin().reshape(y.dims());
        let grads = (y.clone() * slope).sum().backward();
        let grads = inputs.each_ref().map(|x| x.grad(&grads).expect("a gradient").into_data());
        (y.into_data(), grads)
    };
    let ((y, grads), (expected_y, expected)) = (run(&fused), run(&composed));
    let close = |found: &TensorData, expected: &TensorData| {
        let tolerance = Tolerance::<f32>::rel_abs(2e-5, 2e-5);
        found.assert_approx_eq(expected, tolerance);
    };
    close(&y, &expected_y);
    grads.iter().zip(&expected).for_each(|(found, expected)| close(found, expected));
}

pub(super) fn device() -> Device {
    let device = Device::flex().autodiff();
    device.seed(3);
    device
}

#[test]
fn activations_are_burns() {
    let device = device();
    for f in [Activation::Gelu, Activation::GeluNew, Activation::QuickGelu, Activation::Silu] {
        same(
            [random([120], &device)],
            |[x]| f.forward(x.clone().reshape(SHAPE)),
            |[x]| f.composed(x.clone().reshape(SHAPE)),
        );
        same(
            [random([120], &device), random([120], &device)],
            |[gate, up]| f.gated(gate.clone().reshape(SHAPE), up.clone().reshape(SHAPE)),
            |[gate, up]| f.composed(gate.clone().reshape(SHAPE)) * up.clone().reshape(SHAPE),
        );
    }
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
fn rms_norm_is_its_formula() {
    let device = device();
    same(
        [random([120], &device), random([8], &device)],
        |[x, w]| rms_norm(x.clone().reshape(SHAPE), w.clone(), 1e-5),
        |[x, w]| {
            let x = x.clone().reshape(SHAPE);
            let power = x.clone().square().mean_dim(2);
            x / (power + 1e-5).sqrt() * w.clone().unsqueeze()
        },
    );
}

/// Sizes of attention whose keys and values are the first `keys` rows of buffers.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    capacity: usize,
    heads: Heads,
    dim: usize,
}

impl Sizes {
    /// Two rows of four queries and heads, over as many keys.
    fn square() -> Self {
        Self::new(2, 4, 4)
    }

    fn new(batch: usize, queries: usize, keys: usize) -> Self {
        Self { batch, queries, keys, capacity: keys, heads: Heads::new(4, 3), dim: 3 }
    }

    fn grouped(self) -> Self {
        Self { heads: Heads::grouped(4, 2, 3), ..self }
    }

    fn inputs(self, device: &Device) -> [Tensor<1>; 3] {
        let Self { batch, queries, capacity, heads, dim, .. } = self;
        let memory = batch * capacity * heads.key_value * dim;
        [batch * queries * heads.query * dim, memory, memory].map(|n| random([n], device))
    }

    fn views(self, [q, k, v]: [&Tensor<1>; 3]) -> [Tensor<3>; 3] {
        let Self { batch: b, queries, keys, capacity, heads, dim } = self;
        let c = heads.key_value * dim;
        let rows = |x: &Tensor<1>| x.clone().reshape([b, capacity, c]).slice([0..b, 0..keys, 0..c]);
        [q.clone().reshape([b, queries, heads.query * dim]), rows(k), rows(v)]
    }
}

/// The kernel is the composed attention, with and without a bias for every row or for all.
#[track_caller]
fn check_attention(sizes: Sizes, mask: Mask) {
    let device = device();
    let none = dropout::Dropout::new(0.0);
    same(
        sizes.inputs(&device),
        |all| attention(sizes.views(all.each_ref()), sizes.heads, &mask, Dropout::NONE),
        |all| attention::composed(sizes.views(all.each_ref()), sizes.heads, &mask, &none),
    );
    for rows in [1, sizes.batch] {
        let shape = [rows, sizes.heads.query, sizes.queries, sizes.keys];
        let [q, k, v] = sizes.inputs(&device);
        let bias = random([shape.iter().product()], &device);
        let masked = |bias: &Tensor<1>| {
            let bias = Some(bias.clone().reshape(shape));
            Mask { bias, ..mask.clone() }
        };
        same(
            [q, k, v, bias],
            |[q, k, v, bias]| {
                attention(sizes.views([q, k, v]), sizes.heads, &masked(bias), Dropout::NONE)
            },
            |[q, k, v, bias]| {
                attention::composed(sizes.views([q, k, v]), sizes.heads, &masked(bias), &none)
            },
        );
    }
}

fn pad<const B: usize, const K: usize>(pad: [[bool; K]; B]) -> Option<Tensor<2, Bool>> {
    Some(Tensor::from_data(TensorData::from(pad), &device()))
}

#[test]
fn attention_is_its_formula() {
    const T: bool = true;
    const F: bool = false;
    check_attention(Sizes::square(), Mask::default());
    check_attention(Sizes::square(), Mask::padding(pad([[F, T, F, T], [T; 4]])));
    check_attention(Sizes::square(), Mask::causal(pad([[F, F, T, F], [F, T, F, T]])));
    // More keys than queries, as of a memory; fewer, too.
    check_attention(Sizes::new(2, 3, 5), Mask::padding(pad([[F, F, F, T, T], [F; 5]])));
    check_attention(Sizes::new(2, 5, 2).grouped(), Mask::default());
    // One new query.
    check_attention(Sizes::new(1, 1, 6).grouped(), Mask::causal(None));
    check_attention(
        Sizes::new(3, 1, 4).grouped(),
        Mask::causal(pad([[T, F, F, F], [F; 4], [T, T, F, F]])),
    );
    let window = Mask { window: Some(2), ..Mask::causal(None) };
    check_attention(Sizes::square().grouped(), window.clone());
    check_attention(Sizes::new(2, 2, 6), window);
    // A scale of its own, as T5's.
    let heads = Heads { scale: 1.0, ..Heads::new(4, 3) };
    check_attention(Sizes { heads, ..Sizes::square() }, Mask::default());
}

/// A cache that is still filling.
#[test]
fn attention_over_the_first_rows_of_a_buffer() {
    for batch in [1, 3] {
        let sizes = Sizes { capacity: 9, ..Sizes::new(batch, 2, 5).grouped() };
        check_attention(sizes, Mask::causal(None));
        check_attention(Sizes { queries: 1, ..sizes }, Mask::causal(None));
    }
}

#[test]
fn packed_attention_is_that_of_its_parts() {
    let device = device();
    let (heads, none) = (Heads::new(4, 3), dropout::Dropout::new(0.0));
    for [b, t] in [[1, 5], [3, 5], [3, 1]] {
        let mask = Mask::causal(None);
        let packed = |x: &Tensor<1>| x.clone().reshape([b, t, 36]);
        same(
            [random([b * t * 36], &device)],
            |[x]| packed_attention(packed(x), heads, &mask, Dropout::NONE),
            |[x]| attention::composed(attention::split(packed(x)), heads, &mask, &none),
        );
    }
}

#[test]
fn softmax_and_its_logarithm_are_burns() {
    let device = device();
    same(
        [random([120], &device)],
        |[x]| softmax(x.clone().reshape(SHAPE)),
        |[x]| burns::softmax(x.clone().reshape(SHAPE), 2),
    );
    same(
        [random([120], &device)],
        |[x]| log_softmax(x.clone().reshape(SHAPE)),
        |[x]| burns::log_softmax(x.clone().reshape(SHAPE), 2),
    );
}

#[test]
fn cross_entropy_is_its_formula() {
    let device = device();
    let targets = Tensor::<1, Int>::from_data([0, 7, -100, 3, 3], &device);
    for (ignore, smoothing) in [(Some(-100), 0.0), (Some(-100), 0.1), (Some(3), 0.3), (None, 0.2)] {
        let targets = match ignore {
            Some(-100) => targets.clone(),
            _ => targets.clone().clamp_min(0),
        };
        same(
            [random([40], &device)],
            |[x]| {
                let logits = x.clone().reshape([5, 8]);
                cross_entropy(logits, targets.clone(), ignore, smoothing)
            },
            |[x]| {
                let logits = x.clone().reshape([5, 8]);
                loss::composed(logits, targets.clone(), ignore, smoothing)
            },
        );
    }
}

#[test]
fn embedding_is_burns() {
    let device = device();
    let ids = Tensor::<2, Int>::from_data([[3, 0, 3], [1, 9, 3]], &device);
    same(
        [random([40], &device)],
        |[x]| embedding(x.clone().reshape([10, 4]), ids.clone()),
        |[x]| module::embedding(x.clone().reshape([10, 4]), ids.clone()),
    );
}

#[test]
fn rotation_is_its_formula() {
    let device = device();
    for rows in [1, 3] {
        let angles = Tensor::<1, Int>::arange(0..rows * 5 * 2, &device).float();
        let angles = angles.reshape([rows as usize, 5, 2]);
        let angles = [angles.clone().cos(), angles.sin()];
        same(
            [random([120], &device)],
            |[x]| rotate(x.clone().reshape(SHAPE), angles.clone()),
            |[x]| position::composed(x.clone().reshape(SHAPE), angles.clone()),
        );
    }
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
