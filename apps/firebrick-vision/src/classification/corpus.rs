//! Labelled pictures in parts that share nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
};

use anyhow::{bail, ensure};
use firebrick_data::{
    error::DataError,
    hash::{sha256_bytes, sha256_rows},
    image::alike::{difference_hash, groups, pairs},
    ledger::{DropReason, Ledger},
    split::check_judged,
    table::Row,
};
use firebrick_train::{job::Places, sampler};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    layouts::{self, Parts, Sample},
    recipe::DataRecipe,
};

/// The parts of a data set.
pub struct Corpus {
    pub train: Vec<Sample>,
    pub valid: Vec<Sample>,
    pub test: Option<Vec<Sample>>,
    /// In the order of their numbers, or of their letters; a label's place is its class index.
    pub labels: Vec<String>,
    /// SHA-256 over the training and validation pictures.
    pub sha256: String,
    /// What was dropped of each part.
    pub ledgers: Vec<(&'static str, Ledger)>,
    /// Of parts that the data itself names, which pictures look like one of another; they stay, as the parts are those that
    /// others report on.
    alike: Vec<String>,
}

/// Reads and divides what `[data]` names.
pub fn load(data: &DataRecipe, seed: u64, places: &Places) -> anyhow::Result<Corpus> {
    let (mut parts, mut ledgers) = match data.dataset.as_deref() {
        Some(id) => (known(id, data, places)?, BTreeMap::new()),
        None => own(data, places)?,
    };
    let mut take = |part| parts.remove(part).unwrap_or_default();
    let (mut train, mut valid, mut test) = (take("train"), take("valid"), take("test"));
    let (no_test, no_valid) = (test.is_empty() && data.test_fraction > 0.0, valid.is_empty());
    if no_test || no_valid {
        group(&mut train);
    }
    if no_test {
        test = carve(&mut train, data.test_fraction, sampler::mix(seed, 1));
        once(&mut test, ledgers.entry("test").or_default());
    }
    if no_valid {
        let fraction = data.valid_fraction / if no_test { 1.0 - data.test_fraction } else { 1.0 };
        valid = carve(&mut train, fraction, sampler::mix(seed, 2));
    }
    // The same pixels in two parts: the one that is learned from gives way.
    let tested: HashSet<&[u8]> = pixels(&test).collect();
    apart(&mut valid, &tested, "in test, too", ledgers.entry("valid").or_default());
    let elsewhere: HashSet<&[u8]> = pixels(&valid).chain(tested).collect();
    apart(&mut train, &elsewhere, "in valid or test, too", ledgers.entry("train").or_default());
    let given = [
        ("test", &test, "train", &train, !no_test),
        ("test", &test, "valid", &valid, !no_test || !no_valid),
        ("valid", &valid, "train", &train, !no_valid),
    ];
    let alike = given.into_iter().filter(|(.., given)| *given);
    let alike = alike.filter_map(|(a, of_a, b, of_b, _)| alike_in((a, of_a), (b, of_b))).collect();

    ensure!(!train.is_empty(), "no training picture is left");
    ensure!(!valid.is_empty(), "there is no validation picture: set `data.valid_fraction`");
    let labels: BTreeSet<&String> = train.iter().map(|sample| &sample.label).collect();
    let mut labels: Vec<String> = labels.into_iter().cloned().collect();
    if labels.iter().all(|label| label.parse::<u64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<u64>().unwrap_or(0));
    }
    let one = || format!("the training pictures have one label: {}", labels.join(", "));
    ensure!(labels.len() > 1, DataError::TooLittle(one()));
    for (part, samples) in [("valid", &valid), ("test", &test)] {
        if !samples.is_empty() {
            check_judged(part, samples.iter().map(|sample| sample.label.as_str()), &labels)?;
        }
    }
    let row = |sample: &Sample| Row {
        row: 0,
        text: sha256_bytes(&sample.picture.pixels),
        label: Some(sample.label.clone()),
    };
    let sha256 = sha256_rows(&train.iter().chain(&valid).map(row).collect::<Vec<_>>());
    let test = (!test.is_empty()).then_some(test);
    Ok(Corpus { train, valid, test, labels, sha256, ledgers: ledgers.into_iter().collect(), alike })
}

impl Corpus {
    /// What there is to say of it, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let count = |name: &str, part: &[Sample]| format!("{name} {}", part.len());
        let mut parts = vec![count("train", &self.train), count("valid", &self.valid)];
        parts.extend(self.test.as_ref().map(|test| count("test", test)));
        let mut remarks =
            vec![format!("pictures: {}; {} labels", parts.join(", "), self.labels.len())];
        for (part, ledger) in &self.ledgers {
            for (reason, count) in ledger.counts() {
                remarks.push(format!("{part}: dropped {count}: {reason:?}").to_lowercase());
            }
        }
        remarks.extend(self.alike.iter().cloned());
        remarks
    }

    pub fn ledger(&self) -> String {
        self.ledgers.iter().map(|(part, ledger)| ledger.json_lines(part)).collect()
    }
}

fn known(id: &str, data: &DataRecipe, places: &Places) -> anyhow::Result<Parts> {
    let folder = || -> anyhow::Result<PathBuf> {
        let folder = (places.data)(id)?;
        let nested = folder.join(id);
        Ok(if nested.is_dir() { nested } else { folder })
    };
    match id {
        "gtsrb" => layouts::gtsrb(&folder()?, data),
        "pneumoniamnist" => layouts::arrays(&folder()?.join("pneumoniamnist.npz"), data),
        "brain-mri" => layouts::by_class(&folder()?, data),
        "inria-person" => layouts::inria(&folder()?, data),
        _ => bail!(DataError::WrongSet(format!(
            "`{id}` is not an image classification set: gtsrb, pneumoniamnist, brain-mri or inria-person"
        ))),
    }
}

/// What was dropped, by part.
type Ledgers = BTreeMap<&'static str, Ledger>;

fn own(data: &DataRecipe, places: &Places) -> anyhow::Result<(Parts, Ledgers)> {
    let read = |path: &PathBuf| layouts::own(&places.base.join(path), data);
    let (mut parts, ledger) = data.train.as_ref().map(read).transpose()?.unwrap_or_default();
    let mut ledgers = Ledgers::from([("train", ledger)]);
    for (part, path) in [("valid", &data.valid), ("test", &data.test)] {
        if let Some(path) = path {
            let (mut found, ledger) = read(path)?;
            let found = found.remove(part).or_else(|| found.remove("train"));
            parts.insert(part, found.unwrap_or_default());
            ledgers.insert(part, ledger);
        }
    }
    Ok((parts, ledgers))
}

fn pixels(samples: &[Sample]) -> impl Iterator<Item = &[u8]> {
    samples.iter().map(|sample| sample.picture.pixels.as_slice())
}

/// Difference hashes of a part's pictures.
fn hashes(samples: &[Sample]) -> Vec<u128> {
    samples.par_iter().map(|sample| difference_hash(&sample.picture)).collect()
}

/// How many pictures of a part look like one of another, and the first of them; `None` where none does.
fn alike_in(
    (part, samples): (&str, &[Sample]),
    (other, others): (&str, &[Sample]),
) -> Option<String> {
    let found = pairs(&hashes(samples), &hashes(others));
    let (one, like) = *found.first()?;
    Some(format!(
        "{part}: {} pictures look like one in {other}, and stay; the first: {} like {}",
        found.len(),
        samples[one].id,
        others[like].id
    ))
}

/// Gives pictures without a group one: that of those that look the same.
fn group(samples: &mut [Sample]) {
    let first = groups(&hashes(samples));
    for (sample, first) in samples.iter_mut().zip(first) {
        sample.group.get_or_insert_with(|| format!("like {first}"));
    }
}

/// Takes about this share of every label's pictures out, whole groups at a time; at least one group of each label that has
/// more.
fn carve(samples: &mut Vec<Sample>, fraction: f64, seed: u64) -> Vec<Sample> {
    let mut by_label = BTreeMap::<&str, BTreeMap<&str, usize>>::new();
    for sample in samples.iter() {
        let group = sample.group.as_deref().unwrap_or(&sample.id);
        *by_label.entry(&sample.label).or_default().entry(group).or_default() += 1;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut chosen = HashSet::<String>::new();
    for groups in by_label.values().filter(|groups| groups.len() > 1 && fraction > 0.0) {
        let wanted = fraction * groups.values().sum::<usize>() as f64;
        let mut order: Vec<_> = groups.iter().collect();
        order.shuffle(&mut rng);
        // A group with pictures of other labels may be taken already.
        let mut taken: usize =
            order.iter().filter(|(g, _)| chosen.contains(**g)).map(|(_, n)| **n).sum();
        for (group, count) in order {
            if taken > 0 && (taken + count) as f64 > wanted + 0.5 {
                continue;
            }
            if chosen.insert(group.to_string()) {
                taken += count;
            }
        }
    }
    let is_chosen =
        |sample: &Sample| chosen.contains(sample.group.as_deref().unwrap_or(&sample.id));
    let (part, rest) = std::mem::take(samples).into_iter().partition(is_chosen);
    *samples = rest;
    part
}

/// Keeps one of the pictures that look the same: the part that is reported counts nothing twice. A group that the data itself
/// names has different pictures of one thing, which stay.
fn once(samples: &mut Vec<Sample>, ledger: &mut Ledger) {
    let mut first = HashMap::<String, usize>::new();
    keep(samples, ledger, |row, sample| {
        let group = sample.group.clone().filter(|group| group.starts_with("like "))?;
        let earlier = *first.entry(group).or_insert(row);
        (earlier != row).then(|| (DropReason::Duplicate, format!("looks like row {earlier}")))
    });
}

/// Drops those whose pixels are elsewhere.
fn apart(samples: &mut Vec<Sample>, elsewhere: &HashSet<&[u8]>, detail: &str, ledger: &mut Ledger) {
    keep(samples, ledger, |_, sample| {
        let found = elsewhere.contains(sample.picture.pixels.as_slice());
        found.then(|| (DropReason::Leak, detail.to_string()))
    });
}

fn keep(
    samples: &mut Vec<Sample>,
    ledger: &mut Ledger,
    mut why_not: impl FnMut(usize, &Sample) -> Option<(DropReason, String)>,
) {
    ledger.keep(samples, |row, sample| {
        let (reason, detail) = why_not(row, sample)?;
        Some((reason, format!("{}: {detail}", sample.id)))
    });
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::{Colour, Picture};

    use super::*;

    fn sample(id: usize, label: &str, group: Option<&str>, value: u8) -> Sample {
        Sample {
            id: id.to_string(),
            label: label.into(),
            group: group.map(str::to_string),
            picture: Picture::filled(2, 2, Colour::Grey, value),
        }
    }

    #[test]
    fn groups_stay_together() {
        let label = |i: usize| if i < 60 { "a" } else { "b" };
        let mut train: Vec<Sample> =
            (0..90).map(|i| sample(i, label(i), Some(&format!("g{}", i / 3)), i as u8)).collect();
        let valid = carve(&mut train, 0.2, 7);
        assert_eq!((train.len(), valid.len()), (72, 18));
        let groups = |part: &[Sample]| -> BTreeSet<String> {
            part.iter().filter_map(|sample| sample.group.clone()).collect()
        };
        assert!(groups(&train).is_disjoint(&groups(&valid)));
        assert_eq!(valid.iter().filter(|sample| sample.label == "a").count(), 12);
    }

    #[test]
    fn a_part_that_judges_counts_nothing_twice() {
        let mut part = vec![
            sample(0, "a", Some("like 0"), 0),
            sample(1, "a", Some("like 0"), 1),
            sample(2, "a", Some("track"), 2),
            sample(3, "a", Some("track"), 3),
        ];
        let mut ledger = Ledger::default();
        once(&mut part, &mut ledger);
        assert_eq!(part.len(), 3);
        assert_eq!(ledger.counts()[&DropReason::Duplicate], 1);
    }

    #[test]
    fn what_looks_alike_in_given_parts_is_told() {
        let stripes = |id: usize, least: u8| {
            let pixels = (0..256).map(|i| least + (i % 16 / 4 % 2 * 90) as u8).collect();
            let picture = Picture { width: 16, height: 16, colour: Colour::Grey, pixels };
            Sample { picture, ..sample(id, "a", None, 0) }
        };
        let (train, test) = ([sample(0, "a", None, 9), stripes(1, 20)], [stripes(7, 30)]);
        let told = alike_in(("test", &test), ("train", &train)).unwrap();
        assert_eq!(told, "test: 1 pictures look like one in train, and stay; the first: 7 like 1");
        assert_eq!(alike_in(("test", &test), ("train", &train[..1])), None);
    }

    #[test]
    fn pixels_of_another_part_are_dropped() {
        let mut train = vec![sample(0, "a", None, 5), sample(1, "a", None, 6)];
        let test = [sample(0, "b", None, 6)];
        let mut ledger = Ledger::default();
        apart(&mut train, &pixels(&test).collect(), "in test, too", &mut ledger);
        assert_eq!(train.len(), 1);
        assert_eq!(ledger.dropped[0].detail, "1: in test, too");
    }
}
