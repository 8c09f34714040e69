//! Models before neural networks: TF-IDF features and linear classifiers.
//!
//! They fit in a second or two on one machine, and they are the number that a neural model has to beat.
//! [`text::TextClassifier`] is the whole of it: strings in, a label and its probabilities out.
//!
//! The results are those of scikit-learn's `TfidfVectorizer` and `LogisticRegression`; the golden files under
//! `tests/golden/` hold it to that. This crate never sees a tensor or a file, and fits to the same bits
//! whatever the number of threads.

pub mod csr;
pub mod error;
mod lbfgs;
mod lines;
pub mod logistic;
pub mod nbsvm;
pub mod ngram;
pub mod text;
pub mod tfidf;
pub mod viterbi;
