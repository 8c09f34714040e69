//! How much of its accuracy a model keeps on pictures that a bad camera took.

use std::collections::BTreeMap;

use firebrick_data::image::corrupt::Corruption;
use rayon::prelude::*;

use super::{classifier::PictureClassifier, layouts::Sample};

/// By corruption, the accuracy at each strength.
pub fn accuracies(
    classifier: &PictureClassifier,
    samples: &[Sample],
    batch_size: usize,
) -> BTreeMap<&'static str, Vec<f64>> {
    let accuracy = |corruption: Corruption, strength| {
        let corrupted: Vec<Sample> = samples
            .par_iter()
            .enumerate()
            .map(|(seed, sample)| Sample {
                picture: corruption.apply(&sample.picture, strength, seed as u64),
                ..sample.clone()
            })
            .collect();
        let judged = classifier.judge(&corrupted, batch_size);
        judged.confusion.accuracy().unwrap_or_default()
    };
    let strengths =
        |corruption| (1..=Corruption::STRENGTHS).map(|s| accuracy(corruption, s)).collect();
    Corruption::ALL.into_iter().map(|c| (c.name(), strengths(c))).collect()
}
