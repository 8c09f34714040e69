//! What vectors of faces are worth: verification of pairs, identification among those who are known, strangers.

use std::collections::BTreeMap;

use firebrick_metrics::roc::Roc;
use firebrick_train::{fit::Metrics, origin::Threshold, sampler::mix};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::index::{cosine, mean, nearest};

/// Random divisions of everybody's pictures into those that are enrolled and those that are asked.
const DIVISIONS: u64 = 10;

/// Pictures of each person that are enrolled.
const ENROLLED: usize = 7;

/// Cosines of all pairs of pictures; those of one person are the positive ones.
pub fn pairs(vectors: &[Vec<f32>], people: &[&str]) -> Roc {
    let mut roc = Roc::default();
    for (i, one) in vectors.iter().enumerate() {
        for (j, other) in vectors.iter().enumerate().skip(i + 1) {
            roc.add(cosine(one, other), people[i] == people[j]);
        }
    }
    roc
}

/// `eer` and `auc` of pairs, and at the threshold the shares that are falsely accepted and falsely rejected.
pub fn verification(roc: &Roc, threshold: Option<Threshold>) -> Metrics {
    let counts = threshold.map(|threshold| roc.at(threshold.value));
    let scores = [
        ("eer", roc.eer()),
        ("auc", roc.auc()),
        ("false_accept", counts.and_then(|c| Some(1.0 - c.specificity()?))),
        ("false_reject", counts.and_then(|c| Some(1.0 - c.sensitivity()?))),
    ];
    scores.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect()
}

/// A vector with whose it is.
type Entry<'a> = (&'a str, &'a [f32]);

/// Share of `probes` whose nearest enrolled person is the right one; `None` without probes.
pub fn accuracy(enrolled: &[Entry], probes: &[Entry]) -> Option<f64> {
    let templates = templates(enrolled);
    share(probes.iter().map(|(person, vector)| {
        nearest(&templates, vector).is_some_and(|(name, _)| name == *person)
    }))
}

/// Means over ten divisions of people whom the model has not seen. `accuracy`: all are enrolled with seven pictures, and
/// their others are asked. At the threshold, every second one enrolled: `identified` is the share of their other pictures
/// that the right name is said of, `strangers_accepted` that of all others' pictures that any name is said of.
pub fn identification(
    vectors: &[Vec<f32>],
    people: &[&str],
    threshold: Option<Threshold>,
    seed: u64,
) -> Metrics {
    let mut by_person = BTreeMap::<&str, Vec<&[f32]>>::new();
    for (vector, person) in vectors.iter().zip(people) {
        by_person.entry(person).or_default().push(vector);
    }
    let mut found = BTreeMap::<&str, Vec<f64>>::new();
    for division in 0..DIVISIONS {
        let (mut enrolled, mut probes, mut strangers) = (vec![], vec![], vec![]);
        let (mut known, mut asked) = (vec![], vec![]);
        for (number, (person, vectors)) in by_person.iter().enumerate() {
            let mut vectors = vectors.clone();
            vectors.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(seed ^ division, number as u64)));
            let mut first: Vec<Entry> = vectors.into_iter().map(|v| (*person, v)).collect();
            let rest = first.split_off(ENROLLED.min(first.len()));
            match number as u64 % 2 == division % 2 {
                true => {
                    known.extend(&first);
                    asked.extend(&rest);
                }
                false => strangers.extend(first.iter().chain(&rest).copied()),
            }
            enrolled.append(&mut first);
            probes.extend(rest);
        }
        let mut add = |name, value: Option<f64>| {
            value.map(|value| found.entry(name).or_default().push(value))
        };
        add("accuracy", accuracy(&enrolled, &probes));
        if let Some(threshold) = threshold {
            let templates = templates(&known);
            let said = |vector: &[f32]| {
                nearest(&templates, vector)
                    .filter(|(_, cosine)| *cosine >= threshold.value)
                    .map(|(name, _)| name)
            };
            add("identified", share(asked.iter().map(|(person, v)| said(v) == Some(*person))));
            add("strangers_accepted", share(strangers.iter().map(|(_, v)| said(v).is_some())));
        }
    }
    let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    found.iter().map(|(name, values)| (name.to_string(), mean(values))).collect()
}

/// The mean vector of everybody who is enrolled.
fn templates<'a>(enrolled: &[Entry<'a>]) -> Vec<(&'a str, Vec<f32>)> {
    let mut by_person = BTreeMap::<&str, Vec<&[f32]>>::new();
    for (person, vector) in enrolled {
        by_person.entry(person).or_default().push(vector);
    }
    by_person.into_iter().map(|(person, vectors)| (person, mean(&vectors))).collect()
}

/// Share of the answers that are yes; `None` without any.
fn share(answers: impl Iterator<Item = bool>) -> Option<f64> {
    let (yes, all) = answers.fold((0, 0), |(yes, all), answer| (yes + u32::from(answer), all + 1));
    (all > 0).then(|| f64::from(yes) / f64::from(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two people at right angles, and a third between them.
    fn vectors() -> (Vec<Vec<f32>>, Vec<&'static str>) {
        let of = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
        let mut vectors = vec![];
        let mut people = vec![];
        for (person, degrees) in [("a", 0.0), ("b", 45.0), ("c", 90.0)] {
            for i in 0..10 {
                vectors.push(of(degrees + i as f32));
                people.push(person);
            }
        }
        (vectors, people)
    }

    #[test]
    fn people_who_lie_apart_are_told_apart() {
        let (vectors, people) = vectors();
        let roc = pairs(&vectors, &people);
        assert_eq!((roc.positives.len(), roc.negatives.len()), (3 * 45, 3 * 100));
        let threshold = Some(Threshold { value: 0.98, false_alarms: 0.0 });
        let scores = verification(&roc, threshold);
        assert_eq!(
            (scores["eer"], scores["false_accept"], scores["false_reject"]),
            (0.0, 0.0, 0.0)
        );
        let scores = identification(&vectors, &people, threshold, 7);
        assert_eq!((scores["accuracy"], scores["identified"]), (1.0, 1.0));
        assert_eq!(scores["strangers_accepted"], 0.0);
        // So low a threshold lets everybody in.
        let low = Some(Threshold { value: -1.0, false_alarms: 1.0 });
        assert_eq!(identification(&vectors, &people, low, 7)["strangers_accepted"], 1.0);
        assert_eq!(verification(&roc, low)["false_accept"], 1.0);
    }
}
