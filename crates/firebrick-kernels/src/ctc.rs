//! Connectionist temporal classification: how likely a sequence of labels is, in whichever frames they lie.
//!
//! Paper: Graves et al. 2006, <https://www.cs.toronto.edu/~graves/icml_2006.pdf>. Agrees with
//! `torch.nn.functional.ctc_loss`.
//!
//! A path names a label or the blank in every frame; it stands for the labels without repetitions and blanks. The loss is
//! the negative logarithm of the sum over all paths that stand for the target. Between the labels of the target lie
//! places for blanks: `2 L + 1` places, which a path walks along, one or (between different labels) two at a time.
//!
//! Axis letters: `T` frames, `V` labels with the blank, `L` labels of the target, `S` places (`2 L + 1`).

/// Loss of one sequence in nats, and its gradient by the logits.
///
/// - `logits`: `[T, V]`; a softmax over `V` is part of the loss
/// - `target`: labels below `V`, none of them `blank`
/// - `gradient`: `[T, V]`, overwritten
/// - returns infinity, and a gradient of zeros, where `T` is too short for the target
///
/// # Panics
///
/// If a length or a label does not fit.
pub fn loss_and_gradient(
    logits: &[f32],
    classes: usize,
    target: &[u32],
    blank: u32,
    gradient: &mut [f32],
) -> f64 {
    assert!(classes > 0 && logits.len().is_multiple_of(classes), "rows of {classes} logits");
    assert_eq!(logits.len(), gradient.len());
    assert!(target.iter().all(|label| *label != blank && (*label as usize) < classes));
    let frames = logits.len() / classes;
    let log_p = log_softmax(logits, classes);
    let places = 2 * target.len() + 1;
    let label = |s: usize| if s.is_multiple_of(2) { blank } else { target[s / 2] } as usize;
    // From the place before the last, where a blank between may be left out.
    let jumps = |s: usize| s % 2 == 1 && s >= 2 && label(s) != label(s - 2);

    // Logarithms of sums over the beginnings of paths, `[T, S]`.
    let mut alpha = vec![f64::NEG_INFINITY; frames * places];
    for t in 0..frames {
        for s in 0..places {
            let before = match t {
                0 if s < 2 => 0.0,
                0 => f64::NEG_INFINITY,
                _ => {
                    let row = &alpha[(t - 1) * places..t * places];
                    let mut sum = row[s];
                    if s >= 1 {
                        sum = log_add(sum, row[s - 1]);
                    }
                    if jumps(s) {
                        sum = log_add(sum, row[s - 2]);
                    }
                    sum
                }
            };
            alpha[t * places + s] = before + log_p[t * classes + label(s)];
        }
    }
    let total = match frames {
        0 if target.is_empty() => 0.0,
        0 => f64::NEG_INFINITY,
        _ => {
            let last = &alpha[(frames - 1) * places..];
            let before_blank = if places > 1 { last[places - 2] } else { f64::NEG_INFINITY };
            log_add(last[places - 1], before_blank)
        }
    };
    gradient.fill(0.0);
    if total == f64::NEG_INFINITY {
        return f64::INFINITY;
    }

    // Over their ends, without the frame itself, row by row from the last; then p(v) minus the share of the paths that
    // have v in this frame.
    let mut beta = vec![f64::NEG_INFINITY; places];
    let mut shares = vec![f64::NEG_INFINITY; classes];
    for t in (0..frames).rev() {
        if t + 1 == frames {
            beta[places.saturating_sub(2)..].fill(0.0);
        } else {
            let after: Vec<f64> =
                (0..places).map(|s| beta[s] + log_p[(t + 1) * classes + label(s)]).collect();
            for s in 0..places {
                let mut sum = after[s];
                if s + 1 < places {
                    sum = log_add(sum, after[s + 1]);
                }
                if s + 2 < places && jumps(s + 2) {
                    sum = log_add(sum, after[s + 2]);
                }
                beta[s] = sum;
            }
        }
        shares.fill(f64::NEG_INFINITY);
        for s in 0..places {
            let v = label(s);
            shares[v] = log_add(shares[v], alpha[t * places + s] + beta[s]);
        }
        let row = t * classes..(t + 1) * classes;
        for ((g, log_p), share) in gradient[row.clone()].iter_mut().zip(&log_p[row]).zip(&shares) {
            *g = (log_p.exp() - (share - total).exp()) as f32;
        }
    }
    -total
}

/// `ln(e^a + e^b)`
fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    match low == f64::NEG_INFINITY {
        true => high,
        false => high + (low - high).exp().ln_1p(),
    }
}

fn log_softmax(logits: &[f32], classes: usize) -> Vec<f64> {
    let row = |row: &[f32]| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
        let shift = f64::from(most) + sum.ln();
        row.iter().map(move |x| f64::from(*x) - shift).collect::<Vec<f64>>()
    };
    logits.chunks(classes).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path in turn.
    fn by_enumeration(logits: &[f32], classes: usize, target: &[u32]) -> f64 {
        let log_p = log_softmax(logits, classes);
        let frames = logits.len() / classes;
        let mut sum = 0.0;
        for number in 0..classes.pow(frames as u32) {
            let path = (0..frames).map(|t| (number / classes.pow(t as u32) % classes) as u32);
            let path: Vec<u32> = path.collect();
            let mut said = path.clone();
            said.dedup();
            said.retain(|label| *label != 0);
            if said == target {
                let log: f64 =
                    path.iter().enumerate().map(|(t, v)| log_p[t * classes + *v as usize]).sum();
                sum += log.exp();
            }
        }
        -sum.ln()
    }

    fn logits(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.7).sin() * 2.0).collect()
    }

    #[test]
    fn the_loss_is_the_sum_over_all_paths() {
        for target in [&[][..], &[1], &[1, 2], &[2, 2], &[1, 2, 1]] {
            let x = logits(5 * 3);
            let found = loss_and_gradient(&x, 3, target, 0, &mut [0.0; 15]);
            let expected = by_enumeration(&x, 3, target);
            assert!((found - expected).abs() < 1e-9, "{target:?}: {found} {expected}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let x = logits(6 * 4);
        let target = [3, 1, 1];
        let mut gradient = vec![0.0; x.len()];
        loss_and_gradient(&x, 4, &target, 0, &mut gradient);
        for i in 0..x.len() {
            let at = |step: f32| {
                let mut moved = x.clone();
                moved[i] += step;
                loss_and_gradient(&moved, 4, &target, 0, &mut vec![0.0; x.len()])
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(gradient[i])).abs() < 1e-4, "{i}");
        }
    }

    /// Written by PyTorch 2.11: `ctc_loss(log_softmax(x, -1)[:, None], ..., reduction="sum")`.
    #[test]
    fn the_loss_is_torchs() {
        let x = logits(6 * 4);
        for (target, expected) in GOLDEN {
            let found = loss_and_gradient(&x, 4, target, 0, &mut [0.0; 24]);
            assert!((found - expected).abs() < 1e-5, "{target:?}: {found}");
        }
        let mut gradient = [0.0; 24];
        loss_and_gradient(&x, 4, &[3, 1, 1], 0, &mut gradient);
        for (found, expected) in gradient.iter().zip(GRADIENT) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    const GOLDEN: &[(&[u32], f64)] =
        &[(&[1], 2.660114), (&[1, 2], 3.855827), (&[3, 1, 1], 8.407482), (&[2, 2, 3], 7.410719)];

    /// Of the first frame, for the target 3 1 1.
    const GRADIENT: [f32; 4] = [0.0408825, 0.8053101, 0.0664743, -0.9126668];

    #[test]
    fn too_few_frames() {
        let mut gradient = [1.0; 6];
        assert_eq!(loss_and_gradient(&logits(6), 3, &[1, 1], 0, &mut gradient), f64::INFINITY);
        assert_eq!(gradient, [0.0; 6]);
        assert_eq!(loss_and_gradient(&[], 3, &[], 0, &mut []), 0.0);
    }
}
