//! What can go wrong between rows of text and a fitted model.

use std::fmt;

/// Facts about data or options that a model cannot be fitted to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// One label is needed for each text.
    Lengths { texts: usize, labels: usize },
    /// A classifier tells at least two labels apart.
    OneLabel { found: Option<String> },
    /// `ngram_range` is `(shortest, longest)`, with 1 <= shortest <= longest <= limit.
    NgramRange { shortest: usize, longest: usize, limit: usize },
    /// Every term was rarer than `min_df`, or there was none.
    NoTerms { texts: usize, terms: usize, min_df: usize },
    /// `c` is the inverse of a strength: positive and finite.
    Regularisation { c: String },
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
        }
    }
}

impl std::error::Error for FitError {}
