//! `firebrick sweep`: many trainings of one recipe with other values, and which values did best.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::Instant,
};

use anyhow::Context;
use firebrick_data::hash::sha256_bytes;
use firebrick_train::{
    fit::{Event, lower_is_better},
    job::{Recipe, Trained, put},
    report::{
        Report,
        parallel::{Axis, Line as PlotLine, Trials, parallel_svg},
        plots::Curve,
        render,
    },
    run::{self, Status},
    sweep::{
        SweepRecipe, asha,
        importance::importance,
        sampler,
        space::Value,
        study::{Line, Study, Trial, TrialEnd},
    },
};
use serde_json::json;

use super::{
    Outcome,
    recipe::Opened,
    train::{self, Job},
};
use crate::{
    cli::{Global, SweepArgs},
    failure::{Failure, INTERRUPTED, USAGE},
    progress::{Progress, Style},
    tasks::with_task,
};

pub fn run(args: &SweepArgs, global: &Global) -> Outcome {
    let opened = Opened::named(&args.recipe)?;
    let mut sweep = opened.sweep()?.ok_or_else(|| {
        let message = format!("{}: has no `[sweep]` with a `space` to search", args.recipe);
        Failure::text(USAGE, message)
    })?;
    sweep.trials = args.trials.unwrap_or(sweep.trials);
    with_task!(opened.task()?, R => search::<R>(&opened, &sweep, args, global))
}

/// Everything that a worker needs to know.
struct Search<'a> {
    opened: &'a Opened,
    sweep: &'a SweepRecipe,
    overrides: &'a [String],
    dir: PathBuf,
    /// Names the folder under the runs.
    name: String,
    sha256: String,
    seed: u64,
    metric: String,
}

/// Every key of the space must be one that the recipe reads, with a value that it takes.
pub fn check_space<R: Recipe>(
    opened: &Opened,
    sweep: &SweepRecipe,
    overrides: &[String],
) -> Result<(), Failure> {
    for (key, range) in &sweep.space {
        let (low, high) = range.scale();
        let mut tried = overrides.to_vec();
        tried.push(range.at((low + high) / 2.0).setting(key));
        opened.parse::<R>(&tried)?;
    }
    Ok(())
}

fn search<R: Recipe>(
    opened: &Opened,
    sweep: &SweepRecipe,
    args: &SweepArgs,
    global: &Global,
) -> Outcome {
    let recipe: R = train::recipe(opened, &args.overrides, global)?;
    check_space::<R>(opened, sweep, &args.overrides)?;
    let set = args.overrides.iter().filter_map(|setting| Some(setting.split_once('=')?.0.trim()));
    if let Some(key) = set.into_iter().find(|key| sweep.space.contains_key(*key)) {
        let message = format!("--set {key}: the search chooses it, by [sweep.space]");
        return Err(Failure::text(USAGE, message));
    }
    if let (Some(seed), true) = (global.seed, sweep.space.contains_key("seed")) {
        let message =
            format!("--seed {seed} (or FIREBRICK_SEED): the search chooses it, by [sweep.space]");
        return Err(Failure::text(USAGE, message));
    }
    let own = recipe.metric().map_err(|error| opened.error(error))?;
    let name = args.run.clone().unwrap_or_else(|| format!("{}-sweep", recipe.name()));
    let dir = global.runs.join(&name);
    // Any number of trials may be asked for later; all else makes another study.
    let same = SweepRecipe { trials: 0, ..sweep.clone() };
    let facts = [
        toml::to_string(&recipe).context("writing the recipe")?,
        toml::to_string(&same).context("writing the sweep")?,
    ];
    let search = Search {
        opened,
        sweep,
        overrides: &args.overrides,
        dir,
        name,
        sha256: sha256_bytes(facts.concat().as_bytes()),
        seed: recipe.seed(),
        metric: sweep.metric.clone().unwrap_or_else(|| own.to_string()),
    };
    let progress = Progress::new(if global.quiet { Style::None } else { global.progress });
    progress.line(&format!("study folder {}", search.dir.display()));
    drop(Study::open(&search.dir, &search.sha256)?);
    match args.workers {
        0 | 1 => search.work::<R>(global, &progress)?,
        workers => share(workers, global)?,
    }
    search.finish(global)
}

/// The same command in processes of their own, each with its share of the threads.
fn share(workers: usize, global: &Global) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let all = if global.threads == 0 { cores } else { global.threads };
    let program = std::env::current_exe().context("finding this program")?;
    // Options given last count, so the parent's own stand before.
    let given: Vec<String> = std::env::args().skip(1).collect();
    let children: Vec<_> = (0..workers)
        .map(|_| {
            let threads = (all / workers).max(1).to_string();
            let own = ["--workers", "1", "--threads", &threads];
            Command::new(&program)
                .args(without_workers(&given))
                .args(own)
                .stdout(std::process::Stdio::null())
                .spawn()
        })
        .collect();
    let mut failed = 0;
    for child in children {
        let status = child.and_then(|mut child| child.wait()).context("running a worker")?;
        failed += usize::from(!status.success());
    }
    match failed {
        0 => Ok(()),
        n => Err(Failure::text(
            1,
            format!("{n} of {workers} workers failed; the same command goes on"),
        )),
    }
}

/// Arguments but for `--workers N` and `--threads N`.
fn without_workers(args: &[String]) -> Vec<String> {
    let mut kept = vec![];
    let mut skip = false;
    for arg in args {
        if std::mem::take(&mut skip) {
            continue;
        }
        match arg.as_str() {
            "--workers" | "--threads" => skip = true,
            arg if arg.starts_with("--workers=") || arg.starts_with("--threads=") => {}
            _ => kept.push(arg.clone()),
        }
    }
    kept
}

/// A trial that this process has taken; the file is locked as long as it works on it.
struct Taken {
    number: usize,
    values: BTreeMap<String, Value>,
    _lock: File,
}

impl Search<'_> {
    fn study(&self) -> Result<Study, Failure> {
        Ok(Study::open(&self.dir, &self.sha256)?)
    }

    fn folder(&self, trial: usize) -> PathBuf {
        self.dir.join("trials").join(trial.to_string())
    }

    /// Lower is better.
    fn loss(&self, score: f64) -> f64 {
        if lower_is_better(&self.metric) { score } else { -score }
    }

    fn work<R: Recipe>(&self, global: &Global, progress: &Progress) -> Outcome {
        while let Some(taken) = self.take()? {
            self.train::<R>(&taken, global, progress)?;
        }
        Ok(())
    }

    /// A trial whose worker is gone, else a new one, else none.
    fn take(&self) -> Result<Option<Taken>, Failure> {
        let mut study = self.study()?;
        let open: Vec<(usize, BTreeMap<String, Value>)> = study
            .trials
            .iter()
            .filter(|trial| trial.end.is_none())
            .map(|trial| (trial.number, trial.values.clone()))
            .collect();
        for (number, values) in open {
            if let Some(lock) = self.lock(number)? {
                return Ok(Some(Taken { number, values, _lock: lock }));
            }
        }
        let number = study.trials.len();
        if number >= self.sweep.trials {
            return Ok(None);
        }
        let values = sampler::next(self.sweep, &study.finished(), self.seed, number);
        let lock = self.lock(number)?.context("a new trial is nobody else's")?;
        study.write(Line::Started { trial: number, values: values.clone() })?;
        Ok(Some(Taken { number, values, _lock: lock }))
    }

    fn lock(&self, number: usize) -> anyhow::Result<Option<File>> {
        let dir = self.dir.join("trials");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let path = dir.join(format!("{number}.lock"));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(file.try_lock().is_ok().then_some(file))
    }

    fn train<R: Recipe>(&self, taken: &Taken, global: &Global, progress: &Progress) -> Outcome {
        let begun = Instant::now();
        let mut overrides = self.overrides.to_vec();
        overrides.extend(taken.values.iter().map(|(key, value)| value.setting(key)));
        let (evaluations, pruned) = (Cell::new(self.passed(taken.number)?), Cell::new(false));
        let best = Cell::new(f64::INFINITY);
        let watch = |event: &Event| {
            let Event::Evaluated { metrics, .. } = event else { return false };
            let Some(score) = metrics.get(&self.metric) else { return false };
            evaluations.set(evaluations.get() + 1);
            best.set(best.get().min(self.loss(*score)));
            let behind = self.behind(taken.number, evaluations.get(), best.get());
            pruned.set(pruned.get() || behind);
            behind
        };
        let run = format!("{}/trials/{}", self.name, taken.number);
        let job = Job {
            opened: self.opened,
            overrides: &overrides,
            run: Some(&run),
            max_time: None,
            watch: Some(&watch),
            track: None,
        };
        let quiet = Global { progress: Style::None, ..global.clone() };
        let folder = self.folder(taken.number);
        // Its worker may have been killed after the training and before the study heard of it.
        let earlier = run::read(&folder).ok().filter(|info| info.status == Status::Finished);
        let score = match earlier {
            Some(info) => Ok(info.metrics.get("valid").and_then(|m| m.get(&self.metric)).copied()),
            None => train::train::<R>(&job, &quiet).map(|(_, trained)| {
                trained.outcome().scores.get("valid").and_then(|m| m.get(&self.metric)).copied()
            }),
        };
        let (end, score) = match score {
            Ok(score) => (TrialEnd::Finished, score),
            Err(failure) if failure.code == INTERRUPTED && pruned.get() => {
                let loss = best.get();
                (TrialEnd::Pruned, Some(if lower_is_better(&self.metric) { loss } else { -loss }))
            }
            Err(failure) if failure.code == INTERRUPTED => return Err(failure),
            Err(failure) => (TrialEnd::Failed(format!("{:#}", failure.into_error())), None),
        };
        train::clear_interrupt();
        let seconds = begun.elapsed().as_secs_f64();
        let said = match &end {
            TrialEnd::Failed(problem) => format!("failed: {problem}"),
            TrialEnd::Pruned => "stopped: behind".into(),
            TrialEnd::Finished => "finished".into(),
        };
        let values: Vec<String> = taken.values.iter().map(|(k, v)| v.setting(k)).collect();
        let shown = score.map_or("-".into(), |score| format!("{score:.4}"));
        progress.line(&format!(
            "trial {}  {} {shown}  {said}  {seconds:.0} s  {}",
            taken.number,
            self.metric,
            values.join(" ")
        ));
        let loss = score.map(|score| self.loss(score));
        self.study()?.write(Line::Ended { trial: taken.number, end, loss, score, seconds })?;
        Ok(())
    }

    /// Evaluations that a trial has behind it, in earlier sittings.
    fn passed(&self, number: usize) -> Result<usize, Failure> {
        let folder = self.folder(number);
        if !folder.join("metrics.jsonl").exists() {
            return Ok(0);
        }
        let saved = firebrick_train::checkpoint::list(&folder)?.pop().unwrap_or(0) as f64;
        let curve = run::curve(&folder, &format!("valid/{}", self.metric))?;
        Ok(curve.iter().filter(|(step, _)| *step <= saved).count())
    }

    /// Tells the study how a trial stands, and whether it should stop.
    fn behind(&self, trial: usize, evaluations: usize, loss: f64) -> bool {
        if !asha::is_rung(self.sweep, evaluations) {
            return false;
        }
        // A study that cannot be written is found out at the trial's end.
        let Ok(mut study) = self.study() else { return false };
        let goes_on = asha::goes_on(self.sweep, loss, &study.rivals(trial, evaluations));
        study.write(Line::Rung { trial, evaluations, loss }).is_ok() && !goes_on
    }

    fn finish(&self, global: &Global) -> Outcome {
        let study = self.study()?;
        let page = self.report(&study)?;
        let Some(best) = study.best() else {
            return Err(Failure::text(1, "no trial came to its end; study.jsonl says why"));
        };
        let shares = importance(&self.sweep.space, &study.finished());
        let score = best.score.unwrap_or_default();
        let mut text = format!(
            "{}\nbest     {} {score:.4} in trial {} of {}\n",
            self.dir.display(),
            self.metric,
            best.number,
            study.trials.len()
        );
        for (key, value) in &best.values {
            text.push_str(&format!(
                "         {}  (importance {:.2})\n",
                value.setting(key),
                shares[key]
            ));
        }
        text.push_str(&format!("report   {}\n", page.display()));
        let trials: Vec<_> = study.trials.iter().map(shown).collect();
        let report = json!({
            "study": self.dir, "metric": self.metric, "best": shown(best), "importance": shares, "trials": trials,
        });
        super::print(global, &report, &text);
        Ok(())
    }

    /// `report.html` and `plots/parallel.svg`; returns the page's path.
    fn report(&self, study: &Study) -> anyhow::Result<PathBuf> {
        let best = study.best().map(|trial| trial.number);
        let losses: Vec<f64> = study.trials.iter().filter_map(|trial| trial.loss).collect();
        let (low, high) = losses
            .iter()
            .filter(|x| x.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)));
        let mut axes: Vec<Axis> = self
            .sweep
            .space
            .iter()
            .map(|(key, range)| {
                let (from, to) = range.scale();
                Axis {
                    name: key.rsplit('.').next().unwrap_or(key).to_string(),
                    bottom: brief(&range.at(from)),
                    top: brief(&range.at(to)),
                }
            })
            .collect();
        let shown_score =
            |loss: f64| format!("{:.4}", if lower_is_better(&self.metric) { loss } else { -loss });
        // The best on top.
        axes.push(Axis {
            name: self.metric.clone(),
            bottom: shown_score(high),
            top: shown_score(low),
        });
        let line = |trial: &Trial| {
            let keys = self.sweep.space.iter();
            let mut places: Vec<Option<f64>> = keys
                .map(|(key, range)| {
                    let (from, to) = range.scale();
                    let place = trial.values.get(key).and_then(|value| range.place(value))?;
                    Some((place - from) / (to - from))
                })
                .collect();
            places.push(trial.loss.map(|loss| (high - loss) / (high - low).max(1e-300)));
            let whole = trial.end == Some(TrialEnd::Finished);
            PlotLine { places, best: Some(trial.number) == best, whole }
        };
        let lines: Vec<PlotLine> = study.trials.iter().map(line).collect();
        let trials = Trials { axes, lines };
        put(&self.dir.join("plots/parallel.svg"), parallel_svg("Trials", &trials, true))?;
        let mut so_far = f64::INFINITY;
        let whole = study.trials.iter().filter(|trial| trial.end == Some(TrialEnd::Finished));
        let points = whole
            .filter_map(|trial| {
                so_far = so_far.min(trial.loss?);
                let score = if lower_is_better(&self.metric) { so_far } else { -so_far };
                Some((trial.number as f64, score))
            })
            .collect();
        let shares = importance(&self.sweep.space, &study.finished());
        let mut shares: Vec<(String, f64)> = shares.into_iter().collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        let count = |end: &TrialEnd| {
            let same = |trial: &&Trial| {
                trial
                    .end
                    .as_ref()
                    .is_some_and(|e| std::mem::discriminant(e) == std::mem::discriminant(end))
            };
            study.trials.iter().filter(same).count().to_string()
        };
        let best = study.best();
        let report = Report {
            title: format!("Study {}", self.name),
            subtitle: "Every number on this page was measured in this study.".into(),
            facts: vec![
                ("trials".into(), study.trials.len().to_string()),
                ("to their end".into(), count(&TrialEnd::Finished)),
                ("stopped early".into(), count(&TrialEnd::Pruned)),
                ("failed".into(), count(&TrialEnd::Failed(String::new()))),
            ],
            verdict: best.map_or("No trial came to its end.".into(), |trial| {
                let values: Vec<String> = trial.values.iter().map(|(k, v)| v.setting(k)).collect();
                format!(
                    "Best: {} {:.4} in trial {}, with {}. The validation rows chose it, so expect somewhat less on new data.",
                    self.metric,
                    trial.score.unwrap_or_default(),
                    trial.number,
                    values.join(", ")
                )
            }),
            trials: Some(trials),
            curves: vec![(
                format!("Best {} so far", self.metric),
                "trial".into(),
                self.metric.clone(),
                vec![Curve { name: "best so far".into(), points }],
            )],
            data_notes: shares
                .into_iter()
                .map(|(key, share)| (format!("importance of {key}"), format!("{share:.2}")))
                .collect(),
            recipe_toml: self.opened.as_text(),
            next_steps: best
                .map(|trial| {
                    let settings: Vec<String> =
                        trial.values.iter().map(|(k, v)| format!("--set '{}'", v.setting(k))).collect();
                    let command = format!("firebrick train {} {}", self.opened.name(), settings.join(" "));
                    vec![(command, "train with the best values".into())]
                })
                .unwrap_or_default(),
            ..Report::default()
        };
        let page = self.dir.join("report.html");
        put(&page, render(&report))?;
        Ok(page)
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Number(x) if *x != 0.0 && !(1e-2..1e4).contains(&x.abs()) => format!("{x:.0e}"),
        Value::Number(x) => {
            format!("{x:.3}").trim_end_matches('0').trim_end_matches('.').to_string()
        }
        Value::Choice(serde_json::Value::String(text)) => text.clone(),
        other => other.to_string(),
    }
}

fn shown(trial: &Trial) -> serde_json::Value {
    json!({
        "trial": trial.number, "values": trial.values, "end": trial.end, "score": trial.score, "seconds": trial.seconds,
    })
}
