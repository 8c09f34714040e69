//! Hidden Markov models with discrete observations.
//!
//! Paper: Rabiner 1989, "A tutorial on hidden Markov models", sections III and V (scaling). Reference code:
//! `CategoricalHMM` of hmmlearn.
//!
//! A chain of states is not seen; each emits one symbol that is. Three questions have an answer each:
//!
//! ```text
//! how likely are the symbols?     forward    a_1(j) = start(j) e(j, o_1),  a_t(j) = sum_i a_(t-1)(i) p(i, j) e(j, o_t)
//! which state was it at time t?   backward   b_T(i) = 1,  b_t(i) = sum_j p(i, j) e(j, o_(t+1)) b_(t+1)(j);  a_t b_t
//! which chain was it?             Viterbi    the forward formula with the maximum in place of the sum
//! ```
//!
//! Products of many probabilities vanish, so each `a_t` is divided by its sum `c_t`; the product of all `c_t` is the
//! likelihood. Baum-Welch counts with the posteriors as if they had been seen, divides, and does it again; the
//! likelihood never falls (Baum et al. 1970).
//!
//! Axis letters: `T` time, `K` states, `M` symbols.

pub mod tagger;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::viterbi::{Transitions, viterbi};

/// How far the sum of a distribution may be from 1.
const SUM: f64 = 1e-6;

/// A model; read with serde it is checked.
///
/// ```
/// use firebrick_classic::hmm::Hmm;
///
/// // Hot (0) and cold (1) days, and one to three ice creams eaten (Eisner 2002).
/// let model = Hmm::new(
///     vec![0.8, 0.2],
///     vec![0.6, 0.4, 0.5, 0.5],
///     vec![0.2, 0.4, 0.4, 0.5, 0.4, 0.1],
/// )?;
/// let (days, log_prob) = model.viterbi(&[2, 0, 2]).unwrap(); // three, one, three
/// assert_eq!(days, [0, 1, 0]);
/// // 0.8 * 0.4 * 0.4 * 0.5 * 0.5 * 0.4
/// assert!((log_prob.exp() - 0.0128).abs() < 1e-12);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Hmm {
    /// `[K]`
    start: Vec<f64>,
    /// `[K, K]`, row = state before.
    transitions: Vec<f64>,
    /// `[K, M]`
    emissions: Vec<f64>,
}

#[derive(Deserialize)]
struct Unchecked {
    start: Vec<f64>,
    transitions: Vec<f64>,
    emissions: Vec<f64>,
}

impl TryFrom<Unchecked> for Hmm {
    type Error = String;

    fn try_from(unchecked: Unchecked) -> Result<Self, String> {
        Self::new(unchecked.start, unchecked.transitions, unchecked.emissions)
    }
}

/// What the forward and the backward pass say of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Posteriors {
    /// `ln p(symbols)`
    pub log_likelihood: f64,
    /// `[T, K]`: the chance of each state at each time, given all symbols.
    pub states: Vec<f64>,
    /// `[K, K]`: how many transitions of each kind are expected.
    pub transitions: Vec<f64>,
}

impl Hmm {
    /// `start`: `[K]`, `transitions`: `[K, K]`, `emissions`: `[K, M]`; every row sums to 1.
    pub fn new(
        start: Vec<f64>,
        transitions: Vec<f64>,
        emissions: Vec<f64>,
    ) -> Result<Self, String> {
        let k = start.len();
        let fit = k > 0
            && transitions.len() == k * k
            && !emissions.is_empty()
            && emissions.len().is_multiple_of(k);
        if !fit {
            let (transitions, emissions) = (transitions.len(), emissions.len());
            return Err(format!(
                "{k} states with {transitions} transitions and {emissions} emissions do not fit together"
            ));
        }
        let m = emissions.len() / k;
        let parts =
            [("start", &start, k), ("transitions", &transitions, k), ("emissions", &emissions, m)];
        for (name, values, width) in parts {
            for (row, values) in values.chunks(width).enumerate() {
                let sum: f64 = values.iter().sum();
                // A NaN is not within either.
                let sound = values.iter().all(|p| *p >= 0.0) && (sum - 1.0).abs() <= SUM;
                if !sound {
                    return Err(format!(
                        "row {row} of {name} sums to {sum}, or is negative somewhere"
                    ));
                }
            }
        }
        Ok(Self { start, transitions, emissions })
    }

    /// Distributions drawn at random, to begin [`Self::baum_welch`] with: equal states would stay equal.
    ///
    /// # Panics
    ///
    /// If there is no state or no symbol.
    pub fn random(states: usize, symbols: usize, seed: u64) -> Self {
        assert!(states > 0 && symbols > 0, "{states} states, {symbols} symbols");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |rows: usize, width: usize| {
            let mut values: Vec<f64> =
                (0..rows * width).map(|_| rng.random_range(0.5..1.5)).collect();
            normalise(&mut values, width);
            values
        };
        Self {
            start: draw(1, states),
            transitions: draw(states, states),
            emissions: draw(states, symbols),
        }
    }

    /// `K`
    pub fn states(&self) -> usize {
        self.start.len()
    }

    /// `M`
    pub fn symbols(&self) -> usize {
        self.emissions.len() / self.states()
    }

    /// `[K]`
    pub fn start(&self) -> &[f64] {
        &self.start
    }

    /// `[K, K]`, row = state before.
    pub fn transitions(&self) -> &[f64] {
        &self.transitions
    }

    /// `[K, M]`
    pub fn emissions(&self) -> &[f64] {
        &self.emissions
    }

    /// The chance that `state` emits `symbol`; 0 for a symbol that the model does not have.
    fn emission(&self, state: usize, symbol: usize) -> f64 {
        let m = self.symbols();
        if symbol < m { self.emissions[state * m + symbol] } else { 0.0 }
    }

    /// `ln p(symbols)`; negative infinity when they are impossible.
    pub fn log_likelihood(&self, symbols: &[usize]) -> f64 {
        self.forward(symbols).map_or(f64::NEG_INFINITY, |(_, scales)| log_sum(&scales))
    }

    /// Scaled `a`, `[T, K]`, and the scales `c`, `[T]`; `None` when the symbols are impossible.
    fn forward(&self, symbols: &[usize]) -> Option<(Vec<f64>, Vec<f64>)> {
        let k = self.states();
        let mut forward: Vec<f64> = Vec::with_capacity(symbols.len() * k);
        let mut scales = Vec::with_capacity(symbols.len());
        for (t, symbol) in symbols.iter().enumerate() {
            for j in 0..k {
                let arrive = match t {
                    0 => self.start[j],
                    _ => {
                        (0..k).map(|i| forward[(t - 1) * k + i] * self.transitions[i * k + j]).sum()
                    }
                };
                forward.push(arrive * self.emission(j, *symbol));
            }
            let now = &mut forward[t * k..];
            let scale: f64 = now.iter().sum();
            if scale <= 0.0 {
                return None;
            }
            now.iter_mut().for_each(|a| *a /= scale);
            scales.push(scale);
        }
        Some((forward, scales))
    }

    /// Forward and backward pass; `None` when the symbols are impossible.
    pub fn posteriors(&self, symbols: &[usize]) -> Option<Posteriors> {
        let k = self.states();
        let (mut states, scales) = self.forward(symbols)?;
        let mut transitions = vec![0.0; k * k];
        let mut backward = vec![1.0; k];
        for t in (1..symbols.len()).rev() {
            // e(j, o_t) b_t(j) / c_t
            let ahead: Vec<f64> =
                (0..k).map(|j| self.emission(j, symbols[t]) * backward[j] / scales[t]).collect();
            for i in 0..k {
                let a = states[(t - 1) * k + i];
                let row = &self.transitions[i * k..(i + 1) * k];
                for j in 0..k {
                    transitions[i * k + j] += a * row[j] * ahead[j];
                }
                backward[i] = (0..k).map(|j| row[j] * ahead[j]).sum();
            }
            states[(t - 1) * k..t * k].iter_mut().zip(&backward).for_each(|(a, b)| *a *= b);
        }
        Some(Posteriors { log_likelihood: log_sum(&scales), states, transitions })
    }

    /// The likeliest chain of states and `ln p(chain, symbols)`; `None` when the symbols are impossible.
    pub fn viterbi(&self, symbols: &[usize]) -> Option<(Vec<usize>, f64)> {
        let ln = |values: &[f64]| values.iter().map(|p| p.ln()).collect();
        let k = self.states();
        let transitions = Transitions {
            start: ln(&self.start),
            between: ln(&self.transitions),
            end: vec![0.0; k],
        };
        let emission =
            |symbol: &usize| (0..k).map(|j| self.emission(j, *symbol).ln()).collect::<Vec<_>>();
        let emissions: Vec<f64> = symbols.iter().flat_map(emission).collect();
        viterbi(&emissions, &transitions)
    }

    /// Learns from sequences without states: at most `max_iter` rounds, or until one gains less than `tolerance`.
    ///
    /// Gives `ln p(sequences)` before each round and after the last; it never falls. A sequence that is impossible
    /// under the model ends it with the sequence's number as the error, and the model is as it was before the round.
    pub fn baum_welch<S: AsRef<[usize]>>(
        &mut self,
        sequences: &[S],
        max_iter: usize,
        tolerance: f64,
    ) -> Result<Vec<f64>, usize> {
        let mut history = vec![];
        for round in 0..=max_iter {
            let (log_likelihood, counted) = self.expect(sequences)?;
            let gain = history.last().map_or(f64::INFINITY, |last| log_likelihood - last);
            history.push(log_likelihood);
            if round == max_iter || gain < tolerance {
                break;
            }
            *self = counted;
        }
        Ok(history)
    }

    /// `ln p(sequences)`, and the model whose probabilities are the expected frequencies.
    fn expect<S: AsRef<[usize]>>(&self, sequences: &[S]) -> Result<(f64, Self), usize> {
        let (k, m) = (self.states(), self.symbols());
        let mut counted = Self {
            start: vec![0.0; k],
            transitions: vec![0.0; k * k],
            emissions: vec![0.0; k * m],
        };
        let mut log_likelihood = 0.0;
        for (number, symbols) in sequences.iter().enumerate() {
            let symbols = symbols.as_ref();
            let seen = self.posteriors(symbols).ok_or(number)?;
            log_likelihood += seen.log_likelihood;
            add(&mut counted.start, seen.states.get(..k).unwrap_or_default());
            add(&mut counted.transitions, &seen.transitions);
            for (states, symbol) in seen.states.chunks(k).zip(symbols) {
                for (j, p) in states.iter().enumerate() {
                    counted.emissions[j * m + symbol] += p;
                }
            }
        }
        // A state that is never left, or never visited, keeps what it had.
        for (counts, before, width) in [
            (&mut counted.start, &self.start, k),
            (&mut counted.transitions, &self.transitions, k),
            (&mut counted.emissions, &self.emissions, m),
        ] {
            for (row, before) in counts.chunks_mut(width).zip(before.chunks(width)) {
                if row.iter().sum::<f64>() <= 0.0 {
                    row.copy_from_slice(before);
                }
            }
            normalise(counts, width);
        }
        Ok((log_likelihood, counted))
    }
}

fn log_sum(scales: &[f64]) -> f64 {
    scales.iter().map(|scale| scale.ln()).sum()
}

fn add(sum: &mut [f64], more: &[f64]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// Divides each row by its sum.
fn normalise(values: &mut [f64], width: usize) {
    for row in values.chunks_mut(width) {
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ice_cream() -> Hmm {
        let emissions = vec![0.2, 0.4, 0.4, 0.5, 0.4, 0.1];
        Hmm::new(vec![0.8, 0.2], vec![0.6, 0.4, 0.5, 0.5], emissions).unwrap()
    }

    /// Against the sum over all chains of states.
    #[test]
    fn sums_over_all_chains() {
        let model = ice_cream();
        let symbols = [2, 0, 2, 1, 0];
        let (mut total, mut hot) = (0.0, [0.0; 5]);
        for chain in 0..32usize {
            let state = |t: usize| chain >> t & 1;
            let mut p = model.start[state(0)];
            for (t, symbol) in symbols.iter().enumerate() {
                if t > 0 {
                    p *= model.transitions[state(t - 1) * 2 + state(t)];
                }
                p *= model.emissions[state(t) * 3 + symbol];
            }
            total += p;
            (0..5).filter(|t| state(*t) == 0).for_each(|t| hot[t] += p);
        }
        let found = model.posteriors(&symbols).unwrap();
        assert!((found.log_likelihood - total.ln()).abs() < 1e-12);
        assert!((model.log_likelihood(&symbols) - total.ln()).abs() < 1e-12);
        for (p, hot) in found.states.iter().step_by(2).zip(hot) {
            assert!((p - hot / total).abs() < 1e-12);
        }
        assert!((found.transitions.iter().sum::<f64>() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn likelihood_never_falls() {
        // Long enough to vanish without scaling: 3^-3000.
        let symbols: Vec<usize> = (0..3000).map(|i| (i / 7 + i % 3) % 3).collect();
        for seed in 0..3 {
            let mut model = Hmm::random(3, 3, seed);
            let history = model.baum_welch(&[&symbols[..], &symbols[..50], &[]], 30, 0.0).unwrap();
            assert!(history.windows(2).all(|pair| pair[1] >= pair[0] - 1e-9), "{history:?}");
            assert!(history[history.len() - 1] > history[0] + 100.0, "{history:?}");
            Hmm::new(model.start, model.transitions, model.emissions).unwrap();
        }
        assert_eq!(Hmm::random(3, 3, 5), Hmm::random(3, 3, 5));
    }

    #[test]
    fn the_impossible() {
        let model = ice_cream();
        assert_eq!(model.log_likelihood(&[9]), f64::NEG_INFINITY);
        assert_eq!((model.posteriors(&[0, 9]), model.viterbi(&[9])), (None, None));
        assert_eq!(model.clone().baum_welch(&[vec![0], vec![9]], 5, 0.0), Err(1));
        assert_eq!(model.log_likelihood(&[]), 0.0);
        assert_eq!(model.viterbi(&[]), Some((vec![], 0.0)));
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let read = |text: &str| serde_json::from_str::<Hmm>(text).unwrap_err().to_string();
        let json = serde_json::to_string(&ice_cream()).unwrap();
        assert_eq!(serde_json::from_str::<Hmm>(&json).unwrap(), ice_cream());
        assert!(read(&json.replace("0.8", "0.9")).contains("row 0 of start sums to 1.1"));
        assert!(read(&json.replace("0.8", "-0.8")).contains("negative"));
        assert!(read(&json.replace("0.8,", "")).contains("do not fit together"));
    }
}
