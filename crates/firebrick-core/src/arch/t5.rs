//! T5: a pre-norm Transformer with an encoder and a decoder, whose positions are scores added to the attention.
//! T5 1.1 and Flan-T5 by configuration.
//!
//! Paper: Raffel et al. 2019, <https://arxiv.org/abs/1910.10683>.
//! Reference code: `modeling_t5.py` in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `S` tokens of the source, `T` tokens of the target, `C` channels (`d_model`), `H` heads, `D` channels of a
//! head (`d_kv`), `V` vocabulary.

use std::{ops::Range, path::Path};

use burn::{module::Module, prelude::*, tensor::TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        json::quoted,
        names::{Names, rename},
        tensors::{self, Coverage, SaveType},
    },
    generate::{Decoder, GenerationConfig, start_token},
    layers::{
        activation::Activation,
        attention::{Heads, Mask, MultiHeadAttention},
        cache::{Cache, KeyValue},
        dropout::Dropout,
        embedding::Embedding,
        linear::Linear,
        mlp::{FeedForward, GatedFeedForward},
        norm::RmsNorm,
        split::Split,
    },
};

/// Sizes of a T5. Field names are those of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// `V`
    pub vocab_size: usize,
    /// `C`
    pub d_model: usize,
    /// `D`; `H * D` need not be `C`.
    pub d_kv: usize,
    /// Width inside the feed-forward block.
    pub d_ff: usize,
    pub num_layers: usize,
    /// `num_layers` when absent.
    #[serde(default)]
    pub num_decoder_layers: Option<usize>,
    /// `H`
    pub num_heads: usize,
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: usize,
    #[serde(default = "default_distance")]
    pub relative_attention_max_distance: usize,
    #[serde(default = "tenth")]
    pub dropout_rate: f64,
    #[serde(default = "default_eps")]
    pub layer_norm_epsilon: f64,
    /// Deviation of fresh weights, relative to that of the paper's code.
    #[serde(default = "one")]
    pub initializer_factor: f64,
    /// An activation's name, after `gated-` where it multiplies a second projection.
    #[serde(default = "relu")]
    pub feed_forward_proj: String,
    /// `false` in T5 1.1: its output layer is not the token table.
    #[serde(default)]
    pub tie_word_embeddings: Option<bool>,
    /// Whether the last hidden state is multiplied by `C^-0.5`; as `tie_word_embeddings` when absent.
    #[serde(default)]
    pub scale_decoder_outputs: Option<bool>,
    /// What a target begins with.
    #[serde(default)]
    pub decoder_start_token_id: Option<i64>,
}

fn default_buckets() -> usize {
    32
}
fn default_distance() -> usize {
    128
}
fn tenth() -> f64 {
    0.1
}
fn default_eps() -> f64 {
    1e-6
}
fn one() -> f64 {
    1.0
}
fn relu() -> String {
    "relu".into()
}

impl T5Config {
    /// T5-small: 61 M parameters.
    pub fn small() -> Self {
        Self {
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: relu(),
            tie_word_embeddings: Some(true),
            scale_decoder_outputs: None,
            decoder_start_token_id: Some(0),
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::small`].
    pub fn tiny() -> Self {
        Self {
            vocab_size: 64,
            d_model: 16,
            d_kv: 8,
            d_ff: 32,
            num_layers: 2,
            num_heads: 2,
            ..Self::small()
        }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["T5ForConditionalGeneration"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        // Newer files say in two more keys what `feed_forward_proj` says.
        let (activation, gated) = config.feed_forward_kind()?;
        config::only(value, &[("is_gated_act", json!(gated))])?;
        match value.get("dense_act_fn").filter(|name| !name.is_null()) {
            Some(name) if Activation::deserialize(name).ok() != Some(activation) => {
                let proj = quoted(&config.feed_forward_proj);
                Err(format!("dense_act_fn is {name}, but feed_forward_proj is {proj}"))
            }
            _ => Ok(config),
        }
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("d_model", self.d_model, 65_536)?;
        config::size("d_kv", self.d_kv, 65_536)?;
        config::size("d_ff", self.d_ff, 1_048_576)?;
        config::size("num_layers", self.num_layers, 1_000)?;
        config::size("num_decoder_layers", self.decoder_layers(), 1_000)?;
        config::size("num_heads", self.num_heads, 1_024)?;
        let (buckets, distance) =
            (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        config::size("relative_attention_num_buckets", buckets, 65_536)?;
        config::size("relative_attention_max_distance", distance, 1 << 26)?;
        // Two directions, in each of them near places and far ones; far ones begin after the near.
        if buckets < 4 || distance <= buckets / 2 {
            return Err(format!(
                "relative_attention_num_buckets {buckets} with relative_attention_max_distance {distance}: at least 4 \
                 are needed, and a distance above half of them"
            ));
        }
        config::probability("dropout_rate", self.dropout_rate)?;
        config::positive("layer_norm_epsilon", self.layer_norm_epsilon)?;
        self.feed_forward_kind().map(|_| ())
    }

    fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// The activation, and whether it is a gate.
    fn feed_forward_kind(&self) -> Result<(Activation, bool), String> {
        let name = self.feed_forward_proj.strip_prefix("gated-");
        match name {
            // So the released files mean it.
            Some("gelu") => Ok((Activation::GeluNew, true)),
            _ => Activation::deserialize(json!(name.unwrap_or(&self.feed_forward_proj)))
                .map(|activation| (activation, name.is_some()))
                .map_err(|error| format!("feed_forward_proj: {error}")),
        }
    }

    /// `scale` of [`T5`].
    fn output_scale(&self) -> f64 {
        let scaled = self.scale_decoder_outputs.or(self.tie_word_embeddings).unwrap_or(true);
        if scaled { (self.d_model as f64).powf(-0.5) } else { 1.0 }
    }

    /// With an output layer of its own if `own_head`. The configuration must pass [`Self::check`].
    pub fn init(&self, own_head: bool, device: &Device) -> T5 {
        let (c, v) = (self.d_model, self.vocab_size);
        let std = self.initializer_factor;
        T5 {
            tokens: Embedding::new(v, c, std, device),
            encoder: Encoder {
                bias: self.bias(true, device),
                layers: (0..self.num_layers)
                    .map(|_| EncoderLayer {
                        attention: self.attention(device),
                        attention_norm: self.norm(device),
                        feed_forward: self.feed_forward(device),
                        feed_forward_norm: self.norm(device),
                        dropout: Dropout::new(self.dropout_rate),
                    })
                    .collect(),
                norm: self.norm(device),
                dropout: Dropout::new(self.dropout_rate),
            },
            decoder: DecoderStack {
                bias: self.bias(false, device),
                layers: (0..self.decoder_layers())
                    .map(|_| DecoderLayer {
                        attention: self.attention(device),
                        attention_norm: self.norm(device),
                        source_attention: self.attention(device),
                        source_attention_norm: self.norm(device),
                        feed_forward: self.feed_forward(device),
                        feed_forward_norm: self.norm(device),
                        dropout: Dropout::new(self.dropout_rate),
                    })
                    .collect(),
                norm: self.norm(device),
                dropout: Dropout::new(self.dropout_rate),
            },
            head: own_head.then(|| Linear::without_bias(c, v, std, device)),
            scale: self.output_scale(),
        }
    }

    /// Deviation of the fresh weights of a sum over `inputs`.
    fn std(&self, inputs: usize) -> f64 {
        self.initializer_factor * (inputs as f64).powf(-0.5)
    }

    fn norm(&self, device: &Device) -> RmsNorm {
        RmsNorm::new(self.d_model, self.layer_norm_epsilon, device)
    }

    fn bias(&self, both_ways: bool, device: &Device) -> PositionBias {
        let (rows, heads) = (self.relative_attention_num_buckets, self.num_heads);
        PositionBias {
            table: Embedding::new(rows, heads, self.std(self.d_model), device),
            buckets: Buckets { rows, both_ways, far: self.relative_attention_max_distance },
        }
    }

    fn attention(&self, device: &Device) -> MultiHeadAttention {
        let (c, d, heads) = (self.d_model, self.d_kv, self.num_heads);
        let into = |std| Linear::without_bias(c, heads * d, std, device);
        MultiHeadAttention {
            // The usual division of scores by sqrt(D) is in the queries' weights from the start.
            query: into(self.std(c * d)),
            key: into(self.std(c)),
            value: into(self.std(c)),
            output: Linear::without_bias(heads * d, c, self.std(heads * d), device),
            dropout: Dropout::new(self.dropout_rate),
            heads: Heads { scale: 1.0, ..Heads::new(heads, d) },
            split: Split::default(),
        }
    }

    fn feed_forward(&self, device: &Device) -> Inner {
        let (c, inner) = (self.d_model, self.d_ff);
        let up = || Linear::without_bias(c, inner, self.std(c), device);
        let down = Linear::without_bias(inner, c, self.std(inner), device);
        let dropout = Dropout::new(self.dropout_rate);
        let (activation, gated) = self.feed_forward_kind().expect("`check` has tried it");
        match gated {
            true => {
                Inner::Gated(GatedFeedForward { gate: up(), up: up(), down, dropout, activation })
            }
            false => Inner::Plain(FeedForward { up: up(), down, dropout, activation }),
        }
    }
}

/// Ids of a source and of the target so far in, logits of the target's next token out.
#[derive(Module, Debug)]
pub struct T5 {
    tokens: Embedding,
    encoder: Encoder,
    decoder: DecoderStack,
    /// Absent where the output layer is the token table.
    head: Option<Linear>,
    /// Of the last hidden state.
    #[module(skip)]
    scale: f64,
}

impl T5 {
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
        self.encoder.forward(self.tokens.forward(ids), pad)
    }

    /// `ids`: `[B, T]`, over a `source`, `[B, S, C]` -> logits `[B, T, V]`
    pub fn decode(
        &self,
        ids: Tensor<2, Int>,
        source: Tensor<3>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        self.logits(self.decoder.forward(self.tokens.forward(ids), source, pad))
    }

    /// `[B, T, C]` -> `[B, T, V]`
    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x * self.scale;
        match &self.head {
            Some(head) => head.forward(x),
            None => self.tokens.scores(x, None),
        }
    }
}

/// A score for every distance between query and key, one a head: the same in all layers of a stack.
#[derive(Module, Debug)]
struct PositionBias {
    /// `[buckets, H]`
    table: Embedding,
    #[module(skip)]
    buckets: Buckets,
}

impl PositionBias {
    /// For queries at these positions and as many keys, from the first on: `[1, H, Tq, Tk]`
    fn forward(&self, queries: Range<usize>, keys: usize) -> Tensor<4> {
        let device = self.table.device();
        let tq = queries.len();
        let buckets = queries.flat_map(|query| {
            (0..keys).map(move |key| self.buckets.of(key as i64 - query as i64) as i32)
        });
        let buckets = TensorData::new(buckets.collect::<Vec<_>>(), [tq, keys]);
        let scores = self.table.forward(Tensor::from_data(buckets, &device)); // [Tq, Tk, H]
        scores.permute([2, 0, 1]).unsqueeze()
    }
}

/// Which distances have a score of their own, and which share one.
#[derive(Debug, Clone, Copy)]
struct Buckets {
    rows: usize,
    /// Half of the rows are for keys after the query; else those count as at the query.
    both_ways: bool,
    /// From here on, all distances share the last row.
    far: usize,
}

impl Buckets {
    /// Row for a key so many positions after the query.
    fn of(self, after: i64) -> usize {
        let (rows, begin, distance) = match self.both_ways {
            true if after > 0 => (self.rows / 2, self.rows / 2, after as usize),
            true => (self.rows / 2, 0, after.unsigned_abs() as usize),
            false => (self.rows, 0, (-after).max(0) as usize),
        };
        // One row each for the nearest; from there to `far` rows that grow with the logarithm.
        let near = rows / 2;
        if distance < near {
            return begin + distance;
        }
        // In single precision, as the reference does: the borders depend on it.
        let growth = (distance as f32 / near as f32).ln()
            / (self.far as f64 / near as f64).ln() as f32
            * (rows - near) as f32;
        begin + (near + growth as usize).min(rows - 1)
    }
}

#[derive(Module, Debug)]
struct Encoder {
    bias: PositionBias,
    layers: Vec<EncoderLayer>,
    norm: RmsNorm,
    dropout: Dropout,
}

impl Encoder {
    /// `tokens`: `[B, S, C]`, `pad`: `[B, S]` -> `[B, S, C]`
    fn forward(&self, tokens: Tensor<3>, pad: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let [_, s, _] = tokens.dims();
        let mask = Mask { bias: Some(self.bias.forward(0..s, s)), ..Mask::padding(pad) };
        let x = self.dropout.forward(tokens);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
        self.dropout.forward(self.norm.forward(x))
    }
}

/// Self-attention, then feed-forward; each added to the residual stream, with a norm before it.
#[derive(Module, Debug)]
struct EncoderLayer {
    attention: MultiHeadAttention,
    attention_norm: RmsNorm,
    feed_forward: Inner,
    feed_forward_norm: RmsNorm,
    dropout: Dropout,
}

impl EncoderLayer {
    /// `[B, S, C]` -> `[B, S, C]`
    fn forward(&self, x: Tensor<3>, mask: &Mask) -> Tensor<3> {
        let attended = self.attention.forward(self.attention_norm.forward(x.clone()), mask);
        let x = x + self.dropout.forward(attended);
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(x.clone()));
        x + self.dropout.forward(fed)
    }
}

#[derive(Module, Debug)]
struct DecoderStack {
    bias: PositionBias,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    dropout: Dropout,
}

impl DecoderStack {
    /// Reads a whole target: `tokens`: `[B, T, C]`, `source`: `[B, S, C]` -> `[B, T, C]`
    fn forward(
        &self,
        tokens: Tensor<3>,
        source: Tensor<3>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        let [_, t, _] = tokens.dims();
        let mask = Mask { bias: Some(self.bias.forward(0..t, t)), ..Mask::causal(None) };
        let source_mask = Mask::padding(pad);
        let x = self.dropout.forward(tokens);
        let x = self.layers.iter().fold(x, |x, layer| {
            let memory = layer.source_attention.memory(source.clone());
            layer.forward(x, &mask, None, memory, &source_mask)
        });
        self.dropout.forward(self.norm.forward(x))
    }

    /// Reads what follows the tokens in `cache`: `[B, T, C]` -> `[B, T, C]`
    fn next(&self, tokens: Tensor<3>, cache: &mut Cache) -> Tensor<3> {
        let [_, t, _] = tokens.dims();
        let (begin, end) = (cache.length, cache.length + t);
        let bias = Some(self.bias.forward(begin..end, end));
        let mask = Mask { bias, ..cache.mask(t, &tokens.device()) };
        let source_mask = Mask::padding(cache.memory_pad.clone());
        let mut x = tokens;
        for ((layer, own), memory) in self.layers.iter().zip(&mut cache.layers).zip(&cache.memory) {
            x = layer.forward(x, &mask, Some(own), memory.clone(), &source_mask);
        }
        cache.length = end;
        self.norm.forward(x)
    }
}

/// Self-attention, then attention over the source, then feed-forward; each added to the residual stream, with a norm
/// before it.
#[derive(Module, Debug)]
struct DecoderLayer {
    attention: MultiHeadAttention,
    attention_norm: RmsNorm,
    source_attention: MultiHeadAttention,
    source_attention_norm: RmsNorm,
    feed_forward: Inner,
    feed_forward_norm: RmsNorm,
    dropout: Dropout,
}

impl DecoderLayer {
    /// `x`: `[B, T, C]`; `memory`: keys and values of the source, `[B, S, H * D]` each -> `[B, T, C]`
    fn forward(
        &self,
        x: Tensor<3>,
        mask: &Mask,
        cache: Option<&mut KeyValue>,
        memory: [Tensor<3>; 2],
        source_mask: &Mask,
    ) -> Tensor<3> {
        let attended = self.attention.cached(self.attention_norm.forward(x.clone()), mask, cache);
        let x = x + self.dropout.forward(attended);
        let query = self.source_attention_norm.forward(x.clone());
        let attended = self.source_attention.over(query, memory, source_mask);
        let x = x + self.dropout.forward(attended);
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(x.clone()));
        x + self.dropout.forward(fed)
    }
}

/// The feed-forward block: that of T5, or that of T5 1.1.
#[derive(Module, Debug)]
enum Inner {
    Plain(FeedForward),
    Gated(GatedFeedForward),
}

impl Inner {
    /// `[B, T, C]` -> `[B, T, C]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Plain(block) => block.forward(x),
            Self::Gated(block) => block.forward(x),
        }
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                                     field
    ("shared.",                                                       "tokens."),
    ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.", "encoder.bias.table."),
    ("encoder.block.{}.layer.0.SelfAttention.q.",                     "encoder.layers.{}.attention.query."),
    ("encoder.block.{}.layer.0.SelfAttention.k.",                     "encoder.layers.{}.attention.key."),
    ("encoder.block.{}.layer.0.SelfAttention.v.",                     "encoder.layers.{}.attention.value."),
    ("encoder.block.{}.layer.0.SelfAttention.o.",                     "encoder.layers.{}.attention.output."),
    ("encoder.block.{}.layer.0.layer_norm.",                          "encoder.layers.{}.attention_norm."),
    ("encoder.block.{}.layer.1.DenseReluDense.wi.",                   "encoder.layers.{}.feed_forward.Plain.up."),
    ("encoder.block.{}.layer.1.DenseReluDense.wo.",                   "encoder.layers.{}.feed_forward.Plain.down."),
    ("encoder.block.{}.layer.1.DenseReluDense.wi_0.",                 "encoder.layers.{}.feed_forward.Gated.gate."),
    ("encoder.block.{}.layer.1.DenseReluDense.wi_1.",                 "encoder.layers.{}.feed_forward.Gated.up."),
    ("encoder.block.{}.layer.1.DenseReluDense.wo.",                   "encoder.layers.{}.feed_forward.Gated.down."),
    ("encoder.block.{}.layer.1.layer_norm.",                          "encoder.layers.{}.feed_forward_norm."),
    ("encoder.final_layer_norm.",                                     "encoder.norm."),
    ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.", "decoder.bias.table."),
    ("decoder.block.{}.layer.0.SelfAttention.q.",                     "decoder.layers.{}.attention.query."),
    ("decoder.block.{}.layer.0.SelfAttention.k.",                     "decoder.layers.{}.attention.key."),
    ("decoder.block.{}.layer.0.SelfAttention.v.",                     "decoder.layers.{}.attention.value."),
    ("decoder.block.{}.layer.0.SelfAttention.o.",                     "decoder.layers.{}.attention.output."),
    ("decoder.block.{}.layer.0.layer_norm.",                          "decoder.layers.{}.attention_norm."),
    ("decoder.block.{}.layer.1.EncDecAttention.q.",                   "decoder.layers.{}.source_attention.query."),
    ("decoder.block.{}.layer.1.EncDecAttention.k.",                   "decoder.layers.{}.source_attention.key."),
    ("decoder.block.{}.layer.1.EncDecAttention.v.",                   "decoder.layers.{}.source_attention.value."),
    ("decoder.block.{}.layer.1.EncDecAttention.o.",                   "decoder.layers.{}.source_attention.output."),
    ("decoder.block.{}.layer.1.layer_norm.",                          "decoder.layers.{}.source_attention_norm."),
    ("decoder.block.{}.layer.2.DenseReluDense.wi.",                   "decoder.layers.{}.feed_forward.Plain.up."),
    ("decoder.block.{}.layer.2.DenseReluDense.wo.",                   "decoder.layers.{}.feed_forward.Plain.down."),
    ("decoder.block.{}.layer.2.DenseReluDense.wi_0.",                 "decoder.layers.{}.feed_forward.Gated.gate."),
    ("decoder.block.{}.layer.2.DenseReluDense.wi_1.",                 "decoder.layers.{}.feed_forward.Gated.up."),
    ("decoder.block.{}.layer.2.DenseReluDense.wo.",                   "decoder.layers.{}.feed_forward.Gated.down."),
    ("decoder.block.{}.layer.2.layer_norm.",                          "decoder.layers.{}.feed_forward_norm."),
    ("decoder.final_layer_norm.",                                     "decoder.norm."),
    ("lm_head.",                                                      "head."),
];

/// Names of the token table: some checkpoints hold it several times.
const TOKENS: &[&str] =
    &["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// A table that the first releases hold and nothing reads.
const IGNORED: &[&str] = &["layer.1.EncDecAttention.relative_attention_bias.weight"];

/// `transformers.T5ForConditionalGeneration`.
pub struct T5ForConditionalGeneration {
    pub config: T5Config,
    pub model: T5,
}

impl T5ForConditionalGeneration {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(T5Config::from_json)?;
        let weights = source.weights()?;
        let tokens = weights.one_of(TOKENS)?;
        // The file decides, as in the reference: some say "tied" beside an output layer of another content.
        let own_head = weights.shape("lm_head.weight").is_some()
            && (config.tie_word_embeddings == Some(false)
                || !weights.equal(tokens, "lm_head.weight")?);
        let ignored = [IGNORED, TOKENS, &["lm_head.weight"]].concat();
        let model = tensors::fill(
            config.init(own_head, device),
            &weights,
            &Coverage { ignored: &ignored, fresh: &[] },
            |field| match field {
                "tokens.weight" => Some(tokens.to_string()),
                field => rename(NAMES, field),
            },
        )?;
        Ok(Self { config, model })
    }

    /// The source as the model reads it, and its padding: `[B, S, C]`, `[B, S]`
    fn source(&self, inputs: &Inputs) -> Result<(Tensor<3>, Option<Tensor<2, Bool>>), InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        Ok((self.model.encode(ids, pad.clone()), pad))
    }
}

impl AnyModel for T5ForConditionalGeneration {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let (source, pad) = self.source(inputs)?;
        let ids = inputs.decoder_ids(source.dims()[0], self.config.vocab_size)?;
        let logits = self.model.decode(ids, source.clone(), pad);
        Ok(vec![("logits", logits.into_data()), ("encoder_last_hidden_state", source.into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, |field| rename(NAMES, field))
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }
}

impl Decoder for T5ForConditionalGeneration {
    /// Each target begins with the one start token, whatever `decoder_input_ids` there are.
    fn begin(
        &self,
        inputs: &Inputs,
        config: &GenerationConfig,
    ) -> Result<(Vec<Vec<i64>>, Cache), InputError> {
        let start = self.config.decoder_start_token_id;
        let start = start_token(config, start, self.config.vocab_size)?;
        let (source, pad) = self.source(inputs)?;
        let [rows, _, _] = source.dims();
        let layers = &self.model.decoder.layers;
        let memory = layers.iter().map(|layer| layer.source_attention.memory(source.clone()));
        let cache = Cache::new(layers.len(), config.longest(1, usize::MAX)?);
        Ok((vec![vec![start]; rows], cache.with_memory(memory.collect(), pad)))
    }

    fn reads_source(&self) -> bool {
        true
    }

    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<2> {
        let [_, t] = ids.dims();
        let x = self.model.decoder.next(self.model.tokens.forward(ids), cache);
        self.model.logits(x.narrow(1, t - 1, 1)).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected rows are those of `T5Attention._relative_position_bucket` in `transformers`.
    #[track_caller]
    fn check(buckets: Buckets, after: &[i64], expected: &[usize]) {
        let found: Vec<usize> = after.iter().map(|after| buckets.of(*after)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn far_positions_share_a_score() {
        let source = Buckets { rows: 32, both_ways: true, far: 128 };
        check(
            source,
            &[0, -1, -7, -8, -11, -12, 1, 7, 8, 200],
            &[0, 1, 7, 8, 8, 9, 17, 23, 24, 31],
        );
        let target = Buckets { rows: 32, both_ways: false, far: 128 };
        check(target, &[3, 0, -15, -16, -18, -19, -127, -500], &[0, 0, 15, 16, 16, 17, 31, 31]);
    }
}
