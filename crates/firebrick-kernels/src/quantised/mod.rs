//! Products with weights of eight or four bits.
//!
//! A weight is a whole number, its level, times a scale: one scale for each output (int8), or one for each output and
//! group of inputs (int4). Activations become levels of eight bits just before the product, with a scale for each row
//! and group, so that sums are those of whole numbers: the same on every CPU, whatever the blocks and threads. As
//! "dynamic quantisation" in PyTorch and ONNX Runtime; Jacob et al. 2018, <https://arxiv.org/abs/1712.05877>.
//!
//! Axis letters: `N` rows, `I` inputs, `O` outputs, `G` groups of inputs.

mod gptq;
mod int4;
mod int8;
mod levels;
mod packed;
mod rows;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::matmul::MatrixMut;

pub use gptq::gptq;
pub use levels::{Levels, Range, levels, snap};
pub use packed::Packed;
pub(crate) use packed::array;
use rows::Rows;

/// Outputs that lie side by side in a packed weight: the lanes of an AVX-512 register of 32-bit sums.
const PANEL: usize = 16;
/// Multiplications worth a task of their own.
const TASK: usize = 1 << 18;

/// How many bits a weight has, and which of them share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Levels in `-128..=127`, a scale for each output.
    Int8,
    /// Levels in `-8..=7`, a scale for each output and `group` inputs: a multiple of 8.
    Int4 { group: usize },
}

impl Format {
    /// Inputs that share a scale.
    pub fn group(self, inputs: usize) -> usize {
        match self {
            Self::Int8 => inputs.max(1),
            Self::Int4 { group } => group,
        }
    }

    /// `G`
    pub fn groups(self, inputs: usize) -> usize {
        inputs.div_ceil(self.group(inputs))
    }

    /// Levels reach from minus this, and one, up to this.
    fn largest(self) -> f32 {
        match self {
            Self::Int8 => 127.0,
            Self::Int4 { .. } => 7.0,
        }
    }
}

/// The instructions that a product uses; their sums are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cpu {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Cpu {
    /// What this CPU has, the fastest first.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512vnni")
                && std::is_x86_feature_detected!("avx512bw")
            {
                all.push(Self::Avx512Vnni);
            }
            if std::is_x86_feature_detected!("avx2") {
                all.push(Self::Avx2);
            }
        }
        all.push(Self::Portable);
        all
    }

    pub(crate) fn best() -> Self {
        static BEST: std::sync::OnceLock<Cpu> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::all()[0])
    }
}

/// `out = x w + bias`.
///
/// - `x`: `[N, I]` row by row; a row that holds NaN or infinity gives NaN
/// - `bias`: `[O]`
/// - `out`: `[N, O]` row by row
pub fn matmul(x: &[f32], w: Packed, bias: Option<&[f32]>, out: &mut [f32]) {
    matmul_on(Cpu::best(), x, w, bias, out);
}

fn matmul_on(cpu: Cpu, x: &[f32], w: Packed, bias: Option<&[f32]>, out: &mut [f32]) {
    let (inputs, outputs) = (w.inputs(), w.outputs());
    let count = out.len() / outputs.max(1);
    assert!(x.len() == count * inputs && out.len() == count * outputs, "a product of other sizes");
    assert!(bias.is_none_or(|bias| bias.len() == outputs));
    if out.is_empty() {
        return;
    }
    crate::awake::keep_awake();
    let rows = Rows::new(x, count, w.format(), cpu);
    let work = count * inputs * outputs;
    let tasks = (work / TASK).clamp(1, 4 * rayon::current_num_threads());
    let (tile_rows, tile_panels) = match w.format() {
        Format::Int8 => int8::tile(cpu),
        Format::Int4 { .. } => int4::tile(cpu, count),
    };
    // A task reads its columns of the weight once; rows are shared out where there are few columns.
    let blocks = outputs.div_ceil(tile_panels * PANEL);
    let width = blocks.div_ceil(blocks.min(tasks)) * tile_panels * PANEL;
    let across = outputs.div_ceil(width);
    let height = count.div_ceil(tasks.div_ceil(across)).next_multiple_of(tile_rows);
    let parts: Vec<_> = MatrixMut::new(out, count, outputs)
        .into_blocks_of_rows(height)
        .zip((0..).step_by(height))
        .flat_map(|(out, row)| {
            let blocks = out.into_blocks_of_cols(width).zip((0..).step_by(width));
            blocks.map(move |(out, column)| Block { out, row, column })
        })
        .collect();
    parts.into_par_iter().with_max_len(1).for_each(|block| match w.format() {
        Format::Int8 => int8::product(cpu, &rows, w, bias, block),
        Format::Int4 { .. } => int4::product(cpu, &rows, w, bias, block),
    });
}

/// Where in the product a task works; `column` is a multiple of [`PANEL`].
struct Block<'a> {
    out: MatrixMut<'a>,
    row: usize,
    column: usize,
}

/// The rows `ids` of a table, that is a weight `[C, V]` read by output: `out` is `[N, C]`.
pub fn rows(table: Packed, ids: &[i32], out: &mut [f32]) {
    let width = table.inputs();
    assert_eq!(out.len(), ids.len() * width);
    if out.is_empty() {
        return;
    }
    let together = (crate::BLOCK / width).max(1);
    out.par_chunks_mut(width).zip(ids).with_min_len(together).for_each(|(out, id)| {
        let id = usize::try_from(*id).expect("a row of the table");
        table.output(id, out);
    });
}
