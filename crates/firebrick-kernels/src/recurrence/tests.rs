use proptest::prelude::*;

use super::*;

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 613 + i * i % 97) % 201) as f32 / 100.0 - 1.0).collect()
}

/// All inputs of a case, weights scaled so that gates are neither shut nor open.
struct Case {
    cell: Cell,
    reverse: bool,
    sizes: [usize; 4],
    inputs: [Vec<f64>; 5],
    pad: Option<Vec<u8>>,
}

impl Case {
    fn new(cell: Cell, reverse: bool, sizes: [usize; 4], padded: bool) -> Self {
        let [b, t, c, h] = sizes;
        let width = cell.gates() * h;
        let scaled = |n: usize, seed, by: f64| -> Vec<f64> {
            numbers(n, seed).into_iter().map(|x| f64::from((f64::from(x) * by) as f32)).collect()
        };
        let fan = |n: usize| 2.0 / (n as f64).sqrt();
        let inputs = [
            scaled(b * t * c, 1, 1.0),
            scaled(width * c, 2, fan(c)),
            scaled(width * h, 3, fan(h)),
            scaled(2 * width, 4, 0.5),
            scaled(cell.states() * b * h, 5, 0.7),
        ];
        // Left and right: rows of unlike length that begin at unlike places.
        let pad = |i: usize| {
            let (row, t) = (i / t, i % t);
            u8::from(t < row % 2 || t >= sizes[1].saturating_sub(row % 3).max(1))
        };
        let pad = padded.then(|| (0..b * t).map(pad).collect());
        Self { cell, reverse, sizes, inputs, pad }
    }

    fn run(&self, dy: &[f32], dlast: &[f32]) -> [Vec<f32>; 7] {
        let [b, t, _, h] = self.sizes;
        let inputs =
            self.inputs.each_ref().map(|x| x.iter().map(|x| *x as f32).collect::<Vec<_>>());
        let [x, weight_ih, weight_hh, bias, state] = &inputs;
        let pad = self.pad.as_deref();
        let (cell, reverse) = (self.cell, self.reverse);
        let (batch, steps, hidden) = (b, t, h);
        let a = Recurrence {
            cell,
            reverse,
            batch,
            steps,
            hidden,
            x,
            weight_ih,
            weight_hh,
            bias,
            state,
            pad,
        };
        let (mut y, mut last) = (vec![f32::NAN; b * t * h], vec![f32::NAN; state.len()]);
        let memory = forward(&a, &mut y, &mut last);
        let mut grads = inputs.each_ref().map(|x| vec![f32::NAN; x.len()]);
        let [x, weight_ih, weight_hh, bias, state] = grads.each_mut().map(|x| Some(&mut x[..]));
        backward(&a, memory, dy, dlast, Gradients { x, weight_ih, weight_hh, bias, state });
        let [x, weight_ih, weight_hh, bias, state] = grads;
        [y, last, x, weight_ih, weight_hh, bias, state]
    }

    /// Output and last state by the formulas of PyTorch's documentation, in f64.
    fn twin(&self, inputs: &[Vec<f64>; 5]) -> [Vec<f64>; 2] {
        let [x, w_ih, w_hh, bias, state] = inputs;
        let [batch, steps, c, hidden] = self.sizes;
        let width = self.cell.gates() * hidden;
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (mut y, mut last) = (vec![0.0; batch * steps * hidden], state.clone());
        for b in 0..batch {
            let mut h = state[b * hidden..][..hidden].to_vec();
            let cells = &state[state.len() - batch * hidden..];
            let mut cell = cells[b * hidden..][..hidden].to_vec();
            for index in 0..steps {
                let t = if self.reverse { steps - 1 - index } else { index };
                if self.pad.as_ref().is_some_and(|pad| pad[b * steps + t] != 0) {
                    continue;
                }
                let x = &x[(b * steps + t) * c..][..c];
                let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
                let of_x = |g: usize, u: usize| {
                    let at = g * hidden + u;
                    dot(&w_ih[at * c..][..c], x) + bias[at]
                };
                let former = h.clone();
                let of_h = |g: usize, u: usize| {
                    let at = g * hidden + u;
                    dot(&w_hh[at * hidden..][..hidden], &former) + bias[width + at]
                };
                for u in 0..hidden {
                    let sum = |g: usize| of_x(g, u) + of_h(g, u);
                    h[u] = match self.cell {
                        Cell::Tanh => sum(0).tanh(),
                        Cell::Relu => sum(0).max(0.0),
                        Cell::Gru => {
                            let (r, z) = (sigmoid(sum(0)), sigmoid(sum(1)));
                            let n = (of_x(2, u) + r * of_h(2, u)).tanh();
                            (1.0 - z) * n + z * former[u]
                        }
                        Cell::Lstm => {
                            cell[u] = sigmoid(sum(1)) * cell[u] + sigmoid(sum(0)) * sum(2).tanh();
                            sigmoid(sum(3)) * cell[u].tanh()
                        }
                    };
                    y[(b * steps + t) * hidden + u] = h[u];
                }
            }
            if self.cell == Cell::Lstm {
                last[(batch + b) * hidden..][..hidden].copy_from_slice(&cell);
            }
            last[b * hidden..][..hidden].copy_from_slice(&h);
        }
        [y, last]
    }
}

#[track_caller]
fn close(what: &str, found: f32, expected: f64, allowed: f64) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= allowed * expected.abs().max(1.0), "{what} {found}, not {expected}");
}

/// Values by the formulas, gradients by differences of them.
#[track_caller]
fn check(cell: Cell, reverse: bool, sizes: [usize; 4], padded: bool) {
    let case = Case::new(cell, reverse, sizes, padded);
    let [b, t, _, h] = sizes;
    let (dy, dlast) = (numbers(b * t * h, 6), numbers(cell.states() * b * h, 7));
    let [y, last, grads @ ..] = case.run(&dy, &dlast);
    let expected = case.twin(&case.inputs);
    for (found, expected) in [&y, &last].into_iter().zip(&expected) {
        for (found, expected) in found.iter().zip(expected) {
            close("value", *found, *expected, 2e-6);
        }
    }
    let loss = |inputs: &[Vec<f64>; 5]| {
        let [y, last] = case.twin(inputs);
        let weighted =
            |x: &[f64], d: &[f32]| -> f64 { x.iter().zip(d).map(|(x, d)| x * f64::from(*d)).sum() };
        weighted(&y, &dy) + weighted(&last, &dlast)
    };
    for (which, grads) in grads.iter().enumerate() {
        // A sample of each.
        for i in (0..grads.len()).step_by(grads.len() / 9 + 1) {
            const STEP: f64 = 1e-5;
            let moved = |by: f64| {
                let mut inputs = case.inputs.clone();
                inputs[which][i] += by;
                loss(&inputs)
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            close(&format!("gradient {which}[{i}]"), grads[i], slope, 2e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_agree_with_the_twin(
        cell in prop_oneof![Just(Cell::Tanh), Just(Cell::Gru), Just(Cell::Lstm)],
        reverse: bool,
        sizes in [1usize..15, 1usize..6, 1usize..9, 1usize..70],
        padded: bool,
    ) {
        check(cell, reverse, sizes, padded);
    }
}

/// Its slope jumps, so not any numbers will do.
#[test]
fn relu() {
    check(Cell::Relu, false, [7, 3, 5, 67], false);
}

/// Columns are shared among tasks.
#[test]
fn a_large_weight() {
    check(Cell::Lstm, false, [2, 2, 3, 261], true);
}

#[test]
fn hyperbolic_tangent() {
    for i in -200_000..=200_000 {
        let x = i as f32 / 10_000.0;
        let (found, expected) = (f64::from(cells::tanh(x)), f64::from(x).tanh());
        assert!((found - expected).abs() <= 3e-7 * expected.abs(), "tanh({x}) is not {found}");
    }
    assert_eq!([-1e30, 0.0, 1e30].map(cells::tanh), [-1.0, 0.0, 1.0]);
    assert!(cells::tanh(f32::NAN).is_nan());
}
