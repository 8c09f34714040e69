//! `firebrick speech wake-word`: from ten recordings to a word spotter.

use std::path::{Path, PathBuf};

use anyhow::Context;
use firebrick_core::checkpoint::{Source, tensors::write_atomically};
use firebrick_speech::{
    classification::{classifier::SoundClassifier, recipe::Recipe},
    keyword::{Trigger, is_word},
    wake::{RATE, alarms, part, recipe},
};
use serde_json::json;

use super::super::{
    Outcome, media, print,
    recipe::Opened,
    train::{Job, train},
};
use crate::{
    cli::{Global, speech::WakeWordArgs},
    failure::{Failure, USAGE},
    places,
};

/// Examples of a word that one should record.
const ENOUGH: usize = 10;

pub fn run(args: &WakeWordArgs, global: &Global) -> Outcome {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if args.name.is_empty() || args.name.len() > 64 || !args.name.chars().all(fits) {
        let problem = format!("--name {:?} is not of letters, digits, `-` and `_`", args.name);
        return Err(Failure::text(USAGE, problem));
    }
    if !is_word(&args.name) {
        let problem = format!("--name {}: a spotter reports no class of that name", args.name);
        return Err(Failure::text(USAGE, problem));
    }
    let background = match Path::new(&args.background) {
        path if path.exists() => path.to_path_buf(),
        _ => places::data_set(&args.background)?,
    };
    // Before the training: a folder that is not there is told at once.
    let silence = vec![0.0; RATE as usize / 2];
    let test = match &args.test {
        Some(folder) => media::find(folder)?,
        None => vec![],
    };
    let test: Vec<Vec<f32>> = test
        .iter()
        .map(|(_, path)| Ok([&silence[..], &media::samples(path, RATE)?, &silence].concat()))
        .collect::<Result<_, Failure>>()?;
    let seed = global.seed.unwrap_or(0);
    let laid = part(&args.examples, &background, seed)?;
    if laid.examples < ENOUGH {
        let examples = laid.examples;
        stderr!("{examples} examples are few: with {ENOUGH} or more it hears the word better");
    }
    let folder = global.runs.join(format!("{}-recordings", args.name));
    let path: PathBuf = folder.join("recipe.toml");
    let text = recipe(&args.name, &laid, seed);
    // The same command again goes on where it was interrupted; the recipe is written last.
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
        if folder.exists() {
            let folder = folder.display();
            let problem =
                format!("{folder} is there, of other recordings: remove it, or take another name");
            return Err(Failure::text(USAGE, problem));
        }
        laid.write(&args.name, &folder)?;
        write_atomically(&path, text.as_bytes())
            .with_context(|| format!("writing {}", path.display()))?;
    }

    let opened = Opened::named(&path.to_string_lossy())?;
    let job = Job {
        opened: &opened,
        overrides: &args.overrides,
        run: None,
        max_time: None,
        watch: None,
        track: None,
    };
    let (dir, _) = train::<Recipe>(&job, global)?;
    let source = Source::folder(dir.join("model"));
    let classifier = SoundClassifier::open(&source, &global.device.open()?)?;
    let mut text = format!(
        "{}: {} examples, {:.2} hours of background\n",
        dir.join("model").display(),
        laid.examples,
        laid.hours
    );
    let mut all = vec![];
    for threshold in [0.6, 0.7, 0.8, 0.9] {
        let trigger = Trigger { threshold, ..Trigger::new(&classifier) };
        let (count, hours) = alarms(&classifier, trigger, &laid.apart);
        let per_hour = count as f64 / hours;
        let hears = |samples: &&Vec<f32>| {
            alarms(&classifier, trigger, std::slice::from_ref(*samples)).0 > 0
        };
        let (heard, tests) = (test.iter().filter(hears).count(), test.len());
        text.push_str(&format!(
            "threshold {threshold}: {count} false alarms in {hours:.2} hours that no training saw, \
             {per_hour:.1} an hour"
        ));
        if tests > 0 {
            text.push_str(&format!("; heard {heard} of {tests}"));
        }
        text.push('\n');
        all.push(json!({
            "threshold": threshold, "false_alarms": count, "hours": hours, "per_hour": per_hour,
            "heard": heard, "tests": tests,
        }));
    }
    let model = dir.join("model");
    print(global, &json!({"model": model, "seconds": laid.seconds, "measured": all}), &text);
    Ok(())
}
