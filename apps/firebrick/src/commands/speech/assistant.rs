//! `firebrick speech assistant`.

use std::{
    io::BufRead,
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::Context;
use firebrick_nlp::tagging::tagger::{TextTagger, split};
use firebrick_speech::{
    assistant::{Assistant, Guess, Language, timers::Timers},
    home::file::Home,
    speaker::{Espeak, Speaker},
};
use serde_json::json;

use super::{
    super::Outcome,
    ears::{Ears, Heard},
    say,
};
use crate::{
    cli::{Global, speech::AssistantArgs},
    failure::{BAD_FILE, Failure, USAGE},
    places,
};

/// From one look at the timers to the next.
const TICK: Duration = Duration::from_millis(100);

pub fn run(args: AssistantArgs, global: &Global) -> Outcome {
    if args.home.is_some() {
        global.online("a home over MQTT")?;
    }
    let home = args.home.as_deref().map(Home::open).transpose()?;
    let device = global.device.open()?;
    let open = |name: &str| -> Result<TextTagger, Failure> {
        Ok(TextTagger::open(&places::model(name, &global.runs)?, &device)?)
    };
    let (english, chinese) = (open(&args.english)?, open(&args.chinese)?);
    let understand = |text: &str, language: Language| {
        let tagger = if language == Language::Zh { &chinese } else { &english };
        let answer = tagger.tag(&[split(text)], 1).pop()?;
        let (best, scores) = answer.label?;
        Some(Guess { label: tagger.labels[best].clone(), score: scores[best] })
    };
    let path = args.timers.clone().unwrap_or_else(places::timers);
    let timers = Timers::open(Some(&path)).map_err(|error| Failure::new(BAD_FILE, error))?;
    let patience = Duration::from_secs_f64(args.patience);
    let mut talk = Talk {
        assistant: Assistant::new(&understand, home.as_ref(), patience, timers),
        speak: args.speak,
        answers: args.answers.clone(),
        global,
    };
    talk.ring()?;
    if !args.hear.is_empty() {
        let ears = Ears::open(&args.model, global)?;
        let device = match (&args.target, &home) {
            (Some(name), Some(home)) => Some(home.devices[home.device(name)?].id.clone()),
            _ => None,
        };
        for file in &args.hear {
            let text = match ears.hear(file, global)? {
                Heard::Sentence(text) => text,
                Heard::Word(word, score) => sentence(&word, score, device.as_deref())?,
            };
            talk.turn(&text)?;
        }
    } else if !args.texts.is_empty() {
        for text in &args.texts {
            talk.turn(text)?;
        }
    } else {
        talk.listen()?;
    }
    while args.wait && !talk.assistant.timers.list().is_empty() {
        thread::sleep(TICK);
        talk.ring()?;
    }
    Ok(())
}

/// A single word as the sentence that it stands for.
fn sentence(word: &str, score: f32, device: Option<&str>) -> Result<String, Failure> {
    const LEAST: f32 = 0.5;
    let device = match word {
        "on" | "off" | "up" | "down" => device.ok_or_else(|| {
            Failure::text(USAGE, format!("{word:?} needs --for DEVICE: it says nothing of what"))
        })?,
        _ => "",
    };
    Ok(match word {
        _ if score < LEAST => String::new(),
        "on" | "off" | "up" | "down" => format!("turn {word} {device}"),
        word => word.to_string(),
    })
}

struct Talk<'a> {
    assistant: Assistant<'a>,
    speak: bool,
    answers: Option<PathBuf>,
    global: &'a Global,
}

impl Talk<'_> {
    fn turn(&mut self, text: &str) -> Outcome {
        let reply = self.assistant.turn(text)?;
        let done: Vec<_> = reply.done.iter().map(|done| done.change.json()).collect();
        let guess = reply.guess.as_ref().map(|g| json!({"label": g.label, "score": g.score}));
        match self.global.json {
            true => say!(
                "{}",
                json!({
                    "heard": text, "answer": reply.text, "intent": reply.intent, "guess": guess,
                    "language": reply.language.code(), "done": done,
                })
            ),
            false => say!("{}", reply.text),
        }
        self.sound(&reply.text, reply.language)
    }

    /// Tells of timers that are due.
    fn ring(&mut self) -> Outcome {
        for text in self.assistant.ring()? {
            match self.global.json {
                true => say!("{}", json!({"rings": text})),
                false => say!("{text}"),
            }
            self.sound(&text, Language::of(&text))?;
        }
        Ok(())
    }

    fn sound(&self, text: &str, language: Language) -> Outcome {
        if !self.speak && self.answers.is_none() {
            return Ok(());
        }
        let samples = Espeak::default().speak(text, language.code(), say::RATE)?;
        if let Some(folder) = &self.answers {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("creating {}", folder.display()))?;
            // What earlier talks left stays.
            let mut places = (1..).map(|number| folder.join(format!("{number}.wav")));
            let free = places.find(|place| !place.exists()).expect("there are numbers enough");
            say::write(&free, &samples, say::RATE)?;
        }
        if self.speak {
            say::sound(&samples, say::RATE)?;
        }
        Ok(())
    }

    /// One sentence a line from stdin; timers ring between.
    fn listen(&mut self) -> Outcome {
        let (sender, lines) = mpsc::sync_channel(1);
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let end = line.is_err();
                if sender.send(line).is_err() || end {
                    break;
                }
            }
        });
        loop {
            match lines.recv_timeout(TICK) {
                Ok(line) => {
                    let line = line.context("reading stdin")?;
                    if !line.trim().is_empty() {
                        self.turn(&line)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.ring()?;
        }
    }
}
