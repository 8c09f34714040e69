//! Words and how they are said, in the labels that a model writes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a label stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Units {
    /// A word: for a few of them.
    Words,
    /// A character of a word.
    Characters,
    /// A sound, by the data set's dictionary.
    Phones,
}

/// Labels and words; a word may be said in several ways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lexicon {
    /// By number; the first is the blank.
    pub labels: Vec<String>,
    /// Sorted by word; labels of each way to say it.
    pub words: Vec<(String, Vec<u32>)>,
}

/// Label 0.
const BLANK: &str = "<blank>";

impl Lexicon {
    /// Of words, one by one; `dictionary` has their sounds.
    pub fn new<'a>(
        words: impl Iterator<Item = &'a str>,
        units: Units,
        dictionary: &[(String, Vec<String>)],
    ) -> anyhow::Result<Self> {
        let words: BTreeSet<&str> = words.collect();
        let mut ways: Vec<(String, Vec<String>)> = vec![];
        for word in words {
            let said: Vec<Vec<String>> = match units {
                Units::Words => vec![vec![word.to_string()]],
                Units::Characters => vec![word.chars().map(String::from).collect()],
                Units::Phones => {
                    let known = dictionary.iter().filter(|(known, _)| known == word);
                    let known: Vec<_> = known.map(|(_, phones)| phones.clone()).collect();
                    ensure!(!known.is_empty(), "the dictionary does not have {word:?}");
                    known
                }
            };
            ways.extend(said.into_iter().map(|labels| (word.to_string(), labels)));
        }
        let labels: BTreeSet<&String> = ways.iter().flat_map(|(_, labels)| labels).collect();
        let labels: Vec<String> =
            std::iter::once(BLANK.to_string()).chain(labels.into_iter().cloned()).collect();
        let numbers: BTreeMap<&String, u32> = labels.iter().zip(0..).collect();
        let number = |said: Vec<String>| said.iter().map(|label| numbers[label]).collect();
        let words = ways.into_iter().map(|(word, said)| (word, number(said))).collect();
        Ok(Self { labels, words })
    }

    /// Every way to say a word.
    pub fn ways(&self, word: &str) -> &[(String, Vec<u32>)] {
        let first = self.words.partition_point(|(known, _)| known.as_str() < word);
        let count = self.words[first..].iter().take_while(|(known, _)| known == word).count();
        &self.words[first..first + count]
    }

    /// Labels of a text; `choose` picks one of so many ways to say a word. `None` where a word is not known.
    pub fn say(&self, text: &str, mut choose: impl FnMut(usize) -> usize) -> Option<Vec<u32>> {
        let mut labels = vec![];
        for word in text.split_whitespace() {
            let ways = self.ways(word);
            let (_, said) = ways.get(if ways.len() > 1 { choose(ways.len()) } else { 0 })?;
            labels.extend(said);
        }
        Some(labels)
    }

    /// `vocab.json`: labels by their numbers.
    pub fn vocabulary(&self) -> String {
        let labels: serde_json::Map<String, serde_json::Value> =
            self.labels.iter().zip(0..).map(|(label, i)| (label.clone(), i.into())).collect();
        serde_json::to_string_pretty(&labels).expect("texts and numbers")
    }

    /// `lexicon.txt`: a line for each way to say a word, `WORD LABEL LABEL ..`.
    pub fn lines(&self) -> String {
        let line = |(word, said): &(String, Vec<u32>)| {
            let said: Vec<&str> =
                said.iter().map(|label| self.labels[*label as usize].as_str()).collect();
            format!("{word} {}\n", said.join(" "))
        };
        self.words.iter().map(line).collect()
    }

    /// What [`Self::vocabulary`] and [`Self::lines`] wrote.
    pub fn read(vocabulary: &[u8], lines: &str) -> anyhow::Result<Self> {
        let numbers: BTreeMap<String, usize> = serde_json::from_slice(vocabulary)?;
        let mut labels = vec![String::new(); numbers.len()];
        for (label, number) in &numbers {
            let place = labels.get_mut(*number).context("its numbers are not 0 to the last")?;
            *place = label.clone();
        }
        ensure!(labels.first().is_some_and(|label| label == BLANK), "label 0 is not {BLANK}");
        ensure!(labels.iter().all(|label| !label.is_empty()), "two labels have one number");
        let word = |line: &str| {
            let (word, said) = line.split_once(' ')?;
            let said = said.split(' ').map(|label| Some(*numbers.get(label)? as u32));
            Some((word.to_string(), said.collect::<Option<Vec<u32>>>()?))
        };
        let words = lines.lines().enumerate().map(|(i, line)| {
            word(line).with_context(|| format!("lexicon.txt: line {} has unknown labels", i + 1))
        });
        let mut words = words.collect::<anyhow::Result<Vec<_>>>()?;
        words.sort();
        Ok(Self { labels, words })
    }
}

/// A pronouncing dictionary as CMU writes it: `WORD  W ER D`, more ways to say a word as `WORD(2)`.
pub fn dictionary(text: &str) -> Vec<(String, Vec<String>)> {
    let entry = |line: &str| {
        let mut parts = line.split_whitespace();
        let word = parts.next()?.split('(').next()?.to_string();
        let phones: Vec<String> = parts.map(String::from).collect();
        (!word.is_empty() && !phones.is_empty()).then_some((word, phones))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_say_a_word() {
        let dictionary = dictionary("A AH\nA(2) EY\nSIX  S IH K S\n");
        let lexicon =
            Lexicon::new(["SIX", "A", "SIX"].into_iter(), Units::Phones, &dictionary).unwrap();
        assert_eq!(lexicon.labels, ["<blank>", "AH", "EY", "IH", "K", "S"]);
        assert_eq!(lexicon.say("A SIX", |_| 1), Some(vec![2, 5, 3, 4, 5]));
        assert_eq!(lexicon.say("B", |_| 0), None);
        let again = Lexicon::read(lexicon.vocabulary().as_bytes(), &lexicon.lines()).unwrap();
        assert_eq!(again, lexicon);
        assert!(Lexicon::new(["B"].into_iter(), Units::Phones, &dictionary).is_err());
        let letters = Lexicon::new(["NO"].into_iter(), Units::Characters, &[]).unwrap();
        assert_eq!(letters.say("NO", |_| 0), Some(vec![1, 2]));
    }
}
