//! Classification of short recordings: spoken words and other sounds.

pub mod classifier;
pub mod corpus;
pub mod prune;
pub mod recipe;
pub mod report;
pub mod task;
pub mod train;
