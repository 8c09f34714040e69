//! Convolutions of images, `[N, C, H, W]`, with padding, stride, dilation and groups, and their gradients.
//!
//! Agrees with `torch.nn.functional.conv2d`. Sequences are images of height 1. A convolution is a product of the
//! weight, as it lies, with the runs of pixels of `planes`: no matrix of patches is built. With AVX-512 tiles read the runs
//! where they lie (`tile`), with AVX2 panels of a matrix product are copied from them. Convolutions of single pixels
//! (`pointwise`) and of single channels (`depthwise`) have loops of their own.
//!
//! Axis letters: `N` images, `C` input and `O` output channels, `G` groups, `H`, `W` input size.

mod depthwise;
pub mod levels;
mod pixels;
mod planes;
mod pointwise;
mod tile;

use std::{borrow::Cow, cell::RefCell};

use gemm::Parallelism;
use planes::{Axis, Layout};
use rayon::prelude::*;
use tile::{CHANNELS, PIXELS, Panel, Pieces, Starts, Sums, Tile};

use crate::{
    affine::{Finish, Line},
    matmul::{Matrix, MatrixMut, Plus, ROWS, Rows, Runs, by_avx2, gemm, product_of_runs},
};

/// Multiplications worth a task of their own.
const TASK: usize = 1 << 18;
/// Tasks that a convolution is cut into if it is large enough.
const TASKS: usize = 16;
/// Numbers of a cache line.
const LINE: usize = 16;
/// Numbers of planes that a task works on: half of what a core's own cache holds.
const PLANES: usize = 1 << 17;
/// Numbers of weights that are read again for every tile of pixels; more are read once, and the pixels again.
const WEIGHTS: usize = 1 << 16;

/// Pixels of a task for which it is nothing to copy the weights.
const MANY: usize = 512;
/// Numbers of the planes of a task whose panels are copied from them: a part of the last cache.
const PIXELS_OF_TASK: usize = 1 << 20;

thread_local! {
    /// The planes of a task: fresh memory for each would cost more than to fill it.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
    /// Sums before they go to their places: without the columns between the rows, or `steps` apart.
    static FLAT: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

/// What is convolved; pairs are of rows, then of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    pub batch: usize,
    /// `C` and `O`, both a multiple of `groups`.
    pub channels: [usize; 2],
    /// `H` and `W`.
    pub size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Zeros before and after the rows, and before and after the columns.
    pub padding: [[usize; 2]; 2],
    pub groups: usize,
}

impl Conv2d {
    /// Rows and columns of the output.
    pub fn out_size(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let [before, after] = self.padding[axis];
            let padded = self.size[axis] + before + after;
            let kernel = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            assert!(padded >= kernel, "a kernel of {kernel} over {padded}");
            (padded - kernel) / self.stride[axis] + 1
        })
    }

    /// Elements of the input, the weight and the output.
    fn lengths(&self) -> [usize; 3] {
        let [channels, outputs] = self.channels;
        assert!(channels.is_multiple_of(self.groups) && outputs.is_multiple_of(self.groups));
        let product = |of: [usize; 2]| of[0] * of[1];
        [
            self.batch * channels * product(self.size),
            outputs * (channels / self.groups) * product(self.kernel),
            self.batch * outputs * product(self.out_size()),
        ]
    }

    /// A sequence as one column, so that it can be cut into blocks of rows.
    fn upright(mut self) -> Self {
        if self.size[0] == 1 && self.kernel[0] == 1 && self.padding[0] == [0, 0] {
            for pair in [&mut self.size, &mut self.kernel, &mut self.stride, &mut self.dilation] {
                pair.swap(0, 1);
            }
            self.padding.swap(0, 1);
        }
        self
    }

    fn groups_of(&self) -> [usize; 2] {
        self.channels.map(|channels| channels / self.groups)
    }

    /// How the weights of an axis meet the input: each in the phase and at the shift of its position.
    fn taps(&self, axis: usize) -> (Axis, Vec<Tap>) {
        let stride = self.stride[axis];
        let at = |k: usize| k * self.dilation[axis];
        let mut phases: Vec<usize> = (0..self.kernel[axis]).map(|k| at(k) % stride).collect();
        phases.sort_unstable();
        phases.dedup();
        let tap = |k| Tap {
            index: k,
            phase: phases.binary_search(&(at(k) % stride)).expect("it is among them"),
            shift: (at(k) / stride) as isize,
        };
        let taps: Vec<Tap> = (0..self.kernel[axis]).map(tap).collect();
        let shifts = [0, taps.iter().map(|tap| tap.shift).max().unwrap_or(0)];
        let (length, pad) = (self.size[axis], self.padding[axis][0]);
        (Axis { length, step: stride, pad, phases, shifts }, taps)
    }

    /// How the weights of an axis meet the gradient of the output, for each residue of the input's positions by the
    /// stride: `input = output * stride + index * dilation - pad`, solved for the output.
    fn gradient_taps(&self, axis: usize) -> (Axis, Vec<Vec<Tap>>) {
        let stride = self.stride[axis] as isize;
        let solve = |residue: isize| {
            let taps = (0..self.kernel[axis]).filter_map(|index| {
                let at = residue + self.padding[axis][0] as isize
                    - (index * self.dilation[axis]) as isize;
                (at % stride == 0).then_some(Tap { index, phase: 0, shift: at / stride })
            });
            taps.collect::<Vec<Tap>>()
        };
        let taps: Vec<Vec<Tap>> = (0..stride).map(solve).collect();
        let shifts = || taps.iter().flatten().map(|tap| tap.shift);
        let shifts = [shifts().min().unwrap_or(0), shifts().max().unwrap_or(0)];
        let length = self.out_size()[axis];
        (Axis { length, step: 1, pad: 0, phases: vec![0], shifts }, taps)
    }
}

/// A row or column of the kernel, and where its pixels are.
#[derive(Debug, Clone, Copy)]
struct Tap {
    index: usize,
    phase: usize,
    shift: isize,
}

/// `x`: `[N, C, H, W]`, `weight`: `[O, C / G, kernel]` -> `out`: `[N, O, out_size]`
pub fn forward(x: &[f32], weight: &[f32], finish: Finish, conv: &Conv2d, out: &mut [f32]) {
    assert_eq!([x.len(), weight.len(), out.len()], conv.lengths(), "{conv:?}");
    let a_channel = |numbers: Option<&[f32]>| numbers.is_none_or(|n| n.len() == conv.channels[1]);
    assert!(a_channel(finish.scale) && a_channel(finish.shift));
    assert!(finish.residual.is_none_or(|residual| residual.len() == out.len()));
    crate::awake::keep_awake();
    let conv = conv.upright();
    if pointwise::takes(&conv) {
        return pointwise::forward(x, weight, finish, &conv, out);
    }
    if depthwise::takes(&conv) {
        return depthwise::forward(x, weight, finish, &conv, out);
    }
    let ((rows, row_taps), (cols, col_taps)) = (conv.taps(0), conv.taps(1));
    let pass = Pass { residue: [0, 0], taps: [row_taps, col_taps], weight: Cow::Borrowed(weight) };
    let product = Product {
        batch: conv.batch,
        groups: conv.groups,
        channels: conv.groups_of(),
        size: conv.out_size(),
        steps: [1, 1],
        axes: [rows, cols],
        passes: vec![pass],
    };
    product.run(x, finish, out);
}

/// Gradient of [`forward`] with respect to `x`; `dy` is of the output's shape, `dx` of `x`'s.
pub fn input_gradient(dy: &[f32], weight: &[f32], conv: &Conv2d, dx: &mut [f32]) {
    assert_eq!([dx.len(), weight.len(), dy.len()], conv.lengths(), "{conv:?}");
    crate::awake::keep_awake();
    let conv = conv.upright();
    if pointwise::takes(&conv) {
        return pointwise::input_gradient(dy, weight, &conv, dx);
    }
    let ((rows, row_taps), (cols, col_taps)) = (conv.gradient_taps(0), conv.gradient_taps(1));
    let mut passes = vec![];
    for (y, rows) in row_taps.iter().enumerate() {
        for (x, cols) in col_taps.iter().enumerate() {
            let taps = [rows.clone(), cols.clone()];
            let weight = Cow::Owned(conv.turned(weight, &taps));
            passes.push(Pass { residue: [y, x], taps, weight });
        }
    }
    let [channels, outputs] = conv.groups_of();
    let product = Product {
        batch: conv.batch,
        groups: conv.groups,
        channels: [outputs, channels],
        size: conv.size,
        steps: conv.stride,
        axes: [rows, cols],
        passes,
    };
    product.run(dy, Finish::default(), dx);
}

impl Conv2d {
    /// `[O, C / G, kernel]` -> `[C, O / G, taps]`
    fn turned(&self, weight: &[f32], taps: &[Vec<Tap>; 2]) -> Vec<f32> {
        let [channels, outputs] = self.groups_of();
        let [height, width] = self.kernel;
        let count = taps[0].len() * taps[1].len();
        let mut turned = vec![0.0; self.channels[0] * outputs * count];
        if turned.is_empty() {
            return turned;
        }
        // Several channels at a time, because they lie together in the weight.
        const TOGETHER: usize = 16;
        let area = height * width;
        turned.par_chunks_mut(channels * outputs * count).enumerate().for_each(
            |(group, turned)| {
                let block = TOGETHER * outputs * count;
                turned.par_chunks_mut(block).enumerate().for_each(|(block, turned)| {
                    for o in 0..outputs {
                        let at = ((group * outputs + o) * channels + block * TOGETHER) * area;
                        let turned = turned.chunks_exact_mut(outputs * count);
                        for (turned, kernel) in turned.zip(weight[at..].chunks_exact(area)) {
                            let turned = &mut turned[o * count..][..count];
                            let taps =
                                taps[0].iter().flat_map(|y| taps[1].iter().map(move |x| (y, x)));
                            for (turned, (y, x)) in turned.iter_mut().zip(taps) {
                                *turned = kernel[y.index * width + x.index];
                            }
                        }
                    }
                });
            },
        );
        turned
    }
}

/// A product of weights with runs of planes; both [`forward`] and [`input_gradient`] are one.
struct Product<'a> {
    batch: usize,
    groups: usize,
    /// Read and written, of a group.
    channels: [usize; 2],
    /// Of what is written.
    size: [usize; 2],
    /// Rows and columns of what is written between two of the same pass.
    steps: [usize; 2],
    axes: [Axis; 2],
    passes: Vec<Pass<'a>>,
}

/// What is written to the rows and columns of one residue by [`Product::steps`].
struct Pass<'a> {
    residue: [usize; 2],
    taps: [Vec<Tap>; 2],
    /// `[G, written, read, taps]`
    weight: Cow<'a, [f32]>,
}

/// Some channels of some rows of an image.
struct Task<'a> {
    image: usize,
    group: usize,
    /// Within the group.
    first_channel: usize,
    /// As of the passes, not of what is written.
    first_row: usize,
    /// A row a channel.
    out: MatrixMut<'a>,
}

impl Product<'_> {
    fn run(&self, x: &[f32], finish: Finish, out: &mut [f32]) {
        let [read, written] = self.channels;
        let area = self.size[0] * self.size[1];
        if out.is_empty() {
            return;
        }
        let (block, part) = self.blocks();
        let counts = [block, self.size[1].div_ceil(self.steps[1])];
        let layout = Layout::new(self.axes.clone(), counts);
        let starts: Vec<Starts> =
            self.passes.iter().map(|pass| self.starts(pass, &layout)).collect();
        let source = layout.axes[0].length * layout.axes[1].length;
        let source_of = |image: usize, group: usize, c: usize| {
            &x[((image * self.groups + group) * read + c) * source..][..source]
        };

        let blocks = self.size[0].div_ceil(block * self.steps[0]);
        let mut tasks: Vec<Task> = vec![];
        for (channels, out) in out.chunks_mut(written * area).enumerate() {
            let (image, group) = (channels / self.groups, channels % self.groups);
            let parts = MatrixMut::new(out, written, area).into_blocks_of_rows(part);
            for (p, out) in parts.enumerate() {
                let blocks = out.into_blocks_of_cols(block * self.steps[0] * self.size[1]);
                let first_channel = p * part;
                tasks.extend(blocks.zip((0..).step_by(block)).map(|(out, first_row)| Task {
                    image,
                    group,
                    first_channel,
                    first_row,
                    out,
                }));
            }
        }

        if part < written {
            // Several tasks read the same planes: made once, by all threads.
            let mut planes = vec![0.0; layout.len(read)];
            for image in 0..self.batch {
                for group in 0..self.groups {
                    for b in 0..blocks {
                        planes
                            .par_chunks_exact_mut(layout.channel())
                            .take(read)
                            .enumerate()
                            .for_each(|(c, planes)| {
                                layout.fill(source_of(image, group, c), 0.0, b * block, planes);
                            });
                        tasks
                            .par_iter_mut()
                            .filter(|task| {
                                task.image == image
                                    && task.group == group
                                    && task.first_row == b * block
                            })
                            .for_each(|task| self.one(task, &layout, &starts, &planes, finish));
                    }
                }
            }
            return;
        }
        let least = (TASK / self.work().div_ceil(tasks.len()).max(1)).clamp(1, 32);
        tasks.par_iter_mut().with_min_len(least).for_each(|task| {
            SCRATCH.with_borrow_mut(|planes| {
                let length = layout.len(read);
                planes.resize(planes.len().max(length + LINE), 0.0);
                let start = planes.as_ptr().align_offset(4 * LINE);
                let planes = &mut planes[start..][..length];
                for (c, planes) in planes.chunks_exact_mut(layout.channel()).take(read).enumerate()
                {
                    let source = source_of(task.image, task.group, c);
                    layout.fill(source, 0.0, task.first_row, planes);
                }
                self.one(task, &layout, &starts, planes, finish);
            });
        });
    }

    fn work(&self) -> usize {
        let weights: usize = self.passes.iter().map(|pass| pass.weight.len()).sum();
        let steps = self.steps[0] * self.steps[1];
        self.batch * weights * (self.size[0] * self.size[1] / steps).max(1)
    }

    /// Rows, of a pass, and channels of a task. Sizes alone choose them, so the result does not depend on the
    /// number of threads.
    fn blocks(&self) -> (usize, usize) {
        if by_avx2() {
            return self.blocks_of_panels();
        }
        let [read, written] = self.channels;
        let rows = self.size[0].div_ceil(self.steps[0]);
        let cols = self.size[1].div_ceil(self.steps[1]);
        let tasks = (self.work() / TASK).clamp(1, TASKS);
        let images = self.batch * self.groups;
        let layout = |rows| Layout::new(self.axes.clone(), [rows, cols]);
        let (of_rows, shared) = (|rows| layout(rows).len(read), layout(0).rows);
        // As many rows as fit the cache beside the weights.
        let (none, all) = (of_rows(0), of_rows(rows));
        let a_row = ((all - none.min(all)) / rows).max(1);
        let fitting = (PLANES.saturating_sub(none) / a_row).max(PIXELS.div_ceil(cols));
        let weights = self.passes.iter().map(|pass| pass.weight.len()).sum::<usize>() / self.groups;
        // A block reads all weights anew, and the rows that it shares with the next one twice.
        let least = if weights > WEIGHTS { 6 * PIXELS } else { 4 * PIXELS };
        let block = if weights < all {
            let least = least.div_ceil(cols).max(3 * shared);
            rows.div_ceil(tasks.div_ceil(images)).max(least).min(fitting)
        } else {
            fitting
        };
        // A few more, if that leaves less of the last tile unused.
        let unused = |rows: usize| {
            let pixels = (rows - 1) * layout(1).pitch + cols;
            (pixels.next_multiple_of(PIXELS / 3) - pixels) as f64 / pixels as f64
                + (pixels.next_multiple_of(PIXELS) - pixels) as f64 / pixels as f64
        };
        let more = block.min(rows)..=(block + block / 2).min(rows);
        let block = more.min_by(|a, b| unused(*a).total_cmp(&unused(*b))).unwrap_or(rows);
        let blocks = rows.div_ceil(block);
        let parts = (tasks / (images * blocks)).max(1);
        let panels = written.div_ceil(CHANNELS);
        (block, (panels.div_ceil(parts) * CHANNELS).min(written))
    }

    /// The same for panels, whose sums do not depend on it: every task copies its weights once if it has many pixels, and its
    /// pixels once. So there are few of them, with all channels if that leaves enough pixels for each.
    fn blocks_of_panels(&self) -> (usize, usize) {
        let [read, written] = self.channels;
        let [rows, cols] = [0, 1].map(|axis| self.size[axis].div_ceil(self.steps[axis]));
        let threads = rayon::current_num_threads();
        let most = if rows * cols >= 2 * threads * MANY { 2 * threads } else { threads };
        let tasks = (self.work() / TASK).clamp(1, most).div_ceil(self.batch * self.groups);
        let numbers = |rows| Layout::new(self.axes.clone(), [rows, cols]).len(read);
        let a_row = (numbers(rows) - numbers(0)).div_ceil(rows).max(1);
        let fitting = (PIXELS_OF_TASK.saturating_sub(numbers(0)) / a_row).max(1);
        let enough = rows * cols >= tasks * MANY / 4;
        let block = if enough { rows.div_ceil(tasks) } else { rows }.min(fitting);
        let parts = (tasks / rows.div_ceil(block)).max(1);
        (block, written.div_ceil(parts).next_multiple_of(ROWS).min(written))
    }

    fn starts(&self, pass: &Pass, layout: &Layout) -> Starts {
        let mut starts = vec![];
        for c in 0..self.channels[0] {
            for y in &pass.taps[0] {
                for x in &pass.taps[1] {
                    let at = layout.start([y.phase, x.phase], [y.shift, x.shift]);
                    let at = c * layout.channel() + at;
                    starts.push(u32::try_from(at).expect("planes of a block are below 4 G"));
                }
            }
        }
        Starts::new(starts)
    }

    fn one(
        &self,
        task: &mut Task,
        layout: &Layout,
        starts: &[Starts],
        planes: &[f32],
        finish: Finish,
    ) {
        let written = self.channels[1];
        let channel = task.group * written + task.first_channel;
        let first = task.image * self.groups * written + channel;
        let (first_row, length) = (task.first_row * self.steps[0], task.out.cols());
        let (area, channels) = (self.size[0] * self.size[1], task.out.rows());
        let residual = finish.residual.map(|all| {
            let all = &all[first * area + first_row * self.size[1]..];
            Matrix::strided(all, channels, length, area, 1)
        });
        let rows = length / self.size[1];
        for (pass, starts) in self.passes.iter().zip(starts) {
            let lines = [0, 1].map(|axis| {
                let length = [rows, self.size[1]][axis];
                (length + self.steps[axis] - 1 - pass.residue[axis]) / self.steps[axis]
            });
            if lines.contains(&0) {
                continue;
            }
            let place = Place {
                lines,
                pitch: layout.pitch,
                out_pitch: self.size[1],
                steps: self.steps,
                residue: pass.residue,
            };
            let depth = starts.len();
            let weight = &pass.weight[channel * depth..][..channels * depth];
            let pixels = (lines[0] - 1) * layout.pitch + lines[1];
            let residual_of = |c: usize| residual.map(|residual| residual.row(c));
            if channels == 1 {
                let (line, residual) = (finish.line(channel), residual_of(0));
                FLAT.with_borrow_mut(|flat| {
                    flat.resize(flat.len().max(pixels), 0.0);
                    tile::whole_channel(weight, planes, starts, &mut flat[..pixels]);
                    place.write(&flat[..pixels], 0, line, residual, task.out.row(0));
                });
                continue;
            }
            if by_avx2() {
                let finish = Rows {
                    scale: finish.scale.map(|scale| &scale[channel..][..channels]),
                    shift: finish.shift.map(|shift| &shift[channel..][..channels]),
                    residual,
                    activation: finish.activation,
                };
                let runs = Runs {
                    planes,
                    starts: starts.as_slice(),
                    width: lines[1],
                    pitch: layout.pitch,
                };
                let weight = Matrix::new(weight, channels, depth);
                place.write_product(&mut task.out, finish, weight, runs);
                continue;
            }
            let mut out = task.out.as_rows();
            let firsts = (0..pixels).step_by(PIXELS);
            let pieces: Vec<Pieces> = firsts
                .clone()
                .map(|first| place.pieces(first, PIXELS.min(pixels - first)))
                .collect();
            let panels: Vec<Panel> = (0..channels)
                .step_by(CHANNELS)
                .map(|first| {
                    // Behind the last channel, once more the last.
                    let at: [usize; CHANNELS] =
                        std::array::from_fn(|r| (first + r).min(channels - 1));
                    Panel {
                        weight: at.map(|c| &weight[c * depth..][..depth]),
                        lines: at.map(|c| finish.line(channel + c)),
                        residual: residual.map(|residual| at.map(|c| residual.row(c))),
                    }
                })
                .collect();
            let tile = |first: usize, out: &mut [&mut [f32]], panel: usize| {
                let count = PIXELS.min(pixels - first);
                let tile = Tile { panel: &panels[panel], planes, starts, first };
                if self.steps[1] > 1 || !tile::write(tile, count, &pieces[first / PIXELS], out) {
                    place.write_sums(tile, count, out);
                }
            };
            if weight.len() <= WEIGHTS {
                for first in firsts {
                    let panels = out.chunks_mut(CHANNELS).enumerate();
                    panels.for_each(|(panel, out)| tile(first, out, panel));
                }
            } else {
                for (panel, out) in out.chunks_mut(CHANNELS).enumerate() {
                    firsts.clone().for_each(|first| tile(first, out, panel));
                }
            }
        }
    }
}

/// Where the pixels of a run are written.
#[derive(Clone, Copy)]
struct Place {
    /// Rows and columns of the pass.
    lines: [usize; 2],
    /// From row to row, of the run and of what is written.
    pitch: usize,
    out_pitch: usize,
    steps: [usize; 2],
    residue: [usize; 2],
}

impl Place {
    /// All channels of a task at once.
    fn write_product(&self, out: &mut MatrixMut, finish: Rows, weight: Matrix, runs: Runs) {
        if self.steps == [1, 1] {
            return product_of_runs(out, Plus::Rows(finish), weight, runs);
        }
        // First the sums together, then each to its place among the others.
        let [channels, count] = [out.rows(), self.lines[0] * self.lines[1]];
        FLAT.with_borrow_mut(|flat| {
            flat.resize(flat.len().max(channels * count), 0.0);
            let mut sums = MatrixMut::new(&mut flat[..channels * count], channels, count);
            product_of_runs(&mut sums, Plus::Nothing, weight, runs);
            let place = Self { pitch: self.lines[1], ..*self };
            for c in 0..channels {
                let residual = finish.residual.map(|residual| residual.row(c));
                place.write(sums.row(c), 0, finish.line(c), residual, out.row(c));
            }
        });
    }

    /// As [`Self::write`], for rows whose pixels lie together.
    fn pieces(&self, first: usize, count: usize) -> Pieces {
        let mut pieces = Pieces::default();
        let mut done = 0;
        while done < count {
            let (row, col) = ((first + done) / self.pitch, (first + done) % self.pitch);
            let merged =
                self.pitch == self.lines[1] && self.pitch == self.out_pitch && self.steps[0] == 1;
            let line =
                if merged { count } else { self.lines[1].saturating_sub(col).min(count - done) };
            if line > 0 {
                let at = (row * self.steps[0] + self.residue[0]) * self.out_pitch + col;
                pieces.push(done, line, at + self.residue[1]);
            }
            done += if merged { count } else { self.pitch - col };
        }
        pieces
    }

    /// What [`tile::write`] does, for any place and on any CPU.
    #[inline(never)]
    fn write_sums(&self, tile: Tile, count: usize, out: &mut [&mut [f32]]) {
        let mut sums: Sums = [[0.0; PIXELS]; CHANNELS];
        tile::sums(tile, count, &mut sums);
        let Panel { lines, residual, .. } = tile.panel;
        for (r, (out, sums)) in out.iter_mut().zip(&sums).enumerate() {
            let residual = residual.map(|residual| residual[r]);
            self.write(&sums[..count], tile.first, lines[r], residual, out);
        }
    }

    /// `sums` are those from `first` on; the residual lies as `out`.
    fn write(
        &self,
        sums: &[f32],
        first: usize,
        by: Line,
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) {
        // To `at` and what is `step` later.
        let mut put = |sums: &[f32], at: usize, step: usize| {
            if step == 1 {
                let here = at..at + sums.len();
                by.write(sums, residual.map(|r| &r[here.clone()]), &mut out[here]);
            } else {
                for (i, sum) in sums.iter().enumerate() {
                    let at = at + i * step;
                    out[at] = by.of(*sum, residual.map_or(0.0, |r| r[at]));
                }
            }
        };
        if self.pitch == self.lines[1] && self.pitch == self.out_pitch {
            // No columns between the rows: a run is one line if rows are not far apart or of one pixel.
            let (step, at) = (self.steps[0], first * self.steps[0] + self.residue[0]);
            if step == 1 || self.pitch == 1 {
                return put(sums, at, step);
            }
        }
        let (mut row, mut col) = (first / self.pitch, first % self.pitch);
        let mut sums = sums;
        while !sums.is_empty() {
            let (line, rest) = sums.split_at(sums.len().min(self.pitch - col));
            let line = &line[..line.len().min(self.lines[1].saturating_sub(col))];
            if !line.is_empty() {
                let at = (row * self.steps[0] + self.residue[0]) * self.out_pitch
                    + col * self.steps[1]
                    + self.residue[1];
                put(line, at, self.steps[1]);
            }
            (sums, row, col) = (rest, row + 1, 0);
        }
    }
}

/// Gradient of [`forward`] with respect to the bias.
pub fn bias_gradient(dy: &[f32], conv: &Conv2d, db: &mut [f32]) {
    let outputs = conv.channels[1];
    let [height, width] = conv.out_size();
    assert_eq!(db.len(), outputs);
    assert_eq!(dy.len(), conv.lengths()[2]);
    crate::awake::keep_awake();
    let area = height * width;
    db.par_iter_mut()
        .with_min_len((crate::BLOCK / (conv.batch * area).max(1)).max(1))
        .enumerate()
        .for_each(|(o, db)| {
            let planes = (0..conv.batch).map(|n| &dy[(n * outputs + o) * area..][..area]);
            *db = planes.map(crate::math::sum).sum();
        });
}

/// Gradient of [`forward`] with respect to the weight.
///
/// One product a weight position, of all channels of `dy` with the runs that the position met.
pub fn weight_gradient(x: &[f32], dy: &[f32], conv: &Conv2d, dw: &mut [f32]) {
    assert_eq!([x.len(), dw.len(), dy.len()], conv.lengths(), "{conv:?}");
    crate::awake::keep_awake();
    let conv = conv.upright();
    let ((rows, row_taps), (cols, col_taps)) = (conv.taps(0), conv.taps(1));
    let [height, width] = conv.out_size();
    let [read, written] = conv.groups_of();
    let source = rows.length * cols.length;
    let layout = Layout::new([rows, cols], [height, width]);
    let starts: Vec<usize> = row_taps
        .iter()
        .flat_map(|y| col_taps.iter().map(move |x| (y, x)))
        .map(|(y, x)| layout.start([y.phase, x.phase], [y.shift, x.shift]))
        .collect();
    let (taps, each) = (starts.len(), read * written);
    // `[G, taps, O, C]`, of a group
    let mut sums = vec![0.0; dw.len()];
    if dw.is_empty() {
        return;
    }

    if each == 1 {
        let channels = dw.par_chunks_exact_mut(taps).enumerate();
        let least = (TASK / (taps * height * width)).clamp(1, 32);
        channels.with_min_len(least).for_each(|(c, dw)| {
            dw.fill(0.0);
            for image in 0..conv.batch {
                let channel = image * conv.groups + c;
                let x = &x[channel * source..][..source];
                let dy = &dy[channel * height * width..][..height * width];
                add_channel(x, dy, width, &layout, &starts, dw);
            }
        });
        return;
    }

    let mut planes = vec![0.0; layout.len(conv.channels[0])];
    // Rows of `dy` as far apart as those of the planes, zeros between them.
    let line = height * layout.pitch;
    let mut spread = vec![0.0; conv.channels[1] * line];
    for image in 0..conv.batch {
        let x = &x[image * conv.channels[0] * source..][..conv.channels[0] * source];
        let dy =
            &dy[image * conv.channels[1] * height * width..][..conv.channels[1] * height * width];
        planes.par_chunks_exact_mut(layout.channel()).zip(x.par_chunks_exact(source)).for_each(
            |(planes, x)| layout.fill(x, 0.0, 0, planes), // what is zero stays so from image to image
        );
        spread
            .par_chunks_exact_mut(layout.pitch)
            .zip(dy.par_chunks_exact(width))
            .for_each(|(spread, dy)| spread[..width].copy_from_slice(dy));
        let pixels = line - layout.pitch + width;
        let one = |index: usize, sums: &mut [f32], by: Parallelism| {
            let (group, tap) = (index / taps, index % taps);
            let dy = &spread[group * written * line..][..written * line];
            let runs = &planes[group * read * layout.channel() + starts[tap]..];
            let dy = Matrix::strided(dy, written, pixels, line, 1);
            let runs = Matrix::strided(runs, read, pixels, layout.channel(), 1).transposed();
            let sums = MatrixMut::strided(sums, dy.rows(), runs.cols(), read);
            gemm(sums, true, dy, runs, by);
        };
        if conv.groups * taps < 4 {
            let sums = sums.chunks_exact_mut(each).enumerate();
            sums.for_each(|(index, sums)| one(index, sums, Parallelism::Rayon(0)));
        } else {
            let sums = sums.par_chunks_exact_mut(each).enumerate();
            let least = (TASK / (each * pixels)).max(1);
            sums.with_min_len(least).for_each(|(index, sums)| one(index, sums, Parallelism::None));
        }
    }
    dw.par_chunks_exact_mut(read * taps).enumerate().for_each(|(o, dw)| {
        let (group, o) = (o / written, o % written);
        let sums = &sums[group * taps * each..][..taps * each];
        for (tap, sums) in sums.chunks_exact(each).enumerate() {
            let sums = &sums[o * read..][..read];
            dw[tap..].iter_mut().step_by(taps).zip(sums).for_each(|(dw, sum)| *dw = *sum);
        }
    });
}

/// Adds what one channel of one image gives to the gradient of its weights.
fn add_channel(
    x: &[f32],
    dy: &[f32],
    width: usize,
    layout: &Layout,
    starts: &[usize],
    dw: &mut [f32],
) {
    SCRATCH.with_borrow_mut(|planes| {
        planes.resize(planes.len().max(layout.len(1)), 0.0);
        layout.fill(x, 0.0, 0, planes);
        FLAT.with_borrow_mut(|flat| {
            let rows = dy.len() / width;
            flat.clear();
            flat.resize(rows * layout.pitch, 0.0);
            for (flat, dy) in flat.chunks_exact_mut(layout.pitch).zip(dy.chunks_exact(width)) {
                flat[..width].copy_from_slice(dy);
            }
            add_dots(&flat[..(rows - 1) * layout.pitch + width], planes, starts, dw);
        });
    });
}

#[inline(always)]
fn any_add_dots(dy: &[f32], planes: &[f32], starts: &[usize], sums: &mut [f32]) {
    for (sum, start) in sums.iter_mut().zip(starts) {
        *sum += crate::matvec::dot(dy, &planes[*start..][..dy.len()]);
    }
}

crate::for_this_cpu!(add_dots = any_add_dots(
    dy: &[f32], planes: &[f32], starts: &[usize], sums: &mut [f32]
));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::affine::Activation;

    pub(super) fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed * 977) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    /// The specification: one multiplication at a time, as `f(output, weight, input)` by their indices.
    pub(super) fn each_product(conv: &Conv2d, mut f: impl FnMut(usize, usize, usize)) {
        let [read, written] = conv.groups_of();
        let ([height, width], [kernel_h, kernel_w]) = (conv.out_size(), conv.kernel);
        for n in 0..conv.batch {
            for o in 0..conv.channels[1] {
                for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                    for c in 0..read {
                        for (ky, kx) in
                            (0..kernel_h).flat_map(|ky| (0..kernel_w).map(move |kx| (ky, kx)))
                        {
                            let row = y * conv.stride[0] + ky * conv.dilation[0];
                            let col = x * conv.stride[1] + kx * conv.dilation[1];
                            let row = row.wrapping_sub(conv.padding[0][0]);
                            let col = col.wrapping_sub(conv.padding[1][0]);
                            if row < conv.size[0] && col < conv.size[1] {
                                let channel = n * conv.channels[0] + o / written * read + c;
                                f(
                                    ((n * conv.channels[1] + o) * height + y) * width + x,
                                    ((o * read + c) * kernel_h + ky) * kernel_w + kx,
                                    (channel * conv.size[0] + row) * conv.size[1] + col,
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    fn close(found: &[f32], expected: &[f64], what: &str, conv: &Conv2d) {
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(error < 2e-4, "{what} {i}: {found}, not {expected}, of {conv:?}");
        }
    }

    fn check(conv: &Conv2d) {
        let [inputs, weights, outputs] = conv.lengths();
        let (x, w, dy) = (numbers(inputs, 1), numbers(weights, 2), numbers(outputs, 3));
        let bias = numbers(conv.channels[1], 4);
        let area = conv.out_size()[0] * conv.out_size()[1];
        let channel = |i: usize| i / area % conv.channels[1];
        let mut y_expected = vec![0.0; outputs];
        let (mut dx_expected, mut dw_expected) = (vec![0.0; inputs], vec![0.0; weights]);
        each_product(conv, |o, k, i| {
            y_expected[o] += f64::from(w[k]) * f64::from(x[i]);
            dx_expected[i] += f64::from(w[k]) * f64::from(dy[o]);
            dw_expected[k] += f64::from(x[i]) * f64::from(dy[o]);
        });
        let mut db_expected = vec![0.0; conv.channels[1]];
        dy.iter().enumerate().for_each(|(i, dy)| db_expected[channel(i)] += f64::from(*dy));

        let nan = |n| vec![f32::NAN; n];
        let (mut y, mut dx) = (nan(outputs), nan(inputs));
        let (mut dw, mut db) = (nan(weights), nan(conv.channels[1]));
        let (scale, residual) = (numbers(conv.channels[1], 5), numbers(outputs, 6));
        let shifted = |i: usize, y: f64| y + f64::from(bias[channel(i)]);
        let all = |i: usize, y: f64| {
            let y = shifted(i, y * f64::from(scale[channel(i)])) + f64::from(residual[i]);
            y.clamp(0.0, 6.0)
        };
        let activation = Activation::Relu6;
        let (scale, residual) = (Some(&scale[..]), Some(&residual[..]));
        let finish = Finish { scale, shift: Some(&bias), residual, activation };
        forward(&x, &w, finish, conv, &mut y);
        let expected: Vec<f64> = y_expected.iter().enumerate().map(|(i, y)| all(i, *y)).collect();
        close(&y, &expected, "finished output", conv);
        forward(&x, &w, Finish::bias(Some(&bias)), conv, &mut y);
        y_expected.iter_mut().enumerate().for_each(|(i, y)| *y = shifted(i, *y));
        close(&y, &y_expected, "output", conv);
        input_gradient(&dy, &w, conv, &mut dx);
        close(&dx, &dx_expected, "input gradient", conv);
        weight_gradient(&x, &dy, conv, &mut dw);
        close(&dw, &dw_expected, "weight gradient", conv);
        bias_gradient(&dy, conv, &mut db);
        close(&db, &db_expected, "bias gradient", conv);
    }

    /// With intrinsics and without.
    #[test]
    fn both_ways_to_a_tile() {
        let (planes, weights) = (numbers(500, 1), numbers(CHANNELS * 30, 2));
        let residual = numbers(CHANNELS * 60, 3);
        let panel = Panel {
            weight: std::array::from_fn(|r| &weights[r * 30..][..30]),
            lines: std::array::from_fn(|r| Line::new(0.5, r as f32, Activation::Relu)),
            residual: Some(std::array::from_fn(|r| &residual[r * 60..][..60])),
        };
        let starts = Starts::new((0..30).map(|k| k * 13 % 400).collect());
        let tile = Tile { panel: &panel, planes: &planes, starts: &starts, first: 5 };
        for (lines, count) in [([1, 40], 40), ([4, 9], 42), ([2, 7], 18), ([1, 1], 1)] {
            let place = Place {
                lines,
                pitch: lines[1] + 2,
                out_pitch: 10.max(lines[1]),
                steps: [1, 1],
                residue: [0, 0],
            };
            let (mut by_sums, mut by_write) = (vec![0.0; CHANNELS * 60], vec![0.0; CHANNELS * 60]);
            let mut out: Vec<&mut [f32]> = by_sums.chunks_mut(60).collect();
            place.write_sums(Tile { first: 0, planes: &planes[5..], ..tile }, count, &mut out);
            let mut out: Vec<&mut [f32]> = by_write.chunks_mut(60).collect();
            if tile::write(tile, count, &place.pieces(0, count), &mut out) {
                for (found, expected) in by_write.iter().zip(&by_sums) {
                    assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
                }
            }
        }
    }

    pub(super) const SMALL: Conv2d = Conv2d {
        batch: 1,
        channels: [3, 5],
        size: [6, 7],
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [[1, 1]; 2],
        groups: 1,
    };

    /// Sizes that are cut into blocks of rows, parts of channels or neither.
    #[test]
    fn known_layers() {
        check(&SMALL);
        let half = Conv2d { batch: 2, channels: [16, 24], size: [28, 29], ..SMALL };
        check(&half);
        check(&Conv2d { stride: [2, 2], padding: [[0, 1], [2, 1]], ..half });
        check(&Conv2d { kernel: [1, 1], padding: [[0, 0]; 2], ..half });
        check(&Conv2d { channels: [24, 24], groups: 24, stride: [2, 2], ..half });
        check(&Conv2d { channels: [96, 100], size: [5, 5], ..SMALL });
        check(&Conv2d {
            channels: [3, 16],
            size: [40, 40],
            kernel: [7, 7],
            stride: [2, 2],
            ..SMALL
        });
        let sequence = Conv2d { size: [1, 300], padding: [[0, 0]; 2], kernel: [1, 10], ..SMALL };
        check(&Conv2d { channels: [1, 64], stride: [1, 5], ..sequence });
        let padded = Conv2d { padding: [[0, 0], [64, 64]], kernel: [1, 128], ..sequence };
        check(&Conv2d { channels: [12, 12], size: [1, 60], groups: 4, ..padded });
    }

    pub(super) fn any_conv() -> impl Strategy<Value = Conv2d> {
        let pair = |range: std::ops::Range<usize>| [range.clone(), range];
        (
            (1..3usize, 1..4usize, 1..5usize, 1..12usize),
            pair(1..20),
            pair(1..5),
            pair(1..4),
            pair(1..3),
            [pair(0..4), pair(0..4)],
        )
            .prop_map(
                |((batch, groups, read, written), size, kernel, stride, dilation, padding)| {
                    let channels = [groups * read, groups * written];
                    Conv2d { batch, channels, size, kernel, stride, dilation, padding, groups }
                },
            )
            .prop_filter("the kernel fits", |conv| {
                (0..2).all(|axis| {
                    let padded = conv.size[axis] + conv.padding[axis][0] + conv.padding[axis][1];
                    padded > conv.dilation[axis] * (conv.kernel[axis] - 1)
                })
            })
    }

    proptest! {
        #[test]
        fn any_sizes(conv in any_conv()) {
            check(&conv);
        }
    }
}
