//! A bidirectional LSTM that classifies texts by the strongest of its states. No architecture of `transformers`.
//!
//! Papers: Tang et al. 2019 (a BiLSTM as the student of a BERT), <https://arxiv.org/abs/1903.12136>; Conneau et al. 2017
//! (the maximum over the states in place of the last ones), <https://arxiv.org/abs/1705.02364>.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` tokens, `E` channels of a word (`embedding_size`), `H` units of a direction, `L` labels.

use std::{collections::BTreeMap, path::Path};

use burn::{module::Module, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AnyModel, Output, architecture,
    image::{self, Head},
    inputs::{InputError, Inputs, check_length},
    text::{classes, labels_in_order, numbered},
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

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "firebrick-bilstm";

const ARCHITECTURE: &str = "BilstmForSequenceClassification";

/// Sizes of a [`Bilstm`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BilstmConfig {
    pub vocab_size: usize,
    /// `E`
    pub embedding_size: usize,
    /// `H`
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    /// Tokens of the longest text that it was trained on. It has no positions, but what is behind them is nothing it knows.
    pub max_length: usize,
    /// Of word vectors, the same channels in all steps, and of what goes from layer to layer.
    pub hidden_dropout_prob: f64,
    /// Before the classifier.
    pub classifier_dropout: f64,
    /// Label names by class index, a number as text.
    #[serde(default)]
    pub id2label: BTreeMap<String, String>,
}

impl BilstmConfig {
    /// As the student of Tang et al. 2019, section 4.2, has it: one layer of 150 units a direction over 300 channels.
    pub fn student() -> Self {
        Self {
            vocab_size: 30_522,
            embedding_size: 300,
            hidden_size: 150,
            num_hidden_layers: 1,
            max_length: 128,
            hidden_dropout_prob: 0.1,
            classifier_dropout: 0.1,
            id2label: BTreeMap::new(),
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::student`].
    pub fn tiny() -> Self {
        Self {
            vocab_size: 64,
            embedding_size: 10,
            hidden_size: 7,
            num_hidden_layers: 2,
            max_length: 32,
            ..Self::student()
        }
    }

    fn parse(value: &Value) -> Result<Self, String> {
        architecture(value, &[ARCHITECTURE])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    /// `config.json`.
    pub fn to_json(&self) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!(MODEL_TYPE);
        value["architectures"] = json!([ARCHITECTURE]);
        image::name_labels(&mut value, &self.labels());
        value
    }

    /// Label names by class index.
    pub fn labels(&self) -> Vec<String> {
        labels_in_order(&self.id2label)
    }

    pub fn set_labels(&mut self, labels: &[String]) {
        self.id2label = numbered(labels);
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("embedding_size", self.embedding_size, 65_536)?;
        config::size("hidden_size", self.hidden_size, 16_384)?;
        config::size("num_hidden_layers", self.num_hidden_layers, 100)?;
        config::size("max_length", self.max_length, 1 << 20)?;
        config::probability("hidden_dropout_prob", self.hidden_dropout_prob)?;
        config::probability("classifier_dropout", self.classifier_dropout)
    }

    /// With fresh weights, for so many labels.
    pub fn init(&self, labels: usize, device: &Device) -> Bilstm {
        /// Deviation of fresh word vectors: a state is to begin as a matter of the words.
        const WORDS: f64 = 0.1;
        let rnn = RnnConfig {
            num_layers: self.num_hidden_layers,
            bidirectional: true,
            dropout: self.hidden_dropout_prob,
            ..RnnConfig::new(Mode::Lstm, self.embedding_size, self.hidden_size)
        };
        let states = 2 * self.hidden_size;
        Bilstm {
            tokens: Embedding::new(self.vocab_size, self.embedding_size, WORDS, device),
            rnn: rnn.init(device),
            word_dropout: Dropout::new(self.hidden_dropout_prob),
            dropout: Dropout::new(self.classifier_dropout),
            classifier: Linear::new(states, labels, (states as f64).powf(-0.5), device),
        }
    }
}

/// Token ids in, logits of the text's classes out.
#[derive(Module, Debug)]
pub struct Bilstm {
    tokens: Embedding,
    rnn: Rnn,
    word_dropout: Dropout,
    dropout: Dropout,
    classifier: Linear,
}

impl Bilstm {
    /// - `ids`: `[B, T]`; `pad`: `[B, T]`, true behind a text's end
    /// - returns logits `[B, L]`
    pub fn forward(&self, ids: Tensor<2, Int>, pad: Option<Tensor<2, Bool>>) -> Tensor<2> {
        self.forward_words(self.words(ids), pad)
    }

    /// The vectors of the words alone, `[B, T]` -> `[B, T, E]`.
    pub fn words(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.tokens.forward(ids)
    }

    /// Vectors of words, `[B, T, E]` -> logits `[B, L]`; `pad` as in [`Self::forward`].
    pub fn forward_words(&self, words: Tensor<3>, pad: Option<Tensor<2, Bool>>) -> Tensor<2> {
        let x = self.word_dropout.locked(words);
        // The reverse direction begins at a text's own last token.
        let (x, _) = self.rnn.forward(x, None, pad.as_ref()); // [B, T, 2 H]
        let x = match pad {
            None => x,
            Some(pad) => {
                // Below every state, which lies between -1 and 1.
                let hidden = pad.unsqueeze_dim::<3>(2).expand(x.dims());
                x.mask_fill(hidden, -1.0)
            }
        };
        let strongest = x.max_dim(1).squeeze_dim::<2>(1); // [B, 2 H]
        self.classifier.forward(self.dropout.forward(strongest))
    }

    /// With logits divided by `temperature`.
    pub fn tempered(self, temperature: f64) -> Self {
        Self { classifier: self.classifier.scaled(1.0 / temperature), ..self }
    }

    /// `L`
    pub fn labels(&self) -> usize {
        self.classifier.width()
    }
}

/// The recurrent layers have PyTorch's names.
#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint        field
    ("embedding.",       "tokens."),
    ("classifier.",      "classifier."),
];

/// Checkpoint name of a field.
pub fn checkpoint_name(field: &str) -> Option<String> {
    match field.strip_prefix("rnn.") {
        Some(inner) => Some(format!("lstm.{}", rename(rnn::NAMES, inner)?)),
        None => rename(NAMES, field),
    }
}

/// A [`Bilstm`] with its configuration.
pub struct BilstmForSequenceClassification {
    pub config: BilstmConfig,
    pub model: Bilstm,
}

impl BilstmForSequenceClassification {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(BilstmConfig::parse)?;
        let weights = source.weights()?;
        let labels = classes(source, &weights, "classifier.weight", &config.id2label)?;
        let all = Coverage { ignored: &[], fresh: &[] };
        let model = tensors::fill(config.init(labels, device), &weights, &all, checkpoint_name)?;
        Ok(Self { config, model })
    }

    /// Opens one to be trained on: it gets a fresh head unless it has just these labels.
    pub fn pretrained(
        source: &Source,
        labels: &[String],
        device: &Device,
    ) -> Result<Self, LoadError> {
        let mut config = source.config_as(BilstmConfig::parse)?;
        if !labels.is_empty() && config.labels() == labels {
            return Self::load(source, device);
        }
        config.set_labels(labels);
        let (head, model) = (Head::Fresh(labels.len()), config.init(labels.len(), device));
        let model = image::fill(source, model, head, &[], checkpoint_name)?;
        Ok(Self { config, model })
    }
}

impl AnyModel for BilstmForSequenceClassification {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        check_length(ids.dims()[1], self.config.max_length)?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        Ok(vec![("logits", self.model.forward(ids, pad).into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, checkpoint_name)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;
    use firebrick_kernels::quantised::Format;

    use super::*;
    use crate::{arch, checkpoint::quantise::Plan};

    fn ids(rows: &[&[i32]], device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let longest = rows.iter().map(|row| row.len()).max().unwrap();
        let padded =
            rows.iter().flat_map(|row| row.iter().copied().chain([0].repeat(longest - row.len())));
        let ids = Tensor::<1, Int>::from_data(&padded.collect::<Vec<i32>>()[..], device);
        let ids = ids.reshape([rows.len(), longest]);
        let pad = ids.clone().equal_elem(0);
        (ids, pad)
    }

    /// What a text is batched with must not change what is said of it, whatever stands under the padding.
    #[test]
    fn padding_is_invisible() {
        let device = Device::flex();
        device.seed(3);
        let model = BilstmConfig::tiny().init(3, &device);
        let (alone, _) = ids(&[&[5, 9, 2]], &device);
        let expected = model.forward(alone, None).into_data();
        let (batch, pad) = ids(&[&[7, 1, 33, 4, 60, 8, 8], &[5, 9, 2]], &device);
        for under in [0, 17] {
            let ids = batch.clone().mask_fill(pad.clone(), under);
            let found = model.forward(ids, Some(pad.clone())).narrow(0, 1, 1).into_data();
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
        }
        let unpadded = model.forward(batch, None).narrow(0, 1, 1).into_data();
        let apart = |(a, b): (f32, f32)| (a - b).abs();
        let most =
            unpadded.iter::<f32>().zip(expected.iter::<f32>()).map(apart).fold(0.0, f32::max);
        assert!(most > 1e-3, "padding that is read changes the answer: {most}");
    }

    #[test]
    fn every_parameter_has_a_gradient() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let model = BilstmConfig::tiny().init(3, &device);
        let (ids, pad) = ids(&[&[7, 1, 33, 4], &[5, 9]], &device);
        arch::gradients::check(&model, model.forward(ids, Some(pad)));
    }

    /// A folder keeps the model; in whole numbers it says nearly the same; with other labels it has a fresh head.
    #[test]
    fn a_folder_keeps_the_model() {
        let device = Device::flex();
        device.seed(5);
        let labels = ["a".to_string(), "b".to_string()];
        let mut config =
            BilstmConfig { hidden_size: 24, embedding_size: 20, ..BilstmConfig::tiny() };
        config.set_labels(&labels);
        let saved = BilstmForSequenceClassification { model: config.init(2, &device), config };
        let (ids, pad) = ids(&[&[7, 1, 33, 4], &[5, 9]], &device);
        let expected = saved.model.forward(ids.clone(), Some(pad.clone())).into_data();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), saved.config.to_json().to_string()).unwrap();
        let types = [(SaveType::F32, 0.0), (SaveType::Quantised(Plan::new(Format::Int8)), 0.02)];
        for (dtype, tolerance) in types {
            saved.save(&dir.path().join("model.safetensors"), dtype).unwrap();
            let source = Source::folder(dir.path());
            let read = BilstmForSequenceClassification::load(&source, &device).unwrap();
            assert_eq!(read.config, saved.config);
            let found = read.model.forward(ids.clone(), Some(pad.clone())).into_data();
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(tolerance));
        }
        let others = ["x", "y", "z"].map(str::to_string);
        let source = Source::folder(dir.path());
        let read = BilstmForSequenceClassification::pretrained(&source, &others, &device).unwrap();
        assert_eq!((read.model.labels(), read.config.labels()), (3, others.to_vec()));
    }
}
