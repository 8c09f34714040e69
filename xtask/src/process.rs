//! Starting programs.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, bail};

/// `cargo`, the one that started us, in an environment as from a shell.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(is_ours) {
            command.env_remove(key);
        }
    }
    command
}

/// What `cargo run` set to tell us about our own package, which is not that of the crates built next.
fn is_ours(key: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| key.starts_with(prefix))
        || ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&key)
}

/// Runs to the end; gives the exit code, or 1 for an end by a signal.
pub fn status(command: &mut Command) -> anyhow::Result<u8> {
    let status = command.status().with_context(|| cannot_start(command))?;
    Ok(code(status))
}

/// As [`status`], with nothing shown.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// What it wrote to standard output.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!("{} ended with {}", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no UTF-8", line(command)))
}

/// As [`status`], and gives the lines that `keep` picks from both outputs, which are shown as they come.
pub fn watch(
    command: &mut Command,
    keep: impl Fn(&str) -> bool + Sync,
) -> anyhow::Result<(u8, Vec<String>)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    let stdout = child.stdout.take().context("a piped stdout")?;
    let stderr = child.stderr.take().context("a piped stderr")?;
    let kept = thread::scope(|scope| {
        let stderr = scope.spawn(|| pass_on(stderr, std::io::stderr(), &keep));
        let mut kept = pass_on(stdout, std::io::stdout(), &keep);
        kept.extend(stderr.join().unwrap_or_default());
        kept
    });
    Ok((code(child.wait()?), kept))
}

fn pass_on(
    from: impl std::io::Read,
    mut to: impl Write,
    keep: &impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut kept = vec![];
    let mut from = BufReader::new(from);
    let mut bytes = vec![];
    while from.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
        // Output that nobody reads any more must not stop the tests.
        let _ = to.write_all(&bytes).and_then(|()| to.flush());
        let line = String::from_utf8_lossy(&bytes).trim_end().to_string();
        if keep(&line) {
            kept.push(line);
        }
        bytes.clear();
    }
    kept
}

/// Turns this process into `command`.
#[cfg(unix)]
pub fn become_command(command: &mut Command) -> anyhow::Result<u8> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| cannot_start(command))
}

#[cfg(not(unix))]
pub fn become_command(command: &mut Command) -> anyhow::Result<u8> {
    status(command)
}

fn code(status: std::process::ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}

/// The command as one would type it, for messages.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_only_what_cargo_run_set() {
        assert!(is_ours("CARGO_PKG_NAME") && is_ours("CARGO_MANIFEST_DIR"));
        assert!(!is_ours("CARGO_TARGET_DIR") && !is_ours("CARGO_HOME") && !is_ours("PATH"));
    }

    #[test]
    #[cfg(unix)]
    fn watches_both_outputs() {
        let script = "echo total one; echo skip; echo total two >&2; exit 3";
        let (code, mut lines) =
            watch(Command::new("sh").args(["-c", script]), |line| line.starts_with("total"))
                .unwrap();
        lines.sort();
        assert_eq!((code, lines), (3, vec!["total one".into(), "total two".into()]));
    }

    #[test]
    fn names_a_program_that_is_not_there() {
        let error = status(Command::new("no-such-program").arg("x")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start `no-such-program x`");
    }
}
