//! `cargo xtask check`: everything that can be said without running a test, cheapest first.

use std::{path::Path, process::Command, time::Instant};

use anyhow::{Context, bail};

use crate::{
    arrows::{self, Node},
    process::{cargo, output, status, succeeds},
    workspace::Workspace,
};

/// Data and models belong elsewhere: a larger file is in every clone for ever.
const LARGEST_FILE: u64 = 1_000_000;
/// Of one model in `apps/*/models`, and of all together.
const LARGEST_MODEL: u64 = 6_000_000;
const ALL_MODELS: u64 = 40_000_000;

/// How a step ended; its lines say why.
enum Verdict {
    Passed,
    Failed(Vec<String>),
    Skipped(String),
}

const STEPS: [&str; 7] = ["format", "arrows", "sizes", "lints", "docs", "licences", "cuda"];

/// Runs the steps that `only` names, or all. Each runs, whatever the others said; 1 when one failed.
pub fn run(only: &[String]) -> anyhow::Result<u8> {
    if let Some(unknown) = only.iter().find(|name| !STEPS.contains(&name.as_str())) {
        bail!("no step `{unknown}`; there are {}", STEPS.join(", "));
    }
    let workspace = Workspace::read()?;
    let root = &workspace.workspace_root;
    let mut failed = vec![];
    let mut step = |name: &str, work: &dyn Fn() -> anyhow::Result<Verdict>| {
        if !only.is_empty() && !only.iter().any(|only| only == name) {
            return;
        }
        eprintln!("--- {name}");
        let start = Instant::now();
        let verdict = work().unwrap_or_else(|error| Verdict::Failed(vec![format!("{error:#}")]));
        let seconds = start.elapsed().as_secs_f64();
        match verdict {
            Verdict::Passed => println!("{name}: passed, {seconds:.1} s"),
            Verdict::Skipped(why) => println!("{name}: skipped, {why}"),
            Verdict::Failed(lines) => {
                lines.iter().for_each(|line| println!("  {line}"));
                println!("{name}: FAILED, {seconds:.1} s");
                failed.push(name.to_string());
            }
        }
    };

    step("format", &|| passes(cargo().args(["fmt", "--all", "--check"])));
    step("arrows", &|| Ok(verdict(arrows::violations(&nodes(&workspace)))));
    step("sizes", &|| Ok(verdict(too_large(&files(root)?))));
    step("lints", &|| {
        let all = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        passes(cargo().args(all))
    });
    step("docs", &|| {
        passes(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
    step("licences", &|| {
        if !succeeds(cargo().args(["deny", "--version"])) {
            let how = "cargo-deny is not here: `cargo install --locked cargo-deny` installs it";
            return Ok(Verdict::Skipped(how.into()));
        }
        passes(cargo().current_dir(root).args(["deny", "check", "bans", "licenses", "sources"]))
    });
    step("cuda", &|| {
        let mut check = cargo();
        check.args(["check", "--package", "firebrick", "--features", "firebrick/cuda"]);
        // What compiles for GPUs at run time is linked with an LLVM of its own, which is downloaded unless this is set.
        passes(check.env("DOCS_RS", "1"))
    });

    if failed.is_empty() {
        println!("check: all passed");
        return Ok(0);
    }
    println!("check: failed: {}", failed.join(", "));
    Ok(1)
}

fn passes(command: &mut Command) -> anyhow::Result<Verdict> {
    let code = status(command)?;
    Ok(verdict((code != 0).then(|| format!("exit code {code}")).into_iter().collect()))
}

fn verdict(problems: Vec<String>) -> Verdict {
    if problems.is_empty() { Verdict::Passed } else { Verdict::Failed(problems) }
}

fn nodes(workspace: &Workspace) -> Vec<Node> {
    let apps = workspace.workspace_root.join("apps");
    let node = |package: &crate::workspace::Package| Node {
        name: package.name.clone(),
        app: package.manifest_path.starts_with(&apps),
        dependencies: package.dependencies.iter().map(|d| d.name.clone()).collect(),
    };
    workspace.packages.iter().map(node).collect()
}

/// Path from the root and size of every file that git has or would add.
fn files(root: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let names = output(Command::new("git").arg("-C").arg(root).args(list))
        .context("listing the files of the repository")?;
    let size = |name: &str| {
        let metadata = root.join(name).symlink_metadata().ok()?; // deleted but not yet committed
        Some((name.to_string(), metadata.len()))
    };
    Ok(names.split_terminator('\0').filter_map(size).collect())
}

/// One line for each file that is over its limit.
fn too_large(files: &[(String, u64)]) -> Vec<String> {
    let mut problems = vec![];
    let (mut models, mut by_model) = (0, std::collections::BTreeMap::<String, u64>::new());
    for (name, size) in files {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["apps", app, "models", model, ..] => {
                models += size;
                *by_model.entry(format!("apps/{app}/models/{model}")).or_default() += size;
            }
            _ if *size > LARGEST_FILE => problems.push(over(name, *size, LARGEST_FILE)),
            _ => {}
        }
    }
    let large = by_model.iter().filter(|(_, size)| **size > LARGEST_MODEL);
    problems.extend(large.map(|(name, size)| over(name, *size, LARGEST_MODEL)));
    if models > ALL_MODELS {
        problems.push(over("apps/*/models", models, ALL_MODELS));
    }
    problems
}

fn over(name: &str, size: u64, limit: u64) -> String {
    format!("{name}: {:.1} MB, the limit is {} MB", size as f64 / 1e6, limit / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_sizes(files: &[(&str, u64)], expected: &[&str]) {
        let files: Vec<_> = files.iter().map(|(name, size)| (name.to_string(), *size)).collect();
        assert_eq!(too_large(&files), expected);
    }

    #[test]
    fn only_models_are_large() {
        check_sizes(
            &[("Cargo.lock", 1_000_000), ("apps/firebrick-nlp/models/sst2/m", 5_900_000)],
            &[],
        );
        check_sizes(&[("docs/a.png", 1_200_000)], &["docs/a.png: 1.2 MB, the limit is 1 MB"]);
        check_sizes(
            &[("apps/n/models/a/x", 4_000_000), ("apps/n/models/a/y", 4_000_000)],
            &["apps/n/models/a: 8.0 MB, the limit is 6 MB"],
        );
        let many: Vec<String> = (0..9).map(|i| format!("apps/n/models/{i}/x")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 5_000_000)).collect();
        check_sizes(&many, &["apps/*/models: 45.0 MB, the limit is 40 MB"]);
    }
}
