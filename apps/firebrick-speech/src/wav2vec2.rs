//! Wav2Vec 2.0's way from a waveform to text: the likeliest letter of each frame, by CTC.
//!
//! Reference code: `feature_extraction_wav2vec2.py` and `tokenization_wav2vec2.py` in Hugging Face `transformers`.

use std::collections::BTreeMap;

use burn::{
    prelude::*,
    tensor::{DType, TensorData},
};
use firebrick_core::{
    arch::wav2vec2::Wav2Vec2ForCtc,
    checkpoint::{LoadError, Source},
};
use firebrick_metrics::confusion::argmax;

/// Of recordings, in Hz.
pub const RATE: u32 = 16_000;
/// Says that a frame adds no letter.
const BLANK: &str = "<pad>";
/// Stands between words.
const SPACE: &str = "|";
/// Tokens that are no letters.
const SPECIAL: [&str; 3] = ["<s>", "</s>", "<unk>"];

const VOCABULARY: &str = "vocab.json";
const VOCABULARY_LIMIT: u64 = 64 << 20;
/// Where the settings of the waveform are; newer versions of `transformers` write them into the second.
const PREPROCESSOR: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";

/// A Wav2Vec 2.0 checkpoint with its letters.
pub struct Wav2Vec2 {
    model: Wav2Vec2ForCtc,
    letters: Letters,
    /// Waveforms get zero mean and unit variance.
    normalize: bool,
    device: Device,
}

impl Wav2Vec2 {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let model = Wav2Vec2ForCtc::load(source, device)?;
        let bad =
            |file: &str, problem: String| LoadError::Config { path: source.path(file), problem };
        let vocabulary = serde_json::from_slice(&source.read(VOCABULARY, VOCABULARY_LIMIT)?)
            .map_err(|error| bad(VOCABULARY, error.to_string()))?;
        let letters = Letters::new(vocabulary, model.config.vocab_size)
            .map_err(|problem| bad(VOCABULARY, problem))?;
        let (file, settings) = match source.json(PREPROCESSOR)? {
            Some(settings) => (PREPROCESSOR, settings),
            None => match source.json(PROCESSOR)? {
                Some(settings) => (PROCESSOR, settings["feature_extractor"].clone()),
                None => {
                    let problem = format!("is not there, and neither is {PROCESSOR}");
                    return Err(bad(PREPROCESSOR, problem).into());
                }
            },
        };
        let normalize = settings["do_normalize"].as_bool();
        let normalize = normalize.ok_or_else(|| bad(file, "has no `do_normalize`".into()))?;
        match settings["sampling_rate"].as_u64() {
            Some(rate) if rate == u64::from(RATE) => {}
            _ => return Err(bad(file, format!("its `sampling_rate` is not {RATE}")).into()),
        }
        Ok(Self { model, letters, normalize, device: device.clone() })
    }

    /// What is said in `samples` at [`RATE`].
    pub fn transcribe(&self, samples: &[f32]) -> String {
        let config = &self.model.config;
        if config.frames(samples.len()) == 0 {
            return String::new();
        }
        let mut sound = samples.to_vec();
        if self.normalize {
            normalize(&mut sound);
        }
        let sound = TensorData::new(sound, [1, samples.len()]);
        let sound = Tensor::<2>::from_data(sound, &self.device);
        let logits = self.model.model.forward(sound, None).into_data().convert_dtype(DType::F32);
        let logits = logits.try_into_vec::<f32>().expect("just converted to f32");
        self.letters.spell(logits.chunks(config.vocab_size).map(argmax))
    }
}

/// To zero mean and unit variance.
fn normalize(samples: &mut [f32]) {
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = samples.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + 1e-7).sqrt();
    samples.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale) as f32);
}

/// What the tokens stand for, by number.
struct Letters(Vec<String>);

impl Letters {
    fn new(vocabulary: BTreeMap<String, usize>, size: usize) -> Result<Self, String> {
        if !vocabulary.contains_key(BLANK) {
            return Err(format!("has no {BLANK:?}, which is the blank of CTC"));
        }
        let mut letters = vec![String::new(); size];
        for (letter, number) in vocabulary {
            match letters.get_mut(number) {
                Some(place) => *place = letter,
                None => {
                    return Err(format!(
                        "{letter:?} is number {number}, and the model writes {size} tokens"
                    ));
                }
            }
        }
        Ok(Self(letters))
    }

    /// Of the best token of each frame: one that goes on is written once, and blanks are not.
    fn spell(&self, best: impl Iterator<Item = usize>) -> String {
        let letters = best.map(|token| self.0[token].as_str());
        let mut letters: Vec<&str> = letters.filter(|letter| !SPECIAL.contains(letter)).collect();
        letters.dedup();
        letters.retain(|letter| *letter != BLANK);
        let text: String = letters.into_iter().map(|l| if l == SPACE { " " } else { l }).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(names: &[&str]) -> BTreeMap<String, usize> {
        names.iter().enumerate().map(|(number, name)| (name.to_string(), number)).collect()
    }

    #[test]
    fn frames_to_words() {
        let names = ["<pad>", "<s>", "|", "A", "B"];
        let letters = Letters::new(letters(&names), 5).unwrap();
        let spell = |best: &[usize]| letters.spell(best.iter().copied());
        assert_eq!(spell(&[2, 3, 3, 0, 3, 2, 2, 0, 2, 4, 1, 4, 0, 2]), "AA B");
        assert_eq!(spell(&[0, 0]), "");
    }

    #[test]
    fn vocabularies_that_do_not_fit_are_refused() {
        assert!(Letters::new(letters(&["A"]), 1).is_err_and(|e| e.contains("<pad>")));
        assert!(Letters::new(letters(&["<pad>", "A"]), 1).is_err_and(|e| e.contains("number 1")));
    }
}
