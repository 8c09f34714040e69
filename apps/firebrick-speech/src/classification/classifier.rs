//! A model folder that tells what a recording is: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_core::{
    arch::{
        AnyModel,
        image::Head,
        resnet::{ResNet, ResNetConfig, ResNetForImageClassification},
    },
    checkpoint::{
        LoadError, Source, config,
        tensors::{SaveType, write_atomically},
    },
};
use firebrick_data::audio::mel::Mel;
use firebrick_metrics::confusion::argmax;
use firebrick_train::{job::Recipe as _, origin::Origin};
use rayon::prelude::*;

use super::{
    recipe::Recipe,
    task::{Judged, frames, scores},
};
use crate::{features::Preprocessor, recordings::Recording};

/// A model that listens.
pub struct SoundClassifier {
    pub config: ResNetConfig,
    pub model: ResNet,
    pub preprocessor: Preprocessor,
    pub mel: Mel,
    pub labels: Vec<String>,
}

/// One recording's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the label with the highest score.
    pub label: usize,
    /// Probabilities by label.
    pub scores: Vec<f32>,
}

impl SoundClassifier {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        Origin::read_for(Recipe::TASK, source)?;
        let ResNetForImageClassification { config, model } =
            ResNetForImageClassification::load(source, Head::Own, device)?;
        let preprocessor = Preprocessor::open(source)?;
        let bad = |problem: &str| LoadError::Config {
            path: source.path("preprocessor_config.json"),
            problem: problem.into(),
        };
        if config.num_channels != 1 {
            return Err(bad("is of a model that sees pictures in colour").into());
        }
        if preprocessor.seconds.is_none() {
            return Err(
                bad("has no `seconds`, and the model reads recordings of one length").into()
            );
        }
        let json = source.config()?;
        let label = |i: usize| json["id2label"][i.to_string()].as_str().map(str::to_string);
        let labels: Vec<String> = (0..).map_while(label).collect();
        if labels.len() != config::labels(&json).unwrap_or(0) {
            let (path, problem) = (source.path("config.json"), "id2label is not 0, 1, ..".into());
            return Err(LoadError::Config { path, problem }.into());
        }
        Ok(Self { mel: Mel::new(&preprocessor.mel), config, model, preprocessor, labels })
    }

    /// Of recordings, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.preprocessor.mel.sample_rate
    }

    /// Answers in the order of the recordings.
    pub fn predict(&self, recordings: &[&[f32]], batch_size: usize) -> Vec<Prediction> {
        let frames =
            recordings.par_iter().map(|samples| frames(samples, &self.preprocessor, &self.mel));
        self.of_frames(&frames.collect::<Vec<_>>(), batch_size)
    }

    /// [`Self::predict`] of normalised frames, `[T, M]` each.
    pub fn of_frames(&self, frames: &[Vec<f32>], batch_size: usize) -> Vec<Prediction> {
        let scores = scores(&self.model, frames, self.preprocessor.mel.width(), batch_size);
        let answer = |scores: Vec<f32>| Prediction { label: argmax(&scores), scores };
        scores.into_iter().map(answer).collect()
    }

    /// Judges on recordings; those whose label the model does not know are counted in the second place.
    pub fn judge(&self, recordings: &[Recording], batch_size: usize) -> (Judged, usize) {
        let place = |r: &Recording| self.labels.iter().position(|label| *label == r.label);
        let known: Vec<(&Recording, usize)> =
            recordings.iter().filter_map(|r| Some((r, place(r)?))).collect();
        let samples: Vec<&[f32]> = known.iter().map(|(r, _)| r.samples.as_slice()).collect();
        let truth: Vec<usize> = known.iter().map(|(_, label)| *label).collect();
        let scores = self.predict(&samples, batch_size).into_iter().map(|p| p.scores).collect();
        (Judged::new(scores, &truth, self.labels.len()), recordings.len() - known.len())
    }

    /// Writes config, weights, preprocessor, card and origin.
    pub fn save(&self, dir: &Path, origin: &Origin, dtype: SaveType) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let model =
            ResNetForImageClassification { config: self.config.clone(), model: self.model.clone() };
        model.save(&dir.join("model.safetensors"), dtype)?;
        let path = dir.join("config.json");
        let mut json = serde_json::json!(self.config);
        json["model_type"] = "resnet".into();
        json["architectures"] = serde_json::json!(["ResNetForImageClassification"]);
        let names = self.labels.iter().enumerate().map(|(i, l)| (i.to_string(), l.clone().into()));
        json["id2label"] = serde_json::Value::Object(names.collect());
        let text = serde_json::to_string_pretty(&json)?;
        write_atomically(&path, text.as_bytes())
            .with_context(|| format!("writing {}", path.display()))?;
        self.preprocessor.save(dir)?;
        let about = format!("A ResNet over log-mel spectrograms for {}.", self.labels.join(", "));
        origin.save(dir, "audio-classification", &about)
    }
}
