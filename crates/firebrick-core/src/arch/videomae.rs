//! VideoMAE: a ViT over tubelets, patches of a few frames each.
//!
//! Paper: Tong et al. 2022, <https://arxiv.org/abs/2203.12602>.
//! Reference code: `modeling_videomae.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `F` frames, `I` channels of a frame, `T` tubelets, `C` channels (`hidden_size`), `L` labels.

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    image::{self, Head},
    inputs::{InputError, Inputs},
    vit::{EncoderConfig, LAYERS, check_grid, token, yes},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, SaveType},
    },
    layers::{
        attention::Mask,
        encoder::EncoderLayer,
        linear::{Linear, linear},
        norm::LayerNorm,
        patch::{grid, patches},
        position::sinusoids,
    },
};

/// Sizes of a VideoMAE. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoMaeConfig {
    #[serde(flatten)]
    pub encoder: EncoderConfig,
    /// Rows and columns of a frame.
    #[serde(deserialize_with = "config::pair")]
    pub image_size: [usize; 2],
    #[serde(deserialize_with = "config::pair")]
    pub patch_size: [usize; 2],
    /// `I`
    pub num_channels: usize,
    /// `F`
    pub num_frames: usize,
    /// Frames of a tubelet.
    pub tubelet_size: usize,
    /// Whether query and value have a bias; `qkv_bias` in older files. The key has none.
    #[serde(default = "yes")]
    pub qv_bias: bool,
    /// Whether the head reads the mean of all tubelets; else the first.
    #[serde(default = "yes")]
    pub use_mean_pooling: bool,
    /// `L`
    #[serde(skip)]
    pub num_labels: usize,
}

impl VideoMaeConfig {
    /// As fine-tuned on Kinetics-400: 86 M parameters.
    pub fn base() -> Self {
        Self {
            encoder: EncoderConfig::base(),
            image_size: [224; 2],
            patch_size: [16; 2],
            num_channels: 3,
            num_frames: 16,
            tubelet_size: 2,
            qv_bias: true,
            use_mean_pooling: true,
            num_labels: 400,
        }
    }

    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            encoder: EncoderConfig::tiny(),
            image_size: [16; 2],
            patch_size: [8; 2],
            num_frames: 4,
            num_labels: 4,
            ..Self::base()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["VideoMAEForVideoClassification"])?;
        let mut value = value.clone();
        if let Some(bias) = value.get("qkv_bias").cloned() {
            value["qv_bias"] = bias;
        }
        let config = Self { num_labels: config::labels(&value)?, ..config::parse(&value)? };
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        self.encoder.check()?;
        config::size("num_channels", self.num_channels, 65_536)?;
        config::size("num_frames", self.num_frames, 65_536)?;
        config::size("tubelet_size", self.tubelet_size, 65_536)?;
        check_grid(self.image_size, self.patch_size)?;
        config::size("tubelets in num_frames", self.num_frames / self.tubelet_size, 65_536)?;
        // The table of positions is not in the file, so that no size of the file speaks for it.
        let table = self.tubelets() * self.encoder.hidden_size;
        config::size("tubelets times hidden_size", table, 1 << 25)
    }

    /// `T`
    fn tubelets(&self) -> usize {
        let [rows, columns] = grid(self.image_size, self.patch_size);
        self.num_frames / self.tubelet_size * rows * columns
    }

    pub fn init(&self, device: &Device) -> VideoMae {
        let (c, std) = (self.encoder.hidden_size, self.encoder.initializer_range);
        let [p, q] = self.patch_size;
        let shape = [c, self.num_channels, self.tubelet_size, p, q];
        VideoMae {
            tubelets: TubeletEmbedding {
                weight: Initializer::Normal { mean: 0.0, std }.init(shape, device),
                bias: Initializer::Zeros.init([c], device),
            },
            positions: positions(self.tubelets(), c, device),
            layers: self.encoder.layers([self.qv_bias, false, self.qv_bias], device),
            norm: match self.use_mean_pooling {
                // The reference gives this one its own epsilon.
                true => Norm::Mean(LayerNorm::new(c, 1e-5, device)),
                false => Norm::First(self.encoder.norm(device)),
            },
            classifier: Linear::new(c, self.num_labels, std, device),
        }
    }
}

/// Sines in the even channels, cosines in the odd ones: `[1, T, C]`
fn positions(tubelets: usize, channels: usize, device: &Device) -> Tensor<3> {
    let half = channels.div_ceil(2);
    let table = sinusoids(0..tubelets, 2 * half, channels as f64 / 2.0, device);
    let pairs = table.reshape([tubelets, 2, half]).swap_dims(1, 2);
    pairs.reshape([1, tubelets, 2 * half]).narrow(2, 0, channels)
}

/// A clip in, logits of its class out.
#[derive(Module, Debug)]
pub struct VideoMae {
    tubelets: TubeletEmbedding,
    /// `[1, T, C]`; not learned.
    positions: Tensor<3>,
    layers: Vec<EncoderLayer>,
    norm: Norm,
    pub(super) classifier: Linear,
}

/// What the head reads.
#[derive(Module, Debug)]
enum Norm {
    /// The mean of all tokens, then normed.
    Mean(LayerNorm),
    /// The first token.
    First(LayerNorm),
}

impl VideoMae {
    /// `[B, F, I, H, W]`, of the configured size -> `[B, L]`
    pub fn forward(&self, clips: Tensor<5>) -> Tensor<2> {
        let x = self.tubelets.forward(clips) + self.positions.clone(); // [B, T, C]
        let mask = Mask::default();
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
        let x = match &self.norm {
            Norm::Mean(norm) => norm.forward(x.mean_dim(1).squeeze_dim::<2>(1)),
            Norm::First(norm) => norm.forward(token(x, 0)),
        }; // [B, C]
        self.classifier.forward(x)
    }
}

/// One vector a tubelet. PyTorch has it as a convolution whose stride is its kernel.
#[derive(Module, Debug)]
struct TubeletEmbedding {
    /// `[C, I, frames, rows, columns]`
    weight: Param<Tensor<5>>,
    bias: Param<Tensor<1>>,
}

impl TubeletEmbedding {
    /// `[B, F, I, H, W]` -> `[B, T, C]`, by time, then row by row
    fn forward(&self, clips: Tensor<5>) -> Tensor<3> {
        let [b, frames, i, rows, columns] = clips.dims();
        let weight = self.weight.val();
        let [c, _, f, p, q] = weight.dims();
        let times = frames / f;
        // The frames of a tubelet become channels of one image.
        let images = clips
            .narrow(1, 0, times * f)
            .reshape([b * times, f, i, rows * columns])
            .swap_dims(1, 2)
            .reshape([b * times, i * f, rows, columns]);
        let cut = patches(images, [p, q]); // [B * times, N, I * frames * p * q]
        let [_, n, _] = cut.dims();
        let width = i * f * p * q;
        let weight = weight.reshape([c, width]).transpose();
        linear(cut.reshape([b, times * n, width]), weight, Some(self.bias.val()))
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                                 field
    ("videomae.embeddings.patch_embeddings.projection.",          "tubelets."),
    ("videomae.encoder.layer.{}.attention.attention.q_bias",      "layers.{}.attention.query.bias"),
    ("videomae.encoder.layer.{}.attention.attention.v_bias",      "layers.{}.attention.value.bias"),
    ("fc_norm.",                                                  "norm.Mean."),
    ("videomae.layernorm.",                                       "norm.First."),
    ("classifier.",                                               "classifier."),
];

/// The class that masked pretraining saves.
const PRETRAINED: &str = "VideoMAEForPreTraining";
/// What it has beside the encoder. An adapter of a classifier may have such a base.
const DECODER: &[&str] = &["decoder.", "encoder_to_decoder.", "mask_token"];

pub(super) fn checkpoint_name(field: &str) -> Option<String> {
    rename(NAMES, field).or_else(|| Some(format!("videomae.{}", rename(LAYERS, field)?)))
}

/// `transformers.VideoMAEForVideoClassification`.
pub struct VideoMaeForVideoClassification {
    pub config: VideoMaeConfig,
    pub model: VideoMae,
}

impl VideoMaeForVideoClassification {
    /// With a fresh head also what was only pretrained, whose decoder is left out.
    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        let (mut config, pretrained) = source.config_as(|value| {
            let mut value = value.clone();
            let pretrained = value["architectures"][0] == PRETRAINED && head != Head::Own;
            if pretrained {
                value["architectures"] = json!([]);
            }
            Ok((VideoMaeConfig::from_json(&value)?, pretrained))
        })?;
        config.num_labels = head.labels(config.num_labels);
        let model = config.init(device);
        let model = if pretrained {
            image::fill_but(
                source,
                model,
                &["classifier.", "norm.Mean."],
                DECODER,
                checkpoint_name,
            )?
        } else {
            image::fill(source, model, head, DECODER, checkpoint_name)?
        };
        Ok(Self { config, model })
    }
}

impl AnyModel for VideoMaeForVideoClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let VideoMaeConfig { num_frames, num_channels, image_size: [rows, columns], .. } =
            self.config;
        let expected = [None, Some(num_frames), Some(num_channels), Some(rows), Some(columns)];
        let clips = inputs.floats("pixel_values", expected)?;
        Ok(vec![("logits", self.model.forward(clips).into_data())])
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
        for use_mean_pooling in [false, true] {
            let model = VideoMaeConfig { use_mean_pooling, ..VideoMaeConfig::tiny() }.init(&device);
            let clips = Tensor::random([2, 4, 3, 16, 16], Distribution::Default, &device);
            gradients::check(&model, model.forward(clips));
        }
    }

    #[test]
    fn positions_alternate_sine_and_cosine() {
        let table = positions(3, 5, &Device::flex()).into_data().try_into_vec::<f32>().unwrap();
        // Row 2: the angles are 2, 2 / 10000^(2/5) and 2 / 10000^(4/5); the last cosine has no channel.
        let [a, b, c] = [0.0, 2.0, 4.0].map(|i: f32| 2.0 / 10_000f32.powf(i / 5.0));
        let expected = [a.sin(), a.cos(), b.sin(), b.cos(), c.sin()];
        for (found, expected) in table[10..].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }
}
