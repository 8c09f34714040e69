//! Int4 weights: `y = sum over groups of (scale * row's scale * sum of whole products) + bias`.
//!
//! A byte holds two weights as `level + 8`, which `vpdpbusd` and `vpmaddubsw` take as they are; the 8 is made good by
//! what a group's sum begins with.

#![expect(clippy::needless_range_loop, reason = "rows, panels and lanes index several arrays")]

#[cfg(target_arch = "x86_64")]
use super::int8::{floats512, load256, load512, numbers256, numbers512};
use super::{
    Block, Cpu, PANEL, Packed, Rows,
    int8::{chunk, word},
};

/// Rows and panels that are multiplied at once. One row wants more streams of memory at a time.
pub(super) fn tile(cpu: Cpu, count: usize) -> (usize, usize) {
    match (cpu, count) {
        #[cfg(target_arch = "x86_64")]
        (Cpu::Avx512Vnni, 1) => (1, 4),
        #[cfg(target_arch = "x86_64")]
        (Cpu::Avx512Vnni, _) => (4, 2),
        _ => (2, 1),
    }
}

pub(super) fn product(cpu: Cpu, rows: &Rows, w: Packed, bias: Option<&[f32]>, mut block: Block) {
    let count = block.out.rows();
    let (tile_rows, tile_panels) = tile(cpu, rows.scales.len() / rows.groups.max(1));
    let panels = block.out.cols().div_ceil(PANEL);
    let mut panel = 0;
    while panel < panels {
        let together = if panel + tile_panels <= panels { tile_panels } else { 1 };
        for first in (0..count).step_by(tile_rows) {
            let tile = Tile { rows, w, bias, first, panel };
            match (tile_rows.min(count - first), together) {
                (1, 4) => tile.multiply::<1, 4>(cpu, &mut block),
                (1, 2) => tile.multiply::<1, 2>(cpu, &mut block),
                (1, _) => tile.multiply::<1, 1>(cpu, &mut block),
                (2, 2) => tile.multiply::<2, 2>(cpu, &mut block),
                (2, _) => tile.multiply::<2, 1>(cpu, &mut block),
                (3, 2) => tile.multiply::<3, 2>(cpu, &mut block),
                (3, _) => tile.multiply::<3, 1>(cpu, &mut block),
                (_, 2) => tile.multiply::<4, 2>(cpu, &mut block),
                _ => tile.multiply::<4, 1>(cpu, &mut block),
            }
        }
        panel += together;
    }
}

/// Where in a block the next sums are: `first` row and `panel`, counted from its own.
#[derive(Clone, Copy)]
struct Tile<'a> {
    rows: &'a Rows,
    w: Packed<'a>,
    bias: Option<&'a [f32]>,
    first: usize,
    panel: usize,
}

/// Totals of `R` rows and `P` panels.
type Totals<const R: usize, const P: usize> = [[[f32; PANEL]; P]; R];

impl Tile<'_> {
    fn multiply<const R: usize, const P: usize>(self, cpu: Cpu, block: &mut Block) {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "functions of wider instruction sets")]
        match cpu {
            // SAFETY: a `Cpu` is one that this machine is.
            Cpu::Avx512Vnni => return unsafe { self.avx512::<R, P>(block) },
            Cpu::Avx2 => return unsafe { self.avx2::<R, P>(block) },
            Cpu::Portable => {}
        }
        let _ = cpu;
        self.portable::<R, P>(block);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn avx512<const R: usize, const P: usize>(self, block: &mut Block) {
        use std::arch::x86_64::*;
        let group = self.rows.stride / self.rows.groups.max(1);
        let low = _mm512_set1_epi8(15);
        let mut totals = [[_mm512_setzero_ps(); P]; R];
        let rows: [&[u8]; R] = std::array::from_fn(|r| self.row(block, r));
        let panels: [&[u8]; P] = std::array::from_fn(|p| self.w.panel(self.panel(block, p)));
        for g in 0..self.rows.groups {
            let mut sums = [[_mm512_setzero_si512(); P]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm512_set1_epi32(self.start(block, r, g)); P];
            }
            for eight in g * group / 8..(g + 1) * group / 8 {
                let mut weights = [[_mm512_setzero_si512(); 2]; P];
                for (p, weights) in weights.iter_mut().enumerate() {
                    let both = load512(chunk(panels[p], eight));
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low);
                    *weights = [_mm512_and_si512(both, low), high];
                }
                for r in 0..R {
                    for half in 0..2 {
                        let x = _mm512_set1_epi32(word(rows[r], 2 * eight + half));
                        for p in 0..P {
                            sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], weights[p][half], x);
                        }
                    }
                }
            }
            for p in 0..P {
                let scales = floats512(&self.w.scale_line(self.panel(block, p), g));
                for r in 0..R {
                    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(self.scale(block, r, g)));
                    let part = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][p]), scale);
                    totals[r][p] = _mm512_add_ps(totals[r][p], part);
                }
            }
        }
        let mut numbers = [[[0.0; PANEL]; P]; R];
        for r in 0..R {
            for p in 0..P {
                let bits = numbers512(_mm512_castps_si512(totals[r][p]));
                numbers[r][p] = bits.map(|bits| f32::from_bits(bits as u32));
            }
        }
        self.finish(&numbers, block);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn avx2<const R: usize, const P: usize>(self, block: &mut Block) {
        use std::arch::x86_64::*;
        let group = self.rows.stride / self.rows.groups.max(1);
        let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
        let mut totals = [[[0.0; PANEL]; P]; R];
        for p in 0..P {
            let panel = self.w.panel(self.panel(block, p));
            for g in 0..self.rows.groups {
                let mut sums = [[_mm256_setzero_si256(); 2]; R];
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [_mm256_set1_epi32(self.start(block, r, g)); 2];
                }
                for eight in g * group / 8..(g + 1) * group / 8 {
                    let both = load256(chunk(panel, eight));
                    for (side, both) in both.into_iter().enumerate() {
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
                        for (half, weights) in
                            [_mm256_and_si256(both, low), high].into_iter().enumerate()
                        {
                            for r in 0..R {
                                // At most 2 * 15 * 127: within sixteen bits.
                                let x =
                                    _mm256_set1_epi32(word(self.row(block, r), 2 * eight + half));
                                let pairs = _mm256_maddubs_epi16(weights, x);
                                let fours = _mm256_madd_epi16(pairs, ones);
                                sums[r][side] = _mm256_add_epi32(sums[r][side], fours);
                            }
                        }
                    }
                }
                for r in 0..R {
                    self.add(&numbers256(sums[r]), block, [r, p, g], &mut totals[r][p]);
                }
            }
        }
        self.finish(&totals, block);
    }

    fn portable<const R: usize, const P: usize>(self, block: &mut Block) {
        let group = self.rows.stride / self.rows.groups.max(1);
        let mut totals = [[[0.0; PANEL]; P]; R];
        for p in 0..P {
            let panel = self.w.panel(self.panel(block, p));
            for g in 0..self.rows.groups {
                for r in 0..R {
                    let mut sums = [self.start(block, r, g); PANEL];
                    for eight in g * group / 8..(g + 1) * group / 8 {
                        let weights = chunk(panel, eight);
                        let x = &self.row(block, r)[8 * eight..][..8];
                        for (lane, sum) in sums.iter_mut().enumerate() {
                            for i in 0..4 {
                                let both = weights[4 * lane + i];
                                *sum += i32::from(both & 15) * i32::from(x[i] as i8);
                                *sum += i32::from(both >> 4) * i32::from(x[4 + i] as i8);
                            }
                        }
                    }
                    self.add(&sums, block, [r, p, g], &mut totals[r][p]);
                }
            }
        }
        self.finish(&totals, block);
    }

    /// A group's sums to its row's totals.
    #[inline(always)]
    fn add(
        &self,
        sums: &[i32; PANEL],
        block: &Block,
        [r, p, g]: [usize; 3],
        totals: &mut [f32; PANEL],
    ) {
        let scales = self.w.scale_line(self.panel(block, p), g);
        let row_scale = self.scale(block, r, g);
        for lane in 0..PANEL {
            totals[lane] += sums[lane] as f32 * (scales[lane] * row_scale);
        }
    }

    /// Totals and bias, in their place.
    #[inline(always)]
    fn finish<const R: usize, const P: usize>(&self, totals: &Totals<R, P>, block: &mut Block) {
        for p in 0..P {
            let col = (self.panel + p) * PANEL;
            let width = PANEL.min(block.out.cols() - col);
            for (r, totals) in totals.iter().enumerate() {
                let out = &mut block.out.row(self.first + r)[col..][..width];
                out.copy_from_slice(&totals[p][..width]);
                if let Some(bias) = self.bias {
                    let bias = &bias[block.column + col..][..width];
                    out.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
                }
            }
        }
    }

    #[inline(always)]
    fn panel(&self, block: &Block, p: usize) -> usize {
        block.column / PANEL + self.panel + p
    }

    #[inline(always)]
    fn row(&self, block: &Block, r: usize) -> &[u8] {
        self.rows.row(block.row + self.first + r)
    }

    /// Of a row's group.
    #[inline(always)]
    fn start(&self, block: &Block, r: usize, g: usize) -> i32 {
        self.rows.starts[(block.row + self.first + r) * self.rows.groups + g]
    }

    #[inline(always)]
    fn scale(&self, block: &Block, r: usize, g: usize) -> f32 {
        self.rows.scales[(block.row + self.first + r) * self.rows.groups + g]
    }
}
