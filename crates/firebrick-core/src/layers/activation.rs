//! Element-wise activations.

use burn::{prelude::*, tensor::activation};
use serde::{Deserialize, Serialize};

use super::fused;

/// Element-wise activations, named as in `config.json`.
/// A name that is not here fails when the config is read, not as a wrong number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Exact, with the error function.
    Gelu,
    /// The tanh approximation.
    GeluNew,
    Relu,
    Tanh,
}

impl Activation {
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu if fused::applies(&x) => fused::gelu(x),
            Self::Gelu => activation::gelu(x),
            Self::GeluNew => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
            Self::Tanh => activation::tanh(x),
        }
    }
}
