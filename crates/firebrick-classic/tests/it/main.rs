//! Parity with scikit-learn, on golden files; other references have their own files beside this one.

mod ngram;

use firebrick_classic::{
    text::{Options, TextClassifier},
    tfidf::TfIdf,
};
use serde::Deserialize;

/// Measured 2.3e-8: our `idf` is kept in single precision.
const TFIDF: f64 = 5e-8;
/// Measured 1.7e-5: the gradient stops at 1e-6.
const PROBABILITY: f64 = 5e-5;

/// One of `tests/golden/sklearn.json`, written by `tests/golden/make.py` with scikit-learn 1.9.1.
/// Re-make it, never edit it.
#[derive(Deserialize)]
struct Case {
    options: Options,
    texts: Vec<String>,
    labels: Vec<String>,
    unseen: Vec<String>,
    terms: Vec<String>,
    /// Of `texts`, then of `unseen`.
    rows: Vec<Vec<(usize, f64)>>,
    /// Of `unseen`.
    probabilities: Vec<Vec<f64>>,
    classes: Vec<String>,
}

#[test]
fn agrees_with_scikit_learn() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/sklearn.json")).unwrap();
    assert_eq!(cases.len(), 8);
    cases.iter().for_each(check);
}

#[track_caller]
fn check(case: &Case) {
    let name = format!("{:?}", case.options);

    let (tfidf, fitted) = TfIdf::fit(&case.texts, &case.options.tfidf).unwrap();
    assert_eq!(tfidf.terms(), case.terms, "{name}");
    let unseen = tfidf.transform(&case.unseen);
    let (n, rows) = (case.texts.len(), &case.rows);
    assert_eq!(n + case.unseen.len(), rows.len());
    let all = (0..n).map(|i| fitted.row(i).collect::<Vec<_>>());
    let all = all.chain((0..case.unseen.len()).map(|i| unseen.row(i).collect()));
    for (i, (row, expected)) in all.zip(rows).enumerate() {
        assert_eq!(row.len(), expected.len(), "{name} row {i}");
        for ((column, x), (expected_column, expected)) in row.into_iter().zip(expected) {
            assert_eq!(column, *expected_column, "{name} row {i}");
            assert!((x - expected).abs() < TFIDF, "{name} row {i}: {x} {expected}");
        }
    }

    let model = TextClassifier::fit(&case.texts, &case.labels, &case.options).unwrap();
    assert!(model.model().converged, "{name}");
    assert_eq!(model.labels(), case.classes);
    for (text, expected) in case.unseen.iter().zip(&case.probabilities) {
        let (_, probabilities) = model.predict(text);
        for (p, expected) in probabilities.iter().zip(expected) {
            assert!((p - expected).abs() < PROBABILITY, "{name} {text}: {p} {expected}");
        }
    }
}
