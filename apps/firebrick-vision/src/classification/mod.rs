//! Image classification: from files to a model that names what is on a picture.

pub mod classifier;
pub mod corpus;
pub mod decision;
pub mod layouts;
pub mod processor;
pub mod prune;
pub mod recipe;
pub mod report;
pub mod task;
pub mod train;
