//! A model folder with a tokenizer and labels: opened, asked, saved.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use burn::tensor::Device;
use firebrick_core::{
    arch::bert::{self, BertClassifier, BertConfig},
    checkpoint::{
        Source,
        tensors::{SaveType, write_atomically},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    task::{argmax, scores},
    tokenizer::TextTokenizer,
};

/// A tokenizer of a hundred thousand pieces has 10 MB.
const TOKENIZER_LIMIT: u64 = 64 << 20;

/// `firebrick.json`: where a model comes from and what was measured of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub task: String,
    pub labels: Vec<String>,
    /// Tokens of a text that are read.
    pub max_len: usize,
    pub recipe: String,
    pub recipe_sha256: String,
    pub data_sha256: String,
    /// Scores by part of the data, measured by the run that made the model.
    pub metrics: std::collections::BTreeMap<String, firebrick_train::fit::Metrics>,
}

/// A model that reads text.
pub struct TextClassifier {
    pub config: BertConfig,
    pub model: BertClassifier,
    pub tokenizer: TextTokenizer,
    pub labels: Vec<String>,
    pub max_len: usize,
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
        let loaded = bert::load_classifier(source, device)?;
        let bytes = source.read("tokenizer.json", TOKENIZER_LIMIT)?;
        let tokenizer = TextTokenizer::from_bytes(&bytes)
            .with_context(|| source.path("tokenizer.json").display().to_string())?;
        if tokenizer.vocab_size() > loaded.config.vocab_size {
            bail!(
                "{}: {} tokens, but the model has embeddings for {}",
                source.path("tokenizer.json").display(),
                tokenizer.vocab_size(),
                loaded.config.vocab_size
            );
        }
        let origin: Option<Origin> = source
            .read("firebrick.json", 1 << 20)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let longest = loaded.config.longest();
        let max_len = origin.as_ref().map_or(longest, |origin| origin.max_len.min(longest));
        let mut labels = loaded.config.labels();
        if labels.is_empty() {
            labels = origin.map_or_else(Vec::new, |origin| origin.labels);
        }
        if labels.is_empty() {
            // `transformers` leaves these out of the file, and reads them so.
            labels = (0..loaded.model.labels()).map(|i| format!("LABEL_{i}")).collect();
        }
        Ok(Self { config: loaded.config, model: loaded.model, tokenizer, labels, max_len })
    }

    /// Answers in the order of the texts.
    pub fn predict(&self, texts: &[&str], batch_size: usize) -> Vec<Prediction> {
        let ids: Vec<Vec<u32>> =
            texts.iter().map(|text| self.tokenizer.encode(text, self.max_len)).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        scores(&self.model, &ids, self.tokenizer.pad_id(), batch_size)
            .into_iter()
            .map(|scores| Prediction { label: argmax(&scores), scores })
            .collect()
    }

    /// Writes a folder that `transformers` opens: config, weights, tokenizer, card, origin.
    pub fn save(&self, dir: &Path, origin: &Origin, dtype: SaveType) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        bert::save_classifier(&self.model, &self.config, &dir.join("model.safetensors"), dtype)?;
        let mut config = self.config.to_json();
        if dtype == SaveType::F16 {
            config["torch_dtype"] = "float16".into();
        }
        let texts = [
            ("config.json", serde_json::to_string_pretty(&config)?),
            ("tokenizer_config.json", self.tokenizer_config()?),
            ("firebrick.json", serde_json::to_string_pretty(origin)?),
            ("README.md", card(origin)),
        ];
        self.tokenizer.save(&dir.join("tokenizer.json"))?;
        for (file, text) in texts {
            let path = dir.join(file);
            write_atomically(&path, text.as_bytes())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn tokenizer_config(&self) -> anyhow::Result<String> {
        let config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.max_len,
            "pad_token": self.tokenizer.pad_token(),
            "unk_token": self.tokenizer.unknown_token(),
        });
        Ok(serde_json::to_string_pretty(&config)?)
    }
}

/// The model card, with the metadata that model hubs read and the results that were measured.
fn card(origin: &Origin) -> String {
    let mut results = String::new();
    for (split, metrics) in &origin.metrics {
        for (name, value) in metrics {
            results.push_str(&format!("| {split} | {name} | {value:.4} |\n"));
        }
    }
    format!(
        "---\nlibrary_name: firebrick\npipeline_tag: text-classification\ntags:\n- firebrick\n---\n\n\
         # {name}\n\nA BERT text classifier for the labels {labels}, trained by Firebrick's recipe `{name}`.\n\n\
         | part | score | value |\n|---|---|---|\n{results}\n\
         Every number was measured by the run that made these weights.\n\
         Recipe SHA-256 `{recipe}`, data SHA-256 `{data}`.\n",
        name = origin.recipe,
        labels = origin.labels.join(", "),
        recipe = origin.recipe_sha256,
        data = origin.data_sha256,
    )
}
