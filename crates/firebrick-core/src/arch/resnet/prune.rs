//! Channels of a ResNet: what each is worth, and a network without some of them.
//!
//! What a residual adds to has the same channels as what is added, so that the stem and all layers up to the next
//! shortcut keep the same ones: a stream. The sizes in `config.json` then say all, and others open the checkpoint.

use super::{REDUCTION, ResNet, ResNetConfig, Stage};
use crate::layers::conv::ConvNorm;

impl ResNetConfig {
    /// Whether the first layer of each stage has a convolution beside it: where the width or the size changes.
    pub fn shortcuts(&self) -> Vec<bool> {
        let before = std::iter::once(&self.embedding_size).chain(&self.hidden_sizes);
        let stages = before.zip(&self.hidden_sizes).enumerate();
        stages
            .map(|(stage, (before, own))| {
                before != own || stage > 0 || self.downsample_in_first_stage
            })
            .collect()
    }

    /// These sizes with so many channels in each stream of [`ResNet::streams`].
    pub fn with_channels(&self, streams: &[usize], counts: &[usize]) -> Self {
        Self {
            embedding_size: counts[0],
            hidden_sizes: streams.iter().map(|stream| counts[*stream]).collect(),
            ..self.clone()
        }
    }
}

impl ResNet {
    /// The stream of each stage; that of the stem is 0.
    pub fn streams(&self) -> Vec<usize> {
        let begins = |stage: &Stage| usize::from(stage.layers[0].shortcut.is_some());
        self.stages
            .iter()
            .scan(0, |stream, stage| {
                *stream += begins(stage);
                Some(*stream)
            })
            .collect()
    }

    /// By stream and channel, how strongly the norms that write it write: the sum of their scales, without sign (Liu et
    /// al. 2017, <https://arxiv.org/abs/1708.06519>).
    pub fn channel_sizes(&self) -> Vec<Vec<f32>> {
        let mut sizes = vec![self.stem.channel_sizes()];
        for (stage, stream) in self.stages.iter().zip(self.streams()) {
            for layer in &stage.layers {
                let writers = layer.convolutions.last().into_iter().chain(&layer.shortcut);
                for writer in writers {
                    let more = writer.channel_sizes();
                    match sizes.get_mut(stream) {
                        Some(known) => {
                            known.iter_mut().zip(more).for_each(|(known, more)| *known += more)
                        }
                        None => sizes.push(more),
                    }
                }
            }
        }
        sizes
    }

    /// With these channels of each stream alone, in order; `strongest` says which of the channels inside a layer stay,
    /// by their sizes and how many may.
    pub fn with_channels(
        self,
        kept: &[Vec<usize>],
        strongest: impl Fn(&[f32], usize) -> Vec<usize>,
    ) -> Self {
        let streams = self.streams();
        let stem = self.stem.with_channels(None, &kept[0]);
        let mut before = &kept[0];
        let mut stages = vec![];
        for (stage, stream) in self.stages.into_iter().zip(streams) {
            let own = &kept[stream];
            let mut layers = vec![];
            for mut layer in stage.layers {
                let count = layer.convolutions.len();
                let narrow = if count == 3 { own.len() / REDUCTION } else { own.len() };
                let mut inputs = before.clone();
                let mut convolutions = vec![];
                for (index, convolution) in layer.convolutions.drain(..).enumerate() {
                    let outputs = match index + 1 == count {
                        true => own.clone(),
                        false => strongest(&convolution.channel_sizes(), narrow),
                    };
                    convolutions.push(convolution.with_channels(Some(&inputs), &outputs));
                    inputs = outputs;
                }
                layer.convolutions = convolutions;
                layer.shortcut =
                    layer.shortcut.map(|s: ConvNorm| s.with_channels(Some(before), own));
                layers.push(layer);
                before = own;
            }
            stages.push(Stage { layers });
        }
        let classifier = self.classifier.with_inputs(before);
        Self { stem, stages, classifier, ..self }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        module::Module,
        prelude::*,
        tensor::{Distribution, Tolerance},
    };

    use super::*;
    use crate::arch::resnet::LayerType;

    fn all(count: usize) -> Vec<usize> {
        (0..count).collect()
    }

    /// The first so many, whatever their sizes.
    fn first(_: &[f32], count: usize) -> Vec<usize> {
        all(count)
    }

    #[test]
    fn nothing_changes_when_all_stay() {
        let device = Device::flex();
        for layer_type in [LayerType::Basic, LayerType::Bottleneck] {
            let config = ResNetConfig { layer_type, ..ResNetConfig::tiny() };
            let model = config.init(3, &device);
            let x = || Tensor::<4>::ones([1, 3, 32, 32], &device);
            let expected = model.forward(x()).into_data();
            let kept: Vec<Vec<usize>> =
                model.channel_sizes().iter().map(|s| all(s.len())).collect();
            let found = model.with_channels(&kept, first).forward(x()).into_data();
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
        }
    }

    /// The smaller network is that of the smaller sizes, and it sees pictures.
    #[test]
    fn what_is_left_is_of_the_sizes_that_it_says() {
        let device = Device::flex();
        let config = ResNetConfig {
            layer_type: LayerType::Basic,
            embedding_size: 8,
            hidden_sizes: vec![8, 16],
            ..ResNetConfig::tiny()
        };
        let model = config.init(3, &device);
        assert_eq!(model.streams(), [0, 1]);
        assert_eq!(model.channel_sizes().iter().map(Vec::len).collect::<Vec<_>>(), [8, 16]);
        let kept = [vec![0, 3, 5, 7], vec![1, 2, 3, 5, 8, 13]];
        let smaller = config.with_channels(&model.streams(), &[4, 6]);
        assert_eq!((smaller.embedding_size, smaller.hidden_sizes.as_slice()), (4, &[4, 6][..]));
        let count = |model: &ResNet| model.num_params();
        let model = model.with_channels(&kept, first);
        assert_eq!(count(&model), count(&smaller.init(3, &device)));
        let x = Tensor::<4>::random([2, 3, 40, 40], Distribution::Default, &device);
        assert_eq!(model.forward(x).dims(), [2, 3]);
    }
}
