//! The feed-forward half of a Transformer layer.

use burn::{module::Module, prelude::*};

use super::{activation::Activation, linear::Linear};

/// `down(activation(up(x)))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    up: Linear,
    down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    /// `width` -> `inner` -> `width`, with biases.
    pub fn new(
        width: usize,
        inner: usize,
        activation: Activation,
        std: f64,
        device: &Device,
    ) -> Self {
        Self {
            up: Linear::new(width, inner, std, device),
            down: Linear::new(inner, width, std, device),
            activation,
        }
    }

    /// `[.., C]` -> `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.down.forward(self.activation.forward(self.up.forward(x)))
    }
}

/// `down(activation(gate(x)) * up(x))`, without biases (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).
#[derive(Module, Debug)]
pub struct GatedFeedForward {
    gate: Linear,
    up: Linear,
    down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl GatedFeedForward {
    /// `width` -> `inner` -> `width`.
    pub fn new(
        width: usize,
        inner: usize,
        activation: Activation,
        std: f64,
        device: &Device,
    ) -> Self {
        Self {
            gate: Linear::without_bias(width, inner, std, device),
            up: Linear::without_bias(width, inner, std, device),
            down: Linear::without_bias(inner, width, std, device),
            activation,
        }
    }

    /// `[.., C]` -> `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gate = self.gate.forward(x.clone());
        self.down.forward(self.activation.gated(gate, self.up.forward(x)))
    }
}
