//! Tagging: a label for every word of a sentence (parts of speech, slots), and one for the sentence (intent).

pub mod corpus;
pub mod features;
pub mod recipe;
pub mod report;
pub mod tagger;
pub mod task;
pub mod train;
