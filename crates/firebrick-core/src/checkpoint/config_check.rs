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
    "audio-spectrogram-transformer",
    "bart",
    "bert",
    "clip",
    "convnext",
    "convnextv2",
    "deberta-v2",
    "deit",
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
    "mt5",
    "opt",
    "pegasus",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "resnet",
    "roberta",
    "t5",
    "videomae",
    "vit",
    "wav2vec2",
    "firebrick-tagger",
    "whisper",
    "xlm-roberta",
    "yolos",
];

/// Families whose sizes go by other names: one width and depth a stage, or a factor on fixed ones.
const STAGED: &[(&str, &[&str])] = &[
    ("convnext", &["hidden_sizes", "depths"]),
    ("convnextv2", &["hidden_sizes", "depths"]),
    ("mobilenet_v2", &["depth_multiplier"]),
    ("resnet", &["hidden_sizes", "depths"]),
];

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
    ("num_channels", 1 << 16),
    ("num_key_value_heads", 4096),
    ("num_mel_bins", 1 << 16),
    ("patch_size", 1 << 16),
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
    let staged = STAGED.iter().find(|(name, _)| *name == model);
    for key in staged.map_or(&[][..], |(_, keys)| keys) {
        stages(config, key)?;
    }
    for part in ["text_config", "vision_config", "audio_config"] {
        match config.get(part) {
            None | Some(Value::Null) => {}
            // Keys that have their default are left out there.
            Some(Value::Object(part)) => check_sizes(part, false)?,
            Some(_) => return Err(value(part, "is not an object")),
        }
    }
    check_sizes(config, !own && !in_parts && staged.is_none())?;
    check_values(config)
}

/// Sizes and how they divide one another.
fn check_sizes(config: &Map<String, Value>, required: bool) -> Result<(), ConfigProblem> {
    let width = any_size(config, WIDTH, 1 << 20, required)?;
    any_size(config, LAYERS, 4096, required)?;
    let heads = any_size(config, HEADS, 4096, required)?;
    for (key, limit) in SIZES {
        size(config, key, *limit)?;
    }
    // A head whose width is given need not be a part of the whole: T5 1.1 has 6 heads in 512 channels.
    let head_dim = config.get("head_dim").or(config.get("d_kv"));
    if let (Some((key, value)), Some((part_key, part)), None) = (width, heads, head_dim) {
        divides(key, value, part_key, part)?;
    }
    let kv_heads = size(config, "num_key_value_heads", 4096)?;
    if let (Some((key, value)), Some(part)) = (heads, kv_heads) {
        divides(key, value, "num_key_value_heads", part)?;
    }
    Ok(())
}

/// One size a stage, or a factor on sizes that the family fixes.
fn stages(config: &Map<String, Value>, key: &'static str) -> Result<(), ConfigProblem> {
    let found = config.get(key).ok_or(ConfigProblem::Missing(key))?;
    let fits = match found {
        Value::Array(sizes) => {
            let size = |n: &Value| n.as_u64().is_some_and(|n| (1..=1 << 20).contains(&n));
            (1..=16).contains(&sizes.len()) && sizes.iter().all(size)
        }
        other => other.as_f64().is_some_and(|x| x > 0.0 && x <= 64.0),
    };
    match fits {
        true => Ok(()),
        false => Err(value(key, format!("is {}, not sizes of stages or a factor", shown(found)))),
    }
}

/// Values that are no sizes.
fn check_values(config: &Map<String, Value>) -> Result<(), ConfigProblem> {
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
        } else if key == "type_vocab_size" {
            // DeBERTa has none.
            number(key, value, |x| (0.0..=65536.0).contains(&x), "in [0, 65536]")?;
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
        let t5 = json!({"model_type": "t5", "d_model": 512, "d_kv": 64, "num_layers": 8, "num_heads": 6});
        check_config(&t5).unwrap();
        check_config(&json!({"model_type": "firebrick-cnn"})).unwrap();
        let flan = json!({"model_type": "t5", "d_model": 512, "num_heads": 6, "num_layers": 8, "d_kv": 64});
        check_config(&flan).unwrap();
        let resnet = json!({"model_type": "resnet", "embedding_size": 64, "layer_type": "basic",
            "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]});
        check_config(&resnet).unwrap();
        check_config(&json!({"model_type": "mobilenet_v2", "depth_multiplier": 1.4})).unwrap();
        let clip = json!({"model_type": "clip", "text_config": {"hidden_size": 512, "num_attention_heads": 8},
            "vision_config": {"patch_size": 32}, "projection_dim": 512});
        check_config(&clip).unwrap();
    }

    #[test]
    fn parts_and_stages_are_checked() {
        let check = |config: Value, expected: &str| {
            let message = check_config(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        check(json!({"model_type": "resnet", "depths": [2]}), "hidden_sizes is missing");
        check(
            json!({"model_type": "convnext", "hidden_sizes": [96, 0], "depths": [3]}),
            "hidden_sizes",
        );
        check(
            json!({"model_type": "mobilenet_v2", "depth_multiplier": -1}),
            "depth_multiplier is -1",
        );
        check(json!({"model_type": "clip", "text_config": {"hidden_size": 0}}), "hidden_size is 0");
        check(json!({"model_type": "clip", "text_config": 3}), "text_config is not an object");
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
