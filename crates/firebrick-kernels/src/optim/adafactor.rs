//! Adafactor (Shazeer and Stern 2018, <https://arxiv.org/abs/1804.04235>): of a matrix's squares only the means of rows
//! and columns are remembered, and a step has a bounded length.
//!
//! Agrees with `transformers.Adafactor` with `scale_parameter` and `relative_step` off and no first moment.

use rayon::prelude::*;

use crate::{BLOCK, reduce::sum_of_squares};

/// The numbers of one step, the same for every parameter but the decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub learning_rate: f32,
    pub weight_decay: f32,
    /// Step `t` keeps `1 - t^decay_rate` of the squares.
    pub decay_rate: f64,
    /// Is added to the squares.
    pub epsilon: f32,
    /// Longest root mean square of a step, before the rate.
    pub clip_threshold: f32,
    /// Steps taken before this one, plus one.
    pub time: u32,
    pub scale: f32,
}

impl Step {
    /// What is kept of the squares, and what is taken of the new ones.
    fn shares(&self) -> (f32, f32) {
        let taken = f64::from(self.time).powf(self.decay_rate);
        ((1.0 - taken) as f32, taken as f32)
    }
}

/// Of parameters that are no matrices: every weight's square is remembered.
pub fn vector(weights: &mut [f32], grads: &[f32], squares: &mut [f32], s: &Step) {
    assert!(grads.len() == weights.len() && squares.len() == weights.len());
    let (keep, take) = s.shares();
    let direction = grads.iter().zip(squares).map(|(g, v)| {
        let g = g * s.scale;
        *v = keep * *v + take * (g * g + s.epsilon);
        g / v.sqrt()
    });
    let direction = direction.collect();
    walk(weights, direction, s);
}

/// Of one or more matrices of `rows x cols`, one after the other, with a mean for each row and column of each.
pub fn matrices(
    weights: &mut [f32],
    grads: &[f32],
    [rows, cols]: [usize; 2],
    row_means: &mut [f32],
    col_means: &mut [f32],
    s: &Step,
) {
    let count = weights.len() / (rows * cols).max(1);
    assert!(weights.len() == count * rows * cols && grads.len() == weights.len());
    assert!(row_means.len() == count * rows && col_means.len() == count * cols);
    let (keep, take) = s.shares();
    let mut direction = vec![0.0; grads.len()];
    for index in 0..count {
        let part = index * rows * cols..(index + 1) * rows * cols;
        let (g, out) = (&grads[part.clone()], &mut direction[part]);
        let row_means = &mut row_means[index * rows..][..rows];
        let col_means = &mut col_means[index * cols..][..cols];
        let (by_row, by_col) = sums_of_squares(g, cols, s);
        let blend = |mean: &mut f32, sum: f64, n: usize| {
            *mean = keep * *mean + take * (sum / n as f64) as f32;
        };
        row_means.iter_mut().zip(by_row).for_each(|(mean, sum)| blend(mean, sum, cols));
        col_means.iter_mut().zip(by_col).for_each(|(mean, sum)| blend(mean, sum, rows));
        let mean = row_means.iter().map(|x| f64::from(*x)).sum::<f64>() / rows as f64;
        let factor = |square: f32, of: f64| ((of / f64::from(square)).sqrt()) as f32;
        let by_col: Vec<f32> = col_means.iter().map(|x| factor(*x, 1.0)).collect();
        out.par_chunks_mut(cols).zip(g.par_chunks(cols)).zip(row_means).for_each(
            |((out, g), row)| {
                let by_row = factor(*row, mean) * s.scale;
                for ((out, g), by_col) in out.iter_mut().zip(g).zip(&by_col) {
                    *out = by_row * by_col * g;
                }
            },
        );
    }
    walk(weights, direction, s);
}

/// Sums of `(scale * g)^2 + epsilon` by row and by column.
fn sums_of_squares(g: &[f32], cols: usize, s: &Step) -> (Vec<f64>, Vec<f64>) {
    let square = |g: &f32| {
        let g = f64::from(g * s.scale);
        g * g + f64::from(s.epsilon)
    };
    // Blocks of fixed size, added in order: the sums do not depend on the number of threads.
    let rows_at_once = (BLOCK / cols).max(1);
    let parts: Vec<(Vec<f64>, Vec<f64>)> = g
        .par_chunks(rows_at_once * cols)
        .map(|block| {
            let mut by_col = vec![0.0; cols];
            let by_row = block.chunks(cols).map(|row| {
                let squares = row.iter().map(square).zip(&mut by_col);
                squares.map(|(x, col)| (x, *col += x).0).sum()
            });
            (by_row.collect(), by_col)
        })
        .collect();
    let mut by_col = vec![0.0; cols];
    for (_, part) in &parts {
        by_col.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    (parts.into_iter().flat_map(|(by_row, _)| by_row).collect(), by_col)
}

/// Decays the weights, then moves them against a direction that is cut to its longest root mean square.
fn walk(weights: &mut [f32], direction: Vec<f32>, s: &Step) {
    let length = (sum_of_squares(&direction) / direction.len().max(1) as f64).sqrt();
    let cut = (length / f64::from(s.clip_threshold)).max(1.0);
    let rate = (f64::from(s.learning_rate) / cut) as f32;
    let keep = 1.0 - s.learning_rate * s.weight_decay;
    weights
        .par_chunks_mut(BLOCK)
        .zip(direction.par_chunks(BLOCK))
        .for_each(|(w, d)| w.iter_mut().zip(d).for_each(|(w, d)| *w = *w * keep - rate * d));
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Step = Step {
        learning_rate: 0.5,
        weight_decay: 0.0,
        decay_rate: -0.8,
        epsilon: 0.0,
        clip_threshold: 1.0,
        time: 1,
        scale: 1.0,
    };

    /// Squares of rank one are remembered without loss: the first step moves each weight by the rate.
    #[test]
    fn the_first_step_is_the_sign_times_the_rate() {
        let g = [1.0, -2.0, 4.0, 2.0, 4.0, -8.0];
        let mut w = [0.0; 12];
        let twice = [g, g].concat();
        matrices(&mut w, &twice, [2, 3], &mut [0.0; 4], &mut [0.0; 6], &STEP);
        for (w, g) in w.iter().zip(&twice) {
            assert!((w + 0.5 * g.signum()).abs() < 1e-6, "{w}");
        }
        let mut w = [0.0; 3];
        vector(&mut w, &[1.0, -3.0, 9.0], &mut [0.0; 3], &STEP);
        assert_eq!(w, [-0.5, 0.5, -0.5]);
    }

    /// A gradient that has grown would make a long step.
    #[test]
    fn steps_are_cut() {
        let s = Step { time: 100, clip_threshold: 1.0, ..STEP };
        let mut w = [0.0; 4];
        vector(&mut w, &[5.0; 4], &mut [0.01; 4], &s);
        assert!(w.iter().all(|w| (w + 0.5).abs() < 1e-6), "{w:?}");
    }
}
