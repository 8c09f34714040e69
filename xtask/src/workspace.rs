//! The workspace as `cargo metadata` tells it.

use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;

use crate::process::{cargo, output};

#[derive(Debug, Deserialize)]
pub struct Workspace {
    pub packages: Vec<Package>,
    pub target_directory: PathBuf,
    pub workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
    pub targets: Vec<Target>,
}

/// A line of a `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]` table; optional ones too.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
}

#[derive(Debug, Deserialize)]
pub struct Target {
    pub name: String,
    /// `lib`, `bin`, `bench`, ...
    pub kind: Vec<String>,
}

impl Workspace {
    pub fn read() -> anyhow::Result<Self> {
        let json = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        serde_json::from_str(&json).context("reading the output of `cargo metadata`")
    }

    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    pub fn bench_targets(&self, package: &str) -> Vec<&str> {
        let targets = self.package(package).into_iter().flat_map(|package| &package.targets);
        targets.filter(|t| t.kind.iter().any(|kind| kind == "bench")).map(|t| &*t.name).collect()
    }
}
