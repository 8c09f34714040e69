//! `firebrick train`: a recipe into a run folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
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
    job::{self, Prepared, Recipe, Scores, Session, Trained},
    run::{self, Run, RunError, RunInfo, Status},
    track::{self, Server, TrackError, Tracker},
};
use serde_json::{Value, json};
use signal_hook::{consts, flag};

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
    let recipe: R = recipe(job.opened, job.overrides, global)?;
    if let (Some(seed), "seed") = (global.seed, each.key.trim()) {
        let message = format!(
            "--seed {seed} (or FIREBRICK_SEED) stands beside --each seed, and all runs would have it: leave one of them out"
        );
        return Err(Failure::text(USAGE, message));
    }
    let base = job.run.unwrap_or(recipe.name());
    let overrides = |value: &String| [job.overrides, &[format!("{}={value}", each.key)]].concat();
    // All are what the recipe takes, before hours go by.
    for value in &each.values {
        job.opened.parse::<R>(&overrides(value))?;
        job::check_name(&format!("{base}-{value}"))
            .map_err(|problem| Failure::text(USAGE, format!("the run of {value} {problem}")))?;
    }
    let (mut runs, mut unfinished) = (vec![], vec![]);
    for value in &each.values {
        let (name, overrides) = (format!("{base}-{value}"), overrides(value));
        let job = Job { overrides: &overrides, run: Some(&name), ..*job };
        let scores = match train::<R>(&job, global) {
            Ok((dir, trained)) => {
                trained.show(&dir)?.write(&dir)?;
                let outcome = trained.outcome();
                unfinished.extend((outcome.end == End::OutOfTime).then_some(value.as_str()));
                outcome.scores.clone()
            }
            Err(failure) if is_done(&failure) => run::read(&global.runs.join(&name))?.metrics,
            Err(failure) => return Err(failure),
        };
        runs.push((value.as_str(), scores));
    }
    let (report, text) = summary(&each.key, &runs, &unfinished);
    super::print(global, &report, &text);
    Ok(())
}

/// The scores of the runs by their values, and the means. Where a run is `unfinished` there are none: it would be
/// averaged with what was trained longer.
fn summary(key: &str, runs: &[(&str, Scores)], unfinished: &[&str]) -> (Value, String) {
    let names: BTreeSet<(&String, &String)> = runs
        .iter()
        .flat_map(|(_, scores)| scores)
        .flat_map(|(part, metrics)| metrics.keys().map(move |name| (part, name)))
        .collect();
    let shown = |score: Option<f64>| score.map_or("-".into(), |score| format!("{score:.4}"));
    let values: Vec<&str> = runs.iter().map(|(value, _)| *value).collect();
    let mut text = format!("{key}: {}\n", values.join(" "));
    if !unfinished.is_empty() {
        let list = unfinished.join(" ");
        text.push_str(&format!(
            "unfinished: {list}; the same command goes on, and then says the means\n"
        ));
    }
    let mut means = BTreeMap::new();
    for (part, name) in names {
        let of_run = |(_, scores): &(&str, Scores)| scores.get(part)?.get(name).copied();
        let found: Vec<Option<f64>> = runs.iter().map(of_run).collect();
        let whole: Option<Vec<f64>> = found.iter().copied().collect();
        let whole = whole.filter(|_| unfinished.is_empty());
        let mean = whole.map(|scores| scores.iter().sum::<f64>() / scores.len() as f64);
        let list: Vec<String> = found.into_iter().map(shown).collect();
        text.push_str(&format!("{part} {name} {}: {}\n", shown(mean), list.join(" ")));
        means.insert(format!("{part} {name}"), mean);
    }
    let by_value: BTreeMap<&str, &Scores> =
        runs.iter().map(|(value, scores)| (*value, scores)).collect();
    let report = json!({"key": key, "runs": by_value, "unfinished": unfinished, "means": means});
    (report, text)
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
        stderr!("not all was tracked: {}", one_line(&error.into()));
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
    match world.leave(trained)? {
        Done::Trained(dir, trained) => Ok((dir, trained)),
        Done::Interrupted => Err(Failure::quiet(INTERRUPTED)),
        Done::Elsewhere => Err(Failure::quiet(0)),
    }
}

/// The recipe as it will be trained, with the seed of `--seed`.
pub fn recipe<R: Recipe>(
    opened: &Opened,
    overrides: &[String],
    global: &Global,
) -> Result<R, Failure> {
    let mut recipe: R = opened.parse(overrides)?;
    if let Some(seed) = global.seed {
        let is_seed =
            |set: &String| set.split_once('=').is_some_and(|(key, _)| key.trim() == "seed");
        let own = recipe.seed();
        if own != seed && overrides.iter().any(is_seed) {
            let message = format!(
                "--seed {seed} (or FIREBRICK_SEED) stands beside --set seed={own}: leave one of them out"
            );
            return Err(Failure::text(USAGE, message));
        }
        recipe.set_seed(seed);
    }
    Ok(recipe)
}

/// A preparation that takes so long is told of.
const LONG: Duration = Duration::from_secs(5);

/// How a sitting ends.
enum Done<T> {
    Trained(PathBuf, T),
    Interrupted,
    /// Another process of the run writes.
    Elsewhere,
}

fn train_in<R: Recipe>(
    world: &mut World,
    job: &Job,
    global: &Global,
) -> Result<Done<R::Trained>, Failure> {
    let mut recipe: R = recipe(job.opened, job.overrides, global)?;
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

    let resolved = job::resolved(&recipe)?;
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
    let end = run.info.end;
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
    Ok(match trained? {
        Some(trained) => Done::Trained(dir, trained),
        None if first && end == Some(End::Interrupted) => Done::Interrupted,
        None => Done::Elsewhere,
    })
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

/// From now on what ends a training with a checkpoint sets [`stop`]: Ctrl-C, a termination signal, and a hang-up unless `nohup` keeps
/// it off.
pub fn listen() -> anyhow::Result<()> {
    static ONCE: OnceLock<Result<(), String>> = OnceLock::new();
    let listening = ONCE.get_or_init(|| {
        let mut heard = vec![consts::SIGINT, consts::SIGTERM];
        #[cfg(unix)]
        heard.extend((!is_ignored(consts::SIGHUP)).then_some(consts::SIGHUP));
        let listened = heard.into_iter().try_for_each(|signal| {
            // They are asked in this order: the first signal only sets it, and the second finds it set.
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), stop().clone())?;
            flag::register(signal, stop().clone())?;
            io::Result::Ok(())
        });
        listened.map_err(|error| error.to_string())
    });
    listening.clone().map_err(|error| anyhow::anyhow!("cannot listen for Ctrl-C: {error}"))
}

/// Whether a signal was ignored when the process began, as Linux tells.
#[cfg(unix)]
fn is_ignored(signal: std::ffi::c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (mask >> (signal - 1)) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_mean_over_unfinished_runs() {
        let scores = |accuracy: f64| -> Scores {
            BTreeMap::from([(
                "valid".to_string(),
                [("accuracy".to_string(), accuracy)].into_iter().collect(),
            )])
        };
        let runs = [("2", scores(0.5)), ("1", scores(0.75)), ("3", Scores::new())];
        let (report, text) = summary("seed", &runs[..2], &[]);
        assert_eq!(text, "seed: 2 1\nvalid accuracy 0.6250: 0.5000 0.7500\n");
        assert_eq!(report["means"]["valid accuracy"], 0.625);
        let (report, text) = summary("seed", &runs[..2], &["1"]);
        assert!(text.starts_with("seed: 2 1\nunfinished: 1; "), "{text}");
        assert!(text.ends_with("\nvalid accuracy -: 0.5000 0.7500\n"), "{text}");
        assert_eq!(report["unfinished"], json!(["1"]));
        assert!(report["means"]["valid accuracy"].is_null(), "{report}");
        let (_, text) = summary("seed", &runs, &[]);
        assert!(text.ends_with("\nvalid accuracy -: 0.5000 0.7500 -\n"), "{text}");
    }
}
