//! Weights as whole numbers, after training.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, bail};
use burn::tensor::Device;
use firebrick_core::{
    arch,
    checkpoint::{
        Source, header,
        quantise::{Plan, set_config},
        tensors::SaveType,
    },
};

use crate::folder;

/// Writes `source` with the weights that `plan` says as whole numbers.
pub fn quantise(
    source: &Source,
    plan: &Plan,
    target: &Path,
    device: &Device,
) -> anyhow::Result<()> {
    let mut config = source.config()?;
    set_config(&mut config, Some(plan));
    let model = arch::open(source, device)?;
    folder::write(source, target, &config, |file| {
        model.save(file, SaveType::Quantised(plan.clone()))
    })?;
    // A name that was recorded and is not written would be rounded to the nearest, and nobody told.
    let written = names(target)?;
    let lost = plan.moments.keys().find(|name| {
        let held = |suffix| written.contains(&format!("{name}{suffix}"));
        !held("") && !held("_packed")
    });
    match lost {
        Some(name) => bail!("GPTQ knows the inputs of {name}, which is saved by another name"),
        None => Ok(()),
    }
}

fn names(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let path = folder.join("model.safetensors");
    let header = header::read_header(&path).with_context(|| path.display().to_string())?;
    Ok(header.tensors.into_iter().map(|tensor| tensor.name).collect())
}

/// Names of the quantised weights of a folder that [`quantise`] made.
pub fn weights(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let names = names(folder)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix("_scale")).map(str::to_string).collect())
}

/// `plan` with one of these weights alone.
pub fn only(plan: &Plan, weights: &BTreeSet<String>, one: &str) -> Plan {
    let floats = weights.iter().filter(|name| *name != one).cloned().collect();
    Plan { floats, ..plan.clone() }
}
