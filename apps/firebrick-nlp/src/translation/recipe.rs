//! A translation recipe.

use std::path::PathBuf;

use firebrick_core::{
    arch::bart::{BartConfig, ModelType},
    checkpoint::Source,
    generate::GenerationConfig,
    layers::activation::Activation,
};
use firebrick_train::{
    job::{check_head, check_parts, check_source, check_valid_fraction},
    lora::LoraRecipe,
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe, check_pretrained},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tokenizer::{
    TextTokenizer,
    recipe::{TokenizerKind, TokenizerRecipe},
};

/// Scores that can choose the weights. `bleu` and `chrf` translate the validation part at every evaluation.
pub const METRICS: &[&str] = &["loss", "bleu", "chrf"];

/// Pairs of sentences, a shared vocabulary, an encoder and a decoder.
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
    #[serde(default)]
    pub generate: GenerateRecipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    Translation,
}

/// `[data]`: a known data set, or files of your own with one pair a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `multi30k` or `tatoeba-cmn-eng`. Either this or `train`.
    pub dataset: Option<String>,
    /// CSV, TSV, JSON lines or Parquet file, relative to the recipe, whose columns are called as `source` and `target`
    /// say.
    pub train: Option<PathBuf>,
    /// File with the pairs that choose the weights; else a part of the training pairs is set aside.
    pub valid: Option<PathBuf>,
    /// Part of the training pairs to choose the weights on, when there is no validation part.
    pub valid_fraction: f64,
    /// File with the pairs that are reported once, at the end.
    pub test: Option<PathBuf>,
    /// Language that is read: `en`, `de`, `fr`, `zh`; or the name of a column.
    pub source: String,
    /// Language that is written.
    pub target: String,
    /// Longer sentences are dropped from the training pairs (characters).
    pub max_chars: usize,
    /// Turn traditional Chinese characters into simplified ones (OpenCC), on both sides.
    pub simplify: bool,
    /// Share of the training pairs that are read once more with placeholders for one to three words, so that numbers, names
    /// and the terms of a glossary can be carried over.
    pub copies: f64,
    /// Drop training pairs whose source sentence is also, or nearly, in another part.
    pub leaks: bool,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            valid: None,
            valid_fraction: 0.03,
            test: None,
            source: "source".into(),
            target: "target".into(),
            max_chars: 500,
            simplify: false,
            copies: 0.0,
            leaks: true,
        }
    }
}

/// `[model]`: sizes of a Marian encoder and decoder, in the names of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    pub d_model: usize,
    pub encoder_layers: usize,
    pub encoder_attention_heads: usize,
    pub encoder_ffn_dim: usize,
    pub decoder_layers: usize,
    pub decoder_attention_heads: usize,
    pub decoder_ffn_dim: usize,
    /// `gelu`, `gelu_new`, `relu`, `silu` or `tanh`.
    pub activation_function: String,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub activation_dropout: f64,
    /// Deviation of fresh weights; 0 stands for one over the root of `d_model`.
    pub init_std: f64,
    /// Translator to go on from: a folder, a run or a shipped model, with its sizes and its tokenizer.
    pub pretrained: Option<String>,
    pub lora: LoraRecipe,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            d_model: 256,
            encoder_layers: 3,
            encoder_attention_heads: 4,
            encoder_ffn_dim: 512,
            decoder_layers: 3,
            decoder_attention_heads: 4,
            decoder_ffn_dim: 512,
            activation_function: "relu".into(),
            dropout: 0.1,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            init_std: 0.0,
            pretrained: None,
            lora: LoraRecipe::default(),
        }
    }
}

/// `[generate]`: how the finished model searches; written to `generation_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateRecipe {
    /// Open hypotheses; 1 is greedy.
    pub num_beams: usize,
    /// A hypothesis' score is divided by its length to this power.
    pub length_penalty: f32,
}

impl Default for GenerateRecipe {
    fn default() -> Self {
        Self { num_beams: 5, length_penalty: 1.0 }
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        check_source(self.data.dataset.as_ref(), self.data.train.as_ref())?;
        let files = [("valid", &self.data.valid), ("test", &self.data.test)];
        check_parts(self.data.dataset.as_ref(), &files)?;
        if self.data.source == self.data.target {
            return fail("data.target", format!("is {:?}, as the source", self.data.target));
        }
        check_valid_fraction(self.data.valid_fraction)?;
        if !(0.0..=1.0).contains(&self.data.copies) {
            return fail("data.copies", format!("is {}, not within 0 and 1", self.data.copies));
        }
        if !(1..=64).contains(&self.generate.num_beams) {
            let problem = format!("is {}, not within 1 and 64", self.generate.num_beams);
            return fail("generate.num_beams", problem);
        }
        self.tokenizer.check()?;
        match (&self.model.pretrained, self.tokenizer.kind) {
            (None, TokenizerKind::ByteBpe) => self.marian(self.tokenizer.vocab_size).map(|_| ())?,
            (Some(_), TokenizerKind::Pretrained) => {
                check_pretrained(&self.model, &ModelRecipe::default())?
            }
            (None, _) => {
                return fail(
                    "tokenizer.kind",
                    "is not `byte-bpe`: a translation is written back".into(),
                );
            }
            (Some(_), _) => {
                return fail(
                    "tokenizer.kind",
                    "is not `pretrained`, as beside `model.pretrained`".into(),
                );
            }
        }
        self.model.lora.check(self.model.pretrained.as_ref(), &self.train)?;
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

/// Ids of the tokenizer that `TokenizerKind::ByteBpe` trains.
const START: i64 = 0;
const PAD: i64 = 1;
const END: i64 = 2;

impl Recipe {
    /// The model that `[model]` describes.
    pub fn marian(&self, vocab_size: usize) -> Result<BartConfig, RecipeError> {
        let model = &self.model;
        let activation: Activation =
            serde_json::from_value(model.activation_function.clone().into()).map_err(|_| {
                let problem = format!("is {:?}, which is no activation", model.activation_function);
                RecipeError::value("model.activation_function", problem)
            })?;
        let std = match model.init_std {
            0.0 => (model.d_model.max(1) as f64).powf(-0.5),
            std => std,
        };
        let config = BartConfig {
            model_type: ModelType::Marian,
            vocab_size,
            d_model: model.d_model,
            encoder_layers: model.encoder_layers,
            encoder_attention_heads: model.encoder_attention_heads,
            encoder_ffn_dim: model.encoder_ffn_dim,
            decoder_layers: model.decoder_layers,
            decoder_attention_heads: model.decoder_attention_heads,
            decoder_ffn_dim: model.decoder_ffn_dim,
            max_position_embeddings: self.tokenizer.max_len,
            activation_function: activation,
            scale_embedding: true,
            dropout: model.dropout,
            attention_dropout: model.attention_dropout,
            activation_dropout: model.activation_dropout,
            init_std: std,
            decoder_start_token_id: Some(START),
            ..BartConfig::base()
        };
        config.check().map_err(|problem| {
            let key = problem.split(' ').next().unwrap_or_default();
            RecipeError::value(&format!("model.{key}"), problem[key.len()..].trim_start())
        })?;
        Ok(config)
    }

    /// A translator of somebody else's may begin and end its sentences otherwise.
    pub fn check_tokens(&self, tokenizer: &TextTokenizer, source: &Source) -> anyhow::Result<()> {
        let [start, end] = [START, END].map(|id| id as u32);
        let ours = tokenizer.encode("", usize::MAX) == [start, end]
            && i64::from(tokenizer.pad_id()) == PAD;
        anyhow::ensure!(
            ours,
            "{}: not a tokenizer of this recipe's kind (<s> {START}, <pad> {PAD}, </s> {END} around every sentence)",
            source.path("tokenizer.json").display()
        );
        Ok(())
    }

    /// How the model searches.
    pub fn generation(&self) -> GenerationConfig {
        GenerationConfig {
            max_length: Some(self.tokenizer.max_len),
            num_beams: self.generate.num_beams,
            length_penalty: self.generate.length_penalty,
            bos_token_id: Some(START),
            pad_token_id: Some(PAD),
            eos_token_id: Some(firebrick_core::generate::TokenIds::One(END)),
            decoder_start_token_id: Some(START),
            ..GenerationConfig::default()
        }
    }
}
