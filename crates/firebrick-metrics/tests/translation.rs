//! BLEU and chrF against sacrebleu; `golden/sacrebleu.py` made the files.

use firebrick_metrics::{
    bleu::{Bleu, Tokenize},
    bootstrap::{interval, resampled},
    chrf::Chrf,
};

#[test]
fn scores_are_sacrebleus() {
    let golden = include_str!("golden/sacrebleu.tsv");
    let mut corpora = 0;
    for corpus in golden.split("#\t").skip(1) {
        let mut lines = corpus.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let head = lines.next().unwrap();
        let tokenize = if head[0] == "zh" { Tokenize::Zh } else { Tokenize::V13a };
        let (mut bleu, mut chrf) = (Bleu::new(tokenize), Chrf::default());
        for pair in lines {
            // In two parts, which add up.
            let (mut one, mut other) = (Bleu::new(tokenize), Chrf::default());
            one.add(pair[0], pair[1]);
            other.add(pair[0], pair[1]);
            bleu += one;
            chrf += other;
        }
        let wanted: Vec<f64> = head[1..].iter().map(|score| score.parse().unwrap()).collect();
        assert!((bleu.score() - wanted[0]).abs() < 1e-9, "{} for\n{corpus}", bleu.score());
        assert!((chrf.score() - wanted[1]).abs() < 1e-9, "{} for\n{corpus}", chrf.score());
        corpora += 1;
    }
    assert!(corpora > 15);
}

/// Both draw at random: of `SAMPLES` (1,000) scores the mean is off by 0.03 deviations, and half the interval, which is 1.96 of
/// them, by 0.06; three times that is allowed.
#[test]
fn intervals_are_sacrebleus_within_the_error_of_drawing() {
    for corpus in include_str!("golden/bootstrap.tsv").split("#\t").skip(1) {
        let mut lines = corpus.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let head = lines.next().unwrap();
        let tokenize = if head[0] == "zh" { Tokenize::Zh } else { Tokenize::V13a };
        let (bleu, chrf): (Vec<Bleu>, Vec<Chrf>) = lines
            .map(|pair| {
                let (mut bleu, mut chrf) = (Bleu::new(tokenize), Chrf::default());
                bleu.add(pair[0], pair[1]);
                chrf.add(pair[0], pair[1]);
                (bleu, chrf)
            })
            .unzip();
        assert_eq!(bleu.len(), 80);
        let found = [resampled(&bleu, Bleu::score), resampled(&chrf, Chrf::score)];
        for (scores, wanted) in found.iter().zip(&head[1..]) {
            let (mean, half) = wanted.split_once(' ').unwrap();
            let [mean, half] = [mean, half].map(|x| x.parse::<f64>().unwrap());
            let (low, high) = interval(scores).unwrap();
            let found_half = (high - low) / 2.0;
            assert!((found_half - half).abs() < 0.09 * half, "{low} {high}, {wanted}");
            let found_mean = scores.iter().sum::<f64>() / scores.len() as f64;
            assert!((found_mean - mean).abs() < 0.05 * half, "{found_mean}, {wanted}");
        }
    }
}
