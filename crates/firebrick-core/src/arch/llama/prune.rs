//! Groups of attention heads: what each is worth, and a decoder without some of them.
//!
//! A head of keys and values goes with all queries that share it, and equally many leave every layer: then `config.json`
//! says how many are left, and in `head_dim` how wide they are.

use burn::tensor::Gradients;

use super::{Layer, Llama, LlamaConfig};
use crate::layers::attention::Heads;

impl LlamaConfig {
    /// With so many groups in every layer, each as it is.
    pub fn with_groups(&self, groups: usize) -> Self {
        let shared = self.num_attention_heads / self.key_value_heads();
        Self {
            num_attention_heads: groups * shared,
            num_key_value_heads: Some(groups),
            head_dim: Some(self.head_dim()),
            ..self.clone()
        }
    }
}

impl Llama {
    /// By layer, the square of how much the loss would change without a group, to first order: the sum of its weights out
    /// times their gradients, which is what its part of the sum is worth (Michel et al. 2019,
    /// <https://arxiv.org/abs/1905.10650>).
    pub fn group_effects(&self, gradients: &Gradients) -> Vec<Vec<f32>> {
        let effect = |layer: &Layer| {
            let weight = layer.output.weight.val(); // [H D, C]
            let gradient = weight.grad(gradients).expect("every layer has a part in the loss");
            let groups = layer.heads.key_value;
            let worth = (weight.inner() * gradient).reshape([groups as i64, -1]).sum_dim(1);
            worth.square().into_data().try_to_vec().expect("f32")
        };
        self.layers.iter().map(effect).collect()
    }

    /// With these groups of each layer alone, in order and equally many.
    pub fn with_groups(self, kept: &[Vec<usize>]) -> Self {
        assert_eq!(kept.len(), self.layers.len());
        let layers = self.layers.into_iter().zip(kept).map(|(layer, kept)| layer.with_groups(kept));
        Self { layers: layers.collect(), ..self }
    }
}

impl Layer {
    fn with_groups(self, kept: &[usize]) -> Self {
        let Heads { query, key_value, scale } = self.heads;
        let (width, shared) = (self.key.width() / key_value, query / key_value);
        let channels = |of_group: usize| -> Vec<usize> {
            kept.iter().flat_map(|group| group * of_group..(group + 1) * of_group).collect()
        };
        let (queries, keys) = (channels(width * shared), channels(width));
        Self {
            query: self.query.with_outputs(&queries),
            key: self.key.with_outputs(&keys),
            value: self.value.with_outputs(&keys),
            output: self.output.with_inputs(&queries),
            heads: Heads { query: kept.len() * shared, key_value: kept.len(), scale },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        module::{Module, Param},
        prelude::*,
        tensor::Tolerance,
    };

    use super::*;
    use crate::arch::llama::ModelType;

    /// Groups whose weights out are zero are worth nothing, and nothing changes without them.
    #[track_caller]
    fn check(model_type: ModelType, kept: [Vec<usize>; 2], groups: usize) {
        let device = Device::flex().autodiff();
        device.seed(3);
        let config = LlamaConfig {
            model_type,
            num_key_value_heads: Some(groups),
            initializer_range: 0.3,
            ..LlamaConfig::tiny()
        };
        let mut model = config.init(&device);
        let rows = config.num_attention_heads * config.head_dim() / groups;
        for (layer, kept) in model.layers.iter_mut().zip(&kept) {
            let mask: Vec<f32> = (0..groups * rows)
                .map(|row| if kept.contains(&(row / rows)) { 1.0 } else { 0.0 })
                .collect();
            let mask = Tensor::<1>::from_data(&mask[..], &device).unsqueeze_dim::<2>(1);
            let weight = layer.output.weight.val() * mask;
            layer.output.weight = Param::from_tensor(weight.detach()).set_require_grad(true);
        }
        let ids = || Tensor::<1, Int>::arange(3..15, &device).reshape([2, 6]);
        let logits = model.forward(ids(), None);
        let gradients = logits.clone().square().sum().backward();
        for (effects, kept) in model.group_effects(&gradients).iter().zip(&kept) {
            let worth = |(group, effect): (usize, &f32)| (*effect > 0.0).then_some(group);
            let found: Vec<usize> = effects.iter().enumerate().filter_map(worth).collect();
            assert_eq!(&found, kept, "{model_type:?}");
        }
        let smaller = model.valid().with_groups(&kept);
        let found = smaller.forward(ids().inner(), None).into_data();
        let logits = logits.inner().into_data();
        found.assert_approx_eq::<f32>(&logits, Tolerance::absolute(1e-4).set_relative(1e-4));
        // It has the shapes of the configuration that says so.
        let fresh = config.with_groups(kept[0].len()).init(&device.clone().inner());
        assert_eq!(fresh.num_params(), smaller.num_params());
    }

    #[test]
    fn what_is_worth_nothing_can_go() {
        check(ModelType::Llama, [vec![1], vec![0]], 2);
        check(ModelType::Mistral, [vec![0, 3], vec![1, 2]], 4);
        check(ModelType::Qwen2, [vec![1], vec![1]], 2);
        check(ModelType::Qwen3, [vec![0], vec![1]], 2);
    }
}
