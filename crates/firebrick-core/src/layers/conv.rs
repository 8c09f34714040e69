//! Convolutions over the last one or two axes.
//!
//! Axis letters: `B` batch, `I` channels in, `O` channels out, `H` rows, `W` columns, `T` times.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::{Gradients, module, ops::ConvOptions},
};

use super::{
    fused,
    linear::indices,
    norm::{After, BatchNorm},
};

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
    /// `[O, I / groups, kernel]`; also packed, where it does not train.
    pub weight: Param<Tensor<3>>,
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
    /// `[O, I / groups, rows, columns]`; also packed, where it does not train.
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

/// A convolution over an image, then batch norm.
#[derive(Module, Debug)]
pub struct ConvNorm {
    convolution: Conv2d,
    normalization: BatchNorm,
}

impl ConvNorm {
    /// The convolution has no bias: the norm would take it away again.
    pub fn new(config: ConvConfig<2>, eps: f64, momentum: f64, device: &Device) -> Self {
        Self {
            normalization: BatchNorm::new(config.channels_out, eps, momentum, device),
            convolution: ConvConfig { bias: false, ..config }.init(device),
        }
    }

    /// `[B, I, H, W]` -> `[B, O, H', W']`
    pub fn forward(&self, x: Tensor<4>, after: After<4>) -> Tensor<4> {
        self.padded(x, self.convolution.options.padding, after)
    }

    /// With TensorFlow's `SAME` padding in place of the configured one: `H'` is `H / stride` rounded up, and
    /// what does not split evenly comes after.
    pub fn forward_same(&self, x: Tensor<4>, after: After<4>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let [_, _, rows, columns] = self.convolution.weight.lazy_shape().dims();
        let ConvOptions { stride, dilation, .. } = self.convolution.options;
        let padding = [(0, h, rows), (1, w, columns)].map(|(axis, size, kernel)| {
            let (before, after) = same_padding(size, kernel, stride[axis]);
            (before * dilation[axis], after * dilation[axis])
        });
        self.padded(x, padding, after)
    }

    /// How strongly each channel out is written.
    pub fn channel_sizes(&self) -> Vec<f32> {
        self.normalization.channel_sizes()
    }

    /// By how much the loss would fall without each channel out, to first order.
    pub fn channel_effects(&self, gradients: &Gradients) -> Vec<f32> {
        self.normalization.channel_effects(gradients)
    }

    /// With these channels in (all, where none are named) and out alone; of a convolution in one group.
    pub fn with_channels(self, inputs: Option<&[usize]>, outputs: &[usize]) -> Self {
        let device = self.convolution.weight.device();
        let weight = fused::plain(self.convolution.weight.val());
        let weight = weight.select(0, indices(outputs, &device));
        let weight = match inputs {
            Some(inputs) => weight.select(1, indices(inputs, &device)),
            None => weight,
        };
        Self {
            convolution: Conv2d { weight: Param::from_tensor(weight), ..self.convolution },
            normalization: self.normalization.with_channels(outputs),
        }
    }

    fn padded(&self, x: Tensor<4>, padding: [(usize, usize); 2], after: After<4>) -> Tensor<4> {
        let options = ConvOptions { padding, ..self.convolution.options.clone() };
        self.normalization.after_convolution(x, self.convolution.weight.val(), options, after)
    }
}

/// Zeros before and after `size` numbers, so that a window of `kernel` fits `size / stride` times, rounded up.
fn same_padding(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let last = match size % stride {
        0 => stride,
        rest => rest,
    };
    let total = kernel.saturating_sub(last);
    (total / 2, total - total / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hand-computed from TensorFlow's notes on padding.
    #[test]
    fn same_padding_puts_the_odd_zero_last() {
        assert_eq!(same_padding(224, 3, 2), (0, 1)); // windows start at 0, 2, .. 222
        assert_eq!(same_padding(7, 3, 2), (1, 1)); // at -1, 1, 3, 5
        assert_eq!(same_padding(5, 3, 1), (1, 1));
        assert_eq!(same_padding(6, 1, 2), (0, 0));
    }
}
