//! A budget: what a smaller model may cost, held to the model that it was made from.

use crate::measured::{Measured, lower_is_better, points};

/// `size<=25%,accuracy>=-0.5`: all must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Budget(Vec<Limit>);

/// One of its parts.
#[derive(Debug, Clone, PartialEq)]
struct Limit {
    /// `size`, `latency`, `memory`, or a score.
    what: String,
    at_least: bool,
    value: f64,
    /// In percent of the original's, of a score that much more; else MB, ms, or points more than the original.
    share: bool,
}

impl Budget {
    /// - `size<=25%`, `latency<=50%`, `memory<=80%`: of the original
    /// - `size<=3`, `latency<=1.5`, `memory<=200`: MB of weights, ms (p50), MB
    /// - `accuracy>=-0.5`, `bleu>=-1`, `perplexity<=2`: points more than the original
    /// - `perplexity<=5%`: of the original, more than it
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(|part| Limit::parse(part.trim())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a model with these scores can be held to it.
    pub fn check(&self, original: &Measured) -> Result<(), String> {
        let costs = ["size", "latency", "memory"];
        let known =
            |name: &String| costs.contains(&name.as_str()) || original.metrics.contains_key(name);
        match self.0.iter().map(|limit| &limit.what).find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                let scores = original.metrics.keys().map(String::as_str);
                let known: Vec<&str> = costs.into_iter().chain(scores).collect();
                Err(format!("no score `{name}` (there are {})", known.join(", ")))
            }
        }
    }

    /// What is missed and by how much; empty when all hold.
    pub fn missed(&self, found: &Measured, original: &Measured) -> Vec<String> {
        self.0
            .iter()
            .filter_map(|limit| limit.missed(found, original))
            .map(|(_, text)| text)
            .collect()
    }

    /// How far the limits are missed, together; 0 when all hold.
    pub fn distance(&self, found: &Measured, original: &Measured) -> f64 {
        self.0.iter().filter_map(|limit| limit.missed(found, original)).map(|(by, _)| by).sum()
    }
}

impl Limit {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once("<=").map(|parts| (parts, false));
        let parts = parts.or_else(|| text.split_once(">=").map(|parts| (parts, true)));
        let parsed = parts.and_then(|((what, value), at_least)| {
            let (value, share) = match value.trim().strip_suffix('%') {
                Some(value) => (value, true),
                None => (value.trim(), false),
            };
            let value = value.parse::<f64>().ok().filter(|value| value.is_finite())?;
            Some(Self { what: what.trim().into(), at_least, value, share })
        });
        parsed.ok_or_else(|| format!("`{text}` is not like size<=25% or accuracy>=-0.5"))
    }

    /// By how much, in parts of the limit, and in words.
    fn missed(&self, found: &Measured, original: &Measured) -> Option<(f64, String)> {
        let cost = |m: &Measured| match self.what.as_str() {
            "size" => Some(m.bytes as f64 / 1e6),
            "latency" => Some(m.p50_ms),
            "memory" => Some(m.peak_mb),
            _ => None,
        };
        let (found, unit) = match (cost(found), cost(original)) {
            (Some(found), Some(original)) if self.share => (100.0 * found / original, "%"),
            (Some(found), _) => (found, if self.what == "latency" { " ms" } else { " MB" }),
            _ => {
                let name = &self.what;
                let (Some(new), Some(old)) = (found.metrics.get(name), original.metrics.get(name))
                else {
                    return Some((f64::INFINITY, format!("no score `{name}`")));
                };
                match self.share {
                    true => (100.0 * (new - old) / old.abs(), "% more"),
                    false => (points(name, *old, *new), " points"),
                }
            }
        };
        let least = if unit == " points" { 1.0 } else { 1e-3 };
        let over = if self.at_least { self.value - found } else { found - self.value };
        // A tenth of a millionth is rounding.
        (over > 1e-7 || over.is_nan()).then(|| {
            let (what, value) = (&self.what, self.value);
            let sign = if self.at_least { ">=" } else { "<=" };
            let text = format!(
                "{what} is {found:.2}{unit}, not {sign} {value}{unit}: missed by {over:.2}{unit}"
            );
            (over / value.abs().max(least), text)
        })
    }
}

/// Which of the candidates is kept: of those within the budget the smallest, and of equals the best; if none is, the one
/// that misses it by least.
pub fn choose(budget: &Budget, candidates: &[&Measured], original: &Measured) -> Option<usize> {
    let worth = |m: &Measured| {
        let (name, score) = m.score().unwrap_or(("", 0.0));
        if lower_is_better(name) { score } else { -score }
    };
    let key = |m: &Measured| (budget.distance(m, original), m.bytes, worth(m));
    let order = |a: &(f64, u64, f64), b: &(f64, u64, f64)| {
        a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.total_cmp(&b.2))
    };
    let keys = candidates.iter().map(|m| key(m)).enumerate();
    keys.min_by(|a, b| order(&a.1, &b.1)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::tests::measured;

    #[test]
    fn a_budget_says_by_how_much_it_is_missed() {
        let original = measured(1_000_000, 0.90, 4.0);
        let small = measured(250_000, 0.893, 2.0);
        let check = |budget: &str, missed: &[&str]| {
            assert_eq!(
                Budget::parse(budget).unwrap().missed(&small, &original),
                missed,
                "{budget}"
            );
        };
        check("size<=25%, accuracy>=-0.7", &[]);
        check(
            "accuracy>=-0.5",
            &["accuracy is -0.70 points, not >= -0.5 points: missed by 0.20 points"],
        );
        check(
            "size<=20%,latency<=1",
            &[
                "size is 25.00%, not <= 20%: missed by 5.00%",
                "latency is 2.00 ms, not <= 1 ms: missed by 1.00 ms",
            ],
        );
        check("loss<=0%", &[]);
        check("accuracy>=+1%", &["accuracy is -0.78% more, not >= 1% more: missed by 1.78% more"]);
        let unknown = Budget::parse("size<=3,bleu>=0").unwrap().check(&original).unwrap_err();
        assert_eq!(unknown, "no score `bleu` (there are size, latency, memory, accuracy, loss)");
        assert_eq!(Budget::parse("loss<=0,memory<=1").unwrap().check(&original), Ok(()));
        for bad in ["", "size", "size<=big", "size<25%", "size<=3,"] {
            assert!(Budget::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_smallest_within_the_budget_is_kept_and_else_the_nearest() {
        let original = measured(1000, 0.90, 4.0);
        let [int8, int4] = [measured(260, 0.899, 2.0), measured(150, 0.87, 2.0)];
        let pick =
            |budget: &str| choose(&Budget::parse(budget).unwrap(), &[&int8, &int4], &original);
        assert_eq!(pick("accuracy>=-0.5"), Some(0));
        assert_eq!(pick("size<=20%"), Some(1));
        assert_eq!(pick("size<=10%,accuracy>=-0.5"), Some(0));
        assert_eq!(choose(&Budget::default(), &[], &original), None);
    }
}
