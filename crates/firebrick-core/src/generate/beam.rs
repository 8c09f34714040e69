//! Beam search, with the bookkeeping of `transformers` (its `_beam_search`), so that scores tie and end alike.

use super::{EarlyStopping, Job, Never, logits};
use crate::layers::{cache::Cache, loss::log_softmax};

/// Added to the score of what must not be chosen.
const WORST: f32 = -1e9;

/// Scores that are looked at together.
const BLOCK: usize = 64;

struct Beam {
    tokens: Vec<i64>,
    /// Sum of log-probabilities.
    score: f32,
    /// Row of the logits that the last token was chosen by.
    row: usize,
}

/// The beams of one prompt.
struct Search {
    prompt: usize,
    /// Best first.
    open: Vec<Beam>,
    /// The best that have ended, by score over length penalty.
    finished: Best<Vec<i64>>,
    /// Whether an open beam can still win.
    improvable: bool,
    all_hit: bool,
}

/// A beam by its place among the open ones, and the token that it may go on with.
#[derive(Clone, Copy)]
struct Step {
    beam: usize,
    token: i64,
}

pub(super) fn run(job: &Job, prompt: Vec<Vec<i64>>, mut cache: Cache) -> Vec<Vec<i64>> {
    let mut scores = {
        let rows: Vec<&[i64]> = prompt.iter().map(Vec::as_slice).collect();
        job.next(&rows, job.read, &mut cache)
    };
    let mut answers = prompt.clone();
    let prompts = prompt.into_iter().enumerate();
    let mut searches: Vec<Search> = prompts.map(|(row, ids)| Search::new(row, ids, job)).collect();
    loop {
        let [_, vocabulary] = scores.dims();
        let mut rows = super::numbers(log_softmax(scores));
        searches.iter_mut().for_each(|search| search.step(&mut rows, vocabulary, job));

        // What has ended is not computed further.
        let over = searches.iter().all(|search| search.all_hit);
        let ends = |search: &Search| over || !search.goes_on(job);
        let kept: Vec<usize> = (0..searches.len()).filter(|i| !ends(&searches[*i])).collect();
        for ended in searches.extract_if(.., |search| ends(search)) {
            if let Some((_, tokens)) = ended.finished.found.into_iter().next() {
                answers[ended.prompt] = tokens;
            }
        }
        if searches.is_empty() {
            break;
        }
        let open = || searches.iter().flat_map(|search| &search.open);
        cache.select(&open().map(|beam| beam.row).collect::<Vec<_>>(), &kept);
        let rows: Vec<&[i64]> = open().map(|beam| beam.tokens.as_slice()).collect();
        scores = job.next(&rows, 1, &mut cache);
        let beams = searches.iter_mut().flat_map(|search| &mut search.open);
        beams.enumerate().for_each(|(row, beam)| beam.row = row);
    }

    let longest = answers.iter().map(Vec::len).max().unwrap_or(0);
    let end = job.config.ends().first().copied();
    // An id of 0 counts as none there, and the end takes its place.
    let pad = job.config.pad_token_id.filter(|pad| *pad != 0).or(end).unwrap_or(0);
    answers.iter_mut().for_each(|row| row.resize(longest, pad));
    answers
}

impl Search {
    fn new(prompt: usize, tokens: Vec<i64>, job: &Job) -> Self {
        let beams = job.config.num_beams;
        // Only the first beam counts at the start: the others would choose the same tokens.
        let score = |i| if i == 0 { 0.0 } else { WORST };
        let open =
            (0..beams).map(|i| Beam { tokens: tokens.clone(), score: score(i), row: prompt });
        let (open, finished) = (open.collect(), Best::new(beams));
        Self { prompt, open, finished, improvable: true, all_hit: false }
    }

    fn goes_on(&self, job: &Job) -> bool {
        let enough = job.config.early_stopping == EarlyStopping::Heuristic(true);
        self.improvable && !(enough && self.finished.is_full())
    }

    fn step(&mut self, scores: &mut [f32], vocabulary: usize, job: &Job) {
        let config = job.config;
        let (beams, ends) = (config.num_beams, config.ends());
        let count = (1 + ends.len()).max(2) * beams;
        let candidates = self.candidates(scores, vocabulary, count, job);
        let length = self.open[0].tokens.len() + 1;
        let hit = |step: &Step| length >= job.longest || ends.contains(&step.token);
        let tokens = |step: &Step| [&self.open[step.beam].tokens[..], &[step.token]].concat();

        let mut open = Best::new(beams);
        for (rank, (score, step)) in candidates.iter().enumerate() {
            let hit = hit(step);
            open.offer(if hit { score + WORST } else { *score }, *step);
            // Only the best few may finish; the others are there so that enough stay open.
            let ended = score / penalty(length - job.read, config.length_penalty);
            if hit && rank < beams && ended > WORST && self.finished.takes(ended) {
                self.finished.offer(ended, tokens(step));
            }
        }
        self.all_hit = candidates.iter().all(|(_, step)| hit(step));
        let open = open.found.iter().map(|(score, step)| {
            let row = self.open[step.beam].row;
            Beam { tokens: tokens(step), score: *score, row }
        });
        self.open = open.collect();

        let never = config.early_stopping == EarlyStopping::Word(Never::Never);
        let reach = if never && config.length_penalty > 0.0 { job.longest } else { length };
        let hope = self.open[0].score / penalty(reach - job.read, config.length_penalty);
        self.improvable = hope > WORST && self.finished.takes(hope);
    }

    /// The best `count` continuations of all open beams.
    fn candidates(
        &self,
        scores: &mut [f32],
        vocabulary: usize,
        count: usize,
        job: &Job,
    ) -> Vec<(f32, Step)> {
        let mut best = Best::new(count);
        for (index, beam) in self.open.iter().enumerate() {
            let row = &mut scores[beam.row * vocabulary..][..vocabulary];
            // At the start all beams have one row.
            if index == 0 || beam.row != self.open[index - 1].row {
                logits::process(row, &beam.tokens, self.prompt, job);
            }
            for (block, scores) in row.chunks(BLOCK).enumerate() {
                // Most blocks have none; without a branch inside, that is seen at once.
                let any =
                    |least| scores.iter().fold(false, |any, x| any | (x + beam.score > least));
                if best.least().is_some_and(|least| !any(least)) {
                    continue;
                }
                for (token, x) in (block * BLOCK..).zip(scores) {
                    best.offer(x + beam.score, Step { beam: index, token: token as i64 });
                }
            }
        }
        best.found
    }
}

/// The best of what was offered, best first; of equals the one that came first.
struct Best<T> {
    most: usize,
    found: Vec<(f32, T)>,
}

impl<T> Best<T> {
    fn new(most: usize) -> Self {
        Self { most, found: Vec::with_capacity(most + 1) }
    }

    fn is_full(&self) -> bool {
        self.found.len() == self.most
    }

    /// What an offer must exceed; `None` while there is room.
    fn least(&self) -> Option<f32> {
        self.found.get(self.most - 1).map(|(score, _)| *score)
    }

    fn takes(&self, score: f32) -> bool {
        self.least().is_none_or(|least| score > least)
    }

    fn offer(&mut self, score: f32, item: T) {
        if self.takes(score) {
            let at = self.found.partition_point(|(other, _)| *other >= score);
            self.found.insert(at, (score, item));
            self.found.truncate(self.most);
        }
    }
}

fn penalty(length: usize, power: f32) -> f32 {
    (length as f32).powf(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_before() {
        let mut best = Best::new(3);
        for (i, score) in [1.0, 3.0, 3.0, f32::NEG_INFINITY, 2.0, 1.0, 2.0].into_iter().enumerate()
        {
            best.offer(score, i);
        }
        assert_eq!(best.found, [(3.0, 1), (3.0, 2), (2.0, 4)]);
    }
}
