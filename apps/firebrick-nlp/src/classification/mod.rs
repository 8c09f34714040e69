//! Text classification (sentiment): from rows to a served model.

pub mod attribution;
pub mod baseline;
pub mod batch;
pub mod classifier;
pub mod corpus;
pub mod distill;
pub mod imitate;
pub mod prune;
pub mod recipe;
pub mod report;
pub mod task;
pub mod train;
