//! A model folder with a tokenizer and labels: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use burn::tensor::Device;
use firebrick_core::{
    arch::text::{self, TextClassifierModel, TextConfig, TextModel},
    checkpoint::{
        LoadError, Source,
        tensors::{SaveType, write_atomically},
    },
};
use firebrick_metrics::confusion::argmax;
use firebrick_train::origin::Origin;

use super::task::scores;
use crate::tokenizer::{TextTokenizer, longest_of};

/// A model that reads text.
pub struct TextClassifier {
    pub config: TextConfig,
    pub model: TextModel,
    pub tokenizer: TextTokenizer,
    pub labels: Vec<String>,
    pub max_len: usize,
}

/// A text's tokens: of an empty one, if the tokenizer puts nothing around it, the one that stands for padding.
pub fn encode(tokenizer: &TextTokenizer, text: &str, max_len: usize) -> Vec<u32> {
    let ids = tokenizer.encode(text, max_len);
    if ids.is_empty() { vec![tokenizer.pad_id()] } else { ids }
}

/// One text's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the label with the highest score.
    pub label: usize,
    /// Probabilities by label.
    pub scores: Vec<f32>,
}

impl TextClassifier {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let TextClassifierModel { config, model } = TextClassifierModel::load(source, device)?;
        let kind = source.config()?["problem_type"].as_str().map(str::to_string);
        let problem = match kind.as_deref() {
            Some(kind @ ("regression" | "multi_label_classification")) => {
                Some(format!("problem_type is {kind}"))
            }
            _ if model.labels() == 1 => Some("it has one output".to_string()),
            _ => None,
        };
        if let Some(problem) = problem {
            let path = source.path("config.json");
            let next = "this model gives scores, and not one label of several: `firebrick forward` computes them";
            return Err(LoadError::Config { path, problem: format!("{problem}: {next}") }.into());
        }
        let tokenizer = TextTokenizer::open(source)?;
        if tokenizer.vocab_size() > config.vocab_size() {
            bail!(
                "{}: {} tokens, but the model has embeddings for {}",
                source.path("tokenizer.json").display(),
                tokenizer.vocab_size(),
                config.vocab_size()
            );
        }
        let origin = Origin::read(source);
        let longest = config.longest();
        // As `transformers` cuts texts with `truncation=True`.
        let cut = longest_of(&source.json("tokenizer_config.json")?.unwrap_or_default());
        let own = origin.as_ref().and_then(|origin| origin.max_len).unwrap_or(longest);
        let max_len = longest.min(cut).min(own);
        let mut labels = config.labels();
        if labels.is_empty() {
            labels = origin.map_or_else(Vec::new, |origin| origin.labels);
        }
        if labels.is_empty() {
            // `transformers` leaves these out of the file, and reads them so.
            labels = (0..model.labels()).map(|i| format!("LABEL_{i}")).collect();
        }
        Ok(Self { config, model, tokenizer, labels, max_len })
    }

    /// Answers in the order of the texts.
    pub fn predict(&self, texts: &[&str], batch_size: usize) -> Vec<Prediction> {
        let ids: Vec<Vec<u32>> =
            texts.iter().map(|text| encode(&self.tokenizer, text, self.max_len)).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        scores(&self.model, &ids, self.tokenizer.pad_id(), batch_size)
            .into_iter()
            .map(|scores| Prediction { label: argmax(&scores), scores })
            .collect()
    }

    /// Writes a folder that `transformers` opens: config, weights, tokenizer, card, origin.
    pub fn save(&self, dir: &Path, origin: &Origin, dtype: SaveType) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut config = self.config.to_json();
        if dtype == SaveType::F16 {
            config["torch_dtype"] = "float16".into();
        }
        text::save(&self.model, &self.config, &dir.join("model.safetensors"), dtype)?;
        self.tokenizer.save(dir, Some(self.max_len))?;
        let path = dir.join("config.json");
        write_atomically(&path, serde_json::to_string_pretty(&config)?.as_bytes())
            .with_context(|| format!("writing {}", path.display()))?;
        let about = format!("A text classifier for the labels {}.", origin.labels.join(", "));
        origin.save(dir, "text-classification", &about)
    }
}
