//! JSON from outside: RFC 8259 and nothing beside it, within limits.
//!
//! A second key of the same name, `NaN`, a number that a double cannot hold, text behind the value
//! and deep nesting are errors that name the key. Messages leave the path to the caller.

use std::{cell::RefCell, collections::btree_map, fmt, fs::File, io::Read, path::Path};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Real files nest fewer than ten levels.
const DEPTH_LIMIT: usize = 64;

/// Bytes that the values may take in memory, roughly: half of what a command may use. The largest
/// `tokenizer.json` in use (Gemma, 33 MB of text) takes about half of this.
const MEMORY_LIMIT: usize = 256 << 20;

/// Characters of a name that a message shows.
const QUOTE_LIMIT: usize = 80;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonProblem {
    #[error("cannot be read: {0}")]
    Read(std::io::Error),

    #[error("is {0}, not a regular file")]
    NotRegularFile(&'static str),

    #[error("{size} bytes, above the limit of {limit}")]
    TooLarge { size: u64, limit: u64 },

    #[error("is empty")]
    Empty,

    #[error("is UTF-16; save it as UTF-8")]
    Utf16,

    #[error("begins with a byte order mark; save it as plain UTF-8")]
    ByteOrderMark,

    #[error("is not UTF-8 (byte {at})")]
    NotUtf8 { at: usize },

    #[error("duplicate key {}{}", quoted(key), within(place))]
    DuplicateKey { key: String, place: String },

    #[error("nested more than {DEPTH_LIMIT} levels deep{}", within(place))]
    TooDeep { place: String },

    #[error("its values need more than {} MiB of memory{}", MEMORY_LIMIT >> 20, within(place))]
    TooMuch { place: String },

    #[error("is not JSON: {reason}{}", within(place))]
    Syntax { reason: String, place: String },
}

/// ` in "a"."b"`, or nothing at the top level.
fn within(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" in {place}") }
}

/// Reads a JSON file of at most `max_bytes`.
pub fn read_strict(path: &Path, max_bytes: u64) -> Result<Value, JsonProblem> {
    parse_strict(&read_bytes(path, max_bytes)?)
}

/// The bytes of a regular file of at most `max_bytes`; a pipe is not even opened.
pub fn read_bytes(path: &Path, max_bytes: u64) -> Result<Vec<u8>, JsonProblem> {
    let meta = std::fs::metadata(path).map_err(JsonProblem::Read)?;
    if let Some(what) = irregular(&meta) {
        return Err(JsonProblem::NotRegularFile(what));
    }
    if meta.len() > max_bytes {
        return Err(JsonProblem::TooLarge { size: meta.len(), limit: max_bytes });
    }
    let mut bytes = vec![];
    // The file may grow while it is read.
    File::open(path)
        .and_then(|file| file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(JsonProblem::Read)?;
    if bytes.len() as u64 > max_bytes {
        return Err(JsonProblem::TooLarge { size: bytes.len() as u64, limit: max_bytes });
    }
    Ok(bytes)
}

/// What stands where a regular file is due; `None` for a regular file.
pub(super) fn irregular(meta: &std::fs::Metadata) -> Option<&'static str> {
    match (meta.is_file(), meta.is_dir()) {
        (true, _) => None,
        (_, true) => Some("a folder"),
        _ => Some("a pipe, socket or device"),
    }
}

/// A value in a message: a number as it stands in the file, a container by its kind.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// Parses one JSON value.
///
/// ```
/// use firebrick_core::checkpoint::json::parse_strict;
///
/// assert_eq!(parse_strict(br#"{"a": [1, 2.5]}"#).unwrap()["a"][1], 2.5);
/// let error = parse_strict(br#"{"a": {"b": 1, "b": 2}}"#).unwrap_err();
/// assert_eq!(error.to_string(), r#"duplicate key "b" in "a""#);
/// ```
pub fn parse_strict(bytes: &[u8]) -> Result<Value, JsonProblem> {
    match bytes {
        [] => return Err(JsonProblem::Empty),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => {
            return Err(JsonProblem::Utf16);
        }
        [0xef, 0xbb, 0xbf, ..] => return Err(JsonProblem::ByteOrderMark),
        _ => {}
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JsonProblem::NotUtf8 { at: error.valid_up_to() })?;
    let state = RefCell::new(State::default());
    let mut parser = serde_json::Deserializer::from_str(text);
    let seed = Strict { state: &state, depth: 0 };
    let result = seed.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    result.map_err(|error| {
        let State { path, problem, .. } = state.into_inner();
        let place = place(&path);
        match problem {
            Some(Kind::DuplicateKey(key)) => JsonProblem::DuplicateKey { key, place },
            Some(Kind::TooDeep) => JsonProblem::TooDeep { place },
            Some(Kind::TooMuch) => JsonProblem::TooMuch { place },
            None => JsonProblem::Syntax { reason: error.to_string(), place },
        }
    })
}

/// `text` in quotes with control characters escaped, cut to 80 characters.
///
/// ```
/// use firebrick_core::checkpoint::json::quoted;
///
/// assert_eq!(quoted("a\u{1b}[31m\n"), r#""a\u{1b}[31m\n""#);
/// assert_eq!(quoted(&"词".repeat(100)), format!("\"{}…\"", "词".repeat(79)));
/// ```
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    let mut length = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped: String = match c {
            '"' | '\\' => format!("\\{c}"),
            c if hidden(c) => c.escape_default().collect(),
            c => c.into(),
        };
        length += escaped.chars().count();
        // The last place is kept for the mark of the cut.
        if length > QUOTE_LIMIT || (length == QUOTE_LIMIT && chars.peek().is_some()) {
            out.push('…');
            break;
        }
        out.push_str(&escaped);
    }
    out.push('"');
    out
}

/// Control characters, and those that turn or hide the text around them.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `"a"."b"`: the innermost keys of a path.
fn place(path: &[String]) -> String {
    let from = path.len().saturating_sub(3);
    path[from..].iter().map(|key| quoted(key)).collect::<Vec<_>>().join(".")
}

#[derive(Default)]
struct State {
    /// Keys around the value that is being read.
    path: Vec<String>,
    memory: usize,
    /// Why the parse was stopped, when not by the parser.
    problem: Option<Kind>,
}

enum Kind {
    DuplicateKey(String),
    TooDeep,
    TooMuch,
}

/// Builds a [`Value`]; `serde_json`'s own keeps the last of two equal keys.
#[derive(Clone, Copy)]
struct Strict<'a> {
    state: &'a RefCell<State>,
    depth: usize,
}

impl Strict<'_> {
    fn stop<E: serde::de::Error>(self, kind: Kind) -> E {
        self.state.borrow_mut().problem = Some(kind);
        E::custom("stopped")
    }

    /// One level further in.
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth < DEPTH_LIMIT {
            true => Ok(Self { depth: self.depth + 1, ..self }),
            false => Err(self.stop(Kind::TooDeep)),
        }
    }

    fn take<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        let memory = self.state.borrow().memory.saturating_add(bytes);
        if memory > MEMORY_LIMIT {
            return Err(self.stop(Kind::TooMuch));
        }
        self.state.borrow_mut().memory = memory;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.take(size_of::<Value>())?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.take(value.len() + 16)?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = vec![];
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = btree_map::BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.take(2 * key.len() + 64)?;
            if object.contains_key(&key) {
                return Err(self.stop(Kind::DuplicateKey(key)));
            }
            self.state.borrow_mut().path.push(key.clone());
            let value = entries.next_value_seed(inner)?;
            self.state.borrow_mut().path.pop();
            object.insert(key, value);
        }
        Ok(Value::Object(object.into_iter().collect::<Map<_, _>>()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_refused(text: impl AsRef<[u8]>, expected: &str) {
        let message = parse_strict(text.as_ref()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        assert!(message.len() < 600 && !message.chars().any(char::is_control), "{message:?}");
    }

    #[test]
    fn defects_are_named() {
        check_refused("", "empty");
        check_refused(r#"{"a": 1"#, "not JSON");
        check_refused("{}{}", "trailing");
        check_refused(r#"{"a": {"b": 1, "c": [], "b": 2}}"#, r#"duplicate key "b" in "a""#);
        check_refused(r#"{"eps": NaN}"#, r#"in "eps""#);
        check_refused(r#"{"eps": -Infinity}"#, r#"in "eps""#);
        check_refused(r#"{"rope_theta": 1e400}"#, "number out of range");
        check_refused(r#"{"rope_theta": 1e400}"#, "rope_theta");
        check_refused("\"\\ud800\"", "not JSON");
        check_refused(b"{\"a\xff\": 1}", "not UTF-8 (byte 3)");
        check_refused(b"\xff\xfe{\0}\0", "UTF-16");
        check_refused(b"{\0}\0", "UTF-16");
        check_refused("\u{feff}{}", "byte order mark");
        check_refused("[".repeat(100_000), "nested more than 64");
        check_refused(format!("{{\"x\":{}", "[".repeat(100_000)), r#"in "x""#);
        check_refused(format!("{{\"\u{1b}{0}\":1,\"\u{1b}{0}\":2}}", "k".repeat(1000)), "not JSON");
        check_refused(format!("{{\"{0}\":1,\"{0}\":2}}", "k".repeat(100_000)), "kkk…");
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse_strict(nested(64).as_bytes()).is_ok());
        assert!(parse_strict(nested(65).as_bytes()).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        // 10 M empty arrays: 30 MB of text, 320 MB of values.
        let text = format!("[{}[]]", "[],".repeat(10_000_000));
        assert!(matches!(parse_strict(text.as_bytes()), Err(JsonProblem::TooMuch { .. })));
    }

    #[test]
    fn only_regular_files_of_the_right_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path, limit| read_strict(path, limit).unwrap_err().to_string();
        assert_eq!(message(dir.path(), 100), "is a folder, not a regular file");
        assert!(message(&dir.path().join("absent"), 100).starts_with("cannot be read"));
        let file = dir.path().join("a.json");
        std::fs::write(&file, "[1, 2, 3]").unwrap();
        assert_eq!(message(&file, 8), "9 bytes, above the limit of 8");
        assert_eq!(read_strict(&file, 9).unwrap()[2], 3);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no NaN", |x| x.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn sound_json_is_read_as_serde_json_reads_it(value in value()) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(parse_strict(&text).unwrap(), serde_json::from_slice::<Value>(&text).unwrap());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_strict(&bytes);
        }

        #[test]
        fn quotes_are_short_and_plain(text in any::<String>()) {
            let quote = quoted(&text);
            prop_assert!(quote.chars().count() <= QUOTE_LIMIT + 2);
            prop_assert!(!quote.chars().any(char::is_control));
        }
    }
}
