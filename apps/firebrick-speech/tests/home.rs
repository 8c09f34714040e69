//! A home over a real broker: what Home Assistant would see, and that commands are carried out once each although the
//! broker is killed again and again.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use firebrick_speech::home::{
    command::Commander,
    file::{Broker, Home},
    link::Link,
    order::{Change, State, Wish},
    simulated::{self, Event},
};
use serde_json::Value;

/// Mosquitto on a port of its own; killed with this.
struct Mosquitto {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Mosquitto {
    fn start() -> Self {
        Self::with("")
    }

    /// `more` of its configuration.
    fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = dir.path().display();
        // As root it would become another user, who cannot write into our folder.
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n\
             persistence_location {at}/\nautosave_interval 1\nautosave_on_changes true\n{more}"
        );
        fs::write(dir.path().join("conf"), config).unwrap();
        let child = Self::spawn(&dir, port);
        Self { dir, port, child }
    }

    fn spawn(dir: &tempfile::TempDir, port: u16) -> Child {
        let started = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.arg("-c").arg(dir.path().join("conf"));
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        });
        let child = started.expect("mosquitto is not here: apt-get install mosquitto");
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "mosquitto does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// By SIGKILL: nothing is saved or said at its end.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::spawn(&self.dir, self.port);
    }

    fn home(&self) -> Home {
        Home::parse(&format!(
            r#"
            version = 1
            name = "flat"
            broker = {{ host = "127.0.0.1", port = {} }}
            device = [
                {{ id = "lamp", kind = "light", room = "kitchen" }},
                {{ id = "heating", kind = "thermostat", room = "hall", range = [12, 24] }},
                {{ id = "fan", kind = "socket", room = "hall" }},
            ]
            scene = [{{ id = "evening", set = {{ lamp = 40, heating = 20 }} }}]
            "#,
            self.port
        ))
        .unwrap()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Everything retained below `filter`.
fn retained(port: u16, filter: &str) -> BTreeMap<String, String> {
    let broker = Broker {
        host: "127.0.0.1".into(),
        port,
        user: None,
        password: None,
        ca: None,
        certificates: vec![],
    };
    let mut link = Link::new(&broker, "onlooker", None);
    link.subscribe(filter.into());
    link.connect(Instant::now() + PATIENCE).unwrap();
    let mut found = BTreeMap::new();
    link.wait_for(Instant::now() + Duration::from_millis(400), |message| {
        found.insert(message.topic, String::from_utf8(message.payload).unwrap());
        None::<()>
    })
    .unwrap();
    found
}

/// Stops the devices also where a test fails, which would wait for them otherwise.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs `body` beside simulated devices, and returns what they told.
fn beside(home: &Home, body: impl FnOnce()) -> Vec<Event> {
    let (stop, told) = (AtomicBool::new(false), Mutex::new(vec![]));
    thread::scope(|scope| {
        let devices = scope.spawn(|| {
            simulated::run(home, &|| stop.load(Ordering::SeqCst), &mut |event| {
                told.lock().unwrap().push(event.clone());
            })
        });
        while told.lock().unwrap().is_empty() && !devices.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let stop = Stop(&stop);
        body();
        drop(stop);
        devices.join().unwrap().unwrap();
    });
    told.into_inner().unwrap()
}

#[test]
fn home_assistant_finds_the_devices() {
    let mosquitto = Mosquitto::start();
    let home = mosquitto.home();
    beside(&home, || {
        let found = retained(mosquitto.port, "#");
        let config = |topic: &str| -> Value { serde_json::from_str(&found[topic]).unwrap() };
        let light = config("homeassistant/light/flat/lamp/config");
        assert_eq!(light["schema"], "json");
        assert_eq!(light["command_topic"], "firebrick/flat/lamp/set");
        let state = config(light["state_topic"].as_str().unwrap());
        assert_eq!(state, serde_json::json!({"state": "OFF", "brightness": 255}));
        assert_eq!(found[light["availability_topic"].as_str().unwrap()], "online");
        let climate = config("homeassistant/climate/flat/heating/config");
        assert_eq!((&climate["min_temp"], &climate["max_temp"]), (&12.0.into(), &24.0.into()));
        let socket = config("homeassistant/switch/flat/fan/config");
        assert_eq!(socket["payload_on"], r#"{"state":"ON"}"#);
        assert!(found.contains_key("homeassistant/scene/flat/evening/config"));

        let mut commander = Commander::new(&home, PATIENCE);
        let heating = home.device("heating").unwrap();
        commander.send(heating, Change::Temperature(21.5)).unwrap();
        commander.carry_out(heating, Wish::More).unwrap();
        let [state] = commander.states(&[heating]).unwrap()[..] else { panic!() };
        assert_eq!(state, State { temperature: Some(22.5), ..State::default() });
        commander.leave();
    });
    assert_eq!(retained(mosquitto.port, "firebrick/#")["firebrick/flat/availability"], "offline");
}

/// Ten kills, or as many as FIREBRICK_KILLS says.
#[test]
fn nothing_is_lost_or_doubled_when_the_broker_dies() {
    let kills = std::env::var("FIREBRICK_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let mut mosquitto = Mosquitto::start();
    let home = mosquitto.home();
    let mut sent = vec![];
    let told = beside(&home, || {
        thread::scope(|scope| {
            let killer = scope.spawn(|| {
                for k in 0..kills {
                    // At no moment in particular.
                    thread::sleep(Duration::from_millis(20 + 37 * k % 150));
                    mosquitto.kill();
                    thread::sleep(Duration::from_millis(31 * k % 50));
                    mosquitto.restart();
                }
            });
            let mut commander = Commander::new(&home, PATIENCE);
            while !killer.is_finished() || sent.len() < 40 {
                let percent = 1 + (sent.len() % 100) as u8;
                let done = commander.send(0, Change::Brightness(percent)).unwrap();
                sent.push((done.id, percent));
            }
            killer.join().unwrap();
            commander.leave();
        });
    });
    let applied = told.iter().filter_map(|event| match event {
        Event::Applied { id, state, .. } => Some((id.clone()?, state.brightness?)),
        _ => None,
    });
    assert_eq!(applied.collect::<Vec<_>>(), sent);
    let online = told.iter().filter(|event| matches!(event, Event::Online)).count();
    let again = told.iter().filter(|event| matches!(event, Event::Repeated { .. })).count();
    println!("{} commands, {kills} kills, {online} times online, {again} repeated", sent.len());
    assert!(online > 1, "the devices have not noticed a kill");
}

#[test]
fn who_does_not_answer_is_named() {
    let mosquitto = Mosquitto::start();
    let home = mosquitto.home();
    let mut commander = Commander::new(&home, Duration::from_millis(1200));
    let error = commander.send(0, Change::Power(true)).unwrap_err().to_string();
    assert!(error.contains("lamp") && error.contains("never announced"), "{error}");
    beside(&home, || {});
    let error = commander.send(0, Change::Power(true)).unwrap_err().to_string();
    assert!(error.contains("offline"), "{error}");
    drop(mosquitto);
    let error = commander.send(0, Change::Power(true)).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1"), "{error}");
}

/// `tls/` holds a certificate of a broker at 127.0.0.1 with its key, who signed it (`ca.pem`), and somebody else
/// (`other.pem`): openssl made them for a hundred years.
#[test]
fn an_encrypted_line_goes_to_the_right_broker_only() {
    let tls = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls");
    let mosquitto =
        Mosquitto::with(&format!("certfile {tls}/broker.pem\nkeyfile {tls}/broker.key\n"));
    let home = |ca: &str| {
        let mut home = mosquitto.home();
        home.broker.ca = Some(ca.into());
        home.broker.certificates = fs::read(format!("{tls}/{ca}")).unwrap();
        home
    };
    let right = home("ca.pem");
    beside(&right, || {
        let mut commander = Commander::new(&right, PATIENCE);
        commander.send(0, Change::Brightness(40)).unwrap();
        let [state] = commander.states(&[0]).unwrap()[..] else { panic!() };
        assert_eq!(state.brightness, Some(40));
        commander.leave();
    });
    let wrong = home("other.pem");
    let mut commander = Commander::new(&wrong, Duration::from_millis(800));
    let error = commander.send(0, Change::Power(true)).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    // Without encryption nobody answers.
    let plain = mosquitto.home();
    let mut commander = Commander::new(&plain, Duration::from_millis(800));
    assert!(commander.send(0, Change::Power(true)).is_err());
}
