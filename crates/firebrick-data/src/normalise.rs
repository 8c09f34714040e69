//! When two texts count as the same.

use unicode_normalization::UnicodeNormalization;

/// Unicode NFKC, lower case, white space collapsed to single spaces, none at the ends.
///
/// ```
/// use firebrick_data::normalise::normalise;
///
/// assert_eq!(normalise("  Ｇｏｏｄ\u{3000}\tFOOD\n"), "good food");
/// ```
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let lower = text.nfkc().collect::<String>().to_lowercase();
    for word in lower.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}
