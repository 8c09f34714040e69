//! Whisper's way from a long recording to text: windows of 30 seconds, times as tokens, and another try where a text
//! looks wrong.
//!
//! Paper: Radford et al. 2022, <https://arxiv.org/abs/2212.04356>, section 4.5. Reference code: `transcribe.py` and
//! `decoding.py` of <https://github.com/openai/whisper>. A window does not read the text of the one before, which is
//! where loops come from.

use std::{collections::BTreeMap, ops::Range};

use anyhow::Context;
use burn::{prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::whisper::WhisperForConditionalGeneration,
    checkpoint::{LoadError, Source},
    generate::{Decoder, GenerationConfig},
    layers::cache::Cache,
};
use firebrick_data::{
    audio::mel::{Mel, MelConfig},
    redundancy::compression_ratio,
};
use firebrick_metrics::confusion::argmax;
use firebrick_train::sampler::{Coins, mix};
use serde_json::Value;

use crate::subtitles::Segment;

/// Of recordings, in Hz.
pub const RATE: u32 = 16_000;
/// Frames of 10 ms from place to place of the encoder.
const STRIDE: usize = 2;
/// Of a time token, in seconds.
const TICK: f64 = 0.02;
/// Each is tried where the one before gave a text that looks wrong.
const TEMPERATURES: [f64; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
/// Texts that repeat themselves more look wrong.
const MOST_REPEATED: f64 = 2.4;
/// Texts whose tokens have a lower mean logarithm look wrong.
const LEAST_LIKELY: f64 = -1.0;
/// Windows that are likelier silent, and whose text looks wrong, have none.
const SILENT: f64 = 0.6;
/// Frames of silence behind the end, and frames in all, that whoever is in a hurry lets the model hear in place of a whole
/// window. With fewer in all it loops; with these it errs no more often (AN4, captions).
const BEHIND: usize = 200;
const SHORTEST: usize = 800;
/// Speech begins within the first second of a window, in ticks.
const FIRST_TIME: usize = 50;

/// What to write.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Two letters, `en`; found by listening where there is none.
    pub language: Option<String>,
    /// Into English.
    pub translate: bool,
    /// Of the draws at higher temperatures.
    pub seed: u64,
    /// Take the first text of a window, also an unlikely one, and do not hear all the silence that makes a window whole:
    /// whoever waits cannot wait for six texts.
    pub hurry: bool,
}

/// What was said, in which language.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// Two letters; `None` from a model that knows one language only.
    pub language: Option<String>,
    pub segments: Vec<Segment>,
}

/// A Whisper checkpoint with its tokens.
pub struct Whisper {
    model: WhisperForConditionalGeneration,
    tokens: Tokens,
    mel: Mel,
    suppressed: Vec<i64>,
    suppressed_first: Vec<i64>,
    device: Device,
}

/// What the tokens stand for.
struct Tokens {
    /// Bytes of each text token.
    bytes: Vec<Vec<u8>>,
    start: i64,
    end: i64,
    transcribe: Option<i64>,
    translate: Option<i64>,
    no_speech: Option<i64>,
    no_times: i64,
    languages: BTreeMap<String, i64>,
}

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_LIMIT: u64 = 64 << 20;

impl Tokens {
    fn open(source: &Source) -> anyhow::Result<Self> {
        let bad = |problem: String| LoadError::Config { path: source.path(TOKENIZER), problem };
        let json: Value = serde_json::from_slice(&source.read(TOKENIZER, TOKENIZER_LIMIT)?)
            .map_err(|error| bad(error.to_string()))?;
        let vocabulary = json["model"]["vocab"].as_object();
        let vocabulary = vocabulary.ok_or_else(|| bad("has no `model.vocab`".into()))?;
        let known = byte_letters();
        let mut bytes: Vec<Vec<u8>> = vec![];
        for (token, id) in vocabulary {
            let id = id.as_u64().filter(|id| *id < 1_000_000);
            let id = id.ok_or_else(|| bad(format!("{token:?} has no number")))? as usize;
            bytes.resize(bytes.len().max(id + 1), vec![]);
            bytes[id] = token.chars().filter_map(|c| known.get(&c).copied()).collect();
        }
        let mut special: BTreeMap<&str, i64> = BTreeMap::new();
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            if let (Some(text), Some(id)) = (token["content"].as_str(), token["id"].as_i64()) {
                special.insert(text, id);
            }
        }
        let find = |names: &[&str]| names.iter().find_map(|name| special.get(name).copied());
        let need = |name: &str| find(&[name]).ok_or_else(|| bad(format!("has no token {name}")));
        let start = need("<|startoftranscript|>")?;
        let end = need("<|endoftext|>")?;
        let is_language = |text: &str| {
            let inner = text.strip_prefix("<|").and_then(|text| text.strip_suffix("|>"))?;
            let short = (2..=3).contains(&inner.len());
            (short && inner.chars().all(|c| c.is_ascii_lowercase())).then(|| inner.to_string())
        };
        let languages = special.iter().filter_map(|(text, id)| Some((is_language(text)?, *id)));
        // Nothing that the text tokens spell is a special one.
        bytes.truncate(end as usize);
        Ok(Self {
            bytes,
            start,
            end,
            transcribe: find(&["<|transcribe|>"]),
            translate: find(&["<|translate|>"]),
            no_speech: find(&["<|nospeech|>", "<|nocaptions|>"]),
            no_times: need("<|notimestamps|>")?,
            languages: languages.collect(),
        })
    }

    /// Token of time 0.
    fn first_time(&self) -> i64 {
        self.no_times + 1
    }

    fn text(&self, tokens: &[i64]) -> String {
        let bytes = tokens.iter().filter_map(|token| self.bytes.get(*token as usize));
        let bytes: Vec<u8> = bytes.flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The letters that GPT-2's tokenizers write bytes with.
fn byte_letters() -> BTreeMap<char, u8> {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut letters = BTreeMap::new();
    let mut next = 256;
    for byte in 0..=255 {
        let letter = match plain(byte) {
            true => u32::from(byte),
            false => {
                next += 1;
                next - 1
            }
        };
        letters.insert(char::from_u32(letter).expect("below the surrogates"), byte);
    }
    letters
}

/// What one try gave.
struct Written {
    tokens: Vec<i64>,
    text: String,
    /// Mean logarithm of the tokens' probabilities.
    likely: f64,
}

impl Whisper {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let model = WhisperForConditionalGeneration::load(source, device)?;
        let generation = GenerationConfig::read(source)?;
        let tokens = Tokens::open(source)?;
        let vocabulary = model.config.vocab_size as i64;
        let most = [tokens.start, tokens.end, tokens.no_times].into_iter().max().unwrap_or(0);
        if most >= vocabulary {
            let problem = format!("has token {most}, and the model {vocabulary} tokens");
            return Err(LoadError::Config { path: source.path(TOKENIZER), problem }.into());
        }
        Ok(Self {
            mel: Mel::new(&MelConfig::whisper(model.config.num_mel_bins)),
            suppressed: generation.suppress_tokens.unwrap_or_default(),
            suppressed_first: generation.begin_suppress_tokens.unwrap_or_default(),
            device: device.clone(),
            model,
            tokens,
        })
    }

    /// The languages that it knows.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.tokens.languages.keys().map(String::as_str)
    }

    /// What is said in `samples` at [`RATE`]; windows that hold none of `speech` are not heard. `told` hears of each segment
    /// as it is found.
    pub fn transcribe(
        &self,
        samples: &[f32],
        options: &Options,
        speech: Option<&[Range<usize>]>,
        told: &mut dyn FnMut(&Segment),
    ) -> anyhow::Result<Transcript> {
        let bands = self.model.config.num_mel_bins;
        let window = STRIDE * self.model.config.max_source_positions;
        // Silence behind the end, so that the last window is whole.
        let silence = if options.hurry { SHORTEST.min(window) } else { window };
        let mut padded = samples.to_vec();
        padded.resize(samples.len() + silence * self.mel.config().hop_length, 0.0);
        let frames = self.mel.frames(&padded);
        let hop = self.mel.config().hop_length;
        let total = samples.len() / hop;
        // A model that hears nothing invents something.
        let silent = |window: Range<usize>| {
            let (begin, end) = (window.start * hop, window.end * hop);
            speech.is_some_and(|parts| {
                parts.iter().all(|part| part.end <= begin || end <= part.start)
            })
        };

        let mut language = match &options.language {
            None => None,
            Some(name) => {
                let known = self.languages().collect::<Vec<_>>().join(", ");
                let token = self.tokens.languages.get(name);
                Some(*token.with_context(|| format!("no language {name:?}: {known}"))?)
            }
        };
        let mut segments = vec![];
        let mut seek = 0;
        while seek < total {
            let size = window.min(total - seek);
            if silent(seek..seek + size) {
                seek += size;
                continue;
            }
            let heard = match options.hurry {
                true => (size + BEHIND).max(SHORTEST).next_multiple_of(STRIDE).min(window),
                false => window,
            };
            let part = &frames[seek * bands..(seek + heard).min(frames.len() / bands) * bands];
            let cache = self.model.listen(self.features(part, heard, bands));
            let (first, cache) = self.read(cache, &[self.tokens.start]);
            let first = log_softmax(&first);
            if language.is_none() {
                let likely = self.tokens.languages.values();
                let p = |id: &i64| first[*id as usize];
                language = likely.max_by(|a, b| p(a).total_cmp(&p(b))).copied();
            }
            let no_speech =
                self.tokens.no_speech.map_or(0.0, |id| f64::from(first[id as usize]).exp());
            let written = self.write(&cache, language, options, seek, size / STRIDE);
            if no_speech > SILENT && written.likely < LEAST_LIKELY {
                seek += size;
                continue;
            }
            let (found, step) = self.cut(&written.tokens, seek, size);
            for segment in found {
                told(&segment);
                segments.push(segment);
            }
            seek += step.max(1);
        }
        let name = |token: i64| {
            let mut names = self.tokens.languages.iter();
            names.find(|(_, id)| **id == token).map(|(name, _)| name.clone())
        };
        Ok(Transcript { language: language.and_then(name), segments })
    }

    /// `[F, M]`, filled up with zeros -> `[1, M, F]`
    fn features(&self, frames: &[f32], window: usize, bands: usize) -> Tensor<3> {
        let mut frames = frames.to_vec();
        frames.resize(window * bands, 0.0);
        let frames = TensorData::new(frames, [1, window, bands]);
        Tensor::<3>::from_data(frames, &self.device).swap_dims(1, 2)
    }

    /// Logits after the last of `tokens`.
    fn read(&self, mut cache: Cache, tokens: &[i64]) -> (Vec<f32>, Cache) {
        let ids: Vec<i32> = tokens.iter().map(|id| *id as i32).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [1, tokens.len()]), &self.device);
        let logits = self.model.next(ids, &mut cache).into_data();
        let logits = logits.convert_dtype(burn::tensor::DType::F32);
        (logits.try_into_vec::<f32>().expect("just converted to f32"), cache)
    }

    /// The text of a window, whose sound has so many ticks: the first that does not look wrong, else the last.
    fn write(
        &self,
        cache: &Cache,
        language: Option<i64>,
        options: &Options,
        seek: usize,
        ticks: usize,
    ) -> Written {
        let task = if options.translate { self.tokens.translate } else { self.tokens.transcribe };
        // A model of one language has neither token.
        let prompt: Vec<i64> = match self.tokens.languages.len() {
            0 => vec![],
            _ => language.into_iter().chain(task).collect(),
        };
        let mut last = None;
        for (number, temperature) in TEMPERATURES.into_iter().enumerate() {
            let seed = mix(mix(options.seed, seek as u64), number as u64);
            let written = self.draw(cache.clone(), &prompt, temperature, seed, ticks);
            let wrong =
                compression_ratio(&written.text) > MOST_REPEATED || written.likely < LEAST_LIKELY;
            last = Some(written);
            if !wrong || options.hurry {
                break;
            }
        }
        last.expect("there is a temperature")
    }

    fn draw(
        &self,
        cache: Cache,
        prompt: &[i64],
        temperature: f64,
        seed: u64,
        ticks: usize,
    ) -> Written {
        let mut coins = Coins::new(seed);
        // Half of the places are for a prompt.
        let most = self.model.config.max_target_positions / 2;
        let (mut logits, mut cache) = match prompt {
            [] => self.read(cache, &[self.tokens.start]),
            prompt => self.read(cache, prompt),
        };
        let mut tokens: Vec<i64> = vec![];
        let mut sum = 0.0;
        loop {
            self.rule(&mut logits, &tokens);
            let log_p = log_softmax(&logits);
            let token = match temperature == 0.0 {
                true => argmax(&log_p),
                false => pick(&logits, temperature, coins.within(0.0, 1.0)),
            };
            sum += f64::from(log_p[token]);
            if token as i64 == self.tokens.end || tokens.len() + 1 >= most {
                break;
            }
            tokens.push(token as i64);
            // What begins after the last sound is invented: often the same once more.
            let begins = |time: i64| time >= self.tokens.first_time() + ticks as i64;
            if matches!(tokens[..], [.., before, last] if begins(before) && begins(last)) {
                break;
            }
            (logits, cache) = self.read(cache, &tokens[tokens.len() - 1..]);
        }
        let text: Vec<i64> = tokens.iter().copied().filter(|id| *id < self.tokens.end).collect();
        let likely = sum / (tokens.len() + 1) as f64;
        Written { text: self.tokens.text(&text).trim().to_string(), tokens, likely }
    }

    /// Forbids what cannot follow `tokens`: times come in pairs, in order, first and last.
    fn rule(&self, logits: &mut [f32], tokens: &[i64]) {
        const NEVER: f32 = f32::NEG_INFINITY;
        let (end, time) = (self.tokens.end as usize, self.tokens.first_time() as usize);
        let suppressed = self
            .suppressed
            .iter()
            .chain(self.suppressed_first.iter().filter(|_| tokens.is_empty()));
        for id in suppressed.chain([&self.tokens.no_times]) {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = NEVER;
            }
        }
        let is_time = |token: Option<&i64>| token.is_some_and(|token| *token as usize >= time);
        let last = is_time(tokens.last());
        let before = tokens.len() < 2 || is_time(tokens.get(tokens.len().wrapping_sub(2)));
        match (last, before) {
            (true, true) => logits[time..].fill(NEVER),
            (true, false) => logits[..end].fill(NEVER),
            _ => {}
        }
        if let Some(latest) = tokens.iter().rev().find(|token| is_time(Some(token))) {
            // A segment has a length; but one may end where the next begins.
            let from = if last && !before { *latest } else { *latest + 1 } as usize;
            let until = from.min(logits.len());
            logits[time..until.max(time)].fill(NEVER);
        }
        if tokens.is_empty() {
            logits[..time].fill(NEVER);
            let late = (time + FIRST_TIME + 1).min(logits.len());
            logits[late..].fill(NEVER);
        }
        // Times together are likelier than any word: then it is one of them.
        let log_p = log_softmax(logits);
        let times: f64 = log_p[time..].iter().map(|x| f64::from(*x).exp()).sum();
        let word = log_p[..time].iter().copied().fold(NEVER, f32::max);
        if times.ln() > f64::from(word) {
            logits[..time].fill(NEVER);
        }
    }

    /// Segments of a window's tokens, and how many frames they account for.
    fn cut(&self, tokens: &[i64], seek: usize, size: usize) -> (Vec<Segment>, usize) {
        let time = self.tokens.first_time();
        let per_second = f64::from(RATE) / self.mel.config().hop_length as f64;
        let offset = seek as f64 / per_second;
        let seconds = |token: i64| (token - time) as f64 * TICK;
        let is_time = |token: &i64| *token >= time;
        let segment = |begin: f64, end: f64, tokens: &[i64]| {
            let text: Vec<i64> =
                tokens.iter().copied().filter(|id| *id < self.tokens.end).collect();
            let text = self.tokens.text(&text).trim().to_string();
            (!text.is_empty()).then_some(Segment { begin: offset + begin, end: offset + end, text })
        };
        let single = matches!(tokens, [.., a, b] if !is_time(a) && is_time(b));
        let pairs: Vec<usize> = (1..tokens.len())
            .filter(|i| is_time(&tokens[*i]) && is_time(&tokens[*i - 1]))
            .collect();
        if pairs.is_empty() {
            let last = tokens.iter().rev().find(|token| is_time(token) && **token != time);
            let end = last.map_or(size as f64 / per_second, |token| seconds(*token));
            return (segment(0.0, end, tokens).into_iter().collect(), size);
        }
        let ends = pairs.iter().copied().chain(single.then_some(tokens.len()));
        let (mut segments, mut begin) = (vec![], 0);
        for end in ends {
            let part = &tokens[begin..end];
            segments.extend(segment(seconds(part[0]), seconds(part[part.len() - 1]), part));
            begin = end;
        }
        // Without a pair at its end the window's last words are heard again in the next.
        let step = match single {
            true => size,
            false => (seconds(tokens[begin - 1]) * per_second).round() as usize,
        };
        (segments, step.min(size))
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
    let shift = most + sum.ln() as f32;
    logits.iter().map(|x| x - shift).collect()
}

/// The token at `place` of [0, 1) of the distribution at a temperature.
fn pick(logits: &[f32], temperature: f64, place: f64) -> usize {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: &f32| (f64::from(x - most) / temperature).exp();
    let mut left = place * logits.iter().map(weight).sum::<f64>();
    let drawn = logits.iter().position(|x| {
        left -= weight(x);
        left < 0.0
    });
    drawn.unwrap_or_else(|| argmax(logits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_letters() {
        let letters = byte_letters();
        assert_eq!(letters.len(), 256);
        assert_eq!((letters[&'A'], letters[&'Ġ'], letters[&'Ċ']), (65, 32, 10));
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY];
        let drawn = |place| pick(&logits, 1.0, place);
        assert_eq!([0.0, 0.3, 0.34, 0.99].map(drawn), [0, 0, 1, 1]);
        assert_eq!(pick(&logits, 0.01, 0.01), 1);
    }
}
