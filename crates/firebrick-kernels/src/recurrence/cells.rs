//! The formulas of a step, sixteen units at a time, and their derivatives. Gates stand in PyTorch's order.

use super::panel::LANES;
use crate::math::{exp, sigmoid as both_sides};

pub(super) type Lanes = [f32; LANES];

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    both_sides(x).0
}

/// Absolute error below 1e-7, relative error below 3e-7 (Cephes below 0.625).
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut p = -5.704_988_6e-3_f32;
    for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p * square + c;
    }
    let near = x + x * square * p;
    let e = exp(-2.0 * x.abs());
    let far = (1.0 - e) / (1.0 + e);
    if x.abs() < 0.625 { near } else { far.copysign(x) }
}

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}

/// `tanh` or `relu` of the sum.
#[inline(always)]
pub(super) fn elman(relu: bool, x: Lanes) -> Lanes {
    if relu { each(|i| x[i].max(0.0)) } else { each(|i| tanh(x[i])) }
}

/// From the result.
#[inline(always)]
pub(super) fn elman_gradient(relu: bool, h: Lanes, dh: Lanes) -> Lanes {
    match relu {
        true => each(|i| if h[i] > 0.0 { dh[i] } else { 0.0 }),
        false => each(|i| dh[i] * (1.0 - h[i] * h[i])),
    }
}

pub(super) struct Lstm {
    /// Input gate, forget gate, candidate, output gate.
    pub gates: [Lanes; 4],
    pub c: Lanes,
    pub h: Lanes,
}

/// `c' = f c + i g`, `h = o tanh(c')`
#[inline(always)]
pub(super) fn lstm([i, f, g, o]: [Lanes; 4], c: Lanes) -> Lstm {
    let i = each(|l| sigmoid(i[l]));
    let f = each(|l| sigmoid(f[l]));
    let g = each(|l| tanh(g[l]));
    let o = each(|l| sigmoid(o[l]));
    let c = each(|l| f[l] * c[l] + i[l] * g[l]);
    Lstm { gates: [i, f, g, o], c, h: each(|l| o[l] * tanh(c[l])) }
}

/// Of the sums in the gates, and of the former `c`.
#[inline(always)]
pub(super) fn lstm_gradient(
    [i, f, g, o]: [Lanes; 4],
    former: Lanes,
    dh: Lanes,
    dc: Lanes,
) -> ([Lanes; 4], Lanes) {
    let t = each(|l| tanh(f[l] * former[l] + i[l] * g[l]));
    let dc = each(|l| dc[l] + dh[l] * o[l] * (1.0 - t[l] * t[l]));
    let di = each(|l| dc[l] * g[l] * i[l] * (1.0 - i[l]));
    let df = each(|l| dc[l] * former[l] * f[l] * (1.0 - f[l]));
    let dg = each(|l| dc[l] * i[l] * (1.0 - g[l] * g[l]));
    let d_o = each(|l| dh[l] * t[l] * o[l] * (1.0 - o[l]));
    ([di, df, dg, d_o], each(|l| dc[l] * f[l]))
}

pub(super) struct Gru {
    /// Reset gate, update gate, candidate.
    pub gates: [Lanes; 3],
    pub h: Lanes,
}

/// `n = tanh(x_n + r h_n)`, `h' = (1 - z) n + z h`
#[inline(always)]
pub(super) fn gru([r, z, n]: [Lanes; 3], hidden: Lanes, h: Lanes) -> Gru {
    let r = each(|l| sigmoid(r[l]));
    let z = each(|l| sigmoid(z[l]));
    let n = each(|l| tanh(n[l] + r[l] * hidden[l]));
    Gru { gates: [r, z, n], h: each(|l| n[l] + z[l] * (h[l] - n[l])) }
}

pub(super) struct GruGradient {
    pub gates: [Lanes; 3],
    /// Of the candidate's sum over the former state.
    pub hidden: Lanes,
    /// Of the former state, where it goes past the gates.
    pub h: Lanes,
}

#[inline(always)]
pub(super) fn gru_gradient(
    [r, z, n]: [Lanes; 3],
    hidden: Lanes,
    former: Lanes,
    dh: Lanes,
) -> GruGradient {
    let dn = each(|l| dh[l] * (1.0 - z[l]) * (1.0 - n[l] * n[l]));
    let dz = each(|l| dh[l] * (former[l] - n[l]) * z[l] * (1.0 - z[l]));
    let dr = each(|l| dn[l] * hidden[l] * r[l] * (1.0 - r[l]));
    GruGradient { gates: [dr, dz, dn], hidden: each(|l| dn[l] * r[l]), h: each(|l| dh[l] * z[l]) }
}
