//! Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>): momentum whose singular values are all made
//! about one, by five Newton-Schulz iterations.
//!
//! Agrees with `torch.optim.Muon` with `adjust_lr_fn = "match_rms_adamw"` (Liu et al. 2025,
//! <https://arxiv.org/abs/2502.16982>), with which AdamW's learning rates and decays fit; PyTorch iterates in bfloat16, we
//! in float32.

use rayon::prelude::*;

use crate::{
    BLOCK,
    matmul::{Matrix, matmul},
    reduce::sum_of_squares,
};

/// The numbers of one step, the same for every matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub learning_rate: f32,
    pub momentum: f32,
    pub nesterov: bool,
    pub weight_decay: f32,
    pub scale: f32,
}

/// Updates a matrix and its momentum, which starts as zeros.
pub fn step(
    weights: &mut [f32],
    grads: &[f32],
    momentum: &mut [f32],
    [rows, cols]: [usize; 2],
    s: &Step,
) {
    assert!(weights.len() == rows * cols && grads.len() == weights.len());
    assert_eq!(momentum.len(), weights.len());
    let mut direction = vec![0.0; weights.len()];
    direction
        .par_chunks_mut(BLOCK)
        .zip(grads.par_chunks(BLOCK))
        .zip(momentum.par_chunks_mut(BLOCK))
        .for_each(|((d, g), m)| {
            for ((d, g), m) in d.iter_mut().zip(g).zip(m) {
                let g = g * s.scale;
                *m += (1.0 - s.momentum) * (g - *m);
                *d = if s.nesterov { g + s.momentum * (*m - g) } else { *m };
            }
        });
    let direction = orthogonalized(direction, rows, cols);
    let keep = 1.0 - s.learning_rate * s.weight_decay;
    // The root mean square of AdamW's steps is about 0.2.
    let rate = s.learning_rate * 0.2 * (rows.max(cols) as f32).sqrt();
    weights
        .par_chunks_mut(BLOCK)
        .zip(direction.par_chunks(BLOCK))
        .for_each(|(w, d)| w.iter_mut().zip(d).for_each(|(w, d)| *w = *w * keep - rate * d));
}

/// The steepest at zero of the quintics that keep singular values within 0.7 and 1.2.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;

/// `u s v^T` -> about `u v^T`.
fn orthogonalized(x: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    if rows > cols {
        // The product of a matrix with itself is then the smaller one.
        return turned(&orthogonalized(turned(&x, rows, cols), cols, rows), cols, rows);
    }
    let [a, b, c] = QUINTIC;
    let mut x = x;
    let length = (sum_of_squares(&x).sqrt() as f32).max(1e-7);
    x.iter_mut().for_each(|x| *x /= length);
    let mut gram = vec![0.0; rows * rows];
    let mut square = vec![0.0; rows * rows];
    let mut product = vec![0.0; rows * cols];
    for _ in 0..ITERATIONS {
        let x_matrix = Matrix::new(&x, rows, cols);
        matmul(x_matrix, x_matrix.transposed(), None, &mut gram);
        let gram_matrix = Matrix::new(&gram, rows, rows);
        matmul(gram_matrix, gram_matrix, None, &mut square);
        square.iter_mut().zip(&gram).for_each(|(square, gram)| *square = b * gram + c * *square);
        matmul(Matrix::new(&square, rows, rows), x_matrix, None, &mut product);
        x.iter_mut().zip(&product).for_each(|(x, product)| *x = a * *x + product);
    }
    x
}

fn turned(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(rows).enumerate().for_each(|(col, out)| {
        out.iter_mut().enumerate().for_each(|(row, out)| *out = x[row * cols + col]);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directions of the singular vectors stay, the values come near one, whichever side is longer.
    #[test]
    fn singular_values_come_near_one() {
        // Rows of a Hadamard matrix, of lengths 8, 4 and 2.
        let signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]];
        let x: Vec<f32> =
            signs.iter().zip([4.0, 2.0, 1.0]).flat_map(|(s, l)| s.map(|s| s as f32 * l)).collect();
        let wide = orthogonalized(x.clone(), 3, 4);
        for (row, signs) in wide.chunks(4).zip(signs) {
            for (x, sign) in row.iter().zip(signs) {
                let along = x * sign as f32 * 2.0; // a unit row of signs is of halves
                assert!((0.6..1.3).contains(&along), "{wide:?}");
            }
        }
        let tall = orthogonalized(turned(&x, 3, 4), 4, 3);
        assert_eq!(turned(&tall, 4, 3), wide);
    }
}
