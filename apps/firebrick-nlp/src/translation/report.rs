//! What a finished run leaves beside its model.

use std::path::Path;

use firebrick_metrics::chrf::Chrf;
use firebrick_train::{
    job::{Shown, chart, curve, page},
    report::Report,
};
use serde_json::json;

use super::{
    corpus::{Corpus, Pair},
    train::Trained,
    translator::Judged,
};

/// Translations that are shown.
const SHOWN: usize = 10;

/// What was dropped of each part, in words.
pub fn dropped(corpus: &Corpus) -> Vec<(String, String)> {
    let counted = corpus.ledgers.iter().filter_map(|(part, ledger)| {
        let counts = ledger.counts();
        let counts: Vec<String> =
            counts.iter().map(|(reason, n)| format!("{n} {reason:?}").to_lowercase()).collect();
        (!counts.is_empty()).then(|| (part.clone(), format!("dropped {}", counts.join(", "))))
    });
    counted.collect()
}

pub fn show(dir: &Path, trained: &Trained) -> anyhow::Result<Shown> {
    let corpus = &trained.corpus;
    let losses = vec![curve(dir, "training", "loss")?, curve(dir, "validation", "valid/loss")?];
    let bleu = curve(dir, "BLEU, greedy", "valid/bleu")?;
    let mut curves = vec![chart("Loss", "loss", losses)];
    if !bleu.points.is_empty() {
        curves.push(chart("Validation BLEU", "bleu", vec![bleu]));
    }
    let mut facts = vec![];
    for (part, metrics) in &trained.outcome.scores {
        for (name, value) in metrics {
            facts.push((format!("{part} {name}"), format!("{value:.2}")));
        }
    }
    facts.push(("training pairs".into(), corpus.train.len().to_string()));
    facts.push(("seconds".into(), format!("{:.0}", trained.outcome.counters.seconds)));
    facts.push(("tokens".into(), trained.outcome.counters.tokens.to_string()));
    let verdict = match &trained.test {
        Some(test) => format!(
            "BLEU {:.2} on {} test pairs, which chose nothing ({}).",
            test.bleu.score(),
            test.translations.len(),
            test.bleu.signature()
        ),
        None => format!(
            "BLEU {:.2} on the validation pairs, which also chose the weights ({}).",
            trained.valid.bleu.score(),
            trained.valid.bleu.signature()
        ),
    };
    let report = Report {
        facts,
        verdict,
        curves,
        samples: samples(&corpus.valid, &trained.valid),
        data_notes: dropped(corpus),
        next_steps: vec![(
            format!("firebrick nlp translate TEXT --model {}", dir.display()),
            "translate a text of your own".into(),
        )],
        ..page(dir)?
    };
    let mut files = vec![("eval/valid.jsonl", answers(&corpus.valid, &trained.valid))];
    if let (Some(pairs), Some(test)) = (&corpus.test, &trained.test) {
        files.push(("eval/test.jsonl", answers(pairs, test)));
    }
    Ok(Shown { report, files })
}

fn answers(pairs: &[Pair], judged: &Judged) -> String {
    let lines = pairs.iter().zip(&judged.translations).map(|(pair, text)| {
        let value = json!({
            "id": pair.row, "text": text, "source": pair.source, "reference": pair.target,
        });
        format!("{value}\n")
    });
    lines.collect()
}

/// Translations from the worst to the best by chrF, at even distances.
fn samples(pairs: &[Pair], judged: &Judged) -> Vec<(String, String)> {
    let mut scored: Vec<(f64, &Pair, &String)> = pairs
        .iter()
        .zip(&judged.translations)
        .map(|(pair, text)| {
            let mut chrf = Chrf::default();
            chrf.add(text, &pair.target);
            (chrf.score(), pair, text)
        })
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let shown = SHOWN.min(scored.len());
    let at = |i: usize| &scored[i * (scored.len() - 1) / (shown - 1).max(1)];
    (0..shown)
        .map(at)
        .map(|(score, pair, text)| {
            let head = format!("chrF {score:.1}: {}", pair.source);
            (head, format!("{text}\nreference: {}", pair.target))
        })
        .collect()
}
