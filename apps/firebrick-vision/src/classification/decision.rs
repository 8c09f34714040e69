//! Where a yes begins, for a class that must not be missed.

use firebrick_metrics::{confusion::argmax, roc::Roc};
use firebrick_train::origin::Decision;

use super::recipe::DecisionRecipe;

/// What is chosen on the validation pictures, whose scores `seen` holds; `None` where no class is looked for.
pub fn choose(recipe: &DecisionRecipe, seen: &Roc) -> Option<Decision> {
    let positive = recipe.positive.clone()?;
    let sensitivity = recipe.sensitivity.unwrap_or(0.95);
    let threshold = seen.threshold(sensitivity)?;
    let near = recipe.abstain.unwrap_or(0.1);
    Some(Decision { positive, sensitivity, threshold, abstain: band(seen, threshold, near) })
}

/// Probabilities between which this share of all examples lies, those nearest to the threshold in log-odds.
fn band(seen: &Roc, threshold: f64, share: f64) -> [f64; 2] {
    let odds = |p: f64| {
        let p = p.clamp(1e-9, 1.0 - 1e-9);
        (p / (1.0 - p)).ln()
    };
    let middle = odds(threshold);
    let scores = seen.positives.iter().chain(&seen.negatives);
    let mut distances: Vec<f64> = scores.map(|p| (odds(*p) - middle).abs()).collect();
    distances.sort_by(f64::total_cmp);
    let count = (share * distances.len() as f64).floor() as usize;
    let Some(reach) = count.checked_sub(1).and_then(|last| distances.get(last)) else {
        return [threshold; 2];
    };
    [middle - reach, middle + reach].map(|odds| 1.0 / (1.0 + (-odds).exp()))
}

/// What a model says of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Index of the label.
    pub label: usize,
    /// Too close to the threshold to be relied on.
    pub abstains: bool,
}

/// The likelier label, or what `decision` makes of the probabilities by label.
pub fn decide(decision: Option<&Decision>, labels: &[String], scores: &[f32]) -> Answer {
    let positive =
        decision.and_then(|d| Some((d, labels.iter().position(|label| *label == d.positive)?)));
    match positive {
        Some((decision, positive)) if labels.len() == 2 => {
            let p = f64::from(scores[positive]);
            let [low, high] = decision.abstain;
            let label = if p >= decision.threshold { positive } else { 1 - positive };
            Answer { label, abstains: low < high && (low..=high).contains(&p) }
        }
        _ => Answer { label: argmax(scores), abstains: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_and_a_band_around_it() {
        let seen = Roc {
            positives: vec![0.9, 0.8, 0.7, 0.6, 0.3],
            negatives: vec![0.1, 0.2, 0.25, 0.4, 0.65],
        };
        let recipe = DecisionRecipe {
            positive: Some("ill".into()),
            sensitivity: Some(0.8),
            abstain: Some(0.2),
        };
        let decision = choose(&recipe, &seen).unwrap();
        assert_eq!(decision.threshold, 0.6);
        let labels = ["ill".to_string(), "well".to_string()];
        let said = |p: f32| {
            let answer = decide(Some(&decision), &labels, &[p, 1.0 - p]);
            (labels[answer.label].as_str(), answer.abstains)
        };
        // Two of ten lie in the band: 0.6 itself and 0.65.
        assert_eq!(said(0.6), ("ill", true));
        assert_eq!(said(0.59), ("well", true));
        assert_eq!(said(0.7), ("ill", false));
        assert_eq!(said(0.4), ("well", false));
    }

    #[test]
    fn without_a_decision_the_likelier_wins() {
        let labels = ["a".to_string(), "b".to_string()];
        assert_eq!(choose(&DecisionRecipe::default(), &Roc::default()), None);
        let answer = decide(None, &labels, &[0.4, 0.6]);
        assert_eq!(answer, Answer { label: 1, abstains: false });
    }
}
