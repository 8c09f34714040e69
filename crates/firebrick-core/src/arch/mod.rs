//! One file per family: configuration, structs, forward pass, checkpoint names.
//!
//! [`open`] opens a checkpoint of any of them, for programs that do not care which it is.

pub mod ast;
pub mod bart;
pub mod bert;
pub mod clip;
pub mod convnext;
pub mod gpt2;
pub mod inputs;
pub mod llama;
pub mod mobilenet_v2;
pub mod resnet;
pub mod t5;
pub mod videomae;
pub mod vit;
pub mod wav2vec2;
pub mod whisper;
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
        "bart" | "marian" => bart::open(source, device),
        "bert" | "roberta" | "distilbert" => bert::open(source, device),
        "convnext" => convnext::open(source, device),
        "gpt2" => gpt2::open(source, device),
        "llama" | "mistral" | "qwen2" | "qwen3" => llama::open(source, device),
        "vit" => vit::open(source, device),
        "yolos" => yolos::open(source, device),
        "audio-spectrogram-transformer" => ast::open(source, device),
        "videomae" => videomae::open(source, device),
        "clip" => clip::open(source, device),
        "t5" => t5::open(source, device),
        "whisper" => whisper::open(source, device),
        "mobilenet_v2" => mobilenet_v2::open(source, device),
        "resnet" => resnet::open(source, device),
        "wav2vec2" => wav2vec2::open(source, device),
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
                "vit",
                "yolos",
                "audio-spectrogram-transformer",
                "videomae",
                "clip",
                "t5",
                "whisper",
                "convnext",
                "mobilenet_v2",
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

#[cfg(test)]
mod gradients {
    use burn::{
        module::{Module, ModuleVisitor, Param},
        prelude::*,
        tensor::Gradients,
    };

    use super::{bart, t5, whisper};

    /// Every parameter of `model` must have a part in `output`.
    #[track_caller]
    pub fn check<M: Module, const D: usize>(model: &M, output: Tensor<D>) {
        check_but(model, output, &[]);
    }

    /// As [`check`], but for those that are frozen.
    #[track_caller]
    fn check_but<M: Module, const D: usize>(model: &M, output: Tensor<D>, frozen: &[&str]) {
        let grads = output.square().sum().backward();
        let mut search = Search { grads, path: vec![], without: vec![] };
        model.visit(&mut search);
        assert_eq!(search.without, frozen, "without a gradient");
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
            let model = config.init(&device);
            check_but(&model, logits(&model), &["logits_bias"]);
        }
        let t5 = t5::T5Config::tiny();
        let gated = t5::T5Config { feed_forward_proj: "gated-gelu".into(), ..t5.clone() };
        for (config, own_head) in [(t5, false), (gated, true)] {
            let logits = |model: &t5::T5| model.forward(ids(7), Some(pad.clone()), ids(5));
            let model = config.init(own_head, &device);
            check(&model, logits(&model));
        }
        let whisper = whisper::WhisperConfig::tiny();
        let sound = Tensor::<3>::ones([2, 8, 24], &device);
        let logits = |model: &whisper::Whisper| model.forward(sound.clone(), ids(5));
        let model = whisper.init(&device);
        check_but(&model, logits(&model), &["encoder.positions.weight"]);
    }
}
