//! How boxes are written down: folders of PASCAL VOC's XML, COCO's JSON, YOLO's text.
//!
//! In memory all are COCO's data set, whose boxes are `[left, top, width, height]` in pixels.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use anyhow::Context;
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::{
    error::DataError,
    image::decode::{self, EXTENSIONS, is_picture},
    quote::escaped,
    stream,
};
use hotcoco::{
    Annotation, Category, Dataset, Image,
    convert::{ConvertError, coco_to_voc, coco_to_yolo, yolo_to_coco},
};
use serde::Deserialize;
use serde_json::Value;

use crate::classification::layouts;

/// Largest file of boxes: COCO's own training part has 450 MB.
const FILE_LIMIT: u64 = 1 << 30;

/// Pixels of a side that a box must have more of: one pixel's box, which is how VOC writes a point, shows nothing.
pub const LEAST_SIDE: f64 = 1.0;

/// A way to write boxes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder with an XML file for each picture in `Annotations/`.
    Voc,
    /// One JSON file.
    Coco,
    /// A folder with `data.yaml` and a text file for each picture, beside it or in `labels` where the picture is in `images`.
    Yolo,
}

impl Format {
    pub const NAMES: [&str; 3] = ["voc", "coco", "yolo"];

    /// By one of [`Self::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        [Self::Voc, Self::Coco, Self::Yolo]
            .into_iter()
            .zip(Self::NAMES)
            .find_map(|(format, own)| (own == name).then_some(format))
    }

    /// What a path holds.
    fn of(path: &Path) -> Result<Self, DataError> {
        match path.is_dir() {
            _ if !path.exists() => Err(DataError::Read {
                path: path.to_owned(),
                source: io::ErrorKind::NotFound.into(),
            }),
            true if path.join("data.yaml").exists() => Ok(Self::Yolo),
            true if path.join("Annotations").is_dir() || has_ending(path, "xml") => Ok(Self::Voc),
            false if path.extension().is_some_and(|e| e == "json") => Ok(Self::Coco),
            _ => Err(DataError::Unsupported {
                path: path.to_owned(),
                detail: "holds no boxes that are read here: a folder with Annotations/*.xml (VOC), a folder with \
                         data.yaml and *.txt or labels/ (YOLO), or a .json file (COCO)"
                    .into(),
            }),
        }
    }
}

fn has_ending(folder: &Path, ending: &str) -> bool {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.path().extension().is_some_and(|e| e == ending))
}

/// Reads the boxes of `path`, in whichever format they are.
pub fn read(path: &Path) -> Result<Dataset, DataError> {
    let dataset = match Format::of(path)? {
        Format::Voc => voc(path)?,
        Format::Yolo => yolo(path)?,
        Format::Coco => serde_json::from_slice(&bytes(path)?)
            .map_err(|error| bad(path, format!("is not COCO's JSON: {error}")))?,
    };
    match dataset.images.is_empty() {
        true => {
            Err(DataError::Empty { path: path.to_owned(), detail: "it has boxes of no picture" })
        }
        false => Ok(dataset),
    }
}

fn bad(path: &Path, detail: impl std::fmt::Display) -> DataError {
    DataError::BadSyntax { path: path.to_owned(), detail: escaped(&detail.to_string()) }
}

/// Writes boxes, of each what lies on its picture; returns how many pictures and boxes were written, and how many boxes were
/// left out: those of no area there or of no picture, and what the format cannot express.
pub fn write(mut dataset: Dataset, format: Format, path: &Path) -> anyhow::Result<[usize; 3]> {
    let all = dataset.annotations.len();
    let images: HashMap<u64, [u32; 2]> =
        dataset.images.iter().map(|image| (image.id, [image.width, image.height])).collect();
    // VOC, which counts pixels, would turn those of no area inside out.
    dataset.annotations.retain_mut(|annotation| {
        let (Some(bbox), Some(size)) = (annotation.bbox, images.get(&annotation.image_id)) else {
            return false;
        };
        let clipped = clipped(bbox, *size);
        let [_, _, w, h] = clipped;
        if clipped != bbox {
            annotation.bbox = Some(clipped);
            annotation.area = annotation.area.map(|area| area.min(w * h));
        }
        w > LEAST_SIDE && h > LEAST_SIDE
    });
    let context = || format!("writing {}", path.display());
    let written = match format {
        Format::Voc => coco_to_voc(&dataset, path).with_context(context)?.annotations,
        Format::Yolo => {
            fs::create_dir_all(path).with_context(context)?;
            coco_to_yolo(&dataset, path).with_context(context)?.annotations
        }
        Format::Coco => {
            let mut value = serde_json::to_value(&dataset).with_context(context)?;
            as_coco_has_it(&mut value);
            write_atomically(path, value.to_string().as_bytes()).with_context(context)?;
            dataset.annotations.len()
        }
    };
    Ok([dataset.images.len(), written, all - written])
}

/// The part of a box that lies on a picture; the whole where no size is told.
fn clipped([x, y, w, h]: [f64; 4], [width, height]: [u32; 2]) -> [f64; 4] {
    let inside = |begin: f64, side: f64, length: u32| {
        let length = f64::from(length);
        match length == 0.0 || begin >= 0.0 && begin + side <= length {
            true => (begin, side),
            false => {
                let first = begin.clamp(0.0, length);
                (first, (begin + side).clamp(0.0, length) - first)
            }
        }
    };
    let ((x, w), (y, h)) = (inside(x, w, width), inside(y, h, height));
    [x, y, w, h]
}

/// COCO leaves out what is not known, and its `iscrowd` is a number.
fn as_coco_has_it(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            for (key, value) in fields {
                match value {
                    Value::Bool(crowd) if key == "iscrowd" => *value = u8::from(*crowd).into(),
                    value => as_coco_has_it(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(as_coco_has_it),
        _ => {}
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let (mut file, size) = stream::open_regular(path)?;
    if size > FILE_LIMIT {
        let detail = format!("{size} bytes, above the limit of {FILE_LIMIT}");
        return Err(DataError::TooLarge { path: path.to_owned(), detail });
    }
    let mut bytes = vec![];
    let read = file.read_to_end(&mut bytes);
    read.map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// VOC's XML files, a picture each. A box that is empty or inside out stays as it is, for [`super::corpus`] to drop and tell.
fn voc(path: &Path) -> Result<Dataset, DataError> {
    #[derive(Deserialize)]
    struct Page {
        filename: String,
        #[serde(default)]
        size: Size,
        #[serde(default, rename = "object")]
        objects: Vec<Thing>,
    }
    #[derive(Deserialize, Default)]
    struct Size {
        width: u32,
        height: u32,
    }
    #[derive(Deserialize)]
    struct Thing {
        name: String,
        bndbox: Sides,
        difficult: Option<String>,
    }
    #[derive(Deserialize)]
    struct Sides {
        xmin: f64,
        ymin: f64,
        xmax: f64,
        ymax: f64,
    }
    let folder = path.join("Annotations");
    let folder = if folder.is_dir() { folder } else { path.to_owned() };
    let listed =
        fs::read_dir(&folder).map_err(|source| DataError::Read { path: folder, source })?;
    let files = listed.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|ending| ending == "xml")).collect();
    files.sort();
    let page = |file: &PathBuf| -> Result<Page, DataError> {
        let page: Page = quick_xml::de::from_reader(bytes(file)?.as_slice())
            .map_err(|error| bad(file, format!("is no VOC annotation: {error}")))?;
        let mut names = page.objects.iter().map(|thing| &thing.name);
        let nameless = names.any(|name| name.trim().is_empty());
        match nameless || page.filename.trim().is_empty() {
            true => Err(bad(file, "has an empty filename, or an object with an empty name")),
            false => Ok(page),
        }
    };
    let pages: Vec<Page> = files.iter().map(page).collect::<Result<_, _>>()?;

    // Numbered as `labels.txt` lists them, if it is there; the others by name.
    let list = path.join("labels.txt");
    let list = if list.is_file() { bytes(&list)? } else { vec![] };
    let list = String::from_utf8_lossy(&list);
    let mut names: Vec<&str> =
        list.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    let found = pages.iter().flat_map(|page| &page.objects).map(|thing| thing.name.trim());
    let others: BTreeSet<&str> = found.filter(|name| !names.contains(name)).collect();
    names.extend(others);
    let numbers: HashMap<&str, u64> = names.iter().copied().zip(1..).collect();
    let category =
        |(id, name): (u64, &&str)| Category { id, name: name.to_string(), ..Default::default() };
    let mut dataset =
        Dataset { categories: (1..).zip(&names).map(category).collect(), ..Default::default() };
    for (image_id, page) in (1..).zip(&pages) {
        let Size { width, height } = page.size;
        let file_name = page.filename.trim().to_string();
        dataset.images.push(Image { id: image_id, file_name, width, height, ..Default::default() });
        for thing in &page.objects {
            // Pixels are counted from 1, and both ends are inside.
            let Sides { xmin, ymin, xmax, ymax } = thing.bndbox;
            let (w, h) = (xmax - xmin + 1.0, ymax - ymin + 1.0);
            dataset.annotations.push(Annotation {
                id: dataset.annotations.len() as u64 + 1,
                image_id,
                category_id: numbers[thing.name.trim()],
                bbox: Some([xmin - 1.0, ymin - 1.0, w, h]),
                area: Some(w * h),
                iscrowd: thing.difficult.as_deref().map(str::trim) == Some("1"),
                ..Default::default()
            });
        }
    }
    Ok(dataset)
}

/// YOLO's text files: beside `data.yaml`, or each in a folder `labels` where its picture is in a folder `images`.
fn yolo(path: &Path) -> Result<Dataset, DataError> {
    let pictures = layouts::pictures(path).map_err(|error| bad(path, format!("{error:#}")))?;
    let labels = |picture: &Path| labels_of(picture.strip_prefix(path).ok()?);
    let labelled: Vec<(PathBuf, &PathBuf)> =
        pictures.iter().filter_map(|picture| Some((labels(picture)?, picture))).collect();
    if !labelled.iter().any(|(labels, _)| path.join(labels).parent().is_some_and(Path::is_dir)) {
        return beside(path);
    }
    let mut dataset = Dataset { categories: categories(path)?, ..Dataset::default() };
    for (id, (labels, picture)) in (1..).zip(labelled) {
        let (width, height) = decode::size(picture)
            .ok_or_else(|| bad(picture, "is no picture whose size can be read"))?;
        // A picture without a file of boxes has none.
        let labels = path.join(labels);
        let text = if labels.is_file() { bytes(&labels)? } else { vec![] };
        let text = String::from_utf8_lossy(&text);
        for (row, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = || {
                let count = dataset.categories.len();
                bad(
                    &labels,
                    format!("line {} is not a class below {count} and four shares", row + 1),
                )
            };
            let numbers: Option<Vec<f64>> =
                line.split_whitespace().map(|part| part.parse().ok()).collect();
            let Some([class, x, y, w, h]) = numbers.as_deref() else { return Err(wrong()) };
            let category = dataset.categories.get(*class as usize).filter(|_| class.fract() == 0.0);
            let category_id = category.ok_or_else(wrong)?.id;
            let (width, height) = (f64::from(width), f64::from(height));
            let (x0, y0, w, h) =
                ((x - w / 2.0) * width, (y - h / 2.0) * height, w * width, h * height);
            dataset.annotations.push(Annotation {
                id: dataset.annotations.len() as u64 + 1,
                image_id: id,
                category_id,
                bbox: Some([x0, y0, w, h]),
                area: Some(w * h),
                ..Default::default()
            });
        }
        let file_name = layouts::relative(picture, path);
        dataset.images.push(Image { id, file_name, width, height, ..Default::default() });
    }
    Ok(dataset)
}

/// The text file of a picture in a folder `images`: in `labels` in its place, as Ultralytics looks for it.
fn labels_of(picture: &Path) -> Option<PathBuf> {
    let parts: Vec<Component> = picture.components().collect();
    let last = parts.iter().rposition(|part| part.as_os_str() == "images")?;
    let part = |(at, part): (usize, &Component)| match at == last {
        true => PathBuf::from("labels"),
        false => PathBuf::from(part.as_os_str()),
    };
    let labels: PathBuf = parts.iter().enumerate().map(part).collect();
    Some(labels.with_extension("txt"))
}

/// What `data.yaml` names; it is read alone, as other text files beside it would be taken for boxes.
fn categories(path: &Path) -> Result<Vec<Category>, DataError> {
    const FILE: &str = "data.yaml";
    let text = bytes(&path.join(FILE))?;
    let alone = || -> anyhow::Result<Dataset> {
        let alone = tempfile::tempdir()?;
        fs::write(alone.path().join(FILE), text)?;
        Ok(yolo_to_coco(alone.path(), &HashMap::new())?)
    };
    let read =
        alone().map_err(|_| bad(&path.join(FILE), "has no list `names` that is read here"))?;
    Ok(read.categories)
}

/// Text files that lie beside `data.yaml`.
fn beside(path: &Path) -> Result<Dataset, DataError> {
    let folders = picture_folders(path).into_iter().filter_map(|folder| fs::read_dir(folder).ok());
    let files = folders.flatten().flatten().map(|file| file.path()).filter(|path| is_picture(path));
    let stem = |path: &Path| Some(path.file_stem()?.to_string_lossy().into_owned());
    let by_stem: HashMap<String, PathBuf> =
        files.filter_map(|path| Some((stem(&path)?, path))).collect();
    let sizes = by_stem.iter().filter_map(|(stem, path)| Some((stem.clone(), decode::size(path)?)));
    let mut dataset =
        yolo_to_coco(path, &sizes.collect()).map_err(|error| match error {
            ConvertError::MissingImageDimensions(name) => bad(
                path,
                format!(
                    "the picture {name:?}, whose size YOLO's numbers are shares of, is not beside it, nor in \
                     JPEGImages/ or images/"
                ),
            ),
            error => bad(path, error),
        })?;
    for image in &mut dataset.images {
        if let Some(name) = by_stem.get(&image.file_name).and_then(|path| path.file_name()) {
            image.file_name = name.to_string_lossy().into_owned();
        }
    }
    Ok(dataset)
}

/// Where pictures lie that the boxes in `path` are of.
fn picture_folders(path: &Path) -> Vec<PathBuf> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let mut folders = vec![folder.to_path_buf()];
    folders.extend(["JPEGImages", "images"].map(|name| folder.join(name)));
    folders.extend(folder.parent().map(|above| above.join("images")));
    folders
}

/// The picture that boxes in `path` call `name`, whose ending may be missing.
pub fn picture(path: &Path, name: &str) -> Result<PathBuf, DataError> {
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || !Path::new(name).components().all(plain) {
        return Err(bad(path, format!("{name:?} is no name of a picture in its folder")));
    }
    for folder in picture_folders(path) {
        let whole = folder.join(name);
        if whole.is_file() {
            return Ok(whole);
        }
        let endings = EXTENSIONS.iter().map(|ending| folder.join(format!("{name}.{ending}")));
        if let Some(found) = endings.into_iter().find(|file| file.is_file()) {
            return Ok(found);
        }
    }
    Err(bad(path, format!("the picture {name:?} is not beside it, nor in JPEGImages/ or images/")))
}

/// `coco128-street`'s list of pictures.
pub fn street(path: &Path) -> Result<Dataset, DataError> {
    #[derive(Deserialize)]
    struct Street {
        file: String,
        width: u32,
        height: u32,
        objects: Vec<Thing>,
    }
    #[derive(Deserialize)]
    struct Thing {
        label: String,
        xmin: f64,
        ymin: f64,
        xmax: f64,
        ymax: f64,
        crowd: u8,
    }
    let list: Vec<Street> = serde_json::from_slice(&bytes(path)?)
        .map_err(|error| bad(path, format!("is not a list of pictures: {error}")))?;
    let mut dataset = Dataset::default();
    for (id, picture) in (1..).zip(list) {
        for thing in picture.objects {
            let known = dataset.categories.iter().find(|category| category.name == thing.label);
            let category_id = known.map_or(dataset.categories.len() as u64 + 1, |known| known.id);
            if known.is_none() {
                let name = thing.label;
                dataset.categories.push(Category { id: category_id, name, ..Default::default() });
            }
            let (width, height) = (thing.xmax - thing.xmin, thing.ymax - thing.ymin);
            dataset.annotations.push(Annotation {
                id: dataset.annotations.len() as u64 + 1,
                image_id: id,
                category_id,
                bbox: Some([thing.xmin, thing.ymin, width, height]),
                area: Some(width * height),
                iscrowd: thing.crowd == 1,
                ..Default::default()
            });
        }
        let (width, height) = (picture.width, picture.height);
        dataset.images.push(Image {
            id,
            file_name: picture.file,
            width,
            height,
            ..Default::default()
        });
    }
    Ok(dataset)
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::{Colour, Picture};

    use super::*;

    fn picture(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, decode::png(&Picture::filled(40, 20, Colour::Rgb, 9))).unwrap();
    }

    /// Beside `data.yaml`, and with `images` and `labels` as Ultralytics and Roboflow have them.
    #[test]
    fn yolo_in_its_layouts() {
        for (image, labels) in [
            ("a.png", "a.txt"),
            ("images/a.png", "labels/a.txt"),
            ("images/train/a.png", "labels/train/a.txt"),
            ("train/images/a.png", "train/labels/a.txt"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            picture(&dir.path().join(image));
            fs::write(dir.path().join("data.yaml"), "nc: 2\nnames: [cat, dog]\n").unwrap();
            let labels = dir.path().join(labels);
            fs::create_dir_all(labels.parent().unwrap()).unwrap();
            fs::write(&labels, "1 0.5 0.5 0.5 0.5\n").unwrap();
            let dataset = read(dir.path()).unwrap();
            assert_eq!(dataset.images[0].file_name, image);
            assert_eq!(dataset.annotations[0].bbox, Some([10.0, 5.0, 20.0, 10.0]), "{image}");
            let label = dataset.annotations[0].category_id;
            assert!(dataset.categories.iter().any(|c| c.id == label && c.name == "dog"), "{image}");
            super::picture(dir.path(), image).unwrap();
            fs::write(&labels, "2 0.5 0.5 0.5 0.5\n").unwrap();
            assert!(read(dir.path()).unwrap_err().to_string().contains("a.txt"), "{image}");
        }
        let error = read(Path::new("nosuch")).unwrap_err();
        assert_eq!(error.kind(), "Read");
    }

    #[test]
    fn a_box_of_no_picture_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let annotation = |image_id| Annotation {
            image_id,
            bbox: Some([1.0, 1.0, 5.0, 5.0]),
            ..Default::default()
        };
        let image =
            Image { id: 1, width: 9, height: 9, file_name: "a.png".into(), ..Default::default() };
        let dataset = Dataset {
            images: vec![image],
            annotations: vec![annotation(1), annotation(7)],
            ..Default::default()
        };
        let path = dir.path().join("boxes.json");
        let written = write(dataset, Format::Coco, &path).unwrap();
        assert_eq!(written, [1, 1, 1]);
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("null") && text.contains("\"iscrowd\":0"), "{text}");
    }

    #[test]
    fn boxes_are_cut_at_the_pictures_sides() {
        let dir = tempfile::tempdir().unwrap();
        let boxes = [
            [2.0, 2.0, 5.0, 5.0],
            [-3.0, 1.0, 10.0, 30.0],
            [40.0, 5.0, 8.0, 8.0],
            [19.5, 2.0, 8.0, 8.0],
            [9.0, 5.0, -4.0, 2.0],
        ];
        let annotation = |bbox: &[f64; 4]| Annotation {
            image_id: 1,
            category_id: 1,
            bbox: Some(*bbox),
            area: Some(60.0),
            ..Default::default()
        };
        let image =
            Image { id: 1, width: 20, height: 10, file_name: "a.png".into(), ..Default::default() };
        let category = Category { id: 1, name: "cell".into(), ..Default::default() };
        let dataset = Dataset {
            images: vec![image],
            annotations: boxes.iter().map(annotation).collect(),
            categories: vec![category],
            ..Default::default()
        };
        let coco = dir.path().join("boxes.json");
        assert_eq!(write(dataset.clone(), Format::Coco, &coco).unwrap(), [1, 2, 3]);
        let found = read(&coco).unwrap().annotations;
        assert_eq!(found[0].bbox, Some(boxes[0]));
        assert_eq!((found[1].bbox, found[1].area), (Some([0.0, 1.0, 7.0, 9.0]), Some(60.0)));
        let folder = dir.path().join("voc");
        assert_eq!(write(dataset, Format::Voc, &folder).unwrap(), [1, 2, 3]);
        assert_eq!(voc(&folder).unwrap().annotations[1].bbox, Some([0.0, 1.0, 7.0, 9.0]));
    }
}
