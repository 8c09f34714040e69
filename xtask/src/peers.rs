//! `cargo xtask bench --peers`: our figures beside those of what a user would pick instead, in one table.
//!
//! The peers' scripts are those of `shared/peers`. Every figure is taken in a process of its own, ours and theirs by
//! turns, so that what else the machine does falls on all alike.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::{
    process::{line, status},
    workspace::Workspace,
};

struct Row {
    workload: &'static str,
    /// What `make_checkpoints.py` calls it, and the folder that it writes; or a model that we ship.
    checkpoint: Option<(&'static str, &'static str)>,
    /// Archive in `shared/data`.
    data: Option<&'static str>,
    /// What our weights are stored as; f32 where nothing is said.
    dtype: Option<&'static str>,
    peers: &'static [&'static str],
}

impl Row {
    fn name(&self) -> String {
        self.dtype.map_or(self.workload.into(), |dtype| format!("{}-{dtype}", self.workload))
    }
}

const fn row(
    workload: &'static str,
    checkpoint: Option<(&'static str, &'static str)>,
    data: Option<&'static str>,
    peers: &'static [&'static str],
) -> Row {
    Row { workload, checkpoint, data, dtype: None, peers }
}

const fn stored(
    workload: &'static str,
    checkpoint: Option<(&'static str, &'static str)>,
    dtype: &'static str,
    peers: &'static [&'static str],
) -> Row {
    Row { workload, checkpoint, data: None, dtype: Some(dtype), peers }
}

const BERT: Option<(&str, &str)> = Some(("bert-base", "bert-base"));
const GPT2: Option<(&str, &str)> = Some(("gpt2", "gpt2"));
const QWEN: Option<(&str, &str)> = Some(("qwen2-0.5b", "qwen2-0.5b-f32"));
const MINILM: Option<(&str, &str)> = Some(("minilm", "minilm"));
const VIT: Option<(&str, &str)> = Some(("vit-base-16", "vit-base-16"));
const RESNET: Option<(&str, &str)> = Some(("resnet-50", "resnet-50"));
const MOBILENET: Option<(&str, &str)> = Some(("mobilenet_v2", "mobilenet_v2"));
const WAV2VEC2: Option<(&str, &str)> = Some(("wav2vec2-base", "wav2vec2-base"));
const WHISPER: Option<(&str, &str)> = Some(("whisper-base", "whisper-base"));
/// Shipped in int8, here written in f32.
const TRANSLATOR: Option<(&str, &str)> = Some(("multi30k-en-de", "multi30k-en-de"));

/// Shipped in f16, here written in f32, and as ONNX for its peer.
const COMMANDS: Option<(&str, &str)> = Some(("commands", "commands"));

/// The first peer is the one to be measured against.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    //  workload          checkpoint  data                    peers
    row("bert-b1",        BERT,       None,                   &["ort-f32", "torch-eager"]),
    row("bert-b8",        BERT,       None,                   &["ort-f32", "torch-eager"]),
    row("gpt2-decode",    GPT2,       None,                   &["ort-f32", "torch-eager"]),
    row("llm-decode",     QWEN,       None,                   &["llamacpp-f32", "torch-eager"]),
    row("minilm-256",     MINILM,     Some("multi30k"),       &["ort-f32", "sentence-transformers"]),
    row("vit-b1",         VIT,        None,                   &["torch-eager"]),
    row("vit-b8",         VIT,        None,                   &["torch-eager"]),
    row("resnet50-b1",    RESNET,     None,                   &["ort-f32", "torch-eager"]),
    row("resnet50-b8",    RESNET,     None,                   &["torch-eager"]),
    row("mobilenetv2-b1", MOBILENET,  None,                   &["ort-f32", "torch-eager"]),
    row("data-logmel",    None,       Some("jfk"),            &["openai-whisper", "librosa", "transformers", "faster-whisper"]),
    row("augment",        None,       Some("coco128-street"), &["torchvision-v2", "torchvision-v2-2proc"]),
    row("translate-beam4", TRANSLATOR, Some("multi30k"),      &["ct2-f32"]),
    row("whisper-base",   WHISPER,    Some("jfk"),            &["torch-eager"]),
    row("commands-b1",    COMMANDS,   None,                   &["ort-f32"]),
    row("wav2vec2-b1",    WAV2VEC2,   Some("jfk"),            &["torch-eager"]),
    row("train-nanogpt",  None,       Some("tinyshakespeare"), &["torch-eager"]),
    row("train-gpt-b12",  None,       Some("tinyshakespeare"), &["torch-eager"]),
    row("train-bert-b8",  BERT,       None,                   &["torch-eager"]),
    row("start-bert",     BERT,       None,                   &["ort-f32", "torch-eager"]),
    stored("bert-b1",     BERT,       "int8",                 &["ort-int8", "torch-int8-dyn"]),
    stored("bert-b8",     BERT,       "int8",                 &["ort-int8", "torch-int8-dyn"]),
    stored("gpt2-decode", GPT2,       "int8",                 &["ort-int8"]),
    stored("llm-decode",  QWEN,       "bf16",                 &["llamacpp-bf16"]),
    stored("llm-decode",  QWEN,       "int8",                 &["llamacpp-q8_0"]),
    stored("llm-decode",  QWEN,       "int4",                 &["llamacpp-q4_0"]),
];

/// What we take from a line that a benchmark printed.
#[derive(Debug, Clone, Deserialize)]
struct Figure {
    peer: String,
    workload: String,
    metric: String,
    unit: String,
    median: f64,
    peak_rss_mb: Option<f64>,
    foreign_cpu: Option<f64>,
}

struct Options {
    workloads: Vec<String>,
    rounds: usize,
    /// Measured in place of one that is built now: that of `dist`, or of another commit.
    binary: Option<PathBuf>,
}

fn options(args: &[String]) -> anyhow::Result<Options> {
    let mut options = Options { workloads: vec![], rounds: 3, binary: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = value()?.parse().context("--rounds is a number")?,
            "--binary" => options.binary = Some(value()?.into()),
            name if ROWS.iter().any(|row| row.name() == name) => {
                options.workloads.push(name.into());
            }
            other => {
                let names: Vec<String> = ROWS.iter().map(Row::name).collect();
                bail!(
                    "no workload or option {other:?}: --rounds N, --binary PATH, {}",
                    names.join(", ")
                );
            }
        }
    }
    Ok(options)
}

/// Where everything is.
struct Places {
    /// `shared`, beside the repository or above.
    shared: PathBuf,
    /// `peers` of our own.
    own: PathBuf,
    root: PathBuf,
    python: PathBuf,
    binary: PathBuf,
}

pub fn run(
    args: &[String],
    workspace: &Workspace,
    build: impl Fn(&Workspace) -> anyhow::Result<PathBuf>,
) -> anyhow::Result<u8> {
    let options = options(args)?;
    let above = workspace.workspace_root.ancestors().map(|dir| dir.join("shared"));
    let shared = above.into_iter().find(|dir| dir.join("peers/bench.py").exists());
    let shared = shared.context("there is no shared/peers beside this repository")?;
    let python = python(&shared)?;
    let root = std::env::var_os("BENCH_ROOT").map(PathBuf::from);
    let places = Places {
        own: workspace.workspace_root.join("benches/peers"),
        root: root.unwrap_or_else(|| workspace.target_directory.join("peers")),
        python,
        binary: match options.binary {
            Some(binary) => binary,
            None => build(workspace)?,
        },
        shared,
    };
    let asked =
        |row: &&Row| options.workloads.is_empty() || options.workloads.contains(&row.name());
    let rows: Vec<&Row> = ROWS.iter().filter(asked).collect();
    for row in &rows {
        places.prepare(row)?;
    }

    let results = places.root.join("results.jsonl");
    let mut log = fs::OpenOptions::new().create(true).append(true).open(&results);
    let log = log.as_mut().map_err(|e| anyhow::anyhow!("{}: {e}", results.display()))?;
    let rounds = options.rounds.max(1);
    let mut figures = vec![];
    for row in &rows {
        for round in 1..=rounds {
            for peer in std::iter::once(&"firebrick").chain(row.peers) {
                eprintln!("{}: {peer}, {round} of {rounds}", row.name());
                let mut command = places.command(peer, row);
                let printed = command.stderr(Stdio::piped()).output();
                let printed =
                    printed.with_context(|| format!("cannot start `{}`", line(&command)))?;
                if !printed.status.success() {
                    // The other peers' figures stand without it.
                    let why = String::from_utf8_lossy(&printed.stderr);
                    let why = why.trim().lines().next_back().unwrap_or("no message").to_string();
                    eprintln!("{}: {peer} failed: {why}", row.name());
                    continue;
                }
                for text in String::from_utf8_lossy(&printed.stdout).lines() {
                    if let Ok(mut figure) = serde_json::from_str::<Figure>(text) {
                        writeln!(log, "{text}").with_context(|| results.display().to_string())?;
                        figure.workload = row.name();
                        figures.push(figure);
                    }
                }
            }
        }
    }
    print!("{}", table(&figures));
    eprintln!("every line is in {}", results.display());
    Ok(0)
}

/// `$BENCH_PYTHON`, an environment that is made where it is missing.
fn python(shared: &Path) -> anyhow::Result<PathBuf> {
    let setup = shared.join("peers/setup.sh");
    let Some(python) = std::env::var_os("BENCH_PYTHON").map(PathBuf::from) else {
        bail!(
            "BENCH_PYTHON names no Python with the peers; make one: {} VENV && export BENCH_PYTHON=VENV/bin/python",
            setup.display()
        );
    };
    if !python.exists() {
        let venv = python.parent().filter(|bin| bin.ends_with("bin")).and_then(Path::parent);
        let venv = venv.with_context(|| {
            format!(
                "BENCH_PYTHON is {}, which is neither there nor VENV/bin/python",
                python.display()
            )
        })?;
        eprintln!("making {}: some minutes, once", venv.display());
        if status(Command::new(&setup).arg(venv))? != 0 {
            bail!("`{} {}` failed", setup.display(), venv.display());
        }
    }
    Ok(python)
}

impl Places {
    /// Checkpoint and data of a row, where they are missing.
    fn prepare(&self, row: &Row) -> anyhow::Result<()> {
        if let Some(set) = row.data {
            let folder = self.root.join("data").join(set);
            if !folder.exists() {
                let partial = folder.with_extension("partial");
                fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
                let archive = self.shared.join("data").join(format!("{set}.tar.xz"));
                let mut tar = Command::new("tar");
                if status(tar.arg("-xf").arg(&archive).arg("-C").arg(&partial))? != 0 {
                    bail!("`{}` failed", line(&tar));
                }
                fs::rename(&partial, &folder).with_context(|| folder.display().to_string())?;
            }
        }
        let checkpoints = self.root.join("checkpoints");
        if let Some((name, folder)) = row.checkpoint
            && !checkpoints.join(folder).join("config.json").exists()
        {
            let mut make = Command::new(&self.python);
            make.arg(self.shared.join("peers/make_checkpoints.py")).arg(name);
            if [TRANSLATOR, COMMANDS].contains(&row.checkpoint) {
                make = Command::new(&self.binary);
                make.args(["models", "convert", name]).arg(checkpoints.join(folder));
            }
            if status(make.env("BENCH_ROOT", &self.root))? != 0 {
                bail!("`{}` failed", line(&make));
            }
        }
        let (folder, onnx) = (checkpoints.join("commands"), checkpoints.join("commands.onnx"));
        if row.checkpoint == COMMANDS && !onnx.exists() {
            let mut convert = Command::new(&self.binary);
            convert.args(["models", "convert"]).arg(folder).arg(onnx);
            if status(convert.stdout(Stdio::null()))? != 0 {
                bail!("`{}` failed", line(&convert));
            }
        }
        if let (Some((_, folder)), Some((dtype, target))) = (row.checkpoint, self.stored(row))
            && !target.join("config.json").exists()
        {
            let mut convert = Command::new(&self.binary);
            convert.args(["models", "convert"]).arg(checkpoints.join(folder)).arg(target);
            if status(convert.args(["--dtype", dtype]).stdout(Stdio::null()))? != 0 {
                bail!("`{}` failed", line(&convert));
            }
        }
        Ok(())
    }

    /// The checkpoint of a row that is not stored as it was made.
    fn stored(&self, row: &Row) -> Option<(&'static str, PathBuf)> {
        let ((_, folder), dtype) = row.checkpoint.zip(row.dtype)?;
        Some((dtype, self.root.join("stored").join(format!("{folder}-{dtype}"))))
    }

    fn command(&self, peer: &str, row: &Row) -> Command {
        let workload = row.workload;
        let scripts = self.shared.join("peers");
        let mut command = match (peer, workload) {
            ("firebrick", _) => {
                // As bench.py does: a scheduling group of its own, to be preferred while timing.
                let mut command = Command::new(&self.binary);
                if std::env::var_os("BENCH_NICE").is_some() {
                    command = Command::new("setsid");
                    command.arg("--wait").arg(&self.binary);
                }
                command.args(["bench", workload]);
                if let Some((_, folder)) = self.stored(row) {
                    command.arg("--model").arg(folder);
                }
                command
            }
            // What the shared scripts do not have.
            (_, "train-gpt-b12" | "translate-beam4" | "commands-b1") => {
                let script = match workload {
                    "train-gpt-b12" => "train_gpt.py",
                    "translate-beam4" => "translate.py",
                    _ => "commands.py",
                };
                let mut command = Command::new(&self.python);
                command.arg(self.own.join(script)).arg(scripts);
                command
            }
            // Its wheel; the scripts' `llama-cpp-python` has to be compiled.
            (peer, "llm-decode") if peer.starts_with("llamacpp") => {
                let mut command = Command::new(&self.python);
                command.arg(self.own.join("llama.py")).arg(scripts).arg(peer);
                command
            }
            (peer, "augment") => {
                let mut command = Command::new(&self.python);
                command.arg(self.own.join("augment.py")).arg(scripts).arg(peer);
                command
            }
            _ => {
                let mut command = Command::new(&self.python);
                command.arg(scripts.join("bench.py")).args([peer, workload]);
                command
            }
        };
        command.env("BENCH_ROOT", &self.root).stdin(Stdio::null());
        command
    }
}

/// One row for each metric and peer, in the order in which they came; medians over the rounds.
fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "| workload | unit | firebrick | peer | its figure | firebrick is faster by | peak MB | its peak MB | \
         cores used by others |\n|---|---|---:|---|---:|---:|---:|---:|---:|\n",
    );
    let mut seen = vec![];
    for Figure { peer, workload, metric, unit, .. } in figures {
        if peer == "firebrick" || seen.contains(&(peer, workload, metric)) {
            continue;
        }
        seen.push((peer, workload, metric));
        let of = |peer: &str| -> Vec<&Figure> {
            let same =
                |f: &&Figure| f.peer == peer && f.workload == *workload && f.metric == *metric;
            figures.iter().filter(same).collect()
        };
        let (ours, theirs) = (of("firebrick"), of(peer));
        let (a, b) = (middle(&ours, value), middle(&theirs, value));
        let faster = a.zip(b).map(|(a, b)| if unit == "ms" { b / a } else { a / b });
        let load = ours.iter().chain(&theirs).filter_map(|f| f.foreign_cpu).reduce(f64::max);
        let name = match metric.as_str() {
            "latency" | "throughput" => workload.clone(),
            metric => format!("{workload}, {metric}"),
        };
        let _ = writeln!(
            text,
            "| {name} | {unit} | {} | {peer} | {} | {} | {} | {} | {} |",
            shown(a, 2),
            shown(b, 2),
            shown(faster, 2),
            shown(middle(&ours, peak), 0),
            shown(middle(&theirs, peak), 0),
            shown(load, 2),
        );
    }
    text
}

fn value(figure: &Figure) -> Option<f64> {
    Some(figure.median)
}

fn peak(figure: &Figure) -> Option<f64> {
    figure.peak_rss_mb
}

fn middle(figures: &[&Figure], of: impl FnMut(&Figure) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = figures.iter().copied().filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some((values[last / 2] + values[last.div_ceil(2)]) / 2.0)
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(peer: &str, metric: &str, unit: &str, median: f64) -> Figure {
        let (peer, workload, metric) = (peer.into(), "w".into(), metric.into());
        let unit = unit.into();
        Figure { peer, workload, metric, unit, median, peak_rss_mb: Some(7.0), foreign_cpu: None }
    }

    #[track_caller]
    fn check(figures: &[Figure], rows: &[&str]) {
        let table = table(figures);
        assert_eq!(table.lines().skip(2).collect::<Vec<_>>(), rows);
    }

    #[test]
    fn less_time_and_more_throughput_are_faster() {
        let latency = |peer, median| figure(peer, "latency", "ms", median);
        check(
            &[latency("firebrick", 10.0), latency("other", 20.0)],
            &["| w | ms | 10.00 | other | 20.00 | 2.00 | 7 | 7 | - |"],
        );
        let rate = |peer, median| figure(peer, "decode-only", "tokens/s", median);
        check(
            &[rate("firebrick", 10.0), rate("other", 20.0)],
            &["| w, decode-only | tokens/s | 10.00 | other | 20.00 | 0.50 | 7 | 7 | - |"],
        );
    }

    #[test]
    fn rounds_give_their_median_and_a_missing_side_a_dash() {
        let other = |median| figure("other", "latency", "ms", median);
        check(
            &[other(9.0), other(1.0), other(2.0)],
            &["| w | ms | - | other | 2.00 | - | - | 7 | - |"],
        );
        check(&[other(1.0), other(2.0)], &["| w | ms | - | other | 1.50 | - | - | 7 | - |"]);
    }

    #[test]
    fn reads_what_the_scripts_print() {
        let line = r#"{"peer": "ort-f32", "workload": "bert-b1", "metric": "latency", "unit": "ms", "median": 51.9,
            "min": 50, "max": 52, "repeats": 5, "threads": 2, "peak_rss_mb": null, "versions": {}, "foreign_cpu": 0.1}"#;
        let figure: Figure = serde_json::from_str(line).unwrap();
        assert_eq!(
            (figure.median, figure.peak_rss_mb, figure.foreign_cpu),
            (51.9, None, Some(0.1))
        );
    }

    #[test]
    fn an_unknown_workload_is_an_error() {
        assert!(options(&["bert-b9".into()]).is_err());
        let some = options(&["bert-b8".into(), "--rounds".into(), "2".into()]).unwrap();
        assert_eq!((some.workloads, some.rounds), (vec!["bert-b8".to_string()], 2));
    }
}
