//! A recipe that classifies recordings.

use std::path::PathBuf;

use firebrick_core::{
    arch::resnet::{LayerType, ResNetConfig},
    layers::activation::Activation,
};
use firebrick_train::{
    job::{check_head, check_parts, check_source, check_valid_fraction},
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe, check_pretrained},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    augment::AugmentRecipe,
    features::{FeaturesRecipe, Preprocessor},
};

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["accuracy", "macro_f1", "loss"];

/// Recordings of words (or of other sounds) into a ResNet over their spectrograms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of this format: 1.
    pub version: u32,
    pub task: TaskKind,
    /// Names the run folder: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Everything random is a function of it.
    #[serde(default)]
    pub seed: u64,
    pub data: DataRecipe,
    #[serde(default)]
    pub features: FeaturesRecipe,
    #[serde(default)]
    pub augment: AugmentRecipe,
    #[serde(default)]
    pub model: ModelRecipe,
    #[serde(default)]
    pub train: TrainRecipe,
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    #[serde(default)]
    pub eval: EvalRecipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    AudioClassification,
}

/// `[data]`: a known data set, or folders of your own with a folder for each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `fsdd` or `speech-commands`. Either this or `train`.
    pub dataset: Option<String>,
    /// Folder of folders named by their class, with recordings in them.
    pub train: Option<PathBuf>,
    /// The same, of recordings that choose the weights; else a part of the training ones is set aside.
    pub valid: Option<PathBuf>,
    /// The same, of recordings that are reported once, at the end.
    pub test: Option<PathBuf>,
    /// Part of the training recordings to choose the weights on, when there is no other validation part.
    pub valid_fraction: f64,
    /// Whether that part has speakers of its own, where the data set knows them.
    pub valid_by_speaker: bool,
    /// Speaker whose recordings choose the weights, in place of such a part.
    pub valid_speaker: Option<String>,
    /// Speaker whose recordings are the test part, and no others.
    pub held_speaker: Option<String>,
    /// Other speech, `an4`, `fsdd` or `yesno` or folders: half of its speakers is learned as `unknown`, in parts as long as
    /// what the model sees, no more of them than there are other recordings. `speech false-alarms` counts on other speakers.
    pub background: Vec<String>,
    /// How much of a recording the model sees, in seconds: the middle of silence around a shorter one, the loudest part of
    /// a longer one.
    pub seconds: f64,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            valid: None,
            test: None,
            valid_fraction: 0.1,
            valid_by_speaker: false,
            valid_speaker: None,
            held_speaker: None,
            background: vec![],
            seconds: 1.0,
        }
    }
}

/// `[model]`: sizes of a ResNet (He et al. 2015) over the spectrogram as an image, in the names of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Shipped model, model folder or name to go on from, with a fresh classifier if its labels are others; it brings its own
    /// sizes, and `[features]` must be those that it learned with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// Channels of the first convolution.
    pub embedding_size: usize,
    /// Channels of each stage.
    pub hidden_sizes: Vec<usize>,
    /// Layers of each stage, of two convolutions each.
    pub depths: Vec<usize>,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            pretrained: None,
            embedding_size: 24,
            hidden_sizes: vec![24, 48, 64],
            depths: vec![1, 1, 1],
        }
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        let data = &self.data;
        check_head(self.version, &self.name)?;
        check_source(data.dataset.as_ref(), data.train.as_ref())?;
        check_parts(data.dataset.as_ref(), &[("valid", &data.valid), ("test", &data.test)])?;
        check_valid_fraction(data.valid_fraction)?;
        if !(0.1..=60.0).contains(&data.seconds) {
            return fail("data.seconds", format!("is {}, not within 0.1 and 60", data.seconds));
        }
        for (key, speaker) in
            [("data.valid_speaker", &data.valid_speaker), ("data.held_speaker", &data.held_speaker)]
        {
            if speaker.is_some() && data.dataset.is_none() {
                return fail(key, "is for a data set that knows its speakers".into());
            }
        }
        if data.valid_speaker.is_some() && data.valid_speaker == data.held_speaker {
            return fail("data.valid_speaker", "is `data.held_speaker`, too".into());
        }
        self.features.check()?;
        self.augment.check()?;
        if self.model.pretrained.is_some() {
            check_pretrained(&self.model, &ModelRecipe::default())?;
        }
        self.network().check().map_err(|problem| {
            let (key, rest) = problem.split_once(' ').unwrap_or((&problem, ""));
            RecipeError::value(&format!("model.{key}"), rest)
        })?;
        self.train.check()?;
        self.train.check_layers_run_once()?;
        self.checkpoint.check()?;
        self.eval.check()?;
        self.eval.metric(METRICS).map(|_| ())
    }

    fn resolve(&mut self) {
        self.train.resolve();
    }
}

impl Recipe {
    /// The model that `[model]` describes.
    pub fn network(&self) -> ResNetConfig {
        ResNetConfig {
            num_channels: 1,
            embedding_size: self.model.embedding_size,
            hidden_sizes: self.model.hidden_sizes.clone(),
            depths: self.model.depths.clone(),
            layer_type: LayerType::Basic,
            hidden_act: Activation::Relu,
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
        }
    }

    pub fn preprocessor(&self) -> Preprocessor {
        Preprocessor {
            mel: self.features.mel(),
            normalize: self.features.normalize,
            seconds: Some(self.data.seconds),
        }
    }
}
