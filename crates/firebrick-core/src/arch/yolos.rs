//! YOLOS: a ViT whose last tokens each find one object.
//!
//! Paper: Fang et al. 2021, <https://arxiv.org/abs/2106.00666>.
//! Reference code: `modeling_yolos.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `I` channels of the image, `N` patches, `D` detection tokens, `T` tokens (the class token, `N`, `D`),
//! `C` channels (`hidden_size`), `L` labels, the last of which is "no object".

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::activation::sigmoid,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs},
    vit::{EncoderConfig, LAYERS, check_grid, yes},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, Coverage, SaveType},
    },
    layers::{
        activation::Activation,
        attention::Mask,
        dropout::Dropout,
        encoder::EncoderLayer,
        linear::Linear,
        norm::LayerNorm,
        patch::{PatchEmbedding, grid},
        position::resize_grid,
    },
};

/// Sizes of a YOLOS. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct YolosConfig {
    #[serde(flatten)]
    pub encoder: EncoderConfig,
    /// Rows and columns that the learned positions are for; an image may have others.
    #[serde(deserialize_with = "config::pair")]
    pub image_size: [usize; 2],
    pub patch_size: usize,
    /// `I`
    pub num_channels: usize,
    /// Whether query, key and value have a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// `D`
    pub num_detection_tokens: usize,
    /// Whether positions are added after every layer but the last, too.
    #[serde(default = "yes")]
    pub use_mid_position_embeddings: bool,
    /// `L`, less the one for "no object".
    #[serde(skip)]
    pub num_labels: usize,
}

impl YolosConfig {
    /// YOLOS-tiny for COCO: 6.5 M parameters.
    pub fn tiny_coco() -> Self {
        Self {
            encoder: EncoderConfig {
                hidden_size: 192,
                num_attention_heads: 3,
                intermediate_size: 768,
                ..EncoderConfig::base()
            },
            image_size: [800, 1333],
            patch_size: 16,
            num_channels: 3,
            qkv_bias: true,
            num_detection_tokens: 100,
            use_mid_position_embeddings: false,
            num_labels: 91,
        }
    }

    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            encoder: EncoderConfig::tiny(),
            image_size: [16, 24],
            patch_size: 8,
            num_detection_tokens: 3,
            use_mid_position_embeddings: true,
            num_labels: 4,
            ..Self::tiny_coco()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["YolosForObjectDetection"])?;
        let config = Self { num_labels: config::labels(value)?, ..config::parse(value)? };
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        self.encoder.check()?;
        config::size("num_channels", self.num_channels, 65_536)?;
        config::size("num_detection_tokens", self.num_detection_tokens, 1_048_576)?;
        check_grid(self.image_size, [self.patch_size; 2])?;
        // The reference counts the positions in the middle by area, which must come to the same.
        let ([rows, columns], [h, w]) = (self.image_size, self.grid());
        if self.use_mid_position_embeddings && rows * columns / self.patch_size.pow(2) != h * w {
            let (image, patch) = (self.image_size, self.patch_size);
            return Err(format!(
                "use_mid_position_embeddings needs an image_size of whole patches, {image:?} is not of {patch}"
            ));
        }
        Ok(())
    }

    /// Rows and columns of patches that the learned positions are for.
    fn grid(&self) -> [usize; 2] {
        grid(self.image_size, [self.patch_size; 2])
    }

    pub fn init(&self, device: &Device) -> Yolos {
        let (c, std) = (self.encoder.hidden_size, self.encoder.initializer_range);
        let [rows, columns] = self.grid();
        let tokens = 1 + rows * columns + self.num_detection_tokens;
        let (widths, patch) = ([self.num_channels, c], [self.patch_size; 2]);
        let mid_positions = self.use_mid_position_embeddings.then(|| {
            let shape = [self.encoder.num_hidden_layers - 1, 1, tokens, c];
            Initializer::Normal { mean: 0.0, std }.init(shape, device)
        });
        Yolos {
            patches: PatchEmbedding::new(widths, patch, true, std, device),
            class_token: self.encoder.tokens(1, device),
            detection_tokens: self.encoder.tokens(self.num_detection_tokens, device),
            positions: self.encoder.tokens(tokens, device),
            mid_positions,
            dropout: Dropout::new(self.encoder.hidden_dropout_prob),
            layers: self.encoder.layers([self.qkv_bias; 3], device),
            norm: self.encoder.norm(device),
            classifier: Perceptron::new([c, c, c, self.num_labels + 1], std, device),
            boxes: Perceptron::new([c, c, c, 4], std, device),
            grid: self.grid(),
            patch_size: self.patch_size,
        }
    }
}

/// An image in, `D` objects out, of which most are none.
#[derive(Module, Debug)]
pub struct Yolos {
    patches: PatchEmbedding,
    /// `[1, 1, C]`
    class_token: Param<Tensor<3>>,
    /// `[1, D, C]`
    detection_tokens: Param<Tensor<3>>,
    /// `[1, T, C]`
    positions: Param<Tensor<3>>,
    /// `[layers - 1, 1, T, C]`, each added after its layer.
    mid_positions: Option<Param<Tensor<4>>>,
    dropout: Dropout,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    classifier: Perceptron,
    boxes: Perceptron,
    /// Rows and columns of patches that the positions are for.
    #[module(skip)]
    grid: [usize; 2],
    #[module(skip)]
    patch_size: usize,
}

impl Yolos {
    /// - `images`: `[B, I, H, W]`, at least one patch each way
    /// - returns logits `[B, D, L]` and boxes `[B, D, 4]`: centre x, centre y, width and height as parts of the image
    pub fn forward(&self, images: Tensor<4>) -> (Tensor<3>, Tensor<3>) {
        let [b, _, rows, columns] = images.dims();
        let to = grid([rows, columns], [self.patch_size; 2]);
        let detection_tokens = self.detection_tokens.val();
        let [_, d, _] = detection_tokens.dims();
        let x = Tensor::cat(
            vec![
                self.class_token.val().repeat_dim(0, b),
                self.patches.forward(images),
                detection_tokens.repeat_dim(0, b),
            ],
            1,
        ); // [B, T, C]
        let x = self.dropout.forward(x + self.resized(self.positions.val(), to));
        let x = self.encode(x, to);

        let [_, t, _] = x.dims();
        let x = self.norm.forward(x.narrow(1, t - d, d)); // [B, D, C]
        (self.classifier.forward(x.clone()), sigmoid(self.boxes.forward(x)))
    }

    /// `[B, T, C]` -> `[B, T, C]`
    fn encode(&self, x: Tensor<3>, to: [usize; 2]) -> Tensor<3> {
        let mask = Mask::default();
        let Some(positions) = &self.mid_positions else {
            return self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
        };
        let (last, layers) = self.layers.split_last().expect("the configuration has a layer");
        let positions = positions.val();
        let x = layers.iter().enumerate().fold(x, |x, (index, layer)| {
            let positions = positions.clone().narrow(0, index, 1).squeeze_dim(0); // [1, T, C]
            layer.forward(x, &mask) + self.resized(positions, to)
        });
        last.forward(x, &mask)
    }

    /// Positions for a grid of `to` patches; those of the class and detection tokens stay: `[1, T, C]` -> `[1, T', C]`
    fn resized(&self, positions: Tensor<3>, to: [usize; 2]) -> Tensor<3> {
        let [_, t, _] = positions.dims();
        let n = self.grid[0] * self.grid[1];
        let part = |from, count| positions.clone().narrow(1, from, count);
        let patches = resize_grid(part(1, n), self.grid, to);
        Tensor::cat(vec![part(0, 1), patches, part(1 + n, t - 1 - n)], 1)
    }
}

/// Linear layers with a ReLU between them.
#[derive(Module, Debug)]
struct Perceptron {
    layers: Vec<Linear>,
}

impl Perceptron {
    fn new(widths: [usize; 4], std: f64, device: &Device) -> Self {
        let layers = widths.windows(2).map(|pair| Linear::new(pair[0], pair[1], std, device));
        Self { layers: layers.collect() }
    }

    /// `[B, D, C]` -> `[B, D, last width]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (last, layers) = self.layers.split_last().expect("`new` makes three");
        last.forward(layers.iter().fold(x, |x, layer| Activation::Relu.forward(layer.forward(x))))
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                     field
    ("vit.embeddings.patch_embeddings.projection.",   "patches."),
    ("vit.embeddings.cls_token",                      "class_token"),
    ("vit.embeddings.detection_tokens",               "detection_tokens"),
    ("vit.embeddings.position_embeddings",            "positions"),
    ("vit.encoder.mid_position_embeddings",           "mid_positions"),
    ("class_labels_classifier.layers.{}.",            "classifier.layers.{}."),
    ("bbox_predictor.layers.{}.",                     "boxes.layers.{}."),
];

fn name(field: &str) -> Option<String> {
    rename(NAMES, field).or_else(|| Some(format!("vit.{}", rename(LAYERS, field)?)))
}

/// `transformers.YolosForObjectDetection`.
pub struct YolosForObjectDetection {
    pub config: YolosConfig,
    pub model: Yolos,
}

impl YolosForObjectDetection {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(YolosConfig::from_json)?;
        // A pooler is left from pre-training.
        let coverage = Coverage { ignored: &["vit.pooler."], fresh: &[] };
        let model = tensors::fill(config.init(device), &source.weights()?, &coverage, name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for YolosForObjectDetection {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let (channels, patch) = (self.config.num_channels, self.config.patch_size);
        let images: Tensor<4> =
            inputs.floats("pixel_values", [None, Some(channels), None, None])?;
        let [.., rows, columns] = images.dims();
        if rows.min(columns) < patch {
            let (name, found) = ("pixel_values".into(), images.dims().to_vec());
            let expected = format!("at least {patch} rows and columns, one patch,");
            return Err(InputError::Shape { name, found, expected });
        }
        let (logits, boxes) = self.model.forward(images);
        Ok(vec![("logits", logits.into_data()), ("pred_boxes", boxes.into_data())])
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

    /// Of positions, also through their interpolation.
    #[test]
    fn every_parameter_learns() {
        let device = Device::flex().autodiff();
        let model = YolosConfig::tiny().init(&device);
        let images = Tensor::random([2, 3, 24, 32], Distribution::Default, &device);
        let (logits, boxes) = model.forward(images);
        gradients::check(&model, Tensor::cat(vec![logits, boxes], 2));
    }
}
