//! Pictures as a bad camera sees them, to learn how much of a score is left.
//!
//! Kinds and strengths are those of CIFAR-10-C, for small pictures (Hendrycks and Dietterich 2019,
//! <https://arxiv.org/abs/1903.12261>; `make_cifar_c.py` of their repository).

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Picture, filter,
    resize::{Filter, resize},
};

/// What befalls a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    Noise,
    Blur,
    Brightness,
    Contrast,
    Pixelate,
}

impl Corruption {
    pub const ALL: [Self; 5] =
        [Self::Noise, Self::Blur, Self::Brightness, Self::Contrast, Self::Pixelate];
    /// Strengths go from 1 to this.
    pub const STRENGTHS: usize = 5;

    pub fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Pixelate => "pixelate",
        }
    }

    /// `picture` at the same size; `strength` within 1 and [`Self::STRENGTHS`]. Noise is a function of `seed`.
    pub fn apply(self, picture: &Picture, strength: usize, seed: u64) -> Picture {
        let pick = |values: [f32; 5]| values[strength.clamp(1, Self::STRENGTHS) - 1];
        let mut changed = picture.clone();
        match self {
            Self::Noise => {
                let deviation = 255.0 * pick([0.04, 0.06, 0.08, 0.09, 0.1]);
                filter::noise(&mut changed, deviation, &mut ChaCha8Rng::seed_from_u64(seed));
            }
            Self::Blur => filter::blur(&mut changed, pick([0.4, 0.6, 0.7, 0.8, 1.0])),
            Self::Brightness => {
                let more = 255.0 * pick([0.05, 0.1, 0.15, 0.2, 0.3]);
                changed.pixels.iter_mut().for_each(|p| *p = p.saturating_add(more as u8));
            }
            Self::Contrast => {
                filter::colour(&mut changed, 1.0, pick([0.75, 0.5, 0.4, 0.3, 0.15]), 1.0);
            }
            Self::Pixelate => {
                let share = pick([0.95, 0.9, 0.85, 0.75, 0.65]);
                let side = |pixels: usize| ((pixels as f32 * share) as usize).max(1);
                let (w, h) = (picture.width, picture.height);
                let small = resize(picture, side(w), side(h), Filter::Bilinear);
                changed = resize(&small, w, h, Filter::Bilinear);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Colour, *};

    /// The stronger, the further from the picture; and always of its size.
    #[test]
    fn strengths_grow() {
        let (width, height) = (24, 16);
        let pixels = (0..width * height * 3).map(|i| (40 + i * 37 % 140) as u8).collect();
        let picture = Picture { width, height, colour: Colour::Rgb, pixels };
        for corruption in Corruption::ALL {
            let apart = |strength| {
                let changed = corruption.apply(&picture, strength, 3);
                assert_eq!(changed.pixels.len(), picture.pixels.len());
                let pairs = changed.pixels.iter().zip(&picture.pixels);
                pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
            };
            let [first, last] = [apart(1), apart(Corruption::STRENGTHS)];
            assert!(0 < first && first < last, "{}: {first}, {last}", corruption.name());
        }
    }
}
