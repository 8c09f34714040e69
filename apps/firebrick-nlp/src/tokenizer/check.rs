//! The structure of a `tokenizer.json`, checked before the `tokenizers` crate builds from it.
//!
//! That crate numbers added tokens by itself, keeps the last of two equal ids, and panics on some
//! broken parts (a cut character map, a template with unknown tokens, a step limit in a pattern).
//! Here each of those is an error that names the part. Messages leave the path to the caller.

use std::collections::BTreeMap;

use firebrick_core::checkpoint::json::quoted;
use serde_json::{Map, Value};

use super::pattern;

/// Longest token of a Unigram model, in bytes; SentencePiece stops at 16 characters by default.
const UNIGRAM_LIMIT: usize = 512;

/// Longest word that WordPiece cuts, in characters (BERT: 100); its time grows with the square.
const WORD_LIMIT: u64 = 1000;

/// Parts of a template, and steps of a sequence.
const PARTS_LIMIT: usize = 64;

/// Times that normalisation may lengthen a text.
const GROWTH_LIMIT: u64 = 8;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerProblem {
    #[error("{0} is missing")]
    Missing(&'static str),

    #[error("{field} {problem}")]
    Value { field: &'static str, problem: String },

    #[error("model type {} is none of BPE, WordPiece, WordLevel, Unigram", quoted(.0))]
    UnknownModel(String),

    #[error("model.vocab is empty")]
    NoTokens,

    #[error("tokens {} and {} have the same id {id}", quoted(first), quoted(second))]
    SameId { id: u64, first: String, second: String },

    #[error("token {} has id {id}, but there are {count} tokens, numbered from 0", quoted(token))]
    IdOutOfRange { token: String, id: String, count: usize },

    #[error("merge {at} names {}, which is not a token", quoted(token))]
    MergeToken { at: usize, token: String },

    #[error("merge {at} is not of two tokens")]
    Merge { at: usize },

    #[error("added token {} has id {id}, it should be {expected}", quoted(token))]
    AddedId { token: String, id: String, expected: u64 },

    #[error("the regex pattern {} is not taken: {problem}", quoted(pattern))]
    Pattern { pattern: String, problem: String },
}

fn bad(field: &'static str, problem: impl Into<String>) -> TokenizerProblem {
    TokenizerProblem::Value { field, problem: problem.into() }
}

/// What loading must know of a sound file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure {
    /// Longest text that its patterns can be let loose on, in bytes.
    pub text_limit: Option<usize>,
}

/// Checks what the crate does not.
pub fn check(file: &Value) -> Result<Structure, TokenizerProblem> {
    let Value::Object(file) = file else { return Err(bad("the file", "is not a JSON object")) };
    let model = match file.get("model") {
        Some(Value::Object(model)) => model,
        Some(_) => return Err(bad("model", "is not an object")),
        None => return Err(TokenizerProblem::Missing("model")),
    };
    let mut ids = check_model(model)?;
    check_added(file, &mut ids)?;
    if let Some(normalizer) = present(file, "normalizer") {
        check_normalizer(normalizer)?;
    }
    if let Some(pre_tokenizer) = present(file, "pre_tokenizer") {
        each_part(pre_tokenizer, "pretokenizers", &mut |part| match part
            .get("type")
            .and_then(Value::as_str)
        {
            Some("FixedLength") if part.get("length") == Some(&Value::from(0)) => {
                Err(bad("pre_tokenizer.length", "is 0"))
            }
            _ => Ok(()),
        })?;
    }
    if let Some(processor) = present(file, "post_processor") {
        each_part(processor, "processors", &mut |part| check_processor(part, &ids))?;
    }
    if let Some(decoder) = present(file, "decoder") {
        each_part(decoder, "decoders", &mut |part| match part.get("stop") {
            // The crate's loop over `stop` runs past the front of a short token.
            Some(stop) if stop.as_u64() != Some(0) => {
                Err(bad("decoder.stop", "is not 0: a strip at the end is not supported"))
            }
            _ => Ok(()),
        })?;
    }
    let mut square = 0;
    for value in file.values() {
        check_patterns(value, &mut square)?;
    }
    Ok(Structure { text_limit: pattern::text_limit(square) })
}

fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// Calls `check` on a part, or on each of the parts that it is a sequence of.
fn each_part(
    part: &Value,
    list: &str,
    check: &mut impl FnMut(&Map<String, Value>) -> Result<(), TokenizerProblem>,
) -> Result<(), TokenizerProblem> {
    let Value::Object(object) = part else { return Ok(()) };
    match object.get(list) {
        Some(Value::Array(parts)) if parts.len() > PARTS_LIMIT => Err(bad(
            "a sequence",
            format!("has {} parts, above the limit of {PARTS_LIMIT}", parts.len()),
        )),
        Some(Value::Array(parts)) => parts.iter().try_for_each(|part| each_part(part, list, check)),
        _ => check(object),
    }
}

type Ids<'a> = BTreeMap<&'a str, u64>;

/// Checks the model; returns its tokens.
fn check_model(model: &Map<String, Value>) -> Result<Ids<'_>, TokenizerProblem> {
    let kind = match model.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => return Err(bad("model.type", "is not a text")),
        None => return Err(TokenizerProblem::Missing("model.type")),
    };
    let vocab = model.get("vocab").ok_or(TokenizerProblem::Missing("model.vocab"));
    let ids = match kind {
        "BPE" | "WordPiece" | "WordLevel" => numbered(vocab?)?,
        "Unigram" => scored(vocab?)?,
        _ => return Err(TokenizerProblem::UnknownModel(kind.into())),
    };
    if ids.is_empty() {
        return Err(TokenizerProblem::NoTokens);
    }
    match present(model, "unk_token") {
        Some(Value::String(token)) if !ids.contains_key(token.as_str()) => {
            return Err(bad("model.unk_token", format!("{} is not a token", quoted(token))));
        }
        Some(Value::String(_)) => {}
        Some(_) => return Err(bad("model.unk_token", "is not a text")),
        None if kind == "WordPiece" || kind == "WordLevel" => {
            return Err(TokenizerProblem::Missing("model.unk_token"));
        }
        None => {}
    }
    match kind {
        "BPE" => check_merges(model, &ids)?,
        "WordPiece" => match present(model, "max_input_chars_per_word") {
            Some(limit) if limit.as_u64().is_none_or(|limit| limit > WORD_LIMIT) => {
                let problem = format!("is not a whole number up to {WORD_LIMIT}");
                return Err(bad("model.max_input_chars_per_word", problem));
            }
            _ => {}
        },
        "Unigram" => match present(model, "unk_id").map(Value::as_u64) {
            Some(Some(id)) if id < ids.len() as u64 => {}
            Some(_) => return Err(bad("model.unk_id", "is not the id of a token")),
            None => return Err(TokenizerProblem::Missing("model.unk_id")),
        },
        _ => {}
    }
    Ok(ids)
}

/// `{"token": id}`; ids are 0 to the number of tokens, each once.
fn numbered(vocab: &Value) -> Result<Ids<'_>, TokenizerProblem> {
    let Value::Object(vocab) = vocab else { return Err(bad("model.vocab", "is not an object")) };
    let count = vocab.len();
    let mut names: Vec<Option<&str>> = vec![None; count];
    let mut ids = Ids::new();
    for (token, value) in vocab {
        let id = value.as_u64();
        let slot = id.and_then(|id| names.get_mut(usize::try_from(id).ok()?));
        let (Some(id), Some(slot)) = (id, slot) else {
            let (token, id) = (token.clone(), shown(value));
            return Err(TokenizerProblem::IdOutOfRange { token, id, count });
        };
        if let Some(first) = slot.replace(token) {
            let (first, second) = (first.into(), token.clone());
            return Err(TokenizerProblem::SameId { id, first, second });
        }
        ids.insert(token.as_str(), id);
    }
    Ok(ids)
}

/// `[["token", score]]`.
fn scored(vocab: &Value) -> Result<Ids<'_>, TokenizerProblem> {
    let Value::Array(vocab) = vocab else { return Err(bad("model.vocab", "is not an array")) };
    let mut ids = Ids::new();
    for (id, entry) in vocab.iter().enumerate() {
        let Some([Value::String(token), Value::Number(_)]) = entry.as_array().map(Vec::as_slice)
        else {
            return Err(bad("model.vocab", format!("entry {id} is not a token and its score")));
        };
        if token.is_empty() || token.len() > UNIGRAM_LIMIT {
            let problem = format!("token {id} has {} bytes, not 1 to {UNIGRAM_LIMIT}", token.len());
            return Err(bad("model.vocab", problem));
        }
        if ids.insert(token, id as u64).is_some() {
            return Err(bad("model.vocab", format!("holds {} twice", quoted(token))));
        }
    }
    Ok(ids)
}

/// A number in a message; another value by its kind.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        _ => "that is not a number".into(),
    }
}

fn check_merges(model: &Map<String, Value>, ids: &Ids) -> Result<(), TokenizerProblem> {
    if present(model, "dropout").is_some_and(|dropout| dropout.as_f64() != Some(0.0)) {
        return Err(bad(
            "model.dropout",
            "is set: the same text would be cut differently each time",
        ));
    }
    let merges = match model.get("merges") {
        Some(Value::Array(merges)) => merges,
        Some(_) => return Err(bad("model.merges", "is not an array")),
        None => return Err(TokenizerProblem::Missing("model.merges")),
    };
    let prefix =
        present(model, "continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    for (at, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' ').filter(|(_, second)| !second.contains(' ')),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(first), Value::String(second)] => {
                    Some((first.as_str(), second.as_str()))
                }
                _ => None,
            },
            _ => None,
        };
        let (first, second) = pair.ok_or(TokenizerProblem::Merge { at })?;
        // The merged token leaves out the second part's prefix.
        let rest = second.strip_prefix(prefix).ok_or(TokenizerProblem::Merge { at })?;
        let merged = format!("{first}{rest}");
        for token in [first, second, &merged] {
            if !ids.contains_key(token) {
                return Err(TokenizerProblem::MergeToken { at, token: token.into() });
            }
        }
    }
    Ok(())
}

/// The crate gives an added token the id of a token of that name, or the next number, whatever the
/// file says.
fn check_added<'a>(
    file: &'a Map<String, Value>,
    ids: &mut Ids<'a>,
) -> Result<(), TokenizerProblem> {
    let added = match present(file, "added_tokens") {
        Some(Value::Array(added)) => added,
        Some(_) => return Err(bad("added_tokens", "is not an array")),
        None => return Ok(()),
    };
    for entry in added {
        let Some(Value::String(token)) = entry.get("content") else {
            return Err(bad("added_tokens", "has an entry without content"));
        };
        if token.is_empty() {
            return Err(bad("added_tokens", "has an entry with empty content"));
        }
        let id = entry.get("id").unwrap_or(&Value::Null);
        let next = ids.len() as u64;
        let expected = *ids.entry(token).or_insert(next);
        if id.as_u64() != Some(expected) {
            return Err(TokenizerProblem::AddedId {
                token: token.clone(),
                id: shown(id),
                expected,
            });
        }
    }
    Ok(())
}

fn check_normalizer(normalizer: &Value) -> Result<(), TokenizerProblem> {
    let mut growth: u64 = 1;
    each_part(normalizer, "normalizers", &mut |part| {
        if let Some(Value::String(map)) = part.get("precompiled_charsmap") {
            return check_charsmap(map)
                .map_err(|problem| bad("normalizer.precompiled_charsmap", problem));
        }
        let length = |key: &str| {
            part.get(key).and_then(Value::as_str).map(|text| text.chars().count() as u64)
        };
        if length("prepend").is_some_and(|length| length > 64) {
            return Err(bad("normalizer.prepend", "is longer than 64 characters"));
        }
        if let Some(content) = length("content") {
            let pattern = part.get("pattern");
            let inner =
                |kind: &str| pattern.and_then(|pattern| pattern.get(kind)).and_then(Value::as_str);
            let factor = match (inner("String"), inner("Regex")) {
                (Some(""), _) => return Err(bad("normalizer.pattern", "is empty")),
                (Some(text), _) => content.div_ceil(text.chars().count() as u64),
                // One that matches nothing puts its content before every character.
                (_, Some(regex)) => content + u64::from(check_pattern(regex)?.nullable),
                _ => 1,
            };
            growth = growth.saturating_mul(factor.max(1));
            if growth > GROWTH_LIMIT {
                return Err(bad(
                    "normalizer",
                    format!("makes a text more than {GROWTH_LIMIT} times as long"),
                ));
            }
        }
        Ok(())
    })
}

fn check_processor(part: &Map<String, Value>, ids: &Ids) -> Result<(), TokenizerProblem> {
    let count = ids.len() as u64;
    let sound = |token: &Value, id: &Value| {
        let known = token.as_str().and_then(|token| ids.get(token));
        id.as_u64().is_some_and(|id| id < count && known.is_none_or(|known| *known == id))
    };
    for field in ["sep", "cls"] {
        if let Some(pair) = part.get(field)
            && !matches!(pair.as_array().map(Vec::as_slice), Some([token, id]) if sound(token, id))
        {
            return Err(bad("post_processor", format!("{field} is not a token and its id")));
        }
    }
    let empty = Map::new();
    let special = part.get("special_tokens").and_then(Value::as_object).unwrap_or(&empty);
    for (name, token) in special {
        let list = |key: &str| token.get(key).and_then(Value::as_array).map(Vec::as_slice);
        let (Some(tokens), Some(ids)) = (list("tokens"), list("ids")) else {
            return Err(bad(
                "post_processor.special_tokens",
                format!("{} has no ids or tokens", quoted(name)),
            ));
        };
        let pairs = tokens.iter().zip(ids).all(|(token, id)| sound(token, id));
        if tokens.len() != ids.len() || ids.is_empty() || ids.len() > PARTS_LIMIT || !pairs {
            let problem = format!("{} is not made of tokens and their ids", quoted(name));
            return Err(bad("post_processor.special_tokens", problem));
        }
    }
    for field in ["single", "pair"] {
        let Some(Value::Array(pieces)) = part.get(field) else { continue };
        if pieces.len() > PARTS_LIMIT {
            return Err(bad("post_processor", format!("{field} has {} parts", pieces.len())));
        }
        for piece in pieces {
            let id =
                piece.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str);
            if let Some(id) = id
                && !special.contains_key(id)
            {
                let problem =
                    format!("{field} names {}, which is not in special_tokens", quoted(id));
                return Err(bad("post_processor", problem));
            }
        }
    }
    Ok(())
}

/// Every `{"Regex": ...}`, wherever it stands; adds up how their time grows.
fn check_patterns(value: &Value, square: &mut u64) -> Result<(), TokenizerProblem> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_patterns(item, square)),
        Value::Object(object) => object.iter().try_for_each(|(key, value)| match value {
            Value::String(pattern) if key == "Regex" => {
                *square += check_pattern(pattern)?.square;
                Ok(())
            }
            _ => check_patterns(value, square),
        }),
        _ => Ok(()),
    }
}

fn check_pattern(pattern: &str) -> Result<pattern::Pattern, TokenizerProblem> {
    pattern::check(pattern)
        .map_err(|problem| TokenizerProblem::Pattern { pattern: pattern.into(), problem })
}

/// SentencePiece's character map: length of a double-array trie, the trie, then texts that end in
/// NUL. Every step through the trie and every text must lie inside.
fn check_charsmap(text: &str) -> Result<(), String> {
    let bytes = base64(text).ok_or("is not base64")?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("is cut")?;
    let size = u32::from_le_bytes(*size) as usize;
    if size > rest.len() || !size.is_multiple_of(4) || size == 0 {
        return Err(format!("says that its table has {size} bytes, {} follow", rest.len()));
    }
    let (table, texts) = rest.split_at(size);
    let texts = std::str::from_utf8(texts).map_err(|_| "holds a text that is not UTF-8")?;
    let units: Vec<usize> =
        table.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    // Follows the trie as `Darts::DoubleArray` defines it, from the root: a child lies at the base
    // exclusive-or its byte, and bears that byte as its label.
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let mut seen = vec![false; units.len()];
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        let unit = units[at];
        let base = at ^ offset(unit);
        // A look-up tries any byte at the base.
        if base | 0xff >= units.len() {
            return Err("leads outside its table".into());
        }
        if at != 0 && unit >> 8 & 1 == 1 {
            let start = units[base] & ((1 << 31) - 1);
            if !texts.is_char_boundary(start) {
                return Err("leads outside its texts".into());
            }
        }
        for byte in 1..256 {
            let child = base ^ byte;
            if units[child] & ((1 << 31) | 0xff) == byte
                && !std::mem::replace(&mut seen[child], true)
            {
                open.push(child);
            }
        }
    }
    Ok(())
}

/// Standard alphabet with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let digits = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(bytes);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tokenizer::TextTokenizer;

    fn bpe() -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [{"id": 0, "content": "<unk>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": false,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "byte_fallback": false,
                "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
        })
    }

    #[track_caller]
    fn check_refused(pointer: &str, value: Value, expected: &str) {
        let mut file = bpe();
        *file.pointer_mut(pointer).unwrap() = value;
        let Err(error) = TextTokenizer::from_bytes(file.to_string().as_bytes()) else {
            panic!("{pointer} was taken");
        };
        let message = error.to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn sound_tokenizer_is_taken() {
        let tokenizer = TextTokenizer::from_bytes(bpe().to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.encode("abba", 10), [3, 2, 1]);
        assert_eq!(tokenizer.vocab_size(), 4);
    }

    #[test]
    fn defects_are_named() {
        check_refused("", json!([]), "not a JSON object");
        check_refused("/model", Value::Null, "model is not an object");
        check_refused("/model/type", json!("Quantum"), "Quantum");
        check_refused("/model/vocab", json!({}), "model.vocab is empty");
        let vocab = |a: Value, ab: Value| json!({"<unk>": 0, "a": a, "b": 2, "ab": ab});
        check_refused("/model/vocab", vocab(json!(2), json!(3)), "same id 2");
        check_refused("/model/vocab", vocab(json!(1), json!(4_294_967_295u32)), "4294967295");
        check_refused("/model/vocab", vocab(json!(-1), json!(3)), "id -1");
        check_refused("/model/vocab", vocab(json!("1"), json!(3)), "not a number");
        check_refused("/model/merges", json!([["x", "y"]]), "merge 0 names \"x\"");
        check_refused("/model/merges", json!([["b", "a"]]), "merge 0 names \"ba\"");
        check_refused("/model/merges", json!(["a b", "a b c"]), "merge 1 is not of two");
        check_refused("/model/continuing_subword_prefix", json!("####"), "merge 0");
        check_refused("/model/unk_token", json!("<nope>"), "<nope>");
        check_refused("/model/dropout", json!(0.5), "model.dropout");
        let added = |id: u64, token: &str| {
            json!([{"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}])
        };
        check_refused("/added_tokens", added(2, "a"), "added token \"a\" has id 2, it should be 1");
        check_refused("/added_tokens", added(7, "<pad>"), "it should be 4");
        check_refused("/added_tokens", added(4, ""), "empty content");
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        check_refused("/pre_tokenizer", split("("), "regex");
        check_refused("/pre_tokenizer", split("(a+)+$"), "(a+)+$");
        check_refused("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "length is 0");
        let fifteen =
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaa"});
        check_refused("/normalizer", fifteen, "8 times");
        let two = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let sequence = json!({"type": "Sequence", "normalizers": vec![two; 4]});
        check_refused("/normalizer", sequence, "8 times");
        let strip = json!({"type": "Strip", "content": " ", "start": 0, "stop": 3});
        check_refused("/decoder", strip, "decoder.stop");
        let template = json!({"type": "TemplateProcessing", "special_tokens": {}, "pair": [],
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
        check_refused("/post_processor", template, "\"[CLS]\", which is not in special_tokens");
        let bert = json!({"type": "BertProcessing", "sep": ["a", 9], "cls": ["b", 2]});
        check_refused("/post_processor", bert, "sep");
    }

    fn unit(label: usize, offset: usize, leaf: bool) -> u32 {
        (offset << 10 | usize::from(leaf) << 8 | label) as u32
    }

    /// A map of one entry, `a` to the text at `start`, in a table of `len` units.
    fn charsmap(start: u32, len: usize) -> Vec<u8> {
        let mut units = vec![0; len];
        let child = 256 ^ usize::from(b'a');
        units[0] = unit(0, 256, false);
        if let Some(slot) = units.get_mut(child) {
            *slot = unit(usize::from(b'a'), 256 ^ child, true);
        }
        let leaf = 256;
        if let Some(slot) = units.get_mut(leaf) {
            *slot = 1 << 31 | start;
        }
        let table: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(table.len() as u32).to_le_bytes()[..], &table, "é\0".as_bytes()].concat()
    }

    fn encoded(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
                text.push(if i <= chunk.len() { digit.into() } else { '=' });
            }
        }
        text
    }

    #[test]
    fn base64_is_read() {
        for text in ["", "a", "ab", "abc", "abcd", "\u{ff}\u{0}\u{fe}"] {
            assert_eq!(base64(&encoded(text.as_bytes())).unwrap(), text.as_bytes(), "{text:?}");
        }
        assert_eq!(base64("YQ==").unwrap(), b"a");
        for text in ["a", "ab c", "=abc", "YR==", "YQ=a"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn character_maps_stay_inside() {
        let normalizer =
            |bytes: &[u8]| json!({"type": "Precompiled", "precompiled_charsmap": encoded(bytes)});
        let mut file = bpe();
        file["normalizer"] = normalizer(&charsmap(0, 512));
        let tokenizer = TextTokenizer::from_bytes(file.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.encode("b a", 10).len(), 3);
        check_refused("/normalizer", normalizer(&[0, 0, 0, 128, 0, 0]), "2147483648 bytes");
        check_refused("/normalizer", normalizer(&[1]), "is cut");
        check_refused("/normalizer", normalizer(&charsmap(1, 512)), "outside its texts");
        check_refused("/normalizer", normalizer(&charsmap(99, 512)), "outside its texts");
        check_refused("/normalizer", normalizer(&charsmap(0, 300)), "outside its table");
    }
}
