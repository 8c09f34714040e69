//! Models in the formats of other programs: ONNX and GGUF.
//!
//! A checkpoint of any kind is opened as the model that it is first, so that one that is broken or has parts which are
//! not understood ends here; its tensors then go out as they are named in it.

pub mod gguf;
mod graph;
mod onnx;
mod onnx_bert;
mod onnx_image;

use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use firebrick_core::{
    arch,
    checkpoint::{Source, tensors::write_atomically},
};
use serde_json::Value;

use graph::Graph;

/// A model that a format has no form for here; the message says which it has.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoForm(String);

/// Writes a text classifier of the BERT family, a ViT or a ResNet as an ONNX model in f32 (operator set 20).
///
/// Text goes in as `input_ids`, `attention_mask` and, where the model has segments, `token_type_ids`, each `[batch,
/// tokens]`; pictures and spectrograms as `pixel_values` `[batch, channels, rows, columns]`; `logits` `[batch, labels]`
/// come out. Label names lie in the model's metadata under `id2label`.
pub fn onnx(source: &Source, target: &Path, device: &Device) -> anyhow::Result<()> {
    let config = source.config()?;
    let family = config["model_type"].as_str().unwrap_or_default();
    drop(arch::open(source, device)?);
    let weights = source.weights()?;
    let graph = Graph::new(&weights);
    let graph = match (family, config.pointer("/architectures/0").and_then(Value::as_str)) {
        ("bert" | "roberta" | "distilbert", Some(name))
            if name.ends_with("SequenceClassification") =>
        {
            onnx_bert::build(graph, source)?
        }
        ("vit", _) => onnx_image::vit(graph, &config)?,
        ("resnet", _) => onnx_image::resnet(graph, &config)?,
        (_, head) => {
            let head = head.unwrap_or(family);
            let message = format!(
                "{head} has no ONNX form here: it is for sequence classifiers of the BERT family, ViT and ResNet"
            );
            return Err(NoForm(message).into());
        }
    };
    let labels = config.get("id2label").map(Value::to_string);
    let bytes = graph.finish(labels.as_deref())?;
    write_atomically(target, &bytes).with_context(|| format!("writing {}", target.display()))
}
