//! What can be left out.

use std::path::Path;

use anyhow::{bail, ensure};
use burn::tensor::{Device, Gradients};
use firebrick_core::{
    arch::image::{Head, ImageClassifier, ImageConfig, ImageModel},
    checkpoint::{
        Source,
        tensors::{SaveType, Weights},
    },
};
use firebrick_train::task::{Examples, Task};

use crate::folder;

/// Channels come and go by so many: a bottleneck is a quarter as wide inside.
const TOGETHER: usize = 4;

/// The most important neurons of each layer, in order, when the share `less` of them goes: equally many of every layer.
///
/// ```
/// use firebrick_compress::prune::most_important;
///
/// let importance = [vec![0.1, 3.0, 0.2, 2.0], vec![5.0, 4.0, 1.0, 2.0]];
/// assert_eq!(most_important(&importance, 0.5), [[1, 3], [0, 1]]);
/// ```
pub fn most_important(importance: &[Vec<f32>], less: f64) -> Vec<Vec<usize>> {
    let count = |all: usize| ((1.0 - less) * all as f64).round() as usize;
    importance.iter().map(|layer| strongest(layer, count(layer.len()))).collect()
}

/// The `count` largest, in order.
fn strongest(sizes: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|a, b| sizes[*b].total_cmp(&sizes[*a]));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// How much the loss on up to `rows` examples, spread evenly, would feel that something is gone: what `effects` makes of the
/// gradients of each batch, added up. Without an example it is empty.
///
/// Molchanov et al. 2019, <https://arxiv.org/abs/1906.10771>: the square of the first-order change, batch by batch.
pub fn importance<T: Task>(
    task: &T,
    examples: &impl Examples<Batch = T::Batch>,
    [rows, batch]: [usize; 2],
    device: &Device,
    effects: impl Fn(&Gradients) -> Vec<Vec<f32>>,
) -> Vec<Vec<f32>> {
    let (all, rows) = (examples.len(), rows.min(examples.len()));
    let order: Vec<usize> = (0..rows).map(|row| row * all / rows).collect();
    let mut total: Vec<Vec<f32>> = vec![];
    for (seed, indices) in order.chunks(batch).enumerate() {
        let gradients = task.loss(examples.batch(indices, seed as u64, device)).backward();
        let effects = effects(&gradients);
        if total.is_empty() {
            total = effects;
            continue;
        }
        for (total, effect) in total.iter_mut().flatten().zip(effects.iter().flatten()) {
            *total += effect;
        }
    }
    total
}

/// Writes a ResNet without the share `less` of the channels of every stage: those of least `importance`, by
/// [`ResNet::channel_effects`]; if that is empty, those that its norms write most weakly.
///
/// [`ResNet::channel_effects`]: firebrick_core::arch::resnet::ResNet::channel_effects
pub fn without_channels(
    source: &Source,
    less: f64,
    importance: Vec<Vec<f32>>,
    target: &Path,
    device: &Device,
) -> anyhow::Result<()> {
    let classifier = ImageClassifier::load(source, Head::Own, device)?;
    let (ImageConfig::ResNet(config), ImageModel::ResNet(model)) =
        (&classifier.config, classifier.model)
    else {
        bail!("channels can be taken out of a ResNet only");
    };
    let importance = if importance.is_empty() { model.channel_sizes() } else { importance };
    let left = |all: usize| {
        let wanted = (1.0 - less) * all as f64 / TOGETHER as f64;
        (wanted.round() as usize).max(1) * TOGETHER
    };
    let streams = model.streams();
    let of_streams = &importance[..=streams.last().copied().unwrap_or(0)];
    let counts: Vec<usize> = of_streams.iter().map(|channels| left(channels.len())).collect();
    let smaller = config.with_channels(&streams, &counts);
    ensure!(
        config.shortcuts() == smaller.shortcuts(),
        "with {less} of the channels gone two stages would be equally wide, and lose the convolution between them: choose \
         another share"
    );
    let counts = counts.into_iter().chain(smaller.inner_widths());
    let kept: Vec<Vec<usize>> =
        importance.iter().zip(counts).map(|(channels, count)| strongest(channels, count)).collect();
    let model = model.with_channels(&kept);
    let mut json = source.config()?;
    json["embedding_size"] = smaller.embedding_size.into();
    json["hidden_sizes"] = smaller.hidden_sizes.clone().into();
    let pruned =
        ImageClassifier { config: ImageConfig::ResNet(smaller), model: ImageModel::ResNet(model) };
    folder::write(source, target, &json, |file| pruned.save(file, folder::float_type(&json)))
}

/// Writes `source` with the share of its weights that is nearest to zero set to zero: of all layers together, tables of words not
/// among them. The file is as large as before, and the model as fast.
pub fn with_zeros(
    source: &Source,
    share: f64,
    target: &Path,
    device: &Device,
) -> anyhow::Result<()> {
    let floats = folder::float_type(&source.config()?);
    // Where one trains weights are floats, whatever the checkpoint holds.
    let device = device.clone().autodiff();
    folder::stored_as(SaveType::Sparse(share, Box::new(floats)), source, target, &device)
}

/// Which share of the numbers of a folder's matrices and convolutions, tables among them, is zero.
pub fn zeros(folder: &Path) -> anyhow::Result<f64> {
    let weights = Weights::open(folder)?;
    let (mut zeros, mut all) = (0, 0);
    for name in weights.names() {
        if weights.shape(name).is_some_and(|shape| shape.len() > 1) {
            let numbers = weights.floats(name)?;
            zeros += numbers.iter().filter(|x| **x == 0.0).count();
            all += numbers.len();
        }
    }
    Ok(zeros as f64 / (all as f64).max(1.0))
}
