//! Video classifiers of either family behind one door: made fresh, opened, fine-tuned, saved.
//!
//! Axis letters: `B` batch, `F` frames, `I` channels of a frame, `H` rows, `W` columns, `L` labels.

use std::path::Path;

use burn::{module::Module, prelude::*};
use serde_json::{Value, json};

use super::{
    AnyModel,
    clip_rnn::{self, ClipRnn, ClipRnnConfig, FirebrickClipRnn},
    image::{Head, name_labels, square},
    videomae::{self, VideoMae, VideoMaeConfig, VideoMaeForVideoClassification},
};
use crate::checkpoint::{LoadError, Source, config, tensors::SaveType};

/// Sizes of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum VideoConfig {
    ClipRnn(ClipRnnConfig),
    VideoMae(VideoMaeConfig),
}

impl VideoConfig {
    /// `I`
    pub fn num_channels(&self) -> usize {
        match self {
            Self::ClipRnn(config) => config.num_channels,
            Self::VideoMae(config) => config.num_channels,
        }
    }

    /// `F`
    pub fn num_frames(&self) -> usize {
        match self {
            Self::ClipRnn(config) => config.num_frames,
            Self::VideoMae(config) => config.num_frames,
        }
    }

    /// Whether clips of so many frames of so many rows and columns can go in.
    pub fn check_size(&self, frames: usize, size: [usize; 2]) -> Result<(), String> {
        let [rows, columns] = size;
        match self {
            Self::VideoMae(config) if (config.num_frames, config.image_size) != (frames, size) => {
                let (wanted, [h, w]) = (config.num_frames, config.image_size);
                Err(format!(
                    "takes clips of {wanted} frames of {h} x {w}, not {frames} of {rows} x {columns}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Checkpoint name of a field of its [`VideoModel`].
    pub fn checkpoint_name(&self, field: &str) -> Option<String> {
        match self {
            Self::ClipRnn(_) => field.strip_prefix("ClipRnn.").map(str::to_string),
            Self::VideoMae(_) => videomae::checkpoint_name(field.strip_prefix("VideoMae.")?),
        }
    }

    /// Modules of the classification head, for an adapter that is trained beside it. A VideoMAE's has a norm, which is
    /// fresh, too, where the base was only pretrained.
    pub fn head_modules(&self) -> &'static [&'static str] {
        match self {
            Self::ClipRnn(_) => &["classifier"],
            Self::VideoMae(_) => &["classifier", "fc_norm"],
        }
    }

    /// The layers that an adapter is for where nothing else is said: query and value. A GRU has none of these.
    pub fn lora_targets(&self) -> &'static [&'static str] {
        match self {
            Self::ClipRnn(_) => &[],
            Self::VideoMae(_) => &["query", "value"],
        }
    }

    /// `config.json`; a VideoMAE's in the names that `transformers` reads.
    pub fn to_json(&self, labels: &[String]) -> Value {
        match self {
            Self::ClipRnn(config) => config.to_json(labels),
            Self::VideoMae(config) => {
                let mut value = json!(config);
                value["model_type"] = "videomae".into();
                value["architectures"] = json!(["VideoMAEForVideoClassification"]);
                value["qkv_bias"] = config.qv_bias.into();
                name_labels(&mut value, labels);
                value["torch_dtype"] = "float32".into();
                square(&mut value);
                value
            }
        }
    }
}

/// Clips in, logits of their classes out.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a process holds one or two of them")]
pub enum VideoModel {
    ClipRnn(ClipRnn),
    VideoMae(VideoMae),
}

impl VideoModel {
    /// Normalised frames `[B, F, I, H, W]` -> logits `[B, L]`
    pub fn forward(&self, frames: Tensor<5>) -> Tensor<2> {
        match self {
            Self::ClipRnn(model) => model.forward(frames),
            Self::VideoMae(model) => model.forward(frames),
        }
    }

    /// `L`
    pub fn labels(&self) -> usize {
        match self {
            Self::ClipRnn(model) => model.classifier.width(),
            Self::VideoMae(model) => model.classifier.width(),
        }
    }
}

/// A model with its sizes, as a checkpoint holds them.
pub struct VideoClassifier {
    pub config: VideoConfig,
    pub model: VideoModel,
}

impl VideoClassifier {
    /// With fresh weights.
    pub fn fresh(config: ClipRnnConfig, labels: usize, device: &Device) -> Self {
        let model = VideoModel::ClipRnn(config.init(labels, device));
        Self { config: VideoConfig::ClipRnn(config), model }
    }

    pub fn load(source: &Source, head: Head, device: &Device) -> Result<Self, LoadError> {
        const KNOWN: &[&str] = &[clip_rnn::MODEL_TYPE, "videomae"];
        let mae = source.config_as(|value| {
            config::check_model_type(value, KNOWN)?;
            Ok(value["model_type"] == "videomae")
        })?;
        Ok(if mae {
            let found = VideoMaeForVideoClassification::load(source, head, device)?;
            let model = VideoModel::VideoMae(found.model);
            Self { config: VideoConfig::VideoMae(found.config), model }
        } else {
            let found = FirebrickClipRnn::load(source, head, device)?;
            let model = VideoModel::ClipRnn(found.model);
            Self { config: VideoConfig::ClipRnn(found.config), model }
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

    /// Writes `model.safetensors`.
    pub fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        match (&self.config, &self.model) {
            (VideoConfig::ClipRnn(config), VideoModel::ClipRnn(model)) => {
                let (config, model) = (config.clone(), model.clone());
                FirebrickClipRnn { config, model }.save(path, dtype)
            }
            (VideoConfig::VideoMae(config), VideoModel::VideoMae(model)) => {
                let (config, model) = (config.clone(), model.clone());
                VideoMaeForVideoClassification { config, model }.save(path, dtype)
            }
            _ => unreachable!("a model is of its configuration's family"),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;
    use crate::checkpoint::lora::{self, LoraConfig};

    /// A fresh head where the labels are others, the same model where they are not.
    #[test]
    fn a_video_mae_goes_on() {
        let device = Device::flex();
        device.seed(3);
        let config = VideoMaeConfig { num_labels: 2, ..VideoMaeConfig::tiny() };
        let model = VideoModel::VideoMae(config.init(&device));
        let saved = VideoClassifier { config: VideoConfig::VideoMae(config), model };
        let labels = ["sit", "walk"].map(String::from);
        let dir = tempfile::tempdir().unwrap();
        saved.save(&dir.path().join("model.safetensors"), SaveType::F32).unwrap();
        let json = saved.config.to_json(&labels).to_string();
        std::fs::write(dir.path().join("config.json"), json).unwrap();

        let source = Source::folder(dir.path());
        let x = Tensor::<5>::random([1, 4, 3, 16, 16], Distribution::Normal(0.0, 1.0), &device);
        let same = VideoClassifier::pretrained(&source, &labels, &device).unwrap();
        let expected = saved.model.forward(x.clone()).into_data();
        let found = same.model.forward(x.clone()).into_data();
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.0));
        let others = ["a", "b", "c"].map(String::from);
        let other = VideoClassifier::pretrained(&source, &others, &device).unwrap();
        assert_eq!(other.model.forward(x).dims(), [1, 3]);
        assert!(other.config.check_size(4, [16, 16]).is_ok());
        assert!(other.config.check_size(4, [16, 20]).unwrap_err().contains("16 x 20"));
    }

    /// As `VideoMAEForPreTraining` saves it: with a decoder, and without the head and its norm.
    #[test]
    fn a_pretrained_video_mae_brings_its_encoder() {
        let device = Device::flex();
        let config = VideoMaeConfig { num_labels: 2, ..VideoMaeConfig::tiny() };
        let model = VideoModel::VideoMae(config.init(&device));
        let saved = VideoClassifier { config: VideoConfig::VideoMae(config), model };
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole.safetensors");
        saved.save(&whole, SaveType::F32).unwrap();
        let weights = crate::checkpoint::tensors::Weights::open_file(&whole).unwrap();
        let name = |name: &str| match name {
            "fc_norm.weight" => Some("decoder.norm.weight".to_string()),
            _ if name.starts_with("fc_norm") || name.starts_with("classifier") => None,
            name => Some(name.to_string()),
        };
        let path = dir.path().join("model.safetensors");
        crate::checkpoint::tensors::rename(&weights, &path, SaveType::F32, name).unwrap();
        let mut json = saved.config.to_json(&["a", "b"].map(String::from));
        json["architectures"] = json!(["VideoMAEForPreTraining"]);
        std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        let source = Source::folder(dir.path());
        let labels = ["a", "b", "c"].map(String::from);
        let VideoClassifier { config, model } =
            VideoClassifier::pretrained(&source, &labels, &device).unwrap();
        assert!(VideoClassifier::load(&source, Head::Own, &device).is_err());

        // Its adapter brings the head and the norm, and leaves the decoder where it is.
        let adapter = dir.path().join("adapter");
        std::fs::create_dir(&adapter).unwrap();
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let lora = LoraConfig {
            modules_to_save: owned(config.head_modules()),
            base_model_name_or_path: dir.path().to_str().map(str::to_string),
            ..LoraConfig::new(2, 4.0, &owned(config.lora_targets()))
        };
        let name = |field: &str| config.checkpoint_name(field);
        let model = lora::attach(model.materialize(), &lora, name).unwrap();
        lora::save(&model, &lora, &adapter, name).unwrap();
        std::fs::write(adapter.join("config.json"), config.to_json(&labels).to_string()).unwrap();
        let read =
            VideoClassifier::load(&Source::folder(&adapter), Head::Own, &device).unwrap().model;
        let x = Tensor::<5>::random([1, 4, 3, 16, 16], Distribution::Normal(0.0, 1.0), &device);
        let expected = model.forward(x.clone()).into_data();
        read.forward(x).into_data().assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }
}
