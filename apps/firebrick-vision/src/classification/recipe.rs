//! An image classification recipe.

use std::path::PathBuf;

use firebrick_core::arch::{
    convnext::ConvNextConfig,
    image::ImageConfig,
    mobilenet_v2::MobileNetV2Config,
    resnet::{LayerType, ResNetConfig},
    vit::{EncoderConfig, VitConfig},
};
use firebrick_data::image::{Colour, augment::Augment, resize::Filter};
use firebrick_train::{
    job::{check_head, check_source},
    lora::LoraRecipe,
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scores that can choose the weights; `auc` where there are two classes.
pub const METRICS: &[&str] = &["loss", "accuracy", "macro_f1", "auc"];

/// Pictures with a label each into a convolutional network or a vision Transformer.
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
    pub decision: DecisionRecipe,
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
    ImageClassification,
}

/// `[data]`: a known data set, or pictures of your own: a folder with a folder for each class, a CSV file with the
/// columns `file` and `label`, or an `.npz` file with `images` and `labels` (or with `train_images`, `val_images`, ..).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `gtsrb`, `pneumoniamnist`, `brain-mri` or `inria-person`. Either this or `train`.
    pub dataset: Option<String>,
    pub train: Option<PathBuf>,
    /// Pictures that choose the weights; left out, some of the training pictures do.
    pub valid: Option<PathBuf>,
    /// Pictures that are reported once, at the end.
    pub test: Option<PathBuf>,
    /// Share of the training pictures that choose the weights, where the data does not say which. Pictures that look the
    /// same (or are of one sign, where that is known) stay together.
    pub valid_fraction: f64,
    /// Share that is kept back for the end, where the data has no test part. 0 keeps none.
    pub test_fraction: f64,
    /// Rows and columns that every picture is scaled to.
    pub size: [usize; 2],
    /// That of a model whose pictures are read, [`super::processor::Processor::shortest_edge`]; no key.
    #[serde(skip)]
    pub shortest_edge: Option<usize>,
    /// How pictures are scaled.
    pub filter: Filter,
    /// One channel in place of red, green and blue.
    pub grey: bool,
    /// Is taken from each channel, out of 1; measured on the training pictures when left out.
    pub mean: Option<Vec<f64>>,
    /// Each channel is divided by it; measured when left out.
    pub std: Option<Vec<f64>>,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            valid: None,
            test: None,
            valid_fraction: 0.1,
            test_fraction: 0.0,
            size: [32, 32],
            shortest_edge: None,
            filter: Filter::Bilinear,
            grey: false,
            mean: None,
            std: None,
        }
    }
}

impl DataRecipe {
    pub fn colour(&self) -> Colour {
        if self.grey { Colour::Grey } else { Colour::Rgb }
    }
}

/// `[model]`: a family and its sizes, in the words of its `config.json`. A key that the family does not have is an error.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    pub family: Family,
    /// Model folder or name to go on from, with a fresh classifier if its labels are others; it brings its own family and
    /// sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// Channels of the stem, of `resnet`; 32 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
    /// Channels of each stage, of `resnet` and `convnext`; 32, 64 and 128 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_sizes: Option<Vec<usize>>,
    /// Layers of each stage, of `resnet` and `convnext`; 1 each when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depths: Option<Vec<usize>>,
    /// Whether layers of `resnet` are narrow inside; false when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<bool>,
    /// Side of the patches of `convnext` (2 when left out) and `vit` (4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_size: Option<usize>,
    /// Factor of all channels of `mobilenet_v2`; 0.5 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth_multiplier: Option<f64>,
    /// Channels of `vit`; 96 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Layers of `vit`; 4 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Heads of `vit`; 4 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// What is left out in training: the last layer of `convnext`, numbers of `vit` and `mobilenet_v2`; 0.1 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    #[serde(skip_serializing_if = "LoraRecipe::is_default")]
    pub lora: LoraRecipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    #[default]
    Resnet,
    MobilenetV2,
    Convnext,
    Vit,
}

impl Family {
    /// The keys of `[model]` that it reads.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Resnet => &["embedding_size", "hidden_sizes", "depths", "bottleneck"],
            Self::MobilenetV2 => &["depth_multiplier", "dropout"],
            Self::Convnext => &["patch_size", "hidden_sizes", "depths", "dropout"],
            Self::Vit => &[
                "patch_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "dropout",
            ],
        }
    }
}

/// `[decision]`: for two classes, of which one must not be missed. Probabilities are calibrated on the validation
/// pictures, and the threshold is the highest that finds the stated share of the positive ones there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionRecipe {
    /// The label that is looked for; without it the likelier label is the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// Share of the positive pictures that are to be found; 0.95 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
    /// Share of the validation pictures, those nearest to the threshold, on which the model is to abstain; 0.1 when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abstain: Option<f64>,
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
        let shares =
            [("valid_fraction", data.valid_fraction), ("test_fraction", data.test_fraction)];
        for (key, share) in shares {
            if !(0.0..=0.5).contains(&share) {
                return fail(&format!("data.{key}"), format!("is {share}, not within 0 and 0.5"));
            }
        }
        for side in data.size {
            if !(4..=1024).contains(&side) {
                return fail("data.size", format!("has {side}, not within 4 and 1024"));
            }
        }
        let channels = data.colour().channels();
        for (key, numbers) in [("mean", &data.mean), ("std", &data.std)] {
            let key = format!("data.{key}");
            let Some(numbers) = numbers else { continue };
            if numbers.len() != channels {
                return fail(
                    &key,
                    format!("has {} numbers for {channels} channels", numbers.len()),
                );
            }
            if numbers.iter().any(|n| !n.is_finite() || key == "data.std" && *n <= 0.0) {
                return fail(&key, "has a number that is not finite, or a deviation of 0".into());
            }
        }
        if let Err((key, value, [low, high])) = self.augment.check() {
            return fail(
                &format!("augment.{key}"),
                format!("is {value}, not within {low} and {high}"),
            );
        }
        self.check_decision()?;
        self.check_model()?;
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
    fn check_decision(&self) -> Result<(), RecipeError> {
        let decision = &self.decision;
        for (key, share) in [("sensitivity", decision.sensitivity), ("abstain", decision.abstain)] {
            let Some(share) = share else { continue };
            let key = format!("decision.{key}");
            if decision.positive.is_none() {
                return Err(RecipeError::value(&key, "stands there without `decision.positive`"));
            }
            if !(0.0..=1.0).contains(&share) {
                return Err(RecipeError::value(&key, format!("is {share}, not within 0 and 1")));
            }
        }
        Ok(())
    }

    fn check_model(&self) -> Result<(), RecipeError> {
        self.model.lora.check(self.model.pretrained.as_ref(), &self.train)?;
        let given = toml::Table::try_from(&self.model)
            .map_err(|error| RecipeError::value("model", error.to_string()))?;
        let mut sizes =
            given.keys().filter(|key| !["family", "pretrained", "lora"].contains(&key.as_str()));
        if self.model.pretrained.is_some() {
            return match sizes.next() {
                None => Ok(()),
                Some(key) => Err(RecipeError::value(
                    &format!("model.{key}"),
                    "stands beside `model.pretrained`, whose checkpoint has its own",
                )),
            };
        }
        let known = self.model.family.keys();
        if let Some(key) = sizes.find(|key| !known.contains(&key.as_str())) {
            let problem = format!("is no key of this family: {}", known.join(", "));
            return Err(RecipeError::value(&format!("model.{key}"), problem));
        }
        let config = self.config();
        let checked = config.check().and_then(|()| config.check_size(self.data.size));
        checked.map_err(|problem| RecipeError::value("model", problem))
    }

    /// The model that `[model]` describes, without a checkpoint to go on from.
    pub fn config(&self) -> ImageConfig {
        let model = &self.model;
        let num_channels = self.data.colour().channels();
        let hidden_sizes = model.hidden_sizes.clone().unwrap_or_else(|| vec![32, 64, 128]);
        let depths = model.depths.clone().unwrap_or_else(|| vec![1; hidden_sizes.len()]);
        let dropout = model.dropout.unwrap_or(0.1);
        match model.family {
            Family::Resnet => ImageConfig::ResNet(ResNetConfig {
                num_channels,
                embedding_size: model.embedding_size.unwrap_or(32),
                hidden_sizes,
                depths,
                layer_type: match model.bottleneck {
                    Some(true) => LayerType::Bottleneck,
                    _ => LayerType::Basic,
                },
                ..ResNetConfig::resnet50()
            }),
            Family::MobilenetV2 => ImageConfig::MobileNetV2(MobileNetV2Config {
                num_channels,
                depth_multiplier: model.depth_multiplier.unwrap_or(0.5),
                finegrained_output: false,
                classifier_dropout_prob: dropout,
                ..MobileNetV2Config::full()
            }),
            Family::Convnext => ImageConfig::ConvNext(ConvNextConfig {
                num_channels,
                patch_size: [model.patch_size.unwrap_or(2); 2],
                num_stages: hidden_sizes.len(),
                hidden_sizes,
                depths,
                // Small and shallow, it needs no slow start.
                layer_scale_init_value: 0.0,
                drop_path_rate: dropout,
                ..ConvNextConfig::t()
            }),
            Family::Vit => {
                let hidden_size = model.hidden_size.unwrap_or(96);
                ImageConfig::Vit(VitConfig {
                    encoder: EncoderConfig {
                        hidden_size,
                        num_hidden_layers: model.num_hidden_layers.unwrap_or(4),
                        num_attention_heads: model.num_attention_heads.unwrap_or(4),
                        intermediate_size: 4 * hidden_size,
                        hidden_dropout_prob: dropout,
                        ..EncoderConfig::base()
                    },
                    image_size: self.data.size,
                    patch_size: [model.patch_size.unwrap_or(4); 2],
                    num_channels,
                    ..VitConfig::base()
                })
            }
        }
    }
}
