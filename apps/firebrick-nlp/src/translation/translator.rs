//! A model folder that translates: opened, asked, saved.

use std::{cmp::Reverse, fs, path::Path};

use anyhow::Context;
use burn::prelude::*;
use firebrick_core::{
    arch::bart::{Bart, BartConfig, BartForConditionalGeneration},
    checkpoint::{LoadError, Source, tensors::write_atomically},
    generate::GenerationConfig,
    threads,
};
use firebrick_metrics::{
    bleu::{Bleu, Tokenize},
    chrf::Chrf,
};
use firebrick_train::{
    fit::Metrics,
    origin::{Copies, Origin},
};

use super::{
    copies::{Masked, SLOTS, Terms, mask, placeholder},
    corpus::Pair,
    sentences,
};
use crate::{
    generate::{Limits, Writer},
    language::mostly_chinese,
    tokenizer::TextTokenizer,
};

/// Sentences in, sentences out; texts of any length in, texts out.
pub struct Translator {
    writer: Writer,
    /// Tokens of a sentence at most, special ones included.
    longest: usize,
    copies: Option<Copies>,
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
        let copies = Origin::read(source).and_then(|origin| origin.copies);
        Ok(Self { writer, longest: longest as usize, copies, terms: Terms::default() })
    }

    /// A model in memory.
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
        Self { writer, longest, copies, terms: Terms::default() }
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
        let fits =
            |piece: &str| self.writer.tokenizer.encode(piece, usize::MAX).len() <= self.longest;
        let mut pieces = vec![]; // (text, gap behind it), text by text
        let mut ends = vec![];
        for text in texts {
            for piece in sentences::split(text) {
                let parts = sentences::shorten(piece.text, &fits);
                let last = parts.len() - 1;
                for (i, part) in parts.into_iter().enumerate() {
                    let trimmed = part.trim();
                    pieces.push((trimmed, if i == last { piece.gap } else { " " }));
                }
            }
            ends.push(pieces.len());
        }
        let asked: Vec<&str> = pieces.iter().map(|(text, _)| *text).collect();
        let answers = self.sentences(&asked, config, batch_size)?;
        let chinese = mostly_chinese_texts(&answers);
        let mut begin = 0;
        let joined = ends.into_iter().map(|end| {
            let mut whole = String::new();
            for ((_, gap), answer) in pieces[begin..end].iter().zip(&answers[begin..end]) {
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
    /// An empty one stays empty; one in capital letters is translated in small ones and comes back in capitals.
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
        let asked: Vec<Asked> = sentences.iter().map(|text| self.ask(text, terms)).collect();
        let texts: Vec<&str> = asked.iter().map(|asked| asked.masked.text.as_str()).collect();
        let mut config = config.clone();
        if self.copies.is_some() {
            config.once = (0..SLOTS).filter_map(|slot| self.token(placeholder(slot))).collect();
        }
        let answers = self.read(&texts, &config, batch_size)?;
        let answers = asked.iter().zip(answers).map(|(asked, answer)| asked.answer(&answer));
        let mut answers: Vec<Answer> = answers.collect();

        // A translation that left a placeholder out may not end before it has all of them.
        for slots in 1..=SLOTS {
            let lacking =
                |i: &usize| asked[*i].masked.values().len() == slots && !answers[*i].whole;
            let again: Vec<usize> = (0..asked.len()).filter(lacking).collect();
            let texts: Vec<&str> = again.iter().map(|i| texts[*i]).collect();
            let required = config.once[..slots.min(config.once.len())].to_vec();
            let config = GenerationConfig { required, ..config.clone() };
            for (i, answer) in again.iter().zip(self.read(&texts, &config, batch_size)?) {
                answers[*i].improve(asked[*i].answer(&answer));
            }
        }
        // Or the model knows better what it reads as it is.
        let again: Vec<usize> = (0..asked.len()).filter(|i| !answers[*i].whole).collect();
        let plain: Vec<Asked> =
            again.iter().map(|i| Asked::new(Masked::plain(sentences[*i]))).collect();
        let texts: Vec<&str> = plain.iter().map(|plain| plain.masked.text.as_str()).collect();
        for ((i, plain), answer) in
            again.iter().zip(&plain).zip(self.read(&texts, &config, batch_size)?)
        {
            let text = plain.answer(&answer).text;
            let whole = asked[*i].masked.values().iter().all(|value| text.contains(value));
            answers[*i].improve(Answer { text, whole });
        }
        Ok(answers.into_iter().map(|answer| answer.text).collect())
    }

    /// Of a placeholder.
    fn token(&self, placeholder: char) -> Option<i64> {
        let spans = self.writer.tokenizer.encode_spans(&placeholder.to_string(), usize::MAX);
        // The last, for a vocabulary may have a space before every text.
        spans.into_iter().rfind(|(_, span)| !span.is_empty()).map(|(id, _)| i64::from(id))
    }

    /// What of a text was to be carried over and is not in its translation.
    pub fn lost(&self, text: &str, translation: &str) -> Vec<String> {
        let asked =
            sentences::split(text).into_iter().map(|piece| self.ask(piece.text, &self.terms));
        let values = asked.flat_map(|asked| asked.masked.values().to_vec());
        values.filter(|value| !translation.contains(value.as_str())).collect()
    }

    fn ask(&self, text: &str, terms: &Terms) -> Asked {
        let masked = match &self.copies {
            Some(copies) => mask(text, &self.writer.tokenizer, terms, copies.names),
            None => Masked::plain(text),
        };
        Asked::new(masked)
    }

    /// Sentences as the model reads and writes them.
    fn read(
        &self,
        sentences: &[&str],
        config: &GenerationConfig,
        batch_size: usize,
    ) -> anyhow::Result<Vec<String>> {
        let tokens: Vec<usize> =
            sentences.iter().map(|s| self.writer.tokenizer.encode(s, usize::MAX).len()).collect();
        let mut order: Vec<usize> =
            (0..sentences.len()).filter(|i| !sentences[*i].trim().is_empty()).collect();
        // The longest first, so that the threads end together.
        order.sort_by_key(|i| Reverse(tokens[*i]));
        // A translation much longer than its source is a loop. The limit must not depend on who else is in the batch.
        let limit = |i: &usize| (2 * tokens[*i].next_multiple_of(16) + 10).min(self.longest - 1);
        let alike = order.chunk_by(|a, b| limit(a) == limit(b));
        let batches: Vec<&[usize]> =
            alike.flat_map(|alike| alike.chunks(batch_size.max(1))).collect();
        let limits = Limits { special_tokens: true, ..Limits::default() };
        let written = threads::each(&batches, |batch| {
            let texts: Vec<&str> = batch.iter().map(|i| sentences[*i]).collect();
            let config =
                GenerationConfig { max_new_tokens: Some(limit(&batch[0])), ..config.clone() };
            self.writer.write(&texts, &config, &limits, &mut |_, _| {})
        })?;
        let mut answers = vec![String::new(); sentences.len()];
        for (i, text) in batches.concat().into_iter().zip(written.into_iter().flatten()) {
            answers[i] = text.trim().to_string();
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

fn mostly_chinese_texts(texts: &[String]) -> bool {
    mostly_chinese(texts.iter().map(String::as_str).filter(|text| !text.is_empty()))
}

/// Translations beside their references.
pub struct Judged {
    pub bleu: Bleu,
    pub chrf: Chrf,
    pub translations: Vec<String>,
}

impl Judged {
    pub fn new(translations: Vec<String>, pairs: &[Pair]) -> Self {
        let chinese = mostly_chinese(pairs.iter().map(|pair| pair.target.as_str()));
        let tokenize = if chinese { Tokenize::Zh } else { Tokenize::V13a };
        let (mut bleu, mut chrf) = (Bleu::new(tokenize), Chrf::default());
        for (translation, pair) in translations.iter().zip(pairs) {
            bleu.add(translation, &pair.target);
            chrf.add(translation, &pair.target);
        }
        Self { bleu, chrf, translations }
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::from([("bleu".into(), self.bleu.score()), ("chrf".into(), self.chrf.score())])
    }
}
