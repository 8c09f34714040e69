//! A speech recognition recipe.

use std::path::PathBuf;

use firebrick_core::{arch::deep_speech::DeepSpeechConfig, layers::rnn::Mode};
use firebrick_train::{
    job::{check_head, check_parts, check_source, check_valid_fraction},
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{lexicon::Units, search::Weights};
use crate::{
    augment::AugmentRecipe,
    features::{FeaturesRecipe, Preprocessor},
};

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["wer", "cer", "loss"];

/// Recordings with their words into convolutions and recurrent layers, trained by CTC; a dictionary and an n-gram model
/// find the words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of this format: 1.
    pub version: u32,
    pub task: TaskKind,
    /// Names the run folder: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Everything random is a function of it.
    #[serde(default)]
    pub seed: u64,
    pub data: DataRecipe,
    #[serde(default)]
    pub features: FeaturesRecipe,
    #[serde(default)]
    pub augment: AugmentRecipe,
    #[serde(default)]
    pub model: ModelRecipe,
    #[serde(default)]
    pub decode: DecodeRecipe,
    #[serde(default)]
    pub train: TrainRecipe,
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    #[serde(default)]
    pub eval: EvalRecipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    SpeechRecognition,
}

/// `[data]`: a known data set, or JSON lines files of your own: `{"audio": "one.flac", "text": "what is said"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `an4` or `yesno`. Either this or `train`.
    pub dataset: Option<String>,
    /// JSON lines file; paths of recordings are relative to it.
    pub train: Option<PathBuf>,
    /// The same, of recordings that choose the weights; else a part of the training ones is set aside.
    pub valid: Option<PathBuf>,
    /// The same, of recordings that are reported once, at the end.
    pub test: Option<PathBuf>,
    /// Part of the training recordings to choose the weights on, when there is no validation part.
    pub valid_fraction: f64,
    /// Whether that part has speakers of its own, where the data set knows them.
    pub valid_by_speaker: bool,
    /// What the model writes; the dictionary makes words of it.
    pub units: Units,
    /// Pronouncing dictionary in the format of CMU's, for `phones` and files of your own.
    pub dictionary: Option<PathBuf>,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            valid: None,
            test: None,
            valid_fraction: 0.1,
            valid_by_speaker: true,
            units: Units::Characters,
            dictionary: None,
        }
    }
}

/// `[model]`: two convolutions that quarter the frames, then recurrent layers in both directions (Amodei et al. 2015).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Channels of the convolutions.
    pub conv_channels: usize,
    pub cell: Cell,
    /// Units of each direction.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub dropout: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    Gru,
    Lstm,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            conv_channels: 16,
            cell: Cell::Lstm,
            hidden_size: 128,
            num_hidden_layers: 2,
            dropout: 0.3,
        }
    }
}

/// `[decode]`: how words are searched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeRecipe {
    /// Hypotheses that are kept.
    pub beam: usize,
    /// Words that the n-gram model, counted on the training texts, looks at; 0 has none.
    pub order: usize,
    /// Weight of the n-gram model's logarithms.
    pub lm_weight: f64,
    /// Added for every word: above 0 more words come out.
    pub word_bonus: f64,
}

impl Default for DecodeRecipe {
    fn default() -> Self {
        Self { beam: 64, order: 3, lm_weight: 0.8, word_bonus: 0.5 }
    }
}

impl DecodeRecipe {
    pub fn weights(&self) -> Weights {
        Weights { beam: self.beam, language: self.lm_weight, word: self.word_bonus }
    }

    pub fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        if !(1..=100_000).contains(&self.beam) {
            return fail("decode.beam", format!("is {}, not within 1 and 100000", self.beam));
        }
        if self.order > 16 {
            return fail("decode.order", format!("is {}, above 16", self.order));
        }
        for (key, value) in
            [("decode.lm_weight", self.lm_weight), ("decode.word_bonus", self.word_bonus)]
        {
            if !(-100.0..=100.0).contains(&value) {
                return fail(key, format!("is {value}, not within -100 and 100"));
            }
        }
        Ok(())
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        let data = &self.data;
        check_head(self.version, &self.name)?;
        check_source(data.dataset.as_ref(), data.train.as_ref())?;
        let files =
            [("valid", &data.valid), ("test", &data.test), ("dictionary", &data.dictionary)];
        check_parts(data.dataset.as_ref(), &files)?;
        check_valid_fraction(data.valid_fraction)?;
        if data.units == Units::Phones && data.train.is_some() && data.dictionary.is_none() {
            return fail("data.dictionary", "is missing: `phones` are looked up there".into());
        }
        if data.units != Units::Phones && data.dictionary.is_some() {
            return fail("data.dictionary", "is for `data.units = \"phones\"`".into());
        }
        self.features.check()?;
        self.augment.check()?;
        if self.augment.shift != AugmentRecipe::default().shift {
            return fail("augment.shift", "is for recordings of one length: keywords".into());
        }
        if self.augment.tempo > 0.5 || self.augment.speed > 0.5 {
            let key = if self.augment.tempo > 0.5 { "augment.tempo" } else { "augment.speed" };
            return fail(key, "is above 0.5: too few frames would be left for the words".into());
        }
        self.network(2).check().map_err(|problem| {
            let (key, rest) = problem.split_once(' ').unwrap_or((&problem, ""));
            match key {
                "num_mel_bins" => RecipeError::value("features.n_mels", rest),
                key => RecipeError::value(&format!("model.{key}"), rest),
            }
        })?;
        self.decode.check()?;
        if self.train.label_smoothing > 0.0 {
            return fail("train.label_smoothing", "is not for CTC".into());
        }
        self.train.check()?;
        self.train.check_layers_run_once()?;
        self.train.check_no_head()?;
        self.checkpoint.check()?;
        self.eval.check()?;
        self.eval.metric(METRICS).map(|_| ())
    }

    fn resolve(&mut self) {
        self.train.resolve();
    }
}

impl Recipe {
    /// The model for so many labels, the blank included.
    pub fn network(&self, labels: usize) -> DeepSpeechConfig {
        DeepSpeechConfig {
            num_mel_bins: self.features.n_mels,
            vocab_size: labels,
            conv_channels: self.model.conv_channels,
            mode: match self.model.cell {
                Cell::Gru => Mode::Gru,
                Cell::Lstm => Mode::Lstm,
            },
            hidden_size: self.model.hidden_size,
            num_hidden_layers: self.model.num_hidden_layers,
            dropout: self.model.dropout,
        }
    }

    pub fn preprocessor(&self) -> Preprocessor {
        Preprocessor { mel: self.features.mel(), normalize: self.features.normalize, seconds: None }
    }
}
