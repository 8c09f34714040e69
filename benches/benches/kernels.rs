//! Our kernels against Burn's on flex: exact GELU, 2 M numbers (throughput is in numbers), and convolutions
//! as in ResNet-50 and wav2vec2 (in multiplications); whole numbers against floats in BERT's widest layer;
//! products in bf16 against f32; a weight in large pages.
#![recursion_limit = "256"]

use burn::{
    prelude::*,
    tensor::{Distribution, activation, module, ops::ConvOptions},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use firebrick_core::layers::{activation::Activation, conv::conv2d, fused, linear::linear};
use firebrick_kernels::{
    allocator::lasting,
    matmul::{Matrix, Precision, matmul},
    quantised::{Format, Packed, Range, levels},
};

fn gelu(c: &mut Criterion) {
    let x = Tensor::<2>::random([1024, 2048], Distribution::Normal(0.0, 1.0), &Device::flex());
    let mut group = c.benchmark_group("gelu");
    group.throughput(Throughput::Elements(1024 * 2048));
    group.bench_function("fused", |bench| {
        bench.iter(|| Activation::Gelu.forward(x.clone()).into_data())
    });
    group.bench_function("burn-flex", |bench| {
        bench.iter(|| activation::gelu(x.clone()).into_data())
    });
    group.finish();
}

/// Name, input, weight, stride and groups.
type Case = (&'static str, [usize; 4], [usize; 4], usize, usize);

#[rustfmt::skip]
const CONVOLUTIONS: &[Case] = &[
    ("3x3",       [1, 128, 28, 28],  [128, 128, 3, 3], 1, 1),
    ("stem",      [1, 3, 224, 224],  [64, 3, 7, 7],    2, 1),
    ("1x1",       [1, 256, 56, 56],  [64, 256, 1, 1],  1, 1),
    ("depthwise", [1, 144, 56, 56],  [144, 1, 3, 3],   1, 144),
    ("sequence",  [1, 512, 1, 3199], [512, 512, 1, 3], 2, 1),
];

fn convolution(c: &mut Criterion) {
    let device = Device::flex();
    for (name, x, weight, stride, groups) in CONVOLUTIONS {
        let random = |shape| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (x, w) = (random(*x), random(*weight));
        let options = ConvOptions {
            stride: [*stride; 2],
            padding: [weight[2], weight[3]].map(|kernel| (kernel / 2, kernel / 2)),
            dilation: [1; 2],
            groups: *groups,
        };
        let [_, _, rows, columns] = conv2d(x.clone(), w.clone(), None, options.clone()).dims();
        let mut group = c.benchmark_group(format!("convolution/{name}"));
        group.throughput(Throughput::Elements(
            (rows * columns * weight.iter().product::<usize>()) as u64,
        ));
        group.bench_function("fused", |bench| {
            bench.iter(|| conv2d(x.clone(), w.clone(), None, options.clone()).into_data())
        });
        group.bench_function("burn-flex", |bench| {
            bench.iter(|| module::conv2d(x.clone(), w.clone(), None, options.clone()).into_data())
        });
        group.finish();
    }
}

/// One row as a language model writes it, and 128 as BERT reads them.
fn quantised(c: &mut Criterion) {
    const INPUTS: usize = 768;
    const OUTPUTS: usize = 3072;
    let device = Device::flex();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let weight = random([OUTPUTS, INPUTS]);
    let numbers = weight.to_data().try_to_vec::<f32>().expect("f32");
    let packed = |format| {
        let w = levels(&numbers, INPUTS, format, Range::MinMax);
        let bytes = Packed::pack(format, [INPUTS, OUTPUTS], &w.levels, &w.scales);
        fused::packed(bytes, [INPUTS, OUTPUTS], &device)
    };
    let weights = [
        ("f32", weight.transpose()),
        ("int8", packed(Format::Int8)),
        ("int4", packed(Format::Int4 { group: 32 })),
    ];
    for rows in [1, 128] {
        let x = random([rows, INPUTS]);
        let mut group = c.benchmark_group(format!("linear/{rows}x{INPUTS}x{OUTPUTS}"));
        group.throughput(Throughput::Elements((rows * INPUTS * OUTPUTS) as u64));
        for (name, weight) in &weights {
            group.bench_function(*name, |bench| {
                bench.iter(|| linear(x.clone(), weight.clone(), None).into_data())
            });
        }
        group.finish();
    }
}

/// What a training step of a small model multiplies: forward, and for the gradients of what it reads and of its weight.
fn product(c: &mut Criterion) {
    for [rows, inputs, outputs] in [[1800, 192, 384], [900, 192, 6000], [1024, 768, 3072]] {
        let numbers = |n: usize| -> Vec<f32> { (0..n).map(|i| (i % 17) as f32 - 8.0).collect() };
        let (x, y, w) =
            (numbers(rows * inputs), numbers(rows * outputs), numbers(inputs * outputs));
        let x = Matrix::new(&x, rows, inputs);
        let (y, w) = (Matrix::new(&y, rows, outputs), Matrix::new(&w, inputs, outputs));
        let products =
            [("forward", x, w), ("input", y, w.transposed()), ("weight", x.transposed(), y)];
        for (name, a, b) in products {
            let mut group = c.benchmark_group(format!("product/{rows}x{inputs}x{outputs}/{name}"));
            group.throughput(Throughput::Elements((rows * inputs * outputs) as u64));
            for precision in [Precision::F32, Precision::Bf16] {
                let mut out = vec![0.0; a.rows() * b.cols()];
                group.bench_function(format!("{precision:?}").to_lowercase(), |bench| {
                    bench.iter(|| precision.during(|| matmul(a, b, None, &mut out)))
                });
            }
            group.finish();
        }
    }
}

/// One row with a weight of 64 MiB, in pages of the system's choice and in large ones.
fn pages(c: &mut Criterion) {
    const SIZE: usize = 4096;
    let x = vec![0.5; SIZE];
    let mut group = c.benchmark_group("pages");
    group.throughput(Throughput::Bytes((4 * SIZE * SIZE) as u64));
    for (name, large) in [("as-given", false), ("large", true)] {
        let weight: Vec<f32> = if large { lasting(SIZE * SIZE) } else { vec![1.0; SIZE * SIZE] };
        let (x, weight) = (Matrix::new(&x, 1, SIZE), Matrix::new(&weight, SIZE, SIZE));
        let mut out = vec![0.0; SIZE];
        group.bench_function(name, |bench| bench.iter(|| matmul(x, weight, None, &mut out)));
    }
    group.finish();
}

criterion_group!(benches, gelu, convolution, quantised, product, pages);
criterion_main!(benches);
