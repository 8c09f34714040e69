//! The file that describes a home.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    HomeError,
    order::{Change, RANGE},
};

/// Longest home file, and file of certificates.
const LIMIT: u64 = 1 << 20;
/// Devices and scenes of a home.
const MOST: usize = 10_000;

/// A home as its file describes it. A device is known by its place in `devices`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// Of this format: 1.
    pub version: u32,
    /// Part of its topics.
    pub name: String,
    pub broker: Broker,
    #[serde(rename = "device")]
    pub devices: Vec<Device>,
    #[serde(rename = "scene", default)]
    pub scenes: Vec<Scene>,
}

/// Where commands go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<String>,
    /// PEM file of who has signed the broker's certificate, relative to the home file. With it the connection is encrypted
    /// (TLS), most often at port 8883.
    pub ca: Option<PathBuf>,
    /// What is in that file; [`Home::open`] reads it.
    #[serde(skip)]
    pub certificates: Vec<u8>,
}

fn port() -> u16 {
    1883
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Part of its topics.
    pub id: String,
    pub kind: Kind,
    pub room: String,
    /// What it is called, in any language, beside its room and kind.
    #[serde(default)]
    pub names: Vec<String>,
    /// Degrees Celsius that a thermostat may be set to.
    pub range: Option<[f64; 2]>,
    /// Of a device that is not ours: its state is there, and commands go to `TOPIC/set`, as with Zigbee2MQTT. It does not
    /// say whether it has carried out a command.
    pub topic: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Light,
    Socket,
    Thermostat,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    pub id: String,
    #[serde(default)]
    pub names: Vec<String>,
    /// A value for each of its devices.
    pub set: BTreeMap<String, Value>,
}

/// As written in a scene.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Number(f64),
    Text(String),
}

impl Kind {
    /// English, as in the home file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Socket => "socket",
            Self::Thermostat => "thermostat",
        }
    }
}

impl Device {
    /// Lowest and highest degrees.
    pub fn range(&self) -> [f64; 2] {
        self.range.unwrap_or(RANGE)
    }

    /// What to call it in an answer.
    pub fn title(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| format!("{} {}", self.room, self.kind.name()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, HomeError> {
    let problem = |source| HomeError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(problem)?;
    if !meta.is_file() || meta.len() > LIMIT {
        let problem = format!("not a file of at most {LIMIT} bytes");
        return Err(HomeError::File { path: path.to_owned(), problem });
    }
    fs::read(path).map_err(problem)
}

impl Home {
    pub fn open(path: &Path) -> Result<Self, HomeError> {
        let bad = |problem: String| HomeError::File { path: path.to_owned(), problem };
        let text = String::from_utf8(read(path)?).map_err(|error| bad(error.to_string()))?;
        let mut home = Self::parse(&text).map_err(bad)?;
        if let Some(ca) = &home.broker.ca {
            home.broker.certificates = read(&path.parent().unwrap_or(Path::new("")).join(ca))?;
        }
        Ok(home)
    }

    /// What is wrong is said with the line, where a line is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let home: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        home.check()?;
        Ok(home)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != 1 {
            return Err(format!("version is {}, and 1 is known", self.version));
        }
        if self.devices.is_empty() {
            return Err("it has no [[device]]".into());
        }
        if self.devices.len() + self.scenes.len() > MOST {
            return Err(format!("more than {MOST} devices and scenes"));
        }
        if self.broker.host.is_empty() || self.broker.host.contains(char::is_whitespace) {
            return Err(format!("broker.host is {:?}, which is no host", self.broker.host));
        }
        let ids = self.devices.iter().map(|device| &device.id);
        let ids = ids.chain(self.scenes.iter().map(|scene| &scene.id));
        let mut seen = std::collections::HashSet::new();
        for id in ids.chain([&self.name]) {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if id.is_empty() || id.len() > 64 || !id.chars().all(fits) {
                return Err(format!(
                    "{id:?} is not a name of letters, digits, `-` and `_`: it becomes part of a topic"
                ));
            }
            if !seen.insert(id) {
                return Err(format!("{id:?} is there twice"));
            }
        }
        for device in &self.devices {
            device.check().map_err(|problem| format!("device {}: {problem}", device.id))?;
        }
        for scene in &self.scenes {
            self.changes(scene).map_err(|error| format!("scene {}: {error}", scene.id))?;
        }
        Ok(())
    }

    /// Place of the device with this id or name.
    pub fn device(&self, name: &str) -> Result<usize, HomeError> {
        let is = |device: &Device| {
            device.id == name || device.names.iter().any(|n| n.eq_ignore_ascii_case(name))
        };
        self.devices.iter().position(is).ok_or_else(|| self.unknown(name))
    }

    /// Place of the scene with this id or name.
    pub fn scene(&self, name: &str) -> Result<usize, HomeError> {
        let is = |scene: &Scene| {
            scene.id == name || scene.names.iter().any(|n| n.eq_ignore_ascii_case(name))
        };
        self.scenes.iter().position(is).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> HomeError {
        let ids = self.devices.iter().map(|device| device.id.as_str());
        let ids = ids.chain(self.scenes.iter().map(|scene| scene.id.as_str()));
        let known = ids.take(50).collect::<Vec<_>>().join(", ");
        HomeError::Unknown { name: name.chars().take(100).collect(), known }
    }

    /// Devices of a scene and what becomes of them.
    pub fn changes(&self, scene: &Scene) -> Result<Vec<(usize, Change)>, HomeError> {
        let one = |(id, value): (&String, &Value)| {
            let place = self.device(id)?;
            let change = match value {
                Value::Number(number) => Change::number(&self.devices[place], *number)?,
                Value::Text(text) => Change::parse(&self.devices[place], text)?,
            };
            Ok((place, change))
        };
        scene.set.iter().map(one).collect()
    }
}

impl Device {
    fn check(&self) -> Result<(), String> {
        if let Some([low, high]) = self.range {
            let [lowest, highest] = RANGE;
            if self.kind != Kind::Thermostat {
                return Err("only a thermostat has a range".into());
            }
            // NaN is in no range.
            if !(lowest <= low && low < high && high <= highest) {
                return Err(format!(
                    "its range {low} to {high} °C is not within {lowest} to {highest} °C"
                ));
            }
        }
        if let Some(topic) = &self.topic {
            let odd = |c: char| matches!(c, '+' | '#' | '\0') || c.is_control();
            if topic.is_empty() || topic.len() > 1000 || topic.contains(odd) {
                return Err(format!("{topic:?} is not a topic"));
            }
        }
        match self.room.trim().is_empty() || self.names.iter().any(|name| name.trim().is_empty()) {
            true => Err("its room or a name of it is empty".into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "version = 1\nname = 'flat'\nbroker = { host = 'localhost' }\n\
        [[device]]\nid = 'lamp'\nkind = 'light'\nroom = 'kitchen'\n\
        [[device]]\nid = 'heating'\nkind = 'thermostat'\nroom = 'kitchen'\nrange = [12, 24]\n";

    #[test]
    fn reads_a_home() {
        let scene = "[[scene]]\nid = 'evening'\nset = { lamp = '40 %', heating = 21 }\n";
        let home = Home::parse(&format!("{HOME}{scene}")).unwrap();
        let changes = home.changes(&home.scenes[0]).unwrap();
        assert_eq!(changes, [(1, Change::Temperature(21.0)), (0, Change::Brightness(40))]);
        assert_eq!(home.broker.port, 1883);
    }

    #[track_caller]
    fn refuses(text: &str, why: &str) {
        let problem = Home::parse(text).unwrap_err();
        assert!(problem.contains(why), "{problem}");
    }

    #[test]
    fn refuses_what_cannot_be() {
        refuses(&HOME.replace("[12, 24]", "[12, 60]"), "not within 5 to 35");
        refuses(&HOME.replace("[12, 24]", "[nan, 24]"), "not within 5 to 35");
        refuses(&HOME.replace("'heating'", "'lamp'"), "twice");
        refuses(&HOME.replace("'lamp'", "'a/b'"), "part of a topic");
        refuses(&HOME.replace("room", "rom"), "line 7");
        refuses(&format!("{HOME}[[scene]]\nid = 'x'\nset = {{ heating = 60 }}"), "60");
        refuses(&format!("{HOME}[[scene]]\nid = 'x'\nset = {{ door = 'on' }}"), "door");
    }
}
