//! What the next trial tries.

use std::collections::BTreeMap;

use rand_for_tpe::{RngExt, SeedableRng, rngs::StdRng};
use tpe::{TpeOptimizerBuilder, histogram_estimator, parzen_estimator, range};

use super::{
    Sampler, SweepRecipe,
    space::{Range, Value},
};
use crate::sampler::mix;

/// Share of the finished trials that count as good.
const GOOD: f64 = 0.25;

/// A value for every key of the space. `finished` holds values and losses (lower is better) of earlier trials; the
/// result depends on nothing else but the seed and the trial's number.
pub fn next(
    sweep: &SweepRecipe,
    finished: &[(BTreeMap<String, Value>, f64)],
    seed: u64,
    trial: usize,
) -> BTreeMap<String, Value> {
    let mut rng = StdRng::seed_from_u64(mix(seed ^ 0x7121, trial as u64));
    let learned = sweep.sampler == Sampler::Tpe && finished.len() >= sweep.startup.max(2);
    let keys = sweep.space.iter();
    keys.map(|(key, range)| {
        let place = match learned {
            true => parzen(range, key, finished, &mut rng),
            false => uniform(range, &mut rng),
        };
        (key.clone(), range.at(place))
    })
    .collect()
}

fn uniform(range: &Range, rng: &mut StdRng) -> f64 {
    let (low, high) = range.scale();
    rng.random_range(low..high)
}

/// Where on the scale good trials lie and others do not.
fn parzen(
    space: &Range,
    key: &str,
    finished: &[(BTreeMap<String, Value>, f64)],
    rng: &mut StdRng,
) -> f64 {
    let (low, high) = space.scale();
    let estimator = if space.is_choice() { histogram_estimator() } else { parzen_estimator() };
    let scale = range(low, high).expect("the recipe's check saw the range");
    let mut optimizer = TpeOptimizerBuilder::new()
        .gamma(GOOD)
        .build(estimator, scale)
        .expect("constants within their domains");
    for (values, loss) in finished {
        let place = values.get(key).and_then(|value| space.place(value));
        if let Some(place) = place.filter(|place| *place < high && loss.is_finite()) {
            // Told places lie within the range and losses are numbers.
            optimizer.tell(place, *loss).expect("checked");
        }
    }
    match optimizer.ask(rng) {
        Ok(place) => place,
        Err(_) => uniform(space, rng),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_of(sampler: Sampler, seed: u64, loss: impl Fn(&BTreeMap<String, Value>) -> f64) -> f64 {
        let number =
            |low, high, log| Range { low: Some(low), high: Some(high), log, ..Range::default() };
        let space = BTreeMap::from([
            ("rate".to_string(), number(1e-5, 1.0, true)),
            ("decay".to_string(), number(0.0, 1.0, false)),
        ]);
        let sweep = SweepRecipe { sampler, space, ..SweepRecipe::default() };
        let mut finished = vec![];
        for trial in 0..30 {
            let values = next(&sweep, &finished, seed, trial);
            let value = loss(&values);
            finished.push((values, value));
        }
        finished.into_iter().map(|(_, loss)| loss).fold(f64::INFINITY, f64::min)
    }

    /// A bowl; the real task is in the crate that has one.
    #[test]
    fn learning_from_trials_pays() {
        let bowl = |values: &BTreeMap<String, Value>| {
            let number = |key: &str| match values[key] {
                Value::Number(value) => value,
                _ => panic!("not a number"),
            };
            (number("rate").ln() - 1e-3_f64.ln()).powi(2) / 20.0 + (number("decay") - 0.3).powi(2)
        };
        let median = |sampler| {
            let mut best: Vec<f64> = (0..15).map(|seed| best_of(sampler, seed, bowl)).collect();
            best.sort_by(f64::total_cmp);
            best[7]
        };
        let (tpe, random) = (median(Sampler::Tpe), median(Sampler::Random));
        assert!(tpe < random, "TPE {tpe}, random {random}");
    }
}
