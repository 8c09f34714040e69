//! One file per family: configuration, structs, forward pass, checkpoint names.
//!
//! [`open`] opens a checkpoint of any of them, for programs that do not care which it is.

pub mod bert;
pub mod convnext;
pub mod gpt2;
pub mod inputs;
pub mod llama;
pub mod mobilenet_v2;
pub mod resnet;
pub mod wav2vec2;

use std::path::Path;

use burn::{prelude::*, tensor::TensorData};

use crate::{
    checkpoint::{LoadError, Source, config, tensors::SaveType},
    generate::Decoder,
};

use inputs::{InputError, Inputs};

/// Name and numbers of one output.
pub type Output = (&'static str, TensorData);

/// A model of any family with its head, as `transformers` names the pair: `BertForSequenceClassification`.
pub trait AnyModel {
    /// Inputs and outputs carry the names that `transformers` gives them.
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError>;

    /// Writes `model.safetensors` with the names that `transformers` expects.
    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError>;

    /// The model as a writer of text, where it is one.
    fn decoder(&self) -> Option<&dyn Decoder> {
        None
    }
}

/// Opens the family that `model_type` names, with the head that `architectures` names.
pub fn open(source: &Source, device: &Device) -> Result<Box<dyn AnyModel>, LoadError> {
    let config = source.config()?;
    let family = config.get("model_type").and_then(|name| name.as_str()).unwrap_or_default();
    match family {
        "bert" | "roberta" | "distilbert" => bert::open(source, device),
        "convnext" => convnext::open(source, device),
        "gpt2" => gpt2::open(source, device),
        "llama" | "mistral" | "qwen2" | "qwen3" => llama::open(source, device),
        "mobilenet_v2" => mobilenet_v2::open(source, device),
        "resnet" => resnet::open(source, device),
        "wav2vec2" => wav2vec2::open(source, device),
        _ => {
            let known = [
                "bert",
                "roberta",
                "distilbert",
                "convnext",
                "gpt2",
                "llama",
                "mistral",
                "mobilenet_v2",
                "qwen2",
                "qwen3",
                "resnet",
                "wav2vec2",
            ];
            let problem = config::check_model_type(&config, &known)
                .expect_err("every known family has an arm above");
            Err(LoadError::Config { path: source.path("config.json"), problem })
        }
    }
}

/// The head that `architectures` names must be one of `known`; the first of them when it names none.
fn architecture<'a>(config: &serde_json::Value, known: &[&'a str]) -> Result<&'a str, String> {
    match config.pointer("/architectures/0").and_then(|name| name.as_str()) {
        None => Ok(known[0]),
        Some(name) => known.iter().find(|known| **known == name).copied().ok_or_else(|| {
            let name = crate::checkpoint::json::quoted(name);
            format!("architectures names {name}, which is none of {}", known.join(", "))
        }),
    }
}
