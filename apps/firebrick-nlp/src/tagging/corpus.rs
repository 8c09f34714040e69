//! Sentences as words with tags and a label: read, cleaned, checked for leaks.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail, ensure};
use firebrick_data::{
    conllu,
    error::DataError,
    hash,
    table::{Limits, Row},
};
use firebrick_train::job::Places;
use serde::Deserialize;

use super::{recipe::DataRecipe, tagger::split};

/// A sentence with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Number in its file, from 0.
    pub row: usize,
    pub tokens: Vec<String>,
    /// One for each token; empty where the data has none.
    pub tags: Vec<String>,
    /// Of the whole sentence.
    pub label: Option<String>,
}

/// The parts of a data set.
pub struct Corpus {
    pub train: Vec<Sentence>,
    pub valid: Vec<Sentence>,
    pub test: Option<Vec<Sentence>>,
    /// Sorted; a name's place is its class index.
    pub tags: Vec<String>,
    pub labels: Vec<String>,
    /// SHA-256 over the training and validation sentences.
    pub sha256: String,
    /// Training sentences that repeat an earlier one.
    pub repeated: usize,
    /// Training sentences whose words another part has in this order.
    pub leaking: usize,
}

/// A line of the user's own files, and of `predict`'s input.
#[derive(Debug, Deserialize)]
pub struct Line {
    pub tokens: Vec<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub label: Option<String>,
}

/// Longest file that is read.
const FILE_LIMIT: u64 = 1 << 30;

/// Reads and checks what `[data]` names.
pub fn load(data: &DataRecipe, places: &Places) -> anyhow::Result<Corpus> {
    let (train, valid, test) = match &data.dataset {
        Some(id) => known(id, places)?,
        None => {
            let file = |path: &std::path::PathBuf| own(&places.base.join(path));
            let train = data.train.as_ref().map(file).transpose()?.context("no training file")?;
            let valid = data.valid.as_ref().map(file).transpose()?.context("no validation file")?;
            (train, valid, data.test.as_ref().map(file).transpose()?)
        }
    };
    let count = train.len();
    let mut seen = HashSet::new();
    let mut train: Vec<Sentence> = train
        .into_iter()
        .filter(|s| seen.insert((s.tokens.clone(), s.tags.clone(), s.label.clone())))
        .collect();
    let repeated = count - train.len();
    let elsewhere: HashSet<&[String]> =
        valid.iter().chain(test.iter().flatten()).map(|s| s.tokens.as_slice()).collect();
    let count = train.len();
    // Utterances of two or three words are what different people say alike.
    train.retain(|s| s.tokens.len() <= 3 || !elsewhere.contains(s.tokens.as_slice()));
    let leaking = count - train.len();
    ensure!(!train.is_empty(), "no training sentence is left");
    ensure!(!valid.is_empty(), "there is no validation sentence");
    let tags: BTreeSet<&String> = train.iter().flat_map(|s| &s.tags).collect();
    let tags: Vec<String> = tags.into_iter().cloned().collect();
    let labels: BTreeSet<&String> = train.iter().filter_map(|s| s.label.as_ref()).collect();
    let labels: Vec<String> = labels.into_iter().cloned().collect();
    if tags.len() < 2 && labels.len() < 2 {
        let (tags, labels) = (tags.len(), labels.len());
        let message = format!("the training sentences have {tags} tag(s) and {labels} label(s)");
        bail!(DataError::TooLittle(message));
    }
    let row = |s: &Sentence| Row {
        row: s.row,
        text: s.tokens.join(" "),
        label: Some(format!("{} {}", s.tags.join(" "), s.label.as_deref().unwrap_or_default())),
    };
    let all: Vec<Row> = train.iter().chain(&valid).map(row).collect();
    let sha256 = hash::sha256_rows(&all);
    Ok(Corpus { train, valid, test, tags, labels, sha256, repeated, leaking })
}

/// Ids of the sets that [`load`] knows.
pub const SETS: &[&str] = &["ud-english-ewt", "snips", "atis", "hwu64", "smp2019-zh"];

type Parts = (Vec<Sentence>, Vec<Sentence>, Option<Vec<Sentence>>);

fn known(id: &str, places: &Places) -> anyhow::Result<Parts> {
    let folder = || -> anyhow::Result<std::path::PathBuf> {
        let folder = (places.data)(id)?;
        let nested = folder.join(id);
        Ok(if nested.is_dir() { nested } else { folder })
    };
    match id {
        "ud-english-ewt" => {
            let folder = folder()?;
            let part = |name: &str| treebank(&folder, name);
            Ok((part("train")?, part("dev")?, Some(part("test")?)))
        }
        "snips" | "atis" | "hwu64" => {
            let folder = folder()?;
            let part = |name: &str| tabbed(&folder.join(format!("{name}.tsv")));
            Ok((part("train")?, part("valid")?, Some(part("test")?)))
        }
        "smp2019-zh" => {
            let folder = folder()?;
            let part = |name: &str| domains(&folder.join(format!("{name}.jsonl")));
            Ok((part("train")?, part("valid")?, None))
        }
        _ => bail!(DataError::WrongSet(format!(
            "`{id}` is not a tagging data set: {}",
            SETS.join(", ")
        ))),
    }
}

/// A part of a treebank, by the end of its file's name.
fn treebank(folder: &Path, part: &str) -> anyhow::Result<Vec<Sentence>> {
    let names = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths: Vec<_> = names.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let ending = format!("{part}.conllu");
    let path = paths.iter().find(|path| path.to_string_lossy().ends_with(&ending));
    let path = path.with_context(|| format!("{} has no {ending}", folder.display()))?;
    let treebank = conllu::read(path, false, &Limits::default())?;
    let sentence = |(row, sentence): (usize, conllu::Sentence)| {
        let (tokens, tags) =
            sentence.tokens.into_iter().map(|token| (token.form, token.upos)).unzip();
        Sentence { row, tokens, tags, label: None }
    };
    Ok(treebank.sentences.into_iter().enumerate().map(sentence).collect())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    ensure!(size <= FILE_LIMIT, "{}: {size} bytes, above {FILE_LIMIT}", path.display());
    fs::read_to_string(path)
        .map_err(|source| DataError::Read { path: path.to_owned(), source }.into())
}

/// Words, intent and tags, apart by tabs.
fn tabbed(path: &Path) -> anyhow::Result<Vec<Sentence>> {
    let text = read_text(path)?;
    let line = |(row, line): (usize, &str)| {
        let fields: Vec<&str> = line.split('\t').collect();
        let wrong =
            || format!("{}: line {} is not words, intent and tags", path.display(), row + 1);
        let &[utterance, intent, tags] = fields.as_slice() else { bail!(wrong()) };
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let (tokens, tags) = (words(utterance), words(tags));
        ensure!(tags.is_empty() || tags.len() == tokens.len(), wrong());
        Ok(Sentence { row, tokens, tags, label: Some(intent.to_string()) })
    };
    text.lines().enumerate().map(line).collect()
}

#[derive(Deserialize)]
struct Domain {
    text: String,
    domain: String,
    slots: serde_json::Map<String, serde_json::Value>,
}

/// Chinese utterances; characters are words, a slot's characters are found in the text, the label is the domain.
fn domains(path: &Path) -> anyhow::Result<Vec<Sentence>> {
    let text = read_text(path)?;
    let line = |(row, line): (usize, &str)| {
        let domain: Domain = serde_json::from_str(line)
            .with_context(|| format!("{}: line {}", path.display(), row + 1))?;
        let tokens = split(&domain.text);
        let mut tags = vec!["O".to_string(); tokens.len()];
        for (kind, value) in &domain.slots {
            let Some(value) = value.as_str() else { continue };
            let wanted = split(value);
            let at = tokens.windows(wanted.len().max(1)).position(|window| window == wanted);
            let free = at.filter(|at| tags[*at..at + wanted.len()].iter().all(|tag| tag == "O"));
            if let Some(at) = free {
                for (i, tag) in tags[at..at + wanted.len()].iter_mut().enumerate() {
                    *tag = format!("{}-{kind}", if i == 0 { "B" } else { "I" });
                }
            }
        }
        Ok(Sentence { row, tokens, tags, label: Some(domain.domain) })
    };
    text.lines().enumerate().map(line).collect()
}

/// JSON lines, as [`Line`] has them.
pub fn own(path: &Path) -> anyhow::Result<Vec<Sentence>> {
    let text = read_text(path)?;
    let filled = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let line = |(row, line): (usize, &str)| {
        let wrong = |problem: String| {
            let detail = format!("line {}: {problem}", row + 1);
            DataError::BadSyntax { path: path.to_owned(), detail }
        };
        let Line { tokens, tags, label } =
            serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        ensure!(!tokens.is_empty(), wrong("no tokens".into()));
        let (n, m) = (tokens.len(), tags.len());
        ensure!(tags.is_empty() || n == m, wrong(format!("{n} tokens and {m} tags")));
        Ok(Sentence { row, tokens, tags, label })
    };
    filled.map(line).collect()
}
