//! What was done to a model, in its folder: `firebrick.json` and the card.

use std::path::Path;

use firebrick_core::checkpoint::Source;
use serde_json::{Value, json};

use crate::{
    folder::put,
    measured::{Measured, points},
};

/// Adds how the model of this folder came to be and what was measured of it; what was there before stays.
pub fn write(
    folder: &Path,
    from: &str,
    method: &str,
    [original, found]: [&Measured; 2],
) -> anyhow::Result<()> {
    let source = Source::folder(folder);
    let mut origin = source.json("firebrick.json")?.unwrap_or_else(|| json!({}));
    if let Some(origin) = origin.as_object_mut() {
        let record = json!({"from": from, "method": method, "original": original, "found": found});
        origin.insert("compression".into(), record);
    }
    put(folder, "firebrick.json", serde_json::to_string_pretty(&origin)?.as_bytes())?;
    let card = source.optional("README.md", 1 << 20)?.unwrap_or_default();
    let mut card = String::from_utf8_lossy(&card).into_owned();
    card.push_str(&section(from, method, original, found));
    put(folder, "README.md", card.as_bytes())
}

fn section(from: &str, method: &str, original: &Measured, found: &Measured) -> String {
    let mut rows = String::new();
    let mut row = |what: &str, old: String, new: String| {
        rows.push_str(&format!("| {what} | {old} | {new} |\n"));
    };
    for (name, old) in &original.metrics {
        let Some(new) = found.metrics.get(name) else { continue };
        let more = points(name, *old, *new);
        row(name, format!("{old:.4}"), format!("{new:.4} ({more:+.2})"));
    }
    let mb = |m: &Measured| format!("{:.2}", m.bytes as f64 / 1e6);
    row("weights, MB", mb(original), mb(found));
    let ms = |m: &Measured| format!("{:.2}, {:.2}", m.p50_ms, m.p95_ms);
    row("latency p50, p95, ms", ms(original), ms(found));
    let memory = |m: &Measured| format!("{:.0}", m.peak_mb);
    row("peak memory, MB", memory(original), memory(found));
    format!(
        "\n## Compression\n\nMade from `{from}` by {method}. Measured after it was read back, on {} rows ({}); the \
         times are those of the machine that it was made on.\n\n| | before | after |\n|---|---|---|\n{rows}",
        found.rows, found.data,
    )
}

/// What a folder's `firebrick.json` says of its compression.
pub fn read(source: &Source) -> Option<Value> {
    source.json("firebrick.json").ok()??.get("compression").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::tests::measured;

    #[test]
    fn what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("README.md"), "# mine\n").unwrap();
        std::fs::write(dir.path().join("firebrick.json"), r#"{"task": "text-classification"}"#)
            .unwrap();
        let pair = [measured(4000, 0.9, 4.0), measured(1000, 0.895, 2.0)];
        write(dir.path(), "sst2", "int8", [&pair[0], &pair[1]]).unwrap();
        let card = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
        assert!(
            card.starts_with("# mine\n") && card.contains("| accuracy | 0.9000 | 0.8950 (-0.50) |"),
            "{card}"
        );
        let source = Source::folder(dir.path());
        assert_eq!(source.json("firebrick.json").unwrap().unwrap()["task"], "text-classification");
        assert_eq!(read(&source).unwrap()["found"]["bytes"], 1000);
    }
}
