//! Int8 weights: `y = scale * row scale * sum of whole products + bias`.

#![expect(clippy::needless_range_loop, reason = "rows, panels and lanes index several arrays")]

use super::{Block, Cpu, PANEL, Packed, Rows};

/// Sums of `R` rows and `P` panels.
type Sums<const R: usize, const P: usize> = [[[i32; PANEL]; P]; R];

/// Rows and panels that are multiplied at once: as many sums as registers hold.
pub(super) fn tile(cpu: Cpu) -> (usize, usize) {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512Vnni => (6, 4),
        _ => (4, 1),
    }
}

pub(super) fn product(cpu: Cpu, rows: &Rows, w: Packed, bias: Option<&[f32]>, mut block: Block) {
    let (tile_rows, tile_panels) = tile(cpu);
    let (count, cols) = (block.out.rows(), block.out.cols());
    let panels = cols.div_ceil(PANEL);
    let mut panel = 0;
    while panel < panels {
        let together = if panel + tile_panels <= panels { tile_panels } else { 1 };
        for first in (0..count).step_by(tile_rows) {
            let tile = Tile { rows, w, bias, first, panel };
            match together {
                1 => by_rows::<1>(cpu, tile, count - first, &mut block),
                _ => by_rows::<4>(cpu, tile, count - first, &mut block),
            }
        }
        panel += together;
    }
}

fn by_rows<const P: usize>(cpu: Cpu, tile: Tile, left: usize, block: &mut Block) {
    match left {
        1 => tile.multiply::<1, P>(cpu, block),
        2 => tile.multiply::<2, P>(cpu, block),
        3 => tile.multiply::<3, P>(cpu, block),
        4 => tile.multiply::<4, P>(cpu, block),
        // More than four only where a tile has six.
        5 if self::tile(cpu).0 > 4 => tile.multiply::<5, P>(cpu, block),
        _ if self::tile(cpu).0 > 4 => tile.multiply::<6, P>(cpu, block),
        _ => tile.multiply::<4, P>(cpu, block),
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

    /// Levels of the rows and weights of the panels, all equally deep.
    #[inline(always)]
    fn parts<const R: usize, const P: usize>(&self, block: &Block) -> ([&[u8]; R], [&[u8]; P]) {
        let rows = std::array::from_fn(|r| self.rows.row(block.row + self.first + r));
        let panel = block.column / PANEL + self.panel;
        let panels: [_; P] = std::array::from_fn(|p| self.w.panel(panel + p));
        assert!(panels.iter().all(|panel| panel.len() == PANEL * self.rows.stride));
        (rows, panels)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn avx512<const R: usize, const P: usize>(self, block: &mut Block) {
        use std::arch::x86_64::*;
        let (rows, panels) = self.parts::<R, P>(block);
        let first = block.column / PANEL + self.panel;
        let mut starts = [_mm512_setzero_si512(); P];
        for (p, start) in starts.iter_mut().enumerate() {
            *start = load512(first_line(self.w.start_line(first + p)));
        }
        let mut sums = [starts; R];
        for four in 0..self.rows.stride / 4 {
            let mut weights = [_mm512_setzero_si512(); P];
            for (p, weights) in weights.iter_mut().enumerate() {
                *weights = load512(chunk(panels[p], four));
            }
            for r in 0..R {
                let x = _mm512_set1_epi32(word(rows[r], four));
                for p in 0..P {
                    sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], x, weights[p]);
                }
            }
        }
        let mut whole = [[[0; PANEL]; P]; R];
        for r in 0..R {
            for p in 0..P {
                whole[r][p] = numbers512(sums[r][p]);
            }
        }
        self.finish(&whole, block);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn avx2<const R: usize, const P: usize>(self, block: &mut Block) {
        let (rows, panels) = self.parts::<R, P>(block);
        assert!(rows.iter().all(|row| row.len() == self.rows.stride));
        let (rows, fours) = (rows.map(<[u8]>::as_ptr), self.rows.stride / 4);
        let mut whole = [[[0; PANEL]; P]; R];
        for p in 0..P {
            #[expect(unsafe_code, reason = "checks in this loop would cost a third of its speed")]
            // SAFETY: a row holds `fours` fours, and a panel sixteen times as many.
            let sums = unsafe { fours256::<R>(rows, panels[p].as_ptr(), fours) };
            for r in 0..R {
                whole[r][p] = numbers256(sums[r]);
            }
        }
        self.finish(&whole, block);
    }

    fn portable<const R: usize, const P: usize>(self, block: &mut Block) {
        let (rows, panels) = self.parts::<R, P>(block);
        let mut whole: Sums<R, P> = [[[0; PANEL]; P]; R];
        for (p, panel) in panels.iter().enumerate() {
            for (r, row) in rows.iter().enumerate() {
                let fours = panel.as_chunks::<{ 4 * PANEL }>().0.iter().zip(row.as_chunks::<4>().0);
                for (weights, x) in fours {
                    for lane in 0..PANEL {
                        for i in 0..4 {
                            let w = i32::from(weights[4 * lane + i] as i8);
                            whole[r][p][lane] += w * i32::from(x[i] as i8);
                        }
                    }
                }
            }
        }
        self.finish(&whole, block);
    }

    /// Sums to numbers, in their place.
    #[inline(always)]
    fn finish<const R: usize, const P: usize>(&self, sums: &Sums<R, P>, block: &mut Block) {
        for p in 0..P {
            let col = (self.panel + p) * PANEL;
            let scales = self.w.scale_line(block.column / PANEL + self.panel + p, 0);
            let width = PANEL.min(block.out.cols() - col);
            for r in 0..R {
                let row_scale = self.rows.scales[block.row + self.first + r];
                let mut y = [0.0; PANEL];
                for lane in 0..PANEL {
                    let scale = scales[lane] * row_scale;
                    y[lane] = sums[r][p][lane] as f32 * scale;
                }
                let out = &mut block.out.row(self.first + r)[col..][..width];
                if let Some(bias) = self.bias {
                    let bias = &bias[block.column + col..][..width];
                    for (y, bias) in y.iter_mut().zip(bias) {
                        *y += bias;
                    }
                }
                match out.as_mut_array::<PANEL>() {
                    Some(out) => *out = y,
                    None => out.copy_from_slice(&y[..width]),
                }
            }
        }
    }
}

/// Sixteen outputs of four inputs.
#[inline(always)]
pub(super) fn chunk(panel: &[u8], index: usize) -> &[u8; 64] {
    panel[index * 64..].first_chunk().expect("within the panel")
}

#[inline(always)]
pub(super) fn first_line(bytes: &[u8]) -> &[u8; 64] {
    bytes.first_chunk().expect("sixteen numbers")
}

/// Four levels of a row.
#[inline(always)]
pub(super) fn word(row: &[u8], index: usize) -> i32 {
    i32::from_ne_bytes(*row[4 * index..].first_chunk().expect("within the row"))
}

#[cfg(target_arch = "x86_64")]
use x86::fours256;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{floats512, load256, load512, numbers256, numbers512};

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "registers are read from and written to arrays of their size")]
mod x86 {
    use std::arch::x86_64::*;

    use super::PANEL;

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn load512(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: the array is as long as the register.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn floats512(numbers: &[f32; PANEL]) -> __m512 {
        // SAFETY: the array is as long as the register.
        unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn numbers512(x: __m512i) -> [i32; PANEL] {
        let mut numbers = [0; PANEL];
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), x) };
        numbers
    }

    /// Sums of `R` rows and a panel of sixteen outputs, of four inputs at a time.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn fours256<const R: usize>(
        rows: [*const u8; R],
        panel: *const u8,
        fours: usize,
    ) -> [[__m256i; 2]; R] {
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for four in 0..fours {
            // SAFETY: the caller's promise.
            let (weights, x) = unsafe {
                let weights = panel.add(64 * four);
                let weights = [weights, weights.add(32)].map(|w| _mm256_loadu_si256(w.cast()));
                (weights, rows.map(|row| row.add(4 * four).cast::<i32>().read_unaligned()))
            };
            // The sign goes to the activations, which are never -128: a sum of two products is at most 2 * 128 * 127,
            // within sixteen bits.
            let sizes = weights.map(|w| _mm256_abs_epi8(w));
            for r in 0..R {
                let x = _mm256_set1_epi32(x[r]);
                for half in 0..2 {
                    let x = _mm256_sign_epi8(x, weights[half]);
                    let pairs = _mm256_maddubs_epi16(sizes[half], x);
                    let fours = _mm256_madd_epi16(pairs, ones);
                    sums[r][half] = _mm256_add_epi32(sums[r][half], fours);
                }
            }
        }
        sums
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn load256(bytes: &[u8; 64]) -> [__m256i; 2] {
        // SAFETY: the array is as long as both registers.
        unsafe {
            [
                _mm256_loadu_si256(bytes.as_ptr().cast()),
                _mm256_loadu_si256(bytes.as_ptr().wrapping_add(32).cast()),
            ]
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn numbers256(x: [__m256i; 2]) -> [i32; PANEL] {
        let mut numbers = [0; PANEL];
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_si256(numbers.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(numbers.as_mut_ptr().wrapping_add(8).cast(), x[1]);
        }
        numbers
    }
}
