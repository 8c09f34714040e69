//! `firebrick nlp sentiment`: is it positive, how sure is that, and which words say so?

use std::{collections::BTreeMap, io::IsTerminal, ops::Range};

use firebrick_nlp::{
    classification::{
        attribution::{Explainer, Explanation},
        classifier::{Prediction, TextClassifier},
    },
    language::{is_chinese, simplifier},
};
use serde_json::{Value, json};

use super::{
    Outcome, ask,
    nlp::{or_stdin, worded},
};
use crate::{
    cli::{Global, SentimentArgs},
    failure::{BAD_FILE, Failure},
    places,
};

/// A model as the question needs it: gradients are kept only where an answer is explained.
enum Judge {
    Plain(Box<TextClassifier>),
    Explaining(Box<Explainer>),
}

impl Judge {
    fn open(name: &str, explain: bool, global: &Global) -> Result<Self, Failure> {
        let (source, device) = (places::model(name, &global.runs)?, global.device.open()?);
        Ok(match explain {
            false => Self::Plain(Box::new(TextClassifier::open(&source, &device)?)),
            true => {
                let classifier = TextClassifier::open(&source, &device.autodiff())?;
                Self::Explaining(Box::new(Explainer::new(classifier)))
            }
        })
    }

    fn labels(&self) -> &[String] {
        match self {
            Self::Plain(classifier) => &classifier.labels,
            Self::Explaining(explainer) => explainer.labels(),
        }
    }

    fn ask(&self, text: &str) -> (Prediction, Option<Explanation>) {
        match self {
            Self::Plain(classifier) => (classifier.predict(&[text], 1).remove(0), None),
            Self::Explaining(explainer) => {
                let explanation = explainer.explain(text);
                (explanation.prediction.clone(), Some(explanation))
            }
        }
    }
}

pub fn run(args: SentimentArgs, global: &Global) -> Outcome {
    let (rows, end): (Vec<Result<String, String>>, Outcome) = match &args.input {
        None => {
            let (texts, end) = worded(or_stdin(args.texts)?);
            (texts.into_iter().map(Ok).collect(), end)
        }
        Some(path) => {
            let table = ask::texts(path, &args.columns)?.worded();
            let end = match ask::unreadable(&table.bad) {
                None => Ok(()),
                Some(message) => Err(Failure::text(BAD_FILE, message)),
            };
            let bad = ask::problems(&table.bad).into_iter().map(|(row, bad)| (row, Err(bad)));
            let good = table.rows.into_iter().map(|row| (row.row, Ok(row.text)));
            (good.chain(bad).collect::<BTreeMap<_, _>>().into_values().collect(), end)
        }
    };
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut opened: BTreeMap<&str, Judge> = BTreeMap::new();
    let mut to_simplified = None;
    let mut answers = vec![];
    for row in &rows {
        let text = match row {
            Ok(text) => text,
            Err(problem) => {
                if !global.json {
                    say!("error  {problem}");
                }
                answers.push(json!({"error": problem}));
                continue;
            }
        };
        let (language, chosen) = match is_chinese(text) {
            true => ("zh", "hotel"),
            false => ("en", "sst2-distilled"),
        };
        // The shipped models of Chinese know simplified characters only.
        let read = match (language, &args.model) {
            ("zh", None) => match &to_simplified {
                None => to_simplified.insert(simplifier()?).convert(text),
                Some(simplifier) => simplifier.convert(text),
            },
            _ => text.clone(),
        };
        let name = args.model.as_deref().unwrap_or(chosen);
        let judge = match opened.entry(name) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Judge::open(name, args.explain, global)?)
            }
        };
        let (answer, mut explanation) = judge.ask(&read);
        for word in explanation.iter_mut().flat_map(|explanation| &mut explanation.words) {
            word.span = moved(&word.span, &read, text);
        }
        let label = &judge.labels()[answer.label];
        let score = answer.scores[answer.label];
        let said = match label.as_str() {
            _ if args.neutral_below.is_some_and(|least| score < least) => "neutral",
            "1" => "positive",
            "0" => "negative",
            other => other,
        };
        if !global.json {
            match &explanation {
                Some(explanation) if colours => {
                    say!("{said}  {score:.3}  {}", coloured(text, explanation));
                }
                _ => say!("{said}  {score:.3}  {text}"),
            }
            if let (Some(explanation), false) = (&explanation, colours) {
                say!("{}", listed(text, explanation).trim_end());
            }
        }
        let mut all = json!({
            "text": text, "sentiment": said, "label": label, "score": score, "language": language, "model": name,
        });
        if let Some(explanation) = explanation {
            let word = |word: &firebrick_nlp::classification::attribution::Attribution| {
                let (start, end) = (word.span.start, word.span.end);
                json!({"text": &text[word.span.clone()], "start": start, "end": end, "value": word.value})
            };
            all["words"] = explanation.words.iter().map(word).collect();
            all["gap"] = explanation.gap.into();
        }
        answers.push(all);
    }
    if global.json {
        say!("{}", Value::Array(answers));
    }
    end
}

/// Where the characters of `from` stand in `to`, which has as many.
fn moved(span: &Range<usize>, from: &str, to: &str) -> Range<usize> {
    let place = |at: usize| {
        let before = from[..at].chars().count();
        to.char_indices().nth(before).map_or(to.len(), |(place, _)| place)
    };
    place(span.start)..place(span.end)
}

/// A word a line, those that weigh most first.
fn listed(text: &str, explanation: &Explanation) -> String {
    let mut words: Vec<_> = explanation.words.iter().collect();
    words.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
    words
        .iter()
        .map(|word| format!("  {:+.2}  {}\n", word.value, &text[word.span.clone()]))
        .collect()
}

/// Blue speaks for the answer, orange against it; the deeper the more.
fn coloured(text: &str, explanation: &Explanation) -> String {
    let largest = explanation.words.iter().map(|word| word.value.abs()).fold(1e-9, f64::max);
    let mut shown = String::new();
    let mut end = 0;
    for word in &explanation.words {
        shown.push_str(&text[end..word.span.start]);
        let share = (word.value.abs() / largest).min(1.0);
        let fade = |full: f64| (255.0 + (full - 255.0) * share).round() as u8;
        let [r, g, b] = match word.value >= 0.0 {
            true => [fade(90.0), fade(160.0), fade(240.0)],
            false => [fade(240.0), fade(150.0), fade(60.0)],
        };
        let piece = &text[word.span.clone()];
        shown.push_str(&format!("\x1b[38;2;0;0;0;48;2;{r};{g};{b}m{piece}\x1b[0m"));
        end = word.span.end;
    }
    shown.push_str(&text[end..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_characters_in_a_text_of_other_bytes() {
        let (from, to) = ("a字b", "𫄧字b"); // one byte for the first character, four for the other
        assert_eq!(moved(&(1..4), from, to), 4..7);
        assert_eq!(moved(&(0..5), from, to), 0..8);
        assert_eq!(moved(&(0..5), from, "字"), 0..3, "a shorter one ends earlier");
    }
}
