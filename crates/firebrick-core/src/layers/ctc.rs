//! Connectionist temporal classification as a loss (Graves et al. 2006; [`firebrick_kernels::ctc`]).
//!
//! Axis letters: `B` batch, `T` frames, `V` labels with the blank.

use burn::{
    prelude::*,
    tensor::{DType, TensorData},
};
use firebrick_kernels::ctc;
use rayon::prelude::*;

/// Mean over the batch of each sequence's loss over the length of its target, as `torch.nn.functional.ctc_loss` with
/// `reduction="mean"` and `zero_infinity=True`: sequences too short for their targets count as 0.
///
/// - `logits`: `[B, T, V]`, of which sequence `b` has the first `lengths[b]` frames; label 0 is the blank
/// - `targets`: labels of each sequence
/// - returns `[1]`
///
/// # Panics
///
/// If a length or a label does not fit.
pub fn ctc_loss(logits: Tensor<3>, lengths: &[usize], targets: &[Vec<u32>]) -> Tensor<1> {
    let [b, t, v] = logits.dims();
    assert!(lengths.len() == b && targets.len() == b, "a length and a target for each sequence");
    assert!(lengths.iter().all(|length| *length <= t), "lengths within the frames");
    let numbers = logits.clone().into_data().convert_dtype(DType::F32);
    let numbers = numbers.try_into_vec::<f32>().expect("just converted to f32");
    let mut gradient = vec![0.0; numbers.len()];
    let rows = gradient.par_chunks_mut(t * v).zip(numbers.par_chunks(t * v));
    let losses: Vec<f64> = rows
        .zip(lengths.par_iter().zip(targets))
        .map(|((gradient, logits), (length, target))| {
            let used = length * v;
            let loss = ctc::loss_and_gradient(&logits[..used], v, target, 0, &mut gradient[..used]);
            let weight = 1.0 / (b * target.len().max(1)) as f64;
            gradient.iter_mut().for_each(|g| *g *= weight as f32);
            if loss.is_finite() { loss * weight } else { 0.0 }
        })
        .collect();
    let loss = losses.iter().sum::<f64>();
    let device = logits.device();
    let gradient = Tensor::<3>::from_data(TensorData::new(gradient, [b, t, v]), &device);
    // Its gradient by the logits is what was computed; its value is put right.
    let slope = (logits * gradient).sum();
    slope.clone() - slope.detach() + loss
}

/// Loss of one sequence by its logits, or their logarithms of probabilities, `[T, V]`; infinite where it is too short.
pub fn sequence_loss(logits: &[f32], labels: usize, target: &[u32]) -> f64 {
    ctc::loss_and_gradient(logits, labels, target, 0, &mut vec![0.0; logits.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By finite differences, with a sequence that is shorter than the batch and one that is too short.
    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let device = Device::flex().autodiff();
        let numbers: Vec<f32> = (0..3 * 4 * 3).map(|i| (i as f32 * 1.3).sin()).collect();
        let loss = |numbers: &[f32]| {
            let data = TensorData::new(numbers.to_vec(), [3, 4, 3]);
            let x = Tensor::<3>::from_data(data, &device).require_grad();
            let loss = ctc_loss(x.clone(), &[4, 3, 1], &[vec![1, 2], vec![2], vec![1, 1]]);
            let gradient = x.grad(&loss.backward()).expect("logits have a gradient");
            (loss.into_scalar::<f64>(), gradient.into_data().try_into_vec::<f32>().unwrap())
        };
        let (_, gradient) = loss(&numbers);
        for i in 0..numbers.len() {
            let at = |step: f32| {
                let mut moved = numbers.clone();
                moved[i] += step;
                loss(&moved).0
            };
            let slope = (at(0.01) - at(-0.01)) / 0.02;
            assert!((slope - f64::from(gradient[i])).abs() < 1e-3, "{i}: {slope} {}", gradient[i]);
        }
        assert_eq!(gradient[33..], [0.0; 3]);
    }
}
