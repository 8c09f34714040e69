//! `firebrick speech wake-word`: from ten recordings to a word spotter.

use std::path::{Path, PathBuf};

use anyhow::Context;
use firebrick_core::checkpoint::{Source, tensors::write_atomically};
use firebrick_speech::{
    classification::{classifier::SoundClassifier, recipe::Recipe},
    keyword::Trigger,
    wake::{RATE, alarms, lay_out, recipe},
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

pub fn run(args: &WakeWordArgs, global: &Global) -> Outcome {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if args.name.is_empty() || args.name.len() > 64 || !args.name.chars().all(fits) {
        let problem = format!("--name {:?} is not of letters, digits, `-` and `_`", args.name);
        return Err(Failure::text(USAGE, problem));
    }
    let folder = global.runs.join(format!("{}-recordings", args.name));
    if folder.exists() {
        let problem = format!("{} is there: remove it, or take another name", folder.display());
        return Err(Failure::text(USAGE, problem));
    }
    let background = match Path::new(&args.background) {
        path if path.exists() => path.to_path_buf(),
        _ => places::data_set(&args.background)?,
    };
    let seed = global.seed.unwrap_or(0);
    let laid = lay_out(&args.name, &args.examples, &background, &folder, seed)?;
    let path: PathBuf = folder.join("recipe.toml");
    let text = recipe(&args.name, &laid, seed);
    write_atomically(&path, text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))?;

    let opened = Opened::named(&path.to_string_lossy())?;
    let job = Job {
        opened: &opened,
        overrides: &[],
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
        let (mut heard, mut tests) = (0, 0);
        for path in args.test.iter().flat_map(|folder| media::find(folder)).flatten() {
            let silence = vec![0.0; RATE as usize / 2];
            let samples = [&silence[..], &media::samples(&path.1, RATE)?, &silence].concat();
            heard += usize::from(alarms(&classifier, trigger, &[samples]).0 > 0);
            tests += 1;
        }
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
