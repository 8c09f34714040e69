//! TF-IDF + logistic regression: what a neural model has to beat, trained in the same run.

use std::time::Instant;

use firebrick_classic::{text, tfidf};
use firebrick_data::table::Row;
use firebrick_metrics::confusion::Confusion;

use crate::language::mostly_chinese;

/// The baseline's score and how long it took.
pub struct Baseline {
    pub confusion: Confusion,
    /// Seconds to fit.
    pub seconds: f64,
    pub features: usize,
}

/// Fits on `train`, scores on `test`. Word uni- and bigrams; characters where the text is Chinese.
pub fn run(train: &[Row], test: &[Row], labels: &[String]) -> Result<Baseline, String> {
    let begun = Instant::now();
    let chinese = mostly_chinese(train.iter().map(|row| row.text.as_str()));
    let mut options = text::Options::default();
    options.tfidf.ngram_range = (1, 2);
    options.tfidf.analyzer = if chinese { tfidf::Analyzer::Char } else { tfidf::Analyzer::Word };
    let texts: Vec<&str> = train.iter().map(|row| row.text.as_str()).collect();
    let truth: Vec<&str> =
        train.iter().map(|row| row.label.as_deref().unwrap_or_default()).collect();
    let model = text::TextClassifier::fit(&texts, &truth, &options).map_err(|e| e.to_string())?;
    let seconds = begun.elapsed().as_secs_f64();

    let mut confusion = Confusion::new(labels.len());
    let place = |label: &str| labels.iter().position(|l| l == label);
    let texts: Vec<&str> = test.iter().map(|row| row.text.as_str()).collect();
    for (row, (best, _)) in test.iter().zip(model.predict_all(&texts)) {
        let truth = row.label.as_deref().and_then(place);
        if let (Some(truth), Some(predicted)) = (truth, place(&model.labels()[best])) {
            confusion.add(truth, predicted);
        }
    }
    Ok(Baseline { confusion, seconds, features: model.tfidf().terms().len() })
}
