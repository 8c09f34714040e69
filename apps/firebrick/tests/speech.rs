//! Recordings from files of one's own: learned, scored, asked; and what the shipped models hear.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn output(home: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn run(home: &Path, args: &[&str]) -> String {
    let output = output(home, args, b"");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Tones one after the other, 0.3 s each at 8 kHz, as 16-bit samples.
fn tones(hertz: &[f32], seed: usize) -> Vec<u8> {
    let sample = |(tone, i): (f32, usize)| {
        let turn = std::f32::consts::TAU * (tone + seed as f32) * i as f32 / 8000.0;
        ((turn.sin() * 8000.0) as i16).to_le_bytes()
    };
    let all = hertz.iter().flat_map(|tone| (0..2400).map(move |i| (*tone, i)));
    all.flat_map(sample).collect()
}

fn write_wav(path: &Path, samples: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data"
            .to_vec();
    bytes.extend((samples.len() as u32).to_le_bytes());
    bytes.extend(samples);
    fs::write(path, bytes).unwrap();
}

const LOW: f32 = 400.0;
const HIGH: f32 = 1800.0;

const FEATURES: &str =
    "[features]\nsample_rate = 8000\nn_fft = 128\nwin_length = 128\nhop_length = 80\nn_mels = 16\n";

fn recipe(home: &Path, task: &str, tables: &str, steps: usize) {
    let train = format!(
        "[train]\nmax_steps = {steps}\nwarmup_steps = 2\nbatch_size = 8\nlearning_rate = 1e-2\n"
    );
    let text =
        format!("version = 1\ntask = \"{task}\"\nname = \"mine\"\n{tables}{FEATURES}{train}");
    fs::write(home.join("mine.toml"), text).unwrap();
    run(home, &["recipe", "check", "mine.toml"]);
    run(home, &["train", "mine.toml", "--progress", "none"]);
    for file in
        ["model/config.json", "model/preprocessor_config.json", "model/README.md", "report.html"]
    {
        assert!(home.join("runs/mine").join(file).exists(), "{file}");
    }
}

#[test]
fn words_in_folders() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for i in 0..12 {
        for (label, tone) in [("low", LOW), ("high", HIGH)] {
            let part = if i < 8 { "train" } else { "valid" };
            let path = format!("{part}/{label}/{i}.wav");
            write_wav(&home.join(path), &tones(&[tone], 7 * i));
        }
    }
    let tables = "[data]\ntrain = \"train\"\nvalid = \"valid\"\nseconds = 0.4\n\
                  [model]\nembedding_size = 8\nhidden_sizes = [8]\ndepths = [1]\n";
    recipe(home, "audio-classification", tables, 30);
    assert!(home.join("runs/mine/plots/spectrograms.svg").exists());
    let scores = json(&run(home, &["eval", "mine", "--json", "--data", "valid"]));
    assert_eq!((&scores["rows"], &scores["metrics"]["accuracy"]), (&8.into(), &1.0.into()));

    // Channels are chosen by the recordings that it was trained on.
    let thin = "compress mine --output thin --prune channels=0.5 --progress plain";
    let thin = output(home, &thin.split(' ').collect::<Vec<_>>(), b"");
    let told = String::from_utf8_lossy(&thin.stderr);
    assert!(thin.status.success() && told.contains("channels-0.5: "), "{told}");
    assert!(!told.contains("by the scales of their norms"), "{told}");

    // A run for each seed, and the mean of both.
    let each = ["train", "mine.toml", "--run", "each", "--each", "seed=1,2", "--json"];
    let each = json(&run(home, &each));
    let score = |seed: &str| each["runs"][seed]["valid"]["loss"].as_f64().unwrap();
    let mean = each["means"]["valid loss"].as_f64().unwrap();
    assert!((mean - (score("1") + score("2")) / 2.0).abs() < 1e-12 && score("1") != score("2"));
    assert!(home.join("runs/each-2/report.html").exists());

    // Where nobody says a word: four recordings of three seconds, one to choose on, one to count on.
    for i in 0..4 {
        write_wav(&home.join(format!("other/{i}.wav")), &tones(&[3000.0; 10], i));
    }
    let counted = "speech false-alarms other --model mine --at-most 10000 --json";
    let counted = json(&run(home, &counted.split(' ').collect::<Vec<_>>()));
    assert!((counted["hours"].as_f64().unwrap() - 3.0 / 3600.0).abs() < 1e-9, "{counted}");
    assert_eq!((&counted["threshold"], &counted["of"]), (&0.5.into(), &8.into()), "{counted}");
    assert!(counted["heard"].as_u64().unwrap() >= 6, "{counted}");

    // A folder is walked; what cannot be read has its error in place of an answer.
    fs::write(home.join("valid/low/broken.wav"), "RIFF").unwrap();
    let said = output(home, &["predict", "mine", "--input", "valid"], b"");
    assert_eq!(said.status.code(), Some(5));
    let lines: Vec<Value> = String::from_utf8(said.stdout).unwrap().lines().map(json).collect();
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[0]["id"], "high/10.wav");
    assert_eq!(lines[0]["label"], "high");
    let broken = lines.iter().find(|line| line["id"] == "low/broken.wav").unwrap();
    assert!(broken["error"].as_str().unwrap().contains("ends too early"), "{broken}");

    // Words in a long recording, from a file and from a pipe.
    let silence = vec![0u8; 8000];
    let stream =
        [silence.clone(), tones(&[HIGH], 3), silence.clone(), tones(&[LOW], 3), silence].concat();
    write_wav(&home.join("long.wav"), &stream);
    let listen = |input: &[&str]| {
        // Every look counts by itself: the tones are nearly as long as what the model sees.
        let looks =
            "speech keyword --model mine --every 0.05 --smooth 1 --threshold 0.5 --refractory 0.1";
        let args: Vec<&str> = looks.split(' ').chain(input.iter().copied()).collect();
        let lines = String::from_utf8(output(home, &args, &stream).stdout).unwrap();
        let word = |line: &str| line.split_whitespace().nth(2).unwrap().to_string();
        lines.lines().map(word).collect::<Vec<_>>()
    };
    let heard = listen(&["long.wav"]);
    assert!(heard.contains(&"high".into()) && heard.contains(&"low".into()), "{heard:?}");
    assert_eq!(listen(&["--raw", "8000"]), heard);
}

#[test]
fn words_written_down() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for (part, count) in [("train", 16), ("valid", 6)] {
        let mut lines = String::new();
        for i in 0..count {
            let words: Vec<(&str, f32)> = (0..3)
                .map(|w| if (i >> w) % 2 == 0 { ("low", LOW) } else { ("high", HIGH) })
                .collect();
            let (text, tone): (Vec<&str>, Vec<f32>) = words.into_iter().unzip();
            write_wav(&home.join(format!("{part}{i}.wav")), &tones(&tone, 5 * i + count));
            lines.push_str(&format!(
                "{{\"audio\": \"{part}{i}.wav\", \"text\": \"{}\"}}\n",
                text.join(" ")
            ));
        }
        fs::write(home.join(format!("{part}.jsonl")), lines).unwrap();
    }
    let tables = "[data]\ntrain = \"train.jsonl\"\nvalid = \"valid.jsonl\"\nunits = \"words\"\n\
                  [model]\nconv_channels = 4\nhidden_size = 8\nnum_hidden_layers = 1\n[decode]\norder = 2\n";
    recipe(home, "speech-recognition", tables, 8);
    let scores = json(&run(home, &["eval", "mine", "--json", "--data", "valid.jsonl"]));
    assert_eq!((&scores["rows"], &scores["words"]), (&6.into(), &18.into()));
    let [low, high] = [0, 1].map(|end| scores["wer_95"][end].as_f64().unwrap());
    let rate = scores["metrics"]["wer"].as_f64().unwrap();
    assert!(low <= rate && rate <= high, "{scores}");
    let srt = run(home, &["speech", "transcribe", "--srt", "--model", "mine", "valid1.wav"]);
    assert!(srt.is_empty() || srt.starts_with("1\n00:00:00,000 --> 00:00:00,900\n"), "{srt}");
    let said = run(home, &["predict", "mine", "--input", "valid1.wav"]);
    assert!(json(said.trim())["text"].is_string(), "{said}");
    let refused = output(
        home,
        &["speech", "transcribe", "--model", "mine", "--translate", "valid1.wav"],
        b"",
    );
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn voice_is_found() {
    let home = tempfile::tempdir().unwrap();
    let silence = vec![0u8; 16_000];
    write_wav(&home.path().join("silence.wav"), &silence);
    let found = json(&run(home.path(), &["speech", "voice", "--json", "silence.wav"]));
    assert_eq!(found[0]["segments"], Value::Array(vec![]));
    let missing = output(home.path(), &["speech", "voice", "nothing.wav"], b"");
    assert_eq!(missing.status.code(), Some(5));
}

/// What needs no data and no checkpoint: the network of the shipped spotter, and all of it.
#[test]
fn a_spotter_is_timed() {
    let home = tempfile::tempdir().unwrap();
    let lines = run(home.path(), &["bench", "commands-b1"]);
    let lines: Vec<Value> = lines.lines().map(json).collect();
    let metrics: Vec<&Value> = lines.iter().map(|line| &line["metric"]).collect();
    assert_eq!(metrics, ["latency", "with spectrogram"], "{lines:?}");
    assert!(lines.iter().all(|line| line["median"].as_f64().unwrap() > 0.0), "{lines:?}");
}

/// The folder of a data set that lies beside the repository.
fn fetched(home: &Path, id: &str) -> String {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    assert!(shared.is_dir(), "the data sets are not at {}", shared.display());
    let fetched = Command::new(env!("CARGO_BIN_EXE_firebrick"))
        .env("FIREBRICK_DATA", shared)
        .env("XDG_CACHE_HOME", home.join("cache"))
        .args(["data", "fetch", id, "--json"])
        .output()
        .unwrap();
    let folder = json(&String::from_utf8(fetched.stdout).unwrap())["folder"].clone();
    folder.as_str().unwrap().to_string()
}

/// The shipped recogniser on a real recording, between files that cannot be read and such in which nobody speaks; and what
/// the shipped translator and espeak-ng make of it.
#[test]
fn a_real_recording_is_written_down_and_interpreted() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let real = format!("{}/wav/an391-mjwl-b.flac", fetched(home, "an4"));
    let said = "ENTER TWO NINE EIGHT ONE";
    // Ten seconds of noise at 8 kHz, some -60 dB.
    let mut state = 1u32;
    let noise = (0..80_000).flat_map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 26) as i16 - 32).to_le_bytes()
    });
    write_wav(&home.join("noise.wav"), &noise.collect::<Vec<_>>());

    let transcribe = ["speech", "transcribe", "--model", "an4"];
    let files = [real.as_str(), "nothing.wav", "noise.wav", real.as_str()];
    let all = output(home, &[&transcribe[..], &files, &["--json"]].concat(), b"");
    assert_eq!(all.status.code(), Some(5));
    let all = json(&String::from_utf8(all.stdout).unwrap());
    let texts: Vec<Option<&str>> = (0..4).map(|i| all[i]["text"].as_str()).collect();
    assert_eq!(texts, [Some(said), None, Some(""), Some(said)], "{all}");
    assert!(all[1]["error"].as_str().unwrap().contains("nothing.wav"), "{all}");
    let subtitles = output(home, &[&transcribe[..], &files, &["--srt"]].concat(), b"");
    assert_eq!(subtitles.status.code(), Some(2));

    let interpret = ["speech", "interpret", "--model", "an4"];
    fs::write(home.join("said.txt"), said).unwrap();
    fs::write(home.join("heard.txt"), "Enter, two nine: eight\none two.\n").unwrap();
    let args = [real.as_str(), "--to", "de", "--output", "de.wav", "--reference", "said.txt"];
    let scored = [&interpret[..], &args, &["--transcript", "heard.txt"]].concat();
    let lines = run(home, &[&scored[..], &["--json"]].concat());
    let lines: Vec<Value> = lines.lines().map(json).collect();
    assert_eq!((lines.len(), &lines[0]["heard"]), (2, &said.into()), "{lines:?}");
    assert!(lines[0]["lag"].is_null() && lines[1]["bleu"].as_f64().unwrap() < 100.0, "{lines:?}");
    assert!(lines[1]["chrf_signature"].as_str().unwrap().contains("nc:6"), "{lines:?}");
    // One word of six was not said, " two" of the 28 characters.
    let rates = ["wer", "cer"].map(|name| lines[1][name].as_f64().unwrap());
    assert_eq!(rates, [1.0 / 6.0, 4.0 / 28.0], "{lines:?}");
    let shown = run(home, &scored);
    assert!(shown.contains("heard: WER 16.7 %, CER 14.3 %\nsaid: BLEU "), "{shown}");
    assert!(fs::read(home.join("de.wav")).unwrap().len() > 10_000);

    // Samples without a header, faster than they sound.
    let mut raw = fs::read(home.join("de.wav")).unwrap().split_off(44);
    raw.resize(raw.len() + 50_000, 0);
    let args = ["--raw", "22050", "--from", "en", "--to", "en", "--json"];
    let fast = output(home, &[&interpret[..], &args].concat(), &raw);
    let stderr = String::from_utf8(fast.stderr).unwrap();
    assert!(fast.status.success() && stderr.contains("no lag"), "{stderr}");
    for line in String::from_utf8(fast.stdout).unwrap().lines() {
        assert!(json(line)["lag"].is_null(), "{line}");
    }

    let refused = |args: &[&str], why: &str| {
        let output = output(home, &[&interpret[..], &[real.as_str()], args].concat(), b"");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(why), "{stderr}");
    };
    refused(&["--to", "en", "--translator", "multi30k-en-de"], "nothing to do");
    refused(&["--from", "fr", "--to", "zh"], "neither multi30k-fr-en nor a recipe");
}

/// Ten recordings of `seven` by two speakers of the Free Spoken Digits, and their other digits: what no training saw is
/// told apart. A sixth of the steps; by hand, 60 and 120 steps hear ten of ten, and take none of the 36 others for it.
#[test]
fn a_wake_word_is_learned_from_ten_recordings() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let folder = fetched(home, "fsdd");
    // Without the header of 44 bytes: 16 bits, 8 kHz.
    let said = |digit: usize, speaker: &str, take: usize| {
        fs::read(format!("{folder}/{digit}_{speaker}_{take}.wav")).unwrap().split_off(44)
    };
    let others = [0, 1, 2, 3, 4, 5, 6, 8, 9];
    let spoken = |digits: &[usize], speaker: &str, takes: &[usize], pause: f32| {
        let pause = vec![0u8; 2 * (8000.0 * pause) as usize];
        let all = takes.iter().flat_map(|take| digits.iter().map(move |digit| (*digit, *take)));
        let all = all.map(|(digit, take)| [&pause[..], &said(digit, speaker, take)].concat());
        [all.collect::<Vec<_>>().concat(), pause.clone()].concat()
    };
    for speaker in ["jackson", "theo"] {
        for take in 5..30 {
            let path = home.join(format!("talk/{speaker}{take}.wav"));
            write_wav(&path, &spoken(&others, speaker, &[take], 0.4));
        }
        for i in 0..5 {
            let path = |folder: &str| home.join(format!("{folder}/{speaker}{i}.wav"));
            write_wav(&path("word"), &said(7, speaker, 10 + i));
            write_wav(&path("more"), &said(7, speaker, 30 + i));
        }
    }
    let learn = "speech wake-word --name seven --examples word --background talk --test more --set train.max_steps=100 \
                 --set train.warmup_steps=10 --progress none --json";
    let learned = json(&run(home, &learn.split_whitespace().collect::<Vec<_>>()));
    // At thresholds of 0.6 to 0.9.
    let [low, .., high] = &learned["measured"].as_array().unwrap()[..] else { panic!("{learned}") };
    assert_eq!(low["tests"], 10);
    assert!(low["heard"].as_u64().unwrap() >= 8, "{learned}");
    assert!(low["hours"].as_f64().unwrap() > 0.005, "{learned}");
    let wrong = |at: &Value| at["false_alarms"].as_u64().unwrap();
    assert!(wrong(low) <= 4 && wrong(high) <= 1, "{learned}");

    // And it listens, to digits that neither its training nor the counting had.
    let heard = |digits: &[usize], speaker: &str| {
        write_wav(&home.join("long.wav"), &spoken(digits, speaker, &[40, 41], 1.0));
        let listen = "speech keyword --model seven --threshold 0.6 long.wav";
        let lines = run(home, &listen.split(' ').collect::<Vec<_>>());
        assert!(lines.lines().all(|line| line.contains("seven")), "{lines}");
        lines.lines().count()
    };
    let [words, wrong] = [&[7][..], &others].map(|digits| {
        ["jackson", "theo"].map(|speaker| heard(digits, speaker)).iter().sum::<usize>()
    });
    assert!(words >= 3 && wrong <= 2, "{words} of 4 heard, {wrong} of 36 others taken for it");
}

/// Interrupted, the same command goes on; other recordings are refused.
#[test]
fn a_wake_word_goes_on_after_an_interruption() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for i in 0..6 {
        let word = tones(&[LOW, HIGH, LOW], 7 * i);
        write_wav(&home.join(format!("word/{i}.wav")), &word);
        write_wav(&home.join(format!("other-word/{i}.wav")), &word[..word.len() - 2]);
        write_wav(&home.join(format!("talk/{i}.wav")), &tones(&[LOW + 90.0 * i as f32; 200], i));
    }
    let args = "speech wake-word --name w --background talk --examples";
    let args: Vec<&str> = args.split(' ').collect();
    let missing = output(home, &[&args[..], &["word", "--test", "nowhere"]].concat(), b"");
    assert_eq!(missing.status.code(), Some(5));
    assert!(!home.join("runs/w-recordings").exists());

    let metrics = home.join("runs/w/metrics.jsonl");
    let length = || fs::metadata(&metrics).map_or(0, |file| file.len());
    for _ in 0..2 {
        let before = length();
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache"));
        let mut child = command
            .args(&args)
            .args(["word", "--progress", "none"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while length() <= before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    let other = output(home, &[&args[..], &["other-word"]].concat(), b"");
    let stderr = String::from_utf8(other.stderr).unwrap();
    assert!(other.status.code() == Some(2) && stderr.contains("other recordings"), "{stderr}");
}
