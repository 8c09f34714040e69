//! Multi-head attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
//!
//! Axis letters: `B` batch, `T` tokens (`Tq` queries, `Tk` keys), `C` channels, `H` heads, `G` heads of keys
//! and values, `D` channels of a head.

use burn::{module::Module, prelude::*, tensor::activation::softmax};

use super::{cache::KeyValue, dropout::Dropout, fused, linear::Linear, split::Split};

/// Which keys a query sees. The default sees all.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// `[B, Tk]`, true where the key is padding.
    pub pad: Option<Tensor<2, Bool>>,
    /// The queries are the last `Tq` of `Tk` positions, and see nothing after their own.
    pub causal: bool,
    /// A query sees only so many positions back, its own included.
    pub window: Option<usize>,
    /// `[1 or B, H, Tq, Tk]`, added to the scores.
    pub bias: Option<Tensor<4>>,
}

impl Mask {
    pub fn padding(pad: Option<Tensor<2, Bool>>) -> Self {
        Self { pad, ..Self::default() }
    }

    pub fn causal(pad: Option<Tensor<2, Bool>>) -> Self {
        Self { pad, causal: true, ..Self::default() }
    }
}

/// How queries share keys, and how their products are scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// `H`
    pub query: usize,
    /// `G`: divides `H`; fewer than `H` is grouped-query attention (Ainslie et al. 2023).
    pub key_value: usize,
    /// Usually `1 / sqrt(D)`.
    pub scale: f64,
}

impl Heads {
    /// `heads` of `head_dim` channels, each with keys of its own.
    pub fn new(heads: usize, head_dim: usize) -> Self {
        Self::grouped(heads, heads, head_dim)
    }

    pub fn grouped(query: usize, key_value: usize, head_dim: usize) -> Self {
        Self { query, key_value, scale: (head_dim as f64).powf(-0.5) }
    }
}

/// A mixture of the values for every query, before the output projection.
///
/// - `query`: `[B, Tq, H * D]`; `key`, `value`: `[B, Tk, G * D]`
/// - returns `[B, Tq, H * D]`
pub fn attend(inputs: [Tensor<3>; 3], heads: Heads, mask: &Mask, dropout: &Dropout) -> Tensor<3> {
    if fused::applies(&inputs[0]) {
        let dropout = dropout.draw(&inputs[0].device());
        return fused::attention(inputs, heads, mask, dropout);
    }
    composed(inputs, heads, mask, dropout)
}

/// [`attend`] over query, key and value side by side, as one projection leaves them: `[B, T, 3 * H * D]` ->
/// `[B, T, H * D]`
pub fn attend_packed(all: Tensor<3>, heads: Heads, mask: &Mask, dropout: &Dropout) -> Tensor<3> {
    if fused::applies(&all) && mask.bias.is_none() {
        let dropout = dropout.draw(&all.device());
        return fused::packed_attention(all, heads, mask, dropout);
    }
    attend(split(all), heads, mask, dropout)
}

/// `[B, T, 3 C]` -> three of `[B, T, C]`
pub fn split(all: Tensor<3>) -> [Tensor<3>; 3] {
    let c = all.dims()[2] / 3;
    [0, 1, 2].map(|part| all.clone().narrow(2, part * c, c))
}

/// [`attend`] from Burn's operations. A query that `pad` leaves no key is the one case in which a kernel mixes
/// differently: it keeps to the keys that the rest of the mask allows.
pub(super) fn composed(
    [query, key, value]: [Tensor<3>; 3],
    heads: Heads,
    mask: &Mask,
    dropout: &Dropout,
) -> Tensor<3> {
    let [b, tq, width] = query.dims();
    let [_, tk, _] = key.dims();
    let d = width / heads.query;
    let split = |x: Tensor<3>, n: usize, t: usize| x.reshape([b, t, n, d]).swap_dims(1, 2);
    let query = split(query, heads.query, tq); // [B, H, Tq, D]
    let [key, value] = [key, value].map(|x| {
        let x = split(x, heads.key_value, tk); // [B, G, Tk, D]
        repeat_heads(x, heads.query / heads.key_value) // [B, H, Tk, D]
    });
    let mut scores = query.matmul(key.swap_dims(2, 3)) * heads.scale; // [B, H, Tq, Tk]
    if let Some(bias) = &mask.bias {
        scores = scores + bias.clone();
    }
    // Not -inf: a row that is all padding must stay finite.
    if let Some(hidden) = hidden_by_position(tq, tk, mask, &scores.device()) {
        scores = scores.mask_fill(hidden.expand([b, heads.query, tq, tk]), f32::MIN);
    }
    if let Some(pad) = &mask.pad {
        let hidden = pad.clone().reshape([b, 1, 1, tk]).expand([b, heads.query, tq, tk]);
        scores = scores.mask_fill(hidden, f32::MIN);
    }
    let weights = dropout.forward(softmax(scores, 3));
    weights.matmul(value).swap_dims(1, 2).reshape([b, tq, width])
}

/// `[B, G, T, D]` -> `[B, G * times, T, D]`, each head followed by its copies.
fn repeat_heads(x: Tensor<4>, times: usize) -> Tensor<4> {
    if times == 1 {
        return x;
    }
    let [b, g, t, d] = x.dims();
    x.unsqueeze_dim::<5>(2).expand([b, g, times, t, d]).reshape([b, g * times, t, d])
}

/// `[1, 1, Tq, Tk]`, true where a key is later than the query or out of its window.
fn hidden_by_position(
    tq: usize,
    tk: usize,
    mask: &Mask,
    device: &Device,
) -> Option<Tensor<4, Bool>> {
    // After the last position there is nothing to hide.
    let causal = mask.causal && tq > 1;
    if !causal && mask.window.is_none() {
        return None;
    }
    let (tq, tk) = (tq as i64, tk as i64);
    let query = Tensor::<1, Int>::arange(tk - tq..tk, device).reshape([tq as usize, 1]);
    let key = Tensor::<1, Int>::arange(0..tk, device).reshape([1, tk as usize]);
    let back = query - key; // [Tq, Tk], how far back the key lies
    let later = causal.then(|| back.clone().lower_elem(0));
    let too_far = mask.window.map(|window| back.greater_equal_elem(window as i64));
    let hidden: Tensor<2, Bool> = match (later, too_far) {
        (Some(later), Some(too_far)) => later.bool_or(too_far),
        (hidden, None) | (None, hidden) => hidden?,
    };
    Some(hidden.unsqueeze())
}

/// Sizes of a [`MultiHeadAttention`]; which projections have a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// `C`: channels in and out.
    pub width: usize,
    pub heads: usize,
    /// `D`; `H * D` need not be `C`.
    pub head_dim: usize,
    pub query_bias: bool,
    pub key_bias: bool,
    pub value_bias: bool,
    pub output_bias: bool,
    /// Of the attention weights.
    pub dropout: f64,
    /// Deviation of fresh weights.
    pub std: f64,
}

impl AttentionConfig {
    /// `width` must be divisible by `heads`. All biases, no dropout, deviation 0.02.
    pub fn new(width: usize, heads: usize) -> Self {
        Self {
            width,
            heads,
            head_dim: width / heads,
            query_bias: true,
            key_bias: true,
            value_bias: true,
            output_bias: true,
            dropout: 0.0,
            std: 0.02,
        }
    }

    pub fn init(&self, device: &Device) -> MultiHeadAttention {
        let (c, inner) = (self.width, self.heads * self.head_dim);
        let into = |bias| Linear::with_bias(bias, c, inner, self.std, device);
        MultiHeadAttention {
            query: into(self.query_bias),
            key: into(self.key_bias),
            value: into(self.value_bias),
            output: Linear::with_bias(self.output_bias, inner, c, self.std, device),
            dropout: Dropout::new(self.dropout),
            heads: Heads::new(self.heads, self.head_dim),
            split: Split::default(),
        }
    }
}

/// Attention with its four projections: over the tokens themselves, or over a memory.
#[derive(Module, Debug)]
pub struct MultiHeadAttention {
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    /// Of the attention weights.
    pub dropout: Dropout,
    #[module(skip)]
    pub heads: Heads,
    #[module(skip)]
    pub split: Split,
}

impl MultiHeadAttention {
    /// With this member's share of the heads; its parameters are for [`Split::cut`].
    pub fn split(self, split: &Split) -> Self {
        let (query, key_value) = (split.share(self.heads.query), split.share(self.heads.key_value));
        let heads = Heads { query, key_value, ..self.heads };
        let dropout = self.dropout.of_member(split.rank());
        Self { heads, dropout, split: split.clone(), ..self }
    }

    /// The opposite of [`Self::split`].
    pub fn join(self) -> Self {
        let members = self.split.size();
        let (query, key_value) = (self.heads.query * members, self.heads.key_value * members);
        let heads = Heads { query, key_value, ..self.heads };
        Self { heads, dropout: self.dropout.of_member(0), split: Split::default(), ..self }
    }

    /// Every token looks at every other that the mask lets it see: `x`: `[B, T, C]` -> `[B, T, C]`
    pub fn forward(&self, x: Tensor<3>, mask: &Mask) -> Tensor<3> {
        self.cached(x, mask, None)
    }

    /// How much every token looks at every other, before mask and softmax: `[B, T, C]` -> `[B, H, T, T]`
    pub fn scores(&self, x: Tensor<3>) -> Tensor<4> {
        let [b, t, _] = x.dims();
        let split = |x: Tensor<3>, n: usize| {
            let d = x.dims()[2] / n;
            x.reshape([b, t, n, d]).swap_dims(1, 2) // [B, n, T, D]
        };
        let Heads { query: h, key_value: g, scale } = self.heads;
        let query = split(self.query.forward(x.clone()), h);
        let key = repeat_heads(split(self.key.forward(x), g), h / g);
        query.matmul(key.swap_dims(2, 3)) * scale
    }

    /// As [`Self::forward`]; with a cache, over the tokens of earlier calls too.
    pub fn cached(&self, x: Tensor<3>, mask: &Mask, cache: Option<&mut KeyValue>) -> Tensor<3> {
        let x = self.split.enter(x);
        let memory = self.keys_and_values(x.clone());
        let memory = match cache {
            Some(cache) => cache.append(memory),
            None => memory,
        };
        self.mix(x, memory, mask)
    }

    /// Keys and values of `x`: `[B, Tk, C]` -> `[B, Tk, H * D]` each, for [`Self::over`].
    pub fn memory(&self, x: Tensor<3>) -> [Tensor<3>; 2] {
        self.keys_and_values(self.split.enter(x))
    }

    /// The tokens `x` look at a memory, as a decoder looks at its source: `[B, Tq, C]` -> `[B, Tq, C]`
    ///
    /// A memory of fewer rows is shared by neighbours: its first row by the first ones of `x`, and so on. `mask` is of
    /// the memory's rows, and hides nothing by position.
    pub fn over(&self, x: Tensor<3>, memory: [Tensor<3>; 2], mask: &Mask) -> Tensor<3> {
        let [b, t, c] = x.dims();
        let [rows, _, _] = memory[0].dims();
        let x = x.reshape([rows, b / rows * t, c]);
        self.mix(self.split.enter(x), memory, mask).reshape([b, t, c])
    }

    fn keys_and_values(&self, x: Tensor<3>) -> [Tensor<3>; 2] {
        [self.key.forward(x.clone()), self.value.forward(x)]
    }

    fn mix(&self, x: Tensor<3>, [key, value]: [Tensor<3>; 2], mask: &Mask) -> Tensor<3> {
        let query = self.query.forward(x);
        let mixed = attend([query, key, value], self.heads, mask, &self.dropout);
        self.output.forward_rows(mixed, &self.split)
    }
}
