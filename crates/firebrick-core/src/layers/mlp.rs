//! The feed-forward half of a Transformer layer.

use burn::{module::Module, prelude::*};

use super::{activation::Activation, dropout::Dropout, linear::Linear};

/// `down(dropout(activation(up(x))))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    pub up: Linear,
    pub down: Linear,
    /// Of the inner channels.
    pub dropout: Dropout,
    #[module(skip)]
    pub activation: Activation,
}

impl FeedForward {
    /// `width` -> `inner` -> `width`, with biases and without dropout.
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
            dropout: Dropout::new(0.0),
            activation,
        }
    }

    /// `[.., C]` -> `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let inner = self.activation.forward(self.up.forward(x));
        self.down.forward(self.dropout.forward(inner))
    }
}

/// `down(dropout(activation(gate(x)) * up(x)))`, without biases (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).
#[derive(Module, Debug)]
pub struct GatedFeedForward {
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    /// Of the inner channels.
    pub dropout: Dropout,
    #[module(skip)]
    pub activation: Activation,
}

impl GatedFeedForward {
    /// `width` -> `inner` -> `width`, without dropout.
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
            dropout: Dropout::new(0.0),
            activation,
        }
    }

    /// `[.., C]` -> `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gate = self.gate.forward(x.clone());
        let inner = self.activation.gated(gate, self.up.forward(x));
        self.down.forward(self.dropout.forward(inner))
    }
}
