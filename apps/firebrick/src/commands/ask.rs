//! `firebrick predict`: a trained model at work, and what other commands share with it.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use firebrick_core::{
    arch::{clip_rnn, deep_speech, detector, motion},
    checkpoint::Source,
    generate::GenerationConfig,
};
use firebrick_data::{
    sheet,
    table::{BadRow, ColumnRef, Columns, ReadOptions, Table, read},
};
use firebrick_nlp::{
    classification::{
        classifier::{Prediction, TextClassifier},
        recipe::Recipe,
    },
    embed::Embedder,
    generate::{Limits, Writer},
    lm, pretraining,
    tagging::{self, tagger::TextTagger},
    translation::{self, translator::Translator},
};
use firebrick_speech::{
    classification::{classifier::SoundClassifier, recipe::Recipe as SoundRecipe},
    recognition::recipe::Recipe as SpeechRecipe,
    transcribe::Transcriber,
    whisper::Options,
};
use firebrick_train::{job::Recipe as _, origin::Origin};
use firebrick_vision::{
    anomaly, classification as pictures, detection, faces as people, video as clips,
};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::{Outcome, detect, faces, media, nlp, video, vision};
use crate::{
    cli::{ColumnArgs, Global, PredictArgs},
    failure::{BAD_FILE, Failure, USAGE, with_causes},
    tasks,
};

pub fn options(columns: &ColumnArgs, labelled: bool) -> ReadOptions {
    let label = labelled.then_some(columns.label_column.as_str());
    match columns.no_header {
        true => ReadOptions {
            header: false,
            ..ReadOptions::new(Columns::indexed(0, labelled.then_some(1)))
        },
        false => ReadOptions::new(Columns::named(&columns.text_column, label)),
    }
}

/// Texts of a file that are to be answered; a `.txt` file has one a line.
pub fn texts(path: &Path, columns: &ColumnArgs) -> Result<Table, Failure> {
    let mut columns = options(columns, false);
    if path.extension().is_some_and(|e| e == "txt") {
        columns.columns.text = ColumnRef::Index(0);
    }
    Ok(read(path, &columns)?)
}

/// Writes answers by row, in the order of the rows, to `output` or stdout: JSON lines, or one array with
/// `--json`; a table, if the file's name ends so. A row that could not be read has its error in their place, and makes the command fail at its end.
pub fn write_answers(
    input: &Path,
    bad: &[(usize, String)],
    answers: impl Iterator<Item = (usize, Value)>,
    output: Option<&Path>,
    global: &Global,
) -> Outcome {
    let error = |(row, problem): &(usize, String)| (*row, json!({"id": row, "error": problem}));
    let lines: BTreeMap<usize, Value> = bad.iter().map(error).chain(answers).collect();
    write_lines(input, &lines.into_values().collect::<Vec<_>>(), bad.len(), output, global)
}

/// As [`write_answers`] of lines in their order, `bad` of which are errors.
pub fn write_lines(
    input: &Path,
    lines: &[Value],
    bad: usize,
    output: Option<&Path>,
    global: &Global,
) -> Outcome {
    let all = lines.len();
    let json = || {
        let lines: Vec<String> = lines.iter().map(with_id_first).collect();
        match global.json && output.is_none() {
            true => format!("[{}]\n", lines.join(",")),
            false => lines.into_iter().map(|line| line + "\n").collect(),
        }
    };
    match output {
        Some(path) => {
            let bytes = match sheet::Format::of(path) {
                Some(format) => sheet::write(format, lines),
                None => json().into_bytes(),
            };
            super::write(path, &bytes)?;
            if global.json {
                say!("{}", json!({"output": path, "rows": all, "unreadable": bad}));
            }
        }
        None => super::tell(format_args!("{}", json())),
    }
    match bad {
        0 => Ok(()),
        bad => {
            let path = input.display();
            let message = format!("{path}: {bad} of {all} could not be read");
            Err(Failure::text(BAD_FILE, message))
        }
    }
}

/// An answer as JSON: the `id` comes first, whatever the letters of the others.
pub fn with_id_first(answer: &Value) -> String {
    let fields = answer.as_object().into_iter().flatten().filter(|(name, _)| *name != "id");
    let mut text = format!("{{\"id\":{}", answer["id"]);
    for (name, value) in fields {
        text.push_str(&format!(",{}:{value}", json!(name)));
    }
    text + "}"
}

pub fn predict(args: &PredictArgs, global: &Global) -> Outcome {
    super::apart(std::slice::from_ref(&args.input), args.output.as_deref())?;
    let source = nlp::checkpoint(&args.model, global)?;
    let device = global.device.open()?;
    // The head that an adapter brings makes more of an embedder's folder.
    let config = match source.optional("config.json", 1 << 20)? {
        Some(_) => source.config()?,
        None => Value::Null, // an embedder's may lie in a folder of the encoder's own
    };
    let head = config["architectures"][0].as_str().unwrap_or_default();
    let embeds = source.optional("modules.json", 1 << 20)?.is_some()
        && !head.ends_with("ForSequenceClassification");
    let trained_for = if embeds { Recipe::TASK } else { task(&source)? };
    let task = match trained_for {
        // Another's model of these families may do anything with a text: it writes as its folder says.
        translation::recipe::Recipe::TASK if !translates(&source)? => lm::recipe::Recipe::TASK,
        task => task,
    };
    if args.neutral_below.is_some() && (embeds || task != Recipe::TASK) {
        let message = "--neutral-below is for models that label texts";
        return Err(Failure::text(USAGE, message));
    }
    if task == tagging::recipe::Recipe::TASK {
        return predict_tags(args, &TextTagger::open(&source, &device)?, global);
    }
    if task == SoundRecipe::TASK {
        return predict_sounds(args, &SoundClassifier::open(&source, &device)?, global);
    }
    if task == SpeechRecipe::TASK {
        return predict_speech(args, &Transcriber::open(&source, &device)?, global);
    }
    if task == pictures::recipe::Recipe::TASK {
        return vision::predict(args, &source, &device, global);
    }
    if task == people::recipe::Recipe::TASK {
        return faces::predict(args, &source, &device, global);
    }
    if task == clips::recipe::Recipe::TASK {
        return video::predict_actions(args, &source, &device, global);
    }
    if task == anomaly::recipe::Recipe::TASK {
        return video::predict_anomalies(args, &source, &device, global);
    }
    if task == detection::recipe::Recipe::TASK {
        return detect::predict(args, &source, &device, global);
    }
    if task == lm::recipe::Recipe::TASK {
        return predict_continuations(args, &Writer::open(&source, &device)?, global);
    }
    let table = texts(&args.input, &args.columns)?;
    let table = if task == Recipe::TASK && !embeds { table.worded() } else { table };
    let texts: Vec<&str> = table.rows.iter().map(|row| row.text.as_str()).collect();
    let answers: Vec<Value> = match task {
        _ if embeds => {
            let embedder = Embedder::open(&source, &device)?;
            let vectors = embedder.embed(&texts, args.batch_size).into_iter();
            vectors.map(|vector| json!({"embedding": vector})).collect()
        }
        translation::recipe::Recipe::TASK => {
            let translator = Translator::open(&source, &device)?;
            let answers = translator.translate(&texts, translator.config(), args.batch_size)?;
            answers.into_iter().map(|text| json!({"text": text})).collect()
        }
        pretraining::recipe::Recipe::TASK => return Err(unfinished()),
        _ => {
            let classifier = TextClassifier::open(&source, &device)?;
            let answers = classifier.predict(&texts, args.batch_size.max(1)).into_iter();
            let answer = |answer: Prediction| {
                let mut said = labelled(&classifier.labels, answer.label, &answer.scores);
                let sure = answer.scores[answer.label];
                if args.neutral_below.is_some_and(|least| sure < least) {
                    said["label"] = "neutral".into();
                }
                said
            };
            answers.map(answer).collect()
        }
    };
    let answers = table.rows.iter().zip(answers).map(|(row, mut answer)| {
        answer["id"] = row.row.into();
        (row.row, answer)
    });
    let bad = problems(&table.bad);
    write_answers(&args.input, &bad, answers, args.output.as_deref(), global)
}

/// What a language model goes on with. A prompt that is too long, or has no token, does not keep the others from theirs.
fn predict_continuations(args: &PredictArgs, writer: &Writer, global: &Global) -> Outcome {
    let table = texts(&args.input, &args.columns)?;
    let prompts: Vec<&str> = table.rows.iter().map(|row| row.text.as_str()).collect();
    let config = GenerationConfig { seed: global.seed.unwrap_or(0), ..writer.config.clone() };
    let (mut answers, mut bad) = (vec![], problems(&table.bad));
    let continued = continue_all(writer, &prompts, &config, args.batch_size.max(1));
    for (row, text) in table.rows.iter().zip(continued) {
        match text {
            Ok(text) => answers.push((row.row, json!({"id": row.row, "text": text}))),
            Err(error) => bad.push((row.row, format!("row {}: {error:#}", row.row + 1))),
        }
    }
    write_answers(&args.input, &bad, answers.into_iter(), args.output.as_deref(), global)
}

/// What a language model goes on with, prompt by prompt; those that it cannot read are tried alone.
fn continue_all(
    writer: &Writer,
    prompts: &[&str],
    config: &GenerationConfig,
    batch_size: usize,
) -> Vec<anyhow::Result<String>> {
    let limits = Limits { special_tokens: true, ..Limits::default() };
    let write = |prompts: &[&str]| writer.write(prompts, config, &limits, &mut |_, _| {});
    let answers = |batch: &[&str]| -> Vec<anyhow::Result<String>> {
        match write(batch) {
            Ok(texts) => texts.into_iter().map(Ok).collect(),
            Err(_) => batch.iter().map(|&prompt| Ok(write(&[prompt])?.concat())).collect(),
        }
    };
    prompts.chunks(batch_size).flat_map(answers).collect()
}

/// Of a pre-trained encoder, which has no labels to answer with.
pub fn unfinished() -> Failure {
    let message =
        "this encoder is pre-trained: fine-tune it first, with `model.pretrained` in a recipe";
    Failure::text(USAGE, message)
}

/// The best label and the probabilities of all.
fn labelled(labels: &[String], best: usize, scores: &[f32]) -> Value {
    let scores = labels.iter().cloned().zip(scores.iter().map(|p| json!(p)));
    let scores: serde_json::Map<String, Value> = scores.collect();
    json!({"label": labels[best], "scores": scores})
}

/// Files that are read before they are answered together, so that a folder of any size needs no more memory.
const FILES: usize = 256;

fn predict_sounds(args: &PredictArgs, classifier: &SoundClassifier, global: &Global) -> Outcome {
    let mut answers = vec![];
    for part in media::find(&args.input)?.chunks(FILES) {
        let read = part.par_iter().map(|(_, path)| media::samples(path, classifier.sample_rate()));
        let read: Vec<_> = read.collect();
        let sounds: Vec<&[f32]> = read.iter().flatten().map(Vec::as_slice).collect();
        let mut said = classifier.predict(&sounds, args.batch_size).into_iter();
        for ((id, _), samples) in part.iter().zip(&read) {
            let answer = match samples {
                Err(problem) => Err(with_causes(&problem)),
                Ok(_) => {
                    let said = said.next().expect("one for each that was read");
                    Ok(labelled(&classifier.labels, said.label, &said.scores))
                }
            };
            answers.push((id.clone(), answer));
        }
    }
    media::write_answers(&args.input, answers, args.output.as_deref(), global)
}

fn predict_speech(args: &PredictArgs, transcriber: &Transcriber, global: &Global) -> Outcome {
    let options = Options { seed: global.seed.unwrap_or(0), ..Options::default() };
    let mut answers = vec![];
    for (id, path) in media::find(&args.input)? {
        let answer = match media::samples(&path, transcriber.sample_rate()) {
            Err(problem) => Err(with_causes(&problem)),
            Ok(samples) => {
                let said = transcriber.write(&samples, &options, true, &mut |_| ())?;
                Ok(json!({"text": said.text(), "language": said.language}))
            }
        };
        answers.push((id, answer));
    }
    media::write_answers(&args.input, answers, args.output.as_deref(), global)
}

/// What is told of rows that could not be read, if there are some.
pub fn unreadable(bad: &[BadRow]) -> Option<String> {
    let first = bad.first()?;
    Some(format!("{} rows could not be read; the first: {first}", bad.len()))
}

/// Rows that could not be read, and why.
pub fn problems(bad: &[BadRow]) -> Vec<(usize, String)> {
    bad.iter().map(|bad| (bad.row, bad.to_string())).collect()
}

/// Sentences come as `tokens` in JSON lines, or as texts that are cut into words here.
fn predict_tags(args: &PredictArgs, tagger: &TextTagger, global: &Global) -> Outcome {
    let (mut rows, mut sentences, mut bad) = (vec![], vec![], vec![]);
    if has_tokens(&args.input) {
        let lines = read_lines(&args.input)?;
        for (row, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str::<tagging::corpus::Line>(line) {
                Ok(line) => {
                    rows.push(row);
                    sentences.push(line.tokens);
                }
                Err(error) => bad.push((row, format!("line {}: {error}", row + 1))),
            }
        }
    } else {
        let table = texts(&args.input, &args.columns)?;
        rows = table.rows.iter().map(|row| row.row).collect();
        sentences = table.rows.iter().map(|row| tagging::tagger::split(&row.text)).collect();
        bad = problems(&table.bad);
    }
    let answers = tagger.tag(&sentences, args.batch_size);
    let answers = rows.iter().zip(&sentences).zip(answers).map(|((row, tokens), answer)| {
        let mut value = json!({"id": row, "tokens": tokens, "tags": answer.tags});
        if let Some((best, scores)) = answer.label {
            value["label"] = tagger.labels[best].clone().into();
            let names = tagger.labels.iter().cloned();
            value["scores"] = names
                .zip(scores.into_iter().map(|p| json!(p)))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        (*row, value)
    });
    write_answers(&args.input, &bad, answers, args.output.as_deref(), global)
}

/// Longest file of sentences.
const LINES_LIMIT: u64 = 1 << 30;

fn read_lines(path: &Path) -> Result<String, Failure> {
    let size =
        std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    if size > LINES_LIMIT {
        let message = format!("{}: {size} bytes, above the limit of {LINES_LIMIT}", path.display());
        return Err(Failure::text(BAD_FILE, message));
    }
    std::fs::read_to_string(path)
        .map_err(|error| Failure::text(BAD_FILE, format!("{}: {error}", path.display())))
}

/// Whether a file's first line is a JSON object with `tokens`.
fn has_tokens(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    let mut start = String::new();
    let limited = std::io::Read::take(file, 1 << 20);
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(limited), &mut start);
    let value: Option<Value> = serde_json::from_str(&start).ok();
    read.is_ok() && value.is_some_and(|value| value["tokens"].is_array())
}

/// Whether a model translates sentence by sentence: our own do, and Marian's.
fn translates(source: &Source) -> Result<bool, Failure> {
    Ok(Origin::read(source).is_some() || source.config()?["model_type"] == "marian")
}

/// What a model was trained for: by its own record, else by its architecture.
pub fn task(source: &Source) -> Result<&'static str, Failure> {
    let known = |name: String| tasks::TASKS.iter().copied().find(|task| *task == name);
    if let Some(task) = Origin::read(source).and_then(|origin| known(origin.task)) {
        return Ok(task);
    }
    let config = source.config()?;
    if config["architectures"][0].as_str().is_some_and(|a| a.ends_with("ForSequenceClassification"))
    {
        return Ok(Recipe::TASK);
    }
    let family = config["model_type"].as_str().unwrap_or_default().to_string();
    Ok(match family.as_str() {
        "marian" | "bart" | "t5" => translation::recipe::Recipe::TASK,
        "firebrick-tagger" | "firebrick-hmm" => tagging::recipe::Recipe::TASK,
        motion::MODEL_TYPE => anomaly::recipe::Recipe::TASK,
        clip_rnn::MODEL_TYPE | "videomae" => clips::recipe::Recipe::TASK,
        deep_speech::MODEL_TYPE | "whisper" | "wav2vec2" => SpeechRecipe::TASK,
        "gpt2" | "llama" | "mistral" | "qwen2" | "qwen3" | "firebrick-rnn" => {
            lm::recipe::Recipe::TASK
        }
        "resnet" | "mobilenet_v2" | "convnext" | "vit" => pictures::recipe::Recipe::TASK,
        detector::MODEL_TYPE => detection::recipe::Recipe::TASK,
        _ => Recipe::TASK,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_comes_first() {
        let line = with_id_first(&json!({"boxes": [], "id": "a \"b\"", "error": null}));
        assert_eq!(line, r#"{"id":"a \"b\"","boxes":[],"error":null}"#);
    }
}
