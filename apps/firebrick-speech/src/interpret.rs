//! Speech in one language to speech in another, segment by segment.

use std::time::{Duration, Instant};

use firebrick_data::{
    audio::{
        resample::resample,
        voice::{self, Spoken},
    },
    normalise::normalise,
};

use crate::{speaker::Speaker, transcribe::Transcriber, whisper::Options};

/// A text to its translation.
pub type Translate<'a> = &'a dyn Fn(&str) -> anyhow::Result<String>;

/// Hears, translates, speaks.
pub struct Interpreter<'a> {
    pub transcriber: &'a Transcriber,
    pub options: Options,
    pub translate: Translate<'a>,
    pub speaker: &'a dyn Speaker,
    /// Of what is spoken: en, zh, de, fr.
    pub language: &'a str,
    /// Of what is spoken, in Hz.
    pub rate: u32,
}

/// A segment that was interpreted.
#[derive(Debug, Clone, PartialEq)]
pub struct Interpreted {
    /// Seconds from the start of everything to the segment's first and last sound.
    pub begin: f64,
    pub end: f64,
    pub heard: String,
    pub said: String,
    /// What the translation sounds like.
    pub samples: Vec<f32>,
    /// What the steps took.
    pub recognition: Duration,
    pub translation: Duration,
    pub speech: Duration,
}

impl Interpreter<'_> {
    /// `None` where there were no words in it.
    pub fn interpret(&self, spoken: &Spoken) -> anyhow::Result<Option<Interpreted>> {
        let second = |sample: usize| sample as f64 / f64::from(voice::RATE);
        let margin = voice::Options::default().margin;
        let (begin, end) = (second(spoken.range.start) + margin, second(spoken.range.end) - margin);

        let start = Instant::now();
        let rate = self.transcriber.sample_rate();
        let samples = match rate == voice::RATE {
            true => &spoken.samples,
            false => &resample(&spoken.samples, voice::RATE, rate),
        };
        let heard = self.transcriber.write(samples, &self.options, false, &mut |_| {})?.text();
        let recognition = start.elapsed();
        if !heard.chars().any(char::is_alphanumeric) {
            return Ok(None);
        }
        let start = Instant::now();
        let said = (self.translate)(&heard)?;
        let translation = start.elapsed();
        let start = Instant::now();
        // A translation without a letter has no sound.
        let samples = match said.chars().any(char::is_alphanumeric) {
            true => self.speaker.speak(&said, self.language, self.rate)?,
            false => vec![],
        };
        let speech = start.elapsed();
        let found =
            Interpreted { begin, end, heard, said, samples, recognition, translation, speech };
        Ok(Some(found))
    }
}

/// What two texts are compared by: small letters, digits, apostrophes within words; one space for anything else between
/// them, none among Chinese words, which writers do not part.
///
/// ```
/// use firebrick_speech::interpret::compared;
///
/// assert_eq!(compared(" It’s half-past 9, isn't it?", "en"), "it's half past 9 isn't it");
/// assert_eq!(compared("你好， 世界！", "zh"), "你好世界");
/// ```
pub fn compared(text: &str, language: &str) -> String {
    let text: Vec<char> = normalise(text).replace('’', "'").chars().collect();
    let letter =
        |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|c| c.is_alphanumeric());
    let kept = |at: usize| {
        letter(Some(at)) || (text[at] == '\'' && letter(at.checked_sub(1)) && letter(Some(at + 1)))
    };
    let spaced: String = (0..text.len()).map(|at| if kept(at) { text[at] } else { ' ' }).collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    words.join(if language == "zh" { "" } else { " " })
}

/// The value below which a share `p` of `values` lies, by the nearest rank; `None` of nothing.
pub fn percentile(values: &[f64], p: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let values = [3.0, 1.0, 2.0, 4.0];
        assert_eq!(percentile(&values, 0.5), Some(2.0));
        assert_eq!(percentile(&values, 0.95), Some(4.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
