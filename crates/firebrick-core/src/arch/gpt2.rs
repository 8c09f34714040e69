//! GPT-2: a pre-norm Transformer decoder with learned positions.
//!
//! Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
//! Reference code: `modeling_gpt2.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` tokens, `C` channels (`n_embd`), `V` vocabulary.

mod classifier;

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs, check_length},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, Coverage, SaveType, Weights},
    },
    generate::{Decoder, GenerationConfig, prompt},
    layers::{
        activation::Activation,
        attention::{Heads, Mask, attend, attend_packed, split},
        cache::{Cache, KeyValue},
        dropout::Dropout,
        embedding::Embedding,
        linear::linear,
        moments,
        norm::LayerNorm,
    },
};

pub use classifier::{Gpt2Classifier, Gpt2ForSequenceClassification, classifier_name};

/// Sizes of a GPT-2. Field names are those of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    pub vocab_size: usize,
    /// `C`: must be divisible by `n_head`.
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    /// Width inside the feed-forward block; `4 * n_embd` when absent.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// Longest sequence.
    pub n_positions: usize,
    #[serde(default = "gelu_new")]
    pub activation_function: Activation,
    #[serde(default = "tenth")]
    pub resid_pdrop: f64,
    #[serde(default = "tenth")]
    pub embd_pdrop: f64,
    #[serde(default = "tenth")]
    pub attn_pdrop: f64,
    #[serde(default = "default_eps")]
    pub layer_norm_epsilon: f64,
    /// Deviation of fresh weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
    /// What a classifier's texts are filled up with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<usize>,
    /// A classifier's label names by class index, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub id2label: BTreeMap<String, String>,
}

fn gelu_new() -> Activation {
    Activation::GeluNew
}
fn tenth() -> f64 {
    0.1
}
fn default_eps() -> f64 {
    1e-5
}
fn default_std() -> f64 {
    0.02
}

impl Gpt2Config {
    /// GPT-2 small: 124 M parameters.
    pub fn small() -> Self {
        Self {
            vocab_size: 50_257,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            n_positions: 1024,
            activation_function: Activation::GeluNew,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            pad_token_id: None,
            id2label: BTreeMap::new(),
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::small`].
    pub fn tiny() -> Self {
        Self { vocab_size: 64, n_embd: 16, n_layer: 2, n_head: 2, n_positions: 32, ..Self::small() }
    }

    /// `config.json` of a language model, as `transformers` reads it.
    pub fn to_json(&self) -> Value {
        self.json_of("GPT2LMHeadModel")
    }

    fn json_of(&self, architecture: &str) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!("gpt2");
        value["architectures"] = json!([architecture]);
        value["torch_dtype"] = json!("float32");
        value
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["GPT2LMHeadModel"])?;
        Self::parse(value)
    }

    fn parse(value: &Value) -> Result<Self, String> {
        config::only(
            value,
            &[
                ("add_cross_attention", json!(false)),
                ("scale_attn_weights", json!(true)),
                ("scale_attn_by_inverse_layer_idx", json!(false)),
                ("tie_word_embeddings", json!(true)),
            ],
        )?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("n_embd", self.n_embd, 65_536)?;
        config::size("n_layer", self.n_layer, 1_000)?;
        config::size("n_head", self.n_head, 1_024)?;
        config::size("n_inner", self.n_inner.unwrap_or(1), 1_048_576)?;
        config::size("n_positions", self.n_positions, 1_048_576)?;
        config::divides("n_embd", self.n_embd, "n_head", self.n_head)?;
        config::probability("resid_pdrop", self.resid_pdrop)?;
        config::probability("embd_pdrop", self.embd_pdrop)?;
        config::probability("attn_pdrop", self.attn_pdrop)?;
        config::positive("layer_norm_epsilon", self.layer_norm_epsilon)
    }

    pub fn init(&self, device: &Device) -> Gpt2 {
        let (c, std) = (self.n_embd, self.initializer_range);
        Gpt2 {
            tokens: Embedding::new(self.vocab_size, c, std, device),
            positions: Embedding::new(self.n_positions, c, std, device),
            dropout: Dropout::new(self.embd_pdrop),
            layers: (0..self.n_layer).map(|_| self.layer(device)).collect(),
            norm: LayerNorm::new(c, self.layer_norm_epsilon, device),
        }
    }

    fn layer(&self, device: &Device) -> Layer {
        let (c, std) = (self.n_embd, self.initializer_range);
        let inner = self.n_inner.unwrap_or(4 * c);
        // The deviation of what is added to the residual stream falls with its number of additions.
        let residual_std = std / (2.0 * self.n_layer as f64).sqrt();
        Layer {
            attention_norm: LayerNorm::new(c, self.layer_norm_epsilon, device),
            query_key_value: Conv1D::new(c, 3 * c, std, device),
            output: Conv1D::new(c, c, residual_std, device),
            attention_dropout: Dropout::new(self.attn_pdrop),
            feed_forward_norm: LayerNorm::new(c, self.layer_norm_epsilon, device),
            up: Conv1D::new(c, inner, std, device),
            down: Conv1D::new(inner, c, residual_std, device),
            dropout: Dropout::new(self.resid_pdrop),
            heads: Heads::new(self.n_head, c / self.n_head),
            activation: self.activation_function,
        }
    }
}

/// Token ids in, logits of the next token out. The output layer is the token table.
#[derive(Module, Debug)]
pub struct Gpt2 {
    tokens: Embedding,
    positions: Embedding,
    dropout: Dropout,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

impl Gpt2 {
    /// Reads whole sequences: `ids`, `pad`: `[B, T]`, true where padding -> logits `[B, T, V]`
    pub fn forward(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Tensor<3> {
        self.logits(self.read(self.tokens.forward(ids), pad))
    }

    /// `words`: the vectors of whole sequences' tokens, `[B, T, C]`, `pad`: `[B, T]` -> `[B, T, C]`
    fn read(&self, words: Tensor<3>, pad: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let [_, t, _] = words.dims();
        let positions = Tensor::arange(0..t as i64, &words.device()).unsqueeze(); // [1, T]
        let x = self.place(words, positions);
        let mask = Mask::causal(pad);
        self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask, None))
    }

    fn place(&self, words: Tensor<3>, positions: Tensor<2, Int>) -> Tensor<3> {
        self.dropout.forward(words + self.positions.forward(positions))
    }

    /// `[B, T, C]` -> `[B, T, V]`
    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        self.tokens.scores(self.norm.forward(x), None)
    }
}

/// Self-attention, then feed-forward; each added to the residual stream, with a norm before it.
#[derive(Module, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    query_key_value: Conv1D,
    output: Conv1D,
    attention_dropout: Dropout,
    feed_forward_norm: LayerNorm,
    up: Conv1D,
    down: Conv1D,
    dropout: Dropout,
    #[module(skip)]
    heads: Heads,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    /// `[B, T, C]` -> `[B, T, C]`
    fn forward(&self, x: Tensor<3>, mask: &Mask, cache: Option<&mut KeyValue>) -> Tensor<3> {
        let attended = self.attention(self.attention_norm.forward(x.clone()), mask, cache);
        let x = x + self.dropout.forward(self.output.forward(attended));
        let fed =
            self.activation.forward(self.up.forward(self.feed_forward_norm.forward(x.clone())));
        x + self.dropout.forward(self.down.forward(fed))
    }

    fn attention(&self, x: Tensor<3>, mask: &Mask, cache: Option<&mut KeyValue>) -> Tensor<3> {
        let all = self.query_key_value.forward(x); // [B, T, 3 C]
        let Some(cache) = cache else {
            return attend_packed(all, self.heads, mask, &self.attention_dropout);
        };
        let [query, key, value] = split(all);
        let [key, value] = cache.append([key, value]);
        attend([query, key, value], self.heads, mask, &self.attention_dropout)
    }
}

/// GPT-2's name for a linear layer whose checkpoint is not transposed.
#[derive(Module, Debug)]
struct Conv1D {
    /// `[input, output]`
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Conv1D {
    fn new(input: usize, output: usize, std: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init([input, output], device),
            bias: Initializer::Zeros.init([output], device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        moments::seen(self.weight.id, &x);
        linear(x, self.weight.val(), Some(self.bias.val()))
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                         field
    ("transformer.wte.",                  "tokens."),
    ("transformer.wpe.",                  "positions."),
    ("transformer.h.{}.ln_1.",            "layers.{}.attention_norm."),
    ("transformer.h.{}.attn.c_attn.",     "layers.{}.query_key_value."),
    ("transformer.h.{}.attn.c_proj.",     "layers.{}.output."),
    ("transformer.h.{}.ln_2.",            "layers.{}.feed_forward_norm."),
    ("transformer.h.{}.mlp.c_fc.",        "layers.{}.up."),
    ("transformer.h.{}.mlp.c_proj.",      "layers.{}.down."),
    ("transformer.ln_f.",                 "norm."),
];

/// Tensors that old checkpoints hold beside the weights: the causal mask, and the tied output layer.
const IGNORED: &[&str] = &["attn.bias", "attn.masked_bias", "lm_head.weight"];

/// Checkpoint name of a field.
pub fn checkpoint_name(field: &str) -> Option<String> {
    rename(NAMES, field)
}

/// `name_of` as a checkpoint has it: the first releases have the bare decoder's names.
fn names_in(
    weights: &Weights,
    name_of: impl Fn(&str) -> Option<String>,
) -> impl Fn(&str) -> Option<String> {
    let bare = !weights.names().any(|name| name.starts_with("transformer."));
    move |field| {
        let name = name_of(field)?;
        Some(if bare { name.trim_start_matches("transformer.").into() } else { name })
    }
}

/// Opens a folder with either head.
pub(super) fn open(source: &Source, device: &Device) -> Result<Box<dyn AnyModel>, LoadError> {
    Ok(match source.config_as(|value| Ok(Gpt2ForSequenceClassification::is_one(value)))? {
        true => Box::new(Gpt2ForSequenceClassification::load(source, device)?),
        false => Box::new(Gpt2LmHead::load(source, device)?),
    })
}

/// `transformers.GPT2LMHeadModel`.
pub struct Gpt2LmHead {
    pub config: Gpt2Config,
    pub model: Gpt2,
}

impl Gpt2LmHead {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(Gpt2Config::from_json)?;
        let weights = source.weights()?;
        let coverage = Coverage { ignored: IGNORED, fresh: &[] };
        let name = names_in(&weights, checkpoint_name);
        let model = tensors::fill(config.init(device), &weights, &coverage, name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for Gpt2LmHead {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        check_length(ids.dims()[1], self.config.n_positions)?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        Ok(vec![("logits", self.model.forward(ids, pad).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, checkpoint_name)
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }
}

impl Decoder for Gpt2LmHead {
    fn begin(
        &self,
        inputs: &Inputs,
        config: &GenerationConfig,
    ) -> Result<(Vec<Vec<i64>>, Cache), InputError> {
        let (rows, padding) = prompt(inputs, self.config.vocab_size)?;
        let capacity = config.longest(rows[0].len(), self.config.n_positions)?;
        Ok((rows, Cache::new(self.config.n_layer, capacity).with_padding(padding)))
    }

    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<2> {
        let [_, t] = ids.dims();
        let device = ids.device();
        let mask = cache.mask(t, &device);
        let words = self.model.tokens.forward(ids);
        let mut x = self.model.place(words, cache.positions(t, &device));
        for (layer, cache) in self.model.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(x, &mask, Some(cache));
        }
        cache.length += t;
        self.model.logits(x.narrow(1, t - 1, 1)).squeeze_dim(1)
    }
}
