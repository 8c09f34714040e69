//! `firebrick nlp translate`.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
};

use anyhow::Context;
use firebrick_core::generate::GenerationConfig;
use firebrick_data::stream::without_bom;
use firebrick_nlp::translation::{copies::Terms, translator::Translator};
use serde_json::json;

use super::Outcome;
use crate::{
    cli::{Global, TranslateArgs},
    failure::{BAD_FILE, Failure, USAGE},
    places,
};

/// Lines of a file that are translated together, so that a file of any length needs no more memory.
const LINES: usize = 1024;

/// Longest line of a file.
const LINE_LIMIT: u64 = 1 << 20;

pub fn run(args: TranslateArgs, global: &Global) -> Outcome {
    super::apart(args.input.as_slice(), args.output.as_deref())?;
    let source = places::model(&args.model, &global.runs)?;
    let mut translator = Translator::open(&source, &global.device.open()?)?;
    if let Some(path) = &args.terms {
        let read = || Terms::parse(&std::fs::read_to_string(path)?);
        let terms = read().with_context(|| format!("reading {}", path.display()));
        let terms = terms.map_err(|error| Failure::new(BAD_FILE, error))?;
        translator = translator.with_terms(terms)?;
    }
    let mut config = translator.config().clone();
    config.num_beams = args.num_beams.unwrap_or(config.num_beams);
    config.length_penalty = args.length_penalty.unwrap_or(config.length_penalty);
    config.check().map_err(|problem| Failure::text(USAGE, problem))?;
    let parts: Box<dyn Iterator<Item = Result<Vec<String>, Failure>>> = match &args.input {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()));
            let input = BufReader::new(file.map_err(|error| Failure::new(BAD_FILE, error))?);
            Box::new(Parts { input, name: path.display().to_string(), number: 0 })
        }
        None if !args.texts.is_empty() => Box::new(std::iter::once(Ok(args.texts.clone()))),
        None => {
            let input = BufReader::new(std::io::stdin());
            Box::new(Parts { input, name: "stdin".into(), number: 0 })
        }
    };
    let job = Job { translator, config, batch_size: args.batch_size, json: global.json };
    let Some(path) = &args.output else {
        return job.translate(parts, &mut |text| {
            super::tell(format_args!("{text}"));
            Ok(())
        });
    };
    // Beside its place until it is whole.
    let partial = path.with_added_extension("partial");
    let whole = || -> Outcome {
        let file = File::create(&partial);
        let file = file.with_context(|| format!("creating {}", partial.display()))?;
        let mut output = BufWriter::new(file);
        let writing = || format!("writing {}", path.display());
        job.translate(parts, &mut |text| {
            Ok(output.write_all(text.as_bytes()).with_context(writing)?)
        })?;
        output.flush().with_context(writing)?;
        Ok(std::fs::rename(&partial, path).with_context(writing)?)
    };
    let written = whole();
    if written.is_err() {
        // What is not whole is of no use.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// How to translate.
struct Job {
    translator: Translator,
    config: GenerationConfig,
    batch_size: usize,
    /// One list in place of lines.
    json: bool,
}

impl Job {
    /// Translates part after part, and writes as it goes.
    fn translate(
        &self,
        parts: impl Iterator<Item = Result<Vec<String>, Failure>>,
        write: &mut dyn FnMut(&str) -> Outcome,
    ) -> Outcome {
        let mut number = 0;
        for texts in parts {
            let texts = texts?;
            let views: Vec<&str> = texts.iter().map(String::as_str).collect();
            let answers = self.translator.translate(&views, &self.config, self.batch_size)?;
            let mut shown = String::new();
            for (text, answer) in views.iter().zip(&answers) {
                number += 1;
                for value in self.translator.lost(text, answer) {
                    stderr!("text {number}: {value:?} is not in the translation");
                }
                match self.json {
                    true => {
                        let before = if number == 1 { "[" } else { "," };
                        let value = json!({"text": text, "translation": answer});
                        shown.push_str(&format!("{before}{value}"));
                    }
                    false => shown.push_str(&format!("{answer}\n")),
                }
            }
            write(&shown)?;
        }
        match self.json {
            true => write(if number == 0 { "[]\n" } else { "]\n" }),
            false => Ok(()),
        }
    }
}

/// The lines of a file or of stdin, some at a time.
struct Parts<R> {
    input: R,
    name: String,
    /// Of the last line that was read, from 1.
    number: usize,
}

impl<R: BufRead> Parts<R> {
    /// `None` at the end.
    fn line(&mut self) -> Result<Option<String>, Failure> {
        let mut line = vec![];
        let read = self.input.by_ref().take(LINE_LIMIT + 1).read_until(b'\n', &mut line);
        if read.with_context(|| format!("reading {}", self.name))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let bad = |what: String| {
            Failure::text(BAD_FILE, format!("{}: line {} {what}", self.name, self.number))
        };
        if line.len() as u64 > LINE_LIMIT {
            return Err(bad(format!("is longer than {LINE_LIMIT} bytes")));
        }
        let line = String::from_utf8(line).map_err(|_| bad("is not UTF-8".into()))?;
        let line = line.trim_end_matches(['\n', '\r']);
        Ok(Some(if self.number == 1 { without_bom(line) } else { line }.to_string()))
    }
}

impl<R: BufRead> Iterator for Parts<R> {
    type Item = Result<Vec<String>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut lines = vec![];
        while lines.len() < LINES {
            match self.line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => return Some(Err(error)),
            }
        }
        (!lines.is_empty()).then_some(Ok(lines))
    }
}
