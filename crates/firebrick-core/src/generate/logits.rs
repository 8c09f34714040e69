//! What changes the scores of the next token before one is chosen, in the order of `transformers`.

use super::{GenerationConfig, Job, TokenIds};

const NEVER: f32 = f32::NEG_INFINITY;

/// Rules that hold for every search. `written`: the row so far, its prompt included, that of `prompt`.
pub(super) fn process(scores: &mut [f32], written: &[i64], prompt: usize, job: &Job) {
    let c = job.config;
    let new = written.len() - job.read;
    if let Some(penalty) = c.repetition_penalty.filter(|p| *p != 1.0) {
        let padding = job.padding.get(prompt).copied().unwrap_or(0);
        let mut seen = written[padding..].to_vec();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            if let Some(score) = scores.get_mut(token as usize) {
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }
    if let Some(n) = c.no_repeat_ngram_size.filter(|n| *n > 0) {
        for token in completing(written, n) {
            forbid(scores, token);
        }
    }
    for word in c.bad_words_ids.iter().flatten() {
        // A single end token is no word; a longer one than the row is not looked for.
        if let Some((last, before)) = word.split_last()
            && written.ends_with(before)
            && (before.is_empty() || word.len() <= written.len())
            && !(before.is_empty() && c.ends().contains(last))
        {
            forbid(scores, *last);
        }
    }
    for token in c.once.iter().filter(|token| written[job.read..].contains(token)) {
        forbid(scores, *token);
    }
    let lacking = || c.required.iter().any(|token| !written[job.read..].contains(token));
    if written.len() < c.min_length || new < c.min_new_tokens || lacking() {
        c.ends().iter().for_each(|end| forbid(scores, *end));
    }
    if let Some(token) = c.forced_bos_token_id.filter(|_| written.len() == 1) {
        only(scores, &[token]);
    }
    if let Some(tokens) =
        c.forced_eos_token_id.as_ref().filter(|_| written.len() + 1 == job.longest)
    {
        only(scores, TokenIds::as_slice(tokens));
    }
    for token in c.suppress_tokens.iter().flatten() {
        forbid(scores, *token);
    }
    // After a forced first token, the next one is the first that is written.
    let first = usize::from(c.forced_bos_token_id.is_some() && job.read == 1);
    for token in c.begin_suppress_tokens.iter().flatten().filter(|_| new == first) {
        forbid(scores, *token);
    }
    if c.renormalize_logits {
        log_softmax(scores);
    }
}

/// Temperature, top-k, top-p, min-p.
pub(super) fn narrow(scores: &mut [f32], c: &GenerationConfig) {
    scores.iter_mut().for_each(|score| *score /= c.temperature);
    if let Some(k) = c.top_k.filter(|k| *k > 0 && *k < scores.len()) {
        let mut sorted = scores.to_vec();
        let (_, least, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let least = *least;
        forbid_below(scores, least);
    }
    if let Some(p) = c.top_p.filter(|p| *p < 1.0) {
        let probabilities = softmax(scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_unstable_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        let mut before = 0.0;
        for (rank, token) in order.into_iter().enumerate() {
            if rank > 0 && before >= p {
                scores[token] = NEVER;
            }
            before += probabilities[token];
        }
    }
    if let Some(p) = c.min_p.filter(|p| *p > 0.0) {
        let largest = scores.iter().copied().fold(NEVER, f32::max);
        forbid_below(scores, largest + p.ln());
    }
}

fn forbid_below(scores: &mut [f32], least: f32) {
    for score in scores.iter_mut().filter(|score| **score < least) {
        *score = NEVER;
    }
}

fn forbid(scores: &mut [f32], token: i64) {
    if let Some(score) = usize::try_from(token).ok().and_then(|token| scores.get_mut(token)) {
        *score = NEVER;
    }
}

fn only(scores: &mut [f32], tokens: &[i64]) {
    scores.fill(NEVER);
    for token in tokens {
        if let Some(score) = scores.get_mut(*token as usize) {
            *score = 0.0;
        }
    }
}

/// Tokens that would complete an n-gram which is already there.
fn completing(written: &[i64], n: usize) -> Vec<i64> {
    let Some(start) = (written.len() + 1).checked_sub(n) else { return vec![] };
    let tail = &written[start..];
    let grams = written.windows(n).filter(|gram| gram[..n - 1] == *tail);
    grams.map(|gram| gram[n - 1]).collect()
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(NEVER, f32::max);
    let weights: Vec<f32> = scores.iter().map(|x| (x - largest).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// `log(softmax(scores))` in place.
fn log_softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(NEVER, f32::max);
    let sum: f64 = scores.iter().map(|x| f64::from((x - largest).exp())).sum();
    let log_sum = sum.ln() as f32;
    scores.iter_mut().for_each(|x| *x = *x - largest - log_sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_narrow(config: GenerationConfig, expected: &[f32]) {
        let mut scores = [0.5f32, 0.25, 0.15, 0.1].map(f32::ln);
        narrow(&mut scores, &config);
        let left = softmax(&scores);
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
        assert!(left.iter().zip(expected).all(close), "{left:?}");
    }

    #[test]
    fn narrowing_keeps_the_likely() {
        let plain = GenerationConfig::default;
        check_narrow(plain(), &[0.5, 0.25, 0.15, 0.1]);
        check_narrow(
            GenerationConfig { top_k: Some(2), ..plain() },
            &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0],
        );
        // 0.5 + 0.25 do not reach 0.8 yet: the third stays.
        check_narrow(
            GenerationConfig { top_p: Some(0.8), ..plain() },
            &[5.0 / 9.0, 2.5 / 9.0, 1.5 / 9.0, 0.0],
        );
        check_narrow(
            GenerationConfig { min_p: Some(0.4), ..plain() },
            &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0],
        );
        let squares = [0.25f32, 0.0625, 0.0225, 0.01];
        let sum: f32 = squares.iter().sum();
        check_narrow(GenerationConfig { temperature: 0.5, ..plain() }, &squares.map(|x| x / sum));
    }

    #[test]
    fn repeated_grams_are_found() {
        assert_eq!(completing(&[1, 2, 3, 1, 2], 3), [3]);
        assert_eq!(completing(&[1, 2, 1, 3, 1], 2), [2, 3]);
        assert_eq!(completing(&[1], 3), Vec::<i64>::new());
        assert_eq!(completing(&[4, 5], 1), [4, 5]);
    }
}
