//! BC-ResNet: a classifier of short recordings, whose residuals are over frequency and time and, averaged over
//! frequency, over time alone.
//!
//! Paper: Kim et al. 2021, "Broadcasted Residual Learning for Efficient Keyword Spotting",
//! <https://arxiv.org/abs/2106.04140>. Reference code: <https://github.com/Qualcomm-AI-research/bcresnet>. No
//! architecture of `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` frames, `M` mel bands, `C` channels, `F` rows of frequency, `L` labels.

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
        dropout::Dropout,
        linear::Linear,
        norm::{After, BatchNorm},
        pool::global_average,
    },
};

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "firebrick-bcresnet";

/// Sizes of a BC-ResNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BcResNetConfig {
    /// `M`: a multiple of 8 times `sub_bands`.
    pub num_mel_bins: usize,
    /// `C` of the first stage, an even number; the others have 1.5, 2 and 2.5 times as many. 8 times the paper's scale.
    pub hidden_size: usize,
    /// Blocks of each of the four stages.
    pub depths: [usize; 4],
    /// Parts of the frequencies that are normalised by themselves (Chang et al. 2021,
    /// <https://arxiv.org/abs/2103.13620>).
    pub sub_bands: usize,
    pub dropout: f64,
    /// `L`
    #[serde(skip)]
    pub num_labels: usize,
}

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl BcResNetConfig {
    /// BC-ResNet-1: some 10,000 parameters.
    pub fn one() -> Self {
        Self {
            num_mel_bins: 40,
            hidden_size: 8,
            depths: [2, 2, 4, 4],
            sub_bands: 5,
            dropout: 0.1,
            num_labels: 12,
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::one`].
    pub fn tiny() -> Self {
        let one = Self::one();
        Self {
            num_mel_bins: 16,
            hidden_size: 4,
            depths: [1; 4],
            sub_bands: 2,
            num_labels: 3,
            ..one
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["FirebrickBcResNet"])?;
        let config = Self { num_labels: config::labels(value)?, ..config::parse(value)? };
        config.check()?;
        Ok(config)
    }

    /// `config.json`; `labels` are the names of the classes.
    pub fn to_json(&self, labels: &[String]) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!(MODEL_TYPE);
        value["architectures"] = json!(["FirebrickBcResNet"]);
        let names = labels.iter().enumerate().map(|(i, label)| (i.to_string(), json!(label)));
        value["id2label"] = Value::Object(names.collect());
        value
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("num_mel_bins", self.num_mel_bins, 4096)?;
        config::size("hidden_size", self.hidden_size, 4096)?;
        config::size("sub_bands", self.sub_bands, 64)?;
        config::divides("hidden_size", self.hidden_size, "2", 2)?;
        let rows = 8 * self.sub_bands;
        config::divides("num_mel_bins", self.num_mel_bins, "8 times sub_bands,", rows)?;
        for depth in self.depths {
            config::size("depths", depth, 64)?;
        }
        config::probability("dropout", self.dropout)
    }

    pub fn init(&self, device: &Device) -> BcResNet {
        let base = self.hidden_size;
        let widths = [base, base * 3 / 2, base * 2, base * 5 / 2];
        let stem = ConvConfig {
            stride: [2, 1],
            padding: [(2, 2); 2],
            std: (2.0f64 / 25.0).sqrt(),
            ..ConvConfig::new(1, 2 * base, [5, 5])
        };
        let mut width = 2 * base;
        let mut stages = vec![];
        for (stage, (out, depth)) in widths.into_iter().zip(self.depths).enumerate() {
            for index in 0..depth {
                let stride = if index == 0 && matches!(stage, 1 | 2) { 2 } else { 1 };
                stages.push(self.block(width, out, stride, 1 << stage, index == 0, device));
                width = out;
            }
        }
        let rows = self.num_mel_bins / 8;
        let gather = ConvConfig {
            padding: [(0, 0), (2, 2)],
            groups: width,
            bias: false,
            std: (1.0 / (rows * 5) as f64).sqrt(),
            ..ConvConfig::new(width, width, [rows, 5])
        };
        BcResNet {
            stem: ConvNorm::new(stem, EPS, MOMENTUM, device),
            blocks: stages,
            gather: gather.init(device),
            last: pointwise(width, 4 * base, device),
            dropout: Dropout::new(self.dropout),
            classifier: Linear::new(4 * base, self.num_labels, 0.05, device),
        }
    }

    fn block(
        &self,
        width: usize,
        out: usize,
        stride: usize,
        dilation: usize,
        first: bool,
        device: &Device,
    ) -> Block {
        let frequency = ConvConfig {
            stride: [stride, 1],
            padding: [(1, 1), (0, 0)],
            groups: out,
            bias: false,
            std: (1.0f64 / 3.0).sqrt(),
            ..ConvConfig::new(out, out, [3, 1])
        };
        let time = ConvConfig {
            padding: [(0, 0), (dilation, dilation)],
            dilation: [1, dilation],
            groups: out,
            std: (2.0f64 / 3.0).sqrt(),
            ..ConvConfig::new(out, out, [1, 3])
        };
        let mix =
            ConvConfig { std: (1.0 / out as f64).sqrt(), ..ConvConfig::new(out, out, [1, 1]) };
        Block {
            widen: first.then(|| pointwise(width, out, device)),
            frequency: frequency.init(device),
            frequency_norm: BatchNorm::new(out * self.sub_bands, EPS, MOMENTUM, device),
            time: ConvNorm::new(time, EPS, MOMENTUM, device),
            mix: mix.init(device),
            dropout: Dropout::new(self.dropout),
            sub_bands: self.sub_bands,
        }
    }
}

fn pointwise(width: usize, out: usize, device: &Device) -> ConvNorm {
    let config =
        ConvConfig { std: (2.0 / width as f64).sqrt(), ..ConvConfig::new(width, out, [1, 1]) };
    ConvNorm::new(config, EPS, MOMENTUM, device)
}

/// Spectrograms in, logits of their classes out.
#[derive(Module, Debug)]
pub struct BcResNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
    /// All rows of frequency to one.
    gather: Conv2d,
    last: ConvNorm,
    dropout: Dropout,
    classifier: Linear,
}

impl BcResNet {
    /// `[B, T, M]` -> logits `[B, L]`
    pub fn forward(&self, frames: Tensor<3>) -> Tensor<2> {
        let relu = || After::activation(Activation::Relu);
        let x = frames.swap_dims(1, 2).unsqueeze_dim::<4>(1); // [B, 1, M, T]
        let x = self.stem.forward(x, relu()); // [B, 2 C, M / 2, T]
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x)); // [B, 5/2 C, M / 8, T]
        let x = self.gather.forward(x); // [B, 5/2 C, 1, T]
        let x = global_average(self.last.forward(x, relu())); // [B, 4 C]
        self.classifier.forward(self.dropout.forward(x))
    }
}

/// A convolution over frequency, then one over time of the average frequency, which is added to all frequencies.
#[derive(Module, Debug)]
struct Block {
    /// In the first block of a stage, which has no shortcut.
    widen: Option<ConvNorm>,
    frequency: Conv2d,
    frequency_norm: BatchNorm,
    time: ConvNorm,
    mix: Conv2d,
    dropout: Dropout,
    #[module(skip)]
    sub_bands: usize,
}

impl Block {
    /// `[B, C, F, T]` -> `[B, C', F', T]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (input, shortcut) = match &self.widen {
            Some(widen) => (widen.forward(x, After::activation(Activation::Relu)), None),
            None => (x.clone(), Some(x)),
        };
        let x = self.frequency.forward(input);
        let [b, c, f, t] = x.dims();
        let parts = [b, c * self.sub_bands, f / self.sub_bands, t];
        let x = self.frequency_norm.forward(x.reshape(parts), After::default());
        let x = x.reshape([b, c, f, t]);
        let over_time =
            self.time.forward(x.clone().mean_dim(2), After::activation(Activation::Silu));
        let over_time = self.dropout.forward(self.mix.forward(over_time)); // [B, C, 1, T]
        let x = x + over_time;
        let x = match shortcut {
            Some(shortcut) => x + shortcut,
            None => x,
        };
        Activation::Relu.forward(x)
    }
}

/// A [`BcResNet`] with its configuration.
pub struct FirebrickBcResNet {
    pub config: BcResNetConfig,
    pub model: BcResNet,
}

impl FirebrickBcResNet {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(BcResNetConfig::from_json)?;
        let weights = source.weights()?;
        let all = Coverage { ignored: &[], fresh: &[] };
        let model = tensors::fill(config.init(device), &weights, &all, |f| Some(f.to_string()))?;
        Ok(Self { config, model })
    }
}

impl AnyModel for FirebrickBcResNet {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, None, Some(self.config.num_mel_bins)];
        let frames = inputs.floats("input_features", axes)?;
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
    fn every_parameter_has_a_gradient_and_a_file_keeps_it() {
        let device = Device::flex().autodiff();
        device.seed(3);
        let config = BcResNetConfig::tiny();
        let model = config.init(&device);
        let x = Tensor::<3>::random([3, 9, 16], Distribution::Normal(0.0, 1.0), &device);
        let logits = model.forward(x.clone());
        assert_eq!(logits.dims(), [3, 3]);
        arch::gradients::check(&model, logits);

        let dir = tempfile::tempdir().unwrap();
        let model = FirebrickBcResNet { model: model.valid(), config: config.clone() };
        model.save(&dir.path().join("model.safetensors"), SaveType::F32).unwrap();
        let labels = ["a", "b", "c"].map(String::from);
        std::fs::write(dir.path().join("config.json"), config.to_json(&labels).to_string())
            .unwrap();
        let opened = FirebrickBcResNet::load(&Source::folder(dir.path()), &device.inner()).unwrap();
        let [saved, found] =
            [model, opened].map(|m| m.model.forward(x.clone().inner()).into_data());
        saved.assert_approx_eq::<f32>(&found, Tolerance::absolute(0.0));
    }

    /// The paper's table 1: 9.2 k parameters without the biases that its code gives the time convolutions.
    #[test]
    fn bc_resnet_1_is_as_large_as_the_papers() {
        let model = BcResNetConfig::one().init(&Device::flex());
        let count = model.num_params();
        assert!((9_000..11_500).contains(&count), "{count}");
    }
}
