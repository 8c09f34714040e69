//! `firebrick models`: what a folder or file of weights holds, and rewriting it.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};
use firebrick_core::{
    arch,
    checkpoint::{
        Source, folder, header, json as strict,
        tensors::{SaveType, write_atomically},
    },
};
use firebrick_nlp::shipped;
use serde_json::json;

use super::Outcome;
use crate::{
    cli::{Global, ModelsCommand},
    failure::{BAD_FILE, Failure, USAGE},
};

pub fn run(command: ModelsCommand, global: &Global) -> Outcome {
    match command {
        ModelsCommand::Ls => {
            super::print(global, &json!(shipped::NAMES), &shipped::NAMES.join("\n"));
            Ok(())
        }
        ModelsCommand::Inspect { path } => inspect(&path, global),
        ModelsCommand::Convert { source, target, dtype } => {
            convert(&source, &target, &dtype, global)
        }
    }
}

fn inspect(path: &Path, global: &Global) -> Outcome {
    let bad = |problem: String| Failure::text(BAD_FILE, format!("{}: {problem}", path.display()));
    let is_config = path.extension().is_some_and(|e| e == "json");
    if is_config && !path.is_dir() {
        return inspect_config(path, global);
    }
    let files = match path.is_dir() {
        true => folder::weight_files(path).map_err(|e| bad(e.to_string()))?,
        false => vec![path.to_path_buf()],
    };
    let (mut text, mut list, mut findings) = (String::new(), vec![], vec![]);
    let mut parameters: u64 = 0;
    for file in &files {
        let header = header::read_header(file).map_err(|e| match path.is_dir() {
            true => Failure::text(BAD_FILE, format!("{}: {e}", file.display())),
            false => bad(e.to_string()),
        })?;
        for finding in header::scan(file, &header).map_err(|e| bad(e.to_string()))? {
            findings.push(finding.to_string());
        }
        for tensor in &header.tensors {
            let name = strict::quoted(&tensor.name);
            let count: u64 = tensor.shape.iter().map(|n| *n as u64).product();
            parameters += count;
            text.push_str(&format!("{name}  {:?}  {:?}\n", tensor.dtype, tensor.shape));
            list.push(json!({"name": tensor.name, "dtype": format!("{:?}", tensor.dtype), "shape": tensor.shape}));
        }
    }
    text.push_str(&format!("{} tensors, {parameters} parameters\n", list.len()));
    for finding in &findings {
        text.push_str(&format!("finding: {finding}\n"));
    }
    let report = json!({"tensors": list, "parameters": parameters, "findings": findings});
    super::print(global, &report, &text);
    Ok(())
}

fn inspect_config(path: &Path, global: &Global) -> Outcome {
    let bad = |problem: String| Failure::text(BAD_FILE, format!("{}: {problem}", path.display()));
    let config = strict::read_strict(path, 4 << 20).map_err(|e| bad(e.to_string()))?;
    firebrick_core::checkpoint::config_check::check_config(&config)
        .map_err(|e| bad(e.to_string()))?;
    let text = serde_json::to_string_pretty(&config).context("printing a configuration")?;
    super::print(global, &config, &text);
    Ok(())
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
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "firebrick.json",
    ] {
        let from = source.join(file);
        if from.is_file() {
            fs::copy(&from, target.join(file))
                .with_context(|| format!("copying {}", from.display()))?;
        }
    }
    super::print(global, &json!({"target": target}), &target.display().to_string());
    Ok(())
}
