//! A model folder that writes down what is said: opened, asked, saved.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_classic::ngram::{
    Ngram, Options,
    arpa::{self, Limits},
    vocabulary::Vocabulary,
};
use firebrick_core::{
    arch::{
        AnyModel,
        deep_speech::{DeepSpeech, DeepSpeechConfig, FirebrickDeepSpeech},
    },
    checkpoint::{
        LoadError, Source,
        tensors::{SaveType, write_atomically},
    },
    layers::ctc::sequence_loss,
};
use firebrick_data::audio::mel::Mel;
use firebrick_metrics::{bootstrap::resampled, edit::Errors};
use firebrick_train::{fit::Metrics, job::Recipe as _, origin::Origin, recipe::RecipeError};
use rayon::prelude::*;

use super::{
    lexicon::Lexicon,
    recipe::{DecodeRecipe, Recipe},
    search::Search,
    task::log_probabilities,
};
use crate::{features::Preprocessor, recordings::Recording};

/// A model that writes.
pub struct Recognizer {
    pub config: DeepSpeechConfig,
    pub model: DeepSpeech,
    pub preprocessor: Preprocessor,
    pub mel: Mel,
    pub language: Language,
}

/// What the search knows beside the model.
#[derive(Clone)]
pub struct Language {
    pub lexicon: Lexicon,
    /// Of words; `None` where the recipe has none.
    pub ngram: Option<(Ngram, Vocabulary)>,
    pub decode: DecodeRecipe,
}

/// Files in a model's folder.
const VOCABULARY: &str = "vocab.json";
const LEXICON: &str = "lexicon.txt";
const NGRAM: &str = "lm.arpa";
const DECODE: &str = "decode.json";
const LIMIT: u64 = 64 << 20;

impl Language {
    /// Counts the n-gram model on the texts of the training recordings.
    pub fn learn(
        lexicon: Lexicon,
        recordings: &[Recording],
        decode: &DecodeRecipe,
    ) -> anyhow::Result<Self> {
        if decode.order == 0 {
            return Ok(Self { lexicon, ngram: None, decode: decode.clone() });
        }
        let mut words = Vocabulary::new();
        let text = |recording: &Recording| -> Vec<u32> {
            recording.label.split_whitespace().map(|word| words.add(word)).collect()
        };
        let sentences: Vec<Vec<u32>> = recordings.iter().map(text).collect();
        // Words that nobody said in training are possible, too.
        lexicon.words.iter().for_each(|(word, _)| {
            words.add(word);
        });
        let options = Options { order: decode.order, prune: vec![] };
        let (model, _) = Ngram::fit(&sentences, words.len(), &options)
            .map_err(|error| RecipeError::value("decode.order", error))?;
        Ok(Self { lexicon, ngram: Some((model, words)), decode: decode.clone() })
    }

    fn open(source: &Source) -> anyhow::Result<Self> {
        let bad =
            |file: &str, problem: String| LoadError::Config { path: source.path(file), problem };
        let text = |file: &str| -> anyhow::Result<String> {
            let bytes = source.read(file, LIMIT)?;
            Ok(String::from_utf8(bytes).map_err(|_| bad(file, "is not UTF-8".into()))?)
        };
        let lexicon = Lexicon::read(&source.read(VOCABULARY, LIMIT)?, &text(LEXICON)?);
        let lexicon = lexicon.map_err(|error| bad(LEXICON, format!("{error:#}")))?;
        let decode: DecodeRecipe = serde_json::from_slice(&source.read(DECODE, LIMIT)?)
            .map_err(|error| bad(DECODE, error.to_string()))?;
        decode.check().map_err(|error| bad(DECODE, error.to_string()))?;
        let ngram = match decode.order {
            0 => None,
            _ => {
                let read = arpa::read(&source.read(NGRAM, LIMIT)?[..], Limits::default());
                Some(read.map_err(|error| bad(NGRAM, error.to_string()))?)
            }
        };
        Ok(Self { lexicon, ngram, decode })
    }

    fn files(&self) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
        let mut files = vec![
            (VOCABULARY, self.lexicon.vocabulary().into_bytes()),
            (LEXICON, self.lexicon.lines().into_bytes()),
            (DECODE, serde_json::to_vec_pretty(&self.decode)?),
        ];
        if let Some((model, words)) = &self.ngram {
            let mut text = vec![];
            arpa::write(model, words, &mut text)?;
            files.push((NGRAM, text));
        }
        Ok(files)
    }

    fn search(&self) -> Search<'_> {
        let model = self.ngram.as_ref().map(|(model, words)| (model, words));
        Search::new(&self.lexicon, model, self.decode.weights())
    }
}

/// What a recognizer wrote of recordings, and how wrong it was.
#[derive(Debug, Default)]
pub struct Judged {
    pub texts: Vec<String>,
    pub words: Errors,
    pub characters: Errors,
    /// In each recording: words, and characters.
    rows: Vec<[Errors; 2]>,
    /// Mean CTC loss over the target's length; `None` where no recording has only known words.
    pub loss: Option<f64>,
}

impl Judged {
    pub fn metrics(&self) -> Metrics {
        let scores =
            [("wer", self.words.rate()), ("cer", self.characters.rate()), ("loss", self.loss)];
        let known = scores.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
        known.collect()
    }

    /// Both rates of the sets of recordings that [`resampled`] draws.
    pub fn resampled(&self) -> BTreeMap<&'static str, Vec<f64>> {
        let rates = |of: usize| {
            let rows: Vec<Errors> = self.rows.iter().map(|row| row[of]).collect();
            // A draw of recordings in all of which nothing was said has no rate.
            resampled(&rows, |sum| sum.rate().unwrap_or(0.0))
        };
        BTreeMap::from([("wer", rates(0)), ("cer", rates(1))])
    }
}

impl Recognizer {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        Origin::read_for(Recipe::TASK, source)?;
        let FirebrickDeepSpeech { config, model } = FirebrickDeepSpeech::load(source, device)?;
        let preprocessor = Preprocessor::open(source)?;
        let language = Language::open(source)?;
        let bad = |file: &str, problem: &str| LoadError::Config {
            path: source.path(file),
            problem: problem.into(),
        };
        if preprocessor.mel.width() != config.num_mel_bins {
            let problem = "its bands are not as many as the model reads";
            return Err(bad("preprocessor_config.json", problem).into());
        }
        if language.lexicon.labels.len() != config.vocab_size {
            return Err(bad(VOCABULARY, "its labels are not as many as the model writes").into());
        }
        Ok(Self { mel: Mel::new(&preprocessor.mel), config, model, preprocessor, language })
    }

    /// Of recordings, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.preprocessor.mel.sample_rate
    }

    /// Logarithms of the labels' probabilities, `[S, V]` each.
    pub fn listen(&self, recordings: &[&[f32]], batch_size: usize) -> Vec<Vec<f32>> {
        let frames =
            recordings.par_iter().map(|samples| self.preprocessor.read(&self.mel, samples));
        let frames: Vec<Vec<f32>> = frames.collect();
        log_probabilities(&self.model, &frames, self.config.num_mel_bins, batch_size)
    }

    /// What is said, in the order of the recordings.
    pub fn transcribe(&self, recordings: &[&[f32]], batch_size: usize) -> Vec<String> {
        self.write(&self.listen(recordings, batch_size))
    }

    fn write(&self, log_p: &[Vec<f32>]) -> Vec<String> {
        let search = self.language.search();
        log_p.par_iter().map(|log_p| search.best(log_p, self.config.vocab_size)).collect()
    }

    /// Judges on recordings whose words are known.
    pub fn judge(&self, recordings: &[Recording], batch_size: usize) -> Judged {
        let samples: Vec<&[f32]> = recordings.iter().map(|r| r.samples.as_slice()).collect();
        let log_p = self.listen(&samples, batch_size);
        let mut judged = Judged { texts: self.write(&log_p), ..Judged::default() };
        let (mut loss, mut count) = (0.0, 0);
        for ((recording, text), log_p) in recordings.iter().zip(&judged.texts).zip(&log_p) {
            let reference = recording.label.split_whitespace().collect::<Vec<_>>().join(" ");
            let row = [Errors::in_words(&reference, text), Errors::in_characters(&reference, text)];
            judged.words += row[0];
            judged.characters += row[1];
            judged.rows.push(row);
            if let Some(target) = self.language.lexicon.say(&reference, |_| 0) {
                let of = sequence_loss(log_p, self.config.vocab_size, &target);
                if of.is_finite() {
                    loss += of / target.len().max(1) as f64;
                    count += 1;
                }
            }
        }
        judged.loss = (count > 0).then(|| loss / f64::from(count));
        judged
    }

    /// Writes config, weights, preprocessor, vocabulary, lexicon, language model, card and origin.
    pub fn save(&self, dir: &Path, origin: &Origin, dtype: SaveType) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let model = FirebrickDeepSpeech { config: self.config.clone(), model: self.model.clone() };
        model.save(&dir.join("model.safetensors"), dtype)?;
        let mut files = self.language.files()?;
        files.push(("config.json", serde_json::to_vec_pretty(&self.config.to_json())?));
        for (file, bytes) in files {
            let path = dir.join(file);
            write_atomically(&path, &bytes)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        self.preprocessor.save(dir)?;
        let about = format!(
            "Convolutions and recurrent layers over log-mel spectrograms, trained by CTC; {} words.",
            self.language.lexicon.words.len()
        );
        origin.save(dir, "automatic-speech-recognition", &about)
    }
}
