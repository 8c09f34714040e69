//! Writing text token by token, over one trait.
//!
//! Names, defaults and results are those of `transformers.generate` where it is deterministic.

mod beam;
mod logits;
mod sample;

use std::ops::ControlFlow;

use burn::{prelude::*, tensor::TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    arch::inputs::{InputError, Inputs, check_length},
    checkpoint::{LoadError, Source, config, json::shown},
    layers::cache::Cache,
};

/// A model that says what may come next.
pub trait Decoder {
    /// The tokens to begin with, all rows equally long, and the state before the first of them, for as many tokens
    /// as [`GenerationConfig::longest`] allows. A model with an encoder reads its source here.
    fn begin(
        &self,
        inputs: &Inputs,
        config: &GenerationConfig,
    ) -> Result<(Vec<Vec<i64>>, Cache), InputError>;

    /// Whether `input_ids` are a source for an encoder, not the beginning of what is written.
    fn reads_source(&self) -> bool {
        false
    }

    /// Reads `ids`, `[B, T]`; returns the logits after the last of each row, `[B, V]`.
    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<2>;
}

/// How to write: `generation_config.json`. Field names and meanings are those of `transformers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    pub max_new_tokens: Option<usize>,
    /// Prompt and new tokens together; `max_new_tokens` goes before it.
    pub max_length: Option<usize>,
    #[serde(deserialize_with = "or_default")]
    pub min_length: usize,
    #[serde(deserialize_with = "or_default")]
    pub min_new_tokens: usize,
    /// 1: the best token each time, or a sampled one; more: beam search.
    #[serde(deserialize_with = "or_one")]
    pub num_beams: usize,
    #[serde(deserialize_with = "or_default")]
    pub early_stopping: EarlyStopping,
    /// A beam's score is divided by its length to this power: above 0 longer ones win.
    #[serde(deserialize_with = "or_one")]
    pub length_penalty: f32,
    /// Draw tokens by their probability.
    #[serde(deserialize_with = "or_default")]
    pub do_sample: bool,
    #[serde(deserialize_with = "or_one")]
    pub temperature: f32,
    /// Draw among the so many likeliest; 0 or none: among all. A file that does not say means `TOP_K`.
    pub top_k: Option<usize>,
    /// Draw among the likeliest that together have this probability.
    pub top_p: Option<f32>,
    /// Draw among those with at least this share of the likeliest one's probability.
    pub min_p: Option<f32>,
    /// Above 1: tokens that were there before become less likely (Keskar et al. 2019).
    pub repetition_penalty: Option<f32>,
    pub no_repeat_ngram_size: Option<usize>,
    pub bad_words_ids: Option<Vec<Vec<i64>>>,
    pub suppress_tokens: Option<Vec<i64>>,
    pub begin_suppress_tokens: Option<Vec<i64>>,
    /// Whether the probabilities of what is still allowed are made to sum to one: beams' scores depend on it.
    #[serde(deserialize_with = "or_default")]
    pub renormalize_logits: bool,
    pub bos_token_id: Option<i64>,
    pub eos_token_id: Option<TokenIds>,
    pub pad_token_id: Option<i64>,
    pub decoder_start_token_id: Option<i64>,
    pub forced_bos_token_id: Option<i64>,
    pub forced_eos_token_id: Option<TokenIds>,
    /// Texts that end a row. Only who has the tokenizer can see them: [`generate`] does not.
    pub stop_strings: Option<Texts>,
    /// Whether to refuse where the model has no room for `max_new_tokens`, and not write fewer; not a key of
    /// `transformers`.
    #[serde(skip)]
    pub exact: bool,
    /// Of the random numbers; not a key of `transformers`.
    #[serde(skip)]
    pub seed: u64,
    /// Tokens without which no row ends before its longest; not a key of `transformers`.
    #[serde(skip)]
    pub required: Vec<i64>,
    /// Tokens that a row has once at most; not a key of `transformers`.
    #[serde(skip)]
    pub once: Vec<i64>,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: None,
            max_length: None,
            min_length: 0,
            min_new_tokens: 0,
            num_beams: 1,
            early_stopping: EarlyStopping::Heuristic(false),
            length_penalty: 1.0,
            do_sample: false,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            no_repeat_ngram_size: None,
            bad_words_ids: None,
            suppress_tokens: None,
            begin_suppress_tokens: None,
            renormalize_logits: false,
            bos_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
            decoder_start_token_id: None,
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            stop_strings: None,
            exact: false,
            seed: 0,
            required: vec![],
            once: vec![],
        }
    }
}

/// When a beam search ends before the length limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EarlyStopping {
    /// `true`: as soon as there are enough finished beams. `false`: when the best open one, at its present length,
    /// is worse than the worst finished one.
    Heuristic(bool),
    /// `"never"`: only when no open beam can become better.
    Word(Never),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Never {
    Never,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self::Heuristic(false)
    }
}

/// One id or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    One(i64),
    Many(Vec<i64>),
}

impl TokenIds {
    pub fn as_slice(&self) -> &[i64] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// One text or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    One(String),
    Many(Vec<String>),
}

/// `null` stands for the default in many files.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn or_one<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + From<u8>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(|| T::from(1)))
}

impl GenerationConfig {
    /// `generation_config.json`; without one, the token ids of `config.json`, as in older checkpoints.
    pub fn read(source: &Source) -> Result<Self, LoadError> {
        let model = source.config()?;
        let (path, value) = match source.json("generation_config.json")? {
            Some(value) => (source.path("generation_config.json"), value),
            None => (source.path("config.json"), model.clone()),
        };
        Self::parse(&value, &model).map_err(|problem| LoadError::Config { path, problem })
    }

    /// `value`: the file; `model`: `config.json` of its model.
    fn parse(value: &Value, model: &Value) -> Result<Self, String> {
        let mut config = Self::deserialize(value).map_err(|error| error.to_string())?;
        config.top_k = config.top_k.or(Some(TOP_K));
        without_effect(value, model["model_type"] == "whisper")?;
        config.check_values()?;
        let sizes = ["decoder_vocab_size", "vocab_size"].map(|key| model[key].as_i64());
        if let Some(vocabulary) = sizes.into_iter().flatten().next() {
            config.check_tokens(vocabulary)?;
        }
        Ok(config)
    }

    /// `generation_config.json`; what is not set is not there.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("plain data");
        if let Some(table) = value.as_object_mut() {
            table.retain(|_, value| !value.is_null());
        }
        value
    }

    pub fn check(&self) -> Result<(), String> {
        if self.do_sample && self.num_beams > 1 {
            return Err(format!(
                "do_sample with num_beams {} is not supported: add `--greedy`, or `--num-beams 1`",
                self.num_beams
            ));
        }
        self.check_values()
    }

    /// [`Self::check`], each key by itself.
    fn check_values(&self) -> Result<(), String> {
        config::size("num_beams", self.num_beams, 256)?;
        if !self.length_penalty.is_finite() {
            return Err(format!("length_penalty is {}, not a finite number", self.length_penalty));
        }
        // Files of models that never draw have any.
        if self.do_sample && !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(format!("temperature is {}, not above 0", self.temperature));
        }
        for (key, p) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if let Some(p) = p.filter(|p| !(0.0..=1.0).contains(p)) {
                return Err(format!("{key} is {p}, not in [0, 1]"));
            }
        }
        if let Some(penalty) = self.repetition_penalty.filter(|p| !(*p > 0.0 && p.is_finite())) {
            return Err(format!("repetition_penalty is {penalty}, not above 0"));
        }
        Ok(())
    }

    /// What is written, and what ends a row, must be tokens of the model: padding is read again.
    fn check_tokens(&self, vocabulary: i64) -> Result<(), String> {
        let forced_ends = self.forced_eos_token_id.as_ref().map_or(&[][..], TokenIds::as_slice);
        let keys = [
            ("pad_token_id", self.pad_token_id.as_slice()),
            ("eos_token_id", self.ends()),
            ("decoder_start_token_id", self.decoder_start_token_id.as_slice()),
            ("forced_bos_token_id", self.forced_bos_token_id.as_slice()),
            ("forced_eos_token_id", forced_ends),
        ];
        for (key, ids) in keys {
            if let Some(id) = ids.iter().find(|id| !(0..vocabulary).contains(id)) {
                return Err(format!("{key} is {id}, outside the model's 0..{vocabulary}"));
            }
        }
        Ok(())
    }

    /// Tokens of a row at most, the `read` ones of its prompt included, in a model that reads `positions` of them.
    pub fn longest(&self, read: usize, positions: usize) -> Result<usize, InputError> {
        let wanted = match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => read.saturating_add(new),
            (None, Some(longest)) => longest.max(read),
            (None, None) => read.saturating_add(NEW_TOKENS),
        };
        // A prompt that leaves room for nothing is too long.
        let longest = if self.exact { wanted } else { wanted.min(positions.max(read + 1)) };
        check_length(longest, positions)?;
        Ok(longest)
    }

    /// Tokens that end a row.
    pub fn ends(&self) -> &[i64] {
        self.eos_token_id.as_ref().map_or(&[], TokenIds::as_slice)
    }

    /// Texts that end a row.
    pub fn stop_strings(&self) -> &[String] {
        match &self.stop_strings {
            None => &[],
            Some(Texts::One(text)) => std::slice::from_ref(text),
            Some(Texts::Many(texts)) => texts,
        }
    }
}

/// Options of `transformers` that change what is written and are not built: each must have no effect.
fn without_effect(config: &Value, whisper: bool) -> Result<(), String> {
    let options = [
        ("constraints", Value::Null),
        ("diversity_penalty", json!(0)),
        ("dola_layers", Value::Null),
        ("encoder_no_repeat_ngram_size", json!(0)),
        ("encoder_repetition_penalty", json!(1)),
        ("epsilon_cutoff", json!(0)),
        ("eta_cutoff", json!(0)),
        ("exponential_decay_length_penalty", Value::Null),
        ("force_words_ids", Value::Null),
        ("forced_decoder_ids", Value::Null),
        ("guidance_scale", json!(1)),
        ("max_time", Value::Null),
        ("num_beam_groups", json!(1)),
        ("num_return_sequences", json!(1)),
        ("penalty_alpha", json!(0)),
        ("sequence_bias", Value::Null),
        ("token_healing", json!(false)),
        ("top_h", Value::Null),
        ("typical_p", json!(1)),
        ("watermarking_config", Value::Null),
    ];
    for (key, neutral) in options {
        let found = &config[key];
        let number = found.is_f64() && found.as_f64() == neutral.as_f64();
        let same = number || *found == neutral || *found == json!([]);
        // Whisper begins its texts with them.
        let read = whisper && key == "forced_decoder_ids";
        if !(found.is_null() || same || read) {
            return Err(format!("{key} is {}, which is not supported", shown(found)));
        }
    }
    Ok(())
}

/// Tokens that a model may write when neither side says how many.
const NEW_TOKENS: usize = 256;

/// `top_k` where a file does not say: the default of `transformers`.
const TOP_K: usize = 50;

/// Writes until every row has ended. Rows hold their prompt; those that ended early are padded.
///
/// `watch` sees each token as it is written, row by row, but for those that end a row, and may end the row itself;
/// beam search, which writes no token for good before its end, does not call it.
pub fn generate(
    decoder: &dyn Decoder,
    inputs: &Inputs,
    config: &GenerationConfig,
    watch: &mut dyn FnMut(usize, i64) -> ControlFlow<()>,
) -> Result<Vec<Vec<i64>>, InputError> {
    config.check().map_err(InputError::Unsupported)?;
    let (prompt, cache) = decoder.begin(inputs, config)?;
    let read = prompt.first().map_or(0, Vec::len);
    let longest = cache.capacity;
    if read == 0 || longest == read {
        return Ok(prompt);
    }
    let padding = cache.padding.clone();
    let job = Job { decoder, config, device: &inputs.device, read, longest, padding };
    Ok(match config.num_beams {
        1 => sample::run(&job, prompt, cache, watch),
        _ => beam::run(&job, prompt, cache),
    })
}

/// What both searches are given.
struct Job<'a> {
    decoder: &'a dyn Decoder,
    config: &'a GenerationConfig,
    device: &'a Device,
    /// Tokens of a prompt.
    read: usize,
    /// Tokens of a row at most, its prompt included.
    longest: usize,
    /// Of each prompt, on its left; empty when there is none.
    padding: Vec<usize>,
}

impl Job<'_> {
    /// Logits after the last token of each row, `[B, V]`; only the last `count` tokens of a row are new.
    fn next(&self, rows: &[&[i64]], count: usize, cache: &mut Cache) -> Tensor<2> {
        let new = rows.iter().flat_map(|row| &row[row.len() - count..]);
        let new: Vec<i32> = new.map(|id| *id as i32).collect();
        let ids = Tensor::from_data(TensorData::new(new, [rows.len(), count]), self.device);
        self.decoder.next(ids, cache)
    }
}

/// Row after row.
fn numbers(scores: Tensor<2>) -> Vec<f32> {
    scores.into_data().try_into_vec().expect("models compute in f32")
}

/// `input_ids` and, on their left, the padding that `attention_mask` hides: rows, and padding of each.
pub fn prompt(
    inputs: &Inputs,
    vocabulary: usize,
) -> Result<(Vec<Vec<i64>>, Vec<usize>), InputError> {
    let ids = inputs.ids("input_ids", vocabulary)?;
    let [b, t] = ids.dims();
    let flat: Vec<i64> = ids.into_data().iter::<i64>().collect();
    let rows = flat.chunks(t).map(<[i64]>::to_vec).collect();
    let hidden = inputs.hidden("attention_mask", [b, t])?.unwrap_or_else(|| vec![false; b * t]);
    let padding = hidden.chunks(t).map(|row| {
        let left = row.iter().take_while(|hidden| **hidden).count();
        match row[left..].contains(&true) {
            true => Err(InputError::Unsupported(
                "`attention_mask` hides tokens after the first; a prompt is padded on its left"
                    .into(),
            )),
            false => Ok(left),
        }
    });
    Ok((rows, padding.collect::<Result<_, _>>()?))
}

/// The token that a decoder over a source begins with; `own` is the one of `config.json`.
pub fn start_token(
    config: &GenerationConfig,
    own: Option<i64>,
    vocabulary: usize,
) -> Result<i64, InputError> {
    let name = "decoder_start_token_id";
    let token = config.decoder_start_token_id.or(own).or(config.bos_token_id);
    let token = token.ok_or_else(|| {
        let problem =
            format!("neither configuration names a {name}: with what does the text begin?");
        InputError::Unsupported(problem)
    })?;
    match usize::try_from(token).is_ok_and(|token| token < vocabulary) {
        true => Ok(token),
        false => Err(InputError::Range { name: name.into(), value: token, below: vocabulary }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of 80 tokens must refuse the file, and say this.
    #[track_caller]
    fn check_refused(file: Value, expected: &str) {
        let model = json!({"model_type": "llama", "vocab_size": 80});
        let problem = GenerationConfig::parse(&file, &model).unwrap_err();
        assert!(problem.contains(expected), "{problem:?} lacks {expected:?}");
    }

    #[test]
    fn what_has_no_effect_here_is_refused() {
        for (key, value) in [
            ("typical_p", json!(0.9)),
            ("epsilon_cutoff", json!(3e-4)),
            ("eta_cutoff", json!(3e-4)),
            ("top_h", json!(0.4)),
            ("forced_decoder_ids", json!([[1, 7]])),
            ("force_words_ids", json!([[7]])),
            ("watermarking_config", json!({"bias": 2.5})),
            ("max_time", json!(2.5)),
        ] {
            check_refused(json!({key: value}), key);
        }
        check_refused(json!({"num_beams": 0}), "num_beams is 0");
        check_refused(
            json!({"pad_token_id": 999}),
            "pad_token_id is 999, outside the model's 0..80",
        );
        check_refused(json!({"eos_token_id": [2, -5]}), "eos_token_id is -5");
    }

    #[test]
    fn neutral_values_are_none() {
        let file = json!({
            "typical_p": 1.0, "epsilon_cutoff": 0.0, "guidance_scale": 1, "num_return_sequences": 1,
            "token_healing": false, "max_time": null, "num_beams": null, "length_penalty": null,
            "stop_strings": "END", "pad_token_id": 79,
        });
        let model = json!({"vocab_size": 80});
        let config = GenerationConfig::parse(&file, &model).unwrap();
        assert_eq!((config.num_beams, config.length_penalty), (1, 1.0));
        assert_eq!(config.stop_strings(), ["END"]);
        let whisper = json!({"model_type": "whisper"});
        let file = json!({"forced_decoder_ids": [[1, null], [2, 7]]});
        assert!(GenerationConfig::parse(&file, &whisper).is_ok());
    }

    #[test]
    fn a_row_is_no_longer_than_its_model() {
        let plain = GenerationConfig::default;
        assert_eq!(plain().longest(13, 128), Ok(128));
        assert_eq!(plain().longest(13, 1024), Ok(13 + NEW_TOKENS));
        let file = GenerationConfig { max_new_tokens: Some(120), ..plain() };
        assert_eq!(file.longest(13, 128), Ok(128));
        assert_eq!(file.longest(3, 128), Ok(123));
        // What was asked for is written, or nothing is.
        let asked = GenerationConfig { exact: true, ..file };
        let too_long = InputError::TooLong { tokens: 133, longest: 128 };
        assert_eq!(asked.longest(13, 128), Err(too_long));
        let full = InputError::TooLong { tokens: 129, longest: 128 };
        assert_eq!(plain().longest(128, 128), Err(full));
    }
}
