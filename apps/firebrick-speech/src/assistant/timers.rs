//! Timers and alarms: kept in a file, so that one that was set is not forgotten when the program ends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use firebrick_core::checkpoint::tensors::write_atomically;
use serde::{Deserialize, Serialize};

/// Longest file.
const LIMIT: u64 = 1 << 20;
/// Timers at a time.
const MOST: usize = 1000;

/// Rings once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timer {
    /// Unix time in milliseconds.
    pub due: i64,
    /// What it was set for, as it was said.
    pub what: String,
}

/// All that have not rung, sorted.
#[derive(Debug)]
pub struct Timers {
    /// `None`: in memory only.
    path: Option<PathBuf>,
    list: Vec<Timer>,
}

impl Timers {
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let mut list: Vec<Timer> = vec![];
        if let Some(path) = path.filter(|path| path.exists()) {
            let shown = path.display();
            let size = fs::metadata(path).with_context(|| format!("reading {shown}"))?.len();
            ensure!(size <= LIMIT, "{shown}: {size} bytes, above {LIMIT}");
            let bytes = fs::read(path).with_context(|| format!("reading {shown}"))?;
            list = serde_json::from_slice(&bytes)
                .with_context(|| format!("{shown} is not a list of timers: move it away"))?;
        }
        list.sort_by_key(|timer| timer.due);
        Ok(Self { path: path.map(Path::to_owned), list })
    }

    fn save(&self) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(&self.list)?;
        write_atomically(path, text.as_bytes())
            .with_context(|| format!("writing {}", path.display()))
    }

    pub fn set(&mut self, timer: Timer) -> anyhow::Result<()> {
        ensure!(self.list.len() < MOST, "{MOST} timers are set: cancel some");
        self.list.push(timer);
        self.list.sort_by_key(|timer| timer.due);
        self.save()
    }

    /// Forgets these.
    pub fn cancel(&mut self, gone: &[Timer]) -> anyhow::Result<()> {
        self.list.retain(|timer| !gone.contains(timer));
        self.save()
    }

    pub fn list(&self) -> &[Timer] {
        &self.list
    }

    /// Takes out those that are due at `now`.
    pub fn ring(&mut self, now: i64) -> anyhow::Result<Vec<Timer>> {
        let due = self.list.partition_point(|timer| timer.due <= now);
        if due == 0 {
            return Ok(vec![]);
        }
        let rung = self.list.drain(..due).collect();
        self.save()?;
        Ok(rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_outlive_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timers.json");
        let timer = |due| Timer { due, what: format!("{due}") };
        let mut timers = Timers::open(Some(&path)).unwrap();
        timers.set(timer(20)).unwrap();
        timers.set(timer(10)).unwrap();
        let mut timers = Timers::open(Some(&path)).unwrap();
        assert_eq!(timers.ring(5).unwrap(), []);
        assert_eq!(timers.ring(10).unwrap(), [timer(10)]);
        assert_eq!(Timers::open(Some(&path)).unwrap().list(), [timer(20)]);
        timers.set(timer(30)).unwrap();
        timers.cancel(&[timer(20)]).unwrap();
        assert_eq!(Timers::open(Some(&path)).unwrap().list(), [timer(30)]);
        fs::write(&path, "{").unwrap();
        assert!(Timers::open(Some(&path)).is_err());
    }
}
