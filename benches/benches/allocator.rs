//! A BERT training step with glibc's defaults and with `keep_memory`, each in a process of its own: the
//! allocator's thresholds cannot be set back.
#![recursion_limit = "256"]

use std::{env, process::Command, time::Instant};

use burn::prelude::*;
use firebrick_core::arch::bert::BertConfig;
use firebrick_nlp::workload::TrainStep;

/// Tells the child what to measure.
const VARIANT: &str = "FIREBRICK_BENCH_ALLOCATOR";

fn main() {
    match env::var(VARIANT) {
        Ok(variant) => {
            if variant == "keep_memory" {
                firebrick_kernels::allocator::keep_memory();
            }
            println!("{variant:12} {:.4} s a step", step());
        }
        Err(_) => {
            println!("training step, BERT 256 x 4 layers, 16 x 128 tokens, flex; median of 9");
            for variant in ["default", "keep_memory", "default", "keep_memory"] {
                let me = env::current_exe().expect("a running program has a path");
                let status = Command::new(me).env(VARIANT, variant).status();
                assert!(status.is_ok_and(|status| status.success()), "{variant} failed");
            }
        }
    }
}

/// Median seconds.
fn step() -> f64 {
    let config = BertConfig {
        hidden_size: 256,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        intermediate_size: 1024,
        ..BertConfig::base()
    };
    let mut step = TrainStep::new(&config, 16, 128, &Device::flex());
    step.run();
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            step.run();
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[4]
}
