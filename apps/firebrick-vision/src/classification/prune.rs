//! Which channels a ResNet can do without, by the pictures that it was trained on.

use burn::{module::Module, tensor::Device};
use firebrick_compress::prune::importance;
use firebrick_core::{arch::image::ImageModel, checkpoint::Source};
use firebrick_train::job::Places;

use super::{
    classifier::PictureClassifier,
    corpus,
    recipe::Recipe,
    task::{Classify, PictureExamples},
};

/// Pictures that the channels are judged by; more do not change which are kept by much.
const PICTURES: usize = 1024;
const BATCH: usize = 32;

/// How much the loss on training pictures of `recipe` would feel each channel's loss, as
/// [`ResNet::channel_effects`](firebrick_core::arch::resnet::ResNet::channel_effects) orders them; empty of other families.
pub fn channel_effects(
    source: &Source,
    recipe: &Recipe,
    places: &Places,
    device: &Device,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let device = device.clone().autodiff();
    let opened = PictureClassifier::open(source, &device)?;
    let data = opened.reading(recipe.data.clone());
    let task = Classify { model: opened.classifier.model.materialize() };
    let ImageModel::ResNet(model) = &task.model else { return Ok(vec![]) };
    let corpus = corpus::load(&data, recipe.seed, places)?;
    let examples = PictureExamples::new(&corpus.train, &opened.labels, &opened.processor);
    Ok(importance(&task, &examples, [PICTURES, BATCH], &device, |gradients| {
        model.channel_effects(gradients)
    }))
}
