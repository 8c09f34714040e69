//! What a run came to, on one page: facts in, a self-contained HTML file out.
//!
//! Strings in, strings out. Nothing here reads a file, a clock or a model, so the same facts give the same bytes.

mod html;
pub mod parallel;
pub mod plots;

use serde::{Deserialize, Deserializer, Serialize};

use parallel::Trials;
use plots::Curve;

/// Everything that [`render`] shows. A part that is empty is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub title: String,
    pub subtitle: String,
    /// Key figures: name, value.
    pub facts: Vec<(String, String)>,
    /// What the figures mean, in a sentence or two.
    pub verdict: String,
    #[serde(default)]
    pub trials: Option<Trials>,
    /// Charts: title, name of the x axis, name of the y axis, curves.
    pub curves: Vec<(String, String, String, Vec<Curve>)>,
    /// Labels, and how often each true class (row) was predicted as each class (column).
    pub confusion: Option<(Vec<String>, Vec<Vec<u64>>)>,
    /// This model and others on the same data: name, accuracy, detail.
    pub comparison: Vec<(String, String, String)>,
    /// Rows that the model got right.
    pub right: Vec<Example>,
    /// Rows that the model got wrong.
    pub wrong: Vec<Example>,
    /// What the model writes: prompt or source, text.
    #[serde(default)]
    pub samples: Vec<(String, String)>,
    #[serde(default)]
    pub pictures: Vec<Picture>,
    /// What was done to the data: rows dropped by reason, leaks between the splits.
    pub data_notes: Vec<(String, String)>,
    pub recipe_toml: String,
    /// What to type next: command, and why one would.
    pub next_steps: Vec<(String, String)>,
}

/// One row of the data and what the model said of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    pub text: String,
    pub truth: String,
    pub predicted: String,
    /// Probability that the model gave to `predicted`; in `[0, 1]`.
    #[serde(deserialize_with = "number")]
    pub confidence: f64,
    /// Row number in the data, from 0.
    pub row: usize,
}

/// A picture, and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// Of its file, without `.png`.
    pub name: String,
    pub caption: String,
    /// In pixels.
    pub width: usize,
    pub height: usize,
    pub png: Vec<u8>,
}

/// One HTML5 document: no script, no network, styles and pictures inside.
pub fn render(report: &Report) -> String {
    html::page(report)
}

/// JSON has no NaN or infinity: they are written as `null`, which is read as NaN.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// `text` for HTML and XML, as content or in a double-quoted attribute.
///
/// Characters that XML forbids become U+FFFD: one of them makes a browser refuse a whole SVG file.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ if c.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// At most `most` characters of `text`, the last an ellipsis where more follow.
fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Four significant digits, three beside a power of ten: `0.9123`, `12.5`, `3e-4`, `NaN`.
fn short(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "−∞" }.to_owned();
    }
    if size == 0.0 || (1e-3..1e6).contains(&size) {
        let decimals = (3.0 - size.max(1e-3).log10().floor()).clamp(0.0, 6.0) as usize;
        return trim(&format!("{value:.decimals$}"));
    }
    scientific(value, 2)
}

/// `1.5e-4`
fn scientific(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trim(mantissa)),
        None => text,
    }
}

/// Without the zeros at the end of a decimal fraction, with a real minus sign.
fn trim(number: &str) -> String {
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    match number.strip_prefix('-') {
        Some("0") => "0".to_owned(),
        Some(size) => format!("−{size}"),
        None => number.to_owned(),
    }
}

/// Bytes as text (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let bits = part.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - part.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let found = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|t| base64(t.as_bytes()));
        assert_eq!(found, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn escapes_markup_and_what_xml_forbids() {
        let escaped = escape(r#"<a href="x">'&'</a>"#);
        assert_eq!(escaped, "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
        let escaped = escape("a\0b\u{1b}[31m\u{85}\u{ffff}");
        assert_eq!(escaped, "a\u{fffd}b\u{fffd}[31m\u{fffd}\u{fffd}");
        assert_eq!(escape("服务很好\n👍"), "服务很好\n👍");
    }

    #[test]
    fn shortens_by_characters() {
        assert_eq!(shorten("很好吃的店", 5), "很好吃的店");
        assert_eq!(shorten("很好吃的店", 4), "很好吃…");
    }

    #[test]
    fn numbers_are_short() {
        let shown =
            [0.0, -0.0, 0.91234567, 12.5, -3.0, 1234.5678, 3e-4, 2.5e7, f64::NAN].map(short);
        assert_eq!(shown, ["0", "0", "0.9123", "12.5", "−3", "1235", "3e-4", "2.5e7", "NaN"]);
        assert_eq!([f64::INFINITY, f64::NEG_INFINITY].map(short), ["∞", "−∞"]);
    }

    #[test]
    fn a_report_survives_json_with_nan() {
        let points = vec![(1.0, 0.5), (2.0, f64::NAN)];
        let curves = vec![Curve { name: "train".into(), points }];
        let report = Report {
            right: vec![Example { confidence: f64::NAN, ..Example::default() }],
            curves: vec![("loss".into(), "step".into(), "nats".into(), curves)],
            ..Report::default()
        };
        let json = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&json).unwrap();
        assert!(back.right[0].confidence.is_nan());
        assert_eq!(back.curves[0].3[0].points[0], (1.0, 0.5));
        assert!(back.curves[0].3[0].points[1].1.is_nan());
    }
}
