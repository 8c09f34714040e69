//! From a recipe to a trained model: what an application implements for each task that a recipe can name.
//!
//! The steps are those of every training: read the recipe, prepare the data, write down what is about to run,
//! train, show. The caller, who knows where things lie and who watches, drives them with [`run()`].

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_core::checkpoint::{Source, tensors::write_atomically};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    fit::{Counters, End, Event, FitError, Metrics},
    recipe::{BESIDE_PRETRAINED, Check, RecipeError, TrainRecipe},
    report::{
        self, Report,
        plots::{Curve, confusion_svg, line_chart_svg},
    },
    run::{self, Run, Status},
    team::Team,
};

/// Scores by part of the data: `{"valid": {"accuracy": 0.9}}`.
pub type Scores = BTreeMap<String, Metrics>;

/// A recipe of one task.
pub trait Recipe: Check + Serialize + DeserializeOwned + JsonSchema {
    /// What recipes have in `task`.
    const TASK: &'static str;
    /// What the sizes of its examples count.
    const UNIT: &'static str = "tokens";
    /// Everything before step 0, so that it can be described first.
    type Prepared: Prepared;
    type Trained: Trained;

    /// Names the run folder.
    fn name(&self) -> &str;

    fn seed(&self) -> u64;

    fn set_seed(&mut self, seed: u64);

    /// Score of the validation rows that picks the best weights.
    fn metric(&self) -> Result<&'static str, RecipeError>;

    /// Reads the data, trains (or reads) the tokenizer.
    fn prepare(&self, places: &Places) -> anyhow::Result<Self::Prepared>;

    /// Trains (or continues) the session's run and writes `model/` in its folder; `None` in a process that another one
    /// writes for.
    fn train(
        &self,
        prepared: Self::Prepared,
        session: Session,
    ) -> anyhow::Result<Option<Self::Trained>>;

    /// [`TrainRecipe`] of the recipe.
    fn method(&mut self) -> &mut TrainRecipe;
}

/// A recipe with every default, as text; without sizes of a model where a checkpoint brings its own.
pub fn resolved(recipe: &impl Recipe) -> anyhow::Result<String> {
    let mut table = toml::Table::try_from(recipe).context("resolving the recipe")?;
    if let Some(toml::Value::Table(model)) = table.get_mut("model")
        && model.contains_key("pretrained")
    {
        model.retain(|key, _| BESIDE_PRETRAINED.contains(&key));
    }
    toml::to_string_pretty(&table).context("writing the resolved recipe")
}

/// What every [`job::Recipe`](crate::job::Recipe) answers from its fields `name`, `seed`, `train` and `eval`; `$metrics` are the
/// scores that can choose its weights.
#[macro_export]
macro_rules! recipe_fields {
    ($metrics:expr) => {
        fn name(&self) -> &str {
            &self.name
        }

        fn seed(&self) -> u64 {
            self.seed
        }

        fn set_seed(&mut self, seed: u64) {
            self.seed = seed;
        }

        fn method(&mut self) -> &mut $crate::recipe::TrainRecipe {
            &mut self.train
        }

        fn metric(&self) -> Result<&'static str, $crate::recipe::RecipeError> {
            self.eval.metric($metrics)
        }
    };
}

/// Data as a recipe wants it.
pub trait Prepared {
    /// Over the rows that are learned from and that choose the weights.
    fn data_sha256(&self) -> &str;

    /// What there is to say of the data before the training, a line each.
    fn remarks(&self) -> Vec<String>;

    /// Why each row was dropped, as JSON lines.
    fn ledger(&self) -> String {
        String::new()
    }
}

/// How a training ended, and what its model is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub end: End,
    pub counters: Counters,
    pub scores: Scores,
}

impl Outcome {
    /// Every score of every part, for a page.
    pub fn facts(&self) -> Vec<(String, String)> {
        let facts = |(part, metrics): (&String, &Metrics)| -> Vec<_> {
            let fact = |(name, value)| (format!("{part} {name}"), format!("{value:.4}"));
            metrics.iter().map(fact).collect()
        };
        self.scores.iter().flat_map(facts).collect()
    }
}

/// A page with what is alike on all: the run's name and recipe.
pub fn page(dir: &Path) -> anyhow::Result<Report> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    Ok(Report {
        title: format!("Run {name}"),
        subtitle: "Every number on this page was measured in this run.".into(),
        recipe_toml: fs::read_to_string(dir.join("recipe.toml"))?,
        ..Report::default()
    })
}

/// What came of a training.
pub trait Trained {
    fn outcome(&self) -> &Outcome;

    /// The run's page, and what lies beside it; `dir` is the run folder.
    fn show(&self, dir: &Path) -> anyhow::Result<Shown>;
}

/// A run to look at.
pub struct Shown {
    pub report: Report,
    /// Further files by their path in the run folder.
    pub files: Vec<(&'static str, String)>,
}

impl Shown {
    /// Writes `report.html`, `plots/*.svg` and the files; returns the page's path.
    pub fn write(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        for ((title, x, y, curves), n) in self.report.curves.iter().zip(0..) {
            let name = if n == 0 { "loss".into() } else { y.replace(' ', "-") };
            let svg = line_chart_svg(title, x, y, curves);
            put(&dir.join("plots").join(format!("{name}.svg")), &svg)?;
        }
        if let Some((labels, counts)) = &self.report.confusion {
            put(&dir.join("plots/confusion.svg"), confusion_svg(labels, counts))?;
        }
        for picture in &self.report.pictures {
            put(&dir.join("plots").join(format!("{}.png", picture.name)), &picture.png)?;
        }
        for (file, text) in &self.files {
            put(&dir.join(file), text)?;
        }
        let page = dir.join("report.html");
        put(&page, report::render(&self.report))?;
        Ok(page)
    }
}

/// Writes a file and the folders above it.
pub fn put(path: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    fs::create_dir_all(path.parent().context("a file lies in a folder")?)
        .and_then(|()| write_atomically(path, content.as_ref()))
        .with_context(|| format!("writing {}", path.display()))
}

/// Where a recipe's names lead.
pub struct Places<'a> {
    /// The recipe's folder.
    pub base: &'a Path,
    /// The folder of a known data set's files, by id.
    pub data: fn(&str) -> anyhow::Result<PathBuf>,
    /// A pretrained checkpoint, by name or by a folder relative to the recipe's.
    pub model: fn(&str, &Path) -> anyhow::Result<Source>,
}

impl Places<'_> {
    /// The checkpoint that a recipe names, if it names one.
    pub fn checkpoint(&self, name: Option<&String>) -> anyhow::Result<Option<Source>> {
        name.map(|name| (self.model)(name, self.base)).transpose()
    }
}

/// One sitting of a run.
pub struct Session<'a> {
    pub device: &'a Device,
    pub run: &'a mut Run,
    /// The processes that train together.
    pub team: &'a Team,
    pub max_time: Option<Duration>,
    /// Set from outside (Ctrl-C): the loop saves a checkpoint and returns.
    pub stop: &'a AtomicBool,
    pub report: &'a mut dyn FnMut(Event),
}

impl Session<'_> {
    /// For a task whose model cannot be divided over processes.
    pub fn needs_whole_model(&self) -> Result<(), RecipeError> {
        match self.team.model.is_whole() {
            true => Ok(()),
            false => {
                let problem = "is for text classification; this model goes whole to every process";
                Err(RecipeError::value("train.tensor_parallel", problem))
            }
        }
    }
}

/// Trains `prepared` and keeps the run's description true, however it ends; `None` of a run that was interrupted, and in a process
/// that another one writes for.
pub fn run<R: Recipe>(
    recipe: &R,
    prepared: R::Prepared,
    session: Session,
) -> anyhow::Result<Option<R::Trained>> {
    let Session { device, run, team, max_time, stop, report } = session;
    let trained =
        recipe.train(prepared, Session { device, run: &mut *run, team, max_time, stop, report });
    let trained = match trained {
        Err(error) => match error.downcast_ref() {
            Some(FitError::Interrupted { counters }) => {
                run.info.status = Status::Interrupted;
                run.info.end = Some(End::Interrupted);
                run.info.counters = counters.clone();
                Ok(None)
            }
            _ => {
                run.info.status = Status::Failed;
                Err(error)
            }
        },
        Ok(None) => Ok(None),
        Ok(Some(trained)) => {
            let Outcome { end, counters, scores } = trained.outcome().clone();
            run.info.status = match end {
                End::Finished | End::EarlyStop => Status::Finished,
                End::OutOfTime | End::Interrupted => Status::Interrupted,
            };
            run.info.end = Some(end);
            run.info.counters = counters;
            run.info.metrics = scores;
            Ok(Some(trained))
        }
    };
    run.save_info()?;
    trained
}

/// One curve of a run, as [`crate::run::curve`] reads it.
pub fn curve(dir: &Path, name: &str, key: &str) -> anyhow::Result<Curve> {
    Ok(Curve { name: name.into(), points: run::curve(dir, key)? })
}

/// A chart over the steps of a run, for [`Report::curves`].
pub fn chart(title: &str, y: &str, curves: Vec<Curve>) -> (String, String, String, Vec<Curve>) {
    (title.into(), "step".into(), y.into(), curves)
}

/// Data is either a known set or a file of one's own.
pub fn check_source(dataset: Option<&String>, train: Option<&PathBuf>) -> Result<(), RecipeError> {
    let fail = |problem: &str| Err(RecipeError::value("data.train", problem));
    match (dataset, train) {
        (None, None) => fail("is missing (or name a `data.dataset`)"),
        (Some(_), Some(_)) => fail("stands beside `data.dataset`"),
        _ => Ok(()),
    }
}

/// Beside a known set, which has parts of its own, files of these keys would not be read.
pub fn check_parts(
    dataset: Option<&String>,
    files: &[(&str, &Option<PathBuf>)],
) -> Result<(), RecipeError> {
    let idle = files.iter().find(|(_, file)| file.is_some());
    match (dataset, idle) {
        (Some(_), Some((key, _))) => {
            let problem = "stands beside `data.dataset`, which has its own";
            Err(RecipeError::value(&format!("data.{key}"), problem))
        }
        _ => Ok(()),
    }
}

/// The share of the training rows that is kept back to choose the weights by.
pub fn check_valid_fraction(share: f64) -> Result<(), RecipeError> {
    match share > 0.0 && share <= 0.5 {
        true => Ok(()),
        false => {
            let problem = format!("is {share}, not above 0 and up to 0.5");
            Err(RecipeError::value("data.valid_fraction", problem))
        }
    }
}

/// What every recipe begins with must make sense.
pub fn check_head(version: u32, name: &str) -> Result<(), RecipeError> {
    let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
    if version != 1 {
        return fail("version", format!("is {version}; this firebrick reads version 1"));
    }
    check_name(name).or_else(|problem| fail("name", problem))
}

/// What a run may be called, so that its folder lies among the runs.
pub fn check_name(name: &str) -> Result<(), String> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 100 || !name.chars().all(fit) || name.starts_with('.') {
        let shown: String = name.chars().take(60).flat_map(char::escape_default).collect();
        return Err(format!(
            "is \"{shown}\": only letters, digits, -, _ and . make a folder's name"
        ));
    }
    Ok(())
}
