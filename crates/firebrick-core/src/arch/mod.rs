//! One file per family: configuration, structs, forward pass, checkpoint names.
//!
//! [`open`] opens a checkpoint of any of them, for programs that do not care which it is.

pub mod ast;
pub mod bart;
pub mod bert;
pub mod bilstm;
pub mod clip;
pub mod clip_rnn;
pub mod convnext;
pub mod deep_speech;
pub mod detector;
pub mod gpt2;
pub mod image;
pub mod inputs;
pub mod llama;
pub mod mobilenet_v2;
pub mod motion;
pub mod recurrent;
pub mod resnet;
pub mod t5;
pub mod tagger;
pub mod text;
pub mod video;
pub mod videomae;
pub mod vit;
pub mod wav2vec2;
pub mod whisper;
pub mod yolos;

use std::path::Path;

use burn::{prelude::*, tensor::TensorData};

use crate::{
    checkpoint::{LoadError, Source, config, json::quoted, tensors::SaveType},
    generate::Decoder,
};

use image::Head;
use inputs::{InputError, Inputs};

/// Name and numbers of one output.
pub type Output = (&'static str, TensorData);

/// A model of any family with its head, as `transformers` names the pair: `BertForSequenceClassification`.
pub trait AnyModel: Send + Sync {
    /// Inputs and outputs carry the names that `transformers` gives them.
    fn forward(&self, inputs: &Inputs) -> Result<Vec<Output>, InputError>;

    /// Writes `model.safetensors` with the names that `transformers` expects.
    fn save(&self, path: &Path, dtype: SaveType) -> Result<(), LoadError>;

    /// The model as a writer of text, where it is one.
    fn decoder(&self) -> Option<&dyn Decoder> {
        None
    }
}

type Opened = Result<Box<dyn AnyModel>, LoadError>;
type Open = fn(&Source, &Device) -> Opened;

/// Every `model_type` that is read, and what opens it with the head that `architectures` names.
#[rustfmt::skip]
const FAMILIES: &[(&str, Open)] = &[
    ("bart", |s, d| boxed(bart::BartForConditionalGeneration::load(s, d))),
    ("marian", |s, d| boxed(bart::BartForConditionalGeneration::load(s, d))),
    ("bert", bert::open),
    ("roberta", bert::open),
    ("distilbert", bert::open),
    ("gpt2", gpt2::open),
    ("llama", |s, d| boxed(llama::LlamaForCausalLm::load(s, d))),
    ("mistral", |s, d| boxed(llama::LlamaForCausalLm::load(s, d))),
    ("qwen2", |s, d| boxed(llama::LlamaForCausalLm::load(s, d))),
    ("qwen3", |s, d| boxed(llama::LlamaForCausalLm::load(s, d))),
    ("vit", |s, d| boxed(vit::VitForImageClassification::load(s, Head::Own, d))),
    ("yolos", |s, d| boxed(yolos::YolosForObjectDetection::load(s, d))),
    ("audio-spectrogram-transformer", |s, d| boxed(ast::AstForAudioClassification::load(s, d))),
    ("videomae", |s, d| boxed(videomae::VideoMaeForVideoClassification::load(s, Head::Own, d))),
    ("clip", |s, d| boxed(clip::ClipModel::load(s, d))),
    ("t5", |s, d| boxed(t5::T5ForConditionalGeneration::load(s, d))),
    ("whisper", |s, d| boxed(whisper::WhisperForConditionalGeneration::load(s, d))),
    ("convnext", |s, d| boxed(convnext::ConvNextForImageClassification::load(s, Head::Own, d))),
    ("mobilenet_v2", |s, d| boxed(mobilenet_v2::MobileNetV2ForImageClassification::load(s, Head::Own, d))),
    ("resnet", |s, d| boxed(resnet::ResNetForImageClassification::load(s, Head::Own, d))),
    (recurrent::MODEL_TYPE, |s, d| boxed(recurrent::RecurrentForCausalLm::load(s, d))),
    (bilstm::MODEL_TYPE, |s, d| boxed(bilstm::BilstmForSequenceClassification::load(s, d))),
    (motion::MODEL_TYPE, |s, d| boxed(motion::FirebrickMotion::load(s, d))),
    (clip_rnn::MODEL_TYPE, |s, d| boxed(clip_rnn::FirebrickClipRnn::load(s, Head::Own, d))),
    (deep_speech::MODEL_TYPE, |s, d| boxed(deep_speech::FirebrickDeepSpeech::load(s, d))),
    (detector::MODEL_TYPE, |s, d| boxed(detector::FirebrickDetector::load(s, d))),
    ("wav2vec2", |s, d| boxed(wav2vec2::Wav2Vec2ForCtc::load(s, d))),
    ("firebrick-tagger", |s, d| boxed(tagger::FirebrickTagger::load(s, d))),
];

fn boxed<M: AnyModel + 'static>(model: Result<M, LoadError>) -> Opened {
    Ok(Box::new(model?))
}

/// Opens the family that `model_type` names.
pub fn open(source: &Source, device: &Device) -> Opened {
    let open = source.config_as(|config| {
        let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        config::check_model_type(config, &known)?;
        let mut families = FAMILIES.iter();
        let found = families.find(|(name, _)| config["model_type"] == *name);
        Ok(found.expect("it is one of them").1)
    })?;
    open(source, device)
}

/// The decoder of a model that must write; `source` is where it was opened.
pub fn writer<'a>(model: &'a dyn AnyModel, source: &Source) -> Result<&'a dyn Decoder, LoadError> {
    model.decoder().ok_or_else(|| LoadError::Config {
        path: source.path("config.json"),
        problem: "this architecture writes no text".into(),
    })
}

/// The head that `architectures` names must be one of `known`; the first of them when it names none.
fn architecture<'a>(config: &serde_json::Value, known: &[&'a str]) -> Result<&'a str, String> {
    match config.pointer("/architectures/0").and_then(|name| name.as_str()) {
        None => Ok(known[0]),
        Some(name) => known.iter().find(|known| **known == name).copied().ok_or_else(|| {
            format!("architectures names {}, which is none of {}", quoted(name), known.join(", "))
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
    pub fn check_but<M: Module, const D: usize>(model: &M, output: Tensor<D>, frozen: &[&str]) {
        assert_eq!(without(model, output), frozen, "without a gradient");
    }

    /// As [`check`], but for the averages that batch norms keep.
    #[track_caller]
    pub fn check_but_averages<M: Module, const D: usize>(model: &M, output: Tensor<D>) {
        let mut without = without(model, output);
        without.retain(|name| !name.contains(".running_"));
        assert!(without.is_empty(), "without a gradient: {without:?}");
    }

    fn without<M: Module, const D: usize>(model: &M, output: Tensor<D>) -> Vec<String> {
        let grads = output.square().sum().backward();
        let mut search = Search { grads, path: vec![], without: vec![] };
        model.visit(&mut search);
        search.without
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
