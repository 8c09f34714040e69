//! Recurrent layers: `torch.nn.RNN`, `GRU` and `LSTM`.
//!
//! On flex a direction of a layer is one operation of our own kernels with its gradient; elsewhere it is composed of
//! Burn's operations, step by step.
//!
//! Axis letters: `B` batch, `T` steps, `C` inputs, `H` units, `G` gates, `L` layers, `D` directions, `S` vectors of a
//! state.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    prelude::*,
    tensor::activation::{relu, sigmoid},
};
use firebrick_kernels::recurrence::Cell;
use serde::{Deserialize, Serialize};

use super::{
    dropout::Dropout,
    fused::{self, RecurrenceForm},
};
use crate::checkpoint::names::Names;

/// What a step computes; PyTorch's `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    #[serde(rename = "RNN_TANH")]
    RnnTanh,
    #[serde(rename = "RNN_RELU")]
    RnnRelu,
    #[serde(rename = "GRU")]
    Gru,
    #[serde(rename = "LSTM")]
    Lstm,
}

impl Mode {
    fn cell(self) -> Cell {
        match self {
            Self::RnnTanh => Cell::Tanh,
            Self::RnnRelu => Cell::Relu,
            Self::Gru => Cell::Gru,
            Self::Lstm => Cell::Lstm,
        }
    }

    /// `S`: 2 where there is a cell beside the output.
    pub fn states(self) -> usize {
        self.cell().states()
    }
}

/// Sizes of an [`Rnn`], by PyTorch's names.
#[derive(Debug, Clone, PartialEq)]
pub struct RnnConfig {
    pub mode: Mode,
    /// `C`
    pub input_size: usize,
    /// `H`
    pub hidden_size: usize,
    /// `L`
    pub num_layers: usize,
    /// Whether `D` is 2.
    pub bidirectional: bool,
    /// Between layers.
    pub dropout: f64,
    /// Of the state's weights (DropConnect in Merity et al. 2017, <https://arxiv.org/abs/1708.02182>); not in PyTorch.
    pub weight_drop: f64,
}

impl RnnConfig {
    /// One layer, one direction, no dropout.
    pub fn new(mode: Mode, input_size: usize, hidden_size: usize) -> Self {
        Self {
            mode,
            input_size,
            hidden_size,
            num_layers: 1,
            bidirectional: false,
            dropout: 0.0,
            weight_drop: 0.0,
        }
    }

    pub fn init(&self, device: &Device) -> Rnn {
        let directions = 1 + usize::from(self.bidirectional);
        let layer = |index: usize| {
            let input = if index == 0 { self.input_size } else { directions * self.hidden_size };
            let direction = || self.direction(input, device);
            Layer { forward: direction(), reverse: self.bidirectional.then(direction) }
        };
        Rnn {
            layers: (0..self.num_layers).map(layer).collect(),
            dropout: Dropout::new(self.dropout),
            weight_drop: Dropout::new(self.weight_drop),
            mode: self.mode,
        }
    }

    fn direction(&self, input: usize, device: &Device) -> Direction {
        let (h, width) = (self.hidden_size, self.mode.cell().gates() * self.hidden_size);
        let bound = 1.0 / (h as f64).sqrt();
        let uniform = Initializer::Uniform { min: -bound, max: bound };
        Direction {
            weight_ih: uniform.init([width, input], device),
            weight_hh: uniform.init([width, h], device),
            bias_ih: uniform.init([width], device),
            bias_hh: uniform.init([width], device),
        }
    }
}

/// Layers over sequences.
#[derive(Module, Debug)]
pub struct Rnn {
    layers: Vec<Layer>,
    dropout: Dropout,
    weight_drop: Dropout,
    #[module(skip)]
    mode: Mode,
}

#[derive(Module, Debug)]
struct Layer {
    forward: Direction,
    reverse: Option<Direction>,
}

/// Weights as PyTorch lays them out: gate by gate, rows are outputs.
#[derive(Module, Debug)]
struct Direction {
    /// `[G H, C]`
    weight_ih: Param<Tensor<2>>,
    /// `[G H, H]`
    weight_hh: Param<Tensor<2>>,
    /// `[G H]`
    bias_ih: Param<Tensor<1>>,
    /// `[G H]`
    bias_hh: Param<Tensor<1>>,
}

/// PyTorch's names of a module of its own.
#[rustfmt::skip]
pub const NAMES: Names = &[
    // checkpoint              field
    ("weight_ih_l{}",          "layers.{}.forward.weight_ih"),
    ("weight_hh_l{}",          "layers.{}.forward.weight_hh"),
    ("bias_ih_l{}",            "layers.{}.forward.bias_ih"),
    ("bias_hh_l{}",            "layers.{}.forward.bias_hh"),
    ("weight_ih_l{}_reverse",  "layers.{}.reverse.weight_ih"),
    ("weight_hh_l{}_reverse",  "layers.{}.reverse.weight_hh"),
    ("bias_ih_l{}_reverse",    "layers.{}.reverse.bias_ih"),
    ("bias_hh_l{}_reverse",    "layers.{}.reverse.bias_hh"),
];

/// What layers know of the steps so far: `[L D, S, B, H]`; PyTorch's `h` and `c` are the first and the second of `S`.
#[derive(Debug, Clone)]
pub struct State(pub Tensor<4>);

impl State {
    /// Cut off from the graph of what was before, for backpropagation that is truncated.
    pub fn detach(self) -> Self {
        Self(self.0.detach())
    }

    /// Row `i` becomes what row `rows[i]` was.
    pub fn select(self, rows: Tensor<1, Int>) -> Self {
        Self(self.0.select(2, rows))
    }
}

impl Rnn {
    /// - `x`: `[B, T, C]`; `state`: zeros if `None`
    /// - `pad`: `[B, T]`, true where padding: there the state stays what it was and the output is 0, so that a reverse
    ///   direction begins at a sequence's own end, as with PyTorch's packed sequences
    /// - returns `[B, T, D H]` and the state after the last step
    pub fn forward(
        &self,
        x: Tensor<3>,
        state: Option<State>,
        pad: Option<&Tensor<2, Bool>>,
    ) -> (Tensor<3>, State) {
        let [b, _, _] = x.dims();
        let h = self.layers[0].forward.weight_hh.dims()[1];
        let device = x.device();
        let zeros = || Tensor::zeros([self.mode.states(), b, h], &device);
        let mut before = (0..).map(|index| match &state {
            Some(State(all)) => all.clone().narrow(0, index, 1).squeeze_dim(0),
            None => zeros(),
        });
        let (mut x, mut after) = (x, vec![]);
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                x = self.dropout.forward(x);
            }
            let directions = [(Some(&layer.forward), false), (layer.reverse.as_ref(), true)];
            let mut outputs = vec![];
            for (direction, reverse) in directions {
                let Some(direction) = direction else { continue };
                let form = RecurrenceForm { cell: self.mode.cell(), reverse };
                let state = before.next().expect("without end");
                let weights = direction.weights(&self.weight_drop);
                let (y, last) = weights.run(x.clone(), state, pad.cloned(), form);
                outputs.push(y);
                after.push(last);
            }
            x = match outputs.len() {
                1 => outputs.remove(0),
                _ => Tensor::cat(outputs, 2),
            };
        }
        let after = match after.len() {
            1 => after.remove(0).unsqueeze_dim(0),
            _ => Tensor::stack(after, 0),
        };
        (x, State(after))
    }
}

impl Direction {
    fn weights(&self, weight_drop: &Dropout) -> Weights {
        Weights {
            ih: self.weight_ih.val(),
            hh: weight_drop.forward(self.weight_hh.val()),
            bias_ih: self.bias_ih.val(),
            bias_hh: self.bias_hh.val(),
        }
    }
}

/// Of one direction, this time.
struct Weights {
    ih: Tensor<2>,
    hh: Tensor<2>,
    bias_ih: Tensor<1>,
    bias_hh: Tensor<1>,
}

impl Weights {
    /// `x`: `[B, T, C]`, `state`: `[S, B, H]` -> `[B, T, H]`, `[S, B, H]`
    fn run(
        self,
        x: Tensor<3>,
        state: Tensor<3>,
        pad: Option<Tensor<2, Bool>>,
        form: RecurrenceForm,
    ) -> (Tensor<3>, Tensor<3>) {
        if fused::applies(&x) {
            let bias = Tensor::cat(vec![self.bias_ih, self.bias_hh], 0);
            return fused::recurrence(x, [self.ih, self.hh], bias, state, pad, form);
        }
        self.composed(x, state, pad, form)
    }

    /// [`Self::run`] from Burn's operations.
    fn composed(
        self,
        x: Tensor<3>,
        state: Tensor<3>,
        pad: Option<Tensor<2, Bool>>,
        form: RecurrenceForm,
    ) -> (Tensor<3>, Tensor<3>) {
        let ([_, t, _], [s, b, h]) = (x.dims(), state.dims());
        let inputs = x.matmul(self.ih.transpose().unsqueeze()) + self.bias_ih.unsqueeze(); // [B, T, G H]
        let weight = self.hh.transpose(); // [H, G H]
        let part = |x: &Tensor<2>, gate: usize| x.clone().narrow(1, gate * h, h);
        let mut states: Vec<Tensor<2>> =
            (0..s).map(|s| state.clone().narrow(0, s, 1).squeeze_dim(0)).collect();
        let mut outputs: Vec<Tensor<2>> = vec![Tensor::zeros([b, h], &state.device()); t];
        for index in 0..t {
            let step = if form.reverse { t - 1 - index } else { index };
            let x = inputs.clone().narrow(1, step, 1).squeeze_dim::<2>(1); // [B, G H]
            let y = states[0].clone().matmul(weight.clone()) + self.bias_hh.clone().unsqueeze();
            let both = |gate: usize| part(&x, gate) + part(&y, gate);
            let new = match form.cell {
                Cell::Tanh => vec![both(0).tanh()],
                Cell::Relu => vec![relu(both(0))],
                Cell::Gru => {
                    let (r, z) = (sigmoid(both(0)), sigmoid(both(1)));
                    let n = (part(&x, 2) + r * part(&y, 2)).tanh();
                    vec![n.clone() + z * (states[0].clone() - n)]
                }
                Cell::Lstm => {
                    let (i, f, o) = (sigmoid(both(0)), sigmoid(both(1)), sigmoid(both(3)));
                    let c = f * states[1].clone() + i * both(2).tanh();
                    vec![o * c.clone().tanh(), c]
                }
            };
            let Some(pad) = &pad else {
                outputs[step] = new[0].clone();
                states = new;
                continue;
            };
            let pad = pad.clone().narrow(1, step, 1).expand([b, h]);
            outputs[step] = new[0].clone().mask_fill(pad.clone(), 0.0);
            let kept = new.into_iter().zip(states);
            states = kept.map(|(new, old)| new.mask_where(pad.clone(), old)).collect();
        }
        (Tensor::stack(outputs, 1), Tensor::stack(states, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::{TensorData, Tolerance};

    use super::*;
    use crate::{
        checkpoint::{
            names::rename,
            tensors::{self, Coverage},
        },
        device::DeviceSpec,
    };

    /// Just above what was measured: 1.7e-6 on ndarray and on flex with AVX-512, 2.2e-6 with AVX2.
    const TOLERANCE: f32 = 2.5e-6;

    /// Two layers in both directions over sequences of unlike length, from a state that is not zero: values and all
    /// gradients against `torch.nn`, which computed in float64.
    #[track_caller]
    fn check(mode: Mode, file: &str, device: &Device) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rnn").join(file);
        let weights = tensors::Weights::open_file(&path).unwrap();
        let data = |name: &str| {
            TensorData::new(weights.floats(name).unwrap(), weights.shape(name).unwrap().to_vec())
        };
        let config =
            RnnConfig { num_layers: 2, bidirectional: true, ..RnnConfig::new(mode, 5, 19) };
        let coverage = Coverage { ignored: &["case."], fresh: &[] };
        let rnn =
            tensors::fill(config.init(device), &weights, &coverage, |field| rename(NAMES, field))
                .unwrap();
        let x = Tensor::<3>::from_data(data("case.x"), device).require_grad();
        let state = Tensor::<4>::from_data(data("case.state"), device).require_grad();
        let pad = Tensor::<2>::from_data(data("case.pad"), device).greater_elem(0.5);
        let (y, last) = rnn.forward(x.clone(), Some(State(state.clone())), Some(&pad));
        // Slopes that differ by element.
        let slope =
            |count: usize| Tensor::<1, Int>::arange(1..count as i64 + 1, device).float().sin();
        let loss = (y.clone() * slope(y.shape().num_elements()).reshape(y.dims())).sum()
            + (last.0.clone() * slope(last.0.shape().num_elements()).reshape(last.0.dims())).sum();
        let grads = loss.backward();
        // Relative to the largest of the tensor.
        let close = |name: &str, found: TensorData| {
            let (expected, found) = (data(name), found.convert::<f32>());
            let pairs = found.iter::<f32>().zip(expected.iter::<f32>());
            let (apart, largest) = pairs.fold((0f32, 0f32), |(apart, largest), (a, b)| {
                (apart.max((a - b).abs()), largest.max(b.abs()))
            });
            println!("{file} {name}: {}", apart / largest);
            assert!(apart <= TOLERANCE * largest, "{file} {name}: {apart} of {largest}");
        };
        close("case.y", y.into_data());
        close("case.last", last.0.into_data());
        close("case.dx", x.grad(&grads).unwrap().into_data());
        close("case.dstate", state.grad(&grads).unwrap().into_data());
        for (index, layer) in rnn.layers.iter().enumerate() {
            for (suffix, direction) in
                [("", Some(&layer.forward)), ("_reverse", layer.reverse.as_ref())]
            {
                let direction = direction.unwrap();
                let of = |name: &str| format!("case.d{name}_l{index}{suffix}");
                close(&of("weight_ih"), direction.weight_ih.grad(&grads).unwrap().into_data());
                close(&of("weight_hh"), direction.weight_hh.grad(&grads).unwrap().into_data());
                close(&of("bias_ih"), direction.bias_ih.grad(&grads).unwrap().into_data());
                close(&of("bias_hh"), direction.bias_hh.grad(&grads).unwrap().into_data());
            }
        }
    }

    const CASES: [(Mode, &str); 4] = [
        (Mode::RnnTanh, "rnn_tanh.safetensors"),
        (Mode::RnnRelu, "rnn_relu.safetensors"),
        (Mode::Gru, "gru.safetensors"),
        (Mode::Lstm, "lstm.safetensors"),
    ];

    #[test]
    fn agrees_with_torch_on_flex() {
        let device = Device::flex().autodiff();
        CASES.iter().for_each(|(mode, file)| check(*mode, file, &device));
    }

    #[test]
    fn agrees_with_torch_on_ndarray() {
        let device = "ndarray".parse::<DeviceSpec>().unwrap().open().unwrap().autodiff();
        CASES.iter().for_each(|(mode, file)| check(*mode, file, &device));
    }

    /// A sequence in two pieces, its state carried over, is the sequence.
    #[test]
    fn a_state_carries_on() {
        let device = Device::flex();
        let rnn = RnnConfig { num_layers: 2, ..RnnConfig::new(Mode::Lstm, 4, 7) }.init(&device);
        let x = Tensor::<3>::random([2, 9, 4], burn::tensor::Distribution::Default, &device);
        let (whole, last) = rnn.forward(x.clone(), None, None);
        let (first, state) = rnn.forward(x.clone().narrow(1, 0, 5), None, None);
        let (second, end) = rnn.forward(x.narrow(1, 5, 4), Some(state.detach()), None);
        let tolerance = Tolerance::<f32>::absolute(1e-6);
        let pieces = Tensor::cat(vec![first, second], 1).into_data();
        pieces.assert_approx_eq(&whole.into_data(), tolerance);
        end.0.into_data().assert_approx_eq(&last.0.into_data(), tolerance);
    }
}
