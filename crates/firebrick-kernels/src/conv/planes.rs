//! The input of a convolution, copied so that what a weight is multiplied with lies together.
//!
//! Positions `stride` apart go to a plane of their own ("phase"), padding included. Then the pixels that one weight
//! meets, in the order of the output, are one run in one plane: it starts `shift` rows and columns in, and rows of
//! the output are as far apart as those of the plane. The columns between the end of an output row and the end of
//! a row of the plane are computed too and thrown away: two in 58 for a kernel of 3 over 56.

use super::tile::PIXELS;

/// One axis of the planes: position `at` of phase `p` is position `at * step + p - pad` of the source.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub length: usize,
    pub step: usize,
    pub pad: usize,
    pub phases: Vec<usize>,
    /// The least and the largest shift of any weight.
    pub shifts: [isize; 2],
}

impl Axis {
    /// Positions that `count` outputs meet.
    fn extent(&self, count: usize) -> usize {
        count + (self.shifts[1] - self.shifts[0]) as usize
    }

    /// Source position of position `i` of a plane whose outputs start at `first`.
    fn source(&self, first: usize, i: usize, phase: usize) -> isize {
        (first as isize + self.shifts[0] + i as isize) * self.step as isize + phase as isize
            - self.pad as isize
    }

    /// The positions below `count` that have a source.
    fn inside(&self, first: usize, count: usize, phase: usize) -> std::ops::Range<usize> {
        let start = self.source(first, 0, phase);
        let step = self.step as isize;
        let before =
            |end: isize| ((end - start + step - 1).div_euclid(step)).clamp(0, count as isize);
        let (low, high) = (before(0), before(self.length as isize));
        low as usize..high.max(low) as usize
    }
}

/// The same for all channels and blocks of rows.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub axes: [Axis; 2],
    pub rows: usize,
    /// From row to row.
    pub pitch: usize,
    /// From plane to plane.
    plane: usize,
}

impl Layout {
    /// For `outputs` rows and columns at a time.
    pub fn new(axes: [Axis; 2], outputs: [usize; 2]) -> Self {
        let (rows, pitch) = (axes[0].extent(outputs[0]), axes[1].extent(outputs[1]));
        // An odd number of cache lines, so that planes do not all fall into the same part of the cache.
        let plane = (rows * pitch).div_ceil(16) | 1;
        Self { axes, rows, pitch, plane: plane * 16 }
    }

    /// Numbers that one channel takes.
    pub fn channel(&self) -> usize {
        self.axes[0].phases.len() * self.axes[1].phases.len() * self.plane
    }

    pub fn len(&self, channels: usize) -> usize {
        channels * self.channel() + PIXELS // a tile may end behind the last pixel
    }

    /// Where the run starts that a weight meets, from the start of its channel.
    pub fn start(&self, phase: [usize; 2], shift: [isize; 2]) -> usize {
        let [row, col] = [0, 1].map(|axis| (shift[axis] - self.axes[axis].shifts[0]) as usize);
        (phase[0] * self.axes[1].phases.len() + phase[1]) * self.plane + row * self.pitch + col
    }

    /// Copies one channel, `source`, for outputs from row `first` on, with `zero` around it. Does not write the rounding behind
    /// each plane.
    pub fn fill<T: Copy>(&self, source: &[T], zero: T, first: usize, planes: &mut [T]) {
        let [rows, cols] = &self.axes;
        let phases = rows.phases.iter().flat_map(|y| cols.phases.iter().map(move |x| (*y, *x)));
        for ((y, x), plane) in phases.zip(planes.chunks_exact_mut(self.plane)) {
            let inside = rows.inside(first, self.rows, y);
            let across = cols.inside(0, self.pitch, x);
            if inside.len() < self.rows || across.len() < self.pitch {
                plane.fill(zero);
            }
            if inside.is_empty() || across.is_empty() {
                continue;
            }
            let row_at = |row| rows.source(first, row, y) as usize * cols.length;
            let col_at = cols.source(0, across.start, x) as usize;
            if self.pitch == 1 {
                let source = &source[row_at(inside.start) + col_at..];
                stride_copy(source, rows.step * cols.length, &mut plane[inside]);
            } else if rows.step == 1
                && cols.step == 1
                && across.len() == cols.length
                && across.len() == self.pitch
            {
                let count = inside.len() * self.pitch;
                let source = &source[row_at(inside.start)..][..count];
                plane[inside.start * self.pitch..][..count].copy_from_slice(source);
            } else {
                for row in inside {
                    let source = &source[row_at(row) + col_at..];
                    let plane = &mut plane[row * self.pitch..][across.clone()];
                    stride_copy(source, cols.step, plane);
                }
            }
        }
    }
}

/// Every `step`th number of `from`.
fn stride_copy<T: Copy>(from: &[T], step: usize, to: &mut [T]) {
    match step {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => {
            let (pairs, _) = from.as_chunks::<2>();
            let whole = pairs.len().min(to.len());
            to[..whole].iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
            if whole < to.len() {
                to[whole] = from[2 * whole];
            }
        }
        _ => to.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, from)| *to = *from),
    }
}
