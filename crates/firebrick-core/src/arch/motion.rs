//! A map of what moves unusually: convolutions over neighbouring frames of a video, a logit for every place.
//!
//! Convolutions alone, as in Long et al. 2014, <https://arxiv.org/abs/1411.4038>. No architecture of `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` frames, `H` rows, `W` columns, `C` channels.

use std::path::Path;

use burn::{module::Module, prelude::*};
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
        conv::{Conv2d, ConvConfig, ConvNorm},
        norm::After,
    },
};

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "firebrick-motion";

/// Sizes of a [`Motion`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionConfig {
    /// `T`, odd: the frame in the middle is the one that is judged.
    pub num_frames: usize,
    /// `C` of the two convolutions that halve the image, and of those after them.
    pub hidden_sizes: [usize; 2],
    /// Convolutions after them.
    pub num_hidden_layers: usize,
}

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl MotionConfig {
    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self { num_frames: 3, hidden_sizes: [4, 6], num_hidden_layers: 1 }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["FirebrickMotion"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    /// `config.json`.
    pub fn to_json(&self) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!(MODEL_TYPE);
        value["architectures"] = json!(["FirebrickMotion"]);
        value
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("num_frames", self.num_frames, 65)?;
        if self.num_frames.is_multiple_of(2) || self.num_frames < 3 {
            return Err(format!("num_frames is {}, not odd and 3 or more", self.num_frames));
        }
        for size in self.hidden_sizes {
            config::size("hidden_sizes", size, 4096)?;
        }
        config::size("num_hidden_layers", self.num_hidden_layers, 100)
    }

    pub fn init(&self, device: &Device) -> Motion {
        let conv = |width: usize, out: usize, kernel: usize, stride: usize| {
            let config = ConvConfig {
                stride: [stride; 2],
                padding: [(kernel / 2, kernel / 2); 2],
                std: (2.0 / (kernel * kernel * width) as f64).sqrt(),
                ..ConvConfig::new(width, out, [kernel; 2])
            };
            ConvNorm::new(config, EPS, MOMENTUM, device)
        };
        let [first, second] = self.hidden_sizes;
        // Differences of neighbours, the frame itself, and its rows.
        let mut convolutions =
            vec![conv(self.num_frames + 1, first, 5, 2), conv(first, second, 3, 2)];
        convolutions.extend((0..self.num_hidden_layers).map(|_| conv(second, second, 3, 1)));
        let places = ConvConfig { std: 0.01, ..ConvConfig::new(second, 1, [1, 1]) };
        Motion { convolutions, places: places.init(device) }
    }
}

/// Frames in, a logit for each place of the one in the middle out.
#[derive(Module, Debug)]
pub struct Motion {
    convolutions: Vec<ConvNorm>,
    places: Conv2d,
}

impl Motion {
    /// Normalised grey frames `[B, T, H, W]` -> logits `[B, H / 4, W / 4]`, sizes rounded up
    pub fn forward(&self, frames: Tensor<4>) -> Tensor<3> {
        let [b, t, h, w] = frames.dims();
        let later = frames.clone().narrow(1, 1, t - 1);
        let changes = later - frames.clone().narrow(1, 0, t - 1); // [B, T - 1, H, W]
        let middle = frames.narrow(1, t / 2, 1);
        let rows = Tensor::<1, Int>::arange(0..h as i64, &middle.device()).float();
        // What is far away is small: how high a place lies on the picture says how far.
        let rows = (rows * (2.0 / h as f64) - 1.0).reshape([1, 1, h, 1]).expand([b, 1, h, w]);
        let mut x = Tensor::cat(vec![changes, middle, rows], 1); // [B, T + 1, H, W]
        for convolution in &self.convolutions {
            x = convolution.forward(x, After::activation(Activation::Relu));
        }
        self.places.forward(x).squeeze_dim(1) // [B, H / 4, W / 4]
    }
}

/// A [`Motion`] with its configuration.
pub struct FirebrickMotion {
    pub config: MotionConfig,
    pub model: Motion,
}

impl FirebrickMotion {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(MotionConfig::from_json)?;
        let weights = source.weights()?;
        let all = Coverage { ignored: &[], fresh: &[] };
        let model = tensors::fill(config.init(device), &weights, &all, |f| Some(f.to_string()))?;
        Ok(Self { config, model })
    }
}

impl AnyModel for FirebrickMotion {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, Some(self.config.num_frames), None, None];
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
        let model = MotionConfig::tiny().init(&device);
        let x = Tensor::<4>::random([2, 3, 11, 9], Distribution::Normal(0.0, 1.0), &device);
        let logits = model.forward(x);
        assert_eq!(logits.dims(), [2, 3, 3]);
        let averages = ["running_mean", "running_var"];
        let of = |i: usize| averages.map(|name| format!("convolutions.{i}.normalization.{name}"));
        let frozen = [of(0), of(1), of(2)].concat();
        let frozen: Vec<&str> = frozen.iter().map(String::as_str).collect();
        arch::gradients::check_but(&model, logits, &frozen);
    }

    #[test]
    fn a_file_keeps_the_model() {
        let device = Device::flex();
        device.seed(5);
        let config = MotionConfig::tiny();
        let model = FirebrickMotion { model: config.init(&device), config: config.clone() };
        let x = Tensor::<4>::random([1, 3, 8, 8], Distribution::Normal(0.0, 1.0), &device);
        let expected = model.model.forward(x.clone()).into_data();
        let dir = tempfile::tempdir().unwrap();
        model.save(&dir.path().join("model.safetensors"), SaveType::F32).unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_json().to_string()).unwrap();
        let opened = FirebrickMotion::load(&Source::folder(dir.path()), &device).unwrap();
        let found = opened.model.forward(x).into_data();
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.0));
    }
}
