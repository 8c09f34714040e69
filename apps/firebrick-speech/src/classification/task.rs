//! Classification of recordings as a training task.

use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::resnet::ResNet,
    layers::loss::{cross_entropy, softmax},
};
use firebrick_data::audio::{augment::place, mel::Mel};
use firebrick_metrics::{
    calibration::Calibration,
    confusion::{Confusion, argmax},
};
use firebrick_train::{
    fit::Metrics,
    sampler,
    task::{Examples, Task},
};
use rayon::prelude::*;

use crate::{
    augment::{AugmentRecipe, loudest},
    features::Preprocessor,
    recordings::Recording,
};

/// A classifier and what its loss needs to know.
#[derive(Module, Debug)]
pub struct Classify {
    pub model: ResNet,
    #[module(skip)]
    pub label_smoothing: f64,
}

/// Recordings of one length.
#[derive(Debug, Clone)]
pub struct SoundBatch {
    /// `[B, 1, M, T]`: frequency upwards, time to the right
    pub frames: Tensor<4>,
    /// `[B]`
    pub labels: Tensor<1, Int>,
}

impl Task for Classify {
    type Batch = SoundBatch;
    const HEAD: &'static [&'static str] = &["model.classifier."];

    fn loss(&self, batch: SoundBatch) -> Tensor<1> {
        let logits = self.model.forward(batch.frames);
        cross_entropy(logits, batch.labels, None, self.label_smoothing)
    }
}

/// The training recordings as the loop wants them: changed anew in every step.
pub struct SoundExamples<'a> {
    pub recordings: &'a [Recording],
    pub labels: &'a [String],
    pub augment: &'a AugmentRecipe,
    pub preprocessor: &'a Preprocessor,
    pub mel: Mel,
}

impl Examples for SoundExamples<'_> {
    type Batch = SoundBatch;

    fn len(&self) -> usize {
        self.recordings.len()
    }

    /// Frames.
    fn size(&self, _: usize) -> usize {
        self.preprocessor.frames().unwrap_or(1)
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> SoundBatch {
        let frames = indices.par_iter().enumerate().map(|(row, index)| {
            let samples = &self.recordings[*index].samples;
            let seed = sampler::mix(seed, row as u64);
            self.augment.frames(samples, self.preprocessor, &self.mel, seed)
        });
        let frames = frames.collect::<Vec<_>>();
        let label = |index: &usize| {
            let known = self.labels.iter().position(|name| *name == self.recordings[*index].label);
            known.expect("labels are those of the training recordings") as i32
        };
        let labels: Vec<i32> = indices.iter().map(label).collect();
        let count = labels.len();
        SoundBatch {
            frames: stack(&frames, self.preprocessor.mel.width(), device),
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
        }
    }
}

/// Frames of one length, `[T, M]` each -> `[B, 1, M, T]`
fn stack(frames: &[Vec<f32>], bands: usize, device: &Device) -> Tensor<4> {
    let t = frames.first().map_or(0, Vec::len) / bands;
    let frames = TensorData::new(frames.concat(), [frames.len(), 1, t, bands]);
    Tensor::<4>::from_data(frames, device).swap_dims(2, 3)
}

/// What a model sees of a recording, unchanged: `[T, M]`.
pub fn frames(samples: &[f32], preprocessor: &Preprocessor, mel: &Mel) -> Vec<f32> {
    let Some(frames) = preprocessor.frames() else { return preprocessor.read(mel, samples) };
    let length = (frames - 1) * preprocessor.mel.hop_length;
    let seen = match samples.len() > length {
        true => loudest(samples, length, 0.0),
        false => place(samples, length, 0.5),
    };
    preprocessor.read(mel, &seen)
}

/// Class probabilities of recordings as frames, in their order. `model` lies on a device without autodiff.
pub fn scores(
    model: &ResNet,
    frames: &[Vec<f32>],
    bands: usize,
    batch_size: usize,
) -> Vec<Vec<f32>> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let mut scores = vec![];
    for part in frames.chunks(batch_size.max(1)) {
        let p = softmax(model.forward(stack(part, bands, &device))); // [B, L]
        let [_, labels] = p.dims();
        let p = p.into_data().convert_dtype(burn::tensor::DType::F32);
        let p = p.try_into_vec::<f32>().expect("just converted to f32");
        scores.extend(p.chunks(labels).map(<[f32]>::to_vec));
    }
    scores
}

/// What a model said of each recording, in order.
pub struct Judged {
    /// Probabilities by class.
    pub scores: Vec<Vec<f32>>,
    pub confusion: Confusion,
    pub calibration: Calibration,
    /// Mean cross-entropy.
    pub loss: f64,
}

impl Judged {
    /// `truth`: class of each recording.
    pub fn new(scores: Vec<Vec<f32>>, truth: &[usize], classes: usize) -> Self {
        let mut confusion = Confusion::new(classes);
        let mut calibration = Calibration::default();
        let mut loss = 0.0;
        for (p, label) in scores.iter().zip(truth) {
            let best = argmax(p);
            confusion.add(*label, best);
            calibration.add(f64::from(p[best]), best == *label);
            loss -= f64::from(p[*label].max(1e-30)).ln();
        }
        Self { loss: loss / truth.len().max(1) as f64, scores, confusion, calibration }
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
            metrics.extend(value.map(|value| (name.to_string(), value)));
        }
        metrics
    }
}
