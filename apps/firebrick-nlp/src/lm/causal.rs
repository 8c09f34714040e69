//! Guessing the next token, as a training task.

use anyhow::ensure;
use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::{
        gpt2::{Gpt2, Gpt2LmHead},
        llama::{Llama, LlamaForCausalLm},
        recurrent::{Recurrent, RecurrentForCausalLm},
    },
    checkpoint::{LoadError, Source},
    layers::{loss::cross_entropy, rnn::State},
};
use firebrick_train::{
    sampler::Coins,
    task::{Examples, Task},
};

/// A model of any family that reads from left to right.
#[derive(Module, Debug)]
pub enum LanguageModel {
    Gpt2(Gpt2),
    Llama(Llama),
    Recurrent(Recurrent),
}

impl LanguageModel {
    /// That of a model folder.
    pub fn open(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config()?;
        Ok(match config["model_type"].as_str().unwrap_or_default() {
            "gpt2" => Self::Gpt2(Gpt2LmHead::load(source, device)?.model),
            "llama" | "mistral" | "qwen2" | "qwen3" => {
                Self::Llama(LlamaForCausalLm::load(source, device)?.model)
            }
            _ => Self::Recurrent(RecurrentForCausalLm::load(source, device)?.model),
        })
    }

    /// `ids`: `[B, T]` -> logits `[B, T, V]`. The state is a recurrent model's, empty before the first token and of any
    /// other.
    pub fn forward(&self, ids: Tensor<2, Int>, states: Vec<State>) -> (Tensor<3>, Vec<State>) {
        match self {
            Self::Gpt2(model) => (model.forward(ids, None), vec![]),
            Self::Llama(model) => (model.forward(ids, None), vec![]),
            Self::Recurrent(model) => model.forward(ids, None, states),
        }
    }

    /// Whether what was read before a window reaches it as a state.
    pub fn carries_state(&self) -> bool {
        matches!(self, Self::Recurrent(_))
    }
}

/// Windows of a stream.
#[derive(Debug, Clone)]
pub struct LmBatch {
    /// `[B, W + T]`
    pub ids: Tensor<2, Int>,
    /// `[B, T]`: what follows each of the last `T` tokens.
    pub targets: Tensor<2, Int>,
}

/// What windows are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSettings {
    /// `T`: tokens of a window whose successor is guessed.
    pub tokens: usize,
    /// `W`: tokens before them that a recurrent model reads, without gradient, to have a state.
    ///
    /// In place of the state that the window before left: then a step depends on its seed alone, windows may come in any
    /// order, and a resumed run has nothing to restore.
    pub warm_up: usize,
}

/// Windows of a stream at random places, as many an epoch as fit beside each other.
#[derive(Debug)]
pub struct Windows {
    ids: Vec<u32>,
    settings: WindowSettings,
}

impl Windows {
    pub fn new(ids: Vec<u32>, settings: WindowSettings) -> anyhow::Result<Self> {
        let WindowSettings { tokens, warm_up } = settings;
        ensure!(tokens > 0, "windows of no token");
        ensure!(
            ids.len() > tokens + warm_up,
            "{} tokens, fewer than a window of {warm_up} + {tokens} and one to guess",
            ids.len()
        );
        Ok(Self { ids, settings })
    }
}

impl Examples for Windows {
    type Batch = LmBatch;

    fn len(&self) -> usize {
        self.ids.len().div_ceil(self.settings.tokens)
    }

    fn size(&self, _: usize) -> usize {
        self.settings.tokens
    }

    /// Which windows is a matter of the seed; of `indices` only their number counts.
    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> LmBatch {
        let WindowSettings { tokens, warm_up } = self.settings;
        let mut coins = Coins::new(seed);
        let places = self.ids.len() - tokens - warm_up;
        let (mut ids, mut targets) = (vec![], vec![]);
        for _ in indices {
            let window = &self.ids[coins.below(places)..][..warm_up + tokens + 1];
            ids.extend(window[..warm_up + tokens].iter().map(|id| *id as i32));
            targets.extend(window[warm_up + 1..].iter().map(|id| *id as i32));
        }
        let rows = indices.len();
        let ids = TensorData::new(ids, [rows, warm_up + tokens]);
        let targets = TensorData::new(targets, [rows, tokens]);
        LmBatch { ids: Tensor::from_data(ids, device), targets: Tensor::from_data(targets, device) }
    }
}

/// A language model in training.
#[derive(Module, Debug)]
pub struct CausalLm {
    pub model: LanguageModel,
    #[module(skip)]
    pub label_smoothing: f64,
}

impl Task for CausalLm {
    type Batch = LmBatch;

    fn loss(&self, batch: LmBatch) -> Tensor<1> {
        let LmBatch { ids, targets } = batch;
        let ([b, all], [_, t]) = (ids.dims(), targets.dims());
        let warm_up = all - t;
        let states = match warm_up > 0 && self.model.carries_state() {
            true => self.warm(ids.clone().narrow(1, 0, warm_up)),
            false => vec![],
        };
        let (logits, _) = self.model.forward(ids.narrow(1, warm_up, t), states);
        let [_, _, v] = logits.dims();
        cross_entropy(
            logits.reshape([b * t, v]),
            targets.reshape([b * t]),
            None,
            self.label_smoothing,
        )
    }
}

impl CausalLm {
    /// The state after some tokens, as the model without dropout has it; nothing is learned from them.
    fn warm(&self, ids: Tensor<2, Int>) -> Vec<State> {
        let LanguageModel::Recurrent(model) = self.model.valid() else { return vec![] };
        let states = model.read(ids.inner(), None, vec![]).1;
        states.into_iter().map(|State(state)| State(Tensor::from_inner(state))).collect()
    }
}

#[cfg(test)]
mod tests {
    use firebrick_core::arch::recurrent::RecurrentConfig;

    use super::*;

    fn windows(ids: &[u32], tokens: usize, warm_up: usize) -> Windows {
        Windows::new(ids.to_vec(), WindowSettings { tokens, warm_up }).unwrap()
    }

    #[test]
    fn targets_are_what_follows() {
        let ids: Vec<u32> = (0..40).collect();
        let windows = windows(&ids, 6, 3);
        let batch = windows.batch(&[0, 1, 2], 5, &Device::flex());
        assert_eq!((batch.ids.dims(), batch.targets.dims()), ([3, 9], [3, 6]));
        let behind = batch.ids.clone().narrow(1, 3, 6) + 1;
        assert_eq!(behind.into_data(), batch.targets.into_data());
        // Which windows is a function of the seed.
        let again = |seed| windows.batch(&[7, 8, 9], seed, &Device::flex()).ids.into_data();
        assert_eq!(again(5), batch.ids.into_data());
        assert_ne!(again(6), again(5));
        assert!(Windows::new(ids, WindowSettings { tokens: 37, warm_up: 3 }).is_err());
    }

    /// What was read before a window counts as if the window had begun there.
    #[test]
    fn a_warm_up_gives_a_state() {
        let device = Device::flex().autodiff();
        device.seed(2);
        let config = RecurrentConfig {
            dropout: 0.0,
            dropouti: 0.0,
            dropouth: 0.0,
            dropoute: 0.0,
            ..RecurrentConfig::tiny()
        };
        let model = LanguageModel::Recurrent(config.init(&device));
        let task = CausalLm { model, label_smoothing: 0.0 };
        let ids: Vec<u32> = (0..200).map(|i| i * i % 61).collect();
        let batch = windows(&ids, 6, 3).batch(&[0, 1, 2], 5, &device);
        let number = |loss: Tensor<1>| loss.into_scalar::<f32>();
        let found = number(task.loss(batch.clone()));
        let of_last_six = |logits: Tensor<3>, before: usize| {
            let [_, _, v] = logits.dims();
            let logits = logits.narrow(1, before, 6).reshape([18, v]);
            number(cross_entropy(logits, batch.targets.clone().reshape([18]), None, 0.0))
        };
        let expected = of_last_six(task.model.forward(batch.ids.clone(), vec![]).0, 3);
        assert!((found - expected).abs() < 1e-6 * expected, "{found}, not {expected}");
        let cold = of_last_six(task.model.forward(batch.ids.clone().narrow(1, 3, 6), vec![]).0, 0);
        assert!((found - cold).abs() > 1e-5, "{found} without what was before, too");
    }
}
