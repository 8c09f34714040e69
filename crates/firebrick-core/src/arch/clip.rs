//! CLIP: a text tower and an image tower whose vectors are near each other where text and image belong together.
//!
//! Paper: Radford et al. 2021, <https://arxiv.org/abs/2103.00020>.
//! Reference code: `modeling_clip.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch (`X` texts, `Y` images), `T` tokens, `I` channels of the image, `C` channels of a tower, `P` channels
//! that both share (`projection_dim`).

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs, check_length},
    vit::{check_grid, token},
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
        embedding::Embedding,
        encoder::{EncoderLayer, EncoderLayerConfig},
        linear::Linear,
        norm::LayerNorm,
        patch::{PatchEmbedding, grid},
        scalar::Scalar,
    },
};

/// Sizes of a CLIP. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    pub text_config: TextConfig,
    pub vision_config: VisionConfig,
    /// `P`
    pub projection_dim: usize,
    /// Logarithm of what cosines are multiplied by, before training.
    pub logit_scale_init_value: f64,
}

/// Sizes of the text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    #[serde(flatten)]
    pub tower: TowerConfig,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    /// The token whose vector stands for the text. The first files say 2 by mistake, and mean the highest token.
    pub eos_token_id: i32,
}

/// Sizes of the image tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    #[serde(flatten)]
    pub tower: TowerConfig,
    /// `I`
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
}

/// Sizes that a tower has whatever it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TowerConfig {
    /// `C`: must be divisible by `num_attention_heads`.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    pub attention_dropout: f64,
    /// Deviation of fresh weights.
    pub initializer_range: f64,
}

impl ClipConfig {
    /// ViT-B/32: 151 M parameters (Radford et al. 2021, tables 19 and 20).
    pub fn base() -> Self {
        let vision = TowerConfig {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            attention_dropout: 0.0,
            initializer_range: 0.02,
        };
        let text = TowerConfig {
            hidden_size: 512,
            num_attention_heads: 8,
            intermediate_size: 2048,
            ..vision.clone()
        };
        Self {
            text_config: TextConfig {
                tower: text,
                vocab_size: 49_408,
                max_position_embeddings: 77,
                eos_token_id: 49_407,
            },
            vision_config: VisionConfig {
                tower: vision,
                num_channels: 3,
                image_size: 224,
                patch_size: 32,
            },
            projection_dim: 512,
            // The logarithm of 1 / 0.07.
            logit_scale_init_value: 2.6592,
        }
    }

    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        let Self { text_config: text, vision_config: vision, .. } = Self::base();
        let tower = TowerConfig {
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            ..text.tower
        };
        Self {
            text_config: TextConfig {
                tower: tower.clone(),
                vocab_size: 64,
                max_position_embeddings: 12,
                eos_token_id: 63,
            },
            vision_config: VisionConfig { tower, image_size: 16, patch_size: 8, ..vision },
            projection_dim: 8,
            ..Self::base()
        }
    }

    /// What a released file leaves out has the value that `transformers` gives it, that of [`Self::base`].
    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["CLIPModel"])?;
        let Self { text_config, vision_config, .. } = Self::base();
        let text_config = part(value, ["text_config_dict", "text_config"], text_config)?;
        let vision_config = part(value, ["vision_config_dict", "vision_config"], vision_config)?;
        let mut value = value.clone();
        value["text_config"] = json!(text_config);
        value["vision_config"] = json!(vision_config);
        let config: Self = over(Self::base(), &value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        let (text, vision) = (&self.text_config, &self.vision_config);
        text.tower.check().map_err(|problem| format!("text_config: {problem}"))?;
        vision.tower.check().map_err(|problem| format!("vision_config: {problem}"))?;
        config::size("vocab_size", text.vocab_size, 10_000_000)?;
        config::size("max_position_embeddings", text.max_position_embeddings, 1_048_576)?;
        config::size("num_channels", vision.num_channels, 65_536)?;
        check_grid([vision.image_size; 2], [vision.patch_size; 2])?;
        config::size("projection_dim", self.projection_dim, 65_536)
    }

    pub fn init(&self, device: &Device) -> Clip {
        let projection = |width: usize| {
            let std = (width as f64).powf(-0.5);
            Linear::without_bias(width, self.projection_dim, std, device)
        };
        Clip {
            text: self.text_config.init(device),
            vision: self.vision_config.init(device),
            text_projection: projection(self.text_config.tower.hidden_size),
            vision_projection: projection(self.vision_config.tower.hidden_size),
            logit_scale: Scalar::new(self.logit_scale_init_value, device),
        }
    }
}

/// A tower's sizes from the first of `keys` that is there: of two tables in old files the reference reads the first.
fn part<T: Serialize + DeserializeOwned>(
    config: &Value,
    keys: [&str; 2],
    defaults: T,
) -> Result<T, String> {
    let found = keys.iter().find_map(|key| {
        config.get(*key).filter(|table| !table.is_null()).map(|table| (key, table))
    });
    match found {
        None => Ok(defaults),
        Some((key, table)) => over(defaults, table).map_err(|problem| format!("{key}: {problem}")),
    }
}

/// `defaults`, with what `table` says in their place.
fn over<T: Serialize + DeserializeOwned>(defaults: T, table: &Value) -> Result<T, String> {
    let Some(fields) = table.as_object() else { return Err("it is not an object".into()) };
    let mut all = json!(defaults);
    for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        all[key] = value.clone();
    }
    config::parse(&all)
}

impl TowerConfig {
    fn check(&self) -> Result<(), String> {
        config::size("hidden_size", self.hidden_size, 65_536)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 1_000)?;
        config::size("num_attention_heads", self.num_attention_heads, 1_024)?;
        config::size("intermediate_size", self.intermediate_size, 1_048_576)?;
        let heads = self.num_attention_heads;
        config::divides("hidden_size", self.hidden_size, "num_attention_heads", heads)?;
        config::probability("attention_dropout", self.attention_dropout)?;
        config::positive("layer_norm_eps", self.layer_norm_eps)
    }

    fn layers(&self, device: &Device) -> Vec<EncoderLayer> {
        let attention = AttentionConfig {
            dropout: self.attention_dropout,
            std: self.initializer_range,
            ..AttentionConfig::new(self.hidden_size, self.num_attention_heads)
        };
        let layer = EncoderLayerConfig {
            attention,
            intermediate_size: self.intermediate_size,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            dropout: 0.0,
            activation_dropout: 0.0,
            norm_first: true,
        };
        (0..self.num_hidden_layers).map(|_| layer.init(device)).collect()
    }

    fn norm(&self, device: &Device) -> LayerNorm {
        LayerNorm::new(self.hidden_size, self.layer_norm_eps, device)
    }
}

impl TextConfig {
    fn init(&self, device: &Device) -> TextTower {
        let (c, std) = (self.tower.hidden_size, self.tower.initializer_range);
        TextTower {
            tokens: Embedding::new(self.vocab_size, c, std, device),
            positions: Embedding::new(self.max_position_embeddings, c, std, device),
            layers: self.tower.layers(device),
            norm: self.tower.norm(device),
            end: match self.eos_token_id {
                2 => End::Highest,
                id => End::Token(id),
            },
        }
    }
}

impl VisionConfig {
    fn init(&self, device: &Device) -> VisionTower {
        let (c, std) = (self.tower.hidden_size, self.tower.initializer_range);
        let (widths, patch) = ([self.num_channels, c], [self.patch_size; 2]);
        let [rows, columns] = grid([self.image_size; 2], patch);
        VisionTower {
            patches: PatchEmbedding::new(widths, patch, false, std, device),
            class_token: Initializer::Normal { mean: 0.0, std }.init([c], device),
            positions: Embedding::new(rows * columns + 1, c, std, device),
            first_norm: self.tower.norm(device),
            layers: self.tower.layers(device),
            norm: self.tower.norm(device),
        }
    }
}

/// Texts and images in, vectors out that can be compared.
#[derive(Module, Debug)]
pub struct Clip {
    text: TextTower,
    vision: VisionTower,
    text_projection: Linear,
    vision_projection: Linear,
    /// Logarithm of what cosines are multiplied by.
    logit_scale: Scalar,
}

impl Clip {
    /// As [`TextTower::forward`], at length one: `[X, P]`
    pub fn text_embeds(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Tensor<2> {
        unit(self.text_projection.forward(self.text.forward(ids, pad)))
    }

    /// As [`VisionTower::forward`], at length one: `[Y, P]`
    pub fn image_embeds(&self, images: Tensor<4>) -> Tensor<2> {
        unit(self.vision_projection.forward(self.vision.forward(images)))
    }

    /// How well each image `[Y, P]` goes with each text `[X, P]`: `[Y, X]`
    pub fn logits_per_image(&self, image_embeds: Tensor<2>, text_embeds: Tensor<2>) -> Tensor<2> {
        image_embeds.matmul(text_embeds.transpose()) * self.logit_scale.val().exp()
    }
}

/// Every row at length one.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt(); // [B, 1]
    x / length
}

/// Token ids in, one vector a text out. A token sees those before it.
#[derive(Module, Debug)]
pub struct TextTower {
    tokens: Embedding,
    positions: Embedding,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    #[module(skip)]
    end: End,
}

/// Which token's vector stands for the text: the first such, or the first of all where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Token(i32),
    Highest,
}

impl TextTower {
    /// `ids`, `pad`: `[B, T]`, true where padding -> `[B, C]`
    pub fn forward(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Tensor<2> {
        let [b, t] = ids.dims();
        let positions = Tensor::arange(0..t as i64, &ids.device()).unsqueeze(); // [1, T]
        let x = self.tokens.forward(ids.clone()) + self.positions.forward(positions); // [B, T, C]
        let mask = Mask::causal(pad);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
        let [_, _, c] = x.dims();
        let end = self.end.find(ids).reshape([b, 1, 1]).expand([b, 1, c]);
        self.norm.forward(x.gather(1, end).squeeze_dim::<2>(1))
    }
}

impl End {
    /// Its place in every row: `[B, T]` -> `[B, 1]`
    fn find(self, ids: Tensor<2, Int>) -> Tensor<2, Int> {
        let [b, t] = ids.dims();
        let ends = match self {
            Self::Token(id) => ids.equal_elem(id),
            Self::Highest => ids.clone().equal(ids.max_dim(1).expand([b, t])),
        };
        let places = Tensor::arange(0..t as i64, &ends.device()).reshape([1, t]).expand([b, t]);
        let first = places.mask_fill(ends.bool_not(), t as i64).min_dim(1);
        first.clone().mask_fill(first.equal_elem(t as i64), 0)
    }
}

/// Images in, one vector each out.
#[derive(Module, Debug)]
pub struct VisionTower {
    patches: PatchEmbedding,
    /// `[C]`
    class_token: Param<Tensor<1>>,
    positions: Embedding,
    first_norm: LayerNorm,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
}

impl VisionTower {
    /// `[B, I, H, W]`, of the configured size -> `[B, C]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let [b, ..] = images.dims();
        let class_token = self.class_token.val().unsqueeze::<3>().repeat_dim(0, b); // [B, 1, C]
        let x = Tensor::cat(vec![class_token, self.patches.forward(images)], 1); // [B, T, C]
        let positions = self.positions.rows(0, self.positions.height());
        let x = self.first_norm.forward(x + positions.unsqueeze());
        let mask = Mask::default();
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
        self.norm.forward(token(x, 0))
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                          field
    ("text_model.embeddings.token_embedding.",             "text.tokens."),
    ("text_model.embeddings.position_embedding.",          "text.positions."),
    ("text_model.final_layer_norm.",                       "text.norm."),
    ("vision_model.embeddings.patch_embedding.",           "vision.patches."),
    ("vision_model.embeddings.class_embedding",            "vision.class_token"),
    ("vision_model.embeddings.position_embedding.",        "vision.positions."),
    ("vision_model.pre_layrnorm.",                         "vision.first_norm."),
    ("vision_model.post_layernorm.",                       "vision.norm."),
    ("text_projection.",                                   "text_projection."),
    ("visual_projection.",                                 "vision_projection."),
    ("logit_scale",                                        "logit_scale.value"),
];

/// Of both towers, whose names stand before them.
#[rustfmt::skip]
const LAYERS: Names = &[
    // checkpoint                                          field
    ("encoder.layers.{}.layer_norm1.",                     "layers.{}.attention_norm."),
    ("encoder.layers.{}.self_attn.q_proj.",                "layers.{}.attention.query."),
    ("encoder.layers.{}.self_attn.k_proj.",                "layers.{}.attention.key."),
    ("encoder.layers.{}.self_attn.v_proj.",                "layers.{}.attention.value."),
    ("encoder.layers.{}.self_attn.out_proj.",              "layers.{}.attention.output."),
    ("encoder.layers.{}.layer_norm2.",                     "layers.{}.feed_forward_norm."),
    ("encoder.layers.{}.mlp.fc1.",                         "layers.{}.feed_forward.up."),
    ("encoder.layers.{}.mlp.fc2.",                         "layers.{}.feed_forward.down."),
];

fn name(field: &str) -> Option<String> {
    rename(NAMES, field).or_else(|| {
        let (tower, rest) = field.split_once('.')?;
        Some(format!("{tower}_model.{}", rename(LAYERS, rest)?))
    })
}

/// `transformers.CLIPModel`.
pub struct ClipModel {
    pub config: ClipConfig,
    pub model: Clip,
}

impl ClipModel {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(ClipConfig::from_json)?;
        // Counters that old files hold beside the weights.
        let coverage = Coverage { ignored: &["embeddings.position_ids"], fresh: &[] };
        let model = tensors::fill(config.init(device), &source.weights()?, &coverage, name)?;
        Ok(Self { config, model })
    }

    fn text_embeds(&self, inputs: &Inputs) -> Result<Tensor<2>, InputError> {
        let ids = inputs.ids("input_ids", self.config.text_config.vocab_size)?;
        check_length(ids.dims()[1], self.config.text_config.max_position_embeddings)?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        Ok(self.model.text_embeds(ids, pad))
    }

    fn image_embeds(&self, inputs: &Inputs) -> Result<Tensor<2>, InputError> {
        let VisionConfig { num_channels, image_size: size, .. } = self.config.vision_config;
        let expected = [None, Some(num_channels), Some(size), Some(size)];
        Ok(self.model.image_embeds(inputs.floats("pixel_values", expected)?))
    }
}

impl AnyModel for ClipModel {
    /// Texts, images or both; with both, how well they go together.
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        if !inputs.has("pixel_values") {
            return Ok(vec![("text_embeds", self.text_embeds(inputs)?.into_data())]);
        }
        let image_embeds = self.image_embeds(inputs)?;
        if !inputs.has("input_ids") {
            return Ok(vec![("image_embeds", image_embeds.into_data())]);
        }
        let text_embeds = self.text_embeds(inputs)?;
        let logits = self.model.logits_per_image(image_embeds.clone(), text_embeds.clone());
        Ok(vec![
            ("logits_per_image", logits.clone().into_data()),
            ("logits_per_text", logits.transpose().into_data()),
            ("text_embeds", text_embeds.into_data()),
            ("image_embeds", image_embeds.into_data()),
        ])
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
        let model = ClipConfig::tiny().init(&device);
        let ids = Tensor::from_data([[1, 2, 3, 63], [4, 5, 63, 63], [6, 63, 63, 63]], &device);
        let images = Tensor::random([2, 3, 16, 16], Distribution::Default, &device);
        let (texts, images) = (model.text_embeds(ids, None), model.image_embeds(images));
        gradients::check(&model, model.logits_per_image(images, texts));
    }

    #[test]
    fn the_end_is_the_first_of_its_kind() {
        let ids = || Tensor::from_data([[5, 9, 7, 9], [7, 7, 2, 1], [1, 2, 3, 4]], &Device::flex());
        let place = |end: End| end.find(ids()).into_data().iter::<i64>().collect::<Vec<_>>();
        assert_eq!(place(End::Highest), [1, 0, 3]);
        assert_eq!(place(End::Token(7)), [2, 0, 0]);
    }
}
