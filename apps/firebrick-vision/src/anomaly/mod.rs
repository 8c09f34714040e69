//! Anomalies in the videos of a camera that does not move: from recordings of what is normal to a score for every frame.

pub mod corpus;
pub mod detector;
pub mod recipe;
pub mod synthetic;
pub mod task;
pub mod train;
