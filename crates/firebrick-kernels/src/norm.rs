//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) of a residual sum, with dropout on
//! the branch: `y = norm(x + dropout(branch))`, one pass over memory.
//!
//! Agrees with `torch.nn.functional.layer_norm`. Nothing is kept for the backward pass but the inputs.

use rayon::prelude::*;

use crate::{
    BLOCK,
    dropout::Dropout,
    math::{sum, sum_of_squares_around},
    matmul::add,
};

/// Learned scale and shift over the last axis.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
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
}

/// What is added before the norm; the same shape as `x`.
pub type Branch<'a> = Option<(&'a [f32], Dropout)>;

/// `x` and `y`: rows of `norm.weight.len()` elements.
pub fn forward(x: &[f32], branch: Branch, norm: Norm, y: &mut [f32]) {
    assert!(x.len() == y.len() && branch.is_none_or(|(b, _)| b.len() == x.len()));
    let size = norm.block();
    y.par_chunks_mut(size).enumerate().for_each(|(block, y)| {
        dispatch_forward(Block { x, branch, norm, first: block * size }, y);
    });
}

/// Gradients of [`forward`].
#[derive(Debug)]
pub struct Gradients<'a> {
    pub x: &'a mut [f32],
    /// Of the branch; `None` where it is the same as `x`'s, without dropout.
    pub branch: Option<&'a mut [f32]>,
    pub weight: &'a mut [f32],
    pub bias: &'a mut [f32],
}

pub fn backward(x: &[f32], branch: Branch, norm: Norm, dy: &[f32], out: Gradients) {
    assert!(x.len() == dy.len() && x.len() == out.x.len());
    assert!(branch.is_none_or(|(b, _)| b.len() == x.len()));
    let size = norm.block();
    let n = norm.width();
    let one = |block: usize, dx: &mut [f32], dbranch: &mut [f32]| {
        let mut sums = vec![0.0; 2 * n];
        let block = Block { x, branch, norm, first: block * size };
        dispatch_backward(block, dy, dx, dbranch, &mut sums);
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
    out.bias.fill(0.0);
    for part in &parts {
        add(out.weight, &part[..n]);
        add(out.bias, &part[n..]);
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

/// Writes `x + dropout(branch)` of one row into `sum` and returns its mean and `1 / deviation`.
#[inline(always)]
fn residual_row(x: &[f32], branch: Branch, first: usize, eps: f32, row: &mut [f32]) -> (f32, f32) {
    let n = row.len();
    match branch {
        Some((branch, dropout)) => {
            let (x, branch) = (&x[first..first + n], &branch[first..first + n]);
            for i in 0..n {
                row[i] = x[i] + branch[i] * dropout.factor((first + i) as u32);
            }
        }
        None => row.copy_from_slice(&x[first..first + n]),
    }
    let mean = sum(row) / n as f32;
    let variance = sum_of_squares_around(row, mean) / n as f32;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[inline(always)]
fn forward_block(block: Block, y: &mut [f32]) {
    let Block { x, branch, norm, first } = block;
    let n = norm.width();
    for (r, y) in y.chunks_exact_mut(n).enumerate() {
        let (mean, inverse) = residual_row(x, branch, first + r * n, norm.eps, y);
        let (weight, bias) = (&norm.weight[..n], &norm.bias[..n]);
        for i in 0..n {
            y[i] = (y[i] - mean) * inverse * weight[i] + bias[i];
        }
    }
}

/// `dbranch` is empty where it is not asked for; `sums` is the gradient of the weight, then of the bias.
#[inline(always)]
fn backward_block(block: Block, dy: &[f32], dx: &mut [f32], dbranch: &mut [f32], sums: &mut [f32]) {
    let Block { x, branch, norm, first } = block;
    let n = norm.width();
    let mut normal = vec![0.0; n];
    let (dweight, dbias) = sums.split_at_mut(n);
    let weight = &norm.weight[..n];
    for (r, dx) in dx.chunks_exact_mut(n).enumerate() {
        let at = first + r * n;
        let dy = &dy[at..at + n];
        let (mean, inverse) = residual_row(x, branch, at, norm.eps, &mut normal);
        for i in 0..n {
            normal[i] = (normal[i] - mean) * inverse;
            dweight[i] += dy[i] * normal[i];
            dbias[i] += dy[i];
            dx[i] = dy[i] * weight[i];
        }
        let along_mean = sum(dx) / n as f32;
        let along_normal = crate::math::dot(dx, &normal) / n as f32;
        for i in 0..n {
            dx[i] = inverse * (dx[i] - along_mean - normal[i] * along_normal);
        }
        if let Some((_, dropout)) = branch
            && !dbranch.is_empty()
        {
            let dbranch = &mut dbranch[r * n..(r + 1) * n];
            for i in 0..n {
                dbranch[i] = dx[i] * dropout.factor((at + i) as u32);
            }
        }
    }
}

crate::for_this_cpu!(dispatch_forward = forward_block(block: Block, y: &mut [f32]));
crate::for_this_cpu!(dispatch_backward = backward_block(
    block: Block, dy: &[f32], dx: &mut [f32], dbranch: &mut [f32], sums: &mut [f32]
));

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 50;
    const N: usize = 37;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed * 977) % 211) as f32 / 100.0 - 1.0).collect()
    }

    /// `sum(dy * y)` in f64.
    fn loss(x: &[f32], branch: &[f32], dropout: Dropout, w: &[f32], b: &[f32], dy: &[f32]) -> f64 {
        let mut total = 0.0;
        for r in 0..x.len() / N {
            let row: Vec<f64> = (r * N..(r + 1) * N)
                .map(|i| {
                    f64::from(x[i]) + f64::from(branch[i]) * f64::from(dropout.factor(i as u32))
                })
                .collect();
            let mean = row.iter().sum::<f64>() / N as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / N as f64;
            for (c, x) in row.iter().enumerate() {
                let y = (x - mean) / (variance + 1e-5).sqrt() * f64::from(w[c]) + f64::from(b[c]);
                total += f64::from(dy[r * N + c]) * y;
            }
        }
        total
    }

    /// The forward pass against its formula, the backward pass against finite differences.
    #[test]
    fn values_and_slopes() {
        let (x, branch, dy) = (numbers(ROWS * N, 1), numbers(ROWS * N, 2), numbers(ROWS * N, 3));
        let (w, b) = (numbers(N, 4), numbers(N, 5));
        let dropout = Dropout::new(0.3, 42);
        let norm = Norm { weight: &w, bias: &b, eps: 1e-5 };
        let mut y = vec![0.0; x.len()];
        forward(&x, Some((&branch, dropout)), norm, &mut y);
        let found: f64 = y.iter().zip(&dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum();
        let expected = loss(&x, &branch, dropout, &w, &b, &dy);
        assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");

        let (mut dx, mut dbranch) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (mut dw, mut db) = (vec![0.0; N], vec![0.0; N]);
        let out =
            Gradients { x: &mut dx, branch: Some(&mut dbranch), weight: &mut dw, bias: &mut db };
        backward(&x, Some((&branch, dropout)), norm, &dy, out);
        let all = [&x, &branch, &w, &b];
        for (which, grad) in [&dx, &dbranch, &dw, &db].into_iter().enumerate() {
            for i in (0..grad.len()).step_by(7) {
                let at = |h: f32| {
                    let mut all = all.map(Clone::clone);
                    all[which][i] += h;
                    loss(&all[0], &all[1], dropout, &all[2], &all[3], &dy)
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
}
