//! Both tasks of BERT's pre-training, `BertForPreTraining`: masked words, and whether the second of two pieces of text
//! followed the first (Devlin et al. 2018, section 3.1).
//!
//! Only BERT has the second one; it trains the first token and the pooler, which a classifier begins with.

use std::path::Path;

use burn::{module::Module, prelude::*};

use super::{BertConfig, ModelType, first_token, masked_lm::BertMaskedLm};
use crate::{
    checkpoint::{
        LoadError, Source,
        names::{Names, rename},
        tensors::{self, Coverage},
    },
    layers::linear::Linear,
};

/// An encoder with the heads of pre-training.
#[derive(Module, Debug)]
pub struct BertPreTraining {
    pub words: BertMaskedLm,
    /// Absent where masked words are all that is guessed.
    pub next: Option<NextSentence>,
}

/// Says of a pair whether the second piece followed the first.
#[derive(Module, Debug)]
pub struct NextSentence {
    pooler: Linear,
    relation: Linear,
}

impl NextSentence {
    /// `[B, T, C]` -> `[B, 2]`; the first of the two stands for "it followed"
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.relation.forward(self.pooler.forward(first_token(hidden)).tanh())
    }
}

impl BertConfig {
    /// Encoder and heads with fresh weights.
    pub fn init_pretraining(&self, next_sentence: bool, device: &Device) -> BertPreTraining {
        let (c, std) = (self.hidden_size, self.initializer_range);
        BertPreTraining {
            words: self.init_masked_lm(device),
            next: next_sentence.then(|| NextSentence {
                pooler: Linear::new(c, c, std, device),
                relation: Linear::new(c, 2, std, device),
            }),
        }
    }

    /// What `config.json` holds for what [`Self::init_pretraining`] makes.
    pub fn pretraining_json(&self, next_sentence: bool) -> serde_json::Value {
        self.json_of(if next_sentence { "PreTraining" } else { "MaskedLM" })
    }
}

#[rustfmt::skip]
const NEXT: Names = &[
    // checkpoint               field
    ("bert.pooler.dense.",      "next.pooler."),
    ("cls.seq_relationship.",   "next.relation."),
];

/// Checkpoint name of a field.
fn name(family: ModelType, field: &str) -> Option<String> {
    match field.strip_prefix("words.") {
        Some(field) => family.masked_lm_name(field),
        None => rename(NEXT, field),
    }
}

/// Opens a folder of `BertForPreTraining`. Every parameter is filled from it.
pub fn load_pretraining(
    source: &Source,
    device: &Device,
) -> Result<(BertConfig, BertPreTraining), LoadError> {
    let config = BertConfig::read(source)?;
    let weights = source.weights()?;
    let tied = config.model_type.tied();
    let coverage = Coverage { ignored: &["embeddings.position_ids", tied[0], tied[1]], fresh: &[] };
    let fresh = config.init_pretraining(true, device);
    let model = tensors::fill(fresh, &weights, &coverage, |field| name(config.model_type, field))?;
    Ok((config, model))
}

/// Writes `model.safetensors` with the names that `transformers` expects.
pub fn save_pretraining(
    model: &BertPreTraining,
    config: &BertConfig,
    path: &Path,
    dtype: tensors::SaveType,
) -> Result<(), LoadError> {
    tensors::save(model, path, dtype, |field| name(config.model_type, field))
}
