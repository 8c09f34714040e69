//! Words in a long recording, or in one that goes on: a classifier that listens again and again, and what counts as
//! having heard a word.
//!
//! The scores of successive looks are averaged, a word must reach a threshold and be the best of all, and after one the
//! next must wait (Chen et al. 2014, "Small-footprint keyword spotting using deep neural networks").

use std::collections::VecDeque;

use firebrick_data::audio::mel::MelStream;
use firebrick_metrics::confusion::argmax;

use crate::{classification::classifier::SoundClassifier, features::normalize};

/// When a word counts as heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trigger {
    /// Seconds from look to look.
    pub every: f64,
    /// Looks whose scores are averaged.
    pub smooth: usize,
    /// Average score that a word must have, in `[0, 1]`.
    pub threshold: f32,
    /// Seconds after a word in which no other counts.
    pub refractory: f64,
}

impl Trigger {
    /// For a classifier's words.
    pub fn new(classifier: &SoundClassifier) -> Self {
        let mut trigger = Self { every: 0.1, smooth: 3, threshold: 0.5, refractory: 0.0 };
        trigger.refractory = trigger.once(classifier);
        trigger
    }

    /// The rest after which a word is reported once: until it has left what the classifier sees, and the looks that are
    /// averaged. Of sixty recorded words none was reported twice with it, and three with a rest of 0.8 seconds.
    pub fn once(&self, classifier: &SoundClassifier) -> f64 {
        classifier.preprocessor.seconds.unwrap_or(0.0) + self.smooth as f64 * self.every
    }

    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if !(0.01..=60.0).contains(&self.every) {
            return Err(format!("every is {}, not within 0.01 and 60 seconds", self.every));
        }
        if !(1..=1000).contains(&self.smooth) {
            return Err(format!("smooth is {}, not within 1 and 1000", self.smooth));
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            return Err(format!("threshold is {}, not within 0 and 1", self.threshold));
        }
        match (0.0..=3600.0).contains(&self.refractory) {
            true => Ok(()),
            false => Err(format!("refractory is {}, not within 0 and 3600", self.refractory)),
        }
    }
}

/// A word that was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Seconds from the start to the end of what the model saw.
    pub at: f64,
    pub label: String,
    /// Average of the looks.
    pub score: f32,
}

/// Classes that are no words.
const OTHERS: &[&str] = &["silence", "unknown", "background", "_silence_", "_unknown_"];

/// Whether a class is a word, or what a spotter never reports.
pub fn is_word(label: &str) -> bool {
    !OTHERS.contains(&label)
}

/// Listens to samples that come in pieces.
pub struct Spotter<'a> {
    looks: Looks<'a>,
    decide: Decide,
}

impl<'a> Spotter<'a> {
    /// `trigger` has passed its check.
    pub fn new(classifier: &'a SoundClassifier, trigger: Trigger) -> Self {
        Self { looks: Looks::new(classifier, trigger.every), decide: Decide::new(trigger) }
    }

    /// Takes samples at the classifier's rate, and tells what was heard.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Heard> {
        let looks = self.looks.push(samples);
        let labels = &self.looks.classifier.labels;
        let heard = looks.into_iter().filter_map(|look| self.decide.heard(&look, labels));
        heard.collect()
    }

    /// At the end of a recording: silence until its last samples have been in as many looks as are averaged.
    pub fn finish(&mut self) -> Vec<Heard> {
        let Trigger { every, smooth, .. } = self.decide.trigger;
        let rate = f64::from(self.looks.classifier.sample_rate());
        self.push(&vec![0.0; (every * smooth as f64 * rate) as usize])
    }
}

/// What a classifier said of a piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Seconds from the start to the end of what it saw.
    pub at: f64,
    /// By label.
    pub scores: Vec<f32>,
}

/// A classifier that looks at a stream again and again.
pub struct Looks<'a> {
    classifier: &'a SoundClassifier,
    frames: MelStream,
    /// The last `T` frames, before they are normalised.
    seen: VecDeque<f32>,
    /// Frames so far.
    count: usize,
    /// Frame of the next look.
    next: usize,
    /// Frames from look to look.
    step: usize,
}

impl<'a> Looks<'a> {
    /// `every`: seconds from look to look.
    pub fn new(classifier: &'a SoundClassifier, every: f64) -> Self {
        let config = &classifier.preprocessor.mel;
        let per_second = f64::from(config.sample_rate) / config.hop_length as f64;
        Self {
            frames: MelStream::new(classifier.mel.clone()),
            next: classifier.preprocessor.frames().unwrap_or(1),
            step: ((every * per_second).round() as usize).max(1),
            seen: VecDeque::new(),
            count: 0,
            classifier,
        }
    }

    /// Takes samples at the classifier's rate.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Look> {
        let frames = self.frames.push(samples);
        let config = &self.classifier.preprocessor.mel;
        let bands = config.width();
        let length = self.classifier.preprocessor.frames().unwrap_or(1);
        let per_second = f64::from(config.sample_rate) / config.hop_length as f64;
        let (mut windows, mut times) = (vec![], vec![]);
        for frame in frames.chunks(bands) {
            self.seen.extend(frame);
            self.count += 1;
            let many = self.seen.len().saturating_sub(length * bands);
            self.seen.drain(..many);
            if self.count == self.next {
                let mut window: Vec<f32> = self.seen.iter().copied().collect();
                normalize(&mut window, bands, self.classifier.preprocessor.normalize);
                windows.push(window);
                times.push(self.count as f64 / per_second);
                self.next += self.step;
            }
        }
        let answers = self.classifier.of_frames(&windows, 64);
        let looks = times.into_iter().zip(answers);
        looks.map(|(at, answer)| Look { at, scores: answer.scores }).collect()
    }
}

/// From looks to words.
pub struct Decide {
    trigger: Trigger,
    looks: VecDeque<Vec<f32>>,
    last: f64,
}

impl Decide {
    /// `trigger` has passed its check.
    pub fn new(trigger: Trigger) -> Self {
        Self { trigger, looks: VecDeque::new(), last: f64::NEG_INFINITY }
    }

    /// The word that `look`, the next one, completes.
    pub fn heard(&mut self, look: &Look, labels: &[String]) -> Option<Heard> {
        let (label, score) = self.look(look.at, &look.scores, |label| is_word(&labels[label]))?;
        Some(Heard { at: look.at, label: labels[label].clone(), score })
    }

    /// [`Self::heard`] by class, with its average score.
    fn look(
        &mut self,
        at: f64,
        scores: &[f32],
        is_word: impl Fn(usize) -> bool,
    ) -> Option<(usize, f32)> {
        self.looks.push_back(scores.to_vec());
        if self.looks.len() > self.trigger.smooth {
            self.looks.pop_front();
        }
        let mean = |label: usize| {
            self.looks.iter().map(|look| look[label]).sum::<f32>() / self.trigger.smooth as f32
        };
        let means: Vec<f32> = (0..scores.len()).map(mean).collect();
        let best = argmax(&means);
        let counts = is_word(best)
            && means[best] >= self.trigger.threshold
            && at - self.last >= self.trigger.refractory;
        if counts {
            self.last = at;
            // The same word again must be seen anew.
            self.looks.clear();
        }
        counts.then(|| (best, means[best]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class 0 is silence. Two looks in a row are needed, and after a word a second of rest.
    #[test]
    fn words_are_heard_once() {
        let trigger = Trigger { every: 0.1, smooth: 2, threshold: 0.7, refractory: 1.0 };
        let mut decide = Decide::new(trigger);
        let looks = [
            [0.9, 0.1, 0.0],
            [0.0, 0.9, 0.1], // mean 0.5 with the one before
            [0.0, 0.8, 0.2], // mean 0.85: heard at 2
            [0.0, 0.9, 0.1],
            [0.0, 0.9, 0.1],
            [0.95, 0.0, 0.05],
            [0.95, 0.0, 0.05],
            [0.0, 0.0, 1.0],
            [0.0, 0.0, 1.0], // heard at 8
        ];
        let heard: Vec<(usize, usize)> = looks
            .iter()
            .enumerate()
            .filter_map(|(i, scores)| {
                // Looks 0.2 seconds apart.
                decide.look(0.2 * i as f64, scores, |label| label > 0).map(|(label, _)| (i, label))
            })
            .collect();
        assert_eq!(heard, [(2, 1), (8, 2)]);
    }
}
