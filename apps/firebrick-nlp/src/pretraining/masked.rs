//! Guessing masked words (Devlin et al. 2018, section 3.1), as a training task.

use anyhow::ensure;
use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{arch::bert::BertMaskedLm, layers::loss::cross_entropy};
use firebrick_train::{
    fit::Metrics,
    sampler::{Coins, mix},
    task::{Examples, Task},
};

use crate::batch::pad;

/// How texts are masked.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskSettings {
    pub mask_id: u32,
    pub pad_id: u32,
    pub vocab_size: usize,
    /// Tokens that stay: those that begin, end and fill up a text.
    pub special: Vec<u32>,
    /// Share of the other tokens that is to be guessed; 0.15 in the paper.
    pub probability: f64,
}

/// Texts with some tokens to be guessed.
#[derive(Debug, Clone)]
pub struct MaskedBatch {
    /// `[B, T]`; masked
    pub ids: Tensor<2, Int>,
    /// `[B, T]`; true where padding
    pub pad: Tensor<2, Bool>,
    /// `[N]`: which of the `B T` tokens are guessed; at least one.
    pub places: Tensor<1, Int>,
    /// `[N]`: what they were.
    pub targets: Tensor<1, Int>,
}

/// Texts, masked anew each time.
#[derive(Debug)]
pub struct MaskedTexts {
    texts: Vec<Vec<u32>>,
    settings: MaskSettings,
}

impl MaskedTexts {
    /// Each text must hold a token that is not special.
    pub fn new(texts: Vec<Vec<u32>>, settings: MaskSettings) -> anyhow::Result<Self> {
        let p = settings.probability;
        ensure!(p > 0.0 && p < 1.0, "a share of {p} of masked tokens, not within 0 and 1");
        let ordinary = |text: &Vec<u32>| text.iter().any(|id| !settings.special.contains(id));
        let empty = texts.iter().position(|text| !ordinary(text));
        ensure!(empty.is_none(), "text {} has no token to mask", empty.unwrap_or(0));
        Ok(Self { texts, settings })
    }

    /// Of every text: the tokens that are guessed, by place; 80 % of them become the mask, 10 % any token, and 10 % stay.
    fn mask(&self, text: &mut [u32], coins: &mut Coins) -> Vec<(usize, u32)> {
        let MaskSettings { mask_id, vocab_size, probability, .. } = self.settings;
        let ordinary: Vec<usize> =
            (0..text.len()).filter(|i| !self.settings.special.contains(&text[*i])).collect();
        let mut chosen: Vec<usize> =
            ordinary.iter().copied().filter(|_| coins.toss(probability)).collect();
        if chosen.is_empty() {
            chosen.push(ordinary[coins.below(ordinary.len())]); // a short text learns too
        }
        let guess = |i: usize| {
            let was = text[i];
            text[i] = match coins.below(10) {
                0..8 => mask_id,
                8 => coins.below(vocab_size) as u32,
                _ => was,
            };
            (i, was)
        };
        chosen.into_iter().map(guess).collect()
    }
}

impl Examples for MaskedTexts {
    type Batch = MaskedBatch;

    fn len(&self) -> usize {
        self.texts.len()
    }

    fn size(&self, index: usize) -> usize {
        self.texts[index].len()
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> MaskedBatch {
        let mut coins = Coins::new(seed);
        let mut texts: Vec<Vec<u32>> = indices.iter().map(|i| self.texts[*i].clone()).collect();
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut targets) = (vec![], vec![]);
        for (row, text) in texts.iter_mut().enumerate() {
            for (i, was) in self.mask(text, &mut coins) {
                places.push((row * longest + i) as i32);
                targets.push(was as i32);
            }
        }
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let (ids, pad) = pad(&texts, self.settings.pad_id, device);
        let row = |values: Vec<i32>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), device)
        };
        MaskedBatch { ids, pad, places: row(places), targets: row(targets) }
    }
}

/// A masked language model in training.
#[derive(Module, Debug)]
pub struct MaskedLm {
    pub model: BertMaskedLm,
}

impl MaskedLm {
    /// Logits of the guessed tokens, `[N, V]`.
    fn logits(
        &self,
        ids: Tensor<2, Int>,
        pad: Tensor<2, Bool>,
        places: Tensor<1, Int>,
    ) -> Tensor<2> {
        let hidden = self.model.encoder.forward(ids, None, Some(pad));
        let [b, t, c] = hidden.dims();
        self.model.logits(hidden.reshape([b * t, c]).select(0, places))
    }
}

impl Task for MaskedLm {
    type Batch = MaskedBatch;

    fn loss(&self, batch: MaskedBatch) -> Tensor<1> {
        let MaskedBatch { ids, pad, places, targets } = batch;
        cross_entropy(self.logits(ids, pad, places), targets, None, 0.0)
    }
}

/// Mean nats and accuracy over the guessed tokens; the masks are those of `seed`. `model` lies on a device without
/// autodiff.
pub fn evaluate(model: &MaskedLm, texts: &MaskedTexts, batch_size: usize, seed: u64) -> Metrics {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let all: Vec<usize> = (0..texts.len()).collect();
    let (mut nats, mut right, mut count) = (0.0, 0, 0);
    for (index, part) in all.chunks(batch_size.max(1)).enumerate() {
        let batch = texts.batch(part, mix(seed, index as u64), &device);
        let MaskedBatch { ids, pad, places, targets } = batch;
        let logits = model.logits(ids, pad, places);
        let [n, _] = logits.dims();
        let best = logits.clone().argmax(1).reshape([n]);
        right += best.equal(targets.clone()).int().sum().into_scalar::<i64>() as usize;
        nats += cross_entropy(logits, targets, None, 0.0).into_scalar::<f64>() * n as f64;
        count += n;
    }
    let count = count.max(1) as f64;
    let loss = nats / count;
    Metrics::from([
        ("loss".into(), loss),
        ("perplexity".into(), loss.exp()),
        ("accuracy".into(), right as f64 / count),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> MaskedTexts {
        let settings = MaskSettings {
            mask_id: 4,
            pad_id: 0,
            vocab_size: 1000,
            special: vec![0, 2, 3],
            probability: 0.15,
        };
        let text = |i: u32| [2].into_iter().chain((0..i % 40 + 1).map(|t| 100 + t)).chain([3]);
        MaskedTexts::new((0..400).map(|i| text(i).collect()).collect(), settings).unwrap()
    }

    #[test]
    fn eighty_ten_ten() {
        let texts = texts();
        let all: Vec<usize> = (0..400).collect();
        let batch = texts.batch(&all, 7, &Device::flex());
        let ids: Vec<i64> = batch.ids.into_data().iter::<i64>().collect();
        let places: Vec<i64> = batch.places.into_data().iter::<i64>().collect();
        let targets: Vec<i64> = batch.targets.into_data().iter::<i64>().collect();
        let n = places.len() as f64;
        // 8,200 ordinary tokens; a text of which none is drawn gives one.
        assert!((1230.0..1500.0).contains(&n), "{n} are guessed");
        let (mut masked, mut same) = (0.0, 0.0);
        for (place, target) in places.iter().zip(&targets) {
            let (row, column) = (*place as usize / 42, *place as usize % 42);
            assert_eq!(texts.texts[row][column], *target as u32);
            assert!(*target >= 100);
            masked += f64::from(u8::from(ids[*place as usize] == 4));
            same += f64::from(u8::from(ids[*place as usize] == *target));
        }
        assert!((0.77..0.83).contains(&(masked / n)), "{masked} of {n}");
        assert!((0.08..0.13).contains(&(same / n)), "{same} of {n}");
        // What is not guessed is as it was.
        let changed = ids.iter().enumerate().filter(|(i, id)| {
            let was = texts.texts[i / 42].get(i % 42).copied().unwrap_or(0);
            **id as u32 != was && !places.contains(&(*i as i64))
        });
        assert_eq!(changed.count(), 0);
    }

    #[test]
    fn a_text_of_special_tokens_is_an_error() {
        let settings = texts().settings;
        let error = MaskedTexts::new(vec![vec![2, 9, 3], vec![2, 3]], settings).unwrap_err();
        assert_eq!(error.to_string(), "text 1 has no token to mask");
    }
}
