//! Which channels a ResNet can do without, by the recordings that it was trained on.

use burn::{module::Module, tensor::Device};
use firebrick_compress::prune::importance;
use firebrick_core::checkpoint::Source;
use firebrick_train::job::Places;

use super::{
    classifier::SoundClassifier,
    corpus,
    recipe::Recipe,
    task::{Classify, SoundExamples},
};
use crate::recordings::Recording;

/// Recordings that the channels are judged by; more do not change which are kept by much.
const RECORDINGS: usize = 1024;
const BATCH: usize = 32;

/// How much the loss on training recordings of `recipe`, changed as in training, would feel each channel's loss, as
/// [`ResNet::channel_effects`](firebrick_core::arch::resnet::ResNet::channel_effects) orders them.
pub fn channel_effects(
    source: &Source,
    recipe: &Recipe,
    places: &Places,
    device: &Device,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let device = device.clone().autodiff();
    let classifier = SoundClassifier::open(source, &device)?;
    let corpus = corpus::load(&recipe.data, classifier.sample_rate(), recipe.seed, places)?;
    let known = |recording: &Recording| classifier.labels.contains(&recording.label);
    let recordings: Vec<Recording> = corpus.train.into_iter().filter(known).collect();
    let task = Classify { model: classifier.model.materialize(), label_smoothing: 0.0 };
    let examples = SoundExamples {
        recordings: &recordings,
        labels: &classifier.labels,
        augment: &recipe.augment,
        preprocessor: &classifier.preprocessor,
        mel: classifier.mel,
    };
    Ok(importance(&task, &examples, [RECORDINGS, BATCH], &device, |gradients| {
        task.model.channel_effects(gradients)
    }))
}
