//! Scaled dot-product attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, section 3.2.1) with
//! masks, a bias on the scores, shared key/value heads (Ainslie et al. 2023, <https://arxiv.org/abs/2305.13245>)
//! and dropout on the weights, forward and backward.
//!
//! Axis letters: `B` batch, `Q` queries, `K` keys, `H` query heads, `G` key/value heads, `D` channels of a head.
//!
//! Heads stay interleaved as the projections leave them, `[B, Q, H * D]`, so nothing is copied or transposed.
//! The weights of a block of queries live in cache and are made again in the backward pass (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): memory grows with `Q`, not with `Q * K`.

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    dropout::Dropout,
    math::{LANES, dot, exp, max, sum},
    matmul::{Matrix, MatrixMut, Plus, add, product},
};

/// Inputs of both passes.
///
/// A key may be hidden from a query by `pad`, by `causal` and by `window`. Its weight is then exactly 0, but for a
/// query that `pad` leaves nothing: it attends to all that the other two let it see alike.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// `[B * Q, H * D]`, rows in one piece each.
    pub query: Matrix<'a>,
    /// `[B * capacity, G * D]` each, rows in one piece each; the first `K` rows of every `capacity` are read.
    pub key: Matrix<'a>,
    pub value: Matrix<'a>,
    pub batch: usize,
    /// `Q`
    pub queries: usize,
    /// `K`
    pub keys: usize,
    /// Rows of a key/value buffer, `K` at least: more in a cache that is still filling.
    pub capacity: usize,
    /// `H`: a multiple of `kv_heads`.
    pub heads: usize,
    /// `G`: query head `h` reads key/value head `h / (H / G)`.
    pub kv_heads: usize,
    /// Factor on `query . key`; `1 / sqrt(D)` in most models, 1 in T5.
    pub scale: f32,
    /// `[B, K]`, not 0 where a key is padding.
    pub pad: Option<&'a [u8]>,
    /// Hides what comes after a query. The last query stands at the last key: query `i` at `K - Q + i`.
    pub causal: bool,
    /// Hides keys this many positions or more before a query: it sees `window` with its own.
    pub window: Option<usize>,
    /// `[1 or B, H, Q, K]`, added to the scaled scores.
    pub bias: Option<&'a [f32]>,
    /// Of weights.
    pub dropout: Dropout,
}

/// Gradients of [`forward`].
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[B * Q, H * D]`
    pub query: MatrixMut<'a>,
    /// `[B * K, G * D]` each, whatever the capacity.
    pub key: MatrixMut<'a>,
    pub value: MatrixMut<'a>,
    /// In the bias's shape; `None` where there is no bias or nobody asks.
    pub bias: Option<&'a mut [f32]>,
}

/// Mixed values, `[B, Q, H * D]`.
pub fn forward(a: &Attention, out: &mut [f32]) {
    a.check();
    let out = MatrixMut::new(out, a.query.rows(), a.query.cols());
    let tasks: Vec<(Tile, MatrixMut)> = a
        .split_query(out)
        .into_iter()
        .enumerate()
        .flat_map(|(part, out)| {
            let size = a.block();
            let blocks = out.into_blocks_of_rows(size).enumerate();
            blocks.map(move |(block, out)| (a.tile(part, block * size, out.rows()), out))
        })
        .collect();
    let one = |scratch: &mut Scratch, (tile, out): (Tile, MatrixMut)| {
        let Scratch { weights, dropped, .. } = scratch;
        let weights = sized(weights, tile.size());
        tile.weights(weights);
        let kept = if a.dropout == Dropout::NONE {
            weights
        } else {
            let dropped = sized(dropped, tile.size());
            dispatch_dropout(&tile, weights, dropped);
            dropped
        };
        product(out, Plus::Nothing, tile.matrix(kept), tile.seen_of(a.value));
    };
    if a.work() < SMALL {
        let scratch = &mut Scratch::default();
        tasks.into_iter().for_each(|task| one(scratch, task));
    } else {
        tasks.into_par_iter().for_each_init(Scratch::default, one);
    }
}

/// `dy`: `[B, Q, H * D]`.
pub fn backward(a: &Attention, dy: &[f32], out: Gradients) {
    a.check();
    let (rows, d) = (a.batch * a.keys, a.dim());
    let dy = Matrix::new(dy, a.query.rows(), a.query.cols());
    assert_eq!([out.query.rows(), out.query.cols()], [dy.rows(), dy.cols()]);
    for out in [&out.key, &out.value] {
        assert_eq!([out.rows(), out.cols()], [rows, a.kv_heads * d]);
    }
    if let Some(grad) = &out.bias {
        assert_eq!(Some(grad.len()), a.bias.map(<[f32]>::len), "a gradient of another bias");
    }

    // A task is a key/value head of a batch row with the queries that read it, so that no two write the same.
    let keys = out.key.into_blocks_of_rows(a.keys).flat_map(|x| x.into_blocks_of_cols(d));
    let values = out.value.into_blocks_of_rows(a.keys).flat_map(|x| x.into_blocks_of_cols(d));
    let mut queries = a.split_query(out.query).into_iter();
    let parts = keys.zip(values).enumerate().map(|(index, (key, value))| {
        let queries = queries.by_ref().take(a.parts_of_group()).collect();
        Part { index, queries, key, value }
    });
    let size = a.group() * a.queries * a.keys;
    let mut grads = out.bias.unwrap_or_default().chunks_mut(size);
    let tasks: Vec<(Vec<Part>, Option<&mut [f32]>)> = if grads.len() == a.kv_heads {
        // The bias is the same for all batch rows: the task is then a head of all of them, in order.
        let mut tasks: Vec<_> = grads.map(|grad| (vec![], Some(grad))).collect();
        parts.for_each(|part| tasks[part.index % a.kv_heads].0.push(part));
        tasks
    } else {
        parts.map(|part| (vec![part], grads.next())).collect()
    };
    tasks.into_par_iter().for_each_init(Scratch::default, |scratch, (parts, mut grad)| {
        if let Some(grad) = &mut grad {
            grad.fill(0.0);
        }
        parts.into_iter().for_each(|part| part.backward(a, dy, grad.as_deref_mut(), scratch));
    });
}

/// Multiplications below which other threads are not woken.
const SMALL: usize = 1 << 18;

/// Weights of a tile, which should stay in cache.
const TILE: usize = 1 << 16;

impl<'a> Attention<'a> {
    /// `D`
    fn dim(&self) -> usize {
        self.query.cols() / self.heads
    }

    /// Query heads of a key/value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn work(&self) -> usize {
        self.query.rows() * self.query.cols() * self.keys
    }

    fn check(&self) {
        let rows = self.batch * self.queries;
        assert!(rows > 0 && self.keys > 0 && self.query.cols() > 0, "attention over nothing");
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads));
        assert!(self.query.rows() == rows && self.query.cols().is_multiple_of(self.heads));
        assert!(self.keys <= self.capacity);
        assert!(self.scale > 0.0, "a scale of {}", self.scale);
        for x in [&self.key, &self.value] {
            assert_eq!(x.rows(), self.batch * self.capacity);
            assert_eq!(x.cols(), self.kv_heads * self.dim());
        }
        let in_rows = |x: &Matrix| x.strides().1 == 1;
        assert!([self.query, self.key, self.value].iter().all(in_rows), "rows in pieces");
        assert!(self.pad.is_none_or(|pad| pad.len() == self.batch * self.keys));
        if self.causal || self.window.is_some() {
            assert!(self.queries <= self.keys, "queries without a position");
            assert_ne!(self.window, Some(0), "a window that hides all");
        }
        let one = self.heads * self.queries * self.keys;
        let fits = |bias: &[f32]| bias.len() == one || bias.len() == self.batch * one;
        assert!(self.bias.is_none_or(fits));
    }

    /// Are the query heads of a group rows of one tile, so that keys and values are read once for all of them?
    /// Where there is one query; otherwise the rows are the queries of a head.
    fn grouped(&self) -> bool {
        self.queries == 1
    }

    /// Parts of [`Self::split_query`] that read the same key/value head.
    fn parts_of_group(&self) -> usize {
        if self.grouped() { 1 } else { self.group() }
    }

    /// `[B * Q, H * D]` in matrices of `D` columns whose rows may share a tile.
    fn split_query<'x>(&self, x: MatrixMut<'x>) -> Vec<MatrixMut<'x>> {
        let (group, d) = (self.group(), self.dim());
        if self.grouped() {
            let rows = x.into_blocks_of_rows(1).map(|row| row.folded(d));
            rows.flat_map(|heads| heads.into_blocks_of_rows(group)).collect()
        } else {
            let rows = x.into_blocks_of_rows(self.queries);
            rows.flat_map(|rows| rows.into_blocks_of_cols(d)).collect()
        }
    }

    /// Rows of a tile.
    fn block(&self) -> usize {
        (TILE / self.keys).clamp(16, 64)
    }

    /// Rows from `first` of a part of [`Self::split_query`].
    fn tile(&'a self, part: usize, first: usize, rows: usize) -> Tile<'a> {
        let head = part * self.group() / self.parts_of_group();
        let (b, head) = (head / self.heads, head % self.heads);
        let mut tile = Tile { a: self, b, head, first, rows, seen: 0..self.keys, pad: None };
        tile.seen = tile.sight(0).start..tile.sight(rows - 1).end;
        let pad = self.pad.map(|pad| &pad[b * self.keys..][tile.seen.clone()]);
        tile.pad = pad.filter(|pad| pad.iter().any(|pad| *pad != 0));
        tile
    }
}

/// Queries whose weights are in cache together.
#[derive(Debug, Clone)]
struct Tile<'a> {
    a: &'a Attention<'a>,
    /// Batch row.
    b: usize,
    /// Query head; the first one if grouped.
    head: usize,
    /// Query, or head from `head` on if grouped.
    first: usize,
    rows: usize,
    /// Keys that a row may see.
    seen: Range<usize>,
    /// Of `seen`, if any is padding.
    pad: Option<&'a [u8]>,
}

impl<'a> Tile<'a> {
    /// Keys that causality and the window let row `r` see; never none.
    #[inline(always)]
    fn sight(&self, r: usize) -> Range<usize> {
        let a = self.a;
        let after = |query: usize| a.keys - a.queries + query.min(a.queries - 1) + 1;
        let from = a.window.map_or(0, |window| after(self.first + r).saturating_sub(window));
        from..if a.causal { after(self.first + r) } else { a.keys }
    }

    /// Elements from one row's weights to the next one's: whole vectors, the rest as if hidden.
    #[inline(always)]
    fn stride(&self) -> usize {
        self.seen.len().next_multiple_of(LANES)
    }

    fn size(&self) -> usize {
        self.rows * self.stride()
    }

    /// The first row's number among all `B * H * Q`.
    #[inline(always)]
    fn row(&self) -> usize {
        (self.b * self.a.heads + self.head) * self.a.queries + self.first
    }

    /// Number of weight 0 of row `r`, which seeds its dropout; of a key and a query, whatever the tile.
    #[inline(always)]
    fn index(&self, r: usize) -> u32 {
        ((self.row() + r) * self.a.keys.next_multiple_of(LANES) + self.seen.start) as u32
    }

    /// Bias of row `r`, by key.
    fn bias_row(&self, bias: &'a [f32], r: usize) -> &'a [f32] {
        let rows = bias.len() / self.a.keys;
        &bias[(self.row() + r) % rows * self.a.keys..][..self.a.keys]
    }

    /// `[rows, D]` of `x`, which is `[B * Q, H * D]`.
    fn query(&self, x: Matrix<'a>) -> Matrix<'a> {
        let d = self.a.dim();
        if self.a.grouped() {
            let heads = self.head + self.first..self.head + self.first + self.rows;
            Matrix::new(&x.row(self.b)[heads.start * d..heads.end * d], self.rows, d)
        } else {
            x.block_of_rows(self.b * self.a.queries + self.first, self.rows)
                .block_of_cols(self.head * d, d)
        }
    }

    /// `[seen, D]` of a key/value buffer.
    fn seen_of(&self, x: Matrix<'a>) -> Matrix<'a> {
        let d = self.a.dim();
        x.block_of_rows(self.b * self.a.capacity + self.seen.start, self.seen.len())
            .block_of_cols(self.head / self.a.group() * d, d)
    }

    /// A tile of numbers without what fills up its vectors.
    fn matrix<'x>(&self, x: &'x [f32]) -> Matrix<'x> {
        Matrix::strided(x, self.rows, self.seen.len(), self.stride(), 1)
    }

    /// As [`Self::matrix`], to write.
    fn matrix_mut<'x>(&self, x: &'x mut [f32]) -> MatrixMut<'x> {
        MatrixMut::strided(x, self.rows, self.seen.len(), self.stride())
    }

    /// Softmax weights without dropout.
    fn weights(&self, weights: &mut [f32]) {
        let (query, key) = (self.query(self.a.query), self.seen_of(self.a.key));
        product(self.matrix_mut(weights), Plus::Nothing, query, key.transposed());
        let mut scale = self.a.scale;
        if let Some(bias) = self.a.bias {
            for (r, scores) in weights.chunks_exact_mut(self.stride()).enumerate() {
                let bias = &self.bias_row(bias, r)[self.seen.clone()];
                scores
                    .iter_mut()
                    .zip(bias)
                    .for_each(|(score, bias)| *score = *score * scale + bias);
            }
            scale = 1.0;
        }
        dispatch_softmax(self, scale, weights);
    }
}

/// What one task writes in the backward pass.
struct Part<'a> {
    /// Key/value head among all `B * G`.
    index: usize,
    queries: Vec<MatrixMut<'a>>,
    key: MatrixMut<'a>,
    value: MatrixMut<'a>,
}

impl Part<'_> {
    /// Adds to `bias`, `[H / G, Q, K]`, and overwrites the rest.
    fn backward(
        mut self,
        a: &Attention,
        dy: Matrix,
        mut bias: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let first_part = self.index * a.parts_of_group();
        let size = a.block();
        // The first tile overwrites if it sees every key.
        let mut started =
            a.tile(first_part, 0, size.min(self.queries[0].rows())).seen != (0..a.keys);
        if started {
            self.key.fill(0.0);
            self.value.fill(0.0);
        }
        for (part, dq) in self.queries.into_iter().enumerate() {
            for (block, dq) in dq.into_blocks_of_rows(size).enumerate() {
                let tile = a.tile(first_part + part, block * size, dq.rows());
                let weights = sized(&mut scratch.weights, tile.size());
                let dropped = sized(&mut scratch.dropped, tile.size());
                let slopes = sized(&mut scratch.slopes, tile.size());
                let dy = tile.query(dy);

                tile.weights(weights);
                let kept = if a.dropout == Dropout::NONE {
                    &*weights
                } else {
                    dispatch_dropout(&tile, weights, dropped);
                    dropped
                };
                let value = self.value.block_of_rows(tile.seen.start, tile.seen.len());
                product(value, Plus::itself(started), tile.matrix(kept).transposed(), dy);
                product(
                    tile.matrix_mut(slopes),
                    Plus::Nothing,
                    dy,
                    tile.seen_of(a.value).transposed(),
                );
                let scale = if bias.is_some() { 1.0 } else { a.scale };
                dispatch_gradient(&tile, scale, weights, slopes);
                if let Some(bias) = &mut bias {
                    // The rows of this group, of whichever batch row.
                    let first = tile.row() - self.index * a.group() * a.queries;
                    let rows = bias[first * a.keys..].chunks_exact_mut(a.keys);
                    for (grad, slopes) in rows.zip(slopes.chunks_exact(tile.stride())) {
                        add(&mut grad[tile.seen.clone()], slopes);
                    }
                    slopes.iter_mut().for_each(|slope| *slope *= a.scale);
                }
                let slopes = tile.matrix(slopes);
                product(dq, Plus::Nothing, slopes, tile.seen_of(a.key));
                let key = self.key.block_of_rows(tile.seen.start, tile.seen.len());
                product(key, Plus::itself(started), slopes.transposed(), tile.query(a.query));
                started = true;
            }
        }
    }
}

/// Tiles of numbers, kept from one task to the next.
#[derive(Debug, Default)]
struct Scratch {
    weights: Vec<f32>,
    dropped: Vec<f32>,
    slopes: Vec<f32>,
}

/// The first `len` elements; they hold anything.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// The whole vectors around what row `r` of a tile sees, with `unseen` in their unseen elements; the rest of the row
/// is zeroed.
#[inline(always)]
fn framed<'x>(tile: &Tile, r: usize, unseen: f32, row: &'x mut [f32]) -> &'x mut [f32] {
    let sight = tile.sight(r);
    let (from, to) = (sight.start - tile.seen.start, sight.end - tile.seen.start);
    let (start, end) = (from / LANES * LANES, to.next_multiple_of(LANES));
    row[..start].fill(0.0);
    row[end..].fill(0.0);
    row[start..from].fill(unseen);
    row[to..end].fill(unseen);
    if let Some(pad) = tile.pad {
        for (x, pad) in row[start..end].iter_mut().zip(&pad[start..]) {
            *x = if *pad == 0 { *x } else { unseen };
        }
    }
    &mut row[start..end]
}

/// Scores to weights, in place.
#[inline(always)]
fn softmax(tile: &Tile, scale: f32, scores: &mut [f32]) {
    for (r, row) in scores.chunks_exact_mut(tile.stride()).enumerate() {
        let scores = framed(tile, r, f32::NEG_INFINITY, row);
        let largest = max(scores);
        for score in scores.iter_mut() {
            *score = exp((*score - largest) * scale);
        }
        let total = sum(scores);
        if total == 0.0 {
            // All padding: no score is above -inf.
            let sight = tile.sight(r);
            scores.fill(1.0 / sight.len() as f32);
            framed(&Tile { pad: None, ..tile.clone() }, r, 0.0, row);
            continue;
        }
        let inverse = 1.0 / total;
        scores.iter_mut().for_each(|weight| *weight *= inverse);
    }
}

/// The softmax's gradient by row: `slopes = weights * (slopes - <slopes, weights>) * scale`, where `slopes` comes
/// in as the gradient of the dropped weights; zero where a key is hidden.
#[inline(always)]
fn softmax_gradient(tile: &Tile, scale: f32, weights: &[f32], slopes: &mut [f32]) {
    let dropout = tile.a.dropout;
    let stride = tile.stride();
    for (r, row) in slopes.chunks_exact_mut(stride).enumerate() {
        if dropout != Dropout::NONE {
            let first = tile.index(r);
            for (i, slope) in row.iter_mut().enumerate() {
                *slope *= dropout.factor(first.wrapping_add(i as u32));
            }
        }
        framed(tile, r, 0.0, row);
        let weights = &weights[r * stride..][..stride];
        let along = dot(row, weights);
        for (slope, weight) in row.iter_mut().zip(weights) {
            *slope = weight * (*slope - along) * scale;
        }
    }
}

#[inline(always)]
fn drop_weights(tile: &Tile, weights: &[f32], dropped: &mut [f32]) {
    let stride = tile.stride();
    let rows = weights.chunks_exact(stride).zip(dropped.chunks_exact_mut(stride));
    for (r, (weights, dropped)) in rows.enumerate() {
        let first = tile.index(r);
        for (i, (y, x)) in dropped.iter_mut().zip(weights).enumerate() {
            *y = x * tile.a.dropout.factor(first.wrapping_add(i as u32));
        }
    }
}

crate::for_this_cpu!(dispatch_softmax = softmax(tile: &Tile, scale: f32, scores: &mut [f32]));
crate::for_this_cpu!(dispatch_gradient = softmax_gradient(
    tile: &Tile, scale: f32, weights: &[f32], slopes: &mut [f32]
));
crate::for_this_cpu!(dispatch_dropout = drop_weights(
    tile: &Tile, weights: &[f32], dropped: &mut [f32]
));

#[cfg(test)]
mod tests;
