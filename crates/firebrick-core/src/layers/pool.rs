//! Neighbourhoods of an image to one number each.
//!
//! Axis letters: `B` batch, `C` channels, `H` rows, `W` columns.

use burn::{
    prelude::*,
    tensor::{module, ops::MaxPoolOptions},
};

use super::fused;

/// The mean of every channel, `[B, C, H, W]` -> `[B, C]`.
pub fn global_average(x: Tensor<4>) -> Tensor<2> {
    if fused::applies(&x) {
        return fused::global_average(x);
    }
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h * w]).mean_dim(2).reshape([b, c])
}

/// The largest number of every window, `[B, C, H, W]` -> `[B, C, H', W']`; what is padded is never the largest.
pub fn max_pool(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    if fused::applies(&x) {
        return fused::max_pool(x, kernel, stride, padding);
    }
    let options = MaxPoolOptions {
        stride: [stride; 2],
        padding: [(padding, padding); 2],
        ..MaxPoolOptions::new([kernel; 2])
    };
    module::max_pool2d(x, options)
}
