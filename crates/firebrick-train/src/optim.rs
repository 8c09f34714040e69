//! Optimisers over a module's parameters by name, clipping by the global norm, averaged weights.
//!
//! What an optimiser remembers lies on the host as plain vectors by slot and field path: gradients are summed over
//! micro-batches, clipped, averaged and written to a checkpoint without a word about tensors. On flex weights move
//! in and out without a copy; on a GPU every step pays the transfer.

mod lbfgs;
mod step;

use std::{borrow::Cow, collections::BTreeMap};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    prelude::*,
    tensor::{Gradients, TensorData},
};
use firebrick_kernels::{
    optim::penalty::{Penalty, penalized},
    reduce::sum_of_squares,
};

use crate::{recipe::TrainRecipe, task::Task};

use self::step::{Field, Step};

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

/// What an optimiser and the average remember between steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OptimState {
    /// Steps taken.
    pub time: usize,
    /// By slot (`first`, `velocity`, ..), then by field path.
    pub slots: BTreeMap<String, Grads>,
}

/// Slot of the exponential moving average of the weights; there is none when the recipe asks for none.
const AVERAGE: &str = "average";

impl OptimState {
    /// One step on `model`. `norm` is the gradients' global norm. That of LBFGS is as long as the learning rate says;
    /// [`Self::search`] looks for its length.
    pub fn step<M: Task>(
        &mut self,
        model: M,
        grads: &Grads,
        norm: f64,
        learning_rate: f64,
        recipe: &TrainRecipe,
    ) -> M {
        self.time += 1;
        let settings = recipe.settings();
        let Some(gradients) = settings.gradients else {
            return self.lbfgs_step(model, grads, learning_rate, recipe);
        };
        let clip = match gradients.max_grad_norm {
            limit if limit > 0.0 && norm > limit => limit / norm,
            _ => 1.0,
        };
        let penalty = Penalty { l1: gradients.l1 as f32, l2: gradients.l2 as f32 };
        // Both rates follow one schedule.
        let head = (gradients.head_learning_rate / settings.learning_rate) as f32;
        let model = edit(model, grads, |field, grad, weights| {
            let times = if field.begins_with(M::HEAD) { head } else { 1.0 };
            let mut step = Step {
                grad: Cow::Borrowed(grad),
                scale: clip as f32,
                learning_rate: learning_rate as f32 * times,
                orthogonal: field.is_linear() && !field.begins_with(M::HEAD),
                time: self.time as u32,
                field,
            };
            if field.decays() && (penalty.l1 > 0.0 || penalty.l2 > 0.0) {
                step.grad = Cow::Owned(penalized(grad, weights, step.scale, penalty));
                step.scale = 1.0;
            }
            step.take(&settings.method, weights, self);
        });
        self.average(model, grads, recipe)
    }

    /// Takes the weights that have gradients into their average.
    fn average<M: Module>(&mut self, model: M, grads: &Grads, recipe: &TrainRecipe) -> M {
        if recipe.ema_decay == 0.0 {
            return model;
        }
        // The average starts short, so that it is not held back by the random start.
        let decay = recipe.ema_decay.min((1.0 + self.time as f64) / (10.0 + self.time as f64));
        let decay = decay as f32;
        let averages = self.slots.entry(AVERAGE.to_string()).or_default();
        edit(model, grads, |field, _, weights| match averages.get_mut(field.name) {
            Some(average) => {
                average.iter_mut().zip(&*weights).for_each(|(a, w)| *a += (1.0 - decay) * (w - *a));
            }
            None => {
                averages.insert(field.name.to_string(), weights.to_vec());
            }
        })
    }

    /// `model` with its averaged weights, if there is an average. A batch norm's running mean and variance stay those
    /// of the last step.
    pub fn averaged<M: Module>(&self, model: M) -> M {
        match self.slots.get(AVERAGE) {
            Some(averages) => edit(model, averages, |_, average, w| w.copy_from_slice(average)),
            None => model,
        }
    }

    /// Lends out what is remembered of a field in some slots; a new slot is of zeros, as many as are named.
    fn remember<const N: usize>(
        &mut self,
        field: &str,
        slots: [(&str, usize); N],
        step: impl FnOnce([&mut [f32]; N]),
    ) {
        let mut lent = slots.map(|(slot, len)| {
            let found = self.slots.get_mut(slot).and_then(|fields| fields.get_mut(field));
            found.map_or_else(|| vec![0.0; len], std::mem::take)
        });
        step(lent.each_mut().map(Vec::as_mut_slice));
        for ((slot, _), values) in slots.into_iter().zip(lent) {
            match self.slots.get_mut(slot).and_then(|fields| fields.get_mut(field)) {
                Some(place) => *place = values,
                None => {
                    let fields = self.slots.entry(slot.to_string()).or_default();
                    fields.insert(field.to_string(), values);
                }
            }
        }
    }
}

/// Changes, in place, the weights of the parameters that are named in `by`; `change` gets the numbers there.
fn edit<M: Module>(model: M, by: &Grads, change: impl FnMut(Field, &[f32], &mut [f32])) -> M {
    model.map(&mut Editor { path: vec![], kinds: vec![], by, change })
}

struct Editor<'a, F> {
    path: Vec<String>,
    kinds: Vec<String>,
    by: &'a Grads,
    change: F,
}

impl<F: FnMut(Field, &[f32], &mut [f32])> ModuleMapper for Editor<'_, F> {
    fn enter_module(&mut self, name: &str, kind: &str) {
        self.path.push(name.to_string());
        self.kinds.push(kind.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
        self.kinds.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(by) = self.by.get(&name) else {
            return param; // frozen
        };
        let (id, tensor, mapper) = param.consume();
        let (device, shape) = (tensor.device(), tensor.shape());
        let trained = device.is_autodiff();
        let tensor = if trained { tensor.inner() } else { tensor };
        let mut weights = tensor.into_data().try_into_vec::<f32>().expect("weights are f32");
        let kind = self.kinds.last().map_or("", String::as_str);
        (self.change)(Field { name: &name, kind, shape: &shape }, by, &mut weights);
        let tensor = Tensor::from_data(TensorData::new(weights, shape), &device);
        let tensor = if trained { tensor.require_grad() } else { tensor };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
