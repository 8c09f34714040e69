//! `firebrick compress`: smaller candidates of a model, each measured as it was read back by a process of its own, and
//! the one that keeps to the budget.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_compress::{
    card, folder,
    gate::{Budget, choose},
    measured::{Measured, pareto, points},
    prune::without_channels,
    quantise,
};
use firebrick_core::checkpoint::{Source, quantise::Plan};
use firebrick_kernels::quantised::{Format, Range};
use firebrick_nlp::classification::{corpus, prune::without_neurons, recipe::Recipe};
use firebrick_train::job::Recipe as _;
use serde_json::json;
use toml::{Table, Value};

use super::{Outcome, ask, eval};
use crate::{
    cli::{CompressArgs, Global},
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
            "nothing to do: --quantize int8, --quantize int4, --prune neurons=0.5, --prune channels=0.5"
                .into(),
        ));
    }
    if args.fine_tune.is_some() && prune.is_none() {
        return Err(usage("--fine-tune is for what --prune leaves, and there is none".into()));
    }
    if args.output.exists() && fs::read_dir(&args.output).is_ok_and(|mut dir| dir.next().is_some())
    {
        let message = format!("{} is not empty; it was left as it is", args.output.display());
        return Err(usage(message));
    }
    let source = places::model(&args.model, &global.runs)?;
    let progress = Progress::new(if global.quiet { Style::None } else { global.progress });
    let job = Job {
        args,
        global,
        source,
        device: global.device.open()?,
        progress,
        scratch: Scratch::new(&args.output)?,
    };
    let original = job.measure("original", &args.model, folder::weight_bytes(&job.source)?)?;
    let candidates = job.candidates(prune)?;
    let sensitivity = match args.sensitivity {
        true => job.sensitivity(&original)?,
        false => vec![],
    };
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

/// What goes: a share of the feed-forward neurons of every layer, or of the channels of every stage.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Prune {
    Neurons(f64),
    Channels(f64),
}

impl Prune {
    /// `neurons=0.5`, `channels=0.25`
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("heads") {
            return Err(
                "--prune heads: config.json has no place for fewer heads of the same size, so that \
                        transformers would not open the result; neurons=0.5 works"
                    .into(),
            );
        }
        let parsed = text.split_once('=').and_then(|(what, share)| {
            let share = share.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0)?;
            match what {
                "neurons" => Some(Self::Neurons(share)),
                "channels" => Some(Self::Channels(share)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| format!("--prune `{text}` is not like neurons=0.5 or channels=0.5"))
    }

    /// In a file name, and for the card.
    fn name(self) -> String {
        match self {
            Self::Neurons(share) => format!("neurons-{share}"),
            Self::Channels(share) => format!("channels-{share}"),
        }
    }

    fn method(self) -> String {
        let (share, what) = match self {
            Self::Neurons(share) => (share, "feed-forward neurons of each layer"),
            Self::Channels(share) => (share, "channels of each stage"),
        };
        format!("taking out {:.0} % of the {what}", 100.0 * share)
    }
}

/// A smaller model, and what came of it.
struct Candidate {
    name: String,
    /// For the card.
    method: String,
    folder: PathBuf,
    measured: Measured,
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
    device: Device,
    progress: Progress,
    scratch: Scratch,
}

impl Job<'_> {
    /// With parts taken out, trained after that, with whole numbers, and all of it.
    fn candidates(&self, prune: Option<Prune>) -> Result<Vec<Candidate>, Failure> {
        let mut candidates = vec![];
        let mut source = self.source.clone();
        let mut before = String::new();
        if let Some(prune) = prune {
            let (mut name, mut method) = (prune.name(), prune.method());
            let folder = self.scratch.0.join(&name);
            self.prune(prune, &folder)?;
            source = Source::folder(&folder);
            candidates.push(self.candidate(name.clone(), method.clone(), folder.clone())?);
            if let Some(epochs) = self.args.fine_tune {
                name.push_str("-tuned");
                method.push_str(&format!(", then {epochs} epochs of training"));
                let tuned = self.scratch.0.join(&name);
                self.fine_tune(&folder, epochs, &tuned)?;
                source = Source::folder(&tuned);
                candidates.push(self.candidate(name.clone(), method, tuned)?);
            }
            before = format!("{name}+");
        }
        let first = candidates.last().map(|candidate: &Candidate| candidate.method.clone());
        for (name, plan) in self.args.quantize.as_deref().map_or_else(Vec::new, plans) {
            let method = format!("storing weights as {name}");
            let method =
                first.as_ref().map_or(method.clone(), |first| format!("{first}, and {method}"));
            let name = format!("{before}{name}");
            let folder = self.scratch.0.join(&name);
            quantise::quantise(&source, &plan, &folder, &self.device)?;
            candidates.push(self.candidate(name, method, folder)?);
        }
        Ok(candidates)
    }

    fn candidate(
        &self,
        name: String,
        method: String,
        folder: PathBuf,
    ) -> Result<Candidate, Failure> {
        let bytes = folder::weight_bytes(&Source::folder(&folder))?;
        let measured = self.measure(&name, &folder.to_string_lossy(), bytes)?;
        Ok(Candidate { name, method, folder, measured })
    }

    fn prune(&self, prune: Prune, target: &Path) -> Outcome {
        let config = self.source.config()?;
        let family = config["model_type"].as_str().unwrap_or_default();
        let share = match prune {
            Prune::Neurons(share) => share,
            Prune::Channels(_) if family != "resnet" => {
                let message = format!("--prune channels is for a ResNet, not for {family}");
                return Err(Failure::text(USAGE, message));
            }
            Prune::Channels(share) => {
                return Ok(without_channels(&self.source, share, target, &self.device)?);
            }
        };
        if ask::task(&self.source)? != Recipe::TASK
            || !["bert", "roberta", "distilbert"].contains(&family)
        {
            let message = format!(
                "--prune neurons is for text classifiers of the BERT family, not for {family}"
            );
            return Err(Failure::text(USAGE, message));
        }
        // Rows that the model was trained on tell what its neurons do; without them their weights must.
        let rows =
            eval::recipe_of(&self.args.model, &self.source, self.global).ok().and_then(|opened| {
                let recipe: Recipe = opened.parse(&[]).ok()?;
                corpus::load(&recipe.data, recipe.seed, &places::of_recipe(&opened.base)).ok()
            });
        let rows = rows.map_or_else(Vec::new, |corpus| corpus.train);
        if rows.is_empty() {
            self.progress
                .line("the training rows are not here: neurons are chosen by their weights");
        }
        Ok(without_neurons(&self.source, share, &rows, &self.device, target)?)
    }

    /// Trains what is left on the model's own recipe, a process of its own, at a third of its rate.
    fn fine_tune(&self, pruned: &Path, epochs: u32, target: &Path) -> Outcome {
        let opened = eval::recipe_of(&self.args.model, &self.source, self.global)?;
        let text = opened.as_text();
        let mut recipe: Table = text.parse().context("reading the model's recipe again")?;
        let from = std::path::absolute(pruned).context("the folder of the pruned model")?;
        let pretrained = Value::String(from.display().to_string());
        recipe.insert("model".into(), Table::from_iter([("pretrained".into(), pretrained)]).into());
        if let Some(tokenizer) = recipe.get_mut("tokenizer").and_then(Value::as_table_mut) {
            tokenizer.retain(|key, _| key == "max_len");
            tokenizer.insert("kind".into(), "pretrained".into());
        }
        // Its files lie where the recipe was.
        for (_, value) in recipe.get_mut("data").and_then(Value::as_table_mut).into_iter().flatten()
        {
            if let Some(path) =
                value.as_str().map(|file| opened.base.join(file)).filter(|path| path.exists())
            {
                *value = Value::String(
                    std::path::absolute(path).context("a data file")?.display().to_string(),
                );
            }
        }
        let train = recipe.entry("train").or_insert_with(|| Table::new().into());
        if let Some(train) = train.as_table_mut() {
            let rate = train.get("learning_rate").and_then(Value::as_float);
            train.insert("learning_rate".into(), (rate.unwrap_or(1e-3) / 3.0).into());
            train.insert("epochs".into(), i64::from(epochs).into());
            train.remove("max_steps");
        }
        recipe.remove("sweep");
        let name = recipe["name"].as_str().unwrap_or_default().to_string();
        let file = self.scratch.0.join("tuned.toml");
        fs::write(&file, recipe.to_string()).context("writing a recipe")?;
        let runs = self.scratch.0.join("runs");
        self.progress.line(&format!("training what is left for {epochs} epochs"));
        let mut command = self.program()?;
        command.arg("train").arg(&file).arg("--runs").arg(&runs).args([
            "--progress",
            "none",
            "--quiet",
        ]);
        command.args(["--device", &self.global.device.to_string()]);
        command.args(["--threads", &self.global.threads.to_string()]);
        self.finish(command, &format!("training {}", pruned.display()))?;
        fs::rename(runs.join(name).join("model"), target).context("moving the trained model")?;
        Ok(())
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
    fn sensitivity(&self, original: &Measured) -> Result<Vec<(String, f64)>, Failure> {
        let plans = self.args.quantize.as_deref().map_or_else(Vec::new, plans);
        let Some((_, plan)) = plans.into_iter().next() else { return Ok(vec![]) };
        let all = self.scratch.0.join("all");
        quantise::quantise(&self.source, &plan, &all, &self.device)?;
        let weights = quantise::weights(&all)?;
        let mut table = vec![];
        for name in &weights {
            let folder = self.scratch.0.join("one");
            quantise::quantise(
                &self.source,
                &quantise::only(&plan, &weights, name),
                &folder,
                &self.device,
            )?;
            let found = self.measure(name, &folder.to_string_lossy(), 0)?;
            let loss = |m: &Measured| m.metrics.get("loss").copied();
            let cost = match (loss(original), loss(&found), original.score(), found.score()) {
                // Finer than a count of right answers.
                (Some(old), Some(new), ..) => new - old,
                (_, _, Some((score, old)), Some((_, new))) => -points(score, old, new),
                _ => 0.0,
            };
            table.push((name.clone(), cost));
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

/// Ways to make whole numbers of weights: by name.
fn plans(format: &str) -> Vec<(&'static str, Plan)> {
    let int4 = Plan::new(Format::Int4 { group: 32 });
    let int8 = |range| Plan { range, ..Plan::new(Format::Int8) };
    match format {
        "int4" => vec![
            ("int4", int4.clone()),
            ("int4-minmax", Plan { range: Range::MinMax, ..int4 }),
            ("int4-128", Plan::new(Format::Int4 { group: 128 })),
        ],
        _ => vec![
            ("int8", int8(Range::MinMax)),
            ("int8-mse", int8(Range::Mse)),
            ("int8-99.99", int8(Range::Percentile(0.9999))),
        ],
    }
}

fn report(
    args: &CompressArgs,
    global: &Global,
    original: &Measured,
    candidates: &[Candidate],
    best: usize,
    sensitivity: &[(String, f64)],
) {
    let mut all = vec![("original", original)];
    all.extend(candidates.iter().map(|candidate| (candidate.name.as_str(), &candidate.measured)));
    let front = pareto(&all.iter().map(|(_, measured)| *measured).collect::<Vec<_>>());
    let (score, old) = original.score().unwrap_or(("score", 0.0));
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "",
        "MB",
        "of it",
        score,
        "points",
        "95 %",
        "p50 ms",
        "p95 ms",
        "rows/s",
        "peak MB",
        "mJ/row (at 10 W)",
        "front",
    ]);
    for ((name, m), front) in all.iter().zip(&front) {
        let value = m.metrics.get(score).copied().unwrap_or_default();
        let interval =
            m.interval.map_or(String::new(), |[low, high]| format!("{low:.4} .. {high:.4}"));
        table.add_row([
            name.to_string(),
            format!("{:.2}", m.bytes as f64 / 1e6),
            format!("{:.1} %", 100.0 * m.bytes as f64 / original.bytes.max(1) as f64),
            format!("{value:.4}"),
            format!("{:+.2}", points(score, old, value)),
            interval,
            format!("{:.2}", m.p50_ms),
            format!("{:.2}", m.p95_ms),
            format!("{:.0}", m.rows_per_second),
            format!("{:.0}", m.peak_mb),
            format!("{:.1}", m.millijoules_per_row()),
            if *front { "*" } else { "" }.to_string(),
        ]);
    }
    let mut text = format!("{} rows: {}\n{table}\n", original.rows, original.data);
    if !sensitivity.is_empty() {
        text.push_str("\none weight alone (what the loss rises by)\n");
        sensitivity.iter().for_each(|(name, cost)| text.push_str(&format!("{cost:+.5}  {name}\n")));
    }
    text.push_str(&format!("kept     {} in {}\n", candidates[best].name, args.output.display()));
    let entry = |(name, m): &(&str, &Measured), front: &bool| json!({"name": name, "front": front, "measured": m});
    let entries: Vec<serde_json::Value> =
        all.iter().zip(&front).map(|(entry_of, front)| entry(entry_of, front)).collect();
    let weights: Vec<serde_json::Value> =
        sensitivity.iter().map(|(name, cost)| json!({"weight": name, "cost": cost})).collect();
    let document = json!({
        "output": args.output, "kept": candidates[best].name, "candidates": entries, "sensitivity": weights,
    });
    super::print(global, &document, &text);
}
