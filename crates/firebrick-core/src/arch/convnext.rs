//! ConvNeXt: an image classifier of wide depthwise convolutions and feed-forward blocks.
//!
//! Paper: Liu et al. 2022, <https://arxiv.org/abs/2201.03545>.
//! Reference code: `modeling_convnext.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `C` channels, `H` rows, `W` columns, `L` labels.

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AnyModel, Output, architecture,
    image::{Head, fill},
    inputs::{InputError, Inputs},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, SaveType},
    },
    layers::{
        activation::Activation,
        conv::{Conv2d, ConvConfig},
        dropout::Dropout,
        linear::Linear,
        mlp::FeedForward,
        norm::LayerNorm,
        pool::global_average,
    },
};

/// Sizes of a ConvNeXt. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConvNextConfig {
    pub num_channels: usize,
    /// Rows and columns of the patches that the stem makes one position of.
    #[serde(deserialize_with = "config::pair")]
    pub patch_size: [usize; 2],
    pub num_stages: usize,
    /// `C` of each stage.
    pub hidden_sizes: Vec<usize>,
    /// Layers of each stage.
    pub depths: Vec<usize>,
    pub hidden_act: Activation,
    /// Of the norm before the classifier; 1e-6 of the others.
    pub layer_norm_eps: f64,
    /// Fresh factor of what a layer adds; 0 where layers have none.
    pub layer_scale_init_value: f64,
    /// Probability of leaving out the last layer in training; it rises from 0 at the first.
    pub drop_path_rate: f64,
    /// Deviation of fresh weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
}

fn default_std() -> f64 {
    0.02
}

/// Of every norm but the last.
const EPS: f64 = 1e-6;

/// Side of the depthwise convolution's window.
const KERNEL: usize = 7;

impl ConvNextConfig {
    /// ConvNeXt-T: 29 M parameters (Liu et al. 2022, section 3).
    pub fn t() -> Self {
        Self {
            num_channels: 3,
            patch_size: [4; 2],
            num_stages: 4,
            hidden_sizes: vec![96, 192, 384, 768],
            depths: vec![3, 3, 9, 3],
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            layer_scale_init_value: 1e-6,
            drop_path_rate: 0.0,
            initializer_range: 0.02,
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::t`].
    pub fn tiny() -> Self {
        Self { num_stages: 2, hidden_sizes: vec![8, 16], depths: vec![1, 2], ..Self::t() }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["ConvNextForImageClassification"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("num_channels", self.num_channels, 4_096)?;
        for side in self.patch_size {
            config::size("patch_size", side, 4_096)?;
        }
        config::size("num_stages", self.num_stages, 32)?;
        let (widths, depths) = (self.hidden_sizes.len(), self.depths.len());
        if widths != self.num_stages || depths != self.num_stages {
            return Err(format!(
                "num_stages is {}, hidden_sizes has {widths} and depths {depths}",
                self.num_stages
            ));
        }
        for size in &self.hidden_sizes {
            config::size("hidden_sizes", *size, 65_536)?;
        }
        for depth in &self.depths {
            config::size("depths", *depth, 1_000)?;
        }
        config::positive("layer_norm_eps", self.layer_norm_eps)?;
        config::probability("drop_path_rate", self.drop_path_rate)
    }

    /// The smallest image that leaves a position for the last stage.
    pub(super) fn smallest(&self) -> [usize; 2] {
        self.patch_size.map(|side| side << (self.num_stages - 1))
    }

    /// A classifier of `labels` classes with fresh weights.
    pub fn init(&self, labels: usize, device: &Device) -> ConvNext {
        let std = self.initializer_range;
        let total: usize = self.depths.iter().sum();
        let mut index = 0;
        let mut width = self.hidden_sizes[0];
        let stages = self.hidden_sizes.iter().zip(&self.depths).enumerate();
        let stages = stages.map(|(stage, (&out, &depth))| {
            let downsampling = (stage > 0).then(|| Downsampling {
                norm: LayerNorm::new(width, EPS, device),
                convolution: patches(width, out, [2; 2], std).init(device),
            });
            width = out;
            let layers = (0..depth).map(|_| {
                let drop = self.drop_path_rate * index as f64 / (total - 1).max(1) as f64;
                index += 1;
                self.layer(out, drop, device)
            });
            Stage { downsampling, layers: layers.collect() }
        });
        let stages = stages.collect();
        ConvNext {
            patches: patches(self.num_channels, self.hidden_sizes[0], self.patch_size, std)
                .init(device),
            patches_norm: LayerNorm::new(self.hidden_sizes[0], EPS, device),
            stages,
            norm: LayerNorm::new(width, self.layer_norm_eps, device),
            classifier: Linear::new(width, labels, std, device),
        }
    }

    fn layer(&self, width: usize, drop: f64, device: &Device) -> Layer {
        let (std, scale) = (self.initializer_range, self.layer_scale_init_value);
        let depthwise = ConvConfig {
            padding: [(KERNEL / 2, KERNEL / 2); 2],
            groups: width,
            std,
            ..ConvConfig::new(width, width, [KERNEL; 2])
        };
        Layer {
            depthwise: depthwise.init(device),
            norm: LayerNorm::new(width, EPS, device),
            feed_forward: FeedForward::new(width, 4 * width, self.hidden_act, std, device),
            scale: (scale > 0.0)
                .then(|| Initializer::Constant { value: scale }.init([width], device)),
            drop_path: Dropout::new(drop),
        }
    }
}

/// Patches of `size` to one position each.
fn patches(width: usize, out: usize, size: [usize; 2], std: f64) -> ConvConfig<2> {
    ConvConfig { stride: size, std, ..ConvConfig::new(width, out, size) }
}

/// Images in, logits of their classes out.
#[derive(Module, Debug)]
pub struct ConvNext {
    patches: Conv2d,
    patches_norm: LayerNorm,
    stages: Vec<Stage>,
    norm: LayerNorm,
    pub(super) classifier: Linear,
}

impl ConvNext {
    /// `[B, num_channels, H, W]` -> logits `[B, L]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(x))
    }

    /// The last maps: `[B, num_channels, H, W]` -> `[B, C, H', W']`
    pub fn features(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.patches_norm.channels_first(self.patches.forward(x)); // [B, C, H / 4, W / 4]
        self.stages.iter().fold(x, |x, stage| stage.forward(x)) // [B, C, H / 32, W / 32]
    }

    /// What the last maps say: `[B, C, H', W']` -> logits `[B, L]`
    pub fn classify(&self, features: Tensor<4>) -> Tensor<2> {
        self.classifier.forward(self.norm.forward(global_average(features)))
    }
}

/// Layers of one width, on an image of one size.
#[derive(Module, Debug)]
struct Stage {
    /// Before all stages but the first.
    downsampling: Option<Downsampling>,
    layers: Vec<Layer>,
}

impl Stage {
    /// `[B, C, H, W]` -> `[B, C', H / 2, W / 2]`; the first stage leaves the sizes as they are
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.downsampling {
            Some(part) => part.convolution.forward(part.norm.channels_first(x)),
            None => x,
        };
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}

#[derive(Module, Debug)]
struct Downsampling {
    norm: LayerNorm,
    convolution: Conv2d,
}

/// A depthwise convolution, then a feed-forward block at every position.
#[derive(Module, Debug)]
struct Layer {
    depthwise: Conv2d,
    norm: LayerNorm,
    feed_forward: FeedForward,
    /// Factor of each channel of what the layer adds.
    scale: Option<Param<Tensor<1>>>,
    drop_path: Dropout,
}

impl Layer {
    /// `[B, C, H, W]` -> `[B, C, H, W]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let branch = self.depthwise.forward(x.clone()).permute([0, 2, 3, 1]); // [B, H, W, C]
        let mut branch = self.feed_forward.forward(self.norm.forward(branch));
        if let Some(scale) = &self.scale {
            branch = branch * scale.val().unsqueeze();
        }
        x + self.drop_path.examples(branch.permute([0, 3, 1, 2]))
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                                       field
    ("convnext.embeddings.patch_embeddings.",                           "patches."),
    ("convnext.embeddings.layernorm.",                                  "patches_norm."),
    ("convnext.encoder.stages.{}.downsampling_layer.0.",                "stages.{}.downsampling.norm."),
    ("convnext.encoder.stages.{}.downsampling_layer.1.",                "stages.{}.downsampling.convolution."),
    ("convnext.encoder.stages.{}.layers.{}.dwconv.",                    "stages.{}.layers.{}.depthwise."),
    ("convnext.encoder.stages.{}.layers.{}.layernorm.",                 "stages.{}.layers.{}.norm."),
    ("convnext.encoder.stages.{}.layers.{}.pwconv1.",                   "stages.{}.layers.{}.feed_forward.up."),
    ("convnext.encoder.stages.{}.layers.{}.pwconv2.",                   "stages.{}.layers.{}.feed_forward.down."),
    ("convnext.encoder.stages.{}.layers.{}.layer_scale_parameter",      "stages.{}.layers.{}.scale"),
    ("convnext.layernorm.",                                             "norm."),
    ("classifier.",                                                     "classifier."),
];

pub(super) fn checkpoint_name(field: &str) -> Option<String> {
    rename(NAMES, field)
}

/// `transformers.ConvNextForImageClassification`.
pub struct ConvNextForImageClassification {
    pub config: ConvNextConfig,
    pub model: ConvNext,
}

impl ConvNextForImageClassification {
    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        let (config, labels) = source
            .config_as(|value| Ok((ConvNextConfig::from_json(value)?, config::labels(value)?)))?;
        let model = config.init(head.labels(labels), device);
        let model = fill(source, model, head, &[], checkpoint_name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for ConvNextForImageClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, Some(self.config.num_channels), None, None];
        let images: Tensor<4> = inputs.floats("pixel_values", axes)?;
        let ([_, _, h, w], [rows, columns]) = (images.dims(), self.config.smallest());
        if h < rows || w < columns {
            let (name, found) = ("pixel_values".into(), images.dims().into());
            let expected = format!("an image of at least {rows} x {columns}");
            return Err(InputError::Shape { name, found, expected });
        }
        Ok(vec![("logits", self.model.forward(images).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, checkpoint_name)
    }
}
