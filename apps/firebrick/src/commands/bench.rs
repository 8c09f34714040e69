//! `firebrick bench`: one workload, one JSON line in the format of the peers' scripts.

use std::time::Instant;

use burn::{prelude::*, tensor::TensorData};
use firebrick_core::arch::bert::BertConfig;
use firebrick_nlp::workload::TrainStep;
use serde_json::json;

use super::Outcome;
use crate::{
    cli::{BenchArgs, Global},
    failure::{Failure, USAGE},
};

pub fn run(args: &BenchArgs, global: &Global) -> Outcome {
    let device = global.device.open()?;
    match args.workload.as_str() {
        "bert-b1" => bert_b1(&device),
        "train-bert-b8" => train(&device, "train-bert-b8", &BertConfig::base(), 8, 128),
        "train-sst2" => train(&device, "train-sst2", &small(), 32, 24),
        other => {
            let message = format!("no workload `{other}`: bert-b1, train-bert-b8, train-sst2");
            return Err(Failure::text(USAGE, message));
        }
    }
    Ok(())
}

/// The encoder of the recipe sst2.
fn small() -> BertConfig {
    let recipe = super::recipe::open("sst2", &[]).ok().map(|(recipe, ..)| recipe);
    let recipe = recipe.expect("a test parses every shipped recipe");
    recipe.bert(recipe.tokenizer.vocab_size).expect("a test parses every shipped recipe")
}

/// Latency of one sequence of 128 tokens through BERT-base with two labels.
fn bert_b1(device: &Device) {
    device.seed(0);
    let model = BertConfig::base().init_classifier(2, device);
    let ids: Vec<i32> = (0..128).map(|i| 1000 + i * 37 % 20_000).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 128]), device);
    measure(
        "bert-b1",
        "latency",
        "ms",
        1,
        |seconds| seconds * 1e3,
        || {
            model.forward(ids.clone(), None, None).into_data();
        },
    );
}

/// Tokens a second of whole optimiser steps: forward, backward, clipping, AdamW.
fn train(device: &Device, name: &str, config: &BertConfig, rows: usize, tokens: usize) {
    let mut step = TrainStep::new(config, rows, tokens, device);
    let count = (rows * tokens) as f64;
    measure(name, "throughput", "tokens/s", 3, |seconds| count / seconds, || step.run());
}

/// Five repeats after `warmup` runs; what takes less than 0.2 s is repeated inside.
fn measure(
    workload: &str,
    metric: &str,
    unit: &str,
    warmup: usize,
    value: impl Fn(f64) -> f64,
    mut work: impl FnMut(),
) {
    let mut once = 0.0;
    for _ in 0..warmup.max(1) {
        let begun = Instant::now();
        work();
        once = begun.elapsed().as_secs_f64();
    }
    let inner = (0.2 / once.max(1e-6)).ceil().clamp(1.0, 1000.0) as usize;
    let mut values: Vec<f64> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            (0..inner).for_each(|_| work());
            value(begun.elapsed().as_secs_f64() / inner as f64)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let line = json!({
        "peer": "firebrick", "workload": workload, "metric": metric, "unit": unit,
        "median": values[2], "min": values[0], "max": values[4], "repeats": 5,
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "peak_rss_mb": peak_rss_mb(),
        "versions": {"firebrick": env!("CARGO_PKG_VERSION"), "burn": "0.22.1"},
    });
    println!("{line}");
}

/// Highest resident memory of this process so far, from the kernel.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}
