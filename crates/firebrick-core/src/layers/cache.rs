//! What a decoder keeps of the tokens that it has read.
//!
//! Axis letters: `B` batch, `T` tokens, `C` channels.

use burn::{prelude::*, tensor::TensorData};

use super::{attention::Mask, fused, linear::indices, rnn::State};

/// Rows of a fresh buffer: few sentences are longer.
const FIRST_ROWS: usize = 64;

/// Keys and values of one attention, written in place into a buffer that doubles when it is full.
#[derive(Debug, Clone)]
pub struct KeyValue {
    /// `[B, rows, C]` each, `length <= rows <= capacity`; absent until the first token.
    buffers: Option<[Tensor<3>; 2]>,
    length: usize,
    /// No more tokens than these come.
    capacity: usize,
}

impl KeyValue {
    pub fn new(capacity: usize) -> Self {
        Self { buffers: None, length: 0, capacity }
    }

    /// Adds `[B, T, C]` keys and values; returns all so far, `[B, length, C]` each.
    pub fn append(&mut self, new: [Tensor<3>; 2]) -> [Tensor<3>; 2] {
        let [b, t, c] = new[0].dims();
        let device = new[0].device();
        let (begin, end) = (self.length, self.length + t);
        assert!(end <= self.capacity, "{end} tokens in a cache for {}", self.capacity);
        let zeros = |rows: usize| Tensor::zeros([b, rows, c], &device);
        let buffers = match self.buffers.take() {
            None => [0; 2].map(|_| zeros(end.max(FIRST_ROWS).min(self.capacity))),
            Some(buffers) if buffers[0].dims()[1] >= end => buffers,
            Some(buffers) => {
                let rows = (2 * end).min(self.capacity);
                buffers.map(|x| Tensor::cat(vec![x.narrow(1, 0, begin), zeros(rows - begin)], 1))
            }
        };
        // The buffer is owned here and has no other view, so the assignment happens in place.
        let [key, value] = buffers;
        let [new_key, new_value] = new;
        let write = |all: Tensor<3>, new| all.slice_assign([0..b, begin..end, 0..c], new);
        let buffers = [write(key, new_key), write(value, new_value)];
        self.length = end;
        let all = buffers.each_ref().map(|x| x.clone().slice([0..b, 0..end, 0..c]));
        self.buffers = Some(buffers);
        all
    }

    fn select(&mut self, rows: &Tensor<1, Int>) {
        // Whoever selects does so at every step: room for the next token is enough.
        let room = (self.length + 1).min(self.capacity);
        self.buffers = self.buffers.take().map(|buffers| {
            buffers.map(|x| match fused::reorders(&x) {
                true => fused::reorder(x, rows.clone(), self.length, room),
                false => x.select(0, rows.clone()),
            })
        });
    }
}

/// State of a decoder between two calls: one row for every sequence that is being written.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Self-attention, by layer.
    pub layers: Vec<KeyValue>,
    /// Of recurrent layers; empty without any, and before the first token.
    pub states: Vec<State>,
    /// Keys and values of the sources, by layer; empty without an encoder. Sequences over one source are neighbours,
    /// equally many for each.
    pub memory: Vec<[Tensor<3>; 2]>,
    /// `[sources, T]`, true where padding.
    pub memory_pad: Option<Tensor<2, Bool>>,
    /// Padding in front of each row's prompt, in tokens; empty when there is none.
    pub padding: Vec<usize>,
    /// Tokens read, padding included.
    pub length: usize,
    /// No more tokens than these come.
    pub capacity: usize,
}

impl Cache {
    /// For `layers` layers and at most `capacity` tokens.
    pub fn new(layers: usize, capacity: usize) -> Self {
        Self {
            layers: (0..layers).map(|_| KeyValue::new(capacity)).collect(),
            states: vec![],
            memory: vec![],
            memory_pad: None,
            padding: vec![],
            length: 0,
            capacity,
        }
    }

    /// Over a source: keys and values by layer, and its padding, `[B, T]`.
    pub fn with_memory(
        self,
        memory: Vec<[Tensor<3>; 2]>,
        memory_pad: Option<Tensor<2, Bool>>,
    ) -> Self {
        Self { memory, memory_pad, ..self }
    }

    /// The first tokens of some rows are padding, so many of them.
    pub fn with_padding(self, padding: Vec<usize>) -> Self {
        let padding = if padding.iter().all(|n| *n == 0) { vec![] } else { padding };
        Self { padding, ..self }
    }

    /// Positions of the next `t` tokens, `[1 or B, T]`: padding does not count.
    pub fn positions(&self, t: usize, device: &Device) -> Tensor<2, Int> {
        let begin = self.length as i64;
        let next = Tensor::<1, Int>::arange(begin..begin + t as i64, device).unsqueeze();
        if self.padding.is_empty() {
            return next; // [1, T]
        }
        let padding: Vec<i32> = self.padding.iter().map(|n| *n as i32).collect();
        let rows = padding.len();
        let padding = Tensor::<2, Int>::from_data(TensorData::new(padding, [rows, 1]), device);
        (next - padding).clamp_min(0) // [B, T]
    }

    /// What the next `t` tokens see of themselves and all before them.
    pub fn mask(&self, t: usize, device: &Device) -> Mask {
        let keys = self.length + t;
        let pad = (!self.padding.is_empty()).then(|| {
            let rows = self.padding.iter();
            let pad: Vec<bool> = rows.flat_map(|n| (0..keys).map(move |k| k < *n)).collect();
            Tensor::from_data(TensorData::new(pad, [self.padding.len(), keys]), device)
        });
        Mask::causal(pad)
    }

    /// Row `i` becomes what row `rows[i]` was; there may be more or fewer than before. Of the sources, if there are any,
    /// `sources` stay, in their order.
    pub fn select(&mut self, rows: &[usize], sources: &[usize]) {
        if !self.padding.is_empty() {
            self.padding = rows.iter().map(|row| self.padding[*row]).collect();
        }
        let Some(device) = self.device() else { return };
        let index = indices(rows, &device);
        self.layers.iter_mut().for_each(|layer| layer.select(&index));
        let states = std::mem::take(&mut self.states).into_iter();
        self.states = states.map(|state| state.select(index.clone())).collect();
        let before = self.memory.first().map(|[key, _]| key.dims()[0]);
        if before.is_some_and(|before| before != sources.len()) {
            let index = indices(sources, &device);
            for memory in &mut self.memory {
                *memory = memory.each_ref().map(|x| x.clone().select(0, index.clone()));
            }
            self.memory_pad = self.memory_pad.take().map(|pad| pad.select(0, index));
        }
    }

    fn device(&self) -> Option<Device> {
        let own = self.layers.iter().find_map(|layer| layer.buffers.as_ref());
        let keys = own.or(self.memory.first()).map(|[key, _]| key.device());
        keys.or_else(|| self.states.first().map(|State(state)| state.device()))
    }
}
