//! AdamW over a module's parameters by name, clipping by the global norm, averaged weights.
//!
//! Moments live on the host as plain vectors by field path: they are summed over micro-batches,
//! clipped, averaged and written to a checkpoint without a word about tensors. On flex weights move
//! in and out without a copy; on a GPU every step pays the transfer.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    prelude::*,
    tensor::{Gradients, TensorData},
};
use firebrick_kernels::{adamw, reduce::sum_of_squares};

use crate::{recipe::TrainRecipe, task::Task};

/// Gradients by field path.
pub type Grads = BTreeMap<String, Vec<f32>>;

/// Adds `weight` times the gradients of `model`'s parameters to `sum`.
pub fn add_gradients<M: Module>(sum: &mut Grads, model: &M, grads: &mut Gradients, weight: f32) {
    model.visit(&mut Adder { path: vec![], sum, grads, weight });
}

struct Adder<'a> {
    path: Vec<String>,
    sum: &'a mut Grads,
    grads: &'a mut Gradients,
    weight: f32,
}

impl ModuleVisitor for Adder<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = param.val().grad_remove(self.grads) else {
            return;
        };
        let mut grad = grad.into_data().try_into_vec::<f32>().expect("gradients are f32");
        if self.weight != 1.0 {
            grad.iter_mut().for_each(|g| *g *= self.weight);
        }
        match self.sum.get_mut(&self.path.join(".")) {
            Some(sum) => sum.iter_mut().zip(&grad).for_each(|(sum, g)| *sum += g),
            None => {
                self.sum.insert(self.path.join("."), grad);
            }
        }
    }
}

/// Euclidean length of all gradients together.
pub fn global_norm(grads: &Grads) -> f64 {
    grads.values().map(|g| sum_of_squares(g)).sum::<f64>().sqrt()
}

/// What AdamW and the average remember between steps, by field path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OptimState {
    /// Steps taken.
    pub time: usize,
    pub first: Grads,
    pub second: Grads,
    /// Exponential moving average of the weights; empty when the recipe asks for none.
    pub average: Grads,
}

impl OptimState {
    /// One step on `model`. `norm` is the gradients' global norm.
    pub fn step<M: Task>(
        &mut self,
        model: M,
        grads: &Grads,
        norm: f64,
        learning_rate: f64,
        recipe: &TrainRecipe,
    ) -> M {
        self.time += 1;
        let clip = match recipe.max_grad_norm {
            limit if limit > 0.0 && norm > limit => limit / norm,
            _ => 1.0,
        };
        let settings = adamw::Step {
            learning_rate: learning_rate as f32,
            beta1: recipe.beta1 as f32,
            beta2: recipe.beta2 as f32,
            epsilon: recipe.epsilon as f32,
            weight_decay: recipe.weight_decay as f32,
            time: self.time as u32,
            scale: clip as f32,
        };
        // The average starts short, so that it is not held back by the random start.
        let decay = recipe.ema_decay.min((1.0 + self.time as f64) / (10.0 + self.time as f64));
        let average = (recipe.ema_decay > 0.0).then_some(decay as f32);
        // Both rates follow one schedule.
        let head = recipe.head_learning_rate.map_or(1.0, |rate| rate / recipe.learning_rate) as f32;
        let head = (M::HEAD, head);
        model.map(&mut Updater { path: vec![], state: self, grads, settings, average, head })
    }

    /// `model` with its averaged weights, if there is an average.
    pub fn averaged<M: Module>(&self, model: M) -> M {
        if self.average.is_empty() {
            return model;
        }
        model.map(&mut Averager { path: vec![], average: &self.average })
    }
}

struct Updater<'a> {
    path: Vec<String>,
    state: &'a mut OptimState,
    grads: &'a Grads,
    settings: adamw::Step,
    average: Option<f32>,
    /// Beginnings of the head's paths, and its learning rate as a multiple.
    head: (&'static [&'static str], f32),
}

impl ModuleMapper for Updater<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(grad) = self.grads.get(&name) else {
            return param; // frozen
        };
        let (id, tensor, mapper) = param.consume();
        let (device, shape) = (tensor.device(), tensor.shape());
        let mut weights =
            tensor.inner().into_data().try_into_vec::<f32>().expect("weights are f32");

        let zeros = || vec![0.0; grad.len()];
        let first = self.state.first.entry(name.clone()).or_insert_with(zeros);
        let second = self.state.second.entry(name.clone()).or_insert_with(zeros);
        // Biases and norms are not decayed, as in BERT's reference code.
        let weight_decay = if D == 1 { 0.0 } else { self.settings.weight_decay };
        let (head, times) = self.head;
        let times = if head.iter().any(|prefix| name.starts_with(prefix)) { times } else { 1.0 };
        let learning_rate = self.settings.learning_rate * times;
        let settings = adamw::Step { weight_decay, learning_rate, ..self.settings };
        adamw::step(&mut weights, grad, first, second, &settings);
        if let Some(decay) = self.average {
            let average = self.state.average.entry(name).or_insert_with(|| weights.clone());
            average.iter_mut().zip(&weights).for_each(|(a, w)| *a += (1.0 - decay) * (w - *a));
        }

        let tensor = Tensor::from_data(TensorData::new(weights, shape), &device).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

struct Averager<'a> {
    path: Vec<String>,
    average: &'a Grads,
}

impl ModuleMapper for Averager<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.average.get(&self.path.join(".")) {
            Some(average) => param.map(|tensor| {
                let data = TensorData::new(average.clone(), tensor.shape());
                Tensor::from_data(data, &tensor.device())
            }),
            None => param,
        }
    }
}
