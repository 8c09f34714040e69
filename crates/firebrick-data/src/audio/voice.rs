//! Where somebody speaks: a small network's score of every 16 ms ([`earshot`]), smoothed to segments.

use std::ops::Range;

use earshot::Detector;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The rate that is listened at, in Hz.
pub const RATE: u32 = 16_000;
/// Samples of a frame: 16 ms.
pub const FRAME: usize = 256;
/// Standard deviation of the noise that lies under everything that is heard. Without it the network takes the pauses of a
/// recording from 8 or 11 kHz for speech: above 4 kHz there is nothing at all, which no microphone gives.
const FLOOR: f32 = 1e-4;

/// What makes a segment, in seconds but for the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Frames above are speech; in `[0, 1]`.
    pub threshold: f32,
    /// Shorter ones are clicks.
    pub shortest: f64,
    /// Silence that does not end a segment.
    pub pause: f64,
    /// Kept before and after what was heard: consonants are quiet.
    pub margin: f64,
    /// Segments beyond are cut where the score is lowest in their second half.
    pub longest: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { threshold: 0.5, shortest: 0.1, pause: 0.4, margin: 0.2, longest: 30.0 }
    }
}

/// Probability that there is speech in each frame of `samples` at [`RATE`]; a rest shorter than a frame has none.
pub fn scores(samples: &[f32]) -> Vec<f32> {
    let mut detector = Detector::default();
    let frames = samples.chunks_exact(FRAME).enumerate();
    frames.map(|(number, part)| score(&mut detector, number, part)).collect()
}

/// The score of the next frame, the `number`th, from which its noise follows: in whatever pieces samples come, they are heard
/// as the whole is.
fn score(detector: &mut Detector, number: usize, part: &[f32]) -> f32 {
    let mut random = ChaCha8Rng::seed_from_u64(number as u64);
    // Evenly spread, with this deviation.
    let most = FLOOR * 3f32.sqrt();
    let mut frame = [0.0; FRAME];
    for (to, from) in frame.iter_mut().zip(part) {
        *to = (from + random.random_range(-most..most)).clamp(-1.0, 1.0);
    }
    detector.predict_f32(&frame)
}

/// Parts of `samples` at [`RATE`] with speech in them, in order, without overlap.
pub fn segments(samples: &[f32], options: &Options) -> Vec<Range<usize>> {
    let scores = scores(samples);
    let margin = (options.margin * f64::from(RATE)) as usize;
    let widened = |part: Range<usize>| {
        let begin = (part.start * FRAME).saturating_sub(margin);
        begin..(part.end * FRAME + margin).min(samples.len())
    };
    let mut segments: Vec<Range<usize>> = spoken(&scores, options).map(widened).collect();
    // Margins of neighbours meet half way.
    for i in 1..segments.len() {
        if segments[i].start < segments[i - 1].end {
            let middle = (segments[i].start + segments[i - 1].end) / 2;
            (segments[i - 1].end, segments[i].start) = (middle, middle);
        }
    }
    segments
}

fn frames(seconds: f64) -> usize {
    (seconds * f64::from(RATE) / FRAME as f64).round() as usize
}

/// Where to cut: after the frame with the lowest score.
fn lowest(mut frames: Range<usize>, score: impl Fn(usize) -> f32) -> usize {
    let first = frames.next().expect("a half of two frames or more");
    1 + frames.fold(first, |best, i| if score(i) < score(best) { i } else { best })
}

/// Runs of frames, without margins.
fn spoken<'a>(scores: &'a [f32], options: &Options) -> impl Iterator<Item = Range<usize>> + 'a {
    let (shortest, pause) = (frames(options.shortest), frames(options.pause));
    let longest = frames(options.longest).max(2);
    let mut runs: Vec<Range<usize>> = vec![];
    for (i, _) in scores.iter().enumerate().filter(|(_, score)| **score > options.threshold) {
        match runs.last_mut() {
            Some(run) if i - run.end <= pause => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs.retain(|run| run.len() >= shortest);
    runs.into_iter().flat_map(move |run| {
        let mut parts = vec![];
        let mut begin = run.start;
        while run.end - begin > longest {
            let cut = lowest(begin + longest / 2..begin + longest, |i| scores[i]);
            parts.push(begin..cut);
            begin = cut;
        }
        parts.push(begin..run.end);
        parts
    })
}

/// What [`segments`] finds, of samples that come in pieces, each as soon as it is over. Margins are at most half a pause.
pub struct Segmenter {
    options: Options,
    detector: Detector,
    /// Samples from `start` on: what a segment that has begun needs, or the next one's margin.
    held: Vec<f32>,
    /// Of all samples.
    start: usize,
    /// Scores from frame `scored` on.
    scores: Vec<f32>,
    scored: usize,
    /// Frames of a segment that has begun.
    run: Option<Range<usize>>,
    /// The run begins where another was cut: without a margin.
    cut: bool,
}

/// A part with speech in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// Samples from the beginning of everything.
    pub range: Range<usize>,
    pub samples: Vec<f32>,
}

impl Segmenter {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            detector: Detector::default(),
            held: vec![],
            start: 0,
            scores: vec![],
            scored: 0,
            run: None,
            cut: false,
        }
    }

    fn margin(&self) -> usize {
        (self.options.margin.min(self.options.pause / 2.0) * f64::from(RATE)) as usize
    }

    /// Takes samples at [`RATE`].
    pub fn push(&mut self, samples: &[f32]) -> Vec<Spoken> {
        self.held.extend(samples);
        let mut found = vec![];
        loop {
            let frame = self.scored + self.scores.len();
            let at = frame * FRAME - self.start;
            let Some(part) = self.held.get(at..at + FRAME) else { break };
            let score = score(&mut self.detector, frame, part);
            self.scores.push(score);
            found.extend(self.look(frame, score));
            self.forget();
        }
        found
    }

    /// The last segment, when nothing more comes.
    pub fn finish(&mut self) -> Option<Spoken> {
        self.run.take().and_then(|run| self.close(run))
    }

    fn look(&mut self, frame: usize, score: f32) -> Option<Spoken> {
        let Options { threshold, pause, longest, .. } = self.options;
        let over = self.run.take_if(|run| frame - run.end > frames(pause));
        let found = over.and_then(|run| self.close(run));
        match &mut self.run {
            Some(run) if score > threshold => run.end = frame + 1,
            None if score > threshold => {
                self.run = Some(frame..frame + 1);
                self.cut = false;
            }
            _ => {}
        }
        if found.is_some() {
            return found;
        }
        let longest = frames(longest).max(2);
        let run = self.run.clone().filter(|run| run.len() > longest)?;
        let cut =
            lowest(run.start + longest / 2..run.start + longest, |i| self.scores[i - self.scored]);
        let spoken = self.spoken(run.start..cut, true);
        (self.run, self.cut) = (Some(cut..run.end), true);
        Some(spoken)
    }

    fn close(&self, run: Range<usize>) -> Option<Spoken> {
        let long = self.cut || run.len() >= frames(self.options.shortest);
        long.then(|| self.spoken(run, false))
    }

    /// `ends_cut`: another segment begins at once.
    fn spoken(&self, run: Range<usize>, ends_cut: bool) -> Spoken {
        let margin = self.margin();
        let begin = (run.start * FRAME).saturating_sub(if self.cut { 0 } else { margin });
        let end = run.end * FRAME + if ends_cut { 0 } else { margin };
        let range = begin.max(self.start)..end.min(self.start + self.held.len());
        let samples = self.held[range.start - self.start..range.end - self.start].to_vec();
        Spoken { range, samples }
    }

    /// Lets go of what no segment can need.
    fn forget(&mut self) {
        let next = self.scored + self.scores.len();
        let first = self.run.as_ref().map_or(next, |run| run.start);
        let keep = (first * FRAME).saturating_sub(self.margin());
        // In large steps: each moves what is kept.
        if keep > self.start + (RATE as usize) {
            self.held.drain(..keep - self.start);
            self.start = keep;
            self.scores.drain(..first - self.scored);
            self.scored = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In whatever pieces the samples come, the segments are those of the whole.
    #[test]
    fn pieces_make_the_same_segments() {
        // Vowel-like buzzes of different lengths between silences.
        let mut samples = vec![0.0; 8000];
        for (k, length) in [4000, 1500, 30_000, 9000].into_iter().enumerate() {
            let buzz = |i: usize| {
                let t = i as f32 / RATE as f32;
                let voice =
                    |h: usize| (t * 130.0 * h as f32 * std::f32::consts::TAU).sin() / h as f32;
                (1..20).map(voice).sum::<f32>() * (0.25 + 0.05 * (t * 20.0).sin())
            };
            samples.extend((0..length).map(buzz));
            samples.extend(vec![0.0; 5000 + 4000 * k]);
        }
        for longest in [30.0, 0.5] {
            let options = Options { longest, ..Options::default() };
            let whole = segments(&samples, &options);
            assert!(whole.len() > 1, "{whole:?}");
            for piece in [100, 256, 5001, samples.len()] {
                let mut segmenter = Segmenter::new(options);
                let mut found: Vec<Spoken> =
                    samples.chunks(piece).flat_map(|part| segmenter.push(part)).collect();
                found.extend(segmenter.finish());
                let ranges: Vec<Range<usize>> = found.iter().map(|s| s.range.clone()).collect();
                assert_eq!(ranges, whole, "pieces of {piece}");
                assert!(found.iter().all(|s| s.samples == samples[s.range.clone()]));
            }
        }
    }

    const OPTIONS: Options =
        Options { threshold: 0.5, shortest: 0.032, pause: 0.032, margin: 0.0, longest: 0.16 };

    fn runs(scores: &[u8]) -> Vec<Range<usize>> {
        let scores: Vec<f32> = scores.iter().map(|x| f32::from(*x) / 10.0).collect();
        spoken(&scores, &OPTIONS).collect()
    }

    /// Two frames make a segment, and two of silence do not end it; ten are the most.
    #[test]
    fn frames_to_segments() {
        assert_eq!(runs(&[0, 9, 0, 0, 0, 9, 9, 0]), std::slice::from_ref(&(5..7)));
        assert_eq!(runs(&[9, 9, 0, 0, 9, 0, 0, 0, 9, 9]), [0..5, 8..10]);
        assert_eq!(runs(&[9; 10]), std::slice::from_ref(&(0..10)));
        assert_eq!(runs(&[9, 9, 9, 9, 9, 9, 6, 9, 9, 9, 9, 9]), [0..7, 7..12]);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn silence_has_no_segment() {
        assert!(segments(&vec![0.0; 32_000], &Options::default()).is_empty());
        assert!(segments(&[], &Options::default()).is_empty());
    }
}
