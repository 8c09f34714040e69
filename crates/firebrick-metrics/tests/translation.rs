//! BLEU and chrF against sacrebleu; `golden/sacrebleu.py` made the file.

use firebrick_metrics::{
    bleu::{Bleu, Tokenize},
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
