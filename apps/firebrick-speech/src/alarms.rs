//! False alarms of a word spotter: how often it hears a word in recordings in which nobody says one.
//!
//! A part of the [`crate::background`] chooses the threshold, and another, played one recording after the other, is what the
//! alarms are counted on.

use anyhow::ensure;
use firebrick_metrics::interval::poisson_interval;
use firebrick_train::job::Places;

use crate::{
    background::{self, Parts},
    classification::classifier::SoundClassifier,
    keyword::{Decide, Heard, Look, Looks, Trigger, is_word},
    recordings::{Recording, load},
};

/// Thresholds to choose from, in percent.
const THRESHOLDS: std::ops::Range<u8> = 50..100;
/// Seconds of silence before and after a word that is to be heard.
const AROUND: f64 = 1.0;

/// Speech without any of a spotter's words.
#[derive(Debug, Default)]
pub struct Background {
    /// Chooses the threshold.
    pub choose: Vec<Recording>,
    /// Is counted on.
    pub count: Vec<Recording>,
    /// Recordings in which one of the words is said.
    pub left_out: usize,
    /// Why a recording could not be read, each.
    pub unreadable: Vec<String>,
}

impl Background {
    /// Adds what no training takes of `name`, one of [`background::SETS`] or a folder.
    pub fn add(
        &mut self,
        name: &str,
        classifier: &SoundClassifier,
        places: &Places,
    ) -> anyhow::Result<()> {
        let words: Vec<&str> = words(classifier).collect();
        let Parts { choose, count, left_out, .. } = background::parts(name, &words, places)?;
        self.left_out += left_out;
        for (entries, part) in [(choose, &mut self.choose), (count, &mut self.count)] {
            let (found, problems) = load(&entries, classifier.sample_rate())?;
            part.extend(found);
            self.unreadable.extend(problems);
        }
        Ok(())
    }
}

fn words(classifier: &SoundClassifier) -> impl Iterator<Item = &str> {
    classifier.labels.iter().map(String::as_str).filter(|label| is_word(label))
}

/// Alarms in so many hours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    pub alarms: Vec<Heard>,
    pub hours: f64,
}

impl Counted {
    pub fn an_hour(&self) -> f64 {
        self.alarms.len() as f64 / self.hours
    }

    /// 95 % of [`Self::an_hour`].
    pub fn interval(&self) -> (f64, f64) {
        let (low, high) = poisson_interval(self.alarms.len() as u64);
        (low / self.hours, high / self.hours)
    }
}

/// What a spotter is worth at the threshold that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub threshold: f32,
    /// On the recordings that the threshold was chosen on.
    pub chosen_on: Counted,
    pub counted: Counted,
}

/// Chooses the lowest threshold with at most `an_hour` alarms, else the highest, and counts the alarms of the other half.
/// `trigger.threshold` is not used.
pub fn measure(
    classifier: &SoundClassifier,
    trigger: Trigger,
    background: &Background,
    an_hour: f64,
) -> anyhow::Result<Measured> {
    let [choose, count] = [&background.choose, &background.count].map(|part| {
        let samples: usize = part.iter().map(|recording| recording.samples.len()).sum();
        let hours = samples as f64 / f64::from(classifier.sample_rate()) / 3600.0;
        (part, hours)
    });
    ensure!(choose.1 > 0.0 && count.1 > 0.0, "too few recordings for two halves");
    let looks = looks(classifier, trigger, choose.0);
    let counted = |threshold: f32, looks: &[Look], hours: f64| Counted {
        alarms: decide(classifier, Trigger { threshold, ..trigger }, looks),
        hours,
    };
    let mut tried = THRESHOLDS.map(|percent| {
        let threshold = f32::from(percent) / 100.0;
        (threshold, counted(threshold, &looks, choose.1))
    });
    let fits = |(_, counted): &(f32, Counted)| counted.an_hour() <= an_hour;
    let chosen = tried.clone().find(fits).or_else(|| tried.next_back());
    let (threshold, chosen_on) = chosen.expect("there are thresholds");
    let looks = self::looks(classifier, trigger, count.0);
    let counted = counted(threshold, &looks, count.1);
    Ok(Measured { threshold, chosen_on, counted })
}

/// How many of the recordings in which one of its words is said a spotter names, and of how many.
pub fn heard(
    classifier: &SoundClassifier,
    trigger: Trigger,
    recordings: &[Recording],
) -> (usize, usize) {
    let known: Vec<&Recording> = recordings
        .iter()
        .filter(|recording| words(classifier).any(|word| word == recording.label))
        .collect();
    let silence = vec![0.0; (AROUND * f64::from(classifier.sample_rate())) as usize];
    let right = known.iter().filter(|recording| {
        let mut looks = Looks::new(classifier, trigger.every);
        let looks = looks.push(&[&silence, &recording.samples[..], &silence].concat());
        decide(classifier, trigger, &looks).iter().any(|heard| heard.label == recording.label)
    });
    (right.count(), known.len())
}

/// Of recordings one after the other.
fn looks(classifier: &SoundClassifier, trigger: Trigger, recordings: &[Recording]) -> Vec<Look> {
    let mut looks = Looks::new(classifier, trigger.every);
    recordings.iter().flat_map(|recording| looks.push(&recording.samples)).collect()
}

fn decide(classifier: &SoundClassifier, trigger: Trigger, looks: &[Look]) -> Vec<Heard> {
    let mut decide = Decide::new(trigger);
    looks.iter().filter_map(|look| decide.heard(look, &classifier.labels)).collect()
}
