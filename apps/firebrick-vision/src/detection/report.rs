//! What a finished run leaves beside its model.

use std::{cmp::Reverse, path::Path};

use firebrick_data::image::Picture;
use firebrick_train::{
    job::{Shown, chart, curve, page},
    report::{self, Report, plots},
};
use serde_json::{Value, json};

use super::{
    corpus::Scene,
    detector::Found,
    draw::{Mark, colour, draw},
    score::Judged,
    train::Trained,
};
use crate::page::{notes, pictured};

/// Pictures of the best and of the worst answers, each.
const PICTURED: usize = 4;

pub fn show(dir: &Path, trained: &Trained) -> anyhow::Result<Shown> {
    let corpus = &trained.corpus;
    let labels = &trained.detector.labels;
    let mut files = vec![("eval/valid.jsonl", answers(labels, &corpus.valid, &trained.valid))];
    let (part, scenes, judged) = match (&corpus.test, &trained.test) {
        (Some(scenes), Some(judged)) => {
            files.push(("eval/test.jsonl", answers(labels, scenes, judged)));
            ("test", scenes, judged)
        }
        _ => ("validation", &corpus.valid, &trained.valid),
    };
    let precision = judged.labels.iter().map(|label| plots::Curve {
        name: label.label.clone(),
        points: label.curve.iter().map(|[recall, precision, _]| (*recall, *precision)).collect(),
    });
    let report = Report {
        facts: facts(trained),
        verdict: verdict(part, judged),
        curves: vec![
            chart("Loss", "loss", vec![curve(dir, "training", "loss")?]),
            chart(
                "Validation",
                "average precision",
                vec![
                    curve(dir, "overlap of half", "valid/map50")?,
                    curve(dir, "overlaps from 0.5 to 0.95", "valid/map")?,
                ],
            ),
            (
                format!("Boxes that overlap by half, {part} pictures"),
                "share found".into(),
                "share right".into(),
                precision.collect(),
            ),
        ],
        pictures: pictures(trained, part, scenes, judged),
        data_notes: notes(corpus.remarks()),
        next_steps: vec![(
            format!("firebrick vision detect IMAGE --model {} --output OUT.png", dir.display()),
            "ask the model".into(),
        )],
        ..page(dir)?
    };
    Ok(Shown { report, files })
}

fn facts(trained: &Trained) -> Vec<(String, String)> {
    let mut facts = trained.outcome.facts();
    facts.push(("shown from the score".into(), format!("{:.2}", trained.detector.threshold)));
    facts.push(("training pictures".into(), trained.corpus.train.len().to_string()));
    facts.push(("seconds".into(), format!("{:.0}", trained.outcome.counters.seconds)));
    facts
}

fn verdict(part: &str, judged: &Judged) -> String {
    let each = judged.labels.iter().map(|label| {
        let ap50 = label.ap50.map_or("none there".into(), |ap| format!("{:.1} %", 100.0 * ap));
        format!("{} {ap50} ({} objects)", label.label, label.objects)
    });
    let chose = match part {
        "test" => "which chose nothing",
        _ => "which also chose the weights",
    };
    format!(
        "Average precision of boxes that overlap by half {:.1} % on the {part} pictures, {chose}: {}.",
        100.0 * judged.map50,
        each.collect::<Vec<_>>().join(", ")
    )
}

/// Scores of each label, as `eval` prints them.
pub fn by_label(judged: &Judged) -> Value {
    let label = |label: &super::score::LabelScore| {
        let value = json!({"objects": label.objects, "ap": label.ap, "ap50": label.ap50});
        (label.label.clone(), value)
    };
    json!({"labels": judged.labels.iter().map(label).collect::<serde_json::Map<_, _>>()})
}

/// Boxes as `predict` writes them.
pub fn boxes(labels: &[String], found: &[Found]) -> Value {
    let one = |found: &Found| {
        let [x0, y0, x1, y1] = found.rect.sides();
        let label = &labels[found.label];
        json!({"label": label, "score": found.score, "x0": x0, "y0": y0, "x1": x1, "y1": y1})
    };
    found.iter().map(one).collect()
}

/// What the model draws on every picture, as `predict` writes it, with the truth beside it.
fn answers(labels: &[String], scenes: &[Scene], judged: &Judged) -> String {
    let line = |(scene, found): (&Scene, &Vec<Found>)| {
        let truth = scene.objects.iter().map(|object| {
            let [x0, y0, x1, y1] = object.rect.sides();
            json!({"label": object.label, "crowd": object.crowd, "x0": x0, "y0": y0, "x1": x1, "y1": y1})
        });
        let truth: Vec<Value> = truth.collect();
        format!("{}\n", json!({"id": scene.id, "boxes": boxes(labels, found), "truth": truth}))
    };
    scenes.iter().zip(&judged.found).map(line).collect()
}

/// Objects that a box of their label overlaps by half, and things that are wrong: objects without such a box, and boxes
/// without such an object.
fn right_and_wrong(labels: &[String], scene: &Scene, found: &[&Found]) -> [usize; 2] {
    let mut free: Vec<_> = scene.objects.iter().filter(|object| !object.crowd).collect();
    let objects = free.len();
    let mut right = 0;
    for found in found {
        let best = free.iter().enumerate().filter(|(_, o)| o.label == labels[found.label]);
        let best = best.map(|(place, o)| (place, o.rect.overlap(found.rect)));
        if let Some((place, overlap)) = best.max_by(|a, b| a.1.total_cmp(&b.1))
            && overlap >= 0.5
        {
            free.remove(place);
            right += 1;
        }
    }
    [right, objects - right + found.len() - right]
}

fn pictures(
    trained: &Trained,
    part: &str,
    scenes: &[Scene],
    judged: &Judged,
) -> Vec<report::Picture> {
    let labels = &trained.detector.labels;
    let mut rows: Vec<(usize, Vec<&Found>, [usize; 2])> = vec![];
    for (row, (scene, found)) in scenes.iter().zip(&judged.found).enumerate() {
        let least = trained.detector.threshold;
        let sure: Vec<&Found> = found.iter().filter(|found| found.score >= least).collect();
        let counts = right_and_wrong(labels, scene, &sure);
        rows.push((row, sure, counts));
    }
    let mut pictures: Vec<report::Picture> = vec![];
    for (i, shown) in trained.shown.iter().enumerate() {
        let caption = "A training picture as a step saw it, with its boxes.";
        pictures.push(pictured(format!("batch-{i}"), caption, shown));
    }
    let mut show = |name: &str, rows: &[(usize, Vec<&Found>, [usize; 2])]| {
        for (i, (row, sure, [right, wrong])) in rows.iter().take(PICTURED).enumerate() {
            let scene = &scenes[*row];
            let caption =
                format!("{}, {part}: {right} right, {wrong} wrong; the truth is white.", scene.id);
            let drawn = marked(labels, scene, sure);
            pictures.push(pictured(format!("{name}-{i}"), caption, &drawn));
        }
    };
    rows.sort_by_key(|(_, _, [right, wrong])| (*wrong, Reverse(*right)));
    show("right", &rows);
    rows.sort_by_key(|(_, _, [_, wrong])| Reverse(*wrong));
    show("wrong", &rows);
    pictures
}

/// The frame of a scene with the truth in white and the answers in their labels' colours.
fn marked(labels: &[String], scene: &Scene, found: &[&Found]) -> Picture {
    let truth = scene.objects.iter().map(|object| Mark {
        rect: object.rect.scaled(scene.scale),
        text: String::new(),
        colour: [255; 3],
    });
    let found = found.iter().map(|found| mark(labels, found, scene.scale));
    draw(&scene.picture, &truth.chain(found).collect::<Vec<_>>())
}

/// A found box on a picture that grew by these factors, with its label and score.
pub fn mark(labels: &[String], found: &Found, scale: [f32; 2]) -> Mark {
    Mark {
        rect: found.rect.scaled(scale),
        text: format!("{} {:.2}", labels[found.label], found.score),
        colour: colour(found.label),
    }
}
