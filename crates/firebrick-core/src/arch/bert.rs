//! BERT-style post-norm Transformer encoder: BERT, RoBERTa and DistilBERT by configuration.
//!
//! Papers: Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>; Liu et al. 2019 (RoBERTa),
//! <https://arxiv.org/abs/1907.11692>; Sanh et al. 2019 (DistilBERT), <https://arxiv.org/abs/1910.01108>.
//! Reference code: `modeling_bert.py`, `modeling_roberta.py` and `modeling_distilbert.py` in Hugging
//! Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` tokens, `C` channels (`hidden_size`), `F` feed-forward channels, `L` labels.

mod masked_lm;
mod pretraining;
mod prune;
pub mod trace;

use std::{collections::BTreeMap, path::Path};

use burn::{module::Module, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs, check_length},
    text::{classes, labels_in_order, numbered},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, Coverage},
    },
    layers::{
        activation::Activation,
        attention::{AttentionConfig, Mask, MultiHeadAttention},
        dropout::Dropout,
        embedding::Embedding,
        linear::Linear,
        norm::LayerNorm,
        recompute::recomputed,
        split::Split,
    },
    parallel::Lost,
};

pub use masked_lm::{BertMaskedLm, load_masked_lm, save_masked_lm};
pub use pretraining::{BertPreTraining, NextSentence, load_pretraining, save_pretraining};

/// Which of the three families; the name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    Bert,
    Roberta,
    Distilbert,
}

/// Sizes of an encoder. Field names are those of BERT's `config.json`, so that file deserialises
/// straight into this struct; DistilBERT's own names are aliases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    pub model_type: ModelType,
    pub vocab_size: usize,
    /// `C`: must be divisible by `num_attention_heads`.
    #[serde(alias = "dim")]
    pub hidden_size: usize,
    #[serde(alias = "n_layers")]
    pub num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    pub num_attention_heads: usize,
    /// `F`: width inside the feed-forward block; usually `4 * hidden_size`.
    #[serde(alias = "hidden_dim")]
    pub intermediate_size: usize,
    #[serde(alias = "activation")]
    pub hidden_act: Activation,
    /// Rows of the position table: the longest sequence (RoBERTa: plus `pad_token_id + 1`).
    pub max_position_embeddings: usize,
    /// Number of segment kinds: 2 for BERT (sentence A, sentence B), 0 for DistilBERT.
    #[serde(default)]
    pub type_vocab_size: usize,
    /// Probability of zeroing an activation; in `[0, 1)`.
    #[serde(alias = "dropout", default = "tenth")]
    pub hidden_dropout_prob: f64,
    #[serde(alias = "attention_dropout", default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the classifier; `hidden_dropout_prob` when absent.
    #[serde(alias = "seq_classif_dropout", default)]
    pub classifier_dropout: Option<f64>,
    /// DistilBERT writes none and uses 1e-12.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Deviation of freshly initialised weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
    /// Deviation of fresh word vectors where it differs; larger than the positions', a small model learns
    /// words before order.
    #[serde(skip)]
    pub embedding_range: Option<f64>,
    #[serde(default)]
    pub pad_token_id: Option<usize>,
    /// Label names by class index, as text: `{"0": "negative", "1": "positive"}`.
    #[serde(default)]
    pub id2label: BTreeMap<String, String>,
}

fn tenth() -> f64 {
    0.1
}
fn default_eps() -> f64 {
    1e-12
}
fn default_std() -> f64 {
    0.02
}

impl BertConfig {
    /// BERT-base: 110 M parameters (Devlin et al. 2018, section 3).
    pub fn base() -> Self {
        Self {
            model_type: ModelType::Bert,
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
            embedding_range: None,
            pad_token_id: Some(0),
            id2label: BTreeMap::new(),
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::base`].
    pub fn tiny() -> Self {
        Self {
            vocab_size: 64,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 32,
            ..Self::base()
        }
    }

    /// Reads `config.json` and checks every size.
    pub fn read(source: &Source) -> Result<Self, LoadError> {
        source.config_as(Self::from_json)
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        config::check_model_type(value, &["bert", "roberta", "distilbert"])?;
        config::only(
            value,
            &[
                ("position_embedding_type", json!("absolute")),
                ("is_decoder", json!(false)),
                ("add_cross_attention", json!(false)),
            ],
        )?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("hidden_size", self.hidden_size, 65_536)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 1_000)?;
        config::size("num_attention_heads", self.num_attention_heads, 1_024)?;
        config::size("intermediate_size", self.intermediate_size, 1_048_576)?;
        config::size("max_position_embeddings", self.max_position_embeddings, 1_048_576)?;
        config::divides(
            "hidden_size",
            self.hidden_size,
            "num_attention_heads",
            self.num_attention_heads,
        )?;
        config::probability("hidden_dropout_prob", self.hidden_dropout_prob)?;
        config::probability("attention_probs_dropout_prob", self.attention_probs_dropout_prob)?;
        config::probability("classifier_dropout", self.classifier_dropout.unwrap_or(0.0))?;
        config::positive("layer_norm_eps", self.layer_norm_eps)?;
        if self.type_vocab_size > 1024 {
            return Err(format!("type_vocab_size is {}, above 1024", self.type_vocab_size));
        }
        if let Some(pad) = self.pad_token_id.filter(|pad| *pad >= self.vocab_size) {
            return Err(format!(
                "pad_token_id is {pad}, outside the vocabulary of {}",
                self.vocab_size
            ));
        }
        if self.longest() == 0 {
            return Err("max_position_embeddings leaves no position for a token".into());
        }
        Ok(())
    }

    /// Label names by class index; empty when `id2label` is absent.
    pub fn labels(&self) -> Vec<String> {
        labels_in_order(&self.id2label)
    }

    pub fn set_labels(&mut self, labels: &[String]) {
        self.id2label = numbered(labels);
    }

    /// Longest sequence that has a position for every token.
    pub fn longest(&self) -> usize {
        match self.model_type {
            ModelType::Roberta => {
                self.max_position_embeddings.saturating_sub(self.pad_token_id.unwrap_or(1) + 1)
            }
            ModelType::Bert | ModelType::Distilbert => self.max_position_embeddings,
        }
    }

    /// What `config.json` holds for a classifier, in the names that `transformers` reads.
    pub fn to_json(&self) -> Value {
        self.json_of("SequenceClassification")
    }

    fn json_of(&self, head: &str) -> Value {
        let label2id: BTreeMap<&str, usize> = self
            .id2label
            .iter()
            .filter_map(|(id, label)| Some((label.as_str(), id.parse().ok()?)))
            .collect();
        let (family, mut value) = match self.model_type {
            ModelType::Bert => ("Bert", json!(self)),
            ModelType::Roberta => ("Roberta", json!(self)),
            ModelType::Distilbert => ("DistilBert", self.distilbert_json()),
        };
        value["architectures"] = json!([format!("{family}For{head}")]);
        value["label2id"] = json!(label2id);
        value["torch_dtype"] = json!("float32");
        value
    }

    fn distilbert_json(&self) -> Value {
        json!({
            "model_type": "distilbert",
            "vocab_size": self.vocab_size,
            "dim": self.hidden_size,
            "n_layers": self.num_hidden_layers,
            "n_heads": self.num_attention_heads,
            "hidden_dim": self.intermediate_size,
            "activation": self.hidden_act,
            "max_position_embeddings": self.max_position_embeddings,
            "dropout": self.hidden_dropout_prob,
            "attention_dropout": self.attention_probs_dropout_prob,
            "seq_classif_dropout": self.classifier_dropout.unwrap_or(self.hidden_dropout_prob),
            "initializer_range": self.initializer_range,
            "pad_token_id": self.pad_token_id,
            "id2label": self.id2label,
        })
    }

    fn encoder(&self, device: &Device) -> Encoder {
        let (c, std) = (self.hidden_size, self.initializer_range);
        Encoder {
            tokens: Embedding::new(self.vocab_size, c, self.embedding_range.unwrap_or(std), device),
            positions: Embedding::new(self.max_position_embeddings, c, std, device),
            segments: (self.type_vocab_size > 0)
                .then(|| Embedding::new(self.type_vocab_size, c, std, device)),
            norm: LayerNorm::new(c, self.layer_norm_eps, device),
            dropout: Dropout::new(self.hidden_dropout_prob),
            layers: (0..self.num_hidden_layers).map(|_| self.layer(device)).collect(),
            padding_index: match self.model_type {
                ModelType::Roberta => Some(self.pad_token_id.unwrap_or(1)),
                ModelType::Bert | ModelType::Distilbert => None,
            },
            recompute: false,
        }
    }

    fn layer(&self, device: &Device) -> Layer {
        let (c, f, std) = (self.hidden_size, self.intermediate_size, self.initializer_range);
        let attention = AttentionConfig {
            dropout: self.attention_probs_dropout_prob,
            std,
            ..AttentionConfig::new(c, self.num_attention_heads)
        };
        Layer {
            attention: attention.init(device),
            attention_norm: LayerNorm::new(c, self.layer_norm_eps, device),
            up: Linear::new(c, f, std, device),
            down: Linear::new(f, c, std, device),
            feed_forward_norm: LayerNorm::new(c, self.layer_norm_eps, device),
            dropout: Dropout::new(self.hidden_dropout_prob),
            activation: self.hidden_act,
            split: Split::default(),
        }
    }

    /// Whether `members` processes can hold the model together.
    pub fn check_split(&self, members: usize) -> Result<(), String> {
        config::divides(
            "num_attention_heads",
            self.num_attention_heads,
            "train.tensor_parallel",
            members,
        )?;
        config::divides(
            "intermediate_size",
            self.intermediate_size,
            "train.tensor_parallel",
            members,
        )
    }

    /// Encoder, and pooler where `pooler` says so, with fresh weights.
    pub fn init(&self, pooler: bool, device: &Device) -> BertModel {
        let (c, std) = (self.hidden_size, self.initializer_range);
        BertModel {
            encoder: self.encoder(device),
            pooler: pooler.then(|| Linear::new(c, c, std, device)),
        }
    }

    /// Encoder and classification head with fresh weights.
    pub fn init_classifier(&self, labels: usize, device: &Device) -> BertClassifier {
        let (c, std) = (self.hidden_size, self.initializer_range);
        BertClassifier {
            encoder: self.encoder(device),
            dense: Linear::new(c, c, std, device),
            classifier: Linear::new(c, labels, std, device),
            dropout: Dropout::new(self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)),
            family: self.model_type,
        }
    }
}

/// Token ids in, one contextual vector per token out.
#[derive(Module, Debug)]
pub struct Encoder {
    tokens: Embedding,
    positions: Embedding,
    segments: Option<Embedding>,
    norm: LayerNorm,
    dropout: Dropout,
    layers: Vec<Layer>,
    /// RoBERTa counts positions from `padding_index + 1`, over tokens that are not padding.
    #[module(skip)]
    padding_index: Option<usize>,
    /// Whether layers run once more in the backward pass, to save memory ([`recomputed`]).
    #[module(skip)]
    pub recompute: bool,
}

impl Encoder {
    /// - `ids`: `[B, T]`, each below `vocab_size`
    /// - `segments`: `[B, T]`, each below `type_vocab_size`; `None` is all zero
    /// - `pad`: `[B, T]`, true where the position is padding; `None` where none is
    /// - returns `[B, T, C]`; rows under padding hold no meaning
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        segments: Option<Tensor<2, Int>>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        self.forward_words(self.words(ids.clone()), ids, segments, pad)
    }

    /// The vectors of the words alone, `[B, T, C]`: what [`Self::forward`] begins with.
    pub fn words(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.tokens.forward(ids)
    }

    /// As [`Self::forward`], with other vectors `words` (`[B, T, C]`) in place of those of the ids.
    pub fn forward_words(
        &self,
        words: Tensor<3>,
        ids: Tensor<2, Int>,
        segments: Option<Tensor<2, Int>>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        let (x, mask) = self.embed(words, ids, segments, pad);
        self.layers.iter().fold(x, |x, layer| match self.recompute {
            true => {
                let mask = mask.clone();
                recomputed(layer, x, move |layer: &Layer, x| layer.forward(x, &mask))
            }
            false => layer.forward(x, &mask),
        })
    }

    /// What the first layer reads, `[B, T, C]`, and which tokens it looks at.
    fn embed(
        &self,
        words: Tensor<3>,
        ids: Tensor<2, Int>,
        segments: Option<Tensor<2, Int>>,
        pad: Option<Tensor<2, Bool>>,
    ) -> (Tensor<3>, Mask) {
        let [_, t] = ids.dims();
        let positions = match self.padding_index {
            None => Tensor::arange(0..t as i64, &ids.device()).unsqueeze(), // [1, T]
            Some(padding) => {
                let used = ids.clone().not_equal_elem(padding as i64).int();
                used.clone().cumsum(1) * used + padding as i64 // [B, T]
            }
        };
        let mut x = words + self.positions.forward(positions); // [B, T, C]
        if let Some(table) = &self.segments {
            // Without segments one row is added to every token: [1, 1, C], no lookup of B * T rows.
            let segments = segments.unwrap_or_else(|| Tensor::zeros([1, 1], &ids.device()));
            x = x + table.forward(segments);
        }
        (self.dropout.forward(self.norm.forward(x)), Mask::padding(pad))
    }
}

/// Self-attention, then feed-forward; each with a residual and a norm after it.
#[derive(Module, Debug)]
struct Layer {
    attention: MultiHeadAttention,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    feed_forward_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    split: Split,
}

impl Layer {
    fn split(self, split: &Split) -> Self {
        Self { attention: self.attention.split(split), split: split.clone(), ..self }
    }

    fn join(self) -> Self {
        Self { attention: self.attention.join(), split: Split::default(), ..self }
    }

    /// `[B, T, C]` -> `[B, T, C]`
    fn forward(&self, x: Tensor<3>, mask: &Mask) -> Tensor<3> {
        let attended = self.attention.forward(x.clone(), mask);
        let x = self.attention_norm.residual(x, attended, &self.dropout);
        let wide = self.up.forward(self.split.enter(x.clone()));
        let wide = self.activation.forward(wide); // [B, T, F]
        let fed = self.down.forward_rows(wide, &self.split); // [B, T, C]
        self.feed_forward_norm.residual(x, fed, &self.dropout)
    }
}

/// The first token's vector, `[B, T, C]` -> `[B, C]`.
fn first_token(x: Tensor<3>) -> Tensor<2> {
    let [b, _, c] = x.dims();
    x.slice([0..b, 0..1, 0..c]).reshape([b, c])
}

/// `transformers.BertModel`: an encoder, and a pooler over the first token.
#[derive(Module, Debug)]
pub struct BertModel {
    pub encoder: Encoder,
    /// Absent in DistilBERT, and where pre-training had no use for it.
    pooler: Option<Linear>,
}

impl BertModel {
    /// `[B, T, C]` -> `[B, C]`, in `(-1, 1)`; `None` without a pooler
    pub fn pool(&self, hidden: Tensor<3>) -> Option<Tensor<2>> {
        let pooler = self.pooler.as_ref()?;
        Some(pooler.forward(first_token(hidden)).tanh())
    }
}

/// An encoder with a classification head over the first token.
#[derive(Module, Debug)]
pub struct BertClassifier {
    pub encoder: Encoder,
    /// BERT's pooler, RoBERTa's `classifier.dense`, DistilBERT's `pre_classifier`.
    dense: Linear,
    classifier: Linear,
    dropout: Dropout,
    #[module(skip)]
    family: ModelType,
}

impl BertClassifier {
    /// This member's part of the model.
    pub fn split(self, split: &Split) -> Self {
        let encoder = self.encoder;
        let layers = encoder.layers.into_iter().map(|layer| layer.split(split)).collect();
        split.cut(Self { encoder: Encoder { layers, ..encoder }, ..self })
    }

    /// The whole model from the members' parts. All of them call it.
    pub fn join(self, split: &Split) -> Result<Self, Lost> {
        let Self { encoder, .. } = split.join(self.clone())?;
        let layers = encoder.layers.into_iter().map(Layer::join).collect();
        Ok(Self { encoder: Encoder { layers, ..encoder }, ..self })
    }

    /// As [`Encoder::forward`]; returns logits `[B, L]`.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        segments: Option<Tensor<2, Int>>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<2> {
        self.classify(self.encoder.forward(ids, segments, pad))
    }

    /// Logits `[B, L]` of what the encoder made of the tokens, `[B, T, C]`.
    pub fn classify(&self, hidden: Tensor<3>) -> Tensor<2> {
        let x = first_token(hidden); // [B, C]
        let x = match self.family {
            ModelType::Bert => self.dense.forward(x).tanh(),
            ModelType::Roberta => self.dense.forward(self.dropout.forward(x)).tanh(),
            ModelType::Distilbert => Activation::Relu.forward(self.dense.forward(x)),
        };
        self.classifier.forward(self.dropout.forward(x)) // [B, L]
    }

    /// With logits divided by `temperature`, which calibrates the probabilities and changes no answer.
    pub fn tempered(self, temperature: f64) -> Self {
        Self { classifier: self.classifier.scaled(1.0 / temperature), ..self }
    }

    /// `L`
    pub fn labels(&self) -> usize {
        self.classifier.width()
    }
}

/// Checkpoint name <-> field path; `{}` is a layer's index. BERT and RoBERTa.
#[rustfmt::skip]
const BERT: Names = &[
    // checkpoint                                     field
    ("embeddings.word_embeddings.",                   "encoder.tokens."),
    ("embeddings.position_embeddings.",               "encoder.positions."),
    ("embeddings.token_type_embeddings.",             "encoder.segments."),
    ("embeddings.LayerNorm.",                         "encoder.norm."),
    ("encoder.layer.{}.attention.self.query.",        "encoder.layers.{}.attention.query."),
    ("encoder.layer.{}.attention.self.key.",          "encoder.layers.{}.attention.key."),
    ("encoder.layer.{}.attention.self.value.",        "encoder.layers.{}.attention.value."),
    ("encoder.layer.{}.attention.output.dense.",      "encoder.layers.{}.attention.output."),
    ("encoder.layer.{}.attention.output.LayerNorm.",  "encoder.layers.{}.attention_norm."),
    ("encoder.layer.{}.intermediate.dense.",          "encoder.layers.{}.up."),
    ("encoder.layer.{}.output.dense.",                "encoder.layers.{}.down."),
    ("encoder.layer.{}.output.LayerNorm.",            "encoder.layers.{}.feed_forward_norm."),
    ("pooler.dense.",                                 "pooler."),
];

#[rustfmt::skip]
const DISTILBERT: Names = &[
    // checkpoint                                     field
    ("embeddings.word_embeddings.",                   "encoder.tokens."),
    ("embeddings.position_embeddings.",               "encoder.positions."),
    ("embeddings.LayerNorm.",                         "encoder.norm."),
    ("transformer.layer.{}.attention.q_lin.",         "encoder.layers.{}.attention.query."),
    ("transformer.layer.{}.attention.k_lin.",         "encoder.layers.{}.attention.key."),
    ("transformer.layer.{}.attention.v_lin.",         "encoder.layers.{}.attention.value."),
    ("transformer.layer.{}.attention.out_lin.",       "encoder.layers.{}.attention.output."),
    ("transformer.layer.{}.sa_layer_norm.",           "encoder.layers.{}.attention_norm."),
    ("transformer.layer.{}.ffn.lin1.",                "encoder.layers.{}.up."),
    ("transformer.layer.{}.ffn.lin2.",                "encoder.layers.{}.down."),
    ("transformer.layer.{}.output_layer_norm.",       "encoder.layers.{}.feed_forward_norm."),
];

/// Names of the classification head, which stand outside the family's prefix.
#[rustfmt::skip]
const HEADS: &[(ModelType, Names)] = &[
    (ModelType::Bert,       &[("bert.pooler.dense.",   "dense."), ("classifier.",          "classifier.")]),
    (ModelType::Roberta,    &[("classifier.dense.",    "dense."), ("classifier.out_proj.", "classifier.")]),
    (ModelType::Distilbert, &[("pre_classifier.",      "dense."), ("classifier.",          "classifier.")]),
];

/// Tensors that an encoder with a classification head does not use: pre-training heads, an index buffer, a pooler where the head
/// has its own.
const IGNORED: &[&str] =
    &["cls.", "lm_head.", "vocab_", "qa_outputs.", "embeddings.position_ids", "pooler."];

impl ModelType {
    fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
            Self::Distilbert => "distilbert.",
        }
    }

    fn names(self) -> Names {
        match self {
            Self::Bert | Self::Roberta => BERT,
            Self::Distilbert => DISTILBERT,
        }
    }

    fn head(self) -> Names {
        HEADS.iter().find(|(family, _)| *family == self).map_or(&[], |(_, names)| names)
    }

    /// Modules of the classification head, for an adapter that is trained beside it.
    pub fn head_modules(self) -> &'static [&'static str] {
        match self {
            Self::Bert => &["classifier", "pooler"],
            Self::Roberta => &["classifier"],
            Self::Distilbert => &["pre_classifier", "classifier"],
        }
    }

    /// Query and value, the layers that Hu et al. 2021 adapt.
    pub fn lora_targets(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::Roberta => &["query", "value"],
            Self::Distilbert => &["q_lin", "v_lin"],
        }
    }

    /// Checkpoint name of a classifier's field.
    pub fn classifier_name(self, field: &str) -> Option<String> {
        rename(self.head(), field)
            .or_else(|| Some(format!("{}{}", self.prefix(), rename(self.names(), field)?)))
    }
}

/// What a loaded classifier comes with.
pub struct LoadedClassifier {
    pub config: BertConfig,
    pub model: BertClassifier,
    /// Whether the head was absent in the checkpoint and is freshly initialised.
    pub new_head: bool,
}

/// Opens a folder with a sequence classifier. Every parameter is filled from it.
pub fn load_classifier(source: &Source, device: &Device) -> Result<LoadedClassifier, LoadError> {
    let config = BertConfig::read(source)?;
    let weights = source.weights()?;
    let head = config.model_type.classifier_name("classifier.bias").expect("the table has it");
    let labels = classes(source, &weights, &head, &config.id2label)?;
    let model = config.init_classifier(labels, device);
    let coverage = Coverage { ignored: IGNORED, fresh: &[] };
    let family = config.model_type;
    let model = tensors::fill(model, &weights, &coverage, |field| family.classifier_name(field))?;
    Ok(LoadedClassifier { config, model, new_head: false })
}

/// Opens any checkpoint of the family to be fine-tuned: a head of `labels` classes on top of its encoder (and of its
/// pooler, where it has one). It is a new one unless the checkpoint is a classifier with just these labels.
pub fn load_pretrained(
    source: &Source,
    labels: &[String],
    device: &Device,
) -> Result<LoadedClassifier, LoadError> {
    let mut config = BertConfig::read(source)?;
    if !labels.is_empty() && config.labels() == labels {
        return load_classifier(source, device);
    }
    let family = config.model_type;
    config.set_labels(labels);
    let weights = source.weights()?;
    // A bare encoder's tensors have no family prefix; one with a head's have.
    let bare = !weights.names().any(|name| name.starts_with(family.prefix()));
    let model = config.init_classifier(labels.len(), device);
    let coverage = Coverage {
        ignored: &[IGNORED, &["classifier."]].concat(),
        fresh: &["dense.", "classifier."],
    };
    let model = tensors::fill(model, &weights, &coverage, |field| {
        if field.starts_with("classifier.") {
            return None; // a new task: its labels are not the checkpoint's
        }
        let name = family.classifier_name(field)?;
        Some(if bare { name.trim_start_matches(family.prefix()).to_string() } else { name })
    })?;
    Ok(LoadedClassifier { config, model, new_head: true })
}

/// Opens `transformers.BertModel`: encoder, and pooler where the file holds one. Of a model with a head it is what stands
/// before the head.
pub fn load_model(source: &Source, device: &Device) -> Result<(BertConfig, BertModel), LoadError> {
    let config = BertConfig::read(source)?;
    let weights = source.weights()?;
    let coverage = Coverage { ignored: &[IGNORED, &["classifier."]].concat(), fresh: &[] };
    let (names, family) = (config.model_type.names(), config.model_type.prefix());
    // A bare encoder's tensors have no family prefix; one with a head's have.
    let headed = weights.names().any(|name| name.starts_with(family));
    let prefix = if headed { family } else { "" };
    let pooler = weights.names().any(|name| name.starts_with(&format!("{prefix}pooler.")));
    let fresh = config.init(pooler, device);
    let model = tensors::fill(fresh, &weights, &coverage, |field| {
        Some(format!("{prefix}{}", rename(names, field)?))
    })?;
    Ok((config, model))
}

/// Writes `model.safetensors` with the names that `transformers` expects.
pub fn save_classifier(
    model: &BertClassifier,
    config: &BertConfig,
    path: &Path,
    dtype: tensors::SaveType,
) -> Result<(), LoadError> {
    let family = config.model_type;
    tensors::save(model, path, dtype, |field| family.classifier_name(field))
}

/// Writes `model.safetensors` of a bare `BertModel`.
pub fn save_model(
    model: &BertModel,
    config: &BertConfig,
    path: &Path,
    dtype: tensors::SaveType,
) -> Result<(), LoadError> {
    let names = config.model_type.names();
    tensors::save(model, path, dtype, |field| rename(names, field))
}

/// Opens a folder with any architecture of the families: a classifier, or a bare encoder.
pub fn open(source: &Source, device: &Device) -> Result<Box<dyn AnyModel>, LoadError> {
    let known = [
        "BertForSequenceClassification",
        "RobertaForSequenceClassification",
        "DistilBertForSequenceClassification",
        "BertModel",
        "RobertaModel",
        "DistilBertModel",
        "BertForMaskedLM",
        "RobertaForMaskedLM",
        "DistilBertForMaskedLM",
        "BertForPreTraining",
    ];
    let name = source.config_as(|config| architecture(config, &known))?;
    if name.ends_with("Model") {
        let (config, model) = load_model(source, device)?;
        return Ok(Box::new(AnyBert { config, head: Head::Encoder(model) }));
    }
    if name.ends_with("MaskedLM") {
        let (config, model) = load_masked_lm(source, device)?;
        return Ok(Box::new(AnyBert { config, head: Head::MaskedLm(model) }));
    }
    if name.ends_with("PreTraining") {
        let (config, model) = load_pretraining(source, device)?;
        return Ok(Box::new(AnyBert { config, head: Head::PreTraining(model) }));
    }
    let LoadedClassifier { config, model, .. } = load_classifier(source, device)?;
    Ok(Box::new(AnyBert { config, head: Head::Classifier(model) }))
}

struct AnyBert {
    config: BertConfig,
    head: Head,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each model that is opened")]
enum Head {
    Classifier(BertClassifier),
    Encoder(BertModel),
    MaskedLm(BertMaskedLm),
    PreTraining(BertPreTraining),
}

impl AnyModel for AnyBert {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        check_length(ids.dims()[1], self.config.longest())?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        let segments = match inputs.has("token_type_ids") && self.config.type_vocab_size > 0 {
            true => Some(inputs.ids("token_type_ids", self.config.type_vocab_size)?),
            false => None,
        };
        if let Some(segments) = segments.as_ref().filter(|s| s.dims() != ids.dims()) {
            let (name, found) = ("token_type_ids".into(), segments.dims().to_vec());
            return Err(InputError::Shape { name, found, expected: format!("{:?}", ids.dims()) });
        }
        Ok(match &self.head {
            Head::Classifier(model) => {
                vec![("logits", model.forward(ids, segments, pad).into_data())]
            }
            Head::MaskedLm(model) => {
                vec![("logits", model.forward(ids, segments, pad).into_data())]
            }
            Head::PreTraining(model) => {
                let hidden = model.words.encoder.forward(ids, segments, pad);
                let relation = model.next.as_ref().map(|next| next.forward(hidden.clone()));
                let words = model.words.logits(hidden).into_data();
                let mut outputs = vec![("prediction_logits", words)];
                outputs.extend(relation.map(|r| ("seq_relationship_logits", r.into_data())));
                outputs
            }
            Head::Encoder(model) => {
                let hidden = model.encoder.forward(ids, segments, pad);
                let pooled = model.pool(hidden.clone());
                let mut outputs = vec![("last_hidden_state", hidden.into_data())];
                outputs.extend(pooled.map(|pooled| ("pooler_output", pooled.into_data())));
                outputs
            }
        })
    }

    fn save(&self, path: &Path, dtype: tensors::SaveType) -> Result<(), LoadError> {
        match &self.head {
            Head::Classifier(model) => save_classifier(model, &self.config, path, dtype),
            Head::Encoder(model) => save_model(model, &self.config, path, dtype),
            Head::MaskedLm(model) => save_masked_lm(model, &self.config, path, dtype),
            Head::PreTraining(model) => save_pretraining(model, &self.config, path, dtype),
        }
    }
}
