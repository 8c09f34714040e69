//! What changes a picture's numbers in their places.

use rand::Rng;

use super::{Colour, Picture, luma};

/// Brightness and contrast are factors of all numbers and of their distance from the mean; saturation is one of the
/// distance from grey. Each 1 changes nothing.
pub fn colour(picture: &mut Picture, brightness: f32, contrast: f32, saturation: f32) {
    let sum: u64 = picture.pixels.iter().map(|p| u64::from(*p)).sum();
    let mean = (sum as f64 / picture.pixels.len().max(1) as f64) as f32 * brightness;
    let table: Vec<u8> =
        (0..256).map(|v| rounded(mean + contrast * (v as f32 * brightness - mean))).collect();
    picture.pixels.iter_mut().for_each(|p| *p = table[usize::from(*p)]);
    if picture.colour == Colour::Rgb && saturation != 1.0 {
        for pixel in picture.pixels.as_chunks_mut::<3>().0 {
            let grey = f32::from(luma(*pixel));
            pixel.iter_mut().for_each(|p| *p = rounded(grey + saturation * (f32::from(*p) - grey)));
        }
    }
}

/// A Gaussian of this deviation in pixels, across and then down; beyond the edge lies what is at the edge.
pub fn blur(picture: &mut Picture, sigma: f32) {
    let reach = (3.0 * sigma).ceil() as usize;
    let weights: Vec<f32> =
        (0..=reach).map(|i| (-(i as f32).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let sum = 2.0 * weights.iter().sum::<f32>() - 1.0;
    let weights: Vec<f32> = weights.into_iter().map(|w| w / sum).collect();
    let (w, h, c) = (picture.width, picture.height, picture.colour.channels());
    let line = w * c;
    let mut across = vec![0.0; line * h];
    let mut wide = vec![0.0; line + 2 * reach * c]; // a row with what lies beyond its ends
    for (row, sums) in picture.pixels.chunks_exact(line).zip(across.chunks_exact_mut(line)) {
        let (before, rest) = wide.split_at_mut(reach * c);
        let (middle, after) = rest.split_at_mut(line);
        middle.iter_mut().zip(row).for_each(|(x, p)| *x = f32::from(*p));
        before.chunks_exact_mut(c).for_each(|x| x.copy_from_slice(&middle[..c]));
        after.chunks_exact_mut(c).for_each(|x| x.copy_from_slice(&middle[line - c..]));
        weigh(&weights, |step| &wide[reach.saturating_add_signed(step) * c..][..line], sums);
    }
    let mut sums = vec![0.0; line];
    for (y, row) in picture.pixels.chunks_exact_mut(line).enumerate() {
        weigh(&weights, |step| &across[shifted(y, step, h) * line..][..line], &mut sums);
        row.iter_mut().zip(&sums).for_each(|(p, sum)| *p = rounded(*sum));
    }
}

/// `sums` of the lines that lie so many steps to either side, by the weight of the step.
fn weigh<'a>(weights: &[f32], line: impl Fn(isize) -> &'a [f32], sums: &mut [f32]) {
    sums.iter_mut().zip(line(0)).for_each(|(sum, x)| *sum = weights[0] * x);
    for (step, weight) in (0..).zip(weights).skip(1) {
        for ((sum, a), b) in sums.iter_mut().zip(line(-step)).zip(line(step)) {
            *sum += weight * (a + b);
        }
    }
}

fn shifted(at: usize, step: isize, len: usize) -> usize {
    at.saturating_add_signed(step).min(len - 1)
}

/// Adds noise of this deviation, in levels: the sum of four uniform numbers, which is close to a normal one.
pub fn noise(picture: &mut Picture, deviation: f32, rng: &mut impl Rng) {
    // The deviation of four numbers within 0 and 255 is 2 * sqrt((256^2 - 1) / 12) = 147.8.
    let scale = deviation / 147.8;
    for pixel in &mut picture.pixels {
        let bytes = rng.next_u32().to_le_bytes();
        let sum: u32 = bytes.into_iter().map(u32::from).sum();
        *pixel = rounded(f32::from(*pixel) + (sum as f32 - 510.0) * scale);
    }
}

/// Paints a square of one grey, of which some may lie outside.
pub fn cover(picture: &mut Picture, middle: [f32; 2], side: f32, value: u8) {
    let range = |middle: f32, len: usize| {
        let first = (middle - side / 2.0).clamp(0.0, len as f32) as usize;
        let end = (middle + side / 2.0).clamp(0.0, len as f32) as usize;
        first..end.max(first)
    };
    let (columns, rows) = (range(middle[0], picture.width), range(middle[1], picture.height));
    let (w, c) = (picture.width, picture.colour.channels());
    for y in rows {
        picture.pixels[(y * w + columns.start) * c..(y * w + columns.end) * c].fill(value);
    }
}

/// By way of a number that the CPU makes of several at a time.
fn rounded(value: f32) -> u8 {
    (value + 0.5).clamp(0.0, 255.0) as i32 as u8
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn grey(pixels: &[u8]) -> Picture {
        Picture { width: pixels.len(), height: 1, colour: Colour::Grey, pixels: pixels.to_vec() }
    }

    #[test]
    fn brightness_and_contrast_by_hand() {
        let changed = |brightness, contrast| {
            let mut picture = grey(&[50, 100, 150]);
            colour(&mut picture, brightness, contrast, 1.0);
            picture.pixels
        };
        assert_eq!(changed(1.0, 1.0), [50, 100, 150]);
        assert_eq!(changed(2.0, 1.0), [100, 200, 255]);
        assert_eq!(changed(1.0, 0.5), [75, 100, 125]);
    }

    #[test]
    fn without_saturation_all_is_grey() {
        let mut picture = Picture::filled(1, 1, Colour::Rgb, 0);
        picture.pixels = vec![10, 200, 30];
        colour(&mut picture, 1.0, 1.0, 0.0);
        assert_eq!(picture.pixels, [124; 3]);
    }

    #[test]
    fn a_blur_spreads_a_point_evenly() {
        let mut picture = grey(&[0, 0, 0, 200, 0, 0, 0]);
        blur(&mut picture, 0.8);
        let p = &picture.pixels;
        assert!(p[3] < 200 && p[2] > p[1] && p[2] == p[4] && p[1] == p[5], "{p:?}");
        let sum: u32 = p.iter().map(|p| u32::from(*p)).sum();
        assert!(sum.abs_diff(200) <= 4, "{p:?}");
    }

    #[test]
    fn noise_has_its_deviation() {
        let mut picture = Picture::filled(100, 100, Colour::Grey, 128);
        noise(&mut picture, 12.0, &mut ChaCha8Rng::seed_from_u64(1));
        let square = |p: &u8| (f64::from(*p) - 128.0).powi(2);
        let variance = picture.pixels.iter().map(square).sum::<f64>() / 10_000.0;
        assert!((variance.sqrt() - 12.0).abs() < 0.4, "{}", variance.sqrt());
    }

    #[test]
    fn a_cover_may_lie_outside() {
        let mut picture = Picture::filled(4, 4, Colour::Grey, 9);
        cover(&mut picture, [0.0, 0.0], 4.0, 0);
        let covered = picture.pixels.iter().filter(|p| **p == 0).count();
        assert_eq!(covered, 4);
        cover(&mut picture, [9.0, 9.0], 2.0, 1);
        assert!(!picture.pixels.contains(&1));
    }
}
