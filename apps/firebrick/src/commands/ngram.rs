//! `firebrick nlp ngram`: n-gram models as ARPA files, which KenLM, SRILM and decoders of speech read and write.

use std::{fs, io::BufReader, path::Path};

use anyhow::Context;
use firebrick_classic::ngram::{
    Ngram, Options,
    arpa::{self, Limits},
    vocabulary::{EOS, UNK, Unit, Vocabulary},
};
use firebrick_data::stream::without_bom;
use serde_json::{Value, json};

use super::Outcome;
use crate::{
    cli::{Global, NgramCommand, NgramUnit},
    failure::{BAD_FILE, Failure, USAGE},
};

pub fn run(command: NgramCommand, global: &Global) -> Outcome {
    match command {
        NgramCommand::Fit { text, output, order, prune, unit } => {
            fit(&text, &output, &Options { order, prune }, unit.into(), global)
        }
        NgramCommand::Score { model, text, unit } => score(&model, &text, unit.into(), global),
    }
}

impl From<NgramUnit> for Unit {
    fn from(unit: NgramUnit) -> Self {
        match unit {
            NgramUnit::Word => Self::Word,
            NgramUnit::Character => Self::Char,
        }
    }
}

/// A sentence a line.
fn read(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    Ok(without_bom(&text.map_err(|error| Failure::new(BAD_FILE, error))?).to_string())
}

fn fit(text: &Path, output: &Path, options: &Options, unit: Unit, global: &Global) -> Outcome {
    options.check().map_err(|error| Failure::new(USAGE, error))?;
    let mut words = Vocabulary::new();
    let sentences = read(text)?;
    let sentences: Vec<Vec<u32>> = sentences.lines().map(|line| words.learn(line, unit)).collect();
    let (model, orders) = Ngram::fit(&sentences, words.len(), options)
        .with_context(|| text.display().to_string())
        .map_err(|error| Failure::new(BAD_FILE, error))?;
    let mut file = vec![];
    arpa::write(&model, &words, &mut file).expect("memory takes it");
    super::write(output, &file)?;
    let mut said = String::new();
    let mut list: Vec<Value> = vec![];
    for (n, order) in (1..).zip(&orders) {
        let [one, two, more] = order.discounts;
        let fallback = if order.fallback { ", KenLM's fallback" } else { "" };
        said.push_str(&format!(
            "{n}-grams: {} of {}, discounts {one:.4} {two:.4} {more:.4}{fallback}\n",
            order.kept, order.seen
        ));
        list.push(json!({
            "order": n, "seen": order.seen, "kept": order.kept, "discounts": order.discounts,
            "fallback": order.fallback,
        }));
    }
    let report = json!({"model": output, "sentences": sentences.len(), "orders": list});
    super::print(global, &report, &format!("{said}{}", output.display()));
    Ok(())
}

fn score(model: &Path, text: &Path, unit: Unit, global: &Global) -> Outcome {
    let file = fs::File::open(model).with_context(|| format!("reading {}", model.display()))?;
    let (ngram, words) = arpa::read(BufReader::new(file), Limits::default())
        .with_context(|| model.display().to_string())
        .map_err(|error| Failure::new(BAD_FILE, error))?;
    let lines = read(text)?;
    if lines.is_empty() {
        return Err(Failure::text(BAD_FILE, format!("{}: no sentence in it", text.display())));
    }
    let (mut sentences, mut tokens, mut unknown) = (0, 0_usize, 0);
    let (mut nats, mut unknown_nats) = (0.0, 0.0);
    for line in lines.lines() {
        let mut state = ngram.begin();
        for token in words.encode(line, unit).into_iter().chain([EOS]) {
            let (log_prob, next) = ngram.next(state, token);
            state = next;
            tokens += 1;
            nats -= log_prob;
            if token == UNK {
                unknown += 1;
                unknown_nats -= log_prob;
            }
        }
        sentences += 1;
    }
    let perplexity = |nats: f64, tokens: usize| (nats / tokens as f64).exp();
    let including = perplexity(nats, tokens);
    let excluding = perplexity(nats - unknown_nats, tokens - unknown);
    let report = json!({
        "sentences": sentences, "tokens": tokens, "unknown": unknown, "nats": nats,
        "perplexity": including, "perplexity_without_unknown": excluding,
    });
    let said = format!(
        "{sentences} sentences, {tokens} tokens with their ends, of which {unknown} are unknown\n\
         perplexity {including:.3}, without the unknown ones {excluding:.3}"
    );
    super::print(global, &report, &said);
    Ok(())
}
