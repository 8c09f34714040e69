//! What a key of a recipe may be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Either numbers from `low` to `high`, or one of `choices`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Range {
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Every power of ten is as likely as another.
    pub log: bool,
    /// Whole numbers only.
    pub integer: bool,
    #[schemars(with = "Vec<serde_json::Value>")]
    pub choices: Vec<toml::Value>,
}

/// What one trial has in place of a key's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Integer(i64),
    Number(f64),
    Choice(serde_json::Value),
}

impl Range {
    pub fn check(&self) -> Result<(), String> {
        match (self.low, self.high, self.choices.len()) {
            (None, None, 0) => Err("has neither `low` and `high` nor `choices`".into()),
            (None, None, _) if self.log || self.integer => {
                Err("has `choices`, which `log` and `integer` are not for".into())
            }
            (None, None, _) => Ok(()),
            (Some(_), Some(_), 1..) => Err("has `low` and `high` beside `choices`".into()),
            (Some(low), Some(high), _) if !(low.is_finite() && high.is_finite() && low < high) => {
                Err(format!("goes from {low} to {high}"))
            }
            (Some(low), _, _) if self.log && low <= 0.0 => {
                Err(format!("begins at {low}, and a logarithmic range must begin above 0"))
            }
            (Some(low), Some(high), _) if self.integer && low.fract() + high.fract() != 0.0 => {
                Err(format!("goes from {low} to {high}, which are not whole"))
            }
            (Some(_), Some(_), _) => Ok(()),
            _ => Err("has only one of `low` and `high`".into()),
        }
    }

    /// The ends of the scale on which values are drawn: logarithms, widened by half for whole numbers; or places among
    /// the choices.
    pub fn scale(&self) -> (f64, f64) {
        let (Some(low), Some(high)) = (self.low, self.high) else {
            return (0.0, self.choices.len() as f64);
        };
        let half = if self.integer { 0.5 } else { 0.0 };
        let (low, high) = (low - half, high + half);
        match self.log {
            true => (low.ln(), high.ln()),
            false => (low, high),
        }
    }

    pub fn is_choice(&self) -> bool {
        !self.choices.is_empty()
    }

    /// The value at a place of the scale.
    pub fn at(&self, place: f64) -> Value {
        let (Some(low), Some(high)) = (self.low, self.high) else {
            let index = (place.max(0.0) as usize).min(self.choices.len() - 1);
            let choice = serde_json::to_value(&self.choices[index]).expect("TOML is plain data");
            return Value::Choice(choice);
        };
        let value = if self.log { place.exp() } else { place };
        match self.integer {
            true => Value::Integer(value.round().clamp(low, high) as i64),
            false => Value::Number(short(value).clamp(low, high)),
        }
    }

    /// Where a value lies on the scale; `None` for one that this range never gives.
    pub fn place(&self, value: &Value) -> Option<f64> {
        let number = match value {
            Value::Integer(value) => *value as f64,
            Value::Number(value) => *value,
            Value::Choice(_) => f64::NAN,
        };
        if self.is_choice() {
            let shown = serde_json::to_value(value).ok()?;
            let same =
                |choice: &toml::Value| serde_json::to_value(choice).ok().as_ref() == Some(&shown);
            return Some(self.choices.iter().position(same)? as f64 + 0.5);
        }
        let (low, high) = self.scale();
        let place = if self.log { number.ln() } else { number };
        (low..=high).contains(&place).then_some(place)
    }
}

/// Four digits: a person reads and types these.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

impl Value {
    /// `key=value` as `--set` reads it.
    pub fn setting(&self, key: &str) -> String {
        format!("{key}={self}")
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value:?}"),
            Self::Choice(value) => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(low: f64, high: f64, log: bool, integer: bool) -> Range {
        Range { low: Some(low), high: Some(high), log, integer, ..Range::default() }
    }

    proptest! {
        #[test]
        fn values_come_from_their_places(share in 0.0..1.0, log: bool, integer: bool) {
            let range = range(1.0, 300.0, log, integer);
            let (low, high) = range.scale();
            let value = range.at(low + share * (high - low));
            let again = range.at(range.place(&value).unwrap());
            match (&value, &again) {
                (Value::Number(a), Value::Number(b)) => prop_assert!((a / b - 1.0).abs() < 1e-3),
                _ => prop_assert_eq!(&value, &again),
            }
        }
    }

    #[test]
    fn every_whole_number_is_as_likely() {
        let range = range(1.0, 3.0, false, true);
        let (low, high) = range.scale();
        let mut counts = [0; 3];
        for i in 0..3000 {
            let Value::Integer(value) =
                range.at(low + (f64::from(i) + 0.5) / 3000.0 * (high - low))
            else {
                panic!("not whole")
            };
            counts[value as usize - 1] += 1;
        }
        assert_eq!(counts, [1000; 3]);
    }

    #[test]
    fn choices_are_found_again() {
        let choices = ["gelu", "relu"].map(toml::Value::from).to_vec();
        let range = Range { choices, ..Range::default() };
        assert_eq!(range.at(1.2), Value::Choice("relu".into()));
        assert_eq!(range.place(&range.at(1.2)), Some(1.5));
        assert_eq!(range.at(1.2).setting("model.hidden_act"), "model.hidden_act=\"relu\"");
    }

    #[test]
    fn senseless_ranges_are_errors() {
        for wrong in [
            Range::default(),
            range(2.0, 1.0, false, false),
            range(0.0, 1.0, true, false),
            range(0.5, 2.0, false, true),
            Range { low: Some(1.0), ..Range::default() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
