//! Text in, text out, by any family that writes.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use anyhow::ensure;
use burn::prelude::*;
use firebrick_core::{
    arch::{
        self, AnyModel,
        inputs::{Array, Inputs},
    },
    checkpoint::{Source, tensors::SaveType},
    generate::{GenerationConfig, generate},
};

use crate::tokenizer::TextTokenizer;

/// A model that writes, with its tokenizer.
pub struct Writer {
    model: Box<dyn AnyModel>,
    pub tokenizer: TextTokenizer,
    /// What its folder says of how to write.
    pub config: GenerationConfig,
    device: Device,
}

/// How to write, beyond what [`GenerationConfig`] says.
#[derive(Debug, Clone, Default)]
pub struct Limits<'a> {
    /// A row ends before the first of these texts, as before those of [`GenerationConfig::stop_strings`].
    pub stop: &'a [String],
    /// Whether the tokenizer adds its special tokens; a chat template has written them already.
    pub special_tokens: bool,
}

impl Writer {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let model = arch::open(source, device)?;
        arch::writer(&*model, source)?;
        let tokenizer = TextTokenizer::open(source)?;
        let config = GenerationConfig::read(source)?;
        Ok(Self { model, tokenizer, config, device: device.clone() })
    }

    /// A model in memory, which must have a decoder.
    pub fn new(
        model: Box<dyn AnyModel>,
        tokenizer: TextTokenizer,
        config: GenerationConfig,
        device: &Device,
    ) -> Self {
        Self { model, tokenizer, config, device: device.clone() }
    }

    /// Whether a prompt is a source for an encoder, which is answered and not continued.
    pub fn reads_source(&self) -> bool {
        self.model.decoder().is_some_and(|decoder| decoder.reads_source())
    }

    pub fn save_weights(&self, path: &Path) -> anyhow::Result<()> {
        Ok(self.model.save(path, SaveType::F32)?)
    }

    /// Whether the tokenizer makes a token of the prompt at all: [`Self::write`] needs one.
    pub fn reads(&self, prompt: &str, limits: &Limits) -> bool {
        !self.tokenizer.encode_with(prompt, usize::MAX, limits.special_tokens).is_empty()
    }

    /// Continues (or answers) every prompt; `told` hears of each piece of text as it is written, with its row.
    ///
    /// Prompts of unlike length are padded on their left. A prompt with an encoder is the source text, and on
    /// the right.
    pub fn write(
        &self,
        prompts: &[&str],
        config: &GenerationConfig,
        limits: &Limits,
        told: &mut dyn FnMut(usize, &str),
    ) -> anyhow::Result<Vec<String>> {
        let ids: Vec<Vec<u32>> = prompts
            .iter()
            .map(|text| self.tokenizer.encode_with(text, usize::MAX, limits.special_tokens))
            .collect();
        ensure!(ids.iter().all(|ids| !ids.is_empty()), "a prompt without a token");
        let decoder = self.model.decoder().expect("checked when it was opened");
        let inputs = self.inputs(&ids, decoder.reads_source());
        let stop = [limits.stop, config.stop_strings()].concat();
        let mut rows: Vec<Row> = prompts.iter().map(|_| Row::default()).collect();
        let sequences = generate(decoder, &inputs, config, &mut |row, token| {
            rows[row].push(&[token as u32], &self.tokenizer, &stop, &mut |text| told(row, text))
        })?;
        let ends: Vec<u32> = config.ends().iter().map(|id| *id as u32).collect();
        if config.num_beams > 1 {
            // Nothing was told on the way.
            let read = if decoder.reads_source() {
                1
            } else {
                ids.iter().map(Vec::len).max().unwrap_or(0)
            };
            for (row, sequence) in rows.iter_mut().zip(&sequences) {
                let new: Vec<u32> = sequence[read..].iter().map(|id| *id as u32).collect();
                let end = new.iter().position(|id| ends.contains(id)).unwrap_or(new.len());
                let _ = row.push(&new[..end], &self.tokenizer, &stop, &mut |_| {});
            }
        }
        for (index, row) in rows.iter_mut().enumerate() {
            row.finish(&mut |text| told(index, text));
        }
        Ok(rows.into_iter().map(|row| row.text).collect())
    }

    fn inputs(&self, ids: &[Vec<u32>], source: bool) -> Inputs {
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
        let pad = i64::from(self.tokenizer.pad_id());
        let (mut flat, mut mask) = (vec![], vec![]);
        for row in ids {
            let padding = longest - row.len();
            let text = row.iter().map(|id| i64::from(*id));
            let (before, after) = if source { (0, padding) } else { (padding, 0) };
            flat.extend(
                std::iter::repeat_n(pad, before).chain(text).chain(std::iter::repeat_n(pad, after)),
            );
            let seen = std::iter::repeat_n(1, row.len());
            mask.extend(
                std::iter::repeat_n(0, before).chain(seen).chain(std::iter::repeat_n(0, after)),
            );
        }
        let shape = vec![ids.len(), longest];
        let arrays = BTreeMap::from([
            ("input_ids".into(), Array::Ints { shape: shape.clone(), values: flat }),
            ("attention_mask".into(), Array::Ints { shape, values: mask }),
        ]);
        Inputs::new(arrays, &self.device)
    }
}

/// The text of one row as it grows.
#[derive(Default)]
struct Row {
    ids: Vec<u32>,
    /// What has been told, and all of it that stays.
    text: String,
    /// Decoded, but held back: it may be the beginning of a stop text or of a character.
    held: String,
    stopped: bool,
}

impl Row {
    fn push(
        &mut self,
        ids: &[u32],
        tokenizer: &TextTokenizer,
        stop: &[String],
        told: &mut dyn FnMut(&str),
    ) -> ControlFlow<()> {
        if self.stopped {
            return ControlFlow::Break(());
        }
        self.ids.extend(ids);
        let all = tokenizer.decode(&self.ids);
        // Decoders may change what was there before, and what was told cannot be taken back: from there on it is told anew.
        self.text.truncate(common_prefix(&all, &self.text));
        let new = &all[self.text.len()..];
        if let Some(at) =
            stop.iter().filter(|s| !s.is_empty()).filter_map(|s| new.find(s.as_str())).min()
        {
            self.held = new[..at].to_string();
            self.stopped = true;
            self.finish(told);
            return ControlFlow::Break(());
        }
        // The next byte may make other characters of those before it.
        let bytes = self.ids.iter().rev().take_while(|id| tokenizer.is_byte(**id)).count();
        let open = match bytes {
            0 => 0,
            _ => {
                let sure = tokenizer.decode(&self.ids[..self.ids.len() - bytes]);
                all.len() - common_prefix(&all, &sure).max(self.text.len())
            }
        };
        let keep = held_back(new, stop).max(open);
        let (ready, held) = new.split_at(new.len() - keep);
        self.held = held.to_string();
        if !ready.is_empty() {
            told(ready);
            self.text.push_str(ready);
        }
        ControlFlow::Continue(())
    }

    /// Tells what was held back.
    fn finish(&mut self, told: &mut dyn FnMut(&str)) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            told(&held);
            self.text.push_str(&held);
        }
    }
}

/// Bytes at the beginning of both, in whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    a.char_indices()
        .zip(b.chars())
        .take_while(|((_, a), b)| a == b)
        .map(|((at, a), _)| at + a.len_utf8())
        .last()
        .unwrap_or(0)
}

/// Bytes at the end of `text` that may yet become a stop text, or that are an unfinished character.
fn held_back(text: &str, stop: &[String]) -> usize {
    let unfinished = text.len() - text.trim_end_matches('\u{fffd}').len();
    let begun = stop.iter().flat_map(|stop| {
        let lengths = stop.char_indices().map(|(at, _)| at).skip(1);
        lengths.filter(move |at| text.ends_with(&stop[..*at]))
    });
    begun.max().unwrap_or(0).max(unfinished)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `m` is a letter until a byte comes after it that no letter has there: then `transformers` has two marks.
    #[test]
    fn bytes_are_told_when_they_are_characters() {
        let tokenizer = serde_json::json!({
            "model": {
                "type": "BPE", "byte_fallback": true, "unk_token": null, "merges": [],
                "vocab": {"d": 0, "<0x6D>": 1, "<0xC3>": 2, "<0xA9>": 3, "e": 4, "a": 5},
            },
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        });
        let tokenizer = TextTokenizer::from_bytes(tokenizer.to_string().as_bytes()).unwrap();
        let write = |ids: &[u32]| {
            let (mut row, mut told) = (Row::default(), String::new());
            for id in ids {
                let _ = row.push(&[*id], &tokenizer, &[], &mut |text| told.push_str(text));
            }
            row.finish(&mut |text| told.push_str(text));
            assert_eq!(row.text, tokenizer.decode(ids), "{ids:?}");
            assert_eq!(told, row.text, "{ids:?}");
            told
        };
        assert_eq!(write(&[0, 1, 3, 4]), "d\u{fffd}\u{fffd}e");
        assert_eq!(write(&[0, 1, 2, 3, 5]), "dméa");
        assert_eq!(write(&[0, 1]), "dm");
    }

    #[test]
    fn beginnings_of_stop_texts_are_held_back() {
        let stop = ["\nUser:".to_string(), "END".to_string()];
        assert_eq!(held_back("hello", &stop), 0);
        assert_eq!(held_back("hello\nUs", &stop), 3);
        assert_eq!(held_back("the E", &stop), 1);
        assert_eq!(held_back("词\u{fffd}", &stop), 3);
    }
}
