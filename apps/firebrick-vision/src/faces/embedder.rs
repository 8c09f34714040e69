//! A model folder that makes a vector of a face: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::Context;
use burn::{prelude::*, tensor::DType};
use firebrick_core::{
    arch::image::{Head, ImageClassifier, ImageModel},
    checkpoint::{LoadError, Source, tensors::SaveType},
};
use firebrick_data::{hash::sha256_bytes, image::Picture};
use firebrick_train::{
    job,
    origin::{Origin, Threshold},
};
use rayon::prelude::*;

use super::{recipe::Recipe, task::normalised};
use crate::{classification::processor::Processor, settings};

/// A ResNet whose last layer writes the vector.
pub struct FaceEmbedder {
    pub network: ImageClassifier,
    pub processor: Processor,
    /// Of the cosine of two vectors of one person.
    pub threshold: Option<Threshold>,
}

impl FaceEmbedder {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let origin = Origin::read_for(<Recipe as job::Recipe>::TASK, source)?;
        let network = ImageClassifier::load(source, Head::Own, device)?;
        let processor = Processor::open(source, network.config.num_channels())?;
        network.config.check_size(processor.size).map_err(|problem| LoadError::Config {
            path: source.path("preprocessor_config.json"),
            problem,
        })?;
        let threshold = origin.and_then(|origin| origin.threshold);
        Ok(Self { network, processor, threshold })
    }

    /// Vectors of length 1 in the order of the pictures, which may have any size and colours.
    pub fn embed(&self, pictures: &[Picture], batch_size: usize) -> Vec<Vec<f32>> {
        let sized: Vec<Picture> = pictures.par_iter().map(|p| self.processor.size(p)).collect();
        embed(&self.network.model, &self.processor, &sized, batch_size)
    }

    /// Writes a folder that `transformers` opens, as a classifier whose logits are the vector before it is scaled to
    /// length 1: config, weights, preprocessor, card, origin.
    pub fn save(&self, dir: &Path, origin: &Origin, about: &str) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        self.network.save(&dir.join("model.safetensors"), SaveType::F32)?;
        let mut config = self.network.config.to_json(&[]);
        if let Some(keys) = config.as_object_mut() {
            keys.retain(|key, _| !["id2label", "label2id"].contains(&key.as_str()));
        }
        let blank = Picture::filled(1, 1, self.processor.colour, 0);
        let dimensions = self.embed(&[blank], 1)[0].len();
        config["num_labels"] = dimensions.into();
        settings::save(dir, &config, &self.processor.to_json())?;
        origin.save(dir, "image-feature-extraction", about)
    }
}

/// Vectors of pictures of the model's size: the sum of a picture's and its mirror image's, of length 1. `model` lies on a
/// device without autodiff.
pub fn embed(
    model: &ImageModel,
    processor: &Processor,
    pictures: &[Picture],
    batch_size: usize,
) -> Vec<Vec<f32>> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let mut all = Vec::with_capacity(pictures.len());
    for part in pictures.chunks(batch_size.max(1)) {
        let images = processor.batch(part, &device); // [B, I, H, W]
        let mirrored = images.clone().flip([3]);
        let both = normalised(model.forward(images)) + normalised(model.forward(mirrored));
        let vectors = normalised(both); // [B, E]
        let [_, dimensions] = vectors.dims();
        let numbers = vectors.into_data().convert_dtype(DType::F32);
        let numbers = numbers.try_into_vec::<f32>().expect("just converted to f32");
        all.extend(numbers.chunks_exact(dimensions).map(<[f32]>::to_vec));
    }
    all
}

/// Longest file of weights whose hash names a model.
const WEIGHTS_LIMIT: u64 = 4 << 30;

/// SHA-256 of a model's weights: vectors of different models say nothing of each other.
pub fn fingerprint(source: &Source) -> Result<String, LoadError> {
    Ok(sha256_bytes(&source.read("model.safetensors", WEIGHTS_LIMIT)?))
}
