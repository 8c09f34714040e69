//! Learning rate as a function of the step.

use crate::recipe::TrainRecipe;

/// Linear warm-up to `recipe.learning_rate`, then half a cosine down to zero at `steps`.
///
/// A function of the step alone: a resumed run needs no scheduler state.
pub fn lr_at(step: usize, steps: usize, recipe: &TrainRecipe) -> f64 {
    let warmup = recipe.warmup_steps;
    if step < warmup {
        return recipe.learning_rate * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    recipe.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_peaks_and_ends_at_zero() {
        let recipe = TrainRecipe { learning_rate: 1.0, warmup_steps: 4, ..TrainRecipe::default() };
        let rates: Vec<f64> = (0..=12).map(|step| lr_at(step, 12, &recipe)).collect();
        assert_eq!(&rates[..5], &[0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((rates[8] - 0.5).abs() < 1e-12, "half way down at the middle");
        assert!(rates[12].abs() < 1e-12);
    }
}
