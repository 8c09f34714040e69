//! Llama-style decoder: RMS norms, rotary positions, grouped-query attention and a gated feed-forward block.
//! Llama, Mistral, Qwen2 and Qwen3 by configuration.
//!
//! Papers: Touvron et al. 2023 (Llama), <https://arxiv.org/abs/2302.13971>; Jiang et al. 2023 (Mistral),
//! <https://arxiv.org/abs/2310.06825>; Yang et al. 2024 (Qwen2), <https://arxiv.org/abs/2407.10671>; Yang et al.
//! 2025 (Qwen3), <https://arxiv.org/abs/2505.09388>.
//! Reference code: `modeling_llama.py` and its kin in Hugging Face `transformers`.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` tokens, `C` channels (`hidden_size`), `H` query heads, `G` key and value heads, `D` channels of a
//! head, `V` vocabulary.

mod prune;

use std::path::Path;

use burn::{module::Module, prelude::*};
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
    generate::{Decoder, GenerationConfig, prompt},
    layers::{
        activation::Activation,
        attention::{Heads, Mask, attend},
        cache::{Cache, KeyValue},
        dropout::Dropout,
        embedding::Embedding,
        linear::Linear,
        mlp::GatedFeedForward,
        norm::RmsNorm,
        position::{Rope, RopeScaling, rotate},
    },
};

/// Which of the families; the name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

/// How far a layer sees; the name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    FullAttention,
    SlidingAttention,
}

/// Sizes of a decoder. Field names are those of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    pub model_type: ModelType,
    pub vocab_size: usize,
    /// `C`
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    /// `H`
    pub num_attention_heads: usize,
    /// `G`; `H` when absent.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// `D`; `C / H` when absent.
    #[serde(default)]
    pub head_dim: Option<usize>,
    pub intermediate_size: usize,
    #[serde(default = "silu")]
    pub hidden_act: Activation,
    /// Longest sequence that the model was trained for.
    pub max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    pub rms_norm_eps: f64,
    #[serde(skip, default = "plain_rope")]
    pub rope: RopeScaling,
    /// A token sees only so many back, its own included.
    #[serde(default)]
    pub sliding_window: Option<usize>,
    /// Qwen: whether `sliding_window` counts.
    #[serde(default)]
    pub use_sliding_window: Option<bool>,
    /// Qwen: layers below this one see everything.
    #[serde(default)]
    pub max_window_layers: Option<usize>,
    /// Qwen: of every layer, instead of `max_window_layers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    #[serde(default)]
    pub attention_dropout: f64,
    /// Whether the output layer is the token table.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default = "default_std")]
    pub initializer_range: f64,
}

fn silu() -> Activation {
    Activation::Silu
}
fn default_eps() -> f64 {
    1e-6
}
fn plain_rope() -> RopeScaling {
    RopeScaling::Default { rope_theta: 10_000.0 }
}
fn default_std() -> f64 {
    0.02
}

impl LlamaConfig {
    /// Qwen2.5-0.5B: 494 M parameters.
    pub fn qwen2_half_billion() -> Self {
        Self {
            model_type: ModelType::Qwen2,
            vocab_size: 151_936,
            hidden_size: 896,
            num_hidden_layers: 24,
            num_attention_heads: 14,
            num_key_value_heads: Some(2),
            head_dim: None,
            intermediate_size: 4864,
            hidden_act: Activation::Silu,
            max_position_embeddings: 32_768,
            rms_norm_eps: 1e-6,
            rope: RopeScaling::Default { rope_theta: 1_000_000.0 },
            sliding_window: None,
            use_sliding_window: Some(false),
            max_window_layers: None,
            layer_types: None,
            attention_dropout: 0.0,
            tie_word_embeddings: true,
            initializer_range: 0.02,
        }
    }

    /// Small enough for a unit test on one CPU core.
    pub fn tiny() -> Self {
        Self {
            model_type: ModelType::Llama,
            vocab_size: 64,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 32,
            max_position_embeddings: 64,
            ..Self::qwen2_half_billion()
        }
    }

    /// Reads `config.json` and checks every size.
    pub fn read(source: &Source) -> Result<Self, LoadError> {
        source.config_as(Self::from_json)
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        let heads =
            ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];
        architecture(value, &heads)?;
        config::only(value, &[("attention_bias", json!(false)), ("mlp_bias", json!(false))])?;
        let mut config: Self = config::parse(&with_defaults(value))?;
        config.rope = rope(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("hidden_size", self.hidden_size, 65_536)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 1_000)?;
        config::size("num_attention_heads", self.num_attention_heads, 1_024)?;
        config::size("num_key_value_heads", self.key_value_heads(), 1_024)?;
        config::size("intermediate_size", self.intermediate_size, 1_048_576)?;
        config::size("max_position_embeddings", self.max_position_embeddings, 1 << 26)?;
        let (heads, groups) = (self.num_attention_heads, self.key_value_heads());
        config::divides("num_attention_heads", heads, "num_key_value_heads", groups)?;
        if self.head_dim.is_none() {
            config::divides("hidden_size", self.hidden_size, "num_attention_heads", heads)?;
        }
        config::size("head_dim", self.head_dim(), 65_536)?;
        config::divides("head_dim", self.head_dim(), "2, the channels of a rotation,", 2)?;
        config::size("sliding_window", self.sliding_window.unwrap_or(1), 1 << 26)?;
        if let Some(types) = &self.layer_types
            && types.len() != self.num_hidden_layers
        {
            let (found, layers) = (types.len(), self.num_hidden_layers);
            return Err(format!("layer_types has {found} entries, num_hidden_layers is {layers}"));
        }
        config::probability("attention_dropout", self.attention_dropout)?;
        config::positive("rms_norm_eps", self.rms_norm_eps)
    }

    /// `G`
    pub fn key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// `D`
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// Whether some layer sees less than the whole of the longest sequence.
    pub fn windowed(&self) -> bool {
        let short = |index| self.window(index).is_some_and(|w| w < self.max_position_embeddings);
        (0..self.num_hidden_layers).any(short)
    }

    /// How far back layer `index` sees.
    fn window(&self, index: usize) -> Option<usize> {
        let slides = match self.model_type {
            ModelType::Llama => false,
            ModelType::Mistral => true,
            ModelType::Qwen2 | ModelType::Qwen3 => {
                self.use_sliding_window == Some(true)
                    && match &self.layer_types {
                        Some(types) => types[index] == LayerType::SlidingAttention,
                        None => index >= self.max_window_layers.unwrap_or(28),
                    }
            }
        };
        self.sliding_window.filter(|_| slides)
    }

    pub fn init(&self, device: &Device) -> Llama {
        let (c, std) = (self.hidden_size, self.initializer_range);
        Llama {
            tokens: Embedding::new(self.vocab_size, c, std, device),
            layers: (0..self.num_hidden_layers).map(|index| self.layer(index, device)).collect(),
            norm: RmsNorm::new(c, self.rms_norm_eps, device),
            head: (!self.tie_word_embeddings)
                .then(|| Linear::without_bias(c, self.vocab_size, std, device)),
            rope: Rope::new(self.head_dim(), &self.rope),
        }
    }

    fn layer(&self, index: usize, device: &Device) -> Layer {
        let (c, std) = (self.hidden_size, self.initializer_range);
        let (d, heads, groups) =
            (self.head_dim(), self.num_attention_heads, self.key_value_heads());
        let bias = self.model_type == ModelType::Qwen2;
        let head_norm = || {
            (self.model_type == ModelType::Qwen3)
                .then(|| RmsNorm::new(d, self.rms_norm_eps, device))
        };
        Layer {
            attention_norm: RmsNorm::new(c, self.rms_norm_eps, device),
            query: Linear::with_bias(bias, c, heads * d, std, device),
            key: Linear::with_bias(bias, c, groups * d, std, device),
            value: Linear::with_bias(bias, c, groups * d, std, device),
            query_norm: head_norm(),
            key_norm: head_norm(),
            output: Linear::without_bias(heads * d, c, std, device),
            dropout: Dropout::new(self.attention_dropout),
            feed_forward_norm: RmsNorm::new(c, self.rms_norm_eps, device),
            feed_forward: GatedFeedForward::new(
                c,
                self.intermediate_size,
                self.hidden_act,
                std,
                device,
            ),
            heads: Heads::grouped(heads, groups, d),
            window: self.window(index),
        }
    }
}

/// With what `transformers` takes where a file leaves a key out; `null` is not left out.
fn with_defaults(config: &Value) -> Value {
    let defaults = match config["model_type"].as_str() {
        Some("mistral") => [("num_key_value_heads", 8), ("sliding_window", 4096)].as_slice(),
        Some("qwen2") => &[("num_key_value_heads", 32), ("sliding_window", 4096)],
        Some("qwen3") => {
            &[("num_key_value_heads", 32), ("sliding_window", 4096), ("head_dim", 128)]
        }
        _ => &[],
    };
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut() {
        for (key, value) in defaults {
            fields.entry(*key).or_insert_with(|| (*value).into());
        }
    }
    config
}

/// `rope_parameters`, or `rope_theta` and `rope_scaling` of older files.
fn rope(config: &Value) -> Result<RopeScaling, String> {
    let theta = config.get("rope_theta").filter(|theta| !theta.is_null());
    let table = ["rope_parameters", "rope_scaling"].into_iter().find_map(|key| {
        config.get(key).filter(|table| !table.is_null()).map(|table| (key, table.clone()))
    });
    let (key, mut table) = table.unwrap_or_else(|| ("rope_parameters", json!({})));
    let Some(fields) = table.as_object_mut() else { return Err(format!("{key} is not an object")) };
    if let Some(kind) = fields.remove("type") {
        fields.entry("rope_type").or_insert(kind);
    }
    fields.entry("rope_type").or_insert_with(|| "default".into());
    if let Some(theta) = theta {
        fields.entry("rope_theta").or_insert_with(|| theta.clone());
    }
    let rope = RopeScaling::deserialize(&table).map_err(|e| format!("{key}: {e}"))?;
    match &rope {
        RopeScaling::Default { rope_theta } => config::positive("rope_theta", *rope_theta)?,
        RopeScaling::Linear { rope_theta, factor } => {
            config::positive("rope_theta", *rope_theta)?;
            config::positive("factor", *factor)?;
        }
        RopeScaling::Llama3 { rope_theta, factor, low_freq_factor, high_freq_factor, .. } => {
            config::positive("rope_theta", *rope_theta)?;
            config::positive("factor", *factor)?;
            config::positive("low_freq_factor", *low_freq_factor)?;
            config::positive(
                "high_freq_factor above low_freq_factor",
                high_freq_factor - low_freq_factor,
            )?;
        }
    }
    Ok(rope)
}

/// Token ids in, logits of the next token out.
#[derive(Module, Debug)]
pub struct Llama {
    tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// Absent where the output layer is the token table.
    head: Option<Linear>,
    #[module(skip)]
    rope: Rope,
}

impl Llama {
    /// Reads whole sequences: `ids`, `pad`: `[B, T]`, true where padding -> logits `[B, T, V]`
    pub fn forward(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let [_, t] = ids.dims();
        let angles = self.rope.angles(Tensor::arange(0..t as i64, &ids.device()).unsqueeze());
        let mask = Mask::causal(pad);
        let x = self.tokens.forward(ids); // [B, T, C]
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &angles, &mask, None));
        self.logits(x)
    }

    /// `[B, T, C]` -> `[B, T, V]`
    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.norm.forward(x);
        match &self.head {
            Some(head) => head.forward(x),
            None => self.tokens.scores(x, None),
        }
    }
}

/// Self-attention, then feed-forward; each added to the residual stream, with a norm before it.
#[derive(Module, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Qwen3: over the channels of each head.
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    output: Linear,
    dropout: Dropout,
    feed_forward_norm: RmsNorm,
    feed_forward: GatedFeedForward,
    #[module(skip)]
    heads: Heads,
    #[module(skip)]
    window: Option<usize>,
}

impl Layer {
    /// `[B, T, C]` -> `[B, T, C]`
    fn forward(
        &self,
        x: Tensor<3>,
        angles: &[Tensor<3>; 2],
        mask: &Mask,
        cache: Option<&mut KeyValue>,
    ) -> Tensor<3> {
        let attended = self.attention(self.attention_norm.forward(x.clone()), angles, mask, cache);
        let x = x + self.output.forward(attended);
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(x.clone()));
        x + fed
    }

    fn attention(
        &self,
        x: Tensor<3>,
        angles: &[Tensor<3>; 2],
        mask: &Mask,
        cache: Option<&mut KeyValue>,
    ) -> Tensor<3> {
        let query = by_head(self.query.forward(x.clone()), self.heads.query, &self.query_norm);
        let key = by_head(self.key.forward(x.clone()), self.heads.key_value, &self.key_norm);
        let [query, key] = [query, key].map(|x| rotate(x, angles.clone()));
        let value = self.value.forward(x);
        let [key, value] = match cache {
            Some(cache) => cache.append([key, value]),
            None => [key, value],
        };
        let mask = Mask { window: self.window, ..mask.clone() };
        attend([query, key, value], self.heads, &mask, &self.dropout)
    }
}

/// A norm over the channels of each head: `[B, T, H * D]` -> `[B, T, H * D]`
fn by_head(x: Tensor<3>, heads: usize, norm: &Option<RmsNorm>) -> Tensor<3> {
    let Some(norm) = norm else { return x };
    let [b, t, width] = x.dims();
    norm.forward(x.reshape([b, t, heads, width / heads])).reshape([b, t, width])
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                                    field
    ("model.embed_tokens.",                          "tokens."),
    ("model.layers.{}.input_layernorm.",             "layers.{}.attention_norm."),
    ("model.layers.{}.self_attn.q_proj.",            "layers.{}.query."),
    ("model.layers.{}.self_attn.k_proj.",            "layers.{}.key."),
    ("model.layers.{}.self_attn.v_proj.",            "layers.{}.value."),
    ("model.layers.{}.self_attn.q_norm.",            "layers.{}.query_norm."),
    ("model.layers.{}.self_attn.k_norm.",            "layers.{}.key_norm."),
    ("model.layers.{}.self_attn.o_proj.",            "layers.{}.output."),
    ("model.layers.{}.post_attention_layernorm.",    "layers.{}.feed_forward_norm."),
    ("model.layers.{}.mlp.gate_proj.",               "layers.{}.feed_forward.gate."),
    ("model.layers.{}.mlp.up_proj.",                 "layers.{}.feed_forward.up."),
    ("model.layers.{}.mlp.down_proj.",               "layers.{}.feed_forward.down."),
    ("model.norm.",                                  "norm."),
    ("lm_head.",                                     "head."),
];

/// A table that old checkpoints hold beside the weights.
const IGNORED: &[&str] = &["rotary_emb.inv_freq"];

/// Checkpoint name of a field.
pub fn checkpoint_name(field: &str) -> Option<String> {
    rename(NAMES, field)
}

/// `transformers.LlamaForCausalLM` and its kin.
pub struct LlamaForCausalLm {
    pub config: LlamaConfig,
    pub model: Llama,
}

impl LlamaForCausalLm {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(LlamaConfig::from_json)?;
        // Some checkpoints hold the tied table twice.
        let tied: &[&str] = if config.tie_word_embeddings { &["lm_head.weight"] } else { &[] };
        let ignored = [IGNORED, tied].concat();
        let coverage = Coverage { ignored: &ignored, fresh: &[] };
        let weights = source.weights()?;
        let model =
            tensors::fill(config.init(device), &weights, &coverage, |field| rename(NAMES, field))?;
        Ok(Self { config, model })
    }
}

impl AnyModel for LlamaForCausalLm {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        check_length(ids.dims()[1], self.config.max_position_embeddings)?;
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

impl Decoder for LlamaForCausalLm {
    fn begin(
        &self,
        inputs: &Inputs,
        config: &GenerationConfig,
    ) -> Result<(Vec<Vec<i64>>, Cache), InputError> {
        let (rows, padding) = prompt(inputs, self.config.vocab_size)?;
        let capacity = config.longest(rows[0].len(), self.config.max_position_embeddings)?;
        Ok((rows, Cache::new(self.config.num_hidden_layers, capacity).with_padding(padding)))
    }

    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<2> {
        let [_, t] = ids.dims();
        let device = ids.device();
        let mask = cache.mask(t, &device);
        let angles = self.model.rope.angles(cache.positions(t, &device));
        let mut x = self.model.tokens.forward(ids);
        for (layer, cache) in self.model.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(x, &angles, &mask, Some(cache));
        }
        cache.length += t;
        self.model.logits(x.narrow(1, t - 1, 1)).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How far back each of two layers sees, by a file with these keys among others.
    #[track_caller]
    fn check_windows(keys: Value, expected: [Option<usize>; 2]) {
        let mut config = json!({
            "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
        });
        let fields = config.as_object_mut().unwrap();
        fields.extend(keys.as_object().unwrap().clone());
        let config = LlamaConfig::from_json(&config).unwrap();
        assert_eq!([0, 1].map(|layer| config.window(layer)), expected, "{keys}");
        let written = serde_json::to_value(&config).unwrap();
        let again: LlamaConfig = config::parse(&with_defaults(&written)).unwrap();
        assert_eq!([0, 1].map(|layer| again.window(layer)), expected, "{written}");
    }

    #[test]
    fn layers_see_as_far_as_in_transformers() {
        let kinds = json!(["sliding_attention", "full_attention"]);
        for family in ["qwen2", "qwen3"] {
            let slides =
                json!({"model_type": family, "use_sliding_window": true, "sliding_window": 3});
            let with = |key: &str, value: Value| {
                let mut keys = slides.clone();
                keys[key] = value;
                keys
            };
            check_windows(with("layer_types", kinds.clone()), [Some(3), None]);
            check_windows(with("max_window_layers", json!(1)), [None, Some(3)]);
            check_windows(with("use_sliding_window", json!(false)), [None, None]);
            check_windows(json!({"model_type": family}), [None, None]);
        }
        check_windows(json!({"model_type": "mistral"}), [Some(4096); 2]);
        check_windows(json!({"model_type": "mistral", "sliding_window": null}), [None, None]);
        check_windows(json!({"model_type": "llama", "sliding_window": 3}), [None, None]);
    }
}
