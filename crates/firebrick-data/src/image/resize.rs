//! Scaling, as Pillow does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Picture;

/// How pixels are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    Bilinear,
    /// Catmull-Rom, which is Pillow's.
    Bicubic,
}

impl Filter {
    /// Pillow's number of it, which is `resample` in a `preprocessor_config.json`.
    pub fn resample(self) -> u8 {
        match self {
            Self::Bilinear => 2,
            Self::Bicubic => 3,
        }
    }
}

/// `picture` at another size; neither side may be 0.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    if (picture.width, picture.height) == (width, height) {
        return picture.clone();
    }
    let filter = match filter {
        Filter::Bilinear => firebrick_signal::Filter::Bilinear,
        Filter::Bicubic => firebrick_signal::Filter::CatmullRom,
    };
    let Picture { colour, pixels, .. } = picture;
    let from = [picture.width, picture.height];
    let pixels = firebrick_signal::scale(pixels, colour.channels(), from, [width, height], filter);
    Picture { width, height, colour: *colour, pixels }
}
