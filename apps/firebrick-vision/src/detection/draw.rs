//! Boxes and their labels on a picture.

use firebrick_data::image::{Colour, Picture, boxes::Rect};

/// A box to draw.
pub struct Mark {
    pub rect: Rect,
    /// Is written above the box, in capital letters; empty for none.
    pub text: String,
    pub colour: [u8; 3],
}

/// Colours of the labels, which can be told apart by those who see few (Okabe and Ito 2008).
const COLOURS: [[u8; 3]; 6] =
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167]];

/// The colour of a label.
pub fn colour(label: usize) -> [u8; 3] {
    COLOURS[label % COLOURS.len()]
}

/// `picture` with boxes around things.
pub fn draw(picture: &Picture, marks: &[Mark]) -> Picture {
    let mut drawn = picture.clone().into_colour(Colour::Rgb);
    // Lines and letters grow with the picture.
    let scale = (drawn.width.max(drawn.height) / 500).max(1);
    for mark in marks {
        outline(&mut drawn, mark.rect, scale, mark.colour);
    }
    for mark in marks.iter().filter(|mark| !mark.text.is_empty()) {
        write(&mut drawn, mark, scale);
    }
    drawn
}

fn outline(picture: &mut Picture, rect: Rect, scale: usize, colour: [u8; 3]) {
    let [x0, y0, x1, y1] = rect.sides().map(|side| side.round() as isize);
    let line = scale as isize + 1;
    fill(picture, [x0, y0, x1, y0 + line], colour);
    fill(picture, [x0, y1 - line, x1, y1], colour);
    fill(picture, [x0, y0, x0 + line, y1], colour);
    fill(picture, [x1 - line, y0, x1, y1], colour);
}

/// What lies outside is left out.
fn fill(picture: &mut Picture, [x0, y0, x1, y1]: [isize; 4], colour: [u8; 3]) {
    let within = |at: isize, size: usize| at.clamp(0, size as isize) as usize;
    let (w, h) = (picture.width, picture.height);
    let (x0, x1) = (within(x0, w), within(x1, w));
    for y in within(y0, h)..within(y1, h) {
        for pixel in picture.pixels[(y * w + x0) * 3..(y * w + x1.max(x0)) * 3].as_chunks_mut().0 {
            *pixel = colour;
        }
    }
}

/// Columns and rows of a letter, and of the space it takes.
const LETTER: [usize; 2] = [5, 7];
const SPACE: [usize; 2] = [6, 9];

/// Black on the box's colour, above the box or within it at the picture's edge.
fn write(picture: &mut Picture, mark: &Mark, scale: usize) {
    let letters: Vec<[u8; 7]> = mark.text.chars().map(letter).collect();
    let [width, height] = [SPACE[0] * letters.len() + 1, SPACE[1]].map(|side| side * scale);
    let most = picture.width.saturating_sub(width);
    let left = (mark.rect.x0.round().max(0.0) as usize).min(most);
    let above = mark.rect.y0.round() as isize - height as isize;
    let top = if above >= 0 { above } else { mark.rect.y0.round().max(0.0) as isize };
    let left = left as isize;
    let ground = [left, top, left + width as isize, top + height as isize];
    fill(picture, ground, mark.colour);
    for (place, rows) in letters.iter().enumerate() {
        for (row, bits) in rows.iter().enumerate() {
            for column in 0..LETTER[0] {
                if bits >> (LETTER[0] - 1 - column) & 1 == 1 {
                    let x = left + ((SPACE[0] * place + 1 + column) * scale) as isize;
                    let y = top + ((1 + row) * scale) as isize;
                    let side = scale as isize;
                    fill(picture, [x, y, x + side, y + side], [0; 3]);
                }
            }
        }
    }
}

/// Seven rows of five columns; what is not here is a block.
fn letter(c: char) -> [u8; 7] {
    match c.to_ascii_uppercase() {
        ' ' | '_' => [0; 7],
        '.' => [0, 0, 0, 0, 0, 12, 12],
        '-' => [0, 0, 0, 31, 0, 0, 0],
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 2, 4, 8, 31],
        '3' => [31, 2, 4, 2, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        'A' => [14, 17, 17, 31, 17, 17, 17],
        'B' => [30, 17, 17, 30, 17, 17, 30],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'D' => [28, 18, 17, 17, 17, 18, 28],
        'E' => [31, 16, 16, 30, 16, 16, 31],
        'F' => [31, 16, 16, 30, 16, 16, 16],
        'G' => [14, 17, 16, 23, 17, 17, 15],
        'H' => [17, 17, 17, 31, 17, 17, 17],
        'I' => [14, 4, 4, 4, 4, 4, 14],
        'J' => [7, 2, 2, 2, 2, 18, 12],
        'K' => [17, 18, 20, 24, 20, 18, 17],
        'L' => [16, 16, 16, 16, 16, 16, 31],
        'M' => [17, 27, 21, 21, 17, 17, 17],
        'N' => [17, 17, 25, 21, 19, 17, 17],
        'O' => [14, 17, 17, 17, 17, 17, 14],
        'P' => [30, 17, 17, 30, 16, 16, 16],
        'Q' => [14, 17, 17, 17, 21, 18, 13],
        'R' => [30, 17, 17, 30, 20, 18, 17],
        'S' => [15, 16, 16, 14, 1, 1, 30],
        'T' => [31, 4, 4, 4, 4, 4, 4],
        'U' => [17, 17, 17, 17, 17, 17, 14],
        'V' => [17, 17, 17, 17, 17, 10, 4],
        'W' => [17, 17, 17, 21, 21, 21, 10],
        'X' => [17, 17, 10, 4, 10, 17, 17],
        'Y' => [17, 17, 17, 10, 4, 4, 4],
        'Z' => [31, 1, 2, 4, 8, 16, 31],
        _ => [31; 7],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also where the box lies partly, or wholly, outside.
    #[test]
    fn a_box_has_its_colour_and_a_label() {
        let picture = Picture::filled(60, 40, Colour::Grey, 50);
        let mark = |[x0, y0, x1, y1]: [f32; 4], text: &str| Mark {
            rect: Rect { x0, y0, x1, y1 },
            text: text.into(),
            colour: colour(0),
        };
        let marks = [
            mark([10.0, 20.0, 30.0, 35.0], "Ab 9"),
            mark([50.0, -5.0, 90.0, 10.0], "long beyond the edge"),
            mark([-9.0, -9.0, -1.0, -1.0], ""),
        ];
        let drawn = draw(&picture, &marks);
        let at = |x: usize, y: usize| drawn.pixels[(y * 60 + x) * 3..][..3].to_vec();
        assert_eq!(at(10, 30), colour(0));
        assert_eq!(at(29, 34), colour(0));
        assert_eq!(at(20, 28), [50; 3]);
        // The bar of the A: the fourth row of the letter, a pixel within.
        assert_eq!(at(13, 11 + 1 + 3), [0; 3]);
        assert_eq!(at(10, 11), colour(0));
    }
}
