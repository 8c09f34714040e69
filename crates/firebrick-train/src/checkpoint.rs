//! Everything a resumed run needs, in one folder that appears whole or not at all.
//!
//! `checkpoints/step-N/`: `model.safetensors` (weights by field path), `best.safetensors` (the best
//! ones so far), `optimizer.safetensors` (what the optimiser remembers, and the average), `state.json` (counters). The sampler,
//! the schedule and the random numbers are functions of the seed and the step in there. The folder is
//! written under another name, synced, renamed, and its parent synced: a kill leaves an older one.

use std::{
    borrow::Cow,
    fs::{self, File},
    path::{Path, PathBuf},
};

use burn::module::Module;
use firebrick_core::{
    checkpoint::{
        LoadError,
        tensors::{self, Coverage, Weights, write_atomically},
    },
    layers::split::Split,
};

use crate::{fit::Counters, optim::OptimState, team};

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Weights(#[from] LoadError),
    #[error("{path}: cannot {what}", path = path.display())]
    Io { path: PathBuf, what: &'static str, source: std::io::Error },
    #[error("{path} is not a checkpoint's state", path = path.display())]
    State { path: PathBuf, source: serde_json::Error },
}

/// A run as of one step.
pub struct Restored<M> {
    /// On the device that it was created on.
    pub model: M,
    pub optim: OptimState,
    pub counters: Counters,
    /// Without autodiff.
    pub best: Option<M>,
}

/// Steps of the complete checkpoints, ascending.
pub fn list(run: &Path) -> Result<Vec<usize>, CheckpointError> {
    let dir = run.join("checkpoints");
    if !dir.exists() {
        return Ok(vec![]);
    }
    let io = |source| CheckpointError::Io { path: dir.clone(), what: "list", source };
    let mut steps = vec![];
    for entry in fs::read_dir(&dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        steps.extend(
            name.to_string_lossy().strip_prefix("step-").and_then(|n| n.parse::<usize>().ok()),
        );
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Where the checkpoint of a step is while another takes its place.
fn replaced(parent: &Path, step: usize) -> PathBuf {
    parent.join(format!(".step-{step}.old"))
}

/// Puts back a checkpoint that was to be replaced when the process ended, and clears away one that was. Only who trains calls it.
pub fn recover(run: &Path) -> Result<(), CheckpointError> {
    let parent = run.join("checkpoints");
    let Ok(entries) = fs::read_dir(&parent) else { return Ok(()) };
    let io = |source| CheckpointError::Io { path: parent.clone(), what: "recover", source };
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        let name = name.to_string_lossy();
        let step = name.strip_prefix(".step-").and_then(|name| name.strip_suffix(".old"));
        let Some(step) = step.and_then(|step| step.parse().ok()) else { continue };
        let (old, target) = (replaced(&parent, step), folder(run, step));
        match target.exists() {
            true => fs::remove_dir_all(&old).map_err(io)?,
            false => fs::rename(&old, &target).map_err(io)?,
        }
    }
    Ok(())
}

/// Folder of the newest complete checkpoint.
pub fn latest(run: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    Ok(list(run)?.last().map(|step| folder(run, *step)))
}

/// Counters of the newest complete checkpoint.
pub fn counters(run: &Path) -> Result<Option<Counters>, CheckpointError> {
    latest(run)?.map(|folder| state(&folder)).transpose()
}

fn state(folder: &Path) -> Result<Counters, CheckpointError> {
    let path = folder.join("state.json");
    let text = fs::read(&path).map_err(|source| CheckpointError::Io {
        path: path.clone(),
        what: "read",
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| CheckpointError::State { path, source })
}

fn folder(run: &Path, step: usize) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step}"))
}

/// Writes `checkpoints/step-N`, then deletes all but the newest `keep`. All processes that hold `model` together call
/// this, and the first one writes; what is written is the same as if it held all of it.
pub fn save<M: Module>(
    run: &Path,
    model: &M,
    split: &Split,
    optim: &OptimState,
    counters: &Counters,
    best: Option<&M>,
    keep: usize,
) -> Result<(), CheckpointError> {
    let target = folder(run, counters.step);
    let parent = run.join("checkpoints");
    let temporary = parent.join(format!(".step-{}.tmp", counters.step));
    let io = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io { path, what, source }
    };
    if split.rank() == 0 {
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(io("delete", &temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(io("create", &temporary))?;
    }
    let own_name = |field: &str| Some(field.to_string());
    tensors::save_joined(model, &temporary.join("model.safetensors"), split, own_name)?;
    if let Some(best) = best {
        tensors::save_joined(best, &temporary.join("best.safetensors"), split, own_name)?;
    }
    let path = temporary.join("optimizer.safetensors");
    save_optimizer(optim, &team::shapes(model), split, &path)?;
    if split.rank() > 0 {
        return Ok(());
    }
    let state = serde_json::to_vec_pretty(counters).expect("plain numbers");
    let path = temporary.join("state.json");
    write_atomically(&path, &state).map_err(io("write", &path))?;

    // The same step again, evaluated after a resume: what it was resumed from stays until the other is there.
    let old = replaced(&parent, counters.step);
    let again = target.exists();
    if again {
        fs::rename(&target, &old).map_err(io("rename", &target))?;
    }
    fs::rename(&temporary, &target).map_err(io("rename", &temporary))?;
    if again {
        fs::remove_dir_all(&old).map_err(io("delete", &old))?;
    }
    File::open(&parent).and_then(|dir| dir.sync_all()).map_err(io("sync", &parent))?;

    let steps = list(run)?;
    for old in &steps[..steps.len().saturating_sub(keep)] {
        let path = folder(run, *old);
        fs::remove_dir_all(&path).map_err(io("delete", &path))?;
    }
    Ok(())
}

/// Writes the vectors by kind and field. `shapes`: of this process's parameters.
fn save_optimizer(
    optim: &OptimState,
    shapes: &[(String, Vec<usize>)],
    split: &Split,
    path: &Path,
) -> Result<(), CheckpointError> {
    let shape = |field: &str| {
        let own = shapes.iter().find(|(name, _)| name == field);
        split.whole_shape(field, own.map_or_else(Vec::new, |(_, shape)| shape.clone()))
    };
    let mut vectors = vec![];
    for (slot, fields) in &optim.slots {
        let lengths = fields.iter().map(|(field, values)| match split.axis(field) {
            Some(_) => (field, shape(field).iter().product()),
            None => (field, values.len()),
        });
        vectors.extend(lengths.map(|(field, length)| (format!("{slot}.{field}"), length)));
    }
    let numbers = |name: &str| {
        let (slot, field) = name.split_once('.').expect("named above");
        let values = &optim.slots[slot][field];
        if split.axis(field).is_none() {
            return Ok(Cow::Borrowed(values.as_slice()));
        }
        let whole = split.whole(field, values.clone(), &shape(field));
        whole.map(Cow::Owned).map_err(std::io::Error::other)
    };
    if split.rank() == 0 {
        return Ok(tensors::save_vectors(vectors, path, numbers)?);
    }
    let path = path.to_path_buf();
    let given = vectors.iter().try_for_each(|(name, _)| numbers(name).map(drop));
    given.map_err(|source| CheckpointError::Io { path, what: "write", source })
}

/// Fills `model`, of which this process holds a part, and everything around it from a checkpoint's folder.
pub fn load<M: Module>(
    folder: &Path,
    model: M,
    split: &Split,
) -> Result<Restored<M>, CheckpointError> {
    let counters = state(folder)?;
    let fill = |model: M, file: &str| {
        let weights = Weights::open_file(&folder.join(file))?;
        let all = Coverage { ignored: &[], fresh: &[] };
        tensors::fill_part(model, &weights, &all, split, |field| Some(field.to_string()))
    };
    let best = match folder.join("best.safetensors").exists() {
        true => Some(fill(model.valid(), "best.safetensors")?),
        false => None,
    };
    let model = fill(model, "model.safetensors")?;

    let vectors = Weights::open_file(&folder.join("optimizer.safetensors"))?;
    let shapes = team::shapes(&model);
    let mut optim = OptimState { time: counters.step, ..OptimState::default() };
    for name in vectors.names() {
        let (slot, field) = name.split_once('.').unwrap_or((name, ""));
        let values = vectors.floats(name)?;
        let values = match shapes.iter().find(|(own, _)| own == field) {
            Some((_, shape)) if split.axis(field).is_some() => {
                split.part(field, values, &split.whole_shape(field, shape.clone()))
            }
            _ => values,
        };
        let fields = optim.slots.entry(slot.to_string()).or_default();
        fields.insert(field.to_string(), values);
    }
    Ok(Restored { model, optim, counters, best })
}
