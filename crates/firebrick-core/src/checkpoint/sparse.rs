//! A model without its smallest weights: unstructured magnitude pruning.
//!
//! What is small is decided over all linear layers and convolutions together (Han et al. 2015,
//! <https://arxiv.org/abs/1506.02626>). Tables of words stay: the rows of rare words are small, and are all there is of them. The
//! zeros are stored and multiplied like any number, so that neither files nor products become smaller by this alone.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    prelude::*,
};

use super::{
    rounded::{floats, rewritten},
    tensors::Place,
};

/// `model` with the share of its weights that is nearest to zero set to zero. The parameters keep their names and whether they are
/// trained.
///
/// # Panics
///
/// Panics when `share` is not in `0..=1`.
pub fn pruned<M: Module>(model: M, share: f64) -> M {
    assert!((0.0..=1.0).contains(&share), "a share of {share}");
    let mut sizes = Sizes::default();
    model.visit(&mut sizes);
    let gone = (share * sizes.all.len() as f64).round() as usize;
    let Some(last) = gone.checked_sub(1) else { return model };
    let (_, largest_gone, _) = sizes.all.select_nth_unstable_by(last, f32::total_cmp);
    let cut = Cut { at: Place::default(), largest_gone: *largest_gone };
    model.map(&mut { cut })
}

/// How large each weight is.
#[derive(Default)]
struct Sizes {
    at: Place,
    all: Vec<f32>,
}

impl ModuleVisitor for Sizes {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.at.enter(name, kind);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.at.multiplies::<D>() {
            self.all.extend(floats(param.val()).iter().map(|weight| weight.abs()));
        }
    }
}

struct Cut {
    at: Place,
    largest_gone: f32,
}

impl ModuleMapper for Cut {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.at.enter(name, kind);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.at.multiplies::<D>() {
            return param;
        }
        rewritten(param, |weights| {
            weights.iter_mut().filter(|w| w.abs() <= self.largest_gone).for_each(|w| *w = 0.0);
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        checkpoint::tensors::{SaveType, Weights, save},
        layers::{
            conv::{Conv2d, ConvConfig},
            embedding::Embedding,
            linear::Linear,
        },
    };

    #[derive(Module, Debug)]
    struct Model {
        tokens: Embedding,
        up: Linear,
        picture: Conv2d,
    }

    /// The tensors by name.
    fn weights(model: &Model) -> BTreeMap<String, Vec<f32>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        save(model, &path, SaveType::F32, |field| Some(field.to_string())).unwrap();
        let weights = Weights::open_file(&path).unwrap();
        let names = weights.names().map(str::to_string);
        names.map(|name| (name.clone(), weights.floats(&name).unwrap())).collect()
    }

    #[test]
    fn the_smallest_of_all_layers_go() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let model = Model {
            tokens: Embedding::new(20, 16, 1e-6, &device),
            up: Linear::new(16, 24, 0.01, &device),
            picture: ConvConfig::new(4, 8, [3, 3]).init(&device),
        };
        let before = weights(&model);
        let seen = pruned(model.clone(), 0.5);
        let after = weights(&seen);
        assert_eq!(after["tokens.weight"], before["tokens.weight"]);
        let layers = ["up.weight", "picture.weight"];
        let zeros = layers.map(|name| after[name].iter().filter(|w| **w == 0.0).count());
        let all: usize = layers.iter().map(|name| before[*name].len()).sum();
        assert_eq!(zeros[0] + zeros[1], all / 2);
        assert!(zeros[0] > zeros[1], "the layer of small weights loses more: {zeros:?}");
        let pairs = || layers.iter().flat_map(|name| before[*name].iter().zip(&after[*name]));
        let gone = pairs().filter(|(_, new)| **new == 0.0).map(|(old, _)| old.abs());
        let kept = pairs().filter(|(_, new)| **new != 0.0).map(|(old, _)| old.abs());
        assert!(gone.fold(0.0, f32::max) < kept.fold(f32::MAX, f32::min));
        assert!(pairs().all(|(old, new)| *new == 0.0 || old == new));
        // Gradients are those of all weights, so that one can come back.
        let x = Tensor::<2>::ones([1, 16], &device);
        let grads = seen.up.forward(x).sum().backward();
        let slope = floats(seen.up.weight.val().grad(&grads).expect("it is trained"));
        assert!(slope.iter().all(|slope| *slope == 1.0));
        assert_eq!(weights(&pruned(model, 0.0)), before);
    }
}
