//! Text classifiers of any family behind one door: made fresh, opened, fine-tuned, saved.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` tokens, `C` channels, `L` labels.

use std::{collections::BTreeMap, path::Path};

use burn::{module::Module, prelude::*};
use serde_json::Value;

use super::{
    bert::{self, BertClassifier, BertConfig, LoadedClassifier},
    bilstm::{self, Bilstm, BilstmConfig, BilstmForSequenceClassification},
    gpt2::{self, Gpt2Classifier, Gpt2Config, Gpt2ForSequenceClassification},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        tensors::{self, SaveType, Weights},
    },
    layers::split::Split,
    parallel::Lost,
};

/// Sizes of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum TextConfig {
    Bert(BertConfig),
    Gpt2(Gpt2Config),
    Bilstm(BilstmConfig),
}

/// Label names by class index, of `id2label`.
pub(super) fn labels_in_order(id2label: &BTreeMap<String, String>) -> Vec<String> {
    (0..id2label.len()).map_while(|i| id2label.get(&i.to_string()).cloned()).collect()
}

/// `id2label` of labels in order.
pub(super) fn numbered(labels: &[String]) -> BTreeMap<String, String> {
    labels.iter().enumerate().map(|(i, label)| (i.to_string(), label.clone())).collect()
}

/// Rows of the classifier's tensor `head`; as many as `id2label` names, if it names any.
pub(super) fn classes(
    source: &Source,
    weights: &Weights,
    head: &str,
    id2label: &BTreeMap<String, String>,
) -> Result<usize, LoadError> {
    let classes = weights.shape(head).and_then(|shape| shape.first().copied());
    let classes = classes.ok_or_else(|| LoadError::Unmatched {
        path: source.path("model.safetensors"),
        missing: vec![head.into()],
        unused: weights.names().take(8).map(str::to_string).collect(),
    })?;
    match id2label.len() {
        named if named > 0 && named != classes => Err(LoadError::Config {
            path: source.path("config.json"),
            problem: format!("id2label names {named} labels, the classifier has {classes}"),
        }),
        _ => Ok(classes),
    }
}

impl TextConfig {
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.vocab_size,
            Self::Gpt2(config) => config.vocab_size,
            Self::Bilstm(config) => config.vocab_size,
        }
    }

    /// Longest sequence that has a position for every token, or is no longer than what the model was trained on.
    pub fn longest(&self) -> usize {
        match self {
            Self::Bert(config) => config.longest(),
            Self::Gpt2(config) => config.n_positions,
            Self::Bilstm(config) => config.max_length,
        }
    }

    /// Label names by class index; empty when `id2label` is absent.
    pub fn labels(&self) -> Vec<String> {
        match self {
            Self::Bert(config) => config.labels(),
            Self::Gpt2(config) => labels_in_order(&config.id2label),
            Self::Bilstm(config) => config.labels(),
        }
    }

    /// Names the classes of a fresh model.
    pub fn set_labels(&mut self, labels: &[String]) {
        match self {
            Self::Bert(config) => config.set_labels(labels),
            Self::Gpt2(config) => config.set_labels(labels),
            Self::Bilstm(config) => config.set_labels(labels),
        }
    }

    /// Whether `members` processes can hold the model together.
    pub fn check_split(&self, members: usize) -> Result<(), String> {
        match self {
            Self::Bert(config) => config.check_split(members),
            Self::Gpt2(_) => Err("is for encoders, not for GPT-2".into()),
            Self::Bilstm(_) => Err("is for encoders, not for a BiLSTM".into()),
        }
    }

    /// A classifier of `labels` classes with fresh weights.
    pub fn init(&self, labels: usize, device: &Device) -> TextModel {
        match self {
            Self::Bert(config) => TextModel::Bert(config.init_classifier(labels, device)),
            Self::Gpt2(config) => TextModel::Gpt2(config.init_classifier(labels, device)),
            Self::Bilstm(config) => TextModel::Bilstm(config.init(labels, device)),
        }
    }

    /// `config.json` in the names that `transformers` reads, where it has the architecture.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Bert(config) => config.to_json(),
            Self::Gpt2(config) => config.classifier_json(),
            Self::Bilstm(config) => config.to_json(),
        }
    }

    /// What fills up the shorter texts of a batch; a decoder's file says so.
    pub fn set_pad_token(&mut self, id: u32) {
        if let Self::Gpt2(config) = self {
            config.pad_token_id = Some(id as usize);
        }
    }

    /// Checkpoint name of a field of its [`TextModel`].
    pub fn checkpoint_name(&self, field: &str) -> Option<String> {
        match self {
            Self::Bert(config) => config.model_type.classifier_name(field.strip_prefix("Bert.")?),
            Self::Gpt2(_) => gpt2::classifier_name(field.strip_prefix("Gpt2.")?),
            Self::Bilstm(_) => bilstm::checkpoint_name(field.strip_prefix("Bilstm.")?),
        }
    }

    /// Modules of the classification head, for an adapter that is trained beside it.
    pub fn head_modules(&self) -> &'static [&'static str] {
        match self {
            Self::Bert(config) => config.model_type.head_modules(),
            Self::Gpt2(_) => &["score"],
            Self::Bilstm(_) => &["classifier"],
        }
    }

    /// The layers that an adapter is for where nothing else is said: query and value. A BiLSTM has none of these.
    pub fn lora_targets(&self) -> &'static [&'static str] {
        match self {
            Self::Bert(config) => config.model_type.lora_targets(),
            Self::Gpt2(_) => &["c_attn"],
            Self::Bilstm(_) => &[],
        }
    }
}

/// Token ids in, logits of the text's classes out.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a process holds one or two of them")]
pub enum TextModel {
    Bert(BertClassifier),
    Gpt2(Gpt2Classifier),
    Bilstm(Bilstm),
}

impl TextModel {
    /// - `ids`: `[B, T]`, each below the size of the vocabulary
    /// - `pad`: `[B, T]`, true where the position is padding, behind the text; `None` where none is
    /// - returns logits `[B, L]`
    pub fn forward(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Tensor<2> {
        self.forward_words(self.words(ids.clone()), ids, pad)
    }

    /// The vectors of the words alone, `[B, T, C]`: what [`Self::forward`] begins with.
    pub fn words(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match self {
            Self::Bert(model) => model.encoder.words(ids),
            Self::Gpt2(model) => model.words(ids),
            Self::Bilstm(model) => model.words(ids),
        }
    }

    /// As [`Self::forward`], with other vectors `words` (`[B, T, C]`) in place of those of the ids.
    pub fn forward_words(
        &self,
        words: Tensor<3>,
        ids: Tensor<2, Int>,
        pad: Option<Tensor<2, Bool>>,
    ) -> Tensor<2> {
        match self {
            Self::Bert(model) => model.classify(model.encoder.forward_words(words, ids, None, pad)),
            Self::Gpt2(model) => model.forward_words(words, pad),
            Self::Bilstm(model) => model.forward_words(words, pad),
        }
    }

    /// This member's part of a model that [`TextConfig::check_split`] lets be divided.
    pub fn split(self, split: &Split) -> Self {
        match self {
            Self::Bert(model) => Self::Bert(model.split(split)),
            Self::Gpt2(_) | Self::Bilstm(_) => unreachable!("it goes whole to every process"),
        }
    }

    /// The whole model from the members' parts. All of them call it.
    pub fn join(self, split: &Split) -> Result<Self, Lost> {
        match self {
            Self::Bert(model) => model.join(split).map(Self::Bert),
            Self::Gpt2(_) | Self::Bilstm(_) => Ok(self),
        }
    }

    /// With logits divided by `temperature`, which calibrates the probabilities and changes no answer.
    pub fn tempered(self, temperature: f64) -> Self {
        match self {
            Self::Bert(model) => Self::Bert(model.tempered(temperature)),
            Self::Gpt2(model) => Self::Gpt2(model.tempered(temperature)),
            Self::Bilstm(model) => Self::Bilstm(model.tempered(temperature)),
        }
    }

    /// `L`
    pub fn labels(&self) -> usize {
        match self {
            Self::Bert(model) => model.labels(),
            Self::Gpt2(model) => model.labels(),
            Self::Bilstm(model) => model.labels(),
        }
    }
}

/// A model with its sizes, as a checkpoint holds them.
pub struct TextClassifierModel {
    pub config: TextConfig,
    pub model: TextModel,
}

impl TextClassifierModel {
    /// Opens a folder with a classifier. Every parameter is filled from it.
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        Ok(match family(source)? {
            Family::Bert => bert::load_classifier(source, device)?.into(),
            Family::Gpt2 => Gpt2ForSequenceClassification::load(source, device)?.into(),
            Family::Bilstm => BilstmForSequenceClassification::load(source, device)?.into(),
        })
    }

    /// Opens a checkpoint to go on from: with its own head if it has just these labels, else with a fresh one.
    pub fn pretrained(
        source: &Source,
        labels: &[String],
        device: &Device,
    ) -> Result<Self, LoadError> {
        Ok(match family(source)? {
            Family::Bert => bert::load_pretrained(source, labels, device)?.into(),
            Family::Gpt2 => {
                Gpt2ForSequenceClassification::pretrained(source, labels, device)?.into()
            }
            Family::Bilstm => {
                BilstmForSequenceClassification::pretrained(source, labels, device)?.into()
            }
        })
    }
}

enum Family {
    Bert,
    Gpt2,
    Bilstm,
}

fn family(source: &Source) -> Result<Family, LoadError> {
    source.config_as(|value| {
        let known = ["bert", "roberta", "distilbert", "gpt2", bilstm::MODEL_TYPE];
        config::check_model_type(value, &known)?;
        Ok(match value["model_type"].as_str() {
            Some("gpt2") => Family::Gpt2,
            Some(bilstm::MODEL_TYPE) => Family::Bilstm,
            _ => Family::Bert,
        })
    })
}

impl From<LoadedClassifier> for TextClassifierModel {
    fn from(loaded: LoadedClassifier) -> Self {
        Self { config: TextConfig::Bert(loaded.config), model: TextModel::Bert(loaded.model) }
    }
}

impl From<Gpt2ForSequenceClassification> for TextClassifierModel {
    fn from(loaded: Gpt2ForSequenceClassification) -> Self {
        Self { config: TextConfig::Gpt2(loaded.config), model: TextModel::Gpt2(loaded.model) }
    }
}

impl From<BilstmForSequenceClassification> for TextClassifierModel {
    fn from(loaded: BilstmForSequenceClassification) -> Self {
        Self { config: TextConfig::Bilstm(loaded.config), model: TextModel::Bilstm(loaded.model) }
    }
}

/// Writes `model.safetensors` with the names that `transformers` expects.
pub fn save(
    model: &TextModel,
    config: &TextConfig,
    path: &Path,
    dtype: SaveType,
) -> Result<(), LoadError> {
    tensors::save(model, path, dtype, |field| config.checkpoint_name(field))
}
