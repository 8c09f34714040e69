//! `firebrick models`: what a folder or file of weights holds, and rewriting it.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};
use firebrick_core::{
    arch,
    checkpoint::{
        Source, folder,
        tensors::{SaveType, write_atomically},
    },
};
use serde_json::json;

use super::{Outcome, inspect};
use crate::{
    cli::{Global, ModelsCommand},
    failure::{BAD_FILE, Failure, USAGE},
    places,
};

pub fn run(command: ModelsCommand, global: &Global) -> Outcome {
    match command {
        ModelsCommand::Ls => {
            let names: Vec<&str> = places::shipped_names().collect();
            super::print(global, &json!(names), &names.join("\n"));
            Ok(())
        }
        ModelsCommand::Inspect { path, check } => inspect::run(&path, check, global),
        ModelsCommand::Convert { source, target, dtype } => {
            convert(&source, &target, &dtype, global)
        }
    }
}

fn convert(source: &Path, target: &Path, dtype: &str, global: &Global) -> Outcome {
    let folder = Source::folder(source);
    let (dtype, name) = match dtype {
        "f16" => (SaveType::F16, "float16"),
        "bf16" => (SaveType::Bf16, "bfloat16"),
        _ => (SaveType::F32, "float32"),
    };
    if target.exists() && fs::read_dir(target).is_ok_and(|mut dir| dir.next().is_some()) {
        let message = format!("{} is not empty; it was left as it is", target.display());
        return Err(Failure::text(USAGE, message));
    }
    let device = global.device.open()?;
    // Everything is read before anything is written.
    let mut config = folder.config()?;
    let model = arch::open(&folder, &device)?;
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    model.save(&target.join("model.safetensors"), dtype)?;
    let object = config.as_object_mut().ok_or_else(|| anyhow!("config.json is not an object"))?;
    let key = if object.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    object.insert(key.into(), name.into());
    let text = serde_json::to_string_pretty(&config).context("printing a configuration")?;
    write_atomically(&target.join("config.json"), text.as_bytes())
        .with_context(|| format!("writing {}", target.display()))?;
    copy_companions(source, target)?;
    super::print(global, &json!({"target": target}), &target.display().to_string());
    Ok(())
}

/// What a model folder holds beside its configuration and weights, and a converted one as well.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "source.spm",
    "target.spm",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "normalizer.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "features.json",
    "preprocessor_config.json",
    "processor_config.json",
    "firebrick.json",
    "README.md",
];

/// Copies the files that a folder holds beside its weights.
fn copy_companions(source: &Path, target: &Path) -> Outcome {
    for file in COMPANIONS {
        let bad = |e| Failure::text(BAD_FILE, format!("{}: {e}", source.display()));
        if folder::holds(source, file).map_err(bad)? {
            let from = source.join(file);
            fs::copy(&from, target.join(file))
                .with_context(|| format!("copying {}", from.display()))?;
        }
    }
    Ok(())
}
