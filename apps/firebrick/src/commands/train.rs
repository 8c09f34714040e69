//! `firebrick train`: a recipe into a run folder.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::hash::sha256_bytes;
use firebrick_train::{
    checkpoint,
    fit::{Counters, End, Event},
    job::{self, Prepared, Recipe, Session, Trained},
    run::{self, Run, RunError, RunInfo, Status},
    track::{self, Server, TrackError, Tracker},
};
use serde_json::json;

use super::{Outcome, recipe::Opened};
use crate::{
    cli::{Each, Global, TrainArgs},
    failure::{Failure, INTERRUPTED, USAGE, one_line},
    places,
    progress::{Progress, Style},
    tasks::with_task,
    world::World,
};

pub fn run(args: &TrainArgs, global: &Global) -> Outcome {
    if args.track.is_some() {
        global.online("--track")?;
    }
    let opened = Opened::named(&args.recipe)?;
    let job = Job {
        opened: &opened,
        overrides: &args.overrides,
        run: args.run.as_deref(),
        max_time: args.max_seconds.map(Duration::from_secs),
        watch: None,
        track: args.track.as_ref(),
    };
    with_task!(opened.task()?, R => match &args.each {
        None => finish(train::<R>(&job, global)?, &job, global),
        Some(each) => for_each::<R>(each, &job, global),
    })
}

/// A run for each value, and the means over them.
fn for_each<R: Recipe>(each: &Each, job: &Job, global: &Global) -> Outcome {
    let recipe: R = job.opened.parse(job.overrides)?;
    let base = job.run.unwrap_or(recipe.name());
    let overrides = |value: &String| [job.overrides, &[format!("{}={value}", each.key)]].concat();
    // All are what the recipe takes, before hours go by.
    for value in &each.values {
        job.opened.parse::<R>(&overrides(value))?;
        job::check_name(&format!("{base}-{value}"))
            .map_err(|problem| Failure::text(USAGE, format!("the run of {value} {problem}")))?;
    }
    let mut runs = BTreeMap::new();
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for value in &each.values {
        let (name, overrides) = (format!("{base}-{value}"), overrides(value));
        let job = Job { overrides: &overrides, run: Some(&name), ..*job };
        let scores = match train::<R>(&job, global) {
            Ok((dir, trained)) => {
                trained.show(&dir)?.write(&dir)?;
                trained.outcome().scores.clone()
            }
            Err(failure) if is_done(&failure) => run::read(&global.runs.join(&name))?.metrics,
            Err(failure) => return Err(failure),
        };
        for (part, metrics) in &scores {
            for (name, score) in metrics {
                all.entry(format!("{part} {name}")).or_default().push(*score);
            }
        }
        runs.insert(value, scores);
    }
    let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let line = |(name, values): (&String, &Vec<f64>)| {
        let shown: Vec<String> = values.iter().map(|value| format!("{value:.4}")).collect();
        format!("{name} {:.4}: {}\n", mean(values), shown.join(" "))
    };
    let text: String = all.iter().map(line).collect();
    let means: BTreeMap<&String, f64> = all.iter().map(|(name, v)| (name, mean(v))).collect();
    let report = json!({"key": each.key, "runs": runs, "means": means});
    super::print(global, &report, &format!("{}: {}\n{text}", each.key, each.values.join(" ")));
    Ok(())
}

/// Writes the run's page and prints its scores.
fn finish((dir, trained): (PathBuf, impl Trained), job: &Job, global: &Global) -> Outcome {
    trained.show(&dir)?.write(&dir)?;
    if let Some(server) = job.track {
        untracked(track::attach(server, &dir, &["recipe.resolved.toml", "report.html"]));
    }
    let mut text = format!("{}\n", dir.display());
    let outcome = trained.outcome();
    for (part, metrics) in &outcome.scores {
        for (name, value) in metrics {
            text.push_str(&format!("{part} {name} {value:.4}\n"));
        }
    }
    let report = json!({
        "run": dir, "end": outcome.end, "seconds": outcome.counters.seconds,
        "tokens": outcome.counters.tokens,
        "metrics": outcome.scores,
    });
    super::print(global, &report, &text);
    Ok(())
}

/// A run that its server has heard only a part of is still a run.
fn untracked(sent: Result<(), TrackError>) {
    if let Err(error) = sent {
        eprintln!("not all was tracked: {}", one_line(&error.into()));
    }
}

/// In an earlier sitting, from the same data by the same recipe.
pub fn is_done(failure: &Failure) -> bool {
    let error = failure.error.as_ref().and_then(|error| error.downcast_ref());
    matches!(error, Some(RunError::Done { .. }))
}

/// What to train.
pub struct Job<'a> {
    pub opened: &'a Opened,
    pub overrides: &'a [String],
    pub run: Option<&'a str>,
    pub max_time: Option<Duration>,
    /// Hears of every event; `true` stops the training as an interrupt does.
    pub watch: Option<&'a dyn Fn(&Event) -> bool>,
    /// Hears of it too.
    pub track: Option<&'a Server>,
}

/// Trains and returns the run's folder. An interrupted run ends in its exit code, and so does a process that another
/// one of the run writes for.
pub fn train<R: Recipe>(job: &Job, global: &Global) -> Result<(PathBuf, R::Trained), Failure> {
    let mut world = World::join(stop())?;
    let trained = train_in::<R>(&mut world, job, global);
    let (dir, trained) = world.leave(trained)?;
    let Some(trained) = trained else { return Err(Failure::quiet(0)) };
    if trained.outcome().end == End::Interrupted {
        return Err(Failure::quiet(INTERRUPTED));
    }
    Ok((dir, trained))
}

/// A preparation that takes so long is told of.
const LONG: Duration = Duration::from_secs(5);

/// `None` in a process that another one writes for.
fn train_in<R: Recipe>(
    world: &mut World,
    job: &Job,
    global: &Global,
) -> Result<(PathBuf, Option<R::Trained>), Failure> {
    let mut recipe: R = job.opened.parse(job.overrides)?;
    if let Some(seed) = global.seed {
        recipe.set_seed(seed);
    }
    let tensor_parallel = recipe.method().tensor_parallel;
    world.divide(tensor_parallel)?;
    let experiment = recipe.name().to_string();
    let name = job.run.unwrap_or(&experiment).to_string();
    let dir = global.runs.join(&name);
    let style = if global.quiet || !world.team.is_first() { Style::None } else { global.progress };
    let mut progress = Progress::new(style).counting(R::UNIT);
    progress.line(&format!("run folder {}", dir.display()));

    let device = global.device.open()?;
    progress.line("prepares the data, and what is learned before the first step");
    let begun = Instant::now();
    let prepared = recipe.prepare(&places::of_recipe(&job.opened.base))?;
    if begun.elapsed() >= LONG {
        progress.line(&format!("that took {:.0} s", begun.elapsed().as_secs_f64()));
    }
    prepared.remarks().iter().for_each(|remark| progress.line(remark));
    if !recipe.method().precision().is_here() {
        progress.line("train.bf16: this CPU has no AVX-512 BF16, so that products stay in f32");
    }

    let resolved = toml::to_string_pretty(&recipe).context("writing the resolved recipe")?;
    // Any number of processes may continue the run.
    recipe.method().tensor_parallel = 1;
    let undivided = toml::to_string_pretty(&recipe).context("writing the resolved recipe")?;
    recipe.method().tensor_parallel = tensor_parallel;
    let info = RunInfo {
        name,
        status: Status::Running,
        command: std::env::args().collect(),
        base: std::path::absolute(job.opened.base.join(".")).ok(),
        firebrick: env!("CARGO_PKG_VERSION").into(),
        burn: "0.22.1".into(),
        device: global.device.to_string(),
        seed: recipe.seed(),
        recipe_sha256: sha256_bytes(undivided.as_bytes()),
        data_sha256: prepared.data_sha256().into(),
        started: run::now() as u64,
        end: None,
        counters: Counters::default(),
        metrics: Default::default(),
    };
    world.check(&info)?;
    let first = world.team.is_first();
    let fresh = !dir.exists();
    let mut run = match first {
        true => Run::open(&dir, info, &job.opened.as_text(), &resolved)?,
        false => Run::follow(&dir, info),
    };
    if first {
        let ledger = dir.join("data.ledger.jsonl");
        write_atomically(&ledger, prepared.ledger().as_bytes())
            .with_context(|| format!("writing {}", ledger.display()))?;
    }

    let tracker = match job.track {
        Some(server) if first => {
            let recipe = toml::from_str(&resolved).context("reading the resolved recipe")?;
            let tracker = Tracker::open(server, &dir, &run.info, &experiment, &recipe);
            let tracker = tracker.or_else(|error| {
                run.info.status = Status::Failed;
                run.save_info()?;
                Err(anyhow::Error::new(error))
            });
            Some(tracker?)
        }
        _ => None,
    };
    tracker.iter().for_each(|tracker| progress.line(&format!("tracked at {}", tracker.page())));
    listen()?;
    let warmup = recipe.method().settings().warmup_steps;
    let session = Session {
        device: &device,
        run: &mut run,
        team: &world.team,
        max_time: job.max_time,
        stop: stop(),
        report: &mut |event| {
            // The others see the same.
            let watched = matches!(event, Event::Stopped { .. }) && job.watch.is_some();
            if first && !watched {
                progress.show(&event);
                if let Event::Step(step) = &event
                    && step.step == 1
                    && step.of <= warmup
                {
                    let steps = step.of;
                    progress.line(&format!(
                        "train.warmup_steps is {warmup} of {steps} steps: the learning rate never \
                         gets to its height; a tenth of the steps is usual"
                    ));
                }
            }
            tracker.iter().for_each(|tracker| tracker.hear(&event));
            if job.watch.is_some_and(|watch| watch(&event)) {
                stop().store(true, Ordering::SeqCst);
            }
        },
    };
    let trained = job::run(&recipe, prepared, session);
    progress.end();
    if let Some(tracker) = tracker {
        untracked(tracker.close(&run.info));
    }
    if trained.is_err() && first && fresh {
        drop(run); // which writes its log
        // What took no step must not stand in the way of the mended recipe.
        let log = std::fs::metadata(dir.join("metrics.jsonl"));
        if log.is_ok_and(|log| log.len() == 0) && checkpoint::list(&dir)?.is_empty() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("deleting {}", dir.display()))?;
        }
    }
    Ok((dir, trained?))
}

/// Set by Ctrl-C or a termination signal; a second one ends the process at once.
pub fn stop() -> &'static Arc<AtomicBool> {
    static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Default::default);
    &STOP
}

/// For a training that was stopped by who watched it, before the next one.
pub fn clear_interrupt() {
    stop().store(false, Ordering::SeqCst);
}

/// From now on such a signal sets [`stop`].
pub fn listen() -> anyhow::Result<()> {
    static ONCE: OnceLock<Result<(), String>> = OnceLock::new();
    let listening = ONCE.get_or_init(|| {
        let handler = || {
            if stop().swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        };
        ctrlc::set_handler(handler).map_err(|error| error.to_string())
    });
    listening.clone().map_err(|error| anyhow::anyhow!("cannot listen for Ctrl-C: {error}"))
}
