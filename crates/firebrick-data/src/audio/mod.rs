//! Recordings to numbers: files and streams of any rate to mono samples, samples to spectrograms, and what makes more of
//! few recordings.
//!
//! The order of use is the order of the modules: [`read`] decodes, mixes and resamples ([`resample`]), [`voice`] finds
//! where somebody speaks, [`augment`] changes samples for training, [`mel`] makes frames of them.
//!
//! Samples are `f32`, mono, full scale at 1.

pub mod augment;
pub mod mel;
pub mod read;
pub mod voice;
pub mod wav;

mod compressed;

pub use firebrick_signal::resample;
