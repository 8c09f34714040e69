//! What was done to a model, in its folder: `firebrick.json`, the card and a plot.

use std::path::Path;

use firebrick_core::checkpoint::Source;
use firebrick_train::report::plots::{Curve, line_chart_svg};
use serde_json::{Value, json};

use crate::{
    folder::put,
    measured::{Measured, points},
};

/// The plot of all candidates.
const PLOT: &str = "compression.svg";

/// Adds how the model of this folder came to be from the model `from`, which is `source`, and what was measured of it and of
/// `all` candidates. The scores in `firebrick.json` become its own; those that its original was published with go to
/// `compression.original.reported`, and stay in the card.
pub fn write(
    folder: &Path,
    source: &Source,
    from: &str,
    method: &str,
    [original, found]: [&Measured; 2],
    all: &[(&str, &Measured)],
) -> anyhow::Result<()> {
    // What was trained on the way has scores of that training, and so has its card.
    let reported = source.json("firebrick.json")?.and_then(|origin| origin.get("metrics").cloned());
    let mut origin = Source::folder(folder).json("firebrick.json")?.unwrap_or_else(|| json!({}));
    if let Some(origin) = origin.as_object_mut() {
        let mut record =
            json!({"from": from, "method": method, "original": original, "found": found});
        origin.insert("metrics".into(), json!({(found.data.as_str()): found.metrics}));
        if let Some(reported) = reported {
            record["original"]["reported"] = reported;
        }
        origin.insert("compression".into(), record);
    }
    put(folder, "firebrick.json", serde_json::to_string_pretty(&origin)?.as_bytes())?;
    put(folder, PLOT, plot(from, all).as_bytes())?;
    append(folder, source, from, &section(from, method, original, found))
}

/// Says in the card of a folder that was converted from the model `from` that its weights became whole numbers; a folder
/// without a card gets one.
pub fn converted(folder: &Path, from: &str, whole_numbers: Option<&str>) -> anyhow::Result<()> {
    let note = whole_numbers.map(|dtype| {
        format!(
            "\n## Whole numbers\n\nConverted from `{from}` to {dtype}. Scores above are those of before: `firebrick eval` \
             says what is left of them.\n"
        )
    });
    append(folder, &Source::folder(folder), from, &note.unwrap_or_default())
}

/// Adds a section to the card of `source`, which is made with the metadata that model hubs read where there is none.
fn append(folder: &Path, source: &Source, from: &str, section: &str) -> anyhow::Result<()> {
    let card = match source.optional("README.md", 1 << 20)? {
        Some(card) => String::from_utf8_lossy(&card).into_owned(),
        None => format!("---\nlibrary_name: firebrick\ntags:\n- firebrick\n---\n\n# {from}\n"),
    };
    put(folder, "README.md", (card + section).as_bytes())
}

/// Size and score of each candidate.
fn plot(from: &str, all: &[(&str, &Measured)]) -> String {
    let score = all.first().and_then(|(_, original)| original.score());
    let score = score.map_or("score", |(name, _)| name);
    let point = |m: &Measured| Some((m.bytes as f64 / 1e6, *m.metrics.get(score)?));
    let curves: Vec<Curve> = all
        .iter()
        .map(|(name, m)| Curve { name: name.to_string(), points: point(m).into_iter().collect() })
        .collect();
    line_chart_svg(&format!("{from}, made smaller"), "MB of weights", score, &curves)
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
        "\n## Compression\n\nMade from `{from}` by {method}. Scores above are those of before; these were measured after it \
         was read back, on {} rows ({}); the times are those of the machine that it was made on.\n\n\
         | | before | after |\n|---|---|---|\n{rows}\n![Size and score of all candidates]({PLOT})\n",
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
        let (home, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // The folder is one that was trained on the way.
        for (folder, card, accuracy) in [(&home, "# mine\n", 0.91), (&dir, "# tuned\n", 0.99)] {
            let metrics = json!({"valid": {"accuracy": accuracy}});
            let origin = json!({"task": "text-classification", "metrics": metrics}).to_string();
            std::fs::write(folder.path().join("README.md"), card).unwrap();
            std::fs::write(folder.path().join("firebrick.json"), origin).unwrap();
        }
        let pair = [measured(4000, 0.9, 4.0), measured(1000, 0.895, 2.0)];
        let all = [("original", &pair[0]), ("int8", &pair[1])];
        let original = Source::folder(home.path());
        write(dir.path(), &original, "sst2", "int8", [&pair[0], &pair[1]], &all).unwrap();
        let card = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
        assert!(
            card.starts_with("# mine\n") && card.contains("| accuracy | 0.9000 | 0.8950 (-0.50) |"),
            "{card}"
        );
        let source = Source::folder(dir.path());
        let origin = source.json("firebrick.json").unwrap().unwrap();
        assert_eq!(origin["task"], "text-classification");
        assert_eq!(origin["metrics"]["valid"]["accuracy"], 0.895);
        let record = read(&source).unwrap();
        assert_eq!(record["found"]["bytes"], 1000);
        assert_eq!(record["original"]["reported"]["valid"]["accuracy"], 0.91);
        let plot = std::fs::read_to_string(dir.path().join(PLOT)).unwrap();
        assert!(plot.contains(">int8<") && plot.matches("<circle").count() == 2, "{plot}");
    }

    #[test]
    fn a_folder_without_a_card_gets_one_with_metadata() {
        let dir = tempfile::tempdir().unwrap();
        converted(dir.path(), "sst2", Some("int8")).unwrap();
        let card = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
        assert!(card.starts_with("---\nlibrary_name: firebrick\n"), "{card}");
        assert!(card.contains("# sst2\n\n## Whole numbers"), "{card}");
        converted(dir.path(), "sst2", None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("README.md")).unwrap(), card);
    }
}
