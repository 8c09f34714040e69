//! Scaling, with as much of the source in every pixel as it covers (anti-aliased), as Pillow does.

use fast_image_resize::{
    FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Colour, Picture};

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
    let scaled = match picture.colour {
        Colour::Grey => scale::<U8>,
        Colour::Rgb => scale::<U8x3>,
    };
    let pixels = scaled(picture, width, height, filter);
    Picture { width, height, colour: picture.colour, pixels }
}

/// By the type of a pixel: the library's untyped images would have it built for all that there are, which takes minutes.
fn scale<P: PixelTrait>(picture: &Picture, width: usize, height: usize, filter: Filter) -> Vec<u8> {
    let from = TypedImageRef::<P>::from_buffer(
        picture.width as u32,
        picture.height as u32,
        &picture.pixels,
    );
    let from = from.expect("the numbers are as many as the sizes say");
    let mut pixels = vec![0; width * height * picture.colour.channels()];
    let to = TypedImage::<P>::from_buffer(width as u32, height as u32, &mut pixels);
    let mut to = to.expect("the numbers are as many as the sizes say");
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize_typed(&from, &mut to, &options).expect("neither is empty");
    drop(to);
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow: `Image.frombytes("L", (4, 1), bytes([0, 0, 255, 255])).resize((2, 1), BILINEAR)` holds 36 and 219.
    #[test]
    fn shrinking_weighs_all_that_a_pixel_covers() {
        let pixels = vec![0, 0, 255, 255];
        let picture = Picture { width: 4, height: 1, colour: Colour::Grey, pixels };
        assert_eq!(resize(&picture, 2, 1, Filter::Bilinear).pixels, [36, 219]);
    }

    #[test]
    fn a_flat_picture_stays_flat() {
        let picture = Picture::filled(7, 5, Colour::Rgb, 93);
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            let scaled = resize(&picture, 16, 3, filter);
            assert_eq!(scaled, Picture::filled(16, 3, Colour::Rgb, 93));
        }
    }
}
