//! A model folder that finds objects on pictures: opened, asked, saved.

use std::{cmp::Ordering, fs, path::Path};

use anyhow::Context;
use burn::{
    module::Module,
    tensor::{DType, Device},
};
use firebrick_core::{
    arch::{
        AnyModel,
        detector::{Detector, FirebrickDetector, Place},
    },
    checkpoint::{LoadError, Source, tensors::SaveType},
};
use firebrick_data::image::{Picture, boxes::Rect};
use firebrick_train::{job::Recipe as _, origin::Origin};
use rayon::prelude::*;

use super::{assign, corpus::Scene, frame::framed, recipe::Recipe, score::Judged};
use crate::{classification::processor::Processor, settings};

/// Lowest score of a box that is looked at: below, all places would be boxes.
const LEAST_SCORE: f32 = 0.02;

/// Boxes of a picture that are compared with one another, the surest.
const CANDIDATES: usize = 1000;

/// Boxes of one label that overlap by more than this are of one object.
const SAME: f32 = 0.6;

/// Most boxes of a picture, as many as COCO's scores count.
pub const MOST: usize = 100;

/// A box that a model draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Class index.
    pub label: usize,
    /// In `[0, 1]`.
    pub score: f32,
    /// In pixels of the picture.
    pub rect: Rect,
}

/// A model that draws boxes.
pub struct ObjectDetector {
    pub detector: FirebrickDetector,
    pub processor: Processor,
    pub labels: Vec<String>,
    /// Score from which on a box is shown, chosen on validation pictures.
    pub threshold: f32,
}

impl ObjectDetector {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let origin = Origin::read_for(Recipe::TASK, source)?;
        let config = source.config()?;
        let detector = FirebrickDetector::load(source, device)?;
        let processor = Processor::open(source, detector.config.backbone.num_channels)?;
        detector.config.check_size(processor.size).map_err(|problem| LoadError::Config {
            path: source.path("preprocessor_config.json"),
            problem,
        })?;
        let name = |i: usize| {
            let name = config["id2label"][i.to_string()].as_str().map(str::to_string);
            name.unwrap_or_else(|| format!("LABEL_{i}"))
        };
        let labels = (0..detector.config.num_labels).map(name).collect();
        let threshold = origin.and_then(|origin| origin.box_threshold);
        Ok(Self { detector, processor, labels, threshold: threshold.unwrap_or(0.5) })
    }

    /// The boxes on each picture, the surest first; pictures may have any size.
    pub fn detect(&self, pictures: &[Picture], batch_size: usize) -> Vec<Vec<Found>> {
        let processor = &self.processor;
        let mut all = vec![];
        for part in pictures.chunks(batch_size.max(1)) {
            let fit = |picture: &Picture| {
                let picture = picture.clone().into_colour(processor.colour);
                framed(&picture, processor.size, processor.filter)
            };
            let (frames, scales): (Vec<Picture>, Vec<[f32; 2]>) = part.par_iter().map(fit).unzip();
            let found =
                detect(&self.detector.model, &self.places(), processor, &frames, part.len());
            let scaled =
                found.into_iter().zip(scales).zip(part).map(|((found, scale), picture)| {
                    let size = [picture.width as f32, picture.height as f32];
                    unframed(found, scale, size)
                });
            all.extend(scaled);
        }
        all
    }

    /// Judges on scenes in the frame of [`Self::processor`]; objects of unknown labels are left out.
    pub fn judge(&self, scenes: &[Scene], batch_size: usize) -> anyhow::Result<Judged> {
        let (model, places) = (&self.detector.model, self.places());
        judge(model, &places, &self.processor, &self.labels, scenes, batch_size)
    }

    fn places(&self) -> Vec<Place> {
        self.detector.config.places(self.processor.size)
    }

    /// Writes a model folder: config, weights, preprocessor, card, origin.
    pub fn save(&self, dir: &Path, origin: &Origin, about: &str) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        self.detector.save(&dir.join("model.safetensors"), SaveType::F32)?;
        let mut preprocessor = self.processor.to_json();
        // Into a frame of this size with its proportions, from the top left corner.
        preprocessor["image_processor_type"] = "FirebrickDetectorProcessor".into();
        preprocessor["do_pad"] = true.into();
        let config = self.detector.config.to_json(&self.labels);
        settings::save(dir, &config, &preprocessor)?;
        origin.save(dir, "object-detection", about)
    }
}

/// Judges a model on scenes in the frame of `processor`.
pub fn judge(
    model: &Detector,
    places: &[Place],
    processor: &Processor,
    labels: &[String],
    scenes: &[Scene],
    batch_size: usize,
) -> anyhow::Result<Judged> {
    let mut found = vec![];
    for part in scenes.chunks(batch_size.max(1)) {
        let frames: Vec<Picture> = part.iter().map(|scene| scene.picture.clone()).collect();
        let boxes = detect(model, places, processor, &frames, batch_size);
        found.extend(
            boxes
                .into_iter()
                .zip(part)
                .map(|(found, scene)| unframed(found, scene.scale, scene.size)),
        );
    }
    Judged::new(labels, scenes, found)
}

/// Boxes in pixels of the picture whose frame they were found on.
fn unframed(found: Vec<Found>, [across, down]: [f32; 2], [width, height]: [f32; 2]) -> Vec<Found> {
    let of_picture = |found: Found| {
        let rect = found.rect.scaled([1.0 / across, 1.0 / down]).clipped(width, height);
        (rect.area() > 0.0).then_some(Found { rect, ..found })
    };
    found.into_iter().filter_map(of_picture).collect()
}

/// The boxes on frames of the model's size, in their pixels. `model` lies on a device without autodiff.
fn detect(
    model: &Detector,
    places: &[Place],
    processor: &Processor,
    frames: &[Picture],
    batch_size: usize,
) -> Vec<Vec<Found>> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let mut all = Vec::with_capacity(frames.len());
    for part in frames.chunks(batch_size.max(1)) {
        let (logits, distances) = model.forward(processor.batch(part, &device));
        let [_, n, labels] = logits.dims();
        let floats = |tensor: burn::tensor::Tensor<3>| {
            let data = tensor.into_data().convert_dtype(DType::F32);
            data.try_into_vec::<f32>().expect("just converted to f32")
        };
        let (logits, distances) = (floats(logits), floats(distances));
        let rows = logits.par_chunks_exact(n * labels).zip(distances.par_chunks_exact(n * 4));
        let found = rows.map(|(logits, distances)| suppress(boxes(places, logits, distances)));
        all.extend(found.collect::<Vec<_>>());
    }
    all
}

/// What each place says, the surest first: logits `[N, L]` and distances `[N, 4]`.
fn boxes(places: &[Place], logits: &[f32], distances: &[f32]) -> Vec<Found> {
    let labels = logits.len() / places.len();
    let mut found = vec![];
    for ((place, logits), distances) in
        places.iter().zip(logits.chunks_exact(labels)).zip(distances.as_chunks::<4>().0)
    {
        for (label, logit) in logits.iter().enumerate() {
            let score = 1.0 / (1.0 + (-logit).exp());
            if score >= LEAST_SCORE {
                found.push(Found { label, score, rect: assign::rect(place, *distances) });
            }
        }
    }
    found.sort_by(surest_first);
    found.truncate(CANDIDATES);
    found
}

fn surest_first(a: &Found, b: &Found) -> Ordering {
    b.score.total_cmp(&a.score)
}

/// Non-maximum suppression: of boxes of one label that overlap, the surest stays, as `torchvision.ops.batched_nms` has
/// it. `found` begins with the surest.
pub fn suppress(found: Vec<Found>) -> Vec<Found> {
    let mut kept: Vec<Found> = vec![];
    for candidate in found {
        let same = |other: &Found| {
            other.label == candidate.label && other.rect.overlap(candidate.rect) > SAME
        };
        if !kept.iter().any(same) {
            kept.push(candidate);
        }
        if kept.len() == MOST {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use firebrick_core::arch::detector::DetectorConfig;
    use serde_json::Value;

    use super::*;

    /// `torchvision.ops.batched_nms` 0.29 of 60 boxes of two labels.
    #[test]
    fn suppression_is_that_of_torchvision() {
        let golden = include_str!("../../tests/golden/detection.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let rows = golden["nms"]["found"].as_array().unwrap();
        let number = |row: &Value, i: usize| row[i].as_f64().unwrap() as f32;
        let found = rows.iter().map(|row| Found {
            label: number(row, 0) as usize,
            score: number(row, 1),
            rect: Rect {
                x0: number(row, 2),
                y0: number(row, 3),
                x1: number(row, 4),
                y1: number(row, 5),
            },
        });
        let found: Vec<Found> = found.collect();
        let kept = golden["nms"]["kept"].as_array().unwrap().iter();
        let kept: Vec<Found> = kept.map(|row| found[row.as_u64().unwrap() as usize]).collect();
        assert_eq!(suppress(found), kept);
    }

    /// What a place is to say of an object is decoded to the object, on a picture of another size, too.
    #[test]
    fn what_is_assigned_is_decoded() {
        let places = DetectorConfig::tiny().places([64, 64]);
        let rect = Rect { x0: 10.0, y0: 12.0, x1: 38.0, y1: 30.0 };
        let targets = assign::assign(&places, &[(1, rect)]);
        let (mut logits, mut distances) = (vec![], vec![]);
        for target in targets {
            logits.extend([-9.0, if target.is_some() { 2.0 } else { -9.0 }]);
            distances.extend(target.map_or([1.0; 4], |target| target.distances));
        }
        let found = suppress(boxes(&places, &logits, &distances));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].label, found[0].rect), (1, rect));
        let large = unframed(found, [0.5, 0.5], [70.0, 80.0]);
        assert_eq!(large[0].rect, Rect { x0: 20.0, y0: 24.0, x1: 70.0, y1: 60.0 });
    }
}
