//! `firebrick speech interpret`.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use firebrick_data::audio::voice::{self, Segmenter, Spoken};
use firebrick_metrics::{
    bleu::{Bleu, Tokenize},
    chrf::Chrf,
    edit::Errors,
};
use firebrick_nlp::{recipes::SHIPPED, translation::translator::Translator};
use firebrick_speech::{
    interpret::{Interpreted, Interpreter, compared, percentile},
    speaker::{Espeak, LANGUAGES},
    transcribe::Transcriber,
    whisper::Options,
};
use serde_json::{Map, Value, json};

use super::{
    super::{Outcome, media},
    say,
};
use crate::{
    cli::{Global, speech::InterpretArgs},
    failure::{BAD_FILE, Failure, USAGE},
    places,
};

/// Samples that are taken at a time: a tenth of a second.
const PIECE: usize = voice::RATE as usize / 10;
/// Pieces that may wait, an hour of them; then standard input has to.
const WAITING: usize = 36_000;
/// Sound that comes before it can have sounded, by more than a microphone's buffer, has no lag.
const AHEAD: Duration = Duration::from_millis(300);

/// A piece of sound, and when it came.
type Piece = (Vec<f32>, Instant);

pub fn run(args: InterpretArgs, global: &Global) -> Outcome {
    super::super::apart(args.file.as_slice(), args.output.as_deref())?;
    for language in [&args.from, &args.to] {
        if !LANGUAGES.contains(&language.as_str()) {
            let known = LANGUAGES.join(", ");
            return Err(Failure::text(USAGE, format!("no language {language:?}: {known}")));
        }
    }
    if args.translator.is_some() && args.from == args.to {
        let problem =
            format!("--translator has nothing to do: --from and --to are both {}", args.to);
        return Err(Failure::text(USAGE, problem));
    }
    let text = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::text(BAD_FILE, format!("{}: {error}", path.display())))
    };
    let transcript = args.transcript.as_ref().map(text).transpose()?;
    let reference = args.reference.as_ref().map(text).transpose()?;
    let device = global.device.open()?;
    let transcriber = Transcriber::open(&places::model(&args.model, &global.runs)?, &device)?;
    let whisper = matches!(transcriber, Transcriber::Whisper(_));
    // Whisper writes English itself, whatever it hears.
    let itself = args.translator.is_none() && args.to == "en" && whisper;
    let names = match &args.translator {
        Some(name) => vec![name.clone()],
        None if itself || args.from == args.to => vec![],
        None => route(&args.from, &args.to, &|name| places::model(name, &global.runs).is_ok())
            .map_err(|problem| Failure::text(USAGE, problem))?,
    };
    let translators = names
        .iter()
        .map(|name| Ok(Translator::open(&places::model(name, &global.runs)?, &device)?));
    let translators: Vec<Translator> = translators.collect::<Result<_, Failure>>()?;
    let options = Options {
        language: whisper.then(|| args.from.clone()),
        translate: itself && args.from != "en",
        seed: global.seed.unwrap_or(0),
        hurry: args.realtime || args.raw.is_some(),
    };
    transcriber.check(&options).map_err(|problem| Failure::text(USAGE, problem))?;
    let translate = |text: &str| -> anyhow::Result<String> {
        translators.iter().try_fold(text.to_string(), |text, translator| {
            let said = translator.translate(&[text.as_str()], translator.config(), 1)?.pop();
            Ok(said.unwrap_or_default())
        })
    };
    let interpreter = Interpreter {
        transcriber: &transcriber,
        options,
        translate: &translate,
        speaker: &Espeak::default(),
        language: &args.to,
        rate: say::RATE,
    };
    let (sender, pieces) = sync_channel(WAITING);
    let live = args.realtime || args.raw.is_some();
    let mut listener = Listener {
        interpreter,
        live,
        args: &args,
        global,
        lags: vec![],
        heard: vec![],
        said: vec![],
        transcript,
        reference,
        track: vec![],
    };
    match (&args.file, args.raw) {
        (Some(file), _) => {
            let samples = media::samples(file, voice::RATE)?;
            let realtime = args.realtime;
            let feeder = thread::spawn(move || feed(&samples, realtime, &sender));
            listener.listen(&pieces)?;
            let _ = feeder.join();
        }
        (None, Some(rate)) => {
            media::check_raw(rate)?;
            // Reading ends with the stream; its failure is told after what was heard.
            let reader = thread::spawn(move || {
                media::raw(rate, voice::RATE, &mut |samples| {
                    let _ = sender.send((samples, Instant::now()));
                    Ok(())
                })
            });
            listener.listen(&pieces)?;
            reader.join().unwrap_or(Ok(()))?;
        }
        (None, None) => unreachable!("clap asks for one"),
    }
    listener.finish()
}

/// The translators from one language to another by name, of which `known` has some: one, or two by way of English.
fn route(from: &str, to: &str, known: &dyn Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let between = |from: &str, to: &str| {
        let set = if [from, to].contains(&"zh") { "tatoeba" } else { "multi30k" };
        format!("{set}-{from}-{to}")
    };
    let direct = vec![between(from, to)];
    if known(&direct[0]) {
        return Ok(direct);
    }
    let halves = match [from, to].contains(&"en") {
        true => direct,
        false => vec![between(from, "en"), between("en", to)],
    };
    if halves.iter().all(|name| known(name)) {
        return Ok(halves);
    }
    let missing = halves.iter().filter(|name| !known(name));
    let next = missing.map(|name| match SHIPPED.iter().any(|(recipe, _)| recipe == name) {
        true => format!("`firebrick train {name}` makes {name}"),
        false => format!("there is neither {name} nor a recipe for it"),
    });
    let next: Vec<String> = next.collect();
    let set = |name: &&str| ["multi30k-", "tatoeba-"].iter().any(|set| name.starts_with(set));
    let shipped: Vec<&str> = places::shipped_names().filter(set).collect();
    Err(format!(
        "no translator from {from} to {to}: {}; --translator names another; shipped are {}",
        next.join(", "),
        shipped.join(", ")
    ))
}

/// Sends samples, with `realtime` no earlier than they would sound.
fn feed(samples: &[f32], realtime: bool, sender: &SyncSender<Piece>) {
    let start = Instant::now();
    for (number, piece) in samples.chunks(PIECE).enumerate() {
        if realtime {
            let end = (number * PIECE + piece.len()) as f64 / f64::from(voice::RATE);
            let due = start + Duration::from_secs_f64(end);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if sender.send((piece.to_vec(), Instant::now())).is_err() {
            return;
        }
    }
}

struct Listener<'a> {
    interpreter: Interpreter<'a>,
    /// The sound comes at its own pace, so that there is a lag to measure.
    live: bool,
    args: &'a InterpretArgs,
    global: &'a Global,
    /// Seconds from the end of each segment to its translation's first sound.
    lags: Vec<f64>,
    /// All that was heard.
    heard: Vec<String>,
    /// All translations.
    said: Vec<String>,
    /// What should have been heard.
    transcript: Option<String>,
    /// What should have been said.
    reference: Option<String>,
    /// What is spoken, at its time.
    track: Vec<f32>,
}

impl Listener<'_> {
    fn listen(&mut self, pieces: &Receiver<Piece>) -> Outcome {
        let mut segmenter = Segmenter::new(voice::Options::default());
        // When the sound's beginning would have come: its first piece, less that piece's length.
        let mut began = None;
        let mut count = 0;
        for (samples, came) in pieces {
            let length =
                |samples: usize| Duration::from_secs_f64(samples as f64 / f64::from(voice::RATE));
            let first = came.checked_sub(length(samples.len())).unwrap_or(came);
            let began = *began.get_or_insert(first);
            count += samples.len();
            if self.live && came + AHEAD < began + length(count) {
                self.live = false;
                self.lags.clear();
                if !self.global.quiet {
                    stderr!("no lag: the sound comes faster than it sounds");
                }
            }
            for spoken in segmenter.push(&samples) {
                self.interpret(&spoken, began)?;
            }
        }
        match (segmenter.finish(), began) {
            (Some(spoken), Some(began)) => self.interpret(&spoken, began),
            _ => Ok(()),
        }
    }

    fn interpret(&mut self, spoken: &Spoken, began: Instant) -> Outcome {
        let Some(found) = self.interpreter.interpret(spoken)? else { return Ok(()) };
        let lag = self.live.then(|| began.elapsed().as_secs_f64() - found.end);
        self.lags.extend(lag);
        self.place(&found, lag);
        self.heard.push(found.heard.clone());
        self.said.push(found.said.clone());
        let Interpreted { begin, end, heard, said, .. } = &found;
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e3).round();
        match self.global.json {
            true => say!(
                "{}",
                json!({
                    "begin": begin, "end": end, "heard": heard, "said": said, "lag": lag,
                    "recognition_ms": ms(found.recognition), "translation_ms": ms(found.translation),
                    "speech_ms": ms(found.speech),
                })
            ),
            false => {
                let lag = lag.map_or(String::new(), |lag| format!("  ({lag:.2} s later)"));
                say!("{begin:9.2} - {end:.2} s  {heard}\n{:22}{said}{lag}", "");
            }
        }
        if self.args.speak && !found.samples.is_empty() {
            say::sound(&found.samples, say::RATE)?;
        }
        Ok(())
    }

    /// Puts the translation where it can be heard first: when it is there, and what was before it has ended.
    fn place(&mut self, found: &Interpreted, lag: Option<f64>) {
        if self.args.output.is_some() {
            let at = (found.end + lag.unwrap_or(0.0)).max(0.0) * f64::from(say::RATE);
            let at = (at as usize).max(self.track.len());
            self.track.resize(at, 0.0);
            self.track.extend(&found.samples);
        }
    }

    fn finish(self) -> Outcome {
        if let Some(path) = &self.args.output {
            say::write(path, &self.track, say::RATE)?;
        }
        self.scores();
        let at = |p| percentile(&self.lags, p);
        if let (Some(p50), Some(p95), false) = (at(0.5), at(0.95), self.global.quiet) {
            let count = self.lags.len();
            stderr!(
                "lag from the end of a segment to the first sound of its translation: \
                 p50 {p50:.2} s, p95 {p95:.2} s, {count} segments"
            );
        }
        Ok(())
    }

    /// Tells how good what was heard and said is, where it is known what should have been.
    fn scores(&self) {
        // As one text each: segments are no sentences.
        let (mut scores, mut lines) = (Map::new(), vec![]);
        if let Some(transcript) = &self.transcript {
            let [wanted, heard] =
                [transcript, &self.heard.join(" ")].map(|text| compared(text, &self.args.from));
            let words = Errors::in_words(&wanted, &heard).rate();
            let words = words.filter(|_| self.args.from != "zh"); // nobody parts them
            let characters = Errors::in_characters(&wanted, &heard).rate();
            let rates = [("WER", words), ("CER", characters)];
            let told = rates
                .iter()
                .filter_map(|(name, rate)| Some(format!("{name} {:.1} %", 100.0 * (*rate)?)));
            lines.push(format!("heard: {}", told.collect::<Vec<_>>().join(", ")));
            scores.extend(rates.map(|(name, rate)| (name.to_lowercase(), rate.into())));
        }
        if let Some(reference) = &self.reference {
            let mut bleu = Bleu::new(match self.args.to.as_str() {
                "zh" => Tokenize::Zh,
                _ => Tokenize::V13a,
            });
            let mut chrf = Chrf::default();
            let said = self.said.join(" ");
            bleu.add(&said, reference);
            chrf.add(&said, reference);
            let [(bleu, bleu_signature), (chrf, chrf_signature)] =
                [(bleu.score(), bleu.signature()), (chrf.score(), chrf.signature())];
            lines.push(format!("said: BLEU {bleu:.1} ({bleu_signature})"));
            lines.push(format!("said: chrF {chrf:.1} ({chrf_signature})"));
            scores.extend([
                ("bleu".to_string(), bleu.into()),
                ("chrf".to_string(), chrf.into()),
                ("bleu_signature".to_string(), bleu_signature.into()),
                ("chrf_signature".to_string(), chrf_signature.into()),
            ]);
        }
        match self.global.json {
            true if !scores.is_empty() => say!("{}", Value::from(scores)),
            true => {}
            false => lines.iter().for_each(|line| say!("{line}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One translator where there is one, else two by way of English.
    #[test]
    fn a_route_between_languages() {
        let route = |from, to, names: &'static [&str]| route(from, to, &|n| names.contains(&n));
        let some = &["multi30k-de-en", "tatoeba-en-zh"];
        assert_eq!(route("de", "en", some), Ok(vec!["multi30k-de-en".into()]));
        assert_eq!(
            route("de", "zh", some),
            Ok(vec!["multi30k-de-en".into(), "tatoeba-en-zh".into()])
        );
        let refused = route("de", "fr", some).unwrap_err();
        assert!(refused.contains("`firebrick train multi30k-en-fr`"), "{refused}");
        assert!(!refused.contains("makes multi30k-de-en"), "{refused}");
        let refused = route("fr", "en", some).unwrap_err();
        assert!(refused.contains("neither multi30k-fr-en nor a recipe"), "{refused}");
    }
}
