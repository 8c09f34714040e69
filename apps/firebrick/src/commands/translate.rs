//! `firebrick nlp translate`.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use firebrick_core::generate::GenerationConfig;
use firebrick_nlp::translation::{copies::Terms, translator::Translator};
use serde_json::json;

use super::{Outcome, nlp::or_stdin};
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
    config.check().map_err(|problem| Failure::text(USAGE, problem))?;
    if let Some(path) = &args.input {
        return file(path, &args, &translator, &config);
    }
    let texts = or_stdin(args.texts)?;
    let views: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answers = translator.translate(&views, &config, args.batch_size)?;
    warn(&translator, &views, &answers, 1);
    let list: Vec<_> = texts
        .iter()
        .zip(&answers)
        .map(|(text, answer)| json!({"text": text, "translation": answer}))
        .collect();
    super::print(global, &json!(list), &answers.join("\n"));
    Ok(())
}

/// Says what a translation should have carried over and did not; `first` is the number of the first text.
fn warn(translator: &Translator, texts: &[&str], answers: &[String], first: usize) {
    for (number, (text, answer)) in (first..).zip(texts.iter().zip(answers)) {
        for value in translator.lost(text, answer) {
            eprintln!("text {number}: {value:?} is not in the translation");
        }
    }
}

fn file(
    path: &Path,
    args: &TranslateArgs,
    translator: &Translator,
    config: &GenerationConfig,
) -> Outcome {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("opening {shown}"));
    let mut input = BufReader::new(file.map_err(|error| Failure::new(BAD_FILE, error))?);
    // Beside its place until it is whole.
    let partial = args.output.as_ref().map(|path| path.with_added_extension("partial"));
    let mut output: Box<dyn Write> = match &partial {
        Some(path) => Box::new(BufWriter::new(
            File::create(path).with_context(|| format!("creating {}", path.display()))?,
        )),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    let mut number = 0;
    loop {
        let mut lines: Vec<String> = vec![];
        while lines.len() < LINES {
            let mut line = vec![];
            let limited = std::io::Read::take(&mut input, LINE_LIMIT + 1);
            let read = BufReader::with_capacity(1, limited).read_until(b'\n', &mut line);
            if read.with_context(|| format!("reading {shown}"))? == 0 {
                break;
            }
            number += 1;
            let bad =
                |what: String| Failure::text(BAD_FILE, format!("{shown}: line {number} {what}"));
            if line.len() as u64 > LINE_LIMIT {
                return Err(bad(format!("is longer than {LINE_LIMIT} bytes")));
            }
            let line = String::from_utf8(line).map_err(|_| bad("is not UTF-8".into()))?;
            lines.push(line.trim_end_matches(['\n', '\r']).to_string());
        }
        if lines.is_empty() {
            break;
        }
        let views: Vec<&str> = lines.iter().map(String::as_str).collect();
        let answers = translator.translate(&views, config, args.batch_size)?;
        warn(translator, &views, &answers, number + 1 - lines.len());
        for answer in answers {
            writeln!(output, "{answer}").context("writing the translation")?;
        }
    }
    output.flush().context("writing the translation")?;
    drop(output);
    if let (Some(partial), Some(path)) = (partial, &args.output) {
        std::fs::rename(&partial, path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
