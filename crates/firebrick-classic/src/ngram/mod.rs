//! N-gram language models with modified Kneser-Ney smoothing.
//!
//! Papers: Kneser and Ney 1995; Chen and Goodman 1999, section 4.1.6 (modified, interpolated);
//! Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation". Reference code: KenLM's `lmplz`.
//!
//! The model says how likely each token is after the last few, `h`. Frequencies alone give zero to whatever was not
//! seen, so each count `a` gives away a discount `D`, and what was given away goes to the shorter history `h'`:
//!
//! ```text
//! p(w | h) = (a(h w) - D(a(h w))) / sum over x of a(h x)  +  b(h) p(w | h')
//! b(h)     = sum over x of D(a(h x)) / sum over x of a(h x)
//! ```
//!
//! - `a(g)` is how often `g` occurs if it has the full length or begins with `<s>`, else in how many different tokens'
//!   company: the number of `v` such that `v g` occurs. "Francisco" is frequent but only follows "San", so it is an
//!   unlikely guess where the history is unknown.
//! - `D` is 0 for `a = 0`, else one of three numbers an order, from `n_i`, how many n-grams have `a = i`:
//!   with `y = n_1 / (n_1 + 2 n_2)` they are `D_i = i - (i + 1) y n_(i+1) / n_i`, the last for all `a >= 3`.
//! - Below one token there is the uniform distribution over the vocabulary without `<s>`.
//!
//! By hand, for bigrams, the sentences `a b` and `a c`, and discounts of 1/2 for `a = 1` and 1 for `a = 2`: after `a`
//! come `b` and `c`, once each. So `b(a) = (1/2 + 1/2) / 2 = 1/2` and `p(b | a) = (1 - 1/2) / 2 + 1/2 p(b)`. `b` has one
//! left neighbour of 5 different pairs (`<s> a`, `a b`, `a c`, `b </s>`, `c </s>`), which gives `p(b)` in the same way.
//! A test below does this sum to the end.

pub mod arpa;
mod train;
mod trie;
pub mod vocabulary;

use std::f64::consts::LN_10;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::train::{Options, OrderSummary};
use self::{
    trie::Trie,
    vocabulary::{BOS, EOS, UNK},
};

/// A back-off language model over token numbers: words, characters, anything.
///
/// Probabilities are kept as ARPA has them, base-10 logarithms in single precision, and handed out in nats.
/// A query is a walk in a trie: about two binary searches a token, whatever the order.
///
/// ```
/// use firebrick_classic::ngram::{Ngram, Options, vocabulary::{Unit, Vocabulary}};
///
/// let mut words = Vocabulary::new();
/// let sentences = ["the cat sat", "the cat ran", "the dog sat"].map(|s| words.learn(s, Unit::Word));
/// let (model, _) = Ngram::fit(&sentences, words.len(), &Options { order: 3, ..Options::default() })?;
///
/// let likely = model.log_prob(&words.encode("the dog ran", Unit::Word));
/// let unlikely = model.log_prob(&words.encode("ran the sat", Unit::Word));
/// assert!(likely > unlikely);
/// # Ok::<(), firebrick_classic::error::FitError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ngram {
    trie: Trie,
    /// `[nodes]`: of a node's last token after the others.
    log10: Vec<f32>,
    /// `[inner nodes]`: weight of the shorter history.
    backoff: Vec<f32>,
}

/// What a model remembers of the tokens so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State(u32);

impl Ngram {
    /// Longest n-gram that the model looks at, in tokens.
    pub fn order(&self) -> usize {
        self.trie.order()
    }

    /// Number of tokens, the three special ones included.
    pub fn vocabulary(&self) -> usize {
        self.trie.vocabulary()
    }

    /// Number of n-grams of length `n`; 0 for lengths that the model does not have.
    pub fn ngrams(&self, n: usize) -> usize {
        if (1..=self.order()).contains(&n) { self.trie.level(n).len() } else { 0 }
    }

    /// After `<s>`: where a sentence begins.
    pub fn begin(&self) -> State {
        State(self.context(1 + BOS))
    }

    /// After nothing that is known.
    pub fn empty(&self) -> State {
        State(0)
    }

    /// What a history ending in `node` is remembered as: the longest end that can have children.
    fn context(&self, node: u32) -> u32 {
        if node < self.trie.inner() { node } else { self.trie.suffix(node) }
    }

    /// `ln p(token | state)` and the state after it. A token that is not in the vocabulary counts as [`UNK`].
    pub fn next(&self, state: State, token: u32) -> (f64, State) {
        let token = if (token as usize) < self.vocabulary() { token } else { UNK };
        let (mut node, mut log10) = (state.0, 0.0);
        loop {
            if let Some(child) = self.trie.child(node, token) {
                log10 += f64::from(self.log10[child as usize]);
                return (log10 * LN_10, State(self.context(child)));
            }
            log10 += f64::from(self.backoff[node as usize]);
            node = self.trie.suffix(node); // ends at the root, which has all tokens
        }
    }

    /// `ln p` of a sentence, its end included. Perplexity a word is `exp(-sum / (words + sentences))`.
    pub fn log_prob(&self, sentence: &[u32]) -> f64 {
        let mut state = self.begin();
        let mut sum = 0.0;
        for token in sentence.iter().chain(&[EOS]) {
            let (log_prob, next) = self.next(state, *token);
            sum += log_prob;
            state = next;
        }
        sum
    }

    /// `p(token | state)` of every token, `[vocabulary]`; sums to 1.
    pub fn probabilities(&self, state: State) -> Vec<f64> {
        let mut log10 = vec![f64::NAN; self.vocabulary()];
        let (mut node, mut weight) = (state.0, 0.0);
        loop {
            for child in self.trie.children(node) {
                let token = self.trie.token(child) as usize;
                if log10[token].is_nan() {
                    log10[token] = weight + f64::from(self.log10[child as usize]);
                }
            }
            if node == 0 {
                return log10.into_iter().map(|x| (x * LN_10).exp()).collect();
            }
            weight += f64::from(self.backoff[node as usize]);
            node = self.trie.suffix(node);
        }
    }

    /// A text that the model continues `state` with: until `</s>`, which is not part of it, or `max_tokens`.
    ///
    /// Each token is drawn with a chance in proportion to `p^(1 / temperature)`; at 0 it is the likeliest, the first
    /// of equals. `<unk>` is never drawn. The same arguments give the same text.
    pub fn generate(
        &self,
        mut state: State,
        max_tokens: usize,
        temperature: f64,
        seed: u64,
    ) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = vec![];
        while text.len() < max_tokens {
            let mut p = self.probabilities(state);
            (p[UNK as usize], p[BOS as usize]) = (0.0, 0.0);
            let token = draw(&p, temperature, rng.random());
            if token == EOS {
                break;
            }
            text.push(token);
            state = self.next(state, token).1;
        }
        text
    }
}

/// The index on which `uniform`, in `[0, 1)`, falls when each has a share in proportion to `p^(1 / temperature)`.
fn draw(p: &[f64], temperature: f64, uniform: f64) -> u32 {
    let likeliest = (0..p.len()).fold(0, |best, i| if p[i] > p[best] { i } else { best });
    // Relative to the likeliest, so that no temperature makes all shares vanish.
    let share = |x: &f64| if *x > 0.0 { (x / p[likeliest]).powf(1.0 / temperature) } else { 0.0 };
    if temperature > 0.0 {
        let shares: Vec<f64> = p.iter().map(share).collect();
        let mut rest = uniform * shares.iter().sum::<f64>();
        for (i, share) in shares.iter().enumerate() {
            rest -= share;
            if rest < 0.0 {
                return i as u32;
            }
        }
    }
    likeliest as u32
}

#[cfg(test)]
mod tests {
    use super::{
        vocabulary::{Unit, Vocabulary},
        *,
    };

    fn fitted(lines: &[&str], options: &Options) -> (Ngram, Vocabulary, Vec<OrderSummary>) {
        let mut words = Vocabulary::new();
        let sentences: Vec<_> = lines.iter().map(|line| words.learn(line, Unit::Word)).collect();
        let (model, orders) = Ngram::fit(&sentences, words.len(), options).unwrap();
        (model, words, orders)
    }

    const TEXT: [&str; 6] = [
        "the cat sat on the mat",
        "the dog sat on the cat",
        "a cat ran",
        "the dog ran on a mat on the mat",
        "",
        "the the the the",
    ];

    /// The example of the module's documentation to its end; the discounts are the fallback's 1/2, 1, 3/2.
    #[test]
    fn by_hand() {
        let (model, words, orders) =
            fitted(&["a b", "a c"], &Options { order: 2, ..Options::default() });
        assert!(orders.iter().all(|order| order.fallback));
        let id = |word| words.id(word).unwrap();
        let p = |state, token| model.next(state, token).0.exp();
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        };
        // Left neighbours: a 1, b 1, c 1, </s> 2; free: (3 * 1/2 + 1) / 5 = 1/2, shared by 5 tokens.
        let rest = 0.5 / 5.0;
        let (b, end) = (0.5 / 5.0 + rest, 1.0 / 5.0 + rest);
        close(p(model.empty(), id("b")), b);
        close(p(model.empty(), EOS), end);
        close(p(model.empty(), UNK), rest);
        let after_a = model.next(model.begin(), id("a")).1;
        close(p(after_a, id("b")), 0.5 / 2.0 + 0.5 * b);
        close(p(after_a, EOS), 0.5 * end);
        // `<s> a` twice: D_2 = 1 of 2 is free.
        close(p(model.begin(), id("a")), 0.5 + 0.5 * b);
        close(
            model.log_prob(&[id("a"), id("b")]).exp(),
            (0.5 + 0.5 * b) * (0.25 + 0.5 * b) * (0.5 + 0.5 * end),
        );
    }

    /// In every state, the chances of all tokens add up to 1 and are those of single queries.
    #[test]
    fn chances_add_up() {
        for order in 1..=6 {
            for prune in [vec![], vec![0, 1], vec![0, 0, 2]] {
                if prune.len() > order {
                    continue;
                }
                let (model, words, _) = fitted(&TEXT, &Options { order, prune });
                for line in TEXT {
                    let mut state = model.begin();
                    for token in words.encode(line, Unit::Word) {
                        let p = model.probabilities(state);
                        let sum: f64 = p.iter().sum();
                        assert!((sum - 1.0).abs() < 1e-6, "order {order}: {sum}");
                        for (token, p) in (0..).zip(&p) {
                            assert!((model.next(state, token).0.exp() - p).abs() < 1e-12);
                        }
                        state = model.next(state, token).1;
                    }
                }
            }
        }
    }

    #[test]
    fn prunes() {
        let (whole, _, _) = fitted(&TEXT, &Options { order: 3, prune: vec![] });
        let (model, _, orders) = fitted(&TEXT, &Options { order: 3, prune: vec![0, 0, 1] });
        assert_eq!((model.ngrams(1), model.ngrams(2)), (whole.ngrams(1), whole.ngrams(2)));
        // `sat on the`, `on the mat`, `on the </s>`: by eye, those that occur twice.
        assert!(model.ngrams(3) < whole.ngrams(3) && model.ngrams(3) == orders[2].kept);
        assert_eq!(orders[2].seen, whole.ngrams(3));
    }

    #[test]
    fn continues_a_text() {
        let (model, words, _) = fitted(&TEXT, &Options { order: 3, ..Options::default() });
        let text = |temperature, seed| {
            words.decode(&model.generate(model.begin(), 20, temperature, seed), Unit::Word)
        };
        assert_eq!(text(0.0, 1), text(0.0, 2));
        assert_eq!(text(1.0, 7), text(1.0, 7));
        let different: std::collections::HashSet<_> = (0..20).map(|seed| text(1.0, seed)).collect();
        assert!(different.len() > 10, "{different:?}");
        // As cold as can be is the likeliest.
        assert_eq!(text(1e-9, 3), text(0.0, 3));
        assert!(!text(5.0, 1).contains('<'));
    }

    #[test]
    fn draws_in_proportion() {
        let p = [0.0, 0.25, 0.5, 0.25];
        let shares = |temperature| {
            let mut counts = [0; 4];
            (0..1000)
                .for_each(|i| counts[draw(&p, temperature, f64::from(i) / 1000.0) as usize] += 1);
            counts
        };
        assert_eq!(shares(1.0), [0, 250, 500, 250]);
        assert_eq!(shares(0.5), [0, 167, 667, 166]); // squares: 1 to 4 to 1
        assert_eq!(shares(0.0), [0, 0, 1000, 0]);
    }

    #[test]
    fn says_why_it_cannot_fit() {
        use crate::error::FitError;
        let fit = |sentences: &[Vec<u32>], order, prune: &[u32]| {
            Ngram::fit(sentences, 5, &Options { order, prune: prune.to_vec() }).unwrap_err()
        };
        assert_eq!(fit(&[], 2, &[]), FitError::NoSentences);
        assert_eq!(fit(&[vec![3]], 0, &[]), FitError::Order { order: 0, limit: 16 });
        assert_eq!(fit(&[vec![3]], 2, &[1]), FitError::Prune { prune: vec![1], order: 2 });
        for token in [BOS, EOS, 5] {
            let expected = FitError::Token { token, sentence: 1, vocabulary: 5 };
            assert_eq!(fit(&[vec![3], vec![4, token]], 2, &[]), expected);
        }
    }
}
