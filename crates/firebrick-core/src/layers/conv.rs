//! Convolutions over the last one or two axes.
//!
//! Axis letters: `B` batch, `I` channels in, `O` channels out, `H` rows, `W` columns, `T` times.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::{module, ops::ConvOptions},
};

use super::fused;

/// Sizes of a convolution over `N` axes; the defaults of [`ConvConfig::new`] are PyTorch's.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvConfig<const N: usize> {
    pub channels_in: usize,
    pub channels_out: usize,
    pub kernel: [usize; N],
    pub stride: [usize; N],
    /// Zeros before and after, for each axis.
    pub padding: [(usize, usize); N],
    pub dilation: [usize; N],
    /// Must divide both numbers of channels.
    pub groups: usize,
    pub bias: bool,
    /// Deviation of fresh weights.
    pub std: f64,
}

impl<const N: usize> ConvConfig<N> {
    /// Stride 1, no padding, one group, with a bias.
    pub fn new(channels_in: usize, channels_out: usize, kernel: [usize; N]) -> Self {
        Self {
            channels_in,
            channels_out,
            kernel,
            stride: [1; N],
            padding: [(0, 0); N],
            dilation: [1; N],
            groups: 1,
            bias: true,
            std: 0.02,
        }
    }

    fn options(&self) -> ConvOptions<N> {
        ConvOptions {
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
        }
    }

    fn bias(&self, device: &Device) -> Option<Param<Tensor<1>>> {
        self.bias.then(|| Initializer::Zeros.init([self.channels_out], device))
    }
}

impl ConvConfig<1> {
    pub fn init(&self, device: &Device) -> Conv1d {
        let shape = [self.channels_out, self.channels_in / self.groups, self.kernel[0]];
        Conv1d {
            weight: Initializer::Normal { mean: 0.0, std: self.std }.init(shape, device),
            bias: self.bias(device),
            options: self.options(),
        }
    }
}

impl ConvConfig<2> {
    pub fn init(&self, device: &Device) -> Conv2d {
        let [rows, columns] = self.kernel;
        let shape = [self.channels_out, self.channels_in / self.groups, rows, columns];
        Conv2d {
            weight: Initializer::Normal { mean: 0.0, std: self.std }.init(shape, device),
            bias: self.bias(device),
            options: self.options(),
        }
    }
}

/// Over time.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[O, I / groups, kernel]`
    weight: Param<Tensor<3>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    options: ConvOptions<1>,
}

impl Conv1d {
    /// `[B, I, T]` -> `[B, O, T']`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.with_weight(x, self.weight.val())
    }

    /// As [`Self::forward`] with another weight of the same shape.
    pub fn with_weight(&self, x: Tensor<3>, weight: Tensor<3>) -> Tensor<3> {
        conv1d(x, weight, self.bias.as_ref().map(Param::val), self.options.clone())
    }
}

/// `[B, I, T]` by `[O, I / groups, kernel]` -> `[B, O, T']`
pub fn conv1d(
    x: Tensor<3>,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: ConvOptions<1>,
) -> Tensor<3> {
    match fused::applies(&x) {
        true => fused::convolution(x, weight, bias, &options),
        false => module::conv1d(x, weight, bias, options),
    }
}

/// Over an image.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[O, I / groups, rows, columns]`
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    options: ConvOptions<2>,
}

impl Conv2d {
    /// `[B, I, H, W]` -> `[B, O, H', W']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        conv2d(x, self.weight.val(), bias, self.options.clone())
    }
}

/// `[B, I, H, W]` by `[O, I / groups, rows, columns]` -> `[B, O, H', W']`
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions<2>,
) -> Tensor<4> {
    match fused::applies(&x) {
        true => fused::convolution(x, weight, bias, &options),
        false => module::conv2d(x, weight, bias, options),
    }
}
