//! `firebrick models inspect`: what a model or a file of weights holds, from its headers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use firebrick_core::checkpoint::{
    Source,
    config_check::check_config,
    folder,
    header::{self, Dtype, Header, TensorInfo},
    json::{quoted, read_strict},
};
use serde_json::{Value, json};

use super::{Outcome, nlp};
use crate::{
    cli::Global,
    failure::{BAD_FILE, Failure},
};

const CONFIG_LIMIT: u64 = 4 << 20;

/// Bytes of weights that are looked through unasked: as quick as the headers.
const SMALL: u64 = 16 << 20;

pub fn run(model: &Path, check: bool, global: &Global) -> Outcome {
    let is_config = model.extension().is_some_and(|e| e == "json");
    if is_config && !model.is_dir() {
        return config(model, global);
    }
    // A file is looked at whatever it is.
    let source = match fs::symlink_metadata(model).is_ok() && !model.is_dir() {
        true => Source::folder(model),
        false => nlp::checkpoint(&model.to_string_lossy(), global)?,
    };
    let report = match source {
        Source::Folder(path) => Report::read(&path, check)?,
        Source::Embedded { files, .. } => {
            let dir = tempfile::tempdir().context("a folder for the files of a shipped model")?;
            for (name, bytes) in files {
                fs::write(dir.path().join(name), bytes).context("a file of a shipped model")?;
            }
            Report::read(dir.path(), check)?
        }
    };
    super::print(global, &report.json(), &report.text());
    Ok(())
}

fn bad(path: &Path, problem: impl std::fmt::Display) -> Failure {
    Failure::text(BAD_FILE, format!("{}: {problem}", path.display()))
}

fn config(path: &Path, global: &Global) -> Outcome {
    let config = read_strict(path, CONFIG_LIMIT).map_err(|e| bad(path, e))?;
    check_config(&config).map_err(|e| bad(path, e))?;
    let text = serde_json::to_string_pretty(&config).context("printing a configuration")?;
    super::print(global, &config, &text);
    Ok(())
}

struct Report {
    files: Vec<(PathBuf, Header)>,
    /// Of `config.json`; where it does not say or is not there, none.
    model_type: Option<String>,
    architectures: Vec<String>,
    /// Of the files.
    bytes: u64,
    counts: Counts,
    /// Whether the numbers were read.
    checked: bool,
    findings: Vec<String>,
}

#[derive(Default)]
struct Counts {
    tensors: usize,
    /// Trained numbers.
    parameters: u64,
    /// Those in matrices, and the rows of these.
    in_matrices: u64,
    rows: u64,
    /// Tensors and numbers.
    dtypes: BTreeMap<String, (usize, u64)>,
}

impl Counts {
    fn of(files: &[(PathBuf, Header)]) -> Self {
        let mut counts = Self::default();
        let all = files.iter().flat_map(|(_, header)| &header.tensors);
        let names: BTreeSet<&str> = all.map(|tensor| tensor.name.as_str()).collect();
        for (_, header) in files {
            let mut places = BTreeSet::new();
            for tensor in &header.tensors {
                let elements = tensor.elements();
                counts.tensors += 1;
                let dtype = counts.dtypes.entry(tensor.dtype.to_string()).or_default();
                dtype.0 += 1;
                dtype.1 += elements;
                let trained = elements * trained(tensor, &names);
                // Tied weights of a PyTorch file lie in one place.
                if trained == 0 || !places.insert((tensor.begin, tensor.end)) {
                    continue;
                }
                counts.parameters += trained;
                if tensor.shape.len() > 1 {
                    counts.in_matrices += trained;
                    counts.rows += tensor.shape[0] as u64;
                }
            }
        }
        counts
    }

    /// Bytes of the parameters in memory: int8 keeps a scale a row of each matrix, and the rest in f32.
    fn memory(&self) -> [(&'static str, u64); 3] {
        let int8 = self.in_matrices + 4 * (self.rows + self.parameters - self.in_matrices);
        [("f32", 4 * self.parameters), ("f16", 2 * self.parameters), ("int8", int8)]
    }
}

/// How many trained numbers an element of this tensor is. The levels of a quantised matrix are trained, eight of them in a word
/// where they are packed; its scales and its shape, a norm's statistics and tables of positions are not.
fn trained(tensor: &TensorInfo, names: &BTreeSet<&str>) -> u64 {
    let has = |name: &str, ending: &str| names.contains(format!("{name}{ending}").as_str());
    let name = tensor.name.as_str();
    let of = |ending: &str| name.strip_suffix(ending);
    let counts = match tensor.dtype {
        Dtype::I8 => has(name, "_scale"),
        Dtype::I32 => return 8 * u64::from(of("_packed").is_some_and(|name| has(name, "_scale"))),
        dtype => {
            let scales = of("_scale").is_some_and(|name| has(name, "") || has(name, "_packed"));
            is_float(dtype)
                && !scales
                && !name.ends_with("running_mean")
                && !name.ends_with("running_var")
        }
    };
    u64::from(counts)
}

fn is_float(dtype: Dtype) -> bool {
    !matches!(
        dtype,
        Dtype::I64
            | Dtype::I32
            | Dtype::I16
            | Dtype::I8
            | Dtype::U64
            | Dtype::U32
            | Dtype::U16
            | Dtype::U8
            | Dtype::BOOL
    )
}

impl Report {
    fn read(path: &Path, check: bool) -> Result<Self, Failure> {
        let files = match path.is_dir() {
            true => folder::weight_files(path).map_err(|e| bad(path, e))?,
            false => vec![path.to_path_buf()],
        };
        let mut read = vec![];
        for file in files {
            let header = header::read_header(&file).map_err(|e| bad(&file, e))?;
            read.push((file, header));
        }
        let mut report = Self {
            counts: Counts::of(&read),
            files: read,
            model_type: None,
            architectures: vec![],
            bytes: 0,
            checked: false,
            findings: vec![],
        };
        for (file, _) in &report.files {
            report.bytes += fs::metadata(file).map_err(|e| bad(file, e))?.len();
        }
        if path.is_dir() {
            report.read_config(path);
        }
        report.checked = check || report.bytes <= SMALL;
        if report.checked {
            for (file, header) in &report.files {
                let found = header::scan(file, header).map_err(|e| bad(file, e))?;
                report.findings.extend(found.iter().map(ToString::to_string));
            }
        }
        Ok(report)
    }

    /// A folder is shown whether its configuration is sound or not; that is a finding.
    fn read_config(&mut self, dir: &Path) {
        let mut finding = |problem: String| self.findings.push(format!("config.json: {problem}"));
        match folder::holds(dir, "config.json") {
            Ok(true) => {}
            Ok(false) => return finding("is missing".into()),
            Err(problem) => return finding(problem.to_string()),
        }
        let config = match read_strict(&dir.join("config.json"), CONFIG_LIMIT) {
            Ok(config) => config,
            Err(problem) => return finding(problem.to_string()),
        };
        if let Err(problem) = check_config(&config) {
            finding(problem.to_string());
        }
        let text = |value: &Value| value.as_str().map(str::to_string);
        self.model_type = config.get("model_type").and_then(text);
        let architectures = config.get("architectures").and_then(Value::as_array);
        self.architectures = architectures.into_iter().flatten().filter_map(text).collect();
    }

    fn json(&self) -> Value {
        let tensors: Vec<Value> = self
            .tensors()
            .map(|(name, dtype, shape)| json!({"name": name, "dtype": dtype, "shape": shape}))
            .collect();
        let dtypes: BTreeMap<&String, Value> = self
            .counts
            .dtypes
            .iter()
            .map(|(dtype, (tensors, numbers))| {
                (dtype, json!({"tensors": tensors, "numbers": numbers}))
            })
            .collect();
        let files: Vec<_> = self.files.iter().map(|(path, _)| path.file_name()).collect();
        let files: Vec<_> = files.into_iter().flatten().map(|n| n.to_string_lossy()).collect();
        json!({
            "model_type": self.model_type,
            "architectures": self.architectures,
            "parameters": self.counts.parameters,
            "dtypes": dtypes,
            "files": files,
            "bytes": self.bytes,
            "memory": BTreeMap::from(self.counts.memory()),
            "checked": self.checked,
            "findings": self.findings,
            "tensors": tensors,
        })
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            writeln!(out, "{key:<12}{value}").expect("writing to a text");
        };
        let family = self.model_type.as_ref().map_or("not known".into(), |name| plain(name));
        let architectures: Vec<String> = self.architectures.iter().map(|a| plain(a)).collect();
        line(
            "family",
            match architectures.is_empty() {
                true => family,
                false => format!("{family} ({})", architectures.join(", ")),
            },
        );
        line("parameters", grouped(self.counts.parameters));
        for (dtype, (tensors, numbers)) in &self.counts.dtypes {
            line("dtype", format!("{dtype}: {tensors} tensors, {} numbers", grouped(*numbers)));
        }
        let files = self.files.len();
        let plural = if files == 1 { "" } else { "s" };
        line("on disk", format!("{} bytes in {files} file{plural}", grouped(self.bytes)));
        let memory: Vec<String> =
            self.counts.memory().map(|(name, bytes)| format!("{name} {}", megabytes(bytes))).into();
        line("in memory", memory.join(", "));
        line(
            "numbers",
            match self.checked {
                true => "read; what is not finite is a finding".into(),
                false => "not read; --check looks for NaN and infinity".into(),
            },
        );
        for finding in &self.findings {
            line("finding", finding.clone());
        }
        out.push('\n');
        for (name, dtype, shape) in self.tensors() {
            writeln!(out, "{}  {dtype}  {shape:?}", quoted(name)).expect("writing to a text");
        }
        writeln!(out, "{} tensors", self.counts.tensors).expect("writing to a text");
        out
    }

    fn tensors(&self) -> impl Iterator<Item = (&String, String, &Vec<usize>)> {
        let tensors = self.files.iter().flat_map(|(_, header)| &header.tensors);
        tensors.map(|tensor| (&tensor.name, tensor.dtype.to_string(), &tensor.shape))
    }
}

/// A name of a configuration: as it is, or in quotes where it holds more than a name does.
fn plain(name: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match name.chars().all(is_name) && name.len() <= 80 {
        true => name.into(),
        false => quoted(name),
    }
}

/// `109482240` -> `109,482,240`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let groups = groups.into_iter().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 2 x 64 levels in bytes, 2 x 64 in words, a float matrix of 2 x 3 and its bias.
    #[test]
    fn levels_are_parameters_and_their_scales_are_not() {
        let tensors: &[(&str, Dtype, &[usize])] = &[
            ("a.weight", Dtype::I8, &[2, 64]),
            ("a.weight_scale", Dtype::F32, &[2, 1]),
            ("b.weight_packed", Dtype::I32, &[2, 8]),
            ("b.weight_scale", Dtype::BF16, &[2, 2]),
            ("b.weight_shape", Dtype::I64, &[2]),
            ("c.weight", Dtype::F32, &[2, 3]),
            ("c.bias", Dtype::F32, &[2]),
            ("positions", Dtype::I64, &[1, 64]),
            ("norm.running_mean", Dtype::F32, &[2]),
        ];
        let tensor =
            |(place, (name, dtype, shape)): (usize, &(&str, Dtype, &[usize]))| TensorInfo {
                name: name.to_string(),
                dtype: *dtype,
                shape: shape.to_vec(),
                begin: place as u64,
                end: place as u64 + 1,
                strides: None,
            };
        let tensors = tensors.iter().enumerate().map(tensor).collect();
        let header = Header { tensors, metadata: BTreeMap::new(), data_start: 0 };
        let counts = Counts::of(&[(PathBuf::new(), header)]);
        assert_eq!((counts.parameters, counts.in_matrices, counts.rows), (264, 262, 6));
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(109_482_240), "109,482,240");
        assert_eq!(megabytes(1_500), "1.5 kB");
        assert_eq!(megabytes(437_928_960), "437.9 MB");
        assert_eq!(megabytes(2_500_000_000), "2.50 GB");
        assert_eq!(plain("bert"), "bert");
        assert_eq!(plain("a\u{1b}b"), "\"a\\u{1b}b\"");
    }
}
