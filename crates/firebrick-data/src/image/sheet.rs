//! Many pictures as one.

use super::{
    Colour, Picture,
    resize::{Filter, resize},
};

/// Pixels between two pictures.
const GAP: usize = 2;

/// Pictures in rows of `columns`, each scaled to `side` x `side`, on white.
pub fn sheet(pictures: &[Picture], columns: usize, side: usize) -> Picture {
    let rows = pictures.len().div_ceil(columns);
    let pitch = side + GAP;
    let (width, height) = (columns * pitch + GAP, rows * pitch + GAP);
    let mut whole = Picture::filled(width, height, Colour::Rgb, 255);
    for (i, picture) in pictures.iter().enumerate() {
        let small = resize(&picture.clone().into_colour(Colour::Rgb), side, side, Filter::Bilinear);
        let (left, top) = (i % columns * pitch + GAP, i / columns * pitch + GAP);
        for (y, row) in small.pixels.chunks_exact(side * 3).enumerate() {
            let at = ((top + y) * width + left) * 3;
            whole.pixels[at..at + row.len()].copy_from_slice(row);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lie_in_rows() {
        let grey = |value| Picture::filled(3, 5, Colour::Grey, value);
        let whole = sheet(&[grey(1), grey(2), grey(3)], 2, 4);
        assert_eq!((whole.width, whole.height), (2 * 6 + 2, 2 * 6 + 2));
        let at = |x: usize, y: usize| whole.pixels[(y * whole.width + x) * 3];
        assert_eq!([at(2, 2), at(8, 5), at(5, 11), at(8, 8)], [1, 2, 3, 255]);
    }
}
