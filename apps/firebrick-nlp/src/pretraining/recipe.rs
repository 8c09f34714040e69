//! A recipe that pre-trains an encoder.

use std::path::PathBuf;

use firebrick_core::arch::bert::ModelType;
use firebrick_train::{
    job::{check_head, check_valid_fraction},
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    classification::recipe::ModelRecipe,
    tokenizer::recipe::{TokenizerKind, TokenizerRecipe},
};

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["loss", "accuracy"];

/// Tokens of two pieces and the three special ones.
const SHORTEST_PAIR: usize = 9;

/// Texts without labels, and an encoder that guesses their masked words.
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
    pub train: TrainRecipe,
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    #[serde(default)]
    pub eval: EvalRecipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    MaskedLanguageModelling,
}

/// `[data]`: known data sets, files of your own, or both together; or one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// Ids of text classification sets, of which the texts of the training parts are read, and no label.
    pub datasets: Vec<String>,
    /// Text files, a text a line, relative to the recipe.
    pub files: Vec<PathBuf>,
    /// In place of both: a set to model language on (`tinyshakespeare`, `ptb`), by its characters or words, or a text file, by
    /// `tokenizer.vocab_size` pieces. Its training part is read in windows of `tokenizer.max_len` tokens, its validation part
    /// chooses the weights, and its test part is judged once.
    pub stream: Option<String>,
    /// Part of the texts that chooses the weights.
    pub valid_fraction: f64,
    /// Share of a text's tokens that is to be guessed.
    pub masked: f64,
    /// Whether texts are cut in two, half of them get the second piece of another text, and which ones is to be guessed too. It
    /// trains the first token, which a classifier reads. For WordPiece, as BERT has it; RoBERTa has no second segment.
    pub next_sentence: bool,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            datasets: vec![],
            files: vec![],
            stream: None,
            valid_fraction: 0.05,
            masked: 0.15,
            next_sentence: false,
        }
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        let texts = !self.data.datasets.is_empty() || !self.data.files.is_empty();
        match (&self.data.stream, texts) {
            (None, false) => {
                let problem = "is missing (or name `data.datasets` or `data.stream`)";
                return fail("data.files", problem.into());
            }
            (Some(_), true) => {
                let problem = "stands beside `data.datasets` or `data.files`, in whose place it is";
                return fail("data.stream", problem.into());
            }
            _ => {}
        }
        if self.data.stream.is_some() {
            self.check_stream()?;
        }
        check_valid_fraction(self.data.valid_fraction)?;
        if !(self.data.masked > 0.0 && self.data.masked < 1.0) {
            return fail("data.masked", format!("is {}, not within 0 and 1", self.data.masked));
        }
        self.tokenizer.check()?;
        if self.tokenizer.kind == TokenizerKind::Pretrained {
            return fail("tokenizer.kind", "is trained here: `wordpiece` or `byte-bpe`".into());
        }
        let ModelRecipe { pretrained, fresh_weights, lora, .. } = &self.model;
        let idle = [
            ("model.lora", lora.r > 0),
            ("model.pretrained", pretrained.is_some()),
            ("model.fresh_weights", *fresh_weights),
        ];
        if let Some((key, _)) = idle.iter().find(|(_, idle)| *idle) {
            return fail(key, "is for fine-tuning: pre-training begins from scratch".into());
        }
        let config = self.model.bert(&self.tokenizer, self.tokenizer.vocab_size)?;
        if self.data.next_sentence && config.model_type != ModelType::Bert {
            return fail(
                "data.next_sentence",
                "needs a second segment, as with `tokenizer.kind = \"wordpiece\"`".into(),
            );
        }
        if self.data.next_sentence && self.tokenizer.max_len < SHORTEST_PAIR {
            let problem = format!("is below {SHORTEST_PAIR}, too few tokens for two pieces");
            return fail("tokenizer.max_len", problem);
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
    /// A stream has tokens and parts of its own, and no pairs.
    fn check_stream(&self) -> Result<(), RecipeError> {
        let TokenizerRecipe { vocab_size, max_len, .. } = self.tokenizer;
        let DataRecipe { stream, masked, .. } = self.data.clone();
        let tokenizer = TokenizerRecipe { vocab_size, max_len, ..TokenizerRecipe::default() };
        let data = DataRecipe { stream, masked, ..DataRecipe::default() };
        let problem = "has keys that do nothing beside `data.stream`";
        match (self.tokenizer == tokenizer, self.data == data) {
            (true, true) => Ok(()),
            (false, _) => Err(RecipeError::value("tokenizer", problem)),
            (_, false) => Err(RecipeError::value("data", problem)),
        }
    }
}
