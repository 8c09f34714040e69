//! Learning rate as a function of the step: a resumed run needs no scheduler state.

use std::f64::consts::PI;

use crate::recipe::{Curve, TrainRecipe};

/// The inverse root falls from here when there is no warm-up, as in `transformers`.
const NOAM_TIMESCALE: f64 = 10_000.0;
/// One cycle starts at the highest rate over this, as `torch.optim.lr_scheduler.OneCycleLR`.
const ONE_CYCLE_START: f64 = 25.0;

/// Learning rate of step `step`, counted from 0, of `steps`.
///
/// It reaches its highest with the last step of the warm-up; the first has one part of it (where the schedulers of
/// `transformers` have none). From there on it is that of `torch.optim.lr_scheduler` and `transformers`.
pub fn lr_at(step: usize, steps: usize, recipe: &TrainRecipe) -> f64 {
    let settings = recipe.settings();
    let (high, warmup) = (settings.learning_rate, settings.warmup_steps);
    let one_cycle = matches!(settings.curve, Curve::OneCycle { .. });
    if step < warmup && !one_cycle {
        return high * (step + 1) as f64 / warmup as f64;
    }
    let after = step.saturating_sub(warmup) as f64;
    let progress = (after / steps.saturating_sub(warmup).max(1) as f64).min(1.0);
    // From 1 to 0.
    let cosine = |progress: f64| 0.5 * (1.0 + (PI * progress).cos());
    match settings.curve {
        Curve::Constant {} => high,
        Curve::Linear { min_learning_rate: low } => low + (high - low) * (1.0 - progress),
        Curve::Cosine { min_learning_rate: low } => low + (high - low) * cosine(progress),
        Curve::Step { step_size, gamma, min_learning_rate: low } => {
            (high * gamma.powf((after / step_size as f64).floor())).max(low)
        }
        Curve::Exponential { gamma, min_learning_rate: low } => (high * gamma.powf(after)).max(low),
        Curve::Noam { min_learning_rate: low } => {
            let scale = if warmup == 0 { NOAM_TIMESCALE } else { warmup as f64 };
            (high * (scale / (scale + after)).sqrt()).max(low)
        }
        Curve::OneCycle { min_learning_rate: low } => {
            // Both ends are counted: the highest rate is that of the warm-up's last step.
            if step < warmup {
                let rise = if warmup == 1 { 1.0 } else { step as f64 / (warmup - 1) as f64 };
                return high + (high / ONE_CYCLE_START - high) * cosine(rise);
            }
            let progress = (after + 1.0) / steps.saturating_sub(warmup).max(1) as f64;
            low + (high - low) * cosine(progress.min(1.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_peaks_and_ends_at_zero() {
        let recipe = TrainRecipe {
            learning_rate: Some(1.0),
            warmup_steps: Some(4),
            ..TrainRecipe::default()
        };
        let rates: Vec<f64> = (0..=12).map(|step| lr_at(step, 12, &recipe)).collect();
        assert_eq!(&rates[..5], &[0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((rates[8] - 0.5).abs() < 1e-12, "half way down at the middle");
        assert!(rates[12].abs() < 1e-12);
    }
}
