//! `firebrick vision action` and `anomaly`: what is done in a video, and where something is unusual.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    slice::from_ref,
};

use burn::tensor::Device;
use firebrick_core::checkpoint::Source;
use firebrick_data::{
    error::DataError,
    image::{
        Picture,
        decode::{self, is_picture, png},
        resize::resize,
    },
};
use firebrick_train::report::plots::{Curve, line_chart_svg};
use firebrick_vision::{
    anomaly::{corpus::Clip, detector::Detector},
    classification::layouts,
    heatmap::HeatMap,
    video::{
        classifier::ClipClassifier,
        corpus::{fill, frames, inputs, is_still},
        read::{VideoError, is_video},
    },
};
use serde_json::{Map, Value, json};

use super::{Outcome, media};
use crate::{
    cli::{
        Global, PredictArgs,
        vision::{ActionArgs, AnomalyArgs},
    },
    failure::{BAD_FILE, Failure, USAGE, with_causes},
    places,
};

/// Most frames of a video that are looked at in one go.
const FRAMES: usize = 10_000;

/// Neighbourhoods of frames, and clips, that are looked at together.
const BATCH: usize = 32;

/// A label and its probability, the largest first.
fn best(labels: &[String], scores: &[f32]) -> (String, f32) {
    let order = scores.iter().zip(labels).max_by(|a, b| a.0.total_cmp(b.0));
    order.map_or_else(|| (String::new(), 0.0), |(score, label)| (label.clone(), *score))
}

fn by_label(labels: &[String], scores: &[f32]) -> Map<String, Value> {
    labels.iter().cloned().zip(scores.iter().map(|p| json!(p))).collect()
}

/// Frames of a clip: all of a picture that holds many, else as many as are there.
fn whole(classifier: &ClipClassifier, path: &Path, start: f64) -> anyhow::Result<Vec<Picture>> {
    let processor = &classifier.frames;
    Ok(match is_still(path) {
        true => frames(path, &processor.reading(0.0, classifier.length()))?,
        false => processor.read(path, start, FRAMES)?,
    })
}

pub fn action(args: &ActionArgs, global: &Global) -> Outcome {
    let source = places::model(&args.model, &global.runs)?;
    let classifier = ClipClassifier::open(&source, &global.device.open()?)?;
    if is_still(&args.video) && args.start > 0.0 {
        let message = "--start is for videos: the frames of a picture are one clip";
        return Err(Failure::text(USAGE, message));
    }
    let found = whole(&classifier, &args.video, args.start)?;
    let (mut list, mut text) = (vec![], String::new());
    for (begin, scores) in classifier.parts(&found, BATCH) {
        let (label, score) = best(&classifier.labels, &scores);
        let seconds = args.start + begin as f64 / classifier.frames.rate;
        text.push_str(&format!("{seconds:7.1} s  {label}  {score:.3}\n"));
        list.push(json!({
            "seconds": seconds, "label": label, "score": score,
            "scores": by_label(&classifier.labels, &scores),
        }));
    }
    tell_end(&args.video, "action", &found, [args.start, classifier.frames.rate], global);
    let report = json!({"video": args.video, "model": args.model, "parts": list});
    super::print(global, &report, &text);
    Ok(())
}

pub fn anomaly(args: &AnomalyArgs, global: &Global) -> Outcome {
    for output in [&args.plot, &args.whereabouts] {
        super::apart(from_ref(&args.video), output.as_deref())?;
    }
    let source = places::model(&args.model, &global.runs)?;
    let detector = Detector::open(&source, &global.device.open()?)?;
    let frames = detector.frames.read(&args.video, args.start, FRAMES)?;
    let clip = Clip { name: String::new(), frames, anomalous: vec![] };
    let seen = detector.watch(&clip, BATCH);
    let seconds = |frame: usize| args.start + frame as f64 / detector.frames.rate;
    let threshold = args.threshold.or(detector.threshold.map(|threshold| threshold.value));
    let anomalous = |score: f64| threshold.map(|threshold| score >= threshold);
    let list: Vec<Value> = seen.iter().enumerate().map(|(frame, seen)| json!({
        "frame": frame, "seconds": seconds(frame), "score": seen.score, "anomalous": anomalous(seen.score),
    })).collect();
    let most = seen.iter().enumerate().max_by(|a, b| a.1.score.total_cmp(&b.1.score));
    let (worst, top) = most.ok_or_else(|| {
        Failure::text(BAD_FILE, format!("{}: no frame was found in it", args.video.display()))
    })?;
    let count = seen.iter().filter(|seen| anomalous(seen.score) == Some(true)).count();
    let mut text = format!(
        "{count} of {} frames are anomalous; the highest score is {:.3}, at {:.1} s (frame {worst})\n",
        seen.len(),
        top.score,
        seconds(worst)
    );
    if threshold.is_none() {
        text.push_str("the model has no threshold of its own: give --threshold\n");
    }
    for (from, to) in
        spans(&seen.iter().map(|s| anomalous(s.score) == Some(true)).collect::<Vec<_>>())
    {
        text.push_str(&format!(
            "anomalous from {:.1} s to {:.1} s\n",
            seconds(from),
            seconds(to + 1)
        ));
    }
    if let Some(path) = &args.plot {
        let curve = |name: &str, value: &dyn Fn(usize) -> f64| Curve {
            name: name.into(),
            points: (0..seen.len()).map(|i| (seconds(i), value(i))).collect(),
        };
        let mut curves = vec![curve("score", &|i| seen[i].score)];
        curves.extend(threshold.map(|threshold| curve("threshold", &|_| threshold)));
        let name = args.video.file_name().unwrap_or_default().to_string_lossy();
        let svg = line_chart_svg(&name, "seconds", "score", &curves);
        super::write(path, svg.as_bytes())?;
    }
    if let Some(path) = &args.whereabouts {
        let map = &top.map;
        let heat = HeatMap { rows: map.rows, columns: map.columns, values: map.values.clone() };
        super::write(path, &png(&heat.over(&clip.frames[worst])))?;
    }
    tell_end(&args.video, "anomaly", &clip.frames, [args.start, detector.frames.rate], global);
    let report = json!({
        "video": args.video, "model": args.model, "threshold": threshold, "anomalous": count,
        "highest": {"frame": worst, "seconds": seconds(worst), "score": top.score}, "frames": list,
    });
    super::print(global, &report, &text);
    Ok(())
}

/// First and last of the trues that follow one another.
fn spans(values: &[bool]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = vec![];
    for (i, _) in values.iter().enumerate().filter(|(_, value)| **value) {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == i => *last = i,
            _ => found.push((i, i)),
        }
    }
    found
}

/// `firebrick predict`: a label for every clip; of a longer video, by the mean over its parts.
pub fn predict_actions(
    args: &PredictArgs,
    source: &Source,
    device: &Device,
    global: &Global,
) -> Outcome {
    let classifier = ClipClassifier::open(source, device)?;
    let mut answers = vec![];
    for input in inputs(&args.input)? {
        let answer = whole(&classifier, &input.path, 0.0).map(|found| {
            tell_end(&input.path, "action", &found, [0.0, classifier.frames.rate], global);
            let parts = classifier.parts(&found, args.batch_size);
            let mut mean = vec![0.0; classifier.labels.len()];
            for (_, scores) in &parts {
                mean.iter_mut().zip(scores).for_each(|(m, p)| *m += p / parts.len() as f32);
            }
            json!({"label": best(&classifier.labels, &mean).0, "scores": by_label(&classifier.labels, &mean)})
        });
        answers.push((input.id, answer.map_err(|error| format!("{error:#}"))));
    }
    media::write_answers(&args.input, answers, args.output.as_deref(), global)
}

/// Says of a video that is longer than the `frames` that were looked at, from `start` seconds on and `rate` a second, which
/// command goes on where they end.
fn tell_end(
    path: &Path,
    command: &str,
    frames: &[Picture],
    [start, rate]: [f64; 2],
    global: &Global,
) {
    if frames.len() == FRAMES && !global.quiet {
        let (path, end) = (path.display(), start + FRAMES as f64 / rate);
        stderr!(
            "{path}: {FRAMES} frames were looked at, from {start:.1} s to {end:.1} s: go on with \
             `firebrick vision {command} --start {end:.1}`"
        );
    }
}

/// `firebrick predict`: a score for every frame, of a video, or of the videos and clips in a folder; frames of one clip lie
/// in one folder.
pub fn predict_anomalies(
    args: &PredictArgs,
    source: &Source,
    device: &Device,
    global: &Global,
) -> Outcome {
    let detector = Detector::open(source, device)?;
    let mut answers = vec![];
    let input = args.input.as_path();
    let scores = |video: &Path| -> Result<Vec<Value>, VideoError> {
        let frames = detector.frames.read(video, 0.0, FRAMES)?;
        tell_end(video, "anomaly", &frames, [0.0, detector.frames.rate], global);
        let clip = Clip { name: String::new(), frames, anomalous: vec![] };
        let seen = detector.watch(&clip, args.batch_size);
        Ok(seen.iter().map(|seen| json!({"score": seen.score})).collect())
    };
    if !input.is_dir() {
        let scores = scores(input)?.into_iter().enumerate();
        answers.extend(scores.map(|(i, score)| (i.to_string(), Ok(score))));
        return media::write_answers(input, answers, args.output.as_deref(), global);
    }
    // By folder the frames of a clip; a video has none.
    let mut clips = BTreeMap::<PathBuf, Vec<PathBuf>>::new();
    for file in layouts::files(input, |file| is_picture(file) || is_video(file))? {
        match is_video(&file) {
            true => clips.entry(file).or_default(),
            false => {
                let clip = clips.entry(file.parent().unwrap_or(input).to_owned()).or_default();
                clip.push(file);
                clip
            }
        };
    }
    if clips.is_empty() {
        let message = format!("{}: no video and no picture in this folder", input.display());
        return Err(Failure::text(BAD_FILE, message));
    }
    let [rows, columns] = detector.frames.frame.size;
    for (path, files) in clips {
        if files.is_empty() {
            let id = layouts::relative(&path, input);
            match scores(&path) {
                Ok(scores) => answers.extend(
                    scores
                        .into_iter()
                        .enumerate()
                        .map(|(i, score)| (format!("{id}/{i}"), Ok(score))),
                ),
                Err(error) => answers.push((id, Err(with_causes(&error)))),
            }
            continue;
        }
        let read = |file: &PathBuf| {
            let picture = decode::read(file, detector.frames.frame.colour)?;
            Ok(resize(&picture, columns, rows, detector.frames.frame.filter))
        };
        let read: Vec<Result<Picture, DataError>> = files.iter().map(read).collect();
        // A frame that cannot be read is as the one before it for its neighbours.
        let mut known: Vec<Picture> = vec![];
        for frame in &read {
            match frame {
                Ok(frame) => known.push(frame.clone()),
                Err(_) => {
                    let count = known.len() + 1;
                    fill(&mut known, count);
                }
            }
        }
        let late = files.len() - known.len();
        let clip = Clip { name: String::new(), frames: known, anomalous: vec![] };
        let seen =
            if clip.frames.is_empty() { vec![] } else { detector.watch(&clip, args.batch_size) };
        for (i, (file, frame)) in files.iter().zip(read).enumerate() {
            let answer = match (frame, i.checked_sub(late).and_then(|i| seen.get(i))) {
                (Ok(_), Some(seen)) => Ok(json!({"score": seen.score})),
                (Err(error), _) => Err(with_causes(&error)),
                (Ok(_), None) => Err("has no neighbours".into()),
            };
            answers.push((layouts::relative(file, input), answer));
        }
    }
    media::write_answers(input, answers, args.output.as_deref(), global)
}
