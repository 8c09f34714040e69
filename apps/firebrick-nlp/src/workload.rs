//! A training step to be timed: what `firebrick bench` and the benches measure.

use burn::tensor::Device;
use firebrick_core::arch::bert::BertConfig;
use firebrick_train::{
    fit::gradients,
    optim::{OptimState, global_norm},
    recipe::TrainRecipe,
};

use crate::{batch::TextExamples, task::Classify};

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
        let model = Classify { model: config.init_classifier(2, &device), r_drop: 0.0 };
        let id = |i: usize, t: usize| ((i * 131 + t * 37) % (config.vocab_size - 5) + 5) as u32;
        let text = |i| (0..tokens).map(|t| id(i, t)).collect();
        let target = |i| vec![(i % 2) as f32, ((i + 1) % 2) as f32];
        let mut examples = TextExamples::new(vec![], 2, 0.0);
        (0..rows).for_each(|i| examples.push(text(i), target(i)));
        Self {
            model: Some(model),
            optim: OptimState::default(),
            examples,
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
