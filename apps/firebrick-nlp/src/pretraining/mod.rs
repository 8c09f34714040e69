//! Pre-training: an encoder learns a language from texts without labels, to be fine-tuned on few with labels.

pub mod masked;
pub mod recipe;
pub mod train;
