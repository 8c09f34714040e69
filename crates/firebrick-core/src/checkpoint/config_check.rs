//! Checks on a `config.json` that hold for every family, before one of them reads it.
//!
//! Keys are those of Hugging Face `transformers`, with the older spellings of GPT-2, DistilBERT, T5
//! and BART. Limits lie well above every released model: they keep a product of two sizes from
//! overflowing, and a table from being allocated for a number that is a mistake.

use serde_json::{Map, Value};

use super::json::{quoted, shown};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    #[error("is not a JSON object")]
    NotAnObject,

    #[error("{0} is missing")]
    Missing(&'static str),

    #[error("{key} {problem}")]
    Value { key: String, problem: String },

    #[error("{key} is {value}, above the limit of {limit}")]
    TooLarge { key: &'static str, value: u64, limit: u64 },

    #[error("{key} {value} is not divisible by {part_key} {part}")]
    NotDivisible { key: &'static str, value: u64, part_key: &'static str, part: u64 },

    #[error("{key} {value} is outside the vocabulary, vocab_size is {vocab_size}")]
    OutsideVocabulary { key: String, value: u64, vocab_size: u64 },

    #[error("model_type {} is not known", quoted(.0))]
    UnknownModel(String),

    #[error("auto_map asks for code that lies beside the model, which is never run (model_type {})", quoted(.0))]
    RemoteCode(String),

    #[error("{key}: unknown dtype {}", quoted(value))]
    UnknownDtype { key: &'static str, value: String },
}

/// Families whose configurations are read; own ones begin with `firebrick-`.
const MODEL_TYPES: &[&str] = &[
    "albert",
    "bart",
    "bert",
    "clip",
    "convnext",
    "deberta-v2",
    "distilbert",
    "electra",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "hubert",
    "llama",
    "marian",
    "mbart",
    "mistral",
    "mobilebert",
    "mobilenet_v2",
    "modernbert",
    "mpnet",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "resnet",
    "roberta",
    "t5",
    "vit",
    "wav2vec2",
    "whisper",
    "xlm-roberta",
];

/// Families of [`MODEL_TYPES`] that have no one width and no heads.
const CONVOLUTIONS: &[&str] = &["convnext", "mobilenet_v2", "resnet"];

/// One size under the names that it goes by.
const WIDTH: &[&str] = &["hidden_size", "n_embd", "dim", "d_model"];
const LAYERS: &[&str] =
    &["num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"];
const HEADS: &[&str] =
    &["num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"];

const DTYPES: &[&str] = &[
    "auto",
    "bfloat16",
    "bool",
    "float16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "int16",
    "int32",
    "int64",
    "int8",
    "uint8",
];

/// Sizes beside those above, with the largest that is believed.
const SIZES: &[(&str, u64)] = &[
    ("decoder_attention_heads", 4096),
    ("decoder_ffn_dim", 1 << 22),
    ("decoder_layers", 4096),
    ("embedding_size", 1 << 20),
    ("encoder_ffn_dim", 1 << 22),
    ("head_dim", 1 << 16),
    ("hidden_dim", 1 << 22),
    ("intermediate_size", 1 << 22),
    ("max_position_embeddings", 1 << 26),
    ("n_positions", 1 << 26),
    ("num_key_value_heads", 4096),
    ("type_vocab_size", 1 << 16),
    ("vocab_size", 1 << 24),
];

/// Checks what can be checked without knowing the family; the message names the key.
pub fn check_config(config: &Value) -> Result<(), ConfigProblem> {
    let Value::Object(config) = config else { return Err(ConfigProblem::NotAnObject) };
    let model = match config.get("model_type") {
        Some(Value::String(name)) => name.as_str(),
        Some(_) => return Err(value("model_type", "is not a text")),
        None => return Err(ConfigProblem::Missing("model_type")),
    };
    if config.get("auto_map").is_some_and(|map| !map.is_null()) {
        return Err(ConfigProblem::RemoteCode(model.into()));
    }
    let own = model.starts_with("firebrick-");
    if !own && !MODEL_TYPES.contains(&model) {
        return Err(ConfigProblem::UnknownModel(model.into()));
    }

    // A model of two parts has its sizes one level further in.
    let in_parts = config.contains_key("text_config") || config.contains_key("vision_config");
    let required = !own && !in_parts && !CONVOLUTIONS.contains(&model);
    let width = any_size(config, WIDTH, 1 << 20, required)?;
    any_size(config, LAYERS, 4096, required)?;
    let heads = any_size(config, HEADS, 4096, required)?;
    for (key, limit) in SIZES {
        size(config, key, *limit)?;
    }
    if let (Some((key, value)), Some((part_key, part)), None) =
        (width, heads, config.get("head_dim"))
    {
        divides(key, value, part_key, part)?;
    }
    let kv_heads = size(config, "num_key_value_heads", 4096)?;
    if let (Some((key, value)), Some(part)) = (heads, kv_heads) {
        divides(key, value, "num_key_value_heads", part)?;
    }

    let vocab_size = size(config, "vocab_size", 1 << 24)?;
    for (key, value) in config {
        if value.is_null() {
            continue;
        }
        if key.ends_with("_token_id") {
            token_ids(key, value, vocab_size)?;
        } else if key.ends_with("_eps") || key.ends_with("_epsilon") {
            number(key, value, |x| x > 0.0 && x <= 1.0, "in (0, 1]")?;
        } else if key.ends_with("dropout")
            || key.ends_with("dropout_prob")
            || key.ends_with("pdrop")
        {
            number(key, value, |x| (0.0..1.0).contains(&x), "in [0, 1)")?;
        } else if key == "rope_theta" || key == "rope_local_base_freq" {
            number(key, value, |x| x > 0.0, "above 0")?;
        } else if key == "initializer_range" {
            number(key, value, |x| x >= 0.0, "0 or more")?;
        }
    }
    for key in ["torch_dtype", "dtype"] {
        match config.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) => {
                if !DTYPES.contains(&name.strip_prefix("torch.").unwrap_or(name)) {
                    return Err(ConfigProblem::UnknownDtype { key, value: name.clone() });
                }
            }
            Some(_) => return Err(value(key, "is not a text")),
        }
    }
    if config.get("tie_word_embeddings").is_some_and(|tie| !tie.is_boolean() && !tie.is_null()) {
        return Err(value("tie_word_embeddings", "is neither true nor false"));
    }
    Ok(())
}

fn value(key: &str, problem: impl Into<String>) -> ConfigProblem {
    // A key is any text of the file.
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let key = if plain && key.len() <= 80 { key.into() } else { quoted(key) };
    ConfigProblem::Value { key, problem: problem.into() }
}

/// The first of `keys` that is there, `1..=limit`.
fn any_size(
    config: &Map<String, Value>,
    keys: &[&'static str],
    limit: u64,
    required: bool,
) -> Result<Option<(&'static str, u64)>, ConfigProblem> {
    for key in keys {
        if let Some(value) = size(config, key, limit)? {
            return Ok(Some((key, value)));
        }
    }
    if required { Err(ConfigProblem::Missing(keys[0])) } else { Ok(None) }
}

/// `1..=limit`; `None` when the key is absent or null.
fn size(
    config: &Map<String, Value>,
    key: &'static str,
    limit: u64,
) -> Result<Option<u64>, ConfigProblem> {
    let Some(found) = config.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    match found.as_u64() {
        Some(0) => Err(value(key, "is 0")),
        Some(n) if n > limit => Err(ConfigProblem::TooLarge { key, value: n, limit }),
        Some(n) => Ok(Some(n)),
        None => Err(value(key, format!("is {}, not a positive whole number", shown(found)))),
    }
}

fn divides(
    key: &'static str,
    value: u64,
    part_key: &'static str,
    part: u64,
) -> Result<(), ConfigProblem> {
    match value.is_multiple_of(part) {
        true => Ok(()),
        false => Err(ConfigProblem::NotDivisible { key, value, part_key, part }),
    }
}

/// An id or a list of them.
fn token_ids(key: &str, found: &Value, vocab_size: Option<u64>) -> Result<(), ConfigProblem> {
    let ids = match found {
        Value::Array(ids) => ids.as_slice(),
        one => std::slice::from_ref(one),
    };
    for id in ids {
        let Some(id) = id.as_u64() else {
            return Err(value(key, format!("is {}, not a token id", shown(id))));
        };
        if let Some(vocab_size) = vocab_size
            && id >= vocab_size
        {
            return Err(ConfigProblem::OutsideVocabulary {
                key: key.into(),
                value: id,
                vocab_size,
            });
        }
    }
    Ok(())
}

fn number(
    key: &str,
    found: &Value,
    fits: impl Fn(f64) -> bool,
    domain: &str,
) -> Result<(), ConfigProblem> {
    match found.as_f64() {
        Some(x) if x.is_finite() && fits(x) => Ok(()),
        _ => Err(value(key, format!("is {}, not {domain}", shown(found)))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn llama() -> Value {
        json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": [2, 3],
            "torch_dtype": "float32", "tie_word_embeddings": false, "attention_dropout": 0,
            "pad_token_id": null,
        })
    }

    #[track_caller]
    fn check_refused(key: &str, value: Value, expected: &str) {
        let mut config = llama();
        config[key] = value;
        let message = check_config(&config).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn sound_configurations_pass() {
        check_config(&llama()).unwrap();
        let gpt2 = json!({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12,
            "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1, "vocab_size": 50257, "eos_token_id": 50256});
        check_config(&gpt2).unwrap();
        check_config(&json!({"model_type": "firebrick-cnn"})).unwrap();
    }

    #[test]
    fn defects_are_named() {
        check_refused("hidden_size", json!(0), "hidden_size is 0");
        check_refused("hidden_size", json!(-64), "hidden_size is -64");
        check_refused("hidden_size", json!("64"), "hidden_size is \"64\"");
        check_refused("hidden_size", json!(1_000_000_000_000_000_000u64), "hidden_size is 1000");
        check_refused("hidden_size", Value::Null, "hidden_size is missing");
        check_refused("num_hidden_layers", json!(2.5), "num_hidden_layers is 2.5");
        check_refused("num_hidden_layers", json!(1u64 << 31), "above the limit");
        check_refused("num_attention_heads", json!(5), "not divisible by num_attention_heads 5");
        check_refused("num_key_value_heads", json!(3), "num_key_value_heads 3");
        check_refused("vocab_size", json!(0), "vocab_size is 0");
        check_refused("eos_token_id", json!(999_999), "eos_token_id 999999 is outside");
        check_refused("pad_token_id", json!(-1), "pad_token_id is -1");
        check_refused("rms_norm_eps", json!(-1.0), "rms_norm_eps is -1.0");
        check_refused("rope_theta", json!(0.0), "rope_theta is 0.0");
        check_refused("attention_dropout", json!(1.0), "attention_dropout");
        check_refused("max_position_embeddings", json!(1u64 << 60), "max_position_embeddings");
        check_refused("torch_dtype", json!("float65"), "float65");
        check_refused("model_type", json!("never_heard_of"), "never_heard_of");
        check_refused("auto_map", json!({"AutoModel": "evil.Evil"}), "auto_map");
        check_refused("\u{1b}[2J_eps", json!(-1), "\\u{1b}");
    }
}
