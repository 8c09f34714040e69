//! `cargo xtask test`: set up, then all tests.

use std::{
    io::IsTerminal,
    ops::AddAssign,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    process::{cargo, line, succeeds, watch},
    setup,
    workspace::Workspace,
};

/// Tests counted by how they ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What has been done so far.
#[derive(Default)]
struct Report {
    steps: Vec<(String, Duration, u8)>,
    totals: Totals,
}

/// What is tested with.
const RUN: &str = "--no-fail-fast";
/// Compiles only.
const BUILD: &str = "--no-run";

/// Every step runs, if the tests compile; the exit code is that of the first that failed.
pub fn run(args: &[String]) -> anyhow::Result<u8> {
    let workspace = Workspace::read()?;
    let nextest = succeeds(cargo().args(["nextest", "--version"]));
    if !nextest {
        eprintln!("cargo-nextest is not here, so `cargo test` runs one test after another");
    }
    let mut report = Report::default();
    // First: with MPI among them, the command is built with it, once for all tests.
    report.setup("Debian packages", setup::packages);
    let picked = args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    let what = match (picked, setup::has_mpi()) {
        (true, _) => What::Picked,
        (false, true) => What::Everything,
        (false, false) => What::WithoutMpi,
    };
    // What waits for the network leaves the cores to the compiler, which needs nothing of it.
    let python = thread::scope(|scope| {
        let setup = scope.spawn(|| {
            let mut report = Report::default();
            let python = report.setup("Python environment", || setup::python(&workspace));
            (report, python)
        });
        let mut built = Report::default();
        let outcome = built.tests("build", tests(nextest, BUILD, what, args));
        let (setup, python) = setup.join().expect("set-up does not panic");
        report.steps.extend(setup.steps.into_iter().chain(built.steps));
        outcome.map(|()| python)
    })?;
    if report.steps.last().is_some_and(|(_, _, code)| *code != 0) {
        return Ok(report.print());
    }
    let with_python = |mut command: Command| {
        if let Some(python) = &python {
            command.env("FIREBRICK_PYTHON", python);
            // What a first import compiles is kept for the others.
            command.env_remove("PYTHONDONTWRITEBYTECODE");
        }
        command
    };

    report.tests("tests", with_python(tests(nextest, RUN, what, args)))?;
    if args.is_empty() {
        let mut doc = cargo();
        doc.args(["test", "--doc", "--workspace", "--no-fail-fast"]);
        report.tests("doc tests", with_python(doc))?;
        if matches!(what, What::WithoutMpi) {
            eprintln!("no MPI here (`mpicc`): what several processes do was not tested");
            report.steps.push(("several processes".into(), Duration::ZERO, 1));
        }
    }
    Ok(report.print())
}

/// What is tested.
#[derive(Debug, Clone, Copy)]
enum What {
    /// The packages that the arguments name.
    Picked,
    WithoutMpi,
    Everything,
}

/// Tests are run or built, as `how` says.
fn tests(nextest: bool, how: &str, what: What, args: &[String]) -> Command {
    let mut command = cargo();
    command.args(if nextest { ["nextest", "run"].as_slice() } else { &["test"] });
    command.args(match what {
        What::Picked => [].as_slice(),
        What::WithoutMpi => &["--workspace"],
        What::Everything => &["--workspace", "--features", "firebrick/mpi"],
    });
    command.arg(how);
    if !nextest && args.is_empty() {
        command.arg("--tests"); // the doc tests have their own step
    }
    command.args(args);
    if !nextest {
        // A device has one stream of random numbers in a process: tests beside each other would draw from it by chance.
        let dashes = if args.iter().any(|arg| arg == "--") { None } else { Some("--") };
        command.args(dashes).arg("--test-threads=1");
    }
    command
}

impl Report {
    fn setup<T>(&mut self, name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        let start = Instant::now();
        let done = work();
        self.steps.push((name.into(), start.elapsed(), u8::from(done.is_err())));
        done.inspect_err(|error| eprintln!("{name}: {error:#}")).ok()
    }

    fn tests(&mut self, name: &str, mut command: Command) -> anyhow::Result<()> {
        // Our pipe must not take the colours from a person who watches.
        if std::io::stderr().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        eprintln!("running {}", line(&command));
        let start = Instant::now();
        let (code, lines) = watch(&mut command, |line| totals(line).is_some())?;
        lines.iter().filter_map(|line| totals(line)).for_each(|totals| self.totals += totals);
        self.steps.push((name.into(), start.elapsed(), code));
        Ok(())
    }

    /// The last line is one that runs of other languages end with, too.
    fn print(&self) -> u8 {
        println!();
        for (name, time, code) in &self.steps {
            let verdict = if *code == 0 { "done" } else { "FAILED" };
            println!("{name}: {verdict}, {:.1} s", time.as_secs_f64());
        }
        let Totals { passed, failed, skipped } = self.totals;
        println!("total: {passed} passed, {failed} failed, {skipped} skipped");
        self.steps.iter().map(|(_, _, code)| *code).find(|code| *code != 0).unwrap_or(0)
    }
}

/// Reads the closing line of nextest (`Summary [...] 5 tests run: 4 passed (1 slow), 1 failed, 2 skipped`)
/// or of one test binary (`test result: ok. 5 passed; 0 failed; 1 ignored; ...`).
fn totals(line: &str) -> Option<Totals> {
    let line = without_colours(line);
    let counts = match line.trim_start().strip_prefix("test result: ") {
        Some(rest) => rest.split_once(". ")?.1,
        None if line.trim_start().starts_with("Summary [") => line.split_once(" run: ")?.1,
        None => return None,
    };
    let mut totals = Totals::default();
    for part in without_parentheses(counts).split([',', ';']) {
        let mut words = part.split_whitespace();
        let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<usize>), words.next())
        else {
            continue;
        };
        match what {
            "passed" => totals.passed += count,
            "failed" | "timed" | "exec" => totals.failed += count,
            "skipped" | "ignored" => totals.skipped += count,
            _ => {} // measured, filtered out
        }
    }
    Some(totals)
}

fn without_parentheses(line: &str) -> String {
    let mut parts = line.split('(');
    let mut outside = parts.next().unwrap_or_default().to_string();
    parts.for_each(|part| outside.push_str(part.split_once(')').map_or("", |(_, rest)| rest)));
    outside
}

/// Leaves out `ESC [ ... m`.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_string();
    parts.for_each(|part| plain.push_str(part.split_once('m').map_or("", |(_, text)| text)));
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_totals(line: &str, expected: Option<(usize, usize, usize)>) {
        let expected = expected.map(|(passed, failed, skipped)| Totals { passed, failed, skipped });
        assert_eq!(totals(line), expected, "{line}");
    }

    #[test]
    fn reads_closing_lines() {
        check_totals("     Summary [   0.012s] 5 tests run: 5 passed, 0 skipped", Some((5, 0, 0)));
        check_totals(
            "     Summary [  61.5s] 9/12 tests run: 6 passed (2 slow, 1 leaky), 2 failed, 1 timed out, 3 skipped",
            Some((6, 3, 3)),
        );
        check_totals(
            "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 4 filtered out; finished in 0.00s",
            Some((5, 1, 2)),
        );
        check_totals(
            "\x1b[32;1m     Summary\x1b[0m [   0.0s] \x1b[1m2\x1b[0m tests run: \x1b[1m2\x1b[0m \x1b[32;1mpassed\x1b[0m, \x1b[1m0\x1b[0m skipped",
            Some((2, 0, 0)),
        );
        check_totals("test a::b ... ok", None);
        check_totals("running 5 tests", None);
    }

    #[track_caller]
    fn check_command(nextest: bool, what: What, args: &[&str], expected: &str) {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        let command = line(&tests(nextest, RUN, what, &args));
        let (_, typed) = command.split_once(' ').unwrap();
        assert_eq!(typed, expected);
    }

    #[test]
    fn passes_arguments_on() {
        use What::*;
        let all = "nextest run --workspace --features firebrick/mpi --no-fail-fast";
        check_command(true, Everything, &[], all);
        check_command(true, Picked, &["-p", "xtask"], "nextest run --no-fail-fast -p xtask");
        check_command(
            false,
            WithoutMpi,
            &[],
            "test --workspace --no-fail-fast --tests -- --test-threads=1",
        );
        let build = line(&tests(true, BUILD, WithoutMpi, &[]));
        assert!(build.ends_with("nextest run --workspace --no-run"));
        check_command(
            false,
            WithoutMpi,
            &["bert", "--", "--nocapture"],
            "test --workspace --no-fail-fast bert -- --nocapture --test-threads=1",
        );
    }
}
