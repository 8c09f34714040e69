//! `firebrick nlp index` and `search`: passages by meaning.

use std::path::Path;

use firebrick_nlp::{
    embed::Embedder,
    search::{Hit, Index, read},
};
use serde_json::json;

use super::{
    Outcome,
    nlp::{checkpoint, or_stdin},
    print,
};
use crate::{
    cli::Global,
    failure::{BAD_FILE, Failure, USAGE},
    progress::Style,
};

/// An index and what turns questions into vectors.
pub struct Library {
    index: Index,
    embedder: Embedder,
}

impl Library {
    /// An index folder as it is; a folder with texts is read now, and forgotten after.
    pub fn open(docs: &Path, global: &Global) -> Result<Self, Failure> {
        if !docs.is_dir() {
            return Err(Failure::text(USAGE, format!("{}: no such folder", docs.display())));
        }
        if !Index::is_in(docs) {
            return Self::build(docs, "all-MiniLM-L6-v2", global);
        }
        let index = Index::open(docs).map_err(|error| Failure::new(BAD_FILE, error))?;
        let embedder = Embedder::open(&checkpoint(&index.model, global)?, &global.device.open()?)?;
        Ok(Self { index, embedder })
    }

    fn build(docs: &Path, model: &str, global: &Global) -> Result<Self, Failure> {
        let embedder = Embedder::open(&checkpoint(model, global)?, &global.device.open()?)?;
        let read = read(docs, &embedder)?;
        for (file, problem) in &read.skipped {
            stderr!("{file}: {problem}; left out");
        }
        if read.passages.is_empty() {
            let message = format!("{}: no text in it (.txt, .md, .rst, ..)", docs.display());
            return Err(Failure::text(BAD_FILE, message));
        }
        let (count, files) = (read.passages.len(), read.files);
        let quiet = global.quiet || global.progress == Style::None;
        let index = Index::build(model, &embedder, read.passages, |done| {
            if !quiet {
                stderr!("{done} of {count} passages, {files} files");
            }
        });
        Ok(Self { index, embedder })
    }

    /// The best first.
    pub fn search(&self, question: &str, count: usize) -> Vec<Hit<'_>> {
        self.index.search(&self.embedder, question, count)
    }
}

pub fn index(docs: &Path, output: &Path, model: &str, global: &Global) -> Outcome {
    if !docs.is_dir() {
        return Err(Failure::text(USAGE, format!("{}: no such folder", docs.display())));
    }
    let taken = output.is_dir() && !Index::is_in(output) && output.read_dir()?.next().is_some();
    if taken {
        let message = format!("{} holds something else: name a new folder", output.display());
        return Err(Failure::text(USAGE, message));
    }
    let library = Library::build(docs, model, global)?;
    library.index.save(output)?;
    let count = library.index.passages.len();
    let all = json!({"index": output, "passages": count, "model": model});
    print(global, &all, &format!("{count} passages in {}", output.display()));
    Ok(())
}

pub fn run(questions: Vec<String>, docs: &Path, top: usize, global: &Global) -> Outcome {
    let library = Library::open(docs, global)?;
    let (mut list, mut shown) = (vec![], String::new());
    for question in or_stdin(questions)? {
        let hits = library.search(&question, top);
        shown.push_str(&format!("{question}\n"));
        for Hit { passage, score } in &hits {
            let text: String = passage.text.split_whitespace().collect::<Vec<_>>().join(" ");
            let start: String = text.chars().take(160).collect();
            shown.push_str(&format!("  {score:.3}  {}:{}  {start}\n", passage.file, passage.line));
        }
        let hit = |Hit { passage, score }: &Hit| json!({"file": passage.file, "line": passage.line, "text": passage.text, "score": score});
        list.push(
            json!({"question": question, "passages": hits.iter().map(hit).collect::<Vec<_>>()}),
        );
    }
    print(global, &json!(list), &shown);
    Ok(())
}
