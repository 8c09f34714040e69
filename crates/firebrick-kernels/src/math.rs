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
    let x = if from < LEAST { LEAST } else { from };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    if from < LEAST { 0.0 } else { p * f32::from_bits((shifted.to_bits() + 127) << 23) }
}

/// `1 / (1 + exp(-x))` and what is missing from it to 1, neither by a difference of nearly equal numbers.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> (f32, f32) {
    let small = exp(-x.abs());
    let large = 1.0 / (1.0 + small);
    let small = small * large;
    if x < 0.0 { (small, large) } else { (large, small) }
}

/// The normal distribution's probability beyond `a >= 0`, divided by `exp(-a^2 / 2)`; relative error below 2e-7.
///
/// A rational function fitted on `[0, 13.3]`, where `exp(-a^2 / 2)` ends (relative error 5e-9); its coefficients are
/// positive, so that nothing cancels.
#[inline(always)]
pub(crate) fn normal_tail(a: f32) -> f32 {
    let a = if a < 14.0 { a } else { 14.0 };
    let mut p = 4.020_237e-3_f32;
    for c in [3.998_456e-2, 1.813_080_3e-1, 4.356_882e-1, 0.5] {
        p = p * a + c;
    }
    let mut q = 1.007_709_7e-2_f32;
    for c in [1.002_338_1e-1, 4.643_836_4e-1, 1.194_489_7, 1.669_261_3, 1.0] {
        q = q * a + c;
    }
    p / q
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
