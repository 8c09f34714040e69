//! Normalisation over channels: layer norm (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>), RMS norm
//! (Zhang & Sennrich 2019, <https://arxiv.org/abs/1910.07467>) and group norm (Wu & He 2018,
//! <https://arxiv.org/abs/1803.08494>); over the batch: batch norm (Ioffe & Szegedy 2015,
//! <https://arxiv.org/abs/1502.03167>).
//!
//! Axis letters: `B` batch, `C` channels, `G` groups of channels, `N` what is averaged.

use burn::{
    module::{Module, Param, RunningState},
    nn::Initializer,
    prelude::*,
    tensor::{Gradients, module, ops::ConvOptions},
};

use firebrick_kernels::affine as kernel;

use super::{activation::Activation, conv::conv2d, dropout::Dropout, fused, linear::indices};

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

    /// Over the second axis, as the channels of a signal or an image lie: `[B, C, ..]` -> `[B, C, ..]`
    pub fn channels_first<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward(x.movedim(1, D - 1)).movedim(D - 1, 1)
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

/// Over the channels of a group and all axes after them: zero mean, unit variance, then a learned scale and
/// shift for each channel. As many groups as channels is instance norm.
#[derive(Module, Debug)]
pub struct GroupNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    eps: f64,
}

impl GroupNorm {
    /// `groups` must divide `channels`.
    pub fn new(groups: usize, channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            groups,
            eps,
        }
    }

    /// `[B, C, ..]` -> `[B, C, ..]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let shape = x.dims();
        let n = shape.iter().product::<usize>() / (shape[0] * self.groups);
        let x = x.reshape([shape[0], self.groups, n]); // [B, G, N]
        let centred = x.clone() - x.mean_dim(2);
        let variance = centred.clone().square().mean_dim(2); // [B, G, 1]
        let normal = (centred / (variance + self.eps).sqrt()).reshape(shape);
        normal * by_channel(self.weight.val()) + by_channel(self.bias.val())
    }
}

/// Each channel over the whole batch: in training by the batch's own mean and variance, of which running
/// averages are kept; else by those averages. Training is on a device with autodiff.
#[derive(Module, Debug)]
pub struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
    #[module(skip)]
    eps: f64,
    /// Share of a new batch in the running averages.
    #[module(skip)]
    momentum: f64,
}

impl BatchNorm {
    /// PyTorch's defaults are `eps` 1e-5 and `momentum` 0.1.
    pub fn new(channels: usize, eps: f64, momentum: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            eps,
            momentum,
        }
    }

    /// `[B, C, ..]` -> `[B, C, ..]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>, after: After<D>) -> Tensor<D> {
        if x.device().is_autodiff() {
            return after.composed(self.by_batch(x));
        }
        match after.affine() {
            Some(activation) if fused::applies(&x) => {
                fused::batch_norm(x, after.residual, self.form(activation))
            }
            _ => after.composed(by_averages(x, self.learned(), self.eps)),
        }
    }

    /// Of a convolution of `x` by `[O, I / groups, rows, columns]`; outside training one pass over memory with it.
    pub fn after_convolution(
        &self,
        x: Tensor<4>,
        kernel: Tensor<4>,
        options: ConvOptions<2>,
        after: After<4>,
    ) -> Tensor<4> {
        match after.affine() {
            Some(activation)
                if fused::applies(&x)
                    && !x.device().is_autodiff()
                    && !fused::is_packed(&kernel) =>
            {
                fused::convolution_norm(x, kernel, &options, after.residual, self.form(activation))
            }
            _ => self.forward(conv2d(x, kernel, None, options), after),
        }
    }

    fn form(&self, activation: kernel::Activation) -> fused::NormForm {
        fused::NormForm::new(self.learned(), self.eps, activation)
    }

    /// Weight, bias, and the averages of mean and variance.
    fn learned(&self) -> [Tensor<1>; 4] {
        let (mean, variance) = (self.running_mean.value(), self.running_var.value());
        [self.weight.val(), self.bias.val(), mean, variance]
    }

    /// The learned scale of each channel, without its sign.
    pub fn channel_sizes(&self) -> Vec<f32> {
        self.weight.val().abs().into_data().try_to_vec().expect("f32")
    }

    /// By how much the loss would fall without each channel, to first order: what is written to it times its gradient,
    /// summed over the batch (Molchanov et al. 2019, <https://arxiv.org/abs/1906.10771>, a gate behind the norm).
    pub fn channel_effects(&self, gradients: &Gradients) -> Vec<f32> {
        let share = |parameter: &Param<Tensor<1>>| {
            let x = parameter.val();
            let gradient = x.grad(gradients).expect("every norm has a part in the loss");
            x.inner() * gradient
        };
        let effects = share(&self.weight) + share(&self.bias);
        effects.into_data().try_to_vec().expect("f32")
    }

    /// With these channels alone.
    pub fn with_channels(self, kept: &[usize]) -> Self {
        let kept = indices(kept, &self.weight.device());
        let part = |x: Tensor<1>| x.select(0, kept.clone());
        Self {
            weight: Param::from_tensor(part(self.weight.val())),
            bias: Param::from_tensor(part(self.bias.val())),
            running_mean: RunningState::new(part(self.running_mean.value())),
            running_var: RunningState::new(part(self.running_var.value())),
            ..self
        }
    }

    fn by_batch<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let n = (x.shape().num_elements() / x.dims()[1]) as f64;
        let normal = module::batch_norm_train(x, self.weight.val(), self.bias.val(), self.eps);
        self.keep(&self.running_mean, normal.mean);
        // The average is of the unbiased variance; one number alone has none.
        self.keep(&self.running_var, normal.variance * (n / (n - 1.0).max(1.0)));
        normal.output
    }

    fn keep(&self, average: &RunningState<Tensor<1>>, batch: Tensor<1>) {
        let kept = average.value() * (1.0 - self.momentum);
        average.update((kept + batch * self.momentum).detach());
        average.value_sync(); // so that a save in the midst of training writes this value
    }
}

/// What follows a batch norm; outside training it is one pass over memory with it.
#[derive(Debug, Default)]
pub struct After<const D: usize> {
    /// Is added first.
    pub residual: Option<Tensor<D>>,
    pub activation: Option<Activation>,
}

impl<const D: usize> After<D> {
    pub fn activation(activation: Activation) -> Self {
        Self { residual: None, activation: Some(activation) }
    }

    /// The activation, if the kernels have it.
    fn affine(&self) -> Option<kernel::Activation> {
        self.activation.map_or(Some(kernel::Activation::None), Activation::affine)
    }

    fn composed(self, x: Tensor<D>) -> Tensor<D> {
        let x = match self.residual {
            Some(residual) => x + residual,
            None => x,
        };
        match self.activation {
            Some(activation) => activation.forward(x),
            None => x,
        }
    }
}

/// Batch norm by weight, bias, mean and variance of each channel.
fn by_averages<const D: usize>(x: Tensor<D>, learned: [Tensor<1>; 4], eps: f64) -> Tensor<D> {
    let [weight, bias, mean, variance] = learned;
    let scale = weight * (variance + eps).sqrt().recip();
    x * by_channel(scale.clone()) + by_channel(bias - mean * scale)
}

/// `[C]` -> `[1, C, 1, ..]`
fn by_channel<const D: usize>(x: Tensor<1>) -> Tensor<D> {
    let mut shape = [1; D];
    shape[1] = x.dims()[0];
    x.reshape(shape)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, TensorData, Tolerance};

    use super::*;

    /// Hand-computed: mean 4, variance 5, unbiased 20 / 3.
    #[test]
    fn batch_norm_keeps_averages_in_training_and_uses_them_after() {
        let device = Device::flex().autodiff();
        let norm = BatchNorm::new(1, 0.0, 0.1, &device);
        let x = TensorData::from([[[1f32, 3.0]], [[5.0, 7.0]]]);
        let check = |norm: &BatchNorm, device: &Device, expected: [f32; 4]| {
            let y = norm
                .forward(Tensor::<3>::from_data(x.clone(), device), After::default())
                .into_data();
            let expected = TensorData::new(expected.to_vec(), [2, 1, 2]);
            y.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
        };
        check(&norm, &device, [-3.0, -1.0, 1.0, 3.0].map(|x| x / 5f32.sqrt()));
        // 0.1 * 4, and 0.9 + 0.1 * 20 / 3
        let (mean, deviation) = (0.4, (0.9f32 + 2.0 / 3.0).sqrt());
        let expected = [1.0, 3.0, 5.0, 7.0].map(|x| (x - mean) / deviation);
        check(&norm.valid(), &device.inner(), expected);
    }

    /// Of the sum of squares a channel that is scaled by `g` has the slope `2 y^2` at `g = 1`, summed over all that it holds.
    #[test]
    fn effects_are_slopes_of_a_gate() {
        let device = Device::flex().autodiff();
        let vector = |of: [f32; 3]| Param::from_tensor(Tensor::<1>::from_data(of, &device));
        let norm = BatchNorm {
            weight: vector([1.5, -0.5, 0.0]).set_require_grad(true),
            bias: vector([0.2, 1.0, 0.0]).set_require_grad(true),
            ..BatchNorm::new(3, 1e-5, 0.1, &device)
        };
        let x = Tensor::<3>::random([4, 3, 5], Distribution::Normal(1.0, 2.0), &device);
        let squares = norm.forward(x, After::default()).square();
        let sums = squares.clone().inner().sum_dim(2).sum_dim(0).into_data();
        let found = norm.channel_effects(&squares.sum().backward());
        for (found, sum) in found.iter().zip(sums.iter::<f32>()) {
            assert!((found - 2.0 * sum).abs() <= 1e-4 * sum, "{found} {sum}");
        }
    }

    #[test]
    fn one_pass_is_the_norm_and_what_follows() {
        let device = Device::flex();
        let random = || Tensor::<4>::random([2, 3, 4, 5], Distribution::Normal(0.0, 4.0), &device);
        let vector = |low| Tensor::<1>::random([3], Distribution::Uniform(low, 2.0), &device);
        let learned = [vector(-2.0), vector(-2.0), vector(-2.0), vector(0.5)];
        let [weight, bias, mean, variance] = learned.clone();
        let norm = BatchNorm {
            weight: Param::from_tensor(weight),
            bias: Param::from_tensor(bias),
            running_mean: RunningState::new(mean),
            running_var: RunningState::new(variance),
            ..BatchNorm::new(3, 1e-5, 0.1, &device)
        };
        for activation in [None, Some(Activation::Relu), Some(Activation::Relu6)] {
            for residual in [None, Some(random())] {
                let after = || After { residual: residual.clone(), activation };
                let x = random();
                let found = norm.forward(x.clone(), after()).into_data();
                let plain = by_averages(x.clone(), learned.clone(), 1e-5);
                let expected = after().composed(plain).into_data();
                found.assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-5, 1e-5));

                // Behind convolutions of single channels, of pixels and of both.
                for (groups, size) in [(3, 3), (1, 1), (1, 3)] {
                    let shape = [3, 3 / groups, size, size];
                    let kernel = Tensor::random(shape, Distribution::Default, &device);
                    let padding = [(size / 2, size / 2); 2];
                    let options =
                        ConvOptions::<2> { stride: [1; 2], padding, dilation: [1; 2], groups };
                    let plain = module::conv2d(x.clone(), kernel.clone(), None, options.clone());
                    let plain = by_averages(plain, learned.clone(), 1e-5);
                    let expected = after().composed(plain).into_data();
                    let found = norm.after_convolution(x.clone(), kernel, options, after());
                    let found = found.into_data();
                    found.assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-4, 1e-4));
                }
            }
        }
    }
}
