//! Anomaly detection as a training task.
//!
//! Axis letters: `B` batch, `T` frames, `H` rows, `W` columns; a place is four rows and columns.

use burn::{
    module::Module,
    prelude::*,
    tensor::{DType, TensorData, activation},
};
use firebrick_core::arch::motion::Motion;
use firebrick_train::{
    sampler::{Coins, mix},
    task::{Examples, Task},
};
use rayon::prelude::*;

use super::{
    corpus::Clip,
    recipe::AnomalyRecipe,
    synthetic::{Stack, made, places},
};

/// Weight of a place where nothing moves, beside one where something does: there are many, and they are easy.
const STILL: f32 = 0.1;

/// A network in training.
#[derive(Module, Debug)]
pub struct Watch {
    pub model: Motion,
}

#[derive(Debug, Clone)]
pub struct StackBatch {
    /// `[B, T, H, W]`
    frames: Tensor<4>,
    /// `[B, H / 4, W / 4]`: 1 where there is an anomaly, else 0
    wrong: Tensor<3>,
    /// `[B, H / 4, W / 4]`
    weights: Tensor<3>,
}

impl Task for Watch {
    type Batch = StackBatch;
    const HEAD: &'static [&'static str] = &["model.places."];

    fn loss(&self, batch: StackBatch) -> Tensor<1> {
        let logits = self.model.forward(batch.frames);
        // Cross-entropy of the logistic function: ln(1 + e^x) - x y.
        let losses = activation::softplus(logits.clone(), 1.0) - logits * batch.wrong;
        (losses * batch.weights.clone()).sum() / batch.weights.sum()
    }
}

/// Frames as a network takes them: their mean and deviation over the training frames, in levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    pub mean: f32,
    pub std: f32,
}

impl Levels {
    /// `[B, T, H, W]`
    pub fn batch(&self, stacks: &[Stack], device: &Device) -> Tensor<4> {
        let [h, w] = stacks[0].size;
        let shape = [stacks.len(), stacks[0].frames.len(), h, w];
        let levels = stacks.iter().flat_map(|stack| &stack.frames).flatten();
        let numbers: Vec<f32> = levels.map(|level| (level - self.mean) / self.std).collect();
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }
}

/// Frames of normal clips, with anomalies made in half of them.
pub struct ClipExamples<'a> {
    pub clips: &'a [Clip],
    /// Clip and frame of each.
    pub places: Vec<(usize, usize)>,
    pub frames: usize,
    pub recipe: &'a AnomalyRecipe,
    pub levels: Levels,
}

impl<'a> ClipExamples<'a> {
    /// Of every frame.
    pub fn new(
        clips: &'a [Clip],
        frames: usize,
        recipe: &'a AnomalyRecipe,
        levels: Levels,
    ) -> Self {
        let of_clip = |(i, clip): (usize, &Clip)| (0..clip.frames.len()).map(move |t| (i, t));
        let places = clips.iter().enumerate().flat_map(of_clip).collect();
        Self { clips, places, frames, recipe, levels }
    }

    /// The frames as they are shown at the step whose seed this is.
    pub fn stacks(&self, indices: &[usize], seed: u64) -> Vec<Stack> {
        let stack = |(row, index): (usize, &usize)| {
            let mut coins = Coins::new(mix(seed, row as u64));
            let wrong = coins.toss(0.6);
            let place = self.places[*index];
            let mut stack = made(self.clips, place, self.frames, self.recipe, wrong, &mut coins);
            let (bright, strong) =
                (coins.within(-20.0, 20.0) as f32, coins.within(0.8, 1.2) as f32);
            let mirror = coins.toss(0.5);
            let mean = self.levels.mean;
            let [_, w] = stack.size;
            for frame in &mut stack.frames {
                frame
                    .iter_mut()
                    .for_each(|level| *level = (*level - mean) * strong + mean + bright);
                if mirror {
                    frame.chunks_exact_mut(w).for_each(<[f32]>::reverse);
                }
            }
            if mirror {
                let [_, columns] = places(stack.size);
                stack.wrong.chunks_exact_mut(columns).for_each(<[bool]>::reverse);
            }
            stack
        };
        indices.par_iter().enumerate().map(stack).collect()
    }
}

impl Examples for ClipExamples<'_> {
    type Batch = StackBatch;

    fn len(&self) -> usize {
        self.places.len()
    }

    fn size(&self, _: usize) -> usize {
        1
    }

    fn batch(&self, indices: &[usize], seed: u64, device: &Device) -> StackBatch {
        let stacks = self.stacks(indices, seed);
        let [rows, columns] = places(stacks[0].size);
        let shape = [stacks.len(), rows, columns];
        let wrong = stacks.iter().flat_map(|stack| &stack.wrong);
        let wrong: Vec<f32> = wrong.map(|wrong| f32::from(u8::from(*wrong))).collect();
        let weight = |motion: f32| match f64::from(motion) >= self.recipe.moves {
            true => 1.0,
            false => STILL,
        };
        let weights: Vec<f32> =
            stacks.iter().flat_map(|stack| stack.motion().into_iter().map(weight)).collect();
        StackBatch {
            frames: self.levels.batch(&stacks, device),
            wrong: Tensor::from_data(TensorData::new(wrong, shape), device),
            weights: Tensor::from_data(TensorData::new(weights, shape), device),
        }
    }
}

/// For every place of a frame, how likely what moves there is an anomaly: within 0 and 1, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
}

impl Map {
    /// The largest mean of three by three places: one place alone is noise.
    pub fn score(&self) -> f64 {
        let mut most = 0.0f32;
        for y in 0..self.rows {
            for x in 0..self.columns {
                let (mut sum, mut count) = (0.0, 0.0);
                for row in y.saturating_sub(1)..(y + 2).min(self.rows) {
                    for column in x.saturating_sub(1)..(x + 2).min(self.columns) {
                        sum += self.values[row * self.columns + column];
                        count += 1.0;
                    }
                }
                most = most.max(sum / count);
            }
        }
        f64::from(most)
    }
}

/// Of frames in the midst of stacks, in their order. `model` lies on a device without autodiff.
pub fn maps(model: &Motion, levels: Levels, stacks: &[Stack], batch_size: usize) -> Vec<Map> {
    let device = model.devices().into_iter().next().expect("a model has parameters");
    let mut all = Vec::with_capacity(stacks.len());
    for part in stacks.chunks(batch_size.max(1)) {
        let p = activation::sigmoid(model.forward(levels.batch(part, &device)));
        let [_, rows, columns] = p.dims();
        let numbers = p.into_data().convert_dtype(DType::F32);
        let numbers = numbers.try_into_vec::<f32>().expect("just converted to f32");
        let map = |values: &[f32]| Map { rows, columns, values: values.to_vec() };
        all.extend(numbers.chunks_exact(rows * columns).map(map));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_largest_mean_of_neighbours() {
        let mut map = Map { rows: 4, columns: 5, values: vec![0.0; 20] };
        assert_eq!(map.score(), 0.0);
        map.values[2 * 5 + 2] = 0.9;
        // At the edge, 2 x 3 places are neighbours of one in the second row from below.
        assert!((map.score() - 0.15).abs() < 1e-6, "{}", map.score());
    }
}
