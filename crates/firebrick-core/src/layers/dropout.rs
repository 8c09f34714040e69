//! Dropout (Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>).

use burn::{module::Module, nn, prelude::*};

/// Zeroes each element with probability `p` in training and scales the rest by `1 / (1 - p)`.
/// Off on a device without autodiff.
#[derive(Module, Debug)]
pub struct Dropout {
    inner: nn::Dropout,
}

impl Dropout {
    pub fn new(p: f64) -> Self {
        Self { inner: nn::DropoutConfig::new(p).init() }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.inner.forward(x)
    }
}
