//! How much of its score a model keeps on pictures that a bad camera took.

use std::collections::BTreeMap;

use firebrick_data::image::{Picture, corrupt::Corruption};
use rayon::prelude::*;

/// By corruption, the score at each strength, of `items` whose `pictures` it befalls: one, or the frames of a clip.
pub fn scores<T: Clone + Send + Sync>(
    items: &[T],
    pictures: impl Fn(&mut T) -> &mut [Picture] + Sync,
    score: impl Fn(&[T]) -> anyhow::Result<f64>,
) -> anyhow::Result<BTreeMap<&'static str, Vec<f64>>> {
    let corrupted = |corruption: Corruption, strength: usize| -> Vec<T> {
        let corrupt = |(seed, item): (usize, &T)| {
            let mut item = item.clone();
            for (frame, picture) in pictures(&mut item).iter_mut().enumerate() {
                // The same noise in no two frames.
                let seed = (seed as u64) | ((frame as u64) << 32);
                *picture = corruption.apply(picture, strength, seed);
            }
            item
        };
        items.par_iter().enumerate().map(corrupt).collect()
    };
    let row = |corruption: Corruption| {
        let strengths = 1..=Corruption::STRENGTHS;
        let row: anyhow::Result<Vec<f64>> =
            strengths.map(|strength| score(&corrupted(corruption, strength))).collect();
        Ok((corruption.name(), row?))
    };
    Corruption::ALL.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::slice::from_mut;

    use firebrick_data::image::Colour;

    use super::*;

    fn brightness(pictures: &[Picture]) -> f64 {
        let sum = |picture: &Picture| picture.pixels.iter().map(|p| f64::from(*p)).sum::<f64>();
        pictures.iter().map(sum).sum()
    }

    /// Light adds up: a stronger one more, to every frame of every clip; what was given stays as it was.
    #[test]
    fn every_strength_of_every_corruption_is_scored() {
        let frame = Picture::filled(6, 5, Colour::Grey, 100);
        let clips = vec![vec![frame.clone(); 3]; 2];
        let score = |clips: &[Vec<Picture>]| Ok(clips.iter().map(|c| brightness(c)).sum());
        let found = scores(&clips, |clip| clip.as_mut_slice(), score).unwrap();
        assert_eq!(found.len(), Corruption::ALL.len());
        // 0.05, 0.1, .. 0.3 of 255, cut to whole levels.
        let expected = [112, 125, 138, 151, 176].map(|level| f64::from(level * 6 * 5 * 3 * 2));
        assert_eq!(found["brightness"], expected);
        assert_eq!(clips[1][2], frame);
        let alone = scores(&[frame], from_mut, |pictures| Ok(brightness(pictures))).unwrap();
        assert_eq!(alone["brightness"][0], f64::from(112 * 30));
    }

    #[test]
    fn a_score_that_fails_is_told() {
        let none: [Picture; 0] = [];
        let error = scores(&none, from_mut, |_| anyhow::bail!("nothing to judge")).unwrap_err();
        assert_eq!(error.to_string(), "nothing to judge");
    }
}
