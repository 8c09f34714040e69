//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};

/// Over the last axis: zero mean, unit variance, then a learned scale and shift.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    pub fn new(width: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([width], device),
            bias: Initializer::Zeros.init([width], device),
            eps,
        }
    }

    /// `[.., C]` -> `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let centred = x.clone() - x.mean_dim(D - 1);
        let variance = centred.clone().square().mean_dim(D - 1); // [.., 1]
        let normal = centred / (variance + self.eps).sqrt();
        normal * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}
