//! Recordings with their words: found, parted, read, checked for leaks.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use firebrick_data::{audio::read::recordings, error::DataError};
use firebrick_train::job::Places;
use serde::Deserialize;

use super::{
    lexicon::{Lexicon, Units, dictionary},
    recipe::DataRecipe,
};
use crate::recordings::{
    Entry, Recording, drop_leaks, folder_of, index, load as load_all, part_off, sha256,
};

/// The parts of a data set.
pub struct Corpus {
    pub train: Vec<Recording>,
    pub valid: Vec<Recording>,
    pub test: Option<Vec<Recording>>,
    /// Of the words of the training part and of the data set's dictionary.
    pub lexicon: Lexicon,
    /// Over the training and validation recordings.
    pub sha256: String,
    /// Why a recording could not be read, each.
    pub unreadable: Vec<String>,
    /// Training recordings that another part has, too.
    pub leaking: usize,
}

/// Recordings as a set divides them, and how its words are said.
pub struct Parts {
    pub train: Vec<Entry>,
    pub valid: Option<Vec<Entry>>,
    pub test: Option<Vec<Entry>>,
    pub dictionary: Vec<(String, Vec<String>)>,
}

/// A line of the user's own files.
#[derive(Debug, Deserialize)]
struct Line {
    audio: String,
    text: String,
}

/// Longest list or dictionary.
const FILE_LIMIT: u64 = 256 << 20;

/// Finds, reads and checks what `[data]` names, at `rate` Hz.
pub fn load(data: &DataRecipe, rate: u32, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let Parts { mut train, valid, test, dictionary } = find(data, places)?;
    let valid = match valid {
        Some(valid) => valid,
        None => {
            let known = train.iter().all(|entry| !entry.speaker.is_empty());
            let by_speaker = data.valid_by_speaker && known;
            let (rest, off) = part_off(train, data.valid_fraction, by_speaker, seed);
            train = rest;
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
    let leaking = drop_leaks(&mut valid, test.iter().flatten())
        + drop_leaks(&mut train, valid.iter().chain(test.iter().flatten()));
    let reason = unreadable.first().map_or(String::new(), |first| format!("; {first}"));
    ensure!(!train.is_empty(), "no training recording is left{reason}");
    ensure!(!valid.is_empty(), "there is no validation recording{reason}");
    let spoken = train.iter().flat_map(|recording| recording.label.split_whitespace());
    let listed = dictionary.iter().map(|(word, _)| word.as_str());
    let lexicon = match data.units {
        Units::Phones => Lexicon::new(spoken.chain(listed), data.units, &dictionary)?,
        _ => Lexicon::new(spoken, data.units, &[])?,
    };
    ensure!(lexicon.labels.len() > 1, "the training recordings have no words");
    let sha256 = sha256(train.iter().chain(&valid));
    Ok(Corpus { train, valid, test, lexicon, sha256, unreadable, leaking })
}

/// All recordings of a known data set.
pub fn everything(dataset: &str, places: &Places) -> anyhow::Result<Vec<Entry>> {
    let data = DataRecipe { dataset: Some(dataset.into()), ..DataRecipe::default() };
    let Parts { train, test, .. } = find(&data, places)?;
    Ok(train.into_iter().chain(test.into_iter().flatten()).collect())
}

fn find(data: &DataRecipe, places: &Places) -> anyhow::Result<Parts> {
    let Some(id) = &data.dataset else {
        let part = |path: &std::path::PathBuf| own(&places.base.join(path));
        let train = data.train.as_ref().map(part).transpose()?.context("no training file")?;
        let valid = data.valid.as_ref().map(part).transpose()?;
        let test = data.test.as_ref().map(part).transpose()?;
        let dictionary = match &data.dictionary {
            Some(path) => dictionary(&read_text(&places.base.join(path))?),
            None => vec![],
        };
        return Ok(Parts { train, valid, test, dictionary });
    };
    match id.as_str() {
        "an4" => an4(&folder_of((places.data)(id)?, id)),
        "yesno" => yes_no(&folder_of((places.data)(id)?, id)),
        _ => bail!(DataError::WrongSet(format!(
            "`{id}` is not a data set of recordings with their words: an4 or yesno"
        ))),
    }
}

/// JSON lines with `audio` and `text`.
pub fn own(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = read_text(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let filled = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let line = |(row, line): (usize, &str)| {
        let at = || format!("{}: line {}", path.display(), row + 1);
        let Line { audio, text } = serde_json::from_str(line).with_context(at)?;
        ensure!(!text.trim().is_empty(), "{}: `text` is empty", at());
        Ok(Entry { path: folder.join(&audio), id: audio, label: text, speaker: String::new() })
    };
    filled.map(line).collect()
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    ensure!(size <= FILE_LIMIT, "{}: {size} bytes, above {FILE_LIMIT}", path.display());
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// CMU's alphanumeric recordings, by their list.
pub fn an4(folder: &Path) -> anyhow::Result<Parts> {
    let (mut train, mut test) = (vec![], vec![]);
    let header = ["id", "speaker", "split", "seconds", "text"];
    for [id, speaker, split, _, text] in index(&folder.join("index.csv"), header)? {
        let path = folder.join("wav").join(format!("{id}.flac"));
        let part = if split == "test" { &mut test } else { &mut train };
        part.push(Entry { id, path, label: text, speaker });
    }
    let dictionary = dictionary(&read_text(&folder.join("an4.dic"))?);
    Ok(Parts { train, valid: None, test: Some(test), dictionary })
}

/// Eight times yes or no, as the file's name says: `1_0_..` is `YES NO ..`. Every second recording, by name, is of the
/// test part.
fn yes_no(folder: &Path) -> anyhow::Result<Parts> {
    let (mut train, mut test) = (vec![], vec![]);
    for (number, path) in recordings(folder)?.into_iter().enumerate() {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let word = |digit: &str| match digit {
            "0" => Ok("NO"),
            "1" => Ok("YES"),
            _ => bail!("{}: its name is not of 0 and 1", path.display()),
        };
        let words = stem.split('_').map(word).collect::<anyhow::Result<Vec<_>>>()?;
        let entry = Entry { id, label: words.join(" "), speaker: String::new(), path };
        if number % 2 == 0 { &mut train } else { &mut test }.push(entry);
    }
    Ok(Parts { train, valid: None, test: Some(test), dictionary: vec![] })
}
