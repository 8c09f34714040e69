//! Labelled texts as the training loop wants them.

use burn::{prelude::*, tensor::TensorData};
use firebrick_train::{sampler, task::Examples};

use crate::batch::pad;

/// Examples padded to the longest of the batch.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// `[B, T]`; the pad token under padding
    pub ids: Tensor<2, Int>,
    /// `[B, T]`; true where padding
    pub pad: Tensor<2, Bool>,
    /// `[B, L]`; probability of each class
    pub targets: Tensor<2>,
}

/// A text as token ids, with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    pub label: usize,
}

/// The training texts as the loop wants them.
pub struct TextExamples {
    texts: Vec<Vec<u32>>,
    /// By text, the probability of each class.
    targets: Vec<Vec<f32>>,
    /// What a batch is filled up with; hidden from the model.
    pub pad_id: u32,
    /// What a dropped token is replaced by.
    pub unknown_id: u32,
    /// Probability of replacing a token; the first and the last one stay.
    pub token_dropout: f64,
}

impl TextExamples {
    /// `label_smoothing` is taken from the true class and spread over all (Szegedy et al. 2016).
    pub fn new(examples: Vec<Example>, classes: usize, label_smoothing: f64) -> Self {
        let target = |label: usize| {
            let mut target = vec![(label_smoothing / classes as f64) as f32; classes];
            target[label] += (1.0 - label_smoothing) as f32;
            target
        };
        let targets = examples.iter().map(|e| target(e.label)).collect();
        let texts = examples.into_iter().map(|e| e.ids).collect();
        Self { texts, targets, pad_id: 0, unknown_id: 0, token_dropout: 0.0 }
    }

    /// A text with what somebody else thinks of it.
    pub fn push(&mut self, ids: Vec<u32>, target: Vec<f32>) {
        self.texts.push(ids);
        self.targets.push(target);
    }
}

impl Examples for TextExamples {
    type Batch = TextBatch;

    fn len(&self) -> usize {
        self.texts.len()
    }

    fn size(&self, index: usize) -> usize {
        self.texts[index].len()
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> TextBatch {
        let mut rng = sampler::Coins::new(seed);
        let texts: Vec<Vec<u32>> = indices
            .iter()
            .map(|i| {
                let mut ids = self.texts[*i].clone();
                let inner = ids.len().saturating_sub(2);
                for id in ids.iter_mut().skip(1).take(inner) {
                    if self.token_dropout > 0.0 && rng.toss(self.token_dropout) {
                        *id = self.unknown_id;
                    }
                }
                ids
            })
            .collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let (ids, pad) = pad(&texts, self.pad_id, device);
        let targets: Vec<f32> = indices.iter().flat_map(|i| &self.targets[*i]).copied().collect();
        let shape = [indices.len(), targets.len() / indices.len().max(1)];
        TextBatch { ids, pad, targets: Tensor::from_data(TensorData::new(targets, shape), device) }
    }
}
