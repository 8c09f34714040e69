//! Training steps to be timed: what `firebrick bench` and the benches measure.

use burn::{
    module::Module,
    prelude::*,
    tensor::{Device, TensorData},
};
use firebrick_core::{
    arch::{
        bert::{BertClassifier, BertConfig},
        gpt2::{Gpt2, Gpt2Config},
        text::TextModel,
    },
    layers::loss::cross_entropy,
};
use firebrick_train::{
    fit::gradients,
    optim::{OptimState, global_norm},
    recipe::TrainRecipe,
    sampler::mix,
    task::{Examples, Task},
};

use crate::classification::{batch::TextExamples, task::Classify};

/// The training loop's step: batch, forward, backward, clipping and AdamW.
pub struct TrainStep<T: Task, E> {
    model: Option<T>,
    optim: OptimState,
    examples: E,
    recipe: TrainRecipe,
    step: u64,
}

impl<T: Task<Batch = E::Batch>, E: Examples> TrainStep<T, E> {
    /// `model` lies on a device with autodiff.
    pub fn over(model: T, examples: E, recipe: TrainRecipe) -> Self {
        Self { model: Some(model), optim: OptimState::default(), examples, recipe, step: 0 }
    }

    pub fn run(&mut self) {
        self.step += 1;
        let draw = |row| mix(self.step, row as u64) as usize % self.examples.len();
        let rows: Vec<usize> = (0..self.recipe.batch_size).map(draw).collect();
        let model = self.model.take().expect("put back below");
        let (_, grads) = gradients(&model, &self.examples, &rows, 1, self.step);
        let norm = global_norm(&grads);
        let rate = self.recipe.settings().learning_rate;
        self.model = Some(self.optim.step(model, &grads, norm, rate, &self.recipe));
    }
}

impl TrainStep<Classify, TextExamples> {
    /// A fresh classifier on `rows` texts of `tokens` tokens each.
    pub fn new(config: &BertConfig, rows: usize, tokens: usize, device: &Device) -> Self {
        let device = device.clone().autodiff();
        device.seed(0);
        let model = config.init_classifier(2, &device);
        Self::of(model, config.vocab_size, rows, tokens, 1e-4)
    }

    /// Fine-tunes `model`, of two labels, on `rows` texts of `tokens` tokens each.
    pub fn of(
        model: BertClassifier,
        vocabulary: usize,
        rows: usize,
        tokens: usize,
        learning_rate: f64,
    ) -> Self {
        let id = |i: usize, t: usize| ((i * 131 + t * 37) % (vocabulary - 5) + 5) as u32;
        let mut examples = TextExamples::new(vec![], 2, 0.0);
        for i in 0..rows {
            let target = vec![(i % 2) as f32, ((i + 1) % 2) as f32];
            examples.push((0..tokens).map(|t| id(i, t)).collect(), target);
        }
        let recipe = TrainRecipe {
            batch_size: rows,
            learning_rate: Some(learning_rate),
            ..TrainRecipe::default()
        };
        let model = TextModel::Bert(model);
        Self::over(Classify { model, r_drop: 0.0, imitated: None }, examples, recipe)
    }
}

impl TrainStep<Write, Blocks> {
    /// A character model of `text`, as nanoGPT trains one; rows of `config.n_positions` characters.
    pub fn characters(text: &str, config: &Gpt2Config, rows: usize, device: &Device) -> Self {
        let mut alphabet: Vec<char> = text.chars().collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        let id = |c| alphabet.binary_search(&c).expect("it is of the text") as i32;
        let ids = text.chars().map(id).collect();
        let device = device.clone().autodiff();
        device.seed(0);
        let config = Gpt2Config { vocab_size: alphabet.len(), ..config.clone() };
        let recipe = TrainRecipe {
            batch_size: rows,
            beta2: Some(0.99),
            weight_decay: Some(0.1),
            ..TrainRecipe::default()
        };
        let examples = Blocks { ids, length: config.n_positions };
        Self::over(Write { model: config.init(&device) }, examples, recipe)
    }
}

/// A decoder that learns every next token.
#[derive(Module, Debug)]
pub struct Write {
    model: Gpt2,
}

impl Task for Write {
    /// Tokens, and the one after each: `[B, T]` both.
    type Batch = [Tensor<2, Int>; 2];

    fn loss(&self, [ids, next]: Self::Batch) -> Tensor<1> {
        let logits = self.model.forward(ids, None); // [B, T, V]
        let [b, t, v] = logits.dims();
        cross_entropy(logits.reshape([b * t, v]), next.reshape([b * t]), None, 0.0)
    }
}

/// Every stretch of `length` tokens of one long text.
pub struct Blocks {
    ids: Vec<i32>,
    length: usize,
}

impl Examples for Blocks {
    type Batch = [Tensor<2, Int>; 2];

    fn len(&self) -> usize {
        self.ids.len().saturating_sub(self.length)
    }

    fn size(&self, _: usize) -> usize {
        self.length
    }

    fn batch(&self, indices: &[usize], _: u64, device: &Device) -> Self::Batch {
        [0, 1].map(|shift| {
            let rows = indices.iter().map(|i| &self.ids[i + shift..i + shift + self.length]);
            let data =
                TensorData::new(rows.collect::<Vec<_>>().concat(), [indices.len(), self.length]);
            Tensor::from_data(data, device)
        })
    }
}
