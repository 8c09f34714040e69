//! Vectors by number: of words, positions, segments.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::module,
};

use super::fused;

/// A table of learned vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, C]`, as a checkpoint holds it.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// `rows` vectors of `width` channels, normal with deviation `std`.
    pub fn new(rows: usize, width: usize, std: f64, device: &Device) -> Self {
        Self { weight: Initializer::Normal { mean: 0.0, std }.init([rows, width], device) }
    }

    /// `[B, T]` -> `[B, T, C]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let table = self.weight.val();
        if fused::applies(&table) {
            return fused::embedding(table, ids);
        }
        module::embedding(table, ids)
    }
}
