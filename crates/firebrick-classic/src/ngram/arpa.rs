//! N-gram models in the ARPA format, which KenLM, SRILM and most decoders of speech read and write.
//!
//! Format: `ngram-format(5)` of SRILM, <http://www.speech.sri.com/projects/srilm/manpages/ngram-format.5.html>.
//!
//! ```text
//! \data\
//! ngram 1=5
//! ngram 2=6
//!
//! \1-grams:
//! log10 p <tab> word <tab> log10 back-off
//! ...
//! \2-grams:
//! log10 p <tab> word word
//! ...
//! \end\
//! ```

use std::io::{self, BufRead, Write};

use super::{
    Ngram,
    train::MAX_ORDER,
    trie::{Level, Trie},
    vocabulary::{BOS, EOS, UNK, Vocabulary},
};
use crate::{
    error::ReadError,
    lines::{Lines, quoted},
};

/// What a file may cost. An n-gram takes some 40 bytes while it is read, and its words once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest n-gram, in words; at most 16.
    pub order: usize,
    /// N-grams of all orders.
    pub ngrams: usize,
    /// Bytes of a line.
    pub line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { order: MAX_ORDER, ngrams: 100_000_000, line_bytes: 64 << 10 }
    }
}

/// `log10 p` of a special word that the file does not list, as in KenLM.
const ABSENT: f32 = -100.0;

/// Writes the model; numbers are written such that they are read back to the same bits.
///
/// # Panics
///
/// If `words` is not the vocabulary that the model was made with, by its size.
pub fn write(model: &Ngram, words: &Vocabulary, out: &mut impl Write) -> io::Result<()> {
    assert_eq!(words.len(), model.vocabulary(), "another vocabulary");
    let trie = &model.trie;
    let parents = trie.parents();
    writeln!(out, "\\data\\")?;
    for n in 1..=model.order() {
        writeln!(out, "ngram {n}={}", model.ngrams(n))?;
    }
    for n in 1..=model.order() {
        writeln!(out, "\n\\{n}-grams:")?;
        let mut gram = vec![0; n];
        for node in trie.level(n) {
            let mut at = node;
            for token in gram.iter_mut().rev() {
                *token = trie.token(at);
                at = parents[at as usize];
            }
            write!(out, "{}", model.log10[node as usize])?;
            for (i, token) in gram.iter().enumerate() {
                let separator = if i == 0 { '\t' } else { ' ' };
                write!(out, "{separator}{}", words.word(*token))?;
            }
            match model.backoff.get(node as usize) {
                Some(backoff) => writeln!(out, "\t{backoff}")?,
                None => writeln!(out)?,
            }
        }
    }
    writeln!(out, "\n\\end\\")
}

/// Reads a model and its words.
///
/// The n-grams may stand in any order, but each without its last word must be there too. Special words that the file
/// does not list get a probability of 1e-100. What the header says is believed only when the sections agree.
///
/// ```
/// use firebrick_classic::ngram::arpa::{self, Limits};
///
/// let text = "\\data\\\nngram 1=3\n\n\\1-grams:\n-0.5\tyes\n-99\t<s>\n-0.2\t</s>\n\n\\end\\\n";
/// let (model, words) = arpa::read(text.as_bytes(), Limits::default())?;
/// assert_eq!((model.order(), words.id("yes")), (1, Some(3)));
///
/// let lie = text.replace("1=3", "1=4000000000");
/// let error = arpa::read(lie.as_bytes(), Limits::default()).unwrap_err();
/// assert_eq!(error.to_string(), "line 2: 4000000000 n-grams of length 1, where at most 100000000 in all are taken");
/// # Ok::<(), firebrick_classic::error::ReadError>(())
/// ```
pub fn read(text: impl BufRead, limits: Limits) -> Result<(Ngram, Vocabulary), ReadError> {
    let mut lines = Lines::new(text, limits.line_bytes);
    let declared = header(&mut lines, limits)?;
    let mut words = Vocabulary::new();
    let mut levels: Vec<Level> = vec![];
    let (mut log10, mut backoff) = (vec![0.0], vec![0.0]); // the root's
    let mut shorter = Section::default();
    for (i, count) in declared.iter().enumerate() {
        let n = i + 1;
        let last = n == declared.len();
        let mut section = Section::read(&mut lines, n, last, *count, &mut words)?;
        if n == 1 {
            section.add_absent(&mut words);
        }
        let order = section.sorted()?;
        let mut level = Level::default();
        let mut parent = 0;
        for entry in order {
            let (prefix, token) = section.gram(entry).split_at(n - 1);
            if n > 1 {
                while shorter.sorted_gram(parent).is_some_and(|gram| gram < prefix) {
                    parent += 1;
                }
                if shorter.sorted_gram(parent) != Some(prefix) {
                    let shown: Vec<&str> = prefix.iter().map(|token| words.word(*token)).collect();
                    let problem = format!(
                        "the n-gram without its last word, {}, is not in the section before",
                        quoted(&shown.join(" "))
                    );
                    return Err(ReadError::line(section.lines[entry], problem));
                }
            }
            level.tokens.push(token[0]);
            level.parents.push(parent as u32);
            log10.push(section.log10[entry]);
            if !last {
                backoff.push(section.backoff[entry]);
            }
        }
        levels.push(level);
        shorter = section;
    }
    lines.expect("\\end\\")?;
    Ok((Ngram { trie: Trie::new(&levels), log10, backoff }, words))
}

/// `\data\` and the counts; leaves the reader at the first section's name.
fn header<R: BufRead>(lines: &mut Lines<R>, limits: Limits) -> Result<Vec<usize>, ReadError> {
    // SRILM allows any text before.
    loop {
        match lines.next()? {
            Some("\\data\\") => break,
            Some(_) => {}
            None => return Err(lines.ended("`\\data\\`")),
        }
    }
    let mut declared = vec![];
    let mut total = 0usize;
    while lines.peek()?.is_some_and(|line| line.starts_with("ngram ")) {
        let line = lines.next()?.unwrap_or_default().to_owned();
        let fields = line["ngram ".len()..].split_once('=');
        let fields = fields.and_then(|(n, count)| {
            Some((n.trim().parse::<usize>().ok()?, count.trim().parse::<usize>().ok()?))
        });
        let Some((n, count)) = fields else {
            return Err(lines.error(format!("{} is no `ngram N=COUNT`", quoted(&line))));
        };
        if n != declared.len() + 1 {
            return Err(lines.error(format!("length {n}, where {} is due", declared.len() + 1)));
        }
        let most = limits.order.min(MAX_ORDER);
        if n > most {
            return Err(
                lines.error(format!("n-grams of length {n}, where at most {most} is taken"))
            );
        }
        total = total.saturating_add(count);
        if total > limits.ngrams {
            return Err(lines.error(format!(
                "{count} n-grams of length {n}, where at most {} in all are taken",
                limits.ngrams
            )));
        }
        declared.push(count);
    }
    if declared.is_empty() {
        return Err(lines.error("no `ngram 1=COUNT` after `\\data\\`".to_owned()));
    }
    Ok(declared)
}

/// The n-grams of one length.
#[derive(Default)]
struct Section {
    n: usize,
    /// `n` for each entry
    tokens: Vec<u32>,
    log10: Vec<f32>,
    backoff: Vec<f32>,
    /// Line of each entry, from 1.
    lines: Vec<u64>,
    /// Entries in the order of their tokens.
    order: Vec<u32>,
}

impl Section {
    fn read<R: BufRead>(
        lines: &mut Lines<R>,
        n: usize,
        last: bool,
        count: usize,
        words: &mut Vocabulary,
    ) -> Result<Self, ReadError> {
        lines.expect(&format!("\\{n}-grams:"))?;
        let mut section = Self { n, ..Self::default() };
        while lines.peek()?.is_some_and(|line| !line.starts_with('\\')) {
            let number = lines.number() + 1;
            let line = lines.next()?.unwrap_or_default();
            let error = |problem: String| Err(ReadError::line(number, problem));
            if section.lines.len() == count {
                return error(format!("more than the {count} n-grams that the header announces"));
            }
            // Words may hold any character but these.
            let fields: Vec<&str> =
                line.split([' ', '\t']).filter(|field| !field.is_empty()).take(n + 3).collect();
            let sound = fields.len() == n + 1 || fields.len() == n + 2 && !last;
            if !sound {
                let most = if last { "" } else { " and perhaps a back-off" };
                return error(format!("{} is not a number, {n} words{most}", quoted(line)));
            }
            let number_in = |field: &str| field.parse::<f32>().ok().filter(|x| x.is_finite());
            let Some(log10) = number_in(fields[0]).filter(|x| *x <= 0.0) else {
                return error(format!("{} is no logarithm of a probability", quoted(fields[0])));
            };
            let backoff = fields.get(n + 1).map_or(Some(0.0), |field| number_in(field));
            let Some(backoff) = backoff else {
                return error(format!("the back-off {} is no number", quoted(fields[n + 1])));
            };
            for word in &fields[1..=n] {
                let id = if n == 1 { Some(words.add(word)) } else { words.id(word) };
                let Some(id) = id else {
                    return error(format!("{} is not among the 1-grams", quoted(word)));
                };
                section.tokens.push(id);
            }
            section.log10.push(log10);
            section.backoff.push(backoff);
            section.lines.push(number);
        }
        if section.lines.len() < count {
            let found = section.lines.len();
            return Err(ReadError::line(
                lines.number() + 1,
                format!(
                    "the section of {n}-grams ends after {found}, but the header announces {count}"
                ),
            ));
        }
        Ok(section)
    }

    /// Puts in the special words that the file does not list.
    fn add_absent(&mut self, words: &mut Vocabulary) {
        for token in [UNK, BOS, EOS] {
            if !self.tokens.contains(&token) {
                self.tokens.push(words.add(words.word(token).to_owned().as_str()));
                self.log10.push(ABSENT);
                self.backoff.push(0.0);
                self.lines.push(0);
            }
        }
    }

    fn gram(&self, entry: usize) -> &[u32] {
        &self.tokens[entry * self.n..(entry + 1) * self.n]
    }

    /// The `i`-th n-gram of the sorted ones.
    fn sorted_gram(&self, i: usize) -> Option<&[u32]> {
        self.order.get(i).map(|entry| self.gram(*entry as usize))
    }

    /// The entries by their tokens; an n-gram that is there twice is an error.
    fn sorted(&mut self) -> Result<Vec<usize>, ReadError> {
        let mut order: Vec<u32> = (0..self.lines.len() as u32).collect();
        order.sort_by(|a, b| self.gram(*a as usize).cmp(self.gram(*b as usize)));
        for pair in order.windows(2) {
            let (a, b) = (pair[0] as usize, pair[1] as usize);
            if self.gram(a) == self.gram(b) {
                let problem = format!("the n-gram of line {} again", self.lines[a]);
                return Err(ReadError::line(self.lines[b], problem));
            }
        }
        self.order = order;
        Ok(self.order.iter().map(|entry| *entry as usize).collect())
    }
}
