//! What a finished run leaves beside its model.

use std::path::Path;

use firebrick_train::{
    job::{Shown, chart, curve, page},
    report::Report,
};
use serde_json::json;

use super::{
    corpus::Sentence,
    tagger::{Answer, Judged},
    train::Trained,
};

/// Sentences with a mistake that are shown.
const SHOWN: usize = 12;

pub fn show(dir: &Path, trained: &Trained) -> anyhow::Result<Shown> {
    let corpus = &trained.corpus;
    let mut scores = vec![];
    for (name, key) in [
        ("tags", "valid/tag_accuracy"),
        ("spans, F1", "valid/span_f1"),
        ("labels", "valid/label_accuracy"),
    ] {
        let curve = curve(dir, name, key)?;
        if !curve.points.is_empty() {
            scores.push(curve);
        }
    }
    let mut facts = trained.outcome.facts();
    facts.push(("training sentences".into(), corpus.train.len().to_string()));
    facts.push(("seconds".into(), format!("{:.0}", trained.outcome.counters.seconds)));
    let verdict = match &trained.test {
        Some(test) => format!("{} on test sentences, which chose nothing.", summary(test)),
        None => format!(
            "{} on the validation sentences, which also chose the weights.",
            summary(&trained.valid)
        ),
    };
    let report = Report {
        facts,
        verdict,
        curves: vec![
            chart(
                "Loss",
                "loss",
                vec![curve(dir, "training", "loss")?, curve(dir, "validation", "valid/loss")?],
            ),
            chart("Validation scores", "score", scores),
        ],
        samples: mistakes(&corpus.valid, &trained.valid.answers, &trained.labels),
        data_notes: vec![
            ("training sentences that repeat an earlier one".into(), corpus.repeated.to_string()),
            ("training sentences of another part".into(), corpus.leaking.to_string()),
        ],
        next_steps: vec![(
            format!("firebrick nlp tag TEXT --model {}", dir.display()),
            "ask the model".into(),
        )],
        ..page(dir)?
    };
    let files = vec![("eval/valid.jsonl", answers(&corpus.valid, &trained.valid, &trained.labels))];
    Ok(Shown { report, files })
}

fn summary(judged: &Judged) -> String {
    let percent = |name: &str, value: Option<f64>| {
        value.map(|value| format!("{name} {:.2} %", 100.0 * value))
    };
    let parts = [
        percent("tags", judged.tokens.accuracy()),
        percent("spans (F1)", judged.spans.total().f1()),
        percent("labels", judged.labels.accuracy()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn answers(sentences: &[Sentence], judged: &Judged, labels: &[String]) -> String {
    let lines = sentences.iter().zip(&judged.answers).map(|(sentence, answer)| {
        let label = answer.label.as_ref().map(|(best, _)| &labels[*best]);
        let value = json!({
            "id": sentence.row, "tokens": sentence.tokens, "tags": answer.tags, "label": label,
            "true_tags": sentence.tags, "true_label": sentence.label,
        });
        format!("{value}\n")
    });
    lines.collect()
}

/// Sentences that the model got wrong: words with the wrong tag and the right one.
fn mistakes(
    sentences: &[Sentence],
    answers: &[Answer],
    labels: &[String],
) -> Vec<(String, String)> {
    let wrong = sentences.iter().zip(answers).filter_map(|(sentence, answer)| {
        let words = sentence.tokens.iter().zip(sentence.tags.iter().zip(&answer.tags));
        let mut notes: Vec<String> = words
            .filter(|(_, (truth, said))| truth != said)
            .map(|(word, (truth, said))| format!("{word}: {said}, not {truth}"))
            .collect();
        if let (Some(truth), Some((best, _))) = (&sentence.label, &answer.label)
            && labels[*best] != *truth
        {
            notes.push(format!("label: {}, not {truth}", labels[*best]));
        }
        (!notes.is_empty()).then(|| (sentence.tokens.join(" "), notes.join("\n")))
    });
    wrong.take(SHOWN).collect()
}
