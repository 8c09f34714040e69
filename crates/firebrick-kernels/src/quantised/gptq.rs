//! Levels that keep what a layer says, and not each weight by itself: GPTQ (Frantar et al. 2022,
//! <https://arxiv.org/abs/2210.17323>).
//!
//! Of inputs `x` let `H = sum x x^T`. Weights that are off by `e` say what is off by `e H e^T`, which with `H = U U^T`, `U`
//! upper triangular, is `|e U|^2`. Inputs are rounded one after the other, and those to come could still make up for all
//! that the ones before did to their entries of `e U`: input `j` aims at `w[j] + sum(i < j) e[i] U[i, j] / U[j, j]`. That is
//! the update of the paper, which writes it with the inverse of `H`.

use rayon::prelude::*;

use super::{
    Format, Levels, Range,
    levels::{choose, levels, nearest},
};

/// Of the mean of `H`'s diagonal, what is added to it: the paper's one per cent.
const DAMPING: f64 = 0.01;

/// As [`levels`], with the least error of the layer's outputs rather than of its weights. Inputs without any `moments` (all
/// zero, or not finite) give the nearest levels.
///
/// - `weights`: `[O, inputs]`
/// - `moments`: `[inputs, inputs]`, `sum x x^T` of what goes into the layer
pub fn gptq(
    weights: &[f32],
    moments: &[f32],
    inputs: usize,
    format: Format,
    range: Range,
) -> Levels {
    assert_eq!(moments.len(), inputs * inputs, "moments of {inputs} inputs");
    let Some(factor) = factor(moments, inputs) else {
        return levels(weights, inputs, format, range);
    };
    let groups = format.groups(inputs);
    let outputs = weights.len() / inputs.max(1);
    let (mut levels, mut scales) = (vec![0; weights.len()], vec![0.0; outputs * groups]);
    levels
        .par_chunks_mut(inputs)
        .zip(scales.par_chunks_mut(groups))
        .zip(weights.par_chunks(inputs))
        .for_each(|((levels, scales), weights)| {
            round(weights, &factor, format, range, levels, scales);
        });
    Levels { levels, scales }
}

/// One output: its levels `[I]` and scales `[G]`.
fn round(
    weights: &[f32],
    factor: &[f32],
    format: Format,
    range: Range,
    levels: &mut [i8],
    scales: &mut [f32],
) {
    let inputs = weights.len();
    let (group, most) = (format.group(inputs), format.largest());
    let mut errors = vec![0.0f32; inputs];
    for (g, scale) in scales.iter_mut().enumerate() {
        let (begin, end) = (g * group, inputs.min((g + 1) * group));
        let row = |i: usize| &factor[i * inputs..][begin..end];
        // The group's entries of `e U`, from the inputs before it.
        let mut off = vec![0.0f32; end - begin];
        errors[..begin].iter().enumerate().for_each(|(i, e)| add(&mut off, *e, row(i)));
        // What the group would best be if it needed no rounding is what the scale is to fit.
        let (mut free, mut rest) = (weights[begin..end].to_vec(), off.clone());
        for j in 0..free.len() {
            let ideal = -rest[j] / row(begin + j)[j];
            free[j] -= ideal;
            add(&mut rest[j + 1..], ideal, &row(begin + j)[j + 1..]);
        }
        *scale = choose(&free, format, range);
        for j in 0..free.len() {
            let at = begin + j;
            let level = nearest(weights[at] + off[j] / row(at)[j], *scale, most);
            levels[at] = level as i8;
            errors[at] = weights[at] - level * *scale;
            add(&mut off[j + 1..], errors[at], &row(at)[j + 1..]);
        }
    }
}

/// `to += factor * from`
fn add(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

/// The upper triangular `U` of `H = U U^T`, `[I, I]`, with a little added to the diagonal: more where the sum of many
/// floats is not quite positive.
fn factor(moments: &[f32], inputs: usize) -> Option<Vec<f32>> {
    let trace: f64 = (0..inputs).map(|i| f64::from(moments[i * inputs + i])).sum();
    let mean = trace / inputs as f64;
    if !(mean > 0.0 && moments.iter().all(|h| h.is_finite())) {
        return None;
    }
    let dampings = [DAMPING, 10.0 * DAMPING, 1.0];
    dampings.into_iter().find_map(|damping| {
        let mut h: Vec<f64> = moments.iter().map(|h| f64::from(*h)).collect();
        (0..inputs).for_each(|i| h[i * inputs + i] += damping * mean);
        cholesky(&mut h, inputs).then(|| h.iter().map(|u| *u as f32).collect())
    })
}

/// Puts `U` in place of `H`'s upper triangle, from the last column to the first; false where `H` is not positive.
fn cholesky(h: &mut [f64], n: usize) -> bool {
    /// Products worth a task of their own.
    const TASK: usize = 1 << 14;
    for j in (0..n).rev() {
        let (above, row) = h.split_at_mut(j * n);
        let (pivot, tail) = row[j..n].split_first_mut().expect("a row has its diagonal");
        let square = *pivot - dot(tail, tail);
        if square.is_nan() || square <= 0.0 {
            return false;
        }
        *pivot = square.sqrt();
        let (pivot, tail) = (*pivot, &*tail);
        let together = TASK / (n - j);
        above.par_chunks_mut(n).with_min_len(together.max(1)).for_each(|row| {
            row[j] = (row[j] - dot(&row[j + 1..], tail)) / pivot;
        });
    }
    true
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in `-1..1`.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let number = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977) >> 8) as f32;
        (0..n as u32).map(|i| number(i) / (1 << 23) as f32 - 1.0).collect()
    }

    /// `sum x x^T` of rows that vary in fewer directions than they have numbers, as activations do.
    fn moments(inputs: usize) -> Vec<f32> {
        let directions = numbers(inputs * inputs / 2, 3);
        let mut moments = vec![0.0; inputs * inputs];
        for row in numbers(200 * inputs / 2, 4).chunks(inputs / 2) {
            let mut x = vec![0.0; inputs];
            let parts = row.iter().zip(directions.chunks(inputs));
            parts.for_each(|(part, direction)| add(&mut x, *part, direction));
            for (to, factor) in moments.chunks_mut(inputs).zip(&x) {
                add(to, *factor, &x);
            }
        }
        moments
    }

    /// `e H e^T`, over all outputs.
    fn error(weights: &[f32], moments: &[f32], inputs: usize, format: Format, w: &Levels) -> f64 {
        let (group, groups) = (format.group(inputs), format.groups(inputs));
        let mut total = 0.0;
        for (o, weights) in weights.chunks(inputs).enumerate() {
            let level = |i: usize| f32::from(w.levels[o * inputs + i]);
            let scale = |i: usize| w.scales[o * groups + i / group];
            let e: Vec<f32> = (0..inputs).map(|i| weights[i] - level(i) * scale(i)).collect();
            for (row, factor) in moments.chunks(inputs).zip(&e) {
                total += f64::from(*factor)
                    * row.iter().zip(&e).map(|(h, e)| f64::from(h * e)).sum::<f64>();
            }
        }
        total
    }

    #[test]
    fn what_the_layer_says_is_off_by_less_than_with_the_nearest_levels() {
        let inputs = 64;
        let (weights, moments) = (numbers(24 * inputs, 1), moments(inputs));
        for (format, range, share) in [
            (Format::Int8, Range::MinMax, 0.5),
            (Format::Int4 { group: 32 }, Range::Mse, 0.5),
            (Format::Int4 { group: 8 }, Range::MinMax, 0.5),
        ] {
            let error = |w: &Levels| error(&weights, &moments, inputs, format, w);
            let found = error(&gptq(&weights, &moments, inputs, format, range));
            let nearest = error(&levels(&weights, inputs, format, range));
            assert!(found < share * nearest, "{format:?}: {found}, nearest {nearest}");
        }
    }

    /// The paper's own loop: after each input the weights of the rest move along the inverse of what is left of `H`.
    #[test]
    fn the_levels_are_those_of_the_paper() {
        let inputs = 8;
        let (weights, moments) = (numbers(40 * inputs, 5), moments(inputs));
        let found = gptq(&weights, &moments, inputs, Format::Int8, Range::MinMax);
        let damped = DAMPING * (0..inputs).map(|i| f64::from(moments[i * inputs + i])).sum::<f64>()
            / inputs as f64;
        for (o, weights) in weights.chunks(inputs).enumerate() {
            let mut w: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
            let scale = f64::from(found.scales[o]);
            for j in 0..inputs {
                let level = (w[j] / scale).round_ties_even().clamp(-127.0, 127.0);
                assert_eq!(f64::from(found.levels[o * inputs + j]), level, "output {o}, input {j}");
                let rest: Vec<Vec<f64>> = (j..inputs)
                    .map(|a| {
                        let h = |b| {
                            f64::from(moments[a * inputs + b]) + if a == b { damped } else { 0.0 }
                        };
                        (j..inputs).map(h).collect()
                    })
                    .collect();
                let inverse = inverse(rest);
                let error = (w[j] - level * scale) / inverse[0][0];
                for k in j + 1..inputs {
                    w[k] -= error * inverse[0][k - j];
                }
            }
        }
    }

    /// By Gauss and Jordan.
    fn inverse(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let n = a.len();
        let one = |i: usize, j: usize| f64::from(u8::from(i == j));
        let mut inverse: Vec<Vec<f64>> =
            (0..n).map(|i| (0..n).map(|j| one(i, j)).collect()).collect();
        for i in 0..n {
            let pivot = a[i][i];
            for j in 0..n {
                (a[i][j], inverse[i][j]) = (a[i][j] / pivot, inverse[i][j] / pivot);
            }
            for k in (0..n).filter(|k| *k != i) {
                let factor = a[k][i];
                for j in 0..n {
                    a[k][j] -= factor * a[i][j];
                    inverse[k][j] -= factor * inverse[i][j];
                }
            }
        }
        inverse
    }

    #[test]
    fn inputs_that_do_not_go_together_are_rounded_to_the_nearest() {
        let inputs = 16;
        let weights = numbers(3 * inputs, 7);
        let format = Format::Int4 { group: 8 };
        let expected = levels(&weights, inputs, format, Range::Mse);
        let mut alone = vec![0.0; inputs * inputs];
        for h in [2.0, 0.0, f32::NAN] {
            (0..inputs).for_each(|i| alone[i * inputs + i] = h);
            assert_eq!(gptq(&weights, &alone, inputs, format, Range::Mse), expected);
        }
    }
}
