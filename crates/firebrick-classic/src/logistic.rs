//! Logistic regression on sparse rows: two classes, or many by softmax.
//!
//! Minimises what scikit-learn's `LogisticRegression(C=c)` does: mean cross-entropy plus
//! `||weights||^2 / (2 c rows)`, the intercept free. Two classes share one weight vector; more have one each.
//!
//! Axis letters: `N` rows, `F` features, `K` outputs (1 for two classes, else the number of classes).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    csr::Csr,
    lbfgs::{self, dot, minimise},
};

/// Rows whose losses one task adds up. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 256;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Inverse strength of the penalty, as `C` in scikit-learn; positive.
    pub c: f64,
    pub max_iter: usize,
    /// Stop when no element of the gradient is larger.
    pub tolerance: f64,
}

impl Default for Options {
    /// `c` is scikit-learn's. The tolerance is tighter than its 1e-4, at which probabilities are still 1e-2 off.
    fn default() -> Self {
        Self { c: 1.0, max_iter: 500, tolerance: 1e-6 }
    }
}

/// A fitted classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct LogisticRegression {
    classes: usize,
    /// `[F, K]`, row-major
    weights: Vec<f32>,
    /// `[K]`
    intercept: Vec<f32>,
    /// Steps that the fit took.
    pub iterations: usize,
    /// False when the fit stopped before its tolerance was met.
    pub converged: bool,
}

impl LogisticRegression {
    /// - `rows`: `[N, F]`
    /// - `labels`: `[N]`, each below `classes`
    ///
    /// # Panics
    ///
    /// Panics when labels do not match the rows or `classes`, or `classes` is below 2.
    pub fn fit(rows: &Csr, labels: &[usize], classes: usize, options: &Options) -> Self {
        assert!(classes >= 2, "{classes} classes");
        assert_eq!(rows.rows(), labels.len(), "one label for each row");
        assert!(labels.iter().all(|label| *label < classes), "a label is not below {classes}");

        let k = outputs(classes);
        let columns = rows.transpose();
        let penalty = 1.0 / (options.c * rows.rows().max(1) as f64);
        let mut parameters = vec![0.0; (rows.columns() + 1) * k]; // [F + 1, K], the intercept last
        let objective = |parameters: &[f64], gradient: &mut [f64]| {
            objective(rows, &columns, labels, k, penalty, parameters, gradient)
        };
        let lbfgs::Outcome { iterations, converged } =
            minimise(&mut parameters, options.max_iter, options.tolerance, objective);

        let mut weights: Vec<f32> = parameters.iter().map(|w| *w as f32).collect();
        let intercept = weights.split_off(rows.columns() * k);
        Self { classes, weights, intercept, iterations, converged }
    }

    /// `[N, F]` -> one probability per class for each row; they add up to 1.
    ///
    /// # Panics
    ///
    /// Panics when `rows` has another number of features than the model was fitted on.
    pub fn predict_proba(&self, rows: &Csr) -> Vec<Vec<f64>> {
        assert_eq!(rows.columns(), self.features(), "features of the rows and of the model");
        let k = self.intercept.len();
        let row = |row: usize| {
            let mut z: Vec<f64> = self.intercept.iter().copied().map(f64::from).collect();
            for (feature, x) in rows.row(row) {
                let weights = &self.weights[feature * k..][..k];
                z.iter_mut().zip(weights).for_each(|(z, w)| *z += x * f64::from(*w));
            }
            if k == 1 {
                return vec![sigmoid(-z[0]), sigmoid(z[0])];
            }
            softmax(&mut z);
            z
        };
        (0..rows.rows()).into_par_iter().map(row).collect()
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    pub fn features(&self) -> usize {
        self.weights.len() / self.intercept.len()
    }
}

/// `LogisticRegression` as read from a file, before its parts are known to fit together.
#[derive(Deserialize)]
struct Unchecked {
    classes: usize,
    weights: Vec<f32>,
    intercept: Vec<f32>,
    iterations: usize,
    converged: bool,
}

impl TryFrom<Unchecked> for LogisticRegression {
    type Error = String;

    fn try_from(read: Unchecked) -> Result<Self, String> {
        let Unchecked { classes, weights, intercept, iterations, converged } = read;
        if classes < 2 || intercept.len() != outputs(classes) {
            return Err(format!("{classes} classes but {} intercepts", intercept.len()));
        }
        if weights.len() % intercept.len() != 0 {
            return Err(format!("{} weights for {} outputs", weights.len(), intercept.len()));
        }
        Ok(Self { classes, weights, intercept, iterations, converged })
    }
}

/// `K`
fn outputs(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

/// The penalised mean loss; its gradient `[F + 1, K]` goes to `gradient`.
///
/// `columns` is the transpose of `rows`: with both, each pass writes every element once and needs no lock.
fn objective(
    rows: &Csr,
    columns: &Csr,
    labels: &[usize],
    k: usize,
    penalty: f64,
    parameters: &[f64],
    gradient: &mut [f64],
) -> f64 {
    let n = rows.rows() as f64;
    let (weights, intercept) = parameters.split_at(rows.columns() * k);

    let mut residuals = vec![0.0; rows.rows() * k]; // [N, K]: d loss / d z
    let losses: Vec<f64> = residuals
        .par_chunks_mut(CHUNK * k)
        .enumerate()
        .map(|(chunk, residuals)| {
            let mut loss = 0.0;
            for (offset, z) in residuals.chunks_mut(k).enumerate() {
                let row = chunk * CHUNK + offset;
                z.copy_from_slice(intercept);
                for (feature, x) in rows.row(row) {
                    let weights = &weights[feature * k..][..k];
                    z.iter_mut().zip(weights).for_each(|(z, w)| *z += x * w);
                }
                loss += loss_and_residual(z, labels[row]);
            }
            loss
        })
        .collect();

    let (weights_gradient, intercept_gradient) = gradient.split_at_mut(rows.columns() * k);
    weights_gradient.par_chunks_mut(k).enumerate().with_min_len(CHUNK).for_each(
        |(feature, gradient)| {
            gradient.fill(0.0);
            for (row, x) in columns.row(feature) {
                let residual = &residuals[row * k..][..k];
                gradient.iter_mut().zip(residual).for_each(|(g, r)| *g += x * r);
            }
            let weights = &weights[feature * k..][..k];
            gradient.iter_mut().zip(weights).for_each(|(g, w)| *g = *g / n + penalty * w);
        },
    );
    intercept_gradient.fill(0.0);
    for residual in residuals.chunks(k) {
        intercept_gradient.iter_mut().zip(residual).for_each(|(g, r)| *g += r / n);
    }

    losses.iter().sum::<f64>() / n + 0.5 * penalty * dot(weights, weights)
}

/// `z` `[K]` becomes the derivative of the loss with respect to it.
fn loss_and_residual(z: &mut [f64], label: usize) -> f64 {
    if let [z] = z {
        let margin = if label == 1 { *z } else { -*z };
        *z = sigmoid(*z) - label as f64;
        return (-margin).max(0.0) + (-margin.abs()).exp().ln_1p(); // ln(1 + exp(-margin)), no overflow
    }
    let own = z[label];
    let log_sum = softmax(z);
    z[label] -= 1.0;
    log_sum - own
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// In place; gives `ln(sum(exp(z)))`.
fn softmax(z: &mut [f64]) -> f64 {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    z.iter_mut().for_each(|z| *z = (*z - largest).exp());
    let sum: f64 = z.iter().sum();
    z.iter_mut().for_each(|z| *z /= sum);
    largest + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central differences against the gradient, away from the origin.
    #[track_caller]
    fn check_gradient(classes: usize) {
        let rows = Csr::from_rows(
            3,
            [
                vec![(0, 1.0), (2, 0.5)],
                vec![(1, -2.0)],
                vec![],
                vec![(0, 0.3), (1, 0.7), (2, -1.0)],
            ],
        );
        let labels = [0, 1, 1, classes - 1];
        let (columns, k) = (rows.transpose(), outputs(classes));
        let at = |parameters: &[f64]| {
            let mut gradient = vec![0.0; parameters.len()];
            let value = objective(&rows, &columns, &labels, k, 0.1, parameters, &mut gradient);
            (value, gradient)
        };
        let parameters: Vec<f64> = (0..4 * k).map(|i| (i as f64 * 1.7).sin()).collect();
        let (_, gradient) = at(&parameters);
        for i in 0..parameters.len() {
            let moved = |by: f64| {
                let mut parameters = parameters.clone();
                parameters[i] += by;
                at(&parameters).0
            };
            let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((numeric - gradient[i]).abs() < 1e-9, "{i}: {numeric} {}", gradient[i]);
        }
    }

    #[test]
    fn gradient_is_that_of_the_loss() {
        check_gradient(2);
        check_gradient(3);
    }

    #[test]
    fn knows_only_the_frequencies_without_features() {
        let rows = Csr::from_rows(1, vec![vec![]; 4]);
        let model = LogisticRegression::fit(&rows, &[0, 1, 1, 1], 2, &Options::default());
        let probabilities = &model.predict_proba(&rows)[0];
        assert!((probabilities[1] - 0.75).abs() < 1e-5, "{probabilities:?}");
    }

    #[test]
    fn extreme_scores_stay_finite() {
        let mut z = [1000.0, -1000.0, 0.0];
        assert_eq!(loss_and_residual(&mut z, 1), 2000.0);
        assert_eq!(z, [1.0, -1.0, 0.0]);
        let mut z = [-1000.0];
        assert_eq!(loss_and_residual(&mut z, 1), 1000.0);
    }
}
