//! An assistant: what somebody said to an action and an answer, in English and Chinese.
//!
//! What is spelled out is taken by rules: a sum, units, a length of time, a device of the home file. What is not, a model
//! names: it guesses the intent ([`Understand`], which the caller wires), and what the intent lacks is asked for, once.
//! What the assistant cannot do it says.

pub mod arithmetic;
pub mod mixer;
mod time;
pub mod timers;
pub mod units;
pub mod when;

use std::time::Duration;

use jiff::Timestamp;

use self::{
    arithmetic::{sum, told},
    time::{tell_date, tell_time},
    timers::{Timer, Timers},
    units::{Converted, convert},
};
use crate::{
    home::{
        HomeError,
        command::{Commander, Done},
        file::{Device, Home, Kind},
        grammar::{self, Said},
        order::{Change, State, Wish},
    },
    words::{has_any, joined, words},
};

/// Guesses below are no intents.
const SURE: f32 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    En,
    Zh,
}

impl Language {
    /// Chinese where there is a Chinese character.
    pub fn of(text: &str) -> Self {
        let chinese = text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        if chinese { Self::Zh } else { Self::En }
    }

    /// As speakers name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }
}

/// A model's guess at what a sentence is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    /// As the model's data set names it: `iot_hue_lighton`, `weather`.
    pub label: String,
    /// Probability.
    pub score: f32,
}

/// A text to an intent.
pub type Understand<'a> = &'a dyn Fn(&str, Language) -> Option<Guess>;

/// What the assistant says, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub text: String,
    pub language: Language,
    /// What it took the sentence for: `timer_set`, `home`, `nothing`, ..
    pub intent: &'static str,
    /// The model's guess, where it was asked.
    pub guess: Option<Guess>,
    /// Commands that devices carried out.
    pub done: Vec<Done>,
}

/// What was asked for.
enum Pending {
    /// The sentence that lacks a device or a value; the answer completes it.
    Home(String),
    Timer,
}

/// Holds a conversation.
pub struct Assistant<'a> {
    understand: Understand<'a>,
    home: Option<(&'a Home, Commander<'a>)>,
    pub timers: Timers,
    pending: Option<Pending>,
}

/// An answer in the making: intent and text.
type Answer = (&'static str, String);

impl<'a> Assistant<'a> {
    /// A command to a device of `home` may take as long as `patience`.
    pub fn new(
        understand: Understand<'a>,
        home: Option<&'a Home>,
        patience: Duration,
        timers: Timers,
    ) -> Self {
        let home = home.map(|home| (home, Commander::new(home, patience)));
        Self { understand, home, timers, pending: None }
    }

    /// Answers a sentence, and does what it asks for.
    pub fn turn(&mut self, text: &str) -> anyhow::Result<Reply> {
        let language = Language::of(text);
        let mut reply =
            Reply { text: String::new(), language, intent: "", guess: None, done: vec![] };
        let (intent, text) = self.answer(text, &mut reply)?;
        Ok(Reply { intent, text, ..reply })
    }

    /// What timers say that are due.
    pub fn ring(&mut self) -> anyhow::Result<Vec<String>> {
        let rung = self.timers.ring(Timestamp::now().as_millisecond())?;
        let say = |timer: Timer| match Language::of(&timer.what) {
            Language::En => format!("Time is up: {}", timer.what),
            Language::Zh => format!("时间到了：{}", timer.what),
        };
        Ok(rung.into_iter().map(say).collect())
    }

    fn answer(&mut self, text: &str, reply: &mut Reply) -> anyhow::Result<Answer> {
        let language = reply.language;
        let list = words(text);
        let whole = joined(&list);
        let pending = self.pending.take();
        const NO: &[&str] = &["cancel", "never mind", "nothing", "stop", "取 消", "算 了"];
        if pending.is_some() && has_any(&whole, NO) {
            return Ok(("cancelled", pick(language, "All right.", "好的。").into()));
        }
        if let Some(value) = sum(&list) {
            return Ok((
                "arithmetic",
                match value.is_finite() {
                    true => told(value),
                    false => pick(language, "That has no value.", "没有结果。").into(),
                },
            ));
        }
        if let Some(Converted { value, from, result, to }) = convert(&list) {
            let [from, to] = [from, to].map(|name| match language {
                Language::En => format!(" {name}"),
                Language::Zh => name.replace(' ', ""),
            });
            let is = pick(language, " is ", "是");
            return Ok(("convert", format!("{}{from}{is}{}{to}.", told(value), told(result))));
        }
        if let Some(answer) = self.about_time(text, &list, &whole, language)? {
            return Ok(answer);
        }
        match pending {
            Some(Pending::Timer) => {
                let en = "I still do not know how long, so I have set no timer.";
                let zh = "还是不知道多长时间，没有设定。";
                let answer = self.set_timer(text, &list, language)?;
                return Ok(answer.unwrap_or_else(|| ("timer_set", pick(language, en, zh).into())));
            }
            Some(Pending::Home(before)) => {
                // What is complete by itself is no answer to the question.
                let (answer, missing) = self.at_home(text, reply)?;
                if let (Some(answer), false) = (answer, missing) {
                    return Ok(answer);
                }
                let (answer, missing) = self.at_home(&format!("{before} {text}"), reply)?;
                self.pending = None;
                if let (Some(answer), false) = (answer, missing) {
                    return Ok(answer);
                }
                let en = "I still do not know which one, so I have done nothing.";
                return Ok(("home", pick(language, en, "还是不清楚，什么都没做。").into()));
            }
            None => {}
        }
        if let (Some(answer), _) = self.at_home(text, reply)? {
            return Ok(answer);
        }
        self.guessed(text, &list, &whole, reply)
    }

    /// Does what a sentence says of the home; `None` where it says nothing. The second is whether something was missing, and
    /// asked for.
    fn at_home(&mut self, text: &str, reply: &mut Reply) -> anyhow::Result<(Option<Answer>, bool)> {
        let language = reply.language;
        let Some((home, commander)) = &mut self.home else { return Ok((None, false)) };
        let said = |text: String| (Some(("home", text)), false);
        let titles = |devices: &[usize]| {
            let titles: Vec<String> = devices.iter().map(|i| title(home, *i, language)).collect();
            titles.join(pick(language, ", ", "、"))
        };
        let orders = match grammar::understand(home, text) {
            Err(error) => return Ok(said(sorry(&error, language))),
            Ok(Said::Nothing) => return Ok((None, false)),
            Ok(Said::Which(candidates)) => {
                self.pending = Some(Pending::Home(text.to_string()));
                let which = titles(&candidates);
                let question =
                    pick(language, format!("Which one: {which}?"), format!("哪一个：{which}？"));
                return Ok((Some(("home", question)), true));
            }
            Ok(Said::What(device)) => {
                let guess = (self.understand)(text, language).filter(|guess| guess.score >= SURE);
                let about = &home.devices[device];
                match guess.as_ref().and_then(|guess| guessed_wish(&guess.label, about)) {
                    Some(wish) => {
                        reply.guess = guess;
                        vec![(device, wish)]
                    }
                    None => {
                        self.pending = Some(Pending::Home(text.to_string()));
                        let what = titles(&[device]);
                        let question = pick(
                            language,
                            format!("What shall I do with {what}?"),
                            format!("{what}要怎么样？"),
                        );
                        return Ok((Some(("home", question)), true));
                    }
                }
            }
            Ok(Said::Ask(devices)) => {
                let states = match commander.states(&devices) {
                    Ok(states) => states,
                    Err(error) => return Ok(said(sorry(&error, language))),
                };
                let one = |(device, state): (&usize, &State)| {
                    format!("{} {}", title(home, *device, language), told_state(state, language))
                };
                let all: Vec<String> = devices.iter().zip(&states).map(one).collect();
                return Ok(said(all.join(pick(language, ", ", "，"))));
            }
            Ok(Said::Scene(scene)) => {
                let changes = home.changes(&home.scenes[scene])?.into_iter();
                changes.map(|(device, change)| (device, Wish::Become(change))).collect()
            }
            Ok(Said::Do(orders)) => orders,
        };
        let mut states = vec![];
        for (device, wish) in orders {
            match commander.carry_out(device, wish) {
                Ok(done) => {
                    let mut state = State::default();
                    state.apply(done.change);
                    let end = told_state(&state, language);
                    states.push(format!("{} {end}", title(home, device, language)));
                    reply.done.push(done);
                }
                Err(error) => return Ok(said(sorry(&error, language))),
            }
        }
        Ok(said(format!(
            "{}{}",
            states.join(pick(language, ", ", "，")),
            pick(language, ".", "。")
        )))
    }

    /// What no rule has taken: by the model's guess.
    fn guessed(
        &mut self,
        text: &str,
        list: &[String],
        whole: &str,
        reply: &mut Reply,
    ) -> anyhow::Result<Answer> {
        let language = reply.language;
        reply.guess = (self.understand)(text, language);
        let sure = reply.guess.as_ref().filter(|guess| guess.score >= SURE);
        let label = sure.map_or(String::new(), |guess| guess.label.clone());
        // For a device: the intent in plain words, to which the room of the sentence and an answer add the rest.
        let plain = match label.as_str() {
            "iot_hue_lighton" => "turn on the light",
            "iot_hue_lightoff" => "turn off the light",
            "iot_hue_lightdim" => "dim the light",
            "iot_hue_lightup" => "brighten the light",
            "iot_wemo_on" => "turn on the socket",
            "iot_wemo_off" => "turn off the socket",
            _ => "",
        };
        if !plain.is_empty() {
            let Some((home, _)) = &self.home else {
                return Ok(("home", "No home file is given: --home FILE.".into()));
            };
            let kind = if plain.ends_with("socket") { Kind::Socket } else { Kind::Light };
            let room = home.devices.iter().filter(|device| device.kind == kind);
            let room =
                room.map(|device| &device.room).find(|room| whole.contains(&joined(&words(room))));
            let order = format!("{plain} {}", room.map_or("", |room| room));
            if let (Some(answer), _) = self.at_home(&order, reply)? {
                return Ok(answer);
            }
        }
        match label.as_str() {
            "alarm_set" => {
                if let Some(answer) = self.set_timer(text, list, language)? {
                    return Ok(answer);
                }
                self.pending = Some(Pending::Timer);
                Ok(("timer_set", "For how long, or for when?".into()))
            }
            "alarm_query" => Ok(self.tell_timers(language)),
            "alarm_remove" => self.cancel_timers(language),
            "datetime_query" | "datetime_convert" => {
                let date = ["day", "date", "month", "year", "week"];
                Ok(match has_any(whole, &date) {
                    true => tell_date(whole, language),
                    false => tell_time(whole, language),
                })
            }
            "audio_volume_up" => Ok(("volume", mixer::turn(mixer::Turn::Up))),
            "audio_volume_down" => Ok(("volume", mixer::turn(mixer::Turn::Down))),
            "audio_volume_mute" => Ok(("volume", mixer::turn(mixer::Turn::Mute))),
            "general_commandstop" => Ok(("stop", "All right.".into())),
            "" => Ok(("nothing", pick(language, CAN, CAN_ZH).into())),
            other => {
                let en = format!("This is about {other}, which I cannot do. {CAN}");
                Ok(("nothing", pick(language, en, format!("这是{other}，我不会。{CAN_ZH}"))))
            }
        }
    }
}

const CAN: &str = "I can switch lights and sockets, set temperatures and scenes, set timers and alarms, \
    tell the time and the date, calculate and convert units.";
const CAN_ZH: &str =
    "我可以开关灯和插座，调温度和场景，设定时器和闹钟，报时间和日期，做计算和单位换算。";

/// What an intent of the data set HWU64 wants of a device.
fn guessed_wish(label: &str, device: &Device) -> Option<Wish> {
    match label {
        "iot_hue_lighton" | "iot_wemo_on" => Change::power(device, true).map(Wish::Become).ok(),
        "iot_hue_lightoff" | "iot_wemo_off" => Change::power(device, false).map(Wish::Become).ok(),
        "iot_hue_lightup" if device.kind == Kind::Light => Some(Wish::More),
        "iot_hue_lightdim" if device.kind == Kind::Light => Some(Wish::Less),
        _ => None,
    }
}

fn pick<T>(language: Language, en: T, zh: T) -> T {
    match language {
        Language::En => en,
        Language::Zh => zh,
    }
}

/// A name in the language, where the home file has one.
fn title(home: &Home, device: usize, language: Language) -> String {
    let device = &home.devices[device];
    let names = device.names.iter().find(|name| Language::of(name) == language);
    names.cloned().unwrap_or_else(|| device.title())
}

fn sorry(error: &HomeError, language: Language) -> String {
    pick(language, format!("I have not done that: {error}."), format!("没有做：{error}。"))
}

fn told_state(state: &State, language: Language) -> String {
    match (state.on, state.brightness, state.temperature) {
        (Some(true), Some(percent), _) => format!("{percent} %"),
        (Some(on), ..) => match (on, language) {
            (true, Language::En) => "on".into(),
            (false, Language::En) => "off".into(),
            (true, Language::Zh) => "开".into(),
            (false, Language::Zh) => "关".into(),
        },
        (_, _, Some(degrees)) => {
            pick(language, format!("{degrees} degrees"), format!("{degrees}度"))
        }
        _ => pick(language, "unknown", "不知道").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(text: &str, _: Language) -> Option<Guess> {
        let label = if text.contains("loud") { "audio_volume_down" } else { "weather_query" };
        Some(Guess { label: label.into(), score: 0.9 })
    }

    #[track_caller]
    fn check(turns: &[(&str, &str, &str)]) {
        let mut assistant =
            Assistant::new(&guess, None, Duration::from_secs(1), Timers::open(None).unwrap());
        for (said, intent, part) in turns {
            let reply = assistant.turn(said).unwrap();
            assert_eq!(reply.intent, *intent, "{said}: {}", reply.text);
            assert!(reply.text.contains(part), "{said}: {}", reply.text);
        }
    }

    #[test]
    fn answers() {
        check(&[
            ("What is twelve times three?", "arithmetic", "36"),
            ("十二乘以三等于多少", "arithmetic", "36"),
            ("convert five miles to kilometers", "convert", "8.04672 kilometers"),
            ("五英里是多少公里", "convert", "5英里是8.04672公里"),
            ("what time is it", "time", ":"),
            ("现在几点", "time", "现在"),
            ("what time is it in Atlantis", "time", "no time zone"),
            ("what's the date today", "date", "20"),
            ("今天星期几", "date", "星期"),
            ("will it rain", "nothing", "weather_query, which I cannot do"),
        ]);
    }

    /// A missing length is asked for, once.
    #[test]
    fn timers() {
        check(&[
            ("set a timer", "timer_set", "how long"),
            ("five minutes", "timer_set", "5 min"),
            ("set a timer", "timer_set", "how long"),
            ("blue", "timer_set", "no timer"),
            ("设一个计时器", "timer_set", "多长时间"),
            ("十分钟", "timer_set", "10分后"),
            ("how long is left on the timer", "timer_query", "left"),
            ("wake me up at 7:30", "timer_set", ":30"),
            ("cancel all timers", "timer_cancel", "3"),
            ("which timers are set", "timer_query", "Nothing"),
            ("set a timer for 0 seconds", "timer_set", "from a second"),
        ]);
    }
}
