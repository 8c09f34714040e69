//! Functions of one number without a branch, so that a loop over them vectorises, and reductions over
//! sixteen lanes, which the compiler may not reorder by itself.

/// `exp(x)` for `x <= 0`, relative error below 2e-7 (Cephes); below -87 it is 0, not a number that is slow to
/// multiply with.
#[inline(always)]
pub(crate) fn exp(from: f32) -> f32 {
    const LEAST: f32 = -87.0;
    let x = from.max(LEAST);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    if from > LEAST { p * f32::from_bits(((n as i32 + 127) as u32) << 23) } else { 0.0 }
}

/// Absolute error below 2e-7; the rational approximation of `torch.erf`'s vector path (Eigen's
/// `generic_fast_erf_float`).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    // Beyond 4 the function is 1 in f32.
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = -2.726_142_e-10_f32;
    for c in [
        2.770_681_7e-8,
        -2.101_024e-6,
        -5.692_506e-5,
        -7.349_906e-4,
        -2.954_600_1e-3,
        -1.609_603_8e-2,
    ] {
        p = p * x2 + c;
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474_5e-2] {
        q = q * x2 + c;
    }
    x * p / q
}

const LANES: usize = 16;

/// Folds `term(i)` for `i` in `0..count` in sixteen lanes, then the lanes in order.
#[inline(always)]
fn fold(
    count: usize,
    start: f32,
    term: impl Fn(usize) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let whole = count - count % LANES;
    for base in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total = join(*total, term(base + lane));
        }
    }
    let rest = (whole..count).fold(start, |total, i| join(total, term(i)));
    lanes.into_iter().fold(rest, join)
}

#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    fold(x.len(), 0.0, |i| x[i], |a, b| a + b)
}

#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let y = &y[..x.len()];
    fold(x.len(), 0.0, |i| x[i] * y[i], |a, b| a + b)
}

/// Sum of `(x - centre)^2`.
#[inline(always)]
pub(crate) fn sum_of_squares_around(x: &[f32], centre: f32) -> f32 {
    fold(x.len(), 0.0, |i| (x[i] - centre) * (x[i] - centre), |a, b| a + b)
}

/// The largest element; `f32::MIN` of none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    fold(x.len(), f32::MIN, |i| x[i], |a, b| if b > a { b } else { a })
}
