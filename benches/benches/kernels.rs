//! Our exact GELU against Burn's on flex, 2 M numbers. Throughput is in numbers.
#![recursion_limit = "256"]

use burn::{
    prelude::*,
    tensor::{Distribution, activation},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use firebrick_core::layers::activation::Activation;

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

criterion_group!(benches, gelu);
criterion_main!(benches);
