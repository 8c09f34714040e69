//! A model folder that translates: opened, asked, saved.

use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use burn::prelude::*;
use ferrous_opencc::OpenCC;
use firebrick_core::{
    arch::bart::{Bart, BartConfig, BartForConditionalGeneration},
    checkpoint::{LoadError, Source, tensors::write_atomically},
    generate::GenerationConfig,
    threads,
};
use firebrick_metrics::{
    bleu::{Bleu, Tokenize},
    bootstrap::resampled,
    chrf::Chrf,
};
use firebrick_train::{
    fit::Metrics,
    origin::{Copies, Origin},
};

use super::{
    copies::{Masked, SLOTS, Terms, mask, placeholder},
    corpus::Pair,
    sentences::{self, Piece},
};
use crate::{
    generate::{Limits, Writer},
    language::{is_chinese, mostly_chinese, simplifier},
    tokenizer::TextTokenizer,
};

/// Sentences in, sentences out; texts of any length in, texts out.
pub struct Translator {
    writer: Writer,
    /// Tokens of a sentence at most, special ones included.
    longest: usize,
    copies: Option<Copies>,
    /// Of a model that has seen simplified characters only.
    simplifier: Option<OpenCC>,
    terms: Terms,
}

impl Translator {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let writer = Writer::open(source, device)?;
        if !writer.reads_source() {
            let problem = "this architecture continues a text, it does not translate one".into();
            return Err(LoadError::Config { path: source.path("config.json"), problem }.into());
        }
        let longest = source.config()?["max_position_embeddings"].as_u64().unwrap_or(512);
        let origin = Origin::read(source);
        let copies = origin.as_ref().and_then(|origin| origin.copies);
        let simplify = origin.is_some_and(|origin| origin.simplify);
        let simplifier = simplify.then(simplifier).transpose()?;
        let (longest, terms) = (longest as usize, Terms::default());
        Ok(Self { writer, longest, copies, simplifier, terms })
    }

    /// A model in memory, which reads what its recipe has prepared.
    pub fn new(
        config: &BartConfig,
        model: Bart,
        tokenizer: TextTokenizer,
        generation: GenerationConfig,
        copies: Option<Copies>,
        device: &Device,
    ) -> Self {
        let longest = config.max_position_embeddings;
        let model = BartForConditionalGeneration { config: config.clone(), model };
        let writer = Writer::new(Box::new(model), tokenizer, generation, device);
        Self { writer, longest, copies, simplifier: None, terms: Terms::default() }
    }

    /// How the model's folder says to search.
    pub fn config(&self) -> &GenerationConfig {
        &self.writer.config
    }

    /// Keeps to a glossary from now on; an error where the model knows no placeholders.
    pub fn with_terms(self, terms: Terms) -> anyhow::Result<Self> {
        anyhow::ensure!(
            self.copies.is_some(),
            "this translator knows no placeholders, so that it cannot keep to a glossary: train one with `data.copies`"
        );
        let terms = terms.map(|term| self.simplified(term).into_owned());
        Ok(Self { terms, ..self })
    }

    /// Texts of any length, sentence by sentence; white space between sentences stays, but for the gaps that a language
    /// without spaces does not have.
    pub fn translate(
        &self,
        texts: &[&str],
        config: &GenerationConfig,
        batch_size: usize,
    ) -> anyhow::Result<Vec<String>> {
        let mut pieces = vec![]; // text by text
        let mut ends = vec![];
        for text in texts {
            pieces.extend(sentences::split(text));
            ends.push(pieces.len());
        }
        let asked: Vec<&str> = pieces.iter().map(|piece| piece.text).collect();
        let answers = self.sentences(&asked, config, batch_size)?;
        let chinese = mostly_chinese_texts(&answers);
        let mut begin = 0;
        let joined = ends.into_iter().map(|end| {
            let mut whole = String::new();
            for (Piece { gap, .. }, answer) in pieces[begin..end].iter().zip(&answers[begin..end]) {
                whole.push_str(answer);
                match (chinese, gap.contains('\n')) {
                    (true, false) => {}
                    (false, _) if gap.is_empty() => whole.push(' '),
                    _ => whole.push_str(gap),
                }
            }
            begin = end;
            whole.trim_end_matches(' ').to_string()
        });
        Ok(joined.collect())
    }

    /// Single sentences, in their order; those of like length share a batch, and every thread takes batches of its own.
    /// An empty one stays empty; one in capital letters is translated in small ones and comes back in capitals. One that is longer
    /// than the model reads is translated in parts.
    pub fn sentences(
        &self,
        sentences: &[&str],
        config: &GenerationConfig,
        batch_size: usize,
    ) -> anyhow::Result<Vec<String>> {
        self.sentences_with(sentences, &self.terms, config, batch_size)
    }

    /// As [`Self::sentences`], with another glossary.
    pub(super) fn sentences_with(
        &self,
        sentences: &[&str],
        terms: &Terms,
        config: &GenerationConfig,
        batch_size: usize,
    ) -> anyhow::Result<Vec<String>> {
        let whole: Vec<Cow<str>> = sentences.iter().map(|text| self.simplified(text)).collect();
        let fits =
            |piece: &str| self.writer.tokenizer.encode(piece, usize::MAX).len() <= self.longest;
        let parts: Vec<Vec<&str>> =
            whole.iter().map(|text| sentences::shorten(text, &fits)).collect();
        let counts: Vec<usize> = parts.iter().map(Vec::len).collect();
        let sentences: Vec<&str> = parts.into_iter().flatten().map(str::trim).collect();
        let asked: Vec<Asked> = sentences.iter().map(|text| self.ask(text, terms)).collect();
        let all: Vec<&Asked> = asked.iter().collect();
        let mut answers = self.read(&all, false, config, batch_size)?;

        // A translation that left a placeholder out may not end before it has all of them.
        let again: Vec<usize> = (0..asked.len()).filter(|i| !answers[*i].whole).collect();
        let lacking: Vec<&Asked> = again.iter().map(|i| &asked[*i]).collect();
        for (i, answer) in again.into_iter().zip(self.read(&lacking, true, config, batch_size)?) {
            answers[i].improve(answer);
        }
        // Or the model knows better what it reads as it is.
        let again: Vec<usize> = (0..asked.len()).filter(|i| !answers[*i].whole).collect();
        let plain: Vec<Asked> =
            again.iter().map(|i| Asked::new(Masked::plain(sentences[*i]))).collect();
        let plain: Vec<&Asked> = plain.iter().collect();
        for (i, answer) in again.into_iter().zip(self.read(&plain, false, config, batch_size)?) {
            let whole = asked[i].masked.values().iter().all(|value| answer.text.contains(value));
            answers[i].improve(Answer { whole, ..answer });
        }
        let mut answers = answers.into_iter().map(|answer| answer.text);
        Ok(counts.into_iter().map(|count| joined(answers.by_ref().take(count).collect())).collect())
    }

    /// Of a placeholder.
    fn token(&self, placeholder: char) -> Option<i64> {
        let spans = self.writer.tokenizer.encode_spans(&placeholder.to_string(), usize::MAX);
        // The last, for a vocabulary may have a space before every text.
        spans.into_iter().rfind(|(_, span)| !span.is_empty()).map(|(id, _)| i64::from(id))
    }

    /// What of a text was to be carried over and is not in its translation.
    pub fn lost(&self, text: &str, translation: &str) -> Vec<String> {
        let text = self.simplified(text);
        let asked =
            sentences::split(&text).into_iter().map(|piece| self.ask(piece.text, &self.terms));
        let values = asked.flat_map(|asked| asked.masked.all().cloned().collect::<Vec<_>>());
        values.filter(|value| !translation.contains(value.as_str())).collect()
    }

    /// A text in the characters that the model has learned.
    fn simplified<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.simplifier {
            Some(simplifier) if is_chinese(text) => simplifier.convert(text).into(),
            _ => text.into(),
        }
    }

    fn ask(&self, text: &str, terms: &Terms) -> Asked {
        let masked = match &self.copies {
            Some(copies) => mask(text, &self.writer.tokenizer, terms, copies.names),
            None => Masked::plain(text),
        };
        Asked::new(masked)
    }

    /// Sentences as the model reads and writes them; none is `whole` that ends before it has its placeholders.
    fn read(
        &self,
        asked: &[&Asked],
        whole: bool,
        config: &GenerationConfig,
        batch_size: usize,
    ) -> anyhow::Result<Vec<Answer>> {
        let text = |i: &usize| asked[*i].masked.text.as_str();
        let tokens: Vec<usize> = (0..asked.len())
            .map(|i| self.writer.tokenizer.encode(text(&i), usize::MAX).len())
            .collect();
        let placeholders: Vec<i64> = match self.copies {
            Some(_) => (0..SLOTS).filter_map(|slot| self.token(placeholder(slot))).collect(),
            None => vec![],
        };
        let slots = |i: &usize| asked[*i].masked.values().len().min(placeholders.len());
        let mut order: Vec<usize> =
            (0..asked.len()).filter(|i| !text(i).trim().is_empty()).collect();
        // A translation much longer than its source is a loop. The limit must not depend on who else is in the batch.
        let limit = |i: &usize| (2 * tokens[*i].next_multiple_of(16) + 10).min(self.longest - 1);
        // The longest first, so that the threads end together.
        order.sort_by_key(|i| Reverse((limit(i), slots(i), tokens[*i])));
        let alike = order.chunk_by(|a, b| (limit(a), slots(a)) == (limit(b), slots(b)));
        let batches: Vec<&[usize]> =
            alike.flat_map(|alike| alike.chunks(batch_size.max(1))).collect();
        let limits = Limits { special_tokens: true, ..Limits::default() };
        let written = threads::each(&batches, |batch| {
            let texts: Vec<&str> = batch.iter().map(text).collect();
            // A placeholder that stands for nothing would be left in the translation.
            let (standing, idle) = placeholders.split_at(slots(&batch[0]));
            let suppressed = config.suppress_tokens.iter().flatten().chain(idle).copied();
            let config = GenerationConfig {
                max_new_tokens: Some(limit(&batch[0])),
                suppress_tokens: Some(suppressed.collect()),
                once: standing.to_vec(),
                required: if whole { standing.to_vec() } else { vec![] },
                ..config.clone()
            };
            self.writer.write(&texts, &config, &limits, &mut |_, _| {})
        })?;
        let mut answers: Vec<Answer> = asked.iter().map(|asked| asked.answer("")).collect();
        for (i, text) in batches.concat().into_iter().zip(written.into_iter().flatten()) {
            answers[i] = asked[i].answer(text.trim());
        }
        Ok(answers)
    }

    /// Writes a folder that `transformers` opens: config, weights, tokenizer, card, origin.
    pub fn save(
        &self,
        dir: &Path,
        config: &BartConfig,
        origin: &Origin,
        about: &str,
    ) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        self.writer.save_weights(&dir.join("model.safetensors"))?;
        self.writer.tokenizer.save(dir, Some(self.longest))?;
        let generation = &self.writer.config;
        let mut json = config.to_json();
        for (key, id) in [
            ("pad_token_id", generation.pad_token_id),
            ("bos_token_id", generation.bos_token_id),
            ("eos_token_id", generation.ends().first().copied()),
            ("decoder_start_token_id", generation.decoder_start_token_id),
        ] {
            json[key] = id.into();
        }
        json["forced_eos_token_id"] = json["eos_token_id"].clone();
        for (file, value) in
            [("config.json", json), ("generation_config.json", generation.to_json())]
        {
            let path = dir.join(file);
            write_atomically(&path, serde_json::to_string_pretty(&value)?.as_bytes())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        origin.save(dir, "translation", about)
    }
}

/// A sentence as it is asked, and how the answer becomes its translation.
struct Asked {
    masked: Masked,
    shouted: bool,
}

impl Asked {
    fn new(masked: Masked) -> Self {
        let shouted = shouted(&masked.text);
        let masked = if shouted { masked.map(sentence_case) } else { masked };
        Self { masked, shouted }
    }

    fn answer(&self, answer: &str) -> Answer {
        let whole = self.masked.is_whole(answer);
        let text = if self.shouted { answer.to_uppercase() } else { answer.to_string() };
        Answer { text: self.masked.restore(&text), whole }
    }
}

/// A translation, and whether it has all that was to be carried over.
struct Answer {
    text: String,
    whole: bool,
}

impl Answer {
    /// Takes another one's place if that lacks nothing.
    fn improve(&mut self, other: Self) {
        if other.whole {
            *self = other;
        }
    }
}

/// Whether a text of several words is all in capital letters.
fn shouted(text: &str) -> bool {
    text.split_whitespace().nth(1).is_some()
        && text.chars().filter(|c| c.is_uppercase()).count() > 3
        && !text.contains(char::is_lowercase)
}

fn sentence_case(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().chain(letters.as_str().to_lowercase().chars()).collect()
}

/// The translation of a sentence that was read in parts.
fn joined(parts: Vec<String>) -> String {
    let between = if mostly_chinese_texts(&parts) { "" } else { " " };
    parts.join(between)
}

fn mostly_chinese_texts(texts: &[String]) -> bool {
    mostly_chinese(texts.iter().map(String::as_str).filter(|text| !text.is_empty()))
}

/// Translations beside their references.
pub struct Judged {
    pub bleu: Bleu,
    pub chrf: Chrf,
    pub translations: Vec<String>,
    /// Of each pair, what adds up to `bleu` and `chrf`.
    pairs: Vec<(Bleu, Chrf)>,
}

impl Judged {
    pub fn new(translations: Vec<String>, pairs: &[Pair]) -> Self {
        let chinese = mostly_chinese(pairs.iter().map(|pair| pair.target.as_str()));
        let tokenize = if chinese { Tokenize::Zh } else { Tokenize::V13a };
        let count = |(translation, pair): (&String, &Pair)| {
            let (mut bleu, mut chrf) = (Bleu::new(tokenize), Chrf::default());
            bleu.add(translation, &pair.target);
            chrf.add(translation, &pair.target);
            (bleu, chrf)
        };
        let pairs: Vec<(Bleu, Chrf)> = translations.iter().zip(pairs).map(count).collect();
        let (mut bleu, mut chrf) = (Bleu::new(tokenize), Chrf::default());
        for pair in &pairs {
            bleu += pair.0;
            chrf += pair.1;
        }
        Self { bleu, chrf, translations, pairs }
    }

    /// Both scores of the corpora that [`resampled`] draws.
    pub fn resampled(&self) -> BTreeMap<&'static str, Vec<f64>> {
        let (bleu, chrf): (Vec<Bleu>, Vec<Chrf>) = self.pairs.iter().copied().unzip();
        BTreeMap::from([
            ("bleu", resampled(&bleu, Bleu::score)),
            ("chrf", resampled(&chrf, Chrf::score)),
        ])
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::from([("bleu".into(), self.bleu.score()), ("chrf".into(), self.chrf.score())])
    }
}
