//! Models before neural networks: n-grams, hidden Markov models, TF-IDF features and linear classifiers.
//!
//! They fit in a few seconds on one machine, and they are the number that a neural model has to beat.
//! [`text::TextClassifier`] takes strings and gives a label and its probabilities, [`hmm::tagger::Tagger`] gives words
//! their parts of speech, [`ngram::Ngram`] guesses the next word or character; [`viterbi::viterbi`] finds the best
//! sequence of labels under any model's scores.
//!
//! Each is held to a reference by the golden files under `tests/golden/`: scikit-learn's `TfidfVectorizer` and
//! `LogisticRegression`, KenLM. This crate never sees a tensor or a file, and fits to the same bits whatever the number
//! of threads.

pub mod csr;
pub mod error;
pub mod hmm;
mod lbfgs;
mod lines;
pub mod logistic;
pub mod nbsvm;
pub mod ngram;
pub mod text;
pub mod tfidf;
pub mod viterbi;
