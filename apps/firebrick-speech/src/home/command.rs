//! Commands to devices: sent, repeated, and waited for until they are carried out.

use std::{
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use super::{
    HomeError, discovery,
    file::Home,
    link::{Link, Message},
    order::{Change, State, Wish},
};

/// After so long without an answer a command is repeated.
const AGAIN: Duration = Duration::from_secs(1);
/// What a broker keeps comes at once; so long is waited for it.
const KEPT: Duration = Duration::from_millis(500);

/// A command that went out.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Place of the device.
    pub device: usize,
    pub change: Change,
    pub id: String,
    /// Until the broker had it.
    pub acknowledged: Duration,
    /// Until the device said that it has done it; `None` of one that never says.
    pub applied: Option<Duration>,
}

/// Sends commands to the devices of a home.
pub struct Commander<'a> {
    home: &'a Home,
    link: Link,
    /// How long a command may take.
    patience: Duration,
    /// First part of the commands' ids, which no other process has.
    session: String,
    count: u64,
}

impl<'a> Commander<'a> {
    pub fn new(home: &'a Home, patience: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let session = format!("{:x}-{:x}", now.as_nanos(), process::id());
        let link = Link::new(&home.broker, &format!("firebrick-{session}"), None);
        Self { home, link, patience, session, count: 0 }
    }

    /// What the devices said last, by their places; as far as the broker keeps it.
    pub fn states(&mut self, devices: &[usize]) -> Result<Vec<State>, HomeError> {
        let topics: Vec<String> =
            devices.iter().map(|device| self.home.topic(&self.home.devices[*device])).collect();
        self.link.forget();
        topics.iter().for_each(|topic| self.link.subscribe(topic.clone()));
        self.link.connect(Instant::now() + self.patience)?;
        let mut states: Vec<Option<State>> = vec![None; devices.len()];
        self.link.wait_for(Instant::now() + KEPT, |message| {
            let place = topics.iter().position(|topic| *topic == message.topic)?;
            let json: Value = serde_json::from_slice(&message.payload).ok()?;
            states[place] = Some(State::from_json(&json));
            states.iter().all(Option::is_some).then_some(())
        })?;
        Ok(states.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Makes it so; a wish for more or less looks first how the device is.
    pub fn carry_out(&mut self, device: usize, wish: Wish) -> Result<Done, HomeError> {
        let change = match wish {
            Wish::Become(change) => change,
            Wish::More | Wish::Less => {
                let mut state = State::default();
                if let Some(found) = self.states(&[device])?.pop() {
                    state = found;
                }
                wish.change(&self.home.devices[device], &state)?
            }
        };
        self.send(device, change)
    }

    /// Sends a command again and again until the device has said that it did it.
    pub fn send(&mut self, device: usize, change: Change) -> Result<Done, HomeError> {
        let about = &self.home.devices[device];
        let start = Instant::now();
        let until = start + self.patience;
        self.count += 1;
        let id = format!("{}-{:x}", self.session, self.count);
        let topic = self.home.topic(about);
        let confirms = about.topic.is_none();
        let mut payload = change.json();
        let applied = format!("{topic}/applied");
        let availability = self.home.availability();
        if confirms {
            payload["id"] = id.clone().into();
            self.link.subscribe(applied.clone());
            self.link.subscribe(availability.clone());
        }
        let payload = payload.to_string();
        let (mut acknowledged, mut there) = (None, None);
        loop {
            let sent = self.link.publish(&format!("{topic}/set"), &payload, false, until);
            // One that the broker had before is told as not carried out, below.
            if acknowledged.is_none() {
                sent?;
            }
            let acknowledged = *acknowledged.get_or_insert_with(|| start.elapsed());
            if !confirms {
                return Ok(Done { device, change, id, acknowledged, applied: None });
            }
            let answer = |message: Message| {
                if message.topic == availability {
                    there = Some(message.payload == discovery::ONLINE.as_bytes());
                }
                let json: Value = (message.topic == applied)
                    .then(|| serde_json::from_slice(&message.payload).ok())
                    .flatten()?;
                (json["id"] == *id).then_some(json)
            };
            let answer = self.link.wait_for((Instant::now() + AGAIN).min(until), answer)?;
            match answer.as_ref().map(|answer| answer["error"].as_str()) {
                Some(None) => {
                    let applied = Some(start.elapsed());
                    return Ok(Done { device, change, id, acknowledged, applied });
                }
                Some(Some(problem)) => {
                    let problem = problem.chars().take(300).collect();
                    return Err(HomeError::Refused { device: about.id.clone(), problem });
                }
                None if Instant::now() >= until => {
                    return Err(HomeError::NotApplied {
                        device: about.id.clone(),
                        seconds: self.patience.as_secs_f64(),
                        problem: match there {
                            Some(true) => "it is online, but does not answer",
                            Some(false) => "it is offline",
                            None => "it has never announced itself",
                        },
                    });
                }
                None => {}
            }
        }
    }

    pub fn leave(self) {
        self.link.leave();
    }
}
