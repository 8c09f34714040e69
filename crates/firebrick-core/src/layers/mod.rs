//! Parts that two or more families share.

pub mod activation;
pub mod attention;
pub mod cache;
pub mod conv;
pub mod ctc;
pub mod dropout;
pub mod embedding;
pub mod encoder;
pub mod fused;
pub mod linear;
pub mod loss;
pub mod mlp;
pub mod moments;
pub mod norm;
pub mod patch;
pub mod pool;
pub mod position;
pub mod recompute;
pub mod rnn;
pub mod scalar;
pub mod spec_augment;
pub mod split;
