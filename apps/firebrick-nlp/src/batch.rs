//! Token ids into padded tensors.

use burn::{prelude::*, tensor::TensorData};

/// Pads on the right. Texts are cut by the tokenizer, not here.
pub fn pad(texts: &[&[u32]], pad_id: u32, device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let t = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(texts.len() * t);
    let mut pad = Vec::with_capacity(texts.len() * t);
    for text in texts {
        ids.extend(text.iter().map(|id| *id as i32));
        ids.resize(ids.len() + t - text.len(), pad_id as i32);
        pad.extend((0..t).map(|i| i >= text.len()));
    }
    let shape = [texts.len(), t];
    (
        Tensor::from_data(TensorData::new(ids, shape), device),
        Tensor::from_data(TensorData::new(pad, shape), device),
    )
}
