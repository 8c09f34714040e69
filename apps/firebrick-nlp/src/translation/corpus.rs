//! Pairs of sentences: read, cleaned, split, checked for leaks.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, bail, ensure};
use firebrick_data::{
    clean::{CleanRules, clean_table},
    error::DataError,
    hash,
    leaks::{self, LeakRules},
    ledger::Ledger,
    split::stratified,
    table::{Columns, ReadOptions, Row, Table, read},
};
use firebrick_train::job::Places;
use serde_json::json;

use super::recipe::DataRecipe;
use crate::language::simplifier;

/// A sentence in two languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Number in its file, from 0.
    pub row: usize,
    pub source: String,
    pub target: String,
}

/// The parts of a data set, cleaned.
pub struct Corpus {
    pub train: Vec<Pair>,
    pub valid: Vec<Pair>,
    pub test: Option<Vec<Pair>>,
    /// SHA-256 over the training and validation pairs.
    pub sha256: String,
    /// Pairs that could not be read or were dropped, by part.
    pub ledgers: Vec<(String, Ledger)>,
    /// What was rewritten before anything was dropped.
    pub changed: Vec<Changed>,
    /// Training pairs that were dropped because another part has their like.
    pub leaking: usize,
}

/// What was changed in the rows of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub part: &'static str,
    /// How many.
    pub rows: usize,
    pub detail: &'static str,
}

impl Changed {
    /// A line of the ledger.
    pub fn json_line(&self) -> String {
        let Self { part, rows, detail } = self;
        format!("{}\n", json!({"part": part, "changed": rows, "detail": detail}))
    }
}

/// Reads, cleans, splits and checks what `[data]` names.
pub fn load(data: &DataRecipe, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let mut parts = match &data.dataset {
        Some(id) => known(data, id, &(places.data)(id)?)?,
        None => own(data, places.base)?,
    };
    let mut changed = vec![];
    if data.dataset.as_deref() == Some("tatoeba-cmn-eng") {
        changed.extend(rewrite(&mut parts, "quotation marks of CSV undone", unquoted));
    }
    if data.simplify {
        let simplifier = simplifier()?;
        let simplified = |text: &str| simplifier.convert(text);
        changed.extend(rewrite(&mut parts, "characters simplified by OpenCC", simplified));
    }
    let rules = CleanRules {
        contradiction: false, // a sentence may have several translations
        max_chars: Some(data.max_chars),
        ..CleanRules::default()
    };
    // A test part is judged as it comes, but for empty rows.
    let as_it_comes = CleanRules { duplicate: false, max_chars: None, ..rules.clone() };
    let mut ledgers = vec![];
    let mut cleaned: HashMap<&str, Vec<Row>> = HashMap::new();
    for (name, table) in parts {
        let rules = if name == "test" { &as_it_comes } else { &rules };
        let (rows, ledger) = clean_table(table, rules);
        ledgers.push((name.to_string(), ledger));
        cleaned.insert(name, rows);
    }
    let mut train = cleaned.remove("train").context("there is no training part")?;
    let test = cleaned.remove("test");
    let mut valid = match cleaned.remove("valid") {
        Some(rows) => rows,
        None => {
            // The label is a translation here, not a class to be stratified by.
            let plain = train.iter().map(|row| Row { label: None, ..row.clone() }).collect();
            let fractions = [("train", 1.0 - data.valid_fraction), ("valid", data.valid_fraction)];
            let valid = stratified(plain, &fractions, seed)?.pop().context("two parts")?.1;
            let chosen: std::collections::HashSet<usize> = valid.iter().map(|r| r.row).collect();
            let (valid, rest) = train.into_iter().partition(|row| chosen.contains(&row.row));
            train = rest;
            valid
        }
    };
    let mut leaking = 0;
    if data.leaks {
        let mut splits: Vec<(&str, &[Row])> = vec![("train", &train), ("valid", &valid)];
        splits.extend(test.as_deref().map(|rows| ("test", rows)));
        // The sentences of one domain are much alike: only what is all but equal counts.
        let rules = LeakRules { near: 0.9, ..LeakRules::default() };
        let report = leaks::check(&splits, &rules)?;
        let (kept, ledger) = leaks::remove(train, "train", &report);
        leaking = ledger.dropped.len();
        train = kept;
        ledgers.push(("train".into(), ledger));
        if let Some(test) = &test {
            let report = leaks::check(&[("valid", &valid), ("test", test)], &rules)?;
            let (kept, ledger) = leaks::remove(valid, "valid", &report);
            leaking += ledger.dropped.len();
            valid = kept;
            ledgers.push(("valid".into(), ledger));
        }
    }
    for (part, left) in [("training", &train), ("validation", &valid)] {
        ensure!(!left.is_empty(), DataError::TooLittle(format!("no {part} pair is left")));
    }
    let all: Vec<Row> = train.iter().chain(&valid).cloned().collect();
    let sha256 = hash::sha256_rows(&all);
    Ok(Corpus {
        train: pairs(train),
        valid: pairs(valid),
        test: test.map(pairs),
        sha256,
        ledgers,
        changed,
        leaking,
    })
}

/// Rewrites both sides of all pairs; says in how many rows of each part that changed something.
fn rewrite(
    parts: &mut [(&'static str, Table)],
    detail: &'static str,
    rewritten: impl Fn(&str) -> String,
) -> Vec<Changed> {
    let mut changed = vec![];
    for &mut (part, ref mut table) in parts {
        let mut rows = 0;
        for row in &mut table.rows {
            let new = Row {
                row: row.row,
                text: rewritten(&row.text),
                label: row.label.as_deref().map(&rewritten),
            };
            rows += usize::from(new != *row);
            *row = new;
        }
        if rows > 0 {
            changed.push(Changed { part, rows, detail });
        }
    }
    changed
}

/// A field that was quoted for CSV, although its file is tabbed, as it was before.
fn unquoted(field: &str) -> String {
    let inside = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inside.filter(|inside| inside.contains("\"\"")) {
        Some(inside) => inside.replace("\"\"", "\""),
        None => field.to_string(),
    }
}

fn pairs(rows: Vec<Row>) -> Vec<Pair> {
    let pair = |row: Row| {
        Some(Pair { row: row.row, source: row.text, target: row.label.filter(|t| !t.is_empty())? })
    };
    rows.into_iter().filter_map(pair).collect()
}

/// The parts of a known set, the source as a row's text and the target as its label.
fn known(data: &DataRecipe, id: &str, folder: &Path) -> anyhow::Result<Vec<(&'static str, Table)>> {
    let nested = folder.join(id);
    let folder = if nested.is_dir() { nested } else { folder.to_path_buf() };
    let (source, target) = (data.source.as_str(), data.target.as_str());
    match id {
        "multi30k" => {
            for language in [source, target] {
                ensure!(
                    ["en", "de", "fr"].contains(&language),
                    "multi30k has no language `{language}`: en, de or fr"
                );
            }
            let parts = [("train", "train"), ("valid", "val"), ("test", "test_2016_flickr")];
            let parallel = |(name, file): (&'static str, &str)| {
                let path = |language: &str| folder.join(format!("{file}.{language}"));
                Ok((name, parallel(&path(source), &path(target))?))
            };
            parts.into_iter().map(parallel).collect()
        }
        "tatoeba-cmn-eng" => {
            let columns = match (source, target) {
                ("en", "zh") => Columns::indexed(0, Some(1)),
                ("zh", "en") => Columns::indexed(1, Some(0)),
                _ => bail!("tatoeba-cmn-eng has `en` and `zh`, not `{source}` and `{target}`"),
            };
            let options = ReadOptions { header: false, ..ReadOptions::new(columns) };
            let part = |name| Ok((name, read(&folder.join(format!("{name}.tsv")), &options)?));
            ["train", "test"].into_iter().map(part).collect()
        }
        _ => bail!(DataError::WrongSet(format!(
            "`{id}` is not a translation data set: multi30k or tatoeba-cmn-eng"
        ))),
    }
}

fn own(data: &DataRecipe, base: &Path) -> anyhow::Result<Vec<(&'static str, Table)>> {
    let options = ReadOptions::new(Columns::named(&data.source, Some(&data.target)));
    let files = [("train", &data.train), ("valid", &data.valid), ("test", &data.test)];
    let there = files.into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?)));
    let part = |(name, file): (&'static str, &std::path::PathBuf)| {
        let path = base.join(file);
        Ok((name, read(&path, &options)?.usable(&path)?))
    };
    there.map(part).collect()
}

/// Two files whose lines belong together.
fn parallel(source: &Path, target: &Path) -> anyhow::Result<Table> {
    let lines = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
    };
    let (sources, targets) = (lines(source)?, lines(target)?);
    let (n, m) = (sources.lines().count(), targets.lines().count());
    ensure!(n == m, "{} has {n} lines, {} has {m}", source.display(), target.display());
    let row = |(row, (source, target)): (usize, (&str, &str))| Row {
        row,
        text: source.trim().into(),
        label: Some(target.trim().into()),
    };
    let rows = sources.lines().zip(targets.lines()).enumerate().map(row).collect();
    Ok(Table { rows, bad: vec![] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_csv_are_undone() {
        for (field, expected) in [
            ("\"Music? \"\"Yes.\"\"\"", "Music? \"Yes.\""),
            ("\"Say \"\"I\"\" in French?\"", "Say \"I\" in French?"),
            ("\"Hello!\"", "\"Hello!\""),
            ("He said \"no.\"", "He said \"no.\""),
            ("\"", "\""),
        ] {
            assert_eq!(unquoted(field), expected);
        }
    }

    /// Both sides, with a line of the ledger for each part that changed.
    #[test]
    fn rewritten_rows_are_counted() {
        let row = |row, text: &str, label: &str| Row {
            row,
            text: text.into(),
            label: Some(label.into()),
        };
        let rows = vec![row(0, "我們", "we"), row(1, "我", "I"), row(2, "book", "書")];
        let plain = vec![row(0, "我", "I")];
        let table = |rows| Table { rows, bad: vec![] };
        let mut parts = [("train", table(rows)), ("test", table(plain.clone()))];
        let simplifier = simplifier().unwrap();
        let changed = rewrite(&mut parts, "simplified", |text| simplifier.convert(text));
        let lines: String = changed.iter().map(Changed::json_line).collect();
        assert_eq!(lines, "{\"changed\":2,\"detail\":\"simplified\",\"part\":\"train\"}\n");
        let expected = [row(0, "我们", "we"), row(1, "我", "I"), row(2, "book", "书")];
        assert_eq!(parts[0].1.rows, expected);
        assert_eq!(parts[1].1.rows, plain);
    }
}
