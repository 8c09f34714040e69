//! `firebrick compress`: smaller candidates of a model, each measured as it was read back by a process of its own, and
//! the one that keeps to the budget.

mod prune;
mod report;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_compress::{
    card, folder,
    gate::{Budget, choose},
    measured::{Measured, badness},
    prune::zeros,
    quantise,
};
use firebrick_core::{
    checkpoint::{Source, quantise::Plan},
    layers::moments::{self, Moments, Recorded},
};
use firebrick_data::manifest;
use firebrick_kernels::quantised::{Format, Range};
use firebrick_nlp::{classification::recipe::Recipe, tagging::tagger::HMM};
use firebrick_train::job::Recipe as _;
use firebrick_vision::anomaly;
use tempfile::TempDir;

use self::{
    prune::{Prune, TRAINABLE},
    report::report,
};
use super::{
    Outcome, ask, eval,
    train::{listen, stop},
};
use crate::{
    cli::{CompressArgs, EvalArgs, Global},
    failure::{BAD_FILE, Failure, GATE, INTERRUPTED, USAGE, one_line},
    places,
    progress::{Progress, Style},
};

/// From one look for Ctrl-C to the next.
const LOOK: Duration = Duration::from_millis(50);
/// Rows that are asked for one by one, for the latency.
const SINGLES: &str = "200";

/// Epochs that what pruning left is trained for where a budget is all that was said.
const EPOCHS: u32 = 3;

/// What is trained goes on so long.
#[derive(Debug, Clone, Copy)]
struct Training {
    epochs: u32,
    /// The original teaches.
    distill: bool,
}

pub fn run(args: &CompressArgs, global: &Global) -> Outcome {
    let usage = |problem: String| Failure::text(USAGE, problem);
    let budget = args.budget.as_deref().map_or_else(|| Ok(Budget::default()), Budget::parse);
    let budget = budget.map_err(|problem| usage(format!("--budget: {problem}")))?;
    let prune = args.prune.as_deref().map(Prune::parse).transpose().map_err(usage)?;
    if args.quantize.is_none() && prune.is_none() && args.budget.is_none() {
        return Err(usage(
            "nothing to do: --quantize int8 or int4, --prune neurons=0.5, heads=0.5, channels=0.5, layers=2 or weights=0.5, or \
             a --budget that is tried for without them"
                .into(),
        ));
    }
    let output = place(&args.output)?;
    let source = places::model(&args.model, &global.runs)?;
    let task = ask::task(&source)?;
    if args.distill && task != Recipe::TASK {
        return Err(usage(
            "--distill is for classification of texts, whose models can teach".into(),
        ));
    }
    if args.distill && args.fine_tune == Some(0) {
        return Err(usage("--distill teaches what --fine-tune trains, which is nothing".into()));
    }
    if args.fine_tune.is_some_and(|epochs| epochs > 0) && !TRAINABLE.contains(&task) {
        return Err(usage(format!(
            "--fine-tune is for tasks whose recipes have `model.pretrained` ({}), not for {task}",
            TRAINABLE.join(", ")
        )));
    }
    let data = data(args, &source, task, global);
    let part = part(task, data.as_deref(), args.split.as_deref()).map_err(usage)?;
    let config = source.config()?;
    if config["model_type"] == HMM {
        let message = format!("{} is made of counts: it has no weights to compress", args.model);
        return Err(usage(message));
    }
    let prunes = match (prune, &args.quantize) {
        (Some(prune), _) => {
            prune.check(&config, task)?;
            vec![Some(prune)]
        }
        (None, Some(_)) => vec![None],
        (None, None) => {
            [None].into_iter().chain(Prune::untrained(&config, task).map(Some)).collect()
        }
    };
    let bytes = folder::weight_bytes(&source)?;
    let progress = Progress::new(if global.quiet { Style::None } else { global.progress });
    // Beside the output, so that what is chosen can be moved there; under a name that nobody has.
    let parent = output.parent().unwrap_or(Path::new("/"));
    listen()?;
    let scratch = tempfile::Builder::new().prefix(".firebrick-compress-").tempdir_in(parent);
    let job = Job {
        args,
        global,
        source,
        task,
        data,
        part,
        output,
        prunes,
        device: global.device.open()?,
        progress,
        scratch: scratch.with_context(|| format!("a folder beside {}", args.output.display()))?,
    };
    let original = job.measure("original", &args.model, bytes)?;
    budget.check(&original).map_err(|problem| usage(format!("--budget: {problem}")))?;
    let found = job.candidates(&budget, &original)?;
    let measured: Vec<&Measured> =
        found.candidates.iter().map(|candidate| &candidate.measured).collect();
    let best = choose(&budget, &measured, &original).context("there is a candidate")?;
    job.keep(&found.candidates, best, &original)?;
    report(args, global, &original, &found, best);
    let chosen = &found.candidates[best];
    match budget.missed(&chosen.measured, &original).join("; ") {
        missed if missed.is_empty() => Ok(()),
        missed => {
            let kept = args.output.display();
            Err(Failure::text(
                GATE,
                format!("budget missed by {}: {missed}; it is kept in {kept}", chosen.name),
            ))
        }
    }
}

/// Where the result goes, in full: a name that is not taken or an empty folder, in a folder that is there. Found out before
/// anything is measured.
fn place(output: &Path) -> Result<PathBuf, Failure> {
    let usage =
        |problem: String| Failure::text(USAGE, format!("--output {}: {problem}", output.display()));
    let whole = std::path::absolute(output).map_err(|error| usage(error.to_string()))?;
    // Without a slash at its end.
    let whole: PathBuf = whole.components().collect();
    let (Some(parent), Some(_)) = (whole.parent(), whole.file_name()) else {
        return Err(usage("is no name for a folder".into()));
    };
    match fs::symlink_metadata(&whole) {
        Ok(meta) if !meta.is_dir() => {
            return Err(usage("is there and is no folder; it was left as it is".into()));
        }
        Ok(_) if fs::read_dir(&whole).is_ok_and(|mut dir| dir.next().is_some()) => {
            return Err(usage("is not empty; it was left as it is".into()));
        }
        _ => {}
    }
    fs::create_dir_all(parent).map_err(|error| usage(error.to_string()))?;
    Ok(whole)
}

/// Whether `--data` is the id of a known set; that of labelled texts is one beside a file of its name, too.
fn is_set(task: &str, data: &str) -> bool {
    eval::is_set(data) || task == Recipe::TASK && manifest::layout(data).is_some()
}

/// `--data`, but for the set that the model's recipe names: its parts are those of the recipe, which a candidate's folder
/// does not know. A part of labelled texts that is asked for by name is a file of the set.
fn data(args: &CompressArgs, source: &Source, task: &str, global: &Global) -> Option<String> {
    let data = args.data.as_ref()?;
    let own = || -> Option<String> {
        let opened = eval::recipe_of(&args.model, source, global).ok()?;
        let recipe: toml::Table = opened.as_text().parse().ok()?;
        Some(recipe.get("data")?.get("dataset")?.as_str()?.to_string())
    };
    let file = task == Recipe::TASK && args.split.is_some();
    let own = !file && is_set(task, data) && own().as_ref() == Some(data);
    (!own).then(|| data.clone())
}

/// The part that candidates are measured on: the one that is asked for, or that which choices are made by, of the model's
/// own data or of a known set. `None`: all of a file.
fn part(task: &str, data: Option<&str>, split: Option<&str>) -> Result<Option<String>, String> {
    let valid = match (split, data) {
        (Some(split), _) => split,
        (None, Some(data)) if !is_set(task, data) => return Ok(None),
        // Without frames that are told apart elsewhere.
        _ if task == anomaly::recipe::Recipe::TASK => "test",
        (None, Some(id)) if task == Recipe::TASK => match manifest::layout(id) {
            Some(layout) => {
                let mut parts = layout.splits.iter().map(|(name, _)| *name);
                parts.find(|name| ["valid", "dev"].contains(name)).ok_or_else(|| {
                    format!(
                        "--data {id} has no validation part to choose by: name one with --split"
                    )
                })?
            }
            None => "valid", // that it is no set of labelled texts is told where it is read
        },
        _ => "valid",
    };
    Ok(Some(valid.into()))
}

/// Our own program, told to compute as this one does. It divides the data as a recipe says, whatever seed this one has.
fn program(verb: &str, global: &Global) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args([verb, "--device", &global.device.to_string()]);
    command.args(["--threads", &global.threads.to_string()]);
    command.env_remove("FIREBRICK_SEED");
    Ok(command)
}

/// A smaller model, and what came of it.
struct Candidate {
    name: String,
    /// For the card.
    method: String,
    folder: PathBuf,
    measured: Measured,
    /// Share of its weights that are zero, where weights are pruned.
    zeros: Option<f64>,
}

#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    /// What each weight costs, the dearest first.
    sensitivity: Vec<(String, f64)>,
}

impl Found {
    fn named(&self, name: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.name == name)
    }
}

struct Job<'a> {
    args: &'a CompressArgs,
    global: &'a Global,
    source: Source,
    task: &'static str,
    /// Rows to measure on in place of those of the model's recipe.
    data: Option<String>,
    /// Which of them.
    part: Option<String>,
    output: PathBuf,
    /// What is taken out, each with all that is done after it; `None`: nothing.
    prunes: Vec<Option<Prune>>,
    device: Device,
    progress: Progress,
    /// Where candidates lie until one is chosen.
    scratch: TempDir,
}

impl Job<'_> {
    fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Everything that was asked for; where a budget is all that was said and nothing untrained keeps to it, what is left by
    /// pruning is trained too.
    fn candidates(&self, budget: &Budget, original: &Measured) -> Result<Found, Failure> {
        let Self { args, source, .. } = self;
        let mut found = Found::default();
        let asked = args.fine_tune.filter(|epochs| *epochs > 0);
        let asked = asked.map(|epochs| Training { epochs, distill: args.distill });
        for prune in &self.prunes {
            self.unless_unnamed(*prune, self.stack(*prune, asked, original, &mut found))?;
        }
        let kept = |candidate: &Candidate| budget.missed(&candidate.measured, original).is_empty();
        if args.prune.is_none() && args.fine_tune.is_none() && !found.candidates.iter().any(kept) {
            let training = Training { epochs: EPOCHS, distill: self.task == Recipe::TASK };
            let pruned = |prune: &&Prune| found.named(&prune.name()).is_some();
            let pruned: Vec<Prune> = self.prunes.iter().flatten().filter(pruned).copied().collect();
            for prune in pruned {
                if !TRAINABLE.contains(&self.task) {
                    let task = self.task;
                    self.progress.line(&format!(
                        "nothing is trained: recipes of {task} have no `model.pretrained`"
                    ));
                    break;
                }
                if eval::recipe_of(&args.model, source, self.global).is_err() {
                    self.progress.line("nothing is trained: the model's recipe is not known");
                    break;
                }
                self.progress.line(&format!(
                    "nothing untrained keeps to the budget: what is left by {} is trained; --fine-tune 0 leaves that out",
                    prune.name()
                ));
                let trained = self.stack(Some(prune), Some(training), original, &mut found);
                self.unless_unnamed(Some(prune), trained)?;
            }
        }
        Ok(found)
    }

    /// What failed, if somebody asked for it by name; else there are others, and it is told.
    fn unless_unnamed(&self, prune: Option<Prune>, done: Outcome) -> Outcome {
        match (done, prune) {
            (Err(failure), Some(prune)) if self.args.prune.is_none() => {
                let problem = one_line(&failure.into_error());
                self.progress.line(&format!("{}: {problem}", prune.name()));
                Ok(())
            }
            (done, _) => done,
        }
    }

    /// With parts taken out, trained after that, with whole numbers, and all of it; what was found already is not made again.
    fn stack(
        &self,
        prune: Option<Prune>,
        training: Option<Training>,
        original: &Measured,
        found: &mut Found,
    ) -> Outcome {
        let mut source = self.source.clone();
        let (mut before, mut first) = (String::new(), None);
        let mut whole = original.clone();
        // What every further training is told.
        let mut keys = vec![];
        if let Some(prune) = prune {
            let (mut name, mut method) = (prune.name(), prune.method());
            let folder = self.scratch(&name);
            if found.named(&name).is_none() {
                self.prune(prune, &folder)?;
                found.candidates.push(self.candidate(&name, method.clone(), &folder)?);
            }
            let pruned = Source::folder(folder);
            if let Some(training @ Training { epochs, distill }) = training {
                name.push_str("-tuned");
                let teacher = if distill { ", taught by the original" } else { "" };
                // Zeros come little by little, while all weights are still there.
                let from = match prune {
                    Prune::Weights(share) => {
                        keys.push(("sparsity", share.into()));
                        method.push_str(&format!(" in {epochs} epochs of training{teacher}"));
                        &source
                    }
                    _ => {
                        method.push_str(&format!(", then {epochs} epochs of training{teacher}"));
                        &pruned
                    }
                };
                let (trained, tuned) = (self.scratch("tuned"), self.scratch(&name));
                self.fine_tune(from, training, &keys, &trained)?;
                // Training writes f32; the file of an f16 model would have grown.
                let floats = folder::float_type(&self.source.config()?);
                folder::stored_as(floats, &Source::folder(trained), &tuned, &self.device)?;
                source = Source::folder(&tuned);
                found.candidates.push(self.candidate(&name, method.clone(), &tuned)?);
            } else {
                source = pruned;
            }
            before = format!("{name}+");
            first = Some(method);
            whole.clone_from(&found.candidates[found.candidates.len() - 1].measured);
        }
        let known = match self.args.gptq {
            Some(rows) => self.moments(&source, rows as usize)?,
            None => Moments::new(),
        };
        let candidates = &mut found.candidates;
        let mut quantised = |source: &Source, name: &str, plan: &Plan, more: &str| {
            let method = format!("storing weights as {name}{more}");
            let method =
                first.as_ref().map_or(method.clone(), |first| format!("{first}, and {method}"));
            let name = format!("{before}{name}");
            let folder = self.scratch(&name);
            quantise::quantise(source, plan, &folder, &self.device)?;
            candidates.push(self.candidate(&name, method, &folder)?);
            Ok::<_, Failure>(())
        };
        let plans = self.plans(&known);
        for (name, plan) in &plans {
            quantised(&source, name, plan, "")?;
        }
        // The first plan is the one that training rounds by, and that mixtures begin with.
        let plain = plans.first();
        if let (true, Some((name, plan))) = (self.args.sensitivity, plain) {
            let weights = quantise::weights(&self.scratch(&format!("{before}{name}")))?;
            let sensitivity = self.sensitivity(&source, plan, &weights, &whole)?;
            for (count, plan) in quantise::mixed(plan, &weights, &sensitivity) {
                quantised(&source, &format!("{name}-mixed-{count}"), &plan, "")?;
            }
            found.sensitivity = sensitivity;
        }
        // Where nobody asked for training, once is enough.
        if let (Some(training), Some((name, plan)), true) =
            (training, plain, self.args.fine_tune.is_some())
        {
            let floats = self.scratch(&format!("{before}rounded"));
            keys.push(("quantize", (*name).into()));
            self.fine_tune(&source, training, &keys, &floats)?;
            let epochs = training.epochs;
            let more = format!(", after {epochs} epochs of training with weights rounded so");
            quantised(&Source::folder(&floats), &format!("{name}-tuned"), plan, &more)?;
        }
        Ok(())
    }

    fn candidate(&self, name: &str, method: String, folder: &Path) -> Result<Candidate, Failure> {
        let bytes = folder::weight_bytes(&Source::folder(folder))?;
        let measured = self.measure(name, &folder.to_string_lossy(), bytes)?;
        let sparse = self.prunes.iter().any(|prune| matches!(prune, Some(Prune::Weights(_))));
        let zeros = if sparse { Some(zeros(folder)?) } else { None };
        Ok(Candidate { name: name.into(), method, folder: folder.into(), measured, zeros })
    }

    /// What goes into the linear layers of `source` on so many rows that it was trained on, one by one: a batch has
    /// padding, which no layer is to be right for.
    fn moments(&self, source: &Source, rows: usize) -> Result<Moments, Failure> {
        let asked = EvalArgs { batch_size: 1, ..self.training_rows(rows)? };
        let (scored, recorded) = moments::record(|| eval::score(&asked, source, self.global));
        let (rows, Recorded { moments, left }) = (scored?.rows, recorded);
        if moments.is_empty() {
            let message = "--gptq: this model asks no linear layer, and has none to round";
            return Err(Failure::text(USAGE, message));
        }
        self.progress.line(&format!("gptq: {} layers, on {rows} training rows", moments.len()));
        if !left.is_empty() {
            let left = left.into_iter().collect::<Vec<_>>().join(", ");
            self.progress.line(&format!(
                "gptq: what goes into the others is more than is kept, 4 GiB; rounded to the nearest: {left}"
            ));
        }
        Ok(moments)
    }

    /// The rows that the model was trained on, or those of the training part of `--data ID`.
    fn training_rows(&self, rows: usize) -> Result<EvalArgs, Failure> {
        let Self { args, global, source, .. } = self;
        let set = self.data.clone().filter(|data| is_set(self.task, data));
        if set.is_none() && eval::recipe_of(&args.model, source, global).is_err() {
            let message = "the rows that this model was trained on are not known: name a data set with --data ID";
            return Err(Failure::text(USAGE, message));
        }
        Ok(EvalArgs {
            model: args.model.clone(),
            data: set,
            data_of: None,
            split: Some("train".into()),
            require: vec![],
            latency: 0,
            robustness: false,
            resampled: false,
            columns: args.columns.clone(),
            batch_size: 64,
            rows: Some(rows),
        })
    }

    /// Ways to make whole numbers of weights, by name; with GPTQ too where `known` says what goes into them.
    fn plans(&self, known: &Moments) -> Vec<(&'static str, Plan)> {
        let int4 = |group| Plan::new(Format::Int4 { group });
        let int8 = |range| Plan { range, ..Plan::new(Format::Int8) };
        let gptq = |plan| Plan { moments: known.clone(), ..plan };
        let (mut plans, known_better) = match self.args.quantize.as_deref() {
            None if self.args.prune.is_some() => return vec![],
            None => (
                vec![
                    ("int8", int8(Range::MinMax)),
                    ("int8-mse", int8(Range::Mse)),
                    ("int4", int4(32)),
                    ("int4-128", int4(128)),
                ],
                vec![],
            ),
            Some("int4") => (
                vec![
                    ("int4", int4(32)),
                    ("int4-minmax", Plan { range: Range::MinMax, ..int4(32) }),
                    ("int4-128", int4(128)),
                ],
                vec![("int4-gptq", gptq(int4(32))), ("int4-128-gptq", gptq(int4(128)))],
            ),
            Some(_) => (
                vec![
                    ("int8", int8(Range::MinMax)),
                    ("int8-mse", int8(Range::Mse)),
                    ("int8-99.99", int8(Range::Percentile(0.9999))),
                ],
                vec![("int8-gptq", gptq(int8(Range::MinMax)))],
            ),
        };
        plans.extend(known_better.into_iter().filter(|_| !known.is_empty()));
        plans
    }

    /// What a process of our own program prints; `heard` is told what it says meanwhile.
    fn finish(
        &self,
        mut command: Command,
        doing: &str,
        mut heard: impl FnMut(&str),
    ) -> Result<Vec<u8>, Failure> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.context("starting this program again")?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        // Both pipes are emptied at once: a full one would stop the process.
        let printed = thread::spawn(move || {
            let mut bytes = vec![];
            stdout.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes)).map(|_| bytes)
        });
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = stderr.into_iter().flat_map(|pipe| BufReader::new(pipe).lines());
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut last = String::new();
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => {
                    // Its error is told with ours.
                    if !line.starts_with("firebrick: ") {
                        heard(&line);
                    }
                    last = line;
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if !stop().load(Ordering::SeqCst) => {}
                Err(RecvTimeoutError::Timeout) => {
                    child.kill().context("ending this program's other process")?;
                    break;
                }
            }
        }
        let status = child.wait().context("waiting for this program")?;
        let printed = printed.join().expect("reading does not panic");
        if stop().load(Ordering::SeqCst) {
            return Err(Failure::text(INTERRUPTED, "interrupted: nothing was kept"));
        }
        if status.success() {
            return Ok(printed.context("reading what this program printed")?);
        }
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        let said = last.trim_start_matches("firebrick: ");
        Err(Failure::text(code, format!("{doing}: {said}")))
    }

    /// What a process of its own finds of a model, on the rows that choices are made by.
    fn measure(&self, name: &str, model: &str, bytes: u64) -> Result<Measured, Failure> {
        let answer = self.eval(model)?;
        let measured = Measured::new(bytes, &answer)
            .map_err(|problem| Failure::text(BAD_FILE, format!("{model}: {problem}")))?;
        let (score, value) = measured.score().unwrap_or(("", 0.0));
        self.progress.line(&format!(
            "{name}: {:.2} MB, {score} {value:.4}, p50 {:.2} ms",
            bytes as f64 / 1e6,
            measured.p50_ms
        ));
        Ok(measured)
    }

    fn eval(&self, model: &str) -> Result<serde_json::Value, Failure> {
        let Self { args, global, .. } = self;
        let mut command = program("eval", global)?;
        command.args([model, "--json", "--resampled", "--latency", SINGLES]);
        command.arg("--runs").arg(&global.runs);
        // Divides a known set that is not the model's own, here as where training rows are read.
        command.args(global.seed.iter().flat_map(|seed| ["--seed".into(), seed.to_string()]));
        command.args(["--text-column", &args.columns.text_column]);
        command.args(["--label-column", &args.columns.label_column]);
        if args.columns.no_header {
            command.arg("--no-header");
        }
        match &self.data {
            Some(data) => command.args(["--data", data]),
            None => command.args(["--data-of", &args.model]),
        };
        command.args(self.part.iter().flat_map(|part| ["--split", part]));
        let printed = self.finish(command, &format!("measuring {model}"), |_| {})?;
        serde_json::from_slice(&printed)
            .with_context(|| format!("measuring {model}"))
            .map_err(Failure::from)
    }

    /// What each weight costs when it alone becomes whole numbers, the dearest first.
    fn sensitivity(
        &self,
        source: &Source,
        plan: &Plan,
        weights: &BTreeMap<String, u8>,
        whole: &Measured,
    ) -> Result<Vec<(String, f64)>, Failure> {
        let mut table = vec![];
        for name in weights.keys() {
            let folder = self.scratch("one");
            let alone = quantise::only(plan, weights, name);
            quantise::quantise(source, &alone, &folder, &self.device)?;
            let bytes = folder::weight_bytes(&Source::folder(&folder))?;
            let found = self.measure(name, &folder.to_string_lossy(), bytes)?;
            table.push((name.clone(), badness(&found.metrics) - badness(&whole.metrics)));
        }
        table.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(table)
    }

    /// The chosen one in its place, with its card.
    fn keep(&self, candidates: &[Candidate], best: usize, original: &Measured) -> Outcome {
        let Self { args, source, output, .. } = self;
        let chosen = &candidates[best];
        let all: Vec<(&str, &Measured)> = std::iter::once(("original", original))
            .chain(candidates.iter().map(|other| (other.name.as_str(), &other.measured)))
            .collect();
        let pair = [original, &chosen.measured];
        card::write(&chosen.folder, source, &args.model, &chosen.method, pair, &all)?;
        let _ = fs::remove_dir(output); // an empty one
        fs::rename(&chosen.folder, output)
            .with_context(|| format!("moving the result to {}", output.display()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use firebrick_nlp::{lm, translation};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_training_has_the_seed_of_its_recipe() {
        let global = Cli::parse_from(["firebrick", "--seed", "5", "doctor"]).global;
        let command = program("train", &global).unwrap();
        assert!(!command.get_args().any(|arg| arg == "--seed"), "{command:?}");
        let mut changed = command.get_envs();
        assert!(changed.any(|change| change == ("FIREBRICK_SEED".as_ref(), None)), "{command:?}");
    }

    #[test]
    fn candidates_are_measured_on_what_choices_are_made_by() {
        let check = |task: &str,
                     data: Option<&str>,
                     split: Option<&str>,
                     expected: Option<&str>| {
            assert_eq!(part(task, data, split).unwrap().as_deref(), expected, "{task} {data:?}");
        };
        let anomalies = anomaly::recipe::Recipe::TASK;
        for task in [Recipe::TASK, lm::recipe::Recipe::TASK] {
            check(task, None, None, Some("valid"));
            check(task, None, Some("test"), Some("test"));
            check(task, Some("rows.csv"), None, None);
        }
        check(anomalies, None, None, Some("test"));
        check(anomalies, Some("ucsd-ped2"), None, Some("test"));
        check(anomalies, Some("table.csv"), None, None);
        // Labelled texts come in files, and the other sets in parts that are called alike.
        check(Recipe::TASK, Some("sst2"), None, Some("dev"));
        check(Recipe::TASK, Some("snips"), None, Some("valid"));
        check(translation::recipe::Recipe::TASK, Some("multi30k"), None, Some("valid"));
        check(Recipe::TASK, Some("waimai-10k"), Some("train"), Some("train"));
        let problem = part(Recipe::TASK, Some("waimai-10k"), None).unwrap_err();
        assert!(problem.contains("no validation part to choose by"), "{problem}");
    }
}
