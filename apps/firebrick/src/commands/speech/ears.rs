//! What listens to whoever commands: a word spotter, or a model that writes down what is said.

use std::path::Path;

use firebrick_speech::{
    classification::classifier::SoundClassifier, transcribe::Transcriber, whisper::Options,
};

use super::super::media;
use crate::{cli::Global, failure::Failure, places};

#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum Ears {
    Words(SoundClassifier),
    Sentences(Transcriber),
}

/// What was heard.
pub enum Heard {
    /// With its probability.
    Word(String, f32),
    Sentence(String),
}

impl Ears {
    pub fn open(model: &str, global: &Global) -> Result<Self, Failure> {
        let source = places::model(model, &global.runs)?;
        let device = global.device.open()?;
        Ok(match source.config()?["model_type"].as_str() {
            Some("resnet") => Self::Words(SoundClassifier::open(&source, &device)?),
            _ => Self::Sentences(Transcriber::open(&source, &device)?),
        })
    }

    pub fn hear(&self, file: &Path, global: &Global) -> Result<Heard, Failure> {
        let heard = match self {
            Self::Words(classifier) => {
                let samples = media::samples(file, classifier.sample_rate())?;
                let answer = classifier.predict(&[&samples], 1).remove(0);
                let word = classifier.labels[answer.label].clone();
                Heard::Word(word, answer.scores[answer.label])
            }
            Self::Sentences(transcriber) => {
                let samples = media::samples(file, transcriber.sample_rate())?;
                let options = Options { seed: global.seed.unwrap_or(0), ..Options::default() };
                let text = transcriber.write(&samples, &options, true, &mut |_| {})?.text();
                Heard::Sentence(text)
            }
        };
        if global.verbose {
            match &heard {
                Heard::Word(word, score) => stderr!("heard {word:?}, {score:.3}"),
                Heard::Sentence(text) => stderr!("heard {text:?}"),
            }
        }
        Ok(heard)
    }
}
