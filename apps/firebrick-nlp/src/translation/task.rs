//! Translation as a training task.

use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{arch::bart::Bart, layers::loss::cross_entropy};
use firebrick_train::{
    sampler,
    task::{Examples, Task},
};

use super::corpus::Pair;
use crate::{batch::pad, tokenizer::TextTokenizer};

/// A translator and what its loss needs to know.
#[derive(Module, Debug)]
pub struct Translate {
    pub model: Bart,
    #[module(skip)]
    pub label_smoothing: f64,
}

/// Sources and targets, padded each to its longest.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// `[B, S]`
    pub source: Tensor<2, Int>,
    /// `[B, S]`; true where padding
    pub source_pad: Tensor<2, Bool>,
    /// `[B, T]`; what the decoder reads: the start token, then the target but for its end
    pub target: Tensor<2, Int>,
    /// `[B * T]`; what it should say: the target and its end, [`IGNORE`] under padding
    pub labels: Tensor<1, Int>,
}

/// Label of a place that counts for nothing.
pub const IGNORE: i32 = -100;

impl Translate {
    /// Logits of every place: `[B * T, V]`
    pub fn logits(&self, batch: &PairBatch) -> Tensor<2> {
        let pad = Some(batch.source_pad.clone());
        self.model.forward(batch.source.clone(), pad, batch.target.clone()).flatten(0, 1)
    }
}

impl Task for Translate {
    type Batch = PairBatch;

    fn loss(&self, batch: PairBatch) -> Tensor<1> {
        cross_entropy(self.logits(&batch), batch.labels, Some(IGNORE), self.label_smoothing)
    }
}

/// Pairs as token ids, special ones included.
pub struct PairExamples {
    pairs: Vec<[Vec<u32>; 2]>,
    pad_id: u32,
}

impl PairExamples {
    /// Pairs of which a side has more than `max_len` tokens are left out; the second value counts them.
    pub fn new(pairs: &[Pair], tokenizer: &TextTokenizer, max_len: usize) -> (Self, usize) {
        let ids = |text: &str| tokenizer.encode(text, usize::MAX);
        let all = pairs.iter().map(|pair| [ids(&pair.source), ids(&pair.target)]);
        let kept: Vec<_> =
            all.filter(|sides| sides.iter().all(|ids| ids.len() <= max_len)).collect();
        let dropped = pairs.len() - kept.len();
        (Self { pairs: kept, pad_id: tokenizer.pad_id() }, dropped)
    }

    /// Every example once, in batches of like length.
    pub fn in_order(&self, batch_size: usize) -> Vec<Vec<usize>> {
        let sizes: Vec<usize> = (0..self.len()).map(|i| self.size(i)).collect();
        sampler::by_size(&sizes, batch_size)
    }
}

impl Examples for PairExamples {
    type Batch = PairBatch;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn size(&self, index: usize) -> usize {
        self.pairs[index].iter().map(Vec::len).sum()
    }

    fn batch(&self, indices: &[usize], _seed: u64, device: &Device) -> PairBatch {
        let sources: Vec<&[u32]> = indices.iter().map(|i| &*self.pairs[*i][0]).collect();
        let targets: Vec<&[u32]> = indices
            .iter()
            .map(|i| &self.pairs[*i][1][..self.pairs[*i][1].len().saturating_sub(1)])
            .collect();
        let (source, source_pad) = pad(&sources, self.pad_id, device);
        let (target, _) = pad(&targets, self.pad_id, device);
        let [_, t] = target.dims();
        let mut labels = Vec::with_capacity(indices.len() * t);
        for i in indices {
            let next = self.pairs[*i][1].iter().skip(1).map(|id| *id as i32);
            labels.extend(next.chain(std::iter::repeat(IGNORE)).take(t));
        }
        let labels = Tensor::from_data(TensorData::new(labels, [indices.len() * t]), device);
        PairBatch { source, source_pad, target, labels }
    }
}

/// Mean cross entropy a token, without smoothing. `model` lies on a device without autodiff.
pub fn loss(model: &Translate, examples: &PairExamples, batch_size: usize) -> f64 {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let (mut sum, mut tokens) = (0.0, 0);
    for indices in examples.in_order(batch_size) {
        let batch = examples.batch(&indices, 0, &device);
        let count: usize = indices.iter().map(|i| examples.pairs[*i][1].len() - 1).sum();
        let mean = cross_entropy(model.logits(&batch), batch.labels, Some(IGNORE), 0.0);
        sum += count as f64 * mean.into_scalar::<f64>();
        tokens += count;
    }
    sum / tokens.max(1) as f64
}
