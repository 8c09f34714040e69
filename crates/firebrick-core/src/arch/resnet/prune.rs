//! Channels of a ResNet: what each is worth, and a network without some of them.
//!
//! What a residual adds to has the same channels as what is added, so that the stem and all layers up to the next
//! shortcut keep the same ones: a stream. The sizes in `config.json` then say all, and others open the checkpoint.

use burn::tensor::Gradients;

use super::{LayerType, REDUCTION, ResNet, ResNetConfig, Stage};
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

    /// Channels of each convolution inside a layer, in order.
    pub fn inner_widths(&self) -> Vec<usize> {
        let of_stage = |(&size, &depth): (&usize, &usize)| match self.layer_type {
            LayerType::Basic => vec![size; depth],
            LayerType::Bottleneck => vec![size / REDUCTION; 2 * depth],
        };
        self.hidden_sizes.iter().zip(&self.depths).flat_map(of_stage).collect()
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

    /// By channel of each stream, and after them of each convolution inside a layer, how strongly the norms that write it
    /// write: the sum of their scales, without sign (Liu et al. 2017, <https://arxiv.org/abs/1708.06519>).
    pub fn channel_sizes(&self) -> Vec<Vec<f32>> {
        self.channels(ConvNorm::channel_sizes)
    }

    /// By the channels of [`Self::channel_sizes`], the square of how much the loss would change without one, to first order:
    /// in all that write to a stream at once (Molchanov et al. 2019, <https://arxiv.org/abs/1906.10771>).
    pub fn channel_effects(&self, gradients: &Gradients) -> Vec<Vec<f32>> {
        let mut effects = self.channels(|writer| writer.channel_effects(gradients));
        effects.iter_mut().flatten().for_each(|effect| *effect *= *effect);
        effects
    }

    /// What is said of the channels of each writer: added up by stream, and after that of what writes inside a layer.
    fn channels(&self, of: impl Fn(&ConvNorm) -> Vec<f32>) -> Vec<Vec<f32>> {
        let mut streams = vec![of(&self.stem)];
        let mut inner = vec![];
        for (stage, stream) in self.stages.iter().zip(self.streams()) {
            for layer in &stage.layers {
                let (last, before) = layer.convolutions.split_last().expect("two or three");
                inner.extend(before.iter().map(&of));
                for writer in [last].into_iter().chain(&layer.shortcut) {
                    let more = of(writer);
                    match streams.get_mut(stream) {
                        Some(known) => {
                            known.iter_mut().zip(more).for_each(|(known, more)| *known += more)
                        }
                        None => streams.push(more),
                    }
                }
            }
        }
        [streams, inner].concat()
    }

    /// With these of the channels of [`Self::channel_sizes`] alone, in order.
    pub fn with_channels(self, kept: &[Vec<usize>]) -> Self {
        let streams = self.streams();
        let (kept, inner) = kept.split_at(1 + streams.last().copied().unwrap_or(0));
        let mut inner = inner.iter();
        let stem = self.stem.with_channels(None, &kept[0]);
        let mut before = &kept[0];
        let mut stages = vec![];
        for (stage, stream) in self.stages.into_iter().zip(streams) {
            let own = &kept[stream];
            let mut layers = vec![];
            for mut layer in stage.layers {
                let count = layer.convolutions.len();
                let mut inputs = before;
                let mut convolutions = vec![];
                for (index, convolution) in layer.convolutions.drain(..).enumerate() {
                    let outputs = match index + 1 == count {
                        true => own,
                        false => inner.next().expect("one for each convolution inside a layer"),
                    };
                    convolutions.push(convolution.with_channels(Some(inputs), outputs));
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
        module::{Module, Param},
        prelude::*,
        tensor::{Distribution, Tolerance},
    };

    use super::*;
    use crate::arch::resnet::LayerType;

    fn all(count: usize) -> Vec<usize> {
        (0..count).collect()
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
            let found = model.with_channels(&kept).forward(x()).into_data();
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
        let widths = [vec![8, 16], config.inner_widths()].concat();
        assert_eq!(model.channel_sizes().iter().map(Vec::len).collect::<Vec<_>>(), widths);
        let smaller = config.with_channels(&model.streams(), &[4, 6]);
        let mut kept = vec![vec![0, 3, 5, 7], vec![1, 2, 3, 5, 8, 13]];
        kept.extend(smaller.inner_widths().into_iter().map(all));
        assert_eq!((smaller.embedding_size, smaller.hidden_sizes.as_slice()), (4, &[4, 6][..]));
        let count = |model: &ResNet| model.num_params();
        let model = model.with_channels(&kept);
        assert_eq!(count(&model), count(&smaller.init(3, &device)));
        let x = Tensor::<4>::random([2, 3, 40, 40], Distribution::Default, &device);
        assert_eq!(model.forward(x).dims(), [2, 3]);
    }

    /// Channels that nothing reads are worth nothing, however strongly they are written.
    #[test]
    fn what_is_worth_nothing_can_go() {
        let device = Device::flex().autodiff();
        for layer_type in [LayerType::Basic, LayerType::Bottleneck] {
            device.seed(3);
            let depths = vec![1, 1];
            let config = ResNetConfig { layer_type, depths, ..ResNetConfig::tiny() };
            let mut model = config.init(3, &device).materialize();
            // All but two channels of the last stream.
            let read: Vec<usize> = all(16).into_iter().filter(|c| ![2, 9].contains(c)).collect();
            let mut mask = [0f32; 16];
            read.iter().for_each(|channel| mask[*channel] = 1.0);
            let mask = Tensor::<1>::from_data(&mask[..], &device).unsqueeze_dim::<2>(1);
            let weight = model.classifier.weight.val() * mask;
            model.classifier.weight = Param::from_tensor(weight.detach()).set_require_grad(true);
            let x = || {
                device.seed(4);
                Tensor::<4>::random([6, 3, 32, 32], Distribution::Default, &device)
            };
            let gradients = model.forward(x()).square().sum().backward();
            let effects = model.channel_effects(&gradients);
            let stream = *model.streams().last().unwrap();
            let worth = |(channel, effect): (usize, &f32)| (*effect > 0.0).then_some(channel);
            let found: Vec<usize> = effects[stream].iter().enumerate().filter_map(worth).collect();
            assert_eq!(found, read, "{layer_type:?}");
            // Without them the network says the same; the rest inside its layers stays.
            let mut kept: Vec<Vec<usize>> = effects.iter().map(|s| all(s.len())).collect();
            kept[stream] = read;
            let expected = model.valid().forward(x().inner()).into_data();
            let found = model.valid().with_channels(&kept).forward(x().inner()).into_data();
            found.assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-4, 1e-5));
        }
    }
}
