//! Deep Speech 2: convolutions over a spectrogram, then recurrent layers, then labels frame by frame for CTC.
//!
//! Paper: Amodei et al. 2015, <https://arxiv.org/abs/1512.02595>. No architecture of `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` frames, `S` steps (`T / 4`, rounded up), `M` mel bands, `C` channels, `H` units of a direction, `V`
//! labels with the blank, which is 0.

use std::path::Path;

use burn::{module::Module, prelude::*, tensor::TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        tensors::{self, Coverage, SaveType},
    },
    layers::{
        activation::Activation,
        conv::{ConvConfig, ConvNorm},
        dropout::Dropout,
        linear::Linear,
        norm::After,
        rnn::{Mode, Rnn, RnnConfig},
    },
};

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "firebrick-deep-speech";

/// Sizes of a [`DeepSpeech`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeepSpeechConfig {
    /// `M`
    pub num_mel_bins: usize,
    /// `V`
    pub vocab_size: usize,
    /// `C` of both convolutions.
    pub conv_channels: usize,
    pub mode: Mode,
    /// `H`
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub dropout: f64,
}

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl DeepSpeechConfig {
    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            num_mel_bins: 6,
            vocab_size: 5,
            conv_channels: 3,
            mode: Mode::Gru,
            hidden_size: 4,
            num_hidden_layers: 1,
            dropout: 0.0,
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["FirebrickDeepSpeech"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    /// `config.json`.
    pub fn to_json(&self) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!(MODEL_TYPE);
        value["architectures"] = json!(["FirebrickDeepSpeech"]);
        value
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("num_mel_bins", self.num_mel_bins, 4096)?;
        config::size("vocab_size", self.vocab_size, 1_000_000)?;
        config::size("conv_channels", self.conv_channels, 4096)?;
        config::size("hidden_size", self.hidden_size, 16_384)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 100)?;
        config::probability("dropout", self.dropout)
    }

    pub fn init(&self, device: &Device) -> DeepSpeech {
        let conv = |width: usize| {
            let config = ConvConfig {
                stride: [2, 2],
                padding: [(2, 2); 2],
                std: (2.0 / (25 * width) as f64).sqrt(),
                ..ConvConfig::new(width, self.conv_channels, [5, 5])
            };
            ConvNorm::new(config, EPS, MOMENTUM, device)
        };
        let h = self.hidden_size;
        let wide = self.conv_channels * self.num_mel_bins.div_ceil(4);
        let rnn = RnnConfig {
            num_layers: self.num_hidden_layers,
            bidirectional: true,
            dropout: self.dropout,
            ..RnnConfig::new(self.mode, h, h)
        };
        DeepSpeech {
            convolutions: vec![conv(1), conv(self.conv_channels)],
            project: Linear::new(wide, h, (2.0 / wide as f64).sqrt(), device),
            rnn: rnn.init(device),
            dropout: Dropout::new(self.dropout),
            labels: Linear::new(2 * h, self.vocab_size, 0.05, device),
        }
    }
}

/// Spectrograms in, logits of labels out.
#[derive(Module, Debug)]
pub struct DeepSpeech {
    convolutions: Vec<ConvNorm>,
    project: Linear,
    rnn: Rnn,
    dropout: Dropout,
    labels: Linear,
}

/// `S` of `frames` frames.
pub fn steps(frames: usize) -> usize {
    frames.div_ceil(2).div_ceil(2)
}

impl DeepSpeech {
    /// - `frames`: `[B, T, M]`, of which row `b` has the first `lengths[b]`
    /// - returns logits `[B, S, V]`, and how many steps each row has
    pub fn forward(&self, frames: Tensor<3>, lengths: &[usize]) -> (Tensor<3>, Vec<usize>) {
        let mut lengths = lengths.to_vec();
        let x = frames.swap_dims(1, 2).unsqueeze_dim::<4>(1); // [B, 1, M, T]
        let mut x = silence(x, &lengths);
        for convolution in &self.convolutions {
            x = convolution.forward(x, After::activation(Activation::Relu));
            lengths.iter_mut().for_each(|length| *length = length.div_ceil(2));
            x = silence(x, &lengths);
        }
        let [b, c, m, s] = x.dims(); // [B, C, M / 4, S]
        let x = x.permute([0, 3, 1, 2]).reshape([b, s, c * m]);
        let x = self.dropout.forward(Activation::Relu.forward(self.project.forward(x))); // [B, S, H]
        let pad: Vec<bool> = inside(&lengths, s).into_iter().map(|inside| !inside).collect();
        let pad = Tensor::from_data(TensorData::new(pad, [b, s]), &x.device());
        let (x, _) = self.rnn.forward(x, None, Some(&pad)); // [B, S, 2 H]
        (self.labels.forward(self.dropout.forward(x)), lengths)
    }
}

/// Behind its end a row is as silent as if it were alone: `[B, C, M, T]` -> `[B, C, M, T]`
fn silence(x: Tensor<4>, lengths: &[usize]) -> Tensor<4> {
    let [b, _, _, t] = x.dims();
    let kept = inside(lengths, t).into_iter().map(|inside| f32::from(u8::from(inside)));
    let kept = TensorData::new(kept.collect::<Vec<f32>>(), [b, 1, 1, t]);
    let kept = Tensor::from_data(kept, &x.device());
    x * kept
}

/// Whether each of `t` places of each row lies within its length.
fn inside(lengths: &[usize], t: usize) -> Vec<bool> {
    lengths.iter().flat_map(|length| (0..t).map(move |i| i < *length)).collect()
}

/// A [`DeepSpeech`] with its configuration.
pub struct FirebrickDeepSpeech {
    pub config: DeepSpeechConfig,
    pub model: DeepSpeech,
}

impl FirebrickDeepSpeech {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(DeepSpeechConfig::from_json)?;
        let weights = source.weights()?;
        let all = Coverage { ignored: &[], fresh: &[] };
        let model = tensors::fill(config.init(device), &weights, &all, |f| Some(f.to_string()))?;
        Ok(Self { config, model })
    }
}

impl AnyModel for FirebrickDeepSpeech {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, None, Some(self.config.num_mel_bins)];
        let frames = inputs.floats("input_features", axes)?;
        let [b, t, _] = frames.dims();
        let (logits, _) = self.model.forward(frames, &vec![t; b]);
        Ok(vec![("logits", logits.into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, |field| Some(field.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;
    use crate::arch;

    #[test]
    fn every_parameter_has_a_gradient() {
        let device = Device::flex().autodiff();
        device.seed(2);
        let model = DeepSpeechConfig::tiny().init(&device);
        let x = Tensor::<3>::random([2, 11, 6], Distribution::Normal(0.0, 1.0), &device);
        let (logits, steps) = model.forward(x, &[11, 7]);
        assert_eq!((logits.dims(), steps), ([2, 3, 5], vec![3, 2]));
        let averages = ["running_mean", "running_var"];
        let of = |i: usize| averages.map(|name| format!("convolutions.{i}.normalization.{name}"));
        let frozen = [of(0), of(1)].concat();
        let frozen: Vec<&str> = frozen.iter().map(String::as_str).collect();
        arch::gradients::check_but(&model, logits, &frozen);
    }

    /// What a recording is batched with does not change what is heard in it; a file keeps the model.
    #[test]
    fn padding_is_invisible() {
        let device = Device::flex();
        device.seed(5);
        let config = DeepSpeechConfig::tiny();
        let model = FirebrickDeepSpeech { model: config.init(&device), config: config.clone() };
        let x = Tensor::<3>::random([1, 7, 6], Distribution::Normal(0.0, 1.0), &device);
        let (alone, _) = model.model.forward(x.clone(), &[7]);
        let noise = Tensor::<3>::random([1, 4, 6], Distribution::Normal(0.0, 1.0), &device);
        let other = Tensor::<3>::random([1, 11, 6], Distribution::Normal(0.0, 1.0), &device);
        let longer = Tensor::cat(vec![x.clone(), noise], 1);
        let (together, _) = model.model.forward(Tensor::cat(vec![other, longer], 0), &[11, 7]);
        let together = together.slice([1..2, 0..2]).into_data();
        together.assert_approx_eq::<f32>(&alone.clone().into_data(), Tolerance::absolute(1e-5));

        let dir = tempfile::tempdir().unwrap();
        model.save(&dir.path().join("model.safetensors"), SaveType::F32).unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_json().to_string()).unwrap();
        let opened = FirebrickDeepSpeech::load(&Source::folder(dir.path()), &device).unwrap();
        let found = opened.model.forward(x, &[7]).0.into_data();
        found.assert_approx_eq::<f32>(&alone.into_data(), Tolerance::absolute(0.0));
    }
}
