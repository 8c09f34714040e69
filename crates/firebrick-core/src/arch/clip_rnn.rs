//! What is done in a short video: convolutions over every frame, a recurrent layer over their features, labels.
//!
//! As LRCN, Donahue et al. 2014, <https://arxiv.org/abs/1411.4389>, small and bidirectional. No architecture of
//! `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` frames, `I` channels of a frame, `H` rows, `W` columns, `C` channels, `U` units of a direction, `L`
//! labels.

use std::path::Path;

use burn::{module::Module, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    image::{self, Head},
    inputs::{InputError, Inputs},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        tensors::{self, SaveType},
    },
    layers::{
        activation::Activation,
        conv::{ConvConfig, ConvNorm},
        dropout::Dropout,
        linear::Linear,
        norm::After,
        pool::global_average,
        rnn::{Mode, Rnn, RnnConfig},
    },
};

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "firebrick-clip-rnn";

/// Sizes of a [`ClipRnn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipRnnConfig {
    /// `I` without the difference from the frame before, which is added: 1 or 3.
    pub num_channels: usize,
    /// `T` that a video is brought to.
    pub num_frames: usize,
    /// `C` of each convolution; all halve the image.
    pub hidden_sizes: Vec<usize>,
    /// `U`
    pub hidden_size: usize,
    pub dropout: f64,
}

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl ClipRnnConfig {
    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            num_channels: 1,
            num_frames: 3,
            hidden_sizes: vec![4, 6],
            hidden_size: 5,
            dropout: 0.0,
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["FirebrickClipRnn"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    /// `config.json`.
    pub fn to_json(&self, labels: &[String]) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!(MODEL_TYPE);
        value["architectures"] = json!(["FirebrickClipRnn"]);
        let names = labels.iter().enumerate().map(|(i, label)| (i.to_string(), json!(label)));
        value["id2label"] = Value::Object(names.collect());
        value
    }

    pub fn check(&self) -> Result<(), String> {
        if ![1, 3].contains(&self.num_channels) {
            return Err(format!("num_channels is {}, neither 1 nor 3", self.num_channels));
        }
        config::size("num_frames", self.num_frames, 1024)?;
        config::size("hidden_sizes (their number)", self.hidden_sizes.len(), 12)?;
        for size in &self.hidden_sizes {
            config::size("hidden_sizes", *size, 4096)?;
        }
        config::size("hidden_size", self.hidden_size, 16_384)?;
        config::probability("dropout", self.dropout)
    }

    /// With fresh weights, for so many labels.
    pub fn init(&self, labels: usize, device: &Device) -> ClipRnn {
        let mut width = self.num_channels + 1;
        let mut convolutions = vec![];
        for (i, out) in self.hidden_sizes.iter().enumerate() {
            let kernel = if i == 0 { 5 } else { 3 };
            let config = ConvConfig {
                stride: [2, 2],
                padding: [(kernel / 2, kernel / 2); 2],
                std: (2.0 / (kernel * kernel * width) as f64).sqrt(),
                ..ConvConfig::new(width, *out, [kernel; 2])
            };
            convolutions.push(ConvNorm::new(config, EPS, MOMENTUM, device));
            width = *out;
        }
        let rnn =
            RnnConfig { bidirectional: true, ..RnnConfig::new(Mode::Gru, width, self.hidden_size) };
        let units = 2 * self.hidden_size;
        ClipRnn {
            convolutions,
            rnn: rnn.init(device),
            dropout: Dropout::new(self.dropout),
            classifier: Linear::new(units, labels, (units as f64).powf(-0.5), device),
        }
    }
}

/// Frames in, logits of labels out.
#[derive(Module, Debug)]
pub struct ClipRnn {
    convolutions: Vec<ConvNorm>,
    rnn: Rnn,
    dropout: Dropout,
    pub(super) classifier: Linear,
}

impl ClipRnn {
    /// Normalised frames `[B, T, I, H, W]` -> logits `[B, L]`
    pub fn forward(&self, frames: Tensor<5>) -> Tensor<2> {
        let [b, t, i, h, w] = frames.dims();
        let mut change = frames.clone().narrow(1, 0, 1).zeros_like(); // [B, 1, I, H, W]
        if t > 1 {
            let later = frames.clone().narrow(1, 1, t - 1);
            change = Tensor::cat(vec![change, later - frames.clone().narrow(1, 0, t - 1)], 1);
        }
        let change = change.mean_dim(2); // [B, T, 1, H, W]
        let x = Tensor::cat(vec![frames, change], 2);
        let mut x = x.reshape([b * t, i + 1, h, w]);
        for convolution in &self.convolutions {
            x = convolution.forward(x, After::activation(Activation::Relu));
        }
        let x = global_average(x); // [B T, C]
        let [_, c] = x.dims();
        let x = self.dropout.forward(x.reshape([b, t, c]));
        let (x, _) = self.rnn.forward(x, None, None); // [B, T, 2 U]
        let x = x.mean_dim(1).squeeze_dim::<2>(1);
        self.classifier.forward(self.dropout.forward(x))
    }
}

/// A [`ClipRnn`] with its configuration.
pub struct FirebrickClipRnn {
    pub config: ClipRnnConfig,
    pub model: ClipRnn,
}

impl FirebrickClipRnn {
    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        let (config, labels) = source
            .config_as(|value| Ok((ClipRnnConfig::from_json(value)?, config::labels(value)?)))?;
        let model = config.init(head.labels(labels), device);
        let model = image::fill(source, model, head, &[], |field| Some(field.to_string()))?;
        Ok(Self { config, model })
    }
}

impl AnyModel for FirebrickClipRnn {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, None, Some(self.config.num_channels), None, None];
        let frames = inputs.floats("pixel_values", axes)?;
        Ok(vec![("logits", self.model.forward(frames).into_data())])
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
        let model = ClipRnnConfig::tiny().init(4, &device);
        let x = Tensor::<5>::random([2, 3, 1, 9, 8], Distribution::Normal(0.0, 1.0), &device);
        let logits = model.forward(x);
        assert_eq!(logits.dims(), [2, 4]);
        let averages = ["running_mean", "running_var"];
        let of = |i: usize| averages.map(|name| format!("convolutions.{i}.normalization.{name}"));
        let frozen = [of(0), of(1)].concat();
        let frozen: Vec<&str> = frozen.iter().map(String::as_str).collect();
        arch::gradients::check_but(&model, logits, &frozen);
    }

    #[test]
    fn a_file_keeps_the_model() {
        let device = Device::flex();
        device.seed(5);
        let config = ClipRnnConfig::tiny();
        let model = FirebrickClipRnn { model: config.init(2, &device), config: config.clone() };
        let x = Tensor::<5>::random([1, 3, 1, 8, 8], Distribution::Normal(0.0, 1.0), &device);
        let expected = model.model.forward(x.clone()).into_data();
        let dir = tempfile::tempdir().unwrap();
        model.save(&dir.path().join("model.safetensors"), SaveType::F32).unwrap();
        let labels = ["a".to_string(), "b".to_string()];
        std::fs::write(dir.path().join("config.json"), config.to_json(&labels).to_string())
            .unwrap();
        let opened =
            FirebrickClipRnn::load(&Source::folder(dir.path()), Head::Own, &device).unwrap();
        let found = opened.model.forward(x).into_data();
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.0));
    }
}
