//! Speech applications: recordings into training, models into answers about recordings, and what is done about them.
#![recursion_limit = "256"]

pub mod alarms;
pub mod assistant;
pub mod augment;
pub mod background;
pub mod classification;
pub mod features;
pub mod home;
pub mod interpret;
pub mod keyword;
pub mod picture;
pub mod recipes;
pub mod recognition;
pub mod recordings;
pub mod shipped;
pub mod speaker;
pub mod subtitles;
pub mod transcribe;
pub mod wake;
pub mod wav2vec2;
pub mod when;
pub mod whisper;
pub mod words;
