//! False alarms of a word spotter: how often it hears a word in recordings in which nobody says one.
//!
//! Half of the speakers (of the recordings, where nobody knows who speaks) chooses the threshold, and the other half, played
//! one after the other, is what the alarms are counted on.

use std::path::Path;

use anyhow::{bail, ensure};
use firebrick_data::audio::read::recordings;
use firebrick_metrics::interval::poisson_interval;
use firebrick_train::job::Places;

use crate::{
    classification::{self, classifier::SoundClassifier},
    keyword::{Decide, Heard, Look, Looks, Trigger, is_word},
    recognition,
    recordings::{Entry, Recording, load, part_off},
};

/// Data sets of speech that are known here, with what is said in them.
pub const SETS: &[&str] = &["an4", "fsdd", "yesno"];
/// Thresholds to choose from, in percent.
const THRESHOLDS: std::ops::Range<u8> = 50..100;
/// Seconds of silence before and after a word that is to be heard.
const AROUND: f64 = 1.0;
const DIGITS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

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
    /// Adds the recordings of `name`, one of [`SETS`] or a folder, at `rate` Hz. Which half is which follows from `seed`.
    pub fn add(
        &mut self,
        name: &str,
        classifier: &SoundClassifier,
        places: &Places,
        seed: u64,
    ) -> anyhow::Result<()> {
        let words: Vec<&String> = words(classifier).collect();
        let mut entries = entries(name, places)?;
        let before = entries.len();
        entries.retain(|entry| {
            let mut said = entry.label.split_whitespace();
            !said.any(|said| words.iter().any(|word| word.eq_ignore_ascii_case(said)))
        });
        self.left_out += before - entries.len();
        let known = entries.iter().all(|entry| !entry.speaker.is_empty());
        let (choose, count) = part_off(entries, 0.5, known, seed);
        for (entries, part) in [(choose, &mut self.choose), (count, &mut self.count)] {
            let (found, problems) = load(&entries, classifier.sample_rate())?;
            part.extend(found);
            self.unreadable.extend(problems);
        }
        Ok(())
    }
}

fn words(classifier: &SoundClassifier) -> impl Iterator<Item = &String> {
    classifier.labels.iter().filter(|label| is_word(label))
}

fn entries(name: &str, places: &Places) -> anyhow::Result<Vec<Entry>> {
    let mut entries = match name {
        "an4" | "yesno" => recognition::corpus::everything(name, places)?,
        "fsdd" => classification::corpus::everything(name, places)?,
        folder if Path::new(folder).is_dir() => {
            let entry = |path: std::path::PathBuf| Entry {
                id: path.display().to_string(),
                path,
                label: String::new(),
                speaker: String::new(),
            };
            recordings(Path::new(folder))?.into_iter().map(entry).collect()
        }
        _ => bail!("`{name}` is neither a folder nor one of {}", SETS.join(", ")),
    };
    for entry in &mut entries {
        match name {
            // It is in Hebrew: yes and no are only what its words mean.
            "yesno" => entry.label.clear(),
            "fsdd" => {
                let digit = entry.label.parse().ok().and_then(|digit: usize| DIGITS.get(digit));
                entry.label = digit.map_or(String::new(), |digit| digit.to_string());
            }
            _ => {}
        }
    }
    Ok(entries)
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
        .filter(|recording| words(classifier).any(|word| *word == recording.label))
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
