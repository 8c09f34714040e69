//! From sentences to probabilities: count, adjust, discount, interpolate, prune.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Ngram,
    trie::{Level, Trie},
    vocabulary::{BOS, EOS, UNK},
};
use crate::error::FitError;

/// Longest n-gram taken.
pub(super) const MAX_ORDER: usize = 16;

/// `D_1`, `D_2`, `D_3+` where the counts of counts give none (too little text, or too few tokens): KenLM's.
const FALLBACK: [f64; 3] = [0.5, 1.0, 1.5];

/// `log10` of zero, as SRILM writes it.
const ZERO: f32 = -99.0;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Longest n-gram, in tokens; 1 to 16.
    pub order: usize,
    /// N-grams of length `n` that occur `prune[n - 1]` times or fewer are left out; the last number is for all longer
    /// ones too. As `lmplz --prune`: begins with 0, never decreases. Empty: nothing is left out.
    pub prune: Vec<u32>,
}

impl Default for Options {
    /// The usual 5-gram, nothing pruned.
    fn default() -> Self {
        Self { order: 5, prune: vec![] }
    }
}

impl Options {
    pub fn check(&self) -> Result<(), FitError> {
        if !(1..=MAX_ORDER).contains(&self.order) {
            return Err(FitError::Order { order: self.order, limit: MAX_ORDER });
        }
        let sound = self.prune.first().is_none_or(|first| *first == 0)
            && self.prune.is_sorted()
            && self.prune.len() <= self.order;
        if !sound {
            return Err(FitError::Prune { prune: self.prune.clone(), order: self.order });
        }
        Ok(())
    }

    fn threshold(&self, n: usize) -> u32 {
        self.prune.get(n - 1).or(self.prune.last()).copied().unwrap_or(0)
    }
}

/// What was found for one length of n-grams.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderSummary {
    /// Different n-grams in the text.
    pub seen: usize,
    /// Those that are in the model.
    pub kept: usize,
    /// `D_1`, `D_2`, `D_3+`
    pub discounts: [f64; 3],
    /// The discounts are KenLM's fallback, because the counts of counts gave none.
    pub fallback: bool,
}

impl Ngram {
    /// Estimates a model from sentences of token numbers below `vocabulary`, without `<s>` and `</s>`.
    ///
    /// The numbers are those of `lmplz --discount_fallback`, but [`UNK`] may occur in the text: it is then a token like
    /// any other. A text without sentences is one sentence.
    ///
    /// [`UNK`]: super::vocabulary::UNK
    pub fn fit<S: AsRef<[u32]>>(
        sentences: &[S],
        vocabulary: usize,
        options: &Options,
    ) -> Result<(Self, Vec<OrderSummary>), FitError> {
        options.check()?;
        let tokens = stream(sentences, vocabulary)?;
        let (levels, raw) = count(&tokens, options.order, vocabulary);
        if raw.len() > u32::MAX as usize {
            return Err(FitError::TooManyNgrams { ngrams: raw.len() });
        }
        let trie = Trie::new(&levels);
        drop(levels);
        let counts = adjust(&trie, &raw);
        let mut orders: Vec<OrderSummary> =
            (1..=options.order).map(|n| summary(&counts[range(trie.level(n))])).collect();

        let mut keep = vec![true; trie.len()];
        for n in 2..=options.order {
            let threshold = options.threshold(n);
            trie.level(n).for_each(|node| keep[node as usize] = raw[node as usize] > threshold);
            orders[n - 1].kept = range(trie.level(n)).filter(|node| keep[*node]).count();
        }
        let mut model = interpolate(trie, &counts, &keep, &orders);
        if keep.contains(&false) {
            model = Self {
                trie: model.trie.retain(&keep),
                log10: kept(&model.log10, &keep),
                backoff: kept(&model.backoff, &keep),
            };
        }
        Ok((model, orders))
    }
}

fn range(nodes: std::ops::Range<u32>) -> std::ops::Range<usize> {
    nodes.start as usize..nodes.end as usize
}

fn kept(values: &[f32], keep: &[bool]) -> Vec<f32> {
    values.iter().zip(keep).filter(|(_, keep)| **keep).map(|(value, _)| *value).collect()
}

/// All sentences in a row, each between `<s>` and `</s>`.
fn stream<S: AsRef<[u32]>>(sentences: &[S], vocabulary: usize) -> Result<Vec<u32>, FitError> {
    let length: usize = sentences.iter().map(|sentence| sentence.as_ref().len() + 2).sum();
    if length == 0 {
        return Err(FitError::NoSentences);
    }
    if length > u32::MAX as usize {
        return Err(FitError::TooManyTokens { tokens: length });
    }
    let mut tokens = Vec::with_capacity(length);
    for (i, sentence) in sentences.iter().enumerate() {
        tokens.push(BOS);
        for token in sentence.as_ref() {
            if matches!(*token, BOS | EOS) || *token as usize >= vocabulary {
                return Err(FitError::Token { token: *token, sentence: i, vocabulary });
            }
            tokens.push(*token);
        }
        tokens.push(EOS);
    }
    Ok(tokens)
}

/// The n-grams up to `order`, sorted, and how often each occurs, by node (the root, which comes first, has 0).
///
/// Sorting the places of a text by what follows them brings equal n-grams of every length together.
fn count(tokens: &[u32], order: usize, vocabulary: usize) -> (Vec<Level>, Vec<u32>) {
    let after = |place: u32| {
        let place = place as usize;
        &tokens[place..(place + order).min(tokens.len())]
    };
    let mut places: Vec<u32> = (0..tokens.len() as u32).collect();
    places.par_sort_unstable_by(|a, b| after(*a).cmp(after(*b)));

    let mut levels = vec![Level::default(); order];
    let mut counts = vec![vec![]; order];
    let mut add = |n: usize, token: u32, counts: &mut [Vec<u32>]| {
        let parent = if n == 0 { 0 } else { levels[n - 1].tokens.len() as u32 - 1 };
        levels[n].tokens.push(token);
        levels[n].parents.push(parent);
        counts[n].push(0);
    };
    let mut before: &[u32] = &[];
    for place in places {
        let gram = after(place);
        // An n-gram ends with the sentence.
        let gram = &gram[..gram.iter().position(|t| *t == EOS).map_or(gram.len(), |end| end + 1)];
        let same = before.iter().zip(gram).take_while(|(a, b)| a == b).count();
        if same == 0 {
            // Tokens that do not occur have their place too.
            (counts[0].len() as u32..gram[0]).for_each(|token| add(0, token, &mut counts));
        }
        for (n, token) in gram.iter().enumerate() {
            if n >= same {
                add(n, *token, &mut counts);
            }
            *counts[n].last_mut().expect("added now or with the n-gram before") += 1;
        }
        before = gram;
    }
    (counts[0].len() as u32..vocabulary as u32).for_each(|token| add(0, token, &mut counts));
    (levels, [vec![0], counts.concat()].concat())
}

/// `a` of the module's formula: occurrences, or the number of different tokens before.
fn adjust(trie: &Trie, raw: &[u32]) -> Vec<u32> {
    let mut counts = vec![0; trie.len()];
    let longest = range(trie.level(trie.order()));
    counts[longest.clone()].copy_from_slice(&raw[longest]);
    for n in 1..trie.order() {
        let begins = range(trie.begins(n));
        counts[begins.clone()].copy_from_slice(&raw[begins]);
        for longer in trie.level(n + 1) {
            counts[trie.suffix(longer) as usize] += 1;
        }
    }
    counts[1 + BOS as usize] = 0; // never predicted
    counts
}

/// Equation 26 of Chen and Goodman 1999, from the adjusted counts of one order.
fn summary(counts: &[u32]) -> OrderSummary {
    let mut n = [0.0; 5];
    let seen = counts.iter().filter(|count| **count > 0).count();
    counts.iter().filter(|count| **count < 5).for_each(|count| n[*count as usize] += 1.0);
    let y = n[1] / (n[1] + 2.0 * n[2]);
    let discounts = [1, 2, 3].map(|i| i as f64 - (i as f64 + 1.0) * y * n[i + 1] / n[i]);
    // A division by zero gives NaN, which is not within either.
    let sound =
        [1, 2, 3].iter().all(|i| n[*i] > 0.0 && (0.0..=*i as f64).contains(&discounts[i - 1]));
    let discounts = if sound { discounts } else { FALLBACK };
    OrderSummary { seen, kept: seen, discounts, fallback: !sound }
}

/// The module's formula, from the root to the longest n-grams.
fn interpolate(trie: Trie, counts: &[u32], keep: &[bool], orders: &[OrderSummary]) -> Ngram {
    let mut p = vec![0.0; trie.len()];
    p[0] = 1.0 / (trie.vocabulary() - 1) as f64; // uniform, without `<s>`
    let mut backoff = vec![0.0; trie.inner() as usize];
    for n in 1..=trie.order() {
        let discount = |count: u32| match count {
            0 => 0.0,
            count => orders[n - 1].discounts[count.min(3) as usize - 1],
        };
        for node in trie.level(n - 1) {
            let children = range(trie.children(node));
            let (mut total, mut free) = (0.0, 0.0);
            for child in children.clone() {
                let count = f64::from(counts[child]);
                total += count;
                free += if keep[child] { discount(counts[child]) } else { count };
            }
            if total == 0.0 {
                continue; // nothing ever follows
            }
            let weight = free / total;
            for child in children {
                let own = f64::from(counts[child]) - discount(counts[child]);
                p[child] = own / total + weight * p[trie.suffix(child as u32) as usize];
            }
            // The uniform part is in `p` of the tokens already; zero has no logarithm.
            backoff[node as usize] = if n == 1 { 0.0 } else { weight.max(1e-99).log10() as f32 };
        }
    }
    let mut log10: Vec<f32> = p.iter().map(|p| p.log10() as f32).collect();
    log10[0] = 0.0;
    log10[1 + BOS as usize] = ZERO;
    debug_assert!(p[1 + UNK as usize] > 0.0);
    Ngram { trie, log10, backoff }
}
