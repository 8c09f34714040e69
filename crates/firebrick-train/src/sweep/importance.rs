//! How much each key matters: PED-ANOVA (Watanabe et al. 2023, <https://arxiv.org/abs/2304.10255>).
//!
//! A key matters as far as good trials have other values of it than all trials have: the Pearson divergence of the two
//! densities. Densities are histograms over equal parts of the key's scale, each part with one trial more than it has.

use std::collections::BTreeMap;

use super::space::{Range, Value};

/// Share of the trials that count as good.
const GOOD: f64 = 0.25;

const PARTS: usize = 6;

/// Shares of the importance by key, which sum to 1; all 0 where nothing can be said. `finished` holds values and losses.
pub fn importance(
    space: &BTreeMap<String, Range>,
    finished: &[(BTreeMap<String, Value>, f64)],
) -> BTreeMap<String, f64> {
    let mut order: Vec<usize> =
        (0..finished.len()).filter(|i| finished[*i].1.is_finite()).collect();
    order.sort_by(|a, b| finished[*a].1.total_cmp(&finished[*b].1));
    let good = (order.len() as f64 * GOOD).ceil() as usize;
    let divergence = |key: &String, range: &Range| {
        let parts = if range.is_choice() { range.choices.len() } else { PARTS };
        let (low, high) = range.scale();
        let density = |trials: &[usize]| {
            let mut counts = vec![1.0; parts];
            for trial in trials {
                let place = finished[*trial].0.get(key).and_then(|value| range.place(value));
                if let Some(place) = place {
                    let part = (place - low) / (high - low) * parts as f64;
                    counts[(part as usize).min(parts - 1)] += 1.0;
                }
            }
            let sum: f64 = counts.iter().sum();
            counts.into_iter().map(|count| count / sum).collect::<Vec<f64>>()
        };
        let (best, all) = (density(&order[..good]), density(&order));
        best.iter().zip(&all).map(|(p, q)| q * (p / q - 1.0).powi(2)).sum::<f64>()
    };
    let raw: Vec<(String, f64)> =
        space.iter().map(|(key, range)| (key.clone(), divergence(key, range))).collect();
    let sum: f64 = raw.iter().map(|(_, x)| x).sum();
    raw.into_iter().map(|(key, x)| (key, if sum > 0.0 { x / sum } else { 0.0 })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_decides_matters_most() {
        let range = Range { low: Some(0.0), high: Some(1.0), ..Range::default() };
        let space =
            BTreeMap::from([("idle".to_string(), range.clone()), ("deciding".into(), range)]);
        let trial = |i: usize| {
            let (x, y) = ((i * 7 % 40) as f64 / 40.0, (i * 11 % 40) as f64 / 40.0);
            let values =
                [("idle".to_string(), Value::Number(x)), ("deciding".into(), Value::Number(y))];
            (BTreeMap::from(values), (y - 0.4).powi(2))
        };
        let shares = importance(&space, &(0..40).map(trial).collect::<Vec<_>>());
        assert!(shares["deciding"] > 4.0 * shares["idle"], "{shares:?}");
        assert!((shares.values().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
