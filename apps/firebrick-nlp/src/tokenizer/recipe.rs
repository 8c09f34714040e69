//! `[tokenizer]` of a recipe.

use firebrick_core::checkpoint::Source;
use firebrick_train::recipe::{Check, RecipeError, changed};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TextTokenizer, train_byte_bpe, train_wordpiece};

/// `[tokenizer]`: trained on the training rows, or taken from the pretrained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerRecipe {
    pub kind: TokenizerKind,
    /// Most tokens in the vocabulary.
    pub vocab_size: usize,
    pub lowercase: bool,
    /// Rarer pieces do not become tokens.
    pub min_frequency: u64,
    /// Tokens of a text that are kept, special ones included.
    pub max_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// BERT's pieces; Chinese characters stand alone.
    Wordpiece,
    /// Byte-level byte-pair encoding, as in GPT-2 and RoBERTa: no text is unknown.
    ByteBpe,
    /// That of `model.pretrained`.
    Pretrained,
}

impl Default for TokenizerRecipe {
    fn default() -> Self {
        Self {
            kind: TokenizerKind::Wordpiece,
            vocab_size: 8000,
            lowercase: true,
            min_frequency: 2,
            max_len: 128,
        }
    }
}

impl Check for TokenizerRecipe {
    fn check(&self) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        if !(3..=4096).contains(&self.max_len) {
            return fail(
                "tokenizer.max_len",
                format!("is {}, not within 3 and 4096", self.max_len),
            );
        }
        if !(16..=1_000_000).contains(&self.vocab_size) {
            let problem = format!("is {}, not within 16 and 1000000", self.vocab_size);
            return fail("tokenizer.vocab_size", problem);
        }
        if self.kind == TokenizerKind::ByteBpe && self.lowercase != Self::default().lowercase {
            return fail(
                "tokenizer.lowercase",
                "is for `wordpiece`: bytes stay as they are".into(),
            );
        }
        if self.kind == TokenizerKind::Pretrained
            && let Some(key) = changed(self, &Self::default(), &["kind", "max_len"])
        {
            let problem = "does nothing beside the tokenizer of `model.pretrained`";
            return fail(&format!("tokenizer.{key}"), problem.into());
        }
        Ok(())
    }
}

impl TokenizerRecipe {
    /// Trained on `texts`, or that of `pretrained`.
    pub fn make<'a>(
        &self,
        texts: impl Iterator<Item = &'a str> + Send,
        pretrained: Option<&Source>,
    ) -> anyhow::Result<TextTokenizer> {
        match (self.kind, pretrained) {
            (TokenizerKind::Wordpiece, _) => {
                Ok(train_wordpiece(texts, self.vocab_size, self.lowercase, self.min_frequency)?)
            }
            (TokenizerKind::ByteBpe, _) => {
                Ok(train_byte_bpe(texts, self.vocab_size, self.min_frequency, true)?)
            }
            (TokenizerKind::Pretrained, Some(source)) => TextTokenizer::open(source),
            (TokenizerKind::Pretrained, None) => {
                anyhow::bail!("the recipe's `model.pretrained` was not opened")
            }
        }
    }
}
