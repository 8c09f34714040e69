//! A video classification recipe.

use std::{collections::BTreeMap, path::PathBuf};

use firebrick_core::arch::clip_rnn::ClipRnnConfig;
use firebrick_data::image::{Colour, augment::Augment};
use firebrick_train::{
    job::{check_head, check_source},
    lora::LoraRecipe,
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe, check_pretrained},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["macro_f1", "accuracy", "loss"];

/// Short videos with a label each into convolutions and a recurrent layer, or into a VideoMAE.
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
    /// All frames of a clip are changed alike. `mixup` is for pictures.
    #[serde(default)]
    pub augment: Augment,
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
    VideoClassification,
}

/// `[data]`: a known data set, or a table of clips of your own with the columns `file` (relative to the table), `label`,
/// `recording` and `split` (`train`, `valid`, `test`). A file is a video, a folder of frames, or a picture with the
/// clip's frames from top to bottom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `fir-action`. Either this or `train`.
    pub dataset: Option<String>,
    pub train: Option<PathBuf>,
    /// Recordings among the training clips that choose the weights, where the table has no `valid`. Without any, the last
    /// weights are kept.
    pub valid_recordings: Vec<String>,
    /// Frames of a clip.
    pub frames: usize,
    /// Rows and columns that every frame is scaled to.
    pub size: [usize; 2],
    /// That of a model whose clips are read; no key.
    #[serde(skip)]
    pub shortest_edge: Option<usize>,
    /// Frames a second that are taken of videos.
    pub rate: f64,
    /// One channel in place of red, green and blue.
    pub grey: bool,
    /// How far rare labels count more: 0 not at all, 1 as much as all others.
    pub balance: f64,
    /// Most frames that a training clip begins earlier or later.
    pub shift: usize,
    /// What a clip shows when it is played backwards, by its label: `sit_down = "stand_up"`. Half of the training clips of these
    /// labels are, each time.
    pub backwards: BTreeMap<String, String>,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            valid_recordings: vec![],
            frames: 16,
            size: [60, 80],
            shortest_edge: None,
            rate: 7.8,
            grey: false,
            balance: 0.5,
            shift: 2,
            backwards: BTreeMap::new(),
        }
    }
}

impl DataRecipe {
    pub fn colour(&self) -> Colour {
        if self.grey { Colour::Grey } else { Colour::Rgb }
    }
}

/// `[model]`: convolutions over every frame and its difference from the one before, a GRU over what they find; or a checkpoint
/// to go on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Model folder or name to go on from, with a fresh classifier if its labels are others: a VideoMAE of `transformers`, also
    /// one that was only pretrained, or a model of this task. It brings its own sizes, which `data.size` and `data.frames` must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// Channels of each convolution; all halve a frame.
    pub hidden_sizes: Vec<usize>,
    /// Units of each of the GRU's two directions.
    pub hidden_size: usize,
    pub dropout: f64,
    #[serde(skip_serializing_if = "LoraRecipe::is_default")]
    pub lora: LoraRecipe,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            pretrained: None,
            hidden_sizes: vec![16, 32, 48, 64],
            hidden_size: 48,
            dropout: 0.3,
            lora: LoraRecipe::default(),
        }
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        let data = &self.data;
        check_source(data.dataset.as_ref(), data.train.as_ref())?;
        for side in data.size {
            if !(8..=512).contains(&side) {
                return fail("data.size", format!("has {side}, not within 8 and 512"));
            }
        }
        let numbers = [
            ("data.frames", data.frames as f64, 2.0, 256.0),
            ("data.rate", data.rate, 0.01, 1000.0),
            ("data.balance", data.balance, 0.0, 1.0),
            ("data.shift", data.shift as f64, 0.0, 256.0),
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
        if self.augment.mixup > 0.0 {
            return fail("augment.mixup", "is for image classification".into());
        }
        self.model.lora.check(self.model.pretrained.as_ref(), &self.train)?;
        if self.model.pretrained.is_some() {
            check_pretrained(&self.model, &ModelRecipe::default())?;
        }
        self.config().check().map_err(|problem| RecipeError::value("model", problem))?;
        self.train.check()?;
        self.train.check_layers_run_once()?;
        if self.train.r_drop > 0.0 {
            return fail("train.r_drop", "is for text classification".into());
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
    /// The network that `[model]` describes without a checkpoint.
    pub fn config(&self) -> ClipRnnConfig {
        ClipRnnConfig {
            num_channels: self.data.colour().channels(),
            num_frames: self.data.frames,
            hidden_sizes: self.model.hidden_sizes.clone(),
            hidden_size: self.model.hidden_size,
            dropout: self.model.dropout,
        }
    }
}
