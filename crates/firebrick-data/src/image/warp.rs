//! A picture moved, turned and scaled at once.

use super::{Picture, boxes::Rect};

/// Where the pixels of a new picture come from: `source = matrix * target + offset`, in pixels from the middle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    pub matrix: [[f32; 2]; 2],
    /// Across, down.
    pub offset: [f32; 2],
}

impl Affine {
    pub const IDENTITY: Self = Self { matrix: [[1.0, 0.0], [0.0, 1.0]], offset: [0.0, 0.0] };

    /// The box around `rect` in the new picture, whose middle is this.
    pub fn moved(self, rect: Rect, middle: [f32; 2]) -> Rect {
        let [[a, b], [c, d]] = self.matrix;
        let size = a * d - b * c;
        let corners =
            [[rect.x0, rect.y0], [rect.x1, rect.y0], [rect.x0, rect.y1], [rect.x1, rect.y1]];
        let corners = corners.map(|[x, y]| {
            let (x, y) = (x - middle[0] - self.offset[0], y - middle[1] - self.offset[1]);
            [(d * x - b * y) / size + middle[0], (a * y - c * x) / size + middle[1]]
        });
        let [xs, ys] = [0, 1].map(|axis| corners.map(|corner| corner[axis]));
        let least = |values: [f32; 4]| values.into_iter().fold(f32::INFINITY, f32::min);
        let most = |values: [f32; 4]| values.into_iter().fold(f32::NEG_INFINITY, f32::max);
        Rect { x0: least(xs), y0: least(ys), x1: most(xs), y1: most(ys) }
    }
}

/// `picture` as `affine` says, at the same size, between pixels linearly; beyond the edge lies what is at the edge.
pub fn warp(picture: &Picture, affine: Affine) -> Picture {
    match picture.colour.channels() {
        1 => warp_channels::<1>(picture, affine),
        _ => warp_channels::<3>(picture, affine),
    }
}

fn warp_channels<const C: usize>(picture: &Picture, affine: Affine) -> Picture {
    let (w, h) = (picture.width, picture.height);
    let Affine { matrix: [[a, b], [c, d]], offset: [across, down] } = affine;
    let middle = [(w as f32 - 1.0) / 2.0, (h as f32 - 1.0) / 2.0];
    let (last_x, last_y) = ((w - 1) as f32, (h - 1) as f32);
    let mut pixels = vec![0; picture.pixels.len()];
    for (y, row) in pixels.chunks_exact_mut(w * C).enumerate() {
        let dy = y as f32 - middle[1];
        let (row_x, row_y) = (b * dy + across + middle[0], d * dy + down + middle[1]);
        for (x, pixel) in row.as_chunks_mut::<C>().0.iter_mut().enumerate() {
            let dx = x as f32 - middle[0];
            // In parts of a pixel, of which there are 256.
            let parts = |from: f32, last: f32| {
                let parts = (from.clamp(0.0, last) * 256.0 + 0.5) as i32 as usize;
                (parts >> 8, (parts & 255) as u32)
            };
            let (from_x, right) = parts(a * dx + row_x, last_x);
            let (from_y, below) = parts(c * dx + row_y, last_y);
            let step_x = if from_x + 1 < w { C } else { 0 };
            let step_y = if from_y + 1 < h { w * C } else { 0 };
            let at = (from_y * w + from_x) * C;
            let [nw, ne, sw, se] = [at, at + step_x, at + step_y, at + step_x + step_y]
                .map(|at| &picture.pixels[at..at + C]);
            let (left, above) = (256 - right, 256 - below);
            let weights = [left * above, right * above, left * below, right * below];
            for (i, out) in pixel.iter_mut().enumerate() {
                let four = [nw[i], ne[i], sw[i], se[i]];
                let sum: u32 = four.iter().zip(weights).map(|(p, w)| u32::from(*p) * w).sum();
                *out = ((sum + 0x8000) >> 16) as u8;
            }
        }
    }
    Picture { pixels, ..*picture }
}

#[cfg(test)]
mod tests {
    use super::super::Colour;
    use super::*;

    fn numbered() -> Picture {
        Picture {
            width: 3,
            height: 3,
            colour: Colour::Grey,
            pixels: (0..9).map(|i| i * 10).collect(),
        }
    }

    #[track_caller]
    fn check(matrix: [[f32; 2]; 2], offset: [f32; 2], expected: [u8; 9]) {
        assert_eq!(warp(&numbered(), Affine { matrix, offset }).pixels, expected);
    }

    #[test]
    fn by_hand() {
        let same = Affine::IDENTITY.matrix;
        check(same, [0.0; 2], [0, 10, 20, 30, 40, 50, 60, 70, 80]);
        check(same, [1.0, 0.0], [10, 20, 20, 40, 50, 50, 70, 80, 80]); // to the left
        check(same, [0.5, 0.0], [5, 15, 20, 35, 45, 50, 65, 75, 80]);
        check([[-1.0, 0.0], [0.0, 1.0]], [0.0; 2], [20, 10, 0, 50, 40, 30, 80, 70, 60]);
        // What was above is on the right: a quarter turn clockwise.
        check([[0.0, 1.0], [-1.0, 0.0]], [0.0; 2], [60, 30, 0, 70, 40, 10, 80, 50, 20]);
    }

    #[test]
    fn colours_move_together() {
        let pixels = numbered().pixels.iter().flat_map(|l| [*l, l + 1, l + 2]).collect();
        let picture = Picture { colour: Colour::Rgb, pixels, ..numbered() };
        let moved = warp(&picture, Affine { offset: [0.0, 1.0], ..Affine::IDENTITY });
        assert_eq!(moved.pixels[..3], [30, 31, 32]);
    }
}
