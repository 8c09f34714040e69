//! Whisper: speech to text by a pre-norm Transformer with an encoder of sound and a decoder of tokens.
//!
//! Paper: Radford et al. 2022, <https://arxiv.org/abs/2212.04356>.
//! Reference code: `modeling_whisper.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `M` mel bands, `F` frames (10 ms each), `S` places of the source (`F / 2`), `T` tokens of the target,
//! `C` channels (`d_model`), `V` vocabulary.

mod opening;

use std::path::Path;

use burn::{
    module::{Module, Param, ParamId},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use opening::Opening;

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
        conv::{Conv1d, ConvConfig},
        dropout::Dropout,
        embedding::Embedding,
        encoder::{EncoderLayer, EncoderLayerConfig},
        mlp::FeedForward,
        norm::LayerNorm,
        position::sinusoids,
    },
};

/// Sizes of a Whisper. Field names are those of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhisperConfig {
    /// `V`
    pub vocab_size: usize,
    /// `M`
    pub num_mel_bins: usize,
    /// `C`: must be divisible by both numbers of heads, and by 2.
    pub d_model: usize,
    pub encoder_layers: usize,
    pub encoder_attention_heads: usize,
    pub encoder_ffn_dim: usize,
    pub decoder_layers: usize,
    pub decoder_attention_heads: usize,
    pub decoder_ffn_dim: usize,
    /// `S`: a source is always so long, and twice as many frames.
    pub max_source_positions: usize,
    /// Longest target.
    pub max_target_positions: usize,
    #[serde(default = "gelu")]
    pub activation_function: Activation,
    #[serde(default)]
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

fn gelu() -> Activation {
    Activation::Gelu
}
fn default_std() -> f64 {
    0.02
}

/// `torch.nn.LayerNorm`'s own: no key of `config.json` sets it.
const NORM_EPS: f64 = 1e-5;

impl WhisperConfig {
    /// Whisper tiny: 38 M parameters.
    pub fn smallest() -> Self {
        Self {
            vocab_size: 51_865,
            num_mel_bins: 80,
            d_model: 384,
            encoder_layers: 4,
            encoder_attention_heads: 6,
            encoder_ffn_dim: 1536,
            decoder_layers: 4,
            decoder_attention_heads: 6,
            decoder_ffn_dim: 1536,
            max_source_positions: 1500,
            max_target_positions: 448,
            activation_function: Activation::Gelu,
            dropout: 0.0,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            encoder_layerdrop: 0.0,
            decoder_layerdrop: 0.0,
            init_std: 0.02,
            decoder_start_token_id: Some(50_258),
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::smallest`].
    pub fn tiny() -> Self {
        Self {
            vocab_size: 64,
            num_mel_bins: 8,
            d_model: 16,
            encoder_layers: 2,
            encoder_attention_heads: 2,
            encoder_ffn_dim: 32,
            decoder_layers: 2,
            decoder_attention_heads: 2,
            decoder_ffn_dim: 32,
            max_source_positions: 12,
            max_target_positions: 16,
            decoder_start_token_id: Some(1),
            ..Self::smallest()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["WhisperForConditionalGeneration"])?;
        config::only(value, &[("tie_word_embeddings", json!(true))])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        for (key, size, limit) in [
            ("vocab_size", self.vocab_size, 10_000_000),
            ("num_mel_bins", self.num_mel_bins, 65_536),
            ("d_model", self.d_model, 65_536),
            ("encoder_layers", self.encoder_layers, 1_000),
            ("encoder_attention_heads", self.encoder_attention_heads, 1_024),
            ("encoder_ffn_dim", self.encoder_ffn_dim, 1_048_576),
            ("decoder_layers", self.decoder_layers, 1_000),
            ("decoder_attention_heads", self.decoder_attention_heads, 1_024),
            ("decoder_ffn_dim", self.decoder_ffn_dim, 1_048_576),
            ("max_source_positions", self.max_source_positions, 1_048_576),
            ("max_target_positions", self.max_target_positions, 1_048_576),
        ] {
            config::size(key, size, limit)?;
        }
        for (key, part) in [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
            ("2, sine and cosine,", 2),
        ] {
            config::divides("d_model", self.d_model, key, part)?;
        }
        for (key, rate) in [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
            ("activation_dropout", self.activation_dropout),
            ("encoder_layerdrop", self.encoder_layerdrop),
            ("decoder_layerdrop", self.decoder_layerdrop),
        ] {
            config::probability(key, rate)?;
        }
        Ok(())
    }

    pub fn init(&self, device: &Device) -> Whisper {
        let (c, std) = (self.d_model, self.init_std);
        let conv = |channels, stride| ConvConfig {
            stride: [stride],
            padding: [(1, 1)],
            std,
            ..ConvConfig::new(channels, c, [3])
        };
        Whisper {
            encoder: Encoder {
                first_conv: conv(self.num_mel_bins, 1).init(device),
                second_conv: conv(c, 2).init(device),
                positions: self.source_positions(device),
                dropout: Dropout::new(self.dropout),
                layers: (0..self.encoder_layers).map(|_| self.encoder_layer(device)).collect(),
                layer_dropout: Dropout::new(self.encoder_layerdrop),
                norm: LayerNorm::new(c, NORM_EPS, device),
            },
            decoder: DecoderStack {
                tokens: Embedding::new(self.vocab_size, c, std, device),
                positions: Embedding::new(self.max_target_positions, c, std, device),
                dropout: Dropout::new(self.dropout),
                layers: (0..self.decoder_layers).map(|_| self.decoder_layer(device)).collect(),
                layer_dropout: Dropout::new(self.decoder_layerdrop),
                norm: LayerNorm::new(c, NORM_EPS, device),
            },
        }
    }

    /// Sines at first; checkpoints hold them, and no training changes them.
    fn source_positions(&self, device: &Device) -> Embedding {
        let (rows, c) = (self.max_source_positions, self.d_model);
        let steps = (c as f64 / 2.0 - 1.0).max(1.0);
        let table = move |device: &Device, _| sinusoids(0..rows, c, steps, device);
        let shape = [rows, c].into();
        Embedding {
            weight: Param::uninitialized(ParamId::new(), table, device.clone(), false, shape),
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
            norm_first: true,
        }
        .init(device)
    }

    fn decoder_layer(&self, device: &Device) -> DecoderLayer {
        DecoderLayer {
            attention_norm: LayerNorm::new(self.d_model, NORM_EPS, device),
            attention: self.attention(self.decoder_attention_heads).init(device),
            source_attention_norm: LayerNorm::new(self.d_model, NORM_EPS, device),
            source_attention: self.attention(self.decoder_attention_heads).init(device),
            feed_forward_norm: LayerNorm::new(self.d_model, NORM_EPS, device),
            feed_forward: self.feed_forward(device),
            dropout: Dropout::new(self.dropout),
        }
    }

    fn attention(&self, heads: usize) -> AttentionConfig {
        AttentionConfig {
            key_bias: false,
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

/// The mel spectrum of a sound and the text so far in, logits of the text's next token out.
#[derive(Module, Debug)]
pub struct Whisper {
    encoder: Encoder,
    decoder: DecoderStack,
}

impl Whisper {
    /// What the next token may be, at each place of the text, as in training:
    ///
    /// - `features`: `[B, M, F]`
    /// - `decoder_ids`: `[B, T]` of the text, its start tokens first
    /// - returns `[B, T, V]`
    pub fn forward(&self, features: Tensor<3>, decoder_ids: Tensor<2, Int>) -> Tensor<3> {
        self.decode(decoder_ids, self.encode(features))
    }

    /// `[B, M, F]` -> `[B, S, C]`
    pub fn encode(&self, features: Tensor<3>) -> Tensor<3> {
        self.encoder.forward(features)
    }

    /// `ids`: `[B, T]`, over a `source`, `[B, S, C]` -> logits `[B, T, V]`
    pub fn decode(&self, ids: Tensor<2, Int>, source: Tensor<3>) -> Tensor<3> {
        self.logits(self.decoder.forward(ids, source))
    }

    /// The output layer is the token table: `[B, T, C]` -> `[B, T, V]`
    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        self.decoder.tokens.scores(x, None)
    }
}

#[derive(Module, Debug)]
struct Encoder {
    first_conv: Conv1d,
    second_conv: Conv1d,
    positions: Embedding,
    dropout: Dropout,
    layers: Vec<EncoderLayer>,
    layer_dropout: Dropout,
    norm: LayerNorm,
}

impl Encoder {
    /// `[B, M, F]` -> `[B, S, C]`
    fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let device = features.device();
        let x = Activation::Gelu.forward(self.first_conv.forward(features)); // [B, C, F]
        let x = Activation::Gelu.forward(self.second_conv.forward(x)); // [B, C, S]
        let x = x.swap_dims(1, 2); // [B, S, C]
        let positions = self.positions.rows(0, x.dims()[1]);
        let x = x + positions.unsqueeze();
        let mask = Mask::default();
        let kept = self.layers.iter().filter(|_| !self.layer_dropout.skips(&device));
        let x = kept.fold(self.dropout.forward(x), |x, layer| layer.forward(x, &mask));
        self.norm.forward(x)
    }
}

#[derive(Module, Debug)]
struct DecoderStack {
    tokens: Embedding,
    positions: Embedding,
    dropout: Dropout,
    layers: Vec<DecoderLayer>,
    layer_dropout: Dropout,
    norm: LayerNorm,
}

impl DecoderStack {
    /// Reads a whole text: `ids`: `[B, T]`, `source`: `[B, S, C]` -> `[B, T, C]`
    fn forward(&self, ids: Tensor<2, Int>, source: Tensor<3>) -> Tensor<3> {
        let device = ids.device();
        let mask = Mask::causal(None);
        let kept = self.layers.iter().filter(|_| !self.layer_dropout.skips(&device));
        let x = kept.fold(self.embed(ids, 0), |x, layer| {
            let memory = layer.source_attention.memory(source.clone());
            layer.forward(x, &mask, None, memory)
        });
        self.norm.forward(x)
    }

    /// Reads what follows the tokens in `cache`: `[B, T]` -> `[B, T, C]`
    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let [_, t] = ids.dims();
        let mask = cache.mask(t, &ids.device());
        let mut x = self.embed(ids, cache.length);
        for ((layer, own), memory) in self.layers.iter().zip(&mut cache.layers).zip(&cache.memory) {
            x = layer.forward(x, &mask, Some(own), memory.clone());
        }
        cache.length += t;
        self.norm.forward(x)
    }

    /// `[B, T]`, the first of them at position `begin` -> `[B, T, C]`
    fn embed(&self, ids: Tensor<2, Int>, begin: usize) -> Tensor<3> {
        let [_, t] = ids.dims();
        let positions = self.positions.rows(begin, t); // [T, C]
        self.dropout.forward(self.tokens.forward(ids) + positions.unsqueeze())
    }
}

/// Self-attention, then attention over the source, then feed-forward; each added to the residual stream, with a norm
/// before it.
#[derive(Module, Debug)]
struct DecoderLayer {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    source_attention_norm: LayerNorm,
    source_attention: MultiHeadAttention,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
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
    ) -> Tensor<3> {
        let attended = self.attention.cached(self.attention_norm.forward(x.clone()), mask, cache);
        let x = x + self.dropout.forward(attended);
        let query = self.source_attention_norm.forward(x.clone());
        let attended = self.source_attention.over(query, memory, &Mask::default());
        let x = x + self.dropout.forward(attended);
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(x.clone()));
        x + self.dropout.forward(fed)
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                         field
    ("model.encoder.conv1.",                              "encoder.first_conv."),
    ("model.encoder.conv2.",                              "encoder.second_conv."),
    ("model.encoder.embed_positions.",                    "encoder.positions."),
    ("model.encoder.layers.{}.self_attn_layer_norm.",     "encoder.layers.{}.attention_norm."),
    ("model.encoder.layers.{}.self_attn.q_proj.",         "encoder.layers.{}.attention.query."),
    ("model.encoder.layers.{}.self_attn.k_proj.",         "encoder.layers.{}.attention.key."),
    ("model.encoder.layers.{}.self_attn.v_proj.",         "encoder.layers.{}.attention.value."),
    ("model.encoder.layers.{}.self_attn.out_proj.",       "encoder.layers.{}.attention.output."),
    ("model.encoder.layers.{}.final_layer_norm.",         "encoder.layers.{}.feed_forward_norm."),
    ("model.encoder.layers.{}.fc1.",                      "encoder.layers.{}.feed_forward.up."),
    ("model.encoder.layers.{}.fc2.",                      "encoder.layers.{}.feed_forward.down."),
    ("model.encoder.layer_norm.",                         "encoder.norm."),
    ("model.decoder.embed_tokens.",                       "decoder.tokens."),
    ("model.decoder.embed_positions.",                    "decoder.positions."),
    ("model.decoder.layers.{}.self_attn_layer_norm.",     "decoder.layers.{}.attention_norm."),
    ("model.decoder.layers.{}.self_attn.q_proj.",         "decoder.layers.{}.attention.query."),
    ("model.decoder.layers.{}.self_attn.k_proj.",         "decoder.layers.{}.attention.key."),
    ("model.decoder.layers.{}.self_attn.v_proj.",         "decoder.layers.{}.attention.value."),
    ("model.decoder.layers.{}.self_attn.out_proj.",       "decoder.layers.{}.attention.output."),
    ("model.decoder.layers.{}.encoder_attn_layer_norm.",  "decoder.layers.{}.source_attention_norm."),
    ("model.decoder.layers.{}.encoder_attn.q_proj.",      "decoder.layers.{}.source_attention.query."),
    ("model.decoder.layers.{}.encoder_attn.k_proj.",      "decoder.layers.{}.source_attention.key."),
    ("model.decoder.layers.{}.encoder_attn.v_proj.",      "decoder.layers.{}.source_attention.value."),
    ("model.decoder.layers.{}.encoder_attn.out_proj.",    "decoder.layers.{}.source_attention.output."),
    ("model.decoder.layers.{}.final_layer_norm.",         "decoder.layers.{}.feed_forward_norm."),
    ("model.decoder.layers.{}.fc1.",                      "decoder.layers.{}.feed_forward.up."),
    ("model.decoder.layers.{}.fc2.",                      "decoder.layers.{}.feed_forward.down."),
    ("model.decoder.layer_norm.",                         "decoder.norm."),
];

/// Names of the token table: some checkpoints hold it twice.
const TOKENS: &[&str] = &["model.decoder.embed_tokens.weight", "proj_out.weight"];

/// `transformers.WhisperForConditionalGeneration`.
pub struct WhisperForConditionalGeneration {
    pub config: WhisperConfig,
    pub model: Whisper,
    opening: Opening,
}

impl WhisperForConditionalGeneration {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(WhisperConfig::from_json)?;
        let weights = source.weights()?;
        let tokens = weights.one_of(TOKENS)?;
        let coverage = Coverage { ignored: TOKENS, fresh: &[] };
        let model = tensors::fill(config.init(device), &weights, &coverage, |field| match field {
            "decoder.tokens.weight" => Some(tokens.to_string()),
            field => rename(NAMES, field),
        })?;
        Ok(Self { config, model, opening: Opening::read(source)? })
    }

    /// The state of a text over the sound `features`, `[B, M, F]`, before its first token. A clone of it begins another
    /// text over the same sound. Half of `F` places may be fewer than `max_source_positions`: that is faster, and the model
    /// has not learned it.
    pub fn listen(&self, features: Tensor<3>) -> Cache {
        self.over(self.model.encode(features), self.config.max_target_positions)
    }

    fn over(&self, source: Tensor<3>, longest: usize) -> Cache {
        let layers = &self.model.decoder.layers;
        let memory = layers.iter().map(|layer| layer.source_attention.memory(source.clone()));
        Cache::new(layers.len(), longest).with_memory(memory.collect(), None)
    }

    /// What each text over `source`, `[B, S, C]`, begins with.
    fn openings(&self, start: i64, source: &Tensor<3>) -> Result<Vec<Vec<i64>>, InputError> {
        let refused = |problem: String| {
            InputError::Unsupported(format!(
                "generation_config.json: {problem}: give what the texts begin with as `decoder_input_ids`"
            ))
        };
        if self.opening.return_timestamps {
            return Err(refused("return_timestamps is true, which is not supported".into()));
        }
        let [rows, _, _] = source.dims();
        let heard: Vec<Option<i64>> = match self.opening.listens() {
            true => self.hear(start, source).into_iter().map(Some).collect(),
            false => vec![None; rows],
        };
        let openings = heard.into_iter().map(|heard| {
            let tokens = self.opening.tokens(start, heard).map_err(refused)?;
            let vocabulary = self.config.vocab_size as i64;
            match tokens.iter().find(|token| !(0..vocabulary).contains(*token)) {
                None => Ok(tokens),
                Some(token) => Err(refused(format!("token {token} is outside 0..{vocabulary}"))),
            }
        });
        openings.collect()
    }

    /// The likeliest language of each row, by its token.
    fn hear(&self, start: i64, source: &Tensor<3>) -> Vec<i64> {
        let [rows, _, _] = source.dims();
        let start = Tensor::full([rows, 1], start, &source.device());
        let logits = self.next(start, &mut self.over(source.clone(), 1)); // [B, V]
        let logits = logits.into_data().try_into_vec::<f32>().expect("models compute in f32");
        let row = |scores: &[f32]| {
            let score = |token: &i64| scores.get(*token as usize).copied().unwrap_or(f32::MIN);
            let best = self.opening.languages().max_by(|a, b| score(a).total_cmp(&score(b)));
            best.expect("it listens for one of them")
        };
        logits.chunks(self.config.vocab_size).map(row).collect()
    }

    /// The sound as the model hears it, `[B, S, C]`.
    fn source(&self, inputs: &Inputs) -> Result<Tensor<3>, InputError> {
        let (bands, frames) = (self.config.num_mel_bins, 2 * self.config.max_source_positions);
        let features = inputs.floats("input_features", [None, Some(bands), Some(frames)])?;
        Ok(self.model.encode(features))
    }
}

impl AnyModel for WhisperForConditionalGeneration {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let source = self.source(inputs)?;
        let ids = inputs.decoder_ids(source.dims()[0], self.config.vocab_size)?;
        check_length(ids.dims()[1], self.config.max_target_positions)?;
        let logits = self.model.decode(ids, source.clone());
        Ok(vec![("logits", logits.into_data()), ("encoder_last_hidden_state", source.into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, |field| rename(NAMES, field))
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }
}

impl Decoder for WhisperForConditionalGeneration {
    /// `decoder_input_ids`, where there are any, are what each text begins with: the tokens that name the language
    /// and the task, or the text of the sound before. Else the folder says it.
    fn begin(
        &self,
        inputs: &Inputs,
        config: &GenerationConfig,
    ) -> Result<(Vec<Vec<i64>>, Cache), InputError> {
        let source = self.source(inputs)?;
        let [rows, _, _] = source.dims();
        let prompt = match inputs.has("decoder_input_ids") {
            true => {
                let ids = inputs.decoder_ids(rows, self.config.vocab_size)?;
                let [_, t] = ids.dims();
                let flat: Vec<i64> = ids.into_data().iter::<i64>().collect();
                flat.chunks(t).map(<[i64]>::to_vec).collect()
            }
            false => {
                let start = self.config.decoder_start_token_id;
                let start = start_token(config, start, self.config.vocab_size)?;
                self.openings(start, &source)?
            }
        };
        // The last is not read.
        let longest = config.longest(prompt[0].len(), self.config.max_target_positions + 1)?;
        Ok((prompt, self.over(source, longest)))
    }

    fn reads_source(&self) -> bool {
        true
    }

    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<2> {
        let [_, t] = ids.dims();
        let x = self.model.decoder.next(ids, cache);
        self.model.logits(x.narrow(1, t - 1, 1)).squeeze_dim(1)
    }
}
