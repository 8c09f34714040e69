//! Models: devices by name, layers, families, checkpoints, generation.
//!
//! This crate turns a `config.json` and a `model.safetensors` into a module on a device and back.
//! It never tokenises, downloads, logs or prints.
#![recursion_limit = "256"]

pub mod arch;
pub mod checkpoint;
pub mod device;
pub mod generate;
pub mod layers;
pub mod parallel;
pub mod threads;
