//! Pictures of people in parts.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use firebrick_data::{
    error::DataError,
    hash::{sha256_bytes, sha256_rows},
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
    split: Split,
}

/// Reads and divides what `[data]` names.
pub fn load(data: &DataRecipe, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let pictures = data.pictures();
    let mut parts = match (data.dataset.as_deref(), &data.train) {
        (Some("orl-faces"), _) => {
            let folder = (places.data)("orl-faces")?;
            let nested = folder.join("orl-faces");
            layouts::by_class(if nested.is_dir() { &nested } else { &folder }, &pictures)?
        }
        (Some(other), _) => {
            bail!(DataError::WrongSet(format!("`{other}` is not a set of faces: orl-faces")))
        }
        (None, Some(path)) => layouts::own(&places.base.join(path), &pictures)?,
        (None, None) => bail!("no data"),
    };
    let samples = parts.remove("train").unwrap_or_default();
    let mut by_person = BTreeMap::<(usize, String), Vec<Sample>>::new();
    for sample in samples {
        // Shorter names first: s9 stands before s10.
        by_person.entry((sample.label.len(), sample.label.clone())).or_default().push(sample);
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
    Ok(Corpus { train, valid, test, people, sha256, split: data.split })
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
        ensure!(count > kept, "{name} has {count} pictures, and {kept} of each are for the test");
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
}
