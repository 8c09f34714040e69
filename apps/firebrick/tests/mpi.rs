//! Several processes that a real `mpirun` starts; `cargo xtask test` builds the command with `--features firebrick/mpi`.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The recipe sst2, cut down to some seconds.
const SHORT: &[&str] = &[
    "train.max_steps=12",
    "train.warmup_steps=4",
    "train.eval_every=6",
    "checkpoint.every_steps=3",
    "tokenizer.vocab_size=2000",
    "distill.texts_per_row=0",
];
/// Without masks, which depend on how a batch is cut.
const NO_DROPOUT: &[&str] = &[
    "model.hidden_dropout_prob=0",
    "model.attention_probs_dropout_prob=0",
    "model.classifier_dropout=0",
    "data.token_dropout=0",
];

/// `mpirun -n RANKS firebrick train sst2 --run NAME`, on however few cores and as whatever user.
fn mpirun(home: &Path, ranks: usize, name: &str, overrides: &[&[&str]]) -> Command {
    let mut command = Command::new("mpirun");
    command
        .current_dir(home)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        // Shared memory without ptrace, which containers forbid.
        .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none")
        // More processes than cores: who waits must let others work.
        .env("OMPI_MCA_mpi_yield_when_idle", "1")
        // Seconds between mpirun's signals: time to save on a machine that has much to do.
        .env("OMPI_MCA_odls_base_sigkill_timeout", "4")
        .env("RAYON_NUM_THREADS", "1")
        .env("XDG_CACHE_HOME", home.join("cache"))
        .args(["--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string()])
        .arg(env!("CARGO_BIN_EXE_firebrick"))
        .args(["train", "sst2", "--run", name, "--progress", "none"]);
    for line in overrides.iter().copied().flatten() {
        command.args(["--set", line]);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn train(home: &Path, ranks: usize, name: &str, overrides: &[&[&str]]) {
    let output = mpirun(home, ranks, name, overrides).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
    let folder = text(&output.stdout);
    assert_eq!(folder.matches(&format!("runs/{name}")).count(), 1, "one rank writes: {folder}");
}

fn losses(home: &Path, name: &str) -> Vec<f64> {
    let log = fs::read_to_string(home.join("runs").join(name).join("metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

#[track_caller]
fn check_losses(home: &Path, name: &str, expected: &[f64]) {
    let losses = losses(home, name);
    assert_eq!(losses.len(), expected.len(), "{name}");
    let apart = losses.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{name}: losses differ by up to {apart:.1e}");
    assert!(apart < 1e-5, "{name}: {losses:?}, not {expected:?}");
}

#[test]
fn ranks_give_the_losses_of_one() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    train(home, 1, "one", &[SHORT, NO_DROPOUT]);
    let expected = losses(home, "one");
    assert_eq!(expected.len(), 12);
    for ranks in [2, 3] {
        let name = format!("ranks-{ranks}");
        train(home, ranks, &name, &[SHORT, NO_DROPOUT]);
        check_losses(home, &name, &expected);
    }
    // With the recipe's dropout, a batch that is cut in two has the same masks in one process and in two.
    train(home, 1, "cut", &[SHORT, &["train.accumulation=2"]]);
    train(home, 2, "shared", &[SHORT]);
    check_losses(home, "shared", &losses(home, "cut"));
    assert!(losses(home, "cut") != expected, "dropout did nothing");
}

#[test]
fn parts_of_a_model_give_the_losses_of_the_whole() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let parts = &["train.tensor_parallel=2"];
    train(home, 1, "whole", &[SHORT, NO_DROPOUT]);
    let expected = losses(home, "whole");
    for ranks in [2, 4] {
        let name = format!("parts-{ranks}");
        train(home, ranks, &name, &[SHORT, NO_DROPOUT, parts]);
        check_losses(home, &name, &expected);
    }
    check_refusal(home, 3, parts, "does not divide the 3 processes");
    check_refusal(home, 3, &["train.tensor_parallel=3"], "num_attention_heads 4 is not divisible");
}

#[track_caller]
fn check_refusal(home: &Path, ranks: usize, overrides: &[&str], message: &str) {
    let output = mpirun(home, ranks, "refused", &[SHORT, overrides]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches(message).count(), 1, "said once: {stderr}");
}

/// As many steps as a test can be late for.
const LONG: &[&str] = &[
    "train.max_steps=20000",
    "train.epochs=1000",
    "checkpoint.every_steps=10",
    "train.eval_every=20000",
];

fn spawn(home: &Path, ranks: usize, name: &str) -> Child {
    let mut command = mpirun(home, ranks, name, &[SHORT, LONG, NO_DROPOUT]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Steps of the checkpoints that a run has.
fn saved(home: &Path, name: &str) -> Vec<usize> {
    let entries = fs::read_dir(home.join("runs").join(name).join("checkpoints"));
    let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse().ok()).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes that `mpirun` started.
fn ranks_of(mpirun: &Child) -> Vec<String> {
    let pids = Command::new("pgrep").args(["-P", &mpirun.id().to_string()]).output().unwrap();
    text(&pids.stdout).split_whitespace().map(str::to_string).collect()
}

fn send(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// One process more than was killed, and one alone, go on from where the run stood.
#[track_caller]
fn check_resumes(home: &Path, name: &str, step: usize) {
    let from = home.join("runs").join(name);
    let other = format!("{name}-3");
    let copied =
        Command::new("cp").arg("-r").arg(&from).arg(home.join("runs").join(&other)).status();
    assert!(copied.unwrap().success());
    for (ranks, name) in [(1, name), (3, &other)] {
        let mut child = spawn(home, ranks, name);
        wait_until("a checkpoint after the resume", || {
            saved(home, name).into_iter().any(|other| other > step)
        });
        send("-INT", &child.id().to_string());
        child.wait().unwrap();
    }
    // Rounding grows with the steps: hundreds of them end apart.
    let first = |name: &str| losses(home, name).into_iter().skip(step).take(10);
    let apart = first(name).zip(first(&other)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{name}: ten steps of one and of three ranks differ by up to {apart:.1e}");
    assert!(first(name).len() == 10 && first(&other).len() == 10 && apart < 1e-5, "{apart}");
}

#[test]
fn an_interrupted_run_saves() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let child = spawn(home, 2, "interrupted");
    wait_until("a checkpoint", || !saved(home, "interrupted").is_empty());
    send("-INT", &child.id().to_string());
    let output: Output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    let steps = losses(home, "interrupted").len();
    assert!(
        saved(home, "interrupted").contains(&steps),
        "saved at its last step, {steps}: {stderr}"
    );
    assert!(stderr.contains(&format!("interrupted after step {steps}")), "{stderr}");
    assert!(!output.status.success());
    check_resumes(home, "interrupted", steps);
}

#[test]
fn a_dead_rank_ends_the_run() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let child = spawn(home, 2, "killed");
    wait_until("a checkpoint", || !saved(home, "killed").is_empty());
    let ranks = ranks_of(&child);
    assert_eq!(ranks.len(), 2);
    send("-KILL", &ranks[1]);
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("the same command continues from the last checkpoint"), "{stderr}");
    let step = saved(home, "killed").into_iter().max().unwrap();
    check_resumes(home, "killed", step);
}
