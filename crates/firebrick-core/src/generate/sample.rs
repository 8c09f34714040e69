//! One token at a time: the likeliest, or a drawn one.

use std::ops::ControlFlow;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Job, logits};
use crate::layers::cache::Cache;

pub(super) fn run(
    job: &Job,
    mut rows: Vec<Vec<i64>>,
    mut cache: Cache,
    watch: &mut dyn FnMut(usize, i64) -> ControlFlow<()>,
) -> Vec<Vec<i64>> {
    let config = job.config;
    let ends = config.ends();
    let pad = config.pad_token_id.or(ends.first().copied()).unwrap_or(0);
    // A generator a row: what stands beside a prompt does not change what is drawn for it.
    let mut random: Vec<_> = (0..rows.len() as u64)
        .map(|row| {
            let mut random = ChaCha8Rng::seed_from_u64(config.seed);
            random.set_stream(row);
            random
        })
        .collect();
    let mut open = vec![true; rows.len()];
    let mut new = job.read;
    for length in job.read..job.longest {
        let views: Vec<&[i64]> = rows.iter().map(Vec::as_slice).collect();
        let scores = job.next(&views, new, &mut cache);
        let [_, vocabulary] = scores.dims();
        let mut scores = super::numbers(scores);
        new = 1;
        for (row, scores) in scores.chunks_exact_mut(vocabulary).enumerate() {
            if !open[row] {
                rows[row].push(pad);
                continue;
            }
            logits::process(scores, &rows[row], row, job);
            let token = match config.do_sample {
                true => draw(scores, job, &mut random[row]),
                false => best(scores),
            };
            rows[row].push(token);
            open[row] = !ends.contains(&token) && watch(row, token).is_continue();
        }
        if !open.contains(&true) || length + 1 == job.longest {
            break;
        }
    }
    rows
}

/// The first of the largest.
fn best(scores: &[f32]) -> i64 {
    let mut best = 0;
    for (token, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = token;
        }
    }
    best as i64
}

fn draw(scores: &mut [f32], job: &Job, random: &mut ChaCha8Rng) -> i64 {
    logits::narrow(scores, job.config);
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = scores.iter().map(|x| f64::from(x - largest).exp()).collect();
    let mut left = random.random::<f64>() * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    // Rounding may leave a rest behind the last.
    drawn.map_or_else(|| best(scores), |token| token as i64)
}
