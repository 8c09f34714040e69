//! `firebrick data drift`: new texts against those that a model learned from.

use std::path::Path;

use firebrick_data::manifest;
use firebrick_nlp::{
    classification::corpus::read_split,
    drift::{FEWEST, drift},
};
use firebrick_train::fit::Metrics;
use serde_json::json;

use crate::{
    cli::{DriftArgs, Global},
    commands::{
        Outcome, ask,
        eval::{Gate, without_parts},
        print,
    },
    failure::{BAD_FILE, Failure},
    places,
};

pub fn run(args: &DriftArgs, global: &Global) -> Outcome {
    let gates = args.require.iter().map(|gate| Gate::parse(gate)).collect::<Result<Vec<_>, _>>()?;
    let id = &args.reference;
    super::not_of_another_kind(id)?;
    let reference = match (manifest::layout(id), &args.split) {
        (Some(_), split) => {
            read_split(&places::data_set(id)?, id, split.as_deref().unwrap_or("train"))?
        }
        (None, None) => ask::texts(Path::new(id), &args.columns)?,
        (None, Some(split)) => return Err(without_parts(id, split).into()),
    };
    let new = ask::texts(&args.new, &args.columns)?;
    for (name, table) in [(Path::new(id), &reference), (&args.new, &new)] {
        if let Some(message) = ask::unreadable(&table.bad) {
            stderr!("{}: {message}", name.display());
        }
    }
    let [old, fresh] = [&reference, &new]
        .map(|table| table.rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>());
    let found = drift(&old, &fresh, global.seed.unwrap_or(0)).map_err(anyhow::Error::new)?;
    let Some(found) = found else {
        let message = format!(
            "{} texts against {}: both need {FEWEST} to be compared",
            fresh.len(),
            old.len()
        );
        return Err(Failure::text(BAD_FILE, message));
    };
    let (low, high) = found.interval;
    let mut text = format!(
        "{} texts of each compared\n\
         separability  {:.3}  (95 %: {low:.3} to {high:.3}; 0.5 is a coin, 1 tells all apart)\n\
         p_value       {:.3}\n\
         unseen        {:.3}  of the words\n\
         length        {} -> {} characters (median)\n",
        found.compared,
        found.separability,
        found.p_value,
        found.unseen,
        found.lengths.0,
        found.lengths.1,
    );
    text.push_str("\nshare of texts with a term, reference -> new\n");
    for (term, before, now) in &found.terms {
        text.push_str(&format!("  {before:.3} -> {now:.3}  {term}\n"));
    }
    let terms = found.terms.iter();
    let terms = terms.map(|(term, old, new)| json!({"term": term, "reference": old, "new": new}));
    let all = json!({
        "compared": found.compared, "separability": found.separability, "interval": [low, high],
        "p_value": found.p_value, "unseen": found.unseen,
        "median_length": {"reference": found.lengths.0, "new": found.lengths.1},
        "terms": terms.collect::<Vec<_>>(),
    });
    print(global, &all, &text);
    let scores = Metrics::from([
        ("separability".into(), found.separability),
        ("p_value".into(), found.p_value),
        ("unseen".into(), found.unseen),
    ]);
    Gate::check(&gates, &scores)
}
