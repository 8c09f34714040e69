//! Recordings with what is known of them, read once and kept in memory.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use firebrick_data::{
    audio::read::{self, Limits, read},
    hash::{sha256_bytes, sha256_rows},
    table::Row,
};
use firebrick_train::sampler::mix;
use rayon::prelude::*;

/// A recording of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Its path in the data set.
    pub id: String,
    /// Mono, at the rate that was asked for.
    pub samples: Vec<f32>,
    /// Class, or what is said.
    pub label: String,
    /// Empty where nobody knows.
    pub speaker: String,
}

/// A recording that is still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    pub path: PathBuf,
    pub label: String,
    pub speaker: String,
}

/// What is kept of all recordings together: a gibibyte.
const MEMORY: usize = (1 << 30) / size_of::<f32>();
/// Longest recording of a data set, in seconds.
const LONGEST: f64 = 120.0;
/// Longest list of files.
const INDEX_LIMIT: u64 = 64 << 20;

/// Reads all, in order; what cannot be read is in the second place, with the reason.
pub fn load(entries: &[Entry], rate: u32) -> anyhow::Result<(Vec<Recording>, Vec<String>)> {
    let limits = Limits { seconds: LONGEST };
    let (mut recordings, mut problems, mut total) = (vec![], vec![], 0);
    for part in entries.chunks(256) {
        let read: Vec<_> = part.par_iter().map(|entry| read(&entry.path, rate, &limits)).collect();
        for (entry, samples) in part.iter().zip(read) {
            match samples {
                Ok(samples) => {
                    total += samples.len();
                    let Entry { id, label, speaker, .. } = entry.clone();
                    recordings.push(Recording { id, samples, label, speaker });
                }
                Err(problem) => problems.push(format!("{}: {problem}", entry.id)),
            }
        }
        ensure!(
            total <= MEMORY,
            "the recordings are longer than {:.1} hours together, which is what fits into memory",
            MEMORY as f64 / f64::from(rate) / 3600.0
        );
    }
    Ok((recordings, problems))
}

/// A data set's own folder, which its archive may hold once more.
pub fn folder_of(folder: PathBuf, id: &str) -> PathBuf {
    let nested = folder.join(id);
    if nested.is_dir() { nested } else { folder }
}

/// Recordings in folders that have the names of their classes.
pub fn class_folders(folder: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut entries = vec![];
    for path in read::recordings(folder)? {
        let inner = path.strip_prefix(folder).unwrap_or(&path);
        let mut parts = inner.components();
        let label = parts.next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let label = label.filter(|_| parts.next().is_some()).with_context(|| {
            format!("{} lies in no folder that names its class", path.display())
        })?;
        let id = inner.to_string_lossy().into_owned();
        entries.push(Entry { id, path, label, speaker: String::new() });
    }
    Ok(entries)
}

/// Fields of a list of files, a line each; the first line names them and is checked against `header`.
pub fn index<const N: usize>(path: &Path, header: [&str; N]) -> anyhow::Result<Vec<[String; N]>> {
    let shown = path.display();
    let size = fs::metadata(path).with_context(|| format!("reading {shown}"))?.len();
    ensure!(size <= INDEX_LIMIT, "{shown}: {size} bytes, above {INDEX_LIMIT}");
    let text = fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
    let mut lines = text.lines();
    let first: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    ensure!(first == header, "{shown}: its first line is not {}", header.join(","));
    let fields = |(number, line): (usize, &str)| {
        let fields: Vec<String> = line.split(',').map(str::to_string).collect();
        let wrong = |_| anyhow::anyhow!("{shown}: line {} has not {N} fields", number + 2);
        <[String; N]>::try_from(fields).map_err(wrong)
    };
    lines.enumerate().map(fields).collect()
}

/// Parts `fraction` of the recordings off into the second place, by speakers (where they are known) or one by one; which
/// ones follows from `seed`.
pub fn part_off(
    entries: Vec<Entry>,
    fraction: f64,
    by_speaker: bool,
    seed: u64,
) -> (Vec<Entry>, Vec<Entry>) {
    let group = |entry: &Entry| match by_speaker {
        true => entry.speaker.clone(),
        false => entry.id.clone(),
    };
    let mut groups: Vec<String> = entries.iter().map(group).collect();
    groups.sort();
    groups.dedup();
    groups.sort_by_cached_key(|name| {
        name.bytes().fold(mix(seed, 0), |hash, byte| mix(hash, byte.into()))
    });
    let wanted = (entries.len() as f64 * fraction).ceil() as usize;
    let mut chosen = HashSet::new();
    let mut count = 0;
    for name in groups {
        let size = entries.iter().filter(|entry| group(entry) == name).count();
        if count < wanted {
            count += size;
            chosen.insert(name);
        }
    }
    let (off, kept) = entries.into_iter().partition(|entry| chosen.contains(&group(entry)));
    (kept, off)
}

/// SHA-256 over recordings and what is known of them.
pub fn sha256<'a>(recordings: impl Iterator<Item = &'a Recording>) -> String {
    let row = |(row, recording): (usize, &Recording)| {
        let text = format!("{} {}", recording.id, sha256_samples(&recording.samples));
        Row { row, text, label: Some(recording.label.clone()) }
    };
    sha256_rows(&recordings.enumerate().map(row).collect::<Vec<_>>())
}

/// SHA-256 of a recording's samples: those of two files that sound the same are the same.
pub fn sha256_samples(samples: &[f32]) -> String {
    let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
    sha256_bytes(&bytes)
}

/// Drops the recordings of `train` that are in `others`, too; returns how many.
pub fn drop_leaks<'a>(
    train: &mut Vec<Recording>,
    others: impl Iterator<Item = &'a Recording>,
) -> usize {
    let others: HashSet<String> =
        others.map(|recording| sha256_samples(&recording.samples)).collect();
    let before = train.len();
    train.retain(|recording| !others.contains(&sha256_samples(&recording.samples)));
    before - train.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speakers_stay_together() {
        let entry = |i: usize| Entry {
            id: format!("{i}"),
            path: PathBuf::new(),
            label: "a".into(),
            speaker: format!("s{}", i % 7),
        };
        let entries: Vec<Entry> = (0..70).map(entry).collect();
        let (kept, off) = part_off(entries.clone(), 0.2, true, 5);
        assert_eq!((kept.len(), off.len()), (50, 20));
        assert!(off.iter().all(|o| kept.iter().all(|k| k.speaker != o.speaker)));
        assert_eq!(part_off(entries.clone(), 0.2, true, 5), (kept, off.clone()));
        assert_ne!(part_off(entries.clone(), 0.2, true, 6).1, off);
        assert_eq!(part_off(entries, 0.1, false, 5).1.len(), 7);
    }
}
