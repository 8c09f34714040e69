//! Samples to frames: log-mel spectrograms and MFCC, as Whisper and torchaudio compute them.
//!
//! Reference code: `WhisperFeatureExtractor` of Hugging Face `transformers`; `torchaudio.transforms.MelSpectrogram`,
//! `AmplitudeToDB` and `MFCC`. All with Hann windows around every `hop_length`-th sample, the recording mirrored at both
//! of its ends.
//!
//! Axis letters, used in every comment below: `T` frames, `M` mel bands, `K` coefficients.

use std::sync::Arc;

use firebrick_signal::{Complex32, RealToComplex, fourier};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Sizes of a spectrogram. Names are torchaudio's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Of the samples, in Hz.
    pub sample_rate: u32,
    /// Samples of a Fourier transform.
    pub n_fft: usize,
    /// Samples of the window, in the middle of the transform's.
    pub win_length: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// `M`
    pub n_mels: usize,
    /// Lowest frequency of the lowest band, in Hz.
    pub f_min: f64,
    /// Highest frequency of the highest band, in Hz.
    pub f_max: f64,
    pub mel_scale: MelScale,
    pub log: Log,
    /// `K` of the MFCC; 0 keeps the bands.
    #[serde(default)]
    pub n_mfcc: usize,
}

/// What a mel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MelScale {
    /// Logarithmic throughout, bands of height 1: torchaudio's default.
    Htk,
    /// Linear up to 1 kHz, bands of area 1: librosa's and Whisper's.
    Slaney,
}

/// How power becomes loudness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    /// `ln(x + 1e-6)`, of every frame by itself.
    Natural,
    /// Decibels, none more than 80 below the recording's loudest: torchaudio's `AmplitudeToDB`.
    Decibel,
    /// Whisper's: logarithms to base 10, none more than 8 below the loudest, then `(x + 4) / 4`.
    Whisper,
}

impl MelConfig {
    /// Whisper's: 80 bands, 25 ms every 10 ms.
    pub fn whisper(n_mels: usize) -> Self {
        Self {
            sample_rate: 16_000,
            n_fft: 400,
            win_length: 400,
            hop_length: 160,
            n_mels,
            f_min: 0.0,
            f_max: 8000.0,
            mel_scale: MelScale::Slaney,
            log: Log::Whisper,
            n_mfcc: 0,
        }
    }

    /// What is wrong with it, beginning with the key.
    pub fn check(&self) -> Result<(), String> {
        for (key, value, most) in [
            ("sample_rate", self.sample_rate as usize, 384_000),
            ("n_fft", self.n_fft, 1 << 16),
            ("win_length", self.win_length, self.n_fft),
            ("hop_length", self.hop_length, self.n_fft),
            ("n_mels", self.n_mels, 1024),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{key} is {value}, not within 1 and {most}"));
            }
        }
        if self.n_fft < 4 {
            return Err(format!("n_fft is {}, below 4", self.n_fft));
        }
        if self.n_mfcc > self.n_mels {
            return Err(format!("n_mfcc is {}, above n_mels", self.n_mfcc));
        }
        let half = f64::from(self.sample_rate) / 2.0;
        match self.f_min >= 0.0 && self.f_min < self.f_max && self.f_max <= half {
            true => Ok(()),
            false => Err(format!("f_min and f_max are not 0 <= f_min < f_max <= {half}")),
        }
    }

    /// Numbers of a frame: `K`, or `M`.
    pub fn width(&self) -> usize {
        if self.n_mfcc > 0 { self.n_mfcc } else { self.n_mels }
    }

    /// `T` of so many samples.
    pub fn frames(&self, samples: usize) -> usize {
        match (self.log, samples) {
            (_, 0) => 0,
            (Log::Whisper, _) => samples / self.hop_length,
            _ => samples / self.hop_length + 1,
        }
    }
}

/// Makes frames of samples.
#[derive(Clone)]
pub struct Mel {
    config: MelConfig,
    transform: Arc<dyn RealToComplex<f32>>,
    /// `n_fft` numbers, 0 outside the window.
    window: Arc<[f32]>,
    bands: Arc<[Band]>,
    /// `[K, M]` of the cosine transform; empty where the bands are kept.
    cosines: Arc<[f32]>,
}

/// A triangle over frequencies.
struct Band {
    /// Bin of its first weight.
    first: usize,
    weights: Vec<f32>,
}

/// Memory of one thread.
struct Scratch {
    samples: Vec<f32>,
    spectrum: Vec<Complex32>,
    work: Vec<Complex32>,
    power: Vec<f32>,
}

impl Mel {
    /// `config` has passed its check.
    pub fn new(config: &MelConfig) -> Self {
        let (n, width) = (config.n_fft, config.win_length);
        let mut window = vec![0.0; n];
        for (i, w) in window[(n - width) / 2..].iter_mut().take(width).enumerate() {
            let turn = std::f64::consts::TAU * i as f64 / width as f64;
            *w = (0.5 - 0.5 * turn.cos()) as f32;
        }
        Self {
            transform: fourier(n),
            window: window.into(),
            bands: bands(config, 1.0).into(),
            cosines: cosines(config).into(),
            config: config.clone(),
        }
    }

    /// As if the speaker's vocal tract were `factor` times as long (VTLP, Jaitly and Hinton 2013): bands lie
    /// `factor` times as high, up to some three fifths of the highest, and from there on in a straight line to it.
    pub fn warped(&self, factor: f64) -> Self {
        Self { bands: bands(&self.config, factor).into(), ..self.clone() }
    }

    /// With another distance of the frames: at the same pitch the words are faster or slower.
    pub fn with_hop(&self, hop_length: usize) -> Self {
        Self { config: MelConfig { hop_length, ..self.config.clone() }, ..self.clone() }
    }

    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Frames of a recording, `[T, M]` or `[T, K]`.
    pub fn frames(&self, samples: &[f32]) -> Vec<f32> {
        let count = self.config.frames(samples.len());
        let mut frames = vec![0.0; count * self.config.n_mels];
        let from = Piece { samples, begin: 0, total: Some(samples.len()) };
        // Some ten milliseconds of work: less is not worth a thread.
        let chunk = 256 * self.config.n_mels;
        frames.par_chunks_mut(chunk).enumerate().for_each(|(part, frames)| {
            let mut scratch = self.scratch();
            for (i, frame) in frames.chunks_mut(self.config.n_mels).enumerate() {
                self.frame(&from, part * 256 + i, &mut scratch, frame);
            }
        });
        self.finish(frames)
    }

    /// What is done to the frames of a whole recording, `[T, M]` of logarithms -> `[T, M]` or `[T, K]`.
    fn finish(&self, mut frames: Vec<f32>) -> Vec<f32> {
        let loudest = frames.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        match self.config.log {
            Log::Natural => {}
            Log::Decibel => frames.iter_mut().for_each(|x| *x = x.max(loudest - 80.0)),
            Log::Whisper => {
                frames.iter_mut().for_each(|x| *x = (x.max(loudest - 8.0) + 4.0) / 4.0);
            }
        }
        if self.cosines.is_empty() {
            return frames;
        }
        let m = self.config.n_mels;
        let dot =
            |frame: &[f32], row: &[f32]| -> f32 { frame.iter().zip(row).map(|(x, c)| x * c).sum() };
        let coefficients =
            |frame: &[f32]| self.cosines.chunks(m).map(|row| dot(frame, row)).collect::<Vec<_>>();
        frames.chunks(m).flat_map(coefficients).collect()
    }

    fn scratch(&self) -> Scratch {
        Scratch {
            samples: self.transform.make_input_vec(),
            spectrum: self.transform.make_output_vec(),
            work: self.transform.make_scratch_vec(),
            power: vec![0.0; self.config.n_fft / 2 + 1],
        }
    }

    /// Logarithms of the bands of frame `t`, `[M]`.
    fn frame(&self, from: &Piece, t: usize, scratch: &mut Scratch, bands: &mut [f32]) {
        let Scratch { samples, spectrum, work, power } = scratch;
        let begin = (t * self.config.hop_length) as isize - (self.config.n_fft / 2) as isize;
        for (i, (x, w)) in samples.iter_mut().zip(&*self.window).enumerate() {
            *x = from.at(begin + i as isize) * w;
        }
        self.transform
            .process_with_scratch(samples, spectrum, work)
            .expect("buffers are the transform's own");
        for (p, x) in power.iter_mut().zip(&*spectrum) {
            *p = x.norm_sqr();
        }
        for (x, band) in bands.iter_mut().zip(&*self.bands) {
            let under = band.weights.iter().zip(&power[band.first..]);
            let sum: f32 = under.map(|(w, p)| w * p).sum();
            *x = match self.config.log {
                Log::Natural => (sum + 1e-6).ln(),
                Log::Decibel => 10.0 * sum.max(1e-10).log10(),
                Log::Whisper => sum.max(1e-10).log10(),
            };
        }
    }
}

/// Samples of a recording from `begin` on.
struct Piece<'a> {
    samples: &'a [f32],
    begin: usize,
    /// Of the whole recording; `None` while it goes on.
    total: Option<usize>,
}

impl Piece<'_> {
    /// Sample `i` of the recording, which is mirrored at its ends.
    fn at(&self, mut i: isize) -> f32 {
        let last = self.total.map_or(isize::MAX, |total| total as isize - 1);
        if i < 0 || i > last {
            if last == 0 {
                return self.samples[0];
            }
            // A recording shorter than a window is mirrored more than once.
            while i < 0 || i > last {
                i = if i < 0 { -i } else { 2 * last - i };
            }
        }
        self.samples[i as usize - self.begin]
    }
}

/// Frames of samples that come in pieces: with [`Log::Natural`], which looks at no other frame, those of
/// [`Mel::frames`], bit for bit.
pub struct MelStream {
    mel: Mel,
    scratch: Scratch,
    /// From sample `begin` on.
    samples: Vec<f32>,
    begin: usize,
    /// The next one.
    frame: usize,
}

impl MelStream {
    pub fn new(mel: Mel) -> Self {
        Self { scratch: mel.scratch(), mel, samples: vec![], begin: 0, frame: 0 }
    }

    /// Takes samples, and gives the frames that no later one can change, `[T, M]`.
    pub fn push(&mut self, samples: &[f32]) -> Vec<f32> {
        self.samples.extend_from_slice(samples);
        let MelConfig { hop_length, n_fft, .. } = self.mel.config;
        let taken = self.begin + self.samples.len();
        let mut frames = vec![];
        while taken > self.frame * hop_length + n_fft / 2 {
            self.work(None, &mut frames);
        }
        let needed = (self.frame * hop_length).saturating_sub(n_fft);
        self.samples.drain(..needed - self.begin);
        self.begin = needed;
        frames
    }

    /// The last frames, `[T, M]`.
    pub fn finish(mut self) -> Vec<f32> {
        let total = self.begin + self.samples.len();
        let count = self.mel.config.frames(total);
        let mut frames = vec![];
        while self.frame < count {
            self.work(Some(total), &mut frames);
        }
        frames
    }

    fn work(&mut self, total: Option<usize>, frames: &mut Vec<f32>) {
        let end = frames.len();
        frames.resize(end + self.mel.config.n_mels, 0.0);
        let from = Piece { samples: &self.samples, begin: self.begin, total };
        self.mel.frame(&from, self.frame, &mut self.scratch, &mut frames[end..]);
        self.frame += 1;
    }
}

/// Triangles over the bins of the transform, their corners at even steps in mels, then warped.
fn bands(config: &MelConfig, warp: f64) -> Vec<Band> {
    let half = f64::from(config.sample_rate) / 2.0;
    let (low, high) = (mels(config.mel_scale, config.f_min), mels(config.mel_scale, config.f_max));
    let step = (high - low) / (config.n_mels + 1) as f64;
    let corner = |i: usize| warped(hertz(config.mel_scale, low + step * i as f64), half, warp);
    let bins = config.n_fft / 2 + 1;
    let frequency = |bin: usize| half * bin as f64 / (bins - 1) as f64;
    let band = |m: usize| {
        let [left, middle, right] = [corner(m), corner(m + 1), corner(m + 2)];
        let height = match config.mel_scale {
            MelScale::Htk => 1.0,
            MelScale::Slaney => 2.0 / (right - left),
        };
        let weight = |bin: usize| {
            let f = frequency(bin);
            let rise = (f - left) / (middle - left).max(1e-9);
            let fall = (right - f) / (right - middle).max(1e-9);
            (height * rise.min(fall).max(0.0)) as f32
        };
        let inside = |bin: &usize| weight(*bin) > 0.0;
        let first = (0..bins).find(inside).unwrap_or(0);
        let last = (0..bins).rev().find(inside).map_or(first, |last| last + 1);
        Band { first, weights: (first..last).map(weight).collect() }
    };
    (0..config.n_mels).map(band).collect()
}

/// Frequency `f` after the warp, which keeps 0 and `half`.
fn warped(f: f64, half: f64, factor: f64) -> f64 {
    let knee = 0.6 * half * factor.min(1.0);
    match f <= knee / factor {
        true => f * factor,
        false => half - (half - knee) / (half - knee / factor) * (half - f),
    }
}

/// Slaney's scale: 3 mels to 200 Hz up to 1 kHz, from there on 27 to a factor of 6.4.
const LINEAR: f64 = 200.0 / 3.0;
const CORNER: f64 = 1000.0;
fn steps() -> f64 {
    6.4f64.ln() / 27.0
}

fn mels(scale: MelScale, hertz: f64) -> f64 {
    match scale {
        MelScale::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
        MelScale::Slaney if hertz < CORNER => hertz / LINEAR,
        MelScale::Slaney => CORNER / LINEAR + (hertz / CORNER).ln() / steps(),
    }
}

fn hertz(scale: MelScale, mels: f64) -> f64 {
    match scale {
        MelScale::Htk => 700.0 * (10f64.powf(mels / 2595.0) - 1.0),
        MelScale::Slaney if mels < CORNER / LINEAR => mels * LINEAR,
        MelScale::Slaney => CORNER * (steps() * (mels - CORNER / LINEAR)).exp(),
    }
}

/// The orthonormal cosine transform (DCT-II), `[K, M]`.
fn cosines(config: &MelConfig) -> Vec<f32> {
    let m = config.n_mels;
    let value = |k: usize, i: usize| {
        let scale = if k == 0 { 1.0 } else { 2f64.sqrt() } / (m as f64).sqrt();
        let turn = std::f64::consts::PI * k as f64 * (i as f64 + 0.5) / m as f64;
        (scale * turn.cos()) as f32
    };
    (0..config.n_mfcc).flat_map(|k| (0..m).map(move |i| value(k, i))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> MelConfig {
        MelConfig {
            sample_rate: 8000,
            n_fft: 64,
            win_length: 50,
            hop_length: 20,
            n_mels: 8,
            f_min: 100.0,
            f_max: 4000.0,
            mel_scale: MelScale::Htk,
            log: Log::Natural,
            n_mfcc: 0,
        }
    }

    proptest! {
        /// However the samples come in pieces, the frames are those of the whole.
        #[test]
        fn pieces_give_what_the_whole_gives(count in 1usize..400, size in 1usize..150, seed: u32) {
            let sample = |i: usize| ((i as f32 + 0.1) * (1.0 + (seed % 97) as f32)).sin();
            let samples: Vec<f32> = (0..count).map(sample).collect();
            let mel = Mel::new(&config());
            let mut stream = MelStream::new(mel.clone());
            let mut pieces: Vec<f32> = samples.chunks(size).flat_map(|p| stream.push(p)).collect();
            pieces.extend(stream.finish());
            prop_assert_eq!(pieces, mel.frames(&samples));
        }
    }

    /// A tone is loudest in the band around it, and a warp moves it to another.
    #[test]
    fn a_tone_is_in_its_band() {
        let tone: Vec<f32> =
            (0..2000).map(|i| (i as f32 * std::f32::consts::TAU / 8.0).sin()).collect();
        let mel = Mel::new(&MelConfig { n_fft: 256, win_length: 256, ..config() });
        let loudest = |mel: &Mel| {
            let frames = mel.frames(&tone);
            let middle = &frames[20 * 8..21 * 8];
            (0..8).max_by(|a, b| middle[*a].total_cmp(&middle[*b])).unwrap()
        };
        // 1 kHz: band m spans corners m and m + 2 of ten even steps from 150 to 2146 mels.
        assert_eq!(loudest(&mel), 3);
        assert!(loudest(&mel.warped(1.3)) < 3);
    }

    #[test]
    fn warping_keeps_the_ends() {
        for factor in [0.8, 1.0, 1.2] {
            assert_eq!(warped(0.0, 4000.0, factor), 0.0);
            assert!((warped(4000.0, 4000.0, factor) - 4000.0).abs() < 1e-9);
            assert!((warped(1000.0, 4000.0, factor) - 1000.0 * factor).abs() < 1e-9);
        }
    }
}
