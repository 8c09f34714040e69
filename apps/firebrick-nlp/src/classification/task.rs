//! Text classification as a training task.

use burn::{module::Module, prelude::*};
use firebrick_core::{
    arch::text::TextModel,
    layers::loss::{log_softmax, soft_cross_entropy, softmax},
};
use firebrick_metrics::{
    calibration::Calibration,
    confusion::{Confusion, argmax},
};
use firebrick_train::{fit::Metrics, sampler, task::Task};

use super::{
    batch::{Example, TextBatch},
    imitate::Imitated,
};
use crate::batch::pad;

/// A classifier and what its loss needs to know.
#[derive(Module, Debug)]
pub struct Classify {
    pub model: TextModel,
    /// Weight of R-Drop (Liang et al. 2021, <https://arxiv.org/abs/2106.14448>): every text goes
    /// through twice, under different dropout, and the two answers are drawn together. 0 is off.
    #[module(skip)]
    pub r_drop: f64,
    /// A teacher whose layers are imitated; then texts go through once.
    #[module(skip)]
    pub imitated: Option<Imitated>,
}

impl Task for Classify {
    type Batch = TextBatch;
    const HEAD: &'static [&'static str] = &[
        "model.Bert.dense.",
        "model.Bert.classifier.",
        "model.Gpt2.score.",
        "model.Bilstm.classifier.",
    ];

    fn loss(&self, batch: TextBatch) -> Tensor<1> {
        let TextBatch { ids, pad, targets } = batch;
        if let (Some(imitated), TextModel::Bert(model)) = (&self.imitated, &self.model) {
            let trace = model.encoder.trace(ids.clone(), Some(pad.clone()));
            let hidden = trace.hidden.last().expect("a model has layers").clone();
            let loss = soft_cross_entropy(log_softmax(model.classify(hidden)), targets);
            return loss + imitated.distance(&trace, ids, pad);
        }
        if self.r_drop == 0.0 {
            let log_p = log_softmax(self.model.forward(ids, Some(pad)));
            return soft_cross_entropy(log_p, targets);
        }
        let [b, _] = ids.dims();
        let twice = Tensor::cat(vec![ids.clone(), ids], 0); // [2B, T]
        let pads = Tensor::cat(vec![pad.clone(), pad], 0);
        let log_p = log_softmax(self.model.forward(twice, Some(pads))); // [2B, L]
        let [first, second] = [log_p.clone().narrow(0, 0, b), log_p.clone().narrow(0, b, b)];
        // (KL(p || q) + KL(q || p)) / 2 = sum (p - q) (log p - log q) / 2
        let apart = first.clone() - second.clone();
        let kl = ((first.exp() - second.exp()) * apart).sum_dim(1).mean() / 2.0;
        let targets = Tensor::cat(vec![targets.clone(), targets], 0);
        soft_cross_entropy(log_p, targets) + kl * self.r_drop
    }
}

/// What a model said of each example, in order.
pub struct Judged {
    /// Probabilities by class.
    pub scores: Vec<Vec<f32>>,
    pub confusion: Confusion,
    pub calibration: Calibration,
    /// Mean cross-entropy.
    pub loss: f64,
}

impl Judged {
    /// Probabilities of examples by class, against their labels.
    pub fn new(scores: Vec<Vec<f32>>, examples: &[Example], classes: usize) -> Self {
        let mut confusion = Confusion::new(classes);
        let mut calibration = Calibration::default();
        let mut loss = 0.0;
        for (example, p) in examples.iter().zip(&scores) {
            let best = argmax(p);
            confusion.add(example.label, best);
            calibration.add(f64::from(p[best]), best == example.label);
            loss -= f64::from(p[example.label].max(1e-30)).ln();
        }
        Self { loss: loss / examples.len().max(1) as f64, scores, confusion, calibration }
    }

    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.insert("loss".into(), self.loss);
        let scores = [
            ("accuracy", self.confusion.accuracy()),
            ("macro_f1", self.confusion.macro_f1()),
            ("ece", self.calibration.ece()),
        ];
        for (name, value) in scores {
            if let Some(value) = value {
                metrics.insert(name.into(), value);
            }
        }
        metrics
    }
}

/// Class probabilities of texts, in their order; texts of like length share a batch.
/// `model` lies on a device without autodiff.
pub fn scores(
    model: &TextModel,
    texts: &[&[u32]],
    pad_id: u32,
    batch_size: usize,
) -> Vec<Vec<f32>> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let sizes: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
    let mut scores = vec![vec![]; texts.len()];
    for part in sampler::by_size(&sizes, batch_size) {
        let batch: Vec<&[u32]> = part.iter().map(|i| texts[*i]).collect();
        let (ids, pad) = pad(&batch, pad_id, &device);
        let p = softmax(model.forward(ids, Some(pad))); // [B, L]
        let [_, labels] = p.dims();
        let p = p.into_data().convert_dtype(burn::tensor::DType::F32);
        let p = p.try_into_vec::<f32>().expect("just converted to f32");
        for (i, row) in part.iter().zip(p.chunks(labels)) {
            scores[*i] = row.to_vec();
        }
    }
    scores
}

/// Judges a model on examples with known labels.
pub fn judge(
    model: &TextModel,
    examples: &[Example],
    classes: usize,
    pad_id: u32,
    batch_size: usize,
) -> Judged {
    let texts: Vec<&[u32]> = examples.iter().map(|e| e.ids.as_slice()).collect();
    Judged::new(scores(model, &texts, pad_id, batch_size), examples, classes)
}
