//! Texts to TF-IDF rows, as scikit-learn's `TfidfVectorizer` makes them.
//!
//! Reference: <https://scikit-learn.org/stable/modules/feature_extraction.html#tfidf-term-weighting>, with
//! `smooth_idf=True` and `norm="l2"`. A term is an n-gram of words or of characters; of a text with `tf` of a term
//! that `df` of `n` texts hold, its weight is `tf * (ln((1 + n) / (1 + df)) + 1)` before the row is scaled to length 1.
//!
//! Words are runs of two or more letters, digits and underscores. One difference: a combining vowel sign (as in
//! Devanagari) continues a word here, where Python's `\w` breaks it.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{csr::Csr, error::FitError};

/// Keeps the work on a text proportional to its length, whatever a recipe or model file asks for.
const LONGEST_NGRAM: usize = 16;

/// What the terms are n-grams of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Analyzer {
    /// Words of two or more characters: scikit-learn's `token_pattern=r"(?u)\b\w\w+\b"`.
    Word,
    /// Characters, white space among them: for writing without spaces between words.
    Char,
}

/// Named as the arguments of `TfidfVectorizer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub analyzer: Analyzer,
    /// `(shortest, longest)` n-gram, in words or characters.
    pub ngram_range: (usize, usize),
    /// Leave out terms that fewer texts hold.
    pub min_df: usize,
    /// Put `1 + ln(tf)` in place of `tf`.
    pub sublinear_tf: bool,
}

impl Default for Options {
    /// scikit-learn's defaults.
    fn default() -> Self {
        Self { analyzer: Analyzer::Word, ngram_range: (1, 1), min_df: 1, sublinear_tf: false }
    }
}

impl Options {
    fn check(&self) -> Result<(), FitError> {
        let (shortest, longest) = self.ngram_range;
        if (1..=longest).contains(&shortest) && longest <= LONGEST_NGRAM {
            return Ok(());
        }
        Err(FitError::NgramRange { shortest, longest, limit: LONGEST_NGRAM })
    }
}

/// A fitted vectoriser: the terms that it knows and what each weighs.
///
/// ```
/// use firebrick_classic::tfidf::{Options, TfIdf};
///
/// let (tfidf, rows) = TfIdf::fit(&["a good film", "a bad film"], &Options::default())?;
/// assert_eq!(tfidf.terms(), ["bad", "film", "good"]); // `a` is too short to be a word
/// assert_eq!(rows.row(0).count(), 2);
/// assert_eq!(tfidf.transform(&["good, GOOD!"]).row(0).collect::<Vec<_>>(), [(2, 1.0)]);
/// # Ok::<(), firebrick_classic::error::FitError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct TfIdf {
    options: Options,
    /// Sorted; the place of a term is its column.
    terms: Vec<String>,
    /// Inverse document frequency by column. Seven digits are enough and halve the file.
    idf: Vec<f32>,
}

impl TfIdf {
    /// Learns terms and their weights; gives the rows of `texts` too, `[texts, terms]`.
    pub fn fit<S: AsRef<str> + Sync>(
        texts: &[S],
        options: &Options,
    ) -> Result<(Self, Csr), FitError> {
        options.check()?;
        let units: Vec<Units> =
            texts.par_iter().map(|text| Units::of(text.as_ref(), options.analyzer)).collect();
        let counts: Vec<Counts> = units.par_iter().map(|u| u.counts(options)).collect();

        let mut document_frequency: HashMap<&str, usize> = HashMap::new();
        for (term, _) in counts.iter().flatten() {
            *document_frequency.entry(term).or_default() += 1;
        }
        let mut kept: Vec<(&str, usize)> =
            document_frequency.iter().map(|(term, df)| (*term, *df)).collect();
        kept.retain(|(_, df)| *df >= options.min_df);
        kept.sort_unstable();
        if kept.is_empty() {
            let terms = document_frequency.len();
            return Err(FitError::NoTerms { texts: texts.len(), terms, min_df: options.min_df });
        }

        let n = texts.len() as f64;
        let idf = kept.iter().map(|(_, df)| (((1.0 + n) / (1.0 + *df as f64)).ln() + 1.0) as f32);
        let tfidf = Self {
            options: options.clone(),
            terms: kept.iter().map(|(term, _)| term.to_string()).collect(),
            idf: idf.collect(),
        };
        let columns: HashMap<&str, u32> = kept.iter().map(|(term, _)| *term).zip(0..).collect();
        let rows: Vec<_> =
            counts.par_iter().map(|c| tfidf.weigh(c, |term| columns.get(term).copied())).collect();
        let rows = Csr::from_rows(tfidf.terms.len(), rows);
        Ok((tfidf, rows))
    }

    /// `[texts, terms]`; a text without a known term is an empty row.
    pub fn transform<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Csr {
        let row = |text: &S| {
            let units = Units::of(text.as_ref(), self.options.analyzer);
            self.weigh(&units.counts(&self.options), |term| self.column(term))
        };
        let rows: Vec<_> = texts.par_iter().map(row).collect();
        Csr::from_rows(self.terms.len(), rows)
    }

    /// What each column stands for; sorted.
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    fn column(&self, term: &str) -> Option<u32> {
        let place = self.terms.binary_search_by(|known| known.as_str().cmp(term)).ok()?;
        u32::try_from(place).ok()
    }

    /// Counts, which are sorted by term and so by column, to a row of length 1.
    fn weigh(&self, counts: &Counts, column: impl Fn(&str) -> Option<u32>) -> Vec<(u32, f64)> {
        let weight = |(term, count): &(&str, u32)| {
            let column = column(term)?;
            let count = f64::from(*count);
            let tf = if self.options.sublinear_tf { 1.0 + count.ln() } else { count };
            Some((column, tf * f64::from(self.idf[column as usize])))
        };
        let mut row: Vec<_> = counts.iter().filter_map(weight).collect();
        let length = row.iter().map(|(_, x)| x * x).sum::<f64>().sqrt();
        row.iter_mut().for_each(|(_, x)| *x /= length);
        row
    }
}

/// `TfIdf` as read from a file, before its parts are known to fit together.
#[derive(Deserialize)]
struct Unchecked {
    options: Options,
    terms: Vec<String>,
    idf: Vec<f32>,
}

impl TryFrom<Unchecked> for TfIdf {
    type Error = String;

    fn try_from(Unchecked { options, terms, idf }: Unchecked) -> Result<Self, String> {
        if terms.len() != idf.len() {
            return Err(format!("{} terms but {} idf weights", terms.len(), idf.len()));
        }
        if let Some(pair) = terms.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("terms are not sorted: `{}` before `{}`", pair[0], pair[1]));
        }
        options.check().map_err(|error| error.to_string())?;
        Ok(Self { options, terms, idf })
    }
}

/// The distinct terms of a text with their counts, sorted by term.
type Counts<'a> = Vec<(&'a str, u32)>;

/// A text cut into words or characters, such that an n-gram is a slice of it.
struct Units {
    text: String,
    /// Byte range of each unit in `text`.
    spans: Vec<(usize, usize)>,
}

impl Units {
    fn of(text: &str, analyzer: Analyzer) -> Self {
        let lower = text.to_lowercase();
        let mut units = Self { text: String::with_capacity(lower.len()), spans: vec![] };
        match analyzer {
            Analyzer::Word => {
                for word in lower.split(|c: char| !c.is_alphanumeric() && c != '_') {
                    if word.chars().nth(1).is_some() {
                        if !units.text.is_empty() {
                            units.text.push(' ');
                        }
                        units.push(word);
                    }
                }
            }
            Analyzer::Char => {
                // scikit-learn puts one space for two or more white spaces, and leaves a single one as it is.
                let mut rest = lower.as_str();
                while let Some(c) = rest.chars().next() {
                    let after = rest.trim_start_matches(is_space);
                    let spaces = &rest[..rest.len() - after.len()];
                    if spaces.chars().nth(1).is_some() {
                        units.push(" ");
                        rest = after;
                    } else {
                        units.push(&rest[..c.len_utf8()]);
                        rest = &rest[c.len_utf8()..];
                    }
                }
            }
        }
        units
    }

    fn push(&mut self, unit: &str) {
        let start = self.text.len();
        self.text.push_str(unit);
        self.spans.push((start, self.text.len()));
    }

    fn counts(&self, options: &Options) -> Counts<'_> {
        let (shortest, longest) = options.ngram_range;
        let mut terms: Vec<&str> = vec![];
        for n in shortest..=longest.min(self.spans.len()) {
            terms.extend(self.spans.windows(n).map(|w| &self.text[w[0].0..w[n - 1].1]));
        }
        terms.sort_unstable();
        let mut counts: Counts = vec![];
        for term in terms {
            match counts.last_mut() {
                Some((last, count)) if *last == term => *count += 1,
                _ => counts.push((term, 1)),
            }
        }
        counts
    }
}

/// White space as Python's `\s` has it: Unicode's and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_terms(text: &str, analyzer: Analyzer, ngram_range: (usize, usize), expected: &[&str]) {
        let options = Options { analyzer, ngram_range, ..Options::default() };
        let units = Units::of(text, analyzer);
        let terms: Vec<&str> = units.counts(&options).into_iter().map(|(term, _)| term).collect();
        assert_eq!(terms, expected);
    }

    #[test]
    fn cuts_words_and_characters() {
        check_terms("It's a no_go: N°42!", Analyzer::Word, (1, 1), &["42", "it", "no_go"]);
        check_terms("Not a good film", Analyzer::Word, (2, 2), &["good film", "not good"]);
        check_terms("非常好", Analyzer::Char, (1, 2), &["好", "常", "常好", "非", "非常"]);
        check_terms("A \n\nb\tc", Analyzer::Char, (1, 1), &["\t", " ", "a", "b", "c"]);
        check_terms("ab", Analyzer::Char, (3, 9), &[]);
        check_terms("", Analyzer::Word, (1, 2), &[]);
    }

    #[test]
    fn weighs_by_hand() {
        let (_, rows) = TfIdf::fit(&["aa aa bb", "aa"], &Options::default()).unwrap();
        // idf(aa) = ln(3/3) + 1 = 1; idf(bb) = ln(3/2) + 1 = 1.405465
        let (aa, bb) = (2.0, 1.405_465_108);
        let length = f64::hypot(aa, bb);
        let row: Vec<f64> = rows.row(0).map(|(_, x)| x).collect();
        assert!((row[0] - aa / length).abs() < 1e-7 && (row[1] - bb / length).abs() < 1e-7);
    }

    #[test]
    fn says_why_it_cannot_fit() {
        let rare = Options { min_df: 2, ..Options::default() };
        let error = TfIdf::fit(&["one", "two"], &rare).unwrap_err();
        assert_eq!(error, FitError::NoTerms { texts: 2, terms: 2, min_df: 2 });

        let empty = Options { ngram_range: (2, 1), ..Options::default() };
        let error = TfIdf::fit(&["one"], &empty).unwrap_err();
        assert_eq!(error, FitError::NgramRange { shortest: 2, longest: 1, limit: 16 });
    }
}
