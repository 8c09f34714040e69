//! A text classifier: TF-IDF rows under a logistic regression.

use serde::{Deserialize, Serialize};

use crate::{error::FitError, logistic, logistic::LogisticRegression, tfidf, tfidf::TfIdf};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub tfidf: tfidf::Options,
    pub logistic: logistic::Options,
}

/// Text in, label out; the whole model is this struct, saved and read with serde.
///
/// ```
/// use firebrick_classic::text::{Options, TextClassifier};
///
/// let texts = ["a good film", "good fun", "a bad film", "bad taste"];
/// let model = TextClassifier::fit(&texts, &["yes", "yes", "no", "no"], &Options::default())?;
/// let (label, probabilities) = model.predict("a good idea");
/// assert_eq!(model.labels()[label], "yes");
/// assert!(probabilities[label] > 0.5);
/// # Ok::<(), firebrick_classic::error::FitError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct TextClassifier {
    tfidf: TfIdf,
    model: LogisticRegression,
    /// By class index.
    labels: Vec<String>,
}

impl TextClassifier {
    /// `labels[i]` is that of `texts[i]`. Classes are numbered in the order of the sorted labels.
    pub fn fit<T: AsRef<str> + Sync, L: AsRef<str>>(
        texts: &[T],
        labels: &[L],
        options: &Options,
    ) -> Result<Self, FitError> {
        if texts.len() != labels.len() {
            return Err(FitError::Lengths { texts: texts.len(), labels: labels.len() });
        }
        let c = options.logistic.c;
        if !(c > 0.0 && c.is_finite()) {
            return Err(FitError::Regularisation { c: c.to_string() });
        }
        let mut names: Vec<String> = labels.iter().map(|label| label.as_ref().into()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < 2 {
            return Err(FitError::OneLabel { found: names.pop() });
        }
        let class = |label: &L| {
            names
                .binary_search_by(|name| name.as_str().cmp(label.as_ref()))
                .expect("`names` holds every label")
        };
        let classes: Vec<usize> = labels.iter().map(class).collect();

        let (tfidf, rows) = TfIdf::fit(texts, &options.tfidf)?;
        let model = LogisticRegression::fit(&rows, &classes, names.len(), &options.logistic);
        Ok(Self { tfidf, model, labels: names })
    }

    /// The likeliest class and the probability of each.
    pub fn predict(&self, text: &str) -> (usize, Vec<f64>) {
        self.predict_all(&[text]).pop().expect("one answer for one text")
    }

    /// [`Self::predict`] for many texts at once, on all cores.
    pub fn predict_all<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Vec<(usize, Vec<f64>)> {
        let probabilities = self.model.predict_proba(&self.tfidf.transform(texts));
        probabilities.into_iter().map(|row| (largest(&row), row)).collect()
    }

    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    pub fn tfidf(&self) -> &TfIdf {
        &self.tfidf
    }

    pub fn model(&self) -> &LogisticRegression {
        &self.model
    }
}

/// `TextClassifier` as read from a file, before its parts are known to fit together.
#[derive(Deserialize)]
struct Unchecked {
    tfidf: TfIdf,
    model: LogisticRegression,
    labels: Vec<String>,
}

impl TryFrom<Unchecked> for TextClassifier {
    type Error = String;

    fn try_from(Unchecked { tfidf, model, labels }: Unchecked) -> Result<Self, String> {
        if labels.len() != model.classes() {
            return Err(format!("{} labels but {} classes", labels.len(), model.classes()));
        }
        if tfidf.terms().len() != model.features() {
            let (terms, features) = (tfidf.terms().len(), model.features());
            return Err(format!("{terms} terms but weights for {features}"));
        }
        Ok(Self { tfidf, model, labels })
    }
}

/// The first of the largest.
fn largest(row: &[f64]) -> usize {
    (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted() -> TextClassifier {
        let texts = ["good film", "good fun", "bad film", "sad story", "very sad"];
        let labels = ["good", "good", "bad", "sad", "sad"];
        TextClassifier::fit(&texts, &labels, &Options::default()).unwrap()
    }

    #[test]
    fn survives_a_file() {
        let model = fitted();
        let json = serde_json::to_string(&model).unwrap();
        let read: TextClassifier = serde_json::from_str(&json).unwrap();
        assert_eq!(read, model);
        assert_eq!(read.predict("a sad film"), model.predict("a sad film"));
        assert_eq!(model.labels(), ["bad", "good", "sad"]);
    }

    #[track_caller]
    fn check_broken(break_it: fn(&mut serde_json::Value), expected: &str) {
        let mut value = serde_json::to_value(fitted()).unwrap();
        break_it(&mut value);
        let error = serde_json::from_value::<TextClassifier>(value).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_broken_file_is_an_error() {
        check_broken(|v| v["labels"] = ["a"].into(), "1 labels but 3 classes");
        check_broken(|v| v["tfidf"]["idf"] = [1.0].into(), "7 terms but 1 idf weights");
        check_broken(|v| v["tfidf"]["terms"][0] = "zz".into(), "not sorted");
        check_broken(|v| v["model"]["weights"] = [0.0].into(), "1 weights for 3 outputs");
        check_broken(|v| v["model"]["weights"] = [0.0; 3].into(), "7 terms but weights for 1");
        check_broken(|v| v["model"]["classes"] = 1.into(), "1 classes but 3 intercepts");
    }

    #[test]
    fn says_why_it_cannot_fit() {
        let fit = |labels: &[&str]| {
            TextClassifier::fit(&["one", "two"], labels, &Options::default()).unwrap_err()
        };
        assert_eq!(fit(&["x"]), FitError::Lengths { texts: 2, labels: 1 });
        assert_eq!(fit(&["x", "x"]), FitError::OneLabel { found: Some("x".into()) });
    }
}
