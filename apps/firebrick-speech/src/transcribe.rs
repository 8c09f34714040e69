//! A recording of any length to text, whichever model writes.

use burn::tensor::Device;
use firebrick_core::checkpoint::Source;
use firebrick_data::audio::{
    resample::resample,
    voice::{self, segments},
};

use crate::{
    recognition::recognizer::Recognizer,
    subtitles::Segment,
    whisper::{self, Options, Transcript, Whisper},
};

/// A model that writes down what is said.
#[expect(clippy::large_enum_variant, reason = "a program holds one or two")]
pub enum Transcriber {
    Whisper(Whisper),
    Own(Recognizer),
}

/// Recordings up to so many seconds go to a model whole.
const WHOLE: f64 = 20.0;

impl Transcriber {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        match source.config()?["model_type"].as_str() {
            Some("whisper") => Ok(Self::Whisper(Whisper::open(source, device)?)),
            _ => Ok(Self::Own(Recognizer::open(source, device)?)),
        }
    }

    /// Of recordings, in Hz.
    pub fn sample_rate(&self) -> u32 {
        match self {
            Self::Whisper(_) => whisper::RATE,
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
            Self::Own(_) if options.language.is_some() || options.translate => {
                Err("only a Whisper checkpoint knows languages".into())
            }
            Self::Own(_) => Ok(()),
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
        match self {
            Self::Whisper(model) => {
                // A model that hears nothing invents something.
                let parts = segments(samples, &voice::Options::default());
                match skip_silence && parts.is_empty() {
                    true => Ok(Transcript { language: None, segments: vec![] }),
                    false => model.transcribe(samples, options, told),
                }
            }
            Self::Own(model) => {
                let rate = f64::from(self.sample_rate());
                let whole = samples.len() as f64 <= WHOLE * rate;
                let parts: Vec<std::ops::Range<usize>> = match whole || !skip_silence {
                    true => std::iter::once(0..samples.len()).collect(),
                    false => {
                        let heard = resample(samples, self.sample_rate(), voice::RATE);
                        let options = voice::Options { longest: WHOLE, ..Default::default() };
                        let back = rate / f64::from(voice::RATE);
                        let at = |i: usize| ((i as f64 * back) as usize).min(samples.len());
                        let parts = segments(&heard, &options).into_iter();
                        parts.map(|part| at(part.start)..at(part.end)).collect()
                    }
                };
                let mut found = vec![];
                for part in parts.into_iter().filter(|part| !part.is_empty()) {
                    let (begin, end) = (part.start as f64 / rate, part.end as f64 / rate);
                    let text = model.transcribe(&[&samples[part]], 1).remove(0);
                    if !text.is_empty() {
                        let segment = Segment { begin, end, text };
                        told(&segment);
                        found.push(segment);
                    }
                }
                Ok(Transcript { language: None, segments: found })
            }
        }
    }
}

impl Transcript {
    /// All segments, a space between.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.segments.iter().map(|segment| segment.text.as_str()).collect();
        texts.join(" ")
    }
}
