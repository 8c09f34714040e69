//! BERT forward and training step on the CPU, per batch shape. Throughput is in tokens.
#![recursion_limit = "256"]

use burn::prelude::*;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use firebrick_core::arch::bert::BertConfig;
use firebrick_nlp::workload::TrainStep;

/// Sizes of the recipes that train from scratch.
fn small() -> BertConfig {
    BertConfig {
        vocab_size: 8000,
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 128,
        ..BertConfig::base()
    }
}

fn forward(c: &mut Criterion) {
    let device = Device::flex();
    let model = small().init_classifier(2, &device);
    let mut group = c.benchmark_group("encoder/forward");
    for (b, t) in [(1, 16), (32, 32), (64, 128)] {
        let ids = Tensor::<2, Int>::ones([b, t], &device);
        group.throughput(Throughput::Elements((b * t) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{b}x{t}")), |bench| {
            // `into_data` waits for the device: without it we would time the queueing.
            bench.iter(|| model.forward(ids.clone(), None, None).into_data());
        });
    }
    group.finish();
}

fn train(c: &mut Criterion) {
    let mut group = c.benchmark_group("encoder/train");
    for (b, t) in [(32, 24), (32, 128)] {
        let mut step = TrainStep::new(&small(), b, t, &Device::flex());
        group.throughput(Throughput::Elements((b * t) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{b}x{t}")), |bench| {
            bench.iter(|| step.run());
        });
    }
    group.finish();
}

criterion_group!(benches, forward, train);
criterion_main!(benches);
