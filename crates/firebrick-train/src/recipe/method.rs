//! What each optimiser and schedule reads of `[train]`, with its defaults.
//!
//! Keys are flat in the recipe. The fields of [`Settings`] have their names, so a key that was given and is not among
//! them is one that nothing reads.

use firebrick_kernels::quantised::Format;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RecipeError, TrainRecipe, within};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Gradient descent over all rows: one step an epoch.
    Gd,
    /// Gradient descent over batches, with momentum.
    Sgd,
    /// With `l2` in the gradient.
    Adam,
    /// With decay beside the gradient.
    #[default]
    AdamW,
    /// Gradients over the root of their average square.
    RmsProp,
    /// Gradients over the root of the sum of their squares.
    AdaGrad,
    /// AdamW's second moment in the memory of a vector.
    Adafactor,
    /// The sign of a moment.
    Lion,
    /// Orthogonal steps for the matrices of linear layers that are not the head, AdamW for all else.
    Muon,
    /// Quasi-Newton over all rows; wants a loss without dropout.
    Lbfgs,
}

impl Optimizer {
    /// Whether a step is over all rows.
    pub fn full_batch(self) -> bool {
        matches!(self, Self::Gd | Self::Lbfgs)
    }
}

/// Whole numbers that weights are rounded to while they train: the first of what `compress --quantize` makes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// They stay floats.
    #[default]
    Off,
    /// All weights in eight bits, with a scale for each output.
    Int8,
    /// Linear layers in four bits with a scale for each 32 inputs, the rest in eight.
    Int4,
}

impl Quantize {
    /// Of linear layers.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Off => None,
            Self::Int8 => Some(Format::Int8),
            Self::Int4 => Some(Format::Int4 { group: 32 }),
        }
    }
}

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// In a straight line down to `min_learning_rate`.
    Linear,
    /// Half a cosine down to `min_learning_rate`.
    #[default]
    Cosine,
    /// Times `gamma` every `step_size` steps.
    Step,
    /// Times `gamma` every step.
    Exponential,
    /// With the inverse root of the step (Vaswani et al. 2017).
    Noam,
    /// A cosine up, in the warm-up's steps from a 25th, and one down to nearly zero (Smith and Topin 2018).
    OneCycle,
}

/// The recipe's keys that are for the schedule.
const OF_SCHEDULE: [&str; 3] = ["min_learning_rate", "step_size", "gamma"];

/// `[train]` as the step reads it: each key that was left out has its optimiser's default.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub warmup_steps: usize,
    #[serde(flatten)]
    pub curve: Curve,
    #[serde(flatten)]
    pub method: Method,
    /// What becomes of gradients before the method sees them; LBFGS takes them as they are.
    #[serde(flatten)]
    pub gradients: Option<GradientSettings>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GradientSettings {
    pub head_learning_rate: f64,
    pub max_grad_norm: f64,
    pub l1: f64,
    pub l2: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Method {
    Gd {},
    Sgd { momentum: f64, dampening: f64, nesterov: bool },
    Adam { beta1: f64, beta2: f64, epsilon: f64 },
    AdamW { beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64 },
    RmsProp { beta2: f64, epsilon: f64, momentum: f64 },
    AdaGrad { epsilon: f64 },
    Adafactor { decay_rate: f64, epsilon: f64, clip_threshold: f64, weight_decay: f64 },
    Lion { beta1: f64, beta2: f64, weight_decay: f64 },
    Muon { momentum: f64, nesterov: bool, beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64 },
    Lbfgs { history_size: usize, line_search: bool },
}

/// The learning rate after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Curve {
    Constant {},
    Linear { min_learning_rate: f64 },
    Cosine { min_learning_rate: f64 },
    Step { step_size: usize, gamma: f64, min_learning_rate: f64 },
    Exponential { gamma: f64, min_learning_rate: f64 },
    Noam { min_learning_rate: f64 },
    OneCycle { min_learning_rate: f64 },
}

impl TrainRecipe {
    /// Rows of a step, of `rows` in all.
    pub fn rows_per_step(&self, rows: usize) -> usize {
        if self.optimizer.full_batch() { rows.max(1) } else { self.batch_size }
    }

    pub fn settings(&self) -> Settings {
        let full_batch = self.optimizer.full_batch();
        let learning_rate = self.learning_rate.unwrap_or(match self.optimizer {
            Optimizer::Gd | Optimizer::Sgd => 0.1,
            Optimizer::AdaGrad => 0.01,
            Optimizer::Lion => 1e-4,
            Optimizer::Lbfgs => 1.0,
            _ => 1e-3,
        });
        let plain = if full_batch { Schedule::Constant } else { Schedule::default() };
        let schedule = self.schedule.unwrap_or(plain);
        Settings {
            learning_rate,
            schedule,
            warmup_steps: self.warmup_steps.unwrap_or(if full_batch { 0 } else { 100 }),
            curve: self.curve(schedule, learning_rate),
            method: self.method(),
            gradients: (self.optimizer != Optimizer::Lbfgs).then(|| GradientSettings {
                head_learning_rate: self.head_learning_rate.unwrap_or(learning_rate),
                max_grad_norm: self.max_grad_norm.unwrap_or(1.0),
                l1: self.l1.unwrap_or(0.0),
                l2: self.l2.unwrap_or(0.0),
            }),
        }
    }

    fn method(&self) -> Method {
        let momentum = |default: f64| self.momentum.unwrap_or(default);
        let nesterov = |default: bool| self.nesterov.unwrap_or(default);
        let [beta1, beta2] =
            [(self.beta1, 0.9), (self.beta2, 0.999)].map(|(given, plain)| given.unwrap_or(plain));
        let epsilon = |default: f64| self.epsilon.unwrap_or(default);
        let weight_decay = |default: f64| self.weight_decay.unwrap_or(default);
        match self.optimizer {
            Optimizer::Gd => Method::Gd {},
            Optimizer::Sgd => Method::Sgd {
                momentum: momentum(0.9),
                dampening: self.dampening.unwrap_or(0.0),
                nesterov: nesterov(false),
            },
            Optimizer::Adam => Method::Adam { beta1, beta2, epsilon: epsilon(1e-8) },
            Optimizer::AdamW => Method::AdamW {
                beta1,
                beta2,
                epsilon: epsilon(1e-8),
                weight_decay: weight_decay(0.01),
            },
            Optimizer::RmsProp => Method::RmsProp {
                beta2: self.beta2.unwrap_or(0.99),
                epsilon: epsilon(1e-8),
                momentum: momentum(0.0),
            },
            Optimizer::AdaGrad => Method::AdaGrad { epsilon: epsilon(1e-10) },
            Optimizer::Adafactor => Method::Adafactor {
                decay_rate: self.decay_rate.unwrap_or(-0.8),
                epsilon: epsilon(1e-30),
                clip_threshold: self.clip_threshold.unwrap_or(1.0),
                weight_decay: weight_decay(0.0),
            },
            // A tenth of AdamW's rate with ten times its decay: the paper's advice.
            Optimizer::Lion => Method::Lion {
                beta1,
                beta2: self.beta2.unwrap_or(0.99),
                weight_decay: weight_decay(0.1),
            },
            Optimizer::Muon => Method::Muon {
                momentum: momentum(0.95),
                nesterov: nesterov(true),
                beta1,
                beta2,
                epsilon: epsilon(1e-8),
                weight_decay: weight_decay(0.1),
            },
            Optimizer::Lbfgs => Method::Lbfgs {
                history_size: self.history_size.unwrap_or(10),
                line_search: self.line_search.unwrap_or(true),
            },
        }
    }

    fn curve(&self, schedule: Schedule, learning_rate: f64) -> Curve {
        let min_learning_rate = self.min_learning_rate.unwrap_or(0.0);
        let gamma = self.gamma.unwrap_or(1.0);
        match schedule {
            Schedule::Constant => Curve::Constant {},
            Schedule::Linear => Curve::Linear { min_learning_rate },
            Schedule::Cosine => Curve::Cosine { min_learning_rate },
            Schedule::Step => {
                Curve::Step { step_size: self.step_size.unwrap_or(1), gamma, min_learning_rate }
            }
            Schedule::Exponential => Curve::Exponential { gamma, min_learning_rate },
            Schedule::Noam => Curve::Noam { min_learning_rate },
            Schedule::OneCycle => Curve::OneCycle {
                min_learning_rate: self.min_learning_rate.unwrap_or(learning_rate / 25.0 / 1e4),
            },
        }
    }

    /// The recipe with each key that its optimiser and its schedule read.
    pub fn resolved(&self) -> Self {
        let mut keys = table(&self.settings());
        keys.extend(table(self));
        keys.try_into().expect("the fields of `Settings` are the recipe's keys")
    }

    /// That what is given is read, and what is read makes sense together.
    pub(super) fn check_method(&self) -> Result<(), RecipeError> {
        let settings = self.settings();
        let read = table(&settings);
        let always = table(&Self::default());
        let idle = table(self).into_iter().map(|(key, _)| key);
        if let Some(key) =
            idle.into_iter().find(|key| !read.contains_key(key) && !always.contains_key(key))
        {
            let (kind, chosen) = match OF_SCHEDULE.contains(&key.as_str()) {
                true => ("schedule", name(&settings.schedule)),
                false => ("optimizer", name(&self.optimizer)),
            };
            let mut own: Vec<String> = table(&settings.method).keys().cloned().collect();
            own.sort();
            let own = own.join(", ");
            let own = match (kind, own.is_empty()) {
                ("optimizer", false) => format!(", whose own keys are {own}"),
                _ => String::new(),
            };
            let problem = format!("is not read by {kind} = \"{chosen}\"{own}");
            return Err(RecipeError::value(&format!("train.{key}"), problem));
        }
        let missing = match settings.schedule {
            Schedule::Step if self.step_size.is_none() => Some("step_size"),
            Schedule::Step | Schedule::Exponential if self.gamma.is_none() => Some("gamma"),
            _ => None,
        };
        if let Some(key) = missing {
            let problem =
                format!("is missing: schedule = \"{}\" needs it", name(&settings.schedule));
            return Err(RecipeError::value(&format!("train.{key}"), problem));
        }
        if let Method::Sgd { momentum, dampening, nesterov: true } = settings.method
            && (momentum == 0.0 || dampening > 0.0)
        {
            let problem = "wants a `train.momentum` above 0 and no `train.dampening`";
            return Err(RecipeError::value("train.nesterov", problem));
        }
        let floor = self.min_learning_rate.unwrap_or(0.0);
        within("train.min_learning_rate", floor, 0.0, settings.learning_rate)
    }
}

/// Optional keys without a value are not in it.
fn table(of: &impl Serialize) -> toml::Table {
    toml::Table::try_from(of).expect("plain numbers and names")
}

/// As in the recipe.
fn name(of: &impl Serialize) -> String {
    let value = toml::Value::try_from(of).expect("an enum without fields is its name");
    value.as_str().unwrap_or_default().to_string()
}
