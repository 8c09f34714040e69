//! What a finished run leaves beside its model: `report.html`, `plots/*.svg`, `eval/`.

use std::path::Path;

use firebrick_train::{
    job::{Shown, chart, curve, page},
    report::Report,
};
use serde_json::json;

use super::{recognizer::Judged, search::greedy, train::Trained};
use crate::{
    picture::{Picture, spectrograms_svg},
    recordings::Recording,
};

/// Recordings that are shown.
const SHOWN: usize = 20;
/// Of them with pictures.
const PICTURES: usize = 6;

pub fn show(dir: &Path, trained: &Trained) -> anyhow::Result<Shown> {
    let mut files = vec![
        ("eval/valid.jsonl", answers(&trained.corpus.valid, &trained.valid)),
        ("plots/alignments.svg", pictures(trained)),
    ];
    if let (Some(recordings), Some(test)) = (&trained.corpus.test, &trained.test) {
        files.push(("eval/test.jsonl", answers(recordings, test)));
    }
    Ok(Shown { report: describe(dir, trained)?, files })
}

/// What the model wrote of every recording, as `predict` does, with the truth beside it.
fn answers(recordings: &[Recording], judged: &Judged) -> String {
    let lines = recordings.iter().zip(&judged.texts).map(|(recording, text)| {
        let value = json!({"id": recording.id, "text": text, "truth": recording.label});
        format!("{value}\n")
    });
    lines.collect()
}

/// For some recordings the spectrogram and, under it, the probability of each label over time, the blank lowest.
fn pictures(trained: &Trained) -> String {
    let recognizer = &trained.recognizer;
    let bands = recognizer.config.num_mel_bins;
    let labels = recognizer.config.vocab_size;
    let mut pictures = vec![];
    for (recording, text) in trained.corpus.valid.iter().zip(&trained.valid.texts).take(PICTURES) {
        let frames = recognizer.preprocessor.read(&recognizer.mel, &recording.samples);
        pictures.push(Picture { frames, bands, caption: recording.id.clone() });
        let log_p = recognizer.listen(&[&recording.samples], 1).remove(0);
        let path = greedy(&log_p, labels);
        let names = &recognizer.language.lexicon.labels;
        let path: Vec<&str> = path.iter().map(|label| names[*label as usize].as_str()).collect();
        let frames = log_p.iter().map(|x| x.exp()).collect();
        pictures.push(Picture { frames, bands: labels, caption: path.join(" ") });
        let frames = vec![0.0; 4];
        let caption = format!("{text} ({})", recording.label);
        pictures.push(Picture { frames, bands: 2, caption });
    }
    spectrograms_svg(&pictures)
}

fn describe(dir: &Path, trained: &Trained) -> anyhow::Result<Report> {
    let mut facts = trained.outcome.facts();
    facts.push(("training recordings".into(), trained.corpus.train.len().to_string()));
    facts.push(("seconds".into(), format!("{:.0}", trained.outcome.counters.seconds)));
    let percent = |judged: &Judged| {
        judged.words.rate().map_or("-".into(), |rate| format!("{:.1} % of the words", 100.0 * rate))
    };
    let verdict = match &trained.test {
        Some(test) => {
            format!("{} wrong in the test recordings, which chose nothing.", percent(test))
        }
        None => format!(
            "{} wrong in the validation recordings, which also chose the weights.",
            percent(&trained.valid)
        ),
    };
    let samples = trained.corpus.valid.iter().zip(&trained.valid.texts).take(SHOWN);
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
                "Validation errors",
                "rate",
                vec![curve(dir, "words", "valid/wer")?, curve(dir, "characters", "valid/cer")?],
            ),
        ],
        samples: samples.map(|(r, text)| (r.label.clone(), text.clone())).collect(),
        data_notes: vec![
            (
                "recordings that could not be read".into(),
                trained.corpus.unreadable.len().to_string(),
            ),
            ("recordings of another part, dropped".into(), trained.corpus.leaking.to_string()),
        ],
        next_steps: vec![(
            format!("firebrick speech transcribe FILE.wav --model {}", dir.display()),
            "ask the model".into(),
        )],
        ..page(dir)?
    })
}
