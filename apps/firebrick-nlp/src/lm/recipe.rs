//! A language modelling recipe.

use std::path::PathBuf;

use firebrick_core::{
    arch::{gpt2::Gpt2Config, llama::LlamaConfig, recurrent::RecurrentConfig},
    layers::rnn::Mode,
};
use firebrick_train::{
    job::{check_head, check_source},
    lora::LoraRecipe,
    recipe::{Check, CheckpointRecipe, EvalRecipe, RecipeError, TrainRecipe, check_pretrained},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scores that can choose the weights.
pub const METRICS: &[&str] = &["loss"];

/// A text, and a model that guesses its next character, word or piece.
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
    LanguageModelling,
}

/// `[data]`: a known data set, or a text file of your own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// `tinyshakespeare`, `chinese-poetry` (by character), `ptb` (by word), or a text classification set, of which the
    /// training texts are read (by piece), and no label. Either this or `train`.
    pub dataset: Option<String>,
    /// Text file, relative to the recipe. Its last tenth is the test part; a tenth of the rest, in ten blocks, chooses the
    /// weights.
    pub train: Option<PathBuf>,
    /// What the model reads of a text file of your own; beside a `model.pretrained` that has its own tokenizer, only what the
    /// file is split by: as it was for the checkpoint, if that was trained on it.
    pub unit: Unit,
    /// Most pieces in the vocabulary, where pieces are read.
    pub vocab_size: usize,
    /// Tokens of a window whose successor is guessed.
    pub window: usize,
    /// Tokens before them that a recurrent model reads first, so that it has a state.
    pub warm_up: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Character,
    /// Of a byte-level BPE that is trained on the training part.
    Piece,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            dataset: None,
            train: None,
            unit: Unit::Piece,
            vocab_size: 8000,
            window: 128,
            warm_up: 0,
        }
    }
}

/// `[model]`: which family, and its sizes. A key that the family does not have is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Folder or name of a GPT-2, Llama, Mistral, Qwen or recurrent model to go on from, with its own sizes and tokenizer.
    pub pretrained: Option<String>,
    pub family: Family,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    /// Of the outputs of layers.
    pub dropout: f64,
    /// `gpt2`.
    pub num_attention_heads: Option<usize>,
    /// `gpt2`: 4 times `hidden_size` when absent.
    pub intermediate_size: Option<usize>,
    /// `gpt2`: of attention weights; as `dropout` when absent.
    pub attention_dropout: Option<f64>,
    /// `gpt2`: deviation of fresh weights.
    pub initializer_range: Option<f64>,
    /// `lstm`, `gru`, `rnn`: channels of a word's vector; as `hidden_size` when absent.
    pub embedding_size: Option<usize>,
    /// `lstm`, `gru`, `rnn`: of word vectors, the same channels in all steps.
    pub input_dropout: Option<f64>,
    /// `lstm`, `gru`, `rnn`: between layers; as `dropout` when absent.
    pub hidden_dropout: Option<f64>,
    /// `lstm`, `gru`, `rnn`: of whole words of the vocabulary.
    pub word_dropout: Option<f64>,
    /// `lstm`, `gru`, `rnn`: of the weights from state to state.
    pub weight_dropout: Option<f64>,
    pub lora: LoraRecipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    Gpt2,
    Lstm,
    Gru,
    /// With tanh.
    Rnn,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            pretrained: None,
            family: Family::Gpt2,
            hidden_size: 128,
            num_hidden_layers: 4,
            dropout: 0.1,
            num_attention_heads: None,
            intermediate_size: None,
            attention_dropout: None,
            initializer_range: None,
            embedding_size: None,
            input_dropout: None,
            hidden_dropout: None,
            word_dropout: None,
            weight_dropout: None,
            lora: LoraRecipe::default(),
        }
    }
}

/// What `[model]` describes.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelConfig {
    Gpt2(Gpt2Config),
    Llama(LlamaConfig),
    Recurrent(RecurrentConfig),
}

impl Check for Recipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        check_head(self.version, &self.name)?;
        check_source(self.data.dataset.as_ref(), self.data.train.as_ref())?;
        if !(2..=65_536).contains(&self.data.window) {
            return fail("data.window", format!("is {}, not within 2 and 65536", self.data.window));
        }
        if self.data.warm_up > 65_536 {
            return fail("data.warm_up", format!("is {}, above 65536", self.data.warm_up));
        }
        if !(257..=1_000_000).contains(&self.data.vocab_size) {
            let problem = format!("is {}, not within 257 and 1000000", self.data.vocab_size);
            return fail("data.vocab_size", problem);
        }
        let model = &self.model;
        let gpt2 = model.family == Family::Gpt2;
        let idle = [
            ("num_attention_heads", model.num_attention_heads.is_some() && !gpt2),
            ("intermediate_size", model.intermediate_size.is_some() && !gpt2),
            ("attention_dropout", model.attention_dropout.is_some() && !gpt2),
            ("initializer_range", model.initializer_range.is_some() && !gpt2),
            ("embedding_size", model.embedding_size.is_some() && gpt2),
            ("input_dropout", model.input_dropout.is_some() && gpt2),
            ("hidden_dropout", model.hidden_dropout.is_some() && gpt2),
            ("word_dropout", model.word_dropout.is_some() && gpt2),
            ("weight_dropout", model.weight_dropout.is_some() && gpt2),
        ];
        if let Some((key, _)) = idle.iter().find(|(_, idle)| *idle) {
            return fail(&format!("model.{key}"), "is not a key of this family".into());
        }
        // Beside a checkpoint, that one's family counts.
        if self.data.warm_up > 0 && gpt2 && model.pretrained.is_none() {
            return fail("data.warm_up", "is for recurrent models".into());
        }
        model.lora.check(model.pretrained.as_ref(), &self.train)?;
        match &model.pretrained {
            None => self.config(1).map(|_| ())?,
            Some(_) => self.check_pretrained()?,
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
    /// Beside a checkpoint, which brings its own sizes and tokenizer, those of the recipe would do nothing.
    fn check_pretrained(&self) -> Result<(), RecipeError> {
        check_pretrained(&self.model, &ModelRecipe::default())?;
        if self.data.vocab_size != DataRecipe::default().vocab_size {
            let problem = "does nothing beside `model.pretrained`, which has its own tokenizer";
            return Err(RecipeError::value("data.vocab_size", problem));
        }
        Ok(())
    }

    /// The model for a vocabulary.
    pub fn config(&self, vocab_size: usize) -> Result<ModelConfig, RecipeError> {
        let model = &self.model;
        let named = |problem: String, names: &[(&str, &str)]| {
            let key = problem.split(' ').next().unwrap_or_default().to_string();
            let ours = names.iter().find(|(theirs, _)| *theirs == key).map_or(&*key, |(_, o)| o);
            RecipeError::value(&format!("model.{ours}"), problem[key.len()..].trim_start())
        };
        if model.family == Family::Gpt2 {
            let config = Gpt2Config {
                vocab_size,
                n_embd: model.hidden_size,
                n_layer: model.num_hidden_layers,
                n_head: model.num_attention_heads.unwrap_or(4),
                n_inner: model.intermediate_size,
                n_positions: self.data.window,
                resid_pdrop: model.dropout,
                embd_pdrop: model.dropout,
                attn_pdrop: model.attention_dropout.unwrap_or(model.dropout),
                initializer_range: model.initializer_range.unwrap_or(0.02),
                ..Gpt2Config::small()
            };
            let names = [
                ("n_embd", "hidden_size"),
                ("n_layer", "num_hidden_layers"),
                ("n_head", "num_attention_heads"),
                ("n_inner", "intermediate_size"),
                ("resid_pdrop", "dropout"),
                ("embd_pdrop", "dropout"),
                ("attn_pdrop", "attention_dropout"),
            ];
            config.check().map_err(|problem| named(problem, &names))?;
            return Ok(ModelConfig::Gpt2(config));
        }
        let config = RecurrentConfig {
            mode: match model.family {
                Family::Gru => Mode::Gru,
                Family::Rnn => Mode::RnnTanh,
                _ => Mode::Lstm,
            },
            vocab_size,
            embedding_size: model.embedding_size.unwrap_or(model.hidden_size),
            hidden_size: model.hidden_size,
            num_layers: model.num_hidden_layers,
            tie_weights: true,
            dropout: model.dropout,
            dropouth: model.hidden_dropout.unwrap_or(model.dropout),
            dropouti: model.input_dropout.unwrap_or(0.0),
            dropoute: model.word_dropout.unwrap_or(0.0),
            wdrop: model.weight_dropout.unwrap_or(0.0),
        };
        let names = [
            ("num_layers", "num_hidden_layers"),
            ("dropouth", "hidden_dropout"),
            ("dropouti", "input_dropout"),
            ("dropoute", "word_dropout"),
            ("wdrop", "weight_dropout"),
        ];
        config.check().map_err(|problem| named(problem, &names))?;
        Ok(ModelConfig::Recurrent(config))
    }
}
