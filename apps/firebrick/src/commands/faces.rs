//! `firebrick vision faces`: who is on a picture, by an index of those who are known.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use firebrick_core::checkpoint::Source;
use firebrick_data::{
    error::DataError,
    hash::sha256_file,
    image::{Picture, decode},
};
use firebrick_vision::faces::{
    embedder::{FaceEmbedder, fingerprint},
    index::{Entry, Index, cosine},
};
use rayon::prelude::*;
use serde_json::json;

use super::{Outcome, media, vision::told};
use crate::{
    cli::{Global, PredictArgs, vision::FacesCommand},
    failure::{Failure, USAGE, with_causes},
    places,
};

/// Pictures that are read before they are answered together.
const BATCH: usize = 64;

pub fn run(command: FacesCommand, global: &Global) -> Outcome {
    match command {
        FacesCommand::Enrol { images, index, name, model } => {
            enrol(&images, &index.index, &name, &model, global)
        }
        FacesCommand::Verify { one, other, model, threshold } => {
            verify([one, other], &model, threshold, global)
        }
        FacesCommand::Identify { images, index, model, threshold } => {
            identify(&images, &index.index, &model, threshold, global)
        }
        FacesCommand::Forget { index, name } => forget(&index.index, &name, global),
    }
}

fn open(model: &str, global: &Global) -> Result<(Source, FaceEmbedder), Failure> {
    let source = places::model(model, &global.runs)?;
    let embedder = FaceEmbedder::open(&source, &global.device.open()?)?;
    Ok((source, embedder))
}

/// A vector for every picture that can be read, in their order.
fn vectors(
    embedder: &FaceEmbedder,
    images: &[PathBuf],
    batch_size: usize,
) -> Vec<Result<Vec<f32>, DataError>> {
    let mut all = vec![];
    for part in images.chunks(batch_size.max(1)) {
        let read = |path: &PathBuf| decode::read(path, embedder.processor.colour);
        let pictures: Vec<Result<Picture, DataError>> = part.par_iter().map(read).collect();
        let good: Vec<Picture> = pictures.iter().filter_map(|p| p.as_ref().ok().cloned()).collect();
        let mut found = embedder.embed(&good, batch_size).into_iter();
        let each = pictures.into_iter().map(|picture| {
            picture.map(|_| found.next().expect("there is one for each that was read"))
        });
        all.extend(each);
    }
    all
}

/// The index in a folder, whose vectors must be of this model.
fn known(dir: &Path, source: &Source, model: &str) -> Result<Option<Index>, Failure> {
    let index = Index::open(dir)?;
    let weights = fingerprint(source)?;
    match index.as_ref().is_none_or(|index| index.is_of(&weights)) {
        true => Ok(index),
        false => {
            let dir = dir.display();
            let message = format!("{dir}: the index is of another model than {model}");
            Err(Failure::text(USAGE, message))
        }
    }
}

fn enrol(images: &[PathBuf], dir: &Path, name: &str, model: &str, global: &Global) -> Outcome {
    let (source, embedder) = open(model, global)?;
    let index = known(dir, &source, model)?;
    // Nothing is enrolled unless all can be.
    let found = vectors(&embedder, images, BATCH).into_iter().collect::<Result<Vec<_>, _>>()?;
    let entry =
        |(path, vector): (&PathBuf, Vec<f32>)| Ok(Entry { picture: sha256_file(path)?, vector });
    let dimensions = found.first().map_or(0, Vec::len);
    let entries: Result<Vec<Entry>, DataError> = images.iter().zip(found).map(entry).collect();
    let mut index = match index {
        Some(index) => index,
        None => Index::new(&fingerprint(&source)?, dimensions),
    };
    let new = index.enrol(name, entries?).map_err(|problem| Failure::text(USAGE, problem))?;
    index.save(dir)?;
    let (people, all) = (index.people().count(), index.vectors());
    let report = json!({"name": name, "added": new, "people": people, "vectors": all});
    let text = format!(
        "{name}: {new} of {} pictures added; {people} people, {all} vectors in all",
        images.len()
    );
    super::print(global, &report, &text);
    Ok(())
}

/// The threshold that was asked for, else the model's.
fn threshold(embedder: &FaceEmbedder, asked: Option<f64>, model: &str) -> Result<f64, Failure> {
    asked.or(embedder.threshold.map(|threshold| threshold.value)).ok_or_else(|| {
        Failure::text(USAGE, format!("{model} has no threshold of its own: give --threshold"))
    })
}

fn verify(images: [PathBuf; 2], model: &str, asked: Option<f64>, global: &Global) -> Outcome {
    let (_, embedder) = open(model, global)?;
    let threshold = threshold(&embedder, asked, model)?;
    let found = vectors(&embedder, &images, 2).into_iter().collect::<Result<Vec<_>, _>>()?;
    let cosine = cosine(&found[0], &found[1]);
    let same = cosine >= threshold;
    let said = if same { "one person" } else { "two people" };
    let text = format!("{said}  cosine {cosine:.3}, threshold {threshold:.3}");
    let report = json!({"same": same, "cosine": cosine, "threshold": threshold, "model": model});
    super::print(global, &report, &text);
    Ok(())
}

fn identify(
    images: &[PathBuf],
    dir: &Path,
    model: &str,
    asked: Option<f64>,
    global: &Global,
) -> Outcome {
    let (source, embedder) = open(model, global)?;
    let threshold = threshold(&embedder, asked, model)?;
    let Some(index) = known(dir, &source, model)? else {
        return Err(no_index(dir));
    };
    let (mut list, mut text, mut errors) = (vec![], String::new(), vec![]);
    for (path, vector) in images.iter().zip(vectors(&embedder, images, BATCH)) {
        match vector {
            Ok(vector) => {
                let (nearest, cosine) = index.nearest(&vector).unzip();
                let name = nearest.filter(|_| cosine >= Some(threshold));
                // Rounding may go beyond what a cosine can be; an empty index has none.
                let cosine = cosine.map(|cosine| cosine.clamp(-1.0, 1.0));
                let said = name.unwrap_or("unknown");
                let near = cosine
                    .map_or("the index is empty".into(), |cosine| format!("cosine {cosine:.3}"));
                text.push_str(&format!("{said}  {near}  {}\n", path.display()));
                list.push(json!({
                    "image": path, "name": name, "nearest": nearest, "cosine": cosine,
                    "threshold": threshold,
                }));
            }
            Err(error) => {
                list.push(json!({"image": path, "error": with_causes(&error)}));
                errors.push(error);
            }
        }
    }
    told(&json!(list), &text, errors, images.len(), global)
}

fn no_index(dir: &Path) -> Failure {
    let message = format!("{}: no index there: `firebrick vision faces enrol`", dir.display());
    Failure::text(USAGE, message)
}

fn forget(dir: &Path, name: &str, global: &Global) -> Outcome {
    if !dir.exists() {
        return Err(no_index(dir));
    }
    let Some(forgotten) = Index::forget(dir, name)? else {
        let message = format!("{}: nobody of the name {name:?} is in this index", dir.display());
        return Err(Failure::text(USAGE, message));
    };
    let mut text = format!(
        "{name} removed: {} vectors; {} before, {} now, read again from the file\nfile {} before\nfile {} now\n",
        forgotten.pictures.len(),
        forgotten.vectors_before,
        forgotten.vectors_after,
        forgotten.sha256_before,
        forgotten.sha256_after,
    );
    for picture in &forgotten.pictures {
        text.push_str(&format!("picture {picture} removed\n"));
    }
    text.push_str(&format!("of these, left under other names: {}\n", forgotten.left));
    super::print(global, &json!(forgotten), &text);
    match forgotten.left {
        0 => Ok(()),
        left => {
            let message = format!(
                "{left} of {name}'s pictures are enrolled under other names, too: forget those as well"
            );
            Err(Failure::text(1, message))
        }
    }
}

/// `firebrick predict`: an `embedding` of every picture.
pub fn predict(args: &PredictArgs, source: &Source, device: &Device, global: &Global) -> Outcome {
    let embedder = FaceEmbedder::open(source, device)?;
    let (ids, files): (Vec<String>, Vec<PathBuf>) =
        media::pictures(&args.input)?.into_iter().unzip();
    let found = vectors(&embedder, &files, args.batch_size).into_iter();
    let answer = |found: Result<Vec<f32>, DataError>| {
        found.map(|vector| json!({"embedding": vector})).map_err(|error| with_causes(&error))
    };
    media::write_answers(
        &args.input,
        ids.into_iter().zip(found.map(answer)).collect(),
        args.output.as_deref(),
        global,
    )
}
