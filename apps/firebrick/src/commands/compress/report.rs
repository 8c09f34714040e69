//! What `firebrick compress` says: a table of all candidates.

use firebrick_compress::measured::{Measured, WATTS, pareto, points};
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
    let mut header = vec![
        "", "MB", "of it", score, "points", "95 %", "p50 ms", "p95 ms", "rows/s", "peak MB",
        &energy, "front",
    ];
    header.extend(sparse.then_some("zeros"));
    table.set_header(header);
    for (((name, m), front), zeros) in all.iter().zip(&front).zip(zeros) {
        let value = m.metrics.get(score).copied().unwrap_or_default();
        let interval =
            m.interval.map_or(String::new(), |[low, high]| format!("{low:.4} .. {high:.4}"));
        let mut row = vec![
            name.to_string(),
            format!("{:.2}", m.bytes as f64 / 1e6),
            format!("{:.1} %", 100.0 * m.bytes as f64 / original.bytes.max(1) as f64),
            format!("{value:.4}"),
            format!("{:+.2}", points(score, old, value)),
            interval,
            format!("{:.2}", m.p50_ms),
            format!("{:.2}", m.p95_ms),
            format!("{:.0}", m.rows_per_second),
            format!("{:.0}", m.peak_mb),
            format!("{:.1}", m.millijoules_per_row()),
            if *front { "*" } else { "" }.to_string(),
        ];
        row.extend(zeros.map(|share| format!("{:.1} %", 100.0 * share)));
        table.add_row(row);
    }
    let mut text = format!("{} rows: {}\n{table}\n", original.rows, original.data);
    if !sensitivity.is_empty() {
        text.push_str("\none weight alone (what the loss rises by)\n");
        sensitivity.iter().for_each(|(name, cost)| text.push_str(&format!("{cost:+.5}  {name}\n")));
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
    for (entry, candidate) in entries[1..].iter_mut().zip(candidates) {
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
