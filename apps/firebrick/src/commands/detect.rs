//! What is where on a picture: `firebrick vision detect` and `pedestrians`, and `predict` and `eval` with boxes.

use std::path::Path;

use burn::tensor::Device;
use firebrick_core::checkpoint::Source;
use firebrick_data::{
    error::DataError,
    image::{Colour, Picture, decode},
};
use firebrick_vision::{
    classification::layouts,
    detection::{
        annotations::{self, Format},
        detector::{Found, ObjectDetector},
        draw::draw,
        report::{boxes, mark},
    },
};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::{Outcome, ask};
use crate::{
    cli::{Global, PredictArgs, vision::DetectArgs},
    failure::{BAD_FILE, Failure, USAGE, with_causes},
    places,
};

/// Pictures that are read before they are answered together.
const PICTURES: usize = 16;

/// Boxes on pictures, drawn if there is a place for it.
pub fn run(args: &DetectArgs, model: &str, global: &Global) -> Outcome {
    if args.output.is_some() && args.images.len() != 1 {
        return Err(Failure::text(USAGE, "--output is for one picture"));
    }
    super::apart(&args.images, args.output.as_deref())?;
    let source = places::model(model, &global.runs)?;
    let detector = ObjectDetector::open(&source, &global.device.open()?)?;
    let least = args.threshold.unwrap_or(detector.threshold);
    let (mut list, mut text, mut errors) = (vec![], String::new(), vec![]);
    for path in &args.images {
        match decode::read(path, Colour::Rgb) {
            Ok(picture) => {
                let mut found = detector.detect(std::slice::from_ref(&picture), 1).remove(0);
                found.retain(|found| found.score >= least);
                text.push_str(&told(&detector, path, &found));
                list.push(json!({"image": path, "model": model, "threshold": least,
                    "boxes": boxes(&detector.labels, &found)}));
                if let Some(output) = &args.output {
                    write(output, &detector, &picture, &found)?;
                }
            }
            Err(error) => {
                list.push(json!({"image": path, "error": with_causes(&error)}));
                errors.push(error);
            }
        }
    }
    super::vision::told(&json!(list), &text, errors, args.images.len(), global)
}

/// A line for the picture, and one for each box.
fn told(detector: &ObjectDetector, path: &Path, found: &[Found]) -> String {
    let counts = detector.labels.iter().enumerate().map(|(index, label)| {
        let count = found.iter().filter(|found| found.label == index).count();
        format!("{count} {label}")
    });
    let mut text = format!("{}: {}\n", path.display(), counts.collect::<Vec<_>>().join(", "));
    for found in found {
        let [x0, y0, x1, y1] = found.rect.sides();
        let (label, score) = (&detector.labels[found.label], found.score);
        text.push_str(&format!("  {label}  {score:.3}  {x0:.0}, {y0:.0} to {x1:.0}, {y1:.0}\n"));
    }
    text
}

fn write(
    output: &Path,
    detector: &ObjectDetector,
    picture: &Picture,
    found: &[Found],
) -> Result<(), DataError> {
    let marks: Vec<_> = found.iter().map(|found| mark(&detector.labels, found, [1.0; 2])).collect();
    super::write(output, &decode::png(&draw(picture, &marks)))
}

/// `firebrick predict` on a picture or a folder of pictures: all boxes, however unsure.
pub fn predict(args: &PredictArgs, source: &Source, device: &Device, global: &Global) -> Outcome {
    let detector = ObjectDetector::open(source, device)?;
    let input = args.input.as_path();
    let files = if input.is_dir() { layouts::pictures(input)? } else { vec![input.to_owned()] };
    if files.is_empty() {
        let message = format!("{}: no picture in this folder", input.display());
        return Err(Failure::text(BAD_FILE, message));
    }
    let (mut lines, mut bad) = (vec![], 0);
    for part in files.chunks(PICTURES.min(args.batch_size.max(1))) {
        let read: Vec<Result<Picture, DataError>> =
            part.par_iter().map(|path| decode::read(path, Colour::Rgb)).collect();
        let good: Vec<Picture> = read.iter().flatten().cloned().collect();
        let mut found = detector.detect(&good, part.len()).into_iter();
        for (path, read) in part.iter().zip(read) {
            let id = match input.is_dir() {
                true => layouts::relative(path, input),
                false => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            };
            lines.push(match read {
                Ok(_) => {
                    let found = found.next().expect("there is one for each that was read");
                    json!({"id": id, "boxes": boxes(&detector.labels, &found)})
                }
                Err(error) => {
                    bad += 1;
                    json!({"id": id, "error": with_causes(&error)})
                }
            });
        }
    }
    ask::write_lines(input, &lines, bad, args.output.as_deref(), global)
}

/// `firebrick data boxes`: from one way to write boxes down to another.
pub fn convert(source: &Path, target: &Path, to: &str, global: &Global) -> Outcome {
    let format = Format::named(to).expect("the command line knows the names");
    if target.exists() {
        let message = format!("{} is there already", target.display());
        return Err(Failure::text(USAGE, message));
    }
    let dataset = annotations::read(source)?;
    let [pictures, written, skipped] = annotations::write(dataset, format, target)?;
    let value: Value =
        json!({"pictures": pictures, "boxes": written, "skipped": skipped, "output": target});
    let mut text = format!("{}: {written} boxes of {pictures} pictures", target.display());
    if skipped > 0 {
        text.push_str(&format!(
            "; {skipped} of no area, outside their picture or of none, or that {to} cannot express, were left out"
        ));
    }
    if format == Format::Yolo {
        text.push_str("; its numbers are shares of the pictures, which belong into images/ there");
    }
    super::print(global, &value, &text);
    Ok(())
}
