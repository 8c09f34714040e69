//! Speech recognition as a training task.

use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::deep_speech::{DeepSpeech, steps},
    layers::{ctc::ctc_loss, loss::log_softmax},
};
use firebrick_data::audio::mel::Mel;
use firebrick_train::{
    sampler::{self, Coins},
    task::{Examples, Task},
};
use rayon::prelude::*;

use super::lexicon::Lexicon;
use crate::{augment::AugmentRecipe, features::Preprocessor, recordings::Recording};

/// A model that is trained by CTC.
#[derive(Module, Debug)]
pub struct Recognize {
    pub model: DeepSpeech,
}

/// Recordings padded to the longest.
#[derive(Debug, Clone)]
pub struct SpeechBatch {
    /// `[B, T, M]`; 0 under padding
    pub frames: Tensor<3>,
    /// Frames of each.
    pub lengths: Vec<usize>,
    /// Labels of each.
    pub targets: Vec<Vec<u32>>,
}

impl Task for Recognize {
    type Batch = SpeechBatch;

    fn loss(&self, batch: SpeechBatch) -> Tensor<1> {
        let (logits, steps) = self.model.forward(batch.frames, &batch.lengths);
        ctc_loss(logits, &steps, &batch.targets)
    }
}

/// The training recordings as the loop wants them: changed anew in every step.
pub struct SpeechExamples<'a> {
    pub recordings: &'a [Recording],
    pub lexicon: &'a Lexicon,
    pub augment: &'a AugmentRecipe,
    pub preprocessor: &'a Preprocessor,
    pub mel: Mel,
}

impl Examples for SpeechExamples<'_> {
    type Batch = SpeechBatch;

    fn len(&self) -> usize {
        self.recordings.len()
    }

    /// Frames.
    fn size(&self, index: usize) -> usize {
        self.preprocessor.mel.frames(self.recordings[index].samples.len())
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> SpeechBatch {
        let row = |(row, index): (usize, &usize)| {
            let recording = &self.recordings[*index];
            let seed = sampler::mix(seed, row as u64);
            let frames =
                self.augment.frames(&recording.samples, self.preprocessor, &self.mel, seed);
            let mut coins = Coins::new(sampler::mix(seed, 1));
            // Which way a word was said nobody wrote down.
            let target = self.lexicon.say(&recording.label, |ways| coins.below(ways));
            (frames, target.expect("the lexicon has all words of the training recordings"))
        };
        let rows: Vec<_> = indices.par_iter().enumerate().map(row).collect();
        let (frames, targets): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let (frames, lengths) = pad(&frames, self.preprocessor.mel.width(), device);
        SpeechBatch { frames, lengths, targets }
    }
}

/// Frames, `[T, M]` each, to `[B, T, M]` and their lengths.
fn pad(frames: &[Vec<f32>], bands: usize, device: &Device) -> (Tensor<3>, Vec<usize>) {
    let lengths: Vec<usize> = frames.iter().map(|frames| frames.len() / bands).collect();
    let t = lengths.iter().copied().max().unwrap_or(0);
    let mut numbers = vec![0.0; frames.len() * t * bands];
    for (row, frames) in numbers.chunks_mut((t * bands).max(1)).zip(frames) {
        row[..frames.len()].copy_from_slice(frames);
    }
    let numbers = TensorData::new(numbers, [frames.len(), t, bands]);
    (Tensor::from_data(numbers, device), lengths)
}

/// Logarithms of the labels' probabilities, `[S, V]` each, in the order of the recordings. `model` lies on a device
/// without autodiff.
pub fn log_probabilities(
    model: &DeepSpeech,
    frames: &[Vec<f32>],
    bands: usize,
    batch_size: usize,
) -> Vec<Vec<f32>> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let sizes: Vec<usize> = frames.iter().map(Vec::len).collect();
    let mut all = vec![vec![]; frames.len()];
    for part in sampler::by_size(&sizes, batch_size.max(1)) {
        let rows: Vec<Vec<f32>> = part.iter().map(|i| frames[*i].clone()).collect();
        let (batch, lengths) = pad(&rows, bands, &device);
        let (logits, _) = model.forward(batch, &lengths);
        let [_, s, v] = logits.dims();
        let log_p = log_softmax(logits).into_data().convert_dtype(burn::tensor::DType::F32);
        let log_p = log_p.try_into_vec::<f32>().expect("just converted to f32");
        for ((i, row), length) in part.iter().zip(log_p.chunks(s * v)).zip(&lengths) {
            all[*i] = row[..steps(*length) * v].to_vec();
        }
    }
    all
}
