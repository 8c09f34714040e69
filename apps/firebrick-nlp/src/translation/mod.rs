//! Translation: from pairs of sentences to a model that translates texts.

pub mod copies;
pub mod corpus;
pub mod formats;
pub mod lexicon;
pub mod recipe;
pub mod report;
pub mod sentences;
pub mod task;
pub mod train;
pub mod translator;
