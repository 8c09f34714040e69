//! Speech recognition from scratch: labels frame by frame (CTC), searched by a dictionary and a language model.

pub mod corpus;
pub mod lexicon;
pub mod recipe;
pub mod recognizer;
pub mod report;
pub mod search;
pub mod task;
pub mod train;
