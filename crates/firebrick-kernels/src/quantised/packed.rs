//! A weight in the order in which the products read it.
//!
//! Outputs lie in panels of sixteen, and within one the inputs by fours: `[O / 16, I / 4, 16, 4]`, so that one register
//! holds four inputs of sixteen outputs and a panel is read from its begin to its end. Int4 has two such fours in one
//! register, one in the low and one in the high halves of its bytes. What is missing at the ends is level zero.

use rayon::prelude::*;

use super::{Format, PANEL};
use crate::allocator::lasting;

/// Bytes that say what follows: group (0 for int8), inputs, outputs, bytes of a scale; 32 bits each.
const HEADER: usize = 64;
/// Bytes of sixteen numbers of 32 bits, or of sixteen fours of levels.
const LINE: usize = 4 * PANEL;

/// A packed weight `[I, O]`, in memory that somebody else owns.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    format: Format,
    inputs: usize,
    outputs: usize,
    /// `[O / 16, I / 4, 16, 4]`
    weights: &'a [u8],
    /// `[O / 16, G, 16]`, f32, or bf16 where all of them are
    scales: &'a [u8],
    short: bool,
    /// Int8: `[O / 16, 16]`, i32: what a sum begins with if the rows' levels are 128 too large.
    starts: &'a [u8],
}

/// Bytes of the parts.
fn sizes(format: Format, inputs: usize, outputs: usize, scale: usize) -> [usize; 3] {
    let panels = outputs.div_ceil(PANEL);
    match format {
        Format::Int8 => [panels * inputs.div_ceil(4) * 4 * PANEL, panels * LINE, panels * LINE],
        Format::Int4 { group } => {
            let groups = format.groups(inputs);
            [panels * groups * group / 2 * PANEL, panels * groups * scale * PANEL, 0]
        }
    }
}

impl<'a> Packed<'a> {
    /// Reads what [`Self::pack`] made.
    pub fn new(bytes: &'a [u8]) -> Self {
        let word = |i: usize| u32::from_ne_bytes(array(&bytes[4 * i..])) as usize;
        let format = match word(0) {
            0 => Format::Int8,
            group => Format::Int4 { group },
        };
        let (inputs, outputs) = (word(1), word(2));
        let [weights, scales, starts] = sizes(format, inputs, outputs, word(3));
        let (weights, rest) = bytes[HEADER..].split_at(weights);
        let (scales, rest) = rest.split_at(scales);
        let (short, starts) = (word(3) == 2, &rest[..starts]);
        Self { format, inputs, outputs, weights, scales, short, starts }
    }

    /// - `levels`: `[O, I]` row by row
    /// - `scales`: `[O, G]`
    pub fn pack(
        format: Format,
        [inputs, outputs]: [usize; 2],
        levels: &[i8],
        scales: &[f32],
    ) -> Vec<u8> {
        let groups = format.groups(inputs);
        assert!(levels.len() == inputs * outputs && scales.len() == outputs * groups);
        let short = format != Format::Int8 && scales.iter().all(|scale| scale.to_bits() << 16 == 0);
        let scale_len = if short { 2 } else { 4 };
        let [weights_len, scales_len, starts_len] = sizes(format, inputs, outputs, scale_len);
        let mut bytes: Vec<u8> = lasting(HEADER + weights_len + scales_len + starts_len);
        let (header, rest) = bytes.split_at_mut(HEADER);
        let (weights, rest) = rest.split_at_mut(weights_len);
        let (packed_scales, starts) = rest.split_at_mut(scales_len);
        let group = match format {
            Format::Int8 => 0,
            Format::Int4 { group } => {
                assert!(group > 0 && group.is_multiple_of(8), "a group of {group}");
                group
            }
        };
        for (i, word) in [group, inputs, outputs, scale_len].into_iter().enumerate() {
            let word = u32::try_from(word).expect("a matrix of 32-bit sizes");
            header[4 * i..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        let outputs_of = |panel: usize| (panel * PANEL..outputs).take(PANEL).enumerate();
        if !weights.is_empty() {
            let panel_len = weights_len / outputs.div_ceil(PANEL);
            weights.par_chunks_mut(panel_len).enumerate().for_each(|(panel, weights)| {
                if group > 0 {
                    weights.fill(0x88);
                }
                for (lane, output) in outputs_of(panel) {
                    let levels = &levels[output * inputs..][..inputs];
                    for (i, level) in levels.iter().enumerate() {
                        match format {
                            Format::Int8 => weights[at(i, lane)] = *level as u8,
                            Format::Int4 { .. } => {
                                let (at, shift) = half(i, lane);
                                let level = (*level + 8) as u8 & 15;
                                weights[at] = weights[at] & !(15 << shift) | level << shift;
                            }
                        }
                    }
                }
            });
        }
        for panel in 0..outputs.div_ceil(PANEL) {
            for (lane, output) in outputs_of(panel) {
                for g in 0..groups {
                    let to = ((panel * groups + g) * PANEL + lane) * scale_len;
                    let scale = scales[output * groups + g];
                    match short {
                        true => {
                            packed_scales[to..][..2].copy_from_slice(&bf16(scale).to_ne_bytes())
                        }
                        false => packed_scales[to..][..4].copy_from_slice(&scale.to_ne_bytes()),
                    }
                }
                if group == 0 {
                    let levels = &levels[output * inputs..][..inputs];
                    let start = -128 * levels.iter().map(|level| i32::from(*level)).sum::<i32>();
                    starts[panel * LINE + 4 * lane..][..4].copy_from_slice(&start.to_ne_bytes());
                }
            }
        }
        bytes
    }

    /// The levels `[O, I]` and scales `[O, G]` that it was packed from.
    pub fn unpack(&self) -> (Vec<i8>, Vec<f32>) {
        let mut levels = vec![0; self.inputs * self.outputs];
        if self.inputs > 0 {
            levels.par_chunks_mut(self.inputs).enumerate().for_each(|(output, levels)| {
                levels.iter_mut().enumerate().for_each(|(i, to)| *to = self.level(i, output));
            });
        }
        let groups = self.format.groups(self.inputs);
        let scales = 0..self.outputs * groups;
        (levels, scales.map(|i| self.scale(i % groups, i / groups)).collect())
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// `I`
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `O`
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights of one output, `[I]`.
    pub fn output(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs && out.len() == self.inputs, "output {output}");
        let group = self.format.group(self.inputs);
        for (g, out) in out.chunks_mut(group).enumerate() {
            let scale = self.scale(g, output);
            for (i, out) in out.iter_mut().enumerate() {
                *out = f32::from(self.level(g * group + i, output)) * scale;
            }
        }
    }

    /// All weights, `[O, I]` row by row.
    pub fn floats(&self) -> Vec<f32> {
        let mut floats = vec![0.0; self.inputs * self.outputs];
        if self.inputs > 0 {
            let rows = floats.par_chunks_mut(self.inputs).enumerate();
            rows.for_each(|(output, out)| self.output(output, out));
        }
        floats
    }

    #[inline]
    fn level(&self, input: usize, output: usize) -> i8 {
        let panel = self.panel(output / PANEL);
        match self.format {
            Format::Int8 => panel[at(input, output % PANEL)] as i8,
            Format::Int4 { .. } => {
                let (at, shift) = half(input, output % PANEL);
                (panel[at] >> shift & 15) as i8 - 8
            }
        }
    }

    pub(crate) fn scale(&self, group: usize, output: usize) -> f32 {
        let at = group * PANEL + output % PANEL;
        let lines = self.scale_lines(output / PANEL);
        match self.short {
            true => wide([lines[2 * at], lines[2 * at + 1]]),
            false => f32::from_ne_bytes(array(&lines[4 * at..])),
        }
    }

    /// Of the sixteen outputs of a panel.
    #[inline(always)]
    pub(super) fn scale_line(&self, panel: usize, group: usize) -> [f32; PANEL] {
        let lines = self.scale_lines(panel);
        if self.short {
            let (words, _) = lines[2 * PANEL * group..][..2 * PANEL].as_chunks::<2>();
            let words: &[[u8; 2]; PANEL] = words.first_chunk().expect("sixteen scales");
            words.map(wide)
        } else {
            let (words, _) = lines[4 * PANEL * group..][..4 * PANEL].as_chunks::<4>();
            let words: &[[u8; 4]; PANEL] = words.first_chunk().expect("sixteen scales");
            words.map(f32::from_ne_bytes)
        }
    }

    /// Bytes from one four of an output's inputs to the next.
    pub(crate) const STRIDE: usize = LINE;

    /// Int8: the levels of an output, four every [`Self::STRIDE`] bytes.
    pub(crate) fn words(&self, output: usize) -> &'a [u8] {
        &self.panel(output / PANEL)[output % PANEL * 4..]
    }

    /// Int8: minus 128 times the sum of an output's levels.
    pub(crate) fn start(&self, output: usize) -> i32 {
        i32::from_ne_bytes(array(&self.start_line(output / PANEL)[output % PANEL * 4..]))
    }

    /// `[I / 4, 16, 4]`, or the halves of that.
    #[inline]
    pub(super) fn panel(&self, panel: usize) -> &'a [u8] {
        let len = self.weights.len() / self.outputs.div_ceil(PANEL);
        &self.weights[panel * len..][..len]
    }

    /// `[G, 16]`
    fn scale_lines(&self, panel: usize) -> &'a [u8] {
        let len = self.format.groups(self.inputs) * if self.short { 2 } else { 4 } * PANEL;
        &self.scales[panel * len..][..len]
    }

    /// `[16]`, i32
    pub(super) fn start_line(&self, panel: usize) -> &'a [u8] {
        &self.starts[panel * LINE..][..LINE]
    }
}

/// Byte of a panel that holds an input of an output.
#[inline]
fn at(input: usize, lane: usize) -> usize {
    input / 4 * LINE + 4 * lane + input % 4
}

/// As [`at`], and how far to the left in it.
#[inline]
fn half(input: usize, lane: usize) -> (usize, u32) {
    (input / 8 * LINE + 4 * lane + input % 4, if input % 8 < 4 { 0 } else { 4 })
}

/// The first four bytes.
pub(crate) fn array(bytes: &[u8]) -> [u8; 4] {
    *bytes.first_chunk().expect("four bytes")
}

/// The upper half of a number whose lower half is zero.
fn bf16(number: f32) -> u16 {
    (number.to_bits() >> 16) as u16
}

#[inline(always)]
fn wide(bf16: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_ne_bytes(bf16)) << 16)
}
