//! What tests need beyond Rust. Each part looks first and installs only what is missing.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{
    process::{output, status, succeeds},
    workspace::Workspace,
};

/// Mesa's software Vulkan driver, for the wgpu backend on a machine without a GPU; Open MPI, and what reads its headers;
/// video in, speech out, and the broker of a home.
const PACKAGES: &[&str] = &[
    "mesa-vulkan-drivers",
    "openmpi-bin",
    "libopenmpi-dev",
    "libclang-dev",
    "ffmpeg",
    "espeak-ng",
    "mosquitto",
];
/// For a Python that came without `venv`.
const VENV_PACKAGE: &str = "python3-venv";
/// The pinned wheels need 3.11; the newest that all of them are built for comes first.
const PYTHONS: &[&str] = &["python3.13", "python3.12", "python3.11", "python3", "python"];
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// Installs the missing Debian packages; says so where it cannot.
pub fn packages() -> anyhow::Result<()> {
    if !succeeds(Command::new("apt-get").arg("--version")) {
        eprintln!("no apt-get here: install {} by hand if a test asks for it", PACKAGES.join(" "));
        return Ok(());
    }
    let mut missing: Vec<&str> =
        PACKAGES.iter().copied().filter(|package| !is_installed(package)).collect();
    if override_python().is_none() && find_python().is_none() && !is_installed(VENV_PACKAGE) {
        missing.push(VENV_PACKAGE);
    }
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    let update = status(apt()?.args(["update", "-q"]))?;
    if update != 0 {
        eprintln!("`apt-get update` failed; trying with the lists that are here");
    }
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    if status(apt()?.args(install).args(&missing))? != 0 {
        bail!("`apt-get install {}` failed", missing.join(" "));
    }
    Ok(())
}

/// Whether a program for several processes can be built.
pub fn has_mpi() -> bool {
    succeeds(Command::new("mpicc").arg("--version"))
}

fn is_installed(package: &str) -> bool {
    let query = ["-W", "-f", "${db:Status-Status}", package];
    let found = Command::new("dpkg-query").args(query).output();
    found.is_ok_and(|found| found.stdout == b"installed")
}

/// `apt-get` with the rights that it needs.
fn apt() -> anyhow::Result<Command> {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    if root {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        return Ok(command);
    }
    if !succeeds(Command::new("sudo").arg("-V")) {
        bail!("installing packages needs root, or sudo");
    }
    let mut command = Command::new("sudo");
    command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(command)
}

/// The Python with what tests compare with: `$FIREBRICK_PYTHON`, or our own environment, made when it is missing.
pub fn python(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    if let Some(python) = override_python() {
        return Ok(python);
    }
    let venv = workspace.target_directory.join("venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Two of us at once must not fill one folder; the second finds the work done.
    std::fs::create_dir_all(&workspace.target_directory)?;
    let lock = std::fs::File::create(workspace.target_directory.join("venv.lock"))?;
    lock.lock().context("waiting for another set-up to end")?;
    // Written last: an installation that was cut short has none, and is made anew.
    let stamp = venv.join("requirements.txt");
    if is_current(&stamp) && succeeds(Command::new(&python).arg("--version")) {
        return Ok(python);
    }

    let system = find_python().context("no Python 3.11 or newer with `venv` was found")?;
    eprintln!("making a Python environment in {}: a few minutes, once", venv.display());
    if status(Command::new(system).args(["-m", "venv", "--clear"]).arg(&venv))? != 0 {
        bail!("`{system} -m venv {}` failed", venv.display());
    }
    install(&python, &workspace.workspace_root.join("xtask/requirements.txt"))?;
    std::fs::write(&stamp, REQUIREMENTS).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(python)
}

/// A registry that did not answer the first time often does the second.
///
/// The wheels are 3 GB that pip would keep a second time in its cache, and nothing installs them again.
fn install(python: &Path, requirements: &Path) -> anyhow::Result<()> {
    // Nor is most of it ever imported: what is, is compiled then.
    let pip = "-m pip install -q --disable-pip-version-check --no-cache-dir --no-compile -r";
    for _ in 0..2 {
        if status(Command::new(python).args(pip.split(' ')).arg(requirements))? == 0 {
            return Ok(());
        }
        eprintln!("pip failed");
    }
    bail!("`pip install -r {}` failed twice", requirements.display())
}

fn override_python() -> Option<PathBuf> {
    std::env::var_os("FIREBRICK_PYTHON").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The first that is new enough and can make an environment with pip in it.
fn find_python() -> Option<&'static str> {
    let script = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    PYTHONS.iter().copied().find(|python| succeeds(Command::new(python).args(["-c", script])))
}

/// The stamp holds the requirements that the environment was made from.
fn is_current(stamp: &Path) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|made_from| made_from == REQUIREMENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_requirement_makes_the_environment_anew() {
        let stamp = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        assert!(!is_current(&stamp));
        std::fs::write(&stamp, REQUIREMENTS).unwrap();
        assert!(is_current(&stamp));
        std::fs::write(&stamp, REQUIREMENTS.replace("torch==", "torch==1")).unwrap();
        assert!(!is_current(&stamp));
        std::fs::remove_file(&stamp).unwrap();
    }
}
