//! Element-wise activations.

use burn::{prelude::*, tensor::activation};
use firebrick_kernels::{activation as kernel, affine};
use serde::{Deserialize, Serialize};

use super::fused;

/// Element-wise activations, named as in `config.json`.
/// A name that is not here fails when the config is read, not as a wrong number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Exact, with the error function.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// The tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// `x sigmoid(1.702 x)`, as in CLIP.
    QuickGelu,
    Relu,
    /// `min(relu(x), 6)`, as in MobileNet.
    Relu6,
    #[serde(alias = "swish")]
    Silu,
    Tanh,
}

impl Activation {
    /// `[..]` -> `[..]`
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self.kernel() {
            Some(kernel) if fused::applies(&x) => fused::activation(x, kernel),
            _ => self.composed(x),
        }
    }

    /// `forward(gate) * up`, `[..]` each -> `[..]`
    pub fn gated<const D: usize>(self, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        match self.kernel() {
            Some(kernel) if fused::applies(&gate) => fused::gated(gate, up, kernel),
            _ => self.composed(gate) * up,
        }
    }

    /// `None` where Burn's own is one pass.
    fn kernel(self) -> Option<kernel::Activation> {
        match self {
            Self::Gelu => Some(kernel::Activation::Gelu),
            Self::GeluNew => Some(kernel::Activation::GeluTanh),
            Self::QuickGelu => Some(kernel::Activation::QuickGelu),
            Self::Silu => Some(kernel::Activation::Silu),
            Self::Relu | Self::Relu6 | Self::Tanh => None,
        }
    }

    /// As part of the pass over memory that scales and shifts.
    pub(super) fn affine(self) -> Option<affine::Activation> {
        match self {
            Self::Relu => Some(affine::Activation::Relu),
            Self::Relu6 => Some(affine::Activation::Relu6),
            _ => None,
        }
    }

    /// From Burn's operations.
    pub(super) fn composed<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => activation::gelu(x),
            Self::GeluNew => activation::gelu_approximate(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Relu => activation::relu(x),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Silu => activation::silu(x),
            Self::Tanh => activation::tanh(x),
        }
    }
}
