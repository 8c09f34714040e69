//! Passages of a folder's texts, found by meaning: embeddings in a graph of neighbours.
//!
//! Hierarchical navigable small worlds: Malkov and Yashunin 2016, <https://arxiv.org/abs/1603.09320>. A folder of text
//! becomes an index folder: `passages.jsonl` (what was read, where it stands), `graph.cbor` (vectors and graph) and
//! `index.json` (the model, and the SHA-256 of the other two).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::hash::sha256_bytes;
use instant_distance::{Builder, HnswMap, Point, Search};
use serde::{Deserialize, Serialize};

use crate::{embed::Embedder, translation::sentences};

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Relative to the folder.
    pub file: String,
    /// Its first line, from 1.
    pub line: usize,
    pub text: String,
}

/// A passage that was found, and the cosine of its vector with the question's.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit<'a> {
    pub passage: &'a Passage,
    pub score: f32,
}

/// Passages, and the graph through their vectors.
pub struct Index {
    /// As the caller names it.
    pub model: String,
    pub passages: Vec<Passage>,
    graph: HnswMap<Vector, u32>,
}

/// `index.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    model: String,
    dimension: usize,
    passages_sha256: String,
    graph_sha256: String,
}

/// Of length 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Vector(Vec<f32>);

impl Point for Vector {
    fn distance(&self, other: &Self) -> f32 {
        (1.0 - firebrick_kernels::reduce::dot(&self.0, &other.0)) as f32
    }
}

impl Vector {
    fn new(mut values: Vec<f32>) -> Self {
        let length = firebrick_kernels::reduce::sum_of_squares(&values).sqrt().max(1e-12) as f32;
        values.iter_mut().for_each(|value| *value /= length);
        Self(values)
    }
}

/// Characters of a passage; what a small encoder reads at once.
const PASSAGE: usize = 800;
/// Largest file that is read, and most of them.
const FILE_LIMIT: u64 = 64 << 20;
const MOST_FILES: usize = 100_000;
const INDEX_LIMIT: u64 = 4 << 30;
/// Endings of files that hold text for people.
const TEXTS: &[&str] =
    &["txt", "md", "markdown", "rst", "adoc", "tex", "org", "html", "csv", "log"];
/// Candidates that are kept while the graph is built and asked: of 10,000 vectors, the nearest are found 99 times in 100.
const CANDIDATES: usize = 100;
/// Texts that are embedded between two looks at the progress.
const BATCH: usize = 32;

/// Files of a folder that were read, and those that were not, with the reason.
pub struct Read {
    pub passages: Vec<Passage>,
    pub files: usize,
    pub skipped: Vec<(String, String)>,
}

/// Passages of all texts in `folder` and below, in the order of their names.
pub fn read(folder: &Path) -> anyhow::Result<Read> {
    let mut files = vec![];
    walk(folder, &mut files)?;
    let mut read = Read { passages: vec![], files: 0, skipped: vec![] };
    for path in files {
        let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        let size = fs::metadata(&path).map_or(0, |about| about.len());
        let text = match size {
            size if size > FILE_LIMIT => Err(format!("{size} bytes, above {FILE_LIMIT}")),
            _ => fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())),
        };
        match text {
            Err(problem) => read.skipped.push((name, problem)),
            Ok(text) => {
                read.files += 1;
                let passage = |(line, text)| Passage { file: name.clone(), line, text };
                read.passages.extend(passages(&text).into_iter().map(passage));
            }
        }
    }
    Ok(read)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !hidden {
            walk(&path, files)?; // a link to a folder is no folder: no way round in circles
        } else if kind.is_file() && !hidden {
            let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            if ending.is_some_and(|ending| TEXTS.contains(&ending.as_str())) {
                files.push(path);
                ensure!(files.len() <= MOST_FILES, "more than {MOST_FILES} files");
            }
        }
    }
    Ok(())
}

/// Paragraphs, short ones together and long ones cut between sentences, with their first line.
fn passages(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = vec![];
    let mut open: Option<(usize, String)> = None;
    let mut add = |line: usize, piece: &str, between: &str| {
        let joins = open
            .as_ref()
            .is_some_and(|(_, text)| text.chars().count() + piece.chars().count() < PASSAGE);
        match &mut open {
            Some((_, text)) if joins => *text = format!("{text}{between}{piece}"),
            _ => found.extend(open.replace((line, piece.to_string()))),
        }
    };
    let mut line = 1;
    for paragraph in paragraphs(text) {
        let lines = paragraph.matches('\n').count();
        let first = line + leading_lines(paragraph);
        line += lines;
        let paragraph = paragraph.trim();
        if paragraph.is_empty() {
            continue;
        }
        if paragraph.chars().count() <= PASSAGE {
            add(first, paragraph, "\n\n");
            continue;
        }
        let mut at = first;
        for sentence in sentences::split(paragraph) {
            for piece in cut(sentence.text) {
                add(at, piece, " ");
            }
            at += sentence.text.matches('\n').count() + sentence.gap.matches('\n').count();
        }
    }
    found.extend(open);
    found
}

/// Runs of lines with the empty lines after them.
fn paragraphs(text: &str) -> Vec<&str> {
    let mut found = vec![];
    let (mut begin, mut at, mut empty) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        let blank = line.trim().is_empty();
        if empty && !blank {
            found.push(&text[begin..at]);
            begin = at;
        }
        empty = blank;
        at += line.len();
    }
    found.push(&text[begin..]);
    found
}

/// Empty lines before the first that is not.
fn leading_lines(paragraph: &str) -> usize {
    paragraph[..paragraph.len() - paragraph.trim_start().len()].matches('\n').count()
}

/// Pieces of at most [`PASSAGE`] characters, for what has no sentences.
fn cut(text: &str) -> Vec<&str> {
    let mut pieces = vec![];
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(PASSAGE) {
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces.push(rest);
    pieces
}

impl Index {
    /// `progress` hears how many passages have been embedded.
    pub fn build(
        model: &str,
        embedder: &Embedder,
        passages: Vec<Passage>,
        mut progress: impl FnMut(usize),
    ) -> Self {
        let mut vectors = Vec::with_capacity(passages.len());
        for part in passages.chunks(BATCH * 8) {
            let texts: Vec<&str> = part.iter().map(|passage| passage.text.as_str()).collect();
            vectors.extend(embedder.embed(&texts, BATCH).into_iter().map(Vector::new));
            progress(vectors.len());
        }
        let places = (0..passages.len() as u32).collect();
        let builder = Builder::default().seed(0).ef_construction(CANDIDATES).ef_search(CANDIDATES);
        Self { model: model.into(), graph: builder.build(vectors, places), passages }
    }

    /// The nearest passages, the best first.
    pub fn search(&self, embedder: &Embedder, question: &str, count: usize) -> Vec<Hit<'_>> {
        let vector = Vector::new(embedder.embed(&[question], 1).remove(0));
        let mut search = Search::default();
        let found = self.graph.search(&vector, &mut search).take(count);
        found
            .map(|item| Hit {
                passage: &self.passages[*item.value as usize],
                score: 1.0 - item.distance,
            })
            .collect()
    }

    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut graph = vec![];
        ciborium::into_writer(&self.graph, &mut graph).context("writing the graph")?;
        let mut passages = vec![];
        for passage in &self.passages {
            serde_json::to_writer(&mut passages, passage)?;
            passages.push(b'\n');
        }
        let dimension = self.graph.iter().next().map_or(0, |(_, vector)| vector.0.len());
        let head = Head {
            version: 1,
            model: self.model.clone(),
            dimension,
            passages_sha256: sha256_bytes(&passages),
            graph_sha256: sha256_bytes(&graph),
        };
        let head = serde_json::to_vec_pretty(&head)?;
        // The head comes last: files that it does not describe are no index.
        for (name, bytes) in
            [("passages.jsonl", passages), ("graph.cbor", graph), ("index.json", head)]
        {
            let path = dir.join(name);
            write_atomically(&path, &bytes)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let path = dir.join(name);
            let size = fs::metadata(&path).map(|about| about.len());
            let size = size.with_context(|| format!("reading {}", path.display()))?;
            ensure!(size <= INDEX_LIMIT, "{}: {size} bytes, above {INDEX_LIMIT}", path.display());
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let damaged =
            |name: &str| format!("{} is damaged: make the index again", dir.join(name).display());
        let head: Head =
            serde_json::from_slice(&file("index.json")?).with_context(|| damaged("index.json"))?;
        if head.version != 1 {
            bail!("{}: version {}; this firebrick reads 1", dir.display(), head.version);
        }
        // A graph with places that are not there would be walked out of bounds: only what we wrote is read.
        let (passages, graph) = (file("passages.jsonl")?, file("graph.cbor")?);
        ensure!(sha256_bytes(&passages) == head.passages_sha256, damaged("passages.jsonl"));
        ensure!(sha256_bytes(&graph) == head.graph_sha256, damaged("graph.cbor"));
        let lines = serde_json::Deserializer::from_slice(&passages).into_iter();
        let passages = lines.collect::<Result<Vec<Passage>, _>>();
        let passages = passages.with_context(|| damaged("passages.jsonl"))?;
        let graph: HnswMap<Vector, u32> =
            ciborium::from_reader(graph.as_slice()).with_context(|| damaged("graph.cbor"))?;
        let fits = |place: &u32| (*place as usize) < passages.len();
        ensure!(graph.values.iter().all(fits), damaged("graph.cbor"));
        Ok(Self { model: head.model, passages, graph })
    }

    /// Whether `dir` is an index folder.
    pub fn is_in(dir: &Path) -> bool {
        dir.join("index.json").is_file() && dir.join("graph.cbor").is_file()
    }
}

/// What a chat model is told before a question, so that it answers from the passages and names them.
pub fn grounded(question: &str, hits: &[Hit]) -> String {
    let mut prompt = String::from(
        "Answer from these passages only, and name those you use by their number, as in [1]. \
         Say so when they do not hold the answer.\n\n",
    );
    for (number, hit) in (1..).zip(hits) {
        prompt.push_str(&format!("[{number}] {}\n\n", hit.passage.text));
    }
    prompt.push_str(question);
    prompt
}

/// Numbers of the passages that an answer names, from 1, each once.
pub fn cited(answer: &str, count: usize) -> Vec<usize> {
    let named = |number: &usize| answer.contains(&format!("[{number}]"));
    (1..=count).filter(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_become_passages_with_their_lines() {
        let text = "# Title\n\nFirst paragraph\nof two lines.\n\n\nSecond.\n";
        let joined = "# Title\n\nFirst paragraph\nof two lines.\n\nSecond.";
        assert_eq!(passages(text), [(1, joined.to_string())]);
        assert_eq!(passages("\n\n  \n"), []);
        let long = "A sentence of some words. ".repeat(60);
        let found = passages(&format!("Short.\n\n{long}\n\nEnd."));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!([found[0].0, found[1].0], [1, 3]);
        assert!(found.iter().all(|(_, text)| text.chars().count() <= PASSAGE));
        let endless = passages(&"字".repeat(2000));
        assert_eq!(endless.iter().map(|(_, text)| text.chars().count()).sum::<usize>(), 2000);
        assert_eq!(endless.len(), 3);
    }

    #[test]
    fn names_of_passages_in_an_answer() {
        assert_eq!(cited("As [2] says, and [10].", 4), [2]);
        assert_eq!(cited("nothing", 4), Vec::<usize>::new());
    }

    fn vectors(count: usize, seed: u64) -> Vec<Vector> {
        let mut coins = firebrick_train::sampler::Coins::new(seed);
        let mut vector = || Vector::new((0..24).map(|_| coins.within(-1.0, 1.0) as f32).collect());
        (0..count).map(|_| vector()).collect()
    }

    /// The graph finds what a look at every vector finds.
    #[test]
    fn nearly_all_of_the_nearest_are_found() {
        let points = vectors(1500, 1);
        let builder = Builder::default().seed(0).ef_construction(CANDIDATES).ef_search(CANDIDATES);
        let graph = builder.build(points.clone(), (0..1500_u32).collect());
        let mut found = 0;
        for question in vectors(50, 2) {
            let mut all: Vec<usize> = (0..points.len()).collect();
            all.sort_by(|a, b| {
                question.distance(&points[*a]).total_cmp(&question.distance(&points[*b]))
            });
            let mut search = Search::default();
            let near: Vec<u32> =
                graph.search(&question, &mut search).take(10).map(|item| *item.value).collect();
            found += all[..10].iter().filter(|place| near.contains(&(**place as u32))).count();
        }
        assert!(found >= 490, "{found} of 500");
    }

    #[test]
    fn an_index_comes_back_and_a_damaged_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let passage = |i: usize| Passage { file: "a.txt".into(), line: i, text: format!("p {i}") };
        let builder = Builder::default().seed(0);
        let graph = builder.build(vectors(40, 3), (0..40_u32).collect());
        let index = Index { model: "m".into(), passages: (0..40).map(passage).collect(), graph };
        index.save(dir.path()).unwrap();
        assert!(Index::is_in(dir.path()));
        let back = Index::open(dir.path()).unwrap();
        assert_eq!((back.model, back.passages), ("m".to_string(), index.passages));
        let path = dir.path().join("graph.cbor");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = Index::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("graph.cbor is damaged"), "{error}");
    }
}
