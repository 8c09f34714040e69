//! The binary as a user meets it: on a slice of real data, with real signals.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

fn firebrick(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command
        .current_dir(home)
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env_remove("FIREBRICK_DATA")
        .env_remove("FIREBRICK_RUNS");
    command
}

#[track_caller]
fn run(home: &Path, args: &[&str], code: i32) -> Output {
    let output = firebrick(home).args(args).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {shown}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The recipe sst2, cut down to some seconds, without its teacher.
#[rustfmt::skip]
const SHORT: &[&str] = &[
    "--set", "train.max_steps=80",
    "--set", "train.warmup_steps=20",
    "--set", "train.eval_every=20",
    "--set", "tokenizer.vocab_size=2000",
    "--set", "distill.texts_per_row=0",
    "--progress", "none",
];
const TAUGHT: &[&str] = &["--set", "distill.texts_per_row=1"];

fn train(home: &Path, name: &str) {
    let args = [&["train", "sst2", "--run", name][..], SHORT].concat();
    run(home, &args, 0);
}

fn weights(home: &Path, name: &str) -> Vec<u8> {
    fs::read(home.join("runs").join(name).join("model/model.safetensors")).unwrap()
}

#[test]
fn a_run_from_data_to_answers() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let train = [&["train", "sst2", "--run", "one"][..], SHORT, TAUGHT].concat();
    run(home, &train, 0);
    let folder = home.join("runs/one");
    for file in
        ["run.json", "recipe.toml", "recipe.resolved.toml", "metrics.jsonl", "model/config.json"]
    {
        assert!(folder.join(file).exists(), "{file} is missing");
    }
    // Again: it is finished, and stays as it is.
    let again = run(home, &train, 2);
    assert!(text(&again.stderr).contains("already finished"));

    let eval = run(home, &["eval", "runs/one", "--json"], 0);
    let eval: Value = serde_json::from_slice(&eval.stdout).unwrap();
    assert_eq!(eval["rows"], 872);
    let run_json: Value =
        serde_json::from_slice(&fs::read(folder.join("run.json")).unwrap()).unwrap();
    assert_eq!(eval["metrics"]["accuracy"], run_json["metrics"]["valid"]["accuracy"]);
    let gate = run(home, &["eval", "one", "--require", "accuracy>=0.999"], 4);
    assert!(text(&gate.stderr).contains("gate not met: accuracy is 0."));

    fs::write(home.join("in.jsonl"), "{\"text\": \"good\"}\nnot json\n{\"text\": \"很好\"}\n")
        .unwrap();
    let answers = run(home, &["predict", "one", "--input", "in.jsonl"], 5);
    let lines: Vec<Value> =
        text(&answers.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["id"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
    assert!(lines[1]["error"].is_string() && lines[0]["label"].is_string());
    assert!(text(&answers.stdout).starts_with("{\"id\":0,"), "id comes first");
    let sum: f64 =
        lines[0]["scores"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    assert!(text(&answers.stderr).contains("1 of 3 could not be read"));

    run(home, &["runs", "show", "one"], 0);
    run(home, &["runs", "rm", "one"], 0);
    assert!(!folder.exists());
}

/// Waits until a run has taken some steps.
fn wait_for_step(folder: &Path, steps: usize) {
    for _ in 0..4800 {
        let log = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
        let saved = folder.join("checkpoints").read_dir().is_ok_and(|mut dir| dir.next().is_some());
        if log.lines().count() >= steps || saved {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{} took no steps", folder.display());
}

fn spawn(home: &Path, name: &str) -> std::process::Child {
    let args = [&["train", "sst2", "--run", name][..], SHORT].concat();
    firebrick(home).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn interrupted_and_killed_runs_end_in_the_same_weights() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    train(home, "straight");

    let mut child = spawn(home, "interrupted");
    wait_for_step(&home.join("runs/interrupted"), 1);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let code = child.wait().unwrap().code();
    // It may have finished just before.
    if code != Some(0) {
        assert_eq!(code, Some(130));
        train(home, "interrupted");
    }
    assert!(
        weights(home, "straight") == weights(home, "interrupted"),
        "SIGINT changed the weights"
    );

    let mut child = spawn(home, "killed");
    wait_for_step(&home.join("runs/killed"), 1);
    std::thread::sleep(Duration::from_millis(u64::from(std::process::id() % 400)));
    child.kill().unwrap();
    child.wait().unwrap();
    let finished =
        fs::read_to_string(home.join("runs/killed/run.json")).unwrap().contains("\"finished\"");
    if !finished {
        train(home, "killed");
    }
    assert!(weights(home, "straight") == weights(home, "killed"), "SIGKILL changed the weights");
}

/// Rows of some words each, and a recipe that learns them in a second or two and saves every other step.
fn write_tiny(home: &Path) {
    let (good, bad) = (["good", "fine", "nice", "warm"], ["bad", "dull", "cold", "poor"]);
    let mut rows = "text,label\n".to_string();
    for i in 0..64 {
        let (words, label) = if i % 2 == 0 { (good, "yes") } else { (bad, "no") };
        let [a, b, c] = [i / 2 % 4, i / 8 % 4, i / 32].map(|word: usize| words[word]);
        rows.push_str(&format!("the {a} {b} thing was {c} number {i},{label}\n"));
    }
    fs::write(home.join("tiny.csv"), rows).unwrap();
    let recipe = "version = 1\ntask = \"text-classification\"\nname = \"tiny\"\nseed = 7\n\
         [data]\ntrain = \"tiny.csv\"\nvalid_fraction = 0.2\nleaks = \"off\"\n\
         [tokenizer]\nvocab_size = 300\nmax_len = 16\n\
         [model]\nhidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\nintermediate_size = 32\n\
         [train]\nmax_steps = 60\nepochs = 1000\nbatch_size = 8\nwarmup_steps = 4\neval_every = 20\nema_decay = 0.9\n\
         [checkpoint]\nevery_steps = 2\n";
    fs::write(home.join("tiny.toml"), recipe).unwrap();
}

/// The newest checkpoint of a run.
fn newest(run: &Path) -> usize {
    let step = |name: std::ffi::OsString| name.to_str()?.strip_prefix("step-")?.parse().ok();
    let entries = run.join("checkpoints").read_dir().into_iter().flatten();
    entries.filter_map(|entry| step(entry.ok()?.file_name())).max().unwrap_or(0)
}

/// As many kills as fit in twenty seconds, at any moment of a run that always writes; or `FIREBRICK_KILLS` of them.
#[test]
fn kills_lose_no_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write_tiny(home);
    fn args(name: &str) -> [&str; 8] {
        ["train", "tiny.toml", "--run", name, "--progress", "none", "--threads", "1"]
    }
    let begun = Instant::now();
    run(home, &args("straight"), 0);
    let whole = begun.elapsed();

    let wanted: Option<usize> = std::env::var("FIREBRICK_KILLS").ok().map(|n| n.parse().unwrap());
    let goes_on = |kills| match wanted {
        Some(wanted) => kills < wanted,
        None => begun.elapsed() < whole + Duration::from_secs(20),
    };
    let (mut kills, mut runs, mut random) = (0, 0, 1u64);
    while goes_on(kills) {
        let name = format!("killed-{runs}");
        let folder = home.join("runs").join(&name);
        let mut before = 0;
        loop {
            let mut command = firebrick(home);
            let command = command.args(args(&name)).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            // Somewhere on its way; Knuth's generator.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let share = (random >> 40) as f64 / (1u64 << 24) as f64;
            if goes_on(kills) {
                std::thread::sleep(whole.min(Duration::from_secs(1)).mul_f64(share));
                child.kill().unwrap();
            }
            let status = child.wait().unwrap();
            assert!(newest(&folder) >= before, "kill {kills} of {name} lost a checkpoint");
            before = newest(&folder);
            match status.code() {
                None => {
                    kills += 1;
                    // Behind its last step: the next start would say so.
                    let told = fs::read_to_string(folder.join("run.json")).unwrap_or_default();
                    if told.contains("\"status\": \"finished\"") {
                        break;
                    }
                }
                Some(code) => {
                    assert_eq!(code, 0, "after {kills} kills");
                    break;
                }
            }
        }
        assert!(
            weights(home, "straight") == weights(home, &name),
            "other weights in {name} after {kills} kills"
        );
        runs += 1;
    }
    println!("{kills} kills in {runs} runs");
    assert!(kills >= 3, "{kills} kills");
}

/// A training that takes minutes, past its first steps.
fn spawn_long(home: &Path, program: &mut Command, name: &str) -> std::process::Child {
    let args = ["train", "tiny.toml", "--run", name, "--progress", "none", "--threads", "1"];
    let program = program.current_dir(home).args(args).args(["--set", "train.max_steps=0"]);
    let child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.unwrap();
    wait_for_step(&home.join("runs").join(name), 1);
    child
}

#[test]
fn a_run_is_not_deleted_while_it_is_trained_and_is_stopped_after_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write_tiny(home);
    let mut child = spawn_long(home, &mut firebrick(home), "long");
    let told = || -> (String, u64) {
        let runs: Value =
            serde_json::from_slice(&run(home, &["runs", "ls", "--json"], 0).stdout).unwrap();
        let steps = runs[0]["counters"]["step"].as_u64().unwrap();
        (runs[0]["status"].as_str().unwrap().into(), steps)
    };
    let refused = text(&run(home, &["runs", "rm", "long"], 1).stderr);
    assert!(refused.contains("is being trained by another process"), "{refused}");
    while told().1 == 0 {
        std::thread::sleep(Duration::from_millis(25));
    }
    assert_eq!(told().0, "running");
    child.kill().unwrap();
    child.wait().unwrap();
    let newest = newest(&home.join("runs/long"));
    assert_eq!(told(), ("stopped".into(), newest as u64));
    let shown = text(&run(home, &["runs", "show", "long"], 0).stdout);
    assert!(shown.contains("status   stopped"), "{shown}");
    assert!(shown.contains(&format!("steps    {newest}\n")), "{shown}");
    run(home, &["runs", "rm", "long"], 0);
    assert_eq!(home.join("runs").read_dir().unwrap().count(), 0);
}

/// A hang-up that was ignored when a training began stays ignored, and other signals end it.
#[cfg(target_os = "linux")]
#[test]
fn nohup_keeps_a_training_from_a_hang_up() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write_tiny(home);
    let mut program = Command::new("nohup");
    program.arg(env!("CARGO_BIN_EXE_firebrick")).env_remove("FIREBRICK_RUNS");
    let mut child = spawn_long(home, &mut program, "long");
    let pid = child.id().to_string();
    let send = |signal: &str| {
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    send("-HUP");
    let folder = home.join("runs/long");
    let before = newest(&folder);
    while newest(&folder) < before + 20 {
        assert!(child.try_wait().unwrap().is_none(), "a hang-up ended it");
        std::thread::sleep(Duration::from_millis(25));
    }
    send("-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// What two places say of a seed must not be mixed up, nor what was trained for unlike times averaged.
#[test]
fn seeds_and_unfinished_runs_are_not_mixed() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write_tiny(home);
    let refused = |args: &[&str], message: &str| {
        let said = text(&run(home, args, 2).stderr);
        assert!(said.contains(message), "{args:?} said: {said}");
    };
    let train = ["train", "tiny.toml", "--progress", "none", "--json"];
    refused(
        &[&train[..], &["--each", "seed=1,2", "--seed", "5"]].concat(),
        "--seed 5 (or FIREBRICK_SEED) stands beside --each seed",
    );
    refused(
        &[&train[..], &["--set", "seed=3", "--seed", "5"]].concat(),
        "--seed 5 (or FIREBRICK_SEED) stands beside --set seed=3",
    );
    assert!(!home.join("runs").exists());

    let each = |more: &[&str]| -> Value {
        let args = [&train[..], &["--each", "seed=1,2", "--set", "train.max_steps=8"], more];
        serde_json::from_slice(&run(home, &args.concat(), 0).stdout).unwrap()
    };
    let part = each(&["--max-seconds", "0"]);
    assert_eq!(part["unfinished"], serde_json::json!(["1", "2"]));
    assert!(part["means"]["valid accuracy"].is_null(), "{part}");
    let whole = each(&[]);
    assert_eq!(whole["unfinished"], serde_json::json!([]));
    assert!(whole["means"]["valid accuracy"].is_number(), "{whole}");

    let recipe = fs::read_to_string(home.join("tiny.toml")).unwrap();
    let space = "[sweep]\ntrials = 1\n[sweep.space]\n\"train.learning_rate\" = { low = 1e-3, high = 1e-2 }\n";
    fs::write(home.join("space.toml"), recipe + space).unwrap();
    let sweep = ["sweep", "space.toml", "--progress", "none", "--set", "train.max_steps=4"];
    run(home, &sweep, 0);
    run(home, &sweep, 0);
    refused(&[&sweep[..], &["--seed", "5"]].concat(), "the study of another recipe or seed");
}

#[test]
fn a_training_goes_on_from_the_model_of_a_run() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write_tiny(home);
    let short = ["--progress", "none", "--set", "train.max_steps=4"];
    run(home, &[&["train", "tiny.toml", "--run", "first"][..], &short].concat(), 0);
    let recipe = fs::read_to_string(home.join("tiny.toml")).unwrap();
    let head = recipe.split("[tokenizer]").next().unwrap();
    let rest = "[tokenizer]\nkind = \"pretrained\"\nmax_len = 16\n[model]\npretrained = \"runs/first\"\n\
         [train]\nmax_steps = 4\nwarmup_steps = 1\nbatch_size = 8\n";
    fs::write(home.join("next.toml"), format!("{head}{rest}")).unwrap();
    let next = ["train", "next.toml", "--run", "next", "--progress", "none"];
    run(home, &next, 0);
    // Its name alone could be anything.
    let named = [&next[..], &["--set", "model.pretrained=first"]].concat();
    let said = text(&run(home, &named, 3).stderr);
    assert!(said.contains("no pretrained model `first`; looked in first"), "{said}");
    assert!(said.contains("a run is named by its folder"), "{said}");
}

/// A model that was stopped on its way does not pass for the shipped one of its name.
#[test]
fn an_unfinished_run_does_not_stand_before_a_shipped_model() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write_tiny(home);
    let ask = |model: &str| {
        let texts = ["a moving and funny film", "a dull , lifeless mess"];
        let args = [&["nlp", "sentiment", "--json", "--model", model][..], &texts].concat();
        let output = run(home, &args, 0);
        (text(&output.stdout), text(&output.stderr))
    };
    let (shipped, said) = ask("sst2");
    assert_eq!(said, "");
    let train = ["train", "tiny.toml", "--run", "sst2", "--progress", "none"];
    run(home, &[&train[..], &["--max-seconds", "0"]].concat(), 0);
    let (answer, said) = ask("sst2");
    assert_eq!(answer, shipped);
    assert!(said.contains("has not come to its end: this is the shipped model `sst2`"), "{said}");
    assert_ne!(ask("runs/sst2").0, shipped, "who names the folder gets it");
    run(home, &train, 0);
    let (answer, said) = ask("sst2");
    assert_ne!(answer, shipped);
    assert!(said.contains("not the shipped model `sst2`"), "{said}");
}

/// A ladder that was stopped goes on: what is trained is not trained again.
#[test]
fn a_ladder_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let lines: String = (0..400).map(|i| format!("line {} of the poem\n", i % 7)).collect();
    fs::write(home.join("poem.txt"), lines).unwrap();
    #[rustfmt::skip]
    let args = [
        "nlp", "ladder", "poem.txt", "--run", "steps", "--states", "2", "--rounds", "1", "--epochs", "0.5", "--json", "--progress", "none",
    ];
    let rungs = |output: Output| -> Vec<Value> { serde_json::from_slice(&output.stdout).unwrap() };
    let first = rungs(run(home, &args, 0));
    let stamp = |name: &str| fs::metadata(home.join("runs/steps").join(name)).unwrap().modified();
    let trained = stamp("rnn/model/model.safetensors").unwrap();
    fs::remove_dir_all(home.join("runs/steps/gpt")).unwrap();
    let again = rungs(run(home, &args, 0));
    assert_eq!(stamp("rnn/model/model.safetensors").unwrap(), trained);
    for (first, again) in first.iter().zip(&again) {
        for key in ["model", "parameters", "valid_perplexity", "test_perplexity"] {
            assert_eq!(first[key], again[key], "{first}");
        }
    }
    assert_eq!(again.len(), 10);
    let both_sides = |rung: &&Value| rung["both_sides"] == true;
    let bert: Vec<&Value> = again.iter().filter(both_sides).collect();
    assert_eq!(bert.len(), 1);
    assert!(bert[0]["test_perplexity"].as_f64().is_some_and(|score| score > 1.0), "{}", bert[0]);
}

/// Counted, written, read back; what a damaged file and wrong arguments end in.
#[test]
fn an_ngram_model_is_an_arpa_file() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(home.join("text.txt"), "the cat sat\nthe cat ran\nthe dog sat\n".repeat(9)).unwrap();
    fs::write(home.join("new.txt"), "the bird sat\n").unwrap();
    let fit = ["nlp", "ngram", "fit", "text.txt", "--output", "m.arpa", "--order", "3", "--json"];
    let fitted: Value = serde_json::from_slice(&run(home, &fit, 0).stdout).unwrap();
    assert_eq!(fitted["orders"][0]["kept"], 6); // five words and the end
    let ask = |text: &str| -> Value {
        let args = ["nlp", "ngram", "score", "m.arpa", text, "--json"];
        serde_json::from_slice(&run(home, &args, 0).stdout).unwrap()
    };
    let [known, new] = [ask("text.txt"), ask("new.txt")];
    assert_eq!([&known["tokens"], &known["unknown"]], [108, 0]);
    assert_eq!([&new["tokens"], &new["unknown"]], [4, 1]);
    assert!(known["perplexity"].as_f64() < new["perplexity"].as_f64(), "{known} {new}");
    assert_eq!(known["perplexity"], known["perplexity_without_unknown"]);
    let model = fs::read_to_string(home.join("m.arpa")).unwrap();
    fs::write(home.join("m.arpa"), &model[..model.len() / 2]).unwrap();
    let said = text(&run(home, &["nlp", "ngram", "score", "m.arpa", "new.txt"], 5).stderr);
    assert!(said.contains("m.arpa"), "{said}");
    let wrong = ["nlp", "ngram", "fit", "text.txt", "--output", "m.arpa", "--order", "99"];
    run(home, &wrong, 2);
}

/// What is refused by its arguments alone, before any work.
#[test]
fn arguments_are_refused_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let check = |args: &[&str], message: &str| {
        let said = text(&run(home.path(), args, 2).stderr);
        assert!(said.contains(message), "{args:?} said: {said}");
    };
    let name = "only letters, digits, -, _ and . make a folder's name";
    for wrong in ["x/../../esc", "..", "", "a/b"] {
        check(&["train", "sst2", "--run", wrong], name);
        check(&["nlp", "ladder", "ptb", "--run", wrong], name);
    }
    check(&["train", "sst2", "--each", "data.dataset=../x,sst2"], name);
    check(&["eval", "sst2", "--batch-size", "0"], "at least 1");
    let layers = ["compress", "sst2", "--output", "out", "--prune", "layers=1.0"];
    check(&layers, "a whole number of layers, as in layers=2, or a share of them below 1");
    check(&["sweep", "sst2", "--trials", "0"], "at least 1");
    let tracked = ["train", "sst2", "--track", "mlflow:http://127.0.0.1:9"];
    check(&[&tracked[..], &["--offline"]].concat(), "--offline: --track uses the network");
    assert!(!home.path().join("runs").exists());
}

/// `--json` is one document, and a reader that has seen enough ends a command in silence.
#[test]
fn recipes_are_told_as_json() {
    let home = tempfile::tempdir().unwrap();
    let ask = |args: &[&str]| -> Value {
        let args = [&["--json", "recipe"][..], args].concat();
        serde_json::from_slice(&run(home.path(), &args, 0).stdout).unwrap()
    };
    assert!(ask(&["ls"]).as_array().unwrap().iter().any(|recipe| recipe["name"] == "sst2"));
    assert!(ask(&["show", "sst2"])["toml"].as_str().unwrap().contains("[train]"));
    assert_eq!(ask(&["check", "sst2"])["task"], "text-classification");
    assert_eq!(ask(&["cp", "sst2", "mine.toml"])["file"], "mine.toml");

    let mut command = firebrick(home.path());
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[track_caller]
fn check_error(args: &[&str], code: i32, message: &str) {
    let home = tempfile::tempdir().unwrap();
    fs::write(
        home.path().join("typo.toml"),
        "version = 1\ntask = \"text-classification\"\nname = \"x\"\n\
        [data]\ndataset = \"sst2\"\n[train]\nepoch = 3\n",
    )
    .unwrap();
    let one = "version = 1\ntask = \"text-classification\"\nname = \"x\"\n[data]\ntrain = \"one.csv\"\nleaks = \"off\"\n";
    let rows = (0..20).map(|i| format!("row number {i},yes\n"));
    for (file, content) in [
        ("one.toml", one.to_string()),
        ("one.csv", "text,label\n".to_string() + &rows.collect::<String>()),
        ("empty.txt", String::new()),
    ] {
        fs::write(home.path().join(file), content).unwrap();
    }
    let output = run(home.path(), args, code);
    let stderr = text(&output.stderr);
    assert!(stderr.contains(message), "{args:?} said: {stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "more than one line: {stderr}");
}

#[test]
fn errors_say_what_and_what_next() {
    check_error(
        &["recipe", "check", "typo.toml"],
        2,
        "typo.toml: line 7: unknown key `epoch`: did you mean `epochs`?",
    );
    check_error(&["train", "sst3"], 2, "did you mean `sst2`?");
    check_error(&["eval", "nothing"], 2, "no model `nothing`");
    check_error(&["eval", "sst2", "--require", "accuracy=1"], 2, "--require `accuracy=1`");
    check_error(&["runs", "show", "../x"], 2, "no run `../x`");
    check_error(&["data", "fetch", "sst"], 2, "did you mean `sst2`?");
    check_error(&["eval", "sst2", "--data", "nosuch"], 2, "neither a file nor a data set");
    check_error(&["eval", "sst2", "--data", "gtsrb"], 2, "not a text classification set");
    check_error(&["eval", "sst2", "--data", "sst2", "--split", "x"], 2, "no part `x`");
    check_error(&["eval", "sst2", "--data", "typo.toml", "--split", "x"], 2, "has no parts");
    let set = |set| ["train", "sst2", "-q", "--set", set];
    check_error(&set("data.dataset=nosuch"), 2, "no data set");
    check_error(&set("data.dataset=gtsrb"), 2, "not a text classification set");
    check_error(&set("train.epoch=3"), 2, "sst2: --set train.epoch=3: unknown key `epoch`");
    check_error(
        &set("model.lora.alpha=3"),
        2,
        "--set model.lora.alpha=3: `model.lora.alpha` is not",
    );
    check_error(&["nlp", "ladder", "empty.txt", "-q"], 5, "empty.txt: 0 lines or characters");
    check_error(&["train", "one.toml", "-q"], 5, "the training rows have 1 label(s)");
    check_error(&["train", "sst2", "--device", "cuda", "-q"], 3, "cargo build --features cuda");
    check_error(&["nlp", "chat", "--model", "shakespeare", "--message", "hi"], 5, "chat_template");
    let arrays = ["--inputs", "none.npz", "--outputs", "out.npz"];
    let forward = [&["forward", "--model", "sst2"][..], &arrays].concat();
    check_error(&forward, 5, "opening none.npz");
    let over = ["--inputs", "one.csv", "--outputs", "one.csv"];
    let forward = [&["forward", "--model", "sst2"][..], &over].concat();
    check_error(&forward, 2, "one.csv is what is read");
    let over = ["--input", "one.csv", "--output", "one.csv"];
    check_error(&[&["predict", "sst2"][..], &over].concat(), 2, "one.csv is what is read");
    check_error(&["nlp", "sentiment", "", "good"], 5, "text 1 has no word in it");
    let spot = ["speech", "keyword", "one.csv", "--model", "gtsrb"];
    check_error(&spot, 5, "for `image-classification`, not for `audio-classification`");
    check_error(&["data", "show", "one.toml"], 2, "one.toml --output batch.png");
}

#[test]
fn ways_to_write_are_checked() {
    let write = |model, more: &[&'static str], code, message| {
        let args = ["nlp", "generate", "--model", model, "ROMEO:"];
        check_error(&[&args[..], more].concat(), code, message);
    };
    write("shakespeare", &["--num-beams", "0"], 2, "num_beams is 0");
    write("shakespeare", &["--length-penalty", "nan"], 2, "length_penalty is NaN");
    write("shakespeare", &["--num-beams", "4"], 2, "add `--greedy`"); // its folder draws
    write("shakespeare", &["--max-new-tokens", "999999"], 2, "the model reads");
    write("sst2", &[], 5, "sst2/config.json: this architecture writes no text");
    let translate = ["nlp", "translate", "--model", "multi30k-en-de", "a dog", "--num-beams", "0"];
    check_error(&translate, 2, "num_beams is 0");
    let arrays =
        ["generate", "--model", "shakespeare", "--inputs", "none.npz", "--outputs", "o.npz"];
    check_error(&[&arrays[..], &["--num-beams", "0"]].concat(), 2, "num_beams is 0");

    // An empty prompt does not keep the others from their answers.
    let home = tempfile::tempdir().unwrap();
    // Its folder asks for more tokens than it has places.
    let prompts = ["nlp", "generate", "--model", "shakespeare", "--json", "", "ROMEO:"];
    let output = run(home.path(), &prompts, 5);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows[0]["error"].is_string() && rows[1]["text"].is_string(), "{rows}");
    assert!(text(&output.stderr).starts_with("prompt 1: "), "{}", text(&output.stderr));
}

/// Of a classifier, what stands before its head.
#[test]
fn a_classifier_makes_vectors() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["nlp", "embed", "--model", "sst2", "good", "--json"], 0);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows[0]["embedding"].as_array().is_some_and(|vector| vector.len() > 16), "{rows}");
}

#[test]
fn shipped_models_answer_in_both_languages() {
    let home = tempfile::tempdir().unwrap();
    let texts = [
        "这家酒店很干净",
        "房间又脏又吵，再也不来了",
        "a moving and funny film",
        "a dull , lifeless mess",
    ];
    let output = run(home.path(), &[&["nlp", "sentiment", "--json"][..], &texts].concat(), 0);
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said: Vec<&str> = (0..4).map(|i| answers[i]["sentiment"].as_str().unwrap()).collect();
    assert_eq!(said, ["positive", "negative", "positive", "negative"]);
    assert_eq!((&answers[0]["language"], &answers[2]["language"]), (&"zh".into(), &"en".into()));
}

#[test]
fn a_line_of_stdin_that_is_no_text_is_named() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["nlp", "sentiment"][..], &["nlp", "translate", "--model", "multi30k-en-de"]] {
        let mut command = firebrick(home.path());
        command.args(args).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"A dog runs.\n\xff\xfe\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{args:?}: {shown}");
        assert!(shown.contains("stdin: line 2 is not UTF-8"), "{args:?}: {shown}");
    }
}

/// Every family against `transformers`, both ways, on checkpoints drawn from a seed.
#[test]
fn transformers_agrees() {
    let python = std::env::var("FIREBRICK_PYTHON").expect(
        "set FIREBRICK_PYTHON to a Python with torch and transformers, as `cargo xtask test` does",
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/parity/parity.py");
    let home = tempfile::tempdir().unwrap();
    let cases = home.path().join("cases");
    let python = |args: &[&str]| {
        let output = Command::new(&python).arg(&script).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    };
    let dir = cases.to_str().unwrap();
    // A seed at which `transformers` itself writes with every case: its beam search fails on some sizes of T5.
    python(&["make", dir, "--seed", "11"]);
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_firebrick"));
    // The tolerances of the script's own: MobileNetV2's 52 convolutions differ by 4e-5, all others by less than 1e-5.
    python(&["check", dir, "--run", binary.to_str().unwrap()]);
    python(&["back", dir, "--run", binary.to_str().unwrap()]);
}

/// The reference page is printed by the program; a changed key changes it.
#[test]
fn recipe_reference_is_up_to_date() {
    let home = tempfile::tempdir().unwrap();
    let printed = text(&run(home.path(), &["recipe", "reference"], 0).stdout);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/recipe.md");
    let kept = fs::read_to_string(&page).unwrap();
    assert!(
        printed == kept,
        "write it again: firebrick recipe reference > docs/src/reference/recipe.md"
    );
}
