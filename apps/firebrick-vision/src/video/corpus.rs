//! Labelled clips in parts.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use firebrick_data::{
    error::DataError,
    hash::{sha256_bytes, sha256_rows},
    image::{
        Colour, Picture,
        decode::{self, is_picture},
        resize::Filter,
    },
    split::check_judged,
    table::{Columns, ReadOptions, Row, read},
};
use firebrick_train::job::Places;
use rayon::prelude::*;

use super::{
    read::{self as video, Frames, VideoError, is_video},
    recipe::DataRecipe,
};
use crate::classification::processor::fit;

/// A short video with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// The file's path in the table.
    pub id: String,
    pub label: String,
    /// Clips of one recording look alike.
    pub recording: String,
    /// As many as the recipe says, at its size.
    pub frames: Vec<Picture>,
}

/// The parts of a data set.
pub struct Corpus {
    pub train: Vec<Clip>,
    pub valid: Vec<Clip>,
    pub test: Vec<Clip>,
    /// In the order of their letters; a label's place is its class index.
    pub labels: Vec<String>,
    /// SHA-256 over the training and validation frames.
    pub sha256: String,
}

/// Reads and divides what `[data]` names.
pub fn load(data: &DataRecipe, places: &Places) -> anyhow::Result<Corpus> {
    let table = match (data.dataset.as_deref(), &data.train) {
        (Some("fir-action"), _) => {
            let folder = (places.data)("fir-action")?;
            let nested = folder.join("fir-action");
            (if nested.is_dir() { nested } else { folder }).join("index.csv")
        }
        (Some(other), _) => bail!(DataError::WrongSet(format!(
            "`{other}` is not a set of labelled clips: fir-action"
        ))),
        (None, Some(path)) => places.base.join(path),
        (None, None) => bail!("no data"),
    };
    let (mut train, mut valid, mut test) = (vec![], vec![], vec![]);
    for (clip, part) in clips(&table, data)? {
        match part.as_str() {
            "train" if data.valid_recordings.contains(&clip.recording) => valid.push(clip),
            "train" => train.push(clip),
            "valid" => valid.push(clip),
            "test" => test.push(clip),
            other => {
                let detail = format!("{}: split is {other:?}: train, valid or test", clip.id);
                bail!(DataError::BadValue { path: table, detail });
            }
        }
    }
    ensure!(!train.is_empty(), "{}: no clip to learn from", table.display());
    let labels: BTreeSet<&String> = train.iter().map(|clip| &clip.label).collect();
    let labels: Vec<String> = labels.into_iter().cloned().collect();
    let one = || format!("the training clips have one label: {}", labels.join(", "));
    ensure!(labels.len() > 1, DataError::TooLittle(one()));
    for (part, clips) in [("valid", &valid), ("test", &test)] {
        if !clips.is_empty() {
            check_judged(part, clips.iter().map(|clip| clip.label.as_str()), &labels)?;
        }
    }
    let row = |clip: &Clip| {
        let pixels: Vec<u8> = clip.frames.iter().flat_map(|f| f.pixels.iter().copied()).collect();
        Row { row: 0, text: sha256_bytes(&pixels), label: Some(clip.label.clone()) }
    };
    let sha256 = sha256_rows(&train.iter().chain(&valid).map(row).collect::<Vec<_>>());
    Ok(Corpus { train, valid, test, labels, sha256 })
}

/// The clips of a table with the part that each is in.
pub fn clips(table: &Path, data: &DataRecipe) -> anyhow::Result<Vec<(Clip, String)>> {
    let column = |name: &str| -> anyhow::Result<Vec<(String, String)>> {
        let options = ReadOptions::new(Columns::named("file", Some(name)));
        let rows = read(table, &options)?.usable(table)?.rows;
        Ok(rows.into_iter().map(|row| (row.text, row.label.unwrap_or_default())).collect())
    };
    let (labels, recordings, parts) = (column("label")?, column("recording")?, column("split")?);
    let same = labels.len() == recordings.len() && labels.len() == parts.len();
    ensure!(same, "{}: a clip lacks its label, recording or split", table.display());
    let folder = table.parent().unwrap_or(Path::new(""));
    let reading = Frames {
        size: data.size,
        shortest_edge: data.shortest_edge,
        colour: data.colour(),
        rate: data.rate,
        start: 0.0,
        most: data.frames,
    };
    let rows: Vec<_> = labels.into_iter().zip(recordings).zip(parts).collect();
    let clip = |(((id, label), (_, recording)), (_, part))| {
        let frames = frames(&folder.join(&id), &reading)?;
        Ok((Clip { id, label, recording, frames }, part))
    };
    rows.into_par_iter().map(clip).collect()
}

/// As many frames as `reading` has at most, of a video, a folder of frames, or a picture with all of them from top to
/// bottom. Where there are fewer, the last one stays.
pub fn frames(path: &Path, reading: &Frames) -> Result<Vec<Picture>, VideoError> {
    let mut found = vec![];
    match is_still(path) {
        true => found = strip(path, reading)?,
        false => {
            video::read(path, reading, &mut |frame| found.push(frame))?;
        }
    }
    fill(&mut found, reading.most);
    Ok(found)
}

/// Repeats the last frame until there are so many.
pub fn fill(frames: &mut Vec<Picture>, count: usize) {
    while let Some(last) = frames.last().filter(|_| frames.len() < count) {
        frames.push(last.clone());
    }
}

/// Whether a file is a picture, and none that moves, as a GIF.
pub fn is_still(path: &Path) -> bool {
    is_picture(path) && !is_video(path)
}

/// Whether a picture holds many frames from top to bottom.
pub fn is_strip(picture: &Picture) -> bool {
    picture.height >= 4 * picture.width
}

fn strip(path: &Path, reading: &Frames) -> Result<Vec<Picture>, DataError> {
    let whole = decode::read(path, reading.colour)?;
    let count = reading.most;
    if !is_strip(&whole) {
        let detail = "is one picture, and none of a clip's frames from top to bottom";
        return Err(DataError::BadValue { path: path.to_owned(), detail: detail.into() });
    }
    if whole.height < count || whole.height % count != 0 {
        let detail =
            format!("has {} rows, which are no {count} frames from top to bottom", whole.height);
        return Err(DataError::BadValue { path: path.to_owned(), detail });
    }
    let height = whole.height / count;
    let size = height * whole.width * whole.colour.channels();
    let frame = |pixels: &[u8]| {
        let frame = Picture { height, pixels: pixels.to_vec(), ..whole };
        fit(&frame, reading.size, reading.shortest_edge, Filter::Bilinear)
    };
    Ok(whole.pixels.chunks_exact(size).map(frame).collect())
}

/// A file or folder that is one clip.
pub struct Input {
    pub id: String,
    pub path: PathBuf,
}

/// The clips in `path`: itself, if it is a file or a folder of frames; else, in a folder, each video, each picture with
/// many frames, and each folder of frames. Ids are relative to it.
pub fn inputs(path: &Path) -> anyhow::Result<Vec<Input>> {
    if !path.is_dir() {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![Input { id, path: path.to_owned() }]);
    }
    let mut found = vec![];
    walk(path, path, 16, &mut found)?;
    ensure!(
        !found.is_empty(),
        DataError::Empty { path: path.to_owned(), detail: "no video and no frame is in it" }
    );
    Ok(found)
}

fn walk(root: &Path, folder: &Path, depth: usize, found: &mut Vec<Input>) -> anyhow::Result<()> {
    ensure!(depth > 0, "{}: folders within folders, too deep", folder.display());
    let listing = || format!("listing {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(listing)?;
    let paths = entries.map(|entry| Ok(entry.with_context(listing)?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<anyhow::Result<_>>()?;
    paths.sort();
    let id = |path: &Path| {
        let id = crate::classification::layouts::relative(path, root);
        if id.is_empty() { ".".into() } else { id }
    };
    let first = paths.iter().find(|path| is_still(path) && path.is_file());
    // A picture that cannot be read is told when it is asked for.
    let strips = first.is_some_and(|first| {
        decode::read(first, Colour::Grey).map_or(true, |picture| is_strip(&picture))
    });
    if first.is_some() && !strips {
        found.push(Input { id: id(folder), path: folder.to_owned() });
    }
    for path in paths {
        if path.is_dir() {
            walk(root, &path, depth - 1, found)?;
        } else if is_video(&path) || strips && is_still(&path) {
            found.push(Input { id: id(&path), path });
        }
    }
    Ok(())
}

impl Corpus {
    /// What there is to say of it, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let said = |part: &[Clip]| {
            let recordings: BTreeSet<&str> = part.iter().map(|c| c.recording.as_str()).collect();
            format!("{} clips of {} recordings", part.len(), recordings.len())
        };
        let valid = match self.valid.is_empty() {
            true => "none, so the last weights are kept".into(),
            false => said(&self.valid),
        };
        vec![
            format!("learned from: {}; {} labels", said(&self.train), self.labels.len()),
            format!("choose the weights: {valid}"),
            format!("test: {}", said(&self.test)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let whole = Picture {
            width: 2,
            height: 12,
            colour: Colour::Grey,
            pixels: (0..24).map(|i| (i / 6) * 10).collect(),
        };
        std::fs::write(&path, decode::png(&whole)).unwrap();
        let (size, colour) = ([3, 2], Colour::Grey);
        let reading = Frames { size, shortest_edge: None, colour, rate: 1.0, start: 0.0, most: 4 };
        let found = frames(&path, &reading).unwrap();
        assert_eq!(found.iter().map(|f| f.pixels[0]).collect::<Vec<_>>(), [0, 10, 20, 30]);
        assert!(found.iter().all(|f| (f.width, f.height) == (2, 3)));
        assert!(frames(&path, &Frames { most: 5, ..reading }).is_err());
        assert_eq!(inputs(dir.path()).unwrap()[0].id, "a.png");
        let photograph = Picture::filled(8, 8, Colour::Grey, 0);
        std::fs::write(&path, decode::png(&photograph)).unwrap();
        let refused = frames(&path, &reading).unwrap_err().to_string();
        assert!(refused.contains("is one picture"), "{refused}");
        assert!(!is_still(Path::new("moves.gif")) && is_still(Path::new("a.png")));
    }

    #[test]
    fn a_short_clip_stays_at_its_end() {
        let mut found = vec![Picture::filled(1, 1, Colour::Grey, 7)];
        fill(&mut found, 3);
        assert_eq!(found.len(), 3);
    }
}
