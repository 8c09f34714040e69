//! Vectors by number: of words, positions, segments.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::{DType, module},
};

use super::{fused, linear::linear};

/// A table of learned vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, C]`, as a checkpoint holds it; also in bf16 or packed, where it does not train. What comes out is f32.
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
        module::embedding(table, ids).cast(DType::F32)
    }

    /// Vectors `first .. first + count`, `[count, C]`
    pub fn rows(&self, first: usize, count: usize) -> Tensor<2> {
        let table = self.weight.val();
        if fused::is_packed(&table) {
            let ids = first as i64..(first + count) as i64;
            let ids = Tensor::<1, Int>::arange(ids, &table.device());
            return self.forward(ids.unsqueeze()).squeeze_dim(0);
        }
        table.narrow(0, first, count).cast(DType::F32)
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

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;

    use super::*;

    #[test]
    fn a_table_in_bf16_gives_its_numbers() {
        let device = Device::flex();
        let narrow = Embedding::new(20, 8, 1.0, &device).weight.val().cast(DType::BF16);
        let table = |weight: Tensor<2>| Embedding { weight: Param::from_tensor(weight) };
        let (wide, narrow) = (table(narrow.clone().cast(DType::F32)), table(narrow));
        let ids = Tensor::<2, Int>::from_data([[3, 19], [0, 3]], &device);
        assert_eq!(narrow.forward(ids.clone()).into_data(), wide.forward(ids.clone()).into_data());
        assert_eq!(narrow.rows(2, 5).into_data(), wide.rows(2, 5).into_data());
        let x = wide.forward(ids);
        let [found, expected] =
            [&narrow, &wide].map(|table| table.scores(x.clone(), None).into_data());
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }
}
