//! Learning from a teacher (Hinton et al. 2015, <https://arxiv.org/abs/1503.02531>) on texts that nobody wrote.
//!
//! The teacher is a larger model, or a linear one: on a few thousand rows that of n-grams beats a small Transformer, as
//! it has few ways to overfit. The student comes near when it sees the teacher's probabilities for many more texts than
//! there are rows. They are spliced from the training rows, as in the n-gram sampling of Tang et al. 2019,
//! <https://arxiv.org/abs/1903.12136>, or somebody has collected them without labels.

use anyhow::bail;
use burn::tensor::Device;
use firebrick_classic::{
    error::FitError,
    logistic,
    nbsvm::NbSvm,
    tfidf::{self, Analyzer},
};
use firebrick_data::table::Row;
use firebrick_metrics::confusion::{Confusion, argmax};
use firebrick_train::{
    job::Places,
    recipe::RecipeError,
    sampler::{Coins, mix},
};

use super::{classifier::TextClassifier, corpus::Corpus, train::with_known_label};
use crate::language::mostly_chinese;

/// Texts that a larger teacher is asked at a time.
const BATCH: usize = 64;

/// A text in the units that splices are made of, and its class.
pub type Cut<'a> = (Vec<&'a str>, usize);

/// Texts, each `T`, with the teacher's probability of each class.
pub struct Taught<T> {
    pub texts: Vec<(T, Vec<f32>)>,
    /// The teacher's own answers to the validation rows.
    pub valid: Confusion,
}

/// What splices are made of, and what else the teacher is asked.
#[derive(Debug, Default)]
pub struct Lessons<'a> {
    pub train: Vec<Cut<'a>>,
    pub valid: Vec<Cut<'a>>,
    pub unlabelled: Vec<Vec<&'a str>>,
    /// No spaces part the words.
    pub chinese: bool,
}

impl<'a> Taught<Vec<&'a str>> {
    /// Of `texts_per_row` splices of the training rows for each of them, and of the unlabelled texts.
    ///
    /// `model`: the teacher, if it is not to be a linear one that is fitted here. It knows the same `labels`.
    pub fn new(
        lessons: Lessons<'a>,
        labels: &[String],
        texts_per_row: usize,
        seed: u64,
        model: Option<&TextClassifier>,
    ) -> anyhow::Result<Self> {
        let Lessons { train, valid, unlabelled, chinese } = lessons;
        let between = if chinese { "" } else { " " };
        let (rows, classes): (Vec<&Vec<&'a str>>, Vec<usize>) =
            train.iter().map(|(units, class)| (units, *class)).unzip();
        let teacher = match model {
            Some(model) => Teacher::model(model, labels)?,
            None => {
                let texts: Vec<String> = rows.iter().map(|units| join(units, between)).collect();
                Teacher::fit(&texts, &classes, labels.len(), chinese)?
            }
        };

        let mut confusion = Confusion::new(labels.len());
        let asked: Vec<String> = valid.iter().map(|(units, _)| join(units, between)).collect();
        for ((_, truth), answer) in valid.iter().zip(teacher.answers(&asked)) {
            confusion.add(*truth, argmax(&answer));
        }

        let mut coins = Coins::new(mix(seed, 0xd15_7111));
        let count = rows.len() * texts_per_row;
        let mut texts: Vec<Vec<&str>> = (0..count).map(|_| splice(&rows, &mut coins)).collect();
        texts.extend(unlabelled);
        if model.is_some() {
            // A linear teacher has learnt its own rows by heart; what a larger one says of them is worth hearing.
            texts.extend(rows.into_iter().cloned());
        }
        let asked: Vec<String> = texts.iter().map(|units| join(units, between)).collect();
        let answers = teacher.answers(&asked);
        Ok(Self { texts: texts.into_iter().zip(answers).collect(), valid: confusion })
    }
}

impl<T> Taught<T> {
    /// The same answers to texts of another form.
    pub fn map<U>(self, form: impl Fn(T) -> U) -> Taught<U> {
        let texts = self.texts.into_iter().map(|(text, answer)| (form(text), answer)).collect();
        Taught { texts, valid: self.valid }
    }

    /// How good the teacher is, in a line.
    pub fn remark(&self) -> String {
        let right = 100.0 * self.valid.accuracy().unwrap_or_default();
        let count = self.texts.len();
        format!("teacher: {right:.2} % of the validation rows; it was asked for {count} texts")
    }
}

/// [`Taught`] of rows of text, whose units are words with the space after them, or clauses.
pub fn of_rows(
    corpus: &Corpus,
    unlabelled: &[Row],
    texts_per_row: usize,
    seed: u64,
    model: Option<&TextClassifier>,
) -> anyhow::Result<Taught<String>> {
    let Corpus { train, valid, labels, .. } = corpus;
    let chinese = mostly_chinese(train.iter().map(|row| row.text.as_str()));
    let cut = |rows| -> Vec<Cut> {
        let known = with_known_label(rows, labels);
        known.map(|(row, class)| (units(&row.text, chinese), class)).collect()
    };
    let unlabelled = unlabelled.iter().map(|row| units(&row.text, chinese)).collect();
    let lessons = Lessons { train: cut(train), valid: cut(valid), unlabelled, chinese };
    let taught = Taught::new(lessons, labels, texts_per_row, seed, model)?;
    Ok(taught.map(|units| join(&units, if chinese { "" } else { " " })))
}

/// The classifier that teaches, where a recipe names one.
pub fn named(teacher: Option<&String>, places: &Places) -> anyhow::Result<Option<TextClassifier>> {
    let source = places.checkpoint(teacher)?;
    source.map(|source| TextClassifier::open(&source, &Device::flex())).transpose()
}

/// Whether `[distill]`'s keys go together; `texts`: others are named.
pub fn check(
    texts_per_row: usize,
    texts: bool,
    teacher: Option<&String>,
) -> Result<(), RecipeError> {
    let problem = match texts_per_row {
        0 if teacher.is_some() && !texts => "is 0: the teacher would not be asked".into(),
        0..=1000 => return Ok(()),
        n => format!("is {n}, above 1000"),
    };
    Err(RecipeError::value("distill.texts_per_row", problem))
}

enum Teacher<'a> {
    /// The mean of linear models over different terms.
    Linear(Vec<NbSvm>),
    /// With the place of each of our labels among its own.
    Model(&'a TextClassifier, Vec<usize>),
}

impl<'a> Teacher<'a> {
    fn model(model: &'a TextClassifier, labels: &[String]) -> anyhow::Result<Self> {
        let place = |label: &String| model.labels.iter().position(|known| known == label);
        let places: Option<Vec<usize>> = labels.iter().map(place).collect();
        match places.filter(|_| model.labels.len() == labels.len()) {
            Some(places) => Ok(Self::Model(model, places)),
            None => bail!(
                "the teacher knows the labels {}, the data has {}",
                model.labels.join(", "),
                labels.join(", ")
            ),
        }
    }

    fn fit(
        texts: &[String],
        classes: &[usize],
        count: usize,
        chinese: bool,
    ) -> Result<Self, FitError> {
        let terms = |analyzer, ngram_range, min_df| tfidf::Options {
            analyzer,
            ngram_range,
            min_df,
            ..tfidf::Options::default()
        };
        let terms = match chinese {
            true => vec![terms(Analyzer::Char, (1, 2), 1), terms(Analyzer::Char, (1, 3), 2)],
            false => vec![terms(Analyzer::Word, (1, 2), 1), terms(Analyzer::Char, (2, 5), 2)],
        };
        // Between what cross-validation picks for the training rows of sst2 and hotel (16) and of waimai (4).
        let c = 8.0;
        let logistic = logistic::Options { c, max_iter: 200, tolerance: 1e-5 };
        let fit = |terms| NbSvm::fit(texts, classes, count, &terms, &logistic);
        Ok(Self::Linear(terms.into_iter().map(fit).collect::<Result<_, _>>()?))
    }

    /// Probabilities by class, in the order of the texts.
    fn answers(&self, texts: &[String]) -> Vec<Vec<f32>> {
        let models = match self {
            Self::Linear(models) => models,
            Self::Model(model, places) => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let answers = model.predict(&texts, BATCH).into_iter();
                let ordered = |scores: Vec<f32>| places.iter().map(|i| scores[*i]).collect();
                return answers.map(|answer| ordered(answer.scores)).collect();
            }
        };
        let by_model: Vec<_> = models.iter().map(|model| model.predict_proba(texts)).collect();
        let mean = |text: usize, class: usize| {
            by_model.iter().map(|answers| answers[text][class]).sum::<f64>() / by_model.len() as f64
        };
        (0..texts.len())
            .map(|text| (0..by_model[0][text].len()).map(|c| mean(text, c) as f32).collect())
            .collect()
    }
}

/// Words with the space after them; clauses with their punctuation where no spaces part the words.
fn units(text: &str, clauses: bool) -> Vec<&str> {
    let ends = |c: char| c.is_whitespace() || (clauses && "，。！？；、：,.!?;:~～…".contains(c));
    let mut units = vec![];
    let (mut start, mut ended) = (0, false);
    for (at, c) in text.char_indices() {
        if ended && !ends(c) {
            units.push(&text[start..at]);
            start = at;
        }
        ended = ends(c);
    }
    units.push(&text[start..]);
    units
}

/// Units as a text: `between` two of them where there is no space yet.
fn join(units: &[&str], between: &str) -> String {
    let mut text = String::new();
    for unit in units {
        if !text.is_empty() && !text.ends_with(char::is_whitespace) {
            text.push_str(between);
        }
        text.push_str(unit);
    }
    text
}

/// One to three runs of units, each from a row of its own, about as long together as another row.
fn splice<'a>(rows: &[&Vec<&'a str>], coins: &mut Coins) -> Vec<&'a str> {
    let pick = |coins: &mut Coins| rows[coins.below(rows.len())];
    let length = pick(coins).len() as f64;
    let parts = [1, 2, 2, 3][coins.below(4)];
    let mut units = vec![];
    for _ in 0..parts {
        let row = pick(coins);
        let wanted = (length / f64::from(parts) * coins.within(0.5, 1.5)).round() as usize;
        let count = wanted.clamp(1, row.len());
        let first = coins.below(row.len() - count + 1);
        units.extend_from_slice(&row[first..first + count]);
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_words_and_clauses() {
        assert_eq!(units("a fine  film .", false), ["a ", "fine  ", "film ", "."]);
        assert_eq!(units("很好！！下次，还来", true), ["很好！！", "下次，", "还来"]);
        assert_eq!(units("", true), [""]);
    }

    #[test]
    fn splices_are_made_of_the_rows() {
        let texts = ["one two three four", "five six seven", "eight"];
        let rows: Vec<Vec<&str>> = texts.iter().map(|text| units(text, false)).collect();
        assert!(rows.iter().zip(texts).all(|(units, text)| join(units, " ") == text));
        let rows: Vec<&Vec<&str>> = rows.iter().collect();
        let mut coins = Coins::new(1);
        let made: Vec<String> = (0..200).map(|_| join(&splice(&rows, &mut coins), " ")).collect();
        let known: Vec<&str> = texts.iter().flat_map(|text| text.split(' ')).collect();
        for text in &made {
            assert!(text.split_whitespace().all(|word| known.contains(&word)), "{text:?}");
        }
        assert!(made.iter().any(|text| text.contains("two three")));
        assert!(made.iter().any(|text| text.contains("two") && text.contains("seven")));
    }

    #[test]
    fn the_teacher_knows_what_the_rows_say() {
        let row = |(i, (text, label)): (usize, &(&str, &str))| Row {
            row: i,
            text: text.to_string(),
            label: Some(label.to_string()),
        };
        let rows =
            [("a fine film", "1"), ("a bad film", "0"), ("fine fun", "1"), ("bad luck", "0")];
        let rows: Vec<Row> = rows.iter().enumerate().map(row).collect();
        let labels = vec!["0".to_string(), "1".to_string()];
        let corpus = Corpus { train: rows.clone(), valid: rows, labels, ..Corpus::default() };
        let found = [row((0, &("a fine day", ""))), row((1, &("bad weather", "")))];
        let taught = of_rows(&corpus, &found, 5, 7, None).unwrap();
        assert_eq!(taught.valid.accuracy(), Some(1.0));
        assert_eq!(taught.texts.len(), 22);
        assert_eq!(taught.texts[20].0, "a fine day");
        for (text, p) in &taught.texts {
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            if text.contains("fine") && !text.contains("bad") {
                assert!(p[1] > p[0], "{text}: {p:?}");
            }
        }
    }
}
