//! The head that guesses masked words: `BertForMaskedLM`, `RobertaForMaskedLM`, `DistilBertForMaskedLM`.
//!
//! Its output layer is the token table (Devlin et al. 2018, section 3.1).
//!
//! Axis letters as in [`super`], and `V` vocabulary.

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
};

use super::{BertConfig, Encoder, ModelType};
use crate::{
    checkpoint::{
        LoadError, Source,
        names::{Names, rename},
        tensors::{self, Coverage},
    },
    layers::{activation::Activation, linear::Linear, norm::LayerNorm},
};

/// An encoder that says of every token which word may stand there.
#[derive(Module, Debug)]
pub struct BertMaskedLm {
    pub encoder: Encoder,
    dense: Linear,
    norm: LayerNorm,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl BertConfig {
    /// Encoder and language-modelling head with fresh weights.
    pub fn init_masked_lm(&self, device: &Device) -> BertMaskedLm {
        let c = self.hidden_size;
        BertMaskedLm {
            encoder: self.encoder(device),
            dense: Linear::new(c, c, self.initializer_range, device),
            norm: LayerNorm::new(c, self.layer_norm_eps, device),
            bias: Initializer::Zeros.init([self.vocab_size], device),
            activation: match self.model_type {
                ModelType::Roberta => Activation::Gelu, // whatever the encoder has
                ModelType::Bert | ModelType::Distilbert => self.hidden_act,
            },
        }
    }
}

impl BertMaskedLm {
    /// As [`Encoder::forward`]; returns logits `[B, T, V]`.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        segments: Option<Tensor<2, Int>>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        self.logits(self.encoder.forward(ids, segments, pad))
    }

    /// Of vectors from the encoder: `[.., C]` -> `[.., V]`. In training only the masked ones are asked for.
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        let x = self.norm.forward(self.activation.forward(self.dense.forward(hidden)));
        self.encoder.tokens.scores(x, Some(self.bias.val()))
    }
}

/// Names of the head, which stand outside the family's prefix.
#[rustfmt::skip]
const HEADS: &[(ModelType, Names)] = &[
    (ModelType::Bert, &[
        ("cls.predictions.transform.dense.",     "dense."),
        ("cls.predictions.transform.LayerNorm.", "norm."),
        ("cls.predictions.bias",                 "bias"),
    ]),
    (ModelType::Roberta, &[
        ("lm_head.dense.",                       "dense."),
        ("lm_head.layer_norm.",                  "norm."),
        ("lm_head.bias",                         "bias"),
    ]),
    (ModelType::Distilbert, &[
        ("vocab_transform.",                     "dense."),
        ("vocab_layer_norm.",                    "norm."),
        ("vocab_projector.bias",                 "bias"),
    ]),
];

impl ModelType {
    /// Checkpoint name of a field.
    pub(super) fn masked_lm_name(self, field: &str) -> Option<String> {
        let (_, head) = HEADS.iter().find(|(family, _)| *family == self)?;
        rename(head, field)
            .or_else(|| Some(format!("{}{}", self.prefix(), rename(self.names(), field)?)))
    }

    /// The output layer's weight and bias, where a file holds them again.
    pub(super) fn tied(self) -> [&'static str; 2] {
        match self {
            Self::Bert => ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"],
            Self::Roberta => ["lm_head.decoder.weight", "lm_head.decoder.bias"],
            Self::Distilbert => ["vocab_projector.weight", "vocab_projector.bias"],
        }
    }
}

/// Tensors that the head does not use: of a pooler and of the other task of pre-training, an index buffer.
const IGNORED: &[&str] =
    &["pooler.", "cls.seq_relationship.", "embeddings.position_ids", "decoder.bias"];

/// Opens a folder with a masked language model. Every parameter is filled from it.
pub fn load_masked_lm(
    source: &Source,
    device: &Device,
) -> Result<(BertConfig, BertMaskedLm), LoadError> {
    let config = BertConfig::read(source)?;
    let family = config.model_type;
    let weights = source.weights()?;
    let [weight, bias] = family.tied();
    for (field, copy) in [("encoder.tokens.weight", weight), ("bias", bias)] {
        let own = family.masked_lm_name(field).expect("the table has it");
        weights.one_of(&[own.as_str(), copy])?;
    }
    let coverage = Coverage { ignored: &[IGNORED, &[weight]].concat(), fresh: &[] };
    let model = config.init_masked_lm(device);
    let model = tensors::fill(model, &weights, &coverage, |field| family.masked_lm_name(field))?;
    Ok((config, model))
}

/// Writes `model.safetensors` with the names that `transformers` expects.
pub fn save_masked_lm(
    model: &BertMaskedLm,
    config: &BertConfig,
    path: &Path,
    dtype: tensors::SaveType,
) -> Result<(), LoadError> {
    let family = config.model_type;
    tensors::save(model, path, dtype, |field| family.masked_lm_name(field))
}
