//! A wake word of one's own: from a few recordings of it, and long ones without it, to the folders that the recipe of
//! [`crate::classification`] trains on, and a count of false alarms on what was kept apart.

use std::path::Path;

use anyhow::{Context, ensure};
use firebrick_core::checkpoint::tensors::write_atomically;
use firebrick_data::{
    audio::{
        read::{Limits, read, recordings},
        wav,
    },
    error::DataError,
    hash::sha256_bytes,
};
use firebrick_train::sampler::mix;

use crate::{
    classification::classifier::SoundClassifier,
    keyword::{Spotter, Trigger},
    recordings::sha256_samples,
};

/// Of all recordings here, in Hz.
pub const RATE: u32 = 16_000;
/// The class of everything else; word spotters never report it.
pub const BACKGROUND: &str = "background";
/// Fewest examples: one is for choosing the weights, and the others must differ.
const FEWEST: usize = 5;
/// Background windows for each share of a hundred windows: the rest is for false alarms.
const TRAIN: u64 = 70;
const VALID: u64 = 10;
/// Longest background that is read, in seconds.
const LONGEST: f64 = 4.0 * 3600.0;
/// Of a hundred windows that are trained on, so many are the word: copies, which training changes each time.
const WORD: usize = 35;
/// Steps of a training, and recordings of each.
const STEPS: usize = 600;
const BATCH: usize = 48;

/// What is to be laid out.
#[derive(Debug, Default)]
pub struct Laid {
    /// Seconds that the model will see at once.
    pub seconds: f64,
    pub examples: usize,
    /// Hours of background to train on.
    pub hours: f64,
    /// Recordings to train on: windows of background, and copies of the word.
    pub rows: usize,
    /// Recordings, or parts of them, that no training sees.
    pub apart: Vec<Vec<f32>>,
    /// Of all samples: the same recordings make the same layout.
    pub sha256: String,
    train: Side,
    valid: Side,
}

/// Recordings for one side of a training.
#[derive(Debug, Default)]
struct Side {
    words: Vec<Vec<f32>>,
    /// Parts of some seconds.
    background: Vec<Vec<f32>>,
}

/// Reads examples and background, and parts them.
pub fn part(examples: &Path, background: &Path, seed: u64) -> anyhow::Result<Laid> {
    let mut words = read_all(examples, 60.0)?;
    ensure!(
        words.len() >= FEWEST,
        "{}: {} recordings of the word, and {FEWEST} are the fewest: record some more",
        examples.display(),
        words.len()
    );
    let longest = words.iter().map(Vec::len).max().unwrap_or(0);
    let seconds = (longest as f64 / f64::from(RATE)).clamp(0.8, 2.0);
    let window = window(seconds);

    // Parts of ten seconds go to one side each: neighbours are alike.
    let part = 10 * RATE as usize;
    let (mut train, mut valid, mut apart) = (vec![], vec![], vec![]);
    let mut number = 0;
    for recording in read_all(background, LONGEST)? {
        for samples in recording.chunks(part).filter(|samples| samples.len() >= window) {
            match mix(seed, number) % 100 {
                place if place < TRAIN => train.push(samples.to_vec()),
                place if place < TRAIN + VALID => valid.push(samples.to_vec()),
                _ => apart.push(samples.to_vec()),
            }
            number += 1;
        }
    }
    ensure!(
        !train.is_empty() && !valid.is_empty() && !apart.is_empty(),
        DataError::TooLittle(format!(
            "{}: too little: a minute of recordings is the least",
            background.display()
        ))
    );
    let all = [&words, &train, &valid, &apart].into_iter().flatten();
    let sha256 =
        sha256_bytes(all.map(|samples| sha256_samples(samples)).collect::<String>().as_bytes());
    let examples = words.len();
    let for_train = words.split_off((examples / 5).max(1));
    let windows: usize = train.iter().map(|samples| samples.len() / window).sum();
    let copies = (windows * WORD / (100 - WORD)).max(for_train.len());
    Ok(Laid {
        seconds,
        examples,
        hours: windows as f64 * seconds / 3600.0,
        rows: windows + copies,
        apart,
        sha256,
        train: Side { words: for_train, background: train },
        valid: Side { words, background: valid },
    })
}

/// Samples that the model will see at once.
fn window(seconds: f64) -> usize {
    (seconds * f64::from(RATE)) as usize
}

impl Laid {
    /// Writes `folder/train/NAME`, `folder/train/background`, and the same for `valid`.
    pub fn write(&self, name: &str, folder: &Path) -> anyhow::Result<()> {
        for (kind, side) in [("train", &self.train), ("valid", &self.valid)] {
            let write = |class: &str, number: usize, samples: &[f32]| {
                let path = folder.join(kind).join(class);
                std::fs::create_dir_all(&path)
                    .with_context(|| format!("creating {}", path.display()))?;
                let path = path.join(format!("{number:06}.wav"));
                write_atomically(&path, &wav::encode(samples, RATE))
                    .with_context(|| format!("writing {}", path.display()))
            };
            let parts = side.background.iter();
            let windows = parts.flat_map(|samples| samples.chunks_exact(window(self.seconds)));
            let mut count = 0;
            for samples in windows {
                write(BACKGROUND, count, samples)?;
                count += 1;
            }
            let words = if kind == "train" { self.rows - count } else { side.words.len() };
            for number in 0..words {
                write(name, number, &side.words[number % side.words.len()])?;
            }
        }
        Ok(())
    }
}

fn read_all(folder: &Path, longest: f64) -> anyhow::Result<Vec<Vec<f32>>> {
    let limits = Limits { seconds: longest };
    let (mut all, mut total) = (vec![], 0);
    for path in recordings(folder)? {
        let samples = read(&path, RATE, &limits)?;
        total += samples.len();
        let most = (LONGEST * f64::from(RATE)) as usize;
        ensure!(total <= most, "{}: more than {} hours", folder.display(), LONGEST / 3600.0);
        all.push(samples);
    }
    Ok(all)
}

/// The recipe for what [`Laid::write`] writes: the shipped `commands` goes on learning, since few recordings make no ear.
pub fn recipe(name: &str, laid: &Laid, seed: u64) -> String {
    let seconds = laid.seconds;
    // As many steps whatever there is: few recordings are seen more often.
    let epochs = STEPS as f64 * BATCH as f64 / laid.rows.max(1) as f64;
    format!(
        "# {name}: a wake word, laid out by `firebrick speech wake-word`\n# from recordings of sha256 {}.\n\n\
         version = 1\ntask = \"audio-classification\"\nname = \"{name}\"\nseed = {seed}\n\n\
         [data]\ntrain = \"train\"\nvalid = \"valid\"\nseconds = {seconds:.2}\n\n\
         [features]\nsample_rate = 16000\nn_fft = 512\nwin_length = 480\nhop_length = 160\nn_mels = 40\n\
         f_min = 40.0\nnormalize = \"bands\"\n\n\
         [augment]\nspeed = 0.15\ntempo = 0.2\ntract = 0.2\nshift = 1.0\ngain = 20.0\nnoise = 0.5\n\
         noise_range = [5.0, 40.0]\necho = 0.3\ntime_masks = 2\ntime_width = 12\nband_masks = 2\n\
         band_width = 6\n\n\
         [model]\npretrained = \"commands\"\n\n\
         [train]\nepochs = {epochs:.1}\nbatch_size = {BATCH}\nlearning_rate = 1e-3\nwarmup_steps = 40\n\
         weight_decay = 0.02\nlabel_smoothing = 0.05\neval_every = 100\n\n\
         [eval]\nmetric = \"loss\"\nbatch_size = 128\n",
        laid.sha256
    )
}

/// How often a word is heard in recordings without it.
pub fn alarms(
    classifier: &SoundClassifier,
    trigger: Trigger,
    recordings: &[Vec<f32>],
) -> (usize, f64) {
    let mut count = 0;
    for samples in recordings {
        let mut spotter = Spotter::new(classifier, trigger);
        count += spotter.push(samples).len();
    }
    let samples: usize = recordings.iter().map(Vec::len).sum();
    (count, samples as f64 / f64::from(RATE) / 3600.0)
}

#[cfg(test)]
mod tests {
    use firebrick_train::recipe::parse;

    use super::*;
    use crate::classification::recipe::Recipe;

    #[test]
    fn the_recipe_can_be_read() {
        let laid = Laid { seconds: 1.2, rows: 1000, ..Laid::default() };
        let recipe: Recipe = parse(recipe("hey", &laid, 3).as_bytes(), &[]).unwrap();
        assert_eq!((recipe.data.seconds, recipe.train.epochs), (1.2, 28.8));
        assert_eq!(recipe.model.pretrained.as_deref(), Some("commands"));
    }

    fn tone(hertz: f32, seconds: f32, seed: usize) -> Vec<f32> {
        let turn = |i: usize| (i + seed) as f32 * hertz * std::f32::consts::TAU / RATE as f32;
        (0..(seconds * RATE as f32) as usize).map(|i| turn(i).sin() * 0.3).collect()
    }

    #[test]
    fn what_is_kept_apart_is_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["word", "other"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        for i in 0..5 {
            let path = at("word").join(format!("{i}.wav"));
            std::fs::write(path, wav::encode(&tone(500.0, 1.0, i), RATE)).unwrap();
        }
        // Each ten seconds have a pitch of their own.
        let long: Vec<f32> = (0..40).flat_map(|i| tone(200.0 + 20.0 * i as f32, 10.0, 0)).collect();
        std::fs::write(at("other").join("long.wav"), wav::encode(&long, RATE)).unwrap();
        let laid = part(&at("word"), &at("other"), 3).unwrap();
        laid.write("hey", &at("out")).unwrap();
        assert_eq!((laid.seconds, laid.examples), (1.0, 5));
        assert!(laid.apart.len() > 2 && laid.apart.len() < 20, "{}", laid.apart.len());
        let trained = recordings(&at("out")).unwrap();
        let mut seen = 0;
        let limits = Limits::default();
        for path in trained.iter().filter(|path| path.to_string_lossy().contains(BACKGROUND)) {
            let samples = read(path, RATE, &limits).unwrap();
            // Sixteen bits that were written twice differ by a rounding.
            let same =
                |a: &[f32]| a.iter().zip(&samples).take(1000).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(!laid.apart.iter().any(|apart| same(apart)), "{}", path.display());
            seen += 1;
        }
        assert_eq!(seen, 10 * (40 - laid.apart.len()));
        assert_eq!(recordings(&at("out").join("train")).unwrap().len(), laid.rows);
        assert_eq!(part(&at("word"), &at("other"), 3).unwrap().sha256, laid.sha256);
        assert!(part(&at("other"), &at("other"), 3).is_err());
    }
}
