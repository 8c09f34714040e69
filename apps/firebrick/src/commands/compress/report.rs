//! What `firebrick compress` says: a table of all candidates.

use firebrick_compress::measured::{Measured, WATTS, pareto, points};
use firebrick_metrics::bootstrap::interval;
use serde_json::json;

use super::Found;
use crate::{
    cli::{CompressArgs, Global},
    commands::print,
};

pub(super) fn report(
    args: &CompressArgs,
    global: &Global,
    original: &Measured,
    Found { candidates, sensitivity }: &Found,
    best: usize,
) {
    let mut all = vec![("original", original)];
    all.extend(candidates.iter().map(|candidate| (candidate.name.as_str(), &candidate.measured)));
    let front = pareto(&all.iter().map(|(_, measured)| *measured).collect::<Vec<_>>());
    let (score, old) = original.score().unwrap_or(("score", 0.0));
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let sparse = candidates.iter().any(|candidate| candidate.zeros.is_some());
    let zeros = std::iter::once(None).chain(candidates.iter().map(|candidate| candidate.zeros));
    let energy = format!("mJ/row (at {WATTS} W)");
    let more: Vec<_> = all.iter().map(|(_, m)| points_interval(score, original, m)).collect();
    let paired = more[1..].iter().any(Option::is_some);
    let mut header = vec![
        "", "MB", "of it", score, "95 %", "points", "p50 ms", "p95 ms", "rows/s", "peak MB",
        &energy, "front",
    ];
    if paired {
        header.insert(6, "95 % of them");
    }
    header.extend(sparse.then_some("zeros"));
    table.set_header(header);
    for ((((name, m), front), zeros), more) in all.iter().zip(&front).zip(zeros).zip(&more) {
        let value = m.metrics.get(score).copied().unwrap_or_default();
        let interval =
            m.interval.map_or(String::new(), |[low, high]| format!("{low:.4} .. {high:.4}"));
        let mut row = vec![
            name.to_string(),
            format!("{:.2}", m.bytes as f64 / 1e6),
            format!("{:.1} %", 100.0 * m.bytes as f64 / original.bytes.max(1) as f64),
            format!("{value:.4}"),
            interval,
            format!("{:+.2}", points(score, old, value)),
            format!("{:.2}", m.p50_ms),
            format!("{:.2}", m.p95_ms),
            format!("{:.0}", m.rows_per_second),
            format!("{:.0}", m.peak_mb),
            format!("{:.1}", m.millijoules_per_row()),
            if *front { "*" } else { "" }.to_string(),
        ];
        if paired {
            let more = more.map_or(String::new(), |(low, high)| format!("{low:+.2} .. {high:+.2}"));
            row.insert(6, more);
        }
        row.extend(zeros.map(|share| format!("{:.1} %", 100.0 * share)));
        table.add_row(row);
    }
    let mut text = format!("{} rows: {}\n{table}\n", original.rows, original.data);
    if !sensitivity.is_empty() {
        text.push_str("\none weight alone (what the loss rises by)\n");
        for (name, cost) in sensitivity {
            text.push_str(&format!("{:>9}  {name}\n", three_digits(*cost)));
        }
    }
    text.push_str(&format!("kept     {} in {}\n", candidates[best].name, args.output.display()));
    let mut entries: Vec<serde_json::Value> = all
        .iter()
        .zip(front)
        .map(|((name, m), front)| {
            let energy = m.millijoules_per_row();
            json!({"name": name, "front": front, "measured": m, "millijoules_per_row": energy})
        })
        .collect();
    for ((entry, candidate), more) in entries[1..].iter_mut().zip(candidates).zip(&more[1..]) {
        if let Some(more) = more {
            entry["points_95"] = json!(more);
        }
        entry["method"] = candidate.method.as_str().into();
        if let Some(zeros) = candidate.zeros {
            entry["zeros"] = zeros.into();
        }
    }
    let weights: Vec<serde_json::Value> =
        sensitivity.iter().map(|(name, cost)| json!({"weight": name, "cost": cost})).collect();
    let document = json!({
        "output": args.output, "kept": candidates[best].name, "candidates": entries, "sensitivity": weights,
        "watts": WATTS,
    });
    print(global, &document, &text);
}

/// Between which points more than the original a candidate has, at 95 %: the difference on the same rows, drawn for both (the
/// paired bootstrap). `None` of scores whose intervals are not found by drawing.
fn points_interval(score: &str, original: &Measured, found: &Measured) -> Option<(f64, f64)> {
    let pairs = original.resampled.iter().zip(&found.resampled);
    interval(&pairs.map(|(old, new)| points(score, *old, *new)).collect::<Vec<_>>())
}

/// With its sign and three digits that count, so that small numbers still tell which is larger.
fn three_digits(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    let scientific = format!("{x:+.2e}");
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok());
    match exponent {
        Some(places @ -3..=2) => format!("{x:+.*}", (2 - places) as usize),
        _ => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_keep_three_digits() {
        let said =
            [0.12345, -0.012345, 1.2345, -123.45, 1e-3, 9.999e-4, 1.2345e-6, -4e-9, 0.0, -0.0];
        let said = said.map(three_digits);
        let wanted = [
            "+0.123", "-0.0123", "+1.23", "-123", "+0.00100", "+0.00100", "+1.23e-6", "-4.00e-9",
            "0", "0",
        ];
        assert_eq!(said, wanted);
        assert_eq!([0.99999, 999.9, f64::NAN].map(three_digits), ["+1.00", "+1.00e3", "NaN"]);
    }
}
