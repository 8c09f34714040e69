//! A model into a smaller model, measured after it has been read back.
//!
//! What makes a model smaller goes from folder to folder, and every folder is an ordinary checkpoint: [`quantise`]
//! stores weights as whole numbers, [`prune`] says what can be left out, [`layers`] leaves out whole layers. [`measured`] is what a process of its own found
//! of a folder, [`gate`] holds that to a budget, and [`card`] writes it down in the folder. [`export`] hands a model on to
//! other programs.

pub mod card;
pub mod export;
pub mod folder;
pub mod gate;
pub mod layers;
pub mod measured;
pub mod prune;
pub mod quantise;
