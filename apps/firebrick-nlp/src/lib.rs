//! Text applications: classification (sentiment) from rows to a served model, sentence embeddings, writing.
#![recursion_limit = "256"]

pub mod batch;
pub mod chat;
pub mod classification;
pub mod data;
pub mod drift;
pub mod embed;
pub mod generate;
pub mod language;
pub mod lm;
pub mod pretraining;
pub mod recipes;
pub mod search;
pub mod shipped;
pub mod tagging;
pub mod tokenizer;
pub mod translation;
pub mod workload;
