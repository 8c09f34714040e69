//! `config.json` + `model.safetensors` <-> a module on a device, both ways; `pytorch_model.bin` one way.
//!
//! Loading is total: every parameter is filled and every tensor is used or listed as ignored; the
//! header is checked before a byte is allocated ([`header`]), and one name table a family serves
//! both directions ([`names`]).

pub mod config;
pub mod config_check;
mod decode;
mod error;
pub mod folder;
pub mod header;
pub mod json;
pub mod lora;
pub mod names;
pub mod quantise;
pub mod rounded;
pub mod sparse;
pub mod tensors;
pub mod tokenizer;
pub mod torch;
mod window;
pub mod write;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

pub use error::LoadError;
use serde_json::Value;

/// `config.json` is text written by people: a megabyte is plenty.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Where a model lies: a folder, or files inside this program.
#[derive(Debug, Clone)]
pub enum Source {
    Folder(PathBuf),
    Embedded { name: &'static str, files: &'static [(&'static str, &'static [u8])] },
}

/// Models inside a program, by name; each is made by [`shipped!`](crate::shipped).
pub struct Shipped(pub &'static [(&'static str, Source)]);

impl Shipped {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    pub fn model(&self, name: &str) -> Option<Source> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, source)| source.clone())
    }
}

/// A model of [`Shipped`](crate::checkpoint::Shipped), its files and its card, which lie in `../models/NAME` beside the file
/// that this stands in.
#[macro_export]
macro_rules! shipped {
    ($name:literal: $($file:literal)*) => {
        (
            $name,
            $crate::checkpoint::Source::Embedded {
                name: $name,
                files: &[
                    ("README.md", include_bytes!(concat!("../models/", $name, "/README.md"))),
                    $(($file, include_bytes!(concat!("../models/", $name, "/", $file)))),*
                ],
            },
        )
    };
}

impl Source {
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self::Folder(path.into())
    }

    /// A path for messages; an embedded file has none on disk.
    pub fn path(&self, file: &str) -> PathBuf {
        match self {
            Self::Folder(dir) => dir.join(file),
            Self::Embedded { name, .. } => Path::new(name).join(file),
        }
    }

    /// The bytes of a file, at most `limit` of them.
    pub fn read(&self, file: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
        let path = self.path(file);
        match self {
            // A folder with an adapter has what it does not hold itself from its base.
            Self::Folder(_) if !path.exists() && file != lora::CONFIG => match lora::base(self)? {
                Some(base) => Self::Folder(base).read(file, limit),
                None => Err(LoadError::Read { path, source: ErrorKind::NotFound.into() }),
            },
            Self::Folder(_) => json::read_bytes(&path, limit).map_err(|problem| match problem {
                json::JsonProblem::Read(source) => LoadError::Read { path, source },
                other => LoadError::Checkpoint { path, problem: other.to_string() },
            }),
            Self::Embedded { files, .. } => {
                let found = files.iter().find(|(name, _)| *name == file);
                found
                    .map(|(_, bytes)| bytes.to_vec())
                    .ok_or_else(|| LoadError::Read { path, source: ErrorKind::NotFound.into() })
            }
        }
    }

    /// `config.json`, strictly parsed.
    pub fn config(&self) -> Result<Value, LoadError> {
        let bytes = self.read("config.json", CONFIG_LIMIT)?;
        let mut config = json::parse_strict(&bytes).map_err(|problem| LoadError::Config {
            path: self.path("config.json"),
            problem: problem.to_string(),
        })?;
        quantise::check_config(&config)
            .map_err(|problem| LoadError::Config { path: self.path("config.json"), problem })?;
        lora::set_architecture(self, &mut config)?;
        Ok(config)
    }

    /// `config.json` as a family reads it; what is wrong with it is said with its path.
    pub fn config_as<T>(
        &self,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, LoadError> {
        read(&self.config()?)
            .map_err(|problem| LoadError::Config { path: self.path("config.json"), problem })
    }

    /// As [`Self::read`]; `None` when there is no such file.
    pub fn optional(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
        match self.read(file, limit) {
            Err(LoadError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            bytes => bytes.map(Some),
        }
    }

    /// Another JSON file, strictly parsed; `None` when there is none.
    pub fn json(&self, file: &str) -> Result<Option<Value>, LoadError> {
        let Some(bytes) = self.optional(file, CONFIG_LIMIT)? else { return Ok(None) };
        let value = json::parse_strict(&bytes).map_err(|problem| LoadError::Config {
            path: self.path(file),
            problem: problem.to_string(),
        })?;
        Ok(Some(value))
    }

    /// The tensors, opened and checked but not yet read.
    pub fn weights(&self) -> Result<tensors::Weights, LoadError> {
        match self {
            Self::Folder(dir) => match lora::Overlay::open(self)? {
                Some((adapter, base)) => tensors::Weights::open(&base)?.with_adapter(adapter),
                None => tensors::Weights::open(dir),
            },
            Self::Embedded { files, .. } => {
                let path = self.path("model.safetensors");
                let found = files.iter().find(|(name, _)| *name == "model.safetensors");
                let (_, bytes) = found.ok_or_else(|| LoadError::Read {
                    path: path.clone(),
                    source: ErrorKind::NotFound.into(),
                })?;
                tensors::Weights::embedded(&path, bytes)
            }
        }
    }
}
