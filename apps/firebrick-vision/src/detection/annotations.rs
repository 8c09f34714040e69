//! How boxes are written down: folders of PASCAL VOC's XML, COCO's JSON, YOLO's text.
//!
//! In memory all are COCO's data set, whose boxes are `[left, top, width, height]` in pixels.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
};

use anyhow::Context;
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::{
    error::DataError,
    image::decode::{EXTENSIONS, is_picture},
    quote::escaped,
    stream,
};
use hotcoco::{
    Annotation, Category, Dataset, Image,
    convert::{coco_to_voc, coco_to_yolo, voc_to_coco, yolo_to_coco},
};
use serde::Deserialize;

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
    /// A folder with `data.yaml` and a text file for each picture.
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
            true if path.join("data.yaml").exists() => Ok(Self::Yolo),
            true if path.join("Annotations").is_dir() || has_ending(path, "xml") => Ok(Self::Voc),
            false if path.extension().is_some_and(|e| e == "json") => Ok(Self::Coco),
            _ => Err(DataError::Unsupported {
                path: path.to_owned(),
                detail: "holds no boxes that are read here: a folder with Annotations/*.xml (VOC), a folder with \
                         data.yaml and *.txt (YOLO), or a .json file (COCO)"
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
        Format::Voc => voc_to_coco(path).map_err(|error| bad(path, error))?,
        Format::Yolo => yolo_to_coco(path, &sizes(path)).map_err(|error| bad(path, error))?,
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

/// Writes boxes; returns how many pictures and boxes were written, and how many boxes were left out: those of no area, and
/// what the format cannot express.
pub fn write(mut dataset: Dataset, format: Format, path: &Path) -> anyhow::Result<[usize; 3]> {
    let all = dataset.annotations.len();
    // VOC, which counts pixels, would turn them inside out.
    dataset.annotations.retain(|annotation| {
        annotation.bbox.is_some_and(|[_, _, w, h]| w > LEAST_SIDE && h > LEAST_SIDE)
    });
    let context = || format!("writing {}", path.display());
    let written = match format {
        Format::Voc => coco_to_voc(&dataset, path).with_context(context)?.annotations,
        Format::Yolo => {
            fs::create_dir_all(path).with_context(context)?;
            coco_to_yolo(&dataset, path).with_context(context)?.annotations
        }
        Format::Coco => {
            let text = serde_json::to_vec(&dataset).with_context(context)?;
            write_atomically(path, &text).with_context(context)?;
            dataset.annotations.len()
        }
    };
    Ok([dataset.images.len(), written, all - written])
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

/// Width and height of the pictures that lie with YOLO's text files, by the stems of their names.
fn sizes(folder: &Path) -> HashMap<String, (u32, u32)> {
    let files = picture_folders(folder).into_iter().filter_map(|folder| fs::read_dir(folder).ok());
    let files = files.flatten().flatten().map(|entry| entry.path()).filter(|path| is_picture(path));
    let sized = |path: PathBuf| {
        let stem = path.file_stem()?.to_string_lossy().into_owned();
        Some((stem, image::image_dimensions(&path).ok()?))
    };
    files.filter_map(sized).collect()
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
