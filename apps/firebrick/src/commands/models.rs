//! `firebrick models`: what a folder or file of weights holds, and rewriting it.

use std::{ffi::OsStr, fs, path::Path};

use firebrick_compress::{
    card,
    export::{
        gguf::{Number, gguf},
        onnx,
    },
    folder::stored_as,
};
use firebrick_core::checkpoint::{Source, quantise::Plan, tensors::SaveType};
use firebrick_kernels::quantised::Format;
use serde_json::json;

use super::{Outcome, inspect, nlp};
use crate::{
    cli::{Global, ModelsCommand},
    failure::{Failure, USAGE},
    places,
};

pub fn run(command: ModelsCommand, global: &Global) -> Outcome {
    match command {
        ModelsCommand::Ls => {
            let names: Vec<&str> = places::shipped_names().collect();
            super::print(global, &json!(names), &names.join("\n"));
            Ok(())
        }
        ModelsCommand::Inspect { model, check } => inspect::run(&model, check, global),
        ModelsCommand::Convert { source, target, dtype } => {
            convert(&source, &target, dtype.as_deref(), global)
        }
    }
}

fn convert(source: &str, target: &Path, dtype: Option<&str>, global: &Global) -> Outcome {
    let folder = nlp::checkpoint(source, global)?;
    let ending = target.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    if let Some(ending @ ("onnx" | "gguf")) = ending.as_deref() {
        return export(&folder, target, ending, dtype, global);
    }
    let name = dtype.unwrap_or("f32");
    let dtype = match name {
        "f16" => SaveType::F16,
        "bf16" => SaveType::Bf16,
        "int8" => SaveType::Quantised(Plan::new(Format::Int8)),
        "int4" => SaveType::Quantised(Plan::new(Format::Int4 { group: 32 })),
        _ => SaveType::F32,
    };
    if target.exists() && fs::read_dir(target).is_ok_and(|mut dir| dir.next().is_some()) {
        let message = format!("{} is not empty; it was left as it is", target.display());
        return Err(Failure::text(USAGE, message));
    }
    let whole_numbers = matches!(dtype, SaveType::Quantised(_)).then_some(name);
    stored_as(dtype, &folder, target, &global.device.open()?)?;
    card::converted(target, source, whole_numbers)?;
    super::print(global, &json!({"target": target}), &target.display().to_string());
    Ok(())
}

/// A file for another program.
fn export(
    folder: &Source,
    target: &Path,
    ending: &str,
    dtype: Option<&str>,
    global: &Global,
) -> Outcome {
    if target.exists() {
        let message = format!("{} exists; it was left as it is", target.display());
        return Err(Failure::text(USAGE, message));
    }
    let device = global.device.open()?;
    if folder.config()?.get("quantization_config").is_some() && !global.quiet {
        stderr!("the whole numbers of this model become floats before they are written");
    }
    match (ending, dtype) {
        ("gguf", dtype) => {
            let number = match dtype {
                None | Some("f16") => Number::F16,
                Some("bf16") => Number::Bf16,
                Some("int8") => Number::Int8,
                Some("int4") => Number::Int4,
                Some(_) => Number::F32,
            };
            gguf(folder, target, number, &device)?;
        }
        (_, None | Some("f32")) => onnx(folder, target, &device)?,
        (_, Some(dtype)) => {
            let message = format!("--dtype {dtype}: an ONNX file is written in f32 only");
            return Err(Failure::text(USAGE, message));
        }
    }
    super::print(global, &json!({"target": target}), &target.display().to_string());
    Ok(())
}
