//! Image classifiers of any family behind one door: made fresh, opened, fine-tuned, saved.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `I` channels of the image, `C` channels of the last maps, `H` rows, `W` columns, `L` labels.

use std::{collections::BTreeMap, path::Path};

use burn::{module::Module, prelude::*};
use serde_json::{Value, json};

use super::{
    AnyModel,
    convnext::{ConvNext, ConvNextConfig, ConvNextForImageClassification},
    mobilenet_v2::{MobileNetV2, MobileNetV2Config, MobileNetV2ForImageClassification},
    resnet::{ResNet, ResNetConfig, ResNetForImageClassification},
    vit::{Vit, VitConfig, VitForImageClassification},
};
use crate::checkpoint::{
    LoadError, Source, config,
    tensors::{self, Coverage, SaveType},
};

/// Which classifier a model opened from a checkpoint gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The checkpoint's.
    Own,
    /// A fresh one of so many classes.
    Fresh(usize),
}

impl Head {
    /// The checkpoint's if it has just these labels.
    pub(super) fn of(source: &Source, labels: &[String]) -> Result<Self, LoadError> {
        let config = source.config()?;
        let own = |index: usize| config.pointer(&format!("/id2label/{index}"))?.as_str();
        let count = config["id2label"].as_object().map_or(0, |names| names.len());
        let same = labels.iter().map(String::as_str).eq((0..count).filter_map(own));
        Ok(if same { Self::Own } else { Self::Fresh(labels.len()) })
    }

    pub(super) fn labels(self, own: usize) -> usize {
        match self {
            Self::Own => own,
            Self::Fresh(labels) => labels,
        }
    }
}

/// Fills `model`, but for a fresh head.
pub(super) fn fill<M: Module>(
    source: &Source,
    model: M,
    head: Head,
    ignored: &[&str],
    name: impl Fn(&str) -> Option<String>,
) -> Result<M, LoadError> {
    const CLASSIFIER: &[&str] = &["classifier."];
    let fresh = if head == Head::Own { &[] } else { CLASSIFIER };
    fill_but(source, model, fresh, &[ignored, fresh].concat(), name)
}

/// Fills `model`, but for the fields that begin with one of `fresh`.
pub(super) fn fill_but<M: Module>(
    source: &Source,
    model: M,
    fresh: &[&str],
    ignored: &[&str],
    name: impl Fn(&str) -> Option<String>,
) -> Result<M, LoadError> {
    let coverage = Coverage { ignored, fresh };
    let name = |field: &str| match fresh.iter().any(|part| field.starts_with(part)) {
        true => None,
        false => name(field),
    };
    tensors::fill(model, &source.weights()?, &coverage, name)
}

/// Writes `id2label` and `label2id`.
pub(super) fn name_labels(config: &mut Value, labels: &[String]) {
    let numbered = || labels.iter().enumerate();
    let names: BTreeMap<String, &String> = numbered().map(|(i, l)| (i.to_string(), l)).collect();
    let numbers: BTreeMap<&String, usize> = numbered().map(|(i, l)| (l, i)).collect();
    config["id2label"] = json!(names);
    config["label2id"] = json!(numbers);
}

/// The library takes one number for a square.
pub(super) fn square(config: &mut Value) {
    for side in ["image_size", "patch_size"] {
        if let Some([rows, columns]) = config[side].as_array().map(Vec::as_slice)
            && rows == columns
        {
            config[side] = rows.clone();
        }
    }
}

/// Sizes of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageConfig {
    ResNet(ResNetConfig),
    MobileNetV2(MobileNetV2Config),
    ConvNext(ConvNextConfig),
    Vit(VitConfig),
}

impl ImageConfig {
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::ResNet(config) => config.check(),
            Self::MobileNetV2(config) => config.check(),
            Self::ConvNext(config) => config.check(),
            Self::Vit(config) => config.check(),
        }
    }

    /// `I`
    pub fn num_channels(&self) -> usize {
        match self {
            Self::ResNet(config) => config.num_channels,
            Self::MobileNetV2(config) => config.num_channels,
            Self::ConvNext(config) => config.num_channels,
            Self::Vit(config) => config.num_channels,
        }
    }

    /// Whether images of so many rows and columns can go in.
    pub fn check_size(&self, size: [usize; 2]) -> Result<(), String> {
        let [rows, columns] = size;
        match self {
            Self::Vit(config) if config.image_size != size => {
                let [h, w] = config.image_size;
                Err(format!("takes images of {h} x {w}, not {rows} x {columns}"))
            }
            Self::ConvNext(config) => {
                let [h, w] = config.smallest();
                match rows >= h && columns >= w {
                    true => Ok(()),
                    false => {
                        Err(format!("takes images of {h} x {w} or more, not {rows} x {columns}"))
                    }
                }
            }
            _ => Ok(()),
        }
    }

    /// A classifier of `labels` classes with fresh weights.
    pub fn init(&self, labels: usize, device: &Device) -> ImageModel {
        match self {
            Self::ResNet(config) => ImageModel::ResNet(config.init(labels, device)),
            Self::MobileNetV2(config) => ImageModel::MobileNetV2(config.init(labels, device)),
            Self::ConvNext(config) => ImageModel::ConvNext(config.init(labels, device)),
            Self::Vit(config) => {
                let config = VitConfig { num_labels: labels, ..config.clone() };
                ImageModel::Vit(config.init(device))
            }
        }
    }

    /// `config.json` in the names that `transformers` reads.
    pub fn to_json(&self, labels: &[String]) -> Value {
        let (family, name, mut value) = match self {
            Self::ResNet(config) => ("resnet", "ResNet", json!(config)),
            Self::MobileNetV2(config) => ("mobilenet_v2", "MobileNetV2", json!(config)),
            Self::ConvNext(config) => ("convnext", "ConvNext", json!(config)),
            Self::Vit(config) => ("vit", "ViT", json!(config)),
        };
        value["model_type"] = family.into();
        value["architectures"] = json!([format!("{name}ForImageClassification")]);
        name_labels(&mut value, labels);
        value["torch_dtype"] = "float32".into();
        square(&mut value);
        value
    }
}

/// Images in, logits of their classes out.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a process holds one or two of them")]
pub enum ImageModel {
    ResNet(ResNet),
    MobileNetV2(MobileNetV2),
    ConvNext(ConvNext),
    Vit(Vit),
}

impl ImageModel {
    /// `[B, I, H, W]` -> logits `[B, L]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::ResNet(model) => model.forward(images),
            Self::MobileNetV2(model) => model.forward(images),
            Self::ConvNext(model) => model.forward(images),
            Self::Vit(model) => model.forward(images),
        }
    }

    /// The last maps, `[B, I, H, W]` -> `[B, C, H', W']`; `None` of a model that has none.
    pub fn features(&self, images: Tensor<4>) -> Option<Tensor<4>> {
        match self {
            Self::ResNet(model) => Some(model.features(images)),
            Self::MobileNetV2(model) => Some(model.features(images)),
            Self::ConvNext(model) => Some(model.features(images)),
            Self::Vit(_) => None,
        }
    }

    /// What the last maps say, `[B, C, H', W']` -> logits `[B, L]`; `None` of a model that has none.
    pub fn classify(&self, features: Tensor<4>) -> Option<Tensor<2>> {
        match self {
            Self::ResNet(model) => Some(model.classify(features)),
            Self::MobileNetV2(model) => Some(model.classify(features)),
            Self::ConvNext(model) => Some(model.classify(features)),
            Self::Vit(_) => None,
        }
    }

    /// `L`
    pub fn labels(&self) -> usize {
        match self {
            Self::ResNet(model) => model.classifier.width(),
            Self::MobileNetV2(model) => model.classifier.width(),
            Self::ConvNext(model) => model.classifier.width(),
            Self::Vit(model) => model.classifier.width(),
        }
    }

    /// The same with logits divided by `temperature`.
    pub fn tempered(mut self, temperature: f64) -> Self {
        let classifier = match &mut self {
            Self::ResNet(model) => &mut model.classifier,
            Self::MobileNetV2(model) => &mut model.classifier,
            Self::ConvNext(model) => &mut model.classifier,
            Self::Vit(model) => &mut model.classifier,
        };
        *classifier = classifier.clone().scaled(1.0 / temperature);
        self
    }
}

/// A model with its sizes, as a checkpoint holds them.
pub struct ImageClassifier {
    pub config: ImageConfig,
    pub model: ImageModel,
}

impl ImageClassifier {
    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        const KNOWN: &[&str] = &["resnet", "mobilenet_v2", "convnext", "vit"];
        let family = source.config_as(|value| {
            config::check_model_type(value, KNOWN)?;
            Ok(value["model_type"].as_str().unwrap_or_default().to_string())
        })?;
        Ok(match family.as_str() {
            "resnet" => {
                let found = ResNetForImageClassification::load(source, head, device)?;
                let (config, model) = (found.config, found.model);
                Self { config: ImageConfig::ResNet(config), model: ImageModel::ResNet(model) }
            }
            "mobilenet_v2" => {
                let found = MobileNetV2ForImageClassification::load(source, head, device)?;
                let config = ImageConfig::MobileNetV2(found.config);
                Self { config, model: ImageModel::MobileNetV2(found.model) }
            }
            "convnext" => {
                let found = ConvNextForImageClassification::load(source, head, device)?;
                let config = ImageConfig::ConvNext(found.config);
                Self { config, model: ImageModel::ConvNext(found.model) }
            }
            _ => {
                let found = VitForImageClassification::load(source, head, device)?;
                let (config, model) = (found.config, found.model);
                Self { config: ImageConfig::Vit(config), model: ImageModel::Vit(model) }
            }
        })
    }

    /// Opens a checkpoint to go on from: with its own head if it has just these labels, else with a fresh one.
    pub fn pretrained(
        source: &Source,
        labels: &[String],
        device: &Device,
    ) -> Result<Self, LoadError> {
        Self::load(source, Head::of(source, labels)?, device)
    }

    /// Writes `model.safetensors` with the names that `transformers` expects.
    pub fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        let saved: Box<dyn AnyModel> = match (&self.config, &self.model) {
            (ImageConfig::ResNet(config), ImageModel::ResNet(model)) => {
                let (config, model) = (config.clone(), model.clone());
                Box::new(ResNetForImageClassification { config, model })
            }
            (ImageConfig::MobileNetV2(config), ImageModel::MobileNetV2(model)) => {
                let (config, model) = (config.clone(), model.clone());
                Box::new(MobileNetV2ForImageClassification { config, model })
            }
            (ImageConfig::ConvNext(config), ImageModel::ConvNext(model)) => {
                let (config, model) = (config.clone(), model.clone());
                Box::new(ConvNextForImageClassification { config, model })
            }
            (ImageConfig::Vit(config), ImageModel::Vit(model)) => {
                let (config, model) = (config.clone(), model.clone());
                Box::new(VitForImageClassification { config, model })
            }
            _ => unreachable!("a model is of its configuration's family"),
        };
        saved.save(path, dtype)
    }
}
