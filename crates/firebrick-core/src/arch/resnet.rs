//! ResNet: an image classifier of convolutions with residuals.
//!
//! Paper: He et al. 2015, <https://arxiv.org/abs/1512.03385>.
//! Reference code: `modeling_resnet.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `C` channels, `H` rows, `W` columns, `L` labels.

mod prune;

use std::path::Path;

use burn::{module::Module, prelude::*};
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
        conv::{ConvConfig, ConvNorm},
        linear::Linear,
        norm::After,
        pool::{global_average, max_pool},
    },
};

/// Sizes of a ResNet. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResNetConfig {
    pub num_channels: usize,
    /// `C` of the stem.
    pub embedding_size: usize,
    /// `C` of each stage.
    pub hidden_sizes: Vec<usize>,
    /// Layers of each stage.
    pub depths: Vec<usize>,
    pub layer_type: LayerType,
    pub hidden_act: Activation,
    /// Halve the image in the first stage too.
    #[serde(default)]
    pub downsample_in_first_stage: bool,
    /// Halve it in the first convolution of a bottleneck; else in the second, as ResNet 1.5 does.
    #[serde(default)]
    pub downsample_in_bottleneck: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerType {
    /// Two 3x3 convolutions: ResNet-18 and 34.
    Basic,
    /// 1x1 to a quarter of the channels, 3x3, 1x1 back: ResNet-50 and larger.
    Bottleneck,
}

/// Channels of a bottleneck's narrow part: one in four.
const REDUCTION: usize = 4;

impl ResNetConfig {
    /// ResNet-50: 26 M parameters (He et al. 2015, table 1).
    pub fn resnet50() -> Self {
        Self {
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: LayerType::Bottleneck,
            hidden_act: Activation::Relu,
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::resnet50`].
    pub fn tiny() -> Self {
        Self {
            embedding_size: 8,
            hidden_sizes: vec![8, 16],
            depths: vec![1, 2],
            ..Self::resnet50()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["ResNetForImageClassification"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("num_channels", self.num_channels, 4_096)?;
        config::size("embedding_size", self.embedding_size, 16_384)?;
        let (stages, depths) = (self.hidden_sizes.len(), self.depths.len());
        if stages != depths {
            return Err(format!("hidden_sizes has {stages} stages, depths has {depths}"));
        }
        config::size("hidden_sizes (their number)", stages, 32)?;
        for size in &self.hidden_sizes {
            config::size("hidden_sizes", *size, 16_384)?;
            if self.layer_type == LayerType::Bottleneck && *size < REDUCTION {
                return Err(format!("hidden_sizes holds {size}, too narrow for a bottleneck"));
            }
        }
        for depth in &self.depths {
            config::size("depths", *depth, 512)?;
        }
        config::size("depths (their sum)", self.depths.iter().sum(), 512)
    }

    /// A classifier of `labels` classes with fresh weights.
    pub fn init(&self, labels: usize, device: &Device) -> ResNet {
        let last = *self.hidden_sizes.last().expect("`check` wants one");
        ResNet {
            stem: convolution(self.num_channels, self.embedding_size, 7, 2, device),
            stages: self.stages(device),
            // The deviation of PyTorch's uniform weights, as wide as 1 / sqrt(C).
            classifier: Linear::new(last, labels, (3.0 * last as f64).powf(-0.5), device),
            activation: self.hidden_act,
        }
    }

    /// What follows the stem.
    pub(super) fn stages(&self, device: &Device) -> Vec<Stage> {
        let mut width = self.embedding_size;
        let stages = self.hidden_sizes.iter().zip(&self.depths).enumerate();
        let stages = stages.map(|(index, (&out, &depth))| {
            let halves = index > 0 || self.downsample_in_first_stage;
            let mut layer = |stride| {
                let layer = self.layer(width, out, stride, device);
                width = out;
                layer
            };
            let first = layer(if halves { 2 } else { 1 });
            let rest = (1..depth).map(|_| layer(1));
            Stage { layers: std::iter::once(first).chain(rest).collect() }
        });
        stages.collect()
    }

    fn layer(&self, width: usize, out: usize, stride: usize, device: &Device) -> Layer {
        let conv = |width, out, kernel, stride| convolution(width, out, kernel, stride, device);
        let convolutions = match self.layer_type {
            LayerType::Basic => vec![conv(width, out, 3, stride), conv(out, out, 3, 1)],
            LayerType::Bottleneck => {
                let narrow = out / REDUCTION;
                let strides = if self.downsample_in_bottleneck { [stride, 1] } else { [1, stride] };
                vec![
                    conv(width, narrow, 1, strides[0]),
                    conv(narrow, narrow, 3, strides[1]),
                    conv(narrow, out, 1, 1),
                ]
            }
        };
        let shortcut = (width != out || stride != 1).then(|| conv(width, out, 1, stride));
        Layer { convolutions, shortcut, activation: self.hidden_act }
    }
}

/// Weights that keep the variance of a gradient through relu (He et al. 2015, <https://arxiv.org/abs/1502.01852>).
pub(super) fn convolution(
    width: usize,
    out: usize,
    kernel: usize,
    stride: usize,
    device: &Device,
) -> ConvNorm {
    let config = ConvConfig {
        stride: [stride; 2],
        padding: [(kernel / 2, kernel / 2); 2],
        std: (2.0 / (out * kernel * kernel) as f64).sqrt(),
        ..ConvConfig::new(width, out, [kernel; 2])
    };
    ConvNorm::new(config, 1e-5, 0.1, device)
}

/// Images in, logits of their classes out.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: ConvNorm,
    stages: Vec<Stage>,
    pub(super) classifier: Linear,
    #[module(skip)]
    activation: Activation,
}

impl ResNet {
    /// `[B, num_channels, H, W]` -> logits `[B, L]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(x))
    }

    /// The last maps: `[B, num_channels, H, W]` -> `[B, C, H', W']`
    pub fn features(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.stem.forward(x, After::activation(self.activation)); // [B, C, H / 2, W / 2]
        let x = max_pool(x, 3, 2, 1); // [B, C, H / 4, W / 4]
        self.stages.iter().fold(x, |x, stage| stage.forward(x))
    }

    /// What the last maps say: `[B, C, H', W']` -> logits `[B, L]`
    pub fn classify(&self, features: Tensor<4>) -> Tensor<2> {
        self.classifier.forward(global_average(features))
    }
}

/// Layers of one width, on an image of one size.
#[derive(Module, Debug)]
pub(super) struct Stage {
    layers: Vec<Layer>,
}

impl Stage {
    /// `[B, C, H, W]` -> `[B, C', H / stride, W / stride]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}

/// Convolutions with relu between them, added to the shortcut.
#[derive(Module, Debug)]
struct Layer {
    convolutions: Vec<ConvNorm>,
    /// Where the image or the number of channels changes.
    shortcut: Option<ConvNorm>,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    /// `[B, C, H, W]` -> `[B, C', H / stride, W / stride]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (last, inner) = self.convolutions.split_last().expect("a layer has two or three");
        // Relu whatever `hidden_act` is, as in the reference.
        let relu = || After::activation(Activation::Relu);
        let branch = inner.iter().fold(x.clone(), |x, c| c.forward(x, relu()));
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, After::default()),
            None => x,
        };
        last.forward(
            branch,
            After { residual: Some(shortcut), ..After::activation(self.activation) },
        )
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                         field
    ("resnet.embedder.embedder.",                         "stem."),
    ("resnet.encoder.stages.{}.layers.{}.layer.{}.",      "stages.{}.layers.{}.convolutions.{}."),
    ("resnet.encoder.stages.{}.layers.{}.shortcut.",      "stages.{}.layers.{}.shortcut."),
    ("classifier.1.",                                     "classifier."),
];

pub(super) fn checkpoint_name(field: &str) -> Option<String> {
    rename(NAMES, field)
}

/// `transformers.ResNetForImageClassification`.
pub struct ResNetForImageClassification {
    pub config: ResNetConfig,
    pub model: ResNet,
}

impl ResNetForImageClassification {
    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        let (config, labels) = source
            .config_as(|value| Ok((ResNetConfig::from_json(value)?, config::labels(value)?)))?;
        let model = config.init(head.labels(labels), device);
        let model = fill(source, model, head, &[], checkpoint_name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for ResNetForImageClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, Some(self.config.num_channels), None, None];
        let images = inputs.floats("pixel_values", axes)?;
        Ok(vec![("logits", self.model.forward(images).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, checkpoint_name)
    }
}
