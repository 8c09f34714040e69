//! `firebrick train`: a recipe into a run folder.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::hash::sha256_bytes;
use firebrick_train::{
    fit::{Counters, End, Event},
    job::{self, Prepared, Recipe, Session, Trained},
    run::{Run, RunInfo, Status},
};
use serde_json::json;

use super::{Outcome, recipe::Opened};
use crate::{
    cli::{Global, TrainArgs},
    failure::{Failure, INTERRUPTED},
    places,
    progress::{Progress, Style},
    tasks::with_task,
};

pub fn run(args: &TrainArgs, global: &Global) -> Outcome {
    let opened = Opened::named(&args.recipe)?;
    let job = Job {
        opened: &opened,
        overrides: &args.overrides,
        run: args.run.as_deref(),
        max_time: args.max_seconds.map(Duration::from_secs),
        watch: None,
    };
    with_task!(opened.task()?, R => finish(train::<R>(&job, global)?, global))
}

/// Writes the run's page and prints its scores.
fn finish((dir, trained): (PathBuf, impl Trained), global: &Global) -> Outcome {
    trained.show(&dir)?.write(&dir)?;
    let mut text = format!("{}\n", dir.display());
    for (part, metrics) in trained.scores() {
        for (name, value) in metrics {
            text.push_str(&format!("{part} {name} {value:.4}\n"));
        }
    }
    let counters = trained.counters();
    let report = json!({
        "run": dir, "end": trained.end(), "seconds": counters.seconds, "tokens": counters.tokens,
        "metrics": trained.scores(),
    });
    super::print(global, &report, &text);
    Ok(())
}

/// What to train.
pub struct Job<'a> {
    pub opened: &'a Opened,
    pub overrides: &'a [String],
    pub run: Option<&'a str>,
    pub max_time: Option<Duration>,
    /// Hears of every event; `true` stops the training as an interrupt does.
    pub watch: Option<&'a dyn Fn(&Event) -> bool>,
}

/// Trains and returns the run's folder. An interrupted run ends in its exit code.
pub fn train<R: Recipe>(job: &Job, global: &Global) -> Result<(PathBuf, R::Trained), Failure> {
    let mut recipe: R = job.opened.parse(job.overrides)?;
    if let Some(seed) = global.seed {
        recipe.set_seed(seed);
    }
    let name = job.run.unwrap_or(recipe.name()).to_string();
    let dir = global.runs.join(&name);
    let style = if global.quiet { Style::None } else { global.progress };
    let mut progress = Progress::new(style);
    progress.line(&format!("run folder {}", dir.display()));

    let device = global.device.open()?;
    let prepared = recipe.prepare(&places::of_recipe(&job.opened.base))?;
    prepared.remarks().iter().for_each(|remark| progress.line(remark));

    let resolved = toml::to_string_pretty(&recipe).context("writing the resolved recipe")?;
    let info = RunInfo {
        name,
        status: Status::Running,
        command: std::env::args().collect(),
        firebrick: env!("CARGO_PKG_VERSION").into(),
        burn: "0.22.1".into(),
        device: global.device.to_string(),
        seed: recipe.seed(),
        recipe_sha256: sha256_bytes(resolved.as_bytes()),
        data_sha256: prepared.data_sha256().into(),
        started: firebrick_train::run::now() as u64,
        end: None,
        counters: Counters::default(),
        metrics: Default::default(),
    };
    let mut run = Run::open(&dir, info, &job.opened.text(), &resolved)?;
    let ledger = dir.join("data.ledger.jsonl");
    write_atomically(&ledger, prepared.ledger().as_bytes())
        .with_context(|| format!("writing {}", ledger.display()))?;

    listen()?;
    let session = Session {
        device: &device,
        run: &mut run,
        max_time: job.max_time,
        stop: &STOP,
        report: &mut |event| {
            progress.show(&event);
            if job.watch.is_some_and(|watch| watch(&event)) {
                STOP.store(true, Ordering::SeqCst);
            }
        },
    };
    let trained = job::run(&recipe, prepared, session);
    progress.end();
    let trained = trained?;
    if trained.end() == End::Interrupted {
        let step = run.info.counters.step;
        if job.watch.is_none() {
            eprintln!("interrupted after step {step}; the same command continues");
        }
        return Err(Failure::quiet(INTERRUPTED));
    }
    if trained.end() == End::OutOfTime {
        progress.line("stopped by --max-seconds; the same command continues");
    }
    Ok((dir, trained))
}

/// Set by Ctrl-C or a termination signal; a second one ends the process at once.
static STOP: AtomicBool = AtomicBool::new(false);

/// For a training that was stopped by who watched it, before the next one.
pub fn clear_interrupt() {
    STOP.store(false, Ordering::SeqCst);
}

fn listen() -> anyhow::Result<()> {
    static ONCE: OnceLock<Result<(), String>> = OnceLock::new();
    let listening = ONCE.get_or_init(|| {
        let handler = || {
            if STOP.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        };
        ctrlc::set_handler(handler).map_err(|error| error.to_string())
    });
    listening.clone().map_err(|error| anyhow::anyhow!("cannot listen for Ctrl-C: {error}"))
}
