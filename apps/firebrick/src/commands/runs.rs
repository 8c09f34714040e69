//! `firebrick runs`: what was run, and how it went.

mod compare;

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::Context;
use firebrick_compress::measured::score;
use firebrick_train::{
    checkpoint,
    run::{self, RunInfo},
};
use serde_json::json;

use super::Outcome;
use crate::{
    cli::{Global, RunsCommand},
    failure::{Failure, USAGE},
};

pub fn run(command: RunsCommand, global: &Global) -> Outcome {
    match command {
        RunsCommand::Ls => ls(global),
        RunsCommand::Show { name } => show(&name, global),
        RunsCommand::Compare { names, output } => compare::run(&names, output, global),
        RunsCommand::Rm { name } => {
            let dir = folder(&name, global)?;
            run::remove(&dir)?;
            let text = format!("{} is gone", dir.display());
            super::print(global, &json!({"removed": name}), &text);
            Ok(())
        }
    }
}

pub fn folder(name: &str, global: &Global) -> Result<PathBuf, Failure> {
    let dir = global.runs.join(name);
    // Trials and rungs of the ladder are runs in folders of their own.
    let within = |part| matches!(part, Component::Normal(_));
    let inside = !name.is_empty() && Path::new(name).components().all(within);
    match inside && dir.join("run.json").exists() {
        true => Ok(dir),
        false => Err(Failure::text(USAGE, format!("no run `{name}` in {}", global.runs.display()))),
    }
}

fn ls(global: &Global) -> Outcome {
    let mut names: Vec<String> = fs::read_dir(&global.runs)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && global.runs.join(name).join("run.json").exists())
        .collect();
    names.sort();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["run", "status", "steps", "seconds", "valid", "test"]);
    let mut list = vec![];
    for name in names {
        let info = match run::look(&global.runs.join(&name)) {
            Ok(info) => info,
            Err(error) => {
                table.add_row([&name, "damaged"]);
                list.push(json!({"name": name, "status": "damaged", "error": error.to_string()}));
                continue;
            }
        };
        let score = |part: &str| {
            let score = info.metrics.get(part).and_then(score);
            score.map_or("-".to_string(), |(name, value)| format!("{name} {value:.4}"))
        };
        table.add_row([
            name,
            status(&info),
            info.counters.step.to_string(),
            format!("{:.0}", info.counters.seconds),
            score("valid"),
            score("test"),
        ]);
        list.push(serde_json::to_value(&info).context("printing a run")?);
    }
    super::print(global, &json!(list), &table.to_string());
    Ok(())
}

fn status(info: &RunInfo) -> String {
    format!("{:?}", info.status).to_lowercase()
}

fn show(name: &str, global: &Global) -> Outcome {
    let dir = folder(name, global)?;
    let info = run::look(&dir)?;
    let steps = checkpoint::list(&dir)?;
    let mut text = format!(
        "{}\nstatus   {}\ncommand  {}\ndevice   {}\nseed     {}\nsteps    {}\nseconds  {:.1}\n",
        dir.display(),
        status(&info),
        info.command.join(" "),
        info.device,
        info.seed,
        info.counters.step,
        info.counters.seconds
    );
    if let Some((step, score)) = info.counters.best {
        // Kept such that more is better: a loss has lost its sign.
        text.push_str(&format!("best     {:.4} at step {step}\n", score.abs()));
    }
    for (part, metrics) in &info.metrics {
        for (score, value) in metrics {
            text.push_str(&format!("{part} {score} {value:.4}\n"));
        }
    }
    let name = info.metrics.get("valid").and_then(score).map_or("accuracy", |(name, _)| name);
    for (step, score) in run::curve(&dir, &format!("valid/{name}"))? {
        let kept = if steps.contains(&(step as usize)) { "  checkpoint" } else { "" };
        text.push_str(&format!("step {step:6}  valid {name} {score:.4}{kept}\n"));
    }
    super::print(global, &json!({"run": info, "checkpoints": steps}), &text);
    Ok(())
}
