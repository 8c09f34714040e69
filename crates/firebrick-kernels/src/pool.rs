//! Pooling of images: the largest pixel of every window, and the mean of all pixels.
//!
//! Agrees with `torch.nn.functional.max_pool2d`, also in which of several equal pixels is taken (the first) and in that
//! a NaN wins, and with `adaptive_avg_pool2d` to one pixel.

use rayon::prelude::*;

use crate::BLOCK;

/// Windows over planes, `[planes, H, W]`; pairs are of rows, then of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    /// Images times channels.
    pub planes: usize,
    /// `H` and `W`.
    pub size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Before and after the rows, and before and after the columns; each below the kernel's size.
    pub padding: [[usize; 2]; 2],
}

impl MaxPool {
    /// Rows and columns of the output.
    pub fn out_size(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let (kernel, [before, after]) = (self.kernel[axis], self.padding[axis]);
            assert!(before < kernel && after < kernel, "a window of padding alone");
            let padded = self.size[axis] + before + after;
            assert!(padded >= kernel, "a window of {kernel} over {padded}");
            (padded - kernel) / self.stride[axis] + 1
        })
    }

    fn areas(&self) -> [usize; 2] {
        [self.size, self.out_size()].map(|[height, width]| height * width)
    }

    /// `x`: `[planes, H, W]` -> `out`: `[planes, out_size]`, and for each the index in its plane of `x`.
    pub fn forward(&self, x: &[f32], out: &mut [f32], indices: &mut [u32]) {
        let [area, out_area] = self.areas();
        assert_eq!(
            [x.len(), out.len(), indices.len()],
            [area, out_area, out_area].map(|a| self.planes * a)
        );
        assert!(u32::try_from(area).is_ok());
        let planes = x.par_chunks_exact(area).zip(out.par_chunks_exact_mut(out_area));
        let planes = planes.zip(indices.par_chunks_exact_mut(out_area));
        planes
            .with_min_len(least(out_area * self.kernel[0] * self.kernel[1]))
            .for_each(|((x, out), indices)| plane(*self, x, out, indices));
    }

    /// Gradient of [`Self::forward`]: what `dy` holds goes to the pixel that was the largest.
    pub fn backward(&self, dy: &[f32], indices: &[u32], dx: &mut [f32]) {
        let [area, out_area] = self.areas();
        assert_eq!(
            [dx.len(), dy.len(), indices.len()],
            [area, out_area, out_area].map(|a| self.planes * a)
        );
        let planes = dx.par_chunks_exact_mut(area).zip(dy.par_chunks_exact(out_area));
        let planes = planes.zip(indices.par_chunks_exact(out_area));
        planes.with_min_len(least(area)).for_each(|((dx, dy), indices)| {
            dx.fill(0.0);
            dy.iter().zip(indices).for_each(|(dy, index)| dx[*index as usize] += dy);
        });
    }

    /// The outputs whose window has a pixel at `tap`, of one axis.
    #[inline(always)]
    fn reach(&self, axis: usize, tap: usize, outputs: usize) -> std::ops::Range<usize> {
        let (stride, pad) = (self.stride[axis], self.padding[axis][0]);
        let first = pad.saturating_sub(tap).div_ceil(stride);
        let end = (self.size[axis] + pad).saturating_sub(tap).div_ceil(stride).min(outputs);
        first.min(end)..end
    }
}

/// Planes worth a task.
fn least(work: usize) -> usize {
    (BLOCK / work.max(1)).max(1)
}

#[inline(always)]
fn any_plane(pool: MaxPool, x: &[f32], out: &mut [f32], indices: &mut [u32]) {
    match pool.stride[1] {
        1 => plane_by::<1, true>(pool, x, out, indices),
        2 => plane_by::<2, true>(pool, x, out, indices),
        _ => plane_by::<1, false>(pool, x, out, indices),
    }
}

/// With a stride of columns that the compiler knows, if it is `KNOWN`.
#[inline(always)]
fn plane_by<const STRIDE: usize, const KNOWN: bool>(
    pool: MaxPool,
    x: &[f32],
    out: &mut [f32],
    indices: &mut [u32],
) {
    let [height, width] = pool.out_size();
    let stride = if KNOWN { STRIDE } else { pool.stride[1] };
    let [top, left] = [pool.padding[0][0], pool.padding[1][0]];
    let rows = out.chunks_exact_mut(width).zip(indices.chunks_exact_mut(width));
    for (y, (out, indices)) in rows.enumerate() {
        out.fill(f32::NEG_INFINITY);
        let first_row = (y * pool.stride[0]).saturating_sub(top);
        for (col, index) in indices.iter_mut().enumerate() {
            *index = (first_row * pool.size[1] + (col * stride).saturating_sub(left)) as u32;
        }
        for ky in 0..pool.kernel[0] {
            if !pool.reach(0, ky, height).contains(&y) {
                continue;
            }
            let row = (y * pool.stride[0] + ky - top) * pool.size[1];
            for kx in 0..pool.kernel[1] {
                let reach = pool.reach(1, kx, width);
                let Some(last) = reach.clone().last() else { continue };
                let start = row + reach.start * stride + kx - left;
                let x = &x[start..=row + last * stride + kx - left];
                let (out, indices) = (&mut out[reach.clone()], &mut indices[reach]);
                // All but the last pixel in whole strides, whose size the compiler knows: it can load many at once.
                let count = out.len() - 1;
                let at = |i: usize| (start + i * stride) as u32;
                if KNOWN {
                    let (strides, _) = x.as_chunks::<STRIDE>();
                    let (strides, out) = (&strides[..count], &mut out[..count]);
                    let indices = &mut indices[..count];
                    for i in 0..count {
                        take(strides[i][0], at(i), &mut out[i], &mut indices[i]);
                    }
                } else {
                    for i in 0..count {
                        take(x[i * stride], at(i), &mut out[i], &mut indices[i]);
                    }
                }
                take(x[count * stride], at(count), &mut out[count], &mut indices[count]);
            }
        }
    }
}

/// The larger of two, and its index.
#[inline(always)]
fn take(value: f32, at: u32, best: &mut f32, index: &mut u32) {
    let larger = value > *best || value.is_nan();
    *best = if larger { value } else { *best };
    *index = if larger { at } else { *index };
}

crate::for_this_cpu!(plane = any_plane(pool: MaxPool, x: &[f32], out: &mut [f32], indices: &mut [u32]));

/// The mean of each plane, `[planes, area]` -> `[planes]`.
pub fn mean(x: &[f32], area: usize, out: &mut [f32]) {
    assert_eq!(x.len(), out.len() * area);
    assert!(area > 0, "the mean of no pixels");
    let block = least(area);
    out.par_chunks_mut(block)
        .zip(x.par_chunks((block * area).max(1)))
        .for_each(|(out, x)| means(x, area, out));
}

#[inline(always)]
fn any_means(x: &[f32], area: usize, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x.chunks_exact(area)) {
        *out = crate::math::sum(x) / area as f32;
    }
}

crate::for_this_cpu!(means = any_means(x: &[f32], area: usize, out: &mut [f32]));

/// Gradient of [`mean`].
pub fn mean_backward(dy: &[f32], area: usize, dx: &mut [f32]) {
    assert_eq!(dx.len(), dy.len() * area);
    dx.par_chunks_exact_mut(area.max(1))
        .zip(dy)
        .with_min_len(least(area))
        .for_each(|(dx, dy)| dx.fill(dy / area as f32));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few different values, so that windows hold equal ones.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed * 977) % 13) as f32 - 6.0).collect()
    }

    /// The specification: every window by itself.
    fn check(pool: MaxPool, x: &[f32]) {
        let [height, width] = pool.out_size();
        let count = pool.planes * height * width;
        let (mut out, mut indices) = (vec![f32::NAN; count], vec![u32::MAX; count]);
        pool.forward(x, &mut out, &mut indices);
        let dy = numbers(count, 3);
        let mut expected_dx = vec![0.0; x.len()];
        let [area, _] = pool.areas();
        for (i, (found, index)) in out.iter().zip(&indices).enumerate() {
            let (plane, y, col) = (i / (height * width), i / width % height, i % width);
            let mut best: Option<(f32, usize)> = None;
            for ky in 0..pool.kernel[0] {
                for kx in 0..pool.kernel[1] {
                    let row = (y * pool.stride[0] + ky).wrapping_sub(pool.padding[0][0]);
                    let col = (col * pool.stride[1] + kx).wrapping_sub(pool.padding[1][0]);
                    if row < pool.size[0] && col < pool.size[1] {
                        let at = row * pool.size[1] + col;
                        let value = x[plane * area + at];
                        if best.is_none_or(|(best, _)| value > best || value.is_nan()) {
                            best = Some((value, at));
                        }
                    }
                }
            }
            let (value, at) = best.expect("a window has a pixel");
            assert_eq!(
                (found.to_bits(), *index as usize),
                (value.to_bits(), at),
                "{i} of {pool:?}"
            );
            expected_dx[plane * area + at] += dy[i];
        }
        let mut dx = vec![f32::NAN; x.len()];
        pool.backward(&dy, &indices, &mut dx);
        assert_eq!(dx, expected_dx, "{pool:?}"); // sums of small whole numbers are exact
    }

    #[test]
    fn as_in_resnet() {
        let (kernel, stride, padding) = ([3, 3], [2, 2], [[1, 1]; 2]);
        let pool = MaxPool { planes: 3, size: [112, 112], kernel, stride, padding };
        check(pool, &numbers(3 * 112 * 112, 1));
    }

    #[test]
    fn nan_wins_and_minus_infinity_counts() {
        let (kernel, stride, padding) = ([2, 2], [1, 1], [[0, 0]; 2]);
        let pool = MaxPool { planes: 1, size: [3, 3], kernel, stride, padding };
        let low = f32::NEG_INFINITY;
        check(pool, &[low, low, 1.0, low, low, f32::NAN, 2.0, f32::NAN, 3.0]);
    }

    proptest! {
        #[test]
        fn any_window(
            planes in 1..4usize,
            size in [1..40usize, 1..40usize],
            kernel in [1..5usize, 1..5usize],
            stride in [1..4usize, 1..4usize],
            padding in [[0..4usize, 0..4usize], [0..4usize, 0..4usize]],
        ) {
            let padding = [0, 1].map(|axis| padding[axis].map(|pad| pad.min(kernel[axis] - 1)));
            let fits = |axis: usize| size[axis] + padding[axis].iter().sum::<usize>() >= kernel[axis];
            prop_assume!(fits(0) && fits(1));
            check(MaxPool { planes, size, kernel, stride, padding }, &numbers(planes * size[0] * size[1], 1));
        }
    }

    #[test]
    fn means() {
        let x = numbers(5 * 49, 1);
        let mut out = [f32::NAN; 5];
        mean(&x, 49, &mut out);
        for (found, x) in out.iter().zip(x.chunks(49)) {
            let expected = x.iter().sum::<f32>() / 49.0;
            assert!((found - expected).abs() < 1e-6);
        }
        let mut dx = vec![f32::NAN; 5 * 49];
        mean_backward(&[1.0, 2.0, 3.0, 4.0, 49.0], 49, &mut dx);
        assert_eq!((dx[0], dx[5 * 49 - 1]), (1.0 / 49.0, 1.0));
    }
}
