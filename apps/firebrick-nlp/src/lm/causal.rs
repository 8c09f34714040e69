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
