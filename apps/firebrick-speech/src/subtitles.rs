//! What was said and when, as subtitles.

/// A piece of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Seconds.
    pub begin: f64,
    pub end: f64,
    pub text: String,
}

/// SubRip.
///
/// ```
/// use firebrick_speech::subtitles::{Segment, srt};
///
/// let said = Segment { begin: 0.5, end: 3661.0, text: "Hello.".into() };
/// assert_eq!(srt(&[said]), "1\n00:00:00,500 --> 01:01:01,000\nHello.\n\n");
/// ```
pub fn srt(segments: &[Segment]) -> String {
    let one = |(segment, number): (&Segment, usize)| {
        let Segment { begin, end, text } = segment;
        format!("{number}\n{} --> {}\n{text}\n\n", clock(*begin, ','), clock(*end, ','))
    };
    segments.iter().zip(1..).map(one).collect()
}

/// WebVTT. Its markup is escaped.
pub fn vtt(segments: &[Segment]) -> String {
    let one = |segment: &Segment| {
        let text = segment.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("{} --> {}\n{text}\n\n", clock(segment.begin, '.'), clock(segment.end, '.'))
    };
    format!("WEBVTT\n\n{}", segments.iter().map(one).collect::<String>())
}

fn clock(seconds: f64, point: char) -> String {
    let all = (seconds.max(0.0) * 1000.0).round() as u64;
    let (ms, s, m, h) = (all % 1000, all / 1000 % 60, all / 60_000 % 60, all / 3_600_000);
    format!("{h:02}:{m:02}:{s:02}{point}{ms:03}")
}
