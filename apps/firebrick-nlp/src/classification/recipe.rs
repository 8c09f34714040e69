//! A text classification recipe.

use std::path::PathBuf;

use firebrick_core::{
    arch::{
        bert::{BertConfig, ModelType},
        bilstm::BilstmConfig,
        text::TextConfig,
    },
    layers::activation::Activation,
};
use firebrick_train::{
    job::{check_head, check_parts, check_source, check_valid_fraction},
    lora::LoraRecipe,
    recipe::{
        Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe, changed, check_pretrained,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distill;
use crate::tokenizer::recipe::{TokenizerKind, TokenizerRecipe};

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["accuracy", "macro_f1", "loss"];

/// What to learn from, how to cut it into tokens, what to train and how.
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
    pub tokenizer: TokenizerRecipe,
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
    TextClassification,
}

/// `[data]`: a known data set, or files of your own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// Id of a known data set (`firebrick data ls`), or `snips`, `atis`, `hwu64` or `smp2019-zh`, whose intents (domains)
    /// are the labels. Either this or `train`.
    pub dataset: Option<String>,
    /// CSV, TSV, JSON lines or Parquet file with the training rows, relative to the recipe.
    pub train: Option<PathBuf>,
    /// File with the rows that choose the weights; else a part of the training rows is set aside.
    pub valid: Option<PathBuf>,
    /// Part of the training rows to choose the weights on, when there is no validation part.
    pub valid_fraction: f64,
    /// File with the rows that are reported once, at the end.
    pub test: Option<PathBuf>,
    pub text_column: String,
    pub label_column: String,
    /// Longer texts are dropped by the cleaning (characters).
    pub max_chars: usize,
    /// What to do about training rows that are also, or nearly, in another part.
    pub leaks: Leaks,
    /// Learn from so many of the training rows only, drawn by the seed; 0 takes all.
    pub train_rows: usize,
    /// Probability of hiding a token of a training row behind the unknown token.
    pub token_dropout: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Leaks {
    /// Drop them from the training rows.
    Drop,
    /// Stop.
    Error,
    /// Do not look.
    Off,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            valid: None,
            valid_fraction: 0.1,
            test: None,
            text_column: "text".into(),
            label_column: "label".into(),
            max_chars: 10_000,
            leaks: Leaks::Drop,
            train_rows: 0,
            token_dropout: 0.0,
        }
    }
}

/// `[model]`: which family, and its sizes in the names of `config.json`; or a checkpoint to start from. A key that the family
/// does not have is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Folder or name of a BERT, RoBERTa, DistilBERT, GPT-2 or BiLSTM checkpoint; the sizes and dropouts below are then its
    /// own.
    pub pretrained: Option<String>,
    /// Take the checkpoint's sizes and tokenizer alone, and draw its weights anew: what its pre-training is worth.
    pub fresh_weights: bool,
    pub family: Family,
    /// `bilstm`: of each direction.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    /// `bert`.
    pub num_attention_heads: usize,
    /// `bert`.
    pub intermediate_size: usize,
    /// `bert`: `gelu`, `gelu_new`, `relu` or `tanh`.
    pub hidden_act: String,
    /// `bilstm`: of word vectors, the same channels in all steps, and between layers.
    pub hidden_dropout_prob: f64,
    /// `bert`.
    pub attention_probs_dropout_prob: f64,
    /// Before the classifier.
    pub classifier_dropout: f64,
    /// `bert`: deviation of fresh weights.
    pub initializer_range: f64,
    /// `bert`: deviation of fresh word vectors, where it differs.
    pub embedding_range: Option<f64>,
    /// `bilstm`: channels of a word's vector; as `hidden_size` when absent.
    pub embedding_size: Option<usize>,
    pub lora: LoraRecipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// An encoder.
    Bert,
    /// A bidirectional LSTM, of whose states the classifier sees the strongest.
    Bilstm,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            pretrained: None,
            fresh_weights: false,
            family: Family::Bert,
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 512,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: 0.1,
            initializer_range: 0.02,
            embedding_range: None,
            embedding_size: None,
            lora: LoraRecipe::default(),
        }
    }
}

/// `[distill]`: learn also from a teacher's answers to texts that nobody labelled: spliced from the training rows, or of a
/// file. The teacher is linear (NB-SVM, fitted on the training rows) if no other is named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DistillRecipe {
    /// Spliced texts for each training row; 0 and no `texts` has no teacher. An epoch passes over all of them.
    pub texts_per_row: usize,
    /// Text file, or CSV, TSV or JSON lines with the column `data.text_column`, relative to the recipe: texts without labels.
    /// Those that are also, or nearly, in the validation or test part are dropped, as `data.leaks` says.
    pub texts: Option<PathBuf>,
    /// Folder or name of a text classifier with the same labels, which is asked for the training rows too.
    pub teacher: Option<String>,
    /// Weight of the mean squared distance between what comes out of the layers and out of the teacher's (TinyBERT), whose
    /// tokenizer, channels and heads must be the student's: those of a teacher with fewer layers.
    pub hidden: f64,
    /// The same of attention maps, before their softmax.
    pub attention: f64,
}

impl DistillRecipe {
    /// Whether there is a teacher.
    pub fn asks(&self) -> bool {
        self.texts_per_row > 0 || self.texts.is_some()
    }
}

impl ModelRecipe {
    /// A key beside `counted` that has a value, which would do nothing.
    fn idle(&self, counted: &[&str]) -> Option<String> {
        changed(self, &Self::default(), counted).map(|key| format!("model.{key}"))
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        check_source(self.data.dataset.as_ref(), self.data.train.as_ref())?;
        let files = [("valid", &self.data.valid), ("test", &self.data.test)];
        check_parts(self.data.dataset.as_ref(), &files)?;
        check_valid_fraction(self.data.valid_fraction)?;
        if !(0.0..1.0).contains(&self.data.token_dropout) {
            return fail(
                "data.token_dropout",
                format!("is {}, not in [0, 1)", self.data.token_dropout),
            );
        }
        self.tokenizer.check()?;
        let DistillRecipe { texts_per_row, texts, teacher, .. } = &self.distill;
        distill::check(*texts_per_row, texts.is_some(), teacher.as_ref())?;
        let DistillRecipe { hidden, attention, .. } = self.distill;
        for (key, weight) in [("distill.hidden", hidden), ("distill.attention", attention)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return fail(key, format!("is {weight}, below 0 or no number"));
            }
            if weight == 0.0 {
                continue;
            }
            if self.distill.teacher.is_none() {
                return fail(key, "needs `distill.teacher`, whose layers are imitated".into());
            }
            let train = &self.train;
            if train.r_drop > 0.0 || train.activation_checkpointing || train.tensor_parallel > 1 {
                let problem = "goes with none of train.r_drop, train.activation_checkpointing and train.tensor_parallel";
                return fail(key, problem.into());
            }
        }
        if (self.tokenizer.kind == TokenizerKind::Pretrained) != self.model.pretrained.is_some() {
            let problem = "is `pretrained` just when `model.pretrained` names a checkpoint";
            return fail("tokenizer.kind", problem.into());
        }
        self.model.lora.check(self.model.pretrained.as_ref(), &self.train)?;
        if self.model.fresh_weights && (self.model.pretrained.is_none() || self.model.lora.r > 0) {
            let problem = "is for the sizes of a `model.pretrained`, and not beside `model.lora`";
            return fail("model.fresh_weights", problem.into());
        }
        match &self.model.pretrained {
            None => {
                self.model.config(&self.tokenizer, self.tokenizer.vocab_size)?;
            }
            Some(_) => check_pretrained(&self.model, &ModelRecipe::default())?,
        }
        self.train.check()?;
        self.checkpoint.check()?;
        self.eval.check()?;
        self.eval.metric(METRICS).map(|_| ())
    }

    fn resolve(&mut self) {
        self.train.resolve();
    }
}

impl ModelRecipe {
    /// The classifier that the sizes describe, from scratch, for texts that `tokenizer` cuts.
    pub fn config(
        &self,
        tokenizer: &TokenizerRecipe,
        vocab_size: usize,
    ) -> Result<TextConfig, RecipeError> {
        match self.family {
            Family::Bert => self.bert(tokenizer, vocab_size).map(TextConfig::Bert),
            Family::Bilstm => self.bilstm(tokenizer, vocab_size).map(TextConfig::Bilstm),
        }
    }

    fn bilstm(
        &self,
        tokenizer: &TokenizerRecipe,
        vocab_size: usize,
    ) -> Result<BilstmConfig, RecipeError> {
        let counted = [
            "family",
            "hidden_size",
            "embedding_size",
            "num_hidden_layers",
            "hidden_dropout_prob",
            "classifier_dropout",
        ];
        if let Some(key) = self.idle(&counted) {
            return Err(RecipeError::value(&key, "is not a key of this family"));
        }
        let config = BilstmConfig {
            vocab_size,
            embedding_size: self.embedding_size.unwrap_or(self.hidden_size),
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            max_length: tokenizer.max_len,
            hidden_dropout_prob: self.hidden_dropout_prob,
            classifier_dropout: self.classifier_dropout,
            id2label: Default::default(),
        };
        config.check().map_err(of_key)?;
        Ok(config)
    }

    /// The encoder that the sizes describe, from scratch, for texts that `tokenizer` cuts.
    pub fn bert(
        &self,
        tokenizer: &TokenizerRecipe,
        vocab_size: usize,
    ) -> Result<BertConfig, RecipeError> {
        let model = self;
        if model.family != Family::Bert {
            let problem = "is not an encoder, `bert`, which this is for";
            return Err(RecipeError::value("model.family", problem));
        }
        if model.embedding_size.is_some() {
            let problem = "is not a key of this family";
            return Err(RecipeError::value("model.embedding_size", problem));
        }
        let hidden_act: Activation = serde_json::from_value(model.hidden_act.clone().into())
            .map_err(|_| {
                let problem =
                    format!("is {:?}, none of gelu, gelu_new, relu, tanh", model.hidden_act);
                RecipeError::value("model.hidden_act", problem)
            })?;
        let byte_bpe = tokenizer.kind == TokenizerKind::ByteBpe;
        let config = BertConfig {
            model_type: if byte_bpe { ModelType::Roberta } else { ModelType::Bert },
            vocab_size,
            hidden_size: model.hidden_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            intermediate_size: model.intermediate_size,
            hidden_act,
            // RoBERTa counts positions from 2.
            max_position_embeddings: tokenizer.max_len + if byte_bpe { 2 } else { 0 },
            type_vocab_size: if byte_bpe { 1 } else { 2 },
            hidden_dropout_prob: model.hidden_dropout_prob,
            attention_probs_dropout_prob: model.attention_probs_dropout_prob,
            classifier_dropout: Some(model.classifier_dropout),
            layer_norm_eps: 1e-12,
            initializer_range: model.initializer_range,
            embedding_range: model.embedding_range,
            pad_token_id: Some(if byte_bpe { 1 } else { 0 }),
            id2label: Default::default(),
        };
        config.check().map_err(of_key)?;
        Ok(config)
    }
}

/// A configuration's problem, which begins with the key.
fn of_key(problem: String) -> RecipeError {
    let key = problem.split(' ').next().unwrap_or_default();
    RecipeError::value(&format!("model.{key}"), problem[key.len()..].trim_start())
}

#[cfg(test)]
mod tests {
    use firebrick_train::recipe::parse;

    use super::*;

    #[test]
    fn sizes_beside_a_checkpoint_are_an_error() {
        let (_, text) =
            crate::recipes::SHIPPED.iter().find(|(name, _)| *name == "sst2-minilm").unwrap();
        let wider = ["model.hidden_size=64".to_string()];
        let error = parse::<Recipe>(text.as_bytes(), &wider).unwrap_err().to_string();
        assert!(error.contains("`model.hidden_size` stands beside"), "{error}");
        let recipe: Recipe = parse(text.as_bytes(), &[]).unwrap();
        let resolved = toml::to_string_pretty(&recipe).unwrap();
        assert_eq!(parse::<Recipe>(resolved.as_bytes(), &[]).unwrap(), recipe);
    }

    #[test]
    fn a_family_has_keys_of_its_own() {
        let (_, text) =
            crate::recipes::SHIPPED.iter().find(|(name, _)| *name == "sst2-bilstm").unwrap();
        let check = |change: &str, said: &str| {
            let error = parse::<Recipe>(text.as_bytes(), &[change.into()]).unwrap_err().to_string();
            assert!(error.contains(said), "{change}: {error}");
        };
        check("model.num_attention_heads=4", "`model.num_attention_heads` is not a key of this");
        check("model.family=bert", "`model.embedding_size` is not a key of this family");
        check("model.hidden_size=0", "`model.hidden_size` is 0");
    }
}
