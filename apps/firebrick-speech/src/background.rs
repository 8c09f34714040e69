//! Speech in which none of a spotter's words is said: what it must learn not to hear, and what is counted on.

use std::path::PathBuf;

use firebrick_data::{audio::read::recordings, error::DataError};
use firebrick_train::job::Places;

use crate::{
    classification, recognition,
    recordings::{Entry, part_off},
};

/// Data sets of speech that are known here, with what is said in them.
pub const SETS: &[&str] = &["an4", "fsdd", "yesno"];
/// Of the parting: a training and a count must agree about it.
const SEED: u64 = 0;
const DIGITS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Recordings by what they are for, each speaker in one part only where the speakers are known.
pub struct Parts {
    /// A half: trainings may see it.
    pub learn: Vec<Entry>,
    /// A quarter: chooses a threshold.
    pub choose: Vec<Entry>,
    /// A quarter: is counted on.
    pub count: Vec<Entry>,
    /// Recordings in which one of the words is said.
    pub left_out: usize,
}

/// Parts the recordings of `name`, one of [`SETS`] or a folder relative to the recipe's, without those in which one of `words`
/// is said.
pub fn parts(name: &str, words: &[&str], places: &Places) -> anyhow::Result<Parts> {
    let mut entries = entries(name, places)?;
    let before = entries.len();
    entries.retain(|entry| {
        let mut said = entry.label.split_whitespace();
        !said.any(|said| words.iter().any(|word| word.eq_ignore_ascii_case(said)))
    });
    let left_out = before - entries.len();
    let known = entries.iter().all(|entry| !entry.speaker.is_empty());
    let (learn, rest) = part_off(entries, 0.5, known, SEED);
    let (choose, count) = part_off(rest, 0.5, known, SEED);
    Ok(Parts { learn, choose, count, left_out })
}

fn entries(name: &str, places: &Places) -> anyhow::Result<Vec<Entry>> {
    let mut entries = match name {
        "an4" | "yesno" => recognition::corpus::everything(name, places)?,
        "fsdd" => classification::corpus::everything(name, places)?,
        folder if places.base.join(folder).is_dir() => {
            let folder = places.base.join(folder);
            // Parted by its place in the folder, however that is named.
            let entry = |path: PathBuf| Entry {
                id: path.strip_prefix(&folder).unwrap_or(&path).display().to_string(),
                path,
                label: String::new(),
                speaker: String::new(),
            };
            recordings(&folder)?.into_iter().map(entry).collect()
        }
        _ => {
            let expected = "a folder, or one of an4, fsdd and yesno";
            let value = format!("`{name}`");
            return Err(DataError::BadOption { name: "the background", value, expected }.into());
        }
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_folder_lies_beside_the_recipe_and_is_parted_alike_however_it_is_named() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("bg")).unwrap();
        (0..12).for_each(|i| fs::write(home.path().join(format!("bg/{i}.wav")), "").unwrap());
        let learned = |name: &str, base: &Path| {
            let (data, model) = (|_: &str| bail!("no set"), |_: &str, _: &Path| bail!("no model"));
            let parts = parts(name, &[], &Places { base, data, model }).unwrap();
            parts.learn.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        let ids = learned("bg", home.path());
        assert_eq!((ids.len(), ids.iter().all(|id| id.ends_with(".wav"))), (6, true), "{ids:?}");
        let whole = home.path().join("bg");
        assert_eq!(learned(&whole.to_string_lossy(), Path::new("")), ids);
    }
}
