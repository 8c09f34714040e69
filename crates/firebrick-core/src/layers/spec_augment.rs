//! SpecAugment (Park et al. 2019, <https://arxiv.org/abs/1904.08779>): in training, spans of a recording's frames or
//! channels are hidden.

use burn::{prelude::*, tensor::Distribution, tensor::TensorData};

/// How much is hidden, along one axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpecAugment {
    /// Share of the places that lie in a span, were no two spans to overlap.
    pub prob: f64,
    /// Places of a span.
    pub length: usize,
    /// Spans of every row, however short.
    pub min_masks: usize,
}

impl SpecAugment {
    /// True where hidden: `[B, T]`, for rows of which only the first `lengths` of `t` places are used.
    /// `None` where nothing is ever hidden, and on a device without autodiff.
    pub fn draw(&self, lengths: &[usize], t: usize, device: &Device) -> Option<Tensor<2, Bool>> {
        if self.prob == 0.0 || !device.is_autodiff() {
            return None;
        }
        let b = lengths.len();
        let draws =
            Tensor::<1>::random([b * t + 1], Distribution::Default, &device.clone().inner());
        let draws: Vec<f64> = draws.into_data().iter::<f64>().collect();
        let (rounding, draws) = draws.split_last().expect("there is one more than places");
        let mut hidden = vec![false; b * t];
        for ((hidden, draws), length) in hidden.chunks_mut(t).zip(draws.chunks(t)).zip(lengths) {
            for start in self.starts(&draws[..*length], t, *rounding) {
                hidden[start..start + self.length].fill(true);
            }
        }
        Some(Tensor::from_data(TensorData::new(hidden, [b, t]), device))
    }

    /// Where the spans of one row begin; `draws` are random numbers, one for each place that is used. They may
    /// overlap, but no two begin together. `rounding` of [0, 1) decides whether part of a span is one.
    fn starts(&self, draws: &[f64], t: usize, rounding: f64) -> Vec<usize> {
        let places = (draws.len() + 1).saturating_sub(self.length);
        let wanted = self.prob * draws.len() as f64 / self.length as f64 + rounding;
        let count = (wanted as usize).max(self.min_masks).min(t / self.length).min(places);
        let mut starts: Vec<usize> = (0..places).collect();
        starts.sort_by(|a, b| draws[*a].total_cmp(&draws[*b]));
        starts.truncate(count);
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_stay_in_the_used_part() {
        let augment = SpecAugment { prob: 0.5, length: 3, min_masks: 1 };
        let draws = [0.9, 0.1, 0.5, 0.2, 0.8, 0.0];
        // 0.5 * 6 / 3 = 1 span, and one more where 0.7 rounds half a span up.
        assert_eq!(augment.starts(&draws, 8, 0.4), [1]);
        assert_eq!(SpecAugment { prob: 0.75, ..augment }.starts(&draws, 8, 0.7), [1, 3]);
        assert_eq!(augment.starts(&draws[..2], 8, 0.4), [0; 0]); // shorter than a span
        assert_eq!(augment.starts(&draws, 2, 0.4), [0; 0]);
    }

    #[test]
    fn nothing_is_hidden_outside_training() {
        let augment = SpecAugment { prob: 0.9, length: 2, min_masks: 2 };
        let device = Device::flex();
        assert!(augment.draw(&[8, 8], 8, &device).is_none());
        let hidden = augment.draw(&[8, 4], 8, &device.autodiff()).expect("in training");
        let hidden: Vec<bool> = hidden.into_data().iter::<bool>().collect();
        assert!(hidden[..8].contains(&true) && !hidden[12..].contains(&true), "{hidden:?}");
    }
}
