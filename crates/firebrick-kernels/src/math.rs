//! Functions of one number without a branch, so that a loop over them vectorises, and reductions over
//! sixteen lanes, which the compiler may not reorder by itself.

/// `exp(x)` for `x <= 0`, relative error below 2e-7 (Cephes); below -87 it is 0, not a number that is slow to
/// multiply with.
#[inline(always)]
pub(crate) fn exp(from: f32) -> f32 {
    const LEAST: f32 = -87.0;
    // Added, it leaves no bits for a fraction: the sum is rounded, and its lowest bits are the integer. (A cast to
    // an integer would saturate, which vectors cannot.)
    const ROUND: f32 = 1.5 * (1 << 23) as f32;
    let x = if from > LEAST { from } else { LEAST };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    if from > LEAST { p * f32::from_bits((shifted.to_bits() + 127) << 23) } else { 0.0 }
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

/// Numbers that a reduction takes together: a vector of AVX-512.
pub(crate) const LANES: usize = 16;

/// Joins `term` of `x`'s elements in sixteen lanes, then the lanes by halves. `none` changes nothing in a `join`.
///
/// Arrays of known size throughout: with indices the compiler keeps its bounds checks and takes one number at a time.
#[inline(always)]
fn fold<const N: usize>(
    x: [&[f32]; N],
    none: f32,
    term: impl Fn([f32; N]) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let len = x[0].len();
    let whole = x.map(|x| x[..len].as_chunks::<LANES>().0);
    let mut lanes = [none; LANES];
    for chunk in 0..len / LANES {
        let chunk: [&[f32; LANES]; N] = whole.map(|x| &x[chunk]);
        for i in 0..LANES {
            lanes[i] = join(lanes[i], term(chunk.map(|x| x[i])));
        }
    }
    // Through memory: the compiler then keeps the sixteen in one vector, not in eight pairs as the joins below take them.
    let lanes = std::hint::black_box(lanes);
    let eight: [f32; 8] = std::array::from_fn(|i| join(lanes[i], lanes[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| join(eight[i], eight[i + 4]));
    let two: [f32; 2] = std::array::from_fn(|i| join(four[i], four[i + 2]));
    let rest = len - len % LANES..len;
    rest.fold(join(two[0], two[1]), |total, i| join(total, term(x.map(|x| x[i]))))
}

#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    fold([x], 0.0, |[x]| x, |a, b| a + b)
}

#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    fold([x, y], 0.0, |[x, y]| x * y, |a, b| a + b)
}

/// Sum of `(x - centre)^2`.
#[inline(always)]
pub(crate) fn sum_of_squares_around(x: &[f32], centre: f32) -> f32 {
    fold([x], 0.0, |[x]| (x - centre) * (x - centre), |a, b| a + b)
}

/// The largest element; `f32::MIN` of none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    fold([x], f32::MIN, |[x]| x, |a, b| if b > a { b } else { a })
}
