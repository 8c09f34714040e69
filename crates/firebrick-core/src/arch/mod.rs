//! One file per family: configuration, structs, forward pass, checkpoint names.
//!
//! [`open`] opens a checkpoint of any of them, for programs that do not care which it is.

pub mod bart;
pub mod bert;
pub mod gpt2;
pub mod inputs;
pub mod llama;
pub mod t5;
pub mod whisper;

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
        "bart" | "marian" => bart::open(source, device),
        "bert" | "roberta" | "distilbert" => bert::open(source, device),
        "gpt2" => gpt2::open(source, device),
        "llama" | "mistral" | "qwen2" | "qwen3" => llama::open(source, device),
        "t5" => t5::open(source, device),
        "whisper" => whisper::open(source, device),
        _ => {
            let known = [
                "bart",
                "marian",
                "bert",
                "roberta",
                "distilbert",
                "gpt2",
                "llama",
                "mistral",
                "qwen2",
                "qwen3",
                "t5",
                "whisper",
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
mod tests {
    use burn::{
        module::{Module, ModuleVisitor, Param},
        optim::GradientsParams,
    };

    use super::*;

    /// Which parameters a training step leaves without a gradient.
    struct Idle {
        gradients: GradientsParams,
        path: Vec<String>,
        found: Vec<String>,
    }

    impl ModuleVisitor for Idle {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.gradients.get::<D>(param.id).is_none() {
                self.found.push(self.path.join("."));
            }
        }
    }

    /// A step on `logits` has a gradient for all parameters but the `frozen`.
    #[track_caller]
    fn check_trains<M: Module>(model: M, logits: impl Fn(&M) -> Tensor<3>, frozen: &[&str]) {
        let gradients = logits(&model).square().mean().backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        let mut idle = Idle { gradients, path: vec![], found: vec![] };
        model.visit(&mut idle);
        assert_eq!(idle.found, frozen);
    }

    /// Teacher forcing under autodiff, with dropout on.
    #[test]
    fn models_with_a_source_train() {
        let device = Device::flex().autodiff();
        let ids = |t: usize| Tensor::<1, Int>::arange(1..1 + 2 * t as i64, &device).reshape([2, t]);
        let pad = Tensor::from_data(
            [[false; 7], [false, false, false, false, false, true, true]],
            &device,
        );
        let bart = bart::BartConfig::tiny();
        let marian = bart::BartConfig { model_type: bart::ModelType::Marian, ..bart.clone() };
        for config in [bart, marian] {
            let logits = |model: &bart::Bart| model.forward(ids(7), Some(pad.clone()), ids(5));
            check_trains(config.init(&device), logits, &["logits_bias"]);
        }
        let t5 = t5::T5Config::tiny();
        let gated = t5::T5Config { feed_forward_proj: "gated-gelu".into(), ..t5.clone() };
        for (config, own_head) in [(t5, false), (gated, true)] {
            let logits = |model: &t5::T5| model.forward(ids(7), Some(pad.clone()), ids(5));
            check_trains(config.init(own_head, &device), logits, &[]);
        }
        let whisper = whisper::WhisperConfig::tiny();
        let sound = Tensor::<3>::ones([2, 8, 24], &device);
        let logits = |model: &whisper::Whisper| model.forward(sound.clone(), ids(5));
        check_trains(whisper.init(&device), logits, &["encoder.positions.weight"]);
    }
}
