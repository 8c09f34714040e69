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

impl FrameProcessor {
    /// That of a model folder whose model takes frames of `channels`.
    pub fn open(source: &Source, channels: usize) -> Result<Self, LoadError> {
        let frame = Processor::open(source, channels)?;
        let rate = source.json(FILE)?.and_then(|value| value[KEY].as_f64());
        match rate.filter(|rate| (0.01..=1000.0).contains(rate)) {
            Some(rate) => Ok(Self { frame, rate }),
            None => {
                let problem = format!("{KEY} is not within 0.01 and 1000");
                Err(LoadError::Config { path: source.path(FILE), problem })
            }
        }
    }

    pub fn to_json(&self) -> Value {
        let mut value = self.frame.to_json();
        value[KEY] = self.rate.into();
        value
    }

    /// How frames are to be read.
    pub fn reading(&self, start: f64, most: usize) -> Frames {
        Frames { size: self.frame.size, colour: self.frame.colour, rate: self.rate, start, most }
    }

    /// At most so many frames of a video's file or of a folder.
    pub fn read(&self, path: &Path, start: f64, most: usize) -> Result<Vec<Picture>, VideoError> {
        let mut found = vec![];
        read::read(path, &self.reading(start, most), &mut |picture| found.push(picture))?;
        Ok(found)
    }
}
