//! `firebrick eval` of models that see: pictures, faces, videos.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    path::{Path, PathBuf},
    slice::from_mut,
};

use firebrick_core::checkpoint::Source;
use firebrick_data::{image::Picture, ledger::Ledger};
use firebrick_metrics::{interval::wilson_interval, roc::Roc};
use firebrick_train::job::Recipe as _;
use firebrick_vision::{
    anomaly, classification as pictures, detection, faces as people, robustness, video as clips,
};
use serde_json::{Value, json};

use super::{Scored, asked, choose, is_set, of_classes, recipe_for, tell_set_aside, tell_unknown};
use crate::{
    cli::{EvalArgs, Global},
    commands::speed::Stopwatch,
    failure::{BAD_FILE, Failure, USAGE},
    places,
};

/// Those of models that see.
pub(super) const TASKS: [&str; 5] = [
    pictures::recipe::Recipe::TASK,
    detection::recipe::Recipe::TASK,
    people::recipe::Recipe::TASK,
    clips::recipe::Recipe::TASK,
    anomaly::recipe::Recipe::TASK,
];

/// Pictures by path, or those of the recipe's data.
pub(super) fn images(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let classifier = pictures::classifier::PictureClassifier::open(source, &global.device.open()?)?;
    let (data, samples) = match asked(args, source, global) {
        Some(id) if is_set(id) => {
            let dataset = Some(id.clone());
            let read = pictures::recipe::DataRecipe { dataset, ..Default::default() };
            let read = classifier.reading(read);
            let places = places::of_recipe(Path::new(""));
            let corpus = pictures::corpus::load(&read, global.seed.unwrap_or(0), &places)?;
            let (part, samples) = choose(args, corpus.train, corpus.valid, corpus.test)?;
            (format!("{id}, {part}"), samples)
        }
        Some(path) => {
            let read = classifier.reading(Default::default());
            let (mut parts, ledger) = pictures::layouts::own(&PathBuf::from(path), &read)?;
            tell_dropped(path, &ledger);
            (path.clone(), part_of(&mut parts, args, path)?)
        }
        None => {
            let opened = recipe_for(args, source, global)?;
            let recipe: pictures::recipe::Recipe = opened.parse(&[])?;
            let places = places::of_recipe(&opened.base);
            let read = classifier.reading(recipe.data);
            let corpus = pictures::corpus::load(&read, recipe.seed, &places)?;
            choose(args, corpus.train, corpus.valid, corpus.test)?
        }
    };
    let watch = Stopwatch::start();
    let judged = classifier.judge(&samples, args.batch_size.max(1));
    let speed = watch.speed(samples.len(), args.latency, |row| {
        classifier.judge(&samples[row..=row], 1);
    });
    let rows = judged.confusion.total() as usize;
    if rows == 0 {
        let message = format!("{data}: no picture has a label that the model knows");
        return Err(Failure::text(BAD_FILE, message));
    }
    tell_unknown(samples.len() - rows, &classifier.labels);
    let mut more = json!({
        "recall_95": pictures::report::recall_intervals(&judged), "labels": classifier.labels,
        "confusion": judged.confusion.rows().collect::<Vec<_>>(),
        "unknown_labels": samples.len() - rows, "speed": speed,
    });
    corrupted(
        args,
        &mut more,
        "accuracy",
        &samples,
        |sample| from_mut(&mut sample.picture),
        |samples| {
            let judged = classifier.judge(samples, args.batch_size.max(1));
            Ok(judged.confusion.accuracy().unwrap_or_default())
        },
    )?;
    let accuracy = wilson_interval(judged.confusion.correct(), judged.confusion.total());
    let auc = judged.roc.as_ref().and_then(Roc::auc_interval);
    let intervals = [("accuracy", accuracy), ("auc", auc)];
    let intervals =
        intervals.into_iter().filter_map(|(name, interval)| Some((name, interval?))).collect();
    Ok(Scored { data, rows, metrics: judged.metrics(), intervals, more, ..Scored::default() })
}

/// Folders of people by path, or those of the recipe's data.
pub(super) fn faces(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let embedder = people::embedder::FaceEmbedder::open(source, &global.device.open()?)?;
    let mut seed = global.seed.unwrap_or(0);
    let (data, samples) = match &args.data {
        Some(path) if !is_set(path) => {
            let read = pictures::recipe::DataRecipe {
                size: embedder.processor.size,
                filter: embedder.processor.filter,
                grey: embedder.network.config.num_channels() == 1,
                ..Default::default()
            };
            let (mut parts, ledger) = pictures::layouts::own(&PathBuf::from(path), &read)?;
            tell_dropped(path, &ledger);
            (path.clone(), part_of(&mut parts, args, path)?)
        }
        set => {
            let opened = recipe_for(args, source, global)?;
            let mut recipe: people::recipe::Recipe = opened.parse(&[])?;
            seed = global.seed.unwrap_or(recipe.seed);
            if set.is_some() {
                recipe.data.dataset.clone_from(set);
            }
            let places = places::of_recipe(&opened.base);
            let corpus = people::corpus::load(&recipe.data, recipe.seed, &places)?;
            choose(args, corpus.train, corpus.valid, Some(corpus.test))?
        }
    };
    let names: Vec<&str> = samples.iter().map(|sample| sample.label.as_str()).collect();
    let found: Vec<_> = samples.iter().map(|sample| sample.picture.clone()).collect();
    let watch = Stopwatch::start();
    let vectors = embedder.embed(&found, args.batch_size.max(1));
    let speed = watch.speed(samples.len(), args.latency, |row| {
        embedder.embed(&found[row..=row], 1);
    });
    let roc = people::judge::pairs(&vectors, &names);
    if roc.eer().is_none() {
        let message = format!("{data}: two people are needed, with two pictures of one of them");
        return Err(Failure::text(BAD_FILE, message));
    }
    let mut metrics = people::judge::verification(&roc, embedder.threshold);
    metrics.extend(people::judge::identification(&vectors, &names, embedder.threshold, seed));
    let mut more = json!({
        "same_pairs": roc.positives.len(), "different_pairs": roc.negatives.len(),
        "threshold": embedder.threshold, "speed": speed,
    });
    corrupted(
        args,
        &mut more,
        "eer",
        &samples,
        |sample| from_mut(&mut sample.picture),
        |samples| {
            let found: Vec<_> = samples.iter().map(|sample| sample.picture.clone()).collect();
            let vectors = embedder.embed(&found, args.batch_size.max(1));
            Ok(people::judge::pairs(&vectors, &names).eer().unwrap_or_default())
        },
    )?;
    let intervals = roc.auc_interval().map(|interval| ("auc", interval)).into_iter().collect();
    Ok(Scored { data, rows: samples.len(), metrics, intervals, more, ..Scored::default() })
}

/// Clips of a table, or those of the recipe's data.
pub(super) fn actions(
    args: &EvalArgs,
    source: &Source,
    global: &Global,
) -> Result<Scored, Failure> {
    let classifier = clips::classifier::ClipClassifier::open(source, &global.device.open()?)?;
    let reading = |data| clips::recipe::DataRecipe {
        frames: classifier.length(),
        size: classifier.frames.frame.size,
        shortest_edge: classifier.frames.frame.shortest_edge,
        rate: classifier.frames.rate,
        grey: classifier.network.config.num_channels() == 1,
        ..data
    };
    let (data, found) = match &args.data {
        Some(path) if !is_set(path) => {
            let read = reading(Default::default());
            let table = PathBuf::from(path);
            let (rows, ledger) = clips::corpus::listed(&table)?;
            tell_dropped(path, &ledger);
            let mut parts = BTreeMap::<String, Vec<clips::corpus::Listed>>::new();
            for row in rows {
                parts.entry(row.split.clone()).or_default().push(row);
            }
            let rows = part_of(&mut parts, args, path)?;
            (path.clone(), clips::corpus::clips(&table, rows, &read)?)
        }
        set => {
            let opened = recipe_for(args, source, global)?;
            let mut recipe: clips::recipe::Recipe = opened.parse(&[])?;
            if set.is_some() {
                recipe.data.dataset.clone_from(set);
            }
            let places = places::of_recipe(&opened.base);
            let corpus = clips::corpus::load(&reading(recipe.data), &places)?;
            choose(args, corpus.train, corpus.valid, Some(corpus.test))?
        }
    };
    let watch = Stopwatch::start();
    let judged = classifier.judge(&found, args.batch_size.max(1));
    let speed = watch.speed(found.len(), args.latency, |row| {
        classifier.judge(&found[row..=row], 1);
    });
    let skipped = found.len() - judged.confusion.total() as usize;
    let labels = &classifier.labels;
    let mut scored = of_classes(data, labels, &judged.confusion, judged.metrics(), skipped)?;
    scored.more["speed"] = speed;
    corrupted(
        args,
        &mut scored.more,
        "accuracy",
        &found,
        |clip| &mut clip.frames,
        |clips| {
            let judged = classifier.judge(clips, args.batch_size.max(1));
            Ok(judged.confusion.accuracy().unwrap_or_default())
        },
    )?;
    Ok(scored)
}

/// Frames of a table with `file` and `anomalous`, or those of the recipe's data.
pub(super) fn anomalies(
    args: &EvalArgs,
    source: &Source,
    global: &Global,
) -> Result<Scored, Failure> {
    if let Some(split) = args.split.as_deref().filter(|split| *split != "test") {
        let message = format!("no part `{split}` has frames that are told apart: test alone");
        return Err(Failure::text(USAGE, message));
    }
    let detector = anomaly::detector::Detector::open(source, &global.device.open()?)?;
    let (data, found) = match &args.data {
        Some(path) if !is_set(path) => {
            let size = detector.frames.frame.size;
            let read = anomaly::recipe::DataRecipe { size, ..Default::default() };
            let (found, ledger) = anomaly::corpus::labelled(&PathBuf::from(path), &read)?;
            tell_dropped(path, &ledger);
            (path.clone(), found)
        }
        set => {
            let opened = recipe_for(args, source, global)?;
            let mut recipe: anomaly::recipe::Recipe = opened.parse(&[])?;
            if set.is_some() {
                recipe.data.dataset.clone_from(set);
            }
            let corpus = anomaly::corpus::load(&recipe.data, &places::of_recipe(&opened.base))?;
            ("test".into(), corpus.test)
        }
    };
    let watch = Stopwatch::start();
    let watched = |clip: &anomaly::corpus::Clip| -> Vec<f64> {
        let seen = detector.watch(clip, args.batch_size.max(1));
        seen.iter().map(|seen| seen.score).collect()
    };
    let scores: Vec<Vec<f64>> = found.iter().map(watched).collect();
    let rows = scores.iter().map(Vec::len).sum();
    let frames: Vec<_> = found.iter().flat_map(|clip| &clip.frames).collect();
    let speed = watch.speed(rows, args.latency, |row| {
        let (name, frames) = (String::new(), vec![frames[row].clone()]);
        detector.watch(&anomaly::corpus::Clip { name, frames, anomalous: vec![] }, 1);
    });
    let roc = anomaly::train::scores(&found, &scores);
    if roc.auc().is_none() {
        let message = format!("{data}: frames of both kinds are needed");
        return Err(Failure::text(BAD_FILE, message));
    }
    let by_clip: BTreeMap<&str, Option<f64>> = found
        .iter()
        .zip(&scores)
        .map(|(clip, scores)| {
            let alone =
                anomaly::train::scores(std::slice::from_ref(clip), std::slice::from_ref(scores));
            (clip.name.as_str(), alone.auc())
        })
        .collect();
    let mut more = json!({
        "threshold": detector.threshold, "auc_95": roc.auc_interval(), "auc_by_clip": by_clip,
        "anomalous": roc.positives.len(), "speed": speed,
    });
    corrupted(
        args,
        &mut more,
        "auc",
        &found,
        |clip| &mut clip.frames,
        |clips| {
            let scores: Vec<Vec<f64>> = clips.iter().map(watched).collect();
            Ok(anomaly::train::scores(clips, &scores).auc().unwrap_or_default())
        },
    )?;
    let metrics = anomaly::train::metrics(&roc, detector.threshold);
    Ok(Scored { data, rows, metrics, more, ..Scored::default() })
}

/// Pictures with boxes by path, or those of the recipe's data.
pub(super) fn scenes(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let detector = detection::detector::ObjectDetector::open(source, &global.device.open()?)?;
    let frame = |data: detection::recipe::DataRecipe| detection::recipe::DataRecipe {
        windows: None,
        size: detector.processor.size,
        filter: detector.processor.filter,
        ..data
    };
    // What the model was to look for, where its recipe says so; what else is there it has been told to leave alone.
    let recipe = recipe_for(args, source, global).ok();
    let recipe = recipe.and_then(|recipe| recipe.parse::<detection::recipe::Recipe>(&[]).ok());
    let labels = recipe.and_then(|recipe| recipe.data.labels);
    let (data, scenes) = match asked(args, source, global) {
        Some(id) if is_set(id) => {
            let dataset = Some(id.clone());
            let data = detection::recipe::DataRecipe { dataset, labels, ..Default::default() };
            let places = places::of_recipe(Path::new(""));
            let corpus = detection::corpus::load(&frame(data), global.seed.unwrap_or(0), &places)?;
            let (part, scenes) = choose(args, corpus.train, corpus.valid, corpus.test)?;
            (format!("{id}, {part}"), scenes)
        }
        Some(path) => {
            let read = frame(detection::recipe::DataRecipe { labels, ..Default::default() });
            let mut parts = detection::corpus::own(&PathBuf::from(path), &read)?;
            let (scenes, _) = part_of(&mut parts, args, path)?;
            (path.clone(), scenes)
        }
        None => {
            let opened = recipe_for(args, source, global)?;
            let recipe: detection::recipe::Recipe = opened.parse(&[])?;
            let places = places::of_recipe(&opened.base);
            let corpus = detection::corpus::load(&frame(recipe.data), recipe.seed, &places)?;
            choose(args, corpus.train, corpus.valid, corpus.test)?
        }
    };
    let (unknown, _) = detection::corpus::unknown(&detector.labels, &scenes);
    let objects = scenes.iter().flat_map(|scene| &scene.objects).filter(|object| !object.crowd);
    let known = detector.labels.join(", ");
    if unknown > 0 && unknown == objects.count() {
        let message = format!("{data}: no box has a label that the model knows: {known}");
        return Err(Failure::text(BAD_FILE, message));
    }
    if unknown > 0 {
        stderr!(
            "{unknown} boxes have a label that the model does not know (it knows {known}): they count as not found"
        );
    }
    let watch = Stopwatch::start();
    let judged = detector.judge(&scenes, args.batch_size)?;
    let speed = watch.speed(scenes.len(), args.latency, |row| {
        // What cannot be judged was told above.
        let _ = detector.judge(&scenes[row..=row], 1);
    });
    let mut more = detection::report::by_label(&judged);
    more["unknown_labels"] = unknown.into();
    more["speed"] = speed;
    corrupted(
        args,
        &mut more,
        "map",
        &scenes,
        |scene| from_mut(&mut scene.picture),
        |scenes| Ok(detector.judge(scenes, args.batch_size)?.map),
    )?;
    let (rows, metrics) = (scenes.len(), judged.metrics());
    Ok(Scored { data, rows, metrics, more, ..Scored::default() })
}

/// The named part of what lies at `path`, else the test part, else the one that chose the weights, else all that there is.
fn part_of<K: Borrow<str> + Ord, T>(
    parts: &mut BTreeMap<K, T>,
    args: &EvalArgs,
    path: &str,
) -> Result<T, Failure> {
    let last = ["test", "valid"].into_iter().find(|part| parts.contains_key(*part));
    let part = args.split.as_deref().or(last).unwrap_or("train");
    parts.remove(part).ok_or_else(|| {
        let known = parts.keys().map(Borrow::borrow).collect::<Vec<&str>>().join(", ");
        Failure::text(USAGE, format!("{path}: no part `{part}`: {known}"))
    })
}

fn tell_dropped(path: &str, ledger: &Ledger) {
    if let Some(first) = ledger.dropped.first() {
        tell_set_aside(path, ledger.dropped.len(), &first.detail);
    }
}

/// Adds what is left of the `score` of this name under each corruption, where that is asked for.
fn corrupted<T: Clone + Send + Sync>(
    args: &EvalArgs,
    more: &mut Value,
    name: &str,
    items: &[T],
    pictures: impl Fn(&mut T) -> &mut [Picture] + Sync,
    score: impl Fn(&[T]) -> anyhow::Result<f64>,
) -> Result<(), Failure> {
    if args.robustness {
        more["robustness"] = json!(robustness::scores(items, pictures, score)?);
        more["robustness_score"] = name.into();
    }
    Ok(())
}

/// A score under each corruption, by strength.
pub(super) fn robustness_table(more: &Value) -> String {
    let Some(found) = more["robustness"].as_object() else { return String::new() };
    let name = more["robustness_score"].as_str().unwrap_or_default();
    let mut text =
        format!("\n{:12}{:>7}{:>7}{:>7}{:>7}{:>7}   {name}\n", "strength", 1, 2, 3, 4, 5);
    for (name, values) in found {
        let values = values.as_array().into_iter().flatten().filter_map(Value::as_f64);
        let values: String = values.map(|value| format!("{value:>7.4}")).collect();
        text.push_str(&format!("{name:12}{values}\n"));
    }
    text
}
