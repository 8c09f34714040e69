//! Wav2Vec 2.0 with a head that spells: convolutions over a waveform, a Transformer encoder, letters by CTC.
//!
//! Paper: Baevski et al. 2020, <https://arxiv.org/abs/2006.11477>.
//! Reference code: `modeling_wav2vec2.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `S` samples of sound, `T` frames, `C` channels (`hidden_size`), `K` places of the positional
//! window, `V` vocabulary.

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::TensorData,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, Coverage, SaveType},
    },
    layers::{
        activation::Activation,
        attention::{AttentionConfig, Mask},
        conv::{Conv1d, ConvConfig},
        dropout::Dropout,
        encoder::{EncoderLayer, EncoderLayerConfig},
        fused,
        linear::Linear,
        norm::{GroupNorm, LayerNorm},
        spec_augment::SpecAugment,
    },
};

/// Sizes of a Wav2Vec 2.0. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wav2Vec2Config {
    pub vocab_size: usize,
    /// `C`: must be divisible by `num_attention_heads`.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    /// Channels, window and step of each convolution over the waveform.
    pub conv_dim: Vec<usize>,
    pub conv_kernel: Vec<usize>,
    pub conv_stride: Vec<usize>,
    pub conv_bias: bool,
    pub feat_extract_norm: FeatureNorm,
    pub feat_extract_activation: Activation,
    /// `K`: window of the convolution that tells a frame its place.
    pub num_conv_pos_embeddings: usize,
    pub num_conv_pos_embedding_groups: usize,
    /// Norms before the halves of a layer and after the last, not after the halves.
    pub do_stable_layer_norm: bool,
    pub layer_norm_eps: f64,
    pub hidden_dropout: f64,
    pub activation_dropout: f64,
    pub attention_dropout: f64,
    pub feat_proj_dropout: f64,
    pub final_dropout: f64,
    /// Probability of leaving out a layer in training.
    pub layerdrop: f64,
    /// Whether training hides spans of frames (`mask_time_`) and of channels (`mask_feature_`).
    #[serde(default = "yes")]
    pub apply_spec_augment: bool,
    #[serde(default = "twentieth")]
    pub mask_time_prob: f64,
    #[serde(default = "ten")]
    pub mask_time_length: usize,
    #[serde(default = "two")]
    pub mask_time_min_masks: usize,
    #[serde(default)]
    pub mask_feature_prob: f64,
    #[serde(default = "ten")]
    pub mask_feature_length: usize,
    #[serde(default)]
    pub mask_feature_min_masks: usize,
    /// Deviation of fresh weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
}

/// Norms among the convolutions over the waveform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureNorm {
    /// After the first: every channel over time.
    Group,
    /// After each: every frame over channels.
    Layer,
}

fn yes() -> bool {
    true
}
fn twentieth() -> f64 {
    0.05
}
fn two() -> usize {
    2
}
fn ten() -> usize {
    10
}
fn default_std() -> f64 {
    0.02
}

/// Of the norms among the convolutions, whatever `layer_norm_eps` is.
const FEATURE_EPS: f64 = 1e-5;

impl Wav2Vec2Config {
    /// Wav2Vec 2.0 base: 95 M parameters (Baevski et al. 2020, section 4.2).
    pub fn base() -> Self {
        Self {
            vocab_size: 32,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            conv_dim: vec![512; 7],
            conv_kernel: vec![10, 3, 3, 3, 3, 2, 2],
            conv_stride: vec![5, 2, 2, 2, 2, 2, 2],
            conv_bias: false,
            feat_extract_norm: FeatureNorm::Group,
            feat_extract_activation: Activation::Gelu,
            num_conv_pos_embeddings: 128,
            num_conv_pos_embedding_groups: 16,
            do_stable_layer_norm: false,
            layer_norm_eps: 1e-5,
            hidden_dropout: 0.1,
            activation_dropout: 0.1,
            attention_dropout: 0.1,
            feat_proj_dropout: 0.0,
            final_dropout: 0.1,
            layerdrop: 0.1,
            apply_spec_augment: true,
            mask_time_prob: 0.05,
            mask_time_length: 10,
            mask_time_min_masks: 2,
            mask_feature_prob: 0.0,
            mask_feature_length: 10,
            mask_feature_min_masks: 0,
            initializer_range: 0.02,
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::base`].
    pub fn tiny() -> Self {
        Self {
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            conv_dim: vec![8; 3],
            conv_kernel: vec![10, 3, 2],
            conv_stride: vec![5, 2, 2],
            num_conv_pos_embeddings: 8,
            num_conv_pos_embedding_groups: 2,
            ..Self::base()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["Wav2Vec2ForCTC"])?;
        config::only(value, &[("add_adapter", json!(false)), ("adapter_attn_dim", Value::Null)])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("hidden_size", self.hidden_size, 65_536)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 1_000)?;
        config::size("num_attention_heads", self.num_attention_heads, 1_024)?;
        config::size("intermediate_size", self.intermediate_size, 1_048_576)?;
        config::divides(
            "hidden_size",
            self.hidden_size,
            "num_attention_heads",
            self.num_attention_heads,
        )?;
        let layers = self.conv_dim.len();
        config::size("conv_dim (their number)", layers, 64)?;
        for (key, sizes) in [
            ("conv_dim", &self.conv_dim),
            ("conv_kernel", &self.conv_kernel),
            ("conv_stride", &self.conv_stride),
        ] {
            if sizes.len() != layers {
                return Err(format!("conv_dim has {layers} layers, {key} has {}", sizes.len()));
            }
            sizes.iter().try_for_each(|size| config::size(key, *size, 65_536))?;
        }
        config::size("num_conv_pos_embeddings", self.num_conv_pos_embeddings, 65_536)?;
        let groups = self.num_conv_pos_embedding_groups;
        config::size("num_conv_pos_embedding_groups", groups, 65_536)?;
        config::divides("hidden_size", self.hidden_size, "num_conv_pos_embedding_groups", groups)?;
        config::positive("layer_norm_eps", self.layer_norm_eps)?;
        config::probability("hidden_dropout", self.hidden_dropout)?;
        config::probability("activation_dropout", self.activation_dropout)?;
        config::probability("attention_dropout", self.attention_dropout)?;
        config::probability("feat_proj_dropout", self.feat_proj_dropout)?;
        config::probability("final_dropout", self.final_dropout)?;
        config::probability("layerdrop", self.layerdrop)?;
        config::probability("mask_time_prob", self.mask_time_prob)?;
        config::size("mask_time_length", self.mask_time_length, 65_536)?;
        config::probability("mask_feature_prob", self.mask_feature_prob)?;
        config::size("mask_feature_length", self.mask_feature_length, 65_536)
    }

    /// `T` of a recording of `S` samples; 0 where it is too short for one frame.
    pub fn frames(&self, samples: usize) -> usize {
        let layers = self.conv_kernel.iter().zip(&self.conv_stride);
        layers.fold(samples, |t, (kernel, stride)| match t.checked_sub(*kernel) {
            Some(rest) => rest / stride + 1,
            None => 0,
        })
    }

    /// The fewest samples of which [`Self::frames`] makes one.
    fn shortest(&self) -> usize {
        let layers = self.conv_kernel.iter().zip(&self.conv_stride).rev();
        layers.fold(1, |t: usize, (kernel, stride)| {
            (t - 1).saturating_mul(*stride).saturating_add(*kernel)
        })
    }

    pub fn init(&self, device: &Device) -> Wav2Vec2 {
        let (c, std, eps) = (self.hidden_size, self.initializer_range, self.layer_norm_eps);
        let last = *self.conv_dim.last().expect("`check` wants one");
        let masks = self.apply_spec_augment;
        Wav2Vec2 {
            features: (0..self.conv_dim.len()).map(|layer| self.feature(layer, device)).collect(),
            projection_norm: LayerNorm::new(last, eps, device),
            // The deviation of the reference's uniform weights, as wide as 1 / sqrt(channels).
            projection: Linear::new(last, c, (3.0 * last as f64).powf(-0.5), device),
            projection_dropout: Dropout::new(self.feat_proj_dropout),
            mask: (self.mask_time_prob > 0.0 || self.mask_feature_prob > 0.0)
                .then(|| Initializer::Uniform { min: 0.0, max: 1.0 }.init([c], device)),
            positions: self.positions(device),
            norm: LayerNorm::new(c, eps, device),
            dropout: Dropout::new(self.hidden_dropout),
            layers: (0..self.num_hidden_layers).map(|_| self.layer(device)).collect(),
            layer_drop: Dropout::new(self.layerdrop),
            final_dropout: Dropout::new(self.final_dropout),
            head: Linear::new(c, self.vocab_size, std, device),
            norm_first: self.do_stable_layer_norm,
            mask_time: SpecAugment {
                prob: if masks { self.mask_time_prob } else { 0.0 },
                length: self.mask_time_length,
                min_masks: self.mask_time_min_masks,
            },
            mask_feature: SpecAugment {
                prob: if masks { self.mask_feature_prob } else { 0.0 },
                length: self.mask_feature_length,
                min_masks: self.mask_feature_min_masks,
            },
        }
    }

    fn feature(&self, layer: usize, device: &Device) -> Feature {
        let channels_in = if layer == 0 { 1 } else { self.conv_dim[layer - 1] };
        let (channels, kernel) = (self.conv_dim[layer], self.conv_kernel[layer]);
        let convolution = ConvConfig {
            stride: [self.conv_stride[layer]],
            bias: self.conv_bias,
            std: (2.0 / (channels_in * kernel) as f64).sqrt(), // He et al. 2015
            ..ConvConfig::new(channels_in, channels, [kernel])
        };
        let norm = match (self.feat_extract_norm, layer) {
            (FeatureNorm::Layer, _) => {
                Some(Norm::Layer(LayerNorm::new(channels, FEATURE_EPS, device)))
            }
            (FeatureNorm::Group, 0) => {
                Some(Norm::Group(GroupNorm::new(channels, channels, FEATURE_EPS, device)))
            }
            (FeatureNorm::Group, _) => None,
        };
        Feature {
            convolution: convolution.init(device),
            norm,
            activation: self.feat_extract_activation,
        }
    }

    fn positions(&self, device: &Device) -> Positions {
        let (c, k) = (self.hidden_size, self.num_conv_pos_embeddings);
        let groups = self.num_conv_pos_embedding_groups;
        let std = 2.0 / ((k * c) as f64).sqrt();
        let convolution = ConvConfig {
            // An even window has no middle: as many frames leave as came, the odd one is looked at before.
            padding: [(k / 2, (k - 1) / 2)],
            groups,
            std,
            ..ConvConfig::new(c, c, [k])
        };
        // The length of a fresh direction, so that the weight begins as it.
        let magnitude = std * ((c * (c / groups)) as f64).sqrt();
        Positions {
            convolution: convolution.init(device),
            magnitude: Initializer::Constant { value: magnitude }.init([1, 1, k], device),
            activation: self.feat_extract_activation,
        }
    }

    fn layer(&self, device: &Device) -> EncoderLayer {
        let attention = AttentionConfig {
            dropout: self.attention_dropout,
            std: self.initializer_range,
            ..AttentionConfig::new(self.hidden_size, self.num_attention_heads)
        };
        EncoderLayerConfig {
            attention,
            intermediate_size: self.intermediate_size,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            dropout: self.hidden_dropout,
            activation_dropout: self.activation_dropout,
            norm_first: self.do_stable_layer_norm,
        }
        .init(device)
    }
}

/// A waveform in, logits of a letter for every frame out.
#[derive(Module, Debug)]
pub struct Wav2Vec2 {
    features: Vec<Feature>,
    projection_norm: LayerNorm,
    projection: Linear,
    projection_dropout: Dropout,
    /// Stands in for a frame that training hides.
    mask: Option<Param<Tensor<1>>>,
    positions: Positions,
    /// Before the layers, or after them where they have `norm_first`.
    norm: LayerNorm,
    dropout: Dropout,
    layers: Vec<EncoderLayer>,
    layer_drop: Dropout,
    final_dropout: Dropout,
    head: Linear,
    #[module(skip)]
    norm_first: bool,
    #[module(skip)]
    mask_time: SpecAugment,
    #[module(skip)]
    mask_feature: SpecAugment,
}

impl Wav2Vec2 {
    /// - `x`: `[B, S]`, samples of sound
    /// - `frames`: how many of each row's `T` frames are not padding; `None` where none is padding
    /// - returns logits `[B, T, V]`
    pub fn forward(&self, x: Tensor<2>, frames: Option<&[usize]>) -> Tensor<3> {
        let x = self.features.iter().fold(x.unsqueeze_dim(1), |x, f| f.forward(x)); // [B, F, T]
        let x = self.projection.forward(self.projection_norm.forward(x.swap_dims(1, 2)));
        let x = self.hide(self.projection_dropout.forward(x), frames); // [B, T, C]
        let pad = frames.map(|frames| padding(frames, x.dims()[1], &x.device()));
        let x = match &pad {
            Some(pad) => x.clone().mask_fill(pad.clone().unsqueeze_dim::<3>(2).expand(x.dims()), 0),
            None => x,
        };
        let x = x.clone() + self.positions.forward(x);
        let x = if self.norm_first { x } else { self.norm.forward(x) };
        let x = self.dropout.forward(x);
        let mask = Mask::padding(pad);
        let kept = self.layers.iter().filter(|_| !self.layer_drop.skips(&x.device()));
        let x = kept.fold(x.clone(), |x, layer| layer.forward(x, &mask));
        let x = if self.norm_first { self.norm.forward(x) } else { x };
        self.head.forward(self.final_dropout.forward(x))
    }

    /// SpecAugment, in training: `[B, T, C]` -> `[B, T, C]`
    fn hide(&self, x: Tensor<3>, frames: Option<&[usize]>) -> Tensor<3> {
        let ([b, t, c], device) = (x.dims(), x.device());
        let Some(mask) = &self.mask else { return x };
        let all = vec![t; b];
        let x = match self.mask_time.draw(frames.unwrap_or(&all), t, &device) {
            Some(hidden) => {
                let hidden = hidden.unsqueeze_dim::<3>(2).expand([b, t, c]);
                x.mask_where(hidden, mask.val().unsqueeze::<3>().expand([b, t, c]))
            }
            None => x,
        };
        match self.mask_feature.draw(&vec![c; b], c, &device) {
            Some(hidden) => x.mask_fill(hidden.unsqueeze_dim::<3>(1).expand([b, t, c]), 0),
            None => x,
        }
    }
}

/// `[B, T]`, true behind the frames of each row.
fn padding(frames: &[usize], t: usize, device: &Device) -> Tensor<2, Bool> {
    let pad: Vec<bool> =
        frames.iter().flat_map(|used| (0..t).map(move |frame| frame >= *used)).collect();
    Tensor::from_data(TensorData::new(pad, [frames.len(), t]), device)
}

/// A convolution over time, then its norm and activation.
#[derive(Module, Debug)]
struct Feature {
    convolution: Conv1d,
    norm: Option<Norm>,
    #[module(skip)]
    activation: Activation,
}

#[derive(Module, Debug)]
enum Norm {
    Group(GroupNorm),
    Layer(LayerNorm),
}

impl Feature {
    /// `[B, I, T]` -> `[B, O, T']`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.convolution.forward(x);
        self.activation.forward(match &self.norm {
            Some(Norm::Group(norm)) => norm.forward(x),
            Some(Norm::Layer(norm)) => norm.channels_first(x),
            None => x,
        })
    }
}

/// Tells a frame its place by the frames around it: a convolution whose weight is learned as direction and
/// magnitude (weight normalisation, Salimans & Kingma 2016, <https://arxiv.org/abs/1602.07868>).
#[derive(Module, Debug)]
struct Positions {
    /// Its weight, `[C, C / groups, K]`, is only a direction.
    convolution: Conv1d,
    /// Length of the weight at each place of the window, `[1, 1, K]`.
    magnitude: Param<Tensor<3>>,
    #[module(skip)]
    activation: Activation,
}

impl Positions {
    /// `[B, T, C]` -> `[B, T, C]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let direction = fused::plain(self.convolution.weight.val());
        let length = direction.clone().square().sum_dim(0).sum_dim(1).sqrt(); // [1, 1, K]
        let weight = direction * (self.magnitude.val() / length);
        let x = self.convolution.with_weight(x.swap_dims(1, 2), weight); // [B, C, T]
        self.activation.forward(x).swap_dims(1, 2)
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                                   field
    ("wav2vec2.feature_extractor.conv_layers.{}.conv.",             "features.{}.convolution."),
    ("wav2vec2.feature_extractor.conv_layers.{}.layer_norm.",       "features.{}.norm.Group."),
    ("wav2vec2.feature_extractor.conv_layers.{}.layer_norm.",       "features.{}.norm.Layer."),
    ("wav2vec2.feature_projection.layer_norm.",                     "projection_norm."),
    ("wav2vec2.feature_projection.projection.",                     "projection."),
    ("wav2vec2.masked_spec_embed",                                  "mask"),
    ("wav2vec2.encoder.pos_conv_embed.conv.bias",                   "positions.convolution.bias"),
    ("wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0", "positions.magnitude"),
    ("wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1", "positions.convolution.weight"),
    ("wav2vec2.encoder.layer_norm.",                                "norm."),
    ("wav2vec2.encoder.layers.{}.attention.q_proj.",                "layers.{}.attention.query."),
    ("wav2vec2.encoder.layers.{}.attention.k_proj.",                "layers.{}.attention.key."),
    ("wav2vec2.encoder.layers.{}.attention.v_proj.",                "layers.{}.attention.value."),
    ("wav2vec2.encoder.layers.{}.attention.out_proj.",              "layers.{}.attention.output."),
    ("wav2vec2.encoder.layers.{}.layer_norm.",                      "layers.{}.attention_norm."),
    ("wav2vec2.encoder.layers.{}.feed_forward.intermediate_dense.", "layers.{}.feed_forward.up."),
    ("wav2vec2.encoder.layers.{}.feed_forward.output_dense.",       "layers.{}.feed_forward.down."),
    ("wav2vec2.encoder.layers.{}.final_layer_norm.",                "layers.{}.feed_forward_norm."),
    ("lm_head.",                                                    "head."),
];

/// How PyTorch named the halves of a normalised weight before version 2.
const OLD_NAMES: [(&str, &str); 2] = [
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
];

/// The stand-in of hidden frames: released models were saved without it, and others hold it in vain.
const MASK: &[&str] = &["mask"];

/// `transformers.Wav2Vec2ForCTC`.
pub struct Wav2Vec2ForCtc {
    pub config: Wav2Vec2Config,
    pub model: Wav2Vec2,
}

impl Wav2Vec2ForCtc {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(Wav2Vec2Config::from_json)?;
        let weights = source.weights()?;
        let old = weights.names().any(|name| name.ends_with("pos_conv_embed.conv.weight_v"));
        let coverage = Coverage { ignored: &["masked_spec_embed"], fresh: MASK };
        let model = tensors::fill(config.init(device), &weights, &coverage, |field| {
            let name = rename(NAMES, field)?;
            let renamed = |name: String, (new, old): &(&str, &str)| name.replace(new, old);
            Some(if old { OLD_NAMES.iter().fold(name, renamed) } else { name })
        })?;
        Ok(Self { config, model })
    }
}

impl Wav2Vec2ForCtc {
    /// How many frames of each row are not padding, from its samples that are not.
    fn frames(&self, inputs: &Inputs, shape: [usize; 2]) -> Result<Option<Vec<usize>>, InputError> {
        let Some(hidden) = inputs.hidden("attention_mask", shape)? else { return Ok(None) };
        let rows = hidden.chunks(shape[1]).map(|row| {
            let samples = row.iter().filter(|hidden| !**hidden).count();
            match self.config.frames(samples) {
                0 => Err(InputError::Unsupported(format!(
                    "`attention_mask` leaves {samples} samples of a row, a frame takes {}",
                    self.config.shortest()
                ))),
                frames => Ok(frames),
            }
        });
        rows.collect::<Result<_, _>>().map(Some)
    }
}

impl AnyModel for Wav2Vec2ForCtc {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let sound: Tensor<2> = inputs.floats("input_values", [None, None])?;
        if self.config.frames(sound.dims()[1]) == 0 {
            let (name, found) = ("input_values".into(), sound.dims().into());
            let expected = format!("[batch, {} samples or more]", self.config.shortest());
            return Err(InputError::Shape { name, found, expected });
        }
        let frames = self.frames(inputs, sound.dims())?;
        Ok(vec![("logits", self.model.forward(sound, frames.as_deref()).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, |field| rename(NAMES, field))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn a_frame_takes_so_many_samples() {
        let config = Wav2Vec2Config::base();
        assert_eq!(config.frames(16_000), 49); // one second, a frame every 20 ms
        assert_eq!(config.shortest(), 400); // 25 ms
        assert_eq!((config.frames(400), config.frames(399)), (1, 0));
    }

    #[test]
    fn the_positional_weight_learns_as_direction_and_magnitude() {
        let device = Device::flex().autodiff();
        device.seed(5);
        let config =
            Wav2Vec2Config { mask_time_length: 2, layerdrop: 0.0, ..Wav2Vec2Config::tiny() };
        let model = config.init(&device);
        let sound = Tensor::random([2, 800], Distribution::Default, &device);
        let loss = model.forward(sound, Some(&[39, 12])).powi_scalar(2).sum();
        let grads = loss.backward();
        let positions = &model.positions;
        assert!(positions.magnitude.val().grad(&grads).is_some());
        // A change of length alone changes nothing: the gradient is at right angles to the direction.
        let direction = positions.convolution.weight.val();
        let slope = direction.grad(&grads).expect("a gradient");
        let along = (slope.clone() * direction.inner()).sum().into_scalar::<f32>();
        let size = slope.abs().sum().into_scalar::<f32>();
        assert!(size > 0.0 && along.abs() < 1e-4 * size, "{along} of {size}");
        assert!(model.mask.expect("spans are hidden").val().grad(&grads).is_some());
    }
}
