//! Recordings by class: found, parted, read, checked for leaks.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, bail, ensure};
use firebrick_data::{audio::read::recordings, error::DataError, split::check_judged};
use firebrick_train::job::Places;

use super::recipe::DataRecipe;
use crate::{
    background,
    keyword::is_word,
    recordings::{
        Entry, Recording, class_folders, drop_leaks, folder_of, index, load as load_all, part_off,
        sha256,
    },
};

/// The class of words that are not to be heard.
const UNKNOWN: &str = "unknown";

/// The parts of a data set.
pub struct Corpus {
    /// Sorted; a name's place is its class index.
    pub labels: Vec<String>,
    pub train: Vec<Recording>,
    pub valid: Vec<Recording>,
    pub test: Option<Vec<Recording>>,
    /// Over the training and validation recordings.
    pub sha256: String,
    /// Why a recording could not be read, each.
    pub unreadable: Vec<String>,
    /// Training recordings that another part has, too.
    pub leaking: usize,
}

/// Entries of the training, validation and test part; a part is `None` where the data set has none.
struct Parts {
    train: Vec<Entry>,
    valid: Option<Vec<Entry>>,
    test: Option<Vec<Entry>>,
}

/// Finds, reads and checks what `[data]` names, at `rate` Hz.
pub fn load(data: &DataRecipe, rate: u32, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let Parts { mut train, mut valid, mut test } = find(data, places)?;
    if let Some(speaker) = &data.held_speaker {
        let all = train.into_iter().chain(test.into_iter().flatten());
        let (held, rest): (Vec<Entry>, Vec<Entry>) = all.partition(|e| e.speaker == *speaker);
        ensure!(!held.is_empty(), "nobody is called {speaker:?}: {}", speakers(&rest));
        (train, test) = (rest, Some(held));
    }
    if let Some(speaker) = &data.valid_speaker {
        let (chosen, rest): (Vec<Entry>, Vec<Entry>) =
            train.into_iter().partition(|e| e.speaker == *speaker);
        ensure!(!chosen.is_empty(), "nobody is called {speaker:?}: {}", speakers(&rest));
        (train, valid) = (rest, Some(chosen));
    }
    let valid = match valid {
        Some(valid) => valid,
        None => {
            let known = train.iter().all(|entry| !entry.speaker.is_empty());
            let by_speaker = data.valid_by_speaker && known;
            let (rest, mut off) = part_off(train, data.valid_fraction, by_speaker, seed);
            train = rest;
            if !by_speaker {
                // A class with a single recording is learned from.
                let known: BTreeSet<&String> = train.iter().map(|entry| &entry.label).collect();
                let rare: Vec<Entry> =
                    off.extract_if(.., |entry| !known.contains(&entry.label)).collect();
                train.extend(rare);
            }
            off
        }
    };

    let (mut train, mut unreadable) = load_all(&train, rate)?;
    let (mut valid, problems) = load_all(&valid, rate)?;
    unreadable.extend(problems);
    let test = match test {
        Some(entries) => {
            let (test, problems) = load_all(&entries, rate)?;
            unreadable.extend(problems);
            Some(test)
        }
        None => None,
    };
    if !data.background.is_empty() {
        let (found, problems) = background(data, &train, rate, places)?;
        train.extend(found);
        unreadable.extend(problems);
    }
    let leaking = drop_leaks(&mut valid, test.iter().flatten())
        + drop_leaks(&mut train, valid.iter().chain(test.iter().flatten()));
    let reason = unreadable.first().map_or(String::new(), |first| format!("; {first}"));
    ensure!(!train.is_empty(), "no training recording is left{reason}");
    ensure!(!valid.is_empty(), "there is no validation recording{reason}");
    let labels: BTreeSet<&String> = train.iter().map(|recording| &recording.label).collect();
    let labels: Vec<String> = labels.into_iter().cloned().collect();
    if labels.len() < 2 {
        let message = format!("the training recordings have {} class(es)", labels.len());
        bail!(DataError::TooLittle(message + ": a classifier needs two"));
    }
    for (part, recordings) in [("valid", Some(&valid)), ("test", test.as_ref())] {
        if let Some(recordings) = recordings {
            check_judged(part, recordings.iter().map(|one| one.label.as_str()), &labels)?;
        }
    }
    let sha256 = sha256(train.iter().chain(&valid));
    Ok(Corpus { labels, train, valid, test, sha256, unreadable, leaking })
}

/// Parts of other speech, and why some of it could not be read.
fn background(
    data: &DataRecipe,
    train: &[Recording],
    rate: u32,
    places: &Places,
) -> anyhow::Result<(Vec<Recording>, Vec<String>)> {
    let labels = train.iter().map(|recording| recording.label.as_str());
    let words: BTreeSet<&str> = labels.filter(|label| is_word(label)).collect();
    let words: Vec<&str> = words.into_iter().collect();
    let length = ((data.seconds * f64::from(rate)) as usize).max(1);
    let (mut parts, mut problems) = (vec![], vec![]);
    for name in &data.background {
        let entries = background::parts(name, &words, places)?.learn;
        let (found, wrong) = load_all(&entries, rate)?;
        problems.extend(wrong);
        // One after the other, as a spotter hears them: its windows begin anywhere.
        let samples: Vec<f32> = found.into_iter().flat_map(|found| found.samples).collect();
        // The same from wherever a folder is named: ids are part of the data's hash.
        let last = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        for (number, part) in samples.chunks_exact(length).enumerate() {
            let id = format!("{last}, part {number}");
            let (samples, label) = (part.to_vec(), UNKNOWN.to_string());
            parts.push(Recording { id, samples, label, speaker: String::new() });
        }
    }
    let step = parts.len().div_ceil(train.len()).max(1);
    Ok((parts.into_iter().step_by(step).collect(), problems))
}

fn speakers(entries: &[Entry]) -> String {
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.speaker.as_str()).collect();
    names.into_iter().take(20).collect::<Vec<_>>().join(", ")
}

/// All recordings of a known data set.
pub fn everything(dataset: &str, places: &Places) -> anyhow::Result<Vec<Entry>> {
    let data = DataRecipe { dataset: Some(dataset.into()), ..DataRecipe::default() };
    let Parts { train, test, .. } = find(&data, places)?;
    Ok(train.into_iter().chain(test.into_iter().flatten()).collect())
}

fn find(data: &DataRecipe, places: &Places) -> anyhow::Result<Parts> {
    let Some(id) = &data.dataset else {
        let part = |path: &std::path::PathBuf| class_folders(&places.base.join(path));
        let train = data.train.as_ref().map(part).transpose()?.context("no training folder")?;
        let valid = data.valid.as_ref().map(part).transpose()?;
        return Ok(Parts { train, valid, test: data.test.as_ref().map(part).transpose()? });
    };
    match id.as_str() {
        "fsdd" => digits(&folder_of((places.data)(id)?, id)),
        "speech-commands" => commands(&folder_of((places.data)(id)?, id)),
        _ => bail!(DataError::WrongSet(format!(
            "`{id}` is not a data set of words: fsdd or speech-commands"
        ))),
    }
}

/// The free spoken digits: `7_jackson_3.wav` is the fourth 7 of Jackson. The first five of each are the test part.
fn digits(folder: &Path) -> anyhow::Result<Parts> {
    let (mut train, mut test) = (vec![], vec![]);
    for path in recordings(folder)? {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let parts: Vec<&str> = stem.split('_').collect();
        let wrong = || format!("{}: not named DIGIT_SPEAKER_NUMBER.wav", path.display());
        let [label, speaker, number] = parts[..] else { bail!(wrong()) };
        let number: usize = number.parse().with_context(wrong)?;
        let (label, speaker) = (label.to_string(), speaker.to_string());
        let part = if number < 5 { &mut test } else { &mut train };
        part.push(Entry { id, path, label, speaker });
    }
    Ok(Parts { train, valid: None, test: Some(test) })
}

/// Speech commands by their list.
fn commands(folder: &Path) -> anyhow::Result<Parts> {
    let (mut train, mut test) = (vec![], vec![]);
    for [file, label, speaker, split] in
        index(&folder.join("index.csv"), ["file", "label", "speaker", "split"])?
    {
        let path = folder.join(&file);
        let part = if split == "test" { &mut test } else { &mut train };
        part.push(Entry { id: file, path, label, speaker });
    }
    Ok(Parts { train, valid: None, test: Some(test) })
}
