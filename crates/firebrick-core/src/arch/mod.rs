//! One file per family: configuration, structs, forward pass, checkpoint names.
//!
//! [`open`] opens a checkpoint of any of them, for programs that do not care which it is.

pub mod ast;
pub mod bert;
pub mod clip;
pub mod gpt2;
pub mod inputs;
pub mod llama;
pub mod videomae;
pub mod vit;
pub mod yolos;

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
        "gpt2" => gpt2::open(source, device),
        "llama" | "mistral" | "qwen2" | "qwen3" => llama::open(source, device),
        "vit" => vit::open(source, device),
        "yolos" => yolos::open(source, device),
        "audio-spectrogram-transformer" => ast::open(source, device),
        "videomae" => videomae::open(source, device),
        "clip" => clip::open(source, device),
        _ => {
            let known = [
                "bert",
                "roberta",
                "distilbert",
                "gpt2",
                "llama",
                "mistral",
                "qwen2",
                "qwen3",
                "vit",
                "yolos",
                "audio-spectrogram-transformer",
                "videomae",
                "clip",
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

#[cfg(test)]
mod gradients {
    use burn::{
        module::{Module, ModuleVisitor, Param},
        prelude::*,
        tensor::Gradients,
    };

    /// Every parameter of `model` must have a part in `output`.
    #[track_caller]
    pub fn check<M: Module, const D: usize>(model: &M, output: Tensor<D>) {
        let grads = output.square().sum().backward();
        let mut search = Search { grads, path: vec![], without: vec![] };
        model.visit(&mut search);
        assert!(search.without.is_empty(), "without a gradient: {:?}", search.without);
    }

    struct Search {
        grads: Gradients,
        path: Vec<String>,
        without: Vec<String>,
    }

    impl ModuleVisitor for Search {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().grad(&self.grads).is_none() {
                self.without.push(self.path.join("."));
            }
        }
    }
}
