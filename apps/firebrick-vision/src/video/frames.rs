//! `preprocessor_config.json` of a model of videos: what becomes of a frame, and how many there are a second.

use std::path::Path;

use firebrick_core::checkpoint::{LoadError, Source};
use firebrick_data::image::Picture;
use serde_json::Value;

use super::read::{self, Frames, VideoError};
use crate::classification::processor::Processor;

/// Scales frames, and takes so many a second.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameProcessor {
    pub frame: Processor,
    /// Frames a second.
    pub rate: f64,
}

const FILE: &str = "preprocessor_config.json";
const KEY: &str = "frames_per_second";

/// Of a folder that does not say it, as those of `transformers`: VideoMAE learned Kinetics by every fourth frame of 30 a
/// second.
const RATE: f64 = 7.5;

impl FrameProcessor {
    /// That of a model folder whose model takes frames of `channels`.
    pub fn open(source: &Source, channels: usize) -> Result<Self, LoadError> {
        let frame = Processor::open(source, channels)?;
        let wrong = |problem| LoadError::Config { path: source.path(FILE), problem };
        let [rows, columns] = frame.size;
        if let Some(edge) = frame.shortest_edge.filter(|edge| *edge < rows.max(columns)) {
            return Err(wrong(format!("shortest_edge {edge} is less than crop_size")));
        }
        let value = source.json(FILE)?.map_or(Value::Null, |value| value[KEY].clone());
        let rate = if value.is_null() { Some(RATE) } else { value.as_f64() };
        match rate.filter(|rate| (0.01..=1000.0).contains(rate)) {
            Some(rate) => Ok(Self { frame, rate }),
            None => Err(wrong(format!("{KEY} is {value}, which is not within 0.01 and 1000"))),
        }
    }

    pub fn to_json(&self) -> Value {
        let mut value = self.frame.to_json();
        value[KEY] = self.rate.into();
        value
    }

    /// How frames are to be read.
    pub fn reading(&self, start: f64, most: usize) -> Frames {
        let Processor { size, shortest_edge, colour, .. } = self.frame;
        Frames { size, shortest_edge, colour, rate: self.rate, start, most }
    }

    /// At most so many frames of a video's file or of a folder.
    pub fn read(&self, path: &Path, start: f64, most: usize) -> Result<Vec<Picture>, VideoError> {
        let mut found = vec![];
        read::read(path, &self.reading(start, most), &mut |picture| found.push(picture))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// `preprocessor_config.json` of MCG-NJU/videomae-base-finetuned-kinetics.
    #[test]
    fn a_videomae_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut value = json!({
            "crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_normalize": true,
            "do_rescale": true, "do_resize": true, "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225], "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 224},
        });
        let mut open = |key: &str, changed: Value| {
            value[key] = changed;
            fs::write(dir.path().join(FILE), value.to_string()).unwrap();
            FrameProcessor::open(&Source::folder(dir.path()), 3)
        };
        let read = open(KEY, Value::Null).unwrap();
        assert_eq!(
            (read.rate, read.frame.size, read.frame.shortest_edge),
            (7.5, [224; 2], Some(224))
        );
        assert_eq!(open(KEY, json!(25)).unwrap().rate, 25.0);
        assert!(open(KEY, json!(0)).is_err() && open(KEY, json!("x")).is_err());
        assert!(open("size", json!({"shortest_edge": 100})).is_err());
    }
}
