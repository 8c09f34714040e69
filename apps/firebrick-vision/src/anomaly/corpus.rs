//! Recordings of one camera in parts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use firebrick_data::{
    error::DataError,
    hash::{sha256_bytes, sha256_rows},
    image::{Colour, Picture, decode, resize},
    ledger::Ledger,
    table::{Columns, ReadOptions, Row, read},
};
use firebrick_train::job::Places;
use rayon::prelude::*;

use super::recipe::DataRecipe;
use crate::{
    classification::layouts::unreadable,
    video::read::{self as video, Frames, is_video},
};

/// Frames in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    pub name: String,
    pub frames: Vec<Picture>,
    /// Of a test clip, whether each frame is anomalous.
    pub anomalous: Vec<bool>,
}

/// Most frames of a clip that is learned from.
const FRAMES: usize = 100_000;

pub struct Corpus {
    pub train: Vec<Clip>,
    pub valid: Vec<Clip>,
    pub test: Vec<Clip>,
    /// SHA-256 over the training and validation frames.
    pub sha256: String,
    /// Rows of the test table that could not be read.
    pub ledger: Ledger,
}

/// Reads and divides what `[data]` names.
pub fn load(data: &DataRecipe, places: &Places) -> anyhow::Result<Corpus> {
    let (folder, test) = match (data.dataset.as_deref(), &data.train) {
        (Some("ucsd-ped2"), _) => {
            let folder = (places.data)("ucsd-ped2")?;
            let nested = folder.join("ucsd-ped2");
            let folder = if nested.is_dir() { nested } else { folder };
            (folder.join("train"), Some(folder.join("labels.csv")))
        }
        (Some(other), _) => bail!(DataError::WrongSet(format!(
            "`{other}` is not a set of videos with anomalies: ucsd-ped2"
        ))),
        (None, Some(path)) => {
            (places.base.join(path), data.test.as_ref().map(|path| places.base.join(path)))
        }
        (None, None) => bail!("no data"),
    };
    let mut train = recordings(&folder, data)?;
    let count = train.len();
    ensure!(
        count > data.valid_clips,
        "{}: {count} recordings, and {} are for validation",
        folder.display(),
        data.valid_clips
    );
    let valid = train.split_off(count - data.valid_clips);
    let test = test.map(|table| labelled(&table, data)).transpose()?;
    let (test, ledger) = test.unwrap_or_default();
    let row = |frame: &Picture| Row { row: 0, text: sha256_bytes(&frame.pixels), label: None };
    let learned = train.iter().chain(&valid).flat_map(|clip| &clip.frames);
    let sha256 = sha256_rows(&learned.map(row).collect::<Vec<_>>());
    Ok(Corpus { train, valid, test, sha256, ledger })
}

/// The videos and folders of frames in a folder, in the order of their names.
fn recordings(folder: &Path, data: &DataRecipe) -> anyhow::Result<Vec<Clip>> {
    let mut paths: Vec<PathBuf> = vec![];
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
        if path.is_dir() || is_video(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    let reading = Frames {
        size: data.size,
        shortest_edge: None,
        colour: Colour::Grey,
        rate: data.rate,
        start: 0.0,
        most: FRAMES,
    };
    let clip = |path: &PathBuf| {
        let mut frames = vec![];
        video::read(path, &reading, &mut |frame| frames.push(frame))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Clip { name, frames, anomalous: vec![] })
    };
    paths.par_iter().map(clip).collect()
}

/// Clips of the frames that a table lists, and its rows that cannot be read.
pub fn labelled(table: &Path, data: &DataRecipe) -> anyhow::Result<(Vec<Clip>, Ledger)> {
    let options = ReadOptions::new(Columns::named("file", Some("anomalous")));
    let listed = read(table, &options)?.usable(table)?;
    let (rows, ledger) = (listed.rows, unreadable(&listed.bad));
    let folder = table.parent().unwrap_or(Path::new(""));
    let mut clips = BTreeMap::<String, Vec<(PathBuf, bool)>>::new();
    for row in rows {
        let anomalous = match row.label.as_deref() {
            Some("0") => false,
            Some("1") => true,
            other => {
                let detail =
                    format!("row {}: anomalous is {other:?}, neither 0 nor 1", row.row + 1);
                bail!(DataError::BadValue { path: table.to_owned(), detail });
            }
        };
        let clip = row.text.rsplit_once('/').map_or("", |(clip, _)| clip).to_string();
        clips.entry(clip).or_default().push((folder.join(&row.text), anomalous));
    }
    let [rows, columns] = data.size;
    let clip = |(name, mut files): (String, Vec<(PathBuf, bool)>)| {
        files.sort();
        let frame = |(path, _): &(PathBuf, bool)| {
            let picture = decode::read(path, Colour::Grey)?;
            Ok(resize::resize(&picture, columns, rows, resize::Filter::Bilinear))
        };
        let frames = files.iter().map(frame).collect::<anyhow::Result<_>>()?;
        Ok(Clip {
            name,
            frames,
            anomalous: files.iter().map(|(_, anomalous)| *anomalous).collect(),
        })
    };
    let clips: Vec<Clip> = clips.into_par_iter().map(clip).collect::<anyhow::Result<_>>()?;
    Ok((clips, ledger))
}

impl Corpus {
    /// What there is to say of it, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let frames = |part: &[Clip]| part.iter().map(|clip| clip.frames.len()).sum::<usize>();
        let said = |part: &[Clip]| format!("{} clips, {} frames", part.len(), frames(part));
        let anomalous = self.test.iter().flat_map(|clip| &clip.anomalous).filter(|a| **a).count();
        let mut remarks = vec![
            format!("learned from: {}", said(&self.train)),
            format!("choose weights and threshold: {}", said(&self.valid)),
            format!("test: {}, {anomalous} of them anomalous", said(&self.test)),
        ];
        if !self.ledger.dropped.is_empty() {
            let count = self.ledger.dropped.len();
            remarks.push(format!(
                "test: dropped {count}: unreadable rows (data.ledger.jsonl says why)"
            ));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_an_answer_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let picture = Picture::filled(8, 6, Colour::Grey, 7);
        fs::write(dir.path().join("a.png"), decode::png(&picture)).unwrap();
        let table = dir.path().join("t.csv");
        fs::write(&table, "file,anomalous\na.png,1\na.png,\n").unwrap();
        let (clips, ledger) = labelled(&table, &DataRecipe::default()).unwrap();
        assert_eq!((clips.len(), clips[0].frames.len()), (1, 1));
        assert_eq!(ledger.dropped[0].detail, "row 2 (line 3): the label is empty");
    }
}
