//! Sentence embeddings: the mean of a BERT encoder's vectors, or its first one, as sentence-transformers has them.
//!
//! Paper: Reimers & Gurevych 2019, <https://arxiv.org/abs/1908.10084>.

use anyhow::{Context, bail, ensure};
use burn::prelude::*;
use firebrick_core::{arch::bert, checkpoint::Source};
use serde_json::Value;

use crate::{batch::pad, tokenizer::TextTokenizer};

/// How the vectors of a sentence's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    FirstToken,
}

/// A model folder of sentence-transformers, or a bare encoder (mean, not normalised).
pub struct Embedder {
    model: bert::BertModel,
    tokenizer: TextTokenizer,
    max_len: usize,
    pooling: Pooling,
    /// To length 1.
    normalise: bool,
    device: Device,
}

impl Embedder {
    pub fn open(source: &Source, device: &Device) -> anyhow::Result<Self> {
        let (config, model) = bert::load_model(source, device)?;
        let tokenizer = TextTokenizer::open(source)?;
        ensure!(
            tokenizer.vocab_size() <= config.vocab_size,
            "{}: {} tokens, but the model has embeddings for {}",
            source.path("tokenizer.json").display(),
            tokenizer.vocab_size(),
            config.vocab_size
        );
        let own = source.json("sentence_bert_config.json")?.unwrap_or_default();
        let asked = own["max_seq_length"].as_u64().map_or(usize::MAX, |n| n as usize);
        let modules = source.json("modules.json")?;
        let (pooling, normalise) = match &modules {
            Some(modules) => read_modules(source, modules)
                .with_context(|| source.path("modules.json").display().to_string())?,
            None => (Pooling::Mean, false),
        };
        let max_len = config.longest().min(asked).max(2);
        Ok(Self { model, tokenizer, max_len, pooling, normalise, device: device.clone() })
    }

    /// One vector a text, in their order; texts of like length share a batch.
    pub fn embed(&self, texts: &[&str], batch_size: usize) -> Vec<Vec<f32>> {
        let ids: Vec<Vec<u32>> =
            texts.iter().map(|text| self.tokenizer.encode(text, self.max_len)).collect();
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| ids[*i].len());
        let mut vectors = vec![vec![]; texts.len()];
        for part in order.chunks(batch_size.max(1)) {
            let batch: Vec<&[u32]> = part.iter().map(|i| ids[*i].as_slice()).collect();
            let (ids, pad) = pad(&batch, self.tokenizer.pad_id(), &self.device);
            let hidden = self.model.encoder.forward(ids, None, Some(pad.clone())); // [B, T, C]
            let pooled = self.pool(hidden, pad); // [B, C]
            let [_, c] = pooled.dims();
            let flat = pooled.into_data().try_into_vec::<f32>().expect("models compute in f32");
            for (i, vector) in part.iter().zip(flat.chunks(c)) {
                vectors[*i] = vector.to_vec();
            }
        }
        vectors
    }

    /// `hidden`: `[B, T, C]`, `pad`: `[B, T]` -> `[B, C]`
    fn pool(&self, hidden: Tensor<3>, pad: Tensor<2, Bool>) -> Tensor<2> {
        let pooled: Tensor<2> = match self.pooling {
            Pooling::FirstToken => hidden.narrow(1, 0, 1).squeeze_dim(1),
            Pooling::Mean => {
                let seen = pad.bool_not().float(); // [B, T]
                let count = seen.clone().sum_dim(1); // [B, 1]
                let sum: Tensor<2> = (hidden * seen.unsqueeze_dim(2)).sum_dim(1).squeeze_dim(1);
                sum / count
            }
        };
        match self.normalise {
            true => {
                let length = pooled.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
                pooled / length
            }
            false => pooled,
        }
    }
}

/// `modules.json`: a list of stages, of which an encoder, a pooling and a normalisation are known.
fn read_modules(source: &Source, modules: &Value) -> anyhow::Result<(Pooling, bool)> {
    let (mut pooling, mut normalise) = (Pooling::Mean, false);
    for module in modules.as_array().context("is not a list")? {
        let kind = module["type"].as_str().unwrap_or_default();
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => {
                let path = module["path"].as_str().unwrap_or_default();
                let file = format!("{path}/config.json");
                ensure!(
                    path.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                    "{file} leads out of the folder"
                );
                pooling = read_pooling(&source.json(&file)?.unwrap_or_default()).context(file)?;
            }
            "Normalize" => normalise = true,
            _ => {
                bail!("the stage {kind:?} is not supported: Transformer, Pooling and Normalize are")
            }
        }
    }
    Ok((pooling, normalise))
}

fn read_pooling(config: &Value) -> anyhow::Result<Pooling> {
    let fields = config.as_object().into_iter().flatten();
    let on: Vec<&str> = fields
        .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == true)
        .map(|(key, _)| key.as_str())
        .collect();
    match on.as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::FirstToken),
        other => bail!("the pooling {other:?} is not supported: mean_tokens and cls_token are"),
    }
}
