//! From labels frame by frame to the likeliest words.
//!
//! Prefix beam search (Hannun et al. 2014, <https://arxiv.org/abs/1408.2873>): hypotheses that stand for the same words
//! are one, whose probability is the sum over all its paths. They walk in a tree of the words' labels, so only words of
//! the lexicon come out; the language model judges each as it ends.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use firebrick_classic::ngram::{
    Ngram, State,
    vocabulary::{EOS, UNK, Vocabulary},
};

use super::lexicon::Lexicon;

/// What the search weighs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// Hypotheses that are kept.
    pub beam: usize,
    /// Of the language model's logarithms.
    pub language: f64,
    /// Added for every word.
    pub word: f64,
}

/// Words as a tree of labels.
pub struct Search<'a> {
    nodes: Vec<Node>,
    words: Vec<&'a str>,
    model: Option<(&'a Ngram, &'a Vocabulary)>,
    weights: Weights,
}

#[derive(Default)]
struct Node {
    children: BTreeMap<u32, usize>,
    /// Words that end here, by their place.
    words: Vec<usize>,
}

/// Nobody has said anything, or a word has just ended.
const ROOT: usize = 0;
/// Labels of a frame that are less likely than this are not tried: e^-12.
const LEAST: f64 = -12.0;

/// What makes two hypotheses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    /// Place of its words in the histories.
    history: usize,
    node: usize,
    /// The last label that is no blank; 0 if there was none.
    last: u32,
}

/// Logarithms of a hypothesis' paths by their last frame.
#[derive(Debug, Clone, Copy)]
struct Paths {
    blank: f64,
    label: f64,
}

impl Default for Paths {
    fn default() -> Self {
        Self { blank: f64::NEG_INFINITY, label: f64::NEG_INFINITY }
    }
}

impl Paths {
    fn all(self) -> f64 {
        log_add(self.blank, self.label)
    }
}

/// Words so far.
struct History {
    before: usize,
    word: usize,
    state: Option<State>,
    /// Language model and word weights.
    score: f64,
}

fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

impl<'a> Search<'a> {
    pub fn new(
        lexicon: &'a Lexicon,
        model: Option<(&'a Ngram, &'a Vocabulary)>,
        weights: Weights,
    ) -> Self {
        let mut nodes = vec![Node::default()];
        let mut words: Vec<&str> = vec![];
        for (word, said) in &lexicon.words {
            if words.last() != Some(&word.as_str()) {
                words.push(word);
            }
            let mut node = ROOT;
            for label in said {
                let fresh = nodes.len();
                node = *nodes[node].children.entry(*label).or_insert(fresh);
                if node == fresh {
                    nodes.push(Node::default());
                }
            }
            if node != ROOT && !nodes[node].words.contains(&(words.len() - 1)) {
                nodes[node].words.push(words.len() - 1);
            }
        }
        Self { nodes, words, model, weights }
    }

    /// The likeliest words; `log_p`: `[S, V]`, logarithms of probabilities.
    pub fn best(&self, log_p: &[f32], labels: usize) -> String {
        let begin = self.model.map(|(model, _)| model.begin());
        let mut histories = vec![History { before: 0, word: usize::MAX, state: begin, score: 0.0 }];
        let mut known: HashMap<(usize, usize), usize> = HashMap::new();
        let start = Key { history: 0, node: ROOT, last: 0 };
        let mut beam = vec![(start, Paths { blank: 0.0, label: f64::NEG_INFINITY })];
        for frame in log_p.chunks(labels) {
            let p = |label: u32| f64::from(frame[label as usize]);
            let mut next: HashMap<Key, Paths> = HashMap::new();
            for (key, paths) in &beam {
                let all = paths.all();
                let stay = next.entry(*key).or_default();
                stay.blank = log_add(stay.blank, all + p(0));
                if key.last != 0 {
                    stay.label = log_add(stay.label, paths.label + p(key.last));
                }
                let mut go = |history: usize, node: usize| {
                    for (&label, &child) in &self.nodes[node].children {
                        if p(label) < LEAST {
                            continue;
                        }
                        // The same label again needs a blank between.
                        let before = if label == key.last { paths.blank } else { all };
                        let to = next.entry(Key { history, node: child, last: label }).or_default();
                        to.label = log_add(to.label, before + p(label));
                    }
                };
                go(key.history, key.node);
                for word in &self.nodes[key.node].words {
                    let history = *known.entry((key.history, *word)).or_insert_with(|| {
                        let after = self.after(&histories, key.history, *word);
                        histories.push(after);
                        histories.len() - 1
                    });
                    go(history, ROOT);
                }
            }
            let score = |(key, paths): &(Key, Paths)| paths.all() + histories[key.history].score;
            beam = next.into_iter().filter(|(_, paths)| paths.all() > f64::NEG_INFINITY).collect();
            // Ties by their keys: a map has no order.
            beam.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.0.cmp(&b.0)));
            beam.truncate(self.weights.beam);
        }
        self.finish(&beam, &mut histories)
    }

    /// A history with one more word.
    fn after(&self, histories: &[History], before: usize, word: usize) -> History {
        let (log_p, state) = self.judge(histories[before].state, Some(word));
        let score = histories[before].score + log_p + self.weights.word;
        History { before, word, state, score }
    }

    /// Weighted logarithm of a word, or of the end.
    fn judge(&self, state: Option<State>, word: Option<usize>) -> (f64, Option<State>) {
        let (Some((model, vocabulary)), Some(state)) = (self.model, state) else {
            return (0.0, None);
        };
        let token = word.map_or(EOS, |word| vocabulary.id(self.words[word]).unwrap_or(UNK));
        let (log_p, state) = model.next(state, token);
        (self.weights.language * log_p, Some(state))
    }

    /// The best hypothesis whose last word has ended; what is left of an unfinished one is not said.
    fn finish(&self, beam: &[(Key, Paths)], histories: &mut Vec<History>) -> String {
        let mut ends: BTreeMap<usize, f64> = BTreeMap::new();
        let mut known: HashMap<(usize, usize), usize> = HashMap::new();
        for (key, paths) in beam {
            if key.node == ROOT {
                let end = ends.entry(key.history).or_insert(f64::NEG_INFINITY);
                *end = log_add(*end, paths.all());
            }
            for word in &self.nodes[key.node].words {
                let history = *known.entry((key.history, *word)).or_insert_with(|| {
                    let after = self.after(histories, key.history, *word);
                    histories.push(after);
                    histories.len() - 1
                });
                let end = ends.entry(history).or_insert(f64::NEG_INFINITY);
                *end = log_add(*end, paths.all());
            }
        }
        let scored = ends.into_iter().map(|(history, paths)| {
            let end = self.judge(histories[history].state, None).0;
            (history, paths + histories[history].score + end)
        });
        let best = scored.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(history, _)| history);
        let best = best.or_else(|| beam.first().map(|(key, _)| key.history)).unwrap_or(0);
        let mut words = vec![];
        let mut at = best;
        while at != 0 {
            words.push(self.words[histories[at].word]);
            at = histories[at].before;
        }
        words.reverse();
        words.join(" ")
    }
}

/// Labels of the best path, without repetitions and blanks.
pub fn greedy(log_p: &[f32], labels: usize) -> Vec<u32> {
    let best = |frame: &[f32]| {
        (1..labels).fold(0, |best, i| if frame[i] > frame[best] { i } else { best }) as u32
    };
    let mut path: Vec<u32> = log_p.chunks(labels).map(best).collect();
    path.dedup();
    path.retain(|label| *label != 0);
    path
}

#[cfg(test)]
mod tests {
    use firebrick_classic::ngram::Options;

    use super::*;
    use crate::recognition::lexicon::Units;

    const WEIGHTS: Weights = Weights { beam: 50, language: 1.0, word: 0.0 };

    fn logs(rows: &[[f32; 3]]) -> Vec<f32> {
        rows.iter().flatten().map(|p| p.max(1e-9).ln()).collect()
    }

    /// The example of the paper's idea: the best single path is empty, the sum over all paths says `A`.
    #[test]
    fn paths_add_up() {
        let lexicon = Lexicon::new(["A", "B"].into_iter(), Units::Words, &[]).unwrap();
        let log_p = logs(&[[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]]);
        assert!(greedy(&log_p, 3).is_empty());
        // Blank twice: 0.36; A in any way: 0.64.
        assert_eq!(Search::new(&lexicon, None, WEIGHTS).best(&log_p, 3), "A");
        // The same word twice needs a blank.
        let twice = logs(&[[0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]]);
        assert_eq!(greedy(&twice, 3), [1, 1]);
        assert_eq!(Search::new(&lexicon, None, WEIGHTS).best(&twice, 3), "A A");
        assert_eq!(Search::new(&lexicon, None, WEIGHTS).best(&[], 3), "");
    }

    /// Two words are equally likely by their sound; the language model knows which one follows.
    #[test]
    fn the_language_model_decides() {
        let lexicon = Lexicon::new(["A", "B"].into_iter(), Units::Words, &[]).unwrap();
        let mut words = Vocabulary::new();
        let sentences: Vec<Vec<u32>> = ["A B", "A B", "A B", "B"]
            .iter()
            .map(|text| text.split(' ').map(|word| words.add(word)).collect())
            .collect();
        let options = Options { order: 2, prune: vec![] };
        let (model, _) = Ngram::fit(&sentences, words.len(), &options).unwrap();
        let log_p = logs(&[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.51, 0.49]]);
        assert_eq!(Search::new(&lexicon, None, WEIGHTS).best(&log_p, 3), "A A");
        let search = Search::new(&lexicon, Some((&model, &words)), WEIGHTS);
        assert_eq!(search.best(&log_p, 3), "A B");
    }

    /// Only whole words come out.
    #[test]
    fn labels_make_words() {
        let lexicon = Lexicon::new(["ab", "a"].into_iter(), Units::Characters, &[]).unwrap();
        let search = Search::new(&lexicon, None, WEIGHTS);
        let log_p = logs(&[[0.0, 1.0, 0.0], [0.2, 0.0, 0.8], [0.8, 0.2, 0.0]]);
        assert_eq!(search.best(&log_p, 3), "ab");
        let b = logs(&[[0.3, 0.0, 0.7]]);
        assert_eq!(search.best(&b, 3), "");
    }
}
