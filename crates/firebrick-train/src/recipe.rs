//! The parts of a recipe that every application shares, and how a recipe is read.
//!
//! A recipe is TOML. Unknown keys are errors that guess the key meant and name the line; a value
//! outside its domain names its key.

mod method;

use std::path::Path;

use firebrick_kernels::matmul::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use method::{Curve, GradientSettings, Method, Optimizer, Quantize, Schedule, Settings};

use crate::sweep::SweepRecipe;

/// Recipes are written by people: a megabyte is plenty.
pub const RECIPE_LIMIT: u64 = 1 << 20;

/// `[train]`: how weights are updated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainRecipe {
    /// Passes over the training rows; may be a fraction.
    pub epochs: f64,
    /// Stop after this many optimiser steps, whatever `epochs` says; 0 sets no limit.
    pub max_steps: usize,
    /// Rows per optimiser step; with `gd` and `lbfgs`, whose steps are over all rows, rows that are gone through at a time.
    pub batch_size: usize,
    /// Micro-batches that a batch is split into, to save memory; the step is the same.
    pub accumulation: usize,
    /// Processes that hold one model between them, each some heads and inner channels of every layer; the others that
    /// `mpirun` starts share the batch. Any number may continue a run. With `adam`, `adamw`, `sgd`, `lion` or `gd`.
    pub tensor_parallel: usize,
    /// Run a model's layers once more in the backward pass instead of remembering what is in them, to save memory.
    pub activation_checkpointing: bool,
    /// Multiply numbers of 16 bits (bf16) in the linear layers, and in `muon`; sums and weights keep 32. On `flex`, where
    /// the CPU can (AVX-512 BF16); elsewhere nothing changes.
    pub bf16: bool,
    /// Compute every step with the weights as `compress --quantize` would store them (`int8` or `int4`), and let the
    /// floats behind them learn by its gradients. What is evaluated and kept is rounded: stored so, it is the same model.
    pub quantize: Quantize,
    /// Share of the weights of linear layers, convolutions and recurrent layers that end as zeros, the smallest of all together. It
    /// rises from none over the first half of the steps, and a weight whose gradient says so comes back. What is evaluated and
    /// kept has the whole share. Files and speed stay as they are.
    pub sparsity: f64,
    /// How weights follow from gradients. A key that the optimiser does not read is an error.
    pub optimizer: Optimizer,
    /// Highest learning rate, reached after the warm-up. Left out: 0.1 for `gd` and `sgd`, 0.01 for `adagrad`, 1e-4 for
    /// `lion`, 1 for `lbfgs`, else 1e-3.
    pub learning_rate: Option<f64>,
    /// Highest learning rate of the head, where it differs: a fresh head on a pretrained model learns faster.
    pub head_learning_rate: Option<f64>,
    /// How the learning rate goes on after the warm-up. Left out: `cosine`, or `constant` for `gd` and `lbfgs`.
    pub schedule: Option<Schedule>,
    /// Steps in which the learning rate rises in a straight line. Left out: 100, or 0 for `gd` and `lbfgs`.
    pub warmup_steps: Option<usize>,
    /// What the learning rate does not fall below; 0 when left out. Any schedule but `constant`.
    pub min_learning_rate: Option<f64>,
    /// Steps between two falls of the schedule `step`.
    pub step_size: Option<usize>,
    /// Factor of the schedules `step` and `exponential`.
    pub gamma: Option<f64>,
    /// Decay of the weights beside the gradient, times the learning rate. Left out: 0.01 for `adamw`, 0.1 for `lion` and
    /// `muon`, 0 for `adafactor`; the others have `l2`. Like both penalties it is for what has two axes or more: no
    /// biases and no scales of norms, but tables of embeddings.
    pub weight_decay: Option<f64>,
    /// Weight of the penalty on the sum of absolute weights; 0 when left out. Any optimiser but `lbfgs`.
    pub l1: Option<f64>,
    /// Weight of the penalty on half the sum of squared weights, in the gradient; 0 when left out. Any optimiser but
    /// `lbfgs`.
    pub l2: Option<f64>,
    /// What is kept of the velocity. Left out: 0.9 for `sgd`, 0.95 for `muon`, 0 for `rmsprop`.
    pub momentum: Option<f64>,
    /// Share of the gradient that does not become velocity, for `sgd`; 0 when left out.
    pub dampening: Option<f64>,
    /// Whether momentum looks ahead (Nesterov). Left out: true for `muon`, false for `sgd`.
    pub nesterov: Option<bool>,
    /// Decay of the average gradient, for `adam`, `adamw`, `lion` and `muon`; 0.9 when left out.
    pub beta1: Option<f64>,
    /// Decay of the average square, and of Lion's moment. Left out: 0.999 for `adam`, `adamw` and `muon`, 0.99 for `lion` and
    /// `rmsprop`.
    pub beta2: Option<f64>,
    /// Keeps divisors from zero. Left out: 1e-8, or 1e-10 for `adagrad` and 1e-30 for `adafactor`.
    pub epsilon: Option<f64>,
    /// Step `t` of `adafactor` keeps `1 - t^decay_rate` of the squares; -0.8 when left out.
    pub decay_rate: Option<f64>,
    /// Longest root mean square of a step of `adafactor`, before the rate; 1 when left out.
    pub clip_threshold: Option<f64>,
    /// Steps whose curvature `lbfgs` remembers; 10 when left out.
    pub history_size: Option<usize>,
    /// Whether `lbfgs` looks for a length of its step that fulfils the strong Wolfe conditions, at a cost of one or more
    /// passes over the rows; true when left out. Else the length is the learning rate.
    pub line_search: Option<bool>,
    /// Gradients are scaled down to this global norm; 1 when left out, and 0 turns clipping off. Any optimiser but `lbfgs`.
    pub max_grad_norm: Option<f64>,
    /// Probability mass taken from the true label and spread over all.
    pub label_smoothing: f64,
    /// Weight of R-Drop, which draws the answers under two dropout masks together; 0 turns it off.
    pub r_drop: f64,
    /// Decay of the exponential moving average of the weights that is evaluated and kept; 0 turns it off.
    pub ema_decay: f64,
    /// Evaluate every this many steps; 0 evaluates after every epoch.
    pub eval_every: usize,
    /// Stop after this many evaluations without a better score; 0 never stops early.
    pub patience: usize,
}

impl Default for TrainRecipe {
    fn default() -> Self {
        Self {
            epochs: 3.0,
            max_steps: 0,
            batch_size: 32,
            accumulation: 1,
            tensor_parallel: 1,
            activation_checkpointing: false,
            bf16: false,
            quantize: Quantize::Off,
            sparsity: 0.0,
            optimizer: Optimizer::AdamW,
            learning_rate: None,
            head_learning_rate: None,
            schedule: None,
            warmup_steps: None,
            min_learning_rate: None,
            step_size: None,
            gamma: None,
            weight_decay: None,
            l1: None,
            l2: None,
            momentum: None,
            dampening: None,
            nesterov: None,
            beta1: None,
            beta2: None,
            epsilon: None,
            decay_rate: None,
            clip_threshold: None,
            history_size: None,
            line_search: None,
            max_grad_norm: None,
            label_smoothing: 0.0,
            r_drop: 0.0,
            ema_decay: 0.0,
            eval_every: 0,
            patience: 0,
        }
    }
}

/// `[checkpoint]`: what is kept for a resume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRecipe {
    /// Save every this many steps; 0 saves after every evaluation.
    pub every_steps: usize,
    /// Complete checkpoints kept; older ones are deleted.
    pub keep: usize,
}

impl Default for CheckpointRecipe {
    fn default() -> Self {
        Self { every_steps: 0, keep: 2 }
    }
}

/// `[eval]`: what decides which weights are best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalRecipe {
    /// Score on the validation rows that picks the best weights; each task has its own default.
    pub metric: Option<String>,
    /// Rows per batch in evaluation.
    pub batch_size: usize,
}

impl Default for EvalRecipe {
    fn default() -> Self {
        Self { metric: None, batch_size: 64 }
    }
}

/// A recipe that cannot be used; one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct RecipeError {
    pub line: Option<usize>,
    pub message: String,
}

impl RecipeError {
    /// `key` is a dotted path, `train.epochs`.
    pub fn value(key: &str, problem: impl std::fmt::Display) -> Self {
        Self { line: None, message: format!("`{key}` {problem}") }
    }
}

/// The first key of a table with another value than in `plain`, those in `except` aside: where nothing reads it, that is
/// an error.
pub fn changed<T: Serialize>(given: &T, plain: &T, except: &[&str]) -> Option<String> {
    let table = |value: &T| toml::Table::try_from(value).expect("a recipe can be written");
    let (given, plain) = (table(given), table(plain));
    let mut changed = given
        .iter()
        .filter(|(key, value)| !except.contains(&key.as_str()) && plain.get(*key) != Some(*value));
    changed.next().map(|(key, _)| key.clone())
}

/// Keys of `[model]` that count beside `pretrained`: its checkpoint brings its own sizes.
pub const BESIDE_PRETRAINED: &[&str] = &["pretrained", "fresh_weights", "lora"];

/// An error that names a size which stands beside `model.pretrained`.
pub fn check_pretrained<T: Serialize>(model: &T, plain: &T) -> Result<(), RecipeError> {
    match changed(model, plain, BESIDE_PRETRAINED) {
        None => Ok(()),
        Some(key) => {
            let problem = "stands beside `model.pretrained`, whose checkpoint has its own";
            Err(RecipeError::value(&format!("model.{key}"), problem))
        }
    }
}

/// Checks that a table's numbers lie in their domains.
pub trait Check {
    fn check(&self) -> Result<(), RecipeError>;

    /// Fills in what was left out and follows from the rest; called after the check.
    fn resolve(&mut self) {}
}

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), RecipeError> {
    match value.is_finite() && (low..=high).contains(&value) {
        true => Ok(()),
        false => Err(RecipeError::value(key, format!("is {value}, not within {low} and {high}"))),
    }
}

fn count(key: &str, value: usize, low: usize, high: usize) -> Result<(), RecipeError> {
    match (low..=high).contains(&value) {
        true => Ok(()),
        false => Err(RecipeError::value(key, format!("is {value}, not within {low} and {high}"))),
    }
}

impl Check for TrainRecipe {
    fn check(&self) -> Result<(), RecipeError> {
        within("train.epochs", self.epochs, 1e-6, 1e6)?;
        count("train.max_steps", self.max_steps, 0, 1_000_000_000)?;
        count("train.batch_size", self.batch_size, 1, 65_536)?;
        count("train.accumulation", self.accumulation, 1, self.batch_size)?;
        count("train.tensor_parallel", self.tensor_parallel, 1, 1024)?;
        let splits = matches!(
            self.optimizer,
            Optimizer::Gd | Optimizer::Sgd | Optimizer::Adam | Optimizer::AdamW | Optimizer::Lion
        );
        if self.tensor_parallel > 1 && self.activation_checkpointing {
            let problem =
                "stands beside `train.activation_checkpointing`, which is for whole models";
            return Err(RecipeError::value("train.tensor_parallel", problem));
        }
        if self.tensor_parallel > 1 && !splits {
            let problem = "goes not with this optimiser, which looks at whole matrices";
            return Err(RecipeError::value("train.tensor_parallel", problem));
        }
        if self.tensor_parallel > 1 && self.quantize != Quantize::Off {
            let problem = "goes not with `train.quantize`, which rounds whole rows of a weight";
            return Err(RecipeError::value("train.tensor_parallel", problem));
        }
        within("train.sparsity", self.sparsity, 0.0, 0.99)?;
        if self.tensor_parallel > 1 && self.sparsity > 0.0 {
            let problem = "goes not with `train.sparsity`, which compares all weights";
            return Err(RecipeError::value("train.tensor_parallel", problem));
        }
        let numbers = [
            ("learning_rate", self.learning_rate, 1e-12, 10.0),
            ("head_learning_rate", self.head_learning_rate, 1e-12, 10.0),
            ("min_learning_rate", self.min_learning_rate, 0.0, 10.0),
            ("gamma", self.gamma, 1e-6, 1.0),
            ("weight_decay", self.weight_decay, 0.0, 10.0),
            ("l1", self.l1, 0.0, 10.0),
            ("l2", self.l2, 0.0, 10.0),
            ("momentum", self.momentum, 0.0, 0.999_999),
            ("dampening", self.dampening, 0.0, 1.0),
            ("beta1", self.beta1, 0.0, 0.999_999),
            ("beta2", self.beta2, 0.0, 0.999_999_9),
            ("epsilon", self.epsilon, 1e-30, 1.0),
            ("decay_rate", self.decay_rate, -1.0, -0.1),
            ("clip_threshold", self.clip_threshold, 1e-3, 1e3),
            ("max_grad_norm", self.max_grad_norm, 0.0, 1e6),
        ];
        for (key, value, low, high) in numbers {
            value.map_or(Ok(()), |value| within(&format!("train.{key}"), value, low, high))?;
        }
        let counts = [
            ("warmup_steps", self.warmup_steps, 0, 1_000_000_000),
            ("step_size", self.step_size, 1, 1_000_000_000),
            ("history_size", self.history_size, 1, 1000),
        ];
        for (key, value, low, high) in counts {
            value.map_or(Ok(()), |value| count(&format!("train.{key}"), value, low, high))?;
        }
        within("train.label_smoothing", self.label_smoothing, 0.0, 0.9)?;
        within("train.r_drop", self.r_drop, 0.0, 100.0)?;
        within("train.ema_decay", self.ema_decay, 0.0, 0.999_999)?;
        self.check_method()?;
        let warmup = self.settings().warmup_steps;
        if self.max_steps > 0 && warmup > self.max_steps {
            let problem = format!("is {warmup}, more than `train.max_steps` = {}", self.max_steps);
            return Err(RecipeError::value("train.warmup_steps", problem));
        }
        Ok(())
    }

    fn resolve(&mut self) {
        *self = self.resolved();
    }
}

impl TrainRecipe {
    /// Of the products of a step.
    pub fn precision(&self) -> Precision {
        if self.bf16 { Precision::Bf16 } else { Precision::F32 }
    }

    /// For a task whose layers cannot run twice.
    pub fn check_layers_run_once(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: &str| Err(RecipeError::value(key, problem));
        if self.activation_checkpointing {
            let problem = "is for text classification, whose encoder can do it";
            return fail("train.activation_checkpointing", problem);
        }
        if self.r_drop > 0.0 {
            return fail("train.r_drop", "is for text classification");
        }
        Ok(())
    }

    /// For a task whose models have no head that is new on top of something learned.
    pub fn check_no_head(&self) -> Result<(), RecipeError> {
        match self.head_learning_rate {
            // As a resolved recipe has it.
            rate if rate.is_none() || rate == self.learning_rate => Ok(()),
            _ => {
                let problem = "is for classifiers and detectors, which have a head";
                Err(RecipeError::value("train.head_learning_rate", problem))
            }
        }
    }
}

impl Check for CheckpointRecipe {
    fn check(&self) -> Result<(), RecipeError> {
        count("checkpoint.keep", self.keep, 1, 1000)
    }
}

impl Check for EvalRecipe {
    fn check(&self) -> Result<(), RecipeError> {
        count("eval.batch_size", self.batch_size, 1, 65_536)
    }
}

impl EvalRecipe {
    /// The score that picks the best weights, which is one of `known`; the first where the recipe names none.
    pub fn metric(&self, known: &[&'static str]) -> Result<&'static str, RecipeError> {
        let Some(wanted) = &self.metric else {
            return Ok(known[0]);
        };
        known.iter().copied().find(|name| name == wanted).ok_or_else(|| {
            let problem = format!("is {wanted:?}, none of {}", known.join(", "));
            RecipeError::value("eval.metric", problem)
        })
    }
}

/// Bytes of a recipe's file.
pub fn read(path: &Path) -> Result<Vec<u8>, RecipeError> {
    let plain = |message: String| RecipeError { line: None, message };
    let meta = std::fs::metadata(path).map_err(|e| plain(format!("cannot be read: {e}")))?;
    if !meta.is_file() {
        return Err(plain("is not a regular file".into()));
    }
    if meta.len() > RECIPE_LIMIT {
        return Err(plain(format!("{} bytes are too many for a recipe", meta.len())));
    }
    std::fs::read(path).map_err(|e| plain(format!("cannot be read: {e}")))
}

/// Which of `known` a recipe names as its task: the type that reads the rest of it depends on that.
pub fn task(bytes: &[u8], known: &[&'static str]) -> Result<&'static str, RecipeError> {
    let text = text(bytes)?;
    let document: toml::Table = toml::from_str(text).map_err(|e| in_toml(text, &e))?;
    let problem = match document.get("task") {
        None => format!("is missing: one of {}", known.join(", ")),
        Some(toml::Value::String(task)) => match known.iter().find(|name| *name == task) {
            Some(found) => return Ok(found),
            None => {
                let guess = nearest(task, known.iter().copied());
                let guess =
                    guess.map_or(String::new(), |guess| format!(": did you mean `{guess}`?"));
                let shown = first_line(task);
                format!("is {shown:?}, none of {}{guess}", known.join(", "))
            }
        },
        Some(_) => format!("is not a text: one of {}", known.join(", ")),
    };
    Err(locate(text, RecipeError::value("task", problem)))
}

/// The text of a recipe's bytes, which may come from anywhere.
fn text(bytes: &[u8]) -> Result<&str, RecipeError> {
    let plain = |message: String| RecipeError { line: None, message };
    if bytes.len() as u64 > RECIPE_LIMIT {
        return Err(plain(format!("{} bytes, above the limit of {RECIPE_LIMIT}", bytes.len())));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(plain("is UTF-16; save it as UTF-8".into()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        RecipeError { line: Some(line), message: "not UTF-8".into() }
    })?;
    too_deep(text)?;
    Ok(text)
}

/// The recipe's `[sweep]`, which `firebrick sweep` reads and a training does not.
pub fn sweep(bytes: &[u8]) -> Result<Option<SweepRecipe>, RecipeError> {
    #[derive(Deserialize)]
    struct Only {
        sweep: Option<SweepRecipe>,
    }
    let text = text(bytes)?;
    let only: Only = toml::from_str(text).map_err(|e| in_toml(text, &e))?;
    let checked = only.sweep.as_ref().map_or(Ok(()), Check::check);
    checked.map_err(|error| locate(text, error))?;
    Ok(only.sweep)
}

/// Reads TOML, applies `key.path=value` overrides in order, deserialises and checks.
pub fn parse<T: DeserializeOwned + Check>(
    bytes: &[u8],
    overrides: &[String],
) -> Result<T, RecipeError> {
    let written = text(bytes)?;
    let swept = sweep(bytes)?.is_some();
    if !swept && overrides.is_empty() {
        return read_text(written);
    }
    let mut document: toml_edit::DocumentMut =
        written.parse().map_err(|e: toml_edit::TomlError| RecipeError {
            line: line_of(written, e.span()),
            message: first_line(e.message()),
        })?;
    document.remove("sweep");
    for line in overrides {
        set(&mut document, line)?;
    }
    let merged = document.to_string();
    read_text(&merged).map_err(|error| as_given(error, &merged, written, overrides))
}

fn read_text<T: DeserializeOwned + Check>(text: &str) -> Result<T, RecipeError> {
    let mut recipe: T = toml::from_str(text).map_err(|e| in_toml(text, &e))?;
    recipe.check().map_err(|error| locate(text, error))?;
    recipe.resolve();
    Ok(recipe)
}

/// An error in the `merged` text, which nobody has seen, as one in what was given: the override that the line is from, or
/// its place in the `written` text.
fn as_given(error: RecipeError, merged: &str, written: &str, overrides: &[String]) -> RecipeError {
    let Some((_, path)) = error.line.and_then(|line| keys(merged).nth(line - 1)) else {
        return error;
    };
    let same = |line: &&String| line.split_once('=').is_some_and(|(key, _)| key.trim() == path);
    if let Some(line) = overrides.iter().rfind(same) {
        return RecipeError { line: None, message: format!("--set {line}: {}", error.message) };
    }
    let line = keys(written).find(|(_, other)| *other == path).map(|(line, _)| line);
    RecipeError { line, ..error }
}

/// Each line with its number and the path of what it sets: `table.key`, or of the table that it begins.
fn keys(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut table = String::new();
    text.lines().enumerate().map(move |(index, line)| {
        let line = line.trim();
        let key = line.split('=').next().unwrap_or_default().trim();
        let path = if line.starts_with('[') {
            table = line.trim_matches(['[', ']', ' ']).to_string();
            table.clone()
        } else if table.is_empty() {
            key.to_string()
        } else {
            format!("{table}.{key}")
        };
        (index + 1, path)
    })
}

fn in_toml(text: &str, error: &toml::de::Error) -> RecipeError {
    let line = line_of(text, error.span());
    RecipeError { line, message: suggest(&named(text, line, first_line(error.message()))) }
}

/// The TOML parser recurses; 64 levels are more than any recipe needs.
fn too_deep(text: &str) -> Result<(), RecipeError> {
    for (index, line) in text.lines().enumerate() {
        let open = line.bytes().filter(|b| matches!(b, b'[' | b'{')).count();
        let dots = line.split('=').next().unwrap_or_default().matches('.').count();
        if open > 64 || dots > 64 {
            let message = "nested too deep: at most 64 levels".to_string();
            return Err(RecipeError { line: Some(index + 1), message });
        }
    }
    Ok(())
}

fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let clean: String = line
        .chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    match clean.char_indices().nth(400) {
        Some((cut, _)) => format!("{}…", &clean[..cut]),
        None => clean,
    }
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> Option<usize> {
    let start = span?.start.min(text.len());
    Some(text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count() + 1)
}

/// Puts the line's key before a message that names none.
fn named(text: &str, line: Option<usize>, message: String) -> String {
    let line = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let plain =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    match plain && key.len() < 80 && !message.contains(key) && !message.starts_with("unknown") {
        true => format!("`{key}`: {message}"),
        false => message,
    }
}

/// Finds the line of the key that a check complained of.
fn locate(text: &str, mut error: RecipeError) -> RecipeError {
    let path = error.message.split('`').nth(1).unwrap_or_default();
    let line = keys(text).filter(|(_, key)| key == path).last();
    error.line = line.map(|(line, _)| line).or(error.line);
    error
}

/// Adds "did you mean" to serde's "unknown field `x`, expected one of `a`, `b`".
fn suggest(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((unknown, known)) = names.split_first().filter(|_| message.starts_with("unknown"))
    else {
        return message.to_string();
    };
    let what = if message.starts_with("unknown variant") { "value" } else { "key" };
    match nearest(unknown, known.iter().copied()) {
        Some(guess) => format!("unknown {what} `{unknown}`: did you mean `{guess}`?"),
        None => message.to_string(),
    }
}

/// The closest of `known` by edit distance, if it is close.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.into_iter().map(|k| (edit_distance(name, k), k)).min()?;
    (best.0 <= 1 + name.chars().count() / 3).then_some(best.1)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `key.path=value`; the value is TOML, or a bare text.
fn set(document: &mut toml_edit::DocumentMut, line: &str) -> Result<(), RecipeError> {
    let plain = |message: String| RecipeError { line: None, message };
    let (path, value) = line
        .split_once('=')
        .ok_or_else(|| plain(format!("override `{line}` is not key.path=value")))?;
    let value = value.trim();
    let value: toml_edit::Value = match value.parse() {
        Ok(value) => value,
        Err(_) => value.into(),
    };
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty());
    let last = last.ok_or_else(|| plain(format!("override `{line}` has no key")))?;
    let mut table = document.as_table_mut();
    for key in keys {
        table = table
            .entry(key)
            .or_insert(toml_edit::table())
            .as_table_mut()
            .ok_or_else(|| plain(format!("override `{line}`: `{key}` is not a table")))?;
    }
    table.insert(last, toml_edit::value(value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[serde(default)]
        train: TrainRecipe,
    }

    impl Check for Small {
        fn check(&self) -> Result<(), RecipeError> {
            self.train.check()
        }

        fn resolve(&mut self) {
            self.train.resolve();
        }
    }

    #[track_caller]
    fn check(text: &str, message: &str) {
        assert_eq!(parse::<Small>(text.as_bytes(), &[]).unwrap_err().to_string(), message);
    }

    #[test]
    fn errors_name_line_and_key() {
        check("[train]\nepoch = 2", "line 2: unknown key `epoch`: did you mean `epochs`?");
        check(
            "[train]\n\nlearning_rate = -0.1",
            "line 3: `train.learning_rate` is -0.1, not within 0.000000000001 and 10",
        );
        check(
            "[train]\nwarmup_steps = 9\nmax_steps = 5",
            "line 2: `train.warmup_steps` is 9, more than `train.max_steps` = 5",
        );
        check(
            "[train]\noptimizer = \"sgd\"\nbeta1 = 0.9",
            "line 3: `train.beta1` is not read by optimizer = \"sgd\", whose own keys are dampening, momentum, nesterov",
        );
        check(
            "[train]\nmomentum = 0.9",
            "line 2: `train.momentum` is not read by optimizer = \"adamw\", whose own keys are beta1, beta2, epsilon, \
             weight_decay",
        );
        check("[train]\ngamma = 0.9", "line 2: `train.gamma` is not read by schedule = \"cosine\"");
        check(
            "[train]\nschedule = \"exponential\"",
            "`train.gamma` is missing: schedule = \"exponential\" needs it",
        );
        check(
            "[train]\noptimizer = \"adamv\"",
            "line 2: unknown value `adamv`: did you mean `adam`?",
        );
        check("[train]\nbatch_size = 0", "line 2: `train.batch_size` is 0, not within 1 and 65536");
    }

    #[test]
    fn overrides_change_and_add() {
        let lines = ["train.epochs=7".to_string(), "train.learning_rate=0.5".into()];
        let recipe: Small = parse(b"[train]\nepochs = 2", &lines).unwrap();
        assert_eq!((recipe.train.epochs, recipe.train.learning_rate), (7.0, Some(0.5)));
    }

    /// Nobody has seen the text that the overrides were written into.
    #[test]
    fn errors_under_overrides_are_in_what_was_given() {
        let check = |text: &str, overrides: &[&str], message: &str| {
            let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
            let error = parse::<Small>(text.as_bytes(), &overrides).unwrap_err();
            assert_eq!(error.to_string(), message);
        };
        check(
            "",
            &["train.epoch=7"],
            "--set train.epoch=7: unknown key `epoch`: did you mean `epochs`?",
        );
        check(
            "[train]\nepochs = 2",
            &["train.batch_size=8", "train.batch_size=0"],
            "--set train.batch_size=0: `train.batch_size` is 0, not within 1 and 65536",
        );
        check(
            "# mine\n\n[train]\nbatch_size = 0",
            &["train.epochs=7"],
            "line 4: `train.batch_size` is 0, not within 1 and 65536",
        );
        check(
            "[sweep]\ntrials = 2\n[sweep.space]\n\"train.epochs\" = { low = 1, high = 2 }\n[train]\nepoch = 7",
            &[],
            "line 6: unknown key `epoch`: did you mean `epochs`?",
        );
    }

    /// What is written down says everything that is read, and reads as itself.
    #[test]
    fn a_resolved_recipe_has_the_defaults_of_its_optimizer() {
        for (name, momentum, weight_decay) in [
            ("gd", None, None),
            ("sgd", Some(0.9), None),
            ("adam", None, None),
            ("adamw", None, Some(0.01)),
            ("rmsprop", Some(0.0), None),
            ("adagrad", None, None),
            ("adafactor", None, Some(0.0)),
            ("lion", None, Some(0.1)),
            ("muon", Some(0.95), Some(0.1)),
            ("lbfgs", None, None),
        ] {
            let text = format!("[train]\noptimizer = \"{name}\"");
            let recipe = parse::<Small>(text.as_bytes(), &[]).unwrap().train;
            assert_eq!((recipe.momentum, recipe.weight_decay), (momentum, weight_decay), "{name}");
            assert_eq!(
                recipe.settings(),
                TrainRecipe { optimizer: recipe.optimizer, ..Default::default() }.settings()
            );
            let again = format!("[train]\n{}", toml::to_string(&recipe).unwrap());
            assert_eq!(parse::<Small>(again.as_bytes(), &[]).unwrap().train, recipe, "{name}");
        }
    }
}
