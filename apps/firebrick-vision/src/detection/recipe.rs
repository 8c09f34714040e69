//! An object detection recipe.

use std::path::PathBuf;

use firebrick_core::arch::{detector::DetectorConfig, resnet::ResNetConfig};
use firebrick_data::image::{augment::Augment, resize::Filter};
use firebrick_train::{
    job::{check_head, check_source},
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scores that can choose the weights: mean average precision with boxes that overlap by half, and over ten overlaps from
/// 0.5 to 0.95, as COCO has it.
pub const METRICS: &[&str] = &["map50", "map"];

/// Pictures with boxes into a detector.
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
    /// Boxes follow. `mixup` is not for boxes.
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
    ObjectDetection,
}

/// `[data]`: a known data set, or boxes of your own: a folder of PASCAL VOC (XML in `Annotations/`, parts by
/// `ImageSets/Main/` where it is there), a COCO `.json` file, or a folder of YOLO (`data.yaml` and text files). Pictures lie
/// beside them, or in `JPEGImages/` or `images/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `bccd` or `coco128-street`. Either this or `train`.
    pub dataset: Option<String>,
    pub train: Option<PathBuf>,
    /// Boxes that choose the weights; left out, some of the training pictures do.
    pub valid: Option<PathBuf>,
    /// Boxes that are reported once, at the end.
    pub test: Option<PathBuf>,
    /// `inria-person`: its training windows, side by side, are further pictures of persons to learn from.
    pub windows: Option<String>,
    /// Labels that are looked for; all when left out. Boxes of others are no objects.
    pub labels: Option<Vec<String>>,
    /// Share of the training pictures that choose the weights, where the data does not say which.
    pub valid_fraction: f64,
    /// Share that is kept back for the end, where the data has no test part. 0 keeps none.
    pub test_fraction: f64,
    /// Rows and columns of the frame that every picture is fitted into; the largest stride divides them.
    pub size: [usize; 2],
    /// How pictures are scaled.
    pub filter: Filter,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            valid: None,
            test: None,
            windows: None,
            labels: None,
            valid_fraction: 0.15,
            test_fraction: 0.0,
            size: [256, 320],
            filter: Filter::Bilinear,
        }
    }
}

/// `[model]`: sizes of the detector, in the words of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Channels of the stem, which halves the picture.
    pub embedding_size: usize,
    /// Channels of each stage; each halves the picture once more.
    pub hidden_sizes: Vec<usize>,
    /// Layers of each stage, of two convolutions each.
    pub depths: Vec<usize>,
    /// First stage that objects are looked for on, from 0, whose stride is 4.
    pub first_level: usize,
    /// Channels of the pyramid and of the head.
    pub pyramid_size: usize,
    /// Convolutions of the head before those that answer.
    pub head_depth: usize,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        let DetectorConfig { backbone, first_level, pyramid_size, head_depth, .. } =
            DetectorConfig::small(1);
        Self {
            embedding_size: backbone.embedding_size,
            hidden_sizes: backbone.hidden_sizes,
            depths: backbone.depths,
            first_level,
            pyramid_size,
            head_depth,
        }
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        let data = &self.data;
        check_source(data.dataset.as_ref(), data.train.as_ref())?;
        if let (Some(_), Some(_)) = (&data.dataset, data.valid.as_ref().or(data.test.as_ref())) {
            return fail("data.dataset", "stands beside files of your own".into());
        }
        if data.windows.as_ref().is_some_and(|id| id != "inria-person") {
            return fail("data.windows", "can be inria-person".into());
        }
        if data.labels.as_ref().is_some_and(Vec::is_empty) {
            return fail("data.labels", "has no label".into());
        }
        let shares =
            [("valid_fraction", data.valid_fraction), ("test_fraction", data.test_fraction)];
        for (key, share) in shares {
            if !(0.0..=0.5).contains(&share) {
                return fail(&format!("data.{key}"), format!("is {share}, not within 0 and 0.5"));
            }
        }
        for side in data.size {
            if !(16..=2048).contains(&side) {
                return fail("data.size", format!("has {side}, not within 16 and 2048"));
            }
        }
        if let Err((key, value, [low, high])) = self.augment.check() {
            return fail(
                &format!("augment.{key}"),
                format!("is {value}, not within {low} and {high}"),
            );
        }
        if self.augment.mixup > 0.0 {
            return fail("augment.mixup", "is for image classification".into());
        }
        let config = self.config(1);
        config.check().map_err(|problem| RecipeError::value("model", problem))?;
        config.check_size(data.size).map_err(|problem| RecipeError::value("data.size", problem))?;
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
    /// The model that `[model]` describes, for so many labels.
    pub fn config(&self, num_labels: usize) -> DetectorConfig {
        let small = DetectorConfig::small(num_labels);
        let model = self.model.clone();
        DetectorConfig {
            backbone: ResNetConfig {
                embedding_size: model.embedding_size,
                hidden_sizes: model.hidden_sizes,
                depths: model.depths,
                ..small.backbone
            },
            first_level: model.first_level,
            pyramid_size: model.pyramid_size,
            head_depth: model.head_depth,
            num_labels,
        }
    }
}
