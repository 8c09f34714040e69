//! What can go wrong between text and a fitted model, or a file and a model.

use std::{fmt, io};

/// Facts about data or options that a model cannot be fitted to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// One label is needed for each text.
    Lengths {
        texts: usize,
        labels: usize,
    },
    /// A classifier tells at least two labels apart.
    OneLabel {
        found: Option<String>,
    },
    /// `ngram_range` is `(shortest, longest)`, with 1 <= shortest <= longest <= limit.
    NgramRange {
        shortest: usize,
        longest: usize,
        limit: usize,
    },
    /// Every term was rarer than `min_df`, or there was none.
    NoTerms {
        texts: usize,
        terms: usize,
        min_df: usize,
    },
    /// `c` is the inverse of a strength: positive and finite.
    Regularisation {
        c: String,
    },
    /// The length of the longest n-gram.
    Order {
        order: usize,
        limit: usize,
    },
    /// Thresholds of pruning begin with 0, do not decrease, and are at most as many as the order.
    Prune {
        prune: Vec<u32>,
        order: usize,
    },
    NoSentences,
    /// Places in a text have 32 bits.
    TooManyTokens {
        tokens: usize,
    },
    /// So have the numbers of n-grams.
    TooManyNgrams {
        ngrams: usize,
    },
    /// Number 1 or 2, which are `<s>` and `</s>`, or one beyond the vocabulary.
    Token {
        token: u32,
        sentence: usize,
        vocabulary: usize,
    },
    TooManyTags {
        tags: usize,
        limit: usize,
    },
    /// An option outside its domain.
    Options {
        problem: String,
    },
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lengths { texts, labels } => {
                write!(f, "{texts} texts but {labels} labels")
            }
            Self::OneLabel { found: None } => write!(f, "there are no rows to fit"),
            Self::OneLabel { found: Some(label) } => {
                write!(
                    f,
                    "every row has the label `{label}`; a classifier needs two labels or more"
                )
            }
            Self::NgramRange { shortest, longest, limit } => write!(
                f,
                "ngram_range is [{shortest}, {longest}], but 1 <= shortest <= longest <= {limit} is expected"
            ),
            Self::NoTerms { texts, terms, min_df } => write!(
                f,
                "no term is left: {texts} texts hold {terms} terms, none in at least {min_df} texts (min_df)"
            ),
            Self::Regularisation { c } => write!(f, "c is {c}, but a positive number is expected"),
            Self::Order { order, limit } => {
                write!(f, "the order is {order}, but 1 to {limit} is expected")
            }
            Self::Prune { prune, order } => write!(
                f,
                "prune is {prune:?}, but at most {order} numbers are expected, the first 0, none smaller than the one before"
            ),
            Self::NoSentences => write!(f, "there are no sentences to learn from"),
            Self::TooManyTokens { tokens } => {
                write!(f, "{tokens} tokens, but at most {} are taken", u32::MAX)
            }
            Self::TooManyNgrams { ngrams } => write!(
                f,
                "{ngrams} different n-grams, but at most {} are taken; lower the order",
                u32::MAX
            ),
            Self::Token { token, sentence, vocabulary } => write!(
                f,
                "token {token} in sentence {sentence}: tokens are below {vocabulary}, and neither 1 (<s>) nor 2 (</s>)"
            ),
            Self::TooManyTags { tags, limit } => {
                write!(f, "{tags} different tags, but at most {limit} are taken")
            }
            Self::Options { problem } => f.write_str(problem),
        }
    }
}

impl std::error::Error for FitError {}

/// A model file that cannot be used: which line, and what is wrong with it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    Read {
        source: io::Error,
    },
    /// `line` counts from 1.
    Line {
        line: u64,
        problem: String,
    },
}

impl ReadError {
    pub(crate) fn line(line: u64, problem: String) -> Self {
        Self::Line { line, problem }
    }
}

impl From<io::Error> for ReadError {
    fn from(source: io::Error) -> Self {
        Self::Read { source }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { .. } => write!(f, "the file cannot be read"),
            Self::Line { line, problem } => write!(f, "line {line}: {problem}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source } => Some(source),
            Self::Line { .. } => None,
        }
    }
}
