//! Text applications: classification (sentiment) from rows to a served model, sentence embeddings, writing.
#![recursion_limit = "256"]

pub mod baseline;
pub mod batch;
pub mod chat;
pub mod classifier;
pub mod corpus;
pub mod distill;
pub mod embed;
pub mod generate;
pub mod lm;
pub mod recipe;
pub mod shipped;
pub mod task;
pub mod tokenizer;
pub mod train;
pub mod workload;
