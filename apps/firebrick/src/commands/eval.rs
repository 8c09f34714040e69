//! `firebrick eval`: what a model is worth on rows whose answers are known.

mod vision;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context;
use firebrick_core::checkpoint::Source;
use firebrick_data::{
    error::DataError,
    manifest,
    table::{Columns, ReadOptions, Row, read},
};
use firebrick_metrics::{bootstrap, confusion::Confusion, interval::wilson_interval};
use firebrick_nlp::{
    classification::{classifier::TextClassifier, corpus, recipe::Recipe, train::evaluate},
    lm::{self, evaluate::EvalSettings},
    pretraining,
    tagging::{self, tagger::TextTagger},
    tokenizer::TextTokenizer,
    translation::{
        self,
        corpus::Pair,
        translator::{Judged, Translator},
    },
};
use firebrick_speech::{classification as sound, recognition, recordings};
use firebrick_train::{fit::Metrics, job::Recipe as _, origin::Origin, run};
use firebrick_vision::{
    anomaly, classification as pictures, detection, faces as people, video as clips,
};
use serde_json::{Value, json};

use super::{
    Outcome,
    ask::{self, task},
    recipe::Opened,
    speed::{self, Stopwatch},
};
use crate::{
    cli::{EvalArgs, Global},
    failure::{BAD_FILE, Failure, GATE, USAGE},
    places,
};

/// Scores of a model, and what is said of them.
#[derive(Default)]
pub struct Scored {
    /// Which rows.
    data: String,
    pub rows: usize,
    pub metrics: Metrics,
    /// At 95 %, of the scores of these names.
    intervals: BTreeMap<&'static str, (f64, f64)>,
    /// Scores of what was drawn from the rows, for [`Self::intervals`].
    resampled: BTreeMap<&'static str, Vec<f64>>,
    /// What only this task has to say.
    more: Value,
}

impl Scored {
    /// With the intervals that these scores of resampled rows tell.
    fn resampled(self, resampled: BTreeMap<&'static str, Vec<f64>>) -> Self {
        let known = resampled.iter().filter(|(name, _)| self.metrics.contains_key(**name));
        let intervals =
            known.filter_map(|(name, scores)| Some((*name, bootstrap::interval(scores)?)));
        Self { intervals: intervals.collect(), resampled, ..self }
    }
}

pub fn run(args: &EvalArgs, global: &Global) -> Outcome {
    let gates = args.require.iter().map(|gate| Gate::parse(gate)).collect::<Result<Vec<_>, _>>()?;
    let source = places::model(&args.model, &global.runs)?;
    if args.robustness && !vision::TASKS.contains(&task(&source)?) {
        return Err(Failure::text(USAGE, "--robustness is for models that see"));
    }
    let scored = score(args, &source, global)?;
    let Scored { data, rows, metrics, intervals, resampled, more } = scored;
    let mut text = format!("{data}: {rows} rows\n");
    for (name, value) in &metrics {
        let range = intervals.get(name.as_str()).map_or(String::new(), |(low, high)| {
            format!("  (95 % between {low:.4} and {high:.4})")
        });
        text.push_str(&format!("{name} {value:.4}{range}\n"));
    }
    for signature in ["bleu_signature", "chrf_signature"] {
        if let Some(found) = more[signature].as_str() {
            text.push_str(&format!("{} {found}\n", signature.replace('_', " ")));
        }
    }
    text.push_str(&speed::told(&more["speed"]));
    text.push_str(&vision::robustness_table(&more));
    let mut report = json!({"model": args.model, "data": data, "rows": rows, "metrics": metrics});
    for (key, value) in more.as_object().into_iter().flatten() {
        report[key] = value.clone();
    }
    for (name, interval) in &intervals {
        report[format!("{name}_95")] = json!(interval);
    }
    if args.resampled {
        report["resampled"] = json!(resampled);
    }
    super::print(global, &report, &text);
    Gate::check(&gates, &metrics)
}

/// Asks the model for its rows, whatever its task.
pub fn score(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    if let Some(data) = &args.data
        && !data.contains(['/', '.'])
        && !Path::new(data).exists()
        && manifest::data_set(data).is_none()
    {
        let guess = manifest::nearest(data);
        let guess = guess.map_or(String::new(), |guess| format!("; did you mean `{guess}`?"));
        let message = format!("`{data}` is neither a file nor a data set{guess}");
        return Err(Failure::text(USAGE, message));
    }
    if let (None, Some(split)) = (&args.data, &args.split)
        && !["train", "valid", "dev", "test"].contains(&split.as_str())
    {
        return Err(no_part(split)); // before anything is read
    }
    match task(source)? {
        tagging::recipe::Recipe::TASK => tags(args, source, global),
        translation::recipe::Recipe::TASK => translations(args, source, global),
        lm::recipe::Recipe::TASK => language(args, source, global),
        pretraining::recipe::Recipe::TASK => Err(ask::unfinished()),
        sound::recipe::Recipe::TASK => sounds(args, source, global),
        recognition::recipe::Recipe::TASK => speech(args, source, global),
        pictures::recipe::Recipe::TASK => vision::images(args, source, global),
        people::recipe::Recipe::TASK => vision::faces(args, source, global),
        clips::recipe::Recipe::TASK => vision::actions(args, source, global),
        anomaly::recipe::Recipe::TASK => vision::anomalies(args, source, global),
        detection::recipe::Recipe::TASK => vision::scenes(args, source, global),
        _ => classes(args, source, global),
    }
}

/// The recipe that made a model: that of its run, or the shipped one that its folder or its name tells.
pub fn recipe_of(model: &str, source: &Source, global: &Global) -> anyhow::Result<Opened> {
    let dirs = places::folders(model, &global.runs).into_iter();
    // A run, or the model in it.
    let mut dirs = dirs.flat_map(|dir| [dir.clone(), dir.join("..")]);
    if let Some(dir) = dirs.find(|dir| dir.join("recipe.resolved.toml").exists()) {
        let opened = Opened::file(&dir.join("recipe.resolved.toml"));
        // Its paths are relative to what they were in training, if that is still there.
        let base = run::read(&dir).ok().and_then(|info| info.base).filter(|base| base.is_dir());
        let opened = opened.map(|opened| opened.relative_to(base.unwrap_or_default()));
        return opened.map_err(Failure::into_error);
    }
    let opened = match Origin::read(source) {
        Some(origin) => Opened::named(&origin.recipe),
        None => Opened::named(model),
    };
    opened.map_err(|_| {
        DataError::WrongSet("name the rows with --data PATH or --data ID".into()).into()
    })
}

/// The recipe that made the model, or the one whose data is asked for.
fn recipe_for(args: &EvalArgs, source: &Source, global: &Global) -> anyhow::Result<Opened> {
    match &args.data_of {
        None => recipe_of(&args.model, source, global),
        Some(model) => {
            let source = places::model(model, &global.runs).map_err(Failure::into_error)?;
            recipe_of(model, &source, global)
        }
    }
}

/// The named part, else the test part, else the validation part; of it so many rows as are asked for.
fn choose<T: Part>(
    args: &EvalArgs,
    train: T,
    valid: T,
    test: Option<T>,
) -> Result<(String, T), Failure> {
    let (name, part) = match (args.split.as_deref(), test) {
        (Some("train"), _) => ("train", train),
        (Some("valid" | "dev"), _) | (None, None) => ("valid", valid),
        (Some("test") | None, Some(test)) => ("test", test),
        (Some("test"), None) => {
            return Err(Failure::text(USAGE, "this data has no test part: train or valid"));
        }
        (Some(other), _) => return Err(no_part(other)),
    };
    Ok((name.into(), part.thinned(args.rows.unwrap_or(usize::MAX))))
}

/// Rows of data, all or some.
trait Part {
    /// At most `rows`, spread evenly.
    fn thinned(self, rows: usize) -> Self;
}

impl<T> Part for Vec<T> {
    fn thinned(self, rows: usize) -> Self {
        let all = self.len();
        let wanted = |i: usize| i == 0 || i * rows / all != (i - 1) * rows / all;
        match rows < all {
            true => self
                .into_iter()
                .enumerate()
                .filter(|(i, _)| wanted(*i))
                .map(|(_, row)| row)
                .collect(),
            false => self,
        }
    }
}

impl Part for lm::corpus::Stream {
    /// A row is a window, here as long as most models' are; of a stream the first ones.
    fn thinned(mut self, rows: usize) -> Self {
        const WINDOW: usize = 128;
        let all = self.ids.len().max(1);
        self.ids.truncate(rows.saturating_mul(WINDOW));
        self.characters = self.characters * self.ids.len() / all;
        self
    }
}

fn classes(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let classifier = TextClassifier::open(source, &global.device.open()?)?;
    let (data, rows) = rows(args, source, global)?;
    let watch = Stopwatch::start();
    let (judged, metrics, skipped) = evaluate(&classifier, &rows, args.batch_size.max(1));
    let speed = watch.speed(rows.len(), args.latency, |row| {
        classifier.predict(&[&rows[row].text], 1);
    });
    let mut scored = of_classes(data, &classifier.labels, &judged.confusion, metrics, skipped)?;
    scored.more["speed"] = speed;
    Ok(scored)
}

/// Scores of any classifier; `skipped` rows have labels that it does not know.
fn of_classes(
    data: String,
    labels: &[String],
    confusion: &Confusion,
    metrics: Metrics,
    skipped: usize,
) -> Result<Scored, Failure> {
    tell_unknown(skipped, labels);
    if confusion.total() == 0 && skipped == 0 {
        let message = format!("{data}: has no rows; name another part with --split");
        return Err(Failure::text(USAGE, message));
    }
    if confusion.total() == 0 {
        return Err(Failure::text(
            BAD_FILE,
            format!("{data}: no row has a label that the model knows"),
        ));
    }
    let interval = wilson_interval(confusion.correct(), confusion.total());
    let counts: Vec<&[u64]> = confusion.rows().collect();
    let more = json!({"unknown_labels": skipped, "labels": labels, "confusion": counts});
    let rows = confusion.total() as usize;
    let intervals = interval.map(|interval| ("accuracy", interval)).into_iter().collect();
    Ok(Scored { data, rows, metrics, intervals, more, ..Scored::default() })
}

/// Says how many rows of a table were not read, and why the first was not.
fn tell_set_aside(path: &str, rows: usize, first: impl std::fmt::Display) {
    stderr!("{path}: {rows} rows set aside; the first: {first}");
}

fn tell_unknown(rows: usize, labels: &[String]) {
    if rows > 0 {
        let known = labels.join(", ");
        stderr!("{rows} rows have a label that the model does not know (it knows {known})");
    }
}

/// `--data`, but for the set that the model's recipe names: its parts are those of the recipe, and another division would
/// put training rows among those that it is judged by.
fn asked<'a>(args: &'a EvalArgs, source: &Source, global: &Global) -> Option<&'a String> {
    let data = args.data.as_ref()?;
    let own = || -> Option<String> {
        let recipe: toml::Table = recipe_for(args, source, global).ok()?.as_text().parse().ok()?;
        Some(recipe.get("data")?.get("dataset")?.as_str()?.to_string())
    };
    (own().as_ref() != Some(data)).then_some(data)
}

/// Whether `--data` is the id of a known set, and not a path.
pub fn is_set(data: &str) -> bool {
    manifest::data_set(data).is_some() && !Path::new(data).exists()
}

fn no_part(split: &str) -> Failure {
    Failure::text(USAGE, format!("no part `{split}`: train, valid or test"))
}

/// For data by path of which all is one part.
fn in_one_part(args: &EvalArgs) -> Result<(), DataError> {
    let Some(split) = &args.split else { return Ok(()) };
    Err(without_parts(args.data.as_deref().unwrap_or_default(), split))
}

/// A part was asked for of a file that is one.
pub fn without_parts(data: &str, split: &str) -> DataError {
    DataError::WrongSet(format!("--split {split}: {data} has no parts"))
}

/// Recordings in folders by class, or those of the recipe's data.
fn sounds(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let classifier = sound::classifier::SoundClassifier::open(source, &global.device.open()?)?;
    let rate = classifier.sample_rate();
    let (data, found) = match asked(args, source, global) {
        Some(id) if is_set(id) => {
            let data =
                sound::recipe::DataRecipe { dataset: Some(id.clone()), ..Default::default() };
            let places = places::of_recipe(Path::new(""));
            let corpus = sound::corpus::load(&data, rate, global.seed.unwrap_or(0), &places)?;
            let (part, found) = choose(args, corpus.train, corpus.valid, corpus.test)?;
            (format!("{id}, {part}"), found)
        }
        Some(path) => {
            in_one_part(args)?;
            let entries = recordings::class_folders(&PathBuf::from(path))?;
            let (found, problems) = recordings::load(&entries, rate)?;
            if let Some(first) = problems.first() {
                let count = problems.len();
                stderr!("{path}: {count} recordings could not be read; the first: {first}");
            }
            (path.clone(), found)
        }
        None => {
            let opened = recipe_for(args, source, global)?;
            let recipe: sound::recipe::Recipe = opened.parse(&[])?;
            let places = places::of_recipe(&opened.base);
            let corpus = sound::corpus::load(&recipe.data, rate, recipe.seed, &places)?;
            choose(args, corpus.train, corpus.valid, corpus.test)?
        }
    };
    let watch = Stopwatch::start();
    let (judged, skipped) = classifier.judge(&found, args.batch_size.max(1));
    let speed = watch.speed(found.len(), args.latency, |row| {
        classifier.judge(&found[row..=row], 1);
    });
    let labels = &classifier.labels;
    let mut scored = of_classes(data, labels, &judged.confusion, judged.metrics(), skipped)?;
    scored.more["speed"] = speed;
    Ok(scored)
}

/// Sentences of a JSON lines file, of a tagging set, or of the recipe's data.
fn tags(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let tagger = TextTagger::open(source, &global.device.open()?)?;
    let (data, sentences) = match asked(args, source, global) {
        Some(id) if tagging::corpus::SETS.contains(&id.as_str()) && !Path::new(id).exists() => {
            let data =
                tagging::recipe::DataRecipe { dataset: Some(id.clone()), ..Default::default() };
            let corpus = tagging::corpus::load(&data, &places::of_recipe(Path::new("")))?;
            let (part, found) = choose(args, corpus.train, corpus.valid, corpus.test)?;
            (format!("{id}, {part}"), found)
        }
        Some(path) => {
            in_one_part(args)?;
            (path.clone(), tagging::corpus::own(&PathBuf::from(path))?)
        }
        None => {
            let opened = recipe_for(args, source, global)?;
            let recipe: tagging::recipe::Recipe = opened.parse(&[])?;
            let corpus = tagging::corpus::load(&recipe.data, &places::of_recipe(&opened.base))?;
            choose(args, corpus.train, corpus.valid, corpus.test)?
        }
    };
    if !sentences.iter().any(|sentence| tagger.knows(sentence)) {
        let message = format!("{data}: no sentence has a tag or a label that the model knows");
        return Err(Failure::text(BAD_FILE, message));
    }
    let watch = Stopwatch::start();
    let judged = tagger.judge(&sentences, args.batch_size);
    let kinds: BTreeMap<_, _> = judged
        .spans
        .kinds()
        .iter()
        .map(|(kind, counts)| {
            let scores = json!({
                "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(), "spans": counts.truth,
            });
            (kind, scores)
        })
        .collect();
    let speed = watch.speed(sentences.len(), args.latency, |row| {
        tagger.tag(std::slice::from_ref(&sentences[row].tokens), 1);
    });
    let more = json!({"kinds": kinds, "speed": speed});
    let (rows, metrics) = (sentences.len(), judged.metrics());
    Ok(Scored { data, rows, metrics, more, ..Scored::default() })
}

/// Pairs of a table with the columns `source` and `target`, of a set in the recipe's languages, or of the recipe's data.
fn translations(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let translator = Translator::open(source, &global.device.open()?)?;
    let mut kept = Metrics::new();
    let (data, pairs) = match asked(args, source, global) {
        Some(path) if !is_set(path) => {
            in_one_part(args)?;
            let options = ReadOptions::new(Columns::named("source", Some("target")));
            let file = PathBuf::from(path);
            let table = read(&file, &options)?.usable(&file)?;
            let pair = |row: Row| Some(Pair { row: row.row, source: row.text, target: row.label? });
            (path.clone(), table.rows.into_iter().filter_map(pair).collect())
        }
        set => {
            let opened = recipe_for(args, source, global)?;
            let mut recipe: translation::recipe::Recipe = opened.parse(&[])?;
            if set.is_some() {
                recipe.data.dataset = set.cloned();
            }
            let languages = [&recipe.data.source, &recipe.data.target];
            kept = translation::formats::check(&translator, languages[0], languages[1])?;
            let places = places::of_recipe(&opened.base);
            let corpus = translation::corpus::load(&recipe.data, recipe.seed, &places)?;
            let (part, pairs) = choose(args, corpus.train, corpus.valid, corpus.test)?;
            (set.map_or(part.clone(), |id| format!("{id}, {part}")), pairs)
        }
    };
    let sources: Vec<&str> = pairs.iter().map(|pair| pair.source.as_str()).collect();
    let watch = Stopwatch::start();
    let answers = translator.sentences(&sources, translator.config(), args.batch_size)?;
    let speed = watch.speed(pairs.len(), args.latency, |row| {
        // What cannot be answered was told above.
        let _ = translator.sentences(&sources[row..=row], translator.config(), 1);
    });
    let judged = Judged::new(answers, &pairs);
    let more = json!({
        "bleu_signature": judged.bleu.signature(), "chrf_signature": judged.chrf.signature(),
        "speed": speed,
    });
    let (rows, mut metrics) = (pairs.len(), judged.metrics());
    metrics.extend(kept.into_iter().map(|(kind, share)| (format!("kept_{kind}"), share)));
    let scored = Scored { data, rows, metrics, more, ..Scored::default() };
    Ok(scored.resampled(judged.resampled()))
}

/// Recordings of a JSON lines file with their words, or those of the recipe's data.
fn speech(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let recognizer = recognition::recognizer::Recognizer::open(source, &global.device.open()?)?;
    let rate = recognizer.sample_rate();
    let (data, found) = match asked(args, source, global) {
        Some(id) if is_set(id) => {
            let data =
                recognition::recipe::DataRecipe { dataset: Some(id.clone()), ..Default::default() };
            let places = places::of_recipe(Path::new(""));
            let corpus = recognition::corpus::load(&data, rate, global.seed.unwrap_or(0), &places)?;
            let (part, found) = choose(args, corpus.train, corpus.valid, corpus.test)?;
            (format!("{id}, {part}"), found)
        }
        Some(path) => {
            in_one_part(args)?;
            let entries = recognition::corpus::own(&PathBuf::from(path))?;
            let (found, problems) = recordings::load(&entries, rate)?;
            if let Some(first) = problems.first() {
                let count = problems.len();
                stderr!("{path}: {count} recordings could not be read; the first: {first}");
            }
            (path.clone(), found)
        }
        None => {
            let opened = recipe_for(args, source, global)?;
            let recipe: recognition::recipe::Recipe = opened.parse(&[])?;
            let places = places::of_recipe(&opened.base);
            let corpus = recognition::corpus::load(&recipe.data, rate, recipe.seed, &places)?;
            choose(args, corpus.train, corpus.valid, corpus.test)?
        }
    };
    let watch = Stopwatch::start();
    let judged = recognizer.judge(&found, args.batch_size);
    let speed = watch.speed(found.len(), args.latency, |row| {
        recognizer.judge(&found[row..=row], 1);
    });
    let more =
        json!({"words": judged.words.of, "word_errors": judged.words.errors, "speed": speed});
    let (rows, metrics) = (found.len(), judged.metrics());
    let scored = Scored { data, rows, metrics, more, ..Scored::default() };
    Ok(scored.resampled(judged.resampled()))
}

/// A text file, or the stream of a set or of the recipe's data.
fn language(args: &EvalArgs, source: &Source, global: &Global) -> Result<Scored, Failure> {
    let model = lm::causal::LanguageModel::open(source, &global.device.open()?)?;
    let (data, stream, settings) = match asked(args, source, global) {
        Some(data) => {
            let tokenizer = TextTokenizer::open(source)?;
            let (name, stream) = match is_set(data) {
                true => {
                    let folder = places::data_set(data)?;
                    let corpus = lm::corpus::load_with(data, &folder, tokenizer)?;
                    let (part, stream) =
                        choose(args, corpus.train, corpus.valid, Some(corpus.test))?;
                    (format!("{data}, {part}"), stream)
                }
                false => {
                    in_one_part(args)?;
                    let text = std::fs::read_to_string(data)
                        .with_context(|| format!("reading {data}"))
                        .map_err(|error| Failure::new(BAD_FILE, error))?;
                    let stream = lm::corpus::whole(&text, &tokenizer);
                    (data.clone(), stream.thinned(args.rows.unwrap_or(usize::MAX)))
                }
            };
            let window = lm::evaluate::window(source)?;
            (name, stream, EvalSettings { window, batch_size: args.batch_size })
        }
        None => {
            let opened = recipe_for(args, source, global)?;
            let recipe: lm::recipe::Recipe = opened.parse(&[])?;
            let corpus = recipe.corpus(&places::of_recipe(&opened.base))?;
            let (part, stream) = choose(args, corpus.train, corpus.valid, Some(corpus.test))?;
            (part, stream, recipe.reading())
        }
    };
    if stream.ids.len() < 2 {
        let message = format!("{data}: fewer than two tokens, of which the second is guessed");
        return Err(Failure::text(BAD_FILE, message));
    }
    let watch = Stopwatch::start();
    let metrics = lm::evaluate::evaluate(&model, &stream, settings).metrics();
    let rows = stream.ids.len();
    // A row is a token; what is read at once is a window.
    let ids = stream.ids[..settings.window.min(rows)].to_vec();
    let window = lm::corpus::Stream { ids, characters: 0 };
    let speed = watch.speed(rows, args.latency, |_| {
        lm::evaluate::evaluate(&model, &window, settings);
    });
    Ok(Scored { data, rows, metrics, more: json!({"speed": speed}), ..Scored::default() })
}

/// Labelled rows by path, by data set id, or by the recipe that made the model.
fn rows(args: &EvalArgs, source: &Source, global: &Global) -> Result<(String, Vec<Row>), Failure> {
    let split = args.split.as_deref();
    let Some(data) = &args.data else {
        let opened = recipe_for(args, source, global)?;
        let recipe: Recipe = opened.parse(&[])?;
        let corpus = corpus::load(&recipe.data, recipe.seed, &places::of_recipe(&opened.base))?;
        return choose(args, corpus.train, corpus.valid, corpus.test);
    };
    if manifest::layout(data).is_some() || is_set(data) {
        let last = corpus::layout(data)?.splits.last().map_or("test", |(name, _)| *name);
        let split = split.unwrap_or(last);
        let rows = corpus::read_split(&places::data_set(data)?, data, split)?.rows;
        let rows = rows.thinned(args.rows.unwrap_or(usize::MAX));
        return Ok((format!("{data}/{split}"), rows));
    }
    in_one_part(args)?;
    let path = PathBuf::from(data);
    let table = read(&path, &ask::options(&args.columns, true))?.usable(&path)?;
    if let Some(first) = table.bad.first() {
        tell_set_aside(data, table.bad.len(), first);
    }
    Ok((data.clone(), table.rows))
}

/// `accuracy>=0.9`
pub struct Gate {
    score: String,
    at_least: bool,
    value: f64,
}

impl Gate {
    pub fn parse(text: &str) -> Result<Self, Failure> {
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

    /// Fails if one of them does not hold, or asks for a score that there is not.
    pub fn check(gates: &[Self], metrics: &Metrics) -> Outcome {
        let mut unmet = vec![];
        for Self { score, at_least, value } in gates {
            let Some(found) = metrics.get(score) else {
                let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
                let known = known.join(", ");
                let message = format!("--require: no score `{score}` (there are {known})");
                return Err(Failure::text(USAGE, message));
            };
            let met = if *at_least { found >= value } else { found <= value };
            if !met {
                let sign = if *at_least { ">=" } else { "<=" };
                unmet.push(format!("{score} is {found:.4}, not {sign} {value}"));
            }
        }
        match unmet.is_empty() {
            true => Ok(()),
            false => Err(Failure::text(GATE, format!("gate not met: {}", unmet.join("; ")))),
        }
    }
}
