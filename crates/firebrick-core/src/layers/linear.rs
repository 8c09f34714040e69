//! Linear and embedding layers with the initialisation of BERT: normal weights, zero bias.

use burn::{
    module::{Module, Param},
    nn::{Embedding, Initializer},
    prelude::*,
    tensor::module,
};

use super::fused;

/// `y = x weight + bias` over the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[input, output]`; a checkpoint of PyTorch holds it transposed.
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Linear {
    /// Weights from a normal distribution with deviation `std`, bias zero.
    pub fn new(input: usize, output: usize, std: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init([input, output], device),
            bias: Initializer::Zeros.init([output], device),
        }
    }

    /// `[.., input]` -> `[.., output]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if fused::applies(&x) {
            return fused::linear(x, weight, bias);
        }
        module::linear(x, weight, Some(bias))
    }
}

/// `rows` vectors of `width` channels, normal with deviation `std`.
pub fn embedding(rows: usize, width: usize, std: f64, device: &Device) -> Embedding {
    Embedding { weight: Initializer::Normal { mean: 0.0, std }.init([rows, width], device) }
}
