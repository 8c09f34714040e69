//! Whether numbers, names, addresses, case, punctuation and terms survive a translation: a small table of sentences.

use std::collections::BTreeMap;

use anyhow::Context;

use super::{copies::Terms, translator::Translator};

const TABLE: &str = include_str!("formats.tsv");

/// Share of the table's sentences, by kind, whose translation holds what it must; empty for languages that it does not have.
pub fn check(
    translator: &Translator,
    source: &str,
    target: &str,
) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [languages, kind, sentence, wanted, ref term @ ..] = cells[..] else {
            anyhow::bail!("formats.tsv: {line:?} has too few cells");
        };
        if languages.split_once('-') != Some((source, target)) {
            continue;
        }
        let terms = Terms::parse(&term.join("\t"))?;
        let answers = translator.sentences_with(&[sentence], &terms, translator.config(), 1)?;
        let answer = answers.first().context("one answer a sentence")?;
        let [kept, all] = counts.entry(kind).or_default();
        *kept += usize::from(wanted.split('|').all(|part| answer.contains(part)));
        *all += 1;
    }
    let share =
        |(kind, [kept, all]): (&str, [usize; 2])| (kind.to_string(), kept as f64 / all as f64);
    Ok(counts.into_iter().map(share).collect())
}
