//! Where on a picture a classifier sees what it says: Grad-CAM.
//!
//! Paper: Selvaraju et al. 2016, <https://arxiv.org/abs/1610.02391>.
//!
//! Axis letters: `C` channels of the last maps, `H`, `W` their rows and columns.

use anyhow::{Context, ensure};
use burn::{prelude::*, tensor::TensorData};
use firebrick_core::checkpoint::Source;
use firebrick_data::image::{
    Colour, Picture,
    resize::{Filter, resize},
};

use crate::classification::classifier::PictureClassifier;

/// How much each place of a picture speaks for a class.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    pub rows: usize,
    pub columns: usize,
    /// Row by row, the largest 1; all 0 where nothing speaks for the class.
    pub values: Vec<f32>,
}

/// A classifier twice: once as it answers, once on a device with gradients.
pub struct Explainer {
    pub classifier: PictureClassifier,
    learner: PictureClassifier,
    device: Device,
}

impl Explainer {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let learning = device.clone().autodiff();
        Ok(Self {
            classifier: PictureClassifier::open(source, device)?,
            learner: PictureClassifier::open(source, &learning)?,
            device: learning,
        })
    }

    /// What speaks for the label of index `class` on `picture`.
    pub fn explain(&self, picture: &Picture, class: usize) -> anyhow::Result<HeatMap> {
        let PictureClassifier { classifier, processor, labels, .. } = &self.classifier;
        ensure!(class < labels.len(), "class {class} of {}", labels.len());
        let device = self.device.clone().inner();
        let images = processor.batch(&[processor.size(picture)], &device);
        let maps = classifier.model.features(images);
        // A norm over the batch must see no gradient, so the maps are made without and only their reading is derived.
        let maps =
            maps.context("this model has no maps to explain itself by: it is a Transformer")?;
        let [_, c, h, w] = maps.dims();
        let maps = maps.into_data().convert_dtype(burn::tensor::DType::F32);
        let leaf = Tensor::<4>::from_data(maps.clone(), &self.device).require_grad();
        let logits =
            self.learner.classifier.model.classify(leaf.clone()).context("no classifier")?;
        let gradients = logits.narrow(1, class, 1).sum().backward();
        let gradient = leaf.grad(&gradients).context("no gradient")?;
        let floats = |data: TensorData| {
            data.convert_dtype(burn::tensor::DType::F32)
                .try_into_vec::<f32>()
                .expect("just converted")
        };
        let (maps, gradient) = (floats(maps), floats(gradient.into_data()));
        Ok(HeatMap { rows: h, columns: w, values: weighed(&maps, &gradient, c) })
    }
}

/// Maps `[C, H, W]`, each times the mean of its gradient, summed; what speaks against the class is left out.
fn weighed(maps: &[f32], gradient: &[f32], channels: usize) -> Vec<f32> {
    let size = maps.len() / channels;
    let mut values = vec![0.0; size];
    for (map, gradient) in maps.chunks_exact(size).zip(gradient.chunks_exact(size)) {
        let weight = gradient.iter().sum::<f32>() / size as f32;
        values.iter_mut().zip(map).for_each(|(value, x)| *value += weight * x);
    }
    values.iter_mut().for_each(|value| *value = value.max(0.0));
    let most = values.iter().copied().fold(0.0, f32::max);
    if most > 0.0 {
        values.iter_mut().for_each(|value| *value /= most);
    }
    values
}

/// Longest side of a picture with its heat on it.
const SIDE: usize = 1024;

/// Shortest: below, one would see nothing.
const SHORTEST: usize = 256;

impl HeatMap {
    /// `picture`, enlarged where it is small, with red where the map is high.
    pub fn over(&self, picture: &Picture) -> Picture {
        let (w, h) = (picture.width, picture.height);
        let scale = (SHORTEST as f64 / w.min(h) as f64).max(1.0).min(SIDE as f64 / w.max(h) as f64);
        let scaled = |side: usize| ((side as f64 * scale).round() as usize).max(1);
        let (w, h) = (scaled(w), scaled(h));
        let mut shown = resize(&picture.clone().into_colour(Colour::Rgb), w, h, Filter::Bicubic);
        let heat = Picture {
            width: self.columns,
            height: self.rows,
            colour: Colour::Grey,
            pixels: self.values.iter().map(|value| (255.0 * value).round() as u8).collect(),
        };
        let heat = resize(&heat, w, h, Filter::Bicubic);
        for (pixel, heat) in shown.pixels.as_chunks_mut::<3>().0.iter_mut().zip(heat.pixels) {
            let heat = f32::from(heat) / 255.0;
            for (number, full) in pixel.iter_mut().zip(colour(heat)) {
                let share = 0.6 * heat;
                *number = (f32::from(*number) * (1.0 - share) + full * share).round() as u8;
            }
        }
        shown
    }
}

/// From yellow to red.
fn colour(heat: f32) -> [f32; 3] {
    [255.0, 255.0 * (1.0 - heat), 0.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two maps of 1 x 2, mean gradients 2 and -1.
    #[test]
    fn maps_are_weighed_by_their_gradients() {
        let maps = [1.0, 3.0, 4.0, 2.0];
        let gradient = [1.0, 3.0, -1.0, -1.0];
        assert_eq!(weighed(&maps, &gradient, 2), [0.0, 1.0]); // 2 - 4 < 0, and 6 - 2
        assert_eq!(weighed(&maps, &[-1.0; 4], 2), [0.0, 0.0]);
    }

    #[test]
    fn heat_lies_where_the_map_is_high() {
        let map = HeatMap { rows: 1, columns: 2, values: vec![0.0, 1.0] };
        let shown = map.over(&Picture::filled(300, 256, Colour::Grey, 100));
        assert_eq!((shown.width, shown.height), (300, 256));
        assert_eq!(shown.pixels[..3], [100; 3]);
        let last = &shown.pixels[shown.pixels.len() - 3..];
        assert!(last[0] > 150 && last[2] < 60, "{last:?}");
    }
}
