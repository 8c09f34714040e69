//! Image classifiers of any family behind one door: made fresh, opened, fine-tuned, saved.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `I` channels of the image, `C` channels of the last maps, `H` rows, `W` columns, `L` labels.

use std::{collections::BTreeMap, path::Path};

use burn::{module::Module, prelude::*};
use serde_json::{Value, json};

use super::{
    AnyModel,
    convnext::{self, ConvNext, ConvNextConfig, ConvNextForImageClassification},
    mobilenet_v2::{self, MobileNetV2, MobileNetV2Config, MobileNetV2ForImageClassification},
    resnet::{self, ResNet, ResNetConfig, ResNetForImageClassification},
    vit::{self, Vit, VitConfig, VitForImageClassification},
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

    /// Checkpoint name of a field of its [`ImageModel`].
    pub fn checkpoint_name(&self, field: &str) -> Option<String> {
        match self {
            Self::ResNet(_) => resnet::checkpoint_name(field.strip_prefix("ResNet.")?),
            Self::MobileNetV2(_) => {
                mobilenet_v2::checkpoint_name(field.strip_prefix("MobileNetV2.")?)
            }
            Self::ConvNext(_) => convnext::checkpoint_name(field.strip_prefix("ConvNext.")?),
            Self::Vit(_) => vit::checkpoint_name(field.strip_prefix("Vit.")?),
        }
    }

    /// Modules of the classification head, for an adapter that is trained beside it.
    pub fn head_modules(&self) -> &'static [&'static str] {
        &["classifier"]
    }

    /// The layers that an adapter is for where nothing else is said: query and value, or the feed-forward blocks of a
    /// ConvNeXt. The others have convolutions only.
    pub fn lora_targets(&self) -> &'static [&'static str] {
        match self {
            Self::ResNet(_) | Self::MobileNetV2(_) => &[],
            Self::ConvNext(_) => &["pwconv1", "pwconv2"],
            Self::Vit(_) => &["query", "value"],
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

#[cfg(test)]
mod tests {
    use burn::{
        optim::{AdamWConfig, GradientsParams},
        tensor::{Distribution, Tolerance},
    };

    use super::*;
    use crate::checkpoint::lora::{self, LoraConfig};

    fn adapter(config: &ImageConfig, base: &Path) -> LoraConfig {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        LoraConfig {
            modules_to_save: owned(config.head_modules()),
            base_model_name_or_path: base.to_str().map(str::to_string),
            ..LoraConfig::new(2, 4.0, &owned(config.lora_targets()))
        }
    }

    fn write(dir: &Path, saved: &ImageClassifier, labels: &[String]) {
        let json = saved.config.to_json(labels).to_string();
        std::fs::write(dir.join("config.json"), json).unwrap();
    }

    /// Two factors for each layer, and a head of other labels than the base's, learn; a folder with nothing else
    /// opens as the same model.
    #[test]
    fn an_adapter_is_read_over_its_base() {
        let device = Device::flex().autodiff();
        device.seed(3);
        let vit = (ImageConfig::Vit(VitConfig::tiny()), 2 * 2);
        let tiny = ConvNextConfig::tiny();
        let tiny = ConvNextConfig { layer_scale_init_value: 0.0, drop_path_rate: 0.0, ..tiny };
        let layers = 2 * tiny.depths.iter().sum::<usize>();
        let convnext = (ImageConfig::ConvNext(tiny), layers);
        for (config, adapted) in [vit, convnext] {
            let home = tempfile::tempdir().unwrap();
            let [base, dir] = ["base", "adapter"].map(|name| home.path().join(name));
            for dir in [&base, &dir] {
                std::fs::create_dir(dir).unwrap();
            }
            let model = config.init(4, &device);
            let saved = ImageClassifier { config, model };
            saved.save(&base.join("model.safetensors"), SaveType::F32).unwrap();
            write(&base, &saved, &["a", "b", "c", "d"].map(String::from));

            let labels = ["x", "y"].map(String::from);
            let source = Source::folder(&base);
            let ImageClassifier { config, model } =
                ImageClassifier::pretrained(&source, &labels, &device).unwrap();
            let lora = adapter(&config, &base);
            let name = |field: &str| config.checkpoint_name(field);
            let model = lora::attach(model.materialize(), &lora, name).unwrap();
            let side = if let ImageConfig::Vit(_) = config { 16 } else { 32 };
            let normal = Distribution::Normal(0.0, 1.0);
            let x = Tensor::<4>::random([2, 3, side, side], normal, &device);
            let before = model.forward(x.clone());
            let loss = before.clone().powi_scalar(2).sum();
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            assert_eq!(grads.len(), 2 * adapted + 2, "{config:?}");
            let model = AdamWConfig::new().init().step(0.01, model, grads);
            let after = model.forward(x.clone()).into_data();

            lora::save(&model, &lora, &dir, name).unwrap();
            let tuned = ImageClassifier { config, model };
            write(&dir, &tuned, &labels);
            let read = ImageClassifier::load(&Source::folder(&dir), Head::Own, &device).unwrap();
            let read = read.model.forward(x).into_data();
            read.assert_approx_eq::<f32>(&after, Tolerance::absolute(1e-5));
            let before = before.into_data();
            let moved = before.iter::<f32>().zip(after.iter::<f32>());
            assert!(moved.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 1e-3);
        }
    }

    #[test]
    fn convolutions_take_no_adapter() {
        let device = Device::flex();
        let config = ImageConfig::ResNet(ResNetConfig::tiny());
        let model = config.init(2, &device);
        let name = |field: &str| config.checkpoint_name(field);
        let lora = adapter(&config, Path::new("base"));
        let error = lora::attach(model.clone(), &lora, name).unwrap_err();
        assert!(error.contains("convolutions"), "{error}");
        // Nor does the head, which is trained whole.
        let lora = LoraConfig { target_modules: lora::Targets::Word("all-linear".into()), ..lora };
        assert_eq!(lora::attach(model, &lora, name).unwrap_err(), error);
    }
}
