//! What a finished run leaves beside its model: `report.html`, `plots/*.svg`, `eval/`.

use std::path::Path;

use firebrick_metrics::confusion::{Confusion, argmax};
use firebrick_train::{
    job::{Shown, chart, curve, page},
    report::{Example, Report},
};
use serde_json::json;

use super::{
    task::{Judged, frames},
    train::Trained,
};
use crate::{
    picture::{Picture, spectrograms_svg},
    recordings::Recording,
};

/// Examples of each kind that are shown.
const SHOWN: usize = 10;

pub fn show(dir: &Path, trained: &Trained) -> anyhow::Result<Shown> {
    let mut files = vec![
        ("eval/valid.json", evaluation(&trained.valid, &trained.corpus.labels)?),
        ("eval/valid.jsonl", answers(trained, &trained.corpus.valid, &trained.valid)),
        ("plots/spectrograms.svg", pictures(trained)),
    ];
    if let Some(test) = &trained.test {
        files.push(("eval/test.json", evaluation(test, &trained.corpus.labels)?));
    }
    Ok(Shown { report: describe(dir, trained)?, files })
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

/// Recordings whose label is known, with its place and what the model said.
fn judged<'a>(
    trained: &'a Trained,
    recordings: &'a [Recording],
    judged: &'a Judged,
) -> impl Iterator<Item = (&'a Recording, usize, &'a Vec<f32>)> {
    let labels = &trained.corpus.labels;
    let known = recordings.iter().filter_map(move |recording| {
        Some((recording, labels.iter().position(|label| *label == recording.label)?))
    });
    known.zip(&judged.scores).map(|((recording, truth), scores)| (recording, truth, scores))
}

/// What the model says of every recording, as `predict` writes it, with the truth beside it.
fn answers(trained: &Trained, recordings: &[Recording], of: &Judged) -> String {
    let labels = &trained.corpus.labels;
    let line = |(recording, truth, scores): (&Recording, usize, &Vec<f32>)| {
        let by_label: serde_json::Map<_, _> =
            labels.iter().zip(scores).map(|(label, p)| (label.clone(), json!(p))).collect();
        let value = json!({
            "id": recording.id, "label": labels[argmax(scores)], "truth": labels[truth],
            "scores": by_label,
        });
        format!("{value}\n")
    };
    judged(trained, recordings, of).map(line).collect()
}

/// A recording of each class as the model sees it, then some that it got wrong.
fn pictures(trained: &Trained) -> String {
    let labels = &trained.corpus.labels;
    let classifier = &trained.classifier;
    let picture = |recording: &Recording, caption: String| Picture {
        frames: frames(&recording.samples, &classifier.preprocessor, &classifier.mel),
        bands: classifier.preprocessor.mel.width(),
        caption,
    };
    let mut pictures = vec![];
    for label in labels.iter().take(24) {
        let first = trained.corpus.train.iter().find(|recording| recording.label == *label);
        pictures.extend(first.map(|recording| picture(recording, label.clone())));
    }
    let wrong = judged(trained, &trained.corpus.valid, &trained.valid);
    for (recording, truth, scores) in
        wrong.filter(|(_, truth, scores)| argmax(scores) != *truth).take(SHOWN)
    {
        let said = &labels[argmax(scores)];
        pictures
            .push(picture(recording, format!("{said}, not {} ({})", labels[truth], recording.id)));
    }
    spectrograms_svg(&pictures)
}

fn describe(dir: &Path, trained: &Trained) -> anyhow::Result<Report> {
    let ours = percent(&trained.valid.confusion);
    let corpus = &trained.corpus;
    let mut facts = vec![
        ("validation accuracy".into(), ours.clone()),
        ("validation recordings".into(), trained.valid.confusion.total().to_string()),
        ("training recordings".into(), corpus.train.len().to_string()),
        ("seconds".into(), format!("{:.0}", trained.outcome.counters.seconds)),
    ];
    let mut verdict = format!(
        "{ours} on the validation recordings, which also chose the weights: expect somewhat less on new ones."
    );
    if let Some(test) = &trained.test {
        let theirs = percent(&test.confusion);
        facts.insert(0, ("test accuracy".into(), theirs.clone()));
        verdict =
            format!("{theirs} on {} test recordings, which chose nothing.", test.confusion.total());
    }
    let confusion = trained.test.as_ref().unwrap_or(&trained.valid).confusion.rows();
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
        confusion: Some((corpus.labels.clone(), confusion.map(<[u64]>::to_vec).collect())),
        right: examples(trained, true),
        wrong: examples(trained, false),
        data_notes: vec![
            ("recordings that could not be read".into(), corpus.unreadable.len().to_string()),
            ("recordings of another part, dropped".into(), corpus.leaking.to_string()),
        ],
        next_steps: vec![(
            format!("firebrick speech keyword FILE.wav --model {}", dir.display()),
            "ask the model".into(),
        )],
        ..page(dir)?
    })
}

fn percent(confusion: &Confusion) -> String {
    confusion.accuracy().map_or("-".into(), |a| format!("{:.2} %", 100.0 * a))
}

/// The surest answers, right or wrong.
fn examples(trained: &Trained, right: bool) -> Vec<Example> {
    let labels = &trained.corpus.labels;
    let all = judged(trained, &trained.corpus.valid, &trained.valid).enumerate();
    let mut found: Vec<Example> = all
        .filter(|(_, (_, truth, scores))| (argmax(scores) == *truth) == right)
        .map(|(row, (recording, truth, scores))| Example {
            text: recording.id.clone(),
            truth: labels[truth].clone(),
            predicted: labels[argmax(scores)].clone(),
            confidence: f64::from(scores[argmax(scores)]),
            row,
        })
        .collect();
    found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    found.truncate(SHOWN);
    found
}
