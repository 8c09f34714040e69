//! Beam search, with the bookkeeping of `transformers` (its `_beam_search`), so that scores tie and end alike.

use super::{EarlyStopping, Job, Never, logits};
use crate::layers::cache::Cache;

/// Added to the score of what must not be chosen.
const WORST: f32 = -1e9;

#[derive(Clone)]
struct Beam {
    tokens: Vec<i64>,
    /// Sum of log-probabilities; of a finished beam, divided by the length penalty.
    score: f32,
    finished: bool,
    /// Row of the logits that the last token was chosen by.
    row: usize,
}

/// The beams of one prompt.
struct Search {
    prompt: usize,
    open: Vec<Beam>,
    /// The best that have ended, best first; padded with placeholders.
    finished: Vec<Beam>,
    /// Whether an open beam can still win.
    improvable: bool,
    all_hit: bool,
}

pub(super) fn run(job: &Job, prompt: Vec<Vec<i64>>, mut cache: Cache) -> Vec<Vec<i64>> {
    let beams = job.config.num_beams;
    let mut searches: Vec<Search> = prompt
        .into_iter()
        .enumerate()
        .map(|(row, tokens)| {
            // Only the first beam counts at the start: the others would choose the same tokens.
            let beam = |i| {
                let score = if i == 0 { 0.0 } else { WORST };
                Beam { tokens: tokens.clone(), score, finished: false, row }
            };
            let open: Vec<Beam> = (0..beams).map(beam).collect();
            let finished = vec![Beam { score: WORST, ..open[0].clone() }; beams];
            Search { prompt: row, open, finished, improvable: true, all_hit: false }
        })
        .collect();

    let mut scores = {
        let rows: Vec<&[i64]> = searches.iter().map(|s| s.open[0].tokens.as_slice()).collect();
        job.next(&rows, job.read, &mut cache)
    };
    loop {
        scores.iter_mut().for_each(|row| logits::log_softmax(row));
        searches.iter_mut().for_each(|search| search.step(&scores, job));
        let enough = job.config.early_stopping == EarlyStopping::Heuristic(true)
            && searches.iter().all(|s| s.finished.iter().all(|beam| beam.finished));
        let over = searches.iter().all(|s| s.all_hit);
        if over || enough || !searches.iter().any(|s| s.improvable) {
            break;
        }
        let open = || searches.iter().flat_map(|s| &s.open);
        cache.select(&open().map(|beam| beam.row).collect::<Vec<_>>());
        let rows: Vec<&[i64]> = open().map(|beam| beam.tokens.as_slice()).collect();
        scores = job.next(&rows, 1, &mut cache);
        let beams = searches.iter_mut().flat_map(|s| &mut s.open);
        beams.enumerate().for_each(|(row, beam)| beam.row = row);
    }

    let rows = searches.into_iter().map(|search| search.finished.into_iter().next());
    let mut rows: Vec<Vec<i64>> = rows.map(|beam| beam.expect("a beam a prompt").tokens).collect();
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let end = job.config.ends().first().copied();
    // An id of 0 counts as none there, and the end takes its place.
    let pad = job.config.pad_token_id.filter(|pad| *pad != 0).or(end).unwrap_or(0);
    rows.iter_mut().for_each(|row| row.resize(longest, pad));
    rows
}

impl Search {
    fn step(&mut self, scores: &[Vec<f32>], job: &Job) {
        let config = job.config;
        let (beams, ends) = (config.num_beams, config.ends());
        let candidates = self.candidates(scores, (1 + ends.len()).max(2) * beams, job);
        let length = self.open[0].tokens.len() + 1;
        let hits: Vec<bool> = candidates
            .iter()
            .map(|beam| {
                length >= job.longest || beam.tokens.last().is_some_and(|t| ends.contains(t))
            })
            .collect();

        let went_on = candidates.iter().zip(&hits).map(|(beam, hit)| Beam {
            score: if *hit { beam.score + WORST } else { beam.score },
            ..beam.clone()
        });
        let open = best(went_on.collect(), beams);

        // Only the best few may finish; the others are there so that enough stay open.
        let full = config.early_stopping == EarlyStopping::Heuristic(true)
            && self.finished.iter().all(|beam| beam.finished);
        let ended = candidates.into_iter().enumerate().map(|(rank, beam)| {
            let ends_now = hits[rank] && rank < beams;
            let mut score = beam.score / penalty(length - job.read, config.length_penalty);
            for forbidden in [full, !self.improvable, !ends_now] {
                score += if forbidden { WORST } else { 0.0 };
            }
            Beam { score, finished: ends_now, ..beam }
        });
        self.finished = best(self.finished.drain(..).chain(ended).collect(), beams);
        self.open = open;
        self.all_hit = hits.iter().all(|hit| *hit);

        let never = config.early_stopping == EarlyStopping::Word(Never::Never);
        let reach = if never && config.length_penalty > 0.0 { job.longest } else { length };
        let hope = self.open[0].score / penalty(reach - job.read, config.length_penalty);
        let worst = self.finished.iter().map(|beam| beam.score).fold(f32::INFINITY, f32::min);
        let beaten = |beam: &Beam| hope > if beam.finished { worst } else { WORST };
        self.improvable &= self.finished.iter().any(beaten);
    }

    /// The best `count` continuations of all open beams, best first.
    fn candidates(&self, scores: &[Vec<f32>], count: usize, job: &Job) -> Vec<Beam> {
        let mut found: Vec<(f32, usize, usize)> = vec![];
        for (index, beam) in self.open.iter().enumerate() {
            let mut row = scores[beam.row].clone();
            logits::process(&mut row, &beam.tokens, self.prompt, job);
            found.extend(row.iter().enumerate().map(|(token, x)| (x + beam.score, index, token)));
            // Keeps the list short, whatever the vocabulary.
            keep_best(&mut found, count);
        }
        found.sort_by(order);
        let beam = |(score, index, token): (f32, usize, usize)| {
            let mut beam = self.open[index].clone();
            beam.tokens.push(token as i64);
            Beam { score, ..beam }
        };
        found.into_iter().map(beam).collect()
    }
}

fn order(a: &(f32, usize, usize), b: &(f32, usize, usize)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)))
}

fn keep_best(found: &mut Vec<(f32, usize, usize)>, count: usize) {
    if found.len() > count {
        found.select_nth_unstable_by(count - 1, order);
        found.truncate(count);
    }
}

/// The `count` best, best first; of equals the earlier.
fn best(mut beams: Vec<Beam>, count: usize) -> Vec<Beam> {
    beams.sort_by(|a, b| b.score.total_cmp(&a.score));
    beams.truncate(count);
    beams
}

fn penalty(length: usize, power: f32) -> f32 {
    (length as f32).powf(power)
}
