//! Checks on `config.json` that every family makes; each names the key.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

use super::json::{quoted, shown};

/// `model_type` must be one of `known`.
pub fn check_model_type(config: &Value, known: &[&str]) -> Result<(), String> {
    match config.get("model_type") {
        Some(Value::String(name)) if known.contains(&name.as_str()) => Ok(()),
        Some(Value::String(name)) => {
            Err(format!("model_type {} is none of {}", quoted(name), known.join(", ")))
        }
        Some(_) => Err("model_type is not a text".into()),
        None => Err("model_type is missing".into()),
    }
}

/// Deserialises; a message names the key.
pub fn parse<T: DeserializeOwned>(config: &Value) -> Result<T, String> {
    T::deserialize(config).map_err(|error| error.to_string())
}

/// Options that are built for one value only: each must be absent, null, or that value.
///
/// ```
/// use firebrick_core::checkpoint::config::only;
/// use serde_json::json;
///
/// let config = json!({"position_embedding_type": "relative_key"});
/// let problem = only(&config, &[("position_embedding_type", json!("absolute"))]).unwrap_err();
/// assert_eq!(problem, r#"position_embedding_type is "relative_key"; only "absolute" is supported"#);
/// ```
pub fn only(config: &Value, options: &[(&str, Value)]) -> Result<(), String> {
    for (key, supported) in options {
        match config.get(key) {
            None | Some(Value::Null) => {}
            Some(found) if found == supported => {}
            Some(found) => {
                return Err(format!("{key} is {}; only {supported} is supported", shown(found)));
            }
        }
    }
    Ok(())
}

/// Number of classes: as many as `id2label` names, else `num_labels`, else the two of `transformers`.
///
/// ```
/// use firebrick_core::checkpoint::config::labels;
/// use serde_json::json;
///
/// assert_eq!(labels(&json!({"id2label": {"0": "cat", "1": "dog", "2": "hen"}})), Ok(3));
/// assert_eq!(labels(&json!({"num_labels": 5})), Ok(5));
/// assert_eq!(labels(&json!({})), Ok(2));
/// assert_eq!(labels(&json!({"id2label": {}})), Err("id2label is 0".into()));
/// ```
pub fn labels(config: &Value) -> Result<usize, String> {
    let given = ["id2label", "num_labels"]
        .into_iter()
        .find_map(|key| Some((key, config.get(key).filter(|value| !value.is_null())?)));
    let Some((key, value)) = given else { return Ok(2) };
    let count = match value {
        Value::Object(names) => Some(names.len()),
        value => value.as_u64().and_then(|count| usize::try_from(count).ok()),
    };
    let count = count.ok_or_else(|| format!("{key} is {}", shown(value)))?;
    size(key, count, 1_000_000)?;
    Ok(count)
}

/// Rows and columns, for `deserialize_with`; one number stands for both.
pub fn pair<'de, D: Deserializer<'de>>(sizes: D) -> Result<[usize; 2], D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Sizes {
        Both(usize),
        Each([usize; 2]),
    }
    match Sizes::deserialize(sizes) {
        Ok(Sizes::Both(size)) => Ok([size; 2]),
        Ok(Sizes::Each(sizes)) => Ok(sizes),
        Err(_) => Err(D::Error::custom("a size is neither a number nor [rows, columns]")),
    }
}

/// `1..=limit`.
pub fn size(key: &str, value: usize, limit: usize) -> Result<(), String> {
    match value {
        0 => Err(format!("{key} is 0")),
        value if value > limit => Err(format!("{key} is {value}, above the limit of {limit}")),
        _ => Ok(()),
    }
}

pub fn divides(whole_key: &str, whole: usize, part_key: &str, part: usize) -> Result<(), String> {
    match whole.is_multiple_of(part) {
        true => Ok(()),
        false => Err(format!("{whole_key} {whole} is not divisible by {part_key} {part}")),
    }
}

/// `0 <= p < 1`.
pub fn probability(key: &str, p: f64) -> Result<(), String> {
    match (0.0..1.0).contains(&p) {
        true => Ok(()),
        false => Err(format!("{key} is {p}, not in [0, 1)")),
    }
}

pub fn positive(key: &str, value: f64) -> Result<(), String> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(format!("{key} is {value}, not a positive number")),
    }
}
