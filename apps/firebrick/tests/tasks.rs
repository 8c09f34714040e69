//! Every task from files of one's own: trained for some steps, scored, asked.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::{Value, json as value};

#[track_caller]
fn run(home: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache")).args(args);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says that ends in `code`.
#[track_caller]
fn fails(home: &Path, args: &[&str], code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache")).args(args);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    stderr
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

const STEPS: &str = "[train]\nmax_steps = 6\nwarmup_steps = 2\nbatch_size = 8\n";

fn recipe(home: &Path, task: &str, tables: &str) {
    let text = format!("version = 1\ntask = \"{task}\"\nname = \"mine\"\n{tables}{STEPS}");
    fs::write(home.join("mine.toml"), text).unwrap();
    run(home, &["recipe", "check", "mine.toml"]);
    run(home, &["train", "mine.toml", "--progress", "none"]);
    for file in ["model/config.json", "model/README.md", "report.html", "plots/loss.svg"] {
        assert!(home.join("runs/mine").join(file).exists(), "{file}");
    }
}

#[test]
fn translation() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let rows: String = (0..60).map(|i| format!("the number {i}\tdie Zahl {i}\n")).collect();
    for part in ["train", "valid"] {
        fs::write(home.join(format!("{part}.tsv")), format!("source\ttarget\n{rows}")).unwrap();
    }
    // Longer than the model reads.
    let long = ["the number 1, "; 40].concat();
    fs::write(home.join("test.tsv"), format!("source\ttarget\n{long}\tdie Zahl 1\n")).unwrap();
    // The parts are the same here: the check for leaks would leave nothing to train on.
    let tables = "[data]\ntrain = \"train.tsv\"\nvalid = \"valid.tsv\"\ntest = \"test.tsv\"\nleaks = false\n\
                  [tokenizer]\nkind = \"byte-bpe\"\nvocab_size = 400\nmax_len = 40\n\
                  [model]\nd_model = 32\nencoder_ffn_dim = 32\ndecoder_ffn_dim = 32\n\
                  [generate]\nnum_beams = 2\n";
    recipe(home, "translation", tables);
    let answers =
        json(&run(home, &["nlp", "translate", "--json", "--model", "mine", "the number 7", ""]));
    assert_eq!(
        (&answers[0]["text"], &answers[1]["translation"]),
        (&"the number 7".into(), &"".into())
    );
    fs::write(home.join("in.txt"), "the number 1\n\nthe number 2. the number 3.\n").unwrap();
    run(home, &["nlp", "translate", "--model", "mine", "--input", "in.txt", "--output", "out.txt"]);
    let translated = fs::read_to_string(home.join("out.txt")).unwrap();
    assert_eq!(translated.lines().count(), 3);
    run(home, &["nlp", "translate", "--model", "mine", "the number 1", "--output", "one.txt"]);
    let one = fs::read_to_string(home.join("one.txt")).unwrap();
    assert_eq!(one.lines().next(), translated.lines().next());
    let list =
        json(&run(home, &["nlp", "translate", "--model", "mine", "--input", "in.txt", "--json"]));
    assert_eq!((list.as_array().unwrap().len(), &list[1]["text"]), (3, &"".into()));
    // What cannot be read to its end leaves nothing behind.
    fs::write(home.join("bad.txt"), b"the number 1\n\xff\n").unwrap();
    let bad = ["nlp", "translate", "--model", "mine", "--input", "bad.txt", "--output", "bad.out"];
    assert!(fails(home, &bad, 5).contains("bad.txt: line 2 is not UTF-8"));
    assert!(!home.join("bad.out").exists() && !home.join("bad.out.partial").exists());
    assert!(!home.join("out.txt.partial").exists());
    assert!(fails(home, &["nlp", "translate", "--model", "sst2", "x"], 5).contains("config.json"));
    let scores = json(&run(home, &["eval", "mine", "--json", "--data", "valid.tsv"]));
    assert!(scores["metrics"]["bleu"].is_number() && scores["rows"] == 60, "{scores}");
    assert_eq!(json(&run(home, &["eval", "mine", "--json", "--data", "test.tsv"]))["rows"], 1);
    let beside = ["train", "sst2", "--set", "data.test=test.tsv"];
    assert!(fails(home, &beside, 2).contains("`data.test` stands beside `data.dataset`"));
    let shown = run(home, &["eval", "mine", "--data", "valid.tsv"]);
    assert!(shown.contains("bleu signature nrefs:1|case:mixed"), "{shown}");
    assert!(shown.matches("(95 % between ").count() == 2, "{shown}");
    let [low, high] = [0, 1].map(|end| scores["bleu_95"][end].as_f64().unwrap());
    assert!(low <= high && high <= 100.0, "{scores}");
    // The difference to the original is of the same drawn rows, so that it is better known than either score.
    let less =
        ["compress", "mine", "--data", "valid.tsv", "--quantize", "int8", "--output", "less"];
    let report = json(&run(home, &[&less[..], &["--json"]].concat()));
    let int8 = &report["candidates"][1];
    let width = |interval: &Value| interval[1].as_f64().unwrap() - interval[0].as_f64().unwrap();
    assert!(width(&int8["points_95"]) <= width(&int8["measured"]["interval"]), "{int8}");
    assert!(fails(home, &["eval", "mine", "--split", "foo"], 2).contains("no part `foo`"));

    // It goes on by adapters alone, which translate with it as their base.
    fs::rename(home.join("runs/mine"), home.join("runs/base")).unwrap();
    let tables = "[data]\ntrain = \"train.tsv\"\nvalid = \"valid.tsv\"\nleaks = false\n\
                  [tokenizer]\nkind = \"pretrained\"\nmax_len = 40\n\
                  [model]\npretrained = \"runs/base/model\"\nlora = { r = 2 }\n";
    recipe(home, "translation", tables);
    for model in ["mine", "runs/mine/adapter"] {
        let answers = run(home, &["nlp", "translate", "--json", "--model", model, "the number 7"]);
        assert!(json(&answers)[0]["translation"].is_string(), "{model}: {answers}");
    }
}

#[test]
fn tagging() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let line = |i: usize| match i % 2 {
        0 => format!(
            "{{\"tokens\": [\"play\", \"song\", \"{i}\"], \"tags\": [\"O\", \"B-x\", \"I-x\"], \"label\": \"Play\"}}\n"
        ),
        _ => format!(
            "{{\"tokens\": [\"stop\", \"at\", \"{i}\"], \"tags\": [\"O\", \"O\", \"B-x\"], \"label\": \"Stop\"}}\n"
        ),
    };
    fs::write(home.join("train.jsonl"), (0..80).map(line).collect::<String>()).unwrap();
    fs::write(home.join("valid.jsonl"), (80..100).map(line).collect::<String>()).unwrap();
    let tables = "[data]\ntrain = \"train.jsonl\"\nvalid = \"valid.jsonl\"\n\
                  [model]\nhidden_size = 16\nnum_hidden_layers = 1\n";
    recipe(home, "tagging", tables);
    let answers = run(home, &["predict", "mine", "--input", "valid.jsonl"]);
    let first = json(answers.lines().next().unwrap());
    assert_eq!(answers.lines().count(), 20);
    assert_eq!(first["tags"].as_array().unwrap().len(), 3);
    assert!(["Play", "Stop"].contains(&first["label"].as_str().unwrap()));
    let scores = json(&run(home, &["eval", "mine", "--json", "--data", "valid.jsonl"]));
    assert!(scores["metrics"]["label_accuracy"].is_number(), "{scores}");

    // A linear model of the sentences teaches their labels, then a classifier that knows them.
    let train = ["train", "mine.toml", "--progress", "none", "--set", "distill.texts_per_row=2"];
    run(home, &[&train[..], &["--run", "taught"]].concat());
    let rows = (0..80).map(|i| match i % 2 {
        0 => format!("play song {i},Play\n"),
        _ => format!("stop at {i},Stop\n"),
    });
    fs::write(home.join("rows.csv"), format!("text,label\n{}", rows.collect::<String>())).unwrap();
    let teacher = format!(
        "version = 1\ntask = \"text-classification\"\nname = \"teacher\"\n\
         [data]\ntrain = \"rows.csv\"\nleaks = \"off\"\n[tokenizer]\nvocab_size = 200\n\
         [model]\nhidden_size = 16\nnum_hidden_layers = 1\nintermediate_size = 16\n{STEPS}"
    );
    fs::write(home.join("teacher.toml"), teacher).unwrap();
    run(home, &["train", "teacher.toml", "--progress", "none"]);
    let teacher = ["--set", "distill.teacher=runs/teacher/model", "--run", "taught-again"];
    run(home, &[&train[..], &teacher].concat());
    let scores = |name: &str| {
        json(&run(home, &["eval", name, "--json", "--data", "valid.jsonl"]))["metrics"].clone()
    };
    let [plain, taught, again] = ["mine", "taught", "taught-again"].map(scores);
    assert!(plain["loss"] != taught["loss"] && taught["loss"] != again["loss"], "{taught}");
    // A counted model has no labels to be taught.
    let hmm = ["--set", "model.family=hmm", "--run", "not"];
    assert!(fails(home, &[&train[..], &hmm].concat(), 2).contains("distill.texts_per_row"));

    // The same rows counted instead, by a recipe without the keys of a network.
    let hmm = ["train", "mine.toml", "--set", "model.family=hmm", "--run", "counted"];
    assert!(fails(home, &hmm, 2).contains("`model.hidden_size` is for a network"));
    fs::write(
        home.join("counted.toml"),
        "version = 1\ntask = \"tagging\"\nname = \"counted\"\n[data]\ntrain = \"train.jsonl\"\n\
         valid = \"valid.jsonl\"\n[model]\nfamily = \"hmm\"\n",
    )
    .unwrap();
    run(home, &["train", "counted.toml", "--progress", "none"]);
    let scores = json(&run(home, &["eval", "counted", "--json", "--data", "valid.jsonl"]));
    assert!(scores["metrics"]["tag_accuracy"].as_f64().unwrap() > 0.9, "{scores}");
}

#[test]
fn language_modelling() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let lines: String = (0..400).map(|i| format!("line {i} of a long poem\n")).collect();
    fs::write(home.join("poem.txt"), lines).unwrap();
    for family in ["gpt2", "lstm"] {
        let tables = format!(
            "[data]\ntrain = \"poem.txt\"\nunit = \"character\"\nwindow = 32\n\
             [model]\nfamily = \"{family}\"\nhidden_size = 32\nnum_hidden_layers = 1\n"
        );
        recipe(home, "language-modelling", &tables);
        let scores = json(&run(home, &["eval", "mine", "--json"]));
        let bits = scores["metrics"]["bits_per_character"].as_f64().unwrap();
        assert!(bits > 0.0 && bits < 8.0, "{scores}");
        let written =
            run(home, &["nlp", "generate", "--model", "mine", "line", "--max-new-tokens", "5"]);
        assert!(!written.trim().is_empty());
        // A text of one's own in place of the recipe's, and prompts of a file.
        fs::write(home.join("other.txt"), "line 7 of a song\n".repeat(20)).unwrap();
        let other = json(&run(home, &["eval", "mine", "--data", "other.txt", "--json"]));
        assert_eq!((&other["data"], &other["rows"]), (&"other.txt".into(), &340.into()));
        fs::write(home.join("prompts.txt"), "line\n\na poem\n").unwrap();
        let failed = fails(home, &["predict", "mine", "--input", "prompts.txt"], 5);
        assert!(failed.contains("1 of 3 could not be read"), "{failed}");
        fs::write(home.join("prompts.txt"), "line\na poem\n").unwrap();
        let lines = run(home, &["predict", "mine", "--input", "prompts.txt"]);
        assert!(lines.lines().all(|line| json(line)["text"].is_string()), "{lines}");
        if family == "lstm" {
            run(home, &["runs", "rm", "mine"]);
        } else {
            fs::rename(home.join("runs/mine"), home.join("runs/base")).unwrap();
        }
    }

    // The GPT goes on to another text by adapters alone; with them it is the merged model.
    let lines: String = (0..300).map(|i| format!("verse {} of the song\n", i % 9)).collect();
    fs::write(home.join("song.txt"), lines).unwrap();
    let tables = "[data]\ntrain = \"song.txt\"\nwindow = 32\n\
                  [model]\npretrained = \"runs/base/model\"\nlora = { r = 2 }\n";
    recipe(home, "language-modelling", tables);
    let loss = |model: &str| {
        let args = ["eval", model, "--data-of", "mine", "--json"];
        json(&run(home, &args))["metrics"]["loss"].as_f64().unwrap()
    };
    let [base, merged, adapter] = ["runs/base", "mine", "runs/mine/adapter"].map(loss);
    assert!(merged < base, "{merged}, and {base} before");
    assert!((merged - adapter).abs() < 1e-4 * merged, "{merged}, {adapter}");
}

/// What is left of a score at each strength of each corruption.
#[track_caller]
fn corrupted(scores: &Value, name: &str) {
    assert_eq!(scores["robustness_score"], name);
    let rows = scores["robustness"].as_object().unwrap();
    let number = |value: &Value| value.as_f64().is_some_and(|x| (0.0..=1.0).contains(&x));
    let whole = |row: &Value| row.as_array().is_some_and(|r| r.len() == 5 && r.iter().all(number));
    assert!(rows.len() == 5 && rows.values().all(whole), "{rows:?}");
}

/// Squares that are lighter on one side, none like another: `pictures` to learn from and `others`.
fn sides(home: &Path) {
    let picture = |i: usize, lighter: usize| {
        let pixel = |at: usize| {
            let side = at % 16 / 8;
            let noise = (at * 31 + i * 17) * 7919 % 97;
            [(noise + if side == lighter { 150 } else { 0 }) as u8; 3]
        };
        let pixels: Vec<u8> = (0..16 * 16).flat_map(pixel).collect();
        [b"P6\n16 16\n255\n".as_slice(), &pixels].concat()
    };
    for (part, numbers) in [("pictures", 0..24), ("others", 30..40)] {
        for (lighter, label) in ["left", "right"].iter().enumerate() {
            let folder = home.join(part).join(label);
            fs::create_dir_all(&folder).unwrap();
            for i in numbers.clone() {
                fs::write(folder.join(format!("{i:02}.ppm")), picture(i, lighter)).unwrap();
            }
        }
    }
}

/// A vision Transformer whose own weights stay: its adapter over its base says what the merged model says.
#[test]
fn pictures_take_adapters() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    sides(home);
    let data = "[data]\ntrain = \"pictures\"\nvalid = \"others\"\nsize = [16, 16]\n";
    let sizes =
        "family = \"vit\"\nhidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\n";
    recipe(home, "image-classification", &format!("{data}[model]\n{sizes}"));
    fs::rename(home.join("runs/mine"), home.join("base")).unwrap();
    let pretrained = home.join("base/model").display().to_string();
    let tables = format!(
        "{data}[model]\npretrained = {pretrained:?}\n[model.lora]\nr = 2\n[decision]\npositive = \"right\"\n"
    );
    recipe(home, "image-classification", &tables);
    let config =
        json(&fs::read_to_string(home.join("runs/mine/adapter/adapter_config.json")).unwrap());
    assert_eq!(config["target_modules"], value!(["query", "value"]));
    assert_eq!(config["modules_to_save"], value!(["classifier"]));
    let scores = |model: &str| -> Vec<f64> {
        let answers = run(home, &["predict", model, "--input", "others"]);
        answers.lines().map(|line| json(line)["scores"]["left"].as_f64().unwrap()).collect()
    };
    let [base, adapter, merged] =
        ["base/model", "runs/mine/adapter", "runs/mine/model"].map(scores);
    let apart = |other: &[f64]| {
        let apart = merged.iter().zip(other).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f64::max)
    };
    assert!(merged.len() == 20 && apart(&adapter) < 1e-5, "{merged:?} {adapter:?}");
    assert!(apart(&base) > 1e-3, "{merged:?} {base:?}");
}

#[test]
fn image_classification() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    sides(home);
    let tables = "[data]\ntrain = \"pictures\"\nvalid = \"others\"\nsize = [16, 16]\n\
                  [augment]\ntranslate = 0.1\nmixup = 0.2\n\
                  [model]\nembedding_size = 8\nhidden_sizes = [8, 16]\n\
                  [decision]\npositive = \"right\"\n";
    recipe(home, "image-classification", tables);
    assert!(home.join("runs/mine/model/preprocessor_config.json").exists());
    run(home, &["data", "show", "mine.toml", "--output", "batch.png"]);
    let drawn =
        ["batch.png", "runs/mine/plots/batch.png"].map(|file| fs::read(home.join(file)).unwrap());
    assert!(drawn[0] == drawn[1] && drawn[0].starts_with(b"\x89PNG"));

    let answers = run(home, &["predict", "mine", "--input", "pictures"]);
    let first = json(answers.lines().next().unwrap());
    assert_eq!((answers.lines().count(), &first["id"]), (48, &"left/00.ppm".into()));
    assert!(first["scores"]["left"].is_number() && first["label"].is_string(), "{first}");
    assert!(answers.starts_with("{\"id\":"), "{answers}");
    let ask = ["eval", "mine", "--json", "--data", "others", "--robustness"];
    let scores = json(&run(home, &ask));
    assert!(scores["metrics"]["auc"].is_number() && scores["rows"] == 20, "{scores}");
    corrupted(&scores, "accuracy");
    let answer = json(&run(
        home,
        &[
            "vision",
            "medical",
            "others/left/30.ppm",
            "--model",
            "mine",
            "--heatmap",
            "heat.png",
            "--json",
        ],
    ));
    assert!(answer[0]["probability"].is_number() && home.join("heat.png").exists(), "{answer}");

    // Channels are chosen by the pictures that it was trained on.
    let thin = ["compress", "mine", "--output", "thin", "--prune", "channels=0.5"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    let output = command.current_dir(home).args(thin).args(["--progress", "plain"]).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("channels-0.5: "), "{told}");
    assert!(!told.contains("by the scales of their norms"), "{told}");
    let config = json(&fs::read_to_string(home.join("thin/config.json")).unwrap());
    assert_eq!((&config["embedding_size"], &config["hidden_sizes"]), (&4.into(), &value!([4, 8])));

    // A picture that cannot be read is told, and the others are answered.
    fs::write(home.join("pictures/left/00.ppm"), b"P6\n16 16\n255\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    let output = command
        .current_dir(home)
        .args(["predict", "mine", "--input", "pictures", "--output", "answers.jsonl"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let answers = fs::read_to_string(home.join("answers.jsonl")).unwrap();
    let lines: Vec<Value> = answers.lines().map(json).collect();
    assert!(lines.len() == 48 && lines[0]["error"].is_string() && lines[1]["label"].is_string());
    assert!(answers.starts_with("{\"id\":\"left/00.ppm\",\"error\":"), "{answers}");
}

/// Light squares and dark ones on grey, with boxes in COCO's format, in YOLO's and in VOC's.
#[test]
fn object_detection() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::create_dir_all(home.join("boxes/images")).unwrap();
    let (mut images, mut boxes) = (vec![], vec![]);
    for i in 1..=24usize {
        let (light, x, y) = (i % 2, 4 + i * 7 % 40, 3 + i * 5 % 20);
        let pixel = |at: usize| {
            let inside = (x..x + 16).contains(&(at % 64)) && (y..y + 20).contains(&(at / 64));
            [if !inside { 120 } else { (light * 200 + at * 31 % 20) as u8 }; 3]
        };
        let pixels: Vec<u8> = (0..64 * 48).flat_map(pixel).collect();
        let file = format!("{i}.ppm");
        let picture = [b"P6\n64 48\n255\n".as_slice(), &pixels].concat();
        fs::write(home.join("boxes/images").join(&file), picture).unwrap();
        images.push(value!({"id": i, "file_name": file, "width": 64, "height": 48}));
        boxes.push(
            value!({"id": i, "image_id": i, "category_id": light + 1, "bbox": [x, y, 16, 20]}),
        );
    }
    // Of no area: told, and not learned from.
    boxes.push(value!({"id": 25, "image_id": 1, "category_id": 1, "bbox": [9, 9, 0, 4]}));
    let categories = value!([{"id": 1, "name": "dark"}, {"id": 2, "name": "light"}]);
    let coco = value!({"images": images, "annotations": boxes, "categories": categories});
    fs::write(home.join("boxes/boxes.json"), coco.to_string()).unwrap();

    let tables = "[data]\ntrain = \"boxes/boxes.json\"\nvalid_fraction = 0.25\nsize = [48, 64]\n\
                  [augment]\nflip = 0.5\nscale = 0.1\n\
                  [model]\nembedding_size = 4\nhidden_sizes = [4, 6, 8]\ndepths = [1, 1, 1]\n\
                  pyramid_size = 4\nhead_depth = 1\n";
    recipe(home, "object-detection", tables);
    for file in ["model/preprocessor_config.json", "plots/batch-0.png", "eval/valid.jsonl"] {
        assert!(home.join("runs/mine").join(file).exists(), "{file}");
    }
    let ledger = fs::read_to_string(home.join("runs/mine/data.ledger.jsonl")).unwrap();
    assert!(ledger.contains("no_area") && ledger.lines().count() == 1, "{ledger}");

    // Stopped after a step and continued, the weights are the same bytes.
    let half = ["train", "mine.toml", "--run", "half", "--progress", "none"];
    let weights = |name: &str| {
        fs::read(home.join("runs").join(name).join("model/model.safetensors")).unwrap()
    };
    run(home, &[half.as_slice(), &["--max-seconds", "0"]].concat());
    assert_ne!(weights("mine"), weights("half"));
    run(home, &half);
    assert_eq!(weights("mine"), weights("half"));

    let answers = run(home, &["predict", "mine", "--input", "boxes/images"]);
    let first = json(answers.lines().next().unwrap());
    assert_eq!((answers.lines().count(), &first["id"]), (24, &"1.ppm".into()));
    assert!(first["boxes"].is_array(), "{first}");
    let ask = ["eval", "mine", "--json", "--data", "boxes/boxes.json", "--latency", "2"];
    let scores = json(&run(home, &[ask.as_slice(), &["--robustness"]].concat()));
    corrupted(&scores, "map");
    assert!(scores["metrics"]["map50"].is_number() && scores["rows"] == 24, "{scores}");
    assert!(scores["speed"]["p50_ms"].as_f64() > Some(0.0), "{scores}");
    let drawn = ["vision", "detect", "boxes/images/1.ppm", "--model", "mine", "--threshold", "0"];
    let drawn = json(&run(home, &[drawn.as_slice(), &["--output", "out.png", "--json"]].concat()));
    for found in drawn[0]["boxes"].as_array().unwrap() {
        assert!(found["x1"].as_f64().unwrap() <= 64.0 && found["label"].is_string(), "{found}");
    }
    assert!(home.join("out.png").exists());

    // The same boxes in the other formats, and back.
    run(home, &["data", "boxes", "boxes/boxes.json", "boxes/yolo", "--to", "yolo"]);
    for file in fs::read_dir(home.join("boxes/yolo")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), home.join("boxes").join(file.file_name())).unwrap();
    }
    let again = json(&run(home, &["eval", "mine", "--json", "--data", "boxes"]));
    assert_eq!(again["metrics"], scores["metrics"]);
    run(home, &["data", "boxes", "boxes", "voc", "--to", "voc"]);
    run(home, &["data", "boxes", "voc", "again.json", "--to", "coco"]);
    let again = json(&fs::read_to_string(home.join("again.json")).unwrap());
    assert_eq!(again["images"].as_array().unwrap().len(), 24);

    // What is broken is told.
    for (name, text) in [("a.json", "{\"images\": [{}]}"), ("b.json", "{}"), ("c.txt", "")] {
        fs::write(home.join(name), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        let output = command.current_dir(home).args(["eval", "mine", "--data", name]).output();
        assert_eq!(output.unwrap().status.code(), Some(5), "{name}");
    }
}

#[test]
fn shipped_image_models_answer() {
    let home = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..40 * 30 * 3).map(|i| (i * 7 % 256) as u8).collect();
    let picture = [b"P6\n40 30\n255\n".as_slice(), &pixels].concat();
    fs::write(home.path().join("a.ppm"), picture).unwrap();
    for (model, labels) in [("gtsrb", 43), ("pneumonia", 2), ("brain-mri", 2), ("inria", 2)] {
        let answer = json(&run(home.path(), &["predict", model, "--input", "a.ppm"]));
        let scores = answer["scores"].as_object().unwrap();
        let sum: f64 = scores.values().filter_map(Value::as_f64).sum();
        assert!(answer["id"] == "a.ppm" && scores.len() == labels, "{answer}");
        assert!((sum - 1.0).abs() < 1e-4 && scores.contains_key(answer["label"].as_str().unwrap()));
    }
    let sign = json(&run(home.path(), &["vision", "signs", "a.ppm", "--json"]));
    assert!(sign[0]["meaning"].is_string(), "{sign}");
    let people = json(&run(home.path(), &["vision", "pedestrians", "a.ppm", "--json"]));
    assert!(people[0]["boxes"].is_array() && people[0]["model"] == "street", "{people}");
}

/// A white cell and some red ones, on a picture of the set's test part.
#[test]
fn cells_are_found() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("smear.jpg"), include_bytes!("data/smear.jpg")).unwrap();
    let answer =
        json(&run(home.path(), &["vision", "detect", "smear.jpg", "--model", "bccd", "--json"]));
    let boxes = answer[0]["boxes"].as_array().unwrap();
    let of = |label: &str| boxes.iter().filter(|found| found["label"] == label).collect::<Vec<_>>();
    let (white, red) = (of("WBC"), of("RBC"));
    assert!(white.len() == 1 && (6..=14).contains(&red.len()), "{answer}");
    for (side, expected) in [("x0", 104.0), ("y0", 46.0), ("x1", 202.0), ("y1", 142.0)] {
        assert!((white[0][side].as_f64().unwrap() - expected).abs() < 10.0, "{answer}");
    }
    let all = json(&run(home.path(), &["predict", "bccd", "--input", "smear.jpg"]));
    assert!(all["boxes"].as_array().unwrap().len() > boxes.len() && all["id"] == "smear.jpg");
}

#[test]
fn shipped_taggers_answer() {
    let home = tempfile::tempdir().unwrap();
    let ask = |model: &str, text: &str| {
        json(&run(home.path(), &["nlp", "tag", "--json", "--model", model, text]))
    };
    let answer = ask("snips", "play some jazz by miles davis");
    assert_eq!(answer[0]["label"], "PlayMusic");
    assert_eq!(answer[0]["tags"][4], "B-artist");
    for model in ["ud-hmm", "ud-pos"] {
        assert_eq!(ask(model, "Mr. Lee can't come.")[0]["tags"][3], "PART", "{model}");
    }
    assert_eq!(ask("smp2019-zh", "帮我订一张去北京的火车票")[0]["label"], "train");
}

/// A study that is killed goes on, and two workers share one.
#[test]
fn a_sweep_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let short = [
        "sweep",
        "sst2",
        "--trials",
        "4",
        "--progress",
        "none",
        "--json",
        "--set",
        "train.max_steps=6",
        "--set",
        "train.eval_every=3",
        "--set",
        "train.warmup_steps=2",
        "--set",
        "distill.texts_per_row=0",
        "--set",
        "tokenizer.vocab_size=1000",
    ];
    let study = home.join("runs/sst2-sweep/study.jsonl");
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache")).args(short);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let started = || fs::read_to_string(&study).is_ok_and(|text| text.contains("\"started\""));
    for _ in 0..600 {
        if started() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(started(), "no trial began");
    child.kill().unwrap();
    child.wait().unwrap();
    let report = json(&run(home, &[&short[..], &["--workers", "2"]].concat()));
    let trials = report["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    assert!(trials.iter().all(|trial| !trial["end"].is_null()), "{report}");
    let text = fs::read_to_string(&study).unwrap();
    assert_eq!(text.matches("\"event\":\"started\"").count(), 4, "no trial began twice");
}

/// Why, how sure, and does it still fit: on the shipped model and its embedded data.
#[test]
fn a_sentiment_is_explained_or_neutral() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let text = "a touching , beautiful film";
    let answer = json(&run(home, &["nlp", "sentiment", "--json", "--explain", text]));
    let words = answer[0]["words"].as_array().unwrap();
    let largest = words
        .iter()
        .max_by(|a, b| a["value"].as_f64().unwrap().total_cmp(&b["value"].as_f64().unwrap()));
    assert!(["touching", "beautiful"].contains(&largest.unwrap()["text"].as_str().unwrap()));
    for word in words {
        let [start, end] = ["start", "end"].map(|key| word[key].as_u64().unwrap() as usize);
        assert_eq!(word["text"], text[start..end]);
    }
    let sure = |least: &str| {
        json(&run(home, &["nlp", "sentiment", "--json", "--neutral-below", least, text]))
    };
    assert_eq!(sure("0.5")[0]["sentiment"], "positive");
    assert_eq!(sure("1")[0]["sentiment"], "neutral");
    assert_eq!(sure("1")[0]["label"], "1", "the label stays what the model says");

    fs::write(home.join("in.csv"), format!("text\n\"{text}\"\n\"a dull , lifeless mess\"\n"))
        .unwrap();
    let list = json(&run(home, &["nlp", "sentiment", "--json", "--input", "in.csv"]));
    assert_eq!(
        (&list[0]["sentiment"], &list[1]["sentiment"]),
        (&"positive".into(), &"negative".into())
    );
    let args = ["predict", "sst2", "--input", "in.csv", "--neutral-below", "1"];
    let lines = run(home, &args);
    assert!(lines.lines().all(|line| json(line)["label"] == "neutral"), "{lines}");
}

/// What has no word has no sentiment: it is named in its row's place, and the others are answered.
#[test]
fn a_blank_text_has_no_sentiment() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(home.join("rows.txt"), "good\n  \nbad\n\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    let args = ["nlp", "sentiment", "--model", "sst2", "--json", "--input", "rows.txt"];
    let output = command.current_dir(home).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let answers = json(&String::from_utf8(output.stdout).unwrap());
    let answers = answers.as_array().unwrap();
    let answered: Vec<bool> = answers.iter().map(|answer| answer["error"].is_null()).collect();
    assert_eq!(answered, [true, false, true, false]);
    assert_eq!(answers[1]["error"], "row 2: the text has no word in it");
    let said = fails(home, &["nlp", "sentiment", "--model", "sst2", "a", "", "   "], 5);
    assert!(said.contains("texts 2, 3 have no word in them"), "{said}");
}

/// The same of a hotel in both scripts; what is shown is what was asked.
#[test]
fn traditional_chinese_is_read_as_simplified() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let texts = ["這家酒店很乾淨", "这家酒店很干净"];
    let ask = |more: &[&str]| {
        json(&run(home, &[&["nlp", "sentiment", "--json"], more, &texts[..]].concat()))
    };
    let answers = ask(&[]);
    assert_eq!(answers[0]["text"], texts[0]);
    assert_eq!(answers[0]["sentiment"], "positive");
    assert_eq!(answers[0]["score"], answers[1]["score"]);
    let words = ask(&["--explain"])[0]["words"].clone();
    assert!(!words.as_array().unwrap().is_empty());
    for word in words.as_array().unwrap() {
        let [start, end] = ["start", "end"].map(|key| word[key].as_u64().unwrap() as usize);
        assert_eq!(word["text"], texts[0][start..end]);
    }
}

/// A mark before a text is no part of it, wherever the text comes from.
#[test]
fn a_byte_order_mark_is_not_read() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let from = |args: &[&str], text: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        fs::write(home.join("in.txt"), text).unwrap();
        let stdin = fs::File::open(home.join("in.txt")).unwrap();
        let output = command.current_dir(home).args(args).stdin(stdin).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let translate = ["nlp", "translate", "--model", "multi30k-en-de", "--json"];
    for args in [
        &["nlp", "sentiment", "--model", "sst2"][..],
        &translate,
        &[&translate[..], &["--input", "in.txt"]].concat(),
    ] {
        assert_eq!(from(args, "\u{feff}a dog\n"), from(args, "a dog\n"), "{args:?}");
    }
}

#[test]
fn an_ngram_model_has_no_perplexity_of_nothing() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(home.join("text.txt"), "the cat sat\nthe cat ran\nthe dog sat\n".repeat(9)).unwrap();
    fs::write(home.join("empty.txt"), "").unwrap();
    run(home, &["nlp", "ngram", "fit", "text.txt", "--output", "m.arpa", "--order", "2"]);
    let said = fails(home, &["nlp", "ngram", "score", "m.arpa", "empty.txt"], 5);
    assert!(said.contains("empty.txt: no sentence in it"), "{said}");
}

/// Rows of Parquet are rows: two of these seven have a null for a text or a label.
#[test]
fn rows_come_from_parquet() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/firebrick-data/tests/golden/parquet/snappy.parquet");
    fs::copy(golden, home.join("in.parquet")).unwrap();
    let report = json(&run(home, &["data", "check", "in.parquet", "--json"]));
    assert_eq!((&report["parts"][0]["rows"], &report["parts"][0]["bad"]), (&5.into(), &2.into()));
    let columns = ["--text-column", "kind", "--label-column", "flag"];
    let report =
        json(&run(home, &[&["data", "check", "in.parquet", "--json"], &columns[..]].concat()));
    assert_eq!(report["parts"][0]["first_bad"], "row 3: `flag` is null, where a label is due");

    fs::write(home.join("rows.parquet"), "text\ngood\n").unwrap();
    let said = fails(home, &["nlp", "sentiment", "--input", "rows.parquet"], 5);
    assert!(said.contains("rows.parquet is no Parquet file"), "{said}");
    let said = fails(home, &["predict", "sst2", "--input", "in.parquet", "--text-column", "id"], 5);
    assert!(said.contains("holds whole numbers in column `id`"), "{said}");
}

#[test]
fn drift_is_a_coin_on_the_same_data_and_a_gate_on_other() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let rows = |word: &str| (0..80).map(|i| format!("{word} {i} and so on\n")).collect::<String>();
    fs::write(home.join("old.txt"), rows("film")).unwrap();
    fs::write(home.join("new.txt"), rows("soup")).unwrap();
    let compare = |new: &str, gate: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        let args = ["data", "drift", new, "--reference", "old.txt", "--json", "--require", gate];
        let output = command.current_dir(home).args(args).output().unwrap();
        (output.status.code(), json(&String::from_utf8(output.stdout).unwrap()))
    };
    let (code, other) = compare("new.txt", "separability<=0.6");
    assert_eq!((code, &other["separability"]), (Some(4), &1.0.into()), "{other}");
    let (code, same) = compare("old.txt", "separability<=0.7");
    assert_eq!(code, Some(0), "{same}");
    let said = fails(home, &["data", "drift", "new.txt", "--reference", "multi30k"], 2);
    assert!(said.contains("`multi30k` is known, but not a set of texts with labels"), "{said}");
}

#[test]
fn runs_are_compared_on_a_page() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    classifier(home);
    let other = ["train", "mine.toml", "--run", "other", "--set", "train.max_steps=4", "-q"];
    run(home, &other);
    let compared = json(&run(home, &["runs", "compare", "mine", "other", "--json"]));
    assert_eq!(compared["recipe"], serde_json::json!({"train.max_steps": ["6", "4"]}));
    assert_eq!(compared["scores"]["steps"], serde_json::json!(["6", "4"]));
    let page = fs::read_to_string(home.join("runs/compare.html")).unwrap();
    for part in ["Training loss", "Validation: accuracy", "train.max_steps", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
}

/// A classifier of two words, in `runs/mine`.
fn classifier(home: &Path) {
    let rows: String =
        (0..100).map(|i| format!("{} {i},{}\n", ["good", "bad"][i % 2], i % 2)).collect();
    fs::write(home.join("rows.csv"), format!("text,label\n{rows}")).unwrap();
    let tables = "[data]\ntrain = \"rows.csv\"\nleaks = \"off\"\n[tokenizer]\nvocab_size = 200\n\
                  [model]\nhidden_size = 16\nnum_hidden_layers = 1\nintermediate_size = 16\n";
    recipe(home, "text-classification", tables);
}

#[test]
fn what_is_left_learns_again_and_a_model_teaches_another() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    classifier(home);
    let prune = ["--prune", "neurons=0.5", "--fine-tune", "2", "--quantize", "int8", "--json"];
    let compress = ["compress", "mine", "--output"];
    let report = json(&run(home, &[&compress[..], &["small"], &prune[..]].concat()));
    let names: Vec<&str> = report["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[..3], ["original", "neurons-0.5", "neurons-0.5-tuned"]);
    assert!(names.contains(&"neurons-0.5-tuned+int8"), "{names:?}");
    let config = json(&fs::read_to_string(home.join("small/config.json")).unwrap());
    assert_eq!(config["intermediate_size"], 8);
    // Training went on from the pruned weights, its head too: it knows more than a model that just begins.
    let losses: Vec<f64> = report["candidates"].as_array().unwrap()[..3]
        .iter()
        .map(|candidate| candidate["measured"]["metrics"]["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[2] < losses[1], "{losses:?}");
    // The original teaches too.
    let taught = ["taught", "--distill", "--json"];
    let report = json(&run(home, &[&compress[..], &taught, &prune[..4]].concat()));
    let method = report["candidates"][2]["method"].as_str().unwrap();
    assert!(method.ends_with("2 epochs of training, taught by the original"), "{method}");

    // With a budget alone, what pruning left is trained when nothing else keeps to it, if that is not ruled out.
    for (output, more, trained) in
        [("missed", "--budget size<=1%", true), ("never", "--budget size<=1% --fine-tune 0", false)]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        command.current_dir(home).args(compress).args([output, "--json"]).args(more.split(' '));
        let answer = command.output().unwrap();
        let told = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(4), "{told}");
        let report = json(&String::from_utf8_lossy(&answer.stdout));
        let candidates = report["candidates"].as_array().unwrap();
        let named = |name: &str| candidates.iter().find(|candidate| candidate["name"] == name);
        assert!(named("neurons-0.5+int8").is_some(), "{report}");
        let method = named("neurons-0.5-tuned").map(|found| found["method"].as_str().unwrap());
        let taught = "3 epochs of training, taught by the original";
        let taught = method.map(|method| method.ends_with(taught));
        assert_eq!(taught, trained.then_some(true), "{told}");
        assert_eq!(named("neurons-0.5-tuned+int4").is_some(), trained, "{report}");
    }

    let student = fs::read_to_string(home.join("mine.toml")).unwrap();
    let student = student.replace("\"mine\"", "\"student\"");
    let distill = "[distill]\nteacher = \"runs/mine/model\"\ntexts_per_row = 2\n";
    fs::write(home.join("student.toml"), format!("{student}{distill}")).unwrap();
    run(home, &["train", "student.toml", "--progress", "none"]);
    let said = fs::read_to_string(home.join("runs/student/run.json")).unwrap();
    assert!(json(&said)["status"] == "finished", "{said}");
    // Texts that nobody labelled are answered as well, and are data of the run.
    fs::write(home.join("texts.txt"), "good and bad\nbad, not good\n").unwrap();
    let collected = distill.replace("texts_per_row = 2", "texts = \"texts.txt\"");
    let collected = student.replace("\"student\"", "\"collected\"") + &collected;
    fs::write(home.join("collected.toml"), collected).unwrap();
    run(home, &["train", "collected.toml", "--progress", "none"]);
    let other = fs::read_to_string(home.join("runs/collected/run.json")).unwrap();
    assert_ne!(json(&said)["data_sha256"], json(&other)["data_sha256"], "{other}");
    // What was left of the teacher learns to be like it, layer by layer.
    let steps = "[train]\nmax_steps = 4\nwarmup_steps = 1\nbatch_size = 8\n";
    let imitator = format!(
        "version = 1\ntask = \"text-classification\"\nname = \"imitator\"\n\
         [data]\ntrain = \"rows.csv\"\nleaks = \"off\"\n[tokenizer]\nkind = \"pretrained\"\n\
         [model]\npretrained = \"small\"\n{distill}hidden = 1.0\nattention = 0.1\n{steps}"
    );
    fs::write(home.join("imitator.toml"), imitator).unwrap();
    run(home, &["train", "imitator.toml", "--progress", "none"]);
    // One that is not here is missing, not made up.
    let strange = distill.replace("runs/mine/model", "sst2-nobody-made");
    fs::write(home.join("strange.toml"), format!("{student}{strange}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    let output = command.current_dir(home).args(["train", "strange.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

/// A BiLSTM learns from a BERT, and is then a text classifier like any other.
#[test]
fn a_bilstm_is_taught() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    classifier(home);
    let recipe = format!(
        "version = 1\ntask = \"text-classification\"\nname = \"student\"\n\
         [data]\ntrain = \"rows.csv\"\nleaks = \"off\"\n[tokenizer]\nvocab_size = 200\n\
         [model]\nfamily = \"bilstm\"\nembedding_size = 32\nhidden_size = 24\nnum_hidden_layers = 2\n\
         [distill]\nteacher = \"runs/mine/model\"\ntexts_per_row = 2\n{STEPS}learning_rate = 1e-2\n"
    );
    fs::write(home.join("student.toml"), recipe).unwrap();
    let train = ["train", "student.toml", "--progress", "none"];
    run(home, &train);
    // Stopped after a step and continued, the weights are the same bytes.
    let half = [&train[..], &["--run", "half"]].concat();
    let weights = |name: &str| {
        fs::read(home.join("runs").join(name).join("model/model.safetensors")).unwrap()
    };
    run(home, &[&half[..], &["--max-seconds", "0"]].concat());
    assert_ne!(weights("student"), weights("half"));
    run(home, &half);
    assert_eq!(weights("student"), weights("half"));

    let inspected = run(home, &["models", "inspect", "runs/student/model"]);
    assert!(inspected.contains("firebrick-bilstm"), "{inspected}");
    let compress = ["compress", "student", "--output", "tuned", "--quantize", "int8", "--json"];
    let report = json(&run(home, &[&compress[..], &["--fine-tune", "1"]].concat()));
    let candidates = report["candidates"].as_array().unwrap();
    let size = |i: usize| candidates[i]["measured"]["bytes"].as_f64().unwrap();
    assert!(size(1) < 0.4 * size(0), "{report}");
    assert!(candidates.iter().any(|candidate| candidate["name"] == "int8-tuned"), "{report}");
    run(home, &["models", "convert", "student", "small", "--dtype", "int8"]);
    let answers = |model: &str| {
        let said = run(home, &["predict", model, "--input", "rows.csv"]);
        said.lines().map(|line| json(line)["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (whole, small) = (answers("student"), answers("small"));
    assert_eq!(whole.len(), 100);
    let apart = whole.iter().zip(&small).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart < 0.1, "whole numbers are far off: {apart}");
    let said = json(&run(home, &["nlp", "sentiment", "--model", "small", "--json", "good 3"]));
    assert!(["0", "1"].contains(&said[0]["label"].as_str().unwrap()), "{said}");

    // It has no layers like its teacher's.
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    let imitate = [&train[..], &["--run", "other", "--set", "distill.hidden=1"]].concat();
    let output = command.current_dir(home).args(imitate).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("have to be encoders"), "{told}");
}

#[test]
fn a_language_model_is_rounded_by_what_its_layers_see_and_loses_layers() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let lines: String = (0..300).map(|i| format!("line {} of the poem\n", i % 7)).collect();
    fs::write(home.join("poem.txt"), lines).unwrap();
    let tables = "[data]\ntrain = \"poem.txt\"\nunit = \"character\"\nwindow = 32\n\
                  [model]\nhidden_size = 32\nnum_hidden_layers = 3\n";
    recipe(home, "language-modelling", tables);
    let compress = |output: &str, more: &[&str]| {
        let args = [&["compress", "mine", "--json", "--output", output], more].concat();
        let report = json(&run(home, &args));
        let candidates = report["candidates"].as_array().unwrap().iter();
        candidates
            .map(|c| (c["name"].as_str().unwrap().to_string(), c["measured"]["metrics"].clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let loss = |found: &BTreeMap<String, Value>, name: &str| found[name]["loss"].as_f64().unwrap();
    let more = ["--quantize", "int4", "--gptq", "8", "--budget", "perplexity<=+5%"];
    let found = compress("small", &[&more[..], &["--fine-tune", "1"]].concat());
    assert_ne!(found["int4"]["loss"], found["int4-gptq"]["loss"], "{found:?}");
    // Trained as rounded, and still so when it is read back.
    assert!(loss(&found, "int4-tuned") < loss(&found, "int4"), "{found:?}");

    // Zeros that come little by little cost less than those that come at once, and are as many.
    let found = compress("sparse", &["--prune", "weights=0.9", "--fine-tune", "2"]);
    assert!(loss(&found, "weights-0.9-tuned") < loss(&found, "weights-0.9"), "{found:?}");
    let zeros = firebrick_compress::prune::zeros(&home.join("sparse")).unwrap();
    assert!(zeros > 0.8, "{zeros}");

    // The dearest weights as floats: between all as whole numbers and none.
    let found = compress("mixed", &["--quantize", "int8", "--sensitivity"]);
    let mixed = |(name, _): &(&String, &Value)| name.starts_with("int8-mixed-");
    assert!(found.iter().any(|entry| mixed(&entry)), "{found:?}");

    let found = compress("short", &["--prune", "layers=2", "--fine-tune", "1"]);
    assert!(loss(&found, "layers-2-tuned") < loss(&found, "layers-2"), "{found:?}");
    let config = json(&fs::read_to_string(home.join("short/config.json")).unwrap());
    assert_eq!(config["n_layer"], 1);

    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.current_dir(home).args(["compress", "mine", "--output", "none", "--prune", "layers=3"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("3 of 3, not 1 to 2"), "{said}");
}

/// Whether candidates are left where they were made.
fn litter(home: &Path) -> bool {
    let mut names = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_string_lossy().starts_with(".firebrick-compress-"))
}

#[test]
fn compression() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let rows = "a warm and funny film,1\na dull and lifeless mess,0\n".repeat(10);
    fs::write(home.join("rows.csv"), format!("text,label\n{rows}")).unwrap();
    let common = ["--quantize", "int8", "--data", "rows.csv", "--progress", "plain"];
    let compress = |output: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache"));
        command.args(["compress", "sst2", "--output", output]).args(common).args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };

    // The shipped model is f16: whole numbers of eight bits are a little more than half of it.
    let (code, said) = compress("small", &["--budget", "size<=60%,accuracy>=-5"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = compress("missed", &["--budget", "size<=10%"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("not <= 10%: missed by 4"), "{said}");
    let (code, said) = compress("small", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(!litter(home));

    for folder in ["small", "missed"] {
        let scores = json(&run(home, &["eval", folder, "--json", "--data", "rows.csv"]));
        assert!(scores["metrics"]["accuracy"].as_f64() > Some(0.9), "{scores}");
        let answer = run(home, &["nlp", "sentiment", "--model", folder, "a dull mess"]);
        assert!(answer.contains("negative"), "{answer}");
        let inspected = run(home, &["models", "inspect", folder]);
        assert!(inspected.contains("I8"), "{inspected}");
    }
    let card = fs::read_to_string(home.join("small/README.md")).unwrap_or_default();
    assert!(card.contains("## Compression"), "{card}");
    let origin = json(&fs::read_to_string(home.join("small/firebrick.json")).unwrap());
    assert_eq!(
        (&origin["task"], &origin["compression"]["from"]),
        (&"text-classification".into(), &"sst2".into())
    );

    // Half of the neurons are gone, in a folder that says so, and that can be made floats again.
    let (code, said) = compress("pruned", &["--prune", "neurons=0.5"]);
    assert_eq!(code, Some(0), "{said}");
    let config = json(&fs::read_to_string(home.join("pruned/config.json")).unwrap());
    assert_eq!(config["intermediate_size"], 64);
    run(home, &["models", "convert", "pruned", "floats", "--dtype", "f32"]);
    run(home, &["eval", "floats", "--data", "rows.csv"]);

    let file = home.join("small/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(13).position(|window| window == b".weight_scale").unwrap();
    bytes[at + 8] = b'S';
    fs::write(&file, bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    let output =
        command.current_dir(home).args(["eval", "small", "--data", "rows.csv"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
}

/// Told before hours go by, and without a trace.
#[test]
fn what_cannot_be_compressed_is_told_first() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let rows = "a warm and funny film,1\na dull and lifeless mess,0\n".repeat(10);
    fs::write(home.join("rows.csv"), format!("text,label\n{rows}")).unwrap();
    let check = |args: &str, expected: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        let output = command.current_dir(home).arg("compress").args(args.split(' ')).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args}: {said}");
        assert!(said.lines().last().unwrap_or_default().contains(expected), "{args}: {said}");
        assert!(!litter(home) && !home.join("out").exists(), "{args}");
    };
    check("sst2 --output out", "nothing to do");
    check("sst2 --output rows.csv --quantize int8", "is there and is no folder");
    check("sst2 --output .. --quantize int8", "is no name for a folder");
    check("sst2 --output rows.csv/out --quantize int8", "--output rows.csv/out");
    check("ud-hmm --output out --quantize int8", "made of counts");
    check("sst2 --output out --prune channels=0.5", "for a ResNet, not for bert");
    check("sst2 --output out --prune layers=7", "--prune layers: 7 of");
    check("gtsrb --output out --prune neurons=0.5", "BERT family, not for resnet");
    let split = "sst2 --output out --quantize int8 --split";
    check(&format!("{split} nosuch"), "measuring sst2: no part `nosuch`");
    check(&format!("{split} test --data rows.csv"), "rows.csv has no parts");
    let budget = "sst2 --output out --quantize int8 --data rows.csv --budget";
    check(&format!("{budget} bogus>=1"), "--budget: no score `bogus` (there are size,");
}

/// A budget alone: whole numbers, with and without half of the neurons. What lies beside the output is not touched.
#[test]
fn a_budget_tries_what_needs_no_training() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let rows = "a warm and funny film,1\na dull and lifeless mess,0\n".repeat(10);
    fs::write(home.join("rows.csv"), format!("text,label\n{rows}")).unwrap();
    fs::create_dir(home.join("out.candidates")).unwrap();
    fs::write(home.join("out.candidates/note.txt"), "mine").unwrap();
    let compress = ["compress", "sst2", "--output", "out/", "--data", "rows.csv", "--json"];
    let report = json(&run(home, &[&compress[..], &["--budget", "size<=60%"]].concat()));
    let candidates = report["candidates"].as_array().unwrap();
    let names: Vec<&str> = candidates.iter().map(|c| c["name"].as_str().unwrap()).collect();
    for name in ["original", "int8", "int4", "neurons-0.5", "neurons-0.5+int4"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    // They keep to it untrained.
    assert!(!names.iter().any(|name| name.contains("tuned")), "{names:?}");
    assert_eq!(report["watts"], 10.0);
    assert!(candidates[0]["millijoules_per_row"].as_f64() > Some(0.0), "{report}");
    assert!(home.join("out/config.json").exists() && home.join("out.candidates/note.txt").exists());
    assert!(!litter(home));

    let kept = candidates.iter().find(|c| c["name"] == report["kept"]).unwrap();
    let origin = json(&fs::read_to_string(home.join("out/firebrick.json")).unwrap());
    assert_eq!(origin["metrics"]["rows.csv"], kept["measured"]["metrics"]);
    let reported = &origin["compression"]["original"]["reported"]["valid"]["accuracy"];
    assert!(reported.as_f64() > Some(0.8), "{origin}");
    let card = fs::read_to_string(home.join("out/README.md")).unwrap();
    assert!(card.starts_with("---\nlibrary_name: firebrick\n"), "{card}");
    let plot = fs::read_to_string(home.join("out/compression.svg")).unwrap();
    assert!(plot.contains(">neurons-0.5+int4<"), "{plot}");
}

#[test]
fn a_shipped_model_is_inspected_and_converted_with_its_card() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let parameters = |model: &str| {
        let found = json(&run(home, &["models", "inspect", model, "--json"]));
        found["parameters"].as_u64().unwrap()
    };
    let whole = parameters("sst2");
    assert!(whole > 500_000, "{whole}");
    for dtype in ["f32", "int8", "int4"] {
        run(home, &["models", "convert", "sst2", dtype, "--dtype", dtype]);
        assert_eq!(parameters(dtype), whole, "{dtype}");
        let card = fs::read_to_string(home.join(dtype).join("README.md")).unwrap();
        assert!(card.contains("pipeline_tag: text-classification"), "{card}");
        assert_eq!(card.contains(&format!("Converted from `sst2` to {dtype}")), dtype != "f32");
    }
}

/// The model leaves these numbers out when it is not held to them.
#[test]
fn a_translation_keeps_its_numbers() {
    let home = tempfile::tempdir().unwrap();
    for (text, number) in [("这本书要25美元。", "25"), ("我有12个苹果。", "12")] {
        let said = run(home.path(), &["nlp", "translate", "--model", "tatoeba-zh-en", text]);
        assert!(said.contains(number), "{text}: {said}");
    }
}

/// The shipped models' own settings leave room for what they write.
#[test]
fn shipped_language_models_write() {
    let home = tempfile::tempdir().unwrap();
    let args = ["nlp", "generate", "--model", "shakespeare", "--sample", "ROMEO:"];
    assert!(run(home.path(), &args).len() > 60);
}
