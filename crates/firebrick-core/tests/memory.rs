//! Loading and saving take at most 1.3 times the parameters' bytes at peak. The peak is that of the
//! process, so this is the only test in it.

#![cfg(target_os = "linux")]

use std::{
    fs::{self, File},
    io::Write,
};

use burn::{
    nn::{Embedding, EmbeddingConfig, Linear, LinearConfig},
    prelude::*,
};
use firebrick_core::checkpoint::tensors::{Coverage, SaveType, Weights, fill, save};
use serde_json::json;

/// The worst case: two large tensors, one of them transposed.
#[derive(Module, Debug)]
struct Tables {
    tokens: Embedding,
    head: Linear,
}

const ROWS: usize = 16 * 1024;
const COLUMNS: usize = 1024;
const BYTES: usize = 2 * 4 * ROWS * COLUMNS;

#[test]
fn a_third_more_than_the_parameters_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let half = BYTES / 2;
    let header = json!({
        "tokens.weight": {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": [0, half]},
        "head.weight": {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": [half, BYTES]},
    })
    .to_string();
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // Zeros, which take no room on the disk.
    file.set_len((8 + header.len() + BYTES) as u64).unwrap();

    let device = Device::flex();
    let model = Tables {
        tokens: EmbeddingConfig::new(ROWS, COLUMNS).init(&device),
        head: LinearConfig::new(COLUMNS, ROWS).with_bias(false).init(&device),
    };
    let name = |field: &str| Some(field.to_string());
    let before = peak();
    let all = Coverage { ignored: &[], fresh: &[] };
    let model = fill(model, &Weights::open(dir.path()).unwrap(), &all, name).unwrap();
    let limit = before + BYTES * 13 / 10;
    assert!(peak() < limit, "loading {BYTES} bytes takes {} at peak", peak() - before);
    save(&model, &dir.path().join("saved.safetensors"), SaveType::F16, name).unwrap();
    assert!(peak() < limit, "saving {BYTES} bytes takes {} at peak", peak() - before);
}

/// Bytes.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}
