//! How foreign text appears in a message: on one line, without control characters, cut.

use std::{fmt::Write, path::Path};

/// Longest quotation, in characters before escaping.
const QUOTED_CHARS: usize = 80;

/// `text` between back-ticks, control characters escaped as in Rust, cut to 80 characters.
///
/// ```
/// use firebrick_data::quote::quoted;
///
/// assert_eq!(quoted("red\u{1b}[31m\n"), r"`red\u{1b}[31m\n`");
/// assert_eq!(quoted(&"x".repeat(81)), format!("`{}…`", "x".repeat(80)));
/// ```
pub fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(QUOTED_CHARS).collect();
    let dots = if chars.next().is_some() { "…" } else { "" };
    format!("`{}{dots}`", escaped(&head))
}

/// As [`quoted`], for bytes that need not be UTF-8: a byte that is not becomes `\xNN`.
pub fn quoted_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    // Four bytes a character at most: enough to fill the quotation, whatever the size.
    for chunk in bytes[..bytes.len().min(4 * QUOTED_CHARS + 4)].utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02X}"); // writing to a string cannot fail
        }
    }
    quoted(&text)
}

/// Several quotations, separated by commas; the first ten, then how many more.
pub fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let head: Vec<_> = names.by_ref().take(10).map(quoted).collect();
    match (head.len(), names.count()) {
        (0, _) => "none".to_owned(),
        (_, 0) => head.join(", "),
        (_, more) => format!("{} and {more} more", head.join(", ")),
    }
}

/// A path for a message: whole, but with control characters escaped.
pub fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

/// Escapes control characters (C0, C1, DEL) and the characters that reverse the reading direction.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(quoted_bytes(bytes), expected);
    }

    #[test]
    fn bytes() {
        check(b"plain", "`plain`");
        check("味道".as_bytes(), "`味道`");
        check(b"caf\xe9\0", r"`caf\xE9\u{0}`");
        check("\u{202e}evil\u{9b}".as_bytes(), r"`\u{202e}evil\u{9b}`");
        check(&[b'x'; 1_000_000], &format!("`{}…`", "x".repeat(80)));
    }

    #[test]
    fn lists() {
        assert_eq!(quoted_list([]), "none");
        assert_eq!(quoted_list(["a", "b"]), "`a`, `b`");
        assert!(quoted_list(["a"; 12]).ends_with("`a` and 2 more"));
    }
}
