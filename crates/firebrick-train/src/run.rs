//! The run folder: what was run, on what, what it logged, what it made.
//!
//! `run.json` is written before step 0. The same command again continues the run that is there, if it
//! is the same run: same recipe, same data, same seed.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use firebrick_core::checkpoint::tensors::write_atomically;
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint,
    fit::{Counters, End, Metrics, Step},
    tensorboard::EventWriter,
};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Running,
    Interrupted,
    Failed,
    Finished,
    /// Killed, or ended by a panic: it says that it runs, and nobody trains it. Told by [`look`], never written.
    Stopped,
}

/// `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    pub name: String,
    pub status: Status,
    /// As typed.
    pub command: Vec<String>,
    /// The folder that the recipe's paths are relative to, from the root on.
    #[serde(default)]
    pub base: Option<PathBuf>,
    pub firebrick: String,
    pub burn: String,
    pub device: String,
    pub seed: u64,
    /// SHA-256 of the resolved recipe.
    pub recipe_sha256: String,
    /// SHA-256 of the training rows.
    pub data_sha256: String,
    /// Seconds since 1970.
    pub started: u64,
    #[serde(default)]
    pub end: Option<End>,
    #[serde(default)]
    pub counters: Counters,
    /// Scores of the best weights, by split: `{"valid": {"accuracy": 0.9}}`.
    #[serde(default)]
    pub metrics: std::collections::BTreeMap<String, Metrics>,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{path}: cannot {what}", path = path.display())]
    Io { path: PathBuf, what: &'static str, source: std::io::Error },
    #[error("{path} is not a run's description", path = path.display())]
    Info { path: PathBuf, source: serde_json::Error },
    #[error("{path} holds another run ({what} differs): give this one a new name with --run NAME, \
             or delete that one with `firebrick runs rm {name}`", path = path.display())]
    Other { path: PathBuf, name: String, what: &'static str },
    #[error("run `{name}` in {path} is already finished: `firebrick runs show {name}`, \
             or train again under --run NAME", path = path.display())]
    Done { path: PathBuf, name: String },
    #[error("{path} exists and is not a run folder", path = path.display())]
    NotARun { path: PathBuf },
    #[error("run `{name}` in {path} is being trained by another process", path = path.display())]
    Locked { path: PathBuf, name: String },
}

/// An open run folder.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    pub info: RunInfo,
    /// `None` where another process of the run writes.
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    metrics: BufWriter<File>,
    events: Option<EventWriter>,
    /// Held while the run trains; the system frees it when the process ends, however it ends.
    _lock: File,
}

impl Run {
    /// Opens `dir` to continue it, or creates it. `recipe` and `resolved` are the recipe's texts.
    pub fn open(dir: &Path, info: RunInfo, recipe: &str, resolved: &str) -> Result<Self, RunError> {
        let io = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| RunError::Io { path, what, source }
        };
        let path = dir.join("run.json");
        let name = || info.name.clone();
        let earlier = match dir.exists() {
            true if path.exists() => Some(read(dir)?),
            // One that was killed before its description was written has its lock.
            true if !dir.join(".lock").exists()
                && fs::read_dir(dir).map_err(io("list", dir))?.next().is_some() =>
            {
                return Err(RunError::NotARun { path: dir.to_path_buf() });
            }
            _ => None,
        };
        if let Some(earlier) = &earlier {
            let differs = [
                ("recipe", earlier.recipe_sha256 != info.recipe_sha256),
                ("data", earlier.data_sha256 != info.data_sha256),
            ];
            if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
                return Err(RunError::Other { path: dir.to_path_buf(), name: name(), what });
            }
            if earlier.status == Status::Finished {
                return Err(RunError::Done { path: dir.to_path_buf(), name: name() });
            }
        }
        fs::create_dir_all(dir).map_err(io("create", dir))?;
        let lock = lock(dir, &info.name)?;
        fs::create_dir_all(dir.join("checkpoints")).map_err(io("create", dir))?;
        for (file, text) in [("recipe.toml", recipe), ("recipe.resolved.toml", resolved)] {
            let path = dir.join(file);
            write_atomically(&path, text.as_bytes()).map_err(io("write", &path))?;
        }
        let info = match earlier {
            Some(earlier) => RunInfo {
                status: Status::Running,
                command: info.command,
                base: info.base,
                device: info.device,
                ..earlier
            },
            None => info,
        };
        let path = dir.join("metrics.jsonl");
        let metrics = OpenOptions::new().create(true).append(true).open(&path);
        let metrics = BufWriter::new(metrics.map_err(io("open", &path))?);
        let log = Some(Log { metrics, events: None, _lock: lock });
        let run = Self { dir: dir.to_path_buf(), info, log };
        run.save_info()?;
        Ok(run)
    }

    /// The folder of a run that another process writes: read here, and left as it is.
    pub fn follow(dir: &Path, info: RunInfo) -> Self {
        Self { dir: dir.to_path_buf(), info, log: None }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn save_info(&self) -> Result<(), RunError> {
        if self.log.is_none() {
            return Ok(());
        }
        let path = self.dir.join("run.json");
        let text = serde_json::to_vec_pretty(&self.info).expect("plain data");
        write_atomically(&path, &text).map_err(|source| RunError::Io {
            path,
            what: "write",
            source,
        })
    }

    /// Drops what was logged after `step`, which will be run again, and its scores if they are `due`; opens the event file.
    pub(crate) fn rewind(&mut self, step: usize, due: bool) -> std::io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.metrics.flush()?;
        let path = self.dir.join("metrics.jsonl");
        let kept: String = lines(&path)?
            .into_iter()
            .filter(|(at, line)| *at < step || *at == step && !(due && is_score(line)))
            .map(|(_, line)| line + "\n")
            .collect();
        write_atomically(&path, kept.as_bytes())?;
        log.metrics = BufWriter::new(OpenOptions::new().append(true).open(&path)?);
        let wall = now();
        // Readers go by the names' order, and two sittings may begin in one second.
        let name = format!("events.out.tfevents.{:010}.step-{step:010}", wall as u64);
        let mut events = EventWriter::append(&self.dir, &name, wall)?;
        events.restart(step as i64 + 1, wall)?; // readers forget what will be run again
        log.events = Some(events);
        Ok(())
    }

    pub(crate) fn log_step(&mut self, step: &Step) -> std::io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        writeln!(log.metrics, "{}", serde_json::to_string(step)?)?;
        let wall = now();
        if let Some(events) = &mut log.events {
            events.scalar("train/loss", step.step as i64, step.loss as f32, wall)?;
            events.scalar(
                "train/learning_rate",
                step.step as i64,
                step.learning_rate as f32,
                wall,
            )?;
            events.scalar("train/grad_norm", step.step as i64, step.grad_norm as f32, wall)?;
        }
        Ok(())
    }

    pub(crate) fn log_eval(&mut self, step: usize, metrics: &Metrics) -> std::io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let line = serde_json::json!({"step": step, "valid": metrics});
        writeln!(log.metrics, "{line}")?;
        let wall = now();
        if let Some(events) = &mut log.events {
            for (name, value) in metrics {
                events.scalar(&format!("valid/{name}"), step as i64, *value as f32, wall)?;
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> std::io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.metrics.flush()?;
        match &mut log.events {
            Some(events) => events.flush(),
            None => Ok(()),
        }
    }
}

/// Takes the lock of the run in `dir`, which its training holds.
fn lock(dir: &Path, name: &str) -> Result<File, RunError> {
    let path = dir.to_path_buf();
    let lock = File::create(dir.join(".lock"));
    let lock = lock.map_err(|source| RunError::Io { path: path.clone(), what: "lock", source })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(_) => Err(RunError::Locked { path, name: name.into() }),
    }
}

/// Deletes the folder of a run with all that is below it, unless a run there is being trained.
pub fn remove(dir: &Path) -> Result<(), RunError> {
    let io = |what| {
        let path = dir.to_path_buf();
        move |source| RunError::Io { path, what, source }
    };
    let mut locks = vec![];
    lock_all(dir, &mut locks)?;
    // Under a name that no run has: what a kill leaves of it is not taken for a run.
    let mut name = OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(".removed");
    let gone = dir.with_file_name(name);
    if gone.exists() {
        fs::remove_dir_all(&gone).map_err(io("delete what is left of an earlier"))?;
    }
    fs::rename(dir, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(io("delete"))
}

/// Takes the locks of all runs in and below `dir`.
fn lock_all(dir: &Path, locks: &mut Vec<File>) -> Result<(), RunError> {
    let io = |source| RunError::Io { path: dir.to_path_buf(), what: "list", source };
    // First, so that nobody writes there when it is listed.
    if [".lock", "run.json"].iter().any(|file| dir.join(file).exists()) {
        let folder = || dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = read(dir).map_or_else(|_| folder(), |info| info.name);
        locks.push(lock(dir, &name)?);
    }
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            lock_all(&entry.path(), locks)?;
        }
    }
    Ok(())
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// Complete lines of a metrics file with their steps; a torn last line is dropped.
fn lines(path: &Path) -> std::io::Result<Vec<(usize, String)>> {
    let mut found = vec![];
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let value: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let step = value.as_ref().and_then(|v| v.get("step")?.as_u64());
        found.extend(step.map(|step| (step as usize, line)));
    }
    Ok(found)
}

/// Whether a line of the log holds scores, and not a step.
fn is_score(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.get("valid").is_some())
}

/// Reads `run.json`.
pub fn read(dir: &Path) -> Result<RunInfo, RunError> {
    let path = dir.join("run.json");
    let text = fs::read(&path).map_err(|source| RunError::Io {
        path: path.clone(),
        what: "read",
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| RunError::Info { path, source })
}

/// A run as it stands now: what [`read`] reads, as far on as its newest checkpoint, and stopped if nobody trains it.
pub fn look(dir: &Path) -> Result<RunInfo, RunError> {
    let mut info = read(dir)?;
    if info.status == Status::Running && !is_locked(dir) {
        // It may have come to its end meanwhile.
        info = read(dir)?;
        if info.status == Status::Running {
            info.status = Status::Stopped;
        }
    }
    // A training changes its checkpoints, and what cannot be read is found out when it goes on.
    if let Ok(Some(counters)) = checkpoint::counters(dir)
        && counters.step > info.counters.step
    {
        info.counters = counters;
    }
    Ok(info)
}

fn is_locked(dir: &Path) -> bool {
    let lock = File::open(dir.join(".lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// One curve of `metrics.jsonl`: `loss` of the steps, or a score of the evaluations (`valid/accuracy`).
pub fn curve(dir: &Path, key: &str) -> Result<Vec<(f64, f64)>, RunError> {
    let path = dir.join("metrics.jsonl");
    let lines = lines(&path).map_err(|source| RunError::Io { path, what: "read", source })?;
    let pointer = format!("/{key}");
    let points = lines.iter().filter_map(|(step, line)| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((*step as f64, value.pointer(&pointer)?.as_f64()?))
    });
    Ok(points.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Result<Run, RunError> {
        let info = RunInfo {
            name: "a".into(),
            status: Status::Running,
            command: vec![],
            base: None,
            firebrick: String::new(),
            burn: String::new(),
            device: String::new(),
            seed: 7,
            recipe_sha256: String::new(),
            data_sha256: String::new(),
            started: 0,
            end: None,
            counters: Counters::default(),
            metrics: Default::default(),
        };
        Run::open(dir, info, "", "")
    }

    #[test]
    fn a_run_goes_unless_it_or_one_below_is_trained() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a");
        for (trained, other) in [("a/trials/0", "a"), ("a", "a/trials/0")] {
            drop(open(&home.path().join(other)).unwrap());
            let run = open(&home.path().join(trained)).unwrap();
            assert!(matches!(remove(&dir), Err(RunError::Locked { .. })), "{trained}");
            run.save_info().unwrap();
        }
        fs::create_dir(home.path().join(".a.removed")).unwrap(); // by a kill
        remove(&dir).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_run_that_nobody_trains_is_told_as_stopped_at_its_checkpoint() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        let run = open(dir).unwrap();
        let counters = Counters { step: 40, seconds: 1.5, ..Counters::default() };
        fs::create_dir_all(dir.join("checkpoints/step-40")).unwrap();
        let state = serde_json::to_vec(&counters).unwrap();
        fs::write(dir.join("checkpoints/step-40/state.json"), state).unwrap();
        let found = look(dir).unwrap();
        assert_eq!((found.status, found.counters), (Status::Running, counters.clone()));
        drop(run);
        let found = look(dir).unwrap();
        assert_eq!((found.status, found.counters), (Status::Stopped, counters));
        assert_eq!(read(dir).unwrap().status, Status::Running);
    }

    #[test]
    fn event_files_of_one_second_sort_by_step() {
        let home = tempfile::tempdir().unwrap();
        let mut run = open(home.path()).unwrap();
        let mut names = vec![];
        for step in [0, 9, 15] {
            run.rewind(step, false).unwrap();
            let entries = fs::read_dir(home.path()).unwrap();
            let mut all: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            all.retain(|name| name.to_string_lossy().contains("tfevents"));
            names.extend(all.into_iter().find(|name| !names.contains(name)));
        }
        assert_eq!(names.len(), 3);
        assert!(names.is_sorted(), "{names:?}");
    }
}
