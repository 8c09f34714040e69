//! `firebrick runs compare`: what differs between runs, and what came of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use firebrick_train::{
    job::{chart, put},
    report::{Report, plots::Curve, render},
    run::{self, RunInfo},
    track::params,
};
use serde_json::json;

use super::folder;
use crate::{
    cli::Global,
    commands::{Outcome, print},
};

struct Compared {
    name: String,
    dir: PathBuf,
    info: RunInfo,
    /// Keys of the resolved recipe with their tables' names before them.
    recipe: Vec<(String, String)>,
}

/// A line of the table: what it is, and each run's value.
type Line = (String, Vec<Option<String>>);

pub fn run(names: &[String], output: Option<PathBuf>, global: &Global) -> Outcome {
    let runs = names
        .iter()
        .map(|name| {
            let dir = folder(name, global)?;
            let (info, recipe) = (run::look(&dir)?, recipe(&dir)?);
            Ok(Compared { name: name.clone(), dir, info, recipe })
        })
        .collect::<Result<Vec<_>, crate::failure::Failure>>()?;
    let scores = scores(&runs);
    let keys = differing_keys(&runs);
    let page = output.unwrap_or_else(|| global.runs.join("compare.html"));
    put(&page, render(&report(&runs, &scores, &keys)?))?;

    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([""].into_iter().chain(names.iter().map(String::as_str)));
    for (what, values) in scores.iter().chain(&keys) {
        let values = values.iter().map(|value| value.as_deref().unwrap_or("-"));
        table.add_row([what.as_str()].into_iter().chain(values));
    }
    let by_name = |lines: &[Line]| {
        lines
            .iter()
            .map(|(what, values)| (what.clone(), json!(values)))
            .collect::<serde_json::Map<_, _>>()
    };
    let all = json!({
        "runs": names, "scores": by_name(&scores), "recipe": by_name(&keys), "page": page,
    });
    print(global, &all, &format!("{table}\n{}", page.display()));
    Ok(())
}

fn recipe(dir: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let path = dir.join("recipe.resolved.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let table = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(params(&table))
}

fn scores(runs: &[Compared]) -> Vec<Line> {
    let mut names = BTreeSet::new();
    for run in runs {
        let of_part = |part: &String, metrics: &firebrick_train::fit::Metrics| {
            metrics.keys().map(|name| (part.clone(), name.clone())).collect::<Vec<_>>()
        };
        names.extend(run.info.metrics.iter().flat_map(|(part, metrics)| of_part(part, metrics)));
    }
    let line = |(part, name): (String, String)| {
        let value =
            |run: &Compared| Some(format!("{:.4}", run.info.metrics.get(&part)?.get(&name)?));
        (format!("{part} {name}"), runs.iter().map(value).collect())
    };
    let all = |what: &str, value: fn(&Compared) -> String| {
        (what.to_string(), runs.iter().map(|run| Some(value(run))).collect())
    };
    let mut lines = vec![
        all("status", |run| format!("{:?}", run.info.status).to_lowercase()),
        all("seed", |run| run.info.seed.to_string()),
        all("device", |run| run.info.device.clone()),
        all("steps", |run| run.info.counters.step.to_string()),
        all("seconds", |run| format!("{:.1}", run.info.counters.seconds)),
    ];
    lines.extend(names.into_iter().map(line));
    lines
}

/// Keys of the recipes whose values are not the same everywhere, in the first recipe's order.
fn differing_keys(runs: &[Compared]) -> Vec<Line> {
    let mut seen = BTreeSet::new();
    let keys = runs.iter().flat_map(|run| &run.recipe).map(|(key, _)| key);
    let keys = keys.filter(|key| seen.insert(key.as_str()));
    let value = |run: &Compared, key: &str| {
        let found = run.recipe.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.clone())
    };
    let line =
        |key: &String| (key.clone(), runs.iter().map(|run| value(run, key)).collect::<Vec<_>>());
    keys.map(line)
        .filter(|(key, values)| key != "name" && values.iter().any(|value| *value != values[0]))
        .collect()
}

fn report(runs: &[Compared], scores: &[Line], keys: &[Line]) -> anyhow::Result<Report> {
    let mut curves = vec![];
    let losses = named_curves(runs, "loss")?;
    curves.extend((!losses.is_empty()).then(|| chart("Training loss", "loss", losses)));
    let parts = scores.iter().filter_map(|(what, _)| what.strip_prefix("valid "));
    for metric in parts {
        let of_metric = named_curves(runs, &format!("valid/{metric}"))?;
        let title = format!("Validation: {metric}");
        curves.extend((!of_metric.is_empty()).then(|| chart(&title, metric, of_metric)));
    }
    let comparison = runs.iter().enumerate().map(|(index, run)| {
        let value = |prefix: &str| {
            let with = scores.iter().filter(|(what, _)| what.starts_with(prefix));
            let shown = with.filter_map(|(what, values)| {
                Some(format!("{} {}", &what[prefix.len()..], values[index].as_ref()?))
            });
            shown.collect::<Vec<_>>().join(", ")
        };
        let seconds = format!("{:.1} s", run.info.counters.seconds);
        let test = value("test ");
        let detail =
            if test.is_empty() { seconds } else { format!("{seconds}; test part: {test}") };
        (run.name.clone(), value("valid "), detail)
    });
    let differences = keys.iter().map(|(key, values)| {
        let of_run = values
            .iter()
            .zip(runs)
            .map(|(value, run)| format!("#   {}: {}\n", run.name, value.as_deref().unwrap_or("-")));
        format!("{key}\n{}", of_run.collect::<String>())
    });
    Ok(Report {
        title: runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", "),
        subtitle: format!(
            "{} runs compared: scores of the best weights on the validation part.",
            runs.len()
        ),
        comparison: comparison.collect(),
        curves,
        recipe_toml: differences.collect(),
        ..Report::default()
    })
}

/// One curve a run, of those that logged it.
fn named_curves(runs: &[Compared], key: &str) -> anyhow::Result<Vec<Curve>> {
    let curve =
        |run: &Compared| Ok(Curve { name: run.name.clone(), points: run::curve(&run.dir, key)? });
    let curves = runs.iter().map(curve).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(curves.into_iter().filter(|curve| !curve.points.is_empty()).collect())
}
