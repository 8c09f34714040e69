//! Dropout (Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>).

use burn::{
    module::{Flag, Module, Param},
    prelude::*,
    tensor::Distribution,
};
use firebrick_kernels::dropout as kernel;

use super::fused;

/// Zeroes each element with probability `rate` in training and scales the rest by `1 / (1 - rate)`.
/// Off on a device without autodiff, and in a model that is frozen there.
#[derive(Module, Debug)]
pub struct Dropout {
    #[module(skip)]
    rate: f64,
    /// Tells the masks of members apart that draw the same seeds.
    #[module(skip)]
    salt: u64,
    training: Param<Flag>,
}

impl Dropout {
    pub fn new(rate: f64) -> Self {
        Self { rate, salt: 0, training: Param::from_bool(true) }
    }

    /// Of numbers that only the member `rank` has.
    pub fn of_member(self, rank: usize) -> Self {
        Self { salt: (rank as u64) << 32 | rank as u64, ..self }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let device = x.device();
        if !self.applies(&device) {
            return x;
        }
        if fused::applies(&x) {
            return fused::dropout(x, self.draw(&device));
        }
        let kept = x.random_like(Distribution::Bernoulli(1.0 - self.rate));
        x * kept / (1.0 - self.rate)
    }

    /// Whether to leave a whole layer out this time (LayerDrop, Fan et al. 2019, <https://arxiv.org/abs/1909.11556>).
    pub fn skips(&self, device: &Device) -> bool {
        let draw = || Tensor::<1>::random([1], Distribution::Default, &device.clone().inner());
        self.applies(device) && draw().into_data().iter::<f64>().all(|draw| draw < self.rate)
    }

    fn applies(&self, device: &Device) -> bool {
        self.rate > 0.0 && device.is_autodiff() && self.training.is_enabled()
    }

    /// What a kernel of [`fused`] is to drop this time. Its seed is drawn from the device's.
    pub(super) fn draw(&self, device: &Device) -> kernel::Dropout {
        if !self.applies(device) {
            return kernel::Dropout::NONE;
        }
        const HALF: u32 = 1 << 30;
        let uniform = Distribution::Uniform(0.0, f64::from(HALF));
        let draws = Tensor::<1, Int>::random([2], uniform, &device.clone().inner()).into_data();
        let seed = draws.iter::<u64>().fold(0, |seed, half| (seed << 32) | half);
        kernel::Dropout::new(self.rate, seed ^ self.salt)
    }

    /// Zeroes the same channels in all steps of a sequence, `[B, T, C]` -> `[B, T, C]`: variational or locked dropout
    /// (Gal and Ghahramani 2016, <https://arxiv.org/abs/1512.05287>).
    pub fn locked(&self, x: Tensor<3>) -> Tensor<3> {
        let device = x.device();
        if !self.applies(&device) {
            return x;
        }
        let [b, _, c] = x.dims();
        let kept = Distribution::Bernoulli(1.0 - self.rate);
        x * (Tensor::random([b, 1, c], kept, &device) / (1.0 - self.rate))
    }

    /// Zeroes the vectors of some words of a vocabulary wherever they stand: `ids`: `[B, T]`, their vectors `x`:
    /// `[B, T, C]` -> `[B, T, C]` (the same paper, section 4.2).
    pub fn words(&self, x: Tensor<3>, ids: Tensor<2, Int>, vocabulary: usize) -> Tensor<3> {
        let device = x.device();
        if !self.applies(&device) {
            return x;
        }
        let [b, t] = ids.dims();
        let kept = Distribution::Bernoulli(1.0 - self.rate);
        let kept = Tensor::<1>::random([vocabulary], kept, &device) / (1.0 - self.rate);
        x * kept.select(0, ids.reshape([b * t])).reshape([b, t, 1])
    }

    /// Zeroes whole examples, `[B, ..]` -> `[B, ..]`: stochastic depth (Huang et al. 2016,
    /// <https://arxiv.org/abs/1603.09382>), for the branch of a residual.
    pub fn examples<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let device = x.device();
        if !self.applies(&device) {
            return x;
        }
        let mut shape = [1; D];
        shape[0] = x.dims()[0];
        let kept = Tensor::random(shape, Distribution::Bernoulli(1.0 - self.rate), &device);
        x * kept / (1.0 - self.rate)
    }
}
