//! `firebrick eval` and `predict`: a trained model at work.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use firebrick_core::checkpoint::{Source, tensors::write_atomically};
use firebrick_data::{
    manifest,
    table::{BadRow, ColumnRef, Columns, ReadOptions, Row, Table, read},
};
use firebrick_metrics::interval::wilson_interval;
use firebrick_nlp::{
    classification::{
        classifier::{Prediction, TextClassifier},
        corpus,
        recipe::Recipe,
        train::evaluate,
    },
    tagging::{self, tagger::TextTagger},
    translation::{self, translator::Translator},
};
use firebrick_train::{job::Recipe as _, origin::Origin};
use serde_json::{Value, json};

use super::{Outcome, recipe::Opened};
use crate::{
    cli::{ColumnArgs, EvalArgs, Global, PredictArgs},
    failure::{BAD_FILE, Failure, GATE, USAGE},
    places, tasks,
};

pub fn open(name: &str, global: &Global) -> Result<TextClassifier, Failure> {
    let source = places::model(name, &global.runs)?;
    Ok(TextClassifier::open(&source, &global.device.open()?)?)
}

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

/// Labelled rows by path, by data set id, or by the recipe that made the model.
fn rows(args: &EvalArgs, global: &Global) -> anyhow::Result<(String, Vec<Row>)> {
    let split = args.split.as_deref();
    let Some(data) = &args.data else {
        return recipe_rows(&args.model, split, global);
    };
    if let Some(layout) = manifest::layout(data) {
        let last = layout.splits.last().map_or("test", |(name, _)| *name);
        let split = split.unwrap_or(last);
        return Ok((
            format!("{data}/{split}"),
            corpus::read_split(&places::data_set(data)?, data, split)?.rows,
        ));
    }
    let path = PathBuf::from(data);
    if !path.exists() && !data.contains(['/', '.']) {
        let guess =
            manifest::nearest(data).map_or(String::new(), |g| format!("; did you mean `{g}`?"));
        bail!("`{data}` is neither a file nor a text classification set{guess}");
    }
    let table = read(&path, &options(&args.columns, true))?.usable(&path)?;
    if !table.bad.is_empty() {
        eprintln!(
            "{}: {} rows set aside; the first: {}",
            path.display(),
            table.bad.len(),
            table.bad[0]
        );
    }
    Ok((data.clone(), table.rows))
}

/// The test part (or the named one) of the data that a model was trained on.
fn recipe_rows(
    model: &str,
    split: Option<&str>,
    global: &Global,
) -> anyhow::Result<(String, Vec<Row>)> {
    let dirs = [PathBuf::from(model), global.runs.join(model)];
    let dir = dirs.iter().find(|dir| dir.join("recipe.resolved.toml").exists());
    let opened = match dir {
        Some(dir) => Opened::file(&dir.join("recipe.resolved.toml")),
        None => Opened::named(model),
    };
    let Ok(opened) = opened else {
        bail!("name the rows with --data PATH or --data ID");
    };
    let recipe: Recipe = opened.parse(&[]).map_err(Failure::into_error)?;
    let corpus = corpus::load(&recipe.data, recipe.seed, &places::of_recipe(&opened.base))?;
    match split {
        Some("train") => Ok(("train".into(), corpus.train)),
        Some("valid" | "dev") => Ok(("valid".into(), corpus.valid)),
        Some("test") => Ok(("test".into(), corpus.test.context("this data has no test part")?)),
        Some(other) => bail!("no part `{other}`: train, valid or test"),
        None => Ok(match corpus.test {
            Some(test) => ("test".into(), test),
            None => ("valid".into(), corpus.valid),
        }),
    }
}

pub fn eval(args: &EvalArgs, global: &Global) -> Outcome {
    let gates = args.require.iter().map(|gate| Gate::parse(gate)).collect::<Result<Vec<_>, _>>()?;
    let classifier = open(&args.model, global)?;
    let (data, rows) = rows(args, global)?;
    let (judged, metrics, skipped) = evaluate(&classifier, &rows, args.batch_size.max(1));
    if skipped > 0 {
        eprintln!(
            "{skipped} rows have a label that the model does not know ({})",
            classifier.labels.join(", ")
        );
    }
    if skipped == rows.len() {
        return Err(Failure::text(
            BAD_FILE,
            format!("{data}: no row has a label that the model knows"),
        ));
    }
    let interval = wilson_interval(judged.confusion.correct(), judged.confusion.total());
    let mut text = format!("{data}: {} rows\n", judged.confusion.total());
    for (name, value) in &metrics {
        let range = match (name.as_str(), interval) {
            ("accuracy", Some((low, high))) => format!("  (95 % between {low:.4} and {high:.4})"),
            _ => String::new(),
        };
        text.push_str(&format!("{name} {value:.4}{range}\n"));
    }
    let confusion: Vec<&[u64]> = judged.confusion.rows().collect();
    let report = json!({
        "model": args.model, "data": data, "rows": judged.confusion.total(), "unknown_labels": skipped,
        "metrics": metrics, "accuracy_95": interval, "labels": classifier.labels, "confusion": confusion,
    });
    super::print(global, &report, &text);
    let unmet: Vec<String> = gates.iter().filter_map(|gate| gate.unmet(&metrics)).collect();
    match unmet.is_empty() {
        true => Ok(()),
        false => Err(Failure::text(GATE, format!("gate not met: {}", unmet.join("; ")))),
    }
}

/// `accuracy>=0.9`
struct Gate {
    score: String,
    at_least: bool,
    value: f64,
}

impl Gate {
    fn parse(text: &str) -> Result<Self, Failure> {
        let parts = text.split_once(">=").map(|p| (p, true));
        let parts = parts.or_else(|| text.split_once("<=").map(|p| (p, false)));
        let parsed = parts.and_then(|((score, value), at_least)| {
            Some(Self { score: score.trim().into(), at_least, value: value.trim().parse().ok()? })
        });
        parsed.ok_or_else(|| {
            Failure::text(
                USAGE,
                format!("--require `{text}` is not like accuracy>=0.9 or loss<=0.5"),
            )
        })
    }

    fn unmet(&self, metrics: &BTreeMap<String, f64>) -> Option<String> {
        let sign = if self.at_least { ">=" } else { "<=" };
        let Some(found) = metrics.get(&self.score) else {
            let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
            return Some(format!("no score `{}` (there are {})", self.score, known.join(", ")));
        };
        let met = if self.at_least { *found >= self.value } else { *found <= self.value };
        (!met).then(|| format!("{} is {found:.4}, not {sign} {}", self.score, self.value))
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

/// Writes answers by row, in the order of the rows, to `output` or stdout: JSON lines, or one `array`. A row that could
/// not be read has its error in their place, and makes the command fail at its end.
pub fn write_answers(
    input: &Path,
    bad: &[(usize, String)],
    answers: impl Iterator<Item = (usize, Value)>,
    output: Option<&Path>,
    array: bool,
) -> Outcome {
    let error = |(row, problem): &(usize, String)| (*row, json!({"id": row, "error": problem}));
    let lines: BTreeMap<usize, Value> = bad.iter().map(error).chain(answers).collect();
    let mut text = Vec::new();
    if array {
        let lines: Vec<&Value> = lines.values().collect();
        serde_json::to_writer(&mut text, &lines).context("writing the answers")?;
    } else {
        for line in lines.values() {
            serde_json::to_writer(&mut text, line).context("writing an answer")?;
            text.push(b'\n');
        }
    }
    match output {
        Some(path) => {
            write_atomically(path, &text).with_context(|| format!("writing {}", path.display()))?
        }
        None => BufWriter::new(std::io::stdout()).write_all(&text).context("writing to stdout")?,
    }
    match bad.len() {
        0 => Ok(()),
        bad => {
            let (path, all) = (input.display(), lines.len());
            let message = format!("{path}: {bad} of {all} rows could not be read");
            Err(Failure::text(BAD_FILE, message))
        }
    }
}

pub fn predict(args: &PredictArgs, global: &Global) -> Outcome {
    let source = places::model(&args.model, &global.runs)?;
    let device = global.device.open()?;
    let task = task(&source)?;
    if task == tagging::recipe::Recipe::TASK {
        return predict_tags(args, &TextTagger::open(&source, &device)?);
    }
    let table = texts(&args.input, &args.columns)?;
    let texts: Vec<&str> = table.rows.iter().map(|row| row.text.as_str()).collect();
    let answers: Vec<Value> = match task {
        translation::recipe::Recipe::TASK => {
            let translator = Translator::open(&source, &device)?;
            let answers = translator.translate(&texts, translator.config(), args.batch_size)?;
            answers.into_iter().map(|text| json!({"text": text})).collect()
        }
        _ => {
            let classifier = TextClassifier::open(&source, &device)?;
            let answers = classifier.predict(&texts, args.batch_size.max(1)).into_iter();
            let answer = |answer: Prediction| {
                let scores = classifier.labels.iter().cloned();
                let scores: serde_json::Map<String, Value> =
                    scores.zip(answer.scores.iter().map(|p| json!(p))).collect();
                json!({"label": classifier.labels[answer.label], "scores": scores})
            };
            answers.map(answer).collect()
        }
    };
    let answers = table.rows.iter().zip(answers).map(|(row, mut answer)| {
        answer["id"] = row.row.into();
        (row.row, answer)
    });
    let bad = problems(&table.bad);
    write_answers(&args.input, &bad, answers, args.output.as_deref(), false)
}

/// Rows that could not be read, and why.
pub fn problems(bad: &[BadRow]) -> Vec<(usize, String)> {
    bad.iter().map(|bad| (bad.row, bad.to_string())).collect()
}

/// Sentences come as `tokens` in JSON lines, or as texts that are cut into words here.
fn predict_tags(args: &PredictArgs, tagger: &TextTagger) -> Outcome {
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
    write_answers(&args.input, &bad, answers, args.output.as_deref(), false)
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

/// What a model was trained for: by its own record, else by its architecture.
fn task(source: &Source) -> Result<&'static str, Failure> {
    let known = |name: String| tasks::TASKS.iter().copied().find(|task| *task == name);
    if let Some(task) = Origin::read(source).and_then(|origin| known(origin.task)) {
        return Ok(task);
    }
    let family = source.config()?["model_type"].as_str().unwrap_or_default().to_string();
    Ok(match family.as_str() {
        "marian" | "bart" | "t5" => translation::recipe::Recipe::TASK,
        "firebrick-tagger" | "firebrick-hmm" => tagging::recipe::Recipe::TASK,
        _ => Recipe::TASK,
    })
}
