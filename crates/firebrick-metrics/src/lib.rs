//! Counts in, numbers out: accuracy, precision, recall, F1, spans, perplexity, ROC, calibration error, confidence
//! intervals, word error rate, the bootstrap.
//!
//! Every metric is a struct of counts with `+=` and methods that divide, so batches, files and machines can be scored
//! apart and added up. Each names the reference tool it agrees with.
//!
//! This crate depends on nothing. It never sees a tensor, a file or a model.

pub mod bleu;
pub mod bootstrap;
pub mod calibration;
pub mod chrf;
pub mod confusion;
pub mod edit;
pub mod interval;
pub mod perplexity;
pub mod roc;
pub mod tagging;
