//! Sums whose result does not depend on the number of threads.

use rayon::prelude::*;

use crate::BLOCK;

/// Sum of squares in f64: blocks of fixed size, added in order.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let blocks: Vec<f64> = x.par_chunks(BLOCK).map(block).collect();
    blocks.iter().sum()
}

fn block(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = x.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*x) * f64::from(*x);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Sum of products in f64, as [`sum_of_squares`] adds.
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    let product = |(x, y): (&f32, &f32)| f64::from(*x) * f64::from(*y);
    let blocks: Vec<f64> = x
        .par_chunks(BLOCK)
        .zip(y.par_chunks(BLOCK))
        .map(|(x, y)| x.iter().zip(y).map(product).sum())
        .collect();
    blocks.iter().sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn squares_add_up() {
        let x: Vec<f32> = (1..=100_000).map(|i| (i % 7) as f32).collect();
        let expected: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert_eq!(super::sum_of_squares(&x), expected);
        assert_eq!(super::sum_of_squares(&[]), 0.0);
        assert_eq!(super::dot(&x, &x), expected);
    }
}
