//! Image classification as a training task.

use burn::{module::Module, prelude::*, tensor::TensorData};
use firebrick_core::{
    arch::image::ImageModel,
    layers::loss::{log_softmax, soft_cross_entropy},
};
use firebrick_data::image::{Picture, augment::Augment};
use firebrick_metrics::{calibration::Calibration, confusion::Confusion, roc::Roc};
use firebrick_train::{
    fit::Metrics,
    origin::Decision,
    sampler::mix,
    task::{Examples, Task},
};
use rayon::prelude::*;

use super::{decision::decide, layouts::Sample, processor::Processor};

/// A classifier in training.
#[derive(Module, Debug)]
pub struct Classify {
    pub model: ImageModel,
}

/// Pictures and what is to be said of them.
#[derive(Debug, Clone)]
pub struct PictureBatch {
    /// `[B, I, H, W]`
    pub images: Tensor<4>,
    /// `[B, L]`: the target's share of each label
    pub targets: Tensor<2>,
}

impl Task for Classify {
    type Batch = PictureBatch;
    const HEAD: &'static [&'static str] = &[
        "model.ResNet.classifier.",
        "model.MobileNetV2.classifier.",
        "model.ConvNext.classifier.",
        "model.Vit.classifier.",
    ];

    fn loss(&self, batch: PictureBatch) -> Tensor<1> {
        soft_cross_entropy(log_softmax(self.model.forward(batch.images)), batch.targets)
    }
}

/// Pictures as the training loop wants them.
pub struct PictureExamples {
    pub pictures: Vec<Picture>,
    /// Class index of each.
    pub classes: Vec<usize>,
    pub labels: usize,
    pub processor: Processor,
    pub augment: Augment,
    /// Share of a target that all labels get alike.
    pub smoothing: f32,
}

impl PictureExamples {
    /// Of the samples whose label is among `labels`.
    pub fn new(samples: &[Sample], labels: &[String], processor: &Processor) -> Self {
        let (pictures, classes) = with_known_label(samples, labels)
            .map(|(sample, class)| (sample.picture.clone(), class))
            .unzip();
        Self {
            pictures,
            classes,
            labels: labels.len(),
            processor: processor.clone(),
            augment: Augment::default(),
            smoothing: 0.0,
        }
    }

    /// These pictures as they are shown at the step whose seed this is.
    pub fn augmented(&self, indices: &[usize], seed: u64) -> Vec<Picture> {
        let changed = |(row, index): (usize, &usize)| {
            self.augment.apply(&self.pictures[*index], mix(seed, row as u64))
        };
        indices.par_iter().enumerate().map(changed).collect()
    }

    fn target(&self, index: usize, share: f32, target: &mut [f32]) {
        let spread = share * self.smoothing / self.labels as f32;
        target.iter_mut().for_each(|t| *t += spread);
        target[self.classes[index]] += share * (1.0 - self.smoothing);
    }
}

impl Examples for PictureExamples {
    type Batch = PictureBatch;

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn size(&self, _: usize) -> usize {
        1
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> PictureBatch {
        let b = indices.len();
        let mut images = self.processor.batch(&self.augmented(indices, seed), device);
        let mut targets = vec![0.0; b * self.labels];
        // How much of itself each picture keeps; the rest is of the next one.
        let shares: Vec<f32> =
            (0..b).map(|row| self.augment.mix(mix(seed ^ 0x3173, row as u64))).collect();
        for ((row, target), share) in targets.chunks_exact_mut(self.labels).enumerate().zip(&shares)
        {
            self.target(indices[row], *share, target);
            self.target(indices[(row + 1) % b], 1.0 - share, target);
        }
        if self.augment.mixup > 0.0 && b > 1 {
            let next = Tensor::cat(
                vec![images.clone().narrow(0, 1, b - 1), images.clone().narrow(0, 0, 1)],
                0,
            );
            let share = Tensor::<1>::from_data(TensorData::new(shares, [b]), device);
            images = next.clone() + (images - next) * share.reshape([b, 1, 1, 1]);
        }
        let targets = Tensor::from_data(TensorData::new(targets, [b, self.labels]), device);
        PictureBatch { images, targets }
    }
}

/// Samples whose label is among `labels`, with its place there.
pub fn with_known_label<'a>(
    samples: &'a [Sample],
    labels: &'a [String],
) -> impl Iterator<Item = (&'a Sample, usize)> {
    let place = |sample: &Sample| labels.iter().position(|label| *label == sample.label);
    samples.iter().filter_map(move |sample| Some((sample, place(sample)?)))
}

/// Logits of pictures of the model's size, in their order. `model` lies on a device without autodiff.
pub fn logits(
    model: &ImageModel,
    processor: &Processor,
    pictures: &[Picture],
    batch_size: usize,
) -> Vec<Vec<f32>> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let mut all = Vec::with_capacity(pictures.len());
    for part in pictures.chunks(batch_size.max(1)) {
        let logits = model.forward(processor.batch(part, &device)); // [B, L]
        let [_, labels] = logits.dims();
        let logits = logits.into_data().convert_dtype(burn::tensor::DType::F32);
        let logits = logits.try_into_vec::<f32>().expect("just converted to f32");
        all.extend(logits.chunks_exact(labels).map(<[f32]>::to_vec));
    }
    all
}

/// Probabilities of one picture's logits.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|x| (x - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// Share of the other pictures that may be called positive where `miss_rate` says what is missed, as it is common for
/// pedestrians (Dollár et al. 2012).
const FALSE_ALARMS: f64 = 0.01;

/// Least share of the positive pictures that is missed where at most [`FALSE_ALARMS`] of the others are called positive.
fn miss_rate(roc: &Roc) -> Option<f64> {
    if roc.positives.is_empty() || roc.negatives.is_empty() {
        return None;
    }
    let mut negatives = roc.negatives.clone();
    negatives.sort_by(|a, b| b.total_cmp(a));
    let allowed = (FALSE_ALARMS * negatives.len() as f64) as usize;
    // The score of the first that must not be called positive.
    let missed = roc.positives.iter().filter(|score| **score <= negatives[allowed]).count();
    Some(missed as f64 / roc.positives.len() as f64)
}

/// What a model said of each picture, in order.
pub struct Judged {
    /// Probabilities by class.
    pub scores: Vec<Vec<f32>>,
    pub confusion: Confusion,
    pub calibration: Calibration,
    /// Of the second of two classes, or of the one that is looked for.
    pub roc: Option<Roc>,
    /// Pictures that the model does not abstain on, and those of them that it is right on.
    pub relied_on: Option<(u64, u64)>,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Index of the class that is looked for.
    positive: Option<usize>,
}

impl Judged {
    /// `logits` and true classes, as the model decides.
    pub fn new(
        logits: &[Vec<f32>],
        truths: &[usize],
        labels: &[String],
        decision: Option<&Decision>,
    ) -> Self {
        let positive = decision.and_then(|d| labels.iter().position(|label| *label == d.positive));
        let scores: Vec<Vec<f32>> = logits.iter().map(|row| softmax(row)).collect();
        let mut judged = Self {
            confusion: Confusion::new(labels.len()),
            calibration: Calibration::default(),
            roc: (labels.len() == 2).then(Roc::default),
            relied_on: decision.map(|_| (0, 0)),
            loss: 0.0,
            positive,
            scores,
        };
        let looked_for = positive.unwrap_or(1);
        for (p, truth) in judged.scores.iter().zip(truths) {
            let answer = decide(decision, labels, p);
            judged.confusion.add(*truth, answer.label);
            let best = p.iter().copied().fold(0.0, f32::max);
            judged.calibration.add(f64::from(best), best == p[*truth]);
            if let Some(roc) = &mut judged.roc {
                roc.add(f64::from(p[looked_for]), *truth == looked_for);
            }
            if let Some((all, right)) = judged.relied_on.as_mut().filter(|_| !answer.abstains) {
                *all += 1;
                *right += u64::from(answer.label == *truth);
            }
            judged.loss -= f64::from(p[*truth].max(1e-30)).ln() / truths.len() as f64;
        }
        judged
    }

    pub fn metrics(&self) -> Metrics {
        let recall = |class: Option<usize>| class.and_then(|class| self.confusion.recall(class));
        let total = self.confusion.total().max(1) as f64;
        let scores = [
            ("accuracy", self.confusion.accuracy()),
            ("macro_f1", self.confusion.macro_f1()),
            ("ece", self.calibration.ece()),
            ("auc", self.roc.as_ref().and_then(Roc::auc)),
            ("miss_rate", self.roc.as_ref().and_then(miss_rate)),
            ("sensitivity", recall(self.positive)),
            ("specificity", recall(self.positive.map(|class| 1 - class))),
            ("coverage", self.relied_on.map(|(all, _)| all as f64 / total)),
            (
                "covered_accuracy",
                self.relied_on
                    .filter(|(all, _)| *all > 0)
                    .map(|(all, right)| right as f64 / all as f64),
            ),
        ];
        let mut metrics = Metrics::from([("loss".to_string(), self.loss)]);
        metrics.extend(scores.into_iter().filter_map(|(name, x)| Some((name.to_string(), x?))));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::{Colour, resize::Filter};

    use super::*;

    fn examples(augment: Augment) -> PictureExamples {
        let processor = Processor {
            size: [4, 4],
            shortest_edge: None,
            colour: Colour::Grey,
            filter: Filter::Bilinear,
            mean: vec![0.5],
            std: vec![0.5],
        };
        let picture = |i: u8| Picture::filled(4, 4, Colour::Grey, 50 * i);
        PictureExamples {
            pictures: (0..5).map(picture).collect(),
            classes: vec![0, 1, 2, 0, 1],
            labels: 3,
            processor,
            augment,
            smoothing: 0.3,
        }
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn targets_are_smoothed() {
        let batch = examples(Augment::default()).batch(&[1, 4], 7, &Device::flex());
        assert_eq!(batch.images.dims(), [2, 1, 4, 4]);
        let targets = numbers(batch.targets);
        for (found, expected) in targets.iter().zip([0.1, 0.8, 0.1, 0.1, 0.8, 0.1]) {
            assert!((found - expected).abs() < 1e-6, "{targets:?}");
        }
        // 50 of 255, out of 1, less a half, by a half.
        let first = numbers(batch.images)[0];
        assert!((first - (50.0 / 255.0 - 0.5) / 0.5).abs() < 1e-6, "{first}");
    }

    #[test]
    fn what_is_mixed_in_is_said() {
        let examples = examples(Augment { mixup: 1.0, ..Augment::default() });
        let batch = |seed| examples.batch(&[0, 1, 2], seed, &Device::flex());
        let (images, targets) = (numbers(batch(3).images), numbers(batch(3).targets));
        assert_eq!(images, numbers(batch(3).images));
        assert_ne!(images, numbers(batch(4).images));
        for row in targets.chunks(3) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        }
        // The first picture is black and the second 50: its share of the second is what its target says.
        let share = (images[0] / 2.0 + 0.5) * 255.0 / 50.0;
        assert!((targets[1] - (0.1 + 0.7 * share)).abs() < 1e-5, "{share} {targets:?}");
    }

    /// By hand: of 200 others two may be called positive, so a score must be above the third of them.
    #[test]
    fn what_is_missed_at_one_false_alarm_in_a_hundred() {
        let negatives = (0..200).map(|i| f64::from(i) / 200.0).collect(); // .985, .99, .995 at the top
        let positives = vec![0.99, 0.985, 0.988, 0.1];
        assert_eq!(miss_rate(&Roc { positives, negatives }), Some(0.5));
        assert_eq!(miss_rate(&Roc::default()), None);
    }

    #[test]
    fn scores_of_two_classes() {
        let labels = ["no".to_string(), "yes".to_string()];
        let logits = [[2.0, 0.0], [0.0, 2.0], [0.0, 1.0], [1.0, 0.0]].map(|row| row.to_vec());
        let judged = Judged::new(&logits, &[0, 1, 0, 1], &labels, None);
        let metrics = judged.metrics();
        assert_eq!((metrics["accuracy"], metrics["auc"]), (0.5, 0.75));
        assert!(!metrics.contains_key("sensitivity"));
        let decision = Decision {
            positive: "yes".into(),
            sensitivity: 1.0,
            threshold: 0.2,
            abstain: [0.2, 0.3],
        };
        let metrics = Judged::new(&logits, &[0, 1, 0, 1], &labels, Some(&decision)).metrics();
        assert_eq!((metrics["sensitivity"], metrics["specificity"]), (1.0, 0.5));
        assert_eq!((metrics["coverage"], metrics["covered_accuracy"]), (0.75, 2.0 / 3.0));
    }
}
