//! MobileNet V2: an image classifier of narrow layers that widen inside.
//!
//! Paper: Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>.
//! Reference code: `modeling_mobilenet_v2.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `C` channels, `H` rows, `W` columns, `L` labels.

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
        dropout::Dropout,
        linear::Linear,
        norm::After,
        pool::global_average,
    },
};

/// Sizes of a MobileNet V2. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MobileNetV2Config {
    pub num_channels: usize,
    /// Factor of every number of channels.
    pub depth_multiplier: f64,
    /// Numbers of channels are rounded to a multiple of this, and are `min_depth` at least.
    pub depth_divisible_by: usize,
    pub min_depth: usize,
    /// Channels inside a layer for each that enters it.
    pub expand_ratio: f64,
    /// How many times smaller than the image the last maps are; from there on layers are dilated instead.
    pub output_stride: usize,
    /// The stem's first convolution takes the place of its expansion.
    pub first_layer_is_expansion: bool,
    /// A `depth_multiplier` below 1 leaves the last convolution as it is.
    pub finegrained_output: bool,
    pub hidden_act: Activation,
    /// Pad as TensorFlow does: as the image's size needs it, and rather after than before.
    pub tf_padding: bool,
    pub classifier_dropout_prob: f64,
    /// Of the batch norms.
    pub layer_norm_eps: f64,
    /// Deviation of fresh weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
}

fn default_std() -> f64 {
    0.02
}

/// Channels that leave each layer, and its stride (Sandler et al. 2018, table 2); the first is the stem.
const LAYERS: [(usize, usize); 17] = [
    (16, 2),
    (24, 2),
    (24, 1),
    (32, 2),
    (32, 1),
    (32, 1),
    (64, 2),
    (64, 1),
    (64, 1),
    (64, 1),
    (96, 1),
    (96, 1),
    (96, 1),
    (160, 2),
    (160, 1),
    (160, 1),
    (320, 1),
];

/// Channels inside the stem, and of the last convolution.
const STEM: usize = 32;
const OUTPUT: usize = 1280;

impl MobileNetV2Config {
    /// MobileNet V2 of depth 1.0: 3.5 M parameters.
    pub fn full() -> Self {
        Self {
            num_channels: 3,
            depth_multiplier: 1.0,
            depth_divisible_by: 8,
            min_depth: 8,
            expand_ratio: 6.0,
            output_stride: 32,
            first_layer_is_expansion: true,
            finegrained_output: true,
            hidden_act: Activation::Relu6,
            tf_padding: true,
            classifier_dropout_prob: 0.8,
            layer_norm_eps: 0.001,
            initializer_range: 0.02,
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::full`].
    pub fn tiny() -> Self {
        Self { depth_multiplier: 0.1, expand_ratio: 2.0, finegrained_output: false, ..Self::full() }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["MobileNetV2ForImageClassification"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("num_channels", self.num_channels, 4_096)?;
        config::positive("depth_multiplier", self.depth_multiplier)?;
        config::size("depth_divisible_by", self.depth_divisible_by, 65_536)?;
        config::size("min_depth", self.min_depth, 65_536)?;
        config::positive("expand_ratio", self.expand_ratio)?;
        config::size("output_stride", self.output_stride, 1_024)?;
        config::probability("classifier_dropout_prob", self.classifier_dropout_prob)?;
        config::positive("layer_norm_eps", self.layer_norm_eps)?;
        let limit = 65_536;
        for channels in LAYERS.map(|(channels, _)| channels).into_iter().chain([STEM, OUTPUT]) {
            let channels = self.scaled(channels);
            config::size("channels by depth_multiplier", channels, limit)?;
            config::size("channels by expand_ratio", self.expanded(channels), limit)?;
        }
        Ok(())
    }

    /// A number of channels of [`LAYERS`] times `depth_multiplier`.
    fn scaled(&self, channels: usize) -> usize {
        self.divisible(channels as f64 * self.depth_multiplier)
    }

    fn expanded(&self, channels: usize) -> usize {
        self.divisible(channels as f64 * self.expand_ratio)
    }

    /// The multiple of `depth_divisible_by` that is nearest to `channels`, but not a tenth below them.
    fn divisible(&self, channels: f64) -> usize {
        // Halves are rounded to even numbers, as in Python.
        let (channels, step) = (channels.round_ties_even(), self.depth_divisible_by);
        let near = (channels + step as f64 / 2.0) as usize / step * step;
        let near = near.max(self.min_depth);
        if (near as f64) < 0.9 * channels { near.saturating_add(step) } else { near }
    }

    /// A classifier of `labels` classes with fresh weights.
    pub fn init(&self, labels: usize, device: &Device) -> MobileNetV2 {
        let conv = |config| self.convolution(config, device);
        let (stem, narrow) = (self.scaled(STEM), self.scaled(LAYERS[0].0));
        let mut width = narrow;
        let mut dilations = Dilations { current: LAYERS[0].1, dilation: 1 };
        let layers = LAYERS[1..].iter().map(|(channels, stride)| {
            let (stride, dilation) = dilations.next(*stride, self.output_stride);
            let (entering, inner) = (width, self.expanded(width));
            width = self.scaled(*channels);
            Layer {
                expand: conv(pointwise(entering, inner)),
                depthwise: conv(depthwise(inner, stride, dilation)),
                reduce: conv(pointwise(inner, width)),
                residual: stride == 1 && entering == width,
            }
        });
        let layers = layers.collect();
        let last = match self.finegrained_output && self.depth_multiplier < 1.0 {
            true => OUTPUT,
            false => self.scaled(OUTPUT),
        };
        MobileNetV2 {
            stem: Stem {
                first: conv(ConvConfig {
                    stride: [2; 2],
                    padding: [(1, 1); 2],
                    ..ConvConfig::new(self.num_channels, stem, [3; 2])
                }),
                expand: (!self.first_layer_is_expansion).then(|| conv(pointwise(stem, stem))),
                depthwise: conv(depthwise(stem, 1, 1)),
                reduce: conv(pointwise(stem, narrow)),
            },
            layers,
            output: conv(pointwise(width, last)),
            dropout: Dropout::new(self.classifier_dropout_prob),
            classifier: Linear::new(last, labels, self.initializer_range, device),
            step: Step { same: self.tf_padding, activation: self.hidden_act },
        }
    }

    fn convolution(&self, config: ConvConfig<2>, device: &Device) -> ConvNorm {
        let config = ConvConfig { std: self.initializer_range, ..config };
        // TensorFlow's decay of 0.997, which the reference gives to PyTorch as its momentum.
        ConvNorm::new(config, self.layer_norm_eps, 0.997, device)
    }
}

/// 1x1, across channels.
fn pointwise(width: usize, out: usize) -> ConvConfig<2> {
    ConvConfig::new(width, out, [1; 2])
}

/// 3x3, each channel by itself.
fn depthwise(width: usize, stride: usize, dilation: usize) -> ConvConfig<2> {
    ConvConfig {
        stride: [stride; 2],
        padding: [(dilation, dilation); 2],
        dilation: [dilation; 2],
        groups: width,
        ..ConvConfig::new(width, width, [3; 2])
    }
}

/// Strides up to `output_stride`, and dilations from there on.
struct Dilations {
    /// Product of the strides so far.
    current: usize,
    dilation: usize,
}

impl Dilations {
    /// Stride and dilation of the next layer.
    fn next(&mut self, stride: usize, output_stride: usize) -> (usize, usize) {
        if self.current != output_stride {
            self.current *= stride;
            return (stride, 1);
        }
        let dilation = self.dilation;
        self.dilation *= stride; // begins one layer later
        (1, dilation)
    }
}

/// What happens around every convolution.
#[derive(Debug, Clone, Copy)]
struct Step {
    same: bool,
    activation: Activation,
}

impl Step {
    fn linear(self, convolution: &ConvNorm, x: Tensor<4>, after: After<4>) -> Tensor<4> {
        match self.same {
            true => convolution.forward_same(x, after),
            false => convolution.forward(x, after),
        }
    }

    fn active(self, convolution: &ConvNorm, x: Tensor<4>) -> Tensor<4> {
        self.linear(convolution, x, After::activation(self.activation))
    }
}

/// Images in, logits of their classes out.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    stem: Stem,
    layers: Vec<Layer>,
    output: ConvNorm,
    dropout: Dropout,
    pub(super) classifier: Linear,
    #[module(skip)]
    step: Step,
}

impl MobileNetV2 {
    /// `[B, num_channels, H, W]` -> logits `[B, L]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(x))
    }

    /// The last maps: `[B, num_channels, H, W]` -> `[B, C, H', W']`
    pub fn features(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.stem.forward(x, self.step); // [B, C, H / 2, W / 2]
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, self.step)); // [B, C, H / 32, W / 32]
        self.step.active(&self.output, x)
    }

    /// What the last maps say: `[B, C, H', W']` -> logits `[B, L]`
    pub fn classify(&self, features: Tensor<4>) -> Tensor<2> {
        let x = global_average(features); // [B, C]
        self.classifier.forward(self.dropout.forward(x))
    }
}

#[derive(Module, Debug)]
struct Stem {
    first: ConvNorm,
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    reduce: ConvNorm,
}

impl Stem {
    /// `[B, num_channels, H, W]` -> `[B, C, H / 2, W / 2]`
    fn forward(&self, x: Tensor<4>, step: Step) -> Tensor<4> {
        let mut x = step.active(&self.first, x);
        if let Some(expand) = &self.expand {
            x = step.active(expand, x);
        }
        step.linear(&self.reduce, step.active(&self.depthwise, x), After::default())
    }
}

/// The inverted residual: wide inside, narrow where layers meet.
#[derive(Module, Debug)]
struct Layer {
    expand: ConvNorm,
    depthwise: ConvNorm,
    reduce: ConvNorm,
    #[module(skip)]
    residual: bool,
}

impl Layer {
    /// `[B, C, H, W]` -> `[B, C', H / stride, W / stride]`
    fn forward(&self, x: Tensor<4>, step: Step) -> Tensor<4> {
        let wide = step.active(&self.expand, x.clone());
        let residual = self.residual.then_some(x);
        let after = After { residual, activation: None };
        step.linear(&self.reduce, step.active(&self.depthwise, wide), after)
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                            field
    ("mobilenet_v2.conv_stem.first_conv.",   "stem.first."),
    ("mobilenet_v2.conv_stem.expand_1x1.",   "stem.expand."),
    ("mobilenet_v2.conv_stem.conv_3x3.",     "stem.depthwise."),
    ("mobilenet_v2.conv_stem.reduce_1x1.",   "stem.reduce."),
    ("mobilenet_v2.layer.{}.expand_1x1.",    "layers.{}.expand."),
    ("mobilenet_v2.layer.{}.conv_3x3.",      "layers.{}.depthwise."),
    ("mobilenet_v2.layer.{}.reduce_1x1.",    "layers.{}.reduce."),
    ("mobilenet_v2.conv_1x1.",               "output."),
    ("classifier.",                          "classifier."),
];

pub(super) fn checkpoint_name(field: &str) -> Option<String> {
    rename(NAMES, field)
}

/// `transformers.MobileNetV2ForImageClassification`.
pub struct MobileNetV2ForImageClassification {
    pub config: MobileNetV2Config,
    pub model: MobileNetV2,
}

impl MobileNetV2ForImageClassification {
    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        let (config, labels) = source.config_as(|value| {
            Ok((MobileNetV2Config::from_json(value)?, config::labels(value)?))
        })?;
        let model = config.init(head.labels(labels), device);
        let model = fill(source, model, head, &[], checkpoint_name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for MobileNetV2ForImageClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, Some(self.config.num_channels), None, None];
        let images = inputs.floats("pixel_values", axes)?;
        Ok(vec![("logits", self.model.forward(images).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, checkpoint_name)
    }
}

#[cfg(test)]
mod tests {
    use burn::{optim::GradientsParams, tensor::Distribution};

    use super::*;

    #[test]
    fn channels_are_a_multiple_and_not_a_tenth_too_few() {
        let full = MobileNetV2Config::full();
        assert_eq!([16, 24, 320].map(|c| full.scaled(c)), [16, 24, 320]);
        let small = MobileNetV2Config { depth_multiplier: 0.35, ..full.clone() };
        assert_eq!(small.scaled(24), 8); // round(8.4)
        assert_eq!(small.scaled(32), 16); // 11 is nearer to 8, which is more than a tenth below
        assert_eq!(small.scaled(160), 56);
        let half = MobileNetV2Config { depth_multiplier: 0.75, depth_divisible_by: 1, ..full };
        assert_eq!(half.scaled(6), 8); // round(4.5) is 4 to even, `min_depth` is 8
        let odd = MobileNetV2Config { depth_multiplier: 0.75, ..half };
        assert_eq!(odd.scaled(30), 22); // 22.5 to even
    }

    #[test]
    fn dilation_takes_over_from_strides() {
        let mut dilations = Dilations { current: 2, dilation: 1 };
        let steps = LAYERS[1..].iter().map(|(_, stride)| dilations.next(*stride, 16));
        let steps: Vec<_> = steps.collect();
        assert_eq!(steps[5], (2, 1)); // the last of 2 * 2 * 2 * 2
        assert_eq!(steps[12], (1, 1)); // its stride becomes a dilation
        assert_eq!(steps[13..], [(1, 2); 3]); // of the layers after it
    }

    #[test]
    fn every_weight_learns() {
        let device = Device::flex().autodiff();
        device.seed(5);
        let model = MobileNetV2Config::tiny().init(3, &device);
        let images = Tensor::random([2, 3, 33, 40], Distribution::Default, &device);
        let logits = model.forward(images);
        let loss = logits.powi_scalar(2).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        // 52 convolutions with a norm each, whose running averages are not weights, and the classifier.
        assert_eq!(grads.len(), 52 * (1 + 2) + 2);
    }
}
