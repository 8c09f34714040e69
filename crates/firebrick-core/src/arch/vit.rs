//! ViT: a pre-norm Transformer encoder over the patches of an image.
//!
//! Paper: Dosovitskiy et al. 2020, <https://arxiv.org/abs/2010.11929>.
//! Reference code: `modeling_vit.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `I` channels of the image, `N` patches, `T` tokens (`N` and the class token), `C` channels
//! (`hidden_size`), `L` labels.

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
        attention::{AttentionConfig, Mask},
        dropout::Dropout,
        encoder::{EncoderLayer, EncoderLayerConfig},
        linear::Linear,
        norm::LayerNorm,
        patch::{PatchEmbedding, grid},
    },
};

/// Sizes of the encoder, in which ViT, YOLOS, AST and VideoMAE are alike. Field names are those of their
/// `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncoderConfig {
    /// `C`: must be divisible by `num_attention_heads` where there is no `head_dim`.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Channels of a head; `C / num_attention_heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    pub intermediate_size: usize,
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    #[serde(default)]
    pub hidden_dropout_prob: f64,
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Deviation of fresh weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
}

fn gelu() -> Activation {
    Activation::Gelu
}
fn default_eps() -> f64 {
    1e-12
}
fn default_std() -> f64 {
    0.02
}
pub(super) fn yes() -> bool {
    true
}

impl EncoderConfig {
    /// ViT-base: 86 M parameters (Dosovitskiy et al. 2020, table 1).
    pub fn base() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            head_dim: None,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
        }
    }

    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            ..Self::base()
        }
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("hidden_size", self.hidden_size, 65_536)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 1_000)?;
        config::size("num_attention_heads", self.num_attention_heads, 1_024)?;
        config::size("intermediate_size", self.intermediate_size, 1_048_576)?;
        if self.head_dim.is_none() {
            let (heads_key, heads) = ("num_attention_heads", self.num_attention_heads);
            config::divides("hidden_size", self.hidden_size, heads_key, heads)?;
        }
        config::size("head_dim", self.head_dim(), 65_536)?;
        config::probability("hidden_dropout_prob", self.hidden_dropout_prob)?;
        config::probability("attention_probs_dropout_prob", self.attention_probs_dropout_prob)?;
        config::positive("layer_norm_eps", self.layer_norm_eps)
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// All layers; `biases` says whether query, key and value have one.
    pub(super) fn layers(&self, biases: [bool; 3], device: &Device) -> Vec<EncoderLayer> {
        let [query_bias, key_bias, value_bias] = biases;
        let attention = AttentionConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            head_dim: self.head_dim(),
            query_bias,
            key_bias,
            value_bias,
            output_bias: true,
            dropout: self.attention_probs_dropout_prob,
            std: self.initializer_range,
        };
        let layer = EncoderLayerConfig {
            attention,
            intermediate_size: self.intermediate_size,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
            activation_dropout: 0.0,
            norm_first: true,
        };
        (0..self.num_hidden_layers).map(|_| layer.init(device)).collect()
    }

    pub(super) fn norm(&self, device: &Device) -> LayerNorm {
        LayerNorm::new(self.hidden_size, self.layer_norm_eps, device)
    }

    /// Learned vectors that are the same for every input, such as positions: `[1, count, C]`
    pub(super) fn tokens(&self, count: usize, device: &Device) -> Param<Tensor<3>> {
        Initializer::Normal { mean: 0.0, std: self.initializer_range }
            .init([1, count, self.hidden_size], device)
    }
}

/// Sizes of a ViT. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VitConfig {
    #[serde(flatten)]
    pub encoder: EncoderConfig,
    /// Rows and columns.
    #[serde(deserialize_with = "config::pair")]
    pub image_size: [usize; 2],
    #[serde(deserialize_with = "config::pair")]
    pub patch_size: [usize; 2],
    /// `I`
    pub num_channels: usize,
    /// Whether query, key and value have a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// `L`
    #[serde(skip)]
    pub num_labels: usize,
}

impl VitConfig {
    /// ViT-base for ImageNet.
    pub fn base() -> Self {
        Self {
            encoder: EncoderConfig::base(),
            image_size: [224; 2],
            patch_size: [16; 2],
            num_channels: 3,
            qkv_bias: true,
            num_labels: 1000,
        }
    }

    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            encoder: EncoderConfig::tiny(),
            image_size: [16; 2],
            patch_size: [8; 2],
            num_labels: 4,
            ..Self::base()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["ViTForImageClassification"])?;
        let config = Self { num_labels: config::labels(value)?, ..config::parse(value)? };
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        self.encoder.check()?;
        config::size("num_channels", self.num_channels, 65_536)?;
        check_grid(self.image_size, self.patch_size)
    }

    pub fn init(&self, device: &Device) -> Vit {
        let (c, std) = (self.encoder.hidden_size, self.encoder.initializer_range);
        let [rows, columns] = grid(self.image_size, self.patch_size);
        let widths = [self.num_channels, c];
        Vit {
            patches: PatchEmbedding::new(widths, self.patch_size, true, std, device),
            class_token: self.encoder.tokens(1, device),
            positions: self.encoder.tokens(rows * columns + 1, device),
            dropout: Dropout::new(self.encoder.hidden_dropout_prob),
            layers: self.encoder.layers([self.qkv_bias; 3], device),
            norm: self.encoder.norm(device),
            classifier: Linear::new(c, self.num_labels, std, device),
        }
    }
}

/// An image must hold at least one patch.
pub(super) fn check_grid(image_size: [usize; 2], patch_size: [usize; 2]) -> Result<(), String> {
    for axis in [0, 1] {
        config::size("image_size", image_size[axis], 65_536)?;
        config::size("patch_size", patch_size[axis], 65_536)?;
    }
    let [rows, columns] = grid(image_size, patch_size);
    config::size("patches of patch_size in image_size", rows * columns, 1 << 24)
}

/// An image in, logits of its class out.
#[derive(Module, Debug)]
pub struct Vit {
    patches: PatchEmbedding,
    /// `[1, 1, C]`
    class_token: Param<Tensor<3>>,
    /// `[1, T, C]`
    positions: Param<Tensor<3>>,
    dropout: Dropout,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    pub(super) classifier: Linear,
}

impl Vit {
    /// `[B, I, H, W]`, of the configured size -> `[B, L]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let [b, ..] = images.dims();
        let class_token = self.class_token.val().repeat_dim(0, b); // [B, 1, C]
        let x = Tensor::cat(vec![class_token, self.patches.forward(images)], 1); // [B, T, C]
        let x = self.dropout.forward(x + self.positions.val());
        let mask = Mask::default();
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
        self.classifier.forward(self.norm.forward(token(x, 0)))
    }
}

/// One token's vector, `[B, T, C]` -> `[B, C]`
pub(super) fn token(x: Tensor<3>, index: usize) -> Tensor<2> {
    x.narrow(1, index, 1).squeeze_dim(1)
}

/// Names of an encoder's layers, which YOLOS, AST and VideoMAE share. The family's prefix stands before them.
#[rustfmt::skip]
pub(super) const LAYERS: Names = &[
    // checkpoint                                     field
    ("encoder.layer.{}.layernorm_before.",            "layers.{}.attention_norm."),
    ("encoder.layer.{}.attention.attention.query.",   "layers.{}.attention.query."),
    ("encoder.layer.{}.attention.attention.key.",     "layers.{}.attention.key."),
    ("encoder.layer.{}.attention.attention.value.",   "layers.{}.attention.value."),
    ("encoder.layer.{}.attention.output.dense.",      "layers.{}.attention.output."),
    ("encoder.layer.{}.layernorm_after.",             "layers.{}.feed_forward_norm."),
    ("encoder.layer.{}.intermediate.dense.",          "layers.{}.feed_forward.up."),
    ("encoder.layer.{}.output.dense.",                "layers.{}.feed_forward.down."),
    ("layernorm.",                                    "norm."),
];

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                     field
    ("vit.embeddings.patch_embeddings.projection.",   "patches."),
    ("vit.embeddings.cls_token",                      "class_token"),
    ("vit.embeddings.position_embeddings",            "positions"),
    ("classifier.",                                   "classifier."),
];

pub(super) fn checkpoint_name(field: &str) -> Option<String> {
    rename(NAMES, field).or_else(|| Some(format!("vit.{}", rename(LAYERS, field)?)))
}

/// Tensors of pre-training that old checkpoints hold beside the weights.
const IGNORED: &[&str] = &["vit.pooler.", "vit.embeddings.mask_token"];

/// `transformers.ViTForImageClassification`.
pub struct VitForImageClassification {
    pub config: VitConfig,
    pub model: Vit,
}

impl VitForImageClassification {
    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(VitConfig::from_json)?;
        let config = VitConfig { num_labels: head.labels(config.num_labels), ..config };
        let model = fill(source, config.init(device), head, IGNORED, checkpoint_name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for VitForImageClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let [rows, columns] = self.config.image_size;
        let expected = [None, Some(self.config.num_channels), Some(rows), Some(columns)];
        let images = inputs.floats("pixel_values", expected)?;
        Ok(vec![("logits", self.model.forward(images).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, checkpoint_name)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::arch::gradients;

    #[test]
    fn every_parameter_learns() {
        let device = Device::flex().autodiff();
        let model = VitConfig::tiny().init(&device);
        let images = Tensor::random([2, 3, 16, 16], Distribution::Default, &device);
        gradients::check(&model, model.forward(images));
    }
}
