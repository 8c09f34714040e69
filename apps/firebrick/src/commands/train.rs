//! `firebrick train`: a recipe into a run folder.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::hash::sha256_bytes;
use firebrick_nlp::{recipe::Recipe, train as nlp};
use firebrick_train::{
    fit::{Counters, End},
    run::{Run, RunInfo, Status},
};
use serde_json::json;

use super::{Outcome, recipe};
use crate::{
    cli::{Global, TrainArgs},
    failure::{Failure, INTERRUPTED},
    places,
    progress::{Progress, Style},
    world::World,
};

pub fn run(args: &TrainArgs, global: &Global) -> Outcome {
    let job = Job {
        recipe: &args.recipe,
        overrides: &args.overrides,
        run: args.run.as_deref(),
        max_time: args.max_seconds.map(Duration::from_secs),
    };
    let (dir, trained) = train(&job, global)?;
    crate::report::write(&dir, &trained, None)?;
    let mut text = format!("{}\n", dir.display());
    for (part, metrics) in &trained.origin.metrics {
        for (name, value) in metrics {
            text.push_str(&format!("{part} {name} {value:.4}\n"));
        }
    }
    let report = json!({
        "run": dir, "end": trained.end, "seconds": trained.seconds, "tokens": trained.tokens,
        "metrics": trained.origin.metrics,
    });
    super::print(global, &report, &text);
    Ok(())
}

/// What to train.
pub struct Job<'a> {
    pub recipe: &'a str,
    pub overrides: &'a [String],
    pub run: Option<&'a str>,
    pub max_time: Option<Duration>,
}

/// Trains and returns the run's folder. An interrupted run ends in its exit code, and so does a process that another
/// one of the run writes for.
pub fn train(job: &Job, global: &Global) -> Result<(PathBuf, nlp::Trained), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut world = World::join(&stop)?;
    let trained = train_in(&mut world, job, global, &stop);
    let (dir, trained) = world.leave(trained)?;
    let Some(trained) = trained else { return Err(Failure::quiet(0)) };
    if trained.end == End::Interrupted {
        return Err(Failure::quiet(INTERRUPTED));
    }
    Ok((dir, trained))
}

/// `None` in a process that another one writes for.
fn train_in(
    world: &mut World,
    job: &Job,
    global: &Global,
    stop: &Arc<AtomicBool>,
) -> Result<(PathBuf, Option<nlp::Trained>), Failure> {
    let (mut recipe, text, base) = recipe::open(job.recipe, job.overrides)?;
    if let Some(seed) = global.seed {
        recipe.seed = seed;
    }
    world.divide(recipe.train.tensor_parallel)?;
    let name = job.run.unwrap_or(&recipe.name).to_string();
    let dir = global.runs.join(&name);
    let style = if global.quiet || !world.team.is_first() { Style::None } else { global.progress };
    let mut progress = Progress::new(style);
    progress.line(&format!("run folder {}", dir.display()));

    let device = global.device.open()?;
    let pretrained = match &recipe.model.pretrained {
        Some(name) => Some(places::pretrained(name, &base)?),
        None => None,
    };
    let prepared = nlp::prepare(&recipe, &base, &places::roots(), pretrained)?;
    say_data(&prepared.corpus, &progress);
    if let Some(taught) = &prepared.taught {
        let right = 100.0 * taught.valid.accuracy().unwrap_or_default();
        let count = taught.texts.len();
        progress
            .line(&format!("teacher: {right:.2} % of the validation rows; {count} spliced texts"));
    }

    let resolved = toml::to_string_pretty(&recipe).context("writing the resolved recipe")?;
    // Any number of processes may continue the run.
    let mut undivided = recipe.clone();
    undivided.train.tensor_parallel = 1;
    let undivided = toml::to_string_pretty(&undivided).context("writing the resolved recipe")?;
    let info = RunInfo {
        name,
        status: Status::Running,
        command: std::env::args().collect(),
        firebrick: env!("CARGO_PKG_VERSION").into(),
        burn: "0.22.1".into(),
        device: global.device.to_string(),
        seed: recipe.seed,
        recipe_sha256: sha256_bytes(undivided.as_bytes()),
        data_sha256: prepared.corpus.sha256.clone(),
        started: firebrick_train::run::now() as u64,
        end: None,
        counters: Counters::default(),
        metrics: Default::default(),
    };
    world.check(&info)?;
    let mut run = match world.team.is_first() {
        true => Run::open(&dir, info, &text, &resolved)?,
        false => Run::follow(&dir, info),
    };
    if world.team.is_first() {
        write_ledger(&dir, &prepared.corpus)?;
    }

    on_interrupt(stop.clone())?;
    let (team, max_time) = (&world.team, job.max_time);
    let setting = nlp::Setting { device: &device, team, max_time, stop };
    let trained = nlp::train(&recipe, prepared, &mut run, &setting, |event| {
        // The others see the same.
        if team.is_first() {
            progress.show(&event);
        }
    });
    progress.end();
    let trained = trained?;
    Ok((dir, trained))
}

fn say_data(corpus: &firebrick_nlp::corpus::Corpus, progress: &Progress) {
    let mut parts =
        vec![format!("train {}", corpus.train.len()), format!("valid {}", corpus.valid.len())];
    parts.extend(corpus.test.as_ref().map(|rows| format!("test {}", rows.len())));
    progress.line(&format!("rows: {}", parts.join(", ")));
    for (part, count) in corpus.unreadable.iter().filter(|(_, count)| *count > 0) {
        progress.line(&format!("{part}: {count} rows could not be read"));
    }
    for (part, ledger) in &corpus.ledgers {
        let counts = ledger.counts();
        if !counts.is_empty() {
            let counts: Vec<String> =
                counts.iter().map(|(reason, n)| format!("{n} {reason:?}")).collect();
            progress.line(&format!(
                "{part}: dropped {} (data.ledger.jsonl says why)",
                counts.join(", ")
            ));
        }
    }
    if !corpus.leaks.pairs.is_empty() {
        progress
            .line(&format!("{} pairs of like rows in different parts", corpus.leaks.pairs.len()));
    }
}

/// Why each row was dropped, beside the recipe.
fn write_ledger(dir: &Path, corpus: &firebrick_nlp::corpus::Corpus) -> anyhow::Result<()> {
    let mut text = String::new();
    for (part, ledger) in &corpus.ledgers {
        for entry in &ledger.dropped {
            let mut value = serde_json::to_value(entry)?;
            value["part"] = part.clone().into();
            text.push_str(&format!("{value}\n"));
        }
    }
    let path = dir.join("data.ledger.jsonl");
    write_atomically(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// Has Ctrl-C or a termination signal set `stop`; a second one ends the process at once.
fn on_interrupt(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
    .context("cannot listen for Ctrl-C")
}

/// The recipe's text as resolved in a run folder.
pub fn resolved(dir: &Path) -> anyhow::Result<Recipe> {
    let path = dir.join("recipe.resolved.toml");
    Ok(Recipe::read(&path, &[])
        .map_err(|error| anyhow::Error::new(error).context(path.display().to_string()))?
        .0)
}
