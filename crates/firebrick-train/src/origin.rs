//! Where a model comes from and what was measured of it: `firebrick.json` and the card in its folder.

use std::path::Path;

use anyhow::Context;
use firebrick_core::checkpoint::{LoadError, Source, tensors::write_atomically};
use serde::{Deserialize, Serialize};

use crate::{job::Scores, run::RunInfo};

/// `firebrick.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// As recipes name it.
    pub task: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Tokens of a text that are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_len: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// Score from which on a box is shown: of the best F1 on validation pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_threshold: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// Whether a translator has seen Chinese in simplified characters only, so that what it is asked is turned into them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simplify: bool,
    pub recipe: String,
    pub recipe_sha256: String,
    pub data_sha256: String,
    /// Measured by the run that made the model.
    pub metrics: Scores,
}

/// How a model of two classes decides, where that is not for the likelier one. Chosen on validation data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The label that is looked for.
    pub positive: String,
    /// Share of the positive validation rows that are to be found.
    pub sensitivity: f64,
    /// A row is positive whose probability of being so is this or more.
    pub threshold: f64,
    /// Probabilities between these are too close to the threshold to be relied on.
    pub abstain: [f64; 2],
}

/// Where a model's score begins to mean yes. Chosen on validation data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// A score of this or more is a yes.
    pub value: f64,
    /// Share of the validation scores that should be a no and reach it.
    pub false_alarms: f64,
}

/// That a translator knows placeholders, and what they may stand for beside numbers and terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Unknown words with a capital letter are names; not so in German, where every noun has one.
    pub names: bool,
}

impl Origin {
    /// Of the model that a run makes by the recipe called `recipe`.
    pub fn new(task: &str, recipe: &str, run: &RunInfo, metrics: Scores) -> Self {
        Self {
            task: task.into(),
            labels: vec![],
            max_len: None,
            decision: None,
            threshold: None,
            box_threshold: None,
            copies: None,
            simplify: false,
            recipe: recipe.into(),
            recipe_sha256: run.recipe_sha256.clone(),
            data_sha256: run.data_sha256.clone(),
            metrics,
        }
    }

    /// Of a model folder; `None` where somebody else made it.
    pub fn read(source: &Source) -> Option<Self> {
        serde_json::from_slice(&source.read("firebrick.json", 1 << 20).ok()?).ok()
    }

    /// As [`Self::read`], of a model that is opened for `task`.
    pub fn read_for(task: &str, source: &Source) -> Result<Option<Self>, LoadError> {
        match Self::read(source) {
            Some(origin) if origin.task != task => Err(LoadError::Config {
                path: source.path("firebrick.json"),
                problem: format!("the model is for `{}`, not for `{task}`", origin.task),
            }),
            origin => Ok(origin),
        }
    }

    /// Writes `firebrick.json` and the card, with the metadata that model hubs read. `pipeline` is the hubs' word for
    /// the task, `about` a sentence on the model.
    pub fn save(&self, dir: &Path, pipeline: &str, about: &str) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        for (file, text) in [("firebrick.json", json), ("README.md", self.card(pipeline, about))] {
            let path = dir.join(file);
            write_atomically(&path, text.as_bytes())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn card(&self, pipeline: &str, about: &str) -> String {
        let mut results = String::new();
        for (split, metrics) in &self.metrics {
            for (name, value) in metrics {
                results.push_str(&format!("| {split} | {name} | {value:.4} |\n"));
            }
        }
        format!(
            "---\nlibrary_name: firebrick\npipeline_tag: {pipeline}\ntags:\n- firebrick\n---\n\n\
             # {name}\n\n{about} Trained by Firebrick's recipe `{name}`.\n\n\
             | part | score | value |\n|---|---|---|\n{results}\n\
             Every number was measured by the run that made these weights.\n\
             Recipe SHA-256 `{recipe}`, data SHA-256 `{data}`.\n",
            name = self.recipe,
            recipe = self.recipe_sha256,
            data = self.data_sha256,
        )
    }
}
