//! Feed-forward neurons: what each is worth, and an encoder without some of them.
//!
//! Equally many leave every layer, so that `intermediate_size` says all and others open the checkpoint. A head cannot
//! leave that way: `config.json` has its channels as `hidden_size / num_attention_heads`.

use burn::{prelude::*, tensor::Gradients};

use super::{BertClassifier, Encoder, Layer};

impl BertClassifier {
    /// By layer, the length of a neuron's weights into it times the length of those out of it.
    pub fn neuron_sizes(&self) -> Vec<Vec<f32>> {
        let length = |x: Tensor<2>, axis| x.square().sum_dim(axis).sqrt();
        let size = |layer: &Layer| {
            let [into, out] = [&layer.up, &layer.down].map(|linear| linear.weight.val().detach());
            numbers(length(into, 0).reshape([-1]) * length(out, 1).reshape([-1]))
        };
        self.encoder.layers.iter().map(size).collect()
    }

    /// By layer, the square of how much the loss would change without a neuron, to first order: the sum of its weights
    /// times their gradients (Molchanov et al. 2019, <https://arxiv.org/abs/1906.10771>).
    pub fn neuron_effects(&self, gradients: &Gradients) -> Vec<Vec<f32>> {
        let effect = |layer: &Layer| {
            let weight = layer.up.weight.val();
            let gradient = weight.grad(gradients).expect("every layer has a part in the loss");
            numbers((weight.inner() * gradient).sum_dim(0).reshape([-1]).square())
        };
        self.encoder.layers.iter().map(effect).collect()
    }

    /// With these neurons of each layer alone, in order and equally many.
    pub fn with_neurons(self, kept: &[Vec<usize>]) -> Self {
        assert_eq!(kept.len(), self.encoder.layers.len());
        let layers = self.encoder.layers.into_iter().zip(kept).map(|(layer, kept)| {
            let (up, down) = (layer.up.with_outputs(kept), layer.down.with_inputs(kept));
            Layer { up, down, ..layer }
        });
        let layers = layers.collect();
        Self { encoder: Encoder { layers, ..self.encoder }, ..self }
    }
}

fn numbers(x: Tensor<1>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("f32")
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;

    use super::*;
    use crate::arch::bert::BertConfig;

    /// Neurons whose weights out are zero are worth nothing, and nothing changes without them.
    #[test]
    fn what_is_worth_nothing_can_go() {
        let device = Device::flex();
        let config = BertConfig::tiny();
        let mut model = config.init_classifier(2, &device);
        let kept = vec![vec![1, 4, 7, 30], vec![0, 2, 3, 31]];
        for (layer, kept) in model.encoder.layers.iter_mut().zip(&kept) {
            let mut mask = vec![0.0f32; 32];
            kept.iter().for_each(|neuron| mask[*neuron] = 1.0);
            let mask = Tensor::<1>::from_data(mask.as_slice(), &device).reshape([32, 1]);
            layer.down.weight = layer.down.weight.clone().map(|weight| weight * mask);
        }
        for (sizes, kept) in model.neuron_sizes().iter().zip(&kept) {
            let worth = |(neuron, size): (usize, &f32)| (*size > 0.0).then_some(neuron);
            let found: Vec<usize> = sizes.iter().enumerate().filter_map(worth).collect();
            assert_eq!(&found, kept);
        }
        let ids = || Tensor::<1, Int>::arange(0..12, &device).reshape([2, 6]);
        let expected = model.forward(ids(), None, None).into_data();
        let found = model.with_neurons(&kept).forward(ids(), None, None).into_data();
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }
}
