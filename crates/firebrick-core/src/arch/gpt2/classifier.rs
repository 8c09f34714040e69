//! A GPT-2 that classifies texts by what it knows at their last token (Radford et al. 2018, "Improving Language
//! Understanding by Generative Pre-Training", section 3.2).

use std::path::Path;

use burn::{module::Module, prelude::*};
use serde_json::{Value, json};

use super::{Gpt2, Gpt2Config, IGNORED, NAMES, names_in};
use crate::{
    arch::{
        AnyModel, Output, architecture, image,
        inputs::{InputError, Inputs, check_length},
        text::{classes, labels_in_order, numbered},
    },
    checkpoint::{
        LoadError, Source,
        names::rename,
        tensors::{self, Coverage, SaveType},
    },
    layers::linear::Linear,
};

const ARCHITECTURE: &str = "GPT2ForSequenceClassification";
const SCORE: &str = "score.weight";

impl Gpt2Config {
    /// `config.json` of a classifier, as `transformers` reads it.
    pub fn classifier_json(&self) -> Value {
        let mut value = self.json_of(ARCHITECTURE);
        image::name_labels(&mut value, &labels_in_order(&self.id2label));
        value
    }

    fn of_classifier(value: &Value) -> Result<Self, String> {
        architecture(value, &[ARCHITECTURE])?;
        Self::parse(value)
    }

    pub fn set_labels(&mut self, labels: &[String]) {
        self.id2label = numbered(labels);
    }

    /// A classifier of `labels` classes with fresh weights.
    pub fn init_classifier(&self, labels: usize, device: &Device) -> Gpt2Classifier {
        let score = Linear::without_bias(self.n_embd, labels, self.initializer_range, device);
        Gpt2Classifier { decoder: self.init(device), score }
    }
}

/// Token ids in, logits of the text's classes out.
#[derive(Module, Debug)]
pub struct Gpt2Classifier {
    decoder: Gpt2,
    score: Linear,
}

impl Gpt2Classifier {
    /// The vectors of the words alone, `[B, T]` -> `[B, T, C]`.
    pub fn words(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.decoder.tokens.forward(ids)
    }

    /// Vectors of words, `[B, T, C]` -> logits `[B, L]`; `pad`: `[B, T]`, true behind a text's end.
    pub fn forward_words(&self, words: Tensor<3>, pad: Option<Tensor<2, Bool>>) -> Tensor<2> {
        let [b, t, c] = words.dims();
        let last = match &pad {
            None => Tensor::full([b, 1], t as i64 - 1, &words.device()),
            Some(pad) => pad.clone().bool_not().int().sum_dim(1) - 1,
        };
        let last = last.reshape([b, 1, 1]).expand([b, 1, c]);
        let x = self.decoder.read(words, pad).gather(1, last).squeeze_dim::<2>(1); // [B, C]
        self.score.forward(self.decoder.norm.forward(x))
    }

    /// With logits divided by `temperature`.
    pub fn tempered(self, temperature: f64) -> Self {
        Self { score: self.score.scaled(1.0 / temperature), ..self }
    }

    /// `L`
    pub fn labels(&self) -> usize {
        self.score.width()
    }
}

/// Checkpoint name of a classifier's field.
pub fn classifier_name(field: &str) -> Option<String> {
    match field.strip_prefix("decoder.") {
        Some(field) => rename(NAMES, field),
        None => Some(field.to_string()),
    }
}

/// `transformers.GPT2ForSequenceClassification`.
pub struct Gpt2ForSequenceClassification {
    pub config: Gpt2Config,
    pub model: Gpt2Classifier,
}

impl Gpt2ForSequenceClassification {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(Gpt2Config::of_classifier)?;
        let weights = source.weights()?;
        let labels = classes(source, &weights, SCORE, &config.id2label)?;
        let coverage = Coverage { ignored: IGNORED, fresh: &[] };
        let model = config.init_classifier(labels, device);
        let model = tensors::fill(model, &weights, &coverage, classifier_name)?;
        Ok(Self { config, model })
    }

    /// Opens a GPT-2 of any head to be fine-tuned: it gets a fresh one unless it is a classifier with just these labels.
    pub fn pretrained(
        source: &Source,
        labels: &[String],
        device: &Device,
    ) -> Result<Self, LoadError> {
        let mut config = source.config_as(Gpt2Config::parse)?;
        if !labels.is_empty() && labels_in_order(&config.id2label) == labels {
            return Self::load(source, device);
        }
        config.set_labels(labels);
        let weights = source.weights()?;
        let coverage = Coverage { ignored: &[IGNORED, &["score."]].concat(), fresh: &["score."] };
        let name = names_in(&weights, classifier_name);
        let model = config.init_classifier(labels.len(), device);
        let model = tensors::fill(model, &weights, &coverage, |field| match field {
            SCORE => None,
            field => name(field),
        })?;
        Ok(Self { config, model })
    }

    /// What `config.json` says it is.
    pub(in crate::arch) fn is_one(config: &Value) -> bool {
        config.pointer("/architectures/0") == Some(&json!(ARCHITECTURE))
    }
}

impl AnyModel for Gpt2ForSequenceClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        check_length(ids.dims()[1], self.config.n_positions)?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        let logits = self.model.forward_words(self.model.words(ids), pad);
        Ok(vec![("logits", logits.into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, classifier_name)
    }
}
