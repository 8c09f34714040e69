//! Tagging as a training task.

use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::tagger::{Scores, Tagger},
    layers::loss::cross_entropy,
};
use firebrick_train::{
    sampler,
    task::{Examples, Task},
};

use super::{
    corpus::Sentence,
    features::{Features, UNKNOWN},
};

/// A tagger and what its loss needs to know.
#[derive(Module, Debug)]
pub struct Tag {
    pub model: Tagger,
    #[module(skip)]
    pub label_smoothing: f64,
}

/// Sentences padded to the longest.
#[derive(Debug, Clone)]
pub struct TagBatch {
    /// `[B, T]` for each feature
    pub features: Vec<Tensor<2, Int>>,
    /// `[B, T]`; true where padding
    pub pad: Tensor<2, Bool>,
    /// `[B * T]`; [`IGNORE`] where there is none
    pub tags: Tensor<1, Int>,
    /// `[B]`; [`IGNORE`] where there is none
    pub labels: Tensor<1, Int>,
}

/// Class of what has none.
pub const IGNORE: i32 = -100;

impl Task for Tag {
    type Batch = TagBatch;

    /// The sum of both heads' means.
    fn loss(&self, batch: TagBatch) -> Tensor<1> {
        let TagBatch { features, pad, tags, labels } = batch;
        let scores = self.model.forward(features, pad);
        losses(scores, tags, labels, self.label_smoothing)
    }
}

fn losses(
    scores: Scores,
    tags: Tensor<1, Int>,
    labels: Tensor<1, Int>,
    smoothing: f64,
) -> Tensor<1> {
    let of_tags =
        scores.tags.map(|x| cross_entropy(x.flatten::<2>(0, 1), tags, Some(IGNORE), smoothing));
    let of_labels = scores.labels.map(|x| cross_entropy(x, labels, Some(IGNORE), smoothing));
    match (of_tags, of_labels) {
        (Some(tags), Some(labels)) => tags + labels,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => unreachable!("a configuration without a head is refused"),
    }
}

/// A sentence in numbers.
#[derive(Debug, Clone, Default)]
struct Encoded {
    /// A number for each feature, word by word.
    words: Vec<Vec<u32>>,
    tags: Vec<i32>,
    label: i32,
}

/// Sentences as the training loop wants them.
pub struct TagExamples {
    sentences: Vec<Encoded>,
    /// Of each word's number, how likely it is hidden; empty hides none.
    hide: Vec<f64>,
    kinds: usize,
}

impl TagExamples {
    /// Tags and labels that are not among the known ones count for nothing.
    pub fn new(
        sentences: &[Sentence],
        features: &Features,
        tags: &[String],
        labels: &[String],
    ) -> Self {
        let place = |name: &String, names: &[String]| {
            names.iter().position(|known| known == name).map_or(IGNORE, |place| place as i32)
        };
        let encode = |sentence: &Sentence| Encoded {
            words: sentence.tokens.iter().map(|word| features.encode(word)).collect(),
            tags: match sentence.tags.is_empty() {
                true => vec![IGNORE; sentence.tokens.len()],
                false => sentence.tags.iter().map(|tag| place(tag, tags)).collect(),
            },
            label: sentence.label.as_ref().map_or(IGNORE, |label| place(label, labels)),
        };
        let sentences = sentences.iter().map(encode).collect();
        Self { sentences, hide: vec![], kinds: features.kinds.len() }
    }

    /// Hides a word that the training sentences have `n` times with probability `a / (a + n)`.
    pub fn with_word_dropout(mut self, a: f64, features: &Features) -> Self {
        let words = features.sizes().first().copied().unwrap_or(0) as u32;
        let probability = |number: u32| match features.word_count(number) {
            0 => 0.0,
            n => a / (a + f64::from(n)),
        };
        self.hide = (0..words).map(probability).collect();
        self
    }

    /// Every sentence once, in batches of like length.
    pub fn in_order(&self, batch_size: usize) -> Vec<Vec<usize>> {
        let sizes: Vec<usize> = (0..self.len()).map(|i| self.size(i)).collect();
        sampler::by_size(&sizes, batch_size)
    }
}

impl Examples for TagExamples {
    type Batch = TagBatch;

    fn len(&self) -> usize {
        self.sentences.len()
    }

    fn size(&self, index: usize) -> usize {
        self.sentences[index].words.len()
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> TagBatch {
        let mut coins = sampler::Coins::new(seed);
        let (b, t) =
            (indices.len(), indices.iter().map(|i| self.size(*i)).max().unwrap_or(0).max(1));
        let mut features = vec![vec![UNKNOWN as i32; b * t]; self.kinds];
        let mut tags = vec![IGNORE; b * t];
        let mut pad = vec![true; b * t];
        for (row, index) in indices.iter().enumerate() {
            let sentence = &self.sentences[*index];
            for (place, (word, tag)) in sentence.words.iter().zip(&sentence.tags).enumerate() {
                let at = row * t + place;
                (pad[at], tags[at]) = (false, *tag);
                for (numbers, number) in features.iter_mut().zip(word) {
                    numbers[at] = *number as i32;
                }
                let hide = self.hide.get(word[0] as usize).copied().unwrap_or(0.0);
                if hide > 0.0 && coins.toss(hide) {
                    features[0][at] = UNKNOWN as i32;
                }
            }
        }
        let labels: Vec<i32> = indices.iter().map(|i| self.sentences[*i].label).collect();
        let grid = |numbers| Tensor::from_data(TensorData::new(numbers, [b, t]), device);
        TagBatch {
            features: features.into_iter().map(grid).collect(),
            pad: Tensor::from_data(TensorData::new(pad, [b, t]), device),
            tags: Tensor::from_data(TensorData::new(tags, [b * t]), device),
            labels: Tensor::from_data(TensorData::new(labels, [b]), device),
        }
    }
}

/// Logits of one sentence: `[T, K]` row by row, and `[L]`; empty without the head.
#[derive(Debug, Clone, Default)]
pub struct Logits {
    pub tags: Vec<f32>,
    pub labels: Vec<f32>,
}

/// Logits of every sentence in order, and the mean loss. `model` lies on a device without autodiff.
pub fn logits(model: &Tagger, examples: &TagExamples, batch_size: usize) -> (Vec<Logits>, f64) {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let mut all = vec![Logits::default(); examples.len()];
    let (mut loss, mut count) = (0.0, 0);
    let floats = |data: TensorData| data.try_into_vec::<f32>().expect("logits are f32");
    for indices in examples.in_order(batch_size.max(1)) {
        let TagBatch { features, pad, tags, labels } = examples.batch(&indices, 0, &device);
        let [_, t] = pad.dims();
        let scores = model.forward(features, pad);
        if let Some(x) = &scores.tags {
            let [_, _, k] = x.dims();
            let x = floats(x.clone().into_data());
            for (row, index) in x.chunks(t * k).zip(&indices) {
                all[*index].tags = row[..examples.size(*index) * k].to_vec();
            }
        }
        if let Some(x) = &scores.labels {
            let [_, l] = x.dims();
            let x = floats(x.clone().into_data());
            for (row, index) in x.chunks(l).zip(&indices) {
                all[*index].labels = row.to_vec();
            }
        }
        loss += indices.len() as f64 * losses(scores, tags, labels, 0.0).into_scalar::<f64>();
        count += indices.len();
    }
    (all, loss / count.max(1) as f64)
}
