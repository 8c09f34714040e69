//! `firebrick speech`: applications that listen, and one that speaks.

mod alarms;
mod assistant;
mod ears;
mod home;
mod interpret;
mod say;
mod wake;

use std::path::{Path, PathBuf};

use firebrick_data::audio::voice;
use firebrick_speech::{
    classification::classifier::SoundClassifier,
    keyword::{Heard, Spotter, Trigger},
};
use serde_json::{Value, json};

use super::{Outcome, media, transcribe};
use crate::{
    cli::{Global, KeywordArgs, SpeechCommand},
    failure::{Failure, USAGE},
    places,
};

pub fn run(command: SpeechCommand, global: &Global) -> Outcome {
    match command {
        SpeechCommand::Keyword(args) => keyword(&args, global),
        SpeechCommand::Transcribe(args) => transcribe::run(&args, global),
        SpeechCommand::Voice { files } => voices(&files, global),
        SpeechCommand::Say(args) => say::run(args, global),
        SpeechCommand::Home(args) => home::run(args, global),
        SpeechCommand::Assistant(args) => assistant::run(args, global),
        SpeechCommand::Interpret(args) => interpret::run(args, global),
        SpeechCommand::WakeWord(args) => wake::run(&args, global),
        SpeechCommand::FalseAlarms(args) => alarms::run(&args, global),
    }
}

/// Recordings up to so many times what the model sees are one word.
const ONE_WORD: f64 = 2.0;

fn keyword(args: &KeywordArgs, global: &Global) -> Outcome {
    let mut trigger = Trigger {
        every: args.every,
        smooth: args.smooth,
        threshold: args.threshold,
        refractory: args.refractory.unwrap_or(0.0),
    };
    trigger.check().map_err(|problem| Failure::text(USAGE, format!("--{problem}")))?;
    let source = places::model(&args.model, &global.runs)?;
    let classifier = SoundClassifier::open(&source, &global.device.open()?)?;
    if args.refractory.is_none() {
        trigger.refractory = trigger.once(&classifier);
    }
    if let Some(rate) = args.raw {
        return live(&classifier, trigger, rate, global);
    }
    let seen = classifier.preprocessor.seconds.unwrap_or_default();
    media::each(&args.files, classifier.sample_rate(), global, |file, samples| {
        let seconds = samples.len() as f64 / f64::from(classifier.sample_rate());
        if seconds <= ONE_WORD * seen {
            let answer = classifier.predict(&[samples], 1).remove(0);
            let (label, score) = (&classifier.labels[answer.label], answer.scores[answer.label]);
            if !global.json {
                say!("{label}  {score:.3}  {}", file.display());
            }
            return Ok(vec![json!({"file": file, "label": label, "score": score})]);
        }
        let mut spotter = Spotter::new(&classifier, trigger);
        let mut all = vec![];
        let mut told = |found: Vec<Heard>| {
            found.iter().for_each(|heard| tell(heard, file, global));
            all.extend(found.iter().map(|heard| as_json(heard, file)));
        };
        // Some seconds at a time, so that a long recording's words are told while it is listened to.
        for part in samples.chunks(10 * classifier.sample_rate() as usize) {
            told(spotter.push(part));
        }
        told(spotter.finish());
        Ok(all)
    })
}

/// 16-bit samples from standard input, for as long as they come.
fn live(classifier: &SoundClassifier, trigger: Trigger, rate: u32, global: &Global) -> Outcome {
    media::check_raw(rate)?;
    let mut spotter = Spotter::new(classifier, trigger);
    media::raw(rate, classifier.sample_rate(), &mut |samples| {
        for heard in spotter.push(&samples) {
            match global.json {
                true => say!("{}", as_json(&heard, Path::new("-"))),
                false => tell(&heard, Path::new("-"), global),
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn tell(heard: &Heard, file: &Path, global: &Global) {
    if !global.json {
        say!("{:9.2} s  {}  {:.3}  {}", heard.at, heard.label, heard.score, file.display());
    }
}

fn as_json(heard: &Heard, file: &Path) -> Value {
    json!({"file": file, "at": heard.at, "label": heard.label, "score": heard.score})
}

fn voices(files: &[PathBuf], global: &Global) -> Outcome {
    media::each(files, voice::RATE, global, |file, samples| {
        let seconds = |samples: usize| samples as f64 / f64::from(voice::RATE);
        let segments = voice::segments(samples, &voice::Options::default());
        let parts: Vec<[f64; 2]> =
            segments.into_iter().map(|part| [seconds(part.start), seconds(part.end)]).collect();
        if !global.json {
            for [begin, end] in &parts {
                say!("{begin:9.2} - {end:.2} s  {}", file.display());
            }
        }
        Ok(vec![json!({"file": file, "seconds": seconds(samples.len()), "segments": parts})])
    })
}
