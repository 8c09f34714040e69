//! Face embeddings as a training task.
//!
//! Paper: Wang et al. 2018, CosFace, <https://arxiv.org/abs/1801.09414>.
//!
//! Axis letters: `B` batch, `E` numbers of a vector, `P` people.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};
use firebrick_core::{
    arch::image::ImageModel,
    layers::loss::{log_softmax, soft_cross_entropy},
};
use firebrick_train::task::Task;

use crate::classification::task::PictureBatch;

/// An embedding in training, with a direction for each person that is learned from.
#[derive(Module, Debug)]
pub struct Embed {
    pub model: ImageModel,
    /// `[P, E]`
    people: Param<Tensor<2>>,
    #[module(skip)]
    margin: f64,
    #[module(skip)]
    scale: f64,
}

impl Embed {
    /// `model` writes vectors of `dimensions` numbers.
    pub fn new(
        model: ImageModel,
        people: usize,
        dimensions: usize,
        [margin, scale]: [f64; 2],
        device: &Device,
    ) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: 0.1 };
        Self { model, people: normal.init([people, dimensions], device), margin, scale }
    }
}

impl Task for Embed {
    type Batch = PictureBatch;
    const HEAD: &'static [&'static str] = &["people"];

    fn loss(&self, batch: PictureBatch) -> Tensor<1> {
        let vectors = normalised(self.model.forward(batch.images)); // [B, E]
        let cosines = vectors.matmul(normalised(self.people.val()).transpose()); // [B, P]
        margin_loss(cosines, batch.targets, self.margin, self.scale)
    }
}

/// CosFace's loss (equation 4): the cross-entropy of `scale` times the cosines, that to the own person lowered by
/// `margin`. `cosines` and `targets`: `[B, P]` -> `[1]`
pub fn margin_loss(cosines: Tensor<2>, targets: Tensor<2>, margin: f64, scale: f64) -> Tensor<1> {
    let logits = (cosines - targets.clone() * margin) * scale;
    soft_cross_entropy(log_softmax(logits), targets)
}

/// Rows of length 1, `[B, E]` -> `[B, E]`
pub fn normalised(x: Tensor<2>) -> Tensor<2> {
    let length = (x.clone().square().sum_dim(1) + 1e-12).sqrt(); // [B, 1]
    x / length
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand. First row: logits 10 (0.8 - 0.3) = 5 and 2, so ln(1 + e^-3); second: 10 (0.1 - 0.3) = -2 and 6, so
    /// ln(1 + e^8).
    #[test]
    fn the_margin_by_hand() {
        let device = Device::flex();
        let cosines = Tensor::<2>::from_data([[0.8f32, 0.2], [0.6, 0.1]], &device);
        let targets = Tensor::<2>::from_data([[1f32, 0.0], [0.0, 1.0]], &device);
        let loss = margin_loss(cosines.clone(), targets.clone(), 0.3, 10.0).into_scalar::<f64>();
        let expected = ((-3f64).exp().ln_1p() + 8f64.exp().ln_1p()) / 2.0;
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
        let without = margin_loss(cosines, targets, 0.0, 10.0).into_scalar::<f64>();
        assert!(without < loss, "{without}");
    }

    #[test]
    fn vectors_have_length_one() {
        let x = Tensor::<2>::from_data([[3f32, 4.0], [0.0, 0.0]], &Device::flex());
        let rows: Vec<f32> = normalised(x).into_data().try_into_vec().unwrap();
        for (found, expected) in rows.iter().zip([0.6, 0.8, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{rows:?}");
        }
    }
}
