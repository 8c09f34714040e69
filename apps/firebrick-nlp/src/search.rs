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
use firebrick_data::{hash::sha256_bytes, stream::without_bom};
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

/// Most characters of a passage; what a small encoder reads at once of English.
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

/// What an embedder looks at of a passage.
struct Reach<'a> {
    /// Most tokens.
    tokens: usize,
    /// Where each token of a text ends, in bytes.
    ends: &'a dyn Fn(&str) -> Vec<usize>,
}

impl Reach<'_> {
    fn size(&self, text: &str) -> usize {
        (self.ends)(text).len()
    }
}

/// Passages of all texts in `folder` and below, in the order of their names, none longer than `embedder` reads.
pub fn read(folder: &Path, embedder: &Embedder) -> anyhow::Result<Read> {
    let reach =
        Reach { tokens: embedder.passage_tokens(), ends: &|text| embedder.token_ends(text) };
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
                let found = passages(without_bom(&text), &reach);
                read.passages.extend(found.into_iter().map(passage));
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
fn passages(text: &str, reach: &Reach) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = vec![];
    let mut open: Option<(usize, String, usize)> = None; // line, text, tokens
    let [between_paragraphs, between_sentences] = ["\n\n", " "].map(|gap| (gap, reach.size(gap)));
    let mut add = |line: usize, piece: &str, tokens: usize, (gap, gap_tokens): (&str, usize)| {
        let joins = open.as_ref().is_some_and(|(_, text, before)| {
            text.chars().count() + gap.len() + piece.chars().count() <= PASSAGE
                && before + gap_tokens + tokens <= reach.tokens
        });
        match &mut open {
            Some((_, text, before)) if joins => {
                text.push_str(gap);
                text.push_str(piece);
                *before += gap_tokens + tokens;
            }
            _ => {
                let done = open.replace((line, piece.to_string(), tokens));
                found.extend(done.map(|(line, text, _)| (line, text)));
            }
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
        let short = paragraph.chars().count() <= PASSAGE;
        let tokens = short.then(|| reach.size(paragraph)).filter(|n| *n <= reach.tokens);
        if let Some(tokens) = tokens {
            add(first, paragraph, tokens, between_paragraphs);
            continue;
        }
        let mut at = first;
        for sentence in sentences::split(paragraph) {
            for (piece, tokens) in cut(sentence.text, reach) {
                add(at, piece, tokens, between_sentences);
            }
            at += sentence.text.matches('\n').count() + sentence.gap.matches('\n').count();
        }
    }
    found.extend(open.map(|(line, text, _)| (line, text)));
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

/// Pieces of at most [`PASSAGE`] characters that the embedder reads to their ends, and their tokens, for what has no
/// sentences.
fn cut<'t>(text: &'t str, reach: &Reach) -> Vec<(&'t str, usize)> {
    let mut pieces = vec![];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.char_indices().nth(PASSAGE).map_or(rest.len(), |(end, _)| end);
        let ends = (reach.ends)(&rest[..end]);
        let end = match ends.get(reach.tokens) {
            None => end,
            // A character of several tokens stays whole.
            Some(over) => {
                let whole = |end: &&usize| *end < over && rest.is_char_boundary(**end);
                ends.iter().filter(whole).max().copied().unwrap_or(0).max(first.len_utf8())
            }
        };
        pieces.push((&rest[..end], ends.iter().filter(|token| **token <= end).count()));
        rest = &rest[end..];
    }
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
            let embedded = embedder.embed_after(&embedder.prompts.document, &texts, BATCH);
            vectors.extend(embedded.into_iter().map(Vector::new));
            progress(vectors.len());
        }
        let places = (0..passages.len() as u32).collect();
        let builder = Builder::default().seed(0).ef_construction(CANDIDATES).ef_search(CANDIDATES);
        Self { model: model.into(), graph: builder.build(vectors, places), passages }
    }

    /// The nearest passages, the best first.
    pub fn search(&self, embedder: &Embedder, question: &str, count: usize) -> Vec<Hit<'_>> {
        let asked = embedder.embed_after(&embedder.prompts.query, &[question], 1).remove(0);
        let found = nearest(&self.graph, &Vector::new(asked), count).into_iter();
        found
            .map(|(place, distance)| Hit {
                passage: &self.passages[place as usize],
                score: 1.0 - distance,
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

/// Places of the nearest vectors and how far they are, the nearest first.
fn nearest(graph: &HnswMap<Vector, u32>, vector: &Vector, count: usize) -> Vec<(u32, f32)> {
    if count <= CANDIDATES / 4 {
        let mut search = Search::default();
        let found = graph.search(vector, &mut search).take(count);
        return found.map(|item| (*item.value, item.distance)).collect();
    }
    // The graph would miss more of so many, and has no more than its candidates: every vector is looked at.
    let mut all: Vec<(u32, f32)> = graph
        .iter()
        .zip(&graph.values)
        .map(|((_, other), place)| (*place, vector.distance(other)))
        .collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all.truncate(count);
    all
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

    /// A token a character.
    fn passages(text: &str, tokens: usize) -> Vec<(usize, String)> {
        let ends = |text: &str| -> Vec<usize> {
            text.char_indices().map(|(at, c)| at + c.len_utf8()).collect()
        };
        super::passages(text, &Reach { tokens, ends: &ends })
    }

    #[test]
    fn paragraphs_become_passages_with_their_lines() {
        let passages = |text: &str| passages(text, usize::MAX);
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
    fn a_passage_has_no_more_tokens_than_are_read() {
        let found = passages("一二三。四五六。\n\n七八", 6);
        let expected = [(1, "一二三。"), (1, "四五六。"), (3, "七八")];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_string())));
        assert_eq!(passages("一\n\n二\n\n三", 6).len(), 2, "what is between them counts");
        let endless = "字".repeat(2000);
        let found = passages(&endless, 254);
        assert!(found.iter().all(|(_, text)| text.chars().count() <= 254));
        assert_eq!(found.len(), 8);
        assert_eq!(found.into_iter().map(|(_, text)| text).collect::<String>(), endless);
    }

    /// Bytes as tokens: a cut within a character would be none.
    #[test]
    fn a_character_of_several_tokens_is_not_cut() {
        let bytes = |text: &str| -> Vec<usize> {
            text.char_indices().flat_map(|(at, c)| vec![at + c.len_utf8(); c.len_utf8()]).collect()
        };
        let found = |tokens| cut("字字a字", &Reach { tokens, ends: &bytes });
        assert_eq!(found(7), [("字字a", 7), ("字", 3)]);
        assert_eq!(found(5), [("字", 3), ("字a", 4), ("字", 3)]);
        assert_eq!(found(1), [("字", 3), ("字", 3), ("a", 1), ("字", 3)]);
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
            let near = nearest(&graph, &question, 10);
            let is_near = |place: &&usize| near.iter().any(|(near, _)| *near as usize == **place);
            found += all[..10].iter().filter(is_near).count();
            let many: Vec<usize> =
                nearest(&graph, &question, 250).iter().map(|(place, _)| *place as usize).collect();
            assert_eq!(many, all[..250]);
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
