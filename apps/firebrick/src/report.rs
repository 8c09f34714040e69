//! What `report.html` says about one run; how it looks is `firebrick_train::report`'s.

use std::path::Path;

use firebrick_metrics::confusion::Confusion;
use firebrick_nlp::{baseline::Baseline, task::argmax, train::Trained};
use firebrick_train::{
    report::{Example, Report, plots::Curve, render},
    run,
};

/// Examples of each kind that are shown.
const SHOWN: usize = 10;

/// The page of a finished run, with the baseline that was trained beside it.
pub fn html(dir: &Path, trained: &Trained, baseline: &Baseline) -> anyhow::Result<String> {
    let curve = |name: &str, key: &str| -> anyhow::Result<Curve> {
        Ok(Curve { name: name.into(), points: run::curve(dir, key)? })
    };
    let chart =
        |title: &str, y: &str, curves| (title.to_string(), "step".into(), y.to_string(), curves);
    let (ours, theirs) = (percent(&trained.valid.confusion), percent(&baseline.confusion));
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let report = Report {
        title: format!("Run {name}"),
        subtitle: "Every number on this page was measured in this run.".into(),
        facts: vec![
            ("accuracy".into(), ours.clone()),
            ("validation rows".into(), trained.valid.confusion.total().to_string()),
            ("training rows".into(), trained.corpus.train.len().to_string()),
            ("seconds".into(), format!("{:.0}", trained.seconds)),
            ("tokens".into(), trained.tokens.to_string()),
        ],
        verdict: format!(
            "{ours} on the validation rows, {theirs} for TF-IDF with logistic regression. \
             The validation rows also chose the weights, so expect somewhat less on new text."
        ),
        curves: vec![
            chart(
                "Loss",
                "loss",
                vec![curve("training", "loss")?, curve("validation", "valid/loss")?],
            ),
            chart("Validation accuracy", "accuracy", vec![curve("accuracy", "valid/accuracy")?]),
        ],
        confusion: Some((
            trained.corpus.labels.clone(),
            trained.valid.confusion.rows().map(<[u64]>::to_vec).collect(),
        )),
        comparison: vec![
            ("this model".into(), ours, format!("{:.0} s", trained.seconds)),
            (
                "TF-IDF + logistic regression".into(),
                theirs,
                format!("{} features, {:.1} s", baseline.features, baseline.seconds),
            ),
        ],
        right: examples(trained, true),
        wrong: examples(trained, false),
        data_notes: data_notes(trained),
        recipe_toml: std::fs::read_to_string(dir.join("recipe.toml"))?,
        next_steps: vec![
            ("firebrick recipe cp sst2 mine.toml".into(), "train on a CSV of your own".into()),
            ("firebrick train sst2-minilm".into(), "fine-tune a pretrained encoder".into()),
        ],
    };
    Ok(render(&report))
}

fn percent(confusion: &Confusion) -> String {
    confusion.accuracy().map_or("-".into(), |a| format!("{:.2} %", 100.0 * a))
}

fn data_notes(trained: &Trained) -> Vec<(String, String)> {
    let corpus = &trained.corpus;
    let dropped = corpus.ledgers.iter().flat_map(|(part, ledger)| {
        let counts = ledger.counts().into_iter();
        counts.map(move |(reason, n)| {
            (format!("{part}: dropped, {reason:?}").to_lowercase(), n.to_string())
        })
    });
    let leaks =
        ("pairs of like rows in different parts".into(), corpus.leaks.pairs.len().to_string());
    dropped.chain([leaks]).collect()
}

/// The surest answers, right or wrong.
fn examples(trained: &Trained, right: bool) -> Vec<Example> {
    let labels = &trained.corpus.labels;
    let known = trained.corpus.valid.iter().filter_map(|row| {
        Some((row, labels.iter().position(|label| Some(label) == row.label.as_ref())?))
    });
    let mut found: Vec<Example> = known
        .zip(&trained.valid.scores)
        .filter_map(|((row, truth), scores)| {
            let best = argmax(scores);
            ((best == truth) == right).then(|| Example {
                text: row.text.clone(),
                truth: labels[truth].clone(),
                predicted: labels[best].clone(),
                confidence: f64::from(scores[best]),
                row: row.row,
            })
        })
        .collect();
    found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    found.truncate(SHOWN);
    found
}
