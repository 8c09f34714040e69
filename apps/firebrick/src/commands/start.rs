//! `firebrick start`: the first minutes. Trains, compares with a baseline, writes a report.

use firebrick_metrics::interval::wilson_interval;
use firebrick_nlp::classification::{baseline, recipe::Recipe, report};
use serde_json::json;

use super::{Outcome, recipe::Opened, train};
use crate::{
    cli::{Global, StartArgs},
    failure::Failure,
};

pub fn run(args: &StartArgs, global: &Global) -> Outcome {
    let opened = Opened::named("sst2")?;
    let job = train::Job {
        opened: &opened,
        overrides: &args.overrides,
        run: Some(&args.run),
        max_time: None,
        watch: None,
        track: None,
    };
    let (dir, trained) = train::train::<Recipe>(&job, global)?;
    let corpus = &trained.corpus;
    let baseline = baseline::run(&corpus.train, &corpus.valid, &corpus.labels)
        .map_err(|problem| Failure::text(1, format!("the baseline: {problem}")))?;
    let ours = trained.valid.confusion.accuracy().unwrap_or_default();
    let theirs = baseline.confusion.accuracy().unwrap_or_default();
    let (low, high) =
        wilson_interval(trained.valid.confusion.correct(), trained.valid.confusion.total())
            .unwrap_or_default();
    let report = report::show(&dir, &trained, Some(&baseline))?.write(&dir)?;
    let text = format!(
        "trained in      {:.0} s on {}\n\
         accuracy        {:.2} %  (95 % between {:.1} and {:.1}; SST-2 dev, {} rows; these rows also chose the weights)\n\
         TF-IDF + LR     {:.2} %  (same rows, {} features, {:.1} s)\n\
         report          {}\n\n\
         What to try next:\n  \
         firebrick nlp sentiment \"a moving and funny film\" --model {}\n  \
         firebrick recipe cp sst2 mine.toml    # then train on a CSV of your own\n  \
         firebrick train sst2-minilm           # fine-tunes a pretrained encoder\n",
        trained.outcome.counters.seconds,
        global.device,
        100.0 * ours,
        100.0 * low,
        100.0 * high,
        trained.valid.confusion.total(),
        100.0 * theirs,
        baseline.features,
        baseline.seconds,
        report.display(),
        dir.display(),
    );
    let json = json!({
        "run": dir, "seconds": trained.outcome.counters.seconds, "accuracy": ours, "accuracy_95": [low, high],
        "baseline_accuracy": theirs, "report": report,
    });
    super::print(global, &json, &text);
    Ok(())
}
