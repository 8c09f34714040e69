//! The best sequence of labels under scores of labels and of their neighbourhoods (Viterbi 1967).

use serde::{Deserialize, Serialize};

/// Scores of neighbouring labels, added to those of the labels; logarithms of probabilities, or any other.
/// Negative infinity forbids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transitions {
    /// `[K]`: of the first label.
    pub start: Vec<f64>,
    /// `[K, K]`, row = label before, column = label after.
    pub between: Vec<f64>,
    /// `[K]`: of the last label.
    pub end: Vec<f64>,
}

impl Transitions {
    /// Everything is allowed and scores 0.
    pub fn free(labels: usize) -> Self {
        Self {
            start: vec![0.0; labels],
            between: vec![0.0; labels * labels],
            end: vec![0.0; labels],
        }
    }

    /// What the BIO scheme allows: `I-x` only after `B-x` or `I-x`; everything else is free.
    ///
    /// ```
    /// use firebrick_classic::viterbi::{Transitions, viterbi};
    ///
    /// let labels = ["O", "B-city", "I-city"];
    /// // By itself the second word would be `I-city`, which nothing opens.
    /// let scores = [[2.0_f32, 1.5, 0.0], [0.0, 1.0, 2.0]].concat();
    /// let (best, score) = viterbi(&scores, &Transitions::bio(&labels)).unwrap();
    /// assert_eq!((best, score), (vec![1, 2], 3.5));
    /// ```
    pub fn bio(labels: &[impl AsRef<str>]) -> Self {
        let k = labels.len();
        let mut allowed = Self::free(k);
        for (after, label) in labels.iter().enumerate() {
            let Some(kind) = label.as_ref().strip_prefix("I-") else { continue };
            allowed.start[after] = f64::NEG_INFINITY;
            for (before, label) in labels.iter().enumerate() {
                let opened =
                    label.as_ref().strip_prefix("B-").or(label.as_ref().strip_prefix("I-"));
                if opened != Some(kind) {
                    allowed.between[before * k + after] = f64::NEG_INFINITY;
                }
            }
        }
        allowed
    }

    /// What sequences of labels below `labels` say of neighbours: the logarithm of how much more often one label stands behind
    /// another than it stands anywhere, as the scores of labels know how often that is. Everything is counted once more than it
    /// was seen, so that nothing is forbidden.
    ///
    /// ```
    /// use firebrick_classic::viterbi::Transitions;
    ///
    /// let seen = Transitions::counted(&[vec![0, 1, 0, 1, 0, 1]], 2);
    /// let [same, other] = [seen.between[0], seen.between[1]];
    /// assert!(((same - other).exp() - 1.0 / 4.0).abs() < 1e-12); // 0 behind 0 never, 1 behind 0 thrice, and each once more
    /// assert!(seen.start[0] > 0.0 && seen.end[1] > 0.0);
    /// ```
    pub fn counted(sequences: &[Vec<usize>], labels: usize) -> Self {
        let k = labels;
        let ones = |n: usize| vec![1.0_f64; n];
        let (mut start, mut between, mut end, mut anywhere) =
            (ones(k), ones(k * k), ones(k), ones(k));
        for sequence in sequences {
            let (Some(first), Some(last)) = (sequence.first(), sequence.last()) else { continue };
            start[*first] += 1.0;
            end[*last] += 1.0;
            sequence.iter().for_each(|label| anywhere[*label] += 1.0);
            sequence.windows(2).for_each(|pair| between[pair[0] * k + pair[1]] += 1.0);
        }
        let all: f64 = anywhere.iter().sum();
        let more_often = |counts: &[f64]| -> Vec<f64> {
            let sum: f64 = counts.iter().sum();
            counts.iter().zip(&anywhere).map(|(n, m)| (n / sum * all / m).ln()).collect()
        };
        let between = between.chunks(k.max(1)).flat_map(more_often).collect();
        Self { start: more_often(&start), between, end: more_often(&end) }
    }

    /// These scores and `weight` times others, which are finite and of as many labels.
    pub fn plus(&self, weight: f64, other: &Self) -> Self {
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + weight * b).collect();
        Self {
            start: sum(&self.start, &other.start),
            between: sum(&self.between, &other.between),
            end: sum(&self.end, &other.end),
        }
    }

    /// `K`
    pub fn labels(&self) -> usize {
        self.start.len()
    }
}

/// The labels with the highest sum of scores, and that sum; of equals, those with the smaller numbers at the end.
///
/// - `emissions`: `[T, K]`, how well each label fits each place
/// - `None`: every sequence is forbidden, or a score is not a number
///
/// # Panics
///
/// If `emissions` is not a multiple of `K`, or the parts of `transitions` do not fit together.
pub fn viterbi<E: Copy + Into<f64>>(
    emissions: &[E],
    transitions: &Transitions,
) -> Option<(Vec<usize>, f64)> {
    let k = transitions.labels();
    let shapes = (transitions.between.len(), transitions.end.len());
    assert!(shapes == (k * k, k), "transitions of {k} labels have {shapes:?} scores");
    assert!(k > 0 && emissions.len().is_multiple_of(k), "{} scores of {k} labels", emissions.len());
    if emissions.is_empty() {
        return Some((vec![], 0.0));
    }
    // best[j]: the best sum of a sequence up to here that ends in j; from: what came before it, by place.
    let mut best: Vec<f64> = emissions[..k]
        .iter()
        .zip(&transitions.start)
        .map(|(e, start)| (*e).into() + start)
        .collect();
    let mut from: Vec<Vec<usize>> = vec![];
    for row in emissions[k..].chunks(k) {
        let arrive = |after: usize| {
            let sums = (0..k).map(|before| best[before] + transitions.between[before * k + after]);
            first_largest(sums)
        };
        let (places, sums): (Vec<usize>, Vec<f64>) = (0..k).map(arrive).unzip();
        best = sums.into_iter().zip(row).map(|(sum, e)| sum + (*e).into()).collect();
        from.push(places);
    }
    let (mut label, score) = first_largest(best.iter().zip(&transitions.end).map(|(b, e)| b + e));
    let mut path = vec![label];
    for places in from.iter().rev() {
        label = places[label];
        path.push(label);
    }
    path.reverse();
    score.is_finite().then_some((path, score))
}

/// NaN never wins.
fn first_largest(values: impl Iterator<Item = f64>) -> (usize, f64) {
    let start = (0, f64::NEG_INFINITY);
    values.enumerate().fold(start, |best, (i, x)| if x > best.1 { (i, x) } else { best })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn score(path: &[usize], emissions: &[f64], t: &Transitions) -> f64 {
        let k = t.labels();
        let own: f64 =
            path.iter().enumerate().map(|(place, label)| emissions[place * k + label]).sum();
        let pairs: f64 = path.windows(2).map(|pair| t.between[pair[0] * k + pair[1]]).sum();
        t.start[path[0]] + own + pairs + t.end[path[path.len() - 1]]
    }

    /// Against all sequences there are.
    #[test]
    fn is_the_best_of_all() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (k, places) in [(1, 3), (2, 1), (2, 6), (3, 5), (4, 4)] {
            let mut draw =
                |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-2.0..2.0)).collect() };
            let (start, between, end) = (draw(k), draw(k * k), draw(k));
            let mut transitions = Transitions { start, between, end };
            transitions.between[0] = f64::NEG_INFINITY;
            let emissions = draw(places * k);
            let all = (0..k.pow(places as u32))
                .map(|number| (0..places).map(|place| number / k.pow(place as u32) % k).collect());
            let highest = all
                .map(|path: Vec<usize>| score(&path, &emissions, &transitions))
                .fold(f64::NEG_INFINITY, f64::max);
            match viterbi(&emissions, &transitions) {
                Some((path, found)) => {
                    assert!((found - highest).abs() < 1e-12, "{found} {highest}");
                    assert!((score(&path, &emissions, &transitions) - highest).abs() < 1e-12);
                }
                None => assert_eq!(highest, f64::NEG_INFINITY),
            }
        }
    }

    #[test]
    fn edges() {
        let free = Transitions::free(2);
        assert_eq!(viterbi::<f32>(&[], &free), Some((vec![], 0.0)));
        assert_eq!(viterbi(&[1.0, 1.0], &free), Some((vec![0], 1.0)));
        assert_eq!(viterbi(&[f64::NAN, f64::NAN], &free), None);
        assert_eq!(viterbi(&[0.0], &Transitions::bio(&["I-x"])), None);
    }
}
