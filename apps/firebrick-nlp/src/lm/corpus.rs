//! A data set as streams of token ids: by character, by word, or by the pieces of a tokenizer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, ensure};
use firebrick_data::{error::DataError, manifest, table::Row};
use serde_json::json;

use super::{recipe::Unit, verse};
use crate::{
    classification::corpus::read_split,
    tokenizer::{TextTokenizer, train_byte_bpe},
};

/// Ends every line of a corpus of words.
pub const END: &str = "<eos>";
/// What is not in the vocabulary.
pub const UNKNOWN: &str = "<unk>";

/// A character of verse that occurs less often in the training part is `<unk>`.
const RARE: usize = 3;

/// One part of a corpus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    pub ids: Vec<u32>,
    /// Of the text that the tokens stand for: what nats and bits a character are counted by.
    pub characters: usize,
}

/// A text to learn from, to choose by, and to judge once.
pub struct Corpus {
    /// Turns text into the streams' ids and back; what `nlp generate` reads and writes with.
    pub tokenizer: TextTokenizer,
    pub vocab_size: usize,
    pub train: Stream,
    pub valid: Stream,
    pub test: Stream,
}

/// A data set by its id, whose files lie in `folder`: `tinyshakespeare` and `chinese-poetry` by character, `ptb` by word,
/// the texts of a classification set by `vocab_size` pieces.
pub fn load(id: &str, folder: &Path, vocab_size: usize) -> anyhow::Result<Corpus> {
    match id {
        "tinyshakespeare" => characters(&read(id, folder, "input.txt")?),
        "ptb" => words(penn(id, folder)?.each_ref().map(String::as_str)),
        "chinese-poetry" => {
            let parts = verses(id, folder)?;
            by_character(&parts.each_ref().map(|text| text.chars().collect::<Vec<char>>()), RARE)
        }
        _ => pieces(&text(id, folder)?, vocab_size),
    }
}

/// The same parts by the tokens of a checkpoint, which may have been trained on them: one that learns on must not read what
/// it is judged by.
pub fn load_with(id: &str, folder: &Path, tokenizer: TextTokenizer) -> anyhow::Result<Corpus> {
    match id {
        "tinyshakespeare" => tokens(&read(id, folder, "input.txt")?, Unit::Character, tokenizer),
        "ptb" => {
            let parts = penn(id, folder)?;
            // A model of these words knows the end of a line as a word.
            let ended = tokenizer.token_id(END).is_some();
            let line =
                |line: &str| if ended { format!("{line} {END}") } else { format!("{line}\n") };
            Ok(in_parts(parts, tokenizer, line))
        }
        "chinese-poetry" => {
            Ok(in_parts(verses(id, folder)?, tokenizer, |line| format!("{line}\n")))
        }
        _ => tokens(&text(id, folder)?, Unit::Piece, tokenizer),
    }
}

/// Training, validation and test part of the Penn Treebank.
fn penn(id: &str, folder: &Path) -> anyhow::Result<[String; 3]> {
    let part = |name| read(id, folder, name);
    Ok([part("train.txt")?, part("valid.txt")?, part("test.txt")?])
}

/// Training, validation and test part of the verse.
fn verses(id: &str, folder: &Path) -> anyhow::Result<[String; 3]> {
    let part = |name| verse::read(&read(id, folder, name)?).with_context(|| name.to_string());
    Ok([part("train.jsonl")?, part("valid.jsonl")?, part("test.jsonl")?])
}

fn read(id: &str, folder: &Path, name: &str) -> anyhow::Result<String> {
    let nested = folder.join(id).join(name);
    let path = if nested.exists() { nested } else { folder.join(name) };
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// One text by character. Its last tenth is the test part; of the rest, ten blocks of a hundredth each, spread evenly, are
/// the validation part, so that no choice is made on what is reported, and the training part has something of everything.
///
/// Characters that the training part does not have are `<unk>`, id 0.
pub fn characters(text: &str) -> anyhow::Result<Corpus> {
    let text: Vec<char> = text.chars().collect();
    let parts = parts(&text);
    ensure!(!parts[1].is_empty(), too_little(text.len(), "characters"));
    by_character(&parts, 1)
}

/// Characters that the training part has `fewest` times; others are `<unk>`, id 0.
fn by_character(parts: &[Vec<char>; 3], fewest: usize) -> anyhow::Result<Corpus> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    parts[0].iter().for_each(|c| *counts.entry(*c).or_default() += 1);
    let kept = counts.into_iter().filter(|(_, count)| *count >= fewest);
    let alphabet: Vec<char> = kept.map(|(c, _)| c).collect();
    let names: Vec<String> = alphabet.iter().map(char::to_string).collect();
    let model = json!({
        "type": "BPE", "unk_token": UNKNOWN, "fuse_unk": false, "byte_fallback": false,
        "vocab": numbered(&names), "merges": [],
    });
    let tokenizer = tokenizer(model, json!(null), json!({"type": "Fuse"}))?;
    let id = |c: &char| alphabet.binary_search(c).map_or(0, |place| place as u32 + 1);
    let stream =
        |part: &Vec<char>| Stream { ids: part.iter().map(id).collect(), characters: part.len() };
    let [train, valid, test] = parts.each_ref().map(stream);
    Ok(Corpus { tokenizer, vocab_size: alphabet.len() + 1, train, valid, test })
}

/// Texts of a sentence a line by word, each line ended by `<eos>`, as Mikolov et al. 2010 count the Penn Treebank. The
/// vocabulary is that of the first; other words are `<unk>`.
pub fn words([train, valid, test]: [&str; 3]) -> anyhow::Result<Corpus> {
    let mut vocabulary: BTreeSet<&str> = train.split_whitespace().collect();
    ensure!(!vocabulary.is_empty(), DataError::TooLittle("the training text has no word".into()));
    vocabulary.remove(UNKNOWN);
    vocabulary.insert(END);
    let vocabulary: Vec<&str> = vocabulary.into_iter().collect();
    let model = json!({"type": "WordLevel", "unk_token": UNKNOWN, "vocab": numbered(&vocabulary)});
    let tokenizer = tokenizer(model, json!({"type": "WhitespaceSplit"}), json!(null))?;
    let id = |word: &str| vocabulary.binary_search(&word).map_or(0, |place| place as u32 + 1);
    let stream = |text: &str| {
        let lines = text.lines();
        let ids = lines.flat_map(|line| line.split_whitespace().chain([END]).map(id)).collect();
        Stream { ids, characters: text.chars().count() }
    };
    let vocab_size = vocabulary.len() + 1;
    let [train, valid, test] = [train, valid, test].map(stream);
    Ok(Corpus { tokenizer, vocab_size, train, valid, test })
}

/// One text as one stream, by the tokens of a model, which may know the end of a line as a word.
pub fn whole(text: &str, tokenizer: &TextTokenizer) -> Stream {
    let ended = tokenizer.token_id(END).is_some();
    let line = |line: &str| match line.strip_suffix('\n') {
        Some(line) if ended => tokenizer.encode_with(&format!("{line} {END}"), usize::MAX, false),
        _ => tokenizer.encode_with(line, usize::MAX, false),
    };
    Stream {
        ids: text.split_inclusive('\n').flat_map(line).collect(),
        characters: text.chars().count(),
    }
}

/// One text by the pieces of byte-level BPE, whose merges are learned on the training part; split as [`characters`].
pub fn pieces(text: &str, vocab_size: usize) -> anyhow::Result<Corpus> {
    let lines = text.split_inclusive('\n').collect();
    by_piece(lines, |train| train_byte_bpe(train.iter().copied(), vocab_size, 2, false))
}

/// One text by the tokens of a checkpoint, split as a model of this unit had it.
pub fn tokens(text: &str, unit: Unit, tokenizer: TextTokenizer) -> anyhow::Result<Corpus> {
    let cut = match unit {
        Unit::Character => text.split_inclusive(|_: char| true).collect(),
        Unit::Piece => text.split_inclusive('\n').collect(),
    };
    by_piece(cut, |_| Ok::<_, anyhow::Error>(tokenizer))
}

/// Texts by the tokens of a checkpoint; `read` is what it reads of a line without its end.
fn in_parts(parts: [String; 3], tokenizer: TextTokenizer, read: impl Fn(&str) -> String) -> Corpus {
    let ids = |line: &str| tokenizer.encode_with(&read(line), usize::MAX, false);
    let [train, valid, test] = parts.map(|text| Stream {
        ids: text.lines().flat_map(ids).collect(),
        characters: text.chars().count(),
    });
    Corpus { vocab_size: tokenizer.vocab_size(), tokenizer, train, valid, test }
}

/// The text of a classification set: what its training rows say, a row a line.
fn text(id: &str, folder: &Path) -> anyhow::Result<String> {
    ensure!(
        manifest::layout(id).is_some(),
        DataError::WrongSet(format!(
            "data set `{id}` is not one to model language on: tinyshakespeare, ptb, chinese-poetry, or one of text classification"
        ))
    );
    let line = |row: Row| row.text.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    Ok(read_split(folder, id, "train")?.rows.into_iter().map(line).collect())
}

fn too_little(count: usize, what: &str) -> DataError {
    DataError::TooLittle(format!("{count} {what}: too few to be split in three"))
}

/// A text that is cut into lines or characters.
fn by_piece<E: Into<anyhow::Error>>(
    cut: Vec<&str>,
    tokenizer: impl FnOnce(&[&str]) -> Result<TextTokenizer, E>,
) -> anyhow::Result<Corpus> {
    let parts = parts(&cut);
    ensure!(!parts[1].is_empty(), too_little(cut.len(), "lines or characters"));
    let tokenizer = tokenizer(&parts[0]).map_err(Into::into)?;
    let stream = |part: Vec<&str>| {
        let text = part.concat();
        let lines = text.split_inclusive('\n');
        let ids = lines.flat_map(|line| tokenizer.encode_with(line, usize::MAX, false)).collect();
        Stream { ids, characters: text.chars().count() }
    };
    let [train, valid, test] = parts.map(stream);
    Ok(Corpus { vocab_size: tokenizer.vocab_size(), tokenizer, train, valid, test })
}

/// Training, validation and test part: the last tenth, and of the rest every tenth of a hundred blocks.
fn parts<T: Copy>(all: &[T]) -> [Vec<T>; 3] {
    let (rest, test) = all.split_at(all.len() * 9 / 10);
    let (mut train, mut valid) = (vec![], vec![]);
    for (number, block) in rest.chunks(rest.len().div_ceil(100).max(1)).enumerate() {
        let part = if number % 10 == 9 { &mut valid } else { &mut train };
        part.extend_from_slice(block);
    }
    [train, valid, test.to_vec()]
}

/// Ids from 1 on; 0 is `<unk>`.
fn numbered<S: AsRef<str>>(names: &[S]) -> serde_json::Map<String, serde_json::Value> {
    let names = std::iter::once(UNKNOWN).chain(names.iter().map(AsRef::as_ref));
    names.enumerate().map(|(id, name)| (name.to_string(), json!(id))).collect()
}

fn tokenizer(
    model: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    decoder: serde_json::Value,
) -> anyhow::Result<TextTokenizer> {
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
    });
    Ok(TextTokenizer::from_bytes(file.to_string().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_character() {
        let text = "abca\nbcab".repeat(30) + "!";
        let corpus = characters(&text).unwrap();
        assert_eq!(corpus.vocab_size, 5);
        let [train, valid, test] = [&corpus.train, &corpus.valid, &corpus.test];
        assert_eq!([train, valid, test].map(|part| part.characters), [219, 24, 28]);
        assert_eq!(test.ids.last(), Some(&0), "`!` is not in the training part");
        // The tokenizer is the streams'.
        assert_eq!(corpus.tokenizer.encode("ab\nc!", usize::MAX), [2, 3, 1, 4, 0]);
        assert_eq!(corpus.tokenizer.decode(&train.ids[..27]), text[..27]);
        assert_eq!(corpus.tokenizer.decode(&valid.ids[..3]), text[27..30]);
    }

    #[test]
    fn by_word() {
        let corpus =
            words([" the cat sat \n the <unk> ran \n", " the dog \n", " cat \n\n"]).unwrap();
        // <unk>, <eos>, cat, ran, sat, the
        assert_eq!(corpus.vocab_size, 6);
        assert_eq!(corpus.train.ids, [5, 2, 4, 1, 5, 0, 3, 1]);
        assert_eq!(corpus.valid.ids, [5, 0, 1]);
        assert_eq!(corpus.test.ids, [2, 1, 1]);
        assert_eq!(corpus.tokenizer.encode("the cat <eos>", usize::MAX), [5, 2, 1]);
        assert_eq!(corpus.tokenizer.decode(&[5, 2, 1]), "the cat <eos>");
    }

    /// A file by itself is read as the parts of a set are.
    #[test]
    fn a_whole_text_is_one_stream() {
        let text = "the cat sat\nthe dog\n";
        let made = words([text, "the cat\n", "sat\n"]).unwrap();
        assert_eq!(whole(text, &made.tokenizer), made.train);
        let text = "abc\nbca\n".repeat(40);
        let made = characters(&text).unwrap();
        let parts = [&made.train, &made.valid, &made.test];
        let stream = whole(&text, &made.tokenizer);
        assert_eq!(stream.ids.len(), parts.iter().map(|part| part.ids.len()).sum::<usize>());
        assert_eq!(made.tokenizer.decode(&stream.ids), text);
    }

    #[test]
    fn by_piece() {
        let text = "the cat sat on the mat\n".repeat(40);
        let corpus = pieces(&text, 300).unwrap();
        let all = [&corpus.train, &corpus.valid, &corpus.test];
        for part in all {
            let decoded = corpus.tokenizer.decode(&part.ids);
            assert_eq!(decoded, "the cat sat on the mat\n".repeat(part.characters / 23));
        }
        assert_eq!(all.iter().map(|part| part.characters).sum::<usize>(), text.len());
        assert!(corpus.train.ids.len() < corpus.train.characters / 3);
    }

    /// A checkpoint that learns on has the parts that it had when it was made.
    #[test]
    fn a_checkpoints_parts_are_those_it_was_trained_on() {
        let text = "the cat sat\non the mat\n".repeat(50);
        let check = |made: Corpus, unit| {
            let parts = [made.train, made.valid, made.test];
            let again = tokens(&text, unit, made.tokenizer).unwrap();
            assert_eq!([again.train, again.valid, again.test], parts, "{unit:?}");
        };
        check(characters(&text).unwrap(), Unit::Character);
        check(pieces(&text, 300).unwrap(), Unit::Piece);
    }

    /// And so has one of a set that comes in parts: words and characters that are not in the training part stay unknown.
    #[test]
    fn a_checkpoint_of_a_known_set_reads_its_parts_again() {
        let home = tempfile::tempdir().unwrap();
        let check = |id: &str, ending: &str, texts: [&str; 3]| {
            for (part, text) in ["train", "valid", "test"].iter().zip(texts) {
                fs::write(home.path().join(format!("{part}.{ending}")), text).unwrap();
            }
            let made = load(id, home.path(), 300).unwrap();
            let parts = [made.train, made.valid, made.test];
            let again = load_with(id, home.path(), made.tokenizer).unwrap();
            assert_eq!([again.train, again.valid, again.test], parts, "{id}");
            assert_eq!(again.vocab_size, made.vocab_size);
            assert!(parts.iter().all(|part| part.ids.len() > 4));
        };
        let lines = " the cat <unk> on the mat \n\n a dog sat \n";
        check("ptb", "txt", [lines, " the dog ran off \n", " a cat sat on a bird \n"]);
        let poem = |text: &str| {
            format!("{{\"form\": \"tang\", \"title\": \"春\", \"text\": \"{text}\"}}\n")
        };
        let train = poem("春眠不覺曉，處處聞啼鳥。").repeat(3);
        check("chinese-poetry", "jsonl", [&train, &poem("春眠聞鳥。"), &poem("夜來風雨聲。")]);
        // Another tokenizer reads lines as they are.
        let pieces = pieces(&"the cat sat on the mat\n".repeat(40), 300).unwrap();
        let read = load_with("ptb", home.path(), pieces.tokenizer).unwrap();
        assert_eq!(read.tokenizer.decode(&read.valid.ids), " the dog ran off \n");
    }

    #[test]
    fn too_little_is_an_error() {
        assert!(characters("a").is_err());
        assert!(words(["", "a", "b"]).is_err());
        assert!(pieces("one line\n", 300).is_err());
    }
}
