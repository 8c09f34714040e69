//! Linear and embedding layers with the initialisation of BERT: normal weights, zero bias.

use burn::{
    nn::{Embedding, Initializer, Linear},
    prelude::*,
};

/// `[input] -> [output]`; weights from a normal distribution with deviation `std`, bias zero.
pub fn linear(input: usize, output: usize, std: f64, device: &Device) -> Linear {
    let normal = Initializer::Normal { mean: 0.0, std };
    Linear {
        weight: normal.init([input, output], device),
        bias: Some(Initializer::Zeros.init([output], device)),
    }
}

/// `rows` vectors of `width` channels, normal with deviation `std`.
pub fn embedding(rows: usize, width: usize, std: f64, device: &Device) -> Embedding {
    Embedding { weight: Initializer::Normal { mean: 0.0, std }.init([rows, width], device) }
}
