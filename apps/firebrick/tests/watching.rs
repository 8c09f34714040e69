//! Faces, actions and anomalies from files of one's own: learned, continued, scored, asked; and what the shipped models
//! say.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

fn output(home: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache")).args(args);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn run(home: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = output(home, args);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Trains in one go, and in two: the same bytes.
#[track_caller]
fn trained(home: &Path, task: &str, tables: &str) {
    let steps = "[train]\nmax_steps = 4\nwarmup_steps = 1\nbatch_size = 8\n";
    let text = format!("version = 1\ntask = \"{task}\"\nname = \"mine\"\n{tables}{steps}");
    fs::write(home.join("mine.toml"), text).unwrap();
    run(home, &["recipe", "check", "mine.toml"]);
    let train = ["train", "mine.toml", "--progress", "none", "--run"];
    run(home, &[&train[..], &["mine"]].concat());
    run(home, &[&train[..], &["parts", "--max-seconds", "0"]].concat());
    run(home, &[&train[..], &["parts"]].concat());
    let weights = |name: &str| {
        fs::read(home.join("runs").join(name).join("model/model.safetensors")).unwrap()
    };
    assert!(weights("mine") == weights("parts"), "the run that went on has other weights");
    let files = ["model/config.json", "model/README.md", "report.html", "plots/loss.svg"];
    for file in files.into_iter().chain(["eval/test.jsonl"]) {
        assert!(home.join("runs/mine").join(file).exists(), "{file}");
    }
}

/// A grey picture whose blocks are the person's, with some noise.
fn face(person: usize, i: usize) -> Vec<u8> {
    let pixel = |at: usize| {
        let block = at / 16 / 4 * 4 + at % 16 / 4;
        let own = (person * 16 + block + 1) * 2_654_435_761 % 200;
        (own + (at * 31 + i * 17) * 7919 % 40) as u8
    };
    [b"P5\n16 16\n255\n".to_vec(), (0..256).map(pixel).collect()].concat()
}

#[test]
fn faces_are_learned_and_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for person in 0..8 {
        let folder = home.join(format!("people/p{person}"));
        fs::create_dir_all(&folder).unwrap();
        for i in 0..9 {
            fs::write(folder.join(format!("{i}.pgm")), face(person, i)).unwrap();
        }
    }
    let tables = "[data]\ntrain = \"people\"\nvalid_people = 2\ntest_people = 2\nsize = [16, 16]\n\
                  [augment]\ntranslate = 0.1\nflip = 0.5\n\
                  [model]\nembedding_size = 4\nhidden_sizes = [4, 8]\ndepths = [1, 1]\ndimensions = 8\n";
    trained(home, "face-embedding", tables);
    let ask = ["eval", "mine", "--json", "--data", "people", "--robustness"];
    let scores = json(&run(home, &ask));
    assert!(scores["metrics"]["eer"].is_number() && scores["rows"] == 72, "{scores}");
    assert_eq!(scores["robustness_score"], "eer");
    let answers = run(home, &["predict", "mine", "--input", "people"]);
    let first = json(answers.lines().next().unwrap());
    let vector: Vec<f64> =
        first["embedding"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let length: f64 = vector.iter().map(|x| x * x).sum();
    assert!(vector.len() == 8 && (length - 1.0).abs() < 1e-4, "{first}");
    // Of everybody some pictures are learned from, the others are asked.
    let both =
        ["train", "mine.toml", "--run", "both", "--set", "data.split=pictures", "-q", "--json"];
    let scores = json(&run(home, &both));
    assert!(scores["metrics"]["test"]["accuracy"].is_number(), "{scores}");
    assert!(scores["metrics"].get("valid").is_none(), "{scores}");

    let faces = |args: &[&str]| output(home, &[&["vision", "faces"], args].concat());
    let ada = ["people/p6/0.pgm", "people/p6/1.pgm"];
    let enrol = ["enrol", "--index", "known", "--name", "Ada"];
    let (code, said, _) = faces(&[&enrol[..], &ada].concat());
    assert!(code == Some(0) && said.contains("2 of 2 pictures added"), "{said}");
    faces(&["enrol", "--index", "known", "--name", "Bob", "people/p7/0.pgm"]);
    let (code, said, error) = faces(&["identify", "--index", "known", "people/p6/0.pgm", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(json(&said)[0]["cosine"].is_number(), "{said}");
    let (_, said, _) =
        faces(&["identify", "--index", "known", "people/p6/0.pgm", "--threshold", "1"]);
    assert!(said.starts_with("unknown"), "{said}");
    for wrong in ["nan", "7"] {
        let known = ["identify", "--index", "known", "people/p6/0.pgm", "--threshold", wrong];
        assert_eq!(faces(&known).0, Some(2), "{wrong}");
    }
    // Logits of another task's model are no vectors.
    let signs = [&enrol[..], &["people/p6/0.pgm", "--model", "gtsrb"]].concat();
    let (code, _, error) = faces(&signs);
    assert!(code == Some(5) && error.contains("is for `image-classification`"), "{error}");
    let ask = ["vision", "classify", "--model", "faces", "people/p6/0.pgm"];
    let (code, _, error) = output(home, &ask);
    assert!(code == Some(5) && error.contains("is for `face-embedding`"), "{error}");
    assert_eq!(
        output(home, &["vision", "signs", "--model", "pneumonia", "people/p6/0.pgm"]).0,
        Some(2)
    );
    assert_eq!(output(home, &["eval", "mine", "--data", "people", "--split", "x"]).0, Some(2));
    let (_, said, _) = faces(&["verify", "people/p6/0.pgm", "people/p6/0.pgm", "--json"]);
    assert!(json(&said)["same"] == true, "{said}");
    // An index of another model is not asked.
    let (code, _, error) =
        faces(&["identify", "--index", "known", "people/p6/0.pgm", "--model", "mine"]);
    assert!(code == Some(2) && error.contains("another model"), "{error}");
    let (code, said, _) = faces(&["forget", "--index", "known", "--name", "Ada", "--json"]);
    let said = json(&said);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((&said["vectors_before"], &said["vectors_after"]), (&3.into(), &1.into()));
    assert_eq!(said["left"], 0);
    assert!(!fs::read_to_string(home.join("known/index.json")).unwrap().contains("Ada"));
    assert_eq!(faces(&["forget", "--index", "known", "--name", "Ada"]).0, Some(2));
    fs::write(home.join("known/index.json"), "{}").unwrap();
    assert_eq!(faces(&["identify", "--index", "known", "people/p6/0.pgm"]).0, Some(5));
}

/// A light square that goes `step` pixels with every frame, on noise.
fn frame(t: usize, step: usize, down: bool) -> Vec<u8> {
    let pixel = |at: usize| {
        let (y, x) = (at / 40, at % 40);
        let (along, across) = if down { (y, x) } else { (x, y) };
        let begin = t * step % 24;
        let lit = (begin..begin + 8).contains(&along) && (10..18).contains(&across);
        (at * 7919 % 30 + if lit { 200 } else { 0 }) as u8
    };
    (0..32 * 40).map(pixel).collect()
}

fn pgm(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    [format!("P5\n{width} {height}\n255\n").as_bytes(), pixels].concat()
}

/// A folder of frames.
fn recording(folder: &Path, count: usize, step: usize) {
    fs::create_dir_all(folder).unwrap();
    for t in 0..count {
        let name = folder.join(format!("{t:03}.pgm"));
        fs::write(name, pgm(40, 32, &frame(t, step, false))).unwrap();
    }
}

/// The frames of a folder as a video.
fn video(folder: &Path, to: &Path) {
    let frames = folder.join("%03d.pgm");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-framerate", "5", "-i"]).arg(frames);
    let output = command.args(["-c:v", "mjpeg", "-q:v", "2"]).arg(to).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn anomalies_are_found_in_videos() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for clip in 0..3 {
        recording(&home.join(format!("normal/{clip}")), 20, 1);
    }
    video(&home.join("normal/0"), &home.join("normal/3.mkv"));
    let mut table = "file,anomalous\n".to_string();
    for (clip, step) in [("slow", 1), ("fast", 4)] {
        recording(&home.join("test").join(clip), 12, step);
        for t in 0..12 {
            table.push_str(&format!("test/{clip}/{t:03}.pgm,{}\n", u8::from(step > 1)));
        }
    }
    fs::write(home.join("test.csv"), table).unwrap();
    let tables = "[data]\ntrain = \"normal\"\ntest = \"test.csv\"\nvalid_clips = 1\nsize = [32, 40]\n\
                  [anomaly]\nside = [12, 24]\n\
                  [model]\nnum_frames = 3\nhidden_sizes = [4, 6]\nnum_hidden_layers = 1\n";
    trained(home, "anomaly-detection", tables);
    let ask = ["eval", "mine", "--json", "--data", "test.csv", "--latency", "2"];
    let scores = json(&run(home, &[&ask[..], &["--robustness"]].concat()));
    assert_eq!(scores["robustness_score"], "auc");
    assert!(scores["metrics"]["auc"].is_number() && scores["rows"] == 24, "{scores}");
    assert!(scores["speed"]["p50_ms"].as_f64() > Some(0.0), "{scores}");
    let answers = run(home, &["predict", "mine", "--input", "test"]);
    let first = json(answers.lines().next().unwrap());
    assert_eq!((answers.lines().count(), &first["id"]), (24, &"fast/000.pgm".into()));
    assert!(first["score"].is_number(), "{first}");
    // Each video of a folder is answered, and what is none beside them is told.
    fs::create_dir(home.join("videos")).unwrap();
    for name in ["a.mkv", "b.mkv"] {
        fs::copy(home.join("normal/3.mkv"), home.join("videos").join(name)).unwrap();
    }
    let answers = run(home, &["predict", "mine", "--input", "videos"]);
    let ids: Vec<&str> = answers.lines().collect();
    assert!(ids.len() == 40 && ids[21].starts_with("{\"id\":\"b.mkv/1\",\"score\":"), "{answers}");
    fs::write(home.join("videos/c.mp4"), "no video").unwrap();
    let (code, answers, _) = output(home, &["predict", "mine", "--input", "videos"]);
    assert!(code == Some(5) && answers.lines().count() == 41, "{answers}");
    assert_eq!(output(home, &["eval", "mine", "--data", "test.csv", "--split", "x"]).0, Some(2));
    let (code, ..) = output(home, &["vision", "anomaly", "normal/3.mkv", "--threshold", "nan"]);
    assert_eq!(code, Some(2));
    let ask = ["vision", "anomaly", "normal/3.mkv", "--model", "mine", "--json"];
    let more = ["--plot", "plot.svg", "--where", "where.png"];
    let said = json(&run(home, &[&ask[..], &more].concat()));
    assert_eq!(said["frames"].as_array().unwrap().len(), 20);
    assert!(fs::read_to_string(home.join("plot.svg")).unwrap().contains("<svg"));
    assert!(fs::read(home.join("where.png")).unwrap().starts_with(b"\x89PNG"));

    // A file that is no video, one that breaks off, and a machine without ffmpeg.
    let whole = fs::read(home.join("normal/3.mkv")).unwrap();
    fs::write(home.join("half.mkv"), &whole[..whole.len() / 2]).unwrap();
    fs::write(home.join("text.mp4"), "no video").unwrap();
    for file in ["half.mkv", "text.mp4", "absent.mp4"] {
        let (code, _, error) = output(home, &["vision", "anomaly", file, "--model", "mine"]);
        assert_eq!((code, error.lines().count()), (Some(5), 1), "{error}");
        assert!(error.contains(file), "{error}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    let alone = command.current_dir(home).env("PATH", home).args(ask).output().unwrap();
    let error = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.code() == Some(3) && error.contains("apt-get install ffmpeg"), "{error}");
}

#[test]
fn actions_are_named() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::create_dir(home.join("clips")).unwrap();
    let mut table = "file,label,recording,split\n".to_string();
    for i in 0..20 {
        let (down, label) = if i % 2 == 0 { (false, "across") } else { (true, "down") };
        // Frames come again after twelve; no clip is to be another's.
        let pixels = (0..6).flat_map(|t| frame(t + i, 2, down)).map(|pixel| pixel + i as u8);
        let pixels: Vec<u8> = pixels.collect();
        let name = format!("clips/{i:02}.pgm");
        fs::write(home.join(&name), pgm(40, 6 * 32, &pixels)).unwrap();
        let part = if i < 16 { "train" } else { "test" };
        table.push_str(&format!("{name},{label},r{},{part}\n", i / 4));
    }
    fs::write(home.join("clips.csv"), table).unwrap();
    let tables = "[data]\ntrain = \"clips.csv\"\nvalid_recordings = [\"r3\"]\nframes = 6\nsize = [16, 20]\ngrey = true\n\
                  [augment]\nflip = 0.5\n[model]\nhidden_sizes = [4, 6]\nhidden_size = 5\n";
    trained(home, "video-classification", tables);
    let ask = ["eval", "mine", "--json", "--data", "clips.csv", "--split", "test"];
    let scores = json(&run(home, &[&ask[..], &["--latency", "2", "--robustness"]].concat()));
    assert!(scores["robustness"]["blur"][4].is_number(), "{scores}");
    assert!(scores["metrics"]["macro_f1"].is_number() && scores["rows"] == 4, "{scores}");
    assert!(scores["speed"]["p50_ms"].as_f64() > Some(0.0), "{scores}");
    let answers = run(home, &["predict", "mine", "--input", "clips"]);
    let first = json(answers.lines().next().unwrap());
    assert_eq!((answers.lines().count(), &first["id"]), (20, &"00.pgm".into()));
    assert!(first["scores"]["down"].is_number() && first["label"].is_string(), "{first}");

    let ask = ["vision", "action", "clips/01.pgm", "--model", "mine", "--start", "5"];
    let (code, _, error) = output(home, &ask);
    assert!(code == Some(2) && error.contains("--start is for videos"), "{error}");
    let ask = ["eval", "mine", "--data", "clips.csv", "--split", "x"];
    assert_eq!(output(home, &ask).0, Some(2));
    // The test part, and not what was learned from; rows that lack a cell are told.
    let table = fs::read_to_string(home.join("clips.csv")).unwrap();
    fs::write(
        home.join("lacks.csv"),
        table.replace("r4,test\n", "r4,test\nclips/00.pgm,across,r9\n"),
    )
    .unwrap();
    let (code, said, told) = output(home, &["eval", "mine", "--json", "--data", "lacks.csv"]);
    assert!(code == Some(0) && json(&said)["rows"] == 4, "{said}{told}");
    assert!(told.contains("4 rows set aside"), "{told}");

    // A longer video is named part by part, and a folder of frames is one clip.
    recording(&home.join("long"), 15, 1);
    video(&home.join("long"), &home.join("long.avi"));
    let said = json(&run(home, &["vision", "action", "long", "--model", "mine", "--json"]));
    assert_eq!(said["parts"].as_array().unwrap().len(), 3);
    let said = json(&run(home, &["vision", "action", "long.avi", "--model", "mine", "--json"]));
    assert!(said["parts"][0]["label"].is_string(), "{said}");
    let answers = run(home, &["predict", "mine", "--input", "long"]);
    assert_eq!(answers.lines().count(), 1, "{answers}");
    // Rows that are no six frames.
    fs::write(home.join("clips/00.pgm"), pgm(2, 33, &[0; 66])).unwrap();
    let (code, _, error) = output(home, &["vision", "action", "clips/00.pgm", "--model", "mine"]);
    assert!(code == Some(5) && error.contains("33 rows"), "{error}");
}

#[test]
fn shipped_models_watch() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    recording(&home.join("clip"), 20, 2);
    let said = json(&run(home, &["vision", "anomaly", "clip", "--json"]));
    assert_eq!(said["frames"].as_array().unwrap().len(), 20);
    assert!(said["threshold"].as_f64() > Some(0.0), "{said}");
    let said = json(&run(home, &["vision", "action", "clip", "--json"]));
    let scores = said["parts"][0]["scores"].as_object().unwrap();
    let sum: f64 = scores.values().filter_map(Value::as_f64).sum();
    assert!(scores.len() == 7 && (sum - 1.0).abs() < 1e-4, "{said}");
    fs::write(home.join("a.pgm"), face(1, 1)).unwrap();
    let answer = json(&run(home, &["predict", "faces", "--input", "a.pgm"]));
    assert_eq!(answer["embedding"].as_array().unwrap().len(), 64);
}
