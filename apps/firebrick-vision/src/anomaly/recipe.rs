//! A recipe for anomaly detection in videos.

use std::path::PathBuf;

use firebrick_core::arch::motion::MotionConfig;
use firebrick_train::{
    job::{check_head, check_source},
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scores that can choose the weights: the area under the curve of frames of the validation clips, as they are and with
/// an anomaly made in them.
pub const METRICS: &[&str] = &["synthetic_auc"];

/// Recordings of what is normal into a network that tells where on a frame something moves unusually.
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
    pub anomaly: AnomalyRecipe,
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
    AnomalyDetection,
}

/// `[data]`: a known data set, or a folder with a video, or a folder of frames, for each recording of what is normal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `ucsd-ped2`. Either this or `train`.
    pub dataset: Option<String>,
    pub train: Option<PathBuf>,
    /// A table of frames that are reported once, at the end: columns `file`, relative to the table, and `anomalous`, 0
    /// or 1. Frames of one clip lie in one folder.
    pub test: Option<PathBuf>,
    /// Recordings, the last by name, that choose the weights and the threshold.
    pub valid_clips: usize,
    /// Rows and columns that every frame is scaled to; frames are grey.
    pub size: [usize; 2],
    /// Frames a second that are taken of videos. Folders of frames are taken as they are.
    pub rate: f64,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self { dataset: None, train: None, test: None, valid_clips: 3, size: [107, 160], rate: 5.0 }
    }
}

/// `[anomaly]`: what is made in frames of normal recordings, so that there is something unusual to learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnomalyRecipe {
    /// Slowest and fastest of what moves too fast, as a factor.
    pub speed: [usize; 2],
    /// Smallest and largest of what is too large, as a factor.
    pub zoom: [f64; 2],
    /// Sides of the part of a frame that is changed, smallest and largest, in pixels.
    pub side: [usize; 2],
    /// Mean difference of neighbouring frames, in levels out of 255, from which on a place moves.
    pub moves: f64,
}

impl Default for AnomalyRecipe {
    fn default() -> Self {
        Self { speed: [2, 4], zoom: [1.4, 2.2], side: [20, 64], moves: 6.0 }
    }
}

/// `[model]`: convolutions over neighbouring frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Frames that are looked at together; odd.
    pub num_frames: usize,
    /// Channels of the two convolutions that halve a frame, and of those after them.
    pub hidden_sizes: [usize; 2],
    /// Convolutions after them.
    pub num_hidden_layers: usize,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self { num_frames: 5, hidden_sizes: [16, 32], num_hidden_layers: 2 }
    }
}

/// `[threshold]`: from which score on a frame is anomalous.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdRecipe {
    /// Share of the validation's frames, which are normal, that may reach it.
    pub false_alarms: f64,
}

impl Default for ThresholdRecipe {
    fn default() -> Self {
        Self { false_alarms: 0.05 }
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        let (data, anomaly) = (&self.data, &self.anomaly);
        check_source(data.dataset.as_ref(), data.train.as_ref())?;
        if data.dataset.is_some() && data.test.is_some() {
            return fail("data.dataset", "stands beside files of your own".into());
        }
        for side in data.size {
            if !(16..=1024).contains(&side) {
                return fail("data.size", format!("has {side}, not within 16 and 1024"));
            }
        }
        let least = *data.size.iter().min().expect("it has two");
        let ranges = [
            ("anomaly.speed", anomaly.speed.map(|n| n as f64), 2.0, 16.0),
            ("anomaly.zoom", anomaly.zoom, 1.0, 8.0),
            ("anomaly.side", anomaly.side.map(|n| n as f64), 4.0, least as f64),
        ];
        for (key, [from, to], low, high) in ranges {
            if !(from <= to && from >= low && to <= high) {
                return fail(key, format!("is [{from}, {to}], no range within {low} and {high}"));
            }
        }
        let numbers = [
            ("data.rate", data.rate, 0.01, 1000.0),
            ("data.valid_clips", data.valid_clips as f64, 1.0, 1e6),
            ("anomaly.moves", anomaly.moves, 0.0, 255.0),
            ("threshold.false_alarms", self.threshold.false_alarms, 0.0, 0.5),
        ];
        for (key, number, low, high) in numbers {
            if !(low..=high).contains(&number) {
                return fail(key, format!("is {number}, not within {low} and {high}"));
            }
        }
        self.config().check().map_err(|problem| RecipeError::value("model", problem))?;
        self.train.check()?;
        self.train.check_layers_run_once()?;
        for (key, value) in
            [("r_drop", self.train.r_drop), ("label_smoothing", self.train.label_smoothing)]
        {
            if value > 0.0 {
                return fail(&format!("train.{key}"), "is for classification".into());
            }
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
    pub fn config(&self) -> MotionConfig {
        let ModelRecipe { num_frames, hidden_sizes, num_hidden_layers } = self.model;
        MotionConfig { num_frames, hidden_sizes, num_hidden_layers }
    }
}
