//! Said, heard, understood, done: espeak-ng speaks, the shipped word spotter listens, a real broker carries the command,
//! and a simulated device obeys.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A program that ends with the test.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A home with its broker and its devices, and what these tell.
struct Home {
    dir: tempfile::TempDir,
    told: Receiver<Value>,
    _devices: Beside,
    _broker: Beside,
}

fn firebrick(dir: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.current_dir(dir).env("XDG_CACHE_HOME", dir.join("cache")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that is refused does not wait for its input.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn run(dir: &Path, args: &[&str], stdin: &str, code: i32) -> String {
    let output = firebrick(dir, args, stdin.as_bytes());
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {out}{error}");
    if code == 0 { out.into_owned() } else { error.into_owned() }
}

impl Home {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
        fs::write(dir.path().join("conf"), config).unwrap();
        let broker = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.arg("-c").arg(dir.path().join("conf"));
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        });
        let broker = Beside(broker.expect("mosquitto is not here: apt-get install mosquitto"));
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "mosquitto does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        let home = format!(
            r#"
            version = 1
            name = "flat"
            broker = {{ host = "127.0.0.1", port = {port} }}
            device = [
                {{ id = "lamp", kind = "light", room = "kitchen", names = ["kitchen light", "厨房灯"] }},
                {{ id = "night", kind = "light", room = "bedroom", names = ["bedroom light"] }},
                {{ id = "heating", kind = "thermostat", room = "hall", range = [12, 24] }},
            ]
            scene = [{{ id = "evening", set = {{ lamp = 40, heating = 20 }} }}]
            "#
        );
        fs::write(dir.path().join("home.toml"), home).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        command.current_dir(dir.path()).args(["speech", "home", "devices-run", "--json"]);
        let mut devices = Beside(command.stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(devices.0.stdout.take().unwrap()).lines();
        let (sender, told) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let home = Self { dir, told, _devices: devices, _broker: broker };
        assert_eq!(home.next()["event"], "online");
        home
    }

    #[track_caller]
    fn next(&self) -> Value {
        self.told.recv_timeout(Duration::from_secs(30)).expect("the devices tell nothing")
    }

    /// The next command that a device carried out.
    #[track_caller]
    fn applied(&self, device: &str, state: Value) {
        let event = self.next();
        assert_eq!((&event["event"], &event["device"]), (&"applied".into(), &device.into()));
        for (key, value) in state.as_object().unwrap() {
            assert_eq!(&event["state"][key], value, "{event}");
        }
    }

    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> String {
        run(self.dir.path(), args, "", code)
    }
}

#[test]
fn a_spoken_word_switches_a_light() {
    let home = Home::start();
    for (word, state) in [("on", "ON"), ("off", "OFF")] {
        home.run(&["speech", "say", word, "--output", "word.wav"], 0);
        let start = Instant::now();
        home.run(&["speech", "home", "hear", "word.wav", "--for", "lamp"], 0);
        // From a cold process to the device's answer; on a machine with nothing else to do it is 0.1 s.
        println!("{word}: {} ms", start.elapsed().as_millis());
        home.applied("lamp", serde_json::json!({"state": state}));
    }
    home.run(&["speech", "say", "banana", "--output", "word.wav"], 0);
    let error = home.run(&["speech", "home", "hear", "word.wav", "--for", "lamp"], 2);
    assert!(error.contains("heard"), "{error}");
}

#[test]
fn what_is_unknown_or_unsafe_is_refused() {
    let home = Home::start();
    let refused = |args: &[&str], code: i32, why: &str| {
        let error = home.run(&[&["speech", "home"], args].concat(), code);
        assert!(error.contains(why), "{error}");
    };
    refused(&["set", "door", "on"], 2, "lamp, night, heating, evening");
    refused(&["set", "heating", "60"], 2, "12 to 24");
    refused(&["set", "heating", "NaN"], 2, "12 to 24");
    refused(&["set", "heating", "-3"], 2, "12 to 24");
    refused(&["say-command", "set the heating to sixty degrees"], 2, "12 to 24");
    refused(&["say-command", "turn on the light"], 2, "kitchen light, bedroom light");
    refused(&["say-command", "don't turn on the kitchen light"], 2, "no order");
    refused(&["say-command", "turn the kitchen light off at nine pm"], 2, "a time");
    refused(&["say-command", "if it is dark turn on the kitchen light"], 2, "`if`");
    refused(&["devices", "--home", "nowhere.toml"], 2, "nowhere.toml");
    refused(&["say-command", "turn on the bedroom light and then explode"], 2, "explode");
    home.applied("night", serde_json::json!({"state": "ON"}));
    home.run(&["speech", "home", "scene", "evening"], 0);
    home.applied("heating", serde_json::json!({"temperature": 20.0}));
    home.applied("lamp", serde_json::json!({"state": "ON", "brightness": 102}));
    let devices: Value =
        serde_json::from_str(&home.run(&["speech", "home", "devices", "--json"], 0)).unwrap();
    assert_eq!(devices[0]["state"]["brightness"], 102);
    // Nobody listens at port 1.
    let text = fs::read_to_string(home.dir.path().join("home.toml")).unwrap();
    let port = text.split("port = ").nth(1).unwrap().split(' ').next().unwrap();
    fs::write(home.dir.path().join("gone.toml"), text.replace(port, "1")).unwrap();
    let gone = ["set", "lamp", "on", "--home", "gone.toml", "--patience", "0.5"];
    refused(&gone, 1, "no answer from the MQTT broker at 127.0.0.1:1");
}

#[test]
fn the_assistant_acts_and_asks() {
    let home = Home::start();
    let args = ["speech", "assistant", "--home", "home.toml", "--timers", "timers.json", "--wait"];
    let said = "turn on the light\nkitchen\n打开厨房灯\nwhat is twelve times three\n\
                set a timer for one second\nis the kitchen light on?\n";
    let answers = run(home.dir.path(), &args, said, 0);
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers[0], "Which one: kitchen light, bedroom light?");
    assert_eq!(answers[1], "kitchen light on.");
    assert_eq!(answers[2], "厨房灯 开。");
    assert_eq!(answers[3], "36");
    assert_eq!(answers[4], "Timer set: 1 s.");
    assert!(answers[5].starts_with("kitchen light"), "{answers:?}");
    assert_eq!(answers[6], "Time is up: set a timer for one second");
    home.applied("lamp", serde_json::json!({"state": "ON"}));
    home.applied("lamp", serde_json::json!({"state": "ON"}));
}

#[test]
fn odd_texts_are_said_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let say =
        |text: &str, code| run(dir.path(), &["speech", "say", "--output", "said.wav"], text, code);
    say("-w /tmp/x; `id` $(id) \0 \u{1b}[2J [[h@]] <b>", 0);
    let wav = fs::read(dir.path().join("said.wav")).unwrap();
    assert!(wav.starts_with(b"RIFF") && wav.len() > 10_000);
    say("\0\n", 2);
    assert!(say(&"a".repeat(200_000), 2).contains("20000"));
    let error = run(dir.path(), &["speech", "say", "hallo", "--language", "xx"], "", 2);
    assert!(error.contains("en, zh, de, fr"), "{error}");
    let error = run(dir.path(), &["speech", "say", "hi", "--output", "x.mp3"], "", 2);
    assert!(error.contains(".wav") && !dir.path().join("x.mp3").exists(), "{error}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(["speech", "say", "hi", "--output", "no.wav"]).env("PATH", "/nowhere");
    let output = command.current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("apt-get install espeak-ng"));
}
