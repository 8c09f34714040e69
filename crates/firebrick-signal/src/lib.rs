//! Pictures and sounds at another size, and Fourier transforms.
//!
//! What the libraries behind these functions are made of is compiled where it is first used with a type of number: here, once,
//! and not with every edit of `firebrick-data` and again for its tests, where it was three quarters of the code.

pub mod resample;

mod picture;

use std::sync::Arc;

pub use picture::{Filter, scale};
pub use realfft::{RealToComplex, num_complex::Complex32};

/// From `n` numbers to `n / 2 + 1`.
pub fn fourier(n: usize) -> Arc<dyn RealToComplex<f32>> {
    realfft::RealFftPlanner::new().plan_fft_forward(n)
}
