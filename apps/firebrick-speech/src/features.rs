//! `[features]`: how a recording becomes the frames that a model reads.

use std::path::Path;

use anyhow::Context;
use firebrick_core::checkpoint::{LoadError, Source, tensors::write_atomically};
use firebrick_data::audio::mel::{Log, Mel, MelConfig, MelScale};
use firebrick_train::recipe::RecipeError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[features]`: log-mel spectrograms; names are torchaudio's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesRecipe {
    /// Recordings are resampled to it, in Hz.
    pub sample_rate: u32,
    /// Samples of a Fourier transform.
    pub n_fft: usize,
    /// Samples of the window.
    pub win_length: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Mel bands.
    pub n_mels: usize,
    /// Lowest frequency, in Hz.
    pub f_min: f64,
    /// Highest frequency, in Hz; 0 stands for half of the rate.
    pub f_max: f64,
    pub normalize: Normalize,
}

/// What is taken out of a recording's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// Its loudness: all numbers together have mean 0 and deviation 1.
    Recording,
    /// The colour of its microphone, too: every band has mean 0, all together have deviation 1.
    Bands,
}

impl Default for FeaturesRecipe {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            n_fft: 512,
            win_length: 400,
            hop_length: 160,
            n_mels: 40,
            f_min: 20.0,
            f_max: 0.0,
            normalize: Normalize::Bands,
        }
    }
}

impl FeaturesRecipe {
    pub fn mel(&self) -> MelConfig {
        let half = f64::from(self.sample_rate) / 2.0;
        MelConfig {
            sample_rate: self.sample_rate,
            n_fft: self.n_fft,
            win_length: self.win_length,
            hop_length: self.hop_length,
            n_mels: self.n_mels,
            f_min: self.f_min,
            f_max: if self.f_max == 0.0 { half } else { self.f_max },
            mel_scale: MelScale::Htk,
            log: Log::Natural,
            n_mfcc: 0,
        }
    }

    pub fn check(&self) -> Result<(), RecipeError> {
        self.mel().check().map_err(|problem| {
            let (key, rest) = problem.split_once(' ').unwrap_or((&problem, ""));
            RecipeError::value(&format!("features.{key}"), rest)
        })
    }
}

/// `preprocessor_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocessor {
    pub mel: MelConfig,
    pub normalize: Normalize,
    /// Length of the recordings that a model sees; `None` where it takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// In a model's folder.
const FILE: &str = "preprocessor_config.json";
const FILE_LIMIT: u64 = 1 << 20;
/// Longest recording that a model may want to see at once.
const LONGEST: f64 = 60.0;

impl Preprocessor {
    pub fn open(source: &Source) -> anyhow::Result<Self> {
        let bytes = source.read(FILE, FILE_LIMIT)?;
        let bad = |problem: String| LoadError::Config { path: source.path(FILE), problem };
        let read: Self = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        read.mel.check().map_err(bad)?;
        match read.seconds {
            Some(seconds) if !(0.01..=LONGEST).contains(&seconds) => {
                Err(bad(format!("seconds is {seconds}, not within 0.01 and {LONGEST}")).into())
            }
            _ => Ok(read),
        }
    }

    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_string_pretty(self)?;
        write_atomically(&path, text.as_bytes())
            .with_context(|| format!("writing {}", path.display()))
    }

    /// `T` of what a model sees at once, if that is fixed.
    pub fn frames(&self) -> Option<usize> {
        let frames = |seconds: f64| {
            (seconds * f64::from(self.mel.sample_rate)) as usize / self.mel.hop_length + 1
        };
        self.seconds.map(frames)
    }

    /// Normalised frames of `samples`, `[T, M]`.
    pub fn read(&self, mel: &Mel, samples: &[f32]) -> Vec<f32> {
        let mut frames = mel.frames(samples);
        normalize(&mut frames, self.mel.width(), self.normalize);
        frames
    }
}

/// Normalises `frames`, `[T, M]`.
pub fn normalize(frames: &mut [f32], bands: usize, how: Normalize) {
    let count = frames.len().max(1) as f64;
    match how {
        Normalize::Recording => {
            let mean = (frames.iter().map(|x| f64::from(*x)).sum::<f64>() / count) as f32;
            frames.iter_mut().for_each(|x| *x -= mean);
        }
        Normalize::Bands => {
            let mut means = vec![0f64; bands];
            for frame in frames.chunks(bands) {
                means.iter_mut().zip(frame).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            means.iter_mut().for_each(|sum| *sum *= bands as f64 / count);
            for frame in frames.chunks_mut(bands) {
                frame.iter_mut().zip(&means).for_each(|(x, mean)| *x -= *mean as f32);
            }
        }
    }
    let power = frames.iter().map(|x| f64::from(x * x)).sum::<f64>() / count;
    // Of digital silence there is nothing to make louder.
    let scale = (1.0 / (power.sqrt() + 1e-3)) as f32;
    frames.iter_mut().for_each(|x| *x *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_lose_their_means() {
        let mut frames = vec![1.0, 10.0, 3.0, 30.0];
        normalize(&mut frames, 2, Normalize::Bands);
        // -1, -10, 1, 10 over the root of (1 + 100 + 1 + 100) / 4.
        let scale = 1.0 / (50.5f32.sqrt() + 1e-3);
        for (found, expected) in frames.iter().zip([-1.0, -10.0, 1.0, 10.0]) {
            assert!((found - expected * scale).abs() < 1e-6);
        }
        let mut silence = vec![-5.0; 4];
        normalize(&mut silence, 2, Normalize::Recording);
        assert_eq!(silence, [0.0; 4]);
    }
}
