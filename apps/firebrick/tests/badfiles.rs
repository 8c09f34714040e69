//! Every malformed file of the corpus ends in one clear line, within the limits of its contract.
//!
//! The corpus is written by `shared/badfiles/badfiles.py`, which lies beside the repository, through
//! `badfiles_adapted.py`, which puts the recipes into our keys. Where it does not lie there, there is
//! nothing to check. `FIREBRICK_PYTHON` names another Python than `python3`.

#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

const SECONDS: u64 = 5;
const PEAK_MIB: f64 = 512.0;

/// Kinds of the corpus that a command reads.
const KINDS: &[&str] = &[
    "safetensors",
    "checkpoint_dir",
    "config",
    "tokenizer",
    "chat_template",
    "csv",
    "jsonl",
    "parquet",
    "archive",
    "recipe",
    "pickle",
    "gguf",
    "wav",
    "audio",
    "image",
    "npz",
    "npy",
];

#[test]
fn malformed_files_end_in_one_clear_line() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let badfiles = tests.join("../../../../shared/badfiles/badfiles.py");
    assert!(badfiles.exists(), "{} is not there", badfiles.display());
    let home = tempfile::tempdir().unwrap();
    let corpus = home.path().join("corpus");
    let script = tests.join("badfiles_adapted.py");
    python(&[&script, Path::new("generate"), &badfiles, &corpus, Path::new("--no-big")]);
    let manifest: Value =
        serde_json::from_slice(&fs::read(corpus.join("manifest.json")).unwrap()).unwrap();

    let cwd = home.path().join("cwd");
    fs::create_dir(&cwd).unwrap();
    let mut runs = vec![];
    for case in manifest["cases"].as_array().unwrap() {
        if KINDS.contains(&text(case, "kind")) {
            for strict in [false, true] {
                runs.extend(
                    command(case, &corpus, &cwd, runs.len(), strict)
                        .map(|command| (case, strict, command)),
                );
            }
        }
    }
    assert!(runs.len() > 150, "only {} runs", runs.len());
    let commands: Vec<_> = runs.iter().map(|(.., command)| command).collect();
    let (jobs, results) = (home.path().join("jobs.json"), home.path().join("results.json"));
    fs::write(&jobs, json!({"cwd": cwd, "seconds": SECONDS, "commands": commands}).to_string())
        .unwrap();
    python(&[&script, Path::new("run"), &jobs, &results]);
    let results: Vec<Value> = serde_json::from_slice(&fs::read(&results).unwrap()).unwrap();
    assert_eq!(results.len(), runs.len());

    let mut table = String::new();
    let mut failed = 0;
    for ((case, strict, _), result) in runs.iter().zip(&results) {
        let problems = judge(case, *strict, result);
        if !problems.is_empty() {
            failed += 1;
            let stderr: String =
                text(result, "stderr").chars().take(300).flat_map(char::escape_debug).collect();
            table.push_str(&format!(
                "{}{} ({}): {}\n    status {}, stderr: {stderr}\n",
                text(case, "path"),
                if *strict { " --strict" } else { "" },
                text(case, "defect"),
                problems.join("; "),
                result["status"],
            ));
        }
    }
    for path in
        [cwd.join("PWNED_MARKER"), corpus.join("PWNED_MARKER"), "/firebrick_evil.txt".into()]
    {
        if path.exists() {
            failed += 1;
            table.push_str(&format!("{} was written\n", path.display()));
        }
    }
    for path in files(home.path()).iter().filter(|path| path.ends_with("evil.txt")) {
        failed += 1;
        table.push_str(&format!("{} was written\n", path.display()));
    }
    assert!(failed == 0, "{failed} of {} runs fail:\n{table}", runs.len());
}

fn python(args: &[&Path]) {
    let python = std::env::var("FIREBRICK_PYTHON").unwrap_or_else(|_| "python3".into());
    let output =
        Command::new(&python).args(args).output().unwrap_or_else(|e| panic!("{python}: {e}"));
    assert!(output.status.success(), "{python}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The command that reads the case; in strict mode, only where there is one and it must refuse.
fn command(
    case: &Value,
    corpus: &Path,
    cwd: &Path,
    number: usize,
    strict: bool,
) -> Option<Vec<PathBuf>> {
    let file = corpus.join(text(case, "path"));
    let mut arguments: Vec<PathBuf> = vec![env!("CARGO_BIN_EXE_firebrick").into()];
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(PathBuf::from));
    let kind = text(case, "kind");
    if strict && !(["csv", "jsonl"].contains(&kind) && text(case, "expect") == "quarantine") {
        return None;
    }
    match kind {
        "tokenizer" => {
            add(&[
                "nlp",
                "tokenize",
                "--text",
                case["encode_text"].as_str().unwrap_or("abba ab"),
                "--tokenizer",
            ]);
            arguments.push(file);
        }
        "chat_template" => {
            add(&["nlp", "template"]);
            arguments.push(file);
        }
        "csv" | "jsonl" | "parquet" => {
            add(&["data", "check", "--json"]);
            // Said to be a matter of how the label is declared.
            if case.get("when").is_some() {
                add(&["--integer-labels"]);
            }
            if strict {
                add(&["--strict"]);
            }
            arguments.push(file);
        }
        "wav" | "audio" => {
            add(&["speech", "voice"]);
            arguments.push(file);
        }
        "image" => {
            add(&["vision", "classify", "--model", "gtsrb"]);
            arguments.push(file);
        }
        "npz" | "npy" => {
            add(&["data", "check"]);
            arguments.push(file);
        }
        "archive" => {
            add(&["data", "unpack"]);
            let parent = cwd.join(format!("unpacked/{number}"));
            fs::create_dir_all(&parent).unwrap();
            arguments.extend([file, parent.join("out")]);
        }
        // Checking a recipe does not open its data; training does.
        "recipe" if text(case, "path").ends_with("data_absent.toml") => {
            add(&["train", "--progress", "none"]);
            arguments.push(file);
        }
        "recipe" => {
            add(&["recipe", "check"]);
            arguments.push(file);
        }
        _ => {
            add(&["models", "inspect"]);
            arguments.push(file);
        }
    }
    Some(arguments)
}

/// What the run did other than the case and the contract say.
fn judge(case: &Value, strict: bool, result: &Value) -> Vec<String> {
    let mut problems = vec![];
    let mut check = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_string());
        }
    };
    let (stdout, stderr) = (text(result, "stdout"), text(result, "stderr"));
    let status = result["status"].as_i64().unwrap();
    let peak = result["peak_mib"].as_f64().unwrap();
    check(result["timed_out"] == false, "runs out of time");
    check(peak <= PEAK_MIB, &format!("takes {peak:.0} MiB"));
    check((0..128).contains(&status) && status != 101, "ends by a panic or a signal");
    let raw = |c: char| c.is_control() && c != '\n' && c != '\t';
    check(!stderr.contains(raw) && !stdout.contains(raw), "prints control characters");
    check(!stderr.contains("panicked at"), "panics");

    let expect = if strict { "error" } else { text(case, "expect") };
    let accepted = [expect, text(case, "also_ok")];
    let refuses = status != 0;
    let may_refuse = accepted.iter().any(|e| ["error", "safe"].contains(e));
    let may_accept =
        accepted.iter().any(|e| ["accept", "report", "quarantine", "safe"].contains(e));
    check(may_refuse || !refuses, "is refused");
    check(may_accept || refuses, "is accepted");
    if refuses {
        let lines = stderr.lines().filter(|line| !line.trim().is_empty()).count();
        check(lines == 1, &format!("{lines} lines on stderr"));
        let name = Path::new(text(case, "path")).file_name().unwrap().to_str().unwrap();
        // The file's own name may hold a word that the message should hold.
        let message = stderr.replace(name, "").to_lowercase();
        let mentions = case["mention"].as_array().map_or(&[][..], Vec::as_slice);
        let said = |word: &Value| message.contains(&word.as_str().unwrap().to_lowercase());
        // A sound recipe whose data is absent: the data file is the one to name.
        let absent = name == "data_absent.toml" && mentions.iter().any(said);
        check(stderr.contains(name) || absent, "the file is not named");
        check(
            mentions.is_empty() || mentions.iter().any(said),
            &format!("says none of {mentions:?}"),
        );
        let field = text(case, "field");
        // `row 50` may be said in other words.
        let field = field.split(' ').next_back().unwrap_or_default().to_lowercase();
        check(expect != "error" || message.contains(&field), &format!("does not name {field}"));
    } else {
        check(stderr.lines().count() <= 1, "accepted with noise on stderr");
        match text(case, "expect") {
            "report" => {
                check(stdout.contains(text(case, "field")), "the report lacks the field");
                check(stdout.to_lowercase().contains("finite"), "the report lacks the finding");
            }
            "quarantine" | "accept" if case.get("rows_ok").is_some() => {
                let report: Value = serde_json::from_str(stdout).unwrap_or_default();
                let part = &report["parts"][0];
                // Accepting a row that may be set aside is as good where the case says so.
                let lenient = text(case, "also_ok") == "accept" && part["bad"] == 0;
                let same = part["rows"] == case["rows_ok"] && part["bad"] == case["rows_bad"];
                check(
                    same || lenient,
                    &format!("reads {} rows and sets {} aside", part["rows"], part["bad"]),
                );
            }
            _ => {}
        }
    }
    problems
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// All files under a folder; links are not followed.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}
