//! Boxes on pictures.

/// Two corners, in pixels from the picture's top left corner; a box of the first pixel is `0, 0, 1, 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x0: f32,
    pub y0: f32,
    pub x1: f32,
    pub y1: f32,
}

impl Rect {
    pub fn width(self) -> f32 {
        self.x1 - self.x0
    }

    pub fn height(self) -> f32 {
        self.y1 - self.y0
    }

    /// 0 of what has no inside.
    pub fn area(self) -> f32 {
        self.width().max(0.0) * self.height().max(0.0)
    }

    /// Left, top, right, bottom.
    pub fn sides(self) -> [f32; 4] {
        [self.x0, self.y0, self.x1, self.y1]
    }

    /// The part that lies on a picture of this size.
    pub fn clipped(self, width: f32, height: f32) -> Self {
        Self {
            x0: self.x0.clamp(0.0, width),
            y0: self.y0.clamp(0.0, height),
            x1: self.x1.clamp(0.0, width),
            y1: self.y1.clamp(0.0, height),
        }
    }

    /// On a picture that grew by these factors, across and down.
    pub fn scaled(self, [across, down]: [f32; 2]) -> Self {
        Self { x0: self.x0 * across, y0: self.y0 * down, x1: self.x1 * across, y1: self.y1 * down }
    }

    /// Intersection over union, in `[0, 1]`.
    pub fn overlap(self, other: Self) -> f32 {
        let common = Self {
            x0: self.x0.max(other.x0),
            y0: self.y0.max(other.y0),
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
        };
        let common = common.area();
        let union = self.area() + other.area() - common;
        if union > 0.0 { common / union } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_by_hand() {
        let of = |[x0, y0, x1, y1]: [f32; 4]| Rect { x0, y0, x1, y1 };
        let square = of([0.0, 0.0, 2.0, 2.0]);
        assert_eq!(square.overlap(square), 1.0);
        assert_eq!(square.overlap(of([1.0, 0.0, 3.0, 2.0])), 1.0 / 3.0);
        assert_eq!(square.overlap(of([2.0, 0.0, 3.0, 2.0])), 0.0);
        assert_eq!(square.overlap(of([3.0, 3.0, 4.0, 4.0])), 0.0);
        let point = of([1.0, 1.0, 1.0, 1.0]);
        assert_eq!((point.area(), point.overlap(point)), (0.0, 0.0));
        assert_eq!(of([-1.0, 1.0, 9.0, 3.0]).clipped(4.0, 2.0), of([0.0, 1.0, 4.0, 2.0]));
    }
}
