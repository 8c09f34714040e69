//! One step of one parameter, whatever the optimiser.

use std::borrow::Cow;

use firebrick_kernels::optim::{adafactor, adamw, lion, muon, rms, sgd};

use super::OptimState;
use crate::recipe::Method;

/// A parameter as the optimisers see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// Its path.
    pub name: &'a str,
    /// Struct that it is in, `Struct:Linear`.
    pub kind: &'a str,
    pub shape: &'a [usize],
}

impl Field<'_> {
    /// Biases and norms are not decayed, as in BERT's reference code.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1 && !self.name.ends_with("bias")
    }

    /// Whether it is the matrix of a linear layer.
    pub fn is_linear(&self) -> bool {
        self.shape.len() == 2 && ["Struct:Linear", "Struct:Conv1D"].contains(&self.kind)
    }

    pub fn begins_with(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| self.name.starts_with(path))
    }
}

pub(super) struct Step<'a> {
    pub field: Field<'a>,
    pub grad: Cow<'a, [f32]>,
    /// Factor on the gradient.
    pub scale: f32,
    pub learning_rate: f32,
    /// Whether Muon makes it orthogonal.
    pub orthogonal: bool,
    /// Steps taken, this one too.
    pub time: u32,
}

impl Step<'_> {
    pub fn take(&self, method: &Method, weights: &mut [f32], state: &mut OptimState) {
        let Self { field, scale, learning_rate, time, .. } = *self;
        let (name, n, grad) = (field.name, weights.len(), &*self.grad);
        let decay = |decay: f64| if field.decays() { decay as f32 } else { 0.0 };
        match *method {
            Method::Gd {} => sgd::plain(weights, grad, learning_rate, scale),
            Method::Sgd { momentum, dampening, nesterov } => {
                self.descend(weights, grad, scale, (momentum, dampening, nesterov), state);
            }
            Method::Adam { beta1, beta2, epsilon } => {
                self.adamw(weights, [beta1, beta2, epsilon], 0.0, state);
            }
            Method::AdamW { beta1, beta2, epsilon, weight_decay } => {
                self.adamw(weights, [beta1, beta2, epsilon], decay(weight_decay), state);
            }
            Method::RmsProp { beta2, epsilon, momentum } => {
                let direction = self.normalized([beta2, 1.0 - beta2, epsilon], state);
                self.descend(weights, &direction, 1.0, (momentum, 0.0, false), state);
            }
            Method::AdaGrad { epsilon } => {
                let direction = self.normalized([1.0, 1.0, epsilon], state);
                sgd::plain(weights, &direction, learning_rate, 1.0);
            }
            Method::Adafactor { decay_rate, epsilon, clip_threshold, weight_decay } => {
                let [epsilon, clip_threshold] = [epsilon, clip_threshold].map(|x| x as f32);
                let weight_decay = decay(weight_decay);
                let s = adafactor::Step {
                    learning_rate,
                    weight_decay,
                    decay_rate,
                    epsilon,
                    clip_threshold,
                    time,
                    scale,
                };
                match *field.shape {
                    [.., rows, cols] if rows * cols > 0 => {
                        let slots = [("row", n / cols), ("column", n / rows)];
                        state.remember(name, slots, |[row, column]| {
                            adafactor::matrices(weights, grad, [rows, cols], row, column, &s);
                        });
                    }
                    _ => state.remember(name, [("square", n)], |[square]| {
                        adafactor::vector(weights, grad, square, &s);
                    }),
                }
            }
            Method::Lion { beta1, beta2, weight_decay } => {
                let [beta1, beta2] = [beta1, beta2].map(|x| x as f32);
                let weight_decay = decay(weight_decay);
                let s = lion::Step { learning_rate, beta1, beta2, weight_decay, scale };
                state.remember(name, [("first", n)], |[m]| lion::step(weights, grad, m, &s));
            }
            Method::Muon { momentum, nesterov, weight_decay, .. } if self.orthogonal => {
                let (momentum, weight_decay) = (momentum as f32, decay(weight_decay));
                let s = muon::Step { learning_rate, momentum, nesterov, weight_decay, scale };
                let shape = [field.shape[0], field.shape[1]];
                state.remember(name, [("velocity", n)], |[v]| {
                    muon::step(weights, grad, v, shape, &s);
                });
            }
            Method::Muon { beta1, beta2, epsilon, weight_decay, .. } => {
                self.adamw(weights, [beta1, beta2, epsilon], decay(weight_decay), state);
            }
            Method::Lbfgs { .. } => unreachable!("its step is one of all parameters"),
        }
    }

    fn adamw(
        &self,
        weights: &mut [f32],
        numbers: [f64; 3],
        weight_decay: f32,
        state: &mut OptimState,
    ) {
        let Self { scale, learning_rate, time, .. } = *self;
        let [beta1, beta2, epsilon] = numbers.map(|x| x as f32);
        let s = adamw::Step { learning_rate, beta1, beta2, epsilon, weight_decay, time, scale };
        let slots = [("first", weights.len()), ("second", weights.len())];
        state.remember(self.field.name, slots, |[first, second]| {
            adamw::step(weights, &self.grad, first, second, &s);
        });
    }

    /// Against `direction`, by momentum, dampening and whether it looks ahead.
    fn descend(
        &self,
        weights: &mut [f32],
        direction: &[f32],
        scale: f32,
        (momentum, dampening, nesterov): (f64, f64, bool),
        state: &mut OptimState,
    ) {
        let Self { learning_rate, time, .. } = *self;
        if momentum == 0.0 {
            return sgd::plain(weights, direction, learning_rate, scale);
        }
        let [momentum, dampening] = [momentum, dampening].map(|x| x as f32);
        let s = sgd::Step { learning_rate, momentum, dampening, nesterov, time, scale };
        state.remember(self.field.name, [("velocity", weights.len())], |[velocity]| {
            sgd::step(weights, direction, velocity, &s);
        });
    }

    /// The gradient over the root of its squares, by what is kept of them and taken of the new ones.
    fn normalized(&self, numbers: [f64; 3], state: &mut OptimState) -> Vec<f32> {
        let [keep, add, epsilon] = numbers.map(|x| x as f32);
        let s = rms::Squares { keep, add, epsilon, scale: self.scale };
        let mut direction = vec![];
        state.remember(self.field.name, [("square", self.grad.len())], |[square]| {
            direction = rms::normalized(&self.grad, square, &s);
        });
        direction
    }
}
