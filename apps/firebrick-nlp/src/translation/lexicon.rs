//! Words of a pair of sentences that belong together, found by how often they occur together.

use std::{collections::HashMap, ops::Range};

use firebrick_train::sampler::mix;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use unicode_segmentation::UnicodeSegmentation;

use super::{
    copies::{SLOTS, apart, literals, replaced},
    corpus::Pair,
};

/// Rarer words are too few to be sure of their partners.
const RAREST: usize = 3;
/// More frequent ones, as a share of the pairs, are often not content words.
const MOST_FREQUENT: f64 = 0.02;
/// Dice's coefficient from which on two words are partners, and with which a neighbour joins them.
const PARTNERS: f64 = 0.4;
const JOINS: f64 = 0.2;

/// A word with its place.
type Word<'a> = (&'a str, Range<usize>);

/// Words of the training pairs with their partners in the other language, by Dice's coefficient: twice the pairs that have
/// both over the pairs that have either (Smadja et al. 1996, "Translating Collocations for Bilingual Lexicons").
pub struct Lexicon {
    /// How many pairs have the word, by side.
    counts: [HashMap<String, usize>; 2],
    together: HashMap<(String, String), usize>,
}

fn words(text: &str) -> Vec<Word<'_>> {
    text.unicode_word_indices().map(|(at, word)| (word, at..at + word.len())).collect()
}

fn keys(text: &str) -> Vec<String> {
    let mut keys: Vec<String> = words(text).iter().map(|(word, _)| word.to_lowercase()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl Lexicon {
    pub fn new(pairs: &[Pair]) -> Self {
        let mut counts = [HashMap::new(), HashMap::new()];
        for pair in pairs {
            for (counts, text) in counts.iter_mut().zip([&pair.source, &pair.target]) {
                for key in keys(text) {
                    *counts.entry(key).or_default() += 1;
                }
            }
        }
        let most = (pairs.len() as f64 * MOST_FREQUENT) as usize;
        for counts in &mut counts {
            counts.retain(|_, count| (RAREST..=most.max(RAREST)).contains(count));
        }
        let mut together = HashMap::new();
        for pair in pairs {
            let known = |side: usize, text: &str| {
                let mut keys = keys(text);
                keys.retain(|key| counts[side].contains_key(key));
                keys
            };
            let targets = known(1, &pair.target);
            for source in known(0, &pair.source) {
                for target in &targets {
                    *together.entry((source.clone(), target.clone())).or_default() += 1;
                }
            }
        }
        together.retain(|_, count| *count >= RAREST);
        Self { counts, together }
    }

    fn dice(&self, source: &str, target: &str) -> f64 {
        let both = self.together.get(&(source.to_string(), target.to_string()));
        both.map_or(0.0, |both| {
            2.0 * *both as f64 / (self.counts[0][source] + self.counts[1][target]) as f64
        })
    }

    /// Places in the source and in the target that belong together, in the order of the source: what is written the same,
    /// and words that are each other's best partners, with the neighbours that have the same one where no space divides
    /// words.
    pub fn partners(&self, pair: &Pair) -> Vec<[Range<usize>; 2]> {
        let mut found: Vec<[Range<usize>; 2]> = vec![];
        for span in literals(&pair.source) {
            let value = &pair.source[span.clone()];
            let mut same =
                literals(&pair.target).into_iter().filter(|at| &pair.target[at.clone()] == value);
            if let (Some(at), None) = (same.next(), same.next()) {
                found.push([span, at]);
            }
        }
        let sides = [words(&pair.source), words(&pair.target)];
        let keys = sides
            .each_ref()
            .map(|side| side.iter().map(|(word, _)| word.to_lowercase()).collect::<Vec<_>>());
        let scores: Vec<Vec<f64>> =
            keys[0].iter().map(|s| keys[1].iter().map(|t| self.dice(s, t)).collect()).collect();
        let best = |scores: &mut dyn Iterator<Item = f64>| {
            scores
                .enumerate()
                .filter(|(_, score)| *score >= JOINS)
                .max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let forth: Vec<_> = scores.iter().map(|row| best(&mut row.iter().copied())).collect();
        let back: Vec<_> =
            (0..keys[1].len()).map(|t| best(&mut scores.iter().map(|row| row[t]))).collect();
        for (s, partner) in forth.iter().enumerate() {
            let Some((t, score)) = *partner else { continue };
            if score < PARTNERS || back[t].is_none_or(|(other, _)| other != s) {
                continue;
            }
            let spans = [
                joined(&sides[0], s, |at| forth[at].is_some_and(|(other, _)| other == t)),
                joined(&sides[1], t, |at| back[at].is_some_and(|(other, _)| other == s)),
            ];
            let free = |other: &[Range<usize>; 2]| {
                apart(&other[0], &spans[0]) && apart(&other[1], &spans[1])
            };
            if found.iter().all(free) {
                found.push(spans);
            }
        }
        found.sort_by_key(|[source, _]| source.start);
        found
    }
}

/// The place of word `at` with those of its neighbours, without a gap between, that belong to it.
fn joined(words: &[Word], at: usize, belongs: impl Fn(usize) -> bool) -> Range<usize> {
    let (mut first, mut last) = (at, at);
    while first > 0 && words[first - 1].1.end == words[first].1.start && belongs(first - 1) {
        first -= 1;
    }
    while last + 1 < words.len()
        && words[last].1.end == words[last + 1].1.start
        && belongs(last + 1)
    {
        last += 1;
    }
    words[first].1.start..words[last].1.end
}

/// `share` of the pairs once more, with one to three of the places that belong together replaced by placeholders.
pub fn with_placeholders(pairs: &[Pair], share: f64, seed: u64) -> Vec<Pair> {
    let lexicon = Lexicon::new(pairs);
    let masked = pairs.iter().filter_map(|pair| {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(seed, pair.row as u64));
        if !rng.random_bool(share) {
            return None;
        }
        let mut spans = lexicon.partners(pair);
        let count = rng.random_range(1..SLOTS);
        while spans.len() > count {
            spans.remove(rng.random_range(0..spans.len()));
        }
        (!spans.is_empty()).then(|| masked(pair, &spans))
    });
    masked.collect()
}

/// The placeholders are numbered in the order of the source.
fn masked(pair: &Pair, spans: &[[Range<usize>; 2]]) -> Pair {
    let sources = spans.iter().map(|[source, _]| source.clone()).enumerate();
    let mut targets: Vec<_> = spans.iter().map(|[_, target]| target.clone()).enumerate().collect();
    targets.sort_by_key(|(_, span)| span.start);
    Pair {
        row: pair.row,
        source: replaced(&pair.source, sources),
        target: replaced(&pair.target, targets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(row: usize, source: &str, target: &str) -> Pair {
        Pair { row, source: source.into(), target: target.into() }
    }

    /// Dogs and parks among many other things.
    fn pairs(dog: &str, park: &str) -> Vec<Pair> {
        let filler = |i: usize| pair(i, &format!("word{i} said"), &format!("Wort{i} sagte"));
        let mut pairs: Vec<Pair> = (0..400).map(filler).collect();
        for i in 400..405 {
            pairs.push(pair(i, &format!("the dog {i}x"), &format!("der {dog} {i}y")));
            pairs.push(pair(i, &format!("the park {i}x"), &format!("der {park} {i}y")));
        }
        pairs
    }

    #[test]
    fn words_that_occur_together_are_partners() {
        let lexicon = Lexicon::new(&pairs("Hund", "Park"));
        let one = pair(0, "In the park 31 saw the dog", "31 sah den Hund im Park");
        let found = lexicon.partners(&one);
        let texts: Vec<_> =
            found.iter().map(|[s, t]| (&one.source[s.clone()], &one.target[t.clone()])).collect();
        assert_eq!(texts, [("park", "Park"), ("31", "31"), ("dog", "Hund")]);
        let masked = masked(&one, &found);
        assert_eq!(masked.source, "In the \u{1} \u{2} saw the \u{3}");
        assert_eq!(masked.target, "\u{2} sah den \u{3} im \u{1}");
    }

    #[test]
    fn characters_of_a_chinese_word_stay_together() {
        let lexicon = Lexicon::new(&pairs("小狗", "公园"));
        let one = pair(0, "the dog is in the park", "小狗在公园里");
        let found = lexicon.partners(&one);
        let texts: Vec<_> = found.iter().map(|[_, t]| &one.target[t.clone()]).collect();
        assert_eq!(texts, ["小狗", "公园"]);
    }

    #[test]
    fn a_share_of_the_pairs_is_masked_and_always_the_same() {
        let pairs = pairs("Hund", "Park");
        let found = with_placeholders(&pairs, 0.5, 7);
        assert!((2..=9).contains(&found.len()), "{}", found.len());
        assert!(
            found
                .iter()
                .all(|pair| [&pair.source, &pair.target].iter().all(|text| text.contains('\u{1}')))
        );
        assert_eq!(found, with_placeholders(&pairs, 0.5, 7));
    }
}
