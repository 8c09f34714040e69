//! Times of the kernels on this machine: `cargo run -p firebrick-kernels --example speed [part of a name [part of a layer's]]`.

use std::time::Instant;

use firebrick_kernels::{
    affine::{Activation, Affine, Finish},
    conv::{self, Conv2d},
    matmul::{Matrix, matmul, matmul_bf16},
    pool::{self, MaxPool},
    quantised::{self, Packed, Range},
    recurrence::{self, Cell, Gradients, Recurrence},
    transpose::{self, Format},
};
use rayon::prelude::*;

fn main() {
    firebrick_kernels::allocator::keep_memory(); // as our binaries do
    // On one of rayon's threads: from outside, every call would also time how long it takes to wake one.
    rayon::scope(|_| measure());
}

fn measure() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    if "read".contains(&filter) {
        reading();
    }
    if "decode".contains(&filter) {
        decode();
    }
    if "bf16".contains(&filter) {
        bf16();
    }
    if "quantised".contains(&filter) {
        quantised();
    }
    if "conv".contains(&filter) {
        convolutions();
    }
    if "pool".contains(&filter) {
        pooling();
    }
    if "transpose".contains(&filter) {
        transposing();
    }
    if "recurrence".contains(&filter) {
        recurrences();
    }
}

/// The best of a few runs, in seconds: on the clock, and of work on all threads together.
#[derive(Clone, Copy)]
struct Time {
    clock: f64,
    work: f64,
}

fn best(runs: usize, mut f: impl FnMut()) -> Time {
    f();
    let mut best = Time { clock: f64::MAX, work: f64::MAX };
    for _ in 0..runs {
        let (start, work) = (Instant::now(), worked());
        f();
        best.clock = best.clock.min(start.elapsed().as_secs_f64());
        best.work = best.work.min(worked() - work);
    }
    best
}

/// Seconds that this process has run on CPUs, which a busy machine does not stretch; 0 where Linux does not tell.
fn worked() -> f64 {
    let seconds = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(seconds).sum::<f64>() / 1e9
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(7919) % 2001) as f32 / 1000.0 - 1.0).collect()
}

/// The bandwidth that the others are held to.
fn reading() {
    let x = numbers(1 << 27);
    let time = best(3, || {
        let sum: u32 = x
            .par_chunks(1 << 16)
            .map(|x| x.iter().fold(0u32, |a, x| a ^ x.to_bits()))
            .reduce(|| 0, |a, b| a ^ b);
        std::hint::black_box(sum);
    });
    report("read", time, 1, Some(4.0 * x.len() as f64), None);
}

/// A few rows times matrices that do not fit a cache together, as in a whole model.
fn decode() {
    for (i, o) in [(896, 128), (896, 4864), (768, 3072), (3072, 768), (768, 50257)] {
        let copies = (500_000_000 / (4 * i * o)).clamp(2, 200);
        let weights: Vec<Vec<f32>> = (0..copies).map(|_| numbers(i * o)).collect();
        for rows in [1, 4, 8] {
            let x = numbers(rows * i);
            let spread = numbers(2 * rows * i); // a layout that is left to `gemm`
            let mut out = vec![0.0; rows * o];
            for layout in ["[I, O]", "[O, I]", "[I, O] by gemm", "[O, I] by gemm"] {
                let x = match layout.contains("gemm") {
                    true => Matrix::strided(&spread, rows, i, 2 * i, 2),
                    false => Matrix::new(&x, rows, i),
                };
                let time = best(3, || {
                    for weight in &weights {
                        let w = match layout {
                            "[I, O]" | "[I, O] by gemm" => Matrix::new(weight, i, o),
                            _ => Matrix::new(weight, o, i).transposed(),
                        };
                        matmul(x, w, None, &mut out);
                    }
                });
                let name = format!("decode f32 {rows} x {i} x {o} {layout}");
                report(&name, time, copies, Some(4.0 * (i * o) as f64), None);
            }
        }
    }
}

/// As [`decode`], and for many rows.
fn bf16() {
    for (i, o) in [(896, 4864), (768, 3072), (3072, 768), (768, 50257)] {
        let copies = (250_000_000 / (2 * i * o)).max(2);
        let weights: Vec<Vec<u16>> = (0..copies)
            .map(|_| numbers(i * o).iter().map(|x| (x.to_bits() >> 16) as u16).collect())
            .collect();
        for rows in [1, 4, 8, 128] {
            let x = numbers(rows * i);
            let mut out = vec![0.0; rows * o];
            let copies = if rows > 8 { copies.min(4) } else { copies };
            for layout in ["[I, O]", "[O, I]"] {
                let time = best(2, || {
                    for weight in &weights[..copies] {
                        let w = match layout {
                            "[I, O]" => Matrix::new(weight, i, o),
                            _ => Matrix::new(weight, o, i).transposed(),
                        };
                        matmul_bf16(Matrix::new(&x, rows, i), w, None, &mut out);
                    }
                });
                let name = format!("bf16 {rows} x {i} x {o} {layout}");
                let (bytes, products) = (2.0 * (i * o) as f64, (rows * i * o) as f64);
                report(&name, time, copies, Some(bytes), Some(products));
            }
        }
    }
}

/// As [`decode`], and for as many rows as BERT has; beside the product of floats.
fn quantised() {
    for (i, o) in [(896, 4864), (768, 768), (768, 3072), (3072, 768), (768, 50257)] {
        let weight = numbers(i * o);
        for (name, format) in [
            ("f32", None),
            ("int8", Some(quantised::Format::Int8)),
            ("int4/32", Some(quantised::Format::Int4 { group: 32 })),
            ("int4/128", Some(quantised::Format::Int4 { group: 128 })),
        ] {
            let packed = format.map(|format| {
                let w = quantised::levels(&weight, i, format, Range::MinMax);
                Packed::pack(format, [i, o], &w.levels, &w.scales)
            });
            let size = packed.as_ref().map_or(4 * i * o, Vec::len);
            let copies = (250_000_000 / size).clamp(2, 200);
            let floats = vec![if packed.is_none() { weight.clone() } else { vec![] }; copies];
            let packed = vec![packed.unwrap_or_default(); copies];
            for rows in [1, 8, 128, 1024] {
                let copies = if rows > 8 { 2 } else { copies };
                let x = numbers(rows * i);
                let mut out = vec![0.0; rows * o];
                let time = best(3, || {
                    for (floats, packed) in floats.iter().zip(&packed).take(copies) {
                        match format {
                            None => {
                                let w = Matrix::new(floats, i, o);
                                matmul(Matrix::new(&x, rows, i), w, None, &mut out);
                            }
                            Some(_) => quantised::matmul(&x, Packed::new(packed), None, &mut out),
                        }
                    }
                });
                let (bytes, products) = (size as f64, (rows * i * o) as f64);
                let name = format!("quantised {name} {rows} x {i} x {o}");
                report(&name, time, copies, Some(bytes), Some(products));
            }
        }
    }
}

/// Of one of `count` calls, which reads `bytes` or multiplies `products` times.
fn report(name: &str, time: Time, count: usize, bytes: Option<f64>, products: Option<f64>) {
    let Time { clock, work } = time;
    let (clock, work) = (clock / count as f64, work / count as f64);
    print!("{name}: {:.0} us, {:.0} us of work", clock * 1e6, work * 1e6);
    if let Some(bytes) = bytes {
        print!(", {:.1} GB/s", bytes / clock / 1e9);
    }
    if let Some(products) = products {
        print!(", {:.0} GFLOP/s", 2.0 * products / clock / 1e9);
    }
    println!();
}

/// Name, channels in and out, rows and columns, kernel, stride, groups, padding.
type Layer = (&'static str, [usize; 2], [usize; 2], [usize; 2], [usize; 2], usize, [usize; 2]);

/// Layers of ResNet-50, MobileNetV2, Wav2Vec2 and of small pictures.
#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    ("resnet stem",     [3, 64],      [224, 224], [7, 7], [2, 2], 1,   [3, 3]),
    ("1x1 64->64",      [64, 64],     [56, 56],   [1, 1], [1, 1], 1,   [0, 0]),
    ("1x1 64->256",     [64, 256],    [56, 56],   [1, 1], [1, 1], 1,   [0, 0]),
    ("1x1 256->64",     [256, 64],    [56, 56],   [1, 1], [1, 1], 1,   [0, 0]),
    ("3x3 64",          [64, 64],     [56, 56],   [3, 3], [1, 1], 1,   [1, 1]),
    ("3x3 128 s2",      [128, 128],   [56, 56],   [3, 3], [2, 2], 1,   [1, 1]),
    ("3x3 128",         [128, 128],   [28, 28],   [3, 3], [1, 1], 1,   [1, 1]),
    ("3x3 256",         [256, 256],   [14, 14],   [3, 3], [1, 1], 1,   [1, 1]),
    ("3x3 512",         [512, 512],   [7, 7],     [3, 3], [1, 1], 1,   [1, 1]),
    ("1x1 1024->256",   [1024, 256],  [14, 14],   [1, 1], [1, 1], 1,   [0, 0]),
    ("1x1 512->2048",   [512, 2048],  [7, 7],     [1, 1], [1, 1], 1,   [0, 0]),
    ("1x1 s2 256->512", [256, 512],   [56, 56],   [1, 1], [2, 2], 1,   [0, 0]),
    ("dw 32",           [32, 32],     [112, 112], [3, 3], [1, 1], 32,  [1, 1]),
    ("dw 96 s2",        [96, 96],     [112, 112], [3, 3], [2, 2], 96,  [1, 1]),
    ("dw 144",          [144, 144],   [56, 56],   [3, 3], [1, 1], 144, [1, 1]),
    ("dw 384",          [384, 384],   [14, 14],   [3, 3], [1, 1], 384, [1, 1]),
    ("dw 960",          [960, 960],   [7, 7],     [3, 3], [1, 1], 960, [1, 1]),
    ("w2v 0",           [1, 512],     [1, 32000], [1, 10], [1, 5], 1,  [0, 0]),
    ("w2v 1",           [512, 512],   [1, 6399],  [1, 3], [1, 2], 1,   [0, 0]),
    ("w2v 1 short",     [512, 512],   [1, 399],   [1, 3], [1, 2], 1,   [0, 0]),
    ("small 3x3 32",    [32, 32],     [12, 12],   [3, 3], [1, 1], 1,   [1, 1]),
    ("small 3x3 64",    [64, 64],     [6, 6],     [3, 3], [1, 1], 1,   [1, 1]),
    ("small 1x1 s2",    [32, 64],     [12, 12],   [1, 1], [2, 2], 1,   [0, 0]),
    ("16 1x1 96",       [16, 96],     [56, 56],   [1, 1], [1, 1], 1,   [0, 0]),
    ("96 1x1 24",       [96, 24],     [28, 28],   [1, 1], [1, 1], 1,   [0, 0]),
    ("w2v pos",         [768, 768],   [1, 99],    [1, 128], [1, 1], 16, [0, 64]),
];

fn convolutions() {
    let part = std::env::args().nth(2).unwrap_or_default();
    for &(name, channels, size, kernel, stride, groups, padding) in LAYERS {
        if !name.contains(&part) {
            continue;
        }
        let padding = padding.map(|p| [p, p]);
        let conv =
            Conv2d { batch: 1, channels, size, kernel, stride, dilation: [1, 1], padding, groups };
        let x = numbers(channels[0] * size[0] * size[1]);
        let weights = channels[1] * channels[0] / groups * kernel[0] * kernel[1];
        let (weight, bias) = (numbers(weights), numbers(channels[1]));
        let area = conv.out_size()[0] * conv.out_size()[1];
        let mut y = vec![0.0; channels[1] * area];
        let products = (weights * area) as f64;
        let time = best(7, || {
            (0..4)
                .for_each(|_| conv::forward(&x, &weight, Finish::bias(Some(&bias)), &conv, &mut y))
        });
        report(&format!("conv {name:16}"), time, 4, None, Some(products));

        let depth = weights / channels[1];
        let levels = quantised::levels(&weight, depth, quantised::Format::Int8, Range::MinMax);
        let sizes = [channels[1], channels[0] / groups, kernel[0] * kernel[1]];
        let bytes = conv::levels::pack(sizes, &levels.levels, &levels.scales);
        let packed = Packed::new(&bytes);
        let time = best(7, || {
            (0..4).for_each(|_| conv::levels::forward(&x, packed, Some(&bias), &conv, &mut y));
        });
        report(&format!("conv int8 {name:16}"), time, 4, None, Some(products));

        let (mut dx, mut dw, mut db) = (x.clone(), weight.clone(), bias.clone());
        let time = best(3, || {
            conv::input_gradient(&y, &weight, &conv, &mut dx);
            conv::weight_gradient(&x, &y, &conv, &mut dw);
            conv::bias_gradient(&y, &conv, &mut db);
        });
        report(&format!("conv backward {name:16}"), time, 1, None, Some(2.0 * products));
    }
}

/// Of ResNet-50: its one max pooling, its last mean, and batch normalisation with and without a residual.
fn pooling() {
    let pool = MaxPool {
        planes: 64,
        size: [112, 112],
        kernel: [3, 3],
        stride: [2, 2],
        padding: [[1, 1]; 2],
    };
    let (x, count) = (numbers(64 * 112 * 112), 64 * 56 * 56);
    let (mut y, mut indices) = (vec![0.0; count], vec![0; count]);
    let time = best(9, || pool.forward(&x, &mut y, &mut indices));
    report("pool max 3x3 s2, 64 x 112 x 112", time, 1, None, None);
    let mut dx = x.clone();
    let time = best(9, || pool.backward(&y, &indices, &mut dx));
    report("pool max backward", time, 1, None, None);
    let (x, mut means) = (numbers(2048 * 49), vec![0.0; 2048]);
    let time = best(9, || pool::mean(&x, 49, &mut means));
    report("pool mean, 2048 x 7 x 7", time, 1, None, None);

    let x = numbers(256 * 56 * 56);
    let mut y = x.clone();
    let affine = Affine::new(numbers(256), numbers(256));
    for (name, residual) in [("relu", None), ("residual + relu", Some(&x[..]))] {
        let time = best(9, || affine.apply(&x, residual, Activation::Relu, 56 * 56, &mut y));
        report(&format!("affine {name}, 256 x 56 x 56"), time, 1, None, None);
    }
}

/// A feed-forward weight of a 7 B Llama.
fn transposing() {
    let (rows, cols) = (4096, 11008);
    let bytes: Vec<u8> = numbers(rows * cols).iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = vec![0.0; rows * cols];
    for format in [Format::F32, Format::F16, Format::Bf16] {
        let bytes = &bytes[..rows * cols * format.size()];
        let moved = Some((bytes.len() + 4 * out.len()) as f64);
        let time = best(3, || _ = transpose::transposed(bytes, format, cols, 0, &mut out));
        report(&format!("transpose {format:?}"), time, 1, moved, None);
        let time = best(3, || _ = transpose::widened(bytes, format, &mut out));
        report(&format!("transpose not, {format:?}"), time, 1, moved, None);
    }
}

/// Both passes of a layer.
fn recurrences() {
    for (cell, [batch, steps, input, hidden]) in [
        (Cell::Lstm, [20, 35, 650, 650]),
        (Cell::Lstm, [64, 128, 256, 512]),
        (Cell::Gru, [64, 128, 256, 512]),
        (Cell::Lstm, [64, 128, 128, 256]),
    ] {
        let width = cell.gates() * hidden;
        let small = |n: usize| numbers(n).iter().map(|x| x * 0.05).collect::<Vec<f32>>();
        let inputs = [
            numbers(batch * steps * input),
            small(width * input),
            small(width * hidden),
            small(2 * width),
            numbers(cell.states() * batch * hidden),
        ];
        let [x, weight_ih, weight_hh, bias, state] = &inputs;
        let (reverse, pad) = (false, None);
        let a = Recurrence {
            cell,
            reverse,
            batch,
            steps,
            hidden,
            x,
            weight_ih,
            weight_hh,
            bias,
            state,
            pad,
        };
        let (mut y, mut last) = (vec![0.0; batch * steps * hidden], vec![0.0; state.len()]);
        let mut grads = inputs.each_ref().map(|x| vec![0.0; x.len()]);
        let products = (batch * steps * width * (input + hidden)) as f64;
        let name = format!("recurrence {cell:?} [{batch}, {steps}, {input}] {hidden}");
        let time = best(5, || {
            recurrence::forward(&a, &mut y, &mut last);
        });
        report(&format!("{name} forward"), time, 1, None, Some(products));
        let time = best(5, || {
            let memory = recurrence::forward(&a, &mut y, &mut last);
            let [x, weight_ih, weight_hh, bias, state] = grads.each_mut().map(|x| Some(&mut x[..]));
            let out = Gradients { x, weight_ih, weight_hh, bias, state };
            recurrence::backward(&a, memory, &y, &last, out);
        });
        report(&format!("{name} both"), time, 1, None, Some(3.0 * products));
    }
}
