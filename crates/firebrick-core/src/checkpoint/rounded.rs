//! A model whose weights are what a quantised checkpoint would say they are.
//!
//! Training computes each step with such a copy and takes its gradients for those of the floats behind it: the
//! straight-through estimator (Bengio et al. 2013, <https://arxiv.org/abs/1308.3432>), with it quantisation-aware
//! training (Jacob et al. 2018, <https://arxiv.org/abs/1712.05877>). Activations stay floats: what our kernels round
//! them to, 254 levels for every row, is far finer than what weights are rounded to.

use burn::{
    module::{Module, ModuleMapper, Param},
    prelude::*,
    tensor::{DType, TensorData},
};
use firebrick_kernels::quantised::{Format, snap};

use super::{
    decode::Order,
    quantise::Plan,
    tensors::{Place, turned},
};

/// `model` with the weights that it would be read back with after it was saved by `Plan::new(linear)`; saved so, it is the
/// same file. The parameters keep their names and whether they are trained.
pub fn rounded<M: Module>(model: M, linear: Format) -> M {
    model.map(&mut Rounder { at: Place::default(), plan: Plan::new(linear) })
}

struct Rounder {
    at: Place,
    plan: Plan,
}

impl ModuleMapper for Rounder {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.at.enter(name, kind);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.at.weight::<D>() {
            return param;
        }
        let shape = param.shape();
        let factor = self.at.factor::<D>();
        let rows = shape[0];
        let columns = shape.num_elements() / rows.max(1);
        let [outputs, inputs] = if factor { [columns, rows] } else { [rows, columns] };
        let Some(format) = self.plan.format("", factor, [outputs, inputs]) else {
            return param;
        };
        rewritten(param, |weights| {
            let turn = |weights: &[f32], rows, columns| {
                turned(bytemuck::cast_slice(weights), Order::Transposed { rows, columns })
            };
            if factor {
                *weights = turn(weights, inputs, outputs);
            }
            snap(weights, inputs, format, self.plan.range);
            if factor {
                *weights = turn(weights, outputs, inputs);
            }
        })
    }
}

/// `param` with its numbers as `change` leaves them. Its name stays, and whether it is trained.
pub(super) fn rewritten<const D: usize>(
    param: Param<Tensor<D>>,
    change: impl FnOnce(&mut Vec<f32>),
) -> Param<Tensor<D>> {
    let shape = param.shape();
    let (id, tensor, mapper) = param.consume();
    let (device, trained) = (tensor.device(), tensor.is_require_grad());
    let mut numbers = floats(tensor);
    change(&mut numbers);
    let tensor = Tensor::from_data(TensorData::new(numbers, shape), &device);
    Param::from_mapped_value(id, tensor.set_require_grad(trained), mapper)
}

/// The numbers of a tensor, wherever it lies.
pub(super) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let tensor = if tensor.device().is_autodiff() { tensor.inner() } else { tensor };
    let data = tensor.into_data().convert_dtype(DType::F32);
    data.try_into_vec().expect("just converted to f32")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use burn::tensor::Distribution;

    use super::*;
    use crate::{
        checkpoint::tensors::{Coverage, SaveType, Weights, fill, save},
        layers::{
            conv::{Conv2d, ConvConfig},
            embedding::Embedding,
            linear::Linear,
        },
    };

    /// One of each kind of weight.
    #[derive(Module, Debug)]
    struct Model {
        tokens: Embedding,
        up: Linear,
        picture: Conv2d,
    }

    impl Model {
        fn new(device: &Device) -> Self {
            Self {
                tokens: Embedding::new(70, 64, 1.0, device),
                up: Linear::new(64, 48, 0.1, device),
                picture: ConvConfig::new(16, 12, [3, 3]).init(device),
            }
        }
    }

    fn name(field: &str) -> Option<String> {
        Some(field.to_string())
    }

    /// What the training device computes with, on disk and back.
    fn numbers(model: &Model, path: &Path) -> Vec<Vec<f32>> {
        save(model, path, SaveType::F32, name).unwrap();
        let weights = Weights::open_file(path).unwrap();
        weights.names().map(|name| weights.floats(name).unwrap()).collect()
    }

    #[test]
    fn a_rounded_model_is_saved_as_what_it_is() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let model = Model::new(&device);
        let dir = tempfile::tempdir().unwrap();
        let [levels, again, plain] = ["one", "two", "three"].map(|name| dir.path().join(name));
        for format in [Format::Int8, Format::Int4 { group: 32 }] {
            let seen = rounded(model.clone(), format);
            let by = || SaveType::Quantised(Plan::new(format));
            save(&model, &levels, by(), name).unwrap();
            save(&seen, &again, by(), name).unwrap();
            assert_eq!(fs::read(&levels).unwrap(), fs::read(&again).unwrap(), "{format:?}");
            let all = Coverage { ignored: &[], fresh: &[] };
            let weights = Weights::open_file(&levels).unwrap();
            let read = fill(Model::new(&device), &weights, &all, name).unwrap();
            assert_eq!(numbers(&seen, &plain), numbers(&read, &plain), "{format:?}");
            assert_ne!(numbers(&seen, &plain), numbers(&model, &plain));
        }
    }

    /// The gradient is that at the rounded weights, `sum x`, whatever the step between them and the floats.
    #[test]
    fn gradients_go_straight_through() {
        let device = Device::flex().autodiff();
        let seen = rounded(Model::new(&device), Format::Int8);
        let x = Tensor::<2>::random([3, 64], Distribution::Default, &device);
        let grads = seen.up.forward(x.clone()).sum().backward();
        let slope = seen.up.weight.val().grad(&grads).expect("it is trained");
        let expected = x.sum_dim(0).transpose().repeat_dim(1, 48).inner();
        let close = burn::tensor::Tolerance::absolute(1e-5);
        slope.into_data().assert_approx_eq::<f32>(&expected.into_data(), close);
    }
}
