//! One learned number.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};

/// One learned number; a checkpoint holds it without an axis.
#[derive(Module, Debug)]
pub struct Scalar {
    /// `[1]`
    value: Param<Tensor<1>>,
}

impl Scalar {
    pub fn new(value: f64, device: &Device) -> Self {
        Self { value: Initializer::Constant { value }.init([1], device) }
    }

    /// `[1, ..]`, to be broadcast
    pub fn val<const D: usize>(&self) -> Tensor<D> {
        self.value.val().reshape([1; D])
    }
}
