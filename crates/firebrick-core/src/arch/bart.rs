//! Post-norm Transformer with an encoder and a decoder. BART and Marian (the OPUS-MT translators) by configuration.
//!
//! Papers: Lewis et al. 2019 (BART), <https://arxiv.org/abs/1910.13461>; Junczys-Dowmunt et al. 2018 (Marian),
//! <https://arxiv.org/abs/1804.00344>.
//! Reference code: `modeling_bart.py` and `modeling_marian.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `S` tokens of the source, `T` tokens of the target, `C` channels (`d_model`), `V` vocabulary.

use std::path::Path;

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
        tensors::{self, Coverage, SaveType},
    },
    generate::{Decoder, GenerationConfig, start_token},
    layers::{
        activation::Activation,
        attention::{AttentionConfig, Mask, MultiHeadAttention},
        cache::{Cache, KeyValue},
        dropout::Dropout,
        embedding::Embedding,
        encoder::{EncoderLayer, EncoderLayerConfig},
        linear::Linear,
        mlp::FeedForward,
        norm::LayerNorm,
        position::sinusoids,
    },
};

/// Which of the families; the name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    /// Learned positions, and a norm before the first layer.
    Bart,
    /// Positions of sines, no such norm.
    Marian,
}

/// Sizes of a [`Bart`]. Field names are those of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BartConfig {
    pub model_type: ModelType,
    /// `V`
    pub vocab_size: usize,
    /// Marian: `V` of the target, where it has a vocabulary of its own.
    #[serde(default)]
    pub decoder_vocab_size: Option<usize>,
    /// Marian: whether source and target have one table of tokens.
    #[serde(default = "yes")]
    pub share_encoder_decoder_embeddings: bool,
    /// Whether the output layer is the target's table.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// `C`: must be divisible by both numbers of heads.
    pub d_model: usize,
    pub encoder_layers: usize,
    pub encoder_attention_heads: usize,
    pub encoder_ffn_dim: usize,
    pub decoder_layers: usize,
    pub decoder_attention_heads: usize,
    pub decoder_ffn_dim: usize,
    /// Longest source, and longest target.
    pub max_position_embeddings: usize,
    #[serde(default = "gelu")]
    pub activation_function: Activation,
    /// Whether tokens are multiplied by `sqrt(C)`.
    #[serde(default)]
    pub scale_embedding: bool,
    #[serde(default = "tenth")]
    pub dropout: f64,
    #[serde(default)]
    pub attention_dropout: f64,
    #[serde(default)]
    pub activation_dropout: f64,
    /// Probability of leaving out a layer in training.
    #[serde(default)]
    pub encoder_layerdrop: f64,
    #[serde(default)]
    pub decoder_layerdrop: f64,
    /// Deviation of fresh weights.
    #[serde(default = "default_std")]
    pub init_std: f64,
    /// What a target begins with.
    #[serde(default)]
    pub decoder_start_token_id: Option<i64>,
}

fn yes() -> bool {
    true
}
fn gelu() -> Activation {
    Activation::Gelu
}
fn tenth() -> f64 {
    0.1
}
fn default_std() -> f64 {
    0.02
}

/// `torch.nn.LayerNorm`'s own: no key of `config.json` sets it.
const NORM_EPS: f64 = 1e-5;

/// Rows of BART's table of positions before that of the first token. They are unused.
const POSITION_OFFSET: usize = 2;

impl BartConfig {
    /// BART-base: 139 M parameters.
    pub fn base() -> Self {
        Self {
            model_type: ModelType::Bart,
            vocab_size: 50_265,
            decoder_vocab_size: None,
            share_encoder_decoder_embeddings: true,
            tie_word_embeddings: true,
            d_model: 768,
            encoder_layers: 6,
            encoder_attention_heads: 12,
            encoder_ffn_dim: 3072,
            decoder_layers: 6,
            decoder_attention_heads: 12,
            decoder_ffn_dim: 3072,
            max_position_embeddings: 1024,
            activation_function: Activation::Gelu,
            scale_embedding: false,
            dropout: 0.1,
            attention_dropout: 0.1,
            activation_dropout: 0.1,
            encoder_layerdrop: 0.0,
            decoder_layerdrop: 0.0,
            init_std: 0.02,
            decoder_start_token_id: Some(2),
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::base`].
    pub fn tiny() -> Self {
        Self {
            vocab_size: 64,
            d_model: 16,
            encoder_layers: 2,
            encoder_attention_heads: 2,
            encoder_ffn_dim: 32,
            decoder_layers: 2,
            decoder_attention_heads: 2,
            decoder_ffn_dim: 32,
            max_position_embeddings: 32,
            ..Self::base()
        }
    }

    /// `config.json`, as `transformers` reads it.
    pub fn to_json(&self) -> Value {
        let mut value = json!(self);
        let bart = self.model_type == ModelType::Bart;
        let architecture = if bart { "BartForConditionalGeneration" } else { "MarianMTModel" };
        value["architectures"] = json!([architecture]);
        value["num_hidden_layers"] = json!(self.encoder_layers);
        value["is_encoder_decoder"] = json!(true);
        value["torch_dtype"] = json!("float32");
        value
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["BartForConditionalGeneration", "MarianMTModel"])?;
        let config: Self = config::parse(value)?;
        let bart = config.model_type == ModelType::Bart;
        // What files of the first releases say of the layout; another one would be another family.
        config::only(
            value,
            &[
                ("normalize_before", json!(false)),
                ("add_final_layer_norm", json!(false)),
                ("normalize_embedding", json!(bart)),
                ("static_position_embeddings", json!(!bart)),
            ],
        )?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        let c = self.d_model;
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("decoder_vocab_size", self.target_vocabulary(), 10_000_000)?;
        config::size("d_model", c, 65_536)?;
        config::size("max_position_embeddings", self.max_position_embeddings, 1_048_576)?;
        for (key, layers) in
            [("encoder_layers", self.encoder_layers), ("decoder_layers", self.decoder_layers)]
        {
            config::size(key, layers, 1_000)?;
        }
        for (key, heads) in [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ] {
            config::size(key, heads, 1_024)?;
            config::divides("d_model", c, key, heads)?;
        }
        config::size("encoder_ffn_dim", self.encoder_ffn_dim, 1_048_576)?;
        config::size("decoder_ffn_dim", self.decoder_ffn_dim, 1_048_576)?;
        for (key, rate) in [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
            ("activation_dropout", self.activation_dropout),
            ("encoder_layerdrop", self.encoder_layerdrop),
            ("decoder_layerdrop", self.decoder_layerdrop),
        ] {
            config::probability(key, rate)?;
        }
        let marian = self.model_type == ModelType::Marian;
        match (self.share_encoder_decoder_embeddings, self.tie_word_embeddings) {
            (true, false) => {
                Err("tie_word_embeddings is false; only true is supported where source \
                                  and target share a table"
                    .into())
            }
            (false, _) if !marian => {
                Err("share_encoder_decoder_embeddings is false; only Marian has two tables".into())
            }
            _ => Ok(()),
        }
    }

    fn target_vocabulary(&self) -> usize {
        match self.share_encoder_decoder_embeddings {
            true => self.vocab_size,
            false => self.decoder_vocab_size.unwrap_or(self.vocab_size),
        }
    }

    pub fn init(&self, device: &Device) -> Bart {
        let (c, std, target) = (self.d_model, self.init_std, self.target_vocabulary());
        Bart {
            tokens: Embedding::new(self.vocab_size, c, std, device),
            target_tokens: (!self.share_encoder_decoder_embeddings)
                .then(|| Embedding::new(target, c, std, device)),
            encoder: Encoder {
                stem: self.stem(device),
                layers: (0..self.encoder_layers).map(|_| self.encoder_layer(device)).collect(),
                layer_dropout: Dropout::new(self.encoder_layerdrop),
            },
            decoder: DecoderStack {
                stem: self.stem(device),
                layers: (0..self.decoder_layers).map(|_| self.decoder_layer(device)).collect(),
                layer_dropout: Dropout::new(self.decoder_layerdrop),
            },
            head: (!self.tie_word_embeddings).then(|| Linear::without_bias(c, target, std, device)),
            logits_bias: Initializer::Zeros.init([1, target], device).set_require_grad(false),
        }
    }

    fn stem(&self, device: &Device) -> Stem {
        let (c, rows) = (self.d_model, self.max_position_embeddings + POSITION_OFFSET);
        let bart = self.model_type == ModelType::Bart;
        Stem {
            positions: bart.then(|| Embedding::new(rows, c, self.init_std, device)),
            norm: bart.then(|| LayerNorm::new(c, NORM_EPS, device)),
            dropout: Dropout::new(self.dropout),
            scale: if self.scale_embedding { (c as f64).sqrt() } else { 1.0 },
        }
    }

    fn encoder_layer(&self, device: &Device) -> EncoderLayer {
        EncoderLayerConfig {
            attention: self.attention(self.encoder_attention_heads),
            intermediate_size: self.encoder_ffn_dim,
            hidden_act: self.activation_function,
            layer_norm_eps: NORM_EPS,
            dropout: self.dropout,
            activation_dropout: self.activation_dropout,
            norm_first: false,
        }
        .init(device)
    }

    fn decoder_layer(&self, device: &Device) -> DecoderLayer {
        DecoderLayer {
            attention: self.attention(self.decoder_attention_heads).init(device),
            attention_norm: LayerNorm::new(self.d_model, NORM_EPS, device),
            source_attention: self.attention(self.decoder_attention_heads).init(device),
            source_attention_norm: LayerNorm::new(self.d_model, NORM_EPS, device),
            feed_forward: self.feed_forward(device),
            feed_forward_norm: LayerNorm::new(self.d_model, NORM_EPS, device),
            dropout: Dropout::new(self.dropout),
        }
    }

    fn attention(&self, heads: usize) -> AttentionConfig {
        AttentionConfig {
            dropout: self.attention_dropout,
            std: self.init_std,
            ..AttentionConfig::new(self.d_model, heads)
        }
    }

    fn feed_forward(&self, device: &Device) -> FeedForward {
        let (c, inner, activation) = (self.d_model, self.decoder_ffn_dim, self.activation_function);
        FeedForward {
            dropout: Dropout::new(self.activation_dropout),
            ..FeedForward::new(c, inner, activation, self.init_std, device)
        }
    }
}

/// Ids of a source and of the target so far in, logits of the target's next token out.
#[derive(Module, Debug)]
pub struct Bart {
    /// Of both sides, or of the source alone.
    tokens: Embedding,
    target_tokens: Option<Embedding>,
    encoder: Encoder,
    decoder: DecoderStack,
    /// Absent where the output layer is the target's table.
    head: Option<Linear>,
    /// `[1, V]`, not trained.
    logits_bias: Param<Tensor<2>>,
}

impl Bart {
    /// What the target's next token may be, at each of its places, as in training:
    ///
    /// - `ids`, `pad`: `[B, S]` of the source, true where padding
    /// - `decoder_ids`: `[B, T]` of the target, its start token first
    /// - returns `[B, T, V]`
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        pad: Option<Tensor<2, Bool>>,
        decoder_ids: Tensor<2, Int>,
    ) -> Tensor<3> {
        let source = self.encode(ids, pad.clone());
        self.decode(decoder_ids, source, pad)
    }

    /// `[B, S]` -> `[B, S, C]`
    pub fn encode(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Tensor<3> {
        self.encoder.forward(self.tokens.forward(ids), &Mask::padding(pad))
    }

    /// `ids`: `[B, T]`, over a `source`, `[B, S, C]` -> logits `[B, T, V]`
    pub fn decode(
        &self,
        ids: Tensor<2, Int>,
        source: Tensor<3>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        self.logits(self.decoder.forward(self.target().forward(ids), source, pad))
    }

    fn target(&self) -> &Embedding {
        self.target_tokens.as_ref().unwrap_or(&self.tokens)
    }

    /// `[B, T, C]` -> `[B, T, V]`
    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.logits_bias.val();
        match &self.head {
            Some(head) => head.forward(x) + bias.unsqueeze(),
            None => self.target().scores(x, Some(bias.squeeze_dim(0))),
        }
    }
}

/// Tokens get their places: what comes before the first layer, on either side.
#[derive(Module, Debug)]
struct Stem {
    /// Learned; absent where they are sines.
    positions: Option<Embedding>,
    norm: Option<LayerNorm>,
    dropout: Dropout,
    #[module(skip)]
    scale: f64,
}

impl Stem {
    /// `tokens`: `[B, T, C]`, the first of them at position `begin` -> `[B, T, C]`
    fn forward(&self, tokens: Tensor<3>, begin: usize) -> Tensor<3> {
        let [_, t, c] = tokens.dims();
        let positions = match &self.positions {
            Some(table) => table.rows(begin + POSITION_OFFSET, t),
            None => sinusoids(begin..begin + t, c, c as f64 / 2.0, &tokens.device()),
        }; // [T, C]
        let x = tokens * self.scale + positions.unsqueeze();
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        self.dropout.forward(x)
    }
}

#[derive(Module, Debug)]
struct Encoder {
    stem: Stem,
    layers: Vec<EncoderLayer>,
    layer_dropout: Dropout,
}

impl Encoder {
    /// `[B, S, C]` -> `[B, S, C]`
    fn forward(&self, tokens: Tensor<3>, mask: &Mask) -> Tensor<3> {
        let device = tokens.device();
        let kept = self.layers.iter().filter(|_| !self.layer_dropout.skips(&device));
        kept.fold(self.stem.forward(tokens, 0), |x, layer| layer.forward(x, mask))
    }
}

#[derive(Module, Debug)]
struct DecoderStack {
    stem: Stem,
    layers: Vec<DecoderLayer>,
    layer_dropout: Dropout,
}

impl DecoderStack {
    /// Reads a whole target: `tokens`: `[B, T, C]`, `source`: `[B, S, C]` -> `[B, T, C]`
    fn forward(
        &self,
        tokens: Tensor<3>,
        source: Tensor<3>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        let device = tokens.device();
        let (mask, source_mask) = (Mask::causal(None), Mask::padding(pad));
        let kept = self.layers.iter().filter(|_| !self.layer_dropout.skips(&device));
        kept.fold(self.stem.forward(tokens, 0), |x, layer| {
            let memory = layer.source_attention.memory(source.clone());
            layer.forward(x, &mask, None, memory, &source_mask)
        })
    }

    /// Reads what follows the tokens in `cache`: `[B, T, C]` -> `[B, T, C]`
    fn next(&self, tokens: Tensor<3>, cache: &mut Cache) -> Tensor<3> {
        let [_, t, _] = tokens.dims();
        let mask = cache.mask(t, &tokens.device());
        let source_mask = Mask::padding(cache.memory_pad.clone());
        let mut x = self.stem.forward(tokens, cache.length);
        for ((layer, own), memory) in self.layers.iter().zip(&mut cache.layers).zip(&cache.memory) {
            x = layer.forward(x, &mask, Some(own), memory.clone(), &source_mask);
        }
        cache.length += t;
        x
    }
}

/// Self-attention, then attention over the source, then feed-forward; each with a residual and a norm after it.
#[derive(Module, Debug)]
struct DecoderLayer {
    attention: MultiHeadAttention,
    attention_norm: LayerNorm,
    source_attention: MultiHeadAttention,
    source_attention_norm: LayerNorm,
    feed_forward: FeedForward,
    feed_forward_norm: LayerNorm,
    dropout: Dropout,
}

impl DecoderLayer {
    /// `x`: `[B, T, C]`; `memory`: keys and values of the source, `[B, S, C]` each -> `[B, T, C]`
    fn forward(
        &self,
        x: Tensor<3>,
        mask: &Mask,
        cache: Option<&mut KeyValue>,
        memory: [Tensor<3>; 2],
        source_mask: &Mask,
    ) -> Tensor<3> {
        let attended = self.attention.cached(x.clone(), mask, cache);
        let x = self.attention_norm.residual(x, attended, &self.dropout);
        let attended = self.source_attention.over(x.clone(), memory, source_mask);
        let x = self.source_attention_norm.residual(x, attended, &self.dropout);
        let fed = self.feed_forward.forward(x.clone());
        self.feed_forward_norm.residual(x, fed, &self.dropout)
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                         field
    ("model.encoder.embed_positions.",                    "encoder.stem.positions."),
    ("model.encoder.layernorm_embedding.",                "encoder.stem.norm."),
    ("model.encoder.layers.{}.self_attn.q_proj.",         "encoder.layers.{}.attention.query."),
    ("model.encoder.layers.{}.self_attn.k_proj.",         "encoder.layers.{}.attention.key."),
    ("model.encoder.layers.{}.self_attn.v_proj.",         "encoder.layers.{}.attention.value."),
    ("model.encoder.layers.{}.self_attn.out_proj.",       "encoder.layers.{}.attention.output."),
    ("model.encoder.layers.{}.self_attn_layer_norm.",     "encoder.layers.{}.attention_norm."),
    ("model.encoder.layers.{}.fc1.",                      "encoder.layers.{}.feed_forward.up."),
    ("model.encoder.layers.{}.fc2.",                      "encoder.layers.{}.feed_forward.down."),
    ("model.encoder.layers.{}.final_layer_norm.",         "encoder.layers.{}.feed_forward_norm."),
    ("model.decoder.embed_positions.",                    "decoder.stem.positions."),
    ("model.decoder.layernorm_embedding.",                "decoder.stem.norm."),
    ("model.decoder.layers.{}.self_attn.q_proj.",         "decoder.layers.{}.attention.query."),
    ("model.decoder.layers.{}.self_attn.k_proj.",         "decoder.layers.{}.attention.key."),
    ("model.decoder.layers.{}.self_attn.v_proj.",         "decoder.layers.{}.attention.value."),
    ("model.decoder.layers.{}.self_attn.out_proj.",       "decoder.layers.{}.attention.output."),
    ("model.decoder.layers.{}.self_attn_layer_norm.",     "decoder.layers.{}.attention_norm."),
    ("model.decoder.layers.{}.encoder_attn.q_proj.",      "decoder.layers.{}.source_attention.query."),
    ("model.decoder.layers.{}.encoder_attn.k_proj.",      "decoder.layers.{}.source_attention.key."),
    ("model.decoder.layers.{}.encoder_attn.v_proj.",      "decoder.layers.{}.source_attention.value."),
    ("model.decoder.layers.{}.encoder_attn.out_proj.",    "decoder.layers.{}.source_attention.output."),
    ("model.decoder.layers.{}.encoder_attn_layer_norm.",  "decoder.layers.{}.source_attention_norm."),
    ("model.decoder.layers.{}.fc1.",                      "decoder.layers.{}.feed_forward.up."),
    ("model.decoder.layers.{}.fc2.",                      "decoder.layers.{}.feed_forward.down."),
    ("model.decoder.layers.{}.final_layer_norm.",         "decoder.layers.{}.feed_forward_norm."),
    ("lm_head.",                                          "head."),
    ("final_logits_bias",                                 "logits_bias"),
];

const ONE_TABLE: Names = &[("model.shared.", "tokens.")];

const TWO_TABLES: Names = &[
    ("model.encoder.embed_tokens.", "tokens."),
    ("model.decoder.embed_tokens.", "target_tokens."),
];

/// Tensors that old checkpoints hold beside the weights: Marian's sines, and version numbers.
const IGNORED: &[&str] = &["embed_positions.weight", "encoder.version", "decoder.version"];

impl BartConfig {
    /// Checkpoint name of a field.
    pub fn checkpoint_name(&self, field: &str) -> Option<String> {
        let tables = if self.share_encoder_decoder_embeddings { ONE_TABLE } else { TWO_TABLES };
        rename(tables, field).or_else(|| rename(NAMES, field))
    }

    /// The field of the target's table, and the names that it may have in a checkpoint: some hold it several times.
    fn tied(&self) -> (&'static str, &'static [&'static str]) {
        const NAMES: &[&str] = &[
            "model.shared.weight",
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
            "lm_head.weight",
        ];
        match (self.share_encoder_decoder_embeddings, self.tie_word_embeddings) {
            (true, _) => ("tokens.weight", NAMES),
            (false, true) => ("target_tokens.weight", &NAMES[2..]),
            (false, false) => ("target_tokens.weight", &NAMES[2..3]),
        }
    }
}

/// `transformers.BartForConditionalGeneration` and `MarianMTModel`.
pub struct BartForConditionalGeneration {
    pub config: BartConfig,
    pub model: Bart,
}

impl BartForConditionalGeneration {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(BartConfig::from_json)?;
        let weights = source.weights()?;
        let (table, names) = config.tied();
        let in_file = weights.one_of(names)?;
        let ignored = [IGNORED, names].concat();
        // Absent where nobody has set it: zeros.
        let coverage = Coverage { ignored: &ignored, fresh: &["logits_bias"] };
        let model = tensors::fill(config.init(device), &weights, &coverage, |field| {
            if field == table { Some(in_file.to_string()) } else { config.checkpoint_name(field) }
        })?;
        Ok(Self { config, model })
    }

    /// The source as the model reads it, and its padding: `[B, S, C]`, `[B, S]`
    fn source(&self, inputs: &Inputs) -> Result<(Tensor<3>, Option<Tensor<2, Bool>>), InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        check_length(ids.dims()[1], self.config.max_position_embeddings)?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        Ok((self.model.encode(ids, pad.clone()), pad))
    }
}

impl AnyModel for BartForConditionalGeneration {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let (source, pad) = self.source(inputs)?;
        let ids = inputs.decoder_ids(source.dims()[0], self.config.target_vocabulary())?;
        check_length(ids.dims()[1], self.config.max_position_embeddings)?;
        let logits = self.model.decode(ids, source.clone(), pad);
        Ok(vec![("logits", logits.into_data()), ("encoder_last_hidden_state", source.into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, |field| self.config.checkpoint_name(field))
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }
}

impl Decoder for BartForConditionalGeneration {
    /// Each target begins with the one start token, whatever `decoder_input_ids` there are.
    fn begin(
        &self,
        inputs: &Inputs,
        config: &GenerationConfig,
    ) -> Result<(Vec<Vec<i64>>, Cache), InputError> {
        let start = self.config.decoder_start_token_id;
        let start = start_token(config, start, self.config.target_vocabulary())?;
        // The last is not read.
        let longest = config.longest(1, self.config.max_position_embeddings + 1)?;
        let (source, pad) = self.source(inputs)?;
        let [rows, _, _] = source.dims();
        let layers = &self.model.decoder.layers;
        let memory = layers.iter().map(|layer| layer.source_attention.memory(source.clone()));
        let cache = Cache::new(layers.len(), longest).with_memory(memory.collect(), pad);
        Ok((vec![vec![start]; rows], cache))
    }

    fn reads_source(&self) -> bool {
        true
    }

    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<2> {
        let [_, t] = ids.dims();
        let x = self.model.decoder.next(self.model.target().forward(ids), cache);
        self.model.logits(x.narrow(1, t - 1, 1)).squeeze_dim(1)
    }
}
