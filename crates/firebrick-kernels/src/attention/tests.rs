use proptest::prelude::*;

use super::*;

/// What an [`Attention`] borrows, by name.
#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    queries: usize,
    keys: usize,
    capacity: usize,
    kv_heads: usize,
    group: usize,
    dim: usize,
    scale: f32,
    causal: bool,
    window: Option<usize>,
    dropout: Dropout,
    pad: Option<Vec<u8>>,
    bias: Option<Vec<f32>>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    dy: Vec<f32>,
}

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32).map(|i| ((i * 7919 + seed * 977) % 211) as f32 / 100.0 - 1.0).collect()
}

impl Case {
    /// Full attention of `[batch, queries, group * kv_heads * dim]` over as many keys as queries.
    fn full(batch: usize, queries: usize, heads: [usize; 2], dim: usize) -> Self {
        let [kv_heads, group] = heads;
        let case = Self {
            batch,
            queries,
            keys: queries,
            capacity: queries,
            kv_heads,
            group,
            dim,
            scale: 1.0 / (dim as f32).sqrt(),
            causal: false,
            window: None,
            dropout: Dropout::NONE,
            pad: None,
            bias: None,
            query: vec![],
            key: vec![],
            value: vec![],
            dy: vec![],
        };
        case.filled()
    }

    /// With numbers in the buffers, after a change of sizes.
    fn filled(self) -> Self {
        let len = self.batch * self.queries * self.kv_heads * self.group * self.dim;
        let kv = self.batch * self.capacity * self.kv_heads * self.dim;
        Self {
            query: numbers(len, 1),
            key: numbers(kv, 2),
            value: numbers(kv, 3),
            dy: numbers(len, 4),
            ..self
        }
    }

    fn view(&self) -> Attention<'_> {
        let [c, kv] = [self.group * self.kv_heads, self.kv_heads].map(|heads| heads * self.dim);
        let buffer = |x| Matrix::new(x, self.batch * self.capacity, kv);
        Attention {
            query: Matrix::new(&self.query, self.batch * self.queries, c),
            key: buffer(&self.key),
            value: buffer(&self.value),
            batch: self.batch,
            queries: self.queries,
            keys: self.keys,
            capacity: self.capacity,
            heads: self.kv_heads * self.group,
            kv_heads: self.kv_heads,
            scale: self.scale,
            pad: self.pad.as_deref(),
            causal: self.causal,
            window: self.window,
            bias: self.bias.as_deref(),
            dropout: self.dropout,
        }
    }

    fn forward(&self) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.query.len()];
        forward(&self.view(), &mut out);
        out
    }

    /// Of query, key, value and bias.
    fn backward(&self) -> [Vec<f32>; 4] {
        let kv = self.batch * self.keys * self.kv_heads * self.dim;
        let bias = self.bias.as_ref().map_or(0, Vec::len);
        let mut grads = [self.query.len(), kv, kv, bias].map(|len| vec![f32::NAN; len]);
        let [query, key, value, bias] = &mut grads;
        let bias = self.bias.is_some().then_some(&mut bias[..]);
        let view = self.view();
        let rows = self.batch * self.keys;
        let out = Gradients {
            query: MatrixMut::new(query, view.query.rows(), view.query.cols()),
            key: MatrixMut::new(key, rows, view.key.cols()),
            value: MatrixMut::new(value, rows, view.key.cols()),
            bias,
        };
        backward(&view, &self.dy, out);
        grads
    }
}

/// The specification: forward and backward, number by number in f64.
struct Twin {
    out: Vec<f64>,
    /// Of query, key, value and bias.
    grads: [Vec<f64>; 4],
}

fn twin(case: &Case) -> Twin {
    let Case { batch, queries, keys, capacity, kv_heads, group, dim, .. } = *case;
    let heads = kv_heads * group;
    let stride = keys.next_multiple_of(LANES);
    let mut out = vec![0.0; case.query.len()];
    let mut dq = vec![0.0; case.query.len()];
    let mut dk = vec![0.0; batch * keys * kv_heads * dim];
    let mut dv = dk.clone();
    let mut dbias = vec![0.0; case.bias.as_ref().map_or(0, Vec::len)];
    for b in 0..batch {
        for h in 0..heads {
            for q in 0..queries {
                let at_q = |d| ((b * queries + q) * heads + h) * dim + d;
                let at_k = |k, d| ((b * capacity + k) * kv_heads + h / group) * dim + d;
                let at_dk = |k, d| ((b * keys + k) * kv_heads + h / group) * dim + d;
                let row = (b * heads + h) * queries + q;
                let biases = dbias.len();
                let at_bias = |k| (row * keys + k) % biases;

                let position = (keys + q) as i64 - queries as i64;
                let in_sight = |k: &usize| {
                    let k = *k as i64;
                    (!case.causal || k <= position)
                        && case.window.is_none_or(|window| k > position - window as i64)
                };
                let shown = |k: &usize| case.pad.as_ref().is_none_or(|pad| pad[b * keys + k] == 0);
                let sight: Vec<usize> = (0..keys).filter(in_sight).collect();
                let seen: Vec<usize> = sight.iter().copied().filter(shown).collect();

                let score = |k: usize| {
                    let dot: f64 = (0..dim)
                        .map(|d| f64::from(case.query[at_q(d)]) * f64::from(case.key[at_k(k, d)]))
                        .sum();
                    let bias = case.bias.as_ref().map_or(0.0, |bias| f64::from(bias[at_bias(k)]));
                    dot * f64::from(case.scale) + bias
                };
                let total: f64 = seen.iter().map(|k| score(*k).exp()).sum();
                // Key, weight, and what dropout makes of it.
                let weights: Vec<(usize, f64, f64)> = if seen.is_empty() {
                    sight.iter().map(|k| (*k, 1.0 / sight.len() as f64)).collect::<Vec<_>>()
                } else {
                    seen.iter().map(|k| (*k, score(*k).exp() / total)).collect()
                }
                .into_iter()
                .map(|(k, w)| (k, w, f64::from(case.dropout.factor((row * stride + k) as u32))))
                .collect();

                let slope = |k: usize, factor: f64| -> f64 {
                    let dot = (0..dim)
                        .map(|d| f64::from(case.dy[at_q(d)]) * f64::from(case.value[at_k(k, d)]));
                    dot.sum::<f64>() * factor
                };
                let along: f64 = weights.iter().map(|(k, w, f)| w * slope(*k, *f)).sum();
                for (k, weight, factor) in weights {
                    for d in 0..dim {
                        out[at_q(d)] += weight * factor * f64::from(case.value[at_k(k, d)]);
                        dv[at_dk(k, d)] += weight * factor * f64::from(case.dy[at_q(d)]);
                    }
                    if seen.is_empty() {
                        continue;
                    }
                    let score = weight * (slope(k, factor) - along);
                    if case.bias.is_some() {
                        dbias[at_bias(k)] += score;
                    }
                    for d in 0..dim {
                        let scaled = score * f64::from(case.scale);
                        dq[at_q(d)] += scaled * f64::from(case.key[at_k(k, d)]);
                        dk[at_dk(k, d)] += scaled * f64::from(case.query[at_q(d)]);
                    }
                }
            }
        }
    }
    Twin { out, grads: [dq, dk, dv, dbias] }
}

/// Both passes agree with the twin.
#[track_caller]
fn check(case: &Case) {
    let twin = twin(case);
    let close = |what: &str, found: &[f32], expected: &[f64]| {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            // Measured: 3e-6 of the largest sums.
            assert!(error < 1e-5 * expected.abs().max(1.0), "{what}[{i}]: {found}, not {expected}");
        }
    };
    close("out", &case.forward(), &twin.out);
    let names = ["query", "key", "value", "bias"];
    for ((name, found), expected) in names.iter().zip(case.backward()).zip(&twin.grads) {
        close(name, &found, expected);
    }
}

/// The twin's gradients are those of its values, so the kernel's are: by finite differences of every input.
#[test]
fn the_twin_has_the_slopes_of_its_values() {
    let mut case = Case::full(2, 5, [2, 2], 3);
    case.causal = true;
    case.dropout = Dropout::new(0.2, 5);
    case.pad = Some((0..10).map(|i| u8::from(i == 1 || i > 7)).collect());
    case.bias = Some(numbers(4 * 5 * 5, 9));
    let loss = |case: &Case| -> f64 {
        twin(case).out.iter().zip(&case.dy).map(|(y, dy)| y * f64::from(*dy)).sum()
    };
    for (which, grad) in twin(&case).grads.iter().enumerate() {
        for (i, found) in grad.iter().enumerate() {
            let at = |h: f32| {
                let mut case = case.clone();
                let bias = case.bias.as_mut().expect("set above");
                [&mut case.query, &mut case.key, &mut case.value, bias][which][i] += h;
                loss(&case)
            };
            let h = 1.0 / 256.0;
            let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
            assert!((found - slope).abs() < 1e-4, "{which}, {i}: {found}, not {slope}");
        }
    }
    check(&case);
}

#[test]
fn more_than_one_tile() {
    check(&Case::full(2, 150, [3, 1], 4));
    let causal = Case { causal: true, ..Case::full(1, 150, [2, 2], 4) };
    check(&causal);
    check(&Case { window: Some(20), ..causal.clone() });
    check(&Case { pad: Some((0..150).map(|i| u8::from(i < 70)).collect()), ..causal });
}

#[test]
fn a_row_of_padding_stays_finite() {
    let case = Case { pad: Some(vec![1; 2 * 20]), ..Case::full(2, 20, [2, 1], 4) };
    check(&case);
    check(&Case { causal: true, ..case });
}

/// A hidden key's weight is 0, not nearly: a value that is not a number would show.
#[test]
fn what_is_hidden_is_not_read() {
    let mut case = Case { keys: 9, capacity: 20, ..Case::full(1, 1, [2, 3], 8) }.filled();
    case.pad = Some(vec![0, 0, 1, 0, 0, 0, 0, 0, 1]);
    let before = case.forward();
    for x in [&mut case.key, &mut case.value] {
        x.chunks_exact_mut(16).skip(9).for_each(|row| row.fill(f32::NAN));
        x[2 * 16..3 * 16].fill(1e30);
    }
    assert_eq!(case.forward(), before);
}

/// One query at a time from a growing cache gives what all at once give.
#[test]
fn decoding_is_the_causal_pass() {
    let all = Case { causal: true, window: Some(7), ..Case::full(2, 30, [2, 4], 8) };
    let expected = all.forward();
    for t in 0..30 {
        let width = 8 * 8;
        let row = |b: usize| &all.query[(b * 30 + t) * width..][..width];
        let case =
            Case { queries: 1, keys: t + 1, query: [row(0), row(1)].concat(), ..all.clone() };
        for (b, found) in case.forward().chunks_exact(width).enumerate() {
            let expected = &expected[(b * 30 + t) * width..][..width];
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{t}, {b}: {found}, not {expected}");
            }
        }
    }
}

prop_compose! {
    fn cases()(
        batch in 1usize..4,
        queries in prop_oneof![Just(1usize), 1usize..40],
        more_keys in prop_oneof![Just(0usize), 0usize..50],
        more_room in 0usize..3,
        kv_heads in 1usize..3,
        group in 1usize..4,
        dim in prop_oneof![1usize..9, Just(16usize)],
        causal: bool,
        window in proptest::option::of(1usize..40),
        dropout in prop_oneof![Just(Dropout::NONE), Just(Dropout::new(0.3, 7))],
        pad_every in proptest::option::of(1usize..6),
        bias in 0usize..3,
    ) -> Case {
        let keys = queries + more_keys;
        let mut case = Case { keys, capacity: keys + more_room, causal, window, dropout,
            ..Case::full(batch, queries, [kv_heads, group], dim) }.filled();
        case.pad = pad_every.map(|n| (0..batch * keys).map(|i| u8::from(i % n == 0)).collect());
        let rows = [0, 1, batch][bias] * kv_heads * group * queries;
        case.bias = (rows > 0).then(|| numbers(rows * keys, 8));
        case
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_shape_and_mask(case in cases()) {
        check(&case);
    }
}

/// Fewer keys than queries, as in attention to another sequence.
#[test]
fn cross_attention() {
    let case = Case { keys: 7, capacity: 7, ..Case::full(2, 33, [2, 1], 4) }.filled();
    check(&Case { pad: Some((0..14).map(|i| u8::from(i % 7 > 4)).collect()), ..case });
}

/// Query, key and value side by side in one buffer, and so their gradients.
#[test]
fn packed_rows() {
    let apart = Case { causal: true, ..Case::full(2, 70, [3, 1], 8) };
    let (rows, c) = (2 * 70, 3 * 8);
    let mut packed = vec![];
    for row in 0..rows {
        for part in [&apart.query, &apart.key, &apart.value] {
            packed.extend_from_slice(&part[row * c..][..c]);
        }
    }
    let part = |i: usize| Matrix::strided(&packed[i * c..], rows, c, 3 * c, 1);
    let view = Attention { query: part(0), key: part(1), value: part(2), ..apart.view() };
    let mut out = vec![f32::NAN; rows * c];
    forward(&view, &mut out);
    assert_eq!(out, apart.forward());

    let mut grad = vec![f32::NAN; packed.len()];
    let parts = MatrixMut::new(&mut grad, rows, 3 * c).into_blocks_of_cols(c).collect::<Vec<_>>();
    let [query, key, value] = parts.try_into().expect("three");
    backward(&view, &apart.dy, Gradients { query, key, value, bias: None });
    let expected = apart.backward();
    for (row, grad) in grad.chunks_exact(3 * c).enumerate() {
        for (part, expected) in grad.chunks_exact(c).zip(&expected) {
            assert_eq!(part, &expected[row * c..][..c]);
        }
    }
}
