//! Text to token ids: trained from rows, kept as `tokenizer.json`.

mod check;
mod pattern;
pub mod recipe;

use std::{collections::BTreeSet, ops::Range, path::Path};

use anyhow::Context;
use firebrick_core::checkpoint::{Source, json, tensors::write_atomically, tokenizer};
use serde_json::Value;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer, TokenizerBuilder, Trainer,
    decoders::{
        byte_level::ByteLevel as ByteLevelDecoder, wordpiece::WordPiece as WordPieceDecoder,
    },
    models::{
        bpe::{BPE, BpeTrainer},
        wordpiece::WordPiece,
    },
    normalizers::bert::BertNormalizer,
    pre_tokenizers::{bert::BertPreTokenizer, byte_level::ByteLevel},
    processors::template::TemplateProcessing,
};

/// Longest `tokenizer.json`: half as much again as the largest in use (Gemma).
const FILE_LIMIT: u64 = 48 << 20;

/// Longest text that is encoded, in bytes; what follows is hardly among the tokens that are kept.
const TEXT_LIMIT: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("{0}")]
    Json(String),
    #[error(transparent)]
    Structure(#[from] check::TokenizerProblem),
    #[error("{path}: {problem}", path = path.display())]
    File { path: std::path::PathBuf, problem: Box<TokenizerError> },
    #[error("is not a tokenizer: {0}")]
    Invalid(String),
    #[error("cannot train a tokenizer: {0}")]
    Train(String),
    #[error("cannot write {path}", path = path.display())]
    Write { path: std::path::PathBuf, source: std::io::Error },
}

/// A tokenizer with the special tokens that a model needs.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// Bytes of a text that are looked at.
    text_limit: usize,
    pad: Option<u32>,
    /// A byte-level tokenizer may have none.
    unknown: Option<u32>,
}

impl TextTokenizer {
    /// That of a model folder.
    pub fn open(source: &Source) -> anyhow::Result<Self> {
        Self::from_bytes(&source.read("tokenizer.json", FILE_LIMIT)?)
            .with_context(|| source.path("tokenizer.json").display().to_string())
    }

    /// Parses the text of a `tokenizer.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let value = json::parse_strict(bytes).map_err(|e| TokenizerError::Json(e.to_string()))?;
        let structure = check::check(&value)?;
        drop(value);
        let inner =
            Tokenizer::from_bytes(bytes).map_err(|e| TokenizerError::Invalid(e.to_string()))?;
        let text_limit = structure.text_limit.unwrap_or(TEXT_LIMIT).min(TEXT_LIMIT);
        Self::new(inner, text_limit)
    }

    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let bytes =
            json::read_bytes(path, FILE_LIMIT).map_err(|e| TokenizerError::Json(e.to_string()));
        bytes.and_then(|bytes| Self::from_bytes(&bytes)).map_err(|problem| TokenizerError::File {
            path: path.to_path_buf(),
            problem: Box::new(problem),
        })
    }

    fn new(mut inner: Tokenizer, text_limit: usize) -> Result<Self, TokenizerError> {
        // Lengths are the caller's: a file's own padding and truncation would change them unseen.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| TokenizerError::Invalid(e.to_string()))?;
        let find = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let unknown = find(&["[UNK]", "<unk>"]);
        let pad = find(&["[PAD]", "<pad>", "<|endoftext|>"]);
        Ok(Self { inner, text_limit, pad, unknown })
    }

    /// Token ids, special ones included; at most `max_len`, of which a special one at the
    /// end stays.
    pub fn encode(&self, text: &str, max_len: usize) -> Vec<u32> {
        self.encode_with(text, max_len, true)
    }

    /// As [`Self::encode`]; with special tokens around the text if `special`.
    pub fn encode_with(&self, text: &str, max_len: usize, special: bool) -> Vec<u32> {
        let Ok(encoding) = self.inner.encode_fast(self.cut(text), special) else {
            return vec![self.unknown_id()];
        };
        let ends = encoding.get_special_tokens_mask().last() == Some(&1);
        shortened(encoding.get_ids().to_vec(), max_len, ends)
    }

    /// As [`Self::encode`], with the bytes of the text that each token stands for; none for a special one.
    pub fn encode_spans(&self, text: &str, max_len: usize) -> Vec<(u32, Range<usize>)> {
        let text = self.cut(text);
        let Ok(encoding) = self.inner.encode(text, true) else {
            return vec![(self.unknown_id(), 0..0)];
        };
        let span = |(id, (start, end)): (&u32, &(usize, usize))| {
            let end = text.ceil_char_boundary((*end).min(text.len()));
            (*id, text.floor_char_boundary(*start)..end)
        };
        let spans = encoding.get_ids().iter().zip(encoding.get_offsets()).map(span).collect();
        let ends = encoding.get_special_tokens_mask().last() == Some(&1);
        shortened(spans, max_len, ends)
    }

    fn cut<'t>(&self, text: &'t str) -> &'t str {
        &text[..text.floor_char_boundary(self.text_limit)]
    }

    /// Tokens as text, as they were cut.
    pub fn tokens(&self, text: &str) -> Vec<String> {
        self.inner.encode(self.cut(text), true).map_or_else(|_| vec![], |e| e.get_tokens().to_vec())
    }

    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// Whether a token is a byte, as `<0x0A>`: bytes become characters, or none, together with those beside them.
    pub fn is_byte(&self, id: u32) -> bool {
        let token = self.inner.id_to_token(id).unwrap_or_default();
        token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// With a token in place of one to be guessed, and its id.
    pub fn with_mask(mut self) -> (Self, u32) {
        const NAMES: [&str; 2] = ["[MASK]", "<mask>"];
        let id = NAMES.iter().find_map(|name| self.token_id(name)).unwrap_or_else(|| {
            let id = self.vocab_size() as u32;
            self.inner.add_special_tokens(special(&NAMES[..1])).expect("it is not there yet");
            id
        });
        (self, id)
    }

    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
    }

    /// What a batch is filled up with. Padding is masked, so that any token can stand there.
    pub fn pad_id(&self) -> u32 {
        self.pad.unwrap_or_else(|| self.unknown_id())
    }

    /// What stands for text that the tokenizer cannot cut; 0 when it has no such token.
    pub fn unknown_id(&self) -> u32 {
        self.unknown.unwrap_or(0)
    }

    /// Writes `tokenizer.json`, and what lets `transformers` cut as it says, into the folder of a model that reads texts of
    /// so many tokens.
    pub fn save(&self, dir: &Path, longest: Option<usize>) -> Result<(), TokenizerError> {
        let invalid = |problem: String| TokenizerError::Invalid(problem);
        let text = self.inner.to_string(false).map_err(|e| invalid(e.to_string()))?;
        let value = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        let config = tokenizer::config(&value, longest);
        for (file, text) in
            [("tokenizer.json", text), ("tokenizer_config.json", format!("{config:#}"))]
        {
            let path = dir.join(file);
            write_atomically(&path, text.as_bytes())
                .map_err(|source| TokenizerError::Write { path, source })?;
        }
        Ok(())
    }
}

/// Most tokens of a text, special ones included, by a `tokenizer_config.json`: 1e30 stands for any number, and so does what is no
/// length.
pub fn longest_of(config: &Value) -> usize {
    let values = [&config["model_max_length"], &config["max_len"]];
    let longest = values.into_iter().find_map(Value::as_f64).filter(|longest| *longest >= 2.0);
    longest.map_or(usize::MAX, |longest| longest as usize)
}

/// At most `max_len` tokens, of which a special one at the end stays.
fn shortened<T: Clone>(mut tokens: Vec<T>, max_len: usize, ends_specially: bool) -> Vec<T> {
    if tokens.len() > max_len {
        let end = tokens.last().cloned().filter(|_| ends_specially);
        tokens.truncate(max_len);
        if let (Some(last), Some(end)) = (tokens.last_mut(), end) {
            *last = end;
        }
    }
    tokens
}

fn special(names: &[&str]) -> Vec<AddedToken> {
    names.iter().map(|name| AddedToken::from(*name, true)).collect()
}

fn template(start: &str, end: &str, ids: [u32; 2]) -> Result<TemplateProcessing, TokenizerError> {
    TemplateProcessing::builder()
        .try_single(format!("{start} $A {end}"))
        .map_err(TokenizerError::Train)?
        .try_pair(format!("{start} $A {end} $B:1 {end}:1"))
        .map_err(TokenizerError::Train)?
        .special_tokens(vec![(start, ids[0]), (end, ids[1])])
        .build()
        .map_err(|e| TokenizerError::Train(e.to_string()))
}

/// BERT's WordPiece; Chinese characters stand alone. Ids: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4.
pub fn train_wordpiece<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
    lowercase: bool,
    min_frequency: u64,
) -> Result<TextTokenizer, TokenizerError> {
    let fail = |e: tokenizers::Error| TokenizerError::Train(e.to_string());
    let normalizer = BertNormalizer::new(true, true, Some(lowercase), lowercase);
    let words = |text: &str| -> tokenizers::Result<Vec<String>> {
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text)?;
        let mut text = PreTokenizedString::from(text);
        BertPreTokenizer.pre_tokenize(&mut text)?;
        let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, ..)| word.to_string()).collect())
    };
    // The trainer numbers the pieces `##c` as a hash map brings the words up, and breaks ties between
    // merges by number. Named first and in order, they make the same file every time.
    let texts: Vec<&str> = texts.collect();
    let mut inside = BTreeSet::new();
    for text in &texts {
        for word in words(text).map_err(fail)? {
            inside.extend(word.chars().skip(1));
        }
    }
    let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let mut first = special(&names);
    first.extend(inside.iter().map(|c| AddedToken::from(format!("##{c}"), false)));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(min_frequency)
        .show_progress(false)
        .continuing_subword_prefix("##".into())
        .special_tokens(first)
        .build();
    trainer.feed(texts.iter(), words).map_err(fail)?;
    let mut bpe = BPE::default();
    trainer.train(&mut bpe).map_err(fail)?;
    let mut model = WordPiece::from_bpe(&bpe);
    model.unk_token = "[UNK]".into();
    let mut inner = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(normalizer))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(template("[CLS]", "[SEP]", [2, 3])?))
        .with_decoder(Some(WordPieceDecoder::default()))
        .build()
        .map_err(fail)?;
    inner.add_special_tokens(special(&names)).map_err(fail)?;
    finish(inner.to_string(false).map_err(fail)?)
}

/// Byte-level BPE; `prefix_space` lets a text begin as a word in its middle does, and decoding then puts a space before
/// it. Ids as RoBERTa's: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` 4.
pub fn train_byte_bpe<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
    min_frequency: u64,
    prefix_space: bool,
) -> Result<TextTokenizer, TokenizerError> {
    let fail = |e: tokenizers::Error| TokenizerError::Train(e.to_string());
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(min_frequency)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special(&["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))
        .build();
    let mut inner = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<BertNormalizer>)
        .with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(prefix_space)))
        .with_post_processor(Some(template("<s>", "</s>", [0, 2])?))
        .with_decoder(Some(ByteLevelDecoder::default()))
        .build()
        .map_err(fail)?;
    inner.train(&mut trainer, texts).map_err(fail)?;
    finish(inner.to_string(false).map_err(fail)?)
}

/// Typed while it is trained, read back as the general kind that every file opens as.
fn finish(text: String) -> Result<TextTokenizer, TokenizerError> {
    TextTokenizer::from_bytes(text.as_bytes())
}
