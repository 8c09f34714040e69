//! JSON lines: one object a line.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use crate::{
    error::DataError,
    lines::next_line,
    quote::{quoted, quoted_list},
    stream::{Text, stream_error},
    table::{ColumnRef, Parsed, Reason, Sink, too_long, utf8},
};

/// Deepest nesting taken; also keeps the parser far from the end of its stack.
const MAX_DEPTH: usize = 64;

pub fn read(mut text: Text, sink: &mut Sink) -> Result<(), DataError> {
    let key = |column: &ColumnRef| match column {
        ColumnRef::Name(name) => Ok(name.clone()),
        ColumnRef::Index(_) => Err(DataError::BadOption {
            name: "a column",
            value: column.to_string(),
            expected: "a name, because JSON lines have keys",
        }),
    };
    let text_key = key(&sink.options.columns.text)?;
    let label_key = sink.options.columns.label.as_ref().map(key).transpose()?;
    let limit = sink.options.limits.line_bytes;
    let mut line = vec![];
    let mut number = 0;
    while let Some(length) =
        next_line(&mut text, &mut line, limit).map_err(|e| stream_error(sink.path, e))?
    {
        number += 1;
        if line.trim_ascii().is_empty() && length <= limit as u64 {
            continue;
        }
        if sink.next_row() == 0 && line.trim_ascii_start().starts_with(b"[") {
            let detail = format!(
                "line {number} opens an array; write one object a line (`jq -c '.[]'` converts it)"
            );
            return Err(DataError::BadJson { path: sink.path.to_owned(), detail });
        }
        let parsed = match length > limit as u64 {
            true => Err(too_long(length, limit)),
            false => parse(&line, &text_key, label_key.as_deref()),
        };
        sink.push(number, parsed)?;
    }
    Ok(())
}

fn parse(line: &[u8], text_key: &str, label_key: Option<&str>) -> Parsed {
    let line = utf8(line)?;
    if depth(line) > MAX_DEPTH {
        return Err((Reason::TooDeep, format!("nested deeper than {MAX_DEPTH}")));
    }
    let Object(fields) = serde_json::from_str(line).map_err(|e| explain(&e))?;
    let mut seen = HashSet::new();
    if let Some((again, _)) = fields.iter().find(|(key, _)| !seen.insert(key.as_str())) {
        return Err((Reason::DuplicateKey, format!("key {} is there twice", quoted(again))));
    }
    let field = |wanted: &str| {
        fields.iter().find(|(key, _)| key == wanted).map(|(_, value)| value).ok_or_else(|| {
            let keys = quoted_list(fields.iter().map(|(key, _)| key.as_str()));
            (Reason::MissingField, format!("no key {}; its keys are {keys}", quoted(wanted)))
        })
    };
    let text = match field(text_key)? {
        Value::Text(text) => text.clone(),
        other => return Err(wrong(text_key, other, "a string")),
    };
    let label = match label_key.map(field).transpose()? {
        None => None,
        Some(Value::Text(label) | Value::Whole(label)) => Some(label.clone()),
        Some(Value::Bool(label)) => Some(label.to_string()),
        Some(other) => {
            return Err(wrong(label_key.unwrap_or_default(), other, "a string or a whole number"));
        }
    };
    Ok((text, label))
}

fn wrong(key: &str, found: &Value, expected: &str) -> (Reason, String) {
    let found = match found {
        Value::Text(_) => "a string",
        Value::Whole(_) => "a number",
        Value::Fraction => "a number with a fraction or exponent",
        Value::Bool(_) => "true or false",
        Value::Null => "null",
        Value::Array => "an array",
        Value::Object => "an object",
    };
    (Reason::BadValue, format!("{} is {found}, where {expected} is due", quoted(key)))
}

fn explain(e: &serde_json::Error) -> (Reason, String) {
    let message = e.to_string();
    // "… at line 1 column 9": every line is parsed alone, so the line says nothing.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(head, _)| head);
    let reason = match message {
        m if m.contains("surrogate") || m.contains("hex escape") => Reason::BadEncoding,
        m if m.contains("out of range") => Reason::BadValue,
        m if m.contains("recursion limit") => Reason::TooDeep,
        _ if e.is_data() => Reason::BadValue,
        _ => Reason::BadJson,
    };
    let message = quoted(message);
    (reason, format!("{} at column {}", message.trim_matches('`'), e.column()))
}

/// Deepest nesting of brackets outside strings.
fn depth(line: &str) -> usize {
    let (mut now, mut deepest) = (0usize, 0);
    let (mut in_string, mut escape) = (false, false);
    for byte in line.bytes() {
        match byte {
            _ if escape => escape = false,
            b'\\' if in_string => escape = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A JSON value, as far as a table wants to know it. Unlike `serde_json::Value` it is read whole and checked, but
/// nested parts are not kept; unlike `IgnoredAny` it refuses a number that no type holds.
enum Value {
    Text(String),
    Whole(String),
    Fraction,
    Bool(bool),
    Null,
    Array,
    Object,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number.to_string()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Fraction)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<Value>()?.is_some() {}
        Ok(Value::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        while fields.next_entry::<String, Value>()?.is_some() {}
        Ok(Value::Object)
    }
}

/// The fields of a line in order, a key that comes twice included.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Object, A::Error> {
        let mut all = vec![];
        while let Some(field) = fields.next_entry()? {
            all.push(field);
        }
        Ok(Object(all))
    }
}
