//! Part-of-speech tagging with a hidden Markov model of tag trigrams.
//!
//! Paper: Brants 2000, "TnT: a statistical part-of-speech tagger", <https://arxiv.org/abs/cs/0003055>.
//!
//! The states are pairs of tags, the symbols are words, and everything is counted from tagged sentences:
//!
//! ```text
//! best tags = argmax  product over i of  p(t_i | t_(i-2), t_(i-1)) p(w_i | t_(i-1), t_i),
//!                     with two boundaries before the first tag and one after the last
//! p(c | a, b) = l_1 f(c) + l_2 f(c | b) + l_3 f(c | a, b)       f: frequencies; l: deleted interpolation
//! p(w | b, c) = x f(w | b, c) + (1 - x) p(w | c)                x: `context`
//! p(w | c)    = p(w) p(c | w) / p(c)                            Bayes
//! ```
//!
//! That a word depends on the tag before too is not in TnT but in HunPos (Halácsy et al. 2007). On the dev part of
//! UD English EWT it is worth 0.8 points of accuracy (92.96 % to 93.76 %, all other options as they are by default).
//!
//! `p(c | w)` of any word, known or not, comes from a chain of ever more special descriptions: every word; a word of this
//! shape (capitals, digits, ...); of this shape that ends in these one, two, ... letters; this word in lower case; this
//! word. Each description's counts are mixed with what the one before says, as if that had been seen `theta` times:
//! `p_k(c) = (count_k(c) + theta p_(k-1)(c)) / (count_k + theta)`. The endings are counted over rare words only, because
//! an unknown word is a rare one. (Brants treats only unknown words this way, and known ones by frequency alone.)

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::FitError;

/// Most tags taken: the table of trigrams has a number for each three of them.
const MAX_TAGS: usize = 128;

/// Longest ending that may be asked for, in letters.
const LONGEST_SUFFIX: usize = 32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Longest ending looked at, in letters.
    pub suffix: usize,
    /// Endings are counted over words that occur at most so often.
    pub rare: u32,
    /// Weight of the shorter ending.
    pub suffix_theta: f64,
    /// Share of `p(w | b, c)` in the chance of a word, against `p(w | c)`.
    pub context: f64,
    /// Weight of the endings, and of the lower-case word, against a word's own counts.
    pub word_theta: f64,
}

impl Default for Options {
    /// Chosen on the dev part of UD English EWT.
    fn default() -> Self {
        Self { suffix: 10, rare: 10, suffix_theta: 5.0, word_theta: 3.0, context: 0.5 }
    }
}

/// A tagger is its counts: with serde they are all that is written, and they are checked when they are read.
///
/// ```
/// use firebrick_classic::hmm::tagger::{Options, Tagger};
///
/// let sentences = [
///     vec![("the", "DET"), ("dog", "NOUN"), ("barks", "VERB")],
///     vec![("a", "DET"), ("cat", "NOUN"), ("walks", "VERB")],
///     vec![("the", "DET"), ("walks", "NOUN"), ("tire", "VERB")],
/// ];
/// let tagger = Tagger::fit(&sentences, &Options::default())?;
/// assert_eq!(tagger.tag(&["a", "dog", "walks"]), ["DET", "NOUN", "VERB"]);
/// assert_eq!(tagger.tag(&["the", "walks", "walks"]), ["DET", "NOUN", "VERB"]);
/// # Ok::<(), firebrick_classic::error::FitError>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Counts", into = "Counts")]
pub struct Tagger {
    counts: Counts,
    /// `[K + 1, K + 1, K + 1]`: `ln p(c | a, b)`; number `K` is the boundary.
    transitions: Vec<f64>,
    /// `[K]`
    prior: Vec<f64>,
    /// Words seen.
    total: f64,
    /// `[K + 1, K]`: occurrences of two tags one after the other.
    pairs: Vec<f64>,
    /// By shape and ending, `[K]`; the empty ending is that of the shape alone.
    endings: HashMap<(Shape, String), Vec<f64>>,
    /// By word in lower case, `[K]`: all its cases together.
    lower: HashMap<String, Vec<f64>>,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    options: Options,
    /// Sorted; the place of a tag is its number.
    tags: Vec<String>,
    /// `(a, b, c, occurrences)`, the boundary being number `tags.len()`.
    trigrams: Vec<(u8, u8, u8, u32)>,
    /// `(tag before, tag, occurrences)` of each word.
    words: BTreeMap<String, Vec<(u8, u8, u32)>>,
}

impl Tagger {
    /// Counts tagged sentences of `(word, tag)`; tags are numbered in their sorted order.
    pub fn fit<S, W, T>(sentences: &[S], options: &Options) -> Result<Self, FitError>
    where
        S: AsRef<[(W, T)]>,
        W: AsRef<str>,
        T: AsRef<str>,
    {
        let tokens =
            || sentences.iter().flat_map(|s| s.as_ref()).map(|(w, t)| (w.as_ref(), t.as_ref()));
        let mut tags: Vec<String> = tokens().map(|(_, tag)| tag.to_owned()).collect();
        tags.sort_unstable();
        tags.dedup();
        if tags.is_empty() {
            return Err(FitError::NoSentences);
        }
        if tags.len() > MAX_TAGS {
            return Err(FitError::TooManyTags { tags: tags.len(), limit: MAX_TAGS });
        }
        let number = |tag: &str| {
            tags.binary_search_by(|known| known.as_str().cmp(tag)).expect("`tags` holds every tag")
                as u8
        };
        let mut words: BTreeMap<String, BTreeMap<(u8, u8), u32>> = BTreeMap::new();
        let mut trigrams: BTreeMap<(u8, u8, u8), u32> = BTreeMap::new();
        let boundary = tags.len() as u8;
        for sentence in sentences.iter().map(AsRef::as_ref).filter(|sentence| !sentence.is_empty())
        {
            let (mut a, mut b) = (boundary, boundary);
            for (word, tag) in sentence {
                let c = number(tag.as_ref());
                *words.entry(word.as_ref().to_owned()).or_default().entry((b, c)).or_default() += 1;
                *trigrams.entry((a, b, c)).or_default() += 1;
                (a, b) = (b, c);
            }
            *trigrams.entry((a, b, boundary)).or_default() += 1;
        }
        let counts = Counts {
            options: options.clone(),
            trigrams: trigrams.into_iter().map(|((a, b, c), n)| (a, b, c, n)).collect(),
            words: words
                .into_iter()
                .map(|(word, own)| (word, own.into_iter().map(|((b, c), n)| (b, c, n)).collect()))
                .collect(),
            tags,
        };
        Self::try_from(counts).map_err(|problem| FitError::Options { problem })
    }

    /// The names of the tags by number.
    pub fn tags(&self) -> &[String] {
        &self.counts.tags
    }

    /// Number of different words that were counted.
    pub fn words(&self) -> usize {
        self.counts.words.len()
    }

    /// Whether `word` was counted, just as it is written.
    pub fn knows(&self, word: &str) -> bool {
        self.counts.words.contains_key(word)
    }

    /// The likeliest tags of a sentence.
    pub fn tag<W: AsRef<str>>(&self, words: &[W]) -> Vec<&str> {
        self.tag_numbers(words).into_iter().map(|tag| self.counts.tags[tag].as_str()).collect()
    }

    /// As [`Self::tag`], by number: Viterbi over pairs of tags.
    pub fn tag_numbers<W: AsRef<str>>(&self, words: &[W]) -> Vec<usize> {
        let k = self.tags().len();
        let pairs = k + 1; // with the boundary
        // best[a * pairs + b]: the best sum of a sequence up to here that ends in a, b.
        let mut best = vec![f64::NEG_INFINITY; pairs * pairs];
        best[k * pairs + k] = 0.0;
        let mut from: Vec<Vec<u8>> = Vec::with_capacity(words.len());
        for (place, word) in words.iter().enumerate() {
            let emissions = self.emissions(word.as_ref(), place == 0);
            let mut next = vec![f64::NEG_INFINITY; pairs * pairs];
            let mut places = vec![0; pairs * pairs];
            for (pair, sum) in best.iter().enumerate().filter(|(_, sum)| **sum > f64::NEG_INFINITY)
            {
                let (a, b) = (pair / pairs, pair % pairs);
                let row = &self.transitions[pair * pairs..][..k];
                for (c, (transition, emission)) in
                    row.iter().zip(&emissions[b * k..][..k]).enumerate()
                {
                    let sum = sum + transition + emission;
                    if sum > next[b * pairs + c] {
                        next[b * pairs + c] = sum;
                        places[b * pairs + c] = a as u8;
                    }
                }
            }
            best = next;
            from.push(places);
        }
        let ends =
            best.iter().enumerate().map(|(pair, sum)| sum + self.transitions[pair * pairs + k]);
        let (mut pair, _) = ends.enumerate().fold((0, f64::NEG_INFINITY), |best, (pair, sum)| {
            if sum > best.1 { (pair, sum) } else { best }
        });
        let mut tags = vec![0; words.len()];
        for (tag, places) in tags.iter_mut().zip(&from).rev() {
            *tag = pair % pairs;
            pair = places[pair] as usize * pairs + pair / pairs;
        }
        tags
    }

    /// `p(t | w)`, `[K]`: the chain of the module's documentation. `first`: the word begins a sentence, where a capital
    /// says little.
    pub fn tag_probabilities(&self, word: &str, first: bool) -> Vec<f64> {
        let lower = word.to_lowercase();
        let options = &self.counts.options;
        let shape = Shape::of(word);
        let mut p = self.ending(shape, &lower);
        if first && shape == Shape::Capital {
            let other = self.ending(Shape::Lower, &lower);
            p.iter_mut().zip(other).for_each(|(p, other)| *p = 0.5 * (*p + other));
        }
        if let Some(counts) = self.lower.get(&lower) {
            mix(&mut p, counts, options.word_theta);
        }
        if let Some(own) = self.counts.words.get(word) {
            mix(&mut p, &dense(own, self.tags().len()), options.word_theta);
        }
        p
    }

    /// `ln p(w | b, c)` up to a constant, `[K + 1, K]`.
    fn emissions(&self, word: &str, first: bool) -> Vec<f64> {
        let k = self.tags().len();
        let p = self.tag_probabilities(word, first);
        let own = self.counts.words.get(word).map_or(&[][..], Vec::as_slice);
        let occurrences = own.iter().map(|(_, _, n)| f64::from(*n)).sum::<f64>().max(1.0);
        let context = self.counts.options.context;
        // p(w | c) = p(w) p(c | w) / p(c)
        let alone =
            p.iter().zip(&self.prior).map(|(p, prior)| occurrences / self.total * p / prior);
        let alone: Vec<f64> = alone.map(|p| (1.0 - context) * p).collect();
        let mut emissions = alone.repeat(k + 1);
        for (b, c, n) in own {
            let pair = *b as usize * k + *c as usize;
            emissions[pair] += context * f64::from(*n) / self.pairs[pair];
        }
        emissions.iter_mut().for_each(|p| *p = p.ln());
        emissions
    }

    /// `[K]`: what shape and ending say.
    fn ending(&self, shape: Shape, lower: &str) -> Vec<f64> {
        let options = &self.counts.options;
        let mut p = self.prior.clone();
        for ending in endings(lower, options.suffix) {
            let Some(counts) = self.endings.get(&(shape, ending.to_owned())) else { break };
            mix(&mut p, counts, options.suffix_theta);
        }
        p
    }
}

/// `p = (counts + theta p) / (sum of counts + theta)`
fn mix(p: &mut [f64], counts: &[f64], theta: f64) {
    let total: f64 = counts.iter().sum::<f64>() + theta;
    p.iter_mut().zip(counts).for_each(|(p, count)| *p = (count + theta * *p) / total);
}

/// Counts by tag, whatever the tag before.
fn dense(counts: &[(u8, u8, u32)], tags: usize) -> Vec<f64> {
    let mut dense = vec![0.0; tags];
    counts.iter().for_each(|(_, tag, count)| dense[*tag as usize] += f64::from(*count));
    dense
}

/// The last 0, 1, ... `longest` letters.
fn endings(word: &str, longest: usize) -> impl Iterator<Item = &str> {
    let starts = word.char_indices().rev().map(|(start, _)| start).take(longest);
    std::iter::once("").chain(starts.map(|start| &word[start..]))
}

/// What a word looks like from afar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    /// No letter and no digit.
    Symbol,
    Digit,
    /// More than one letter, all of them capitals.
    Capitals,
    Capital,
    Hyphen,
    Lower,
}

impl Shape {
    fn of(word: &str) -> Self {
        let has = |test: fn(char) -> bool| word.chars().any(test);
        if !has(char::is_alphanumeric) {
            Self::Symbol
        } else if has(char::is_numeric) {
            Self::Digit
        } else if word.chars().nth(1).is_some()
            && !has(char::is_lowercase)
            && has(char::is_uppercase)
        {
            Self::Capitals
        } else if word.starts_with(char::is_uppercase) {
            Self::Capital
        } else if word.contains('-') {
            Self::Hyphen
        } else {
            Self::Lower
        }
    }
}

impl From<Tagger> for Counts {
    fn from(tagger: Tagger) -> Self {
        tagger.counts
    }
}

impl TryFrom<Counts> for Tagger {
    type Error = String;

    fn try_from(counts: Counts) -> Result<Self, String> {
        counts.check()?;
        let k = counts.tags.len();
        let mut prior = vec![0.0; k];
        let mut pairs = vec![0.0; (k + 1) * k];
        let mut shapes: HashMap<(Shape, String), Vec<f64>> = HashMap::new();
        let mut cases: HashMap<String, Vec<f64>> = HashMap::new();
        for (word, own) in &counts.words {
            for (b, c, n) in own {
                pairs[*b as usize * k + *c as usize] += f64::from(*n);
            }
            let own = dense(own, k);
            add(&mut prior, &own);
            let lower = word.to_lowercase();
            if own.iter().sum::<f64>() <= f64::from(counts.options.rare) {
                for ending in endings(&lower, counts.options.suffix) {
                    let key = (Shape::of(word), ending.to_owned());
                    add(shapes.entry(key).or_insert_with(|| vec![0.0; k]), &own);
                }
            }
            add(cases.entry(lower).or_insert_with(|| vec![0.0; k]), &own);
        }
        let total: f64 = prior.iter().sum();
        prior.iter_mut().for_each(|p| *p /= total);
        let transitions = transitions(&counts);
        Ok(Self { counts, transitions, prior, total, pairs, endings: shapes, lower: cases })
    }
}

fn add(sum: &mut [f64], more: &[f64]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

impl Counts {
    fn check(&self) -> Result<(), String> {
        let k = self.tags.len();
        if !(1..=MAX_TAGS).contains(&k) {
            return Err(format!("{k} tags, where 1 to {MAX_TAGS} are taken"));
        }
        if !self.tags.is_sorted_by(|a, b| a < b) {
            return Err("the tags are not sorted".to_owned());
        }
        let Options { suffix, suffix_theta, word_theta, context, .. } = self.options;
        let positive = |theta: f64| theta > 0.0 && theta.is_finite();
        if !positive(suffix_theta) || !positive(word_theta) {
            return Err(format!(
                "suffix_theta is {suffix_theta} and word_theta {word_theta}, but positive numbers are expected"
            ));
        }
        if !(0.0..1.0).contains(&context) || suffix > LONGEST_SUFFIX {
            return Err(format!(
                "context is {context}, but 0 or more and less than 1 is expected, \
                 and suffix is {suffix}, but at most {LONGEST_SUFFIX}"
            ));
        }
        let mut seen = vec![false; k];
        for (word, tags) in &self.words {
            for (i, (b, c, count)) in tags.iter().enumerate() {
                let again = i > 0 && (tags[i - 1].0, tags[i - 1].1) >= (*b, *c);
                if *b as usize > k || *c as usize >= k || *count == 0 || again {
                    return Err(format!(
                        "word {word:?} has tag {c} after {b} {count} times, with {k} tags in order"
                    ));
                }
                seen[*c as usize] = true;
            }
        }
        if let Some(tag) = seen.iter().position(|seen| !seen) {
            return Err(format!("no word has tag {:?}", self.tags[tag]));
        }
        if let Some((a, b, c, n)) =
            self.trigrams.iter().find(|(a, b, c, n)| *a.max(b).max(c) as usize > k || *n == 0)
        {
            return Err(format!("trigram {a} {b} {c} occurs {n} times, with {k} tags"));
        }
        Ok(())
    }
}

/// `ln p(c | a, b)` by deleted interpolation (Brants 2000, figure 1).
fn transitions(counts: &Counts) -> Vec<f64> {
    let n = counts.tags.len() + 1; // with the boundary
    let mut three = vec![0.0; n * n * n];
    for (a, b, c, count) in &counts.trigrams {
        three[(*a as usize * n + *b as usize) * n + *c as usize] += f64::from(*count);
    }
    let mut two = vec![0.0; n * n]; // b, c
    let mut pairs = vec![0.0; n * n]; // a, b as a history
    let mut one = vec![0.0; n]; // c
    let mut singles = vec![0.0; n]; // b as a history
    for (i, count) in three.iter().enumerate() {
        let (a, b, c) = (i / n / n, i / n % n, i % n);
        pairs[a * n + b] += count;
        two[b * n + c] += count;
        singles[b] += count;
        one[c] += count;
    }
    let total: f64 = one.iter().sum();
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };

    let mut weights = [0.0; 3];
    for (i, count) in three.iter().enumerate().filter(|(_, count)| **count > 0.0) {
        let (a, b, c) = (i / n / n, i / n % n, i % n);
        // What each model would say of this trigram had it not been counted.
        let left_out = [
            ratio(one[c] - 1.0, total - 1.0),
            ratio(two[b * n + c] - 1.0, singles[b] - 1.0),
            ratio(count - 1.0, pairs[a * n + b] - 1.0),
        ];
        let best =
            (0..3).rev().reduce(|best, i| if left_out[i] > left_out[best] { i } else { best });
        weights[best.expect("three of them")] += count;
    }
    let sum: f64 = weights.iter().sum();
    let [l1, l2, l3] = weights.map(|weight| ratio(weight, sum));
    let p = |i: usize| {
        let (a, b, c) = (i / n / n, i / n % n, i % n);
        let frequencies = l1 * ratio(one[c], total) + l2 * ratio(two[b * n + c], singles[b]);
        // A floor, so that a sentence that was never seen in any part still has a best sequence.
        (frequencies + l3 * ratio(three[i], pairs[a * n + b])).max(1e-12).ln()
    };
    (0..three.len()).map(p).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(text: &'static str) -> Vec<(&'static str, &'static str)> {
        text.split(' ').map(|token| token.split_once('/').unwrap()).collect()
    }

    fn fitted() -> Tagger {
        let text = [
            "The/DET dog/NOUN barks/VERB ./PUNCT",
            "The/DET cat/NOUN walks/VERB ./PUNCT",
            "A/DET dog/NOUN walks/VERB in/ADP Rome/PROPN ./PUNCT",
            "She/PRON walks/VERB quickly/ADV ./PUNCT",
            "He/PRON barked/VERB loudly/ADV in/ADP Berlin/PROPN ./PUNCT",
            "the/DET walks/NOUN in/ADP 1999/NUM ./PUNCT",
        ];
        Tagger::fit(&text.map(sentence), &Options::default()).unwrap()
    }

    #[track_caller]
    fn check(words: &str, expected: &str) {
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        assert_eq!(fitted().tag(&words).join(" "), expected);
    }

    #[test]
    fn context_endings_and_shapes_decide() {
        check("The dog walks .", "DET NOUN VERB PUNCT");
        check("the walks in Rome .", "DET NOUN ADP PROPN PUNCT"); // by the tag before
        check("She walks slowly .", "PRON VERB ADV PUNCT"); // by `ly`
        check("A dog walks in Vienna .", "DET NOUN VERB ADP PROPN PUNCT"); // by its capital
        check("the walks in 2024 .", "DET NOUN ADP NUM PUNCT"); // by its digits
        check("", "");
    }

    #[test]
    fn probabilities_add_up() {
        let tagger = fitted();
        for (word, first) in
            [("walks", false), ("Walks", true), ("zzz", false), ("", true), ("好", false)]
        {
            let p = tagger.tag_probabilities(word, first);
            assert!(
                (p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p.iter().all(|p| *p > 0.0),
                "{word}"
            );
        }
        // Every history, seen or not, has a next tag.
        let n = tagger.tags().len() + 1;
        assert_eq!(tagger.transitions.len(), n * n * n);
        assert!(tagger.transitions.iter().all(|ln| ln.is_finite()));
    }

    #[test]
    fn survives_a_file() {
        let tagger = fitted();
        let json = serde_json::to_string(&tagger).unwrap();
        let read: Tagger = serde_json::from_str(&json).unwrap();
        assert_eq!(read.counts, tagger.counts);
        let words = ["The", "cat", "barks", "in", "Paris"];
        assert_eq!(read.tag(&words), tagger.tag(&words));
        assert!(read.knows("cat") && !read.knows("Paris"));
    }

    #[track_caller]
    fn check_broken(break_it: fn(&mut serde_json::Value), expected: &str) {
        let mut value = serde_json::to_value(fitted()).unwrap();
        break_it(&mut value);
        let error = serde_json::from_value::<Tagger>(value).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_broken_file_is_an_error() {
        check_broken(
            |v| v["tags"] = Vec::<String>::new().into(),
            "0 tags, where 1 to 128 are taken",
        );
        check_broken(|v| v["tags"][0] = "ZZZ".into(), "not sorted");
        check_broken(|v| v["words"]["cat"][0][1] = 99.into(), "tag 99");
        check_broken(|v| v["words"]["cat"][0][2] = 0.into(), "0 times");
        check_broken(
            |v| v["words"]["Rome"] = serde_json::json!([[0, 0, 1], [0, 0, 1]]),
            "in order",
        );
        check_broken(|v| v["trigrams"][0][0] = 200.into(), "trigram 200");
        check_broken(|v| v["words"] = serde_json::json!({}), "no word has tag");
        check_broken(|v| v["options"]["word_theta"] = 0.0.into(), "word_theta 0");
        check_broken(|v| v["options"]["context"] = 1.0.into(), "context is 1");
        check_broken(|v| v["more"] = 1.into(), "unknown field");
    }

    #[test]
    fn says_why_it_cannot_fit() {
        let none: [Vec<(&str, &str)>; 1] = [vec![]];
        assert_eq!(Tagger::fit(&none, &Options::default()).unwrap_err(), FitError::NoSentences);
        let names: Vec<String> = (0..129).map(|i| i.to_string()).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| ("a", name.as_str())).collect();
        let expected = FitError::TooManyTags { tags: 129, limit: 128 };
        assert_eq!(Tagger::fit(&[many], &Options::default()).unwrap_err(), expected);
    }
}
