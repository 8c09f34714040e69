//! Simulated devices: they announce themselves, take commands and keep a state, as real ones would, and move nothing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    HomeError, discovery,
    file::Home,
    link::{Link, Message},
    order::{Change, State},
};

/// Ids that a device remembers. A command comes again within seconds, if at all.
const REMEMBERED: usize = 1000;
/// From one look at whether to stop to the next.
const TICK: Duration = Duration::from_millis(100);
/// How long a broker may be away before the devices give up.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What happened to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// All are announced; also after each loss of the connection.
    Online,
    /// A command was carried out.
    Applied {
        device: usize,
        state: State,
        id: Option<String>,
    },
    /// One that came before.
    Repeated {
        device: usize,
        id: String,
    },
    Refused {
        device: usize,
        problem: String,
    },
}

/// The devices of a home that are ours, in one process.
struct Devices<'a> {
    home: &'a Home,
    states: Vec<State>,
    seen: VecDeque<String>,
}

/// Lives until `stop` says so. `told` hears of everything.
pub fn run(
    home: &Home,
    stop: &dyn Fn() -> bool,
    told: &mut dyn FnMut(&Event),
) -> Result<(), HomeError> {
    let will = (home.availability(), discovery::OFFLINE);
    let mut link = Link::new(&home.broker, &format!("firebrick-{}-devices", home.name), Some(will));
    let ours = home.devices.iter().filter(|device| device.topic.is_none());
    for device in ours {
        link.subscribe(format!("{}/set", home.topic(device)));
    }
    home.scenes.iter().for_each(|scene| link.subscribe(home.scene_topic(scene)));
    link.subscribe(discovery::BIRTH.into());
    let states = home.devices.iter().map(State::new).collect();
    let mut devices = Devices { home, states, seen: VecDeque::new() };
    let mut announced = 0;
    while !stop() {
        if link.connections() != announced {
            announced = link.connections();
            devices.announce(&mut link)?;
            told(&Event::Online);
        }
        let Some(message) = link.next(Instant::now() + TICK)? else { continue };
        if message.topic == discovery::BIRTH {
            announced = 0;
            continue;
        }
        devices.take(&message, &mut link, told)?;
    }
    if link.connections() > 0 {
        let until = Instant::now() + Duration::from_secs(1);
        // The broker says it, too, when it misses them.
        let _ = link.publish(&home.availability(), discovery::OFFLINE, true, until);
    }
    link.leave();
    Ok(())
}

impl Devices<'_> {
    fn announce(&self, link: &mut Link) -> Result<(), HomeError> {
        let until = Instant::now() + PATIENCE;
        for (topic, config) in discovery::announcements(self.home) {
            link.publish(&topic, &config, true, until)?;
        }
        for (place, device) in self.home.devices.iter().enumerate() {
            if device.topic.is_none() {
                self.publish_state(place, link)?;
            }
        }
        link.publish(&self.home.availability(), discovery::ONLINE, true, until)
    }

    fn publish_state(&self, device: usize, link: &mut Link) -> Result<(), HomeError> {
        let topic = self.home.topic(&self.home.devices[device]);
        let state = self.states[device].json().to_string();
        link.publish(&topic, &state, true, Instant::now() + PATIENCE)
    }

    fn take(
        &mut self,
        message: &Message,
        link: &mut Link,
        told: &mut dyn FnMut(&Event),
    ) -> Result<(), HomeError> {
        let home = self.home;
        let scene = home.scenes.iter().find(|scene| home.scene_topic(scene) == message.topic);
        if let Some(scene) = scene {
            for (device, change) in home.changes(scene)? {
                if home.devices[device].topic.is_none() {
                    self.apply(device, change, None, link, told)?;
                }
            }
            return Ok(());
        }
        let is = |device: &super::file::Device| {
            message.topic.strip_suffix("/set") == Some(home.topic(device).as_str())
        };
        let Some(device) = home.devices.iter().position(is) else { return Ok(()) };
        let json: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let id = json["id"].as_str().filter(|id| id.len() <= 200).map(str::to_string);
        if let Some(id) = id.as_ref().filter(|id| self.seen.contains(id)) {
            told(&Event::Repeated { device, id: id.clone() });
            return self.answer(device, json!({"id": id}), link);
        }
        match Change::from_json(&home.devices[device], &json) {
            Ok(change) => self.apply(device, change, id, link, told),
            Err(error) => {
                let problem = error.to_string();
                told(&Event::Refused { device, problem: problem.clone() });
                match id {
                    Some(id) => self.answer(device, json!({"id": id, "error": problem}), link),
                    None => Ok(()),
                }
            }
        }
    }

    fn apply(
        &mut self,
        device: usize,
        change: Change,
        id: Option<String>,
        link: &mut Link,
        told: &mut dyn FnMut(&Event),
    ) -> Result<(), HomeError> {
        self.states[device].apply(change);
        if let Some(id) = &id {
            if self.seen.len() == REMEMBERED {
                self.seen.pop_front();
            }
            self.seen.push_back(id.clone());
        }
        told(&Event::Applied { device, state: self.states[device], id: id.clone() });
        self.publish_state(device, link)?;
        match id {
            Some(id) => self.answer(device, json!({"id": id}), link),
            None => Ok(()),
        }
    }

    fn answer(&self, device: usize, answer: Value, link: &mut Link) -> Result<(), HomeError> {
        let topic = format!("{}/applied", self.home.topic(&self.home.devices[device]));
        link.publish(&topic, &answer.to_string(), false, Instant::now() + PATIENCE)
    }
}
