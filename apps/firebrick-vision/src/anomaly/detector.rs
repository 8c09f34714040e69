//! A model folder that watches a video: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_core::{
    arch::{
        AnyModel,
        motion::{FirebrickMotion, Motion},
    },
    checkpoint::{Source, tensors::SaveType},
};
use firebrick_train::{
    job::Recipe as _,
    origin::{Origin, Threshold},
};
use rayon::prelude::*;

use super::{
    corpus::Clip,
    recipe::Recipe,
    synthetic::Stack,
    task::{Levels, Map, maps},
};
use crate::{settings, video::frames::FrameProcessor};

/// Frames before and after one that its score is the mean of: what is unusual stays for a while.
const SMOOTH: usize = 3;

/// Frames whose neighbours are in memory at a time.
const PART: usize = 64;

/// A network with what it was trained with.
pub struct Detector {
    pub network: FirebrickMotion,
    pub frames: FrameProcessor,
    /// Of a frame's score.
    pub threshold: Option<Threshold>,
}

/// What is said of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// How likely something moves unusually, within 0 and 1, smoothed over time.
    pub score: f64,
    /// Where.
    pub map: Map,
}

impl Detector {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let origin = Origin::read_for(Recipe::TASK, source)?;
        let network = FirebrickMotion::load(source, device)?;
        let frames = FrameProcessor::open(source, 1)?;
        let threshold = origin.and_then(|origin| origin.threshold);
        Ok(Self { network, frames, threshold })
    }

    /// Every frame of a clip, whose frames have the model's size, in their order.
    pub fn watch(&self, clip: &Clip, batch_size: usize) -> Vec<Seen> {
        watch(
            &self.network.model,
            levels(&self.frames),
            self.network.config.num_frames,
            clip,
            batch_size,
        )
    }

    pub fn save(&self, dir: &Path, origin: &Origin, about: &str) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        self.network.save(&dir.join("model.safetensors"), SaveType::F32)?;
        settings::save(dir, &self.network.config.to_json(), &self.frames.to_json())?;
        origin.save(dir, "video-classification", about)
    }
}

/// Mean and deviation of a grey frame, in levels.
pub fn levels(frames: &FrameProcessor) -> Levels {
    Levels { mean: 255.0 * frames.frame.mean[0], std: 255.0 * frames.frame.std[0] }
}

/// Every frame of a clip, in order. `model` looks at `count` neighbours and lies on a device without autodiff.
pub fn watch(
    model: &Motion,
    levels: Levels,
    count: usize,
    clip: &Clip,
    batch_size: usize,
) -> Vec<Seen> {
    let all: Vec<usize> = (0..clip.frames.len()).collect();
    let mut found: Vec<Map> = vec![];
    for part in all.chunks(PART) {
        let stacks: Vec<Stack> =
            part.par_iter().map(|at| Stack::around(clip, *at, 1, count)).collect();
        found.extend(maps(model, levels, &stacks, batch_size));
    }
    let scores = smoothed(&found.iter().map(Map::score).collect::<Vec<_>>());
    found.into_iter().zip(scores).map(|(map, score)| Seen { score, map }).collect()
}

/// The mean of each number and its neighbours, fewer at the ends.
fn smoothed(scores: &[f64]) -> Vec<f64> {
    let mean = |at: usize| {
        let near = &scores[at.saturating_sub(SMOOTH)..(at + SMOOTH + 1).min(scores.len())];
        near.iter().sum::<f64>() / near.len() as f64
    };
    (0..scores.len()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_smoothed_within_a_clip() {
        let mut scores = vec![0.0; 9];
        scores[0] = 0.8;
        let found = smoothed(&scores);
        assert_eq!(found[0], 0.2); // of four
        assert!((found[3] - 0.8 / 7.0).abs() < 1e-12 && found[4] == 0.0, "{found:?}");
    }
}
