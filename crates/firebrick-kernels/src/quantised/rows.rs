//! Activations as levels of eight bits.

use rayon::prelude::*;

use super::{Cpu, Format};

/// Rows of levels in `-127..=127`, each row filled up with zeros to whole groups.
pub(super) struct Rows {
    /// `[N, stride]`; 128 too large where the product wants that.
    pub levels: Vec<u8>,
    pub stride: usize,
    /// `[N, G]`
    pub scales: Vec<f32>,
    /// Int4: `[N, G]`, what a sum begins with as the weights' levels are 8 too large.
    pub starts: Vec<i32>,
    pub groups: usize,
}

/// 1.5 * 2^23: a small number added to it stands in the lowest bits, rounded to even.
const MAGIC: f32 = 12_582_912.0;

impl Rows {
    pub fn new(x: &[f32], count: usize, format: Format, cpu: Cpu) -> Self {
        let inputs = x.len() / count;
        let groups = format.groups(inputs);
        let (group, flip) = match format {
            Format::Int8 => (inputs.next_multiple_of(4), int8_flip(cpu)),
            Format::Int4 { group } => (group, 0),
        };
        let stride = groups * group;
        let (mut levels, mut scales) = (vec![flip; count * stride], vec![0.0; count * groups]);
        let mut starts = vec![0; count * groups];
        if stride == 0 {
            return Self { levels, stride, scales, starts, groups };
        }
        let together = (crate::BLOCK / stride).max(1);
        levels
            .par_chunks_mut(stride)
            .zip(scales.par_chunks_mut(groups))
            .zip(starts.par_chunks_mut(groups))
            .zip(x.par_chunks(inputs))
            .with_min_len(together)
            .for_each(|(((levels, scales), starts), x)| {
                dispatch(&mut Row { levels, scales, starts, x, group, flip });
            });
        Self { levels, stride, scales, starts, groups }
    }

    #[inline(always)]
    pub fn row(&self, row: usize) -> &[u8] {
        &self.levels[row * self.stride..][..self.stride]
    }
}

/// `vpdpbusd` multiplies unsigned with signed bytes.
fn int8_flip(cpu: Cpu) -> u8 {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512Vnni => 0x80,
        _ => 0,
    }
}

struct Row<'a> {
    levels: &'a mut [u8],
    scales: &'a mut [f32],
    starts: &'a mut [i32],
    x: &'a [f32],
    group: usize,
    flip: u8,
}

#[inline(always)]
fn quantise(row: &mut Row) {
    let groups = row.levels.chunks_exact_mut(row.group).zip(row.x.chunks(row.group));
    for ((levels, x), (scale, start)) in groups.zip(row.scales.iter_mut().zip(&mut *row.starts)) {
        // As whole numbers: NaN is larger than infinity, and makes the scale NaN.
        let mut largest = 0;
        for x in x {
            largest = largest.max(x.to_bits() & 0x7fff_ffff);
        }
        let largest = f32::from_bits(largest);
        *scale = largest / 127.0;
        // Below this the inverse is infinite, and the row as good as zero.
        let inverse = if largest > 1e-36 { 127.0 / largest } else { 0.0 };
        for (level, x) in levels.iter_mut().zip(x) {
            *level = (x * inverse + MAGIC).to_bits() as u8 ^ row.flip;
        }
        let mut sum = 0;
        for level in levels.iter() {
            sum += i32::from((level ^ row.flip) as i8);
        }
        *start = -8 * sum;
    }
}

crate::for_this_cpu!(dispatch = quantise(row: &mut Row));
