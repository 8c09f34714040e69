//! Pictures: read with limits, scaled, changed at random, compared.
//!
//! [`decode`] makes a [`Picture`] of a file, [`resize`] scales it, [`augment`] changes it as a recipe says, [`corrupt`] as a
//! bad camera would, [`alike`] finds those that look the same, [`sheet`] shows many at a time. [`boxes`] lie on them.

pub mod alike;
pub mod augment;
pub mod boxes;
pub mod corrupt;
pub mod decode;
pub mod resize;
pub mod sheet;

mod filter;
mod warp;

/// What a picture's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// One number a pixel: luma as ITU-R 601 weighs red, green and blue.
    Grey,
    /// Red, green, blue.
    Rgb,
}

impl Colour {
    /// Numbers of a pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }
}

/// Pixels row by row from the top left, 8 bits a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub colour: Colour,
    /// `height * width * channels` numbers, those of a pixel side by side.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Of one grey or colour.
    pub fn filled(width: usize, height: usize, colour: Colour, value: u8) -> Self {
        Self { width, height, colour, pixels: vec![value; width * height * colour.channels()] }
    }

    /// The same in the other colours, if it is not of these.
    pub fn into_colour(self, colour: Colour) -> Self {
        let pixels = match (self.colour, colour) {
            (from, to) if from == to => self.pixels,
            (Colour::Grey, _) => self.pixels.iter().flat_map(|l| [*l; 3]).collect(),
            (Colour::Rgb, _) => {
                self.pixels.chunks_exact(3).map(|p| luma([p[0], p[1], p[2]])).collect()
            }
        };
        Self { colour, pixels, ..self }
    }
}

/// Luma of a pixel as ITU-R 601-2 and Pillow have it.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = 19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000;
    (sum >> 16) as u8
}
