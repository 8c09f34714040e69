//! Steps of optimisers over slices: weights and what is remembered between steps change in place.
//!
//! Each file names the class of PyTorch or transformers that it agrees with. Where a step has a `scale`, it is a factor on
//! the gradient, from clipping.

pub mod adafactor;
pub mod adamw;
pub mod lion;
pub mod muon;
pub mod penalty;
pub mod rms;
pub mod sgd;
