//! Do new texts still look like those that a model learned from?
//!
//! A classifier two-sample test (Lopez-Paz and Oquab 2017, <https://arxiv.org/abs/1610.06545>): a linear model learns
//! on one half of both to tell new texts from old ones. Where it does no better than a coin on the other half, they are
//! alike. Words whose shares differ most say what has changed.

use std::collections::HashSet;

use firebrick_classic::{
    error::FitError,
    text,
    tfidf::{self, Analyzer, TfIdf},
};
use firebrick_metrics::interval::wilson_interval;
use firebrick_train::sampler::{Coins, mix};

use crate::language::mostly_chinese;

/// How far apart two sets of texts are.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// Texts of each set that were compared.
    pub compared: usize,
    /// Share of unseen texts that the test puts on the right side: 0.5 is a coin, 1 tells all apart.
    pub separability: f64,
    /// Its 95 % interval.
    pub interval: (f64, f64),
    /// Probability of so many right answers, or more, when both sets are alike.
    pub p_value: f64,
    /// Share of the new texts' words (characters, in Chinese) that no reference text has.
    pub unseen: f64,
    /// Median characters of a text: reference, new.
    pub lengths: (usize, usize),
    /// What differs most: the term, and the share of texts with it in the reference and in the new set.
    pub terms: Vec<(String, f64, f64)>,
}

/// So many texts of each set tell enough.
const MOST: usize = 5000;
const TERMS: usize = 10;
/// Fewer on a side are no test.
pub const FEWEST: usize = 20;

/// Compares `new` with `reference`, by a draw that `seed` decides. `None` with less than [`FEWEST`] texts on a side.
pub fn drift(reference: &[&str], new: &[&str], seed: u64) -> Result<Option<Drift>, FitError> {
    let count = reference.len().min(new.len()).min(MOST);
    if count < FEWEST {
        return Ok(None);
    }
    let chinese = mostly_chinese(reference.iter().chain(new).copied());
    let analyzer = if chinese { Analyzer::Char } else { Analyzer::Word };
    let single = tfidf::Options { analyzer, ngram_range: (1, 1), min_df: 1, ..Default::default() };

    let sides = [(reference, 1), (new, 2)].map(|(texts, side)| draw(texts, count, mix(seed, side)));
    let half = count / 2;
    let learn: Vec<&str> = sides.iter().flat_map(|side| side[..half].iter().copied()).collect();
    let sides_of = |each: usize| ["old", "new"].into_iter().flat_map(move |side| vec![side; each]);
    let mut options = text::Options::default();
    options.tfidf.ngram_range = (1, 2);
    options.tfidf.analyzer = analyzer;
    let judge = text::TextClassifier::fit(&learn, &sides_of(half).collect::<Vec<_>>(), &options)?;
    let asked: Vec<&str> = sides.iter().flat_map(|side| side[half..].iter().copied()).collect();
    let answers = judge.predict_all(&asked);
    let right = answers.iter().zip(sides_of(count - half));
    let right = right.filter(|((side, _), truth)| judge.labels()[*side] == *truth).count();
    let separability = right as f64 / asked.len() as f64;

    Ok(Some(Drift {
        compared: count,
        separability,
        interval: wilson_interval(right as u64, asked.len() as u64).unwrap_or((0.0, 1.0)),
        p_value: at_least(right, asked.len()),
        unseen: unseen(reference, new, &single)?,
        lengths: (median_length(reference), median_length(new)),
        terms: telling_terms(&sides[0], &sides[1], &single)?,
    }))
}

/// `count` of the texts, in the order of a draw.
fn draw<'a>(texts: &[&'a str], count: usize, seed: u64) -> Vec<&'a str> {
    let mut coins = Coins::new(seed);
    let mut order: Vec<usize> = (0..texts.len()).collect();
    for at in 0..count {
        let other = at + coins.below(order.len() - at);
        order.swap(at, other);
    }
    order[..count].iter().map(|at| texts[*at]).collect()
}

/// Probability of `right` or more heads in `all` tosses of a fair coin.
fn at_least(right: usize, all: usize) -> f64 {
    let mut log_ways = -(all as f64) * 2.0_f64.ln(); // of no head at all
    let mut sum = 0.0;
    for heads in 0..=all {
        if heads >= right {
            sum += log_ways.exp();
        }
        log_ways += ((all - heads) as f64).ln() - ((heads + 1) as f64).ln();
    }
    sum.min(1.0)
}

fn median_length(texts: &[&str]) -> usize {
    let mut lengths: Vec<usize> = texts.iter().map(|text| text.chars().count()).collect();
    lengths.sort_unstable();
    lengths[lengths.len() / 2]
}

fn unseen(reference: &[&str], new: &[&str], single: &tfidf::Options) -> Result<f64, FitError> {
    let (known, _) = TfIdf::fit(reference, single)?;
    let known: HashSet<&str> = known.terms().iter().map(String::as_str).collect();
    let (found, rows) = TfIdf::fit(new, single)?;
    let strange: Vec<bool> = found.terms().iter().map(|t| !known.contains(t.as_str())).collect();
    let (mut all, mut odd) = (0_usize, 0_usize);
    for row in 0..rows.rows() {
        for (column, _) in rows.row(row) {
            all += 1;
            odd += usize::from(strange[column]);
        }
    }
    Ok(odd as f64 / all.max(1) as f64)
}

fn telling_terms(
    reference: &[&str],
    new: &[&str],
    single: &tfidf::Options,
) -> Result<Vec<(String, f64, f64)>, FitError> {
    let both: Vec<&str> = reference.iter().chain(new).copied().collect();
    let (terms, rows) = TfIdf::fit(&both, single)?;
    let mut shares = vec![[0.0_f64; 2]; terms.terms().len()];
    for row in 0..rows.rows() {
        let side = usize::from(row >= reference.len());
        let one = 1.0 / if side == 0 { reference.len() } else { new.len() } as f64;
        rows.row(row).for_each(|(column, _)| shares[column][side] += one);
    }
    let named = terms.terms().iter().zip(shares);
    let mut all: Vec<_> = named.map(|(term, [old, new])| (term.clone(), old, new)).collect();
    all.sort_by(|a, b| (b.1 - b.2).abs().total_cmp(&(a.1 - a.2).abs()));
    all.truncate(TERMS);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str], count: usize, seed: u64) -> Vec<String> {
        let mut coins = Coins::new(seed);
        let mut word = || words[coins.below(words.len())];
        (0..count).map(|_| (0..8).map(|_| word()).collect::<Vec<_>>().join(" ")).collect()
    }

    fn compare(old: &[String], new: &[String]) -> Drift {
        let old: Vec<&str> = old.iter().map(String::as_str).collect();
        let new: Vec<&str> = new.iter().map(String::as_str).collect();
        drift(&old, &new, 7).unwrap().unwrap()
    }

    const FILM: &[&str] = &["film", "plot", "actor", "scene", "good", "bad", "long", "dull"];
    const FOOD: &[&str] = &["soup", "rice", "waiter", "table", "good", "bad", "cold", "warm"];

    #[test]
    fn one_source_is_a_coin_and_two_are_told_apart() {
        let same = compare(&texts(FILM, 400, 1), &texts(FILM, 400, 2));
        assert!(same.p_value > 0.01 && (0.4..0.6).contains(&same.separability), "{same:?}");
        assert_eq!(same.unseen, 0.0);
        let other = compare(&texts(FILM, 400, 1), &texts(FOOD, 300, 2));
        assert_eq!(other.compared, 300);
        assert!(other.p_value < 1e-9 && other.separability > 0.99, "{other:?}");
        assert!((0.7..0.8).contains(&other.unseen), "{other:?}"); // six of eight words
        assert!(!["good", "bad"].contains(&other.terms[0].0.as_str()), "{other:?}");
    }

    #[test]
    fn few_texts_are_no_test() {
        assert_eq!(drift(&["a b"; 19], &["a b"; 500], 7).unwrap(), None);
    }

    #[test]
    fn the_tail_of_a_coin() {
        assert!((at_least(0, 10) - 1.0).abs() < 1e-12);
        assert!((at_least(10, 10) - 1.0 / 1024.0).abs() < 1e-12);
        assert!((at_least(8, 10) - 56.0 / 1024.0).abs() < 1e-12);
        assert!((at_least(5000, 10_000) - 0.504).abs() < 1e-3);
    }
}
