//! Linear layers with the initialisation of BERT: normal weights, zero bias.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::module,
};

use super::{fused, moments, split::Split};

/// `y = x weight + bias` over the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[input, output]`; a checkpoint of PyTorch holds it transposed.
    pub weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Weights from a normal distribution with deviation `std`, bias zero.
    pub fn new(input: usize, output: usize, std: f64, device: &Device) -> Self {
        Self::with_bias(true, input, output, std, device)
    }

    /// `y = x weight`.
    pub fn without_bias(input: usize, output: usize, std: f64, device: &Device) -> Self {
        Self::with_bias(false, input, output, std, device)
    }

    /// With a bias if `bias`.
    pub fn with_bias(bias: bool, input: usize, output: usize, std: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init([input, output], device),
            bias: bias.then(|| Initializer::Zeros.init([output], device)),
        }
    }

    /// `[.., input]` -> `[.., output]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        moments::seen(self.weight.id, &x);
        linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    /// As [`Self::forward`], where each member has some rows of the weight and the channels of `x` that go with them.
    pub fn forward_rows<const D: usize>(&self, x: Tensor<D>, split: &Split) -> Tensor<D> {
        if split.is_whole() {
            return self.forward(x);
        }
        let y = split.leave(linear(x, self.weight.val(), None));
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }

    /// With these channels out alone.
    pub fn with_outputs(self, kept: &[usize]) -> Self {
        let kept = indices(kept, &self.weight.device());
        let bias = self.bias.map(|bias| Param::from_tensor(bias.val().select(0, kept.clone())));
        Self { weight: Param::from_tensor(self.weight.val().select(1, kept)), bias }
    }

    /// With these channels in alone.
    pub fn with_inputs(self, kept: &[usize]) -> Self {
        let kept = indices(kept, &self.weight.device());
        Self { weight: Param::from_tensor(self.weight.val().select(0, kept)), ..self }
    }

    /// Everything that comes out times `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        let times = |bias: Param<Tensor<1>>| bias.map(|bias| bias * factor);
        Self { weight: self.weight.map(|weight| weight * factor), bias: self.bias.map(times) }
    }

    /// Channels out.
    pub fn width(&self) -> usize {
        self.weight.dims()[1]
    }
}

/// What is selected of an axis.
pub(super) fn indices(kept: &[usize], device: &Device) -> Tensor<1, Int> {
    let kept: Vec<i64> = kept.iter().map(|index| *index as i64).collect();
    Tensor::from_data(kept.as_slice(), device)
}

/// `x weight + bias`, `[.., I]` -> `[.., O]`; `weight`: `[I, O]`, also a transposed view of one.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    match bias {
        Some(bias) if fused::applies(&x) => fused::linear(x, weight, bias),
        None if fused::applies(&x) => fused::product(x, weight),
        bias => module::linear(x, weight, bias),
    }
}
