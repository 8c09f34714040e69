//! A recurrent language model with the regularisation of AWD-LSTM. No architecture of `transformers`.
//!
//! Papers: Merity et al. 2017, <https://arxiv.org/abs/1708.02182>; Gal and Ghahramani 2016,
//! <https://arxiv.org/abs/1512.05287>; tied output weights: Press and Wolf 2016, <https://arxiv.org/abs/1608.05859>.
//! Reference code: `model.py` of <https://github.com/salesforce/awd-lstm-lm>, whose names the checkpoint has.
//!
//! Axis letters, used in every comment below:
//! `B` batch, `T` tokens, `E` channels of a word (`embedding_size`), `H` units, `S` vectors of a state, `V` vocabulary.

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::TensorData,
};
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
    generate::{Decoder, GenerationConfig, prompt},
    layers::{
        cache::Cache,
        dropout::Dropout,
        embedding::Embedding,
        rnn::{Mode, Rnn, RnnConfig, State},
    },
};

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "firebrick-rnn";

/// `config.json` of a recurrent language model. The dropouts have the names of AWD-LSTM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecurrentConfig {
    pub mode: Mode,
    pub vocab_size: usize,
    /// `E`
    pub embedding_size: usize,
    /// `H`; the last layer has `embedding_size` units where the weights are tied.
    pub hidden_size: usize,
    pub num_layers: usize,
    /// Whether the output layer is the token table.
    pub tie_weights: bool,
    /// Of the output of the last layer, the same channels in all steps.
    #[serde(default)]
    pub dropout: f64,
    /// Between layers, as `dropout`.
    #[serde(default)]
    pub dropouth: f64,
    /// Of word vectors, as `dropout`.
    #[serde(default)]
    pub dropouti: f64,
    /// Of words of the vocabulary.
    #[serde(default)]
    pub dropoute: f64,
    /// Of the weights from state to state.
    #[serde(default)]
    pub wdrop: f64,
}

impl RecurrentConfig {
    /// The medium LSTM of Zaremba et al. 2014, <https://arxiv.org/abs/1409.2329>, tied: 13 M parameters over 10,000 words.
    pub fn medium() -> Self {
        Self {
            mode: Mode::Lstm,
            vocab_size: 10_000,
            embedding_size: 650,
            hidden_size: 650,
            num_layers: 2,
            tie_weights: true,
            dropout: 0.5,
            dropouth: 0.5,
            dropouti: 0.5,
            dropoute: 0.1,
            wdrop: 0.0,
        }
    }

    /// Small enough for a unit test on one CPU core; same code paths as [`Self::medium`].
    pub fn tiny() -> Self {
        Self { vocab_size: 64, embedding_size: 16, hidden_size: 24, ..Self::medium() }
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        architecture(value, &["RecurrentForCausalLM"])?;
        let config: Self = config::parse(value)?;
        config.check()?;
        Ok(config)
    }

    /// What `config.json` holds.
    pub fn to_json(&self) -> Value {
        let mut value = json!(self);
        value["model_type"] = json!(MODEL_TYPE);
        value["architectures"] = json!(["RecurrentForCausalLM"]);
        value
    }

    pub fn check(&self) -> Result<(), String> {
        config::size("vocab_size", self.vocab_size, 10_000_000)?;
        config::size("embedding_size", self.embedding_size, 65_536)?;
        config::size("hidden_size", self.hidden_size, 65_536)?;
        config::size("num_layers", self.num_layers, 1_000)?;
        config::probability("dropout", self.dropout)?;
        config::probability("dropouth", self.dropouth)?;
        config::probability("dropouti", self.dropouti)?;
        config::probability("dropoute", self.dropoute)?;
        config::probability("wdrop", self.wdrop)
    }

    pub fn init(&self, device: &Device) -> Recurrent {
        /// Of AWD-LSTM's fresh word vectors.
        const RANGE: f64 = 0.1;
        let (e, h) = (self.embedding_size, self.hidden_size);
        let layer = |index: usize| {
            let input = if index == 0 { e } else { h };
            let last = index + 1 == self.num_layers;
            let units = if last && self.tie_weights { e } else { h };
            let config = RnnConfig::new(self.mode, input, units);
            RnnConfig { weight_drop: self.wdrop, ..config }.init(device)
        };
        let table = |width: usize| Embedding {
            weight: Initializer::Uniform { min: -RANGE, max: RANGE }
                .init([self.vocab_size, width], device),
        };
        Recurrent {
            tokens: table(e),
            rnns: (0..self.num_layers).map(layer).collect(),
            output: (!self.tie_weights).then(|| table(h)),
            bias: Initializer::Zeros.init([self.vocab_size], device),
            dropout: Dropout::new(self.dropout),
            between: Dropout::new(self.dropouth),
            inputs: Dropout::new(self.dropouti),
            words: Dropout::new(self.dropoute),
        }
    }
}

/// Token ids in, logits of the next token out.
#[derive(Module, Debug)]
pub struct Recurrent {
    tokens: Embedding,
    /// Of one layer each.
    rnns: Vec<Rnn>,
    /// The output layer, `[V, H]`; absent where it is the token table.
    output: Option<Embedding>,
    bias: Param<Tensor<1>>,
    dropout: Dropout,
    between: Dropout,
    inputs: Dropout,
    words: Dropout,
}

impl Recurrent {
    /// - `ids`: `[B, T]`; `pad`: `[B, T]`, true where padding
    /// - `states`: by layer; empty before the first token
    /// - returns logits `[B, T, V]`, and the states after the last token
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        pad: Option<&Tensor<2, Bool>>,
        states: Vec<State>,
    ) -> (Tensor<3>, Vec<State>) {
        let (x, states) = self.read(ids, pad, states);
        (self.logits(x), states)
    }

    /// [`Self::forward`] without the output layer: `[B, T]` -> `[B, T, H]`
    pub fn read(
        &self,
        ids: Tensor<2, Int>,
        pad: Option<&Tensor<2, Bool>>,
        states: Vec<State>,
    ) -> (Tensor<3>, Vec<State>) {
        let vocabulary = self.tokens.height();
        let x = self.words.words(self.tokens.forward(ids.clone()), ids, vocabulary);
        let mut x = self.inputs.locked(x); // [B, T, E]
        let mut states = states.into_iter();
        let mut after = vec![];
        for (index, rnn) in self.rnns.iter().enumerate() {
            if index > 0 {
                x = self.between.locked(x);
            }
            let (y, state) = rnn.forward(x, states.next(), pad);
            after.push(state);
            x = y;
        }
        (self.dropout.locked(x), after)
    }

    /// `[B, T, H]` -> `[B, T, V]`
    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let table = self.output.as_ref().unwrap_or(&self.tokens);
        table.scores(x, Some(self.bias.val()))
    }
}

#[rustfmt::skip]
const NAMES: Names = &[
    // checkpoint                field
    ("encoder.",                 "tokens."),
    ("rnns.{}.weight_ih_l{}",    "rnns.{}.layers.{}.forward.weight_ih"),
    ("rnns.{}.weight_hh_l{}",    "rnns.{}.layers.{}.forward.weight_hh"),
    ("rnns.{}.bias_ih_l{}",      "rnns.{}.layers.{}.forward.bias_ih"),
    ("rnns.{}.bias_hh_l{}",      "rnns.{}.layers.{}.forward.bias_hh"),
    ("decoder.",                 "output."),
    ("decoder.bias",             "bias"),
];

/// A recurrent language model with its configuration.
pub struct RecurrentForCausalLm {
    pub config: RecurrentConfig,
    pub model: Recurrent,
}

impl RecurrentForCausalLm {
    pub fn load(source: &Source, device: &Device) -> Result<Self, LoadError> {
        let config = source.config_as(RecurrentConfig::from_json)?;
        let weights = source.weights()?;
        // PyTorch writes a tied table twice.
        let ignored: &[&str] = match config.tie_weights {
            true => {
                weights.one_of(&["encoder.weight", "decoder.weight"])?;
                &["decoder.weight"]
            }
            false => &[],
        };
        let coverage = Coverage { ignored, fresh: &[] };
        let fresh = config.init(device);
        let model = tensors::fill(fresh, &weights, &coverage, |field| rename(NAMES, field))?;
        Ok(Self { config, model })
    }
}

impl AnyModel for RecurrentForCausalLm {
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError> {
        let ids = inputs.ids("input_ids", self.config.vocab_size)?;
        let pad = inputs.padding("attention_mask", ids.dims())?;
        let (logits, _) = self.model.forward(ids, pad.as_ref(), vec![]);
        Ok(vec![("logits", logits.into_data())])
    }

    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError> {
        tensors::save(&self.model, path, dtype, |field| rename(NAMES, field))
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }
}

impl Decoder for RecurrentForCausalLm {
    fn begin(
        &self,
        inputs: &Inputs,
        config: &GenerationConfig,
    ) -> Result<(Vec<Vec<i64>>, Cache), InputError> {
        let (rows, padding) = prompt(inputs, self.config.vocab_size)?;
        let longest = config.longest(rows[0].len(), usize::MAX)?;
        Ok((rows, Cache::new(0, longest).with_padding(padding)))
    }

    fn next(&self, ids: Tensor<2, Int>, cache: &mut Cache) -> Tensor<2> {
        let [_, t] = ids.dims();
        let pad = padding(cache, t, &ids.device());
        let states = std::mem::take(&mut cache.states);
        let (x, states) = self.model.read(ids, pad.as_ref(), states);
        cache.states = states;
        cache.length += t;
        self.model.logits(x.narrow(1, t - 1, 1)).squeeze_dim(1)
    }
}

/// Which of the next `t` tokens of each row stand before its prompt, `[B, T]`.
fn padding(cache: &Cache, t: usize, device: &Device) -> Option<Tensor<2, Bool>> {
    let rows = cache.padding.len();
    let longest = cache.padding.iter().max().copied().unwrap_or(0);
    (cache.length < longest).then(|| {
        let tokens = cache.length..cache.length + t;
        let rows_of = cache.padding.iter().flat_map(|n| tokens.clone().map(move |i| i < *n));
        let pad: Vec<bool> = rows_of.collect();
        Tensor::from_data(TensorData::new(pad, [rows, t]), device)
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::ControlFlow};

    use burn::tensor::Tolerance;

    use super::*;
    use crate::{arch, arch::inputs::Array, generate::generate};

    fn inputs(ids: &[i64], mask: Option<&[i64]>, rows: usize, device: &Device) -> Inputs {
        let ints = |values: &[i64]| Array::Ints {
            shape: vec![rows, values.len() / rows],
            values: values.to_vec(),
        };
        let mut arrays = BTreeMap::from([("input_ids".to_string(), ints(ids))]);
        arrays.extend(mask.map(|mask| ("attention_mask".to_string(), ints(mask))));
        Inputs::new(arrays, device)
    }

    /// Saved and opened it gives the same; what it writes token by token is what it says of the whole; a prompt that is
    /// padded on its left is written on as without.
    #[track_caller]
    fn check(config: RecurrentConfig) {
        let device = Device::flex();
        device.seed(4);
        let model = RecurrentForCausalLm { model: config.init(&device), config: config.clone() };
        let dir = tempfile::tempdir().unwrap();
        model.save(&dir.path().join("model.safetensors"), SaveType::F32).unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_json().to_string()).unwrap();
        let opened = arch::open(&Source::folder(dir.path()), &device).unwrap();
        let logits =
            |model: &dyn AnyModel, inputs: &Inputs| model.forward(inputs).unwrap().remove(0).1;
        let prompt = inputs(&[5, 9, 2, 33, 7], None, 1, &device);
        let same = Tolerance::<f32>::absolute(0.0);
        logits(&model, &prompt).assert_approx_eq(&logits(&*opened, &prompt), same);

        let wanted = GenerationConfig { max_new_tokens: Some(6), ..Default::default() };
        let written = |inputs: &Inputs| {
            let decoder = opened.decoder().unwrap();
            generate(decoder, inputs, &wanted, &mut |_, _| ControlFlow::Continue(())).unwrap()
        };
        let row = written(&prompt).remove(0);
        let whole = logits(&model, &inputs(&row[..10], None, 1, &device));
        let whole = whole.try_into_vec::<f32>().unwrap();
        for (t, said) in whole.chunks(config.vocab_size).enumerate().skip(4) {
            let best = (0..said.len()).max_by(|a, b| said[*a].total_cmp(&said[*b])).unwrap();
            assert_eq!(best as i64, row[t + 1], "token {t}");
        }
        let padded = inputs(
            &[0, 0, 5, 9, 2, 33, 7, 1, 2, 3, 4, 5, 6, 7],
            Some(&[0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            2,
            &device,
        );
        assert_eq!(written(&padded)[0][2..], row);
    }

    #[test]
    fn lstm_with_tied_weights() {
        check(RecurrentConfig::tiny());
    }

    #[test]
    fn gru_with_a_table_of_its_own() {
        let tiny = RecurrentConfig::tiny();
        check(RecurrentConfig { mode: Mode::Gru, tie_weights: false, num_layers: 3, ..tiny });
    }

    #[test]
    fn elman() {
        check(RecurrentConfig { mode: Mode::RnnTanh, num_layers: 1, ..RecurrentConfig::tiny() });
    }

    /// All parameters learn, with every dropout on; without autodiff none is.
    #[test]
    fn every_parameter_has_a_gradient() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let config = RecurrentConfig { wdrop: 0.3, ..RecurrentConfig::tiny() };
        let model = config.init(&device);
        let ids = Tensor::<1, Int>::arange(1..31, &device).reshape([3, 10]);
        let run =
            |model: &Recurrent, ids: &Tensor<2, Int>| model.forward(ids.clone(), None, vec![]).0;
        let apart = (run(&model, &ids) - run(&model, &ids)).abs().max().into_scalar::<f32>();
        assert!(apart > 0.0, "nothing is dropped");
        arch::gradients::check(&model, run(&model, &ids));
        let (model, ids) = (model.valid(), ids.inner());
        let apart = (run(&model, &ids) - run(&model, &ids)).abs().max().into_scalar::<f32>();
        assert_eq!(apart, 0.0);
    }
}
