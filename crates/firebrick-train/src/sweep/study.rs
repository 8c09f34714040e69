//! `study.jsonl`: what every trial tried and what came of it, one line an event.
//!
//! Workers take turns by a lock on a file beside it; a line that a kill cut short is dropped when the next one is
//! written.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::space::Value;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Line {
    /// First line: a study goes on only with the recipe that it began with.
    Study {
        recipe_sha256: String,
    },
    Started {
        trial: usize,
        values: BTreeMap<String, Value>,
    },
    /// After so many evaluations.
    Rung {
        trial: usize,
        evaluations: usize,
        loss: f64,
    },
    Ended {
        trial: usize,
        end: TrialEnd,
        loss: Option<f64>,
        score: Option<f64>,
        seconds: f64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialEnd {
    Finished,
    /// Fell behind.
    Pruned,
    /// The message of its error.
    Failed(String),
}

/// A trial as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub number: usize,
    pub values: BTreeMap<String, Value>,
    /// Evaluations and the loss then.
    pub rungs: Vec<(usize, f64)>,
    pub end: Option<TrialEnd>,
    /// Lower is better.
    pub loss: Option<f64>,
    /// As the task reports it.
    pub score: Option<f64>,
    pub seconds: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error("{path}: cannot {what}", path = path.display())]
    Io { path: PathBuf, what: &'static str, source: std::io::Error },
    #[error("{path}: line {line} is not a study's", path = path.display())]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("{path} holds the study of another recipe or seed: give this one a new name with --run NAME", path = path.display())]
    Other { path: PathBuf },
}

/// Open and locked: nobody else reads or writes until it is dropped.
pub struct Study {
    path: PathBuf,
    file: File,
    pub trials: Vec<Trial>,
    _lock: File,
}

impl Study {
    /// Opens the study of a folder, which is made if it is not there; waits for its turn.
    pub fn open(dir: &Path, recipe_sha256: &str) -> Result<Self, StudyError> {
        let path = dir.join("study.jsonl");
        let io = |what| {
            let path = path.clone();
            move |source| StudyError::Io { path, what, source }
        };
        std::fs::create_dir_all(dir).map_err(io("create the folder of"))?;
        let lock = File::create(dir.join("study.lock")).map_err(io("lock"))?;
        lock.lock().map_err(io("lock"))?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(io("open"))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io("read"))?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(io("mend"))?;
        }
        let mut study = Self { path: path.clone(), file, trials: vec![], _lock: lock };
        let mut known = false;
        for (index, line) in text[..whole].lines().enumerate() {
            let line = serde_json::from_str(line).map_err(|source| StudyError::Line {
                path: path.clone(),
                line: index + 1,
                source,
            })?;
            if let Line::Study { recipe_sha256: other } = &line {
                known = true;
                if other != recipe_sha256 {
                    return Err(StudyError::Other { path });
                }
            }
            study.take(line);
        }
        if !known {
            study.write(Line::Study { recipe_sha256: recipe_sha256.into() })?;
        }
        Ok(study)
    }

    pub fn write(&mut self, line: Line) -> Result<(), StudyError> {
        let text = serde_json::to_string(&line).expect("plain data") + "\n";
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| StudyError::Io {
            path: self.path.clone(),
            what: "write",
            source,
        })?;
        self.take(line);
        Ok(())
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Study { .. } => {}
            Line::Started { trial, values } => {
                self.trials.push(Trial {
                    number: trial,
                    values,
                    rungs: vec![],
                    end: None,
                    loss: None,
                    score: None,
                    seconds: 0.0,
                });
            }
            Line::Rung { trial, evaluations, loss } => {
                // A trial that goes on after a kill passes its last rungs again.
                if let Some(trial) = self.of(trial)
                    && trial.rungs.iter().all(|(at, _)| *at != evaluations)
                {
                    trial.rungs.push((evaluations, loss));
                }
            }
            Line::Ended { trial, end, loss, score, seconds } => {
                if let Some(trial) = self.of(trial) {
                    (trial.end, trial.loss, trial.score) = (Some(end), loss, score);
                    trial.seconds = seconds;
                }
            }
        }
    }

    fn of(&mut self, number: usize) -> Option<&mut Trial> {
        self.trials.iter_mut().find(|trial| trial.number == number)
    }

    /// Values and losses of the trials that came to an end, pruned ones too: a bad value is news as well.
    pub fn finished(&self) -> Vec<(BTreeMap<String, Value>, f64)> {
        let ended = self.trials.iter().filter(|trial| trial.end.is_some());
        ended.filter_map(|trial| Some((trial.values.clone(), trial.loss?))).collect()
    }

    /// The best of the trials that were not cut short.
    pub fn best(&self) -> Option<&Trial> {
        let whole = self.trials.iter().filter(|trial| trial.end == Some(TrialEnd::Finished));
        let losses = whole.filter_map(|trial| Some((trial.loss?, trial)));
        losses.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, trial)| trial)
    }

    /// Losses of other trials after so many evaluations.
    pub fn rivals(&self, trial: usize, evaluations: usize) -> Vec<f64> {
        let others = self.trials.iter().filter(|other| other.number != trial);
        let rungs = others.flat_map(|other| &other.rungs);
        rungs.filter(|(at, _)| *at == evaluations).map(|(_, loss)| *loss).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_is_there() {
        let home = tempfile::tempdir().unwrap();
        let values = BTreeMap::from([("train.learning_rate".to_string(), Value::Number(0.01))]);
        {
            let mut study = Study::open(home.path(), "abc").unwrap();
            study.write(Line::Started { trial: 0, values: values.clone() }).unwrap();
            study.write(Line::Rung { trial: 0, evaluations: 1, loss: 0.5 }).unwrap();
            let end = TrialEnd::Finished;
            study
                .write(Line::Ended {
                    trial: 0,
                    end,
                    loss: Some(0.4),
                    score: Some(0.4),
                    seconds: 1.0,
                })
                .unwrap();
        }
        let path = home.path().join("study.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"event\":\"started\",\"tri").unwrap();
        let mut study = Study::open(home.path(), "abc").unwrap();
        assert_eq!(study.finished(), [(values.clone(), 0.4)]);
        study.write(Line::Started { trial: 1, values }).unwrap();
        assert_eq!(study.rivals(1, 1), [0.5]);
        drop(study);
        assert_eq!(Study::open(home.path(), "abc").unwrap().trials.len(), 2);
        assert!(matches!(Study::open(home.path(), "other"), Err(StudyError::Other { .. })));
    }
}
