//! A recurrent tagger: features of words into a bidirectional LSTM, a label for every word and one for the sentence.
//!
//! Papers: Plank et al. 2016 (tagging with BiLSTMs and parts of words), <https://arxiv.org/abs/1604.05529>; Serrà and
//! Karatzoglou 2017 (several small tables in place of one), <https://arxiv.org/abs/1706.03993>; Liu and Lane 2016 (intent
//! and slots from one encoder), <https://arxiv.org/abs/1609.01454>. An architecture of our own: `transformers` has none
//! like it.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` words, `F` features of a word, `C` channels of all features, `H` units of a direction, `K` tags, `L`
//! labels of a sentence.

use std::path::Path;

use burn::{module::Module, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    inputs::{InputError, Inputs},
};
use crate::{
    checkpoint::{
        LoadError, Source, config,
        names::{Names, rename},
        tensors::{self, Coverage, SaveType},
    },
    layers::{
        dropout::Dropout,
        embedding::Embedding,
        linear::Linear,
        rnn::{self, Mode, Rnn, RnnConfig},
    },
};

/// Sizes of a [`Tagger`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaggerConfig {
    /// Rows and channels of each feature's table.
    pub features: Vec<[usize; 2]>,
    /// `H`
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub dropout: f64,
    /// `K`; 0 for a model that labels sentences only.
    pub num_tags: usize,
    /// `L`; 0 for a model that labels words only.
    #[serde(default)]
    pub num_labels: usize,
}

impl TaggerConfig {
    /// `config.json`; `tags` and `labels` are the names of the classes.
    pub fn to_json(&self, tags: &[String], labels: &[String]) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!("firebrick-tagger");
        value["architectures"] = json!(["FirebrickTagger"]);
        value["tags"] = json!(tags);
        value["labels"] = json!(labels);
        value
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["FirebrickTagger"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("features", self.features.len(), 64)?;
        for [rows, width] in &self.features {
            config::size("features", *rows, 10_000_000)?;
            config::size("features", *width, 4096)?;
        }
        config::size("hidden_size", self.hidden_size, 16_384)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 100)?;
        config::probability("dropout", self.dropout)?;
        if self.num_tags + self.num_labels == 0 {
            return Err("num_tags and num_labels are both 0".into());
        }
        match self.num_tags.max(self.num_labels) {
            most if most > 1_000_000 => Err(format!("{most} classes, above the limit of 1000000")),
            _ => Ok(()),
        }
    }

    pub fn init(&self, device: &Device) -> Tagger {
        let width = self.features.iter().map(|[_, width]| width).sum();
        let rnn = RnnConfig {
            num_layers: self.num_hidden_layers,
            bidirectional: true,
            dropout: self.dropout,
            ..RnnConfig::new(Mode::Lstm, width, self.hidden_size)
        };
        let head = |classes: usize| {
            (classes > 0).then(|| Linear::new(2 * self.hidden_size, classes, 0.05, device))
        };
        Tagger {
            tables: self
                .features
                .iter()
                .map(|[rows, width]| Embedding::new(*rows, *width, 0.1, device))
                .collect(),
            rnn: rnn.init(device),
            dropout: Dropout::new(self.dropout),
            tags: head(self.num_tags),
            labels: head(self.num_labels),
        }
    }
}

/// Numbers of features in, scores of tags and of labels out.
#[derive(Module, Debug)]
pub struct Tagger {
    tables: Vec<Embedding>,
    rnn: Rnn,
    dropout: Dropout,
    tags: Option<Linear>,
    labels: Option<Linear>,
}

/// Logits; a part is there where the model has a head for it.
pub struct Scores {
    /// `[B, T, K]`
    pub tags: Option<Tensor<3>>,
    /// `[B, L]`
    pub labels: Option<Tensor<2>>,
}

impl Tagger {
    /// - `features`: `[B, T]` for each feature
    /// - `pad`: `[B, T]`, true where padding
    pub fn forward(&self, features: Vec<Tensor<2, Int>>, pad: Tensor<2, Bool>) -> Scores {
        let vectors: Vec<Tensor<3>> =
            self.tables.iter().zip(features).map(|(table, ids)| table.forward(ids)).collect();
        let x = self.dropout.locked(Tensor::cat(vectors, 2)); // [B, T, C]
        let (x, _) = self.rnn.forward(x, None, Some(&pad)); // [B, T, 2 H]
        let labels = self.labels.as_ref().map(|head| {
            let hidden = pad.unsqueeze_dim::<3>(2).expand(x.dims());
            let strongest = x.clone().mask_fill(hidden, -1.0).max_dim(1).squeeze_dim::<2>(1);
            head.forward(self.dropout.forward(strongest))
        });
        let tags = self.tags.as_ref().map(|head| head.forward(self.dropout.locked(x)));
        Scores { tags, labels }
    }
}

#[rustfmt::skip]
const TABLES: Names = &[
    // checkpoint         field
    ("features.{}.",      "tables.{}."),
    ("tagger.",           "tags."),
    ("classifier.",       "labels."),
];

fn name(field: &str) -> Option<String> {
    match field.strip_prefix("rnn.") {
        Some(inner) => Some(format!("rnn.{}", rename(rnn::NAMES, inner)?)),
        None => rename(TABLES, field),
    }
}

/// A [`Tagger`] with its configuration.
pub struct FirebrickTagger {
    pub config: TaggerConfig,
    pub model: Tagger,
}

impl FirebrickTagger {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(TaggerConfig::from_json)?;
        let weights = source.weights()?;
        let all = Coverage { ignored: &[], fresh: &[] };
        let model = tensors::fill(config.init(device), &weights, &all, name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for FirebrickTagger {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let mut features = vec![];
        for (index, [rows, _]) in self.config.features.iter().enumerate() {
            features.push(inputs.ids(&format!("features_{index}"), *rows)?);
        }
        let shape = features[0].dims();
        let pad = inputs.padding("attention_mask", shape)?;
        let pad = pad.unwrap_or_else(|| Tensor::zeros(shape, &features[0].device()));
        let scores = self.model.forward(features, pad);
        let tags = scores.tags.map(|tags| ("logits", tags.into_data()));
        let labels = scores.labels.map(|labels| ("sentence_logits", labels.into_data()));
        Ok(tags.into_iter().chain(labels).collect())
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, name)
    }
}
