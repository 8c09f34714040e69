//! BLEU of a corpus (Papineni et al. 2002, <https://aclanthology.org/P02-1040>), as sacrebleu counts it (Post 2018,
//! <https://arxiv.org/abs/1804.08771>): one reference, mixed case, exponential smoothing.

use std::{collections::HashMap, ops::AddAssign};

/// N-grams up to this many tokens.
const ORDER: usize = 4;

/// How a line is cut into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tokenize {
    /// mteval-v13a, for languages that put spaces between words.
    #[default]
    V13a,
    /// Chinese characters one by one, the rest as 13a does without its entities.
    Zh,
}

impl Tokenize {
    /// As in sacrebleu's signature.
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::Zh => "zh",
        }
    }

    /// ```
    /// use firebrick_metrics::bleu::Tokenize;
    ///
    /// assert_eq!(Tokenize::V13a.tokens("It's 3.5, no?"), ["It's", "3.5", ",", "no", "?"]);
    /// assert_eq!(Tokenize::Zh.tokens("我要 tea。"), ["我", "要", "tea", "。"]);
    /// ```
    pub fn tokens(self, line: &str) -> Vec<String> {
        let line = match self {
            Self::V13a => line
                .replace("<skipped>", "")
                .replace("-\n", "")
                .replace('\n', " ")
                .replace("&quot;", "\"")
                .replace("&amp;", "&")
                .replace("&lt;", "<")
                .replace("&gt;", ">"),
            Self::Zh => {
                let mut apart = String::new();
                for c in line.trim().chars() {
                    match is_chinese(c) {
                        true => apart.extend([' ', c, ' ']),
                        false => apart.push(c),
                    }
                }
                apart
            }
        };
        split_punctuation(&format!(" {line} ")).split_whitespace().map(str::to_string).collect()
    }
}

/// The four substitutions of mteval-v13a, one after the other.
fn split_punctuation(line: &str) -> String {
    let symbol = |c: char| {
        matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@') || c == '/'
    };
    let mut text = String::with_capacity(2 * line.len());
    for c in line.chars() {
        match symbol(c) {
            true => text.extend([' ', c, ' ']),
            false => text.push(c),
        }
    }
    let stop = |c: char| c == '.' || c == ',';
    let text = pairs(&text, |a, b| !a.is_ascii_digit() && stop(b), |a, b| format!("{a} {b} "));
    let text = pairs(&text, |a, b| stop(a) && !b.is_ascii_digit(), |a, b| format!(" {a} {b}"));
    pairs(&text, |a, b| a.is_ascii_digit() && b == '-', |a, b| format!("{a} {b} "))
}

/// Replaces neighbours from left to right; what has been replaced is not looked at again.
fn pairs(
    text: &str,
    found: impl Fn(char, char) -> bool,
    replace: impl Fn(char, char) -> String,
) -> String {
    let mut result = String::with_capacity(2 * text.len());
    let mut rest = text.chars().peekable();
    while let Some(a) = rest.next() {
        match rest.peek() {
            Some(&b) if found(a, b) => {
                rest.next();
                result.push_str(&replace(a, b));
            }
            _ => result.push(a),
        }
    }
    result
}

/// What sacrebleu calls Chinese: ideographs, their radicals, full-width forms. It writes the bounds of two ranges beyond
/// U+FFFF as two characters each, and so also takes U+2001 to U+2A6D and U+2F81 to U+2FA1, dashes and curly quotes among
/// them.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x2001..=0x2a6d | 0x2e80..=0x2fdf | 0x2ff0..=0x303f | 0x3100..=0x312f | 0x31a0..=0x31bf
        | 0x31c0..=0x31ef | 0x3200..=0x4db5 | 0x4e00..=0x9fbb | 0xf900..=0xfad9 | 0xfe10..=0xfe1f
        | 0xfe30..=0xfe4f | 0xff00..=0xffef)
}

/// N-grams in common, of a corpus.
///
/// ```
/// use firebrick_metrics::bleu::{Bleu, Tokenize};
///
/// let mut bleu = Bleu::new(Tokenize::V13a);
/// bleu.add("the cat sat on the mat", "the cat sat on the mat");
/// assert_eq!(bleu.score(), 100.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bleu {
    tokenize: Tokenize,
    matches: [u64; ORDER],
    totals: [u64; ORDER],
    hypothesis: u64,
    reference: u64,
}

impl AddAssign for Bleu {
    fn add_assign(&mut self, other: Self) {
        for n in 0..ORDER {
            self.matches[n] += other.matches[n];
            self.totals[n] += other.totals[n];
        }
        self.hypothesis += other.hypothesis;
        self.reference += other.reference;
    }
}

impl Bleu {
    pub fn new(tokenize: Tokenize) -> Self {
        Self { tokenize, ..Self::default() }
    }

    /// Counts one segment.
    pub fn add(&mut self, hypothesis: &str, reference: &str) {
        let (found, wanted) = (self.tokenize.tokens(hypothesis), self.tokenize.tokens(reference));
        self.hypothesis += found.len() as u64;
        self.reference += wanted.len() as u64;
        for n in 1..=ORDER {
            let (found, wanted) = (grams(&found, n), grams(&wanted, n));
            self.totals[n - 1] += found.values().sum::<u64>();
            let common = found.iter().map(|(gram, x)| (*x).min(*wanted.get(gram).unwrap_or(&0)));
            self.matches[n - 1] += common.sum::<u64>();
        }
    }

    /// Within 0 and 100.
    pub fn score(&self) -> f64 {
        if self.matches.iter().all(|count| *count == 0) {
            return 0.0;
        }
        let mut halving = 1.0;
        let mut log_sum = 0.0;
        for (matches, total) in self.matches.iter().zip(self.totals) {
            if total == 0 {
                return 0.0;
            }
            let precision = match matches {
                0 => {
                    halving *= 2.0;
                    1.0 / (halving * total as f64)
                }
                count => *count as f64 / total as f64,
            };
            log_sum += precision.ln();
        }
        100.0 * self.brevity_penalty() * (log_sum / ORDER as f64).exp()
    }

    fn brevity_penalty(&self) -> f64 {
        match self.hypothesis {
            found if found >= self.reference => 1.0,
            0 => 0.0,
            found => (1.0 - self.reference as f64 / found as f64).exp(),
        }
    }

    /// As sacrebleu prints it, without its version.
    pub fn signature(&self) -> String {
        format!("nrefs:1|case:mixed|eff:no|tok:{}|smooth:exp", self.tokenize.name())
    }
}

fn grams(tokens: &[String], n: usize) -> HashMap<&[String], u64> {
    let mut counts = HashMap::new();
    for gram in tokens.windows(n) {
        *counts.entry(gram).or_insert(0) += 1;
    }
    counts
}
