//! What a process of its own found of a model folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Watts of a busy core, for an estimate of energy: between 3 and 10 for the servers and notebooks of these years.
pub const WATTS: f64 = 10.0;

/// One candidate, from the answer of `firebrick eval --json --latency`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Of the weights on disk.
    pub bytes: u64,
    pub metrics: BTreeMap<String, f64>,
    /// Of the score that it is judged by, at 95 %, where there is one.
    #[serde(default)]
    pub interval: Option<[f64; 2]>,
    /// That score on what was drawn from the rows, where its interval is found so; the i-th is of the same rows for every
    /// candidate.
    #[serde(skip)]
    pub resampled: Vec<f64>,
    pub rows: u64,
    /// Which rows.
    pub data: String,
    /// Of one row at a time.
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub rows_per_second: f64,
    /// Highest resident memory of the process.
    pub peak_mb: f64,
    /// Of all threads, a row.
    pub cpu_ms_per_row: f64,
}

impl Measured {
    /// Reads the answer; what it does not hold is named.
    pub fn new(bytes: u64, answer: &Value) -> Result<Self, String> {
        let number = |path: &str| {
            let value = answer.pointer(path).and_then(Value::as_f64);
            value.ok_or_else(|| format!("the measurement has no {path}"))
        };
        let metrics = answer["metrics"].as_object().ok_or("the measurement has no metrics")?;
        let scores = metrics.iter().filter_map(|(name, x)| Some((name.clone(), x.as_f64()?)));
        let metrics = scores.collect();
        let judged_by = score(&metrics).map_or("", |(name, _)| name);
        let interval = &answer[format!("{judged_by}_95")];
        let bound = |end: usize| interval[end].as_f64();
        let resampled = answer["resampled"][judged_by].as_array().into_iter().flatten();
        let resampled = resampled.filter_map(Value::as_f64).collect();
        Ok(Self {
            bytes,
            metrics,
            interval: bound(0).zip(bound(1)).map(|(low, high)| [low, high]),
            resampled,
            rows: answer["rows"].as_u64().ok_or("the measurement has no rows")?,
            data: answer["data"].as_str().unwrap_or_default().into(),
            p50_ms: number("/speed/p50_ms")?,
            p95_ms: number("/speed/p95_ms")?,
            rows_per_second: number("/speed/rows_per_second")?,
            peak_mb: number("/speed/peak_mb")?,
            cpu_ms_per_row: number("/speed/cpu_ms_per_row")?,
        })
    }

    /// An estimate: busy time times [`WATTS`].
    pub fn millijoules_per_row(&self) -> f64 {
        self.cpu_ms_per_row * WATTS
    }

    /// The score that a model of this kind is judged by.
    pub fn score(&self) -> Option<(&str, f64)> {
        score(&self.metrics)
    }
}

/// The score that a model with these is judged by.
pub fn score(metrics: &BTreeMap<String, f64>) -> Option<(&str, f64)> {
    #[rustfmt::skip]
    let known = [
        "accuracy", "label_accuracy", "span_f1", "tag_accuracy", "bleu", "perplexity", "wer", "map", "auc",
    ];
    let found = known.iter().find_map(|name| metrics.get_key_value(*name));
    found.or_else(|| metrics.iter().next()).map(|(name, value)| (name.as_str(), *value))
}

/// How bad a model with these scores is: its loss, finer than a count of right answers, or else its score in points.
pub fn badness(metrics: &BTreeMap<String, f64>) -> f64 {
    let points = |(name, value)| match lower_is_better(name) {
        true => points(name, 0.0, value),
        false => -points(name, 0.0, value),
    };
    metrics.get("loss").copied().or_else(|| score(metrics).map(points)).unwrap_or(0.0)
}

/// Whether less of it is better.
pub fn lower_is_better(score: &str) -> bool {
    ["loss", "perplexity", "ece", "bits", "wer", "cer"].iter().any(|low| score.contains(low))
}

/// What is to be added to `from` to get `to`, in points: hundredths of shares and rates; BLEU, chrF, losses and perplexities
/// as they are.
pub fn points(score: &str, from: f64, to: f64) -> f64 {
    let whole = ["loss", "perplexity", "bits", "bleu", "chrf"];
    let share = !whole.iter().any(|whole| score.contains(whole));
    if share { 100.0 * (to - from) } else { to - from }
}

/// Which candidates no other beats in size, quality and speed at once, by index.
pub fn pareto(candidates: &[&Measured]) -> Vec<bool> {
    let worth = |m: &Measured| {
        let (name, score) = m.score().unwrap_or(("", 0.0));
        let score = if lower_is_better(name) { -score } else { score };
        [-(m.bytes as f64), score, -m.p50_ms]
    };
    let worths: Vec<[f64; 3]> = candidates.iter().map(|m| worth(m)).collect();
    let beats = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).all(|(a, b)| a >= b) && a != b;
    worths.iter().map(|own| !worths.iter().any(|other| beats(other, own))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub fn measured(bytes: u64, accuracy: f64, p50_ms: f64) -> Measured {
        let answer = json!({
            "rows": 100, "data": "valid", "metrics": {"accuracy": accuracy, "loss": 0.5},
            "accuracy_95": [accuracy - 0.05, accuracy + 0.05],
            "speed": {
                "p50_ms": p50_ms, "p95_ms": 2.0 * p50_ms, "rows_per_second": 10.0, "peak_mb": 50.0,
                "cpu_ms_per_row": 3.0,
            },
        });
        Measured::new(bytes, &answer).unwrap()
    }

    #[test]
    fn an_answer_is_read_and_what_lacks_is_named() {
        let found = measured(1000, 0.9, 2.0);
        assert_eq!(found.score(), Some(("accuracy", 0.9)));
        assert_eq!(found.interval, Some([0.9 - 0.05, 0.9 + 0.05]));
        assert_eq!(found.millijoules_per_row(), 30.0);
        let mut answer = json!({"rows": 1, "metrics": {"auc": 0.9}, "auc_95": [0.8, 0.95]});
        answer["speed"] = json!({
            "p50_ms": 1, "p95_ms": 1, "rows_per_second": 1, "peak_mb": 1, "cpu_ms_per_row": 1,
        });
        answer["resampled"] = json!({"auc": [0.85, 0.9], "loss": [1]});
        let found = Measured::new(1, &answer).unwrap();
        assert_eq!(found.interval, Some([0.8, 0.95]));
        assert_eq!(found.resampled, [0.85, 0.9]);
        let error = Measured::new(1, &json!({"metrics": {}, "rows": 1})).unwrap_err();
        assert!(error.contains("p50_ms"), "{error}");
    }

    #[test]
    fn points_are_hundredths_of_a_share() {
        assert!((points("accuracy", 0.80, 0.79) + 1.0).abs() < 1e-9);
        assert!((points("bleu", 30.0, 29.5) + 0.5).abs() < 1e-9);
        assert!((points("perplexity", 20.0, 21.0) - 1.0).abs() < 1e-9);
        assert!((points("wer", 0.10, 0.12) - 2.0).abs() < 1e-9);
        assert!((points("ece", 0.10, 0.12) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_worse_has_more_badness() {
        let of = |name: &str, value: f64| badness(&BTreeMap::from([(name.to_string(), value)]));
        assert!((of("accuracy", 0.8) - of("accuracy", 0.81) - 1.0).abs() < 1e-9);
        assert!((of("bleu", 29.0) - of("bleu", 31.0) - 2.0).abs() < 1e-9);
        assert!(of("wer", 0.3) > of("wer", 0.2));
        assert_eq!(badness(&measured(1, 0.9, 1.0).metrics), 0.5); // its loss
    }

    #[test]
    fn the_front_is_what_nobody_beats() {
        let all = [measured(100, 0.9, 4.0), measured(50, 0.89, 2.0), measured(60, 0.88, 3.0)];
        assert_eq!(pareto(&all.iter().collect::<Vec<_>>()), [true, true, false]);
    }
}
