//! What training makes small.
//!
//! Axis letters: `N` rows, `V` classes.

use burn::{prelude::*, tensor::activation};

use super::fused;

/// Mean cross entropy of logits `[N, V]` and class numbers `[N]`, as `torch.nn.functional.cross_entropy`. Rows whose
/// target is `ignore` do not count; without any that does the loss is 0.
///
/// `smoothing`: share of the target that all classes get alike (Szegedy et al. 2015,
/// <https://arxiv.org/abs/1512.00567>, section 7), in `[0, 1]`.
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    ignore: Option<i32>,
    smoothing: f64,
) -> Tensor<1> {
    if fused::applies(&logits) {
        return fused::cross_entropy(logits, targets, ignore, smoothing);
    }
    composed(logits, targets, ignore, smoothing)
}

/// [`cross_entropy`] from Burn's operations.
pub(super) fn composed(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    ignore: Option<i32>,
    smoothing: f64,
) -> Tensor<1> {
    let log_p = activation::log_softmax(logits, 1);
    let ignored = match ignore {
        Some(class) => targets.clone().equal_elem(class),
        None => targets.zeros_like().bool(),
    };
    let classes = targets.mask_fill(ignored.clone(), 0).unsqueeze_dim(1); // [N, 1]
    let of_target = log_p.clone().gather(1, classes);
    let of_all = log_p.mean_dim(1);
    let losses = of_target * (smoothing - 1.0) - of_all * smoothing; // [N, 1]
    let losses = losses.squeeze_dim::<1>(1).mask_fill(ignored.clone(), 0.0);
    let counted = ignored.bool_not().float().sum().clamp_min(1.0);
    losses.sum() / counted
}

/// Mean cross entropy of the logarithms of probabilities and target distributions, `[N, V]` each.
pub fn soft_cross_entropy(log_p: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    -(targets * log_p).sum_dim(1).mean()
}

/// Logarithm of the softmax over the last axis, `[..]` -> `[..]`.
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if fused::applies(&x) { fused::log_softmax(x) } else { activation::log_softmax(x, D - 1) }
}

/// Softmax over the last axis, `[..]` -> `[..]`.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if fused::applies(&x) { fused::softmax(x) } else { activation::softmax(x, D - 1) }
}
