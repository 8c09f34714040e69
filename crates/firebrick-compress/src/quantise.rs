//! Weights as whole numbers, after training.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, bail};
use burn::tensor::Device;
use firebrick_core::checkpoint::{Source, header, quantise::Plan, tensors::SaveType};

use crate::folder;

/// Writes `source` with the weights that `plan` says as whole numbers.
pub fn quantise(
    source: &Source,
    plan: &Plan,
    target: &Path,
    device: &Device,
) -> anyhow::Result<()> {
    folder::stored_as(SaveType::Quantised(plan.clone()), source, target, device)?;
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

/// Quantised weights of a folder that [`quantise`] made, by name, each with its bits.
pub fn weights(folder: &Path) -> anyhow::Result<BTreeMap<String, u8>> {
    let names = names(folder)?;
    let scaled = names.iter().filter_map(|name| name.strip_suffix("_scale"));
    let bits = |name: &str| if names.contains(&format!("{name}_packed")) { 4 } else { 8 };
    Ok(scaled.map(|name| (name.to_string(), bits(name))).collect())
}

/// `plan` with one of these weights alone.
pub fn only(plan: &Plan, weights: &BTreeMap<String, u8>, one: &str) -> Plan {
    let floats = weights.keys().filter(|name| *name != one).cloned().collect();
    Plan { floats, ..plan.clone() }
}

/// `plan` with the dearest of its weights wider, four bits as eight and eight as floats: an eighth, a quarter and half of those that
/// cost anything, each with how many they are. `costs` begins with the dearest.
pub fn mixed(
    plan: &Plan,
    weights: &BTreeMap<String, u8>,
    costs: &[(String, f64)],
) -> Vec<(usize, Plan)> {
    let dear: Vec<&String> =
        costs.iter().take_while(|(_, cost)| *cost > 0.0).map(|(name, _)| name).collect();
    let mut counts = [8, 4, 2].map(|part| dear.len().div_ceil(part)).to_vec();
    counts.dedup();
    counts.retain(|count| *count > 0);
    let wider = |count: usize| {
        let mut plan = plan.clone();
        for name in &dear[..count] {
            let set = if weights[*name] == 4 { &mut plan.int8 } else { &mut plan.floats };
            set.insert(name.to_string());
        }
        plan
    };
    counts.into_iter().map(|count| (count, wider(count))).collect()
}

#[cfg(test)]
mod tests {
    use firebrick_kernels::quantised::Format;

    use super::*;

    #[test]
    fn the_dearest_are_wider() {
        let plan = Plan::new(Format::Int4 { group: 32 });
        let names = ["a", "b", "c", "table", "free"];
        let bits = |name: &str| if name == "table" { 8 } else { 4 };
        let weights = names.map(|name| (name.to_string(), bits(name))).into();
        let costs = [("b", 0.5), ("table", 0.4), ("a", 0.2), ("c", 0.1), ("free", -0.1)]
            .map(|(name, cost)| (name.to_string(), cost));
        let found = mixed(&plan, &weights, &costs);
        let sets = |plan: &Plan| [&plan.int8, &plan.floats].map(|set| Vec::from_iter(set.clone()));
        let found: Vec<_> = found.iter().map(|(count, plan)| (*count, sets(plan))).collect();
        let only_b = [vec!["b".to_string()], vec![]];
        let with_table = [vec!["b".to_string()], vec!["table".to_string()]];
        assert_eq!(found, [(1, only_b), (2, with_table)]);
        assert_eq!(mixed(&plan, &weights, &costs[4..]), []);
    }
}
