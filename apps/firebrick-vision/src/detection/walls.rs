//! Windows of pedestrians and of backgrounds side by side: pictures to learn from where there are few others.

use firebrick_data::image::{Colour, Picture, boxes::Rect};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::corpus::{Object, Scene};
use crate::classification::layouts::Sample;

/// Rows and columns of a window.
pub const WINDOW: [usize; 2] = [128, 64];

/// Where the person of a window stands: Dalal and Triggs left 16 pixels above and below.
const PERSON: Rect = Rect { x0: 13.0, y0: 16.0, x1: 51.0, y1: 112.0 };

/// The label of windows with a person, and of the objects.
pub const LABEL: &str = "person";

/// All windows once, in an order that the seed draws, as many in a frame of `[rows, columns]` as fit; what is left of the
/// last frame, and of each, is grey.
pub fn walls(mut windows: Vec<Sample>, [rows, columns]: [usize; 2], seed: u64) -> Vec<Scene> {
    windows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let [height, width] = WINDOW;
    let across = columns / width;
    let wall = |(number, windows): (usize, &[Sample])| {
        let mut picture = Picture::filled(columns, rows, Colour::Rgb, 127);
        let mut objects = vec![];
        for (place, window) in windows.iter().enumerate() {
            let (left, top) = (place % across * width, place / across * height);
            for (y, line) in window.picture.pixels.chunks_exact(width * 3).enumerate() {
                let at = ((top + y) * columns + left) * 3;
                picture.pixels[at..at + line.len()].copy_from_slice(line);
            }
            if window.label == LABEL {
                let (left, top) = (left as f32, top as f32);
                let rect = Rect {
                    x0: PERSON.x0 + left,
                    y0: PERSON.y0 + top,
                    x1: PERSON.x1 + left,
                    y1: PERSON.y1 + top,
                };
                objects.push(Object { label: LABEL.into(), rect, crowd: false });
            }
        }
        let (id, size) = (format!("wall {number}"), [columns as f32, rows as f32]);
        Scene { id, picture, scale: [1.0; 2], size, objects }
    };
    match across * (rows / height) {
        0 => vec![],
        count => windows.chunks(count).enumerate().map(wall).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_has_its_place() {
        let window = |i: u8| Sample {
            id: i.to_string(),
            label: if i < 3 { LABEL.into() } else { "background".into() },
            group: None,
            picture: Picture::filled(64, 128, Colour::Rgb, 10 * i),
        };
        let scenes = walls((0..5).map(window).collect(), [130, 200], 3);
        assert_eq!(scenes.len(), 2);
        let objects: Vec<(&Scene, &Object)> =
            scenes.iter().flat_map(|scene| scene.objects.iter().map(move |o| (scene, o))).collect();
        assert_eq!(objects.len(), 3);
        for (scene, object) in objects {
            let (x, y) = (object.rect.x0 as usize, object.rect.y0 as usize);
            assert!(scene.picture.pixels[(y * 200 + x) * 3] < 30);
        }
        assert_eq!(scenes[1].picture.pixels[199 * 3], 127);
        assert!(walls(vec![window(1)], [64, 64], 3).is_empty());
    }
}
