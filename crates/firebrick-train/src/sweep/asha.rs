//! When a trial is not worth going on: asynchronous successive halving (Li et al. 2018,
//! <https://arxiv.org/abs/1810.05934>), in the variant that stops trials and never wakes them again.

use super::{Pruner, SweepRecipe};

/// Whether a trial looks at its rivals after so many evaluations: `first_rung`, then `reduction` times as many.
pub fn is_rung(sweep: &SweepRecipe, evaluations: usize) -> bool {
    let mut rung = sweep.first_rung;
    while rung < evaluations {
        rung = rung.saturating_mul(sweep.reduction);
    }
    sweep.pruner == Pruner::Asha && rung == evaluations
}

/// Whether `loss` is among the best one in `reduction` of all that came to this rung, its own included.
pub fn goes_on(sweep: &SweepRecipe, loss: f64, rivals: &[f64]) -> bool {
    let ahead = rivals.iter().filter(|rival| **rival < loss).count();
    let kept = ((rivals.len() + 1) / sweep.reduction).max(1);
    loss.is_finite() && ahead < kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_three_goes_on() {
        let sweep = SweepRecipe { first_rung: 2, ..SweepRecipe::default() };
        let rungs: Vec<usize> = (1..=20).filter(|n| is_rung(&sweep, *n)).collect();
        assert_eq!(rungs, [2, 6, 18]);
        assert!(goes_on(&sweep, 0.5, &[]));
        assert!(!goes_on(&sweep, 0.5, &[0.4]));
        assert!(goes_on(&sweep, 0.5, &[0.4, 0.6, 0.7, 0.8, 0.9])); // second of six
        assert!(!goes_on(&sweep, 0.7, &[0.4, 0.5, 0.6, 0.8, 0.9]));
        assert!(!goes_on(&sweep, f64::NAN, &[]));
    }
}
