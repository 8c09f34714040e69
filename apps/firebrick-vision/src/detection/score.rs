//! How well boxes lie: average precision as COCO has it, which `hotcoco` computes as `pycocotools` does.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context;
use firebrick_data::image::boxes::Rect;
use firebrick_train::fit::Metrics;
use hotcoco::{Annotation, COCO, COCOeval, Category, Dataset, Image, IouType};

use super::{
    corpus::Scene,
    detector::{Found, MOST},
};

/// What a model drew on scenes, and how well. Labels of the scenes that the model does not know come last: it draws none
/// of their objects.
pub struct Judged {
    /// On each scene, the surest first.
    pub found: Vec<Vec<Found>>,
    /// Mean over the labels that the scenes have objects of, and over ten overlaps from 0.5 to 0.95.
    pub map: f64,
    /// Mean over these labels, of boxes that overlap by half.
    pub map50: f64,
    pub labels: Vec<LabelScore>,
    /// The score from which on boxes are both right and complete: of the largest mean F1 over the labels.
    pub threshold: f32,
}

/// What is known of one label; `None` where no scene has an object of it.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelScore {
    pub label: String,
    pub objects: usize,
    pub ap: Option<f64>,
    pub ap50: Option<f64>,
    /// Share found, share of boxes that are right, score of the box; for boxes that overlap by half.
    pub curve: Vec<[f64; 3]>,
}

impl Judged {
    /// `found` on each of `scenes`, in pixels of the pictures, by a model that knows `labels`.
    pub fn new(
        labels: &[String],
        scenes: &[Scene],
        found: Vec<Vec<Found>>,
    ) -> anyhow::Result<Self> {
        let objects = scenes.iter().flat_map(|scene| &scene.objects).filter(|object| !object.crowd);
        let others: BTreeSet<&String> =
            objects.map(|object| &object.label).filter(|label| !labels.contains(label)).collect();
        let labels: Vec<String> = labels.iter().chain(others).cloned().collect();
        let truth = COCO::from_dataset(truth(&labels, scenes));
        let drawn = truth.load_res_anns(annotations(&found))?;
        let mut eval = COCOeval::new(truth, drawn, IouType::Bbox);
        eval.params.max_dets = vec![MOST];
        eval.evaluate()?;
        eval.accumulate();
        let result = eval.accumulated().context("nothing to judge")?;
        let area = eval.params.all_area_idx();
        let half = eval.params.iou_thr_idx(0.5).context("no overlap of a half")?;
        let (recalls, shape) = (&eval.params.rec_thrs, result.shape);
        let place: HashMap<u64, usize> = result.cat_ids.iter().copied().zip(0..).collect();
        let score = |(index, label): (usize, &String)| {
            let k = place[&(index as u64 + 1)];
            let at = |t: usize, r: usize| result.precision_idx(t, r, k, area, 0);
            // -1 where there is no object.
            let mean = |overlaps: std::ops::Range<usize>| {
                let all = overlaps.flat_map(|t| (0..shape.r).map(move |r| (t, r)));
                let all: Vec<f64> = all.map(|(t, r)| result.precision[at(t, r)]).collect();
                (all[0] >= 0.0).then(|| all.iter().sum::<f64>() / all.len() as f64)
            };
            let curve = (0..shape.r)
                .map(|r| [recalls[r], result.precision[at(half, r)], result.scores[at(half, r)]])
                .filter(|[_, precision, _]| *precision > 0.0)
                .collect();
            let objects = scenes.iter().flat_map(|scene| &scene.objects);
            LabelScore {
                label: label.clone(),
                objects: objects.filter(|o| !o.crowd && o.label == *label).count(),
                ap: mean(0..shape.t),
                ap50: mean(half..half + 1),
                curve,
            }
        };
        let labels: Vec<LabelScore> = labels.iter().enumerate().map(score).collect();
        let mean = |of: fn(&LabelScore) -> Option<f64>| {
            let known: Vec<f64> = labels.iter().filter_map(of).collect();
            known.iter().sum::<f64>() / known.len().max(1) as f64
        };
        let (map, map50) = (mean(|label| label.ap), mean(|label| label.ap50));
        let threshold = threshold(&labels);
        Ok(Self { found, map, map50, labels, threshold })
    }

    /// With the scores of each label, where there are several.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::from([("map".into(), self.map), ("map50".into(), self.map50)]);
        if self.labels.len() > 1 {
            let each = self.labels.iter();
            metrics.extend(each.filter_map(|l| Some((format!("ap50_{}", l.label), l.ap50?))));
        }
        metrics
    }
}

/// Of nineteen scores, from 0.05 to 0.95, the one with the largest mean F1.
fn threshold(labels: &[LabelScore]) -> f32 {
    let f1 = |least: f64| {
        let of = |label: &LabelScore| {
            let last = label.curve.iter().rev().find(|[_, _, score]| *score >= least);
            last.map_or(0.0, |[recall, precision, _]| {
                2.0 * recall * precision / (recall + precision)
            })
        };
        labels.iter().map(of).sum::<f64>()
    };
    let scores = (1..20).map(|i| f64::from(i) / 20.0);
    // The lowest of equals.
    let best = scores.rev().max_by(|a, b| f1(*a).total_cmp(&f1(*b)));
    best.expect("there are nineteen") as f32
}

fn truth(labels: &[String], scenes: &[Scene]) -> Dataset {
    let category = |(index, name): (u64, &String)| Category {
        id: index,
        name: name.clone(),
        ..Default::default()
    };
    let image = |(id, scene): (u64, &Scene)| Image {
        id,
        file_name: scene.id.clone(),
        width: scene.size[0] as u32,
        height: scene.size[1] as u32,
        ..Default::default()
    };
    let mut annotations = vec![];
    for (image_id, scene) in (1..).zip(scenes) {
        for object in &scene.objects {
            if let Some(label) = labels.iter().position(|label| *label == object.label) {
                let id = annotations.len() as u64 + 1;
                let iscrowd = object.crowd;
                annotations.push(Annotation {
                    id,
                    iscrowd,
                    ..annotation(image_id, label, object.rect)
                });
            }
        }
    }
    Dataset {
        images: (1..).zip(scenes).map(image).collect(),
        annotations,
        categories: (1..).zip(labels).map(category).collect(),
        ..Default::default()
    }
}

fn annotations(found: &[Vec<Found>]) -> Vec<Annotation> {
    let of_image = |(image_id, found): (u64, &Vec<Found>)| {
        let annotation = move |found: &Found| Annotation {
            score: Some(f64::from(found.score)),
            ..annotation(image_id, found.label, found.rect)
        };
        found.iter().map(annotation).collect::<Vec<_>>()
    };
    (1..).zip(found).flat_map(of_image).collect()
}

fn annotation(image_id: u64, label: usize, rect: Rect) -> Annotation {
    let [x, y, w, h] = [rect.x0, rect.y0, rect.width(), rect.height()].map(f64::from);
    let category_id = label as u64 + 1;
    Annotation {
        image_id,
        category_id,
        bbox: Some([x, y, w, h]),
        area: Some(w * h),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::{Colour, Picture};
    use serde_json::Value;

    use super::{super::corpus::Object, *};

    fn rect(sides: &[f64]) -> Rect {
        let [x0, y0, x1, y1] = [0, 1, 2, 3].map(|i| sides[i] as f32);
        Rect { x0, y0, x1, y1 }
    }

    /// `pycocotools` 2.0.11 on twelve scenes, with crowds, two boxes of one object and boxes of nothing.
    #[test]
    fn average_precision_is_that_of_pycocotools() {
        let golden = include_str!("../../tests/golden/detection.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let labels = ["cell".to_string(), "plate".to_string()];
        let numbers = |row: &Value| -> Vec<f64> {
            row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let rows = |scene: &Value, key: &str| -> Vec<Vec<f64>> {
            scene[key].as_array().unwrap().iter().map(numbers).collect()
        };
        let (mut scenes, mut found) = (vec![], vec![]);
        for scene in golden["scenes"].as_array().unwrap() {
            let object = |row: &Vec<f64>| Object {
                label: labels[row[0] as usize].clone(),
                rect: rect(&row[1..]),
                crowd: row[5] == 1.0,
            };
            scenes.push(Scene {
                id: scenes.len().to_string(),
                picture: Picture::filled(1, 1, Colour::Rgb, 0),
                scale: [1.0; 2],
                size: [320.0, 240.0],
                objects: rows(scene, "objects").iter().map(object).collect(),
            });
            let drawn = |row: &Vec<f64>| Found {
                label: row[0] as usize,
                score: row[1] as f32,
                rect: rect(&row[2..]),
            };
            found.push(rows(scene, "found").iter().map(drawn).collect());
        }
        let judged = Judged::new(&labels, &scenes, found).unwrap();
        let check = |found: f64, expected: &Value| {
            assert!((found - expected.as_f64().unwrap()).abs() < 1e-9, "{found} {expected}");
        };
        check(judged.map, &golden["map"]);
        check(judged.map50, &golden["map50"]);
        check(judged.labels[0].ap50.unwrap(), &golden["ap50"][0]);
        check(judged.labels[1].ap50.unwrap(), &golden["ap50"][1]);
        assert_eq!(judged.metrics()["ap50_plate"], judged.labels[1].ap50.unwrap());

        // A model that draws nothing, and labels that nothing is of.
        let nothing = Judged::new(&labels, &scenes, vec![vec![]; scenes.len()]).unwrap();
        assert_eq!((nothing.map, nothing.map50), (0.0, 0.0));
        let other = ["other".to_string()];
        let other = Judged::new(&other, &scenes, vec![vec![]; scenes.len()]).unwrap();
        assert_eq!((other.map50, other.labels[0].ap50), (0.0, None));
    }

    /// Right on all that it knows, which is one label of two.
    #[test]
    fn objects_of_an_unknown_label_are_not_found() {
        let [a, b] = [[0.0, 0.0, 5.0, 5.0], [10.0, 10.0, 20.0, 20.0]].map(|sides| rect(&sides));
        let object = |label: &str, rect| Object { label: label.into(), rect, crowd: false };
        let scene = Scene {
            id: "a".into(),
            picture: Picture::filled(1, 1, Colour::Rgb, 0),
            scale: [1.0; 2],
            size: [30.0; 2],
            objects: vec![object("cell", a), object("dust", b)],
        };
        let found = vec![vec![Found { label: 0, score: 0.9, rect: a }]];
        let judged = Judged::new(&["cell".into()], &[scene], found).unwrap();
        assert!((judged.map50 - 0.5).abs() < 1e-9, "{}", judged.map50);
        assert_eq!((&judged.labels[1].label[..], judged.labels[1].ap50), ("dust", Some(0.0)));
    }

    /// F1 by hand: from 0.9 on 2/3, from 0.5 on 2 * 0.8 / 1.8, from 0.2 on 2 * 0.5 / 1.5.
    #[test]
    fn the_threshold_has_the_best_f1() {
        let curve = vec![[0.5, 1.0, 0.9], [1.0, 0.8, 0.5], [1.0, 0.5, 0.2]];
        let label =
            |curve| LabelScore { label: "a".into(), objects: 2, ap: None, ap50: None, curve };
        assert_eq!(threshold(&[label(curve[..2].to_vec())]), 0.05);
        assert!((threshold(&[label(curve)]) - 0.25).abs() < 1e-6);
    }
}
