//! Scaled dot-product attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, section 3.2.1) with a
//! key mask and dropout on the weights, forward and backward.
//!
//! Heads stay interleaved as the projections leave them, `[B, T, H * D]`, so nothing is copied or transposed.
//! The weights of a block of queries live in cache and are made again in the backward pass (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): memory grows with `T`, not with its square.

use rayon::prelude::*;

use crate::{
    dropout::Dropout,
    math::{dot, exp, max, sum},
    matmul::{Matrix, product},
};

/// Queries whose weights are in cache together.
const QUERIES: usize = 64;

/// Rows of weights are this many or a multiple of it, the rest as under padding: whole vectors, no remainder.
const LANES: usize = 16;

/// Inputs of both passes.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// `[B, T, C]` each.
    pub query: &'a [f32],
    pub key: &'a [f32],
    pub value: &'a [f32],
    /// `[B, T]`, not 0 where a key is padding. A row whose keys are all padding attends to all alike.
    pub pad: &'a [u8],
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub dropout: Dropout,
}

impl<'a> Attention<'a> {
    fn width(&self) -> usize {
        self.query.len() / (self.batch * self.tokens)
    }

    fn check(&self) {
        let len = self.query.len();
        assert!(self.batch > 0 && self.tokens > 0 && self.heads > 0, "attention over nothing");
        assert_eq!(len % (self.batch * self.tokens * self.heads), 0);
        assert!(self.key.len() == len && self.value.len() == len);
        assert_eq!(self.pad.len(), self.batch * self.tokens);
    }

    /// One head of `x` in batch row `b`, from token `first`: `[rows, D]`.
    fn head(&self, x: &'a [f32], b: usize, h: usize, first: usize, rows: usize) -> Matrix<'a> {
        let (c, d) = (self.width(), self.width() / self.heads);
        let at = (b * self.tokens + first) * c + h * d;
        Matrix::strided(&x[at..], rows, d, c, 1)
    }

    /// Elements from one query's weights to the next one's.
    fn stride(&self) -> usize {
        self.tokens.next_multiple_of(LANES)
    }

    /// Padding of batch row `b`, as long as the stride.
    fn hidden(&self, b: usize) -> Vec<u8> {
        let mut hidden = self.pad[b * self.tokens..(b + 1) * self.tokens].to_vec();
        hidden.resize(self.stride(), 1);
        hidden
    }

    /// The weights' columns that stand for tokens.
    fn tile(&self, weights: &'a [f32]) -> Matrix<'a> {
        let stride = self.stride();
        Matrix::strided(weights, weights.len() / stride, self.tokens, stride, 1)
    }

    /// Softmax weights of queries from `first`, without dropout: `[rows, stride]`.
    fn weights(&self, b: usize, h: usize, first: usize, hidden: &[u8], weights: &mut [f32]) {
        let query = self.head(self.query, b, h, first, weights.len() / self.stride());
        let key = self.head(self.key, b, h, 0, self.tokens);
        product(weights, self.stride(), false, query, key.transposed());
        let scale = 1.0 / ((self.width() / self.heads) as f32).sqrt();
        dispatch_softmax(weights, hidden, scale);
        if hidden.iter().all(|hidden| *hidden != 0) {
            // Nothing to attend to: to all tokens alike, not to what fills up the vectors.
            weights.fill(1.0 / self.tokens as f32);
        }
    }

    /// Index of the first weight of a query, which seeds its dropout.
    fn index(&self, b: usize, h: usize, query: usize) -> u32 {
        (((b * self.heads + h) * self.tokens + query) * self.stride()) as u32
    }
}

/// Scores `[rows, stride]` to weights, in place.
#[inline(always)]
fn softmax(scores: &mut [f32], pad: &[u8], scale: f32) {
    for row in scores.chunks_exact_mut(pad.len()) {
        for (score, pad) in row.iter_mut().zip(pad) {
            *score = if *pad == 0 { *score } else { f32::MIN };
        }
        let largest = max(row);
        for score in row.iter_mut() {
            *score = exp((*score - largest) * scale);
        }
        let inverse = 1.0 / sum(row);
        row.iter_mut().for_each(|weight| *weight *= inverse);
    }
}

/// The softmax's gradient by row: `slopes = weights * (slopes - <slopes, weights>) * scale`, where `slopes` comes
/// in as the gradient of the dropped weights; zero under padding.
#[inline(always)]
fn softmax_gradient(
    weights: &[f32],
    dropout: Dropout,
    first: u32,
    pad: &[u8],
    scale: f32,
    slopes: &mut [f32],
) {
    let tokens = pad.len();
    for (i, slope) in slopes.iter_mut().enumerate() {
        *slope *= dropout.factor(first.wrapping_add(i as u32));
    }
    for (slopes, weights) in slopes.chunks_exact_mut(tokens).zip(weights.chunks_exact(tokens)) {
        let along = dot(slopes, weights);
        for ((slope, weight), pad) in slopes.iter_mut().zip(weights).zip(pad) {
            *slope = if *pad == 0 { weight * (*slope - along) * scale } else { 0.0 };
        }
    }
}

crate::for_this_cpu!(dispatch_softmax = softmax(scores: &mut [f32], pad: &[u8], scale: f32));
crate::for_this_cpu!(dispatch_gradient = softmax_gradient(
    weights: &[f32], dropout: Dropout, first: u32, pad: &[u8], scale: f32, slopes: &mut [f32]
));

/// Mixed values, `[B, T, C]`.
pub fn forward(a: &Attention, out: &mut [f32]) {
    a.check();
    assert_eq!(out.len(), a.query.len());
    let (t, c, d) = (a.tokens, a.width(), a.width() / a.heads);
    let blocks: Vec<_> = out
        .chunks_mut(t * c)
        .enumerate()
        .flat_map(|(b, out)| {
            out.chunks_mut(QUERIES * c).enumerate().map(move |(q, out)| (b, q * QUERIES, out))
        })
        .collect();
    blocks.into_par_iter().for_each(|(b, first, out)| {
        let rows = out.len() / c;
        let hidden = a.hidden(b);
        let mut weights = vec![0.0; rows * a.stride()];
        let mut dropped = vec![0.0; if a.dropout == Dropout::NONE { 0 } else { weights.len() }];
        for h in 0..a.heads {
            a.weights(b, h, first, &hidden, &mut weights);
            let kept = if a.dropout == Dropout::NONE {
                &weights
            } else {
                a.dropout.apply_from(a.index(b, h, first), &weights, &mut dropped);
                &dropped
            };
            let value = a.head(a.value, b, h, 0, t);
            product(&mut out[h * d..], c, false, a.tile(kept), value);
        }
    });
}

/// Gradients of [`forward`] with respect to query, key and value, `[B, T, C]` each.
pub fn backward(a: &Attention, dy: &[f32], dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
    a.check();
    let len = a.query.len();
    assert!(dy.len() == len && dq.len() == len && dk.len() == len && dv.len() == len);
    let (t, c, d) = (a.tokens, a.width(), a.width() / a.heads);
    let scale = 1.0 / (d as f32).sqrt();
    let rows = dq.par_chunks_mut(t * c).zip(dk.par_chunks_mut(t * c)).zip(dv.par_chunks_mut(t * c));
    rows.enumerate().for_each(|(b, ((dq, dk), dv))| {
        let stride = a.stride();
        let hidden = a.hidden(b);
        let size = QUERIES.min(t) * stride;
        let (mut weights, mut dropped, mut slopes) =
            (vec![0.0; size], vec![0.0; size], vec![0.0; size]);
        for h in 0..a.heads {
            for first in (0..t).step_by(QUERIES) {
                let rows = QUERIES.min(t - first);
                let weights = &mut weights[..rows * stride];
                let dropped = &mut dropped[..rows * stride];
                let slopes = &mut slopes[..rows * stride];
                let index = a.index(b, h, first);
                let dy = a.head(dy, b, h, first, rows);

                a.weights(b, h, first, &hidden, weights);
                a.dropout.apply_from(index, weights, dropped);
                let add = first > 0;
                product(&mut dv[h * d..], c, add, a.tile(dropped).transposed(), dy);
                product(slopes, stride, false, dy, a.head(a.value, b, h, 0, t).transposed());
                dispatch_gradient(weights, a.dropout, index, &hidden, scale, slopes);
                let slopes = a.tile(slopes);
                product(&mut dq[first * c + h * d..], c, false, slopes, a.head(a.key, b, h, 0, t));
                let query = a.head(a.query, b, h, first, rows);
                product(&mut dk[h * d..], c, add, slopes.transposed(), query);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: usize = 2;
    const T: usize = 70; // more than one block of queries
    const H: usize = 3;
    const D: usize = 4;

    fn numbers(seed: u32) -> Vec<f32> {
        let n = (B * T * H * D) as u32;
        (0..n).map(|i| ((i * 7919 + seed * 977) % 211) as f32 / 50.0 - 2.0).collect()
    }

    /// `sum(dy * attention)` by the formula, in f64.
    fn loss(a: &Attention, dy: &[f32]) -> f64 {
        let at = |x: &[f32], b, t, h, d| f64::from(x[((b * T + t) * H + h) * D + d]);
        let mut total = 0.0;
        for b in 0..B {
            for h in 0..H {
                for q in 0..T {
                    let score = |k: usize| {
                        let dot: f64 =
                            (0..D).map(|d| at(a.query, b, q, h, d) * at(a.key, b, k, h, d)).sum();
                        if a.pad[b * T + k] == 0 { (dot / (D as f64).sqrt()).exp() } else { 0.0 }
                    };
                    let weights: Vec<f64> = (0..T).map(score).collect();
                    let sum: f64 = weights.iter().sum();
                    for (k, weight) in weights.iter().enumerate() {
                        let kept = f64::from(a.dropout.factor(a.index(b, h, q) + k as u32));
                        for d in 0..D {
                            total +=
                                at(dy, b, q, h, d) * weight / sum * kept * at(a.value, b, k, h, d);
                        }
                    }
                }
            }
        }
        total
    }

    /// The forward pass against its formula, the backward pass against finite differences.
    #[test]
    fn values_and_slopes() {
        let (q, k, v, dy) = (numbers(1), numbers(2), numbers(3), numbers(4));
        let pad: Vec<u8> = (0..B * T).map(|i| u8::from(i % T > 60 || i == 3)).collect();
        for dropout in [Dropout::NONE, Dropout::new(0.2, 5)] {
            let with = |all: [&[f32]; 3]| {
                let a = Attention {
                    query: all[0],
                    key: all[1],
                    value: all[2],
                    pad: &pad,
                    batch: B,
                    tokens: T,
                    heads: H,
                    dropout,
                };
                loss(&a, &dy)
            };
            let a = Attention {
                query: &q,
                key: &k,
                value: &v,
                pad: &pad,
                batch: B,
                tokens: T,
                heads: H,
                dropout,
            };
            let mut out = vec![f32::NAN; q.len()];
            forward(&a, &mut out);
            let found: f64 =
                out.iter().zip(&dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum();
            let expected = with([&q, &k, &v]);
            assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");

            let mut grads =
                [vec![f32::NAN; q.len()], vec![f32::NAN; q.len()], vec![f32::NAN; q.len()]];
            let [dq, dk, dv] = &mut grads;
            backward(&a, &dy, dq, dk, dv);
            for (which, grad) in grads.iter().enumerate() {
                for i in (0..grad.len()).step_by(97) {
                    let at = |h: f32| {
                        let mut all = [q.clone(), k.clone(), v.clone()];
                        all[which][i] += h;
                        with([&all[0], &all[1], &all[2]])
                    };
                    let h = 1.0 / 256.0;
                    let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
                    let found = f64::from(grad[i]);
                    assert!(
                        (found - slope).abs() < 1e-3 * slope.abs().max(1.0),
                        "{which}, {i}: {found}, not {slope}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_of_padding_stays_finite() {
        let x = numbers(1);
        let a = Attention {
            query: &x,
            key: &x,
            value: &x,
            pad: &[1; B * T],
            batch: B,
            tokens: T,
            heads: H,
            dropout: Dropout::NONE,
        };
        let mut out = vec![f32::NAN; x.len()];
        forward(&a, &mut out);
        assert!(out.iter().all(|y| y.is_finite()));
    }
}
