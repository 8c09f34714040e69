//! Pictures changed at random, so that no two passes over the data are alike.
//!
//! What becomes of a picture is a function of its seed alone, whichever thread asks.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Picture,
    boxes::Rect,
    filter,
    warp::{Affine, warp},
};

/// `[augment]`: how far training pictures are changed. Each number is drawn anew for every picture, evenly within its
/// bounds; 0 leaves out the change.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Largest turn either way, in degrees.
    pub rotate: f32,
    /// Largest share by which a picture grows or shrinks.
    pub scale: f32,
    /// Largest move either way, as a share of the side.
    pub translate: f32,
    /// Largest share of a side that is cut off; what is left fills the picture.
    pub crop: f32,
    /// Probability of a mirror image.
    pub flip: f32,
    /// Probability that it is turned upside down (and is a mirror image then).
    pub upside_down: f32,
    /// Largest share by which it becomes lighter or darker.
    pub brightness: f32,
    /// Largest share by which differences from the mean grow or shrink.
    pub contrast: f32,
    /// Largest share by which colours become stronger or paler.
    pub saturation: f32,
    /// Largest deviation of a Gaussian blur, in pixels.
    pub blur: f32,
    /// Largest deviation of noise, in levels out of 255.
    pub noise: f32,
    /// Largest side of a grey square over the picture, as a share of its own (DeVries and Taylor 2017).
    pub cutout: f32,
    /// Both parameters of the Beta distribution that says how much of another picture, and of its label, is mixed in
    /// (Zhang et al. 2017).
    pub mixup: f32,
}

/// Least share of a box that must lie on the picture; less shows nothing that a box could be drawn around.
pub const VISIBLE: f32 = 0.3;

impl Augment {
    /// Names a number outside its domain, and the domain's ends.
    pub fn check(&self) -> Result<(), (&'static str, f32, [f32; 2])> {
        let domains = [
            ("rotate", self.rotate, [0.0, 180.0]),
            ("scale", self.scale, [0.0, 0.9]),
            ("translate", self.translate, [0.0, 1.0]),
            ("crop", self.crop, [0.0, 0.9]),
            ("flip", self.flip, [0.0, 1.0]),
            ("upside_down", self.upside_down, [0.0, 1.0]),
            ("brightness", self.brightness, [0.0, 1.0]),
            ("contrast", self.contrast, [0.0, 1.0]),
            ("saturation", self.saturation, [0.0, 1.0]),
            ("blur", self.blur, [0.0, 10.0]),
            ("noise", self.noise, [0.0, 100.0]),
            ("cutout", self.cutout, [0.0, 1.0]),
            ("mixup", self.mixup, [0.0, 10.0]),
        ];
        let outside =
            domains.into_iter().find(|(_, value, [low, high])| !(low..=high).contains(&value));
        outside.map_or(Ok(()), Err)
    }

    /// `picture` changed, at the same size. [`Self::mixup`] takes two: see [`Self::mix`].
    pub fn apply(&self, picture: &Picture, seed: u64) -> Picture {
        self.apply_boxed(picture, &[], seed).0
    }

    /// As [`Self::apply`], with what becomes of boxes: the box around each when it has moved, as far as it lies on the
    /// picture; `None` where less than [`VISIBLE`] of it does.
    pub fn apply_boxed(
        &self,
        picture: &Picture,
        boxes: &[Rect],
        seed: u64,
    ) -> (Picture, Vec<Option<Rect>>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let affine = self.affine(picture, &mut rng);
        let (w, h) = (picture.width as f32, picture.height as f32);
        let moved = |rect: &Rect| {
            let whole = match affine == Affine::IDENTITY {
                true => *rect,
                false => affine.moved(*rect, [w / 2.0, h / 2.0]),
            };
            let visible = whole.clipped(w, h);
            (visible.area() >= VISIBLE * whole.area()).then_some(visible)
        };
        let boxes = boxes.iter().map(moved).collect();
        let mut changed = match affine == Affine::IDENTITY {
            true => picture.clone(),
            false => warp(picture, affine),
        };
        let [brightness, contrast, saturation] = [self.brightness, self.contrast, self.saturation]
            .map(|most| 1.0 + either(&mut rng, most));
        if [brightness, contrast, saturation] != [1.0; 3] {
            filter::colour(&mut changed, brightness, contrast, saturation);
        }
        let sigma = up_to(&mut rng, self.blur);
        if sigma > 0.2 {
            filter::blur(&mut changed, sigma); // less than that changes nothing
        }
        let deviation = up_to(&mut rng, self.noise);
        if deviation > 0.0 {
            filter::noise(&mut changed, deviation, &mut rng);
        }
        if self.cutout > 0.0 {
            let (w, h) = (picture.width as f32, picture.height as f32);
            let side = up_to(&mut rng, self.cutout) * w.min(h);
            let middle = [up_to(&mut rng, w), up_to(&mut rng, h)];
            filter::cover(&mut changed, middle, side, 127);
        }
        (changed, boxes)
    }

    /// One map from new pixels to old ones for all that moves them.
    fn affine(&self, picture: &Picture, rng: &mut impl Rng) -> Affine {
        let (w, h) = (picture.width as f32, picture.height as f32);
        let (sin, cos) = either(rng, self.rotate).to_radians().sin_cos();
        let kept = 1.0 - up_to(rng, self.crop);
        let scale = kept / (1.0 + either(rng, self.scale));
        let mirror = sign(rng, self.flip);
        let turn = sign(rng, self.upside_down);
        // What is kept of a crop lies anywhere; the rest is a move.
        let offset = [w, h].map(|side| {
            either(rng, (1.0 - kept) / 2.0) * side + either(rng, self.translate) * side
        });
        Affine {
            matrix: [
                [scale * cos * mirror, -scale * sin * turn],
                [scale * sin * mirror, scale * cos * turn],
            ],
            offset,
        }
    }

    /// How much of itself a picture keeps when another is mixed in: a draw from `Beta(mixup, mixup)`, or 1 without
    /// mixing.
    pub fn mix(&self, seed: u64) -> f32 {
        if self.mixup == 0.0 {
            return 1.0;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        if self.mixup > 1.0 {
            let [x, y] = [(); 2].map(|()| gamma(&mut rng, self.mixup.into()));
            return (x / (x + y)) as f32;
        }
        // Jöhnk 1964, who would take few of the draws where the parameters are large: 5 in a million for 10.
        let power = 1.0 / f64::from(self.mixup);
        loop {
            let [x, y] = [(); 2].map(|()| rng.random::<f64>().powf(power));
            if x + y > 0.0 && x + y <= 1.0 {
                return (x / (x + y)) as f32;
            }
        }
    }
}

/// A draw from the gamma distribution of this shape, 1 or more (Marsaglia and Tsang 2000).
fn gamma(rng: &mut impl Rng, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let [u, v] = [(); 2].map(|()| rng.random::<f64>());
        // Box and Muller 1958; 1 - u is not 0.
        let x = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let cube = (1.0 + c * x).powi(3);
        let bound = 0.5 * x * x + d - d * cube + d * cube.ln();
        if cube > 0.0 && (1.0 - rng.random::<f64>()).ln() < bound {
            return d * cube;
        }
    }
}

/// -1 with this probability, else 1; nothing is drawn where it is 0.
fn sign(rng: &mut impl Rng, probability: f32) -> f32 {
    if probability > 0.0 && rng.random::<f32>() < probability { -1.0 } else { 1.0 }
}

/// Within `-most` and `most`; nothing is drawn where that is one number.
fn either(rng: &mut impl Rng, most: f32) -> f32 {
    if most > 0.0 { rng.random_range(-most..most) } else { 0.0 }
}

/// Within 0 and `most`.
fn up_to(rng: &mut impl Rng, most: f32) -> f32 {
    if most > 0.0 { rng.random_range(0.0..most) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Colour;
    use super::*;

    fn all() -> Augment {
        Augment {
            rotate: 30.0,
            scale: 0.2,
            translate: 0.1,
            crop: 0.3,
            flip: 0.5,
            upside_down: 0.5,
            brightness: 0.3,
            contrast: 0.3,
            saturation: 0.3,
            blur: 1.0,
            noise: 10.0,
            cutout: 0.3,
            mixup: 0.4,
        }
    }

    fn picture(colour: Colour) -> Picture {
        let pixels = (0..12 * 8 * colour.channels()).map(|i| (i * 37 % 256) as u8).collect();
        Picture { width: 12, height: 8, colour, pixels }
    }

    proptest! {
        #[test]
        fn a_function_of_the_seed(seed: u64) {
            for colour in [Colour::Grey, Colour::Rgb] {
                let picture = picture(colour);
                let changed = all().apply(&picture, seed);
                prop_assert_eq!(&changed, &all().apply(&picture, seed));
                prop_assert_eq!(changed.pixels.len(), picture.pixels.len());
                prop_assert!(changed != all().apply(&picture, seed ^ 1));
                prop_assert_eq!(Augment::default().apply(&picture, seed), picture);
            }
            prop_assert!((0.0..=1.0).contains(&all().mix(seed)));
        }
    }

    #[test]
    fn a_mirror_image_is_one() {
        let mirror = Augment { flip: 1.0, ..Augment::default() };
        let picture = picture(Colour::Rgb);
        let changed = mirror.apply(&picture, 3);
        assert_ne!(changed, picture);
        assert_eq!(mirror.apply(&changed, 4), picture);
        assert_eq!(changed.pixels[..3], picture.pixels[11 * 3..12 * 3]);
    }

    /// The white pixels of a black picture are where their box says, however they are moved.
    #[test]
    fn boxes_go_where_their_pixels_go() {
        let mut picture = Picture::filled(40, 30, Colour::Grey, 0);
        let rect = Rect { x0: 12.0, y0: 9.0, x1: 22.0, y1: 15.0 };
        for y in 9..15 {
            picture.pixels[y * 40 + 12..y * 40 + 22].fill(255);
        }
        let moves = Augment {
            rotate: 90.0,
            scale: 0.4,
            translate: 0.1,
            crop: 0.2,
            flip: 0.5,
            upside_down: 0.5,
            ..Augment::default()
        };
        let mut whole = 0;
        for seed in 0..60 {
            let (moved, boxes) = moves.apply_boxed(&picture, &[rect], seed);
            let Some(rect) = boxes[0] else { continue };
            let lit = |x: usize, y: usize| moved.pixels[y * 40 + x] > 127;
            let places = (0..30).flat_map(|y| (0..40).map(move |x| (x, y)));
            let mut around = [f32::MAX, f32::MAX, 0.0f32, 0.0];
            for (x, y) in places.filter(|(x, y)| lit(*x, *y)) {
                let (x, y) = (x as f32, y as f32);
                let [x0, y0, x1, y1] = around;
                around = [x0.min(x), y0.min(y), x1.max(x + 1.0), y1.max(y + 1.0)];
            }
            for (found, side) in rect.sides().into_iter().zip(around) {
                assert!((found - side).abs() < 2.0, "{seed}: {rect:?} around {around:?}");
            }
            whole += 1;
        }
        assert!(whole > 40, "{whole}");
        let away = Augment { translate: 1.0, ..Augment::default() };
        assert!((0..20).any(|seed| away.apply_boxed(&picture, &[rect], seed).1[0].is_none()));
    }

    /// Mean 1/2 and variance 1 / (4 (2 a + 1)) of `Beta(a, a)`.
    #[test]
    fn shares_are_of_the_beta_distribution() {
        for (mixup, mean_error, variance_error) in
            [(0.4, 0.02, 0.005), (1.0, 0.02, 0.005), (1.5, 0.02, 0.005), (10.0, 0.01, 0.001)]
        {
            let augment = Augment { mixup, ..Augment::default() };
            let shares: Vec<f64> = (0..4000).map(|seed| f64::from(augment.mix(seed))).collect();
            let mean = shares.iter().sum::<f64>() / 4000.0;
            let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 4000.0;
            let due = 1.0 / (4.0 * (2.0 * f64::from(mixup) + 1.0));
            assert!(
                (mean - 0.5).abs() < mean_error && (variance - due).abs() < variance_error,
                "{mixup}: {mean} {variance}"
            );
        }
        assert_eq!(Augment::default().mix(1), 1.0);
    }

    #[test]
    fn domains_are_checked() {
        assert_eq!(all().check(), Ok(()));
        let wrong = Augment { cutout: 1.5, ..all() };
        assert_eq!(wrong.check(), Err(("cutout", 1.5, [0.0, 1.0])));
        assert!(Augment { blur: f32::NAN, ..all() }.check().is_err());
    }
}
