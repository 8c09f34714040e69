//! Multi-head self-attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
//!
//! Axis letters: `B` batch, `T` tokens, `C` channels, `H` heads, `D = C / H` channels of a head.

use burn::{module::Module, prelude::*, tensor::activation::softmax};

use super::{dropout::Dropout, fused, linear::Linear};

/// Every token looks at every token that is not padding.
#[derive(Module, Debug)]
pub struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    dropout: Dropout,
    #[module(skip)]
    heads: usize,
}

impl SelfAttention {
    /// `width` must be divisible by `heads`; `dropout` is on the attention weights.
    pub fn new(width: usize, heads: usize, dropout: f64, std: f64, device: &Device) -> Self {
        let square = || Linear::new(width, width, std, device);
        Self {
            query: square(),
            key: square(),
            value: square(),
            output: square(),
            dropout: Dropout::new(dropout),
            heads,
        }
    }

    /// `x`: `[B, T, C]`; `pad`: `[B, T]`, true where padding -> `[B, T, C]`
    pub fn forward(&self, x: Tensor<3>, pad: Tensor<2, Bool>) -> Tensor<3> {
        let q = self.query.forward(x.clone());
        let k = self.key.forward(x.clone());
        let v = self.value.forward(x);
        let mixed = if fused::applies(&q) {
            let dropout = self.dropout.draw(&q.device());
            fused::attention(q, k, v, pad, self.heads, dropout)
        } else {
            self.composed(q, k, v, pad)
        };
        self.output.forward(mixed)
    }

    fn composed(
        &self,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        pad: Tensor<2, Bool>,
    ) -> Tensor<3> {
        let [b, t, c] = q.dims();
        let (h, d) = (self.heads, c / self.heads);
        let [q, k, v] = [q, k, v].map(|x| x.reshape([b, t, h, d]).swap_dims(1, 2)); // [B, H, T, D]
        let scores = q.matmul(k.swap_dims(2, 3)) / (d as f64).sqrt(); // [B, H, T, T]
        let hidden = pad.reshape([b, 1, 1, t]).expand([b, h, t, t]);
        // Not -inf: a row that is all padding must stay finite.
        let weights = softmax(scores.mask_fill(hidden, f32::MIN), 3);
        let mixed = self.dropout.forward(weights).matmul(v); // [B, H, T, D]
        mixed.swap_dims(1, 2).reshape([b, t, c])
    }
}
