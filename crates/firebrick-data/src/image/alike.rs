//! Pictures that look the same: copies at another size, in other colours, compressed once more.
//!
//! The difference hash (Krawetz 2013): a picture scaled to 9 x 8 greys, a bit for each pair of neighbours that says
//! whether it grows lighter to the right.

use super::{
    Colour, Picture,
    resize::{Filter, resize},
};

/// Bits in which copies of one picture may differ.
pub const DISTANCE: u32 = 4;

/// 64 bits, those of the top row first.
///
/// ```
/// use firebrick_data::image::{Colour, Picture, alike::difference_hash};
///
/// let pixels = (0..90).map(|i| (i % 9 * 20) as u8).collect(); // grows lighter to the right
/// let picture = Picture { width: 9, height: 10, colour: Colour::Grey, pixels };
/// assert_eq!(difference_hash(&picture), u64::MAX);
/// ```
pub fn difference_hash(picture: &Picture) -> u64 {
    let grey = picture.clone().into_colour(Colour::Grey);
    let small = resize(&grey, 9, 8, Filter::Bilinear);
    let pairs = small.pixels.chunks_exact(9).flat_map(|row| row.windows(2));
    pairs.fold(0, |bits, pair| bits << 1 | u64::from(pair[0] < pair[1]))
}

/// For each hash the index of the first one of its group: those within [`DISTANCE`] of one another, directly or by way
/// of others, are one group.
///
/// ```
/// use firebrick_data::image::alike::groups;
///
/// assert_eq!(groups(&[0b0, 0xff, 0b11, 0b1111_1100, u64::MAX]), [0, 1, 0, 1, 4]);
/// ```
pub fn groups(hashes: &[u64]) -> Vec<usize> {
    let mut first: Vec<usize> = (0..hashes.len()).collect();
    fn root(first: &mut [usize], mut at: usize) -> usize {
        while first[at] != at {
            first[at] = first[first[at]];
            at = first[at];
        }
        at
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn textured(width: usize, height: usize) -> Picture {
        let value = |x: f64, y: f64| {
            127.0 + 60.0 * (7.0 * x + 2.0 * y).sin() + 50.0 * (9.0 * y - 3.0 * x).cos()
        };
        let pixel = |i: usize| {
            value((i % width) as f64 / width as f64, (i / width) as f64 / height as f64) as u8
        };
        Picture {
            width,
            height,
            colour: Colour::Grey,
            pixels: (0..width * height).map(pixel).collect(),
        }
    }

    #[test]
    fn a_copy_at_another_size_is_found() {
        let hash = difference_hash(&textured(200, 160));
        let copy = difference_hash(&textured(90, 101).into_colour(Colour::Rgb));
        assert!((hash ^ copy).count_ones() <= DISTANCE, "{hash:x} {copy:x}");
        let mut upside_down = textured(200, 160);
        upside_down.pixels.reverse();
        assert!((hash ^ difference_hash(&upside_down)).count_ones() > 2 * DISTANCE);
    }
}
