//! Vision applications: pictures into training, models into answers about pictures.
#![recursion_limit = "256"]

pub mod anomaly;
pub mod classification;
pub mod detection;
pub mod faces;
pub mod heatmap;
mod page;
pub mod recipes;
pub mod robustness;
mod settings;
pub mod shipped;
pub mod signs;
pub mod video;
