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
        for (x, pixel) in row.as_chunks_mut::<C>().0.iter_mut().enumerate() {
            let dx = x as f32 - middle[0];
            let from_x = (a * dx + b * dy + across + middle[0]).clamp(0.0, last_x);
            let from_y = (c * dx + d * dy + down + middle[1]).clamp(0.0, last_y);
            let (x0, y0) = (from_x as usize, from_y as usize);
            let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
            let (fx, fy) = (from_x - x0 as f32, from_y - y0 as f32);
            let at = |x: usize, y: usize| &picture.pixels[(y * w + x) * C..][..C];
            let (nw, ne, sw, se) = (at(x0, y0), at(x1, y0), at(x0, y1), at(x1, y1));
            for (i, out) in pixel.iter_mut().enumerate() {
                let upper = f32::from(nw[i]) + fx * (f32::from(ne[i]) - f32::from(nw[i]));
                let lower = f32::from(sw[i]) + fx * (f32::from(se[i]) - f32::from(sw[i]));
                *out = (upper + fy * (lower - upper) + 0.5) as u8;
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
