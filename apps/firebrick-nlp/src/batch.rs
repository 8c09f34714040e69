//! Token ids into padded tensors.

use burn::{prelude::*, tensor::TensorData};
use firebrick_train::{sampler, task::Examples};

/// Examples padded to the longest of the batch.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// `[B, T]`; the pad token under padding
    pub ids: Tensor<2, Int>,
    /// `[B, T]`; true where padding
    pub pad: Tensor<2, Bool>,
    /// `[B]`; class index
    pub labels: Tensor<1, Int>,
}

/// A text as token ids, with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    pub label: usize,
}

/// Pads on the right. Texts are cut by the tokenizer, not here.
pub fn pad(texts: &[&[u32]], pad_id: u32, device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let t = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(texts.len() * t);
    let mut pad = Vec::with_capacity(texts.len() * t);
    for text in texts {
        ids.extend(text.iter().map(|id| *id as i32));
        ids.resize(ids.len() + t - text.len(), pad_id as i32);
        pad.extend((0..t).map(|i| i >= text.len()));
    }
    let shape = [texts.len(), t];
    (
        Tensor::from_data(TensorData::new(ids, shape), device),
        Tensor::from_data(TensorData::new(pad, shape), device),
    )
}

/// The training rows as the loop wants them.
pub struct TextExamples {
    pub examples: Vec<Example>,
    pub pad_id: u32,
    /// What a dropped token is replaced by.
    pub unknown_id: u32,
    /// Probability of replacing a token; the first and the last one stay.
    pub token_dropout: f64,
}

impl Examples for TextExamples {
    type Batch = TextBatch;

    fn len(&self) -> usize {
        self.examples.len()
    }

    fn size(&self, index: usize) -> usize {
        self.examples[index].ids.len()
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> TextBatch {
        let mut rng = sampler::Coins::new(seed);
        let texts: Vec<Vec<u32>> = indices
            .iter()
            .map(|i| {
                let mut ids = self.examples[*i].ids.clone();
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
        let labels: Vec<i32> = indices.iter().map(|i| self.examples[*i].label as i32).collect();
        let labels = Tensor::from_data(TensorData::new(labels, [indices.len()]), device);
        TextBatch { ids, pad, labels }
    }
}
