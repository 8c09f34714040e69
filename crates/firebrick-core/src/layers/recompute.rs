//! Activation checkpointing (Chen et al. 2016, <https://arxiv.org/abs/1604.06174>): of a layer only the input is
//! remembered; the backward pass runs the layer again.

use burn::{
    module::{Module, ModuleVisitor, Param},
    prelude::*,
    tensor::{Distribution, Gradients, TensorData},
};

use super::fused::{self, Rerun};

/// `forward(layer, x)`, `[..]` -> `[..]`, with little memory in training on the CPU. Elsewhere it is just that.
///
/// Both runs draw the same numbers for dropout, from a seed that is drawn from the device's.
pub fn recomputed<M: Module + 'static, const D: usize>(
    layer: &M,
    x: Tensor<D>,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<D> + Send + 'static,
) -> Tensor<D> {
    let device = x.device();
    if !device.is_autodiff() || !fused::applies(&x) {
        return forward(layer, x);
    }
    let mut weights = Weights::default();
    layer.visit(&mut weights); // fresh ones are drawn here
    let weights = match weights.0.is_empty() {
        true => Tensor::zeros([1], &device),
        false => Tensor::cat(weights.0, 0),
    };
    let input = x.clone().detach();
    let seed = draw(&device);
    device.seed(seed);
    let y = forward(&layer.clone().no_grad(), input.clone());

    // Has a graph of its own: that of the backward pass is locked while it goes on.
    let layer = layer.clone().fork(&device);
    let again = Rerun::new(move |dy| {
        device.seed(seed);
        let x = input.clone().require_grad();
        let dy = Tensor::from_data(dy, &device);
        let mut grads = (forward(&layer, x.clone()) * dy).sum().backward();
        let dx = x.grad_remove(&mut grads).expect("the output follows from the input");
        let mut gradients = WeightGradients { grads: &mut grads, numbers: vec![] };
        layer.visit(&mut gradients);
        let n = gradients.numbers.len();
        [dx.into_data(), TensorData::new(gradients.numbers, [n])]
    });
    fused::rerun(x, weights, y, again)
}

fn draw(device: &Device) -> u64 {
    let uniform = Distribution::Uniform(0.0, f64::from(1 << 30));
    let draws = Tensor::<1, Int>::random([2], uniform, &device.clone().inner()).into_data();
    draws.iter::<u64>().fold(0, |seed, half| (seed << 32) | half)
}

/// All weights that learn, one after the other.
#[derive(Default)]
struct Weights(Vec<Tensor<1>>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if weight.is_require_grad() {
            self.0.push(weight.reshape([-1]));
        }
    }
}

/// Their gradients, in the same order.
struct WeightGradients<'a> {
    grads: &'a mut Gradients,
    numbers: Vec<f32>,
}

impl ModuleVisitor for WeightGradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if !weight.is_require_grad() {
            return;
        }
        match weight.grad_remove(self.grads) {
            Some(grad) => self.numbers.extend(grad.into_data().iter::<f32>()),
            None => self.numbers.extend(vec![0.0; weight.shape().num_elements()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{dropout::Dropout, linear::Linear, norm::LayerNorm};

    #[derive(Module, Debug)]
    struct Layer {
        up: Linear,
        dropout: Dropout,
        norm: LayerNorm,
    }

    impl Layer {
        fn forward(&self, x: Tensor<3>) -> Tensor<3> {
            self.norm.residual(x.clone(), self.up.forward(x.tanh()), &self.dropout)
        }
    }

    /// Output, and gradients of the input and of all weights of two layers.
    fn run(layers: &[Layer; 2], device: &Device, recompute: bool) -> Vec<Vec<f32>> {
        device.seed(5);
        let numbers = (0..2 * 3 * 8).map(|i| (i * 7 % 11) as f32 / 5.0 - 1.0).collect::<Vec<_>>();
        let x = Tensor::<3>::from_data(TensorData::new(numbers, [2, 3, 8]), device).require_grad();
        let y = layers.iter().fold(x.clone(), |x, layer| match recompute {
            true => recomputed(layer, x, |layer: &Layer, x| layer.forward(x)),
            false => {
                device.seed(draw(device));
                layer.forward(x)
            }
        });
        let mut found = vec![y.to_data().try_to_vec().unwrap()];
        let mut grads = (y.clone() * y.exp()).sum().backward();
        found.push(x.grad_remove(&mut grads).unwrap().into_data().try_to_vec().unwrap());
        for layer in layers {
            let mut gradients = WeightGradients { grads: &mut grads, numbers: vec![] };
            layer.visit(&mut gradients);
            found.push(gradients.numbers);
        }
        found
    }

    /// With dropout too: the second run draws the numbers of the first.
    #[test]
    fn a_second_run_gives_the_same_gradients() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let layer = || Layer {
            up: Linear::new(8, 8, 0.5, &device),
            dropout: Dropout::new(0.4),
            norm: LayerNorm::new(8, 1e-5, &device),
        };
        let layers = [layer(), layer()];
        layers.visit(&mut Weights::default()); // drawn now, not with the first dropout
        let [plain, again] = [false, true].map(|recompute| run(&layers, &device, recompute));
        for (plain, again) in plain.iter().zip(&again) {
            assert_eq!(plain.len(), again.len());
            assert!(plain.iter().any(|x| *x != 0.0));
            assert_eq!(plain, again);
        }
    }
}
