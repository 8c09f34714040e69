//! Which examples make which batch: a pure function of seed and epoch, so there is no state to restore.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Batches of one window are alike in length; windows keep the order random across the epoch.
const WINDOW: usize = 32;

/// Every example once, in batches whose members are of like size (so that little is padding).
///
/// Shuffles, cuts into windows of `32 * batch_size`, sorts each window by size, cuts it into batches
/// and shuffles the batches. The last batch may be smaller.
pub fn epoch(sizes: &[usize], batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(mix(seed, epoch as u64));
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.shuffle(&mut rng);
    for window in order.chunks_mut(WINDOW * batch_size) {
        window.sort_by_key(|i| sizes[*i]); // stable: ties stay shuffled
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[usize]>::to_vec).collect();
    batches.shuffle(&mut rng);
    batches
}

/// Every example once, smallest first, in batches whose members are of like size: for an evaluation.
pub fn by_size(sizes: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|i| sizes[*i]);
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// One seed out of two numbers (SplitMix64, Steele et al. 2014).
pub fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One step's randomness on the host.
pub struct Coins(ChaCha8Rng);

impl Coins {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// True with probability `p`, within 0 and 1.
    pub fn toss(&mut self, p: f64) -> bool {
        self.0.random_bool(p)
    }

    /// One of `0..n`, all alike; `n` is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    /// Within `low` and `high`, all alike.
    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        self.0.random_range(low..high)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_example_once(n in 1usize..300, batch in 1usize..40, seed: u64) {
            let sizes: Vec<usize> = (0..n).map(|i| i * 7919 % 50).collect();
            let batches = epoch(&sizes, batch, seed, 3);
            let mut all: Vec<usize> = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
            prop_assert!(batches.iter().all(|b| b.len() <= batch));
            prop_assert_eq!(batches, epoch(&sizes, batch, seed, 3));
        }
    }

    #[test]
    fn little_is_padding() {
        let sizes: Vec<usize> = (0..4096).map(|i| 1 + i * 7919 % 60).collect();
        let padded: usize = epoch(&sizes, 32, 1, 0)
            .iter()
            .map(|b| b.len() * b.iter().map(|i| sizes[*i]).max().unwrap())
            .sum();
        let waste = 1.0 - sizes.iter().sum::<usize>() as f64 / padded as f64;
        assert!(waste < 0.05, "{waste}"); // without sorting: 0.48
    }
}
