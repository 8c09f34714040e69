//! Tagging as a training task.

use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::tagger::{Scores, Tagger},
    layers::loss::{cross_entropy, log_softmax},
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
    /// Of tags; that of labels is in their targets.
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
    /// `[B, L]`; probability of each label, or zeros where nothing is known of it. `None` where there are no labels at all.
    pub labels: Option<Tensor<2>>,
}

/// Tag of what has none.
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
    labels: Option<Tensor<2>>,
    smoothing: f64,
) -> Tensor<1> {
    let of_tags =
        scores.tags.map(|x| cross_entropy(x.flatten::<2>(0, 1), tags, Some(IGNORE), smoothing));
    let of_labels = scores.labels.zip(labels).map(|(x, targets)| {
        let counted = targets.clone().sum().clamp_min(1.0); // a row that counts sums up to 1
        -(targets * log_softmax(x)).sum() / counted
    });
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
    /// Probability of each label; zeros where nothing is known.
    label: Vec<f32>,
}

/// Sentences as the training loop wants them.
pub struct TagExamples {
    sentences: Vec<Encoded>,
    /// Of each word's number, how likely it is hidden; empty hides none.
    hide: Vec<f64>,
    kinds: usize,
}

impl TagExamples {
    /// Tags and labels that are not among the known ones count for nothing. `label_smoothing` is taken from the true label
    /// and spread over all.
    pub fn new(
        sentences: &[Sentence],
        features: &Features,
        tags: &[String],
        labels: &[String],
        label_smoothing: f64,
    ) -> Self {
        let place = |name: &String, names: &[String]| names.iter().position(|known| known == name);
        let tag = |name: &String| place(name, tags).map_or(IGNORE, |place| place as i32);
        let target = |label: usize| {
            let mut target = vec![(label_smoothing / labels.len() as f64) as f32; labels.len()];
            target[label] += (1.0 - label_smoothing) as f32;
            target
        };
        let encode = |sentence: &Sentence| Encoded {
            words: sentence.tokens.iter().map(|word| features.encode(word)).collect(),
            tags: match sentence.tags.is_empty() {
                true => vec![IGNORE; sentence.tokens.len()],
                false => sentence.tags.iter().map(tag).collect(),
            },
            label: match sentence.label.as_ref().and_then(|label| place(label, labels)) {
                None => vec![0.0; labels.len()],
                Some(label) => target(label),
            },
        };
        let sentences = sentences.iter().map(encode).collect();
        Self { sentences, hide: vec![], kinds: features.kinds.len() }
    }

    /// A sentence without tags, with what somebody else thinks of its label.
    pub fn push(&mut self, tokens: &[String], label: Vec<f32>, features: &Features) {
        let words = tokens.iter().map(|word| features.encode(word)).collect();
        self.sentences.push(Encoded { words, tags: vec![IGNORE; tokens.len()], label });
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
        let labels = indices.iter().flat_map(|i| &self.sentences[*i].label).copied();
        let labels: Vec<f32> = labels.collect();
        let l = labels.len() / b.max(1);
        let grid = |numbers| Tensor::from_data(TensorData::new(numbers, [b, t]), device);
        TagBatch {
            features: features.into_iter().map(grid).collect(),
            pad: Tensor::from_data(TensorData::new(pad, [b, t]), device),
            tags: Tensor::from_data(TensorData::new(tags, [b * t]), device),
            labels: (l > 0).then(|| Tensor::from_data(TensorData::new(labels, [b, l]), device)),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A teacher's probabilities are as good as a label; a row without either does not count.
    #[test]
    fn labels_are_targets() {
        let device = Device::flex();
        let sentence = |label: Option<&str>| Sentence {
            row: 0,
            tokens: vec!["play".into()],
            tags: vec![],
            label: label.map(str::to_string),
        };
        let features = Features::new(["play", "stop"].into_iter(), 1);
        let labels = ["Play".to_string(), "Stop".to_string()];
        let sentences = [sentence(Some("Play")), sentence(Some("Other")), sentence(None)];
        let mut examples = TagExamples::new(&sentences, &features, &[], &labels, 0.2);
        examples.push(&["stop".into(), "play".into()], vec![0.25, 0.75], &features);
        let batch = examples.batch(&[0, 1, 2, 3], 0, &device);
        let targets = batch.labels.unwrap();
        let wanted = [[0.9, 0.1], [0.0, 0.0], [0.0, 0.0], [0.25, 0.75]];
        let wanted = TensorData::from(wanted).convert::<f32>();
        targets.clone().into_data().assert_approx_eq::<f32>(&wanted, Default::default());

        // p = 3/4 and 1/4 of every row.
        let logits = Tensor::<2>::from_data([[3f32.ln(), 0.0]; 4], &device);
        let scores = Scores { tags: None, labels: Some(logits) };
        let loss = losses(scores, batch.tags, Some(targets), 0.0).into_scalar::<f32>();
        let rows = [(0.9f32, 0.1f32), (0.25, 0.75)];
        let sum: f32 = rows.iter().map(|(a, b)| -a * 0.75f32.ln() - b * 0.25f32.ln()).sum();
        assert!((loss - sum / 2.0).abs() < 1e-6, "{loss}");
    }
}
