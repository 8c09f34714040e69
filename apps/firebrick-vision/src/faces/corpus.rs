//! Pictures of people in parts.

use std::collections::{BTreeMap, HashMap};

use anyhow::{bail, ensure};
use firebrick_data::{
    error::DataError,
    hash::{sha256_bytes, sha256_rows},
    ledger::{DropReason, Ledger},
    table::Row,
};
use firebrick_train::{job::Places, sampler::mix};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::recipe::{DataRecipe, Split};
use crate::classification::layouts::{self, Sample};

/// The parts of a data set; a sample's label is the person's name.
pub struct Corpus {
    pub train: Vec<Sample>,
    /// Of the split `pictures` the training pictures once more.
    pub valid: Vec<Sample>,
    pub test: Vec<Sample>,
    /// Of the training pictures; a person's place is its class index.
    pub people: Vec<String>,
    /// SHA-256 over the training and validation pictures.
    pub sha256: String,
    /// Pictures that were dropped, and rows of a table.
    pub ledger: Ledger,
    split: Split,
}

/// Reads and divides what `[data]` names.
pub fn load(data: &DataRecipe, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let pictures = data.pictures();
    let (mut parts, mut ledger) = match (data.dataset.as_deref(), &data.train) {
        (Some("orl-faces"), _) => {
            let folder = (places.data)("orl-faces")?;
            let nested = folder.join("orl-faces");
            let folder = if nested.is_dir() { &nested } else { &folder };
            (layouts::by_class(folder, &pictures)?, Ledger::default())
        }
        (Some(other), _) => {
            bail!(DataError::WrongSet(format!("`{other}` is not a set of faces: orl-faces")))
        }
        (None, Some(path)) => layouts::own(&places.base.join(path), &pictures)?,
        (None, None) => bail!("no data"),
    };
    let mut samples = parts.remove("train").unwrap_or_default();
    once(&mut samples, &mut ledger);
    let mut by_person = BTreeMap::<(Vec<Piece>, String), Vec<Sample>>::new();
    for sample in samples {
        by_person.entry((pieces(&sample.label), sample.label.clone())).or_default().push(sample);
    }
    let all = by_person.len();
    let groups: Vec<Vec<Sample>> = by_person.into_values().collect();
    let (train, valid, test) = match data.split {
        Split::People => {
            let kept = data.valid_people + data.test_people;
            ensure!(
                all >= kept + 2,
                "{all} people are too few: {kept} are for validation and test, two or more to learn from"
            );
            let mut groups = groups.into_iter();
            let mut take = |count: usize| groups.by_ref().take(count).flatten().collect();
            (take(all - kept), take(data.valid_people), take(data.test_people))
        }
        Split::Pictures => divided(groups, data.test_pictures, seed)?,
    };
    let mut people: Vec<String> = vec![];
    for sample in &train {
        if people.last() != Some(&sample.label) {
            people.push(sample.label.clone());
        }
    }
    ensure!(people.len() > 1, "{} people are too few to learn from", people.len());
    let row = |sample: &Sample| Row {
        row: 0,
        text: sha256_bytes(&sample.picture.pixels),
        label: Some(sample.label.clone()),
    };
    let sha256 = sha256_rows(&train.iter().chain(&valid).map(row).collect::<Vec<_>>());
    Ok(Corpus { train, valid, test, people, sha256, ledger, split: data.split })
}

/// Keeps one of the pictures with the same pixels: another part, or another person, would have the others.
fn once(samples: &mut Vec<Sample>, ledger: &mut Ledger) {
    let mut first = HashMap::<&[u8], usize>::new();
    let mut again = HashMap::new();
    for (row, sample) in samples.iter().enumerate() {
        let earlier = *first.entry(&sample.picture.pixels).or_insert(row);
        if earlier != row {
            again.insert(row, format!("{}: the pixels of {}", sample.id, samples[earlier].id));
        }
    }
    ledger.keep(samples, |row, _| Some((DropReason::Duplicate, again.remove(&row)?)));
}

/// Part of a name. Digits stand before letters, and by their value: s9 before s10.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    /// Without zeros before it: of two, the one with fewer digits is smaller.
    Number(usize, String),
    Text(char),
}

fn pieces(name: &str) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[..end].trim_start_matches('0');
        let (piece, length) = match end {
            0 => (Piece::Text(first), first.len_utf8()),
            _ => (Piece::Number(digits.len(), digits.to_string()), end),
        };
        pieces.push(piece);
        rest = &rest[length..];
    }
    pieces
}

/// Everybody's pictures but `kept` of them, the same again, and those that were kept.
fn divided(
    groups: Vec<Vec<Sample>>,
    kept: usize,
    seed: u64,
) -> anyhow::Result<(Vec<Sample>, Vec<Sample>, Vec<Sample>)> {
    let (mut train, mut test) = (vec![], vec![]);
    for (person, mut samples) in groups.into_iter().enumerate() {
        let (name, count) = (samples[0].label.clone(), samples.len());
        let few = || {
            format!("{name} has {count} different pictures, and {kept} of each are for the test")
        };
        ensure!(count > kept, DataError::TooLittle(few()));
        samples.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(seed, person as u64)));
        test.extend(samples.drain(..kept));
        train.append(&mut samples);
    }
    Ok((train.clone(), train, test))
}

impl Corpus {
    /// What there is to say of it, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let people = |part: &[Sample]| {
            let mut names: Vec<&str> = part.iter().map(|sample| sample.label.as_str()).collect();
            names.dedup();
            match names.as_slice() {
                [] => "none".into(),
                [one] => format!("{one}, {} pictures", part.len()),
                [first, .., last] => {
                    format!("{} people, {first} to {last}, {} pictures", names.len(), part.len())
                }
            }
        };
        let mut remarks = vec![format!("learned from: {}", people(&self.train))];
        if self.split == Split::People {
            remarks.push(format!("choose weights and threshold: {}", people(&self.valid)));
        }
        remarks.push(format!("test: {}", people(&self.test)));
        for (reason, count) in self.ledger.counts() {
            let what = match reason {
                DropReason::Unreadable => "rows that cannot be read",
                _ => "pictures with the pixels of another",
            };
            remarks.push(format!("dropped {count}: {what} (data.ledger.jsonl says which)"));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::{Colour, Picture};

    use super::*;

    #[test]
    fn everybody_is_divided() {
        let group = |person: usize| {
            let sample = |i: usize| Sample {
                id: format!("{person}/{i}"),
                label: person.to_string(),
                group: None,
                picture: Picture::filled(1, 1, Colour::Grey, i as u8),
            };
            (0..10).map(sample).collect::<Vec<_>>()
        };
        let parts = |seed| divided((0..4).map(group).collect(), 3, seed).unwrap();
        let (train, again, test) = parts(1);
        assert_eq!((train.len(), test.len(), train == again), (28, 12, true));
        for person in 0..4 {
            let of =
                |part: &[Sample]| part.iter().filter(|s| s.label == person.to_string()).count();
            assert_eq!((of(&train), of(&test)), (7, 3));
        }
        assert!(test.iter().all(|sample| train.iter().all(|other| other.id != sample.id)));
        assert_ne!(parts(2).2, test);
        assert!(divided(vec![group(0)], 10, 1).is_err());
    }

    #[test]
    fn equal_pictures_are_one() {
        let sample = |id: &str, value: u8| Sample {
            id: id.into(),
            label: id[..1].into(),
            group: None,
            picture: Picture::filled(1, 1, Colour::Grey, value),
        };
        let mut samples =
            vec![sample("a/1", 5), sample("a/2", 6), sample("a/3", 5), sample("b/1", 6)];
        let mut ledger = Ledger::default();
        once(&mut samples, &mut ledger);
        assert_eq!(samples, [sample("a/1", 5), sample("a/2", 6)]);
        let details: Vec<&str> = ledger.dropped.iter().map(|entry| entry.detail.as_str()).collect();
        assert_eq!(details, ["a/3: the pixels of a/1", "b/1: the pixels of a/2"]);
    }

    #[test]
    fn names_are_in_the_order_of_a_reader() {
        let mut names = vec!["zoe", "s10", "s9", "ada", "s09", "s1", "benjamin", "2", "s10b"];
        names.sort_by_key(|name| (pieces(name), name.to_string()));
        assert_eq!(names, ["2", "ada", "benjamin", "s1", "s09", "s9", "s10", "s10b", "zoe"]);
    }
}
