//! `firebrick compress`: smaller candidates of a model, each measured as it was read back by a process of its own, and
//! the one that keeps to the budget.

mod prune;
mod report;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
use firebrick_kernels::quantised::{Format, Range};
use firebrick_nlp::classification::recipe::Recipe;
use firebrick_train::job::Recipe as _;

use self::{prune::Prune, report::report};
use super::{Outcome, ask, eval};
use crate::{
    cli::{CompressArgs, EvalArgs, Global},
    failure::{BAD_FILE, Failure, GATE, USAGE},
    places,
    progress::{Progress, Style},
};

/// Rows that are asked for one by one, for the latency.
const SINGLES: &str = "200";

pub fn run(args: &CompressArgs, global: &Global) -> Outcome {
    let usage = |problem: String| Failure::text(USAGE, problem);
    let budget = args.budget.as_deref().map_or_else(|| Ok(Budget::default()), Budget::parse);
    let budget = budget.map_err(|problem| usage(format!("--budget: {problem}")))?;
    let prune = args.prune.as_deref().map(Prune::parse).transpose().map_err(usage)?;
    if args.quantize.is_none() && prune.is_none() {
        return Err(usage(
            "nothing to do: --quantize int8 or int4, --prune neurons=0.5, heads=0.5, channels=0.5, layers=2 or weights=0.5"
                .into(),
        ));
    }
    if args.output.exists() && fs::read_dir(&args.output).is_ok_and(|mut dir| dir.next().is_some())
    {
        let message = format!("{} is not empty; it was left as it is", args.output.display());
        return Err(usage(message));
    }
    let source = places::model(&args.model, &global.runs)?;
    if args.distill && ask::task(&source)? != Recipe::TASK {
        return Err(usage(
            "--distill is for classification of texts, whose models can teach".into(),
        ));
    }
    let progress = Progress::new(if global.quiet { Style::None } else { global.progress });
    let job = Job {
        args,
        global,
        source,
        prune,
        device: global.device.open()?,
        progress,
        scratch: Scratch::new(&args.output)?,
    };
    let original = job.measure("original", &args.model, folder::weight_bytes(&job.source)?)?;
    let Found { candidates, sensitivity } = job.candidates(&original)?;
    let found: Vec<&Measured> = candidates.iter().map(|candidate| &candidate.measured).collect();
    let best = choose(&budget, &found, &original).context("there is a candidate")?;
    let chosen = &candidates[best];
    job.keep(chosen, &original)?;
    report(args, global, &original, &candidates, best, &sensitivity);
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

struct Found {
    candidates: Vec<Candidate>,
    /// What each weight costs, the dearest first.
    sensitivity: Vec<(String, f64)>,
}

/// Where candidates lie until one is chosen: beside the output, so that it can be moved there.
struct Scratch(PathBuf);

impl Scratch {
    fn new(output: &Path) -> anyhow::Result<Self> {
        let mut name = output.as_os_str().to_os_string();
        name.push(".candidates");
        let folder = PathBuf::from(name);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Job<'a> {
    args: &'a CompressArgs,
    global: &'a Global,
    source: Source,
    prune: Option<Prune>,
    device: Device,
    progress: Progress,
    scratch: Scratch,
}

impl Job<'_> {
    /// With parts taken out, trained after that, with whole numbers, and all of it.
    fn candidates(&self, original: &Measured) -> Result<Found, Failure> {
        let mut candidates: Vec<Candidate> = vec![];
        let mut source = self.source.clone();
        let mut before = String::new();
        // What every further training is told.
        let mut keys = vec![];
        if let Some(prune) = self.prune {
            let (mut name, mut method) = (prune.name(), prune.method());
            let folder = self.scratch.0.join(&name);
            self.prune(prune, &folder)?;
            candidates.push(self.candidate(&name, method.clone(), &folder)?);
            let pruned = Source::folder(folder);
            if let Some(epochs) = self.args.fine_tune {
                name.push_str("-tuned");
                let teacher = if self.args.distill { ", taught by the original" } else { "" };
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
                let (whole, tuned) = (self.scratch.0.join("tuned"), self.scratch.0.join(&name));
                self.fine_tune(from, epochs, &keys, &whole)?;
                // Training writes f32; the file of an f16 model would have grown.
                let floats = folder::float_type(&self.source.config()?);
                folder::stored_as(floats, &Source::folder(whole), &tuned, &self.device)?;
                source = Source::folder(&tuned);
                candidates.push(self.candidate(&name, method, &tuned)?);
            } else {
                source = pruned;
            }
            before = format!("{name}+");
        }
        let first = candidates.last().map(|candidate| candidate.method.clone());
        let known = match self.args.gptq {
            Some(rows) => self.moments(&source, rows as usize)?,
            None => Moments::new(),
        };
        let whole = candidates.last().map_or(original, |candidate| &candidate.measured).clone();
        let mut quantised = |source: &Source, name: &str, plan: &Plan, more: &str| {
            let method = format!("storing weights as {name}{more}");
            let method =
                first.as_ref().map_or(method.clone(), |first| format!("{first}, and {method}"));
            let name = format!("{before}{name}");
            let folder = self.scratch.0.join(&name);
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
        let mut sensitivity = vec![];
        if let (true, Some((name, plan))) = (self.args.sensitivity, plain) {
            let weights = quantise::weights(&self.scratch.0.join(format!("{before}{name}")))?;
            sensitivity = self.sensitivity(&source, plan, &weights, &whole)?;
            for (count, plan) in quantise::mixed(plan, &weights, &sensitivity) {
                quantised(&source, &format!("{name}-mixed-{count}"), &plan, "")?;
            }
        }
        if let (Some(epochs), Some((name, plan))) = (self.args.fine_tune, plain) {
            let floats = self.scratch.0.join("rounded");
            keys.push(("quantize", (*name).into()));
            self.fine_tune(&source, epochs, &keys, &floats)?;
            let more = format!(", after {epochs} epochs of training with weights rounded so");
            quantised(&Source::folder(&floats), &format!("{name}-tuned"), plan, &more)?;
        }
        Ok(Found { candidates, sensitivity })
    }

    fn candidate(&self, name: &str, method: String, folder: &Path) -> Result<Candidate, Failure> {
        let bytes = folder::weight_bytes(&Source::folder(folder))?;
        let measured = self.measure(name, &folder.to_string_lossy(), bytes)?;
        let sparse = matches!(self.prune, Some(Prune::Weights(_)));
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
        let set = args.data.clone().filter(|data| eval::is_set(data));
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
            None => return vec![],
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

    fn program(&self) -> anyhow::Result<Command> {
        Ok(Command::new(std::env::current_exe().context("finding this program")?))
    }

    /// What a process of our own program prints.
    fn finish(&self, mut command: Command, doing: &str) -> Result<Vec<u8>, Failure> {
        let output = command.stderr(Stdio::piped()).output();
        let output = output.context("starting this program again")?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Err(Failure::text(code, format!("{doing}: {said}")))
    }

    /// What a process of its own finds of a model, on the rows that choices are made by.
    fn measure(&self, name: &str, model: &str, bytes: u64) -> Result<Measured, Failure> {
        let answer = self.eval(model, self.args.split.as_deref().or(Some("valid")))?;
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

    fn eval(&self, model: &str, split: Option<&str>) -> Result<serde_json::Value, Failure> {
        let Self { args, global, .. } = self;
        let mut command = self.program()?;
        command.args([
            "eval",
            model,
            "--json",
            "--latency",
            SINGLES,
            "--device",
            &global.device.to_string(),
        ]);
        command.args(["--threads", &global.threads.to_string(), "--runs"]).arg(&global.runs);
        command.args(["--text-column", &args.columns.text_column]);
        command.args(["--label-column", &args.columns.label_column]);
        if args.columns.no_header {
            command.arg("--no-header");
        }
        match &args.data {
            Some(data) => {
                command.args(["--data", data]);
                if let Some(split) = &args.split {
                    command.args(["--split", split]);
                }
            }
            None => {
                command.args(["--data-of", &args.model]);
                command.args(split.iter().flat_map(|split| ["--split", split]));
            }
        }
        let printed = self.finish(command, &format!("measuring {model}"))?;
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
            let folder = self.scratch.0.join("one");
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
    fn keep(&self, chosen: &Candidate, original: &Measured) -> Outcome {
        let output = &self.args.output;
        if let Some(parent) = output.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        card::write(
            &chosen.folder,
            &self.args.model,
            &chosen.method,
            [original, &chosen.measured],
        )?;
        let _ = fs::remove_dir(output); // an empty one
        fs::rename(&chosen.folder, output)
            .with_context(|| format!("moving the result to {}", output.display()))?;
        Ok(())
    }
}
