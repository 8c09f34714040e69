//! Whole layers out of a model.

use std::{fs, path::Path};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use firebrick_core::{
    arch,
    checkpoint::{
        LoadError, Source,
        tensors::{self, Weights},
    },
};
use serde_json::Value;

use crate::folder;

/// Layers on top of each other: where `config.json` says how many they are, and what stands before a layer's number in
/// the names of its tensors.
type Stack = (&'static str, &'static str);

/// The stacks of a family, by `model_type`.
#[rustfmt::skip]
const STACKS: &[(&str, &[Stack])] = &[
    ("bert",       &[("num_hidden_layers", "encoder.layer.")]),
    ("roberta",    &[("num_hidden_layers", "encoder.layer.")]),
    ("distilbert", &[("n_layers", "transformer.layer.")]),
    ("gpt2",       &[("n_layer", "transformer.h.")]),
    ("llama",      &[("num_hidden_layers", "model.layers.")]),
    ("mistral",    &[("num_hidden_layers", "model.layers.")]),
    ("qwen2",      &[("num_hidden_layers", "model.layers.")]),
    ("qwen3",      &[("num_hidden_layers", "model.layers.")]),
    ("marian",     &[("encoder_layers", "encoder.layers."), ("decoder_layers", "decoder.layers.")]),
    ("bart",       &[("encoder_layers", "encoder.layers."), ("decoder_layers", "decoder.layers.")]),
    ("vit",        &[("num_hidden_layers", "encoder.layer.")]),
];

/// A layer: of which stack, and which of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    pub stack: usize,
    pub index: usize,
}

fn stacks(config: &Value) -> anyhow::Result<&'static [Stack]> {
    let family = config["model_type"].as_str().unwrap_or_default();
    let found = STACKS.iter().find(|(known, _)| *known == family);
    let known: Vec<&str> = STACKS.iter().map(|(known, _)| *known).collect();
    let known = known.join(", ");
    found
        .map(|(_, stacks)| *stacks)
        .with_context(|| format!("layers can be taken out of {known}, and not out of a {family}"))
}

/// All layers of the model with this `config.json`, in order.
pub fn all(config: &Value) -> anyhow::Result<Vec<Layer>> {
    let mut all = vec![];
    for (stack, (key, _)) in stacks(config)?.iter().enumerate() {
        let count = config[*key].as_u64().with_context(|| format!("config.json has no {key}"))?;
        all.extend((0..count as usize).map(|index| Layer { stack, index }));
    }
    Ok(all)
}

/// Writes `source` without the layers `gone`; those above them move down.
pub fn without(
    source: &Source,
    gone: &[Layer],
    target: &Path,
    device: &Device,
) -> anyhow::Result<()> {
    let mut config = source.config()?;
    let stacks = stacks(&config)?;
    let kept: Vec<Layer> =
        all(&config)?.into_iter().filter(|layer| !gone.contains(layer)).collect();
    for (stack, (key, _)) in stacks.iter().enumerate() {
        let of_stack = || kept.iter().filter(|layer| layer.stack == stack);
        ensure!(of_stack().next().is_some(), "no layer would be left of {key}");
        // What `config.json` says of each layer.
        if let Some(types) = config.get_mut("layer_types").and_then(Value::as_array_mut) {
            let left = of_stack().filter_map(|layer| types.get(layer.index).cloned());
            *types = left.collect();
        }
        config[*key] = of_stack().count().into();
    }
    // BART's name for its encoder's.
    if config.get("num_hidden_layers").is_some() && config.get("encoder_layers").is_some() {
        config["num_hidden_layers"] = config["encoder_layers"].clone();
    }
    let name_of = |name: &str| {
        for (stack, (_, before)) in stacks.iter().enumerate() {
            let Some((front, back)) = name.split_once(before) else { continue };
            let Some((number, back)) = back.split_once('.') else { continue };
            let Ok(index) = number.parse::<usize>() else { continue };
            let left = kept.iter().filter(|layer| layer.stack == stack);
            let place = left.map(|layer| layer.index).position(|left| left == index)?;
            return Some(format!("{front}{before}{place}.{back}"));
        }
        Some(name.to_string())
    };
    let model = arch::open(source, device)?;
    let dtype = folder::float_type(&config);
    folder::write(source, target, &config, |file| {
        // All of it as floats, by the names of today.
        let whole = file.with_file_name("whole");
        let failed = |source| LoadError::Write { path: whole.clone(), source };
        fs::create_dir_all(&whole).map_err(failed)?;
        model.save(&whole.join("model.safetensors"), dtype.clone())?;
        tensors::rename(&Weights::open(&whole)?, file, dtype, name_of)?;
        fs::remove_dir_all(&whole).map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use firebrick_core::{
        arch::{
            AnyModel,
            bart::{BartConfig, BartForConditionalGeneration},
            gpt2::{Gpt2Config, Gpt2LmHead},
        },
        checkpoint::tensors::SaveType,
    };

    use super::*;

    fn shape(folder: &Path, name: &str) -> Option<Vec<usize>> {
        Weights::open(folder).unwrap().shape(name).map(<[usize]>::to_vec)
    }

    fn floats(folder: &Path, name: &str) -> Vec<f32> {
        Weights::open(folder).unwrap().floats(name).unwrap()
    }

    #[test]
    fn the_layers_above_move_down() {
        let device = Device::flex();
        let dir = tempfile::tempdir().unwrap();
        let [whole, less] = ["whole", "less"].map(|name| dir.path().join(name));
        fs::create_dir(&whole).unwrap();
        let config = Gpt2Config { n_layer: 3, ..Gpt2Config::tiny() };
        let model = Gpt2LmHead { model: config.init(&device), config: config.clone() };
        model.save(&whole.join("model.safetensors"), SaveType::F32).unwrap();
        fs::write(whole.join("config.json"), config.to_json().to_string()).unwrap();
        let source = Source::folder(&whole);
        let layers = all(&source.config().unwrap()).unwrap();
        assert_eq!(layers.len(), 3);
        without(&source, &layers[1..2], &less, &device).unwrap();
        let read = Gpt2LmHead::load(&Source::folder(&less), &device).unwrap();
        assert_eq!(read.config.n_layer, 2);
        for (old, new) in [(0, 0), (2, 1)] {
            let name = |layer| format!("transformer.h.{layer}.mlp.c_fc.weight");
            assert_eq!(floats(&whole, &name(old)), floats(&less, &name(new)));
        }
        assert!(!less.join("whole").exists());
        let error = without(&source, &layers, &less, &device).unwrap_err().to_string();
        assert!(error.contains("no layer would be left of n_layer"), "{error}");
    }

    #[test]
    fn an_encoder_and_a_decoder_lose_layers_each_by_itself() {
        let device = Device::flex();
        let dir = tempfile::tempdir().unwrap();
        let [whole, less] = ["whole", "less"].map(|name| dir.path().join(name));
        fs::create_dir(&whole).unwrap();
        let config = BartConfig::tiny();
        let model =
            BartForConditionalGeneration { model: config.init(&device), config: config.clone() };
        model.save(&whole.join("model.safetensors"), SaveType::F32).unwrap();
        fs::write(whole.join("config.json"), config.to_json().to_string()).unwrap();
        let source = Source::folder(&whole);
        without(&source, &[Layer { stack: 1, index: 0 }], &less, &device).unwrap();
        let read = BartForConditionalGeneration::load(&Source::folder(&less), &device).unwrap();
        assert_eq!([read.config.encoder_layers, read.config.decoder_layers], [2, 1]);
        let norm = |stack: &str, layer: usize| format!("model.{stack}.layers.{layer}.fc1.weight");
        assert_eq!(floats(&whole, &norm("decoder", 1)), floats(&less, &norm("decoder", 0)));
        assert_eq!(floats(&whole, &norm("encoder", 1)), floats(&less, &norm("encoder", 1)));
        assert_eq!(shape(&less, &norm("decoder", 1)), None);
    }

    #[test]
    fn families_without_layers_of_one_kind_are_named() {
        let config = serde_json::json!({"model_type": "resnet"});
        assert!(all(&config).unwrap_err().to_string().contains("not out of a resnet"));
    }
}
