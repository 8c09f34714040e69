//! Faces: from pictures of people to a model that says whether two are of one person, and an index of who is known.

pub mod corpus;
pub mod embedder;
pub mod index;
pub mod judge;
pub mod recipe;
pub mod task;
pub mod train;
