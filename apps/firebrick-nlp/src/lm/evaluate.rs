//! What a stream costs a model: nats, bits, perplexity.

use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{
    checkpoint::{LoadError, Source},
    layers::{loss::cross_entropy, rnn::State},
};
use firebrick_train::{fit::Metrics, origin::Origin};

use super::{causal::LanguageModel, corpus::Stream};

/// Targets that do not count.
const IGNORED: i32 = -100;

/// How a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalSettings {
    /// Tokens that a transformer reads at a time: every token is guessed from at least half as many before it, but for
    /// those at the very beginning. A recurrent model, whose state is carried on, reads so many in a step.
    pub window: usize,
    /// Windows read together. A recurrent model reads so many pieces of the stream beside each other, each from a
    /// window before its first token on.
    pub batch_size: usize,
}

/// Tokens that a model folder's model reads at a time: as its recipe had it, else as many as it has positions, up to 1,024.
pub fn window(source: &Source) -> Result<usize, LoadError> {
    const MOST: u64 = 1024;
    if let Some(window) = Origin::read(source).and_then(|origin| origin.max_len) {
        return Ok(window);
    }
    let config = source.config()?;
    let positions = ["n_positions", "max_position_embeddings"].map(|key| config[key].as_u64());
    let positions = positions.into_iter().flatten().next();
    Ok(positions.unwrap_or(MOST).min(MOST) as usize)
}

/// Nats that a stream costs, and what they are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    pub nats: f64,
    /// Tokens that were guessed: all but the first.
    pub tokens: usize,
    /// Of the whole stream.
    pub characters: usize,
}

impl Judged {
    /// By token: of characters or of words, what the stream is made of.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }

    pub fn perplexity(&self) -> f64 {
        self.nats_per_token().exp()
    }

    /// Comparable between tokenizers.
    pub fn bits_per_character(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.characters.max(1) as f64
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::from([
            ("loss".into(), self.nats_per_token()),
            ("perplexity".into(), self.perplexity()),
            ("bits_per_character".into(), self.bits_per_character()),
        ])
    }
}

/// Reads a stream; every token but the first is guessed once. `model` lies on a device without autodiff.
pub fn evaluate(model: &LanguageModel, stream: &Stream, settings: EvalSettings) -> Judged {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let settings =
        EvalSettings { window: settings.window.max(2), batch_size: settings.batch_size.max(1) };
    let (nats, tokens) = match model.carries_state() {
        true => carried(model, &stream.ids, settings, &device),
        false => strided(model, &stream.ids, settings, &device),
    };
    Judged { nats, tokens, characters: stream.characters }
}

/// Rows of ids and of targets, equally long, `IGNORED` where a target does not count.
#[derive(Default)]
struct Rows {
    ids: Vec<i32>,
    targets: Vec<i32>,
    count: usize,
}

impl Rows {
    fn tensors(&self, device: &Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
        let width = self.ids.len() / self.count;
        let ids = TensorData::new(self.ids.clone(), [self.count, width]);
        let targets = TensorData::new(self.targets.clone(), [self.targets.len()]);
        (Tensor::from_data(ids, device), Tensor::from_data(targets, device))
    }

    /// Nats of the targets that count, and how many they are.
    fn judge(&self, logits: Tensor<3>, targets: Tensor<1, Int>) -> (f64, usize) {
        let [b, t, v] = logits.dims();
        let mean = cross_entropy(logits.reshape([b * t, v]), targets, Some(IGNORED), 0.0);
        let counted = self.targets.iter().filter(|target| **target != IGNORED).count();
        (mean.into_scalar::<f64>() * counted as f64, counted)
    }
}

/// Windows that overlap by half; of all but the first only the second half counts.
fn strided(
    model: &LanguageModel,
    ids: &[u32],
    EvalSettings { window, batch_size }: EvalSettings,
    device: &Device,
) -> (f64, usize) {
    let last = ids.len().saturating_sub(1); // tokens that are read
    let stride = (window / 2).max(1);
    let mut total = (0.0, 0);
    let mut rows = Rows::default();
    let mut judge = |rows: &mut Rows| {
        let (ids, targets) = rows.tensors(device);
        let (nats, tokens) = rows.judge(model.forward(ids, vec![]).0, targets);
        total = (total.0 + nats, total.1 + tokens);
        *rows = Rows::default();
    };
    let mut counted = 0;
    let mut begin = 0;
    while counted < last {
        let end = (begin + window).min(last);
        rows.ids.extend(ids[begin..end].iter().map(|id| *id as i32));
        rows.targets.extend((begin..end).map(|i| match i < counted {
            true => IGNORED,
            false => ids[i + 1] as i32,
        }));
        rows.count += 1;
        counted = end;
        // The last one may be shorter, and so goes alone.
        let next = begin + stride;
        let shorter = next + window > last;
        if rows.count == batch_size || counted == last || shorter {
            judge(&mut rows);
        }
        begin = next;
    }
    total
}

/// Pieces of the stream beside each other, their states carried on.
fn carried(
    model: &LanguageModel,
    ids: &[u32],
    EvalSettings { window, batch_size }: EvalSettings,
    device: &Device,
) -> (f64, usize) {
    let last = ids.len().saturating_sub(1);
    // No pieces that are shorter than what they begin with.
    let pieces = batch_size.min(last / (4 * window)).max(1);
    let length = last.div_ceil(pieces);
    let (mut total, mut states) = ((0.0, 0), vec![]);
    // From a window before each piece on. Before the first there is nothing: what stands there is forgotten.
    let warm_up = if pieces > 1 { window } else { 0 };
    let mut step = 0;
    while step < warm_up + length {
        let t = window.min(warm_up + length - step);
        let mut rows = Rows { count: pieces, ..Rows::default() };
        for piece in 0..pieces {
            for i in step..step + t {
                // The place in the stream, which before the first piece and behind the last is none.
                let place = (piece * length + i).checked_sub(warm_up).filter(|place| *place < last);
                rows.ids.push(ids[place.unwrap_or(0)] as i32);
                rows.targets.push(match place {
                    Some(place) if i >= warm_up => ids[place + 1] as i32,
                    _ => IGNORED,
                });
            }
        }
        let (tensor, targets) = rows.tensors(device);
        let (logits, after) = model.forward(tensor, states);
        let (nats, tokens) = rows.judge(logits, targets);
        total = (total.0 + nats, total.1 + tokens);
        states = after;
        step += t;
        if step == warm_up && warm_up > 0 {
            states = from_nothing(states);
        }
    }
    total
}

/// The first piece begins with an empty state, as a stream does.
fn from_nothing(states: Vec<State>) -> Vec<State> {
    let reset = |State(state): State| {
        let [l, s, _, h] = state.dims();
        let empty = Tensor::zeros([l, s, 1, h], &state.device());
        State(state.slice_assign([0..l, 0..s, 0..1, 0..h], empty))
    };
    states.into_iter().map(reset).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::log_softmax;
    use firebrick_core::{
        arch::{gpt2::Gpt2Config, recurrent::RecurrentConfig},
        layers::rnn::Mode,
    };

    use super::*;

    fn stream(n: usize) -> Stream {
        let ids: Vec<u32> = (0..n).map(|i| ((i * i + 3 * i) % 61) as u32).collect();
        Stream { characters: 5 * n, ids }
    }

    /// Nats of `targets` tokens of the row's end, by the whole softmax.
    fn cost(model: &LanguageModel, ids: &[u32], targets: usize) -> f64 {
        let n = ids.len() - 1;
        let row: Vec<i32> = ids[..n].iter().map(|id| *id as i32).collect();
        let row = Tensor::<2, Int>::from_data(TensorData::new(row, [1, n]), &Device::flex());
        let log_p = log_softmax(model.forward(row, vec![]).0, 2);
        let [_, _, v] = log_p.dims();
        let log_p: Vec<f32> = log_p.into_data().iter::<f32>().collect();
        (n - targets..n).map(|t| -f64::from(log_p[t * v + ids[t + 1] as usize])).sum()
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 2e-5 * expected, "{found}, not {expected}");
    }

    /// A stream read in pieces costs what it costs in one, whatever the pieces.
    #[test]
    fn a_recurrent_model_carries_its_state() {
        Device::flex().seed(3);
        for mode in [Mode::Lstm, Mode::Gru] {
            let config = RecurrentConfig { mode, ..RecurrentConfig::tiny() };
            let model = LanguageModel::Recurrent(config.init(&Device::flex()));
            let stream = stream(150);
            let whole = cost(&model, &stream.ids, 149);
            let one = evaluate(&model, &stream, EvalSettings { window: 7, batch_size: 1 });
            close(one.nats, whole);
            // A state forgets: sixteen tokens before a piece are nearly all of them.
            let many = evaluate(&model, &stream, EvalSettings { window: 16, batch_size: 2 });
            assert_eq!([one.tokens, many.tokens], [149, 149]);
            assert!((many.nats - whole).abs() < 1e-3 * whole, "{} and {whole}", many.nats);
        }
    }

    /// Every token once, from the half of a window or more.
    #[test]
    fn a_transformer_reads_overlapping_windows() {
        let device = Device::flex();
        device.seed(3);
        let config = Gpt2Config { initializer_range: 0.3, ..Gpt2Config::tiny() };
        let model = LanguageModel::Gpt2(config.init(&device));
        for (n, batch_size) in [(1, 4), (2, 4), (8, 4), (9, 4), (21, 1), (50, 4)] {
            let stream = stream(n);
            let (window, last) = (8, n - 1);
            let mut expected = 0.0;
            let (mut begin, mut counted) = (0, 0);
            while counted < last {
                let end = (begin + window).min(last);
                expected += cost(&model, &stream.ids[begin..=end], end - counted);
                (begin, counted) = (begin + window / 2, end);
            }
            let found = evaluate(&model, &stream, EvalSettings { window, batch_size });
            assert_eq!(found.tokens, last);
            close(found.nats + 1e-9, expected + 1e-9);
        }
    }

    #[test]
    fn units() {
        let judged = Judged { nats: 8.0 * std::f64::consts::LN_2, tokens: 4, characters: 16 };
        close(judged.perplexity(), 4.0);
        close(judged.bits_per_character(), 0.5);
    }
}
