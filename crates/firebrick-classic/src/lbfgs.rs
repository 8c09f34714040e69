//! Limited-memory BFGS for smooth convex functions.
//!
//! Nocedal and Wright, "Numerical Optimization" (2006), algorithm 7.4 for the direction; the line search brackets
//! a step that meets the weak Wolfe conditions (Lewis and Overton 2013, algorithm 2.6).

use std::collections::VecDeque;

use rayon::prelude::*;

/// Pairs of steps remembered. More saves few iterations, and each pair costs two vectors of parameters.
const MEMORY: usize = 8;
/// Sufficient decrease and curvature (Nocedal and Wright, section 3.1).
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Evaluations in one line search: 2^-40 of a step is below the rounding of any function we minimise.
const MAX_TRIALS: usize = 40;
/// Elements summed by one task. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// How a minimisation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub iterations: usize,
    /// The largest gradient element came down to `tolerance`.
    pub converged: bool,
}

/// One remembered step: `s` moved the parameters, `y` the gradient.
struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    /// `1 / (s . y)`
    rho: f64,
}

/// Moves `x` to the minimum of `function`, which writes its gradient into the second argument.
pub(crate) fn minimise(
    x: &mut Vec<f64>,
    max_iter: usize,
    tolerance: f64,
    function: impl Fn(&[f64], &mut [f64]) -> f64,
) -> Outcome {
    let mut gradient = vec![0.0; x.len()];
    let mut value = function(x, &mut gradient);
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    let mut trial = vec![0.0; x.len()];
    let mut trial_gradient = vec![0.0; x.len()];

    for iterations in 0..max_iter {
        if largest(&gradient) <= tolerance {
            return Outcome { iterations, converged: true };
        }
        let direction = descent(&gradient, &pairs);
        let slope = dot(&gradient, &direction);
        // The first direction is the bare gradient, whose length says nothing about the right step.
        let first = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt() } else { 1.0 };

        let mut at = |step: f64| {
            trial.copy_from_slice(x);
            add(&mut trial, step, &direction);
            let value = function(&trial, &mut trial_gradient);
            (value, dot(&trial_gradient, &direction))
        };
        let Some(found) = search(value, slope, first, &mut at) else {
            // No step lowers the value: the minimum, to within rounding.
            return Outcome { iterations, converged: false };
        };

        let s = difference(&trial, x);
        let y = difference(&trial_gradient, &gradient);
        let sy = dot(&s, &y);
        if sy > f64::EPSILON * dot(&y, &y) {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back(Pair { s, y, rho: 1.0 / sy });
        }
        value = found;
        std::mem::swap(x, &mut trial);
        std::mem::swap(&mut gradient, &mut trial_gradient);
    }
    Outcome { iterations: max_iter, converged: largest(&gradient) <= tolerance }
}

/// The value at a step that meets the weak Wolfe conditions; that step is the last that `at` was called with.
///
/// `at` gives the value and the slope along the direction after a step of that length.
fn search(
    value: f64,
    slope: f64,
    first: f64,
    at: &mut impl FnMut(f64) -> (f64, f64),
) -> Option<f64> {
    let (mut low, mut high, mut step) = (0.0, f64::INFINITY, first);
    for _ in 0..MAX_TRIALS {
        let (trial, trial_slope) = at(step);
        // Written so that a value that is not a number counts as too high.
        let low_enough = trial <= value + DECREASE * step * slope;
        if low_enough && trial_slope >= CURVATURE * slope {
            return Some(trial);
        }
        if low_enough {
            low = step;
        } else {
            high = step;
        }
        step = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * step };
    }
    (low > 0.0).then(|| at(low).0)
}

/// `-H g` by the two-loop recursion.
fn descent(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = pair.rho * dot(&pair.s, &q);
        add(&mut q, -alpha, &pair.y);
        alphas.push(alpha);
    }
    let scale = pairs.back().map_or(1.0, |last| 1.0 / (last.rho * dot(&last.y, &last.y)));
    q.par_chunks_mut(CHUNK).flatten().for_each(|q| *q *= -scale);
    for (pair, alpha) in pairs.iter().zip(alphas.iter().rev()) {
        let beta = -pair.rho * dot(&pair.y, &q);
        add(&mut q, beta - alpha, &pair.s);
    }
    q
}

/// `a . b`
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let chunks = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK));
    let sums: Vec<f64> =
        chunks.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()).collect();
    sums.iter().sum()
}

/// `x += scale * y`
fn add(x: &mut [f64], scale: f64, y: &[f64]) {
    x.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(x, y)| {
        for (x, y) in x.iter_mut().zip(y) {
            *x += scale * y;
        }
    });
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sum_i scale_i (x_i - i)^2`, minimal at `x_i = i`.
    fn quadratic(x: &[f64], gradient: &mut [f64]) -> f64 {
        let mut value = 0.0;
        for (i, (x, gradient)) in x.iter().zip(gradient).enumerate() {
            let (scale, distance) = (10f64.powi(i as i32 % 4), x - i as f64);
            value += scale * distance * distance;
            *gradient = 2.0 * scale * distance;
        }
        value
    }

    #[test]
    fn finds_the_minimum_of_a_badly_scaled_quadratic() {
        let mut x = vec![100.0; 12];
        let outcome = minimise(&mut x, 200, 1e-9, quadratic);
        assert!(outcome.converged, "{outcome:?}");
        for (i, x) in x.iter().enumerate() {
            assert!((x - i as f64).abs() < 1e-8, "x[{i}] = {x}");
        }
    }

    #[test]
    fn says_when_it_ran_out_of_iterations() {
        let outcome = minimise(&mut vec![100.0; 12], 2, 1e-9, quadratic);
        assert_eq!(outcome, Outcome { iterations: 2, converged: false });
    }

    #[test]
    fn stays_at_a_minimum() {
        let outcome = minimise(&mut vec![0.0], 10, 1e-9, quadratic);
        assert_eq!(outcome, Outcome { iterations: 0, converged: true });
    }
}
