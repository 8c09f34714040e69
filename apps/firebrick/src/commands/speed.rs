//! How fast a model answers, measured beside its scores.

use std::time::Instant;

use serde_json::{Value, json};

use super::bench::measure::{cpu_seconds, peak_mb};

/// Begun before a model is asked for all rows together.
pub struct Stopwatch {
    begun: Instant,
    cpu: f64,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { begun: Instant::now(), cpu: cpu_seconds() }
    }

    /// All `rows` are answered; now `answer` is asked for up to `singles` of them one by one.
    pub fn speed(&self, rows: usize, singles: usize, mut answer: impl FnMut(usize)) -> Value {
        const WARMUP: usize = 3;
        let (seconds, cpu) = (self.begun.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let count = singles.min(rows);
        if count == 0 {
            return Value::Null;
        }
        (0..count.min(WARMUP)).for_each(&mut answer);
        let mut single = |row| {
            let begun = Instant::now();
            answer(row);
            begun.elapsed().as_secs_f64() * 1e3
        };
        let mut ms: Vec<f64> = (0..count).map(&mut single).collect();
        ms.sort_by(f64::total_cmp);
        let percentile = |share: f64| ms[(share * (count - 1) as f64).round() as usize];
        json!({
            "rows": count, "p50_ms": percentile(0.5), "p95_ms": percentile(0.95),
            "rows_per_second": rows as f64 / seconds, "cpu_ms_per_row": cpu * 1e3 / rows as f64,
            "peak_mb": peak_mb("self"),
        })
    }
}

/// A line of what [`Stopwatch::speed`] measured; none where it did not.
pub fn told(speed: &Value) -> String {
    let number = |key: &str| speed[key].as_f64().unwrap_or(f64::NAN);
    match speed.is_object() {
        false => String::new(),
        true => format!(
            "one by one: p50 {:.2} ms, p95 {:.2} ms; together: {:.1} rows/s; peak memory {:.0} MB\n",
            number("p50_ms"),
            number("p95_ms"),
            number("rows_per_second"),
            number("peak_mb")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_answers_are_timed() {
        let watch = Stopwatch::start();
        let nap = |row: usize| std::thread::sleep(std::time::Duration::from_millis(row as u64 / 5));
        let speed = watch.speed(10, 10, nap);
        assert_eq!(speed["rows"], 10);
        assert!(speed["p95_ms"].as_f64().unwrap() >= 1.0, "{speed}");
        assert!(speed["p50_ms"].as_f64() < speed["p95_ms"].as_f64());
        assert!(told(&speed).starts_with("one by one: p50 "), "{}", told(&speed));
        assert_eq!(watch.speed(0, 10, nap), Value::Null);
        assert_eq!(told(&Value::Null), "");
    }
}
