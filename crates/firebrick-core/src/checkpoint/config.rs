//! Checks on `config.json` that every family makes; each names the key.

use serde::de::DeserializeOwned;
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
