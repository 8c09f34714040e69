//! Where somebody speaks: a small network's score of every 16 ms ([`earshot`]), smoothed to segments.

use std::ops::Range;

use earshot::Detector;

/// The rate that is listened at, in Hz.
pub const RATE: u32 = 16_000;
/// Samples of a frame: 16 ms.
pub const FRAME: usize = 256;

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
    let mut frame = [0.0; FRAME];
    let score = |part: &[f32]| {
        for (to, from) in frame.iter_mut().zip(part) {
            *to = from.clamp(-1.0, 1.0);
        }
        detector.predict_f32(&frame)
    };
    samples.chunks_exact(FRAME).map(score).collect()
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

/// Runs of frames, without margins.
fn spoken<'a>(scores: &'a [f32], options: &Options) -> impl Iterator<Item = Range<usize>> + 'a {
    let frames = |seconds: f64| (seconds * f64::from(RATE) / FRAME as f64).round() as usize;
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
            let second_half = begin + longest / 2..begin + longest;
            let lowest = second_half.min_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            let cut = lowest.expect("a half of two frames or more") + 1;
            parts.push(begin..cut);
            begin = cut;
        }
        parts.push(begin..run.end);
        parts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
