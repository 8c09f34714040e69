//! Video classification as a training task.
//!
//! Axis letters: `B` batch, `T` frames, `I` channels, `H` rows, `W` columns, `L` labels.

use burn::{
    module::Module,
    prelude::*,
    tensor::{DType, TensorData},
};
use firebrick_core::{
    arch::video::VideoModel,
    layers::loss::{log_softmax, soft_cross_entropy},
};
use firebrick_data::image::{Picture, augment::Augment};
use firebrick_train::{
    sampler::{Coins, mix},
    task::{Examples, Task},
};
use rayon::prelude::*;

use super::corpus::Clip;
use crate::classification::processor::Processor;

/// A network in training.
#[derive(Module, Debug)]
pub struct Act {
    pub model: VideoModel,
}

#[derive(Debug, Clone)]
pub struct ClipBatch {
    /// `[B, T, I, H, W]`
    frames: Tensor<5>,
    /// `[B, L]`: the target's share of each label, times its weight
    targets: Tensor<2>,
}

impl Task for Act {
    type Batch = ClipBatch;
    const HEAD: &'static [&'static str] =
        &["model.ClipRnn.classifier.", "model.VideoMae.classifier."];

    fn loss(&self, batch: ClipBatch) -> Tensor<1> {
        soft_cross_entropy(log_softmax(self.model.forward(batch.frames)), batch.targets)
    }
}

/// Clips as the training loop wants them.
pub struct ClipExamples<'a> {
    pub clips: &'a [Clip],
    /// Class index of each.
    pub classes: Vec<usize>,
    pub processor: &'a Processor,
    pub augment: Augment,
    /// Most frames that a clip begins earlier or later.
    pub shift: usize,
    /// By class, what a clip is when it is played backwards; half of them are, where that is something.
    pub backwards: Vec<Option<usize>>,
    /// Share of a target that all labels get alike.
    pub smoothing: f32,
    /// Of each label.
    pub weights: Vec<f32>,
}

/// Class index of each clip, whose labels are all among `labels`.
pub fn classes(clips: &[Clip], labels: &[String]) -> Option<Vec<usize>> {
    clips.iter().map(|clip| labels.iter().position(|label| *label == clip.label)).collect()
}

/// How much more rare labels count: the mean count by theirs, to the power of `balance`; their mean over all clips is 1.
pub fn weights(classes: &[usize], labels: usize, balance: f64) -> Vec<f32> {
    let mut counts = vec![0usize; labels];
    classes.iter().for_each(|class| counts[*class] += 1);
    let mean = classes.len() as f64 / labels as f64;
    let raw = counts.iter().map(|count| (mean / (*count).max(1) as f64).powf(balance));
    let raw: Vec<f64> = raw.collect();
    let over_all = classes.iter().map(|class| raw[*class]).sum::<f64>() / classes.len() as f64;
    raw.into_iter().map(|weight| (weight / over_all) as f32).collect()
}

impl ClipExamples<'_> {
    /// A clip's frames as they are shown at the step whose seed this is, all changed alike, and what class they then have.
    pub fn augmented(&self, index: usize, seed: u64) -> (Vec<Picture>, usize) {
        let frames = &self.clips[index].frames;
        let (last, shift) = (frames.len() - 1, self.shift);
        let later = Coins::new(seed ^ 0x51f7).below(2 * shift + 1);
        let frame = |t: usize| {
            let frame = &frames[(t + later).saturating_sub(shift).min(last)];
            self.augment.apply(frame, seed)
        };
        let mut shown: Vec<Picture> = (0..frames.len()).map(frame).collect();
        let class = self.classes[index];
        match self.backwards[class].filter(|_| Coins::new(seed ^ 0xbac4).toss(0.5)) {
            Some(other) => {
                shown.reverse();
                (shown, other)
            }
            None => (shown, class),
        }
    }
}

impl Examples for ClipExamples<'_> {
    type Batch = ClipBatch;

    fn len(&self) -> usize {
        self.clips.len()
    }

    fn size(&self, index: usize) -> usize {
        self.clips[index].frames.len()
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> ClipBatch {
        let changed = |(row, index): (usize, &usize)| self.augmented(*index, mix(seed, row as u64));
        let (clips, classes): (Vec<Vec<Picture>>, Vec<usize>) =
            indices.par_iter().enumerate().map(changed).unzip();
        let labels = self.weights.len();
        let mut targets = vec![self.smoothing / labels as f32; indices.len() * labels];
        for (target, class) in targets.chunks_exact_mut(labels).zip(classes) {
            target[class] += 1.0 - self.smoothing;
            target.iter_mut().for_each(|share| *share *= self.weights[class]);
        }
        ClipBatch {
            frames: batch(self.processor, &clips, device),
            targets: Tensor::from_data(TensorData::new(targets, [indices.len(), labels]), device),
        }
    }
}

/// Clips of as many frames each, at the model's size -> `[B, T, I, H, W]`
pub fn batch<C: AsRef<[Picture]>>(
    processor: &Processor,
    clips: &[C],
    device: &Device,
) -> Tensor<5> {
    let (b, t) = (clips.len(), clips[0].as_ref().len());
    let frames: Vec<Picture> =
        clips.iter().flat_map(|clip| clip.as_ref().iter().cloned()).collect();
    let frames = processor.batch(&frames, device); // [B T, I, H, W]
    let [_, i, h, w] = frames.dims();
    frames.reshape([b, t, i, h, w])
}

/// Logits of clips of the model's size, in their order. `model` lies on a device without autodiff.
pub fn logits<C: AsRef<[Picture]>>(
    model: &VideoModel,
    processor: &Processor,
    clips: &[C],
    batch_size: usize,
) -> Vec<Vec<f32>> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let mut all = Vec::with_capacity(clips.len());
    for part in clips.chunks(batch_size.max(1)) {
        let logits = model.forward(batch(processor, part, &device)); // [B, L]
        let [_, labels] = logits.dims();
        let logits = logits.into_data().convert_dtype(DType::F32);
        let logits = logits.try_into_vec::<f32>().expect("just converted to f32");
        all.extend(logits.chunks_exact(labels).map(<[f32]>::to_vec));
    }
    all
}

impl AsRef<[Picture]> for Clip {
    fn as_ref(&self) -> &[Picture] {
        &self.frames
    }
}

#[cfg(test)]
mod tests {
    use firebrick_data::image::{Colour, resize::Filter};

    use super::*;

    /// By hand: 3, 1 and 2 of 6 clips; with balance 1 the raw weights are 2/3, 2 and 1, whose mean over the clips is 1.
    #[test]
    fn rare_labels_count_more() {
        let classes = [0, 0, 0, 1, 2, 2];
        for (found, expected) in weights(&classes, 3, 1.0).iter().zip([2.0 / 3.0, 2.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6);
        }
        assert_eq!(weights(&classes, 3, 0.0), [1.0; 3]);
    }

    #[test]
    fn frames_of_a_clip_are_changed_alike() {
        let frames = vec![Picture::filled(6, 4, Colour::Grey, 100); 4];
        let clip = |id: &str| Clip {
            id: id.into(),
            label: "a".into(),
            recording: "r".into(),
            frames: frames.clone(),
        };
        let clips = [clip("1"), clip("2")];
        let processor = Processor {
            size: [4, 6],
            shortest_edge: None,
            colour: Colour::Grey,
            filter: Filter::Bilinear,
            mean: vec![0.5],
            std: vec![0.5],
        };
        let examples = ClipExamples {
            clips: &clips,
            classes: vec![0, 0],
            processor: &processor,
            augment: Augment { brightness: 0.5, noise: 20.0, ..Augment::default() },
            shift: 1,
            backwards: vec![None, None],
            smoothing: 0.2,
            weights: vec![1.0, 1.0],
        };
        let (changed, class) = examples.augmented(0, 5);
        assert_eq!(class, 0);
        assert!(changed.iter().all(|frame| *frame == changed[0]) && changed[0] != frames[0]);
        let batch = examples.batch(&[0, 1], 3, &Device::flex());
        assert_eq!(batch.frames.dims(), [2, 4, 1, 4, 6]);
        let targets: Vec<f32> = batch.targets.into_data().try_into_vec().unwrap();
        for (found, expected) in targets.iter().zip([0.9, 0.1, 0.9, 0.1]) {
            assert!((found - expected).abs() < 1e-6, "{targets:?}");
        }
    }
    /// Half of the clips of a label that has one for the other direction, and no other clip.
    #[test]
    fn a_clip_played_backwards_shows_something_else() {
        let frames: Vec<Picture> =
            [10, 20, 30].map(|level| Picture::filled(6, 4, Colour::Grey, level)).into();
        let clip = |label: &str| Clip {
            id: label.into(),
            label: label.into(),
            recording: "r".into(),
            frames: frames.clone(),
        };
        let clips = [clip("down"), clip("fall")];
        let processor = Processor {
            size: [4, 6],
            shortest_edge: None,
            colour: Colour::Grey,
            filter: Filter::Bilinear,
            mean: vec![0.5],
            std: vec![0.5],
        };
        let examples = ClipExamples {
            clips: &clips,
            classes: vec![0, 1],
            processor: &processor,
            augment: Augment::default(),
            shift: 0,
            backwards: vec![Some(2), None, None],
            smoothing: 0.0,
            weights: vec![1.0; 3],
        };
        let mut turned = 0;
        for seed in 0..200 {
            let (shown, class) = examples.augmented(0, seed);
            let is_turned = shown[0] == frames[2] && shown[2] == frames[0];
            assert!(is_turned || shown == frames);
            assert_eq!(class, if is_turned { 2 } else { 0 });
            turned += usize::from(is_turned);
            assert_eq!(examples.augmented(1, seed), (frames.clone(), 1));
        }
        assert!((80..120).contains(&turned), "{turned} of 200");
    }
}
