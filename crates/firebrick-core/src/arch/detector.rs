//! A detector of our own: a small residual network, a pyramid of its maps, and one head that looks at every place of them.
//!
//! Papers: FCOS, Tian et al. 2019, <https://arxiv.org/abs/1904.01355>, for boxes as distances from a place to its sides;
//! feature pyramids, Lin et al. 2016, <https://arxiv.org/abs/1612.03144>; Li et al. 2020,
//! <https://arxiv.org/abs/2006.04388>, for a score that is also how well the box lies. No architecture of `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `I` channels of the image, `C` channels of a stage, `F` channels of the pyramid (`pyramid_size`), `H` rows,
//! `W` columns, `N` places of all levels, `L` labels.

use std::path::Path;

use burn::{module::Module, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    image::name_labels,
    inputs::{InputError, Inputs},
    resnet::{LayerType, ResNetConfig, Stage, convolution},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        tensors::{self, Coverage, SaveType},
    },
    layers::{
        activation::Activation,
        conv::{Conv2d, ConvConfig, ConvNorm},
        norm::{After, BatchNorm},
    },
};

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "firebrick-detector";

/// Sizes of a [`Detector`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectorConfig {
    /// A stem of 3 x 3 and no pooling stands before its stages.
    #[serde(flatten)]
    pub backbone: ResNetConfig,
    /// First stage that objects are looked for on, from 0; all after it are looked at, too.
    pub first_level: usize,
    /// `F`
    pub pyramid_size: usize,
    /// Convolutions of the head before those that answer.
    pub head_depth: usize,
    /// `L`
    #[serde(skip)]
    pub num_labels: usize,
}

/// A place that an object is looked for at, in pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    pub x: f32,
    pub y: f32,
    /// Pixels between it and the next.
    pub stride: f32,
}

impl DetectorConfig {
    /// Objects of 10 to 300 pixels on images of some 320 pixels.
    pub fn small(num_labels: usize) -> Self {
        Self {
            backbone: ResNetConfig {
                num_channels: 3,
                embedding_size: 16,
                hidden_sizes: vec![32, 64, 128, 128],
                depths: vec![1; 4],
                layer_type: LayerType::Basic,
                hidden_act: Activation::Relu,
                downsample_in_first_stage: true,
                downsample_in_bottleneck: false,
            },
            first_level: 1,
            pyramid_size: 64,
            head_depth: 2,
            num_labels,
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::small`].
    pub fn tiny() -> Self {
        let small = Self::small(2);
        Self {
            backbone: ResNetConfig {
                embedding_size: 4,
                hidden_sizes: vec![4, 6, 8],
                depths: vec![1; 3],
                ..small.backbone
            },
            pyramid_size: 4,
            head_depth: 1,
            ..small
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["FirebrickDetector"])?;
        let config = Self { num_labels: config::labels(value)?, ..config::parse(value)? };
        config.check()?;
        Ok(config)
    }

    /// `config.json`.
    pub fn to_json(&self, labels: &[String]) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!(MODEL_TYPE);
        value["architectures"] = json!(["FirebrickDetector"]);
        name_labels(&mut value, labels);
        value
    }

    pub fn check(&self) -> Result<(), String> {
        self.backbone.check()?;
        let stages = self.backbone.hidden_sizes.len();
        // The stride of the last is then at most 1024.
        config::size("hidden_sizes (their number)", stages, 9)?;
        if self.first_level >= stages {
            let first = self.first_level;
            return Err(format!("first_level is {first}, of {stages} stages that begin with 0"));
        }
        config::size("pyramid_size", self.pyramid_size, 4096)?;
        config::size("head_depth", self.head_depth, 64)?;
        config::size("num_labels", self.num_labels, 65_536)
    }

    /// Pixels between two places of each level.
    pub fn strides(&self) -> Vec<usize> {
        let first = 1 + usize::from(self.backbone.downsample_in_first_stage);
        let stages = 0..self.backbone.hidden_sizes.len();
        stages.skip(self.first_level).map(|stage| 1 << (first + stage)).collect()
    }

    /// Whether images of so many rows and columns can go in.
    pub fn check_size(&self, [rows, columns]: [usize; 2]) -> Result<(), String> {
        let whole = self.strides().pop().expect("`check` wants a level");
        match rows > 0 && columns > 0 && rows % whole == 0 && columns % whole == 0 {
            true => Ok(()),
            false => {
                Err(format!("takes images whose sides {whole} divides, not {rows} x {columns}"))
            }
        }
    }

    /// The places of an image of so many rows and columns, in the order of [`Detector::forward`].
    pub fn places(&self, [rows, columns]: [usize; 2]) -> Vec<Place> {
        let level = |stride: usize| {
            let middle = move |i: usize| (i as f32 + 0.5) * stride as f32;
            (0..rows / stride).flat_map(move |row| {
                (0..columns / stride).map(move |column| Place {
                    x: middle(column),
                    y: middle(row),
                    stride: stride as f32,
                })
            })
        };
        self.strides().into_iter().flat_map(level).collect()
    }

    pub fn init(&self, device: &Device) -> Detector {
        let (f, backbone) = (self.pyramid_size, &self.backbone);
        let sizes = &backbone.hidden_sizes[self.first_level..];
        let answer = |channels: usize| {
            let padding = [(1, 1); 2];
            ConvConfig { padding, std: 0.01, ..ConvConfig::new(f, channels, [3, 3]) }.init(device)
        };
        let lateral = |c: &usize| {
            let std = (1.0 / *c as f64).sqrt();
            ConvConfig { std, ..ConvConfig::new(*c, f, [1, 1]) }.init(device)
        };
        let shared = |_| SharedConv {
            convolution: ConvConfig {
                padding: [(1, 1); 2],
                bias: false,
                std: (2.0 / (9 * f) as f64).sqrt(),
                ..ConvConfig::new(f, f, [3, 3])
            }
            .init(device),
            norms: sizes.iter().map(|_| BatchNorm::new(f, 1e-5, 0.1, device)).collect(),
        };
        Detector {
            stem: convolution(backbone.num_channels, backbone.embedding_size, 3, 2, device),
            stages: backbone.stages(device),
            lateral: sizes.iter().map(lateral).collect(),
            smooth: sizes.iter().map(|_| convolution(f, f, 3, 1, device)).collect(),
            head: (0..self.head_depth).map(shared).collect(),
            classifier: answer(self.num_labels),
            boxes: answer(4),
            strides: self.strides(),
        }
    }
}

/// An image in; at every place of every level a score for each label, and where the sides of the object would be.
#[derive(Module, Debug)]
pub struct Detector {
    stem: ConvNorm,
    stages: Vec<Stage>,
    /// From the stages of the levels to `F` channels.
    lateral: Vec<Conv2d>,
    smooth: Vec<ConvNorm>,
    head: Vec<SharedConv>,
    classifier: Conv2d,
    boxes: Conv2d,
    /// Of each level.
    #[module(skip)]
    strides: Vec<usize>,
}

/// Logit of a score that a fresh model has: 1 %, as most places hold nothing (Lin et al. 2017,
/// <https://arxiv.org/abs/1708.02002>, section 4.1).
const PRIOR: f64 = -4.595;

/// Strides from a place to each side that a fresh model says.
const REACH: f64 = 2.0;

impl Detector {
    /// - `images`: `[B, I, H, W]`, whose sides the largest stride divides
    /// - returns logits `[B, N, L]`, and the distances `[B, N, 4]` from the place to the left, top, right and bottom of
    ///   the object, in pixels
    pub fn forward(&self, images: Tensor<4>) -> (Tensor<3>, Tensor<3>) {
        let maps = self.pyramid(images);
        let relu = || After::activation(Activation::Relu);
        let answers = maps.into_iter().enumerate().map(|(level, x)| {
            let x = self.head.iter().fold(x, |x, shared| {
                shared.norms[level].forward(shared.convolution.forward(x), relu())
            });
            let logits = places_last(self.classifier.forward(x.clone())) + PRIOR;
            // Larger than any image that fits in memory, and no infinity.
            let boxes = places_last(self.boxes.forward(x)).clamp(-8.0, 8.0).exp();
            (logits, boxes * (REACH * self.strides[level] as f64))
        });
        let (logits, boxes) = answers.unzip();
        (Tensor::cat(logits, 1), Tensor::cat(boxes, 1))
    }

    /// The maps of the levels, the finest first: `[B, I, H, W]` -> `[B, F, H / stride, W / stride]` each
    fn pyramid(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.stem.forward(images, After::activation(Activation::Relu));
        let first = self.stages.len() - self.lateral.len();
        let mut maps = vec![];
        for (index, stage) in self.stages.iter().enumerate() {
            x = stage.forward(x); // [B, C, H / stride, W / stride]
            if index >= first {
                maps.push(self.lateral[index - first].forward(x.clone()));
            }
        }
        for level in (1..maps.len()).rev() {
            maps[level - 1] = maps[level - 1].clone() + doubled(maps[level].clone());
        }
        let smooth = |(x, smooth): (Tensor<4>, &ConvNorm)| {
            smooth.forward(x, After::activation(Activation::Relu))
        };
        maps.into_iter().zip(&self.smooth).map(smooth).collect()
    }
}

/// A convolution over the maps of all levels; each has a norm of its own, since their numbers are spread differently.
#[derive(Module, Debug)]
struct SharedConv {
    convolution: Conv2d,
    norms: Vec<BatchNorm>,
}

/// Every pixel twice each way: `[B, C, H, W]` -> `[B, C, 2 H, 2 W]`
fn doubled(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let x: Tensor<6> = x.reshape([b, c, h, 1, w, 1]);
    x.repeat_dim(5, 2).repeat_dim(3, 2).reshape([b, c, 2 * h, 2 * w])
}

/// `[B, C, H, W]` -> `[B, H * W, C]`
fn places_last(x: Tensor<4>) -> Tensor<3> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h * w]).swap_dims(1, 2)
}

/// A [`Detector`] with its configuration.
pub struct FirebrickDetector {
    pub config: DetectorConfig,
    pub model: Detector,
}

impl FirebrickDetector {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(DetectorConfig::from_json)?;
        let all = Coverage { ignored: &[], fresh: &[] };
        let weights = source.weights()?;
        let model = tensors::fill(config.init(device), &weights, &all, |f| Some(f.to_string()))?;
        Ok(Self { config, model })
    }
}

impl AnyModel for FirebrickDetector {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let axes = [None, Some(self.config.backbone.num_channels), None, None];
        let images: Tensor<4> = inputs.floats("pixel_values", axes)?;
        let [.., rows, columns] = images.dims();
        if let Err(expected) = self.config.check_size([rows, columns]) {
            let (name, found) = ("pixel_values".into(), images.dims().to_vec());
            return Err(InputError::Shape { name, found, expected });
        }
        let (logits, distances) = self.model.forward(images);
        Ok(vec![("logits", logits.into_data()), ("distances", distances.into_data())])
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
        let model = DetectorConfig::tiny().init(&device);
        let images = Tensor::random([2, 3, 32, 48], Distribution::Default, &device);
        let (logits, distances) = model.forward(images);
        let answers = Tensor::cat(vec![logits, distances.log()], 2);
        arch::gradients::check_but_averages(&model, answers);
    }

    /// A fresh model says at every place, in the order of `places`: hardly anything, in a box of four strides.
    #[test]
    fn places_are_in_the_order_of_the_answers() {
        let device = Device::flex();
        let config = DetectorConfig::tiny();
        assert_eq!(config.strides(), [8, 16]);
        assert!(config.check_size([32, 40]).is_err());
        let places = config.places([32, 48]);
        assert_eq!(places.len(), 4 * 6 + 2 * 3);
        assert_eq!(places[1], Place { x: 12.0, y: 4.0, stride: 8.0 });
        assert_eq!(places[24 + 4], Place { x: 24.0, y: 24.0, stride: 16.0 });

        let images = Tensor::zeros([1, 3, 32, 48], &device);
        let (logits, distances) = config.init(&device).forward(images);
        assert_eq!(logits.dims(), [1, 30, 2]);
        let distances: Vec<f32> = distances.into_data().try_into_vec().unwrap();
        for (place, distances) in places.iter().zip(distances.chunks(4)) {
            for distance in distances {
                assert!(
                    (distance / (2.0 * place.stride) - 1.0).abs() < 0.5,
                    "{place:?} {distance}"
                );
            }
        }
    }

    #[test]
    fn a_pixel_becomes_four() {
        let x = Tensor::<4>::from_data([[[[1.0, 2.0], [3.0, 4.0]]]], &Device::flex());
        let expected = [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4].map(|x| x as f32);
        let found: Vec<f32> = doubled(x).into_data().try_into_vec().unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_keeps_the_model() {
        let device = Device::flex();
        let config = DetectorConfig::tiny();
        let model = FirebrickDetector { model: config.init(&device), config: config.clone() };
        let images = Tensor::<4>::random([1, 3, 32, 32], Distribution::Default, &device);
        let (logits, _) = model.model.forward(images.clone());
        let dir = tempfile::tempdir().unwrap();
        model.save(&dir.path().join("model.safetensors"), SaveType::F32).unwrap();
        let json = config.to_json(&["a".into(), "b".into()]).to_string();
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        let opened = FirebrickDetector::load(&Source::folder(dir.path()), &device).unwrap();
        assert_eq!(opened.config, config);
        let (found, _) = opened.model.forward(images);
        found.into_data().assert_approx_eq::<f32>(&logits.into_data(), Tolerance::absolute(0.0));
    }
}
