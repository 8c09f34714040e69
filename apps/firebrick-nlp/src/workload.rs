//! A training step to be timed: what `firebrick bench` and the benches measure.

use burn::tensor::Device;
use firebrick_core::arch::bert::BertConfig;
use firebrick_train::{
    fit::gradients,
    optim::{OptimState, global_norm},
    recipe::TrainRecipe,
};

use crate::{
    batch::{Example, TextExamples},
    task::Classify,
};

/// Forward, backward, clipping and AdamW over a fixed batch.
pub struct TrainStep {
    model: Option<Classify>,
    optim: OptimState,
    examples: TextExamples,
    rows: Vec<usize>,
}

impl TrainStep {
    /// `rows` texts of `tokens` tokens each.
    pub fn new(config: &BertConfig, rows: usize, tokens: usize, device: &Device) -> Self {
        let device = device.clone().autodiff();
        device.seed(0);
        let model = Classify {
            model: config.init_classifier(2, &device),
            label_smoothing: 0.0,
            r_drop: 0.0,
        };
        let id = |i: usize, t: usize| ((i * 131 + t * 37) % (config.vocab_size - 5) + 5) as u32;
        let example = |i| Example { ids: (0..tokens).map(|t| id(i, t)).collect(), label: i % 2 };
        let examples = (0..rows).map(example).collect();
        Self {
            model: Some(model),
            optim: OptimState::default(),
            examples: TextExamples { examples, pad_id: 0, unknown_id: 1, token_dropout: 0.0 },
            rows: (0..rows).collect(),
        }
    }

    pub fn run(&mut self) {
        let model = self.model.take().expect("put back below");
        let (_, grads) = gradients(&model, &self.examples, &self.rows, 1, 7);
        let norm = global_norm(&grads);
        let recipe = TrainRecipe::default();
        self.model = Some(self.optim.step(model, &grads, norm, 1e-4, &recipe));
    }
}
