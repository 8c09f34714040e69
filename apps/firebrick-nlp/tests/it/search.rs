//! The search for hyper-parameters on a real task that is quick: a linear classifier of real sentences.

use std::collections::BTreeMap;

use firebrick_classic::text::{Options, TextClassifier};
use firebrick_data::{locate::Roots, table::Row};
use firebrick_nlp::{classification::corpus::read_split, data};
use firebrick_train::sweep::{
    Sampler, SweepRecipe, sampler,
    space::{Range, Value},
};

const TRIALS: usize = 18;
const SEEDS: u64 = 9;

fn rows(split: &str, count: usize) -> Vec<Row> {
    let home = tempfile::tempdir().unwrap();
    let roots = Roots { explicit: None, cache: home.path().into(), shared: None };
    let folder = data::fetch(&roots, "sst2").unwrap();
    let mut rows = read_split(&folder, "sst2", split).unwrap().rows;
    rows.truncate(count);
    rows
}

/// Mean loss on the second rows of a model of the first.
fn loss(train: &[Row], valid: &[Row], values: &BTreeMap<String, Value>) -> f64 {
    let mut options = Options::default();
    for (key, value) in values {
        match (key.as_str(), value) {
            ("c", Value::Number(c)) => options.logistic.c = *c,
            ("min_df", Value::Integer(n)) => options.tfidf.min_df = *n as usize,
            ("sublinear_tf", Value::Choice(choice)) => {
                options.tfidf.sublinear_tf = choice.as_bool().unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    options.logistic.tolerance = 1e-3;
    let texts: Vec<&str> = train.iter().map(|row| row.text.as_str()).collect();
    let labels: Vec<&str> = train.iter().map(|row| row.label.as_deref().unwrap()).collect();
    let Ok(model) = TextClassifier::fit(&texts, &labels, &options) else { return 1.0 };
    let texts: Vec<&str> = valid.iter().map(|row| row.text.as_str()).collect();
    let answers = model.predict_all(&texts);
    let truth = valid.iter().map(|row| row.label.as_deref().unwrap());
    let losses = answers.iter().zip(truth).map(|((_, p), truth)| {
        let place = model.labels().iter().position(|label| label == truth).unwrap();
        -p[place].max(1e-12).ln()
    });
    losses.sum::<f64>() / valid.len() as f64
}

/// Lowest loss of a study, by seed.
fn study(which: Sampler, train: &[Row], valid: &[Row]) -> Vec<f64> {
    let number = |low, high, log, integer| Range {
        low: Some(low),
        high: Some(high),
        log,
        integer,
        ..Range::default()
    };
    let choices = [true, false].map(toml::Value::from).to_vec();
    let space = BTreeMap::from([
        ("c".to_string(), number(1e-4, 1e4, true, false)),
        ("min_df".to_string(), number(1.0, 20.0, false, true)),
        ("sublinear_tf".to_string(), Range { choices, ..Range::default() }),
    ]);
    let sweep = SweepRecipe { sampler: which, space, ..SweepRecipe::default() };
    let mut best: Vec<f64> = (0..SEEDS)
        .map(|seed| {
            let mut finished = vec![];
            for trial in 0..TRIALS {
                let values = sampler::next(&sweep, &finished, seed, trial);
                let loss = loss(train, valid, &values);
                finished.push((values, loss));
            }
            finished.into_iter().map(|(_, loss)| loss).fold(f64::INFINITY, f64::min)
        })
        .collect();
    best.sort_by(f64::total_cmp);
    best
}

#[test]
fn tpe_beats_random_search() {
    let (train, valid) = (rows("train", 700), rows("dev", 300));
    let (tpe, random) =
        (study(Sampler::Tpe, &train, &valid), study(Sampler::Random, &train, &valid));
    let middle = SEEDS as usize / 2;
    assert!(tpe[middle] < random[middle], "TPE {tpe:?}, random {random:?}");
}
