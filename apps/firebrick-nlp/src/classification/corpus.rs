//! Rows of a recipe's data: read, cleaned, split, checked for leaks.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, bail};
use firebrick_data::{
    clean::{CleanRules, clean_table},
    error::DataError,
    hash,
    leaks::{self, LeakReport, LeakRules},
    ledger::{DropReason, Entry, Ledger},
    manifest::{self, Layout},
    split::{check_judged, stratified},
    table::{Columns, ReadOptions, Row, Table, read},
};
use firebrick_train::job::Places;

use super::recipe::{DataRecipe, Leaks};

/// The parts of a data set, cleaned.
#[derive(Default)]
pub struct Corpus {
    /// Sorted names of the classes; a label's place is its class index.
    pub labels: Vec<String>,
    pub train: Vec<Row>,
    pub valid: Vec<Row>,
    pub test: Option<Vec<Row>>,
    /// SHA-256 over the training and validation rows, and over texts without labels.
    pub sha256: String,
    /// Rows that could not be read or were dropped, by part.
    pub ledgers: Vec<(String, Ledger)>,
    pub leaks: LeakReport,
}

impl Corpus {
    /// Rows of each part, what was dropped, what leaks; a line each.
    pub fn remarks(&self) -> Vec<String> {
        let mut parts =
            vec![format!("train {}", self.train.len()), format!("valid {}", self.valid.len())];
        parts.extend(self.test.as_ref().map(|rows| format!("test {}", rows.len())));
        let mut remarks = vec![format!("rows: {}", parts.join(", "))];
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

    /// Texts of `file` that a teacher is to answer: read and cleaned as the training rows are, and without those that are also,
    /// or nearly, in the validation or test part.
    pub fn unlabelled(&mut self, file: &Path, data: &DataRecipe) -> anyhow::Result<Vec<Row>> {
        const PART: &str = "distill.texts";
        let options = ReadOptions::new(Columns::named(&data.text_column, None));
        let table = read(file, &options)?.usable(file)?;
        let (rows, ledger) = clean_table(table, &rules(data));
        self.ledgers.push((PART.into(), ledger));
        let mut others: Vec<(&str, &[Row])> = vec![("valid", &self.valid)];
        others.extend(self.test.as_deref().map(|rows| ("test", rows)));
        let (rows, ledger, report) = without_leaks(PART, rows, &others, data.leaks)?;
        self.ledgers.push((PART.into(), ledger));
        self.leaks.pairs.extend(report.pairs.into_iter().filter(|pair| pair.split_a == PART));
        if rows.is_empty() {
            let message = format!("{}: no text is left to ask the teacher for", file.display());
            bail!(DataError::TooLittle(message));
        }
        let all: Vec<Row> =
            [&self.train, &self.valid, &rows].into_iter().flatten().cloned().collect();
        self.sha256 = hash::sha256_rows(&all);
        Ok(rows)
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

/// What is dropped of the rows that are learned from.
fn rules(data: &DataRecipe) -> CleanRules {
    CleanRules { max_chars: Some(data.max_chars), ..CleanRules::default() }
}

/// The rows of part `name` that are not also, or nearly, in one of the `others`; why the rest went, and all pairs.
fn without_leaks(
    name: &str,
    rows: Vec<Row>,
    others: &[(&str, &[Row])],
    leaks: Leaks,
) -> anyhow::Result<(Vec<Row>, Ledger, LeakReport)> {
    if leaks == Leaks::Off {
        return Ok((rows, Ledger::default(), LeakReport::default()));
    }
    let splits = [&[(name, &rows[..])][..], others].concat();
    let report = leaks::check(&splits, &LeakRules::default())?;
    let leaking = report.rows_of(name).len();
    if leaks == Leaks::Error && leaking > 0 {
        bail!(DataError::Leaks(format!(
            "{leaking} rows of {name} are also, or nearly, in another part; `data.leaks = \"drop\"` drops them"
        )));
    }
    let (kept, ledger) = leaks::remove(rows, name, &report);
    Ok((kept, ledger, report))
}

/// Takes out rows whose label is not among `labels`.
fn without_unknown(rows: &mut Vec<Row>, labels: &[String]) -> Ledger {
    let mut ledger = Ledger::default();
    rows.retain(|row| {
        let unknown = row.label.as_ref().filter(|label| !labels.contains(label));
        ledger.dropped.extend(unknown.map(|label| Entry {
            row: row.row,
            reason: DropReason::UnknownLabel,
            detail: format!("no training row is {label:?}"),
        }));
        unknown.is_none()
    });
    ledger
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
    let mut ledgers = vec![];
    let (mut train, mut valid, mut test) = (vec![], None, None);
    for (name, table) in parts {
        // A test part is judged as it comes, but for rows without a text.
        let part = match name {
            "test" => CleanRules {
                duplicate: false,
                contradiction: false,
                max_chars: None,
                ..CleanRules::default()
            },
            _ => rules(data),
        };
        let (rows, ledger) = clean_table(table, &part);
        ledgers.push((name.to_string(), ledger));
        match name {
            "train" => train = rows,
            "valid" => valid = Some(rows),
            _ => test = Some(rows),
        }
    }
    let mut valid = match valid {
        Some(rows) => rows,
        None => {
            let fractions = [("train", 1.0 - data.valid_fraction), ("valid", data.valid_fraction)];
            let mut split = stratified(train, &fractions, seed)?.into_iter();
            train = split.next().context("the split has two parts")?.1;
            let drawn = split.next().context("the split has two parts")?.1;
            // A label with a single row is learned from.
            let known: BTreeSet<Option<String>> =
                train.iter().map(|row| row.label.clone()).collect();
            let (drawn, rare) = drawn.into_iter().partition(|row| known.contains(&row.label));
            train.extend::<Vec<Row>>(rare);
            drawn
        }
    };

    let mut others: Vec<(&str, &[Row])> = vec![("valid", &valid)];
    others.extend(test.as_deref().map(|rows| ("test", rows)));
    let (kept, ledger, leaks) = without_leaks("train", train, &others, data.leaks)?;
    train = kept;
    ledgers.push(("train".into(), ledger));

    if data.train_rows > 0 && data.train_rows < train.len() {
        let share = data.train_rows as f64 / train.len() as f64;
        let parts = [("drawn", share), ("left", 1.0 - share)];
        train = stratified(train, &parts, seed)?.swap_remove(0).1;
    }

    let labels: BTreeSet<String> = train.iter().filter_map(|row| row.label.clone()).collect();
    let labels: Vec<String> = labels.into_iter().collect();
    if labels.len() < 2 {
        let mut message = format!("the training rows have {} label(s)", labels.len());
        let of_train = ledgers.iter().filter(|(part, _)| part == "train");
        let dropped: usize = of_train.flat_map(|(_, l)| l.counts().into_values()).sum();
        if dropped > 0 {
            message += &format!(
                " after {dropped} rows were dropped: cleaning tells of its own in `firebrick data \
                 check`, and the others are like rows of other parts (`data.leaks`)"
            );
        }
        bail!(DataError::TooLittle(message + ": a classifier needs two"));
    }
    // A known set is as it is; in one's own files it is a mistake.
    if data.dataset.is_some() {
        for (part, rows) in [("valid", Some(&mut valid)), ("test", test.as_mut())] {
            let ledger = rows.map(|rows| without_unknown(rows, &labels));
            ledgers.extend(ledger.map(|ledger| (part.to_string(), ledger)));
        }
    }
    for (part, rows) in [("valid", Some(&valid)), ("test", test.as_ref())] {
        if let Some(rows) = rows {
            check_judged(part, rows.iter().filter_map(|row| row.label.as_deref()), &labels)?;
        }
    }
    let all: Vec<Row> = train.iter().chain(&valid).cloned().collect();
    let sha256 = hash::sha256_rows(&all);
    Ok(Corpus { labels, train, valid, test, sha256, ledgers, leaks })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn rows(texts: &[&str]) -> Vec<Row> {
        let row = |(row, text): (usize, &&str)| Row { row, text: text.to_string(), label: None };
        texts.iter().enumerate().map(row).collect()
    }

    /// A teacher's answer to a test text would be a label for it.
    #[test]
    fn texts_without_labels_are_none_of_those_that_judge() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| -> PathBuf {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let corpus = || Corpus {
            train: rows(&["the acting was a joy to watch"]),
            valid: rows(&["nobody in this film can act"]),
            test: Some(rows(&["a story that goes nowhere, slowly"])),
            ..Corpus::default()
        };
        let lines = "the music alone is worth it\nNobody in this  film can act\n\n\
                     the music alone is worth it\na story that goes nowhere, slowly!\n";
        let jsonl = "{\"review\": \"the music alone is worth it\"}\n\
                     {\"review\": \"a story that goes nowhere, slowly\", \"stars\": 2}\n";
        let data = DataRecipe { text_column: "review".into(), ..DataRecipe::default() };
        let files = [write("texts.txt", lines), write("texts.jsonl", jsonl)];
        for (file, dropped) in files.iter().zip([4, 1]) {
            let mut corpus = corpus();
            let found = corpus.unlabelled(file, &data).unwrap();
            let found: Vec<&str> = found.iter().map(|row| row.text.as_str()).collect();
            assert_eq!(found, ["the music alone is worth it"]);
            assert_eq!(corpus.ledger().lines().count(), dropped, "{}", corpus.ledger());
            assert!(corpus.ledger().contains("\"reason\":\"leak\""), "{}", corpus.ledger());
            assert!(!corpus.sha256.is_empty());
        }
        let strict = DataRecipe { leaks: Leaks::Error, ..data.clone() };
        let error = corpus().unlabelled(&files[1], &strict).unwrap_err().to_string();
        assert!(error.starts_with("1 rows of distill.texts are also"), "{error}");
        let off = DataRecipe { leaks: Leaks::Off, ..data.clone() };
        assert_eq!(corpus().unlabelled(&files[1], &off).unwrap().len(), 2);
        let only = write("only.txt", "nobody in this film can act\n");
        let error = corpus().unlabelled(&only, &data).unwrap_err().to_string();
        assert!(error.contains("only.txt: no text is left"), "{error}");
    }
}
