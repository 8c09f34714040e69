//! What can be asked of a device, and what is refused.

use serde_json::{Value, json};

use super::{
    HomeError,
    file::{Device, Kind},
};

/// Degrees Celsius beyond which no thermostat is set, whatever its home file says: pipes freeze, people suffer.
pub const RANGE: [f64; 2] = [5.0, 35.0];
/// Percent points that a light becomes brighter or darker by.
const BRIGHTER: u8 = 20;
/// Degrees that a room becomes warmer or colder by.
const WARMER: f64 = 1.0;

/// What becomes of a device. Every change says how the device shall be, not what to add: twice is as once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    Power(bool),
    /// Percent, 1 to 100.
    Brightness(u8),
    /// Degrees Celsius.
    Temperature(f64),
}

/// What somebody wants of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wish {
    Become(Change),
    /// Brighter or warmer than it is.
    More,
    /// Darker or colder.
    Less,
}

/// How a device is; `None` where nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct State {
    pub on: Option<bool>,
    /// Percent.
    pub brightness: Option<u8>,
    /// Degrees Celsius that it shall become.
    pub temperature: Option<f64>,
}

/// Percent of Home Assistant's 0 to 255.
fn percent(brightness: f64) -> u8 {
    (brightness / 2.55).round().clamp(0.0, 100.0) as u8
}

impl Change {
    /// `on`, `off`, `40 %`, `21.5`
    pub fn parse(device: &Device, text: &str) -> Result<Self, HomeError> {
        let text = text.trim();
        match text.to_lowercase().as_str() {
            "on" => return Self::power(device, true),
            "off" => return Self::power(device, false),
            _ => {}
        }
        let number = text.trim_end_matches(['%', 'C', '°', ' ']);
        match number.parse() {
            Ok(number) => Self::number(device, number),
            Err(_) => {
                let shown: String = text.chars().take(50).collect();
                Err(refused(device, format!("{shown:?} is not on, off or a number")))
            }
        }
    }

    pub fn power(device: &Device, on: bool) -> Result<Self, HomeError> {
        match device.kind {
            Kind::Light | Kind::Socket => Ok(Self::Power(on)),
            Kind::Thermostat => {
                Err(refused(device, "is set to a temperature, not on or off".into()))
            }
        }
    }

    /// Percent for a light, degrees for a thermostat.
    pub fn number(device: &Device, number: f64) -> Result<Self, HomeError> {
        match device.kind {
            Kind::Light if (0.0..=100.0).contains(&number) => match number.round() as u8 {
                0 => Ok(Self::Power(false)),
                percent => Ok(Self::Brightness(percent)),
            },
            Kind::Light => {
                Err(refused(device, format!("{number} % is not a brightness of 0 to 100 %")))
            }
            Kind::Thermostat => {
                let [low, high] = device.range();
                match (low..=high).contains(&number) {
                    true => Ok(Self::Temperature((number * 10.0).round() / 10.0)),
                    false => {
                        let problem = format!("{number} °C is not within its {low} to {high} °C");
                        Err(refused(device, problem))
                    }
                }
            }
            Kind::Socket => Err(refused(device, "is on or off, and nothing between".into())),
        }
    }

    /// What goes to the device, in the names of Home Assistant's JSON lights and of Zigbee2MQTT.
    pub fn json(self) -> Value {
        match self {
            Self::Power(on) => json!({"state": power_name(on)}),
            Self::Brightness(percent) => {
                json!({"state": "ON", "brightness": (f64::from(percent) * 2.55).round() as u8})
            }
            Self::Temperature(degrees) => json!({"temperature": degrees}),
        }
    }

    /// The change that a device was sent; checked as if it came from here.
    pub fn from_json(device: &Device, json: &Value) -> Result<Self, HomeError> {
        let number = |key: &str| json.get(key).and_then(Value::as_f64);
        let on = match json.get("state").and_then(Value::as_str) {
            Some("ON") => Some(true),
            Some("OFF") => Some(false),
            Some(other) => {
                return Err(refused(device, format!("state {other:?} is not ON or OFF")));
            }
            None => None,
        };
        match (on, number("brightness"), number("temperature")) {
            (None | Some(true), Some(brightness), None) if (0.0..=255.0).contains(&brightness) => {
                // What is not dark is at least at one percent.
                let least = if brightness > 0.0 { 1 } else { 0 };
                Self::number(device, f64::from(percent(brightness).max(least)))
            }
            (None, None, Some(degrees)) => Self::number(device, degrees),
            (Some(on), None, None) | (Some(on @ false), Some(_), None) => Self::power(device, on),
            _ => Err(refused(device, "no `state`, `brightness` or `temperature` for it".into())),
        }
    }
}

impl Wish {
    /// What it comes to for a device in `state`.
    pub fn change(self, device: &Device, state: &State) -> Result<Change, HomeError> {
        let up = match self {
            Self::Become(change) => return Ok(change),
            Self::More => true,
            Self::Less => false,
        };
        let unknown = || refused(device, "its state is not known: say a number".into());
        match device.kind {
            Kind::Light => {
                let now = match (state.on.ok_or_else(unknown)?, state.brightness) {
                    (false, _) => 0,
                    (true, brightness) => brightness.unwrap_or(100),
                };
                let then =
                    if up { now.saturating_add(BRIGHTER) } else { now.saturating_sub(BRIGHTER) };
                Change::number(device, f64::from(then.min(100)))
            }
            Kind::Thermostat => {
                let now = state.temperature.ok_or_else(unknown)?;
                Change::number(device, if up { now + WARMER } else { now - WARMER })
            }
            Kind::Socket => Err(refused(device, "is on or off, and nothing between".into())),
        }
    }
}

impl State {
    /// That of a device when it is switched on for the first time.
    pub fn new(device: &Device) -> Self {
        let [low, high] = device.range();
        match device.kind {
            Kind::Light => Self { on: Some(false), brightness: Some(100), temperature: None },
            Kind::Socket => Self { on: Some(false), ..Self::default() },
            Kind::Thermostat => {
                Self { temperature: Some(20f64.clamp(low, high)), ..Self::default() }
            }
        }
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Power(on) => self.on = Some(on),
            Change::Brightness(percent) => {
                (self.on, self.brightness) = (Some(true), Some(percent));
            }
            Change::Temperature(degrees) => self.temperature = Some(degrees),
        }
    }

    pub fn json(&self) -> Value {
        let mut json = json!({});
        if let Some(on) = self.on {
            json["state"] = power_name(on).into();
        }
        if let Some(percent) = self.brightness {
            json["brightness"] = json!((f64::from(percent) * 2.55).round() as u8);
        }
        if let Some(degrees) = self.temperature {
            json["temperature"] = degrees.into();
        }
        json
    }

    pub fn from_json(json: &Value) -> Self {
        let on = match json["state"].as_str() {
            Some("ON") => Some(true),
            Some("OFF") => Some(false),
            _ => None,
        };
        let brightness = json["brightness"].as_f64().map(percent);
        Self { on, brightness, temperature: json["temperature"].as_f64() }
    }
}

fn power_name(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

/// The device could not do it, or should not.
pub fn refused(device: &Device, problem: String) -> HomeError {
    HomeError::Refused { device: device.id.clone(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Kind) -> Device {
        let range = (kind == Kind::Thermostat).then_some([10.0, 25.0]);
        Device { id: "it".into(), kind, room: "hall".into(), names: vec![], range, topic: None }
    }

    #[track_caller]
    fn check(kind: Kind, text: &str, expected: Option<Change>) {
        assert_eq!(Change::parse(&device(kind), text).ok(), expected, "{text}");
    }

    #[test]
    fn values() {
        check(Kind::Light, " On ", Some(Change::Power(true)));
        check(Kind::Light, "40 %", Some(Change::Brightness(40)));
        check(Kind::Light, "0", Some(Change::Power(false)));
        check(Kind::Thermostat, "21.54", Some(Change::Temperature(21.5)));
        check(Kind::Thermostat, "21 °C", Some(Change::Temperature(21.0)));
        for unsafe_ in ["60", "NaN", "inf", "-1", "on", "", "1e400"] {
            check(Kind::Thermostat, unsafe_, None);
        }
        check(Kind::Light, "101", None);
        check(Kind::Light, "-0.1", None);
        check(Kind::Socket, "50", None);
    }

    /// What is sent is what arrives, and becomes the state.
    #[test]
    fn changes_travel() {
        for (kind, change) in [
            (Kind::Light, Change::Power(true)),
            (Kind::Light, Change::Brightness(1)),
            (Kind::Light, Change::Brightness(73)),
            (Kind::Socket, Change::Power(false)),
            (Kind::Thermostat, Change::Temperature(18.5)),
        ] {
            let device = device(kind);
            assert_eq!(Change::from_json(&device, &change.json()).unwrap(), change);
            let mut state = State::new(&device);
            state.apply(change);
            assert_eq!(State::from_json(&state.json()), state);
        }
        let heater = device(Kind::Thermostat);
        for bad in [json!({"temperature": 60}), json!({"state": "ON"}), json!([]), json!("ON")] {
            assert!(Change::from_json(&heater, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn more_and_less() {
        let lamp = device(Kind::Light);
        let at = |percent| State { on: Some(true), brightness: Some(percent), temperature: None };
        let less = Wish::Less.change(&lamp, &at(30)).unwrap();
        assert_eq!(less, Change::Brightness(10));
        assert_eq!(Wish::Less.change(&lamp, &at(20)).unwrap(), Change::Power(false));
        assert_eq!(Wish::More.change(&lamp, &at(90)).unwrap(), Change::Brightness(100));
        assert!(Wish::More.change(&lamp, &State::default()).is_err());
        let heater = device(Kind::Thermostat);
        let warm = State { temperature: Some(24.5), ..State::default() };
        assert!(Wish::More.change(&heater, &warm).is_err(), "25.5 is above 25");
    }
}
