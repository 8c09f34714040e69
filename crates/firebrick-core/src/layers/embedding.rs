//! Vectors by number: of words, positions, segments.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::module,
};

use super::{fused, linear::linear};

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
        if fused::is_packed(&table) || fused::applies(&table) {
            return fused::embedding(table, ids);
        }
        module::embedding(table, ids)
    }

    /// Vectors `first .. first + count`, `[count, C]`
    pub fn rows(&self, first: usize, count: usize) -> Tensor<2> {
        let table = self.weight.val();
        if fused::is_packed(&table) {
            let ids = first as i64..(first + count) as i64;
            let ids = Tensor::<1, Int>::arange(ids, &table.device());
            return self.forward(ids.unsqueeze()).squeeze_dim(0);
        }
        table.narrow(0, first, count)
    }

    /// A score for every vector, its product with `x`, and `bias` added: `[.., C]` -> `[.., rows]`
    pub fn scores<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        let table = self.weight.val();
        let table = if fused::is_packed(&table) { table } else { table.transpose() };
        linear(x, table, bias)
    }

    pub fn device(&self) -> Device {
        self.weight.device()
    }

    /// How many vectors there are.
    pub fn height(&self) -> usize {
        self.weight.dims()[0]
    }
}
