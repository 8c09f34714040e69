//! A model folder that tags: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::Context;
use burn::tensor::Device;
use firebrick_classic::{
    hmm,
    viterbi::{Transitions, viterbi},
};
use firebrick_core::{
    arch::{
        AnyModel,
        tagger::{FirebrickTagger, Tagger, TaggerConfig},
    },
    checkpoint::{
        Source,
        tensors::{SaveType, write_atomically},
    },
};
use firebrick_metrics::{
    confusion::argmax,
    tagging::{SpanScores, TokenAccuracy},
};
use firebrick_train::{fit::Metrics, origin::Origin};

use super::{
    corpus::Sentence,
    features::Features,
    task::{Logits, TagExamples, logits},
};

/// Longest `features.json`.
const FEATURES_LIMIT: u64 = 64 << 20;

/// Longest `transitions.json`.
const TRANSITIONS_LIMIT: u64 = 64 << 20;

/// Longest `hmm.json`.
const HMM_LIMIT: u64 = 64 << 20;

/// `model_type` of a hidden Markov model's folder.
pub const HMM: &str = "firebrick-hmm";

/// What decides.
#[expect(clippy::large_enum_variant, reason = "a program holds one or two")]
#[derive(Clone)]
pub enum Model {
    /// A neural network over features of words.
    Recurrent { config: TaggerConfig, model: Tagger, features: Features },
    /// A hidden Markov model of tags and words.
    Hidden(hmm::tagger::Tagger),
}

/// A tagger with the names of its classes.
#[derive(Clone)]
pub struct TextTagger {
    pub model: Model,
    pub tags: Vec<String>,
    pub labels: Vec<String>,
    /// What the training sentences say of tags beside each other, weighted; `None` where that helps nothing.
    neighbours: Option<Transitions>,
    /// The rules of the BIO scheme and that: what Viterbi adds to the scores of tags.
    transitions: Transitions,
}

/// What a tagger says of a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// One for each word; empty from a model that labels sentences only.
    pub tags: Vec<String>,
    /// Index of the best label, and the probabilities of all; `None` from a model that labels words only.
    pub label: Option<(usize, Vec<f32>)>,
}

/// Words that a full stop belongs to.
const TITLES: &[&str] =
    &["Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Jr", "Sr", "Co", "Inc", "Ltd", "vs", "etc"];

/// A text as words, as treebanks of English cut it: runs of letters and digits, `n't` and `'s` apart, titles with their
/// full stop, single other characters; Chinese characters alone.
///
/// ```
/// use firebrick_nlp::tagging::tagger::split;
///
/// assert_eq!(split("Play jazz, 现在!"), ["Play", "jazz", ",", "现", "在", "!"]);
/// assert_eq!(split("it's 3.5"), ["it", "'s", "3.5"]);
/// assert_eq!(split("Mr. Lee can't."), ["Mr.", "Lee", "ca", "n't", "."]);
/// ```
pub fn split(text: &str) -> Vec<String> {
    let wide =
        |c: char| ('\u{2e80}'..='\u{9fff}').contains(&c) || ('\u{f900}'..='\u{faff}').contains(&c);
    let mut words: Vec<String> = vec![];
    let mut inside = false;
    let chars: Vec<char> = text.chars().collect();
    for (i, c) in chars.iter().copied().enumerate() {
        let next = chars.get(i + 1).copied().unwrap_or(' ');
        let before = i.checked_sub(1).map_or(' ', |i| chars[i]);
        let between_digits =
            matches!(c, '.' | ',' | ':') && before.is_ascii_digit() && next.is_ascii_digit();
        let opens = matches!(c, '\'' | '’') && before.is_alphabetic() && next.is_alphabetic();
        match c {
            c if c.is_whitespace() => inside = false,
            c if wide(c) => {
                words.push(c.into());
                inside = false;
            }
            c if opens => {
                // `can't` is `ca` and `n't`.
                let negation =
                    before == 'n' && next == 't' && words.last().is_some_and(|w| w.len() > 1);
                let n = if negation { words.last_mut().and_then(String::pop) } else { None };
                words.push(n.into_iter().chain([c]).collect());
                inside = true;
            }
            '.' if words.last().is_some_and(|word| TITLES.contains(&word.as_str())) && inside => {
                words.last_mut().expect("there is one").push('.');
                inside = false;
            }
            c if c.is_alphanumeric()
                || between_digits
                || c == '-' && inside && next.is_alphanumeric() =>
            {
                match (inside, words.last_mut()) {
                    (true, Some(word)) => word.push(c),
                    _ => words.push(c.into()),
                }
                inside = true;
            }
            c => {
                words.push(c.into());
                inside = false;
            }
        }
    }
    words
}

impl TextTagger {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let json = source.config()?;
        if json["model_type"] == HMM {
            let path = source.path("hmm.json");
            let tagger: Result<hmm::tagger::Tagger, _> =
                serde_json::from_slice(&source.read("hmm.json", HMM_LIMIT)?);
            return Ok(Self::hidden(tagger.map_err(|e| bad(&path, e.to_string()))?));
        }
        let FirebrickTagger { config, model } = FirebrickTagger::load(source, device)?;
        let names = |key: &str| -> Vec<String> {
            let list = json[key].as_array().into_iter().flatten();
            list.filter_map(|name| name.as_str().map(str::to_string)).collect()
        };
        let path = source.path("features.json");
        let features = Features::from_json(&source.read("features.json", FEATURES_LIMIT)?);
        let features = features.map_err(|problem| bad(&path, problem))?;
        let (tags, labels) = (names("tags"), names("labels"));
        let sizes: Vec<usize> = config.features.iter().map(|[rows, _]| *rows).collect();
        if features.sizes() != sizes {
            return Err(bad(&path, "its rows are not those of the model's tables".into()));
        }
        if (tags.len(), labels.len()) != (config.num_tags, config.num_labels) {
            let problem = "`tags` and `labels` are not as many as the model has scores";
            return Err(bad(&source.path("config.json"), problem.into()));
        }
        let path = source.path("transitions.json");
        let neighbours = match source.optional("transitions.json", TRANSITIONS_LIMIT)? {
            None => None,
            Some(bytes) => {
                let found: Transitions =
                    serde_json::from_slice(&bytes).map_err(|e| bad(&path, e.to_string()))?;
                let k = tags.len();
                if (found.start.len(), found.between.len(), found.end.len()) != (k, k * k, k) {
                    return Err(bad(&path, format!("its scores are not those of {k} tags")));
                }
                Some(found)
            }
        };
        Ok(Self::new(Model::Recurrent { config, model, features }, tags, labels, neighbours))
    }

    /// A tagger in memory.
    pub fn new(
        model: Model,
        tags: Vec<String>,
        labels: Vec<String>,
        neighbours: Option<Transitions>,
    ) -> Self {
        let bio = Transitions::bio(&tags);
        let transitions = match &neighbours {
            None => bio,
            Some(neighbours) => bio.plus(1.0, neighbours),
        };
        Self { model, tags, labels, neighbours, transitions }
    }

    /// A hidden Markov model in memory.
    pub fn hidden(tagger: hmm::tagger::Tagger) -> Self {
        let tags = tagger.tags().to_vec();
        Self::new(Model::Hidden(tagger), tags, vec![], None)
    }

    /// Answers in the order of the sentences, each a list of words.
    pub fn tag(&self, sentences: &[Vec<String>], batch_size: usize) -> Vec<Answer> {
        let sentence = |(row, tokens): (usize, &Vec<String>)| Sentence {
            row,
            tokens: tokens.clone(),
            tags: vec![],
            label: None,
        };
        let sentences: Vec<Sentence> = sentences.iter().enumerate().map(sentence).collect();
        self.answers(&sentences, batch_size).0
    }

    /// Answers in order, and the mean loss of a neural network.
    fn answers(&self, sentences: &[Sentence], batch_size: usize) -> (Vec<Answer>, Option<f64>) {
        match &self.model {
            Model::Recurrent { model, features, .. } => {
                let examples = TagExamples::new(sentences, features, &self.tags, &self.labels, 0.0);
                let (logits, loss) = logits(model, &examples, batch_size);
                (logits.iter().map(|logits| self.answer(logits)).collect(), Some(loss))
            }
            Model::Hidden(tagger) => {
                let answer = |sentence: &Sentence| {
                    let tags = tagger.tag(&sentence.tokens);
                    Answer { tags: tags.into_iter().map(str::to_string).collect(), label: None }
                };
                (sentences.iter().map(answer).collect(), None)
            }
        }
    }

    /// The best tags that the BIO scheme allows, where the tags are of it.
    fn answer(&self, logits: &Logits) -> Answer {
        let tags = match self.tags.len() {
            0 => vec![],
            _ => {
                let best = viterbi(&logits.tags, &self.transitions);
                let (best, _) = best.unwrap_or_default();
                best.into_iter().map(|place| self.tags[place].clone()).collect()
            }
        };
        let label = (!logits.labels.is_empty()).then(|| {
            let most = logits.labels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = logits.labels.iter().map(|x| (x - most).exp()).collect();
            let sum: f32 = powers.iter().sum();
            (argmax(&logits.labels), powers.into_iter().map(|p| p / sum).collect())
        });
        Answer { tags, label }
    }

    /// Whether a sentence has a label, or a tag other than BIO's `O`, that this model has, too.
    pub fn knows(&self, sentence: &Sentence) -> bool {
        let label = sentence.label.as_ref().is_some_and(|label| self.labels.contains(label));
        label || sentence.tags.iter().any(|tag| tag != "O" && self.tags.contains(tag))
    }

    /// Judges on sentences with known tags or labels.
    pub fn judge(&self, sentences: &[Sentence], batch_size: usize) -> Judged {
        let (answers, loss) = self.answers(sentences, batch_size);
        let mut judged = Judged { loss, ..Judged::default() };
        for (sentence, answer) in sentences.iter().zip(&answers) {
            if !answer.tags.is_empty() && answer.tags.len() == sentence.tags.len() {
                judged.tokens.add(&sentence.tags, &answer.tags);
                judged.spans.add(&sentence.tags, &answer.tags);
            }
            if let (Some(truth), Some((best, _))) = (&sentence.label, &answer.label) {
                judged.labels.add(&[truth.as_str()], &[self.labels[*best].as_str()]);
            }
        }
        judged.answers = answers;
        judged
    }

    /// Writes config, weights, features (or the Markov model), card and origin.
    pub fn save(&self, dir: &Path, origin: &Origin, about: &str) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let (config, other) = match &self.model {
            Model::Recurrent { config, model, features } => {
                let json = config.to_json(&self.tags, &self.labels);
                let (config, model) = (config.clone(), model.clone());
                let path = dir.join("model.safetensors");
                FirebrickTagger { config, model }.save(&path, SaveType::F32)?;
                (json, ("features.json", features.to_json()))
            }
            Model::Hidden(tagger) => {
                let json = serde_json::json!({"model_type": HMM, "tags": self.tags});
                (json, ("hmm.json", serde_json::to_string(tagger)?))
            }
        };
        for (file, text) in [("config.json", serde_json::to_string_pretty(&config)?), other] {
            let path = dir.join(file);
            write_atomically(&path, text.as_bytes())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        if let Some(neighbours) = &self.neighbours {
            let path = dir.join("transitions.json");
            write_atomically(&path, &serde_json::to_vec(neighbours)?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        origin.save(dir, "token-classification", about)
    }
}

fn bad(path: &Path, problem: String) -> anyhow::Error {
    firebrick_core::checkpoint::LoadError::Config { path: path.to_path_buf(), problem }.into()
}

/// Answers beside the truth.
#[derive(Debug, Default)]
pub struct Judged {
    pub tokens: TokenAccuracy,
    pub spans: SpanScores,
    pub labels: TokenAccuracy,
    /// Of a neural network.
    pub loss: Option<f64>,
    pub answers: Vec<Answer>,
}

impl Judged {
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        let scores = [
            ("loss", self.loss),
            ("tag_accuracy", self.tokens.accuracy()),
            ("span_f1", self.spans.total().f1()),
            ("label_accuracy", self.labels.accuracy()),
        ];
        for (name, value) in scores {
            metrics.extend(value.map(|value| (name.to_string(), value)));
        }
        metrics
    }
}
