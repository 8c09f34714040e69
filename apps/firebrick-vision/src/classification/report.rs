//! What a finished run leaves beside its model.

use std::path::Path;

use firebrick_data::image::{Picture, sheet::sheet};
use firebrick_metrics::interval::wilson_interval;
use firebrick_train::{
    job::{Shown, chart, curve, page},
    report::{self, Example, Report, plots},
};
use serde_json::json;

use super::{
    decision::decide,
    layouts::Sample,
    task::{Judged, with_known_label},
    train::Trained,
};
use crate::page::{notes, pictured};

/// Mistakes that are listed, and that are shown as pictures.
const LISTED: usize = 12;
const PICTURED: usize = 32;

pub fn show(dir: &Path, trained: &Trained) -> anyhow::Result<Shown> {
    let corpus = &trained.corpus;
    let mut files = vec![("eval/valid.jsonl", answers(trained, &corpus.valid, &trained.valid))];
    let (part, samples, judged) = match (&corpus.test, &trained.test) {
        (Some(samples), Some(judged)) => {
            files.push(("eval/test.jsonl", answers(trained, samples, judged)));
            ("test", samples, judged)
        }
        _ => ("validation", &corpus.valid, &trained.valid),
    };
    let mistakes = mistakes(trained, samples, judged);
    let mut curves = vec![
        chart(
            "Loss",
            "loss",
            vec![curve(dir, "training", "loss")?, curve(dir, "validation", "valid/loss")?],
        ),
        chart("Validation accuracy", "accuracy", vec![curve(dir, "accuracy", "valid/accuracy")?]),
    ];
    if let Some(roc) = &judged.roc {
        let curve = plots::Curve { name: part.into(), points: roc.curve() };
        let axes = ("share of false alarms".to_string(), "share found".to_string());
        curves.push(("Receiver operating characteristic".into(), axes.0, axes.1, vec![curve]));
    }
    let report = Report {
        facts: facts(trained),
        verdict: verdict(part, judged),
        curves,
        confusion: Some((
            corpus.labels.clone(),
            judged.confusion.rows().map(<[u64]>::to_vec).collect(),
        )),
        wrong: mistakes.iter().take(LISTED).map(|(example, _)| example.clone()).collect(),
        pictures: pictures(trained, part, &mistakes),
        data_notes: notes(corpus.remarks()),
        next_steps: vec![(
            format!("firebrick vision classify IMAGE --model {}", dir.display()),
            "ask the model".into(),
        )],
        ..page(dir)?
    };
    Ok(Shown { report, files })
}

fn facts(trained: &Trained) -> Vec<(String, String)> {
    let mut facts = trained.outcome.facts();
    if let Some(temperature) = trained.temperature {
        facts.push(("temperature".into(), format!("{temperature:.3}")));
    }
    if let Some(decision) = &trained.classifier.decision {
        let [low, high] = decision.abstain;
        facts.push(("threshold".into(), format!("{:.4}", decision.threshold)));
        facts.push(("abstains between".into(), format!("{low:.4} and {high:.4}")));
    }
    facts.push(("training pictures".into(), trained.corpus.train.len().to_string()));
    facts.push(("seconds".into(), format!("{:.0}", trained.outcome.counters.seconds)));
    facts
}

/// Accuracy, and what else there is, each with its 95 % interval.
fn verdict(part: &str, judged: &Judged) -> String {
    let (right, all) = (judged.confusion.correct(), judged.confusion.total());
    let mut text = format!("{} of {all} {part} pictures", share(right, all));
    if let Some((auc, (low, high))) =
        judged.roc.as_ref().and_then(|roc| Some((roc.auc()?, roc.auc_interval()?)))
    {
        text.push_str(&format!(", AUC {auc:.4} (95 % between {low:.4} and {high:.4})"));
    }
    let chose = match part {
        "test" => "which chose nothing",
        _ => "which also chose the weights",
    };
    text + &format!(", {chose}.")
}

/// `97.5 % (95 % between 96.9 and 98.0)`
pub fn share(right: u64, all: u64) -> String {
    let percent = 100.0 * right as f64 / all.max(1) as f64;
    match wilson_interval(right, all) {
        Some((low, high)) => {
            format!("{percent:.2} % (95 % between {:.2} and {:.2})", 100.0 * low, 100.0 * high)
        }
        None => "none".into(),
    }
}

/// Of the recall of each label, at 95 %; `None` where there is nothing to find.
pub fn recall_intervals(judged: &Judged) -> Vec<Option<(f64, f64)>> {
    let recall = |class: usize| {
        wilson_interval(judged.confusion.count(class, class), judged.confusion.support(class))
    };
    (0..judged.confusion.classes()).map(recall).collect()
}

/// What the model says of every picture, as `predict` writes it, with the truth beside it.
fn answers(trained: &Trained, samples: &[Sample], judged: &Judged) -> String {
    let classifier = &trained.classifier;
    let rows = with_known_label(samples, &classifier.labels).zip(&judged.scores);
    rows.map(|((sample, _), scores)| {
        let answer = decide(classifier.decision.as_ref(), &classifier.labels, scores);
        let label = &classifier.labels[answer.label];
        answer_line(&sample.id, label, &sample.label, &classifier.labels, scores)
    })
    .collect()
}

/// An answer as `predict` writes it, with the truth beside it.
pub fn answer_line(
    id: &str,
    label: &str,
    truth: &str,
    labels: &[String],
    scores: &[f32],
) -> String {
    let scores: serde_json::Map<_, _> =
        labels.iter().zip(scores).map(|(label, p)| (label.clone(), json!(p))).collect();
    let value = json!({"id": id, "label": label, "truth": truth, "scores": scores});
    format!("{value}\n")
}

/// The surest wrong answers and their pictures.
fn mistakes(trained: &Trained, samples: &[Sample], judged: &Judged) -> Vec<(Example, Picture)> {
    let classifier = &trained.classifier;
    let rows = with_known_label(samples, &classifier.labels).zip(&judged.scores).enumerate();
    let mut found: Vec<(Example, Picture)> = rows
        .filter_map(|(row, ((sample, truth), scores))| {
            let answer = decide(classifier.decision.as_ref(), &classifier.labels, scores);
            (answer.label != truth).then(|| {
                let example = Example {
                    text: sample.id.clone(),
                    truth: sample.label.clone(),
                    predicted: classifier.labels[answer.label].clone(),
                    confidence: f64::from(scores[answer.label]),
                    row,
                };
                (example, sample.picture.clone())
            })
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| b.confidence.total_cmp(&a.confidence));
    found
}

fn pictures(
    trained: &Trained,
    part: &str,
    mistakes: &[(Example, Picture)],
) -> Vec<report::Picture> {
    let caption = "Training pictures as the first step saw them.".to_string();
    let mut pictures = vec![pictured("batch", caption, &trained.shown)];
    let wrong: Vec<Picture> = mistakes.iter().take(PICTURED).map(|(_, p)| p.clone()).collect();
    if !wrong.is_empty() {
        let (n, all) = (wrong.len(), mistakes.len());
        let caption =
            format!("The {n} surest of {all} mistakes on the {part} pictures, the surest first.");
        pictures.push(pictured("mistakes", caption, &sheet(&wrong, 8.min(n), 96)));
    }
    pictures
}
