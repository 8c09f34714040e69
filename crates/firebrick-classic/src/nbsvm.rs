//! Logistic regression over naive Bayes log-count ratios: NB-SVM.
//!
//! Wang and Manning 2012, "Baselines and Bigrams", <https://aclanthology.org/P12-2018/>, with the logistic loss in
//! place of the hinge. A term counts once a text, rows have length 1, and the column of a term is scaled by the
//! log of how much likelier it is inside the class than outside. For short opinions it is the linear model
//! to beat.

use crate::{
    csr::Csr,
    error::FitError,
    logistic::{self, LogisticRegression},
    tfidf::{self, TfIdf},
};

/// A fitted classifier: texts in, class probabilities out.
#[derive(Debug, Clone, PartialEq)]
pub struct NbSvm {
    terms: TfIdf,
    /// One against the rest by class; the second class alone where there are two.
    outputs: Vec<Output>,
}

#[derive(Debug, Clone, PartialEq)]
struct Output {
    /// By column.
    ratios: Vec<f64>,
    model: LogisticRegression,
}

impl NbSvm {
    /// `labels[i]`, below `classes`, is that of `texts[i]`. Of `terms`, the weighting is not used: it is binary.
    ///
    /// # Panics
    ///
    /// Panics when labels do not match the texts or `classes`, or `classes` is below 2.
    pub fn fit<S: AsRef<str> + Sync>(
        texts: &[S],
        labels: &[usize],
        classes: usize,
        terms: &tfidf::Options,
        logistic: &logistic::Options,
    ) -> Result<Self, FitError> {
        assert!(classes >= 2, "{classes} classes");
        assert_eq!(texts.len(), labels.len(), "one label for each text");
        let (terms, rows) = TfIdf::fit(texts, terms)?;
        let rows = binary(&rows);
        let first = if classes == 2 { 1 } else { 0 };
        let outputs = (first..classes).map(|class| {
            let inside: Vec<usize> = labels.iter().map(|l| usize::from(*l == class)).collect();
            let ratios = ratios(&rows, &inside);
            let model = LogisticRegression::fit(&scale(&rows, &ratios), &inside, 2, logistic);
            Output { ratios, model }
        });
        Ok(Self { outputs: outputs.collect(), terms })
    }

    /// One probability a class for each text; they add up to 1.
    pub fn predict_proba<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Vec<Vec<f64>> {
        let rows = binary(&self.terms.transform(texts));
        let by_output: Vec<Vec<Vec<f64>>> = self
            .outputs
            .iter()
            .map(|output| output.model.predict_proba(&scale(&rows, &output.ratios)))
            .collect();
        if let [only] = &by_output[..] {
            return only.clone();
        }
        let row = |row: usize| {
            let inside: Vec<f64> = by_output.iter().map(|output| output[row][1]).collect();
            let sum: f64 = inside.iter().sum();
            inside.iter().map(|p| p / sum).collect()
        };
        (0..texts.len()).map(row).collect()
    }
}

/// The same columns, one value a row, rows of length 1.
fn binary(rows: &Csr) -> Csr {
    let row = |row: usize| {
        let value = 1.0 / (rows.row(row).count() as f64).sqrt();
        rows.row(row).map(move |(column, _)| (column as u32, value))
    };
    Csr::from_rows(rows.columns(), (0..rows.rows()).map(row))
}

fn scale(rows: &Csr, ratios: &[f64]) -> Csr {
    let row = |row: usize| rows.row(row).map(|(column, x)| (column as u32, x * ratios[column]));
    Csr::from_rows(rows.columns(), (0..rows.rows()).map(row))
}

/// `ln(share of the term in the class / share outside)`, each count one higher than it is.
fn ratios(rows: &Csr, inside: &[usize]) -> Vec<f64> {
    let mut counts = [vec![1.0; rows.columns()], vec![1.0; rows.columns()]];
    for (row, inside) in inside.iter().enumerate() {
        rows.row(row).for_each(|(column, _)| counts[*inside][column] += 1.0);
    }
    let [outside, inside] = counts;
    let total = inside.iter().sum::<f64>() / outside.iter().sum::<f64>();
    inside.iter().zip(&outside).map(|(inside, outside)| (inside / outside / total).ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 6] =
        ["good good film", "good fun", "bad film", "bad taste", "sad film", "very sad"];

    fn fit(labels: &[usize], classes: usize) -> NbSvm {
        let terms = tfidf::Options::default();
        NbSvm::fit(&TEXTS, labels, classes, &terms, &logistic::Options::default()).unwrap()
    }

    /// Two of the four terms in the class are `good` (a term counts once a text), none of the eight outside; one is
    /// added to the count of each of the seven terms.
    #[test]
    fn ratios_by_hand() {
        let (tfidf, rows) = TfIdf::fit(&TEXTS, &tfidf::Options::default()).unwrap();
        assert_eq!(tfidf.terms(), ["bad", "film", "fun", "good", "sad", "taste", "very"]);
        let found = ratios(&binary(&rows), &[1, 1, 0, 0, 0, 0])[3];
        let expected = f64::ln((3.0 / 11.0) / (1.0 / 15.0));
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    #[test]
    fn tells_two_and_three_classes_apart() {
        let two = fit(&[1, 1, 0, 0, 0, 0], 2);
        let three = fit(&[0, 0, 1, 1, 2, 2], 3);
        for (text, in_two, in_three) in [("good", 1, 0), ("bad", 0, 1), ("sad", 0, 2)] {
            for (model, expected) in [(&two, in_two), (&three, in_three)] {
                let p = model.predict_proba(&[text]).remove(0);
                let best = (0..p.len()).max_by(|a, b| p[*a].total_cmp(&p[*b])).unwrap();
                assert_eq!(best, expected, "{text}: {p:?}");
                assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    /// A text without a known term gets the classes' frequencies.
    #[test]
    fn unknown_text() {
        let p = fit(&[1, 1, 0, 0, 0, 0], 2).predict_proba(&["zzz"]).remove(0);
        assert!(p[0] > p[1] && p[1] > 0.1, "{p:?}");
    }
}
