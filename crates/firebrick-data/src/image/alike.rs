//! Pictures that look the same: copies at another size, in other colours, compressed once more.
//!
//! The difference hash (Krawetz 2013), both ways: a picture scaled to 9 x 8 greys, a bit for each pair of neighbours that
//! says whether it grows lighter to the right; and to 8 x 9, for those below one another. One way alone, slices of
//! different heads are taken for copies.

use rayon::prelude::*;

use super::{
    Colour, Picture,
    resize::{Filter, resize},
};

/// Bits in which copies of one picture may differ.
pub const DISTANCE: u32 = 6;

/// 128 bits, those of the top row first.
///
/// ```
/// use firebrick_data::image::{Colour, Picture, alike::difference_hash};
///
/// let pixels = (0..90).map(|i| (i % 9 * 20) as u8).collect(); // grows lighter to the right
/// let picture = Picture { width: 9, height: 10, colour: Colour::Grey, pixels };
/// assert_eq!(difference_hash(&picture) >> 64, u64::MAX.into());
/// ```
pub fn difference_hash(picture: &Picture) -> u128 {
    let grey = picture.clone().into_colour(Colour::Grey);
    let wide = resize(&grey, 9, 8, Filter::Bilinear);
    let tall = resize(&grey, 8, 9, Filter::Bilinear);
    let across = wide.pixels.chunks_exact(9).flat_map(|row| row.windows(2).map(|w| w[0] < w[1]));
    let down = tall.pixels.iter().zip(&tall.pixels[8..]).map(|(above, below)| above < below);
    across.chain(down).fold(0, |bits, lighter| bits << 1 | u128::from(lighter))
}

/// For each hash the index of the first one of its group: those within [`DISTANCE`] of one another, directly or by way
/// of others, are one group.
///
/// ```
/// use firebrick_data::image::alike::groups;
///
/// assert_eq!(groups(&[0b0, 0xff, 0b11, 0b1111_1100, u128::MAX]), [0, 0, 0, 0, 4]);
/// assert_eq!(groups(&[0b0, 0xfff, 0xff_ffff]), [0, 1, 2]);
/// ```
pub fn groups(hashes: &[u128]) -> Vec<usize> {
    fn root(first: &mut [usize], mut at: usize) -> usize {
        while first[at] != at {
            first[at] = first[first[at]];
            at = first[at];
        }
        at
    }
    let mut first: Vec<usize> = (0..hashes.len()).collect();
    for i in 0..hashes.len() {
        for j in 0..i {
            if (hashes[i] ^ hashes[j]).count_ones() <= DISTANCE {
                let (a, b) = (root(&mut first, i), root(&mut first, j));
                first[a.max(b)] = a.min(b);
            }
        }
    }
    (0..hashes.len()).map(|at| root(&mut first, at)).collect()
}

/// For each of `hashes` that has one within [`DISTANCE`] among `others`, both indices.
///
/// ```
/// use firebrick_data::image::alike::pairs;
///
/// assert_eq!(pairs(&[0xffff, 0b1], &[u128::MAX, 0b11]), [(1, 1)]);
/// ```
pub fn pairs(hashes: &[u128], others: &[u128]) -> Vec<(usize, usize)> {
    let near = |hash: u128| others.iter().position(|other| (hash ^ other).count_ones() <= DISTANCE);
    let found = hashes.par_iter().enumerate().filter_map(|(at, hash)| Some((at, near(*hash)?)));
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textured(width: usize, height: usize, turns: f64) -> Picture {
        let value = |x: f64, y: f64| {
            127.0 + 60.0 * (turns * x + 2.0 * y).sin() + 50.0 * (9.0 * y - 3.0 * x).cos()
        };
        let pixel = |i: usize| {
            value((i % width) as f64 / width as f64, (i / width) as f64 / height as f64) as u8
        };
        let pixels = (0..width * height).map(pixel).collect();
        Picture { width, height, colour: Colour::Grey, pixels }
    }

    #[test]
    fn a_copy_at_another_size_is_found() {
        let hash = difference_hash(&textured(200, 160, 7.0));
        let copy = difference_hash(&textured(90, 101, 7.0).into_colour(Colour::Rgb));
        assert!((hash ^ copy).count_ones() <= DISTANCE, "{hash:x} {copy:x}");
        let other = difference_hash(&textured(200, 160, 20.0));
        assert!((hash ^ other).count_ones() > 2 * DISTANCE, "{hash:x} {other:x}");
    }
}
