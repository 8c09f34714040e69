//! Object detection as a training task.
//!
//! Axis letters: `B` batch, `I` channels, `H` rows, `W` columns, `N` places, `L` labels.

use burn::{
    module::Module,
    prelude::*,
    tensor::{TensorData, activation},
};
use firebrick_core::arch::detector::{Detector, Place};
use firebrick_data::image::{Picture, augment::Augment, boxes::Rect};
use firebrick_train::{
    sampler::mix,
    task::{Examples, Task},
};
use rayon::prelude::*;

use super::{assign::assign, corpus::Scene};
use crate::classification::processor::Processor;

/// A detector in training.
#[derive(Module, Debug)]
pub struct Detect {
    pub model: Detector,
}

/// Pictures, and what each place is to say.
#[derive(Debug, Clone)]
pub struct SceneBatch {
    /// `[B, I, H, W]`
    pub images: Tensor<4>,
    /// `[B, N, L]`: 1 for the label of the place's object
    pub labels: Tensor<3>,
    /// `[B, N, 4]`: to the left, top, right and bottom of the object, in pixels; 1 where there is none
    pub distances: Tensor<3>,
}

/// How much the boxes count beside the scores (Li et al. 2020, as their code has it).
const BOX_WEIGHT: f64 = 2.0;

impl Task for Detect {
    type Batch = SceneBatch;
    const HEAD: &'static [&'static str] = &["model.classifier.", "model.boxes."];

    /// Quality focal loss (Li et al. 2020, <https://arxiv.org/abs/2006.04388>) and the generalized overlap of boxes
    /// (Rezatofighi et al. 2019, <https://arxiv.org/abs/1902.09630>), by the number of places with an object.
    fn loss(&self, batch: SceneBatch) -> Tensor<1> {
        let (logits, distances) = self.model.forward(batch.images);
        let objects = batch.labels.clone().sum_dim(2); // [B, N, 1]
        let (overlap, generalized) = overlaps(distances, batch.distances);
        let targets = batch.labels * overlap.detach();
        let scores = quality_focal(logits, targets).sum();
        let boxes = (objects.clone() * (generalized.neg() + 1.0)).sum() * BOX_WEIGHT;
        (scores + boxes) / objects.sum().clamp_min(1.0)
    }
}

/// `|target - score|^2` times the cross entropy, element by element: `[B, N, L]` each -> `[B, N, L]`
fn quality_focal(logits: Tensor<3>, targets: Tensor<3>) -> Tensor<3> {
    let scores = activation::sigmoid(logits.clone());
    // max(x, 0) + log(1 + exp(-|x|)) is log(1 + exp(x)) that does not overflow.
    let softplus = logits.clone().clamp_min(0.0) + logits.clone().abs().neg().exp().log1p();
    let cross_entropy = softplus - logits * targets.clone();
    (targets - scores).square() * cross_entropy
}

/// Intersection over union of the boxes around a place, and the generalized one, by distances above 0: `[B, N, 4]` each
/// -> `[B, N, 1]` each
fn overlaps(found: Tensor<3>, truth: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    // Left and right are the first and third distance, top and bottom the second and fourth.
    let area = |sides: Tensor<3>| {
        let side = |i: usize| sides.clone().narrow(2, i, 1);
        (side(0) + side(2)) * (side(1) + side(3)) // [B, N, 1]
    };
    let common = area(found.clone().min_pair(truth.clone()));
    let around = area(found.clone().max_pair(truth.clone()));
    let union = area(found) + area(truth) - common.clone();
    let overlap = common / union.clone();
    let generalized = overlap.clone() - (around.clone() - union) / around;
    (overlap, generalized)
}

/// Pictures as the training loop wants them.
pub struct SceneExamples {
    pub pictures: Vec<Picture>,
    /// Class index and box in the frame, of the objects of each picture.
    pub objects: Vec<Vec<(usize, Rect)>>,
    pub labels: usize,
    pub places: Vec<Place>,
    pub processor: Processor,
    pub augment: Augment,
}

impl SceneExamples {
    /// Of scenes in the frame of `processor`; objects of other labels are none.
    pub fn new(
        scenes: &[Scene],
        labels: &[String],
        places: Vec<Place>,
        processor: &Processor,
        augment: Augment,
    ) -> Self {
        let objects = |scene: &Scene| {
            let known = scene.objects.iter().filter(|object| !object.crowd).filter_map(|object| {
                let label = labels.iter().position(|label| *label == object.label)?;
                Some((label, object.rect.scaled(scene.scale)))
            });
            known.collect()
        };
        Self {
            pictures: scenes.iter().map(|scene| scene.picture.clone()).collect(),
            objects: scenes.iter().map(objects).collect(),
            labels: labels.len(),
            places,
            processor: processor.clone(),
            augment,
        }
    }

    /// These pictures and their objects as they are shown at the step whose seed this is.
    pub fn augmented(&self, indices: &[usize], seed: u64) -> Vec<(Picture, Vec<(usize, Rect)>)> {
        let changed = |(row, index): (usize, &usize)| {
            let (labels, rects): (Vec<usize>, Vec<Rect>) =
                self.objects[*index].iter().copied().unzip();
            let seed = mix(seed, row as u64);
            let (picture, rects) = self.augment.apply_boxed(&self.pictures[*index], &rects, seed);
            let objects = labels.into_iter().zip(rects).filter_map(|(l, rect)| Some((l, rect?)));
            (picture, objects.collect())
        };
        indices.par_iter().enumerate().map(changed).collect()
    }
}

impl Examples for SceneExamples {
    type Batch = SceneBatch;

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn size(&self, _: usize) -> usize {
        1
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> SceneBatch {
        let (b, n, l) = (indices.len(), self.places.len(), self.labels);
        let (pictures, objects): (Vec<Picture>, Vec<Vec<(usize, Rect)>>) =
            self.augmented(indices, seed).into_iter().unzip();
        let mut labels = vec![0.0f32; b * n * l];
        let mut distances = vec![1.0f32; b * n * 4];
        let targets = objects.iter().flat_map(|objects| assign(&self.places, objects));
        for (place, target) in targets.enumerate() {
            if let Some(target) = target {
                labels[place * l + target.label] = 1.0;
                distances[place * 4..place * 4 + 4].copy_from_slice(&target.distances);
            }
        }
        SceneBatch {
            images: self.processor.batch(&pictures, device),
            labels: Tensor::from_data(TensorData::new(labels, [b, n, l]), device),
            distances: Tensor::from_data(TensorData::new(distances, [b, n, 4]), device),
        }
    }
}

#[cfg(test)]
mod tests {
    use firebrick_core::arch::detector::DetectorConfig;
    use firebrick_data::image::{Colour, resize::Filter};

    use super::*;

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    /// By hand, for a place at 0: the same box; one of twice the height above; and a quarter.
    #[test]
    fn overlaps_of_known_boxes() {
        let device = Device::flex();
        let truth = Tensor::<3>::from_data([[[1.0, 1.0, 1.0, 1.0]; 3]], &device);
        let found = [[1.0, 1.0, 1.0, 1.0], [1.0, 3.0, 1.0, 1.0], [2.0, 0.5, 0.5, 1.0]];
        let found = Tensor::<3>::from_data([found], &device);
        let (overlap, generalized) = overlaps(found, truth);
        // 4 of 4; 4 of 8; common 1.5 * 1.5, union 3.75 + 4 - 2.25, around 3 * 2.
        for (x, expected) in numbers(overlap).into_iter().zip([1.0, 0.5, 2.25 / 5.5]) {
            assert!((x - expected).abs() < 1e-6, "{x} {expected}");
        }
        let expected = [1.0, 0.5, 2.25 / 5.5 - (6.0 - 5.5) / 6.0];
        for (x, expected) in numbers(generalized).into_iter().zip(expected) {
            assert!((x - expected).abs() < 1e-6, "{x} {expected}");
        }
    }

    /// Against the formula in plain numbers: with sigmoid(0) = 1/2 it is `(y - 1/2)^2 log 2`.
    #[test]
    fn focal_loss_by_hand() {
        let device = Device::flex();
        let logits = Tensor::<3>::from_data([[[0.0, 0.0, 100.0, -100.0]]], &device);
        let targets = Tensor::<3>::from_data([[[0.0, 1.0, 1.0, 1.0]]], &device);
        let found = numbers(quality_focal(logits, targets));
        let log2 = std::f32::consts::LN_2;
        for (x, expected) in found.iter().zip([0.25 * log2, 0.25 * log2, 0.0, 100.0]) {
            assert!((x - expected).abs() < 1e-4, "{found:?}");
        }
    }

    fn examples() -> SceneExamples {
        let processor = Processor {
            size: [32, 32],
            shortest_edge: None,
            colour: Colour::Rgb,
            filter: Filter::Bilinear,
            mean: vec![0.5; 3],
            std: vec![0.5; 3],
        };
        let rect = Rect { x0: 6.0, y0: 6.0, x1: 22.0, y1: 20.0 };
        let mut picture = Picture::filled(32, 32, Colour::Rgb, 30);
        for y in 6..20 {
            picture.pixels[(y * 32 + 6) * 3..(y * 32 + 22) * 3].fill(220);
        }
        SceneExamples {
            pictures: vec![picture, Picture::filled(32, 32, Colour::Rgb, 30)],
            objects: vec![vec![(1, rect)], vec![]],
            labels: 2,
            places: DetectorConfig::tiny().places([32, 32]),
            processor,
            augment: Augment::default(),
        }
    }

    #[test]
    fn targets_lie_where_the_object_does() {
        let batch = examples().batch(&[0, 1], 7, &Device::flex());
        let (labels, distances) = (numbers(batch.labels), numbers(batch.distances));
        assert_eq!(labels.len(), 2 * 20 * 2);
        // The place at 12, 12 is the sixth of the first level.
        assert_eq!(labels[2 * 5..2 * 6], [0.0, 1.0]);
        assert_eq!(distances[4 * 5..4 * 6], [6.0, 6.0, 10.0, 8.0]);
        assert!(labels[2 * 20..].iter().all(|x| *x == 0.0));
    }

    /// The loss falls along its gradient, all of which is finite, also of a picture with nothing on it.
    #[test]
    fn a_step_makes_it_better() {
        let device = Device::flex().autodiff();
        device.seed(3);
        let examples = examples();
        let mut task = Detect { model: DetectorConfig::tiny().init(&device).materialize() };
        let loss = |task: &Detect| task.loss(examples.batch(&[0, 1], 1, &device));
        let recipe = firebrick_train::recipe::TrainRecipe {
            learning_rate: Some(5e-3),
            warmup_steps: Some(0),
            ..Default::default()
        };
        let mut state = firebrick_train::optim::OptimState::default();
        let mut losses = vec![];
        for _ in 0..30 {
            let loss = loss(&task);
            losses.push(loss.clone().into_scalar::<f32>());
            let mut grads = firebrick_train::optim::Grads::new();
            let mut backward = loss.backward();
            firebrick_train::optim::add_gradients(&mut grads, &task, &mut backward, 1.0);
            task = state.step(task, &grads, 1.0, 5e-3, &recipe);
        }
        assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
        assert!(losses[29] < 0.7 * losses[0], "{losses:?}");
        let empty = task.loss(examples.batch(&[1], 1, &device));
        assert!(empty.into_scalar::<f32>().is_finite());
    }
}
