//! Which groups of attention heads a language model can do without, and the model without them.

use std::path::Path;

use anyhow::ensure;
use burn::{module::Module, tensor::Device};
use firebrick_compress::{folder, prune};
use firebrick_core::{
    arch::{
        AnyModel,
        llama::{Llama, LlamaForCausalLm},
    },
    checkpoint::Source,
};

use super::causal::{CausalLm, LanguageModel, Windows};

/// Windows that the groups are judged by; more do not change which are kept by much.
const WINDOWS: usize = 256;
const BATCH: usize = 8;

/// Writes `source`, a Llama, Mistral or Qwen, without the share `heads` of each layer's groups of heads: those whose loss, on
/// `windows` of text that the model was trained on, would be felt least.
pub fn without_heads(
    source: &Source,
    heads: f64,
    windows: &Windows,
    device: &Device,
    target: &Path,
) -> anyhow::Result<()> {
    let device = device.clone().autodiff();
    device.seed(0);
    let LlamaForCausalLm { config, model } = LlamaForCausalLm::load(source, &device)?;
    let model = model.materialize();
    let kept = prune::most_important(&effects(&model, windows, &device), heads);
    let (all, left) = (config.key_value_heads(), kept.first().map_or(0, Vec::len));
    ensure!(
        (1..all).contains(&left),
        "{heads} of {all} groups of heads leaves {left} of them: choose another share"
    );
    let smaller = LlamaForCausalLm {
        config: config.with_groups(left),
        model: model.valid().with_groups(&kept),
    };
    let mut json = source.config()?;
    json["num_attention_heads"] = smaller.config.num_attention_heads.into();
    json["num_key_value_heads"] = left.into();
    json["head_dim"] = smaller.config.head_dim().into();
    folder::write(source, target, &json, |file| smaller.save(file, folder::float_type(&json)))
}

/// By layer and group.
fn effects(model: &Llama, windows: &Windows, device: &Device) -> Vec<Vec<f32>> {
    let task = CausalLm { model: LanguageModel::Llama(model.clone()), label_smoothing: 0.0 };
    prune::importance(&task, windows, [WINDOWS, BATCH], device, |gradients| {
        model.group_effects(gradients)
    })
}
