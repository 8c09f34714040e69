//! Convolutions with weights of eight bits and pixels of eight bits, whose sums are those of whole numbers.
//!
//! An image's numbers become levels `0..=255` of one scale, from its least to its largest number: behind a ReLU none would
//! be lost to a sign. The levels of four channels of a pixel are one word, and words lie in `planes` as the numbers of the
//! other convolutions do; one instruction multiplies sixteen pixels by four channels. As there, no matrix of patches is
//! built. What a level stands for is fixed by the image alone, whatever it is batched with and on whatever CPU.

use std::cell::{Cell, RefCell};

use rayon::prelude::*;

use super::{
    Conv2d, Place,
    pixels::{FOUR, Pixels},
    planes::Layout,
    tile::{CHANNELS, PIXELS, Pieces, Starts},
};
use crate::{
    affine::{Activation, Line},
    quantised::{Cpu, Format, Packed, array},
};

/// Inputs of a packed weight whose products fit a sum of 32 bits whatever they are.
pub const MOST: usize = i32::MAX as usize / (255 * 128);
/// Multiplications worth a task of their own.
const TASK: usize = 1 << 21;

thread_local! {
    /// Planes of an image; taken out while they are used, as a task that waits may begin another image.
    static PLANES: Cell<Vec<u32>> = const { Cell::new(vec![]) };
    /// Four channels of it.
    static WORDS: RefCell<Vec<u32>> = const { RefCell::new(vec![]) };
}

/// Whether [`forward`] is faster than [`super::forward`] on this CPU: where it has AVX-512 VNNI. With AVX2 a tile of products of
/// sixteen bits, four channels by sixteen pixels, was as fast for ResNet-50 and slower for small pictures.
pub fn pays() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Cpu::best() == Cpu::Avx512Vnni;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A weight `[O, C / G, taps]` of levels, with a scale for each output, in the order of [`forward`]: its inputs are `[C / G / 4,
/// taps, 4]`.
pub fn pack([outputs, channels, taps]: [usize; 3], levels: &[i8], scales: &[f32]) -> Vec<u8> {
    let depth = channels.div_ceil(FOUR) * FOUR * taps;
    let mut ordered = vec![0; outputs * depth];
    for (i, level) in levels.iter().enumerate() {
        let (o, c, tap) = (i / (channels * taps), i / taps % channels, i % taps);
        ordered[o * depth + input(c, tap, taps)] = *level;
    }
    Packed::pack(Format::Int8, [depth, outputs], &ordered, scales)
}

/// The numbers that a packed weight stands for, `[O, C / G, taps]`.
pub fn floats(weight: Packed, [channels, taps]: [usize; 2]) -> Vec<f32> {
    let mut floats = vec![0.0; weight.outputs() * channels * taps];
    let mut row = vec![0.0; weight.inputs()];
    for (o, floats) in floats.chunks_exact_mut((channels * taps).max(1)).enumerate() {
        weight.output(o, &mut row);
        for (i, float) in floats.iter_mut().enumerate() {
            *float = row[input(i / taps, i % taps, taps)];
        }
    }
    floats
}

/// Where the packed inputs have a weight.
fn input(channel: usize, tap: usize, taps: usize) -> usize {
    (channel / FOUR * taps + tap) * FOUR + channel % FOUR
}

/// As [`super::forward`], with a weight of [`pack`]. An image that holds NaN or infinity gives NaN.
pub fn forward(x: &[f32], weight: Packed, bias: Option<&[f32]>, conv: &Conv2d, out: &mut [f32]) {
    forward_on(Cpu::best(), x, weight, bias, conv, out);
}

fn forward_on(
    cpu: Cpu,
    x: &[f32],
    weight: Packed,
    bias: Option<&[f32]>,
    conv: &Conv2d,
    out: &mut [f32],
) {
    let [inputs, _, outputs] = conv.lengths();
    assert_eq!([x.len(), out.len()], [inputs, outputs], "{conv:?}");
    assert!(bias.is_none_or(|bias| bias.len() == conv.channels[1]));
    if out.is_empty() {
        return;
    }
    crate::awake::keep_awake();
    let conv = conv.upright();
    let ((rows, row_taps), (cols, col_taps)) = (conv.taps(0), conv.taps(1));
    let size = conv.out_size();
    let layout = Layout::new([rows, cols], size);
    let [read, written] = conv.groups_of();
    let fours = read.div_ceil(FOUR);
    let mut starts = vec![];
    for four in 0..fours {
        for y in &row_taps {
            for x in &col_taps {
                let at = layout.start([y.phase, x.phase], [y.shift, x.shift]);
                let at = u32::try_from(four * layout.channel() + at);
                starts.push(at.expect("the planes of an image are below 4 G"));
            }
        }
    }
    let depth = FOUR * starts.len();
    assert_eq!([weight.inputs(), weight.outputs()], [depth, conv.channels[1]], "{conv:?}");
    assert!(depth <= MOST, "sums of {depth} products");

    let starts = Starts::new(starts);
    let a_row = CHANNELS * depth * size[1];
    let block = (TASK / a_row).max(4 * PIXELS / layout.pitch).clamp(1, size[0]);
    let last = size[0] - (size[0] - 1) / block * block;
    let pieces = [block, last].map(|rows| pieces(&layout, size[1], rows));
    let job = Job {
        cpu,
        conv,
        weight,
        bias,
        layout,
        starts,
        fours,
        groups: [read, written],
        size,
        block,
        pieces,
    };
    let images = x.par_chunks(x.len() / conv.batch).zip(out.par_chunks_mut(outputs / conv.batch));
    images.for_each(|(x, out)| job.image(x, out));
}

/// All tiles of some rows.
fn pieces(layout: &Layout, width: usize, rows: usize) -> Vec<Pieces> {
    let place = place(layout, width, rows);
    let pixels = (rows - 1) * layout.pitch + width;
    let firsts = (0..pixels).step_by(PIXELS);
    firsts.map(|first| place.pieces(first, PIXELS.min(pixels - first))).collect()
}

fn place(layout: &Layout, width: usize, rows: usize) -> Place {
    let lines = [rows, width];
    Place { lines, pitch: layout.pitch, out_pitch: width, steps: [1, 1], residue: [0, 0] }
}

/// What is the same for all images.
struct Job<'a> {
    cpu: Cpu,
    conv: Conv2d,
    weight: Packed<'a>,
    bias: Option<&'a [f32]>,
    layout: Layout,
    /// Of every word of a weight.
    starts: Starts,
    /// Words of a group's channels.
    fours: usize,
    /// Channels of a group, read and written.
    groups: [usize; 2],
    /// Of what is written.
    size: [usize; 2],
    /// Rows of a task.
    block: usize,
    /// Of the tiles of a block, and of those of the last one.
    pieces: [Vec<Pieces>; 2],
}

impl Job<'_> {
    /// `x`: `[C, H, W]` -> `out`: `[O, out_size]`
    fn image(&self, x: &[f32], out: &mut [f32]) {
        let pixels = Pixels::of(x);
        let [read, written] = self.groups;
        let (channel, source) = (self.layout.channel(), x.len() / self.conv.channels[0]);
        let count = self.fours * self.conv.groups;
        let mut planes = PLANES.take();
        planes.resize(planes.len().max(count * channel + PIXELS), 0);
        let together = (crate::BLOCK / (FOUR * source)).max(1);
        let filled = planes.par_chunks_exact_mut(channel).take(count).enumerate();
        filled.with_min_len(together).for_each(|(index, planes)| {
            let (group, four) = (index / self.fours, index % self.fours);
            // Behind the last channel, once more the last: its weights are zero.
            let channels: [&[f32]; FOUR] = std::array::from_fn(|i| {
                &x[(group * read + (four * FOUR + i).min(read - 1)) * source..][..source]
            });
            WORDS.with_borrow_mut(|all| {
                all.resize(all.len().max(source), 0);
                let all = &mut all[..source];
                pixels.words(channels, all);
                self.layout.fill(all, pixels.zero as u32 * 0x0101_0101, 0, planes);
            });
        });

        let area = self.size[0] * self.size[1];
        let panel = CHANNELS * self.starts.len() * FOUR * area;
        for (group, out) in out.chunks_mut(written * area).enumerate() {
            let planes = &planes[group * self.fours * channel..];
            let panels = out.par_chunks_mut(CHANNELS * area).enumerate();
            panels.with_min_len((TASK / panel).max(1)).for_each(|(panel, out)| {
                let first = group * written + panel * CHANNELS;
                let panel = Panel::new(self, first, out.len() / area, pixels);
                let mut blocks: Vec<Vec<&mut [f32]>> = vec![];
                blocks.resize_with(self.size[0].div_ceil(self.block), Vec::new);
                for out in out.chunks_exact_mut(area) {
                    let rows = out.chunks_mut(self.block * self.size[1]);
                    blocks.iter_mut().zip(rows).for_each(|(block, rows)| block.push(rows));
                }
                blocks.par_iter_mut().enumerate().for_each(|(index, out)| {
                    let planes = &planes[index * self.block * self.layout.pitch..];
                    self.rows(&panel, planes, out);
                });
            });
        }
        PLANES.set(planes);
    }

    /// A block of rows of up to [`CHANNELS`] channels.
    fn rows(&self, panel: &Panel, planes: &[u32], out: &mut [&mut [f32]]) {
        let rows = out[0].len() / self.size[1];
        let pixels = (rows - 1) * self.layout.pitch + self.size[1];
        let place = place(&self.layout, self.size[1], rows);
        let pieces = &self.pieces[usize::from(rows < self.block)];
        for (pieces, first) in pieces.iter().zip((0..).step_by(PIXELS)) {
            let tile = Tile { panel, planes, starts: &self.starts, first };
            let count = PIXELS.min(pixels - first);
            if !tile.write(self.cpu, count, pieces, out) {
                tile.write_sums(count, &place, out);
            }
        }
    }
}

/// The weights of the channels of a tile; behind the last channel, once more the last.
struct Panel<'a> {
    /// A word of four weights every [`Packed::STRIDE`] bytes.
    weight: [&'a [u8]; CHANNELS],
    /// What a sum begins with, as levels of pixels are `zero` too large.
    start: [i32; CHANNELS],
    scale: [f32; CHANNELS],
    bias: [f32; CHANNELS],
}

impl<'a> Panel<'a> {
    fn new(job: &Job<'a>, first: usize, count: usize, pixels: Pixels) -> Self {
        let channel = |r: usize| first + r.min(count - 1);
        let weight = job.weight;
        Self {
            weight: std::array::from_fn(|r| weight.words(channel(r))),
            // It is of levels that are 128 too large.
            start: std::array::from_fn(|r| weight.start(channel(r)) / 128 * pixels.zero as i32),
            scale: std::array::from_fn(|r| weight.scale(0, channel(r)) * pixels.scale),
            bias: std::array::from_fn(|r| job.bias.map_or(0.0, |bias| bias[channel(r)])),
        }
    }
}

/// `sum[r][i] = start[r] + sum of four products of weight[r][k] and planes[starts[k] + first + i] over k`
#[derive(Clone, Copy)]
struct Tile<'a> {
    panel: &'a Panel<'a>,
    planes: &'a [u32],
    starts: &'a Starts,
    first: usize,
}

impl Tile<'_> {
    /// What the sums of `pixels` pixels stand for, to where `pieces` say; `false` where this CPU has no such instructions.
    fn write(self, cpu: Cpu, pixels: usize, pieces: &Pieces, out: &mut [&mut [f32]]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if cpu == Cpu::Avx512Vnni {
            let vectors = pixels.div_ceil(Pieces::LANES);
            let end = self.starts.last() + self.first + vectors * Pieces::LANES;
            assert!(pixels <= PIXELS && end <= self.planes.len());
            let last = (self.starts.len() - 1) * Packed::STRIDE + FOUR;
            assert!(self.panel.weight.iter().all(|weight| last <= weight.len()));
            assert!(out.iter().all(|out| pieces.end() <= out.len()));
            #[expect(unsafe_code, reason = "functions of a wider instruction set")]
            // SAFETY: a `Cpu` is one that this machine is; what is read and written is inside by the checks above.
            unsafe {
                match vectors {
                    1 => self.wide::<1>(pieces, out),
                    2 => self.wide::<2>(pieces, out),
                    _ => self.wide::<3>(pieces, out),
                }
            }
            return true;
        }
        let _ = (cpu, pixels, pieces, out);
        false
    }

    /// For `16 * V` pixels. The caller checks that all reads are inside the planes and the weights, and all pieces inside
    /// `out`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[expect(unsafe_code, reason = "checks in this loop would cost a tenth of the speed")]
    unsafe fn wide<const V: usize>(self, pieces: &Pieces, out: &mut [&mut [f32]]) {
        use std::arch::x86_64::*;
        let Self { panel, planes, starts, first } = self;
        let weight = panel.weight.map(<[u8]>::as_ptr);
        // SAFETY: `first` alone is inside, as are all runs, by the caller's check.
        let planes = unsafe { planes.as_ptr().add(first) };
        let mut sums = [[_mm512_setzero_si512(); V]; CHANNELS];
        for (sums, start) in sums.iter_mut().zip(panel.start) {
            *sums = [_mm512_set1_epi32(start); V];
        }
        for (k, start) in starts.as_slice().iter().enumerate() {
            // SAFETY: the run of `16 * V` words is inside the planes, and word `k` inside every weight.
            unsafe {
                let run = planes.add(*start as usize);
                let mut pixels = [_mm512_setzero_si512(); V];
                for (v, pixels) in pixels.iter_mut().enumerate() {
                    *pixels = _mm512_loadu_si512(run.add(v * Pieces::LANES).cast());
                }
                for r in 0..CHANNELS {
                    let word = weight[r].add(k * Packed::STRIDE).cast::<i32>();
                    let weight = _mm512_set1_epi32(word.read_unaligned());
                    for v in 0..V {
                        sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], pixels[v], weight);
                    }
                }
            }
        }
        for (r, out) in out.iter_mut().enumerate() {
            let (scale, bias) = (_mm512_set1_ps(panel.scale[r]), _mm512_set1_ps(panel.bias[r]));
            for (sums, pieces) in sums[r].iter().zip(pieces.vectors()) {
                let y = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(*sums), scale), bias);
                for piece in pieces {
                    let at = out.as_mut_ptr().wrapping_offset(piece.at);
                    // SAFETY: the lanes of the mask are inside `out`, by the caller's check; others are not touched.
                    unsafe { _mm512_mask_storeu_ps(at, piece.mask, y) };
                }
            }
        }
    }

    /// The same on any CPU.
    #[inline(never)]
    fn write_sums(self, pixels: usize, place: &Place, out: &mut [&mut [f32]]) {
        for (r, out) in out.iter_mut().enumerate() {
            let mut sums = [self.panel.start[r]; PIXELS];
            for (k, start) in self.starts.as_slice().iter().enumerate() {
                let weights: [u8; FOUR] = array(&self.panel.weight[r][k * Packed::STRIDE..]);
                let run = &self.planes[*start as usize + self.first..][..pixels];
                for (sum, word) in sums.iter_mut().zip(run) {
                    for (level, weight) in word.to_le_bytes().into_iter().zip(weights) {
                        *sum += i32::from(level) * i32::from(weight as i8);
                    }
                }
            }
            let scale = self.panel.scale[r];
            let y = sums.map(|sum| sum as f32 * scale);
            let line = Line::new(1.0, self.panel.bias[r], Activation::None);
            place.write(&y[..pixels], self.first, line, None, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::tests::{SMALL, any_conv, each_product, numbers},
        *,
    };
    use crate::quantised::{Levels, Range, levels};

    /// The definition, one product of whole numbers at a time; `x` of each image by the words above.
    fn twin(x: &[f32], w: &Levels, bias: &[f32], conv: &Conv2d) -> Vec<f32> {
        let [inputs, _, outputs] = conv.lengths();
        let image = inputs / conv.batch;
        let images: Vec<(Vec<i64>, f32)> = x
            .chunks(image)
            .map(|x| {
                let [low, high] = [f32::min as fn(f32, f32) -> f32, f32::max]
                    .map(|of| x.iter().copied().fold(0.0, of));
                let scale = high / 255.0 - low / 255.0;
                let zero = (-low * (1.0 / scale)).round_ties_even();
                let level = |x: &f32| (x * (1.0 / scale) + zero).clamp(0.0, 255.0);
                let levels = x.iter().map(|x| (level(x).round_ties_even() - zero) as i64);
                (levels.collect(), scale)
            })
            .collect();
        let mut sums = vec![0; outputs];
        each_product(conv, |o, k, i| {
            sums[o] += images[i / image].0[i % image] * i64::from(w.levels[k]);
        });
        let area: usize = conv.out_size().iter().product();
        let number = |(i, sum): (usize, i64)| {
            let (channel, image) = (i / area % conv.channels[1], i / area / conv.channels[1]);
            sum as f32 * (w.scales[channel] * images[image].1) + bias[channel]
        };
        sums.into_iter().enumerate().map(number).collect()
    }

    fn check(conv: &Conv2d, range: [f32; 2]) {
        let [inputs, weights, outputs] = conv.lengths();
        let x = numbers(inputs, 1).into_iter();
        let x: Vec<f32> = x.map(|x| (x + 1.0) / 2.0 * (range[1] - range[0]) + range[0]).collect();
        let depth = weights / conv.channels[1];
        let w = levels(&numbers(weights, 2), depth, Format::Int8, Range::MinMax);
        let bias = numbers(conv.channels[1], 4);
        let [read, _] = conv.groups_of();
        let sizes = [conv.channels[1], read, depth / read];
        let bytes = pack(sizes, &w.levels, &w.scales);
        let scaled = |i: usize| f32::from(w.levels[i]) * w.scales[i / depth];
        let again = floats(Packed::new(&bytes), [sizes[1], sizes[2]]);
        assert_eq!(again, (0..weights).map(scaled).collect::<Vec<_>>());

        let expected = twin(&x, &w, &bias, conv);
        for cpu in Cpu::all() {
            let mut out = vec![f32::NAN; outputs];
            forward_on(cpu, &x, Packed::new(&bytes), Some(&bias), conv, &mut out);
            let wrong = out.iter().zip(&expected).position(|(y, expected)| y != expected);
            assert_eq!(wrong, None, "{cpu:?}, {conv:?}");
        }
    }

    #[test]
    fn known_layers() {
        let half = Conv2d { batch: 3, channels: [16, 24], size: [28, 29], ..SMALL };
        for range in [[-1.0, 1.0], [0.0, 5.0], [-3.0, 0.0], [2.0, 3.0]] {
            check(&SMALL, range);
            check(&half, range);
        }
        check(&Conv2d { stride: [2, 2], padding: [[0, 1], [2, 1]], ..half }, [-1.0, 2.0]);
        check(&Conv2d { kernel: [1, 1], padding: [[0, 0]; 2], ..half }, [0.0, 1.0]);
        // Several blocks of rows.
        check(&Conv2d { channels: [64, 40], size: [60, 61], ..SMALL }, [0.0, 1.0]);
        let sequence = Conv2d { size: [1, 300], padding: [[0, 0]; 2], kernel: [1, 10], ..SMALL };
        check(&Conv2d { channels: [12, 64], stride: [1, 5], ..sequence }, [-1.0, 1.0]);
        let padded = Conv2d { padding: [[0, 0], [64, 64]], kernel: [1, 128], ..sequence };
        check(&Conv2d { channels: [12, 12], size: [1, 60], groups: 4, ..padded }, [-1.0, 1.0]);
    }

    proptest! {
        #[test]
        fn any_sizes(conv in any_conv(), low in -2.0f32..0.5, width in 0.0f32..3.0) {
            check(&conv, [low, low + width + 1e-3]);
        }
    }

    /// The largest levels of either sign, as far as sums go.
    #[test]
    fn extremes() {
        let conv = Conv2d { channels: [256, 9], ..SMALL };
        let [inputs, weights, outputs] = conv.lengths();
        let sign = |i: usize| if i.is_multiple_of(3) { -1.0 } else { 1.0 };
        let x: Vec<f32> = (0..inputs).map(sign).collect();
        let w = Levels { levels: vec![-128; weights], scales: vec![0.5; 9] };
        let bytes = pack([9, 256, 9], &w.levels, &w.scales);
        let expected = twin(&x, &w, &[0.0; 9], &conv);
        for cpu in Cpu::all() {
            let mut out = vec![f32::NAN; outputs];
            forward_on(cpu, &x, Packed::new(&bytes), None, &conv, &mut out);
            assert_eq!(out, expected, "{cpu:?}");
        }
    }

    /// An image of zeros gives the bias, and NaN and infinity are not lost; the image beside it does not mind.
    #[test]
    fn odd_images() {
        let conv = Conv2d { batch: 2, ..SMALL };
        let [inputs, weights, outputs] = conv.lengths();
        let w = levels(&numbers(weights, 2), weights / 5, Format::Int8, Range::MinMax);
        let bytes = pack([5, 3, 9], &w.levels, &w.scales);
        let bias = numbers(5, 4);
        for (odd, is_bias) in
            [(0.0, true), (1e-40, true), (f32::NAN, false), (f32::INFINITY, false)]
        {
            let mut x = vec![0.0; inputs];
            x[inputs / 2 + 7] = odd;
            for cpu in Cpu::all() {
                let mut out = vec![0.5; outputs];
                forward_on(cpu, &x, Packed::new(&bytes), Some(&bias), &conv, &mut out);
                let of_bias =
                    |y: &[f32]| y.chunks(42).zip(&bias).all(|(y, b)| y.iter().all(|y| y == b));
                assert!(of_bias(&out[..outputs / 2]), "{cpu:?}");
                let odd_one = &out[outputs / 2..];
                match is_bias {
                    true => assert!(of_bias(odd_one), "{cpu:?}, {odd}"),
                    false => assert!(odd_one.iter().all(|y| y.is_nan()), "{cpu:?}, {odd}"),
                }
            }
        }
    }
}
