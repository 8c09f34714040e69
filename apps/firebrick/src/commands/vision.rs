//! `firebrick vision`: picture applications, and `predict` on pictures.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use firebrick_core::checkpoint::Source;
use firebrick_data::{
    error::DataError,
    image::{Picture, decode},
    npz,
};
use firebrick_train::origin::Decision;
use firebrick_vision::{
    classification::{
        classifier::{PictureClassifier, Prediction},
        layouts,
    },
    heatmap::Explainer,
    signs,
};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::{Outcome, ask, detect, faces, video};
use crate::{
    cli::{Global, PredictArgs, vision::VisionCommand},
    failure::{BAD_FILE, Failure, USAGE, with_causes},
    places,
};

pub fn run(command: VisionCommand, global: &Global) -> Outcome {
    match command {
        VisionCommand::Classify { images, model } => {
            classify(&open(&model, global)?, &images, &model, |_| None, global)
        }
        VisionCommand::Signs { images, model } => {
            let classifier = open(&model, global)?;
            if !signs::are_labels(&classifier.labels) {
                let message = format!(
                    "{model}: its labels are not the numbers of the 43 signs: `firebrick vision classify`"
                );
                return Err(Failure::text(USAGE, message));
            }
            classify(&classifier, &images, &model, signs::meaning, global)
        }
        VisionCommand::Medical { images, model, heatmap } => {
            medical(&images, &model, heatmap.as_deref(), global)
        }
        VisionCommand::Faces(command) => faces::run(command, global),
        VisionCommand::Action(args) => video::action(&args, global),
        VisionCommand::Anomaly(args) => video::anomaly(&args, global),
        VisionCommand::Detect { args, model } => detect::run(&args, &model, global),
        VisionCommand::Pedestrians { args, model } => detect::run(&args, &model, global),
    }
}

fn open(model: &str, global: &Global) -> Result<PictureClassifier, Failure> {
    let source = places::model(model, &global.runs)?;
    Ok(PictureClassifier::open(&source, &global.device.open()?)?)
}

/// An answer for every picture that can be read, in their order.
fn answer(
    classifier: &PictureClassifier,
    images: &[PathBuf],
    batch_size: usize,
) -> Vec<Result<Prediction, DataError>> {
    let mut answers = vec![];
    for part in images.chunks(batch_size.max(1)) {
        let colour = classifier.processor.colour;
        let read = |path: &PathBuf| {
            decode::read(path, colour).map(|picture| classifier.processor.size(&picture))
        };
        let pictures: Vec<Result<Picture, DataError>> = part.par_iter().map(read).collect();
        let good: Vec<Picture> = pictures.iter().filter_map(|p| p.as_ref().ok().cloned()).collect();
        let mut said = classifier.predict_sized(&good, batch_size).into_iter();
        let each = pictures.into_iter().map(|picture| match picture {
            Ok(_) => Ok(said.next().expect("there is one for each that was read")),
            Err(error) => Err(error),
        });
        answers.extend(each);
    }
    answers
}

fn classify(
    classifier: &PictureClassifier,
    images: &[PathBuf],
    model: &str,
    meaning: impl Fn(&str) -> Option<&'static str>,
    global: &Global,
) -> Outcome {
    let (mut list, mut text, mut errors) = (vec![], String::new(), vec![]);
    for (path, answer) in images.iter().zip(answer(classifier, images, 64)) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                list.push(json!({"image": path, "error": with_causes(&error)}));
                errors.push(error);
                continue;
            }
        };
        let (label, score) = (answer.answer.label, answer.scores[answer.answer.label]);
        let name = &classifier.labels[label];
        let meaning = meaning(name);
        let said = meaning.map_or(name.clone(), |meaning| format!("{name} ({meaning})"));
        text.push_str(&format!("{said}  {score:.3}  {}\n", path.display()));
        let mut value = json!({"image": path, "label": name, "score": score, "model": model});
        if let Some(meaning) = meaning {
            value["meaning"] = meaning.into();
        }
        list.push(value);
    }
    told(&json!(list), &text, errors, images.len(), global)
}

/// Prints what there is to say; errors are told one by one, and end in their exit code.
pub fn told(
    list: &Value,
    text: &str,
    mut errors: Vec<DataError>,
    all: usize,
    global: &Global,
) -> Outcome {
    if errors.len() < all || global.json {
        super::print(global, list, text);
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0).into()),
        n => {
            errors.iter().for_each(|error| stderr!("{}", with_causes(error)));
            let message = format!("{n} of {all} pictures could not be read");
            Err(Failure::text(BAD_FILE, message))
        }
    }
}

fn medical(images: &[PathBuf], model: &str, heatmap: Option<&Path>, global: &Global) -> Outcome {
    if heatmap.is_some() && images.len() != 1 {
        return Err(Failure::text(USAGE, "--heatmap is for one picture"));
    }
    super::apart(images, heatmap)?;
    let source = places::model(model, &global.runs)?;
    let device = global.device.open()?;
    let classifier = PictureClassifier::open(&source, &device)?;
    let Some(decision) = classifier.decision.clone() else {
        let message =
            format!("{model}: a model without a `[decision]`: `firebrick vision classify`");
        return Err(Failure::text(USAGE, message));
    };
    let (mut list, mut text, mut errors) = (vec![], String::new(), vec![]);
    for (path, answer) in images.iter().zip(answer(&classifier, images, 64)) {
        match answer {
            Ok(answer) => {
                let value = finding(&classifier, &decision, &answer, path, model);
                let said = if answer.answer.abstains { "abstains" } else { "says" };
                text.push_str(&format!(
                    "{said} {}  probability of {} {:.3}, threshold {:.3}  {}\n",
                    classifier.labels[answer.answer.label],
                    decision.positive,
                    value["probability"].as_f64().unwrap_or(0.0),
                    decision.threshold,
                    path.display(),
                ));
                list.push(value);
                if let Some(output) = heatmap {
                    explain(&source, &device, path, &decision, output)?;
                }
            }
            Err(error) => {
                list.push(json!({"image": path, "error": with_causes(&error)}));
                errors.push(error);
            }
        }
    }
    if !global.quiet && errors.len() < images.len() {
        stderr!("no medical device: not for the diagnosis or treatment of anyone");
    }
    told(&json!(list), &text, errors, images.len(), global)
}

fn finding(
    classifier: &PictureClassifier,
    decision: &Decision,
    answer: &Prediction,
    path: &Path,
    model: &str,
) -> Value {
    let positive = classifier.labels.iter().position(|label| *label == decision.positive);
    json!({
        "image": path, "model": model, "label": classifier.labels[answer.answer.label],
        "abstains": answer.answer.abstains, "positive": decision.positive,
        "probability": answer.scores[positive.unwrap_or(1)], "threshold": decision.threshold,
        "sensitivity": decision.sensitivity,
    })
}

/// Writes the picture with what speaks for the positive label on it.
fn explain(
    source: &Source,
    device: &Device,
    path: &Path,
    decision: &Decision,
    output: &Path,
) -> anyhow::Result<()> {
    let explainer = Explainer::open(source, device)?;
    let classifier = &explainer.classifier;
    let picture = decode::read(path, classifier.processor.colour)?;
    let class = classifier.labels.iter().position(|label| *label == decision.positive);
    let map = explainer.explain(&picture, class.unwrap_or(1))?;
    Ok(super::write(output, &decode::png(&map.over(&picture)))?)
}

/// `firebrick predict` on a picture, a folder of pictures, or the array `images` of an `.npz` file.
pub fn predict(args: &PredictArgs, source: &Source, device: &Device, global: &Global) -> Outcome {
    let classifier = PictureClassifier::open(source, device)?;
    let input = args.input.as_path();
    let (ids, answers): (Vec<Value>, Vec<Result<Prediction, DataError>>) =
        if input.extension().is_some_and(|e| e == "npz") {
            let pictures = stacked(input)?;
            let answers = classifier.predict(&pictures, args.batch_size).into_iter().map(Ok);
            ((0..pictures.len()).map(Value::from).collect(), answers.collect())
        } else if input.is_dir() {
            let files = layouts::pictures(input)?;
            if files.is_empty() {
                let message = format!("{}: no picture in this folder", input.display());
                return Err(Failure::text(BAD_FILE, message));
            }
            let ids = files.iter().map(|file| layouts::relative(file, input).into());
            (ids.collect(), answer(&classifier, &files, args.batch_size))
        } else {
            let picture = decode::read(input, classifier.processor.colour)?;
            let name = input.file_name().unwrap_or_default().to_string_lossy();
            let answers = classifier.predict(&[picture], 1).into_iter().map(Ok);
            (vec![Value::from(name)], answers.collect())
        };
    let bad = answers.iter().filter(|answer| answer.is_err()).count();
    let lines = ids.into_iter().zip(answers).map(|(id, answer)| match answer {
        Err(error) => json!({"id": id, "error": with_causes(&error)}),
        Ok(answer) => {
            let scores = classifier.labels.iter().zip(&answer.scores);
            let scores: Map<_, _> = scores.map(|(label, p)| (label.clone(), json!(p))).collect();
            let label = &classifier.labels[answer.answer.label];
            json!({"id": id, "label": label, "scores": scores})
        }
    });
    ask::write_lines(input, &lines.collect::<Vec<_>>(), bad, args.output.as_deref(), global)
}

/// The pictures of an `.npz` file's array `images`, or of its only one.
fn stacked(path: &Path) -> Result<Vec<Picture>, Failure> {
    let arrays = npz::read(path)?;
    let only = arrays.values().next().filter(|_| arrays.len() == 1);
    let Some(images) = arrays.get("images").or(only) else {
        let names = arrays.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("{}: no array `images` among {names}", path.display());
        return Err(Failure::text(BAD_FILE, message));
    };
    layouts::unpacked(images)
        .map_err(|problem| Failure::text(BAD_FILE, format!("{}: {problem}", path.display())))
}
