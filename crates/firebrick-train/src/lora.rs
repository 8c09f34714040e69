//! `[model.lora]`: a checkpoint that is adapted, and not trained whole.

use std::path::Path;

use anyhow::Context;
use burn::module::Module;
use firebrick_core::checkpoint::{
    Source,
    lora::{self, LoraConfig},
    tensors::write_atomically,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    origin::Origin,
    recipe::{Quantize, RecipeError, TrainRecipe},
};

/// `[model.lora]`: train small adapters (Hu et al. 2021) and the head, and leave the checkpoint's weights as they
/// are. `adapter/` in the run folder holds them as PEFT has them, `model/` the merged weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraRecipe {
    /// Rank of an adapter; 0 trains all weights.
    pub r: usize,
    /// The adapter's product is scaled by `alpha / r`; 0 stands for `2 r`.
    pub alpha: f64,
    /// Ends of the names of the linear layers that get one, as in the checkpoint; when empty, query and value, or the
    /// feed-forward blocks of a family without attention. Convolutions get none.
    pub targets: Vec<String>,
}

impl LoraRecipe {
    /// Whether nothing is said, so that a recipe need not write it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub fn check(
        &self,
        pretrained: Option<&String>,
        train: &TrainRecipe,
    ) -> Result<(), RecipeError> {
        let fail = |key: &str, problem: String| Err(RecipeError::value(key, problem));
        if self.r > 4096 {
            return fail("model.lora.r", format!("is {}, above 4096", self.r));
        }
        if !(self.alpha >= 0.0 && self.alpha.is_finite()) {
            return fail("model.lora.alpha", format!("is {}, below 0", self.alpha));
        }
        let unread = [
            ("model.lora.alpha", self.alpha > 0.0),
            ("model.lora.targets", !self.targets.is_empty()),
        ];
        if let Some((key, _)) = unread.iter().find(|(_, set)| *set && self.r == 0) {
            return fail(key, "is not read without a `model.lora.r` above 0".into());
        }
        if self.r > 0 && pretrained.is_none() {
            return fail("model.lora.r", "needs a `model.pretrained` to adapt".into());
        }
        if self.r > 0 && train.quantize != Quantize::Off {
            let problem = "goes not with `train.quantize`: what it adds to a weight is not rounded";
            return fail("model.lora.r", problem.into());
        }
        if self.r > 0 && train.sparsity > 0.0 {
            let problem = "goes not with `train.sparsity`: what it adds to a weight has no zeros";
            return fail("model.lora.r", problem.into());
        }
        Ok(())
    }

    /// What it asks for; `targets` where it names none. The modules of the `head` are trained whole. `None` trains all weights.
    pub fn config(&self, base: &Source, targets: &[&str], head: &[&str]) -> Option<LoraConfig> {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let targets: Vec<String> = match self.targets.as_slice() {
            [] => owned(targets),
            targets => targets.to_vec(),
        };
        let alpha = if self.alpha > 0.0 { self.alpha } else { 2.0 * self.r as f64 };
        let lora = LoraConfig {
            modules_to_save: owned(head),
            base_model_name_or_path: from_root(base),
            ..LoraConfig::new(self.r, alpha, &targets)
        };
        (self.r > 0).then_some(lora)
    }
}

/// An adapter is opened from other folders than the one it was trained in.
fn from_root(base: &Source) -> Option<String> {
    let path = base.path("");
    let path = if path.exists() { std::path::absolute(&path).unwrap_or(path) } else { path };
    path.to_str().map(str::to_string)
}

/// `model` frozen, with the adapters; as it is where none are asked for.
pub fn attach<M: Module>(
    model: M,
    lora: Option<&LoraConfig>,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<M, RecipeError> {
    let Some(lora) = lora else { return Ok(model) };
    lora::attach(model, lora, name_of)
        .map_err(|problem| RecipeError::value("model.lora.targets", problem))
}

/// A folder with the adapters and where they come from. What else a model of the task needs in its folder, the caller adds.
pub fn save<M: Module>(
    model: &M,
    lora: &LoraConfig,
    name_of: impl Fn(&str) -> Option<String>,
    origin: &Origin,
    dir: &Path,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    lora::save(model, lora, dir, name_of)?;
    let text = serde_json::to_string_pretty(origin)?;
    write_atomically(&dir.join("firebrick.json"), text.as_bytes())
        .with_context(|| format!("writing {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_adapter_reads_is_an_error() {
        let check = |text: &str| {
            let recipe: LoraRecipe = toml::from_str(text).unwrap();
            recipe.check(Some(&"base".into()), &TrainRecipe::default()).map_err(|e| e.message)
        };
        for key in ["alpha = 3.0", "targets = [\"query\"]"] {
            let name = key.split(' ').next().unwrap();
            let message =
                format!("`model.lora.{name}` is not read without a `model.lora.r` above 0");
            assert_eq!(check(key), Err(message.clone()));
            assert_eq!(check(&format!("r = 0\n{key}")), Err(message));
            assert_eq!(check(&format!("r = 2\n{key}")), Ok(()));
        }
        // As it is written down where nobody asks for adapters.
        assert_eq!(check(&toml::to_string(&LoraRecipe::default()).unwrap()), Ok(()));
    }
}
