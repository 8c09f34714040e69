//! Videos: how frames are brought to a model, and models that say what is done in a clip.

pub mod classifier;
pub mod corpus;
pub mod frames;
pub mod read;
pub mod recipe;
pub mod task;
pub mod train;
