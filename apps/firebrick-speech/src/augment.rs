//! `[augment]`: what training changes of a recording before it becomes frames.

use firebrick_data::audio::{
    augment::{hide, loudness, noise, place, reverberate, speed},
    mel::Mel,
};
use firebrick_train::{recipe::RecipeError, sampler::Coins};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::features::Preprocessor;

/// `[augment]`: what is drawn anew for every recording of every step; 0 leaves something as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentRecipe {
    /// Faster and higher, or slower and lower, by a factor up to `1 + speed`.
    pub speed: f64,
    /// Faster or slower at the same pitch, by a factor up to `1 + tempo`.
    pub tempo: f64,
    /// A vocal tract longer or shorter, by a factor up to `1 + tract` (Jaitly and Hinton 2013).
    pub tract: f64,
    /// How far from the middle of what the model sees a recording may lie: 1 is anywhere.
    pub shift: f64,
    /// Peaks lie up to so many decibels below full scale.
    pub gain: f64,
    /// Probability of noise.
    pub noise: f64,
    /// Least and largest distance of the noise below the speech, in decibels.
    pub noise_range: [f64; 2],
    /// Probability of an echo.
    pub echo: f64,
    /// Runs of frames to hide (SpecAugment, Park et al. 2019).
    pub time_masks: usize,
    /// Most frames of such a run.
    pub time_width: usize,
    /// Runs of bands to hide.
    pub band_masks: usize,
    /// Most bands of such a run.
    pub band_width: usize,
}

impl Default for AugmentRecipe {
    fn default() -> Self {
        Self {
            speed: 0.1,
            tempo: 0.1,
            tract: 0.1,
            shift: 1.0,
            gain: 20.0,
            noise: 0.5,
            noise_range: [5.0, 40.0],
            echo: 0.0,
            time_masks: 1,
            time_width: 10,
            band_masks: 1,
            band_width: 6,
        }
    }
}

impl AugmentRecipe {
    pub fn check(&self) -> Result<(), RecipeError> {
        let [low, high] = self.noise_range;
        for (key, value, most) in [
            ("speed", self.speed, 2.0),
            ("tempo", self.tempo, 2.0),
            ("tract", self.tract, 0.5),
            ("shift", self.shift, 1.0),
            ("gain", self.gain, 90.0),
            ("noise", self.noise, 1.0),
            ("echo", self.echo, 1.0),
            ("time_masks", self.time_masks as f64, 100.0),
            ("band_masks", self.band_masks as f64, 100.0),
            ("time_width", self.time_width as f64, 1e6),
            ("band_width", self.band_width as f64, 1e6),
        ] {
            if !(0.0..=most).contains(&value) {
                let problem = format!("is {value}, not within 0 and {most}");
                return Err(RecipeError::value(&format!("augment.{key}"), problem));
            }
        }
        match low.is_finite() && high.is_finite() && low <= high && high.max(-low) <= 120.0 {
            true => Ok(()),
            false => Err(RecipeError::value("augment.noise_range", "is no range of decibels")),
        }
    }

    /// Frames of a changed recording, normalised, `[T, M]`: as many as the model sees, or as the recording has. All that
    /// is random follows from `seed`.
    pub fn frames(
        &self,
        samples: &[f32],
        preprocessor: &Preprocessor,
        mel: &Mel,
        seed: u64,
    ) -> Vec<f32> {
        let mut coins = Coins::new(seed);
        let spread = |coins: &mut Coins, most: f64| match most > 0.0 {
            true => (coins.within(-1.0, 1.0) * (1.0 + most).ln()).exp(),
            false => 1.0,
        };
        let factor = spread(&mut coins, self.speed);
        let mut samples = match factor == 1.0 {
            true => samples.to_vec(),
            false => speed(samples, factor),
        };
        // At the same pitch, faster is fewer frames.
        let hop = preprocessor.mel.hop_length;
        let hop = ((hop as f64 * spread(&mut coins, self.tempo)).round() as usize)
            .clamp(1, preprocessor.mel.n_fft);
        if self.gain > 0.0 {
            loudness(&mut samples, coins.within(0.0, self.gain));
        }
        if self.echo > 0.0 && coins.toss(self.echo) {
            let (seconds, share) = (coins.within(0.05, 0.4), coins.within(0.05, 0.5));
            let rate = preprocessor.mel.sample_rate;
            samples = reverberate(&samples, rate, seconds, share, || normal(&mut coins));
        }
        if let Some(frames) = preprocessor.frames() {
            let length = (frames - 1) * hop;
            let room = 0.5 * self.shift;
            let share = match room > 0.0 {
                true => coins.within(0.5 - room, 0.5 + room),
                false => 0.5,
            };
            samples = match samples.len() > length {
                true => loudest(&samples, length, 0.2 * (share - 0.5)),
                false => place(&samples, length, share),
            };
        }
        if self.noise > 0.0 && coins.toss(self.noise) {
            let [low, high] = self.noise_range;
            let decibels = low + (high - low) * coins.within(0.0, 1.0);
            let colour = coins.within(0.0, 0.95) as f32;
            noise(&mut samples, decibels, colour, || normal(&mut coins));
        }
        let warp = spread(&mut coins, self.tract);
        let mel = if warp == 1.0 { mel.clone() } else { mel.warped(warp) };
        let mut frames = preprocessor.read(&mel.with_hop(hop), &samples);
        let bands = preprocessor.mel.width();
        let count = frames.len() / bands;
        for (masks, width, size, time) in [
            (self.time_masks, self.time_width, count, true),
            (self.band_masks, self.band_width, bands, false),
        ] {
            for _ in 0..masks {
                let width = coins.below(width.min(size) + 1);
                let first = coins.below(size - width + 1);
                hide(&mut frames, bands, time, first, width, 0.0);
            }
        }
        frames
    }
}

/// `length` samples of a longer recording: the loudest, moved by `shift` lengths where there is room.
pub fn loudest(samples: &[f32], length: usize, shift: f64) -> Vec<f32> {
    let room = samples.len().saturating_sub(length);
    let mut power: f64 = samples.iter().take(length).map(|x| f64::from(x * x)).sum();
    let (mut best, mut most) = (0, power);
    for begin in 1..=room {
        power += f64::from(samples[begin + length - 1].powi(2) - samples[begin - 1].powi(2));
        if power > most {
            (best, most) = (begin, power);
        }
    }
    let begin = (best as f64 + shift * length as f64).clamp(0.0, room as f64) as usize;
    samples[begin..(begin + length).min(samples.len())].to_vec()
}

/// A normal number (Box and Muller 1958).
fn normal(coins: &mut Coins) -> f32 {
    let radius = (-2.0 * coins.within(f64::MIN_POSITIVE, 1.0).ln()).sqrt();
    (radius * (std::f64::consts::TAU * coins.within(0.0, 1.0)).cos()) as f32
}

#[cfg(test)]
mod tests {
    use firebrick_train::sampler::mix;

    use super::*;
    use crate::features::{FeaturesRecipe, Normalize};

    /// Every recording has as many frames as the model sees, they follow from the seed, and seeds differ.
    #[test]
    fn frames_are_a_function_of_the_seed() {
        let features = FeaturesRecipe {
            sample_rate: 8000,
            n_fft: 256,
            win_length: 200,
            hop_length: 80,
            ..Default::default()
        };
        let preprocessor =
            Preprocessor { mel: features.mel(), normalize: Normalize::Bands, seconds: Some(0.5) };
        let mel = Mel::new(&preprocessor.mel);
        let augment = AugmentRecipe { speed: 0.3, echo: 0.5, ..AugmentRecipe::default() };
        augment.check().unwrap();
        let mut seen = vec![];
        for length in [200, 500, 3000, 9000] {
            let samples: Vec<f32> = (0..length).map(|i| (i as f32 * 0.3).sin()).collect();
            let frames = |seed| augment.frames(&samples, &preprocessor, &mel, seed);
            for seed in 0..8 {
                let seed = mix(length, seed);
                let found = frames(seed);
                assert_eq!(found.len(), 51 * 40);
                assert!(found.iter().all(|x| x.is_finite()));
                assert_eq!(found, frames(seed));
                assert!(!seen.contains(&found));
                seen.push(found);
            }
        }
    }

    #[test]
    fn the_loudest_part_is_kept() {
        let samples = [0.0, 0.0, 1.0, 2.0, 1.0, 0.0];
        assert_eq!(loudest(&samples, 3, 0.0), [1.0, 2.0, 1.0]);
        assert_eq!(loudest(&samples, 3, 0.4), [2.0, 1.0, 0.0]);
        assert_eq!(loudest(&samples, 3, 9.0), [2.0, 1.0, 0.0]);
    }
}
