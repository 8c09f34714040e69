//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) and RMS normalisation (Zhang and
//! Sennrich 2019, <https://arxiv.org/abs/1910.07467>) of a residual sum, with dropout on the branch:
//! `y = norm(x + dropout(branch))`, one pass over memory.
//!
//! Agrees with `torch.nn.functional.layer_norm` and `rms_norm`. Nothing is kept for the backward pass but the inputs.

use rayon::prelude::*;

use crate::{
    BLOCK,
    dropout::Dropout,
    math::{dot, sum, sum_of_squares_around},
    matmul::add,
};

/// What a row is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its deviation, after its mean is taken from it.
    Layer,
    /// Its root mean square.
    Rms,
}

/// Learned scale and shift over the last axis.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    pub kind: Kind,
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub eps: f32,
}

impl Norm<'_> {
    fn width(&self) -> usize {
        self.weight.len()
    }

    /// Elements of a block of whole rows.
    fn block(&self) -> usize {
        (BLOCK / self.width()).max(1) * self.width()
    }

    fn check(&self, x: &[f32], branch: Branch) {
        let n = self.width();
        assert!(n > 0 && x.len().is_multiple_of(n), "rows of {n} in {}", x.len());
        assert!(self.bias.is_none_or(|bias| bias.len() == n));
        assert!(branch.is_none_or(|(branch, _)| branch.len() == x.len()));
    }
}

/// What is added before the norm; the same shape as `x`.
pub type Branch<'a> = Option<(&'a [f32], Dropout)>;

/// `x` and `y`: rows of `norm.weight.len()` elements.
pub fn forward(x: &[f32], branch: Branch, norm: Norm, y: &mut [f32]) {
    norm.check(x, branch);
    assert_eq!(x.len(), y.len());
    let size = norm.block();
    y.par_chunks_mut(size).enumerate().for_each(|(block, y)| {
        dispatch_forward(Block { x, branch, norm, first: block * size }, y, &mut []);
    });
}

/// As [`forward`], with `total = x + dropout(branch)`, which a model that norms before a layer adds to after it.
pub fn forward_with_total(x: &[f32], branch: Branch, norm: Norm, y: &mut [f32], total: &mut [f32]) {
    norm.check(x, branch);
    assert!(x.len() == y.len() && x.len() == total.len());
    let size = norm.block();
    let blocks = y.par_chunks_mut(size).zip(total.par_chunks_mut(size)).enumerate();
    blocks.for_each(|(block, (y, total))| {
        dispatch_forward(Block { x, branch, norm, first: block * size }, y, total);
    });
}

/// Gradients of [`forward`].
#[derive(Debug)]
pub struct Gradients<'a> {
    pub x: &'a mut [f32],
    /// Of the branch; `None` where it is the same as `x`'s, without dropout.
    pub branch: Option<&'a mut [f32]>,
    pub weight: &'a mut [f32],
    pub bias: Option<&'a mut [f32]>,
}

/// `dtotal`: gradient of the `total` of [`forward_with_total`].
pub fn backward(
    x: &[f32],
    branch: Branch,
    norm: Norm,
    dy: &[f32],
    dtotal: Option<&[f32]>,
    out: Gradients,
) {
    norm.check(x, branch);
    assert!(x.len() == dy.len() && x.len() == out.x.len());
    assert!(dtotal.is_none_or(|dtotal| dtotal.len() == x.len()));
    let size = norm.block();
    let n = norm.width();
    let one = |block: usize, dx: &mut [f32], dbranch: &mut [f32]| {
        let mut sums = vec![0.0; 2 * n];
        let block = Block { x, branch, norm, first: block * size };
        dispatch_backward(block, dy, dtotal, dx, dbranch, &mut sums);
        sums
    };
    let blocks = out.x.par_chunks_mut(size).enumerate();
    let parts: Vec<Vec<f32>> = match out.branch {
        Some(dbranch) => {
            assert_eq!(dbranch.len(), x.len());
            let blocks = blocks.zip(dbranch.par_chunks_mut(size));
            blocks.map(|((block, dx), dbranch)| one(block, dx, dbranch)).collect()
        }
        None => blocks.map(|(block, dx)| one(block, dx, &mut [])).collect(),
    };
    out.weight.fill(0.0);
    parts.iter().for_each(|part| add(out.weight, &part[..n]));
    if let Some(bias) = out.bias {
        bias.fill(0.0);
        parts.iter().for_each(|part| add(bias, &part[n..]));
    }
}

/// Whole rows of the input, from element `first`.
#[derive(Clone, Copy)]
struct Block<'a> {
    x: &'a [f32],
    branch: Branch<'a>,
    norm: Norm<'a>,
    first: usize,
}

impl Block<'_> {
    /// Writes `x + dropout(branch)` of the row at element `at` into `row`; returns what to take from it and what to
    /// multiply it with.
    #[inline(always)]
    fn residual_row(&self, at: usize, row: &mut [f32]) -> (f32, f32) {
        let n = row.len();
        let x = &self.x[at..at + n];
        match self.branch {
            Some((branch, dropout)) if dropout == Dropout::NONE => {
                let branch = &branch[at..at + n];
                for i in 0..n {
                    row[i] = x[i] + branch[i];
                }
            }
            Some((branch, dropout)) => {
                let branch = &branch[at..at + n];
                for i in 0..n {
                    row[i] = x[i] + branch[i] * dropout.factor((at + i) as u32);
                }
            }
            None => row.copy_from_slice(x),
        }
        let mean = match self.norm.kind {
            Kind::Layer => sum(row) / n as f32,
            Kind::Rms => 0.0,
        };
        let variance = sum_of_squares_around(row, mean) / n as f32;
        (mean, 1.0 / (variance + self.norm.eps).sqrt())
    }
}

/// `total` is empty where it is not asked for.
#[inline(always)]
fn forward_block(block: Block, y: &mut [f32], total: &mut [f32]) {
    let n = block.norm.width();
    let weight = &block.norm.weight[..n];
    for (r, y) in y.chunks_exact_mut(n).enumerate() {
        let (mean, inverse) = block.residual_row(block.first + r * n, y);
        if !total.is_empty() {
            total[r * n..(r + 1) * n].copy_from_slice(y);
        }
        match block.norm.bias {
            Some(bias) => {
                let bias = &bias[..n];
                for i in 0..n {
                    y[i] = (y[i] - mean) * inverse * weight[i] + bias[i];
                }
            }
            None => {
                for i in 0..n {
                    y[i] = (y[i] - mean) * inverse * weight[i];
                }
            }
        }
    }
}

/// `dbranch` is empty where it is not asked for; `sums` is the gradient of the weight, then of the bias.
#[inline(always)]
fn backward_block(
    block: Block,
    dy: &[f32],
    dtotal: Option<&[f32]>,
    dx: &mut [f32],
    dbranch: &mut [f32],
    sums: &mut [f32],
) {
    let norm = block.norm;
    let n = norm.width();
    let mut normal = vec![0.0; n];
    let (dweight, dbias) = sums.split_at_mut(n);
    let weight = &norm.weight[..n];
    for (r, dx) in dx.chunks_exact_mut(n).enumerate() {
        let at = block.first + r * n;
        let dy = &dy[at..at + n];
        let (mean, inverse) = block.residual_row(at, &mut normal);
        for i in 0..n {
            normal[i] = (normal[i] - mean) * inverse;
            dweight[i] += dy[i] * normal[i];
            dbias[i] += dy[i];
            dx[i] = dy[i] * weight[i];
        }
        let along_mean = match norm.kind {
            Kind::Layer => sum(dx) / n as f32,
            Kind::Rms => 0.0,
        };
        let along_normal = dot(dx, &normal) / n as f32;
        for i in 0..n {
            dx[i] = inverse * (dx[i] - along_mean - normal[i] * along_normal);
        }
        if let Some(dtotal) = dtotal {
            add(dx, &dtotal[at..at + n]);
        }
        if let Some((_, dropout)) = block.branch
            && !dbranch.is_empty()
        {
            let dbranch = &mut dbranch[r * n..(r + 1) * n];
            for i in 0..n {
                dbranch[i] = dx[i] * dropout.factor((at + i) as u32);
            }
        }
    }
}

crate::for_this_cpu!(dispatch_forward = forward_block(
    block: Block, y: &mut [f32], total: &mut [f32]
));
crate::for_this_cpu!(dispatch_backward = backward_block(
    block: Block, dy: &[f32], dtotal: Option<&[f32]>, dx: &mut [f32], dbranch: &mut [f32],
    sums: &mut [f32]
));

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 50;
    const N: usize = 37;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed * 977) % 211) as f32 / 100.0 - 1.0).collect()
    }

    /// Inputs of one check, all of which have a gradient: x, branch, weight, bias.
    type Inputs = [Vec<f32>; 4];

    /// Of both outputs.
    type Slopes = [Vec<f32>; 2];

    /// `sum(dy * y) + sum(dtotal * total)` in f64.
    fn loss(kind: Kind, [x, branch, w, b]: &Inputs, dropout: Dropout, slopes: &Slopes) -> f64 {
        let mut loss = 0.0;
        for r in 0..x.len() / N {
            let row: Vec<f64> = (r * N..(r + 1) * N)
                .map(|i| {
                    f64::from(x[i]) + f64::from(branch[i]) * f64::from(dropout.factor(i as u32))
                })
                .collect();
            let mean = match kind {
                Kind::Layer => row.iter().sum::<f64>() / N as f64,
                Kind::Rms => 0.0,
            };
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / N as f64;
            for (c, x) in row.iter().enumerate() {
                let y = (x - mean) / (variance + 1e-5).sqrt() * f64::from(w[c]) + f64::from(b[c]);
                let [dy, dtotal] = slopes.each_ref().map(|slope| f64::from(slope[r * N + c]));
                loss += dy * y + dtotal * x;
            }
        }
        loss
    }

    /// The forward pass against its formula, the backward pass against finite differences.
    #[track_caller]
    fn check(kind: Kind, dropout: Dropout) {
        let all = [numbers(ROWS * N, 1), numbers(ROWS * N, 2), numbers(N, 4), numbers(N, 5)];
        let slopes = [numbers(ROWS * N, 3), numbers(ROWS * N, 6)];
        let [x, branch, weight, bias] = &all;
        let norm = Norm { kind, weight, bias: Some(bias), eps: 1e-5 };
        let branch = Some((&branch[..], dropout));
        let [mut y, mut same, mut total] = [0; 3].map(|_| vec![f32::NAN; x.len()]);
        forward_with_total(x, branch, norm, &mut y, &mut total);
        forward(x, branch, norm, &mut same);
        assert_eq!(y, same);
        let along = |y: &[f32], dy: &[f32]| -> f64 {
            y.iter().zip(dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum()
        };
        let found = along(&y, &slopes[0]) + along(&total, &slopes[1]);
        let expected = loss(kind, &all, dropout, &slopes);
        assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");

        let mut grads = all.each_ref().map(|x| vec![f32::NAN; x.len()]);
        let [dx, dbranch, dw, db] = &mut grads;
        let out = Gradients { x: dx, branch: Some(dbranch), weight: dw, bias: Some(db) };
        backward(x, branch, norm, &slopes[0], Some(&slopes[1]), out);
        for (which, grad) in grads.iter().enumerate() {
            for i in (0..grad.len()).step_by(7) {
                let at = |h: f32| {
                    let mut all = all.clone();
                    all[which][i] += h;
                    loss(kind, &all, dropout, &slopes)
                };
                let h = 1.0 / 512.0;
                let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
                let found = f64::from(grad[i]);
                assert!(
                    (found - slope).abs() < 1e-3 * slope.abs().max(1.0),
                    "{which}, {i}: {found}, not {slope}"
                );
            }
        }
    }

    #[test]
    fn values_and_slopes() {
        for dropout in [Dropout::NONE, Dropout::new(0.3, 42)] {
            check(Kind::Layer, dropout);
            check(Kind::Rms, dropout);
        }
    }

    /// By hand: 3 and 4 have a mean square of 12.5.
    #[test]
    fn root_mean_square_of_two() {
        let norm = Norm { kind: Kind::Rms, weight: &[1.0, 2.0], bias: None, eps: 0.0 };
        let mut y = [f32::NAN; 2];
        forward(&[3.0, 4.0], None, norm, &mut y);
        let root = 12.5f32.sqrt();
        assert!((y[0] - 3.0 / root).abs() < 1e-6 && (y[1] - 8.0 / root).abs() < 1e-6, "{y:?}");
    }
}
