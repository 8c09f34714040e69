//! A picture in the frame of a model's size: its proportions stay, what is left is grey.

use firebrick_data::image::{
    Picture,
    resize::{Filter, resize},
};

/// Grey of what no picture covers.
const FILL: u8 = 127;

/// `picture` in the top left corner of a frame of `[rows, columns]`, as large as fits, and by how much it grew across and
/// down.
pub fn framed(
    picture: &Picture,
    [rows, columns]: [usize; 2],
    filter: Filter,
) -> (Picture, [f32; 2]) {
    let (w, h) = (picture.width as f64, picture.height as f64);
    let scale = (columns as f64 / w).min(rows as f64 / h);
    let width = ((w * scale).round() as usize).clamp(1, columns);
    let height = ((h * scale).round() as usize).clamp(1, rows);
    let sized = resize(picture, width, height, filter);
    let mut frame = Picture::filled(columns, rows, picture.colour, FILL);
    let channels = picture.colour.channels();
    let lines = frame.pixels.chunks_exact_mut(columns * channels);
    for (line, sized) in lines.zip(sized.pixels.chunks_exact(width * channels)) {
        line[..sized.len()].copy_from_slice(sized);
    }
    (frame, [width as f32 / w as f32, height as f32 / h as f32])
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::Colour;

    use super::*;

    #[test]
    fn proportions_stay() {
        let picture = Picture::filled(20, 10, Colour::Grey, 9);
        let (frame, scale) = framed(&picture, [16, 10], Filter::Bilinear);
        assert_eq!((frame.width, frame.height, scale), (10, 16, [0.5, 0.5]));
        assert_eq!((frame.pixels[4 * 10 + 9], frame.pixels[5 * 10]), (9, FILL));
        // A line stays one.
        let line = Picture::filled(1000, 1, Colour::Rgb, 9);
        let (frame, [across, down]) = framed(&line, [16, 16], Filter::Bicubic);
        assert_eq!((frame.pixels[15 * 3], across, down), (9, 0.016, 1.0));
    }
}
