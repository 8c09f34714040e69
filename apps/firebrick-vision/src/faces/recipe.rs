//! A recipe for face embeddings.

use std::path::PathBuf;

use firebrick_core::arch::{
    image::ImageConfig,
    resnet::{LayerType, ResNetConfig},
};
use firebrick_data::image::{augment::Augment, resize::Filter};
use firebrick_train::{
    job::{check_head, check_source},
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::classification::recipe::DataRecipe as Pictures;

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["eer", "auc"];

/// Pictures of people into vectors, of which those of one person lie together.
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
    pub augment: Augment,
    #[serde(default)]
    pub model: ModelRecipe,
    #[serde(default)]
    pub threshold: ThresholdRecipe,
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
    FaceEmbedding,
}

/// `[data]`: a known data set, or a folder with a folder for each person. Pictures show a face and little else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `orl-faces`. Either this or `train`.
    pub dataset: Option<String>,
    pub train: Option<PathBuf>,
    pub split: Split,
    /// People that choose the weights and the threshold, of the split `people`.
    pub valid_people: usize,
    /// People that are reported once, at the end, of the split `people`.
    pub test_people: usize,
    /// Pictures of every person that are reported once, at the end, of the split `pictures`.
    pub test_pictures: usize,
    /// Rows and columns that every picture is scaled to.
    pub size: [usize; 2],
    /// How pictures are scaled.
    pub filter: Filter,
    /// One channel in place of red, green and blue.
    pub grey: bool,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            split: Split::People,
            valid_people: 6,
            test_people: 10,
            test_pictures: 3,
            size: [56, 46],
            filter: Filter::Bilinear,
            grey: true,
        }
    }
}

/// What is kept from the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Whole people, the last ones by name: does the model tell people apart whom it has never seen?
    #[default]
    People,
    /// Some pictures of everybody, drawn by the seed: does it know people again whom it has learned? No picture is left to
    /// choose the weights, so the last ones are kept.
    Pictures,
}

impl DataRecipe {
    /// How pictures are read.
    pub fn pictures(&self) -> Pictures {
        Pictures { size: self.size, filter: self.filter, grey: self.grey, ..Pictures::default() }
    }
}

/// `[model]`: a ResNet whose last layer writes the vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Channels of the stem.
    pub embedding_size: usize,
    /// Channels of each stage.
    pub hidden_sizes: Vec<usize>,
    /// Layers of each stage.
    pub depths: Vec<usize>,
    /// Numbers of a vector.
    pub dimensions: usize,
    /// What the cosine to a picture's own person is lowered by in training (CosFace's `m`).
    pub margin: f64,
    /// What cosines are multiplied by before the softmax (CosFace's `s`).
    pub scale: f64,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            embedding_size: 32,
            hidden_sizes: vec![32, 64, 128],
            depths: vec![1, 1, 1],
            dimensions: 64,
            margin: 0.3,
            scale: 16.0,
        }
    }
}

/// `[threshold]`: from which cosine on two pictures are of one person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdRecipe {
    /// Share of the validation's pairs of different people that may be taken for one.
    pub false_accept: f64,
}

impl Default for ThresholdRecipe {
    fn default() -> Self {
        Self { false_accept: 0.01 }
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        let data = &self.data;
        check_source(data.dataset.as_ref(), data.train.as_ref())?;
        for side in data.size {
            if !(8..=1024).contains(&side) {
                return fail("data.size", format!("has {side}, not within 8 and 1024"));
            }
        }
        let counts = [
            ("data.valid_people", data.valid_people, 2, 1_000_000),
            ("data.test_people", data.test_people, 0, 1_000_000),
            ("data.test_pictures", data.test_pictures, 0, 1_000),
            ("model.dimensions", self.model.dimensions, 2, 4096),
        ];
        for (key, count, low, high) in counts {
            if !(low..=high).contains(&count) {
                return fail(key, format!("is {count}, not within {low} and {high}"));
            }
        }
        let numbers = [
            ("model.margin", self.model.margin, 0.0, 1.0),
            ("model.scale", self.model.scale, 1.0, 256.0),
            ("threshold.false_accept", self.threshold.false_accept, 0.0, 0.5),
        ];
        for (key, number, low, high) in numbers {
            if !(low..=high).contains(&number) {
                return fail(key, format!("is {number}, not within {low} and {high}"));
            }
        }
        if let Err((key, value, [low, high])) = self.augment.check() {
            let problem = format!("is {value}, not within {low} and {high}");
            return fail(&format!("augment.{key}"), problem);
        }
        self.config().check().map_err(|problem| RecipeError::value("model", problem))?;
        self.train.check()?;
        self.train.check_layers_run_once()?;
        if self.train.r_drop > 0.0 {
            return fail("train.r_drop", "is for text classification".into());
        }
        if self.train.label_smoothing > 0.0 {
            return fail("train.label_smoothing", "goes not with a margin".into());
        }
        self.checkpoint.check()?;
        self.eval.check()?;
        self.eval.metric(METRICS).map(|_| ())
    }

    fn resolve(&mut self) {
        self.train.resolve();
    }
}

impl Recipe {
    /// The network that `[model]` describes.
    pub fn config(&self) -> ImageConfig {
        let model = &self.model;
        ImageConfig::ResNet(ResNetConfig {
            num_channels: self.data.pictures().colour().channels(),
            embedding_size: model.embedding_size,
            hidden_sizes: model.hidden_sizes.clone(),
            depths: model.depths.clone(),
            layer_type: LayerType::Basic,
            ..ResNetConfig::resnet50()
        })
    }
}
