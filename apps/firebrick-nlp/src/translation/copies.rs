//! What a translator carries over instead of translating it: numbers, addresses, unknown names, and the terms of a glossary.
//!
//! A placeholder stands for each in what the model reads, and the text comes back where the model writes the placeholder
//! (Crego et al. 2016, "SYSTRAN's Pure Neural Machine Translation Systems"; Dinu et al. 2019 on terms). The model must have met
//! placeholders: `data.copies` of a recipe shows it pairs in which words that belong together are replaced on both sides.

use std::ops::Range;

use anyhow::{Context, bail};
use unicode_segmentation::UnicodeSegmentation;

use crate::{language::is_chinese, tokenizer::TextTokenizer};

/// Placeholders in a sentence at most.
pub const SLOTS: usize = 4;

/// Tokens of a capitalised word from which on it is a name that the model has hardly seen.
const NAME_TOKENS: usize = 4;

/// The placeholder numbered `slot`: a control character, for every byte is a token of a byte-level vocabulary, and no text has
/// it.
///
/// ```
/// assert_eq!(firebrick_nlp::translation::copies::placeholder(0), '\u{1}');
/// ```
pub fn placeholder(slot: usize) -> char {
    assert!(slot < SLOTS);
    char::from(1 + slot as u8)
}

/// Replaces places, which are in order and apart, by placeholders of these numbers.
pub fn replaced(text: &str, spans: impl IntoIterator<Item = (usize, Range<usize>)>) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut end = 0;
    for (slot, span) in spans {
        masked.push_str(&text[end..span.start]);
        masked.push(placeholder(slot));
        end = span.end;
    }
    masked + &text[end..]
}

/// A sentence whose placeholders stand for `values`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    pub text: String,
    values: Vec<String>,
    /// What there was no placeholder left for: it is translated like any word.
    beyond: Vec<String>,
}

impl Masked {
    /// A sentence without placeholders.
    pub fn plain(text: &str) -> Self {
        Self { text: text.into(), values: vec![], beyond: vec![] }
    }

    /// The same values in another text.
    pub fn map(self, text: impl Fn(&str) -> String) -> Self {
        Self { text: text(&self.text), ..self }
    }

    /// What its placeholders stand for, in their order.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// What a translation is to hold, with a placeholder or without.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.values.iter().chain(&self.beyond)
    }

    /// Whether a translation has all of its placeholders.
    pub fn is_whole(&self, translation: &str) -> bool {
        (0..self.values.len()).all(|slot| translation.contains(placeholder(slot)))
    }

    /// The translation with what its placeholders stand for.
    pub fn restore(&self, translation: &str) -> String {
        let values = self.values.iter().enumerate();
        values.fold(translation.to_string(), |text, (slot, value)| {
            text.replace(placeholder(slot), value)
        })
    }
}

/// A glossary: how terms are to be translated.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Lower case, the longest first.
    entries: Vec<(String, String)>,
}

impl Terms {
    /// One term a line: as it is read, a tab, as it is written. Empty lines and those that begin with `#` are comments.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut entries = vec![];
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (from, to) = line.split_once('\t').with_context(|| {
                format!("line {}: no tab between a term and its translation", number + 1)
            })?;
            let (from, to) = (from.trim().to_lowercase(), to.trim().to_string());
            if from.is_empty() || to.is_empty() {
                bail!("line {}: a term without its translation", number + 1);
            }
            entries.push((from, to));
        }
        entries.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        Ok(Self { entries })
    }

    /// The same translations of terms that are written otherwise.
    pub fn map(self, term: impl Fn(&str) -> String) -> Self {
        Self { entries: self.entries.into_iter().map(|(from, to)| (term(&from), to)).collect() }
    }

    /// Where terms stand as whole words, in any case; the longest wins.
    fn found(&self, text: &str) -> Vec<(Range<usize>, String)> {
        let mut found: Vec<(Range<usize>, String)> = vec![];
        let lower = text.to_lowercase();
        if lower.len() != text.len() {
            return found; // rare letters whose case has another length: places would not agree
        }
        for (from, to) in &self.entries {
            for (start, _) in lower.match_indices(from.as_str()) {
                let span = start..start + from.len();
                let joined = |a: Option<char>, b: Option<char>| {
                    let letter =
                        |c: char| c.is_alphanumeric() && !is_chinese(c.encode_utf8(&mut [0; 4]));
                    a.is_some_and(letter) && b.is_some_and(letter)
                };
                let inside = joined(lower[..start].chars().last(), from.chars().next())
                    || joined(from.chars().last(), lower[span.end..].chars().next());
                if !inside && found.iter().all(|(other, _)| apart(other, &span)) {
                    found.push((span, to.clone()));
                }
            }
        }
        found
    }
}

/// Whether two places have nothing in common.
pub fn apart(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.end <= b.start || b.end <= a.start
}

/// Puts placeholders for what `tokenizer`'s model would garble. `names`: capitalised words are names (not so in German).
pub fn mask(text: &str, tokenizer: &TextTokenizer, terms: &Terms, names: bool) -> Masked {
    if (0..SLOTS).any(|slot| text.contains(placeholder(slot))) {
        return Masked::plain(text);
    }
    let mut found = terms.found(text);
    let tokens = tokenizer.encode_spans(text, usize::MAX);
    let pieces =
        |span: &Range<usize>| tokens.iter().filter(|(_, token)| !apart(token, span)).count();
    let mut literals = literals(text);
    // A digit, and a month in Chinese, are said in words: "2 dogs", "10月".
    let word = |span: &Range<usize>| span.len() == 1 || text[span.end..].starts_with('月');
    literals.retain(|span| pieces(span) > 1 || !word(span));
    if names {
        literals.extend(capitalised(text).into_iter().filter(|span| pieces(span) >= NAME_TOKENS));
    }
    for span in literals {
        if found.iter().all(|(other, _)| apart(other, &span)) {
            let value = text[span.clone()].to_string();
            found.push((span, value));
        }
    }
    // Terms first, then the rest as they were found.
    let beyond = found.split_off(found.len().min(SLOTS));
    let beyond = beyond.into_iter().map(|(_, value)| value).collect();
    found.sort_by_key(|(span, _)| span.start);
    let (spans, values): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    Masked { text: replaced(text, spans.into_iter().enumerate()), values, beyond }
}

/// Numbers with their marks, and addresses.
///
/// ```
/// use firebrick_nlp::translation::copies::literals;
///
/// let found = |text: &'static str| literals(text).into_iter().map(|span| &text[span]).collect::<Vec<_>>();
/// assert_eq!(found("From 10:30 it costs $5.99 (or 1,234 €), a 5-year-old said."), ["10:30", "$5.99", "1,234", "5"]);
/// assert_eq!(found("我的电话是555-1234。"), ["555-1234"]);
/// assert_eq!(found("Write to anna@example.org!"), ["anna@example.org"]);
/// ```
pub fn literals(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = vec![];
    let mut begin = 0;
    for chunk in text.split_inclusive(char::is_whitespace) {
        if chunk.contains("://") || chunk.contains('@') {
            let ends = |c: char| c.is_whitespace() || ".,;:!?()\"'。，！？".contains(c);
            let start = begin + chunk.len() - chunk.trim_start_matches(ends).len();
            let end = begin + chunk.trim_end_matches(ends).len();
            found.extend((start < end).then_some(start..end));
        } else {
            for (at, word) in chunk.split_word_bound_indices() {
                if !word.contains(|c: char| c.is_ascii_digit()) {
                    continue;
                }
                let mut span = begin + at..begin + at + word.len();
                let before = |marks: &[char]| text[..span.start].ends_with(marks);
                if before(&['$', '€', '£', '¥']) {
                    span.start = text[..span.start].char_indices().last().map_or(0, |(at, _)| at);
                } else if before(&['-', ':', '/'])
                    && let Some(last) = found.last_mut()
                    && last.end + 1 == span.start
                {
                    last.end = span.end;
                    continue;
                }
                span.end += usize::from(text[span.end..].starts_with('%'));
                found.push(span);
            }
        }
        begin += chunk.len();
    }
    found
}

/// Words that begin with a capital letter.
fn capitalised(text: &str) -> Vec<Range<usize>> {
    let words = text.unicode_word_indices();
    let capital = words.filter(|(_, word)| word.starts_with(char::is_uppercase));
    capital.map(|(at, word)| at..at + word.len()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::train_byte_bpe;

    fn tokenizer() -> TextTokenizer {
        train_byte_bpe(["a man has 2 dogs in a park"].into_iter(), 300, 1, true).unwrap()
    }

    #[test]
    fn what_stands_behind_placeholders_comes_back() {
        let tokenizer = tokenizer();
        let terms = Terms::parse("# ours\n\npark\tStadtpark\nin a park\tim Park\n").unwrap();
        let masked = mask(
            "A man has 2 dogs and 31 cats in a park, Kowalski says.",
            &tokenizer,
            &terms,
            true,
        );
        assert_eq!(masked.text, "A man has 2 dogs and \u{1} cats \u{2}, \u{3} says.");
        let answer = masked.restore("\u{3} sagt, ein Mann hat 2 Hunde und \u{1} Katzen \u{2}.");
        assert_eq!(answer, "Kowalski sagt, ein Mann hat 2 Hunde und 31 Katzen im Park.");
        assert!(masked.is_whole("\u{3} sagt \u{1} \u{2}") && !masked.is_whole("\u{3} sagt \u{1}"));
    }

    #[test]
    fn what_no_placeholder_is_left_for_is_known() {
        let text = "11, 22, 33, 44, 55 and 66";
        let masked = mask(text, &tokenizer(), &Terms::default(), true);
        assert_eq!(masked.text, "\u{1}, \u{2}, \u{3}, \u{4}, 55 and 66");
        assert_eq!(masked.all().collect::<Vec<_>>(), ["11", "22", "33", "44", "55", "66"]);
    }

    #[test]
    fn terms_are_whole_words() {
        let terms = Terms::parse("car\tAuto\n公园\tpark").unwrap();
        let found = |text: &str| terms.found(text).len();
        assert_eq!(
            [found("A Car!"), found("a cart"), found("a scar"), found("在公园里")],
            [1, 0, 0, 1]
        );
        for bad in ["car", "car\t", "\tAuto"] {
            assert!(Terms::parse(bad).unwrap_err().to_string().starts_with("line 1"));
        }
    }

    proptest! {
        #[test]
        fn a_copy_gives_the_sentence_back(text in "[a-zA-Z0-9 .,:/$%@äß你好-]{0,40}|\\PC{0,30}") {
            let masked = mask(&text, &tokenizer(), &Terms::default(), true);
            prop_assert!(masked.values.len() <= SLOTS);
            prop_assert_eq!(masked.restore(&masked.text), text);
        }
    }
}
