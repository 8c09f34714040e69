//! A tagging recipe.

use std::path::PathBuf;

use firebrick_core::arch::tagger::TaggerConfig;
use firebrick_train::{
    job::{check_head, check_parts, check_source},
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe, changed},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::features::{Features, Kind};
use crate::classification::distill;

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["loss", "tag_accuracy", "span_f1", "label_accuracy"];

/// Sentences as words with tags, a label of the sentence, or both; features of words into a BiLSTM.
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
    pub model: ModelRecipe,
    #[serde(default)]
    pub distill: DistillRecipe,
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
    Tagging,
}

/// `[data]`: a known data set, or JSON lines files of your own with `tokens`, `tags` and `label`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `ud-english-ewt`, `snips`, `atis`, `hwu64` or `smp2019-zh`. Either this or `train`.
    pub dataset: Option<String>,
    /// JSON lines: `{"tokens": ["play", "jazz"], "tags": ["O", "B-genre"], "label": "PlayMusic"}`, `tags` or `label` in
    /// all of them.
    pub train: Option<PathBuf>,
    /// File with the sentences that choose the weights.
    pub valid: Option<PathBuf>,
    /// File with the sentences that are reported once, at the end.
    pub test: Option<PathBuf>,
    /// A word that the training sentences have `n` times is hidden with probability `a / (a + n)` (Kiperwasser and
    /// Goldberg 2016); this is `a`.
    pub word_dropout: f64,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self { dataset: None, train: None, valid: None, test: None, word_dropout: 0.25 }
    }
}

/// `[features]`: what of a word gets a vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesRecipe {
    /// What fewer training words have gets none.
    pub min_frequency: u32,
    /// Channels of a word's own vector.
    pub word_size: usize,
    /// Channels of each of the vectors of its parts and its shape.
    pub part_size: usize,
}

impl Default for FeaturesRecipe {
    fn default() -> Self {
        Self { min_frequency: 2, word_size: 128, part_size: 32 }
    }
}

/// `[model]`: sizes of the bidirectional LSTM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    pub family: Family,
    /// Units of each direction.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub dropout: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// A bidirectional LSTM over features of words.
    Lstm,
    /// A hidden Markov model: trigrams of tags, words by their tag and the one before, endings of unknown words (Brants
    /// 2000). It is counted, not trained: keys of a network beside it are an error.
    Hmm,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self { family: Family::Lstm, hidden_size: 192, num_hidden_layers: 2, dropout: 0.4 }
    }
}

/// `[distill]`: learn sentences' labels also from a teacher's answers to sentences that are spliced from the training ones
/// and have no tags. The teacher is linear (NB-SVM, fitted on the training sentences) if no other is named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DistillRecipe {
    /// Spliced sentences for each of the training part; 0 has no teacher. An epoch passes over all of them.
    pub texts_per_row: usize,
    /// Folder or name of a text classifier with the same labels, which is asked for the training sentences too.
    pub teacher: Option<String>,
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        check_source(self.data.dataset.as_ref(), self.data.train.as_ref())?;
        let files = [("valid", &self.data.valid), ("test", &self.data.test)];
        check_parts(self.data.dataset.as_ref(), &files)?;
        if self.data.train.is_some() && self.data.valid.is_none() {
            return fail("data.valid", "is missing: sentences to choose the weights by".into());
        }
        if !(0.0..=1e6).contains(&self.data.word_dropout) {
            let problem = format!("is {}, not within 0 and 1000000", self.data.word_dropout);
            return fail("data.word_dropout", problem);
        }
        for (key, size) in [
            ("features.word_size", self.features.word_size),
            ("features.part_size", self.features.part_size),
            ("model.hidden_size", self.model.hidden_size),
            ("model.num_hidden_layers", self.model.num_hidden_layers),
        ] {
            if !(1..=4096).contains(&size) {
                return fail(key, format!("is {size}, not within 1 and 4096"));
            }
        }
        if !(0.0..1.0).contains(&self.model.dropout) {
            return fail("model.dropout", format!("is {}, not in [0, 1)", self.model.dropout));
        }
        distill::check(self.distill.texts_per_row, false, self.distill.teacher.as_ref())?;
        if self.distill.texts_per_row > 0 && self.model.family == Family::Hmm {
            let problem = "is for a network: a hidden Markov model counts, and labels no sentence";
            return fail("distill.texts_per_row", problem.into());
        }
        if self.model.family == Family::Hmm {
            let (mut train, mut plain) = (self.train.clone(), TrainRecipe::default());
            train.resolve();
            plain.resolve();
            let keys = [
                ("model", changed(&self.model, &ModelRecipe::default(), &["family"])),
                ("features", changed(&self.features, &FeaturesRecipe::default(), &[])),
                ("train", changed(&train, &plain, &[])),
            ];
            if let Some((table, key)) =
                keys.into_iter().find_map(|(table, key)| Some((table, key?)))
            {
                let problem = "is for a network: a hidden Markov model counts";
                return fail(&format!("{table}.{key}"), problem.into());
            }
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
    /// The model for these features, tags and labels.
    pub fn tagger(&self, features: &Features, tags: usize, labels: usize) -> TaggerConfig {
        let width = |kind: &Kind| match kind {
            Kind::Word => self.features.word_size,
            _ => self.features.part_size,
        };
        let tables = features.sizes().into_iter().zip(&features.kinds);
        TaggerConfig {
            features: tables.map(|(rows, kind)| [rows, width(kind)]).collect(),
            hidden_size: self.model.hidden_size,
            num_hidden_layers: self.model.num_hidden_layers,
            dropout: self.model.dropout,
            num_tags: tags,
            num_labels: labels,
        }
    }
}
