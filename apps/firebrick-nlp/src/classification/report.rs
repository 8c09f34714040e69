//! What a finished run leaves beside its model: `report.html`, `plots/*.svg`, `eval/`. How they look is
//! [`firebrick_train::report`]'s.

use std::path::Path;

use firebrick_metrics::confusion::{Confusion, argmax};
use firebrick_train::{
    job::{Shown, chart, curve, page},
    report::{Example, Report},
};
use serde_json::json;

use super::{
    baseline::Baseline,
    task::Judged,
    train::{Trained, with_known_label},
};

/// Examples of each kind that are shown.
const SHOWN: usize = 10;

/// Page and evaluation of a run, compared with a baseline where there is one.
pub fn show(dir: &Path, trained: &Trained, baseline: Option<&Baseline>) -> anyhow::Result<Shown> {
    let labels = &trained.corpus.labels;
    let mut files = vec![
        ("eval/valid.json", evaluation(&trained.valid, labels)?),
        ("eval/valid.jsonl", answers(trained)),
    ];
    if let Some(test) = &trained.test {
        files.push(("eval/test.json", evaluation(test, labels)?));
    }
    Ok(Shown { report: describe(dir, trained, baseline)?, files })
}

/// Scores and counts by class, as JSON.
fn evaluation(judged: &Judged, labels: &[String]) -> anyhow::Result<String> {
    let counts: Vec<_> = judged.confusion.rows().collect();
    let value = json!({
        "rows": judged.confusion.total(), "metrics": judged.metrics(),
        "labels": labels, "confusion": counts,
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// What the model says of every validation row, as `predict` writes it, with the truth beside it.
fn answers(trained: &Trained) -> String {
    let labels = &trained.corpus.labels;
    let rows = with_known_label(&trained.corpus.valid, labels).zip(&trained.valid.scores);
    rows.map(|((row, truth), scores)| {
        let scores_by_label: serde_json::Map<_, _> =
            labels.iter().zip(scores).map(|(label, p)| (label.clone(), json!(p))).collect();
        let value = json!({
            "id": row.row, "label": labels[argmax(scores)], "truth": labels[truth],
            "scores": scores_by_label,
        });
        format!("{value}\n")
    })
    .collect()
}

fn describe(dir: &Path, trained: &Trained, baseline: Option<&Baseline>) -> anyhow::Result<Report> {
    let ours = percent(&trained.valid.confusion);
    let mut facts = vec![
        ("validation accuracy".into(), ours.clone()),
        ("validation rows".into(), trained.valid.confusion.total().to_string()),
        ("training rows".into(), trained.corpus.train.len().to_string()),
        ("seconds".into(), format!("{:.0}", trained.outcome.counters.seconds)),
        ("tokens".into(), trained.outcome.counters.tokens.to_string()),
    ];
    let caution =
        "The validation rows also chose the weights, so expect somewhat less on new text.";
    let mut verdict = format!("{ours} on the validation rows. {caution}");
    if let Some(test) = &trained.test {
        let theirs = percent(&test.confusion);
        facts.insert(0, ("test accuracy".into(), theirs.clone()));
        verdict = format!("{theirs} on {} test rows, which chose nothing.", test.confusion.total());
    }
    let mut comparison = vec![];
    if let Some(baseline) = baseline {
        let theirs = percent(&baseline.confusion);
        verdict = format!(
            "{ours} on the validation rows, {theirs} for TF-IDF with logistic regression. {caution}"
        );
        comparison = vec![
            ("this model".into(), ours, format!("{:.0} s", trained.outcome.counters.seconds)),
            (
                "TF-IDF + logistic regression".into(),
                theirs,
                format!("{} features, {:.1} s", baseline.features, baseline.seconds),
            ),
        ];
    }
    Ok(Report {
        facts,
        verdict,
        curves: vec![
            chart(
                "Loss",
                "loss",
                vec![curve(dir, "training", "loss")?, curve(dir, "validation", "valid/loss")?],
            ),
            chart(
                "Validation accuracy",
                "accuracy",
                vec![curve(dir, "accuracy", "valid/accuracy")?],
            ),
        ],
        confusion: Some((
            trained.corpus.labels.clone(),
            trained.valid.confusion.rows().map(<[u64]>::to_vec).collect(),
        )),
        comparison,
        right: examples(trained, true),
        wrong: examples(trained, false),
        data_notes: data_notes(trained),
        next_steps: vec![
            (
                format!("firebrick nlp sentiment TEXT --model {}", dir.display()),
                "ask the model".into(),
            ),
            ("firebrick recipe cp sst2 mine.toml".into(), "train on a CSV of your own".into()),
        ],
        ..page(dir)?
    })
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
    let mut found: Vec<Example> = with_known_label(&trained.corpus.valid, labels)
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
