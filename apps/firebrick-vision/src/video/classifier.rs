//! A model folder that says what is done in a clip: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_core::{
    arch::{image::Head, video::VideoClassifier},
    checkpoint::{Source, lora::LoraConfig, tensors::SaveType},
};
use firebrick_data::image::Picture;
use firebrick_train::{job::Recipe as _, lora, origin::Origin};

use super::{
    corpus::{Clip, fill},
    frames::FrameProcessor,
    recipe::Recipe,
    task::{classes, logits},
};
use crate::{
    classification::{
        classifier::named,
        task::{Judged, softmax},
    },
    settings,
};

/// A network with what it was trained with.
pub struct ClipClassifier {
    pub network: VideoClassifier,
    pub frames: FrameProcessor,
    pub labels: Vec<String>,
}

impl ClipClassifier {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        Origin::read_for(Recipe::TASK, source)?;
        let config = source.config()?;
        let network = VideoClassifier::load(source, Head::Own, device)?;
        let frames = FrameProcessor::open(source, network.config.num_channels())?;
        let labels = named(&config, network.model.labels());
        Ok(Self { network, frames, labels })
    }

    /// Frames of a clip.
    pub fn length(&self) -> usize {
        self.network.config.num_frames()
    }

    /// Probabilities by label of each part of a video as long as a clip; the last one may begin in the one before it.
    pub fn parts(&self, frames: &[Picture], batch_size: usize) -> Vec<(usize, Vec<f32>)> {
        let (length, count) = (self.length(), frames.len());
        let mut frames = frames.to_vec();
        fill(&mut frames, length);
        let mut begins: Vec<usize> =
            (0..count).step_by(length).filter(|begin| begin + length <= frames.len()).collect();
        let last = frames.len() - length;
        if begins.last() != Some(&last) {
            begins.push(last);
        }
        let parts: Vec<&[Picture]> = begins.iter().map(|b| &frames[*b..*b + length]).collect();
        let logits = logits(&self.network.model, &self.frames.frame, &parts, batch_size);
        begins.into_iter().zip(logits.iter().map(|row| softmax(row))).collect()
    }

    /// Judges on clips; those with an unknown label are left out.
    pub fn judge(&self, clips: &[Clip], batch_size: usize) -> Judged {
        let known = clips.iter().filter(|clip| self.labels.contains(&clip.label));
        let known: Vec<Clip> = known.cloned().collect();
        let truths = classes(&known, &self.labels).expect("all are known");
        let logits = logits(&self.network.model, &self.frames.frame, &known, batch_size);
        Judged::new(&logits, &truths, &self.labels, None)
    }

    pub fn save(&self, dir: &Path, origin: &Origin, about: &str) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        self.network.save(&dir.join("model.safetensors"), SaveType::F32)?;
        self.save_settings(dir)?;
        origin.save(dir, "video-classification", about)
    }

    /// Writes a folder with the adapter that the model was trained with, and with what is not as in its base.
    pub fn save_adapter(
        &self,
        lora: &LoraConfig,
        dir: &Path,
        origin: &Origin,
    ) -> anyhow::Result<()> {
        let VideoClassifier { config, model } = &self.network;
        lora::save(model, lora, |field| config.checkpoint_name(field), origin, dir)?;
        self.save_settings(dir)
    }

    fn save_settings(&self, dir: &Path) -> anyhow::Result<()> {
        settings::save(dir, &self.network.config.to_json(&self.labels), &self.frames.to_json())
    }
}
