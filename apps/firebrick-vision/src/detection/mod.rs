//! Object detection: from pictures with boxes to a model that draws boxes.

pub mod annotations;
pub mod assign;
pub mod corpus;
pub mod detector;
pub mod draw;
pub mod frame;
mod parts;
pub mod recipe;
pub mod report;
pub mod score;
pub mod task;
pub mod train;
pub mod walls;
