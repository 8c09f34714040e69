//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) and RMS normalisation
//! (Zhang & Sennrich 2019, <https://arxiv.org/abs/1910.07467>).

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};

use super::{dropout::Dropout, fused};

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
        if fused::applies(&x) {
            return fused::norm(x, self.weight.val(), self.bias.val(), self.eps);
        }
        self.composed(x)
    }

    /// The norm of `x + dropout(branch)`, as after each half of a post-norm layer.
    pub fn residual<const D: usize>(
        &self,
        x: Tensor<D>,
        branch: Tensor<D>,
        dropout: &Dropout,
    ) -> Tensor<D> {
        if fused::applies(&x) {
            let dropout = dropout.draw(&x.device());
            let (weight, bias) = (self.weight.val(), self.bias.val());
            return fused::residual_norm(x, branch, weight, bias, self.eps, dropout);
        }
        self.composed(x + dropout.forward(branch))
    }

    fn composed<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let centred = x.clone() - x.mean_dim(D - 1);
        let variance = centred.clone().square().mean_dim(D - 1); // [.., 1]
        let normal = centred / (variance + self.eps).sqrt();
        normal * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}

/// Over the last axis: a root mean square of one, then a learned scale.
#[derive(Module, Debug)]
pub struct RmsNorm {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl RmsNorm {
    pub fn new(width: usize, eps: f64, device: &Device) -> Self {
        Self { weight: Initializer::Ones.init([width], device), eps }
    }

    /// `[.., C]` -> `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if fused::applies(&x) {
            return fused::rms_norm(x, self.weight.val(), self.eps);
        }
        let power = x.clone().square().mean_dim(D - 1); // [.., 1]
        x / (power + self.eps).sqrt() * self.weight.val().unsqueeze()
    }
}
