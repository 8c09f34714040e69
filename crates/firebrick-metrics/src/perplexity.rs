//! How well a language model guesses: perplexity, bits and nats a token.

use std::ops::AddAssign;

/// Sum of `-ln p` over tokens; what a token is (a word with the ends of sentences, a character, a byte), the caller says.
///
/// Sums add up before the division: a mean of sentences' perplexities is another, wrong number. SRILM's `-ppl` and
/// KenLM's `query` are the references.
///
/// ```
/// use firebrick_metrics::perplexity::Perplexity;
///
/// let mut seen = Perplexity::default();
/// seen.add(0.25_f64.ln(), 1);
/// seen.add(2.0 * 0.5_f64.ln(), 2); // two tokens of probability 1/2
/// assert_eq!(seen.bits(), Some(4.0 / 3.0));
/// assert!((seen.perplexity().unwrap() - 16_f64.cbrt()).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity {
    /// Sum of `-ln p`.
    pub nats: f64,
    pub tokens: u64,
}

impl Perplexity {
    /// Counts `tokens` tokens that together have the natural logarithm of probability `log_prob`.
    pub fn add(&mut self, log_prob: f64, tokens: u64) {
        self.nats -= log_prob;
        self.tokens += tokens;
    }

    /// Mean `-ln p`; `None` when nothing has been seen.
    pub fn nats(self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nats / self.tokens as f64)
    }

    /// Mean `-log2 p`: bits a character, where tokens are characters.
    pub fn bits(self) -> Option<f64> {
        self.nats().map(|nats| nats / std::f64::consts::LN_2)
    }

    /// `exp(nats)`: the number of equally likely tokens that would be as hard to guess; infinite where one was
    /// impossible.
    pub fn perplexity(self) -> Option<f64> {
        self.nats().map(f64::exp)
    }
}

impl AddAssign for Perplexity {
    fn add_assign(&mut self, other: Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(log_probs: &[f64], expected: Option<f64>) {
        let mut all = Perplexity::default();
        for log_prob in log_probs {
            let mut one = Perplexity::default();
            one.add(*log_prob, 1);
            all += one;
        }
        match (all.perplexity(), expected) {
            (Some(a), Some(b)) => assert!(a == b || (a - b).abs() < 1e-9, "{a}, not {b}"),
            (a, b) => assert_eq!(a, b),
        }
    }

    #[test]
    fn by_hand() {
        check(&[], None);
        check(&[0.0, 0.0], Some(1.0));
        check(&[0.01_f64.ln(); 3], Some(100.0));
        check(&[0.5_f64.ln(), 0.125_f64.ln()], Some(4.0));
        check(&[0.5_f64.ln(), f64::NEG_INFINITY], Some(f64::INFINITY));
    }
}
