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

/// Trains and returns the run's folder. An interrupted run ends in its exit code.
pub fn train(job: &Job, global: &Global) -> Result<(PathBuf, nlp::Trained), Failure> {
    let (mut recipe, text, base) = recipe::open(job.recipe, job.overrides)?;
    if let Some(seed) = global.seed {
        recipe.seed = seed;
    }
    let name = job.run.unwrap_or(&recipe.name).to_string();
    let dir = global.runs.join(&name);
    let style = if global.quiet { Style::None } else { global.progress };
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
    let info = RunInfo {
        name,
        status: Status::Running,
        command: std::env::args().collect(),
        firebrick: env!("CARGO_PKG_VERSION").into(),
        burn: "0.22.1".into(),
        device: global.device.to_string(),
        seed: recipe.seed,
        recipe_sha256: sha256_bytes(resolved.as_bytes()),
        data_sha256: prepared.corpus.sha256.clone(),
        started: firebrick_train::run::now() as u64,
        end: None,
        counters: Counters::default(),
        metrics: Default::default(),
    };
    let mut run = Run::open(&dir, info, &text, &resolved)?;
    write_ledger(&dir, &prepared.corpus)?;

    let stop = on_interrupt()?;
    let trained = nlp::train(&recipe, prepared, &device, &mut run, job.max_time, &stop, |event| {
        progress.show(&event);
    });
    progress.end();
    let trained = trained?;
    if trained.end == End::Interrupted {
        eprintln!("interrupted after step {}; the same command continues", run.info.counters.step);
        return Err(Failure::quiet(INTERRUPTED));
    }
    if trained.end == End::OutOfTime {
        progress.line("stopped by --max-seconds; the same command continues");
    }
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

/// Set by Ctrl-C or a termination signal; a second one ends the process at once.
fn on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

/// The recipe's text as resolved in a run folder.
pub fn resolved(dir: &Path) -> anyhow::Result<Recipe> {
    let path = dir.join("recipe.resolved.toml");
    Ok(Recipe::read(&path, &[])
        .map_err(|error| anyhow::Error::new(error).context(path.display().to_string()))?
        .0)
}
