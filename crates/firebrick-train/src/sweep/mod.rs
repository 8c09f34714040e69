//! Hyper-parameter search: `[sweep]` of a recipe, and how its trials are chosen, stopped and remembered.
//!
//! A trial is an ordinary run of the recipe with some keys changed. The study's file is where workers meet: each takes
//! the next trial from it and writes down what came of it, so that any number of processes can work on one study and a
//! killed one loses nothing.

pub mod asha;
pub mod importance;
pub mod sampler;
pub mod space;
pub mod study;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::recipe::{Check, RecipeError};
use space::Range;

/// `[sweep]`: what is tried, how often, and what is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SweepRecipe {
    /// Trials in all.
    pub trials: usize,
    pub sampler: Sampler,
    /// Trials that are drawn at random before `tpe` learns from them.
    pub startup: usize,
    /// Stops trials that fall behind.
    pub pruner: Pruner,
    /// Evaluations of a trial before it may be stopped; the next looks come after `reduction` times as many.
    pub first_rung: usize,
    /// One in so many trials goes on at each look.
    pub reduction: usize,
    /// Score of the validation rows; the recipe's `eval.metric` otherwise.
    pub metric: Option<String>,
    /// Ranges by the key of the recipe that they are for: `"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }`.
    pub space: BTreeMap<String, Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// All values alike.
    Random,
    /// Tree-structured Parzen estimator (Bergstra et al. 2011): values that good trials had and others had not.
    Tpe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pruner {
    None,
    /// Asynchronous successive halving (Li et al. 2018, <https://arxiv.org/abs/1810.05934>).
    Asha,
}

impl Default for SweepRecipe {
    fn default() -> Self {
        Self {
            trials: 20,
            sampler: Sampler::Tpe,
            startup: 6,
            pruner: Pruner::Asha,
            first_rung: 1,
            reduction: 3,
            metric: None,
            space: BTreeMap::new(),
        }
    }
}

impl Check for SweepRecipe {
    fn check(&self) -> Result<(), RecipeError> {
        let count = |key: &str, value: usize, low: usize| match (low..=1_000_000).contains(&value) {
            true => Ok(()),
            false => {
                let problem = format!("is {value}, not within {low} and 1000000");
                Err(RecipeError::value(&format!("sweep.{key}"), problem))
            }
        };
        count("trials", self.trials, 1)?;
        count("first_rung", self.first_rung, 1)?;
        count("reduction", self.reduction, 2)?;
        if self.space.is_empty() {
            return Err(RecipeError::value("sweep.space", "is empty: nothing to search for"));
        }
        self.space.iter().try_for_each(|(key, range)| {
            range
                .check()
                .map_err(|problem| RecipeError::value(&format!("sweep.space.\"{key}\""), problem))
        })
    }
}
