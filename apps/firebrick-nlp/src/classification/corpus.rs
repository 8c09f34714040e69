//! Rows of a recipe's data: read, cleaned, split, checked for leaks.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, bail};
use firebrick_data::{
    clean::{CleanRules, clean},
    error::DataError,
    hash,
    leaks::{self, LeakReport, LeakRules},
    ledger::Ledger,
    manifest::{self, Layout},
    split::stratified,
    table::{Columns, ReadOptions, Row, Table, read},
};
use firebrick_train::job::Places;

use super::recipe::{DataRecipe, Leaks};

/// The parts of a data set, cleaned.
pub struct Corpus {
    /// Sorted names of the classes; a label's place is its class index.
    pub labels: Vec<String>,
    pub train: Vec<Row>,
    pub valid: Vec<Row>,
    pub test: Option<Vec<Row>>,
    /// SHA-256 over the training and validation rows.
    pub sha256: String,
    /// Rows that were set aside or dropped, by part.
    pub ledgers: Vec<(String, Ledger)>,
    /// Rows that could not be read, by part.
    pub unreadable: Vec<(String, usize)>,
    pub leaks: LeakReport,
}

impl Corpus {
    /// Rows of each part, what was dropped, what leaks; a line each.
    pub fn remarks(&self) -> Vec<String> {
        let mut parts =
            vec![format!("train {}", self.train.len()), format!("valid {}", self.valid.len())];
        parts.extend(self.test.as_ref().map(|rows| format!("test {}", rows.len())));
        let mut remarks = vec![format!("rows: {}", parts.join(", "))];
        for (part, count) in self.unreadable.iter().filter(|(_, count)| *count > 0) {
            remarks.push(format!("{part}: {count} rows could not be read"));
        }
        for (part, ledger) in &self.ledgers {
            let counts = ledger.counts();
            let counts: Vec<String> =
                counts.iter().map(|(reason, n)| format!("{n} {reason:?}")).collect();
            if !counts.is_empty() {
                let counts = counts.join(", ");
                remarks.push(format!("{part}: dropped {counts} (data.ledger.jsonl says why)"));
            }
        }
        if !self.leaks.pairs.is_empty() {
            remarks
                .push(format!("{} pairs of like rows in different parts", self.leaks.pairs.len()));
        }
        remarks
    }

    /// Why each row was dropped, as JSON lines.
    pub fn ledger(&self) -> String {
        self.ledgers.iter().map(|(part, ledger)| ledger.json_lines(part)).collect()
    }
}

/// Where the rows of a text classification set lie.
pub fn layout(id: &str) -> Result<Layout, DataError> {
    manifest::layout(id).ok_or_else(|| match manifest::data_set(id) {
        Some(_) => DataError::WrongSet(format!("`{id}` is not a text classification set")),
        None => DataError::UnknownSet { id: id.into(), guess: manifest::nearest(id) },
    })
}

/// Reads one part of a known data set, whose files lie in `folder`; `split` as the set names it.
pub fn read_split(folder: &Path, id: &str, split: &str) -> anyhow::Result<Table> {
    let layout = layout(id)?;
    let names: Vec<&str> = layout.splits.iter().map(|(name, _)| *name).collect();
    let Some((_, file)) = layout.splits.iter().find(|(name, _)| *name == split) else {
        let names = names.join(", ");
        let message = format!("data set `{id}` has no part `{split}`; its parts are {names}");
        bail!(DataError::WrongSet(message));
    };
    // A set's archive may hold its files in a folder of its name.
    let nested = folder.join(id).join(file);
    let path = if nested.exists() { nested } else { folder.join(file) };
    Ok(read(&path, &layout.options)?)
}

/// How the columns of a user's own file are read.
pub fn options(data: &DataRecipe) -> ReadOptions {
    ReadOptions::new(Columns::named(&data.text_column, Some(&data.label_column)))
}

/// Reads, cleans, splits and checks what `[data]` names.
pub fn load(data: &DataRecipe, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let mut parts: Vec<(&str, Table)> = vec![];
    match &data.dataset {
        Some(id) => {
            let layout = layout(id)?;
            let folder = (places.data)(id)?;
            for (split, _) in layout.splits {
                let name = match *split {
                    "dev" => "valid",
                    other => other,
                };
                parts.push((name, read_split(&folder, id, split)?));
            }
        }
        None => {
            let files = [("train", &data.train), ("valid", &data.valid), ("test", &data.test)];
            for (name, file) in files {
                if let Some(file) = file {
                    let path = places.base.join(file);
                    parts.push((name, read(&path, &options(data))?.usable(&path)?));
                }
            }
        }
    }
    let rules = CleanRules { max_chars: Some(data.max_chars), ..CleanRules::default() };
    let mut ledgers = vec![];
    let mut unreadable = vec![];
    let (mut train, mut valid, mut test) = (vec![], None, None);
    for (name, table) in parts {
        unreadable.push((name.to_string(), table.bad.len()));
        // A test part is judged as it comes, but for rows without a text.
        let part = match name {
            "test" => CleanRules {
                duplicate: false,
                contradiction: false,
                max_chars: None,
                ..CleanRules::default()
            },
            _ => rules.clone(),
        };
        let (rows, ledger) = clean(table.rows, &part);
        ledgers.push((name.to_string(), ledger));
        match name {
            "train" => train = rows,
            "valid" => valid = Some(rows),
            _ => test = Some(rows),
        }
    }
    let valid = match valid {
        Some(rows) => rows,
        None => {
            let fractions = [("train", 1.0 - data.valid_fraction), ("valid", data.valid_fraction)];
            let mut split = stratified(train, &fractions, seed)?.into_iter();
            train = split.next().context("the split has two parts")?.1;
            split.next().context("the split has two parts")?.1
        }
    };

    let mut report = LeakReport::default();
    if data.leaks != Leaks::Off {
        let mut splits: Vec<(&str, &[Row])> = vec![("train", &train), ("valid", &valid)];
        splits.extend(test.as_deref().map(|rows| ("test", rows)));
        report = leaks::check(&splits, &LeakRules::default())?;
        let leaking = report.rows_of("train").len();
        if data.leaks == Leaks::Error && leaking > 0 {
            bail!(
                "{leaking} training rows are also, or nearly, in another part; \
                   `data.leaks = \"drop\"` drops them"
            );
        }
        let (kept, ledger) = leaks::remove(train, "train", &report);
        train = kept;
        ledgers.push(("train".into(), ledger));
    }

    if data.train_rows > 0 && data.train_rows < train.len() {
        let share = data.train_rows as f64 / train.len() as f64;
        let parts = [("drawn", share), ("left", 1.0 - share)];
        train = stratified(train, &parts, seed)?.swap_remove(0).1;
    }

    let labels: BTreeSet<String> = train.iter().filter_map(|row| row.label.clone()).collect();
    let labels: Vec<String> = labels.into_iter().collect();
    if labels.len() < 2 {
        let message = format!("the training rows have {} label(s)", labels.len());
        bail!(DataError::TooLittle(message + ": a classifier needs two"));
    }
    let all: Vec<Row> = train.iter().chain(&valid).cloned().collect();
    let sha256 = hash::sha256_rows(&all);
    Ok(Corpus { labels, train, valid, test, sha256, ledgers, unreadable, leaks: report })
}
