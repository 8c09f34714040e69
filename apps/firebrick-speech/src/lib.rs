//! Speech applications: recordings into training, models into answers about recordings.
#![recursion_limit = "256"]

pub mod augment;
pub mod classification;
pub mod features;
pub mod keyword;
pub mod picture;
pub mod recipes;
pub mod recognition;
pub mod recordings;
pub mod shipped;
pub mod subtitles;
pub mod transcribe;
pub mod whisper;
