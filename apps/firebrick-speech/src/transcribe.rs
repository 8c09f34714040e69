//! A recording of any length to text, whichever model writes.

use std::ops::Range;

use burn::tensor::Device;
use firebrick_core::checkpoint::Source;
use firebrick_data::audio::{
    resample::resample,
    voice::{self, segments},
};

use crate::{
    recognition::recognizer::Recognizer,
    subtitles::Segment,
    wav2vec2::{self, Wav2Vec2},
    whisper::{self, Options, Transcript, Whisper},
};

/// A model that writes down what is said.
#[expect(clippy::large_enum_variant, reason = "a program holds one or two")]
pub enum Transcriber {
    Whisper(Whisper),
    Wav2Vec2(Wav2Vec2),
    Own(Recognizer),
}

/// Recordings up to so many seconds go to a model that has no windows of its own whole.
const WHOLE: f64 = 20.0;
/// Where silence is heard, too, so many seconds go to such a model at once: what it hears at once takes memory.
const PIECE: f64 = 60.0;

impl Transcriber {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        match source.config()?["model_type"].as_str() {
            Some("whisper") => Ok(Self::Whisper(Whisper::open(source, device)?)),
            Some("wav2vec2") => Ok(Self::Wav2Vec2(Wav2Vec2::open(source, device)?)),
            _ => Ok(Self::Own(Recognizer::open(source, device)?)),
        }
    }

    /// Of recordings, in Hz.
    pub fn sample_rate(&self) -> u32 {
        match self {
            Self::Whisper(_) => whisper::RATE,
            Self::Wav2Vec2(_) => wav2vec2::RATE,
            Self::Own(recognizer) => recognizer.sample_rate(),
        }
    }

    /// What of the options it cannot do.
    pub fn check(&self, options: &Options) -> Result<(), String> {
        match self {
            Self::Whisper(whisper) => match &options.language {
                Some(name) if !whisper.languages().any(|known| known == name) => {
                    let known = whisper.languages().collect::<Vec<_>>().join(", ");
                    Err(format!("no language {name:?}: {known}"))
                }
                _ => Ok(()),
            },
            _ if options.language.is_some() || options.translate => {
                Err("only a Whisper checkpoint knows languages".into())
            }
            _ => Ok(()),
        }
    }

    /// What is said in `samples`; with `skip_silence` only where somebody speaks. `told` hears of each segment as it is
    /// found.
    pub fn write(
        &self,
        samples: &[f32],
        options: &Options,
        skip_silence: bool,
        told: &mut dyn FnMut(&Segment),
    ) -> anyhow::Result<Transcript> {
        let rate = self.sample_rate();
        match self {
            Self::Whisper(model) => {
                // A window with no more than a margin in it has no speech.
                let bare = voice::Options { margin: 0.0, ..Default::default() };
                let speech = skip_silence.then(|| segments(samples, &bare));
                model.transcribe(samples, options, speech.as_deref(), told)
            }
            Self::Wav2Vec2(model) => {
                let hear = |part: &[f32]| model.transcribe(part);
                Ok(by_parts(samples, rate, skip_silence, &hear, told))
            }
            Self::Own(model) => {
                let hear = |part: &[f32]| model.transcribe(&[part], 1).remove(0);
                Ok(by_parts(samples, rate, skip_silence, &hear, told))
            }
        }
    }
}

/// Hears a recording whole if it is short and somebody speaks, else its segments with speech; or all of it, piece by piece.
fn by_parts(
    samples: &[f32],
    rate: u32,
    skip_silence: bool,
    hear: &dyn Fn(&[f32]) -> String,
    told: &mut dyn FnMut(&Segment),
) -> Transcript {
    let length = |seconds: f64| (seconds * f64::from(rate)) as usize;
    let pieces = (0..samples.len()).step_by(length(PIECE));
    let mut parts: Vec<Range<usize>> =
        pieces.map(|start| start..(start + length(PIECE)).min(samples.len())).collect();
    if skip_silence {
        let heard: &[f32] = match rate == voice::RATE {
            true => samples,
            false => &resample(samples, rate, voice::RATE),
        };
        let options = voice::Options { longest: WHOLE, ..Default::default() };
        let back = f64::from(rate) / f64::from(voice::RATE);
        let at = |i: usize| ((i as f64 * back) as usize).min(samples.len());
        let spoken = segments(heard, &options);
        if spoken.is_empty() || samples.len() > length(WHOLE) {
            parts = spoken.into_iter().map(|part| at(part.start)..at(part.end)).collect();
        }
    }
    let second = |sample: usize| sample as f64 / f64::from(rate);
    let mut found = vec![];
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let (begin, end) = (second(part.start), second(part.end));
        let text = hear(&samples[part]);
        if !text.is_empty() {
            let segment = Segment { begin, end, text };
            told(&segment);
            found.push(segment);
        }
    }
    Transcript { language: None, segments: found }
}

impl Transcript {
    /// All segments, a space between.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.segments.iter().map(|segment| segment.text.as_str()).collect();
        texts.join(" ")
    }
}
