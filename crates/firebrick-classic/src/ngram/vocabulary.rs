//! Words, or characters, and their numbers.

use std::{borrow::Cow, collections::HashMap};

use serde::{Deserialize, Serialize};

/// Stands for every word that is not in the vocabulary: `<unk>`.
pub const UNK: u32 = 0;
/// Begins every sentence and is never predicted: `<s>`.
pub const BOS: u32 = 1;
/// Ends every sentence: `</s>`.
pub const EOS: u32 = 2;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// What stands between white space.
    Word,
    /// One Unicode scalar value, white space included.
    Char,
}

/// The tokens by number; the first three are `<unk>`, `<s>` and `</s>`, as in KenLM.
///
/// ```
/// use firebrick_classic::ngram::vocabulary::{UNK, Unit, Vocabulary};
///
/// let mut words = Vocabulary::new();
/// assert_eq!(words.learn("the cat the", Unit::Word), [3, 4, 3]);
/// assert_eq!(words.encode("the dog", Unit::Word), [3, UNK]);
/// assert_eq!(words.decode(&[4, 3], Unit::Word), "cat the");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    words: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self::new()
    }
}

impl Vocabulary {
    /// Only the three special tokens.
    pub fn new() -> Self {
        let mut vocabulary = Self { words: vec![], ids: HashMap::new() };
        for word in ["<unk>", "<s>", "</s>"] {
            vocabulary.add(word);
        }
        vocabulary
    }

    /// Number of tokens, the special ones included.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// The number of `word`, a new one if it has none yet.
    pub fn add(&mut self, word: &str) -> u32 {
        if let Some(id) = self.ids.get(word) {
            return *id;
        }
        let id = u32::try_from(self.words.len()).expect("fewer than 2^32 words fit in memory");
        self.words.push(word.to_owned());
        self.ids.insert(word.to_owned(), id);
        id
    }

    pub fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    /// How token `id` is written in a file; `<unk>` for a number that is not in use.
    pub fn word(&self, id: u32) -> &str {
        self.words.get(id as usize).map_or("<unk>", String::as_str)
    }

    /// The tokens of `text`; unknown ones are added.
    pub fn learn(&mut self, text: &str, unit: Unit) -> Vec<u32> {
        pieces(text, unit).map(|piece| self.add(&piece)).collect()
    }

    /// The tokens of `text`; unknown ones are [`UNK`], and so are `<s>` and `</s>`, which are no words.
    pub fn encode(&self, text: &str, unit: Unit) -> Vec<u32> {
        let id = |piece: Cow<str>| self.id(&piece).filter(|id| !matches!(*id, BOS | EOS));
        pieces(text, unit).map(|piece| id(piece).unwrap_or(UNK)).collect()
    }

    /// The text of `tokens`: words with a space between them, characters without. `<s>` and `</s>` are left out.
    pub fn decode(&self, tokens: &[u32], unit: Unit) -> String {
        let words = tokens.iter().filter(|id| !matches!(**id, BOS | EOS)).map(|id| self.word(*id));
        match unit {
            Unit::Word => words.collect::<Vec<_>>().join(" "),
            Unit::Char => words.map(|word| Cow::from(unspelled(word))).collect(),
        }
    }
}

fn pieces(text: &str, unit: Unit) -> Box<dyn Iterator<Item = Cow<'_, str>> + '_> {
    match unit {
        Unit::Word => Box::new(text.split_whitespace().map(Cow::from)),
        Unit::Char => Box::new(text.chars().map(|c| Cow::from(spelled(c)))),
    }
}

/// A character as a word that ARPA can hold: itself, but white space as its number, `<U+20>`.
fn spelled(c: char) -> String {
    if c.is_whitespace() { format!("<U+{:X}>", u32::from(c)) } else { c.to_string() }
}

fn unspelled(word: &str) -> String {
    let number = word.strip_prefix("<U+").and_then(|word| word.strip_suffix('>'));
    let c = number.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
    c.map_or_else(|| word.to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_survive() {
        let text = "To be,\nor\tnot <U+20> 好";
        let mut vocabulary = Vocabulary::new();
        let tokens = vocabulary.learn(text, Unit::Char);
        assert_eq!(tokens.len(), text.chars().count());
        assert_eq!(vocabulary.decode(&tokens, Unit::Char), text);
        assert_eq!(vocabulary.encode(text, Unit::Char), tokens);
        assert!(
            (0..vocabulary.len() as u32)
                .all(|id| !vocabulary.word(id).contains(char::is_whitespace))
        );
    }

    #[test]
    fn special_words_are_no_words() {
        let vocabulary = Vocabulary::new();
        assert_eq!(vocabulary.encode("<s> </s> <unk> x", Unit::Word), [UNK; 4]);
        assert_eq!((vocabulary.word(EOS), vocabulary.word(99)), ("</s>", "<unk>"));
    }
}
