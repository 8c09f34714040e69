//! `cargo xtask VERB`: the runner of this repository.
//!
//! It builds the `firebrick` binary and starts it as a process, so it has no Burn in it and builds in seconds.
//! Arguments that it does not know go on to what it starts.

mod arrows;
mod check;
mod peers;
mod process;
mod setup;
mod test;
mod workspace;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use crate::{
    process::{cargo, output, status},
    workspace::Workspace,
};

const HELP: &str = "\
Usage: cargo xtask VERB [ARGUMENTS]

  test [ARGS]        set up (Debian packages, a Python environment), then run all tests;
                     ARGS go to the test runner in place of the whole
  check [STEP...]    format, arrows, sizes, lints, docs, licences, cuda: cheapest first
  bench [ARGS]       the criterion benches; ARGS start with `--` and go to `cargo bench`
  bench WORKLOAD     one workload of `firebrick bench`, e.g. bert-b1
  bench --peers [WORKLOAD...] [--rounds N] [--binary PATH]
                     the same work on PyTorch, ONNX Runtime and llama.cpp by turns; one table.
                     BENCH_PYTHON names their Python, BENCH_ROOT the folder of checkpoints and results
  parity DIR         compare with transformers on the checkpoints in DIR (`parity back DIR`: written by us)
  dist               the release binary, into `dist` in the target folder
  help               this text

Any other verb builds `firebrick` and runs it with the same arguments, for example:

  start  train  eval  predict  data  recipe  runs  doctor  sweep  compress
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_else(|| "help".into());
    let args: Vec<String> = args.collect();
    let code = match verb.as_str() {
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(0)
        }
        "test" => test::run(&args),
        "check" => check::run(&args),
        "bench" if args.first().is_some_and(|first| first == "--peers") => {
            Workspace::read().and_then(|workspace| peers::run(&args[1..], &workspace, build))
        }
        "bench" if runs_criterion(&args) => criterion(&args),
        "parity" => parity(&args),
        "dist" => dist(),
        _ => firebrick(&verb, &args),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `bench` alone and `bench --...` are criterion's; `bench bert-b1` is the binary's.
fn runs_criterion(args: &[String]) -> bool {
    args.first().is_none_or(|first| first.starts_with("--"))
}

/// Builds `firebrick` and becomes it: the exit code and signals are its own.
fn firebrick(verb: &str, args: &[String]) -> anyhow::Result<u8> {
    let binary = build(&Workspace::read()?)?;
    process::become_command(Command::new(binary).arg(verb).args(args))
}

/// The whole workspace at once: the same features of every crate as in `cargo xtask test`, so nothing is built twice.
fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let binary = workspace
        .target_directory
        .join("debug")
        .join(format!("firebrick{}", std::env::consts::EXE_SUFFIX));
    if !binary.exists() {
        eprintln!("building firebrick: the first build takes about 15 minutes on two cores");
    }
    let code = status(cargo().args(["build", "--workspace", "--bins"]))?;
    if code != 0 {
        bail!("the build failed");
    }
    Ok(binary)
}

/// Names the bench targets rather than their package: `-p` would choose other features and build Burn again.
fn criterion(args: &[String]) -> anyhow::Result<u8> {
    let workspace = Workspace::read()?;
    let mut command = cargo();
    command.args(["bench", "--profile", "dev", "--workspace"]);
    if !args.iter().any(|arg| arg == "--bench" || arg.starts_with("--bench=")) {
        let benches = workspace.bench_targets("firebrick-benches");
        if benches.is_empty() {
            bail!("firebrick-benches has no bench target");
        }
        command.args(benches.iter().flat_map(|name| ["--bench", name]));
    }
    status(command.args(args))
}

/// `DIR [ARGS]` checks; `back DIR [ARGS]` has the binary rewrite each checkpoint first; `make DIR` writes cases.
fn parity(args: &[String]) -> anyhow::Result<u8> {
    let (what, args) = match args {
        [] => bail!("usage: cargo xtask parity [check|back|make] DIR [ARGUMENTS]"),
        [what, rest @ ..] if ["check", "back", "make"].contains(&what.as_str()) => {
            (what.as_str(), rest)
        }
        all => ("check", all),
    };
    let workspace = Workspace::read()?;
    let script = workspace.workspace_root.join("../shared/parity/parity.py");
    if !script.exists() {
        bail!(
            "{} is not there: it belongs to the shared folder beside this repository",
            script.display()
        );
    }
    let python = setup::python(&workspace)?;
    let mut command = Command::new(python);
    command.arg(script).arg(what).args(args);
    if what != "make" {
        let binary = build(&workspace)?;
        let binary = binary.to_str().context("the target folder's name is not UTF-8")?;
        // The script splits the command as a shell does.
        command.args(["--run", &format!("'{binary}'")]);
    }
    status(&mut command)
}

fn dist() -> anyhow::Result<u8> {
    let workspace = Workspace::read()?;
    let code = status(cargo().args(["build", "--release", "-p", "firebrick"]))?;
    if code != 0 {
        return Ok(code);
    }
    let version = &workspace.package("firebrick").context("no package `firebrick`")?.version;
    let rustc = output(Command::new("rustc").arg("-vV"))?;
    let host = host(&rustc).context("`rustc -vV` names no host")?;

    let suffix = std::env::consts::EXE_SUFFIX;
    let built = workspace.target_directory.join(format!("release/firebrick{suffix}"));
    let folder = workspace.target_directory.join("dist");
    let copy = folder.join(format!("firebrick-{version}-{host}{suffix}"));
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // A name of its own first: a copy that was cut short never has the final name.
    let partial = copy.with_extension("partial");
    std::fs::copy(&built, &partial)
        .and_then(|_| std::fs::rename(&partial, &copy))
        .with_context(|| format!("copying {} to {}", built.display(), copy.display()))?;

    let size = copy.metadata()?.len();
    println!("{}: {:.1} MB", copy.display(), size as f64 / 1e6);
    match output(Command::new("sha256sum").arg(&copy)) {
        Ok(line) => println!("sha256 {}", line.split_whitespace().next().unwrap_or_default()),
        Err(error) => eprintln!("no sha256: {error:#}"),
    }
    Ok(0)
}

/// The line `host: x86_64-unknown-linux-gnu` of `rustc -vV`.
fn host(rustc: &str) -> Option<&str> {
    rustc.lines().find_map(|line| line.strip_prefix("host: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_bench(args: &[&str], criterion: bool) {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        assert_eq!(runs_criterion(&args), criterion, "{args:?}");
    }

    #[test]
    fn a_workload_is_the_binarys_and_the_rest_is_criterions() {
        check_bench(&[], true);
        check_bench(&["--bench", "encoder"], true);
        check_bench(&["--", "--quick"], true);
        check_bench(&["bert-b1"], false);
        check_bench(&["bert-b1", "--json"], false);
    }

    #[test]
    fn reads_the_host() {
        assert_eq!(host("rustc 1.95.0\nhost: a-b-c\nLLVM version: 21"), Some("a-b-c"));
        assert_eq!(host("rustc 1.95.0"), None);
    }
}
