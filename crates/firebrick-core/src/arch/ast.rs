//! AST: the audio spectrogram transformer, a ViT over overlapping patches of a log-mel spectrogram.
//!
//! Paper: Gong et al. 2021, <https://arxiv.org/abs/2104.01778>.
//! Reference code: `modeling_audio_spectrogram_transformer.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `S` time steps of the spectrogram (`max_length`), `M` its mel bins, `N` patches, `T` tokens (`N` and
//! two), `C` channels (`hidden_size`), `L` labels.

use std::path::Path;

use burn::{
    module::{Module, Param},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs},
    vit::{EncoderConfig, LAYERS, token, yes},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, Coverage, SaveType},
    },
    layers::{
        attention::Mask,
        conv::{Conv2d, ConvConfig},
        dropout::Dropout,
        encoder::EncoderLayer,
        linear::Linear,
        norm::LayerNorm,
    },
};

/// Sizes of an AST. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AstConfig {
    #[serde(flatten)]
    pub encoder: EncoderConfig,
    /// Mel bins, and time steps, of a patch.
    pub patch_size: usize,
    /// Mel bins from one patch to the next.
    pub frequency_stride: usize,
    /// Time steps from one patch to the next.
    pub time_stride: usize,
    /// `S`
    pub max_length: usize,
    /// `M`
    pub num_mel_bins: usize,
    /// Whether query, key and value have a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// `L`
    #[serde(skip)]
    pub num_labels: usize,
}

impl AstConfig {
    /// As fine-tuned on AudioSet: 87 M parameters.
    pub fn base() -> Self {
        Self {
            encoder: EncoderConfig::base(),
            patch_size: 16,
            frequency_stride: 10,
            time_stride: 10,
            max_length: 1024,
            num_mel_bins: 128,
            qkv_bias: true,
            num_labels: 527,
        }
    }

    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            encoder: EncoderConfig::tiny(),
            patch_size: 8,
            frequency_stride: 6,
            time_stride: 6,
            max_length: 20,
            num_mel_bins: 14,
            num_labels: 4,
            ..Self::base()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["ASTForAudioClassification"])?;
        let config = Self { num_labels: config::labels(value)?, ..config::parse(value)? };
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        self.encoder.check()?;
        config::size("patch_size", self.patch_size, 65_536)?;
        config::size("frequency_stride", self.frequency_stride, 65_536)?;
        config::size("time_stride", self.time_stride, 65_536)?;
        config::size("max_length", self.max_length, 1_048_576)?;
        config::size("num_mel_bins", self.num_mel_bins, 65_536)?;
        if self.patch_size > self.num_mel_bins.min(self.max_length) {
            let (patch, bins, length) = (self.patch_size, self.num_mel_bins, self.max_length);
            return Err(format!(
                "patch_size {patch} does not fit num_mel_bins {bins} and max_length {length}"
            ));
        }
        config::size("patches in num_mel_bins and max_length", self.patches(), 1 << 24)
    }

    /// `N`
    fn patches(&self) -> usize {
        let rows = (self.num_mel_bins - self.patch_size) / self.frequency_stride + 1;
        let columns = (self.max_length - self.patch_size) / self.time_stride + 1;
        rows * columns
    }

    pub fn init(&self, device: &Device) -> Ast {
        let (c, std) = (self.encoder.hidden_size, self.encoder.initializer_range);
        let patches = ConvConfig {
            stride: [self.frequency_stride, self.time_stride],
            std,
            ..ConvConfig::new(1, c, [self.patch_size; 2])
        };
        Ast {
            patches: patches.init(device),
            class_token: self.encoder.tokens(1, device),
            distillation_token: self.encoder.tokens(1, device),
            positions: self.encoder.tokens(self.patches() + 2, device),
            dropout: Dropout::new(self.encoder.hidden_dropout_prob),
            layers: self.encoder.layers([self.qkv_bias; 3], device),
            norm: self.encoder.norm(device),
            classifier_norm: self.encoder.norm(device),
            classifier: Linear::new(c, self.num_labels, std, device),
        }
    }
}

/// A spectrogram in, logits of its class out.
#[derive(Module, Debug)]
pub struct Ast {
    patches: Conv2d,
    /// `[1, 1, C]`
    class_token: Param<Tensor<3>>,
    /// `[1, 1, C]`: of DeiT, which it begins from; a second class token.
    distillation_token: Param<Tensor<3>>,
    /// `[1, T, C]`
    positions: Param<Tensor<3>>,
    dropout: Dropout,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    classifier_norm: LayerNorm,
    classifier: Linear,
}

impl Ast {
    /// `[B, S, M]`, of the configured size -> `[B, L]`
    pub fn forward(&self, spectrograms: Tensor<3>) -> Tensor<2> {
        let [b, ..] = spectrograms.dims();
        let images = spectrograms.swap_dims(1, 2).unsqueeze_dim(1); // [B, 1, M, S]
        let patches = self.patches.forward(images).flatten::<3>(2, 3).swap_dims(1, 2); // [B, N, C]
        let first =
            [&self.class_token, &self.distillation_token].map(|token| token.val().repeat_dim(0, b)); // [B, 1, C]
        let x = Tensor::cat([first.to_vec(), vec![patches]].concat(), 1); // [B, T, C]
        let x = self.dropout.forward(x + self.positions.val());
        let mask = Mask::default();
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
        let x = self.norm.forward(x.narrow(1, 0, 2)); // [B, 2, C]
        let x = (token(x.clone(), 0) + token(x, 1)) / 2.0; // [B, C]
        self.classifier.forward(self.classifier_norm.forward(x))
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                               field
    ("audio_spectrogram_transformer.embeddings.patch_embeddings.projection.", "patches."),
    ("audio_spectrogram_transformer.embeddings.cls_token",           "class_token"),
    ("audio_spectrogram_transformer.embeddings.distillation_token",  "distillation_token"),
    ("audio_spectrogram_transformer.embeddings.position_embeddings", "positions"),
    ("classifier.layernorm.",                                        "classifier_norm."),
    ("classifier.dense.",                                            "classifier."),
];

fn name(field: &str) -> Option<String> {
    rename(NAMES, field).or_else(|| {
        let name = rename(LAYERS, field)?;
        Some(format!("audio_spectrogram_transformer.{name}"))
    })
}

/// `transformers.ASTForAudioClassification`.
pub struct AstForAudioClassification {
    pub config: AstConfig,
    pub model: Ast,
}

impl AstForAudioClassification {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(AstConfig::from_json)?;
        let coverage = Coverage { ignored: &[], fresh: &[] };
        let model = tensors::fill(config.init(device), &source.weights()?, &coverage, name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for AstForAudioClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let expected = [None, Some(self.config.max_length), Some(self.config.num_mel_bins)];
        let spectrograms = inputs.floats("input_values", expected)?;
        Ok(vec![("logits", self.model.forward(spectrograms).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, name)
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
        let model = AstConfig::tiny().init(&device);
        let spectrograms = Tensor::random([2, 20, 14], Distribution::Default, &device);
        gradients::check(&model, model.forward(spectrograms));
    }
}
