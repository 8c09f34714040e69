//! Parts that two or more families share.

pub mod activation;
pub mod attention;
pub mod dropout;
pub mod fused;
pub mod linear;
pub mod norm;
