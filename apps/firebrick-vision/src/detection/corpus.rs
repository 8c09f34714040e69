//! Pictures with boxes in parts that share nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use firebrick_data::{
    error::DataError,
    hash::{sha256_bytes, sha256_rows},
    image::{Colour, Picture, boxes::Rect, decode},
    ledger::{DropReason, Entry, Ledger},
    quote::quoted,
    table::Row,
};
use firebrick_train::{job::Places, recipe::RecipeError, sampler};
use hotcoco::{Annotation, Dataset, Image};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    annotations,
    frame::framed,
    parts::Parts,
    recipe::DataRecipe,
    walls::{WINDOW, walls},
};
use crate::classification::{self, layouts};

/// A thing on a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// As the data set writes it.
    pub label: String,
    /// In pixels of the picture as it was read.
    pub rect: Rect,
    /// Many things in one box, or one that is hard to see: not learned from, and neither right nor wrong to find.
    pub crowd: bool,
}

/// A picture with what is on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// As the boxes' file names the picture.
    pub id: String,
    /// Fitted into the recipe's frame.
    pub picture: Picture,
    /// By which factors it grew for that, across and down.
    pub scale: [f32; 2],
    /// Width and height before.
    pub size: [f32; 2],
    pub objects: Vec<Object>,
}

/// The parts of a data set.
pub struct Corpus {
    pub train: Vec<Scene>,
    pub valid: Vec<Scene>,
    pub test: Option<Vec<Scene>>,
    /// In the order of their letters; a label's place is its class index.
    pub labels: Vec<String>,
    /// SHA-256 over the training and validation pictures and their boxes.
    pub sha256: String,
    /// Boxes and pictures that were dropped of each part.
    pub ledgers: Vec<(&'static str, Ledger)>,
}

/// A part's scenes and what was dropped of it.
type Part = (Vec<Scene>, Ledger);

/// Reads and divides what `[data]` names.
pub fn load(data: &DataRecipe, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let mut parts = match data.dataset.as_deref() {
        Some(id) => known(id, data, places)?,
        None => {
            let of = |path: &PathBuf| places.base.join(path);
            let mut parts = match &data.train {
                Some(path) => own(&of(path), data)?,
                None => BTreeMap::new(),
            };
            for (part, path) in [("valid", &data.valid), ("test", &data.test)] {
                if let Some(path) = path {
                    let mut found = own(&of(path), data)?;
                    let found = found.remove(part).or_else(|| found.remove("train"));
                    parts.insert(part, found.unwrap_or_default());
                }
            }
            parts
        }
    };
    let mut take = |part| parts.remove(part).unwrap_or_default();
    let ((mut train, mut train_ledger), (mut valid, mut valid_ledger), (mut test, test_ledger)) =
        (take("train"), take("valid"), take("test"));
    let (no_test, no_valid) = (test.is_empty() && data.test_fraction > 0.0, valid.is_empty());
    if no_test {
        test = carve(&mut train, data.test_fraction, sampler::mix(seed, 1));
    }
    if no_valid {
        let fraction = data.valid_fraction / if no_test { 1.0 - data.test_fraction } else { 1.0 };
        valid = carve(&mut train, fraction, sampler::mix(seed, 2));
    }
    // The same pixels in two parts: the one that is learned from gives way.
    let tested: HashSet<&[u8]> = pixels(&test).collect();
    apart(&mut valid, &tested, "in test, too", &mut valid_ledger);
    let elsewhere: HashSet<&[u8]> = pixels(&valid).chain(tested).collect();
    apart(&mut train, &elsewhere, "in valid or test, too", &mut train_ledger);

    train.extend(windows(data, seed, places)?);

    let found: BTreeSet<&String> =
        train.iter().flat_map(|scene| &scene.objects).map(|object| &object.label).collect();
    ensure!(!found.is_empty(), "no box is left on the training pictures");
    ensure!(!valid.is_empty(), "there is no validation picture: set `data.valid_fraction`");
    let labels: Vec<String> = found.into_iter().cloned().collect();
    let sha256 = hash(train.iter().chain(&valid));
    let test = (!test.is_empty()).then_some(test);
    let ledgers = vec![("train", train_ledger), ("valid", valid_ledger), ("test", test_ledger)];
    Ok(Corpus { train, valid, test, labels, sha256, ledgers })
}

fn hash<'a>(scenes: impl Iterator<Item = &'a Scene>) -> String {
    let row = |scene: &Scene| {
        let boxes = scene.objects.iter().map(|o| format!("{} {:?} {}", o.label, o.rect, o.crowd));
        let label = boxes.collect::<Vec<_>>().join("; ");
        Row { row: 0, text: sha256_bytes(&scene.picture.pixels), label: Some(label) }
    };
    sha256_rows(&scenes.map(row).collect::<Vec<_>>())
}

/// An error where `data.labels` names what nothing is, or where a part that is judged has objects of a label that no
/// training picture has: a score without them would be that of other pictures.
pub fn check_labels(corpus: &Corpus, data: &DataRecipe) -> anyhow::Result<()> {
    let known = &corpus.labels;
    let absent = data.labels.iter().flatten().find(|label| !known.contains(label));
    if let Some(label) = absent {
        let known = known.join(", ");
        let problem =
            format!("has `{label}`, and no box of the training pictures is of it: {known}");
        bail!(RecipeError::value("data.labels", problem));
    }
    for (part, scenes) in [("valid", Some(&corpus.valid)), ("test", corpus.test.as_ref())] {
        let (count, first) = unknown(known, scenes.into_iter().flatten());
        let next = "take them out, name others in `data.labels`, or add training pictures of it";
        let problem = || {
            let first = quoted(first.unwrap_or_default());
            format!(
                "{count} boxes of {part} have a label that no training picture has, the first {first}: {next}"
            )
        };
        ensure!(count == 0, DataError::TooLittle(problem()));
    }
    Ok(())
}

/// How many objects have a label that is not `known`, and the first such label.
pub fn unknown<'a>(
    known: &[String],
    scenes: impl IntoIterator<Item = &'a Scene>,
) -> (usize, Option<&'a str>) {
    let objects = scenes.into_iter().flat_map(|scene| &scene.objects).filter(|o| !o.crowd);
    let mut found = objects.map(|object| &object.label).filter(|label| !known.contains(label));
    let first = found.next();
    (found.count() + usize::from(first.is_some()), first.map(String::as_str))
}

impl Corpus {
    /// What there is to say of it, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let count = |name: &str, part: &[Scene]| {
            let boxes: usize = part.iter().map(|scene| scene.objects.len()).sum();
            format!("{name} {} with {boxes} boxes", part.len())
        };
        let mut parts = vec![count("train", &self.train), count("valid", &self.valid)];
        parts.extend(self.test.as_ref().map(|test| count("test", test)));
        let labels = self.labels.join(", ");
        let mut remarks = vec![format!("pictures: {}; labels {labels}", parts.join(", "))];
        for (part, ledger) in &self.ledgers {
            for (reason, count) in ledger.counts() {
                let what = match reason {
                    DropReason::NoArea => "boxes of no area, or inside out",
                    DropReason::NoPicture => "boxes of a picture that the file does not list",
                    _ => "pictures that are in another part, too",
                };
                remarks.push(format!("{part}: dropped {count}: {what}"));
            }
        }
        remarks
    }

    pub fn ledger(&self) -> String {
        self.ledgers.iter().map(|(part, ledger)| ledger.json_lines(part)).collect()
    }
}

fn known(
    id: &str,
    data: &DataRecipe,
    places: &Places,
) -> anyhow::Result<BTreeMap<&'static str, Part>> {
    match id {
        "bccd" => own(&folder(id, places)?, data),
        "coco128-street" => {
            let path = folder(id, places)?.join("annotations.json");
            divided(&path, &annotations::street(&path)?, data)
        }
        _ => bail!(DataError::WrongSet(format!(
            "`{id}` is not an object detection set: bccd or coco128-street"
        ))),
    }
}

/// Where a known set's files lie.
fn folder(id: &str, places: &Places) -> anyhow::Result<PathBuf> {
    let folder = (places.data)(id)?;
    let nested = folder.join(id);
    Ok(if nested.is_dir() { nested } else { folder })
}

/// What `data.windows` adds to the training pictures.
fn windows(data: &DataRecipe, seed: u64, places: &Places) -> anyhow::Result<Vec<Scene>> {
    let Some(id) = data.windows.as_deref() else { return Ok(vec![]) };
    let read = classification::recipe::DataRecipe { size: WINDOW, ..Default::default() };
    let mut parts = layouts::inria(&folder(id, places)?, &read)?;
    let windows = parts.remove("train").unwrap_or_default();
    Ok(walls(windows, data.size, sampler::mix(seed, 3)))
}

/// Scenes of a user's path, in their parts; those without one are `train`.
pub fn own(path: &Path, data: &DataRecipe) -> anyhow::Result<BTreeMap<&'static str, Part>> {
    divided(path, &annotations::read(path)?, data)
}

fn divided(
    path: &Path,
    dataset: &Dataset,
    data: &DataRecipe,
) -> anyhow::Result<BTreeMap<&'static str, Part>> {
    let parts = Parts::of(path)?;
    let mut images = BTreeMap::<&'static str, Vec<&Image>>::new();
    for image in &dataset.images {
        // A picture that no list and no folder names is in no part.
        if let Some(part) = parts.part(path, &image.file_name)? {
            images.entry(part).or_default().push(image);
        }
    }
    let part = |(part, images)| -> anyhow::Result<(&'static str, Part)> {
        Ok((part, scenes(path, dataset, images, data)?))
    };
    let mut parts: BTreeMap<_, Part> =
        images.into_iter().map(part).collect::<anyhow::Result<_>>()?;
    if let Some((_, ledger)) = parts.values_mut().next_back() {
        ledger.dropped.extend(of_no_picture(dataset));
    }
    Ok(parts)
}

/// Boxes of pictures that the file does not list.
fn of_no_picture(dataset: &Dataset) -> Vec<Entry> {
    let images: HashSet<u64> = dataset.images.iter().map(|image| image.id).collect();
    let stray = dataset.annotations.iter().enumerate();
    let stray = stray.filter(|(_, annotation)| !images.contains(&annotation.image_id));
    let entry = |(row, annotation): (usize, &Annotation)| {
        let detail = format!("box {} is of picture {}", annotation.id, annotation.image_id);
        Entry { row, reason: DropReason::NoPicture, detail }
    };
    stray.map(entry).collect()
}

fn scenes(
    path: &Path,
    dataset: &Dataset,
    images: Vec<&Image>,
    data: &DataRecipe,
) -> anyhow::Result<Part> {
    let names: HashMap<u64, &str> =
        dataset.categories.iter().map(|category| (category.id, category.name.as_str())).collect();
    let mut boxes = HashMap::<u64, Vec<&Annotation>>::new();
    for annotation in &dataset.annotations {
        boxes.entry(annotation.image_id).or_default().push(annotation);
    }
    let scene = |(row, image): (usize, &&Image)| -> anyhow::Result<(Scene, Vec<Entry>)> {
        let file = annotations::picture(path, &image.file_name)?;
        let picture = decode::read(&file, Colour::Rgb)?;
        let (width, height) = (picture.width as f32, picture.height as f32);
        let (mut objects, mut dropped) = (vec![], vec![]);
        for annotation in boxes.get(&image.id).into_iter().flatten() {
            let category = annotation.category_id;
            let label = names.get(&category).ok_or_else(|| DataError::BadValue {
                path: path.to_owned(),
                detail: format!("has a box of category {category}, which has no name"),
            })?;
            let wanted = data.labels.as_ref();
            if wanted.is_some_and(|wanted| !wanted.iter().any(|wanted| wanted == label)) {
                continue;
            }
            let rect =
                annotation.bbox.map(|[x, y, w, h]| [x, y, x + w, y + h].map(|side| side as f32));
            let rect = rect.map(|[x0, y0, x1, y1]| Rect { x0, y0, x1, y1 }.clipped(width, height));
            let least = annotations::LEAST_SIDE as f32;
            match rect.filter(|rect| rect.width() > least && rect.height() > least) {
                Some(rect) => objects.push(Object {
                    label: label.to_string(),
                    rect,
                    crowd: annotation.iscrowd,
                }),
                None => {
                    let bbox = annotation.bbox.unwrap_or_default();
                    let detail = format!("{}: {label} at {bbox:?}", image.file_name);
                    dropped.push(Entry { row, reason: DropReason::NoArea, detail });
                }
            }
        }
        let (picture, scale) = framed(&picture, data.size, data.filter);
        let (id, size) = (image.file_name.clone(), [width, height]);
        Ok((Scene { id, picture, scale, size, objects }, dropped))
    };
    let found: Vec<(Scene, Vec<Entry>)> =
        images.par_iter().enumerate().map(scene).collect::<anyhow::Result<_>>()?;
    let (scenes, dropped): (Vec<Scene>, Vec<Vec<Entry>>) = found.into_iter().unzip();
    Ok((scenes, Ledger { dropped: dropped.concat(), mended: vec![] }))
}

fn pixels(scenes: &[Scene]) -> impl Iterator<Item = &[u8]> {
    scenes.iter().map(|scene| scene.picture.pixels.as_slice())
}

/// Takes this share of the pictures out, of those with objects and of those without.
fn carve(scenes: &mut Vec<Scene>, fraction: f64, seed: u64) -> Vec<Scene> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut chosen = HashSet::new();
    for empty in [false, true] {
        let mut rows: Vec<usize> =
            (0..scenes.len()).filter(|row| scenes[*row].objects.is_empty() == empty).collect();
        rows.shuffle(&mut rng);
        let count = (fraction * rows.len() as f64).round() as usize;
        chosen.extend(rows.into_iter().take(count));
    }
    let (part, rest): (Vec<_>, Vec<_>) =
        std::mem::take(scenes).into_iter().enumerate().partition(|(row, _)| chosen.contains(row));
    *scenes = rest.into_iter().map(|(_, scene)| scene).collect();
    part.into_iter().map(|(_, scene)| scene).collect()
}

/// Drops those whose pixels are elsewhere.
fn apart(scenes: &mut Vec<Scene>, elsewhere: &HashSet<&[u8]>, detail: &str, ledger: &mut Ledger) {
    ledger.keep(scenes, |_, scene| {
        let leaks = elsewhere.contains(scene.picture.pixels.as_slice());
        leaks.then(|| (DropReason::Leak, format!("{}: {detail}", scene.id)))
    });
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["Annotations", "JPEGImages", "ImageSets/Main"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        for (number, name) in names.iter().enumerate() {
            let pixels = vec![number as u8; 20 * 10 * 3];
            let picture = [b"P6\n20 10\n255\n".as_slice(), &pixels].concat();
            fs::write(dir.path().join(format!("JPEGImages/{name}.ppm")), picture).unwrap();
            let object = |label: &str, [x0, y0, x1, y1]: [u32; 4]| {
                format!(
                    "<object><name> {label} </name><bndbox><xmin> {x0} </xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>\
                     <ymax>{y1}</ymax></bndbox></object>"
                )
            };
            let text = format!(
                "<annotation><filename>{name}.ppm</filename><size><width>20</width><height>10</height></size>{}{}{}{}\
                 </annotation>",
                object("cell", [3, 3, 12, 8]),
                object("cell", [5, 5, 5, 5]),
                object("cell", [9, 8, 3, 4]),
                object("dust", [1, 1, 30, 10]),
            );
            fs::write(dir.path().join(format!("Annotations/{name}.xml")), text).unwrap();
        }
        dir
    }

    /// VOC counts pixels from 1 and both ends of a box; what has no area is told, what lies outside is cut.
    #[test]
    fn boxes_of_a_folder_in_their_parts() {
        let dir = folder(&["a", "b", "c"]);
        fs::write(dir.path().join("ImageSets/Main/train.txt"), "a\n").unwrap();
        fs::write(dir.path().join("ImageSets/Main/test.txt"), "c 1\n").unwrap();
        let data = DataRecipe { size: [32, 32], ..Default::default() };
        let parts = own(dir.path(), &data).unwrap();
        assert_eq!(parts.keys().collect::<Vec<_>>(), [&"test", &"train"]);
        let (scenes, ledger) = &parts["train"];
        assert_eq!((scenes.len(), scenes[0].scale, scenes[0].size), (1, [1.6; 2], [20.0, 10.0]));
        let rects: Vec<[f32; 4]> = scenes[0].objects.iter().map(|o| o.rect.sides()).collect();
        assert_eq!(rects, [[2.0, 2.0, 12.0, 8.0], [0.0, 0.0, 20.0, 10.0]]);
        assert_eq!(ledger.counts()[&DropReason::NoArea], 2);
        assert_eq!(ledger.dropped[1].detail, "a.ppm: cell at [8.0, 7.0, -5.0, -3.0]");

        let cells = DataRecipe { labels: Some(vec!["cell".into()]), ..data };
        assert_eq!(own(dir.path(), &cells).unwrap()["test"].0[0].objects.len(), 1);
        fs::remove_file(dir.path().join("JPEGImages/a.ppm")).unwrap();
        let error = own(dir.path(), &cells).unwrap_err().to_string();
        assert!(error.contains("a.ppm"), "{error}");
        assert!(annotations::picture(dir.path(), "../b.ppm").is_err());
        fs::write(dir.path().join("Annotations/b.xml"), "<annotation><filename>b</filename>")
            .unwrap();
        let error = own(dir.path(), &cells).unwrap_err().to_string();
        assert!(error.contains("b.xml"), "{error}");
    }

    #[test]
    fn labels_that_nothing_is_learned_of_are_refused() {
        let scene = |label: &str| Scene {
            id: label.into(),
            picture: Picture::filled(1, 1, Colour::Rgb, 0),
            scale: [1.0; 2],
            size: [9.0; 2],
            objects: vec![Object {
                label: label.into(),
                rect: Rect { x0: 0.0, y0: 0.0, x1: 5.0, y1: 5.0 },
                crowd: false,
            }],
        };
        let corpus = |test: &[&str]| Corpus {
            train: vec![scene("sq"), scene("bar")],
            valid: vec![scene("sq")],
            test: Some(test.iter().map(|label| scene(label)).collect()),
            labels: vec!["bar".into(), "sq".into()],
            sha256: String::new(),
            ledgers: vec![],
        };
        let data = |labels: &[&str]| DataRecipe {
            labels: Some(labels.iter().map(ToString::to_string).collect()),
            ..DataRecipe::default()
        };
        check_labels(&corpus(&["bar"]), &DataRecipe::default()).unwrap();
        check_labels(&corpus(&["bar"]), &data(&["sq", "bar"])).unwrap();
        let error = check_labels(&corpus(&[]), &data(&["sq", "baar"])).unwrap_err().to_string();
        assert!(error.contains("data.labels") && error.contains("`baar`"), "{error}");
        let error = check_labels(&corpus(&["dot", "bar", "dot"]), &DataRecipe::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("2 boxes of test") && error.contains("dot"), "{error}");
    }

    /// Whatever the format, the others stay.
    #[test]
    fn a_box_that_is_inside_out_is_told() {
        let dir = folder(&["a"]);
        let coco = r#"{"images": [{"id": 1, "file_name": "a.ppm", "width": 20, "height": 10}],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 5]},
                            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [9, 2, -7, 5]},
                            {"id": 3, "image_id": 1, "category_id": 1}]}"#;
        let listed = dir.path().join("boxes.json");
        fs::write(&listed, coco).unwrap();
        let yolo = dir.path().join("yolo");
        for (name, pictures, labels) in [("beside", ".", "."), ("apart", "images", "labels")] {
            let folder = yolo.join(name);
            let [pictures, labels] = [pictures, labels].map(|part| folder.join(part));
            for part in [&folder, &pictures, &labels] {
                fs::create_dir_all(part).unwrap();
            }
            fs::copy(dir.path().join("JPEGImages/a.ppm"), pictures.join("a.ppm")).unwrap();
            let boxes = "0 0.5 0.5 0.4 0.6\n0 0.5 0.5 -0.4 0.6\n0 0.5 0.5 0.4 nan\n";
            fs::write(labels.join("a.txt"), boxes).unwrap();
            fs::write(folder.join("data.yaml"), "names: [cell]\n").unwrap();
        }
        for path in [listed, yolo.join("apart"), yolo.join("beside")] {
            let parts = own(&path, &DataRecipe { size: [32, 32], ..Default::default() }).unwrap();
            let (scenes, ledger) = &parts["train"];
            assert_eq!((scenes.len(), scenes[0].objects.len()), (1, 1), "{}", path.display());
            assert_eq!(ledger.counts()[&DropReason::NoArea], 2, "{}", path.display());
        }
    }

    #[test]
    fn a_box_of_no_picture_is_told() {
        let dir = folder(&["a"]);
        let text = r#"{"images": [{"id": 1, "file_name": "a.ppm", "width": 20, "height": 10}],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 5]},
                            {"id": 2, "image_id": 8, "category_id": 1, "bbox": [2, 2, 9, 5]}]}"#;
        let path = dir.path().join("boxes.json");
        fs::write(&path, text).unwrap();
        let parts = own(&path, &DataRecipe { size: [32, 32], ..Default::default() }).unwrap();
        let (scenes, ledger) = &parts["train"];
        assert_eq!((scenes.len(), scenes[0].objects.len()), (1, 1));
        assert_eq!(ledger.counts()[&DropReason::NoPicture], 1);
        assert_eq!(ledger.dropped[0].detail, "box 2 is of picture 8");
    }

    #[test]
    fn a_share_of_the_pictures_with_and_without_objects() {
        let scene = |i: usize| Scene {
            id: i.to_string(),
            picture: Picture::filled(1, 1, Colour::Rgb, i as u8),
            scale: [1.0; 2],
            size: [1.0; 2],
            objects: match i < 20 {
                true => vec![Object {
                    label: "a".into(),
                    rect: Rect { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 },
                    crowd: false,
                }],
                false => vec![],
            },
        };
        let mut scenes: Vec<Scene> = (0..30).map(scene).collect();
        let part = carve(&mut scenes, 0.2, 5);
        let empty = part.iter().filter(|scene| scene.objects.is_empty()).count();
        assert_eq!((scenes.len(), part.len(), empty), (24, 6, 2));
    }
}
