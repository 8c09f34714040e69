//! An assistant: what somebody said to an action and an answer, in English and Chinese.
//!
//! What is spelled out is taken by rules: a sum, units, a length of time, a device of the home file. What is not, a model
//! names: it guesses the intent ([`Understand`], which the caller wires), and what the intent lacks is asked for, once.
//! What the assistant cannot do it says; of a sentence that asks for several things it does none.

pub mod arithmetic;
pub mod mixer;
mod time;
pub mod timers;
pub mod units;

use std::time::Duration;

use jiff::Timestamp;

use self::{
    arithmetic::{sum, told},
    mixer::Turn,
    time::{asks_date, asks_time, tell_date, tell_time, timer_named},
    timers::{Timer, Timers},
    units::{Converted, convert},
};
use crate::{
    home::{
        HomeError,
        command::{Commander, Done},
        file::{Device, Home, Kind},
        grammar::{self, CUTS, Said},
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
    /// The sentence that lacks a device, one of these, or a value; the answer completes it.
    Home(String, Vec<usize>),
    /// The sentence that lacks a time.
    Timer(String),
    /// Those that may be meant to be cancelled.
    Cancel(Vec<Timer>),
}

/// What orders to a home begin with.
const ORDERS: &[&str] = &["turn", "switch", "dim", "打 开", "关 掉", "关 上", "关 闭"];

/// What a part of a sentence is about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Topic {
    Timer,
    Clock,
    Sum,
    Volume,
    Home,
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
        // `cancel the alarm` may answer which one to cancel.
        let answers = matches!(pending, Some(Pending::Cancel(_))) && timer_named(&whole).is_some();
        if pending.is_some() && has_any(&whole, NO) && !answers {
            return Ok(("cancelled", pick(language, "All right.", "好的。").into()));
        }
        if self.several(&list) {
            let en = "That is more than one thing, and I have done none: say one after the other.";
            let zh = "这不止一件事，什么都没做：请一件一件地说。";
            return Ok(("several", pick(language, en, zh).into()));
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
        if let Some(Pending::Cancel(among)) = &pending
            && let Some(answer) = self.cancel_answer(among, &list, &whole, language)?
        {
            return Ok(answer);
        }
        if let Some(answer) = self.about_time(text, &list, &whole, language)? {
            return Ok(answer);
        }
        if let Some(turn) = volume(&whole) {
            return Ok(("volume", mixer::turn(turn, language)));
        }
        match pending {
            Some(Pending::Timer(before)) => {
                let text = &format!("{before}, {text}");
                let en = "I still do not know how long, so I have set no timer.";
                let zh = "还是不知道多长时间，没有设定。";
                let answer = self.set_timer(text, &words(text), language)?;
                return Ok(answer.unwrap_or_else(|| ("timer_set", pick(language, en, zh).into())));
            }
            Some(Pending::Home(before, candidates)) => {
                // What is complete by itself is no answer to the question.
                let (answer, missing) = self.at_home(text, &[], reply)?;
                if let (Some(answer), false) = (answer, missing) {
                    return Ok(answer);
                }
                let chosen = match &self.home {
                    Some((home, _)) => grammar::choose(home, &candidates, text),
                    None => vec![],
                };
                let (answer, missing) = match chosen.is_empty() {
                    true => self.at_home(&format!("{before} {text}"), &[], reply)?,
                    false => self.at_home(&before, &chosen, reply)?,
                };
                self.pending = None;
                if let (Some(answer), false) = (answer, missing) {
                    return Ok(answer);
                }
                let en = "I still do not know which one, so I have done nothing.";
                return Ok(("home", pick(language, en, "还是不清楚，什么都没做。").into()));
            }
            Some(Pending::Cancel(_)) | None => {}
        }
        if let (Some(answer), _) = self.at_home(text, &[], reply)? {
            return Ok(answer);
        }
        self.guessed(text, &list, &whole, reply)
    }

    /// Whether a sentence asks for things that no rule takes together: `turn off the fan and set a timer for two minutes`.
    fn several(&self, list: &[String]) -> bool {
        let (mut topics, mut reminds) = (vec![], false);
        for clause in list.split(|word| CUTS.contains(&word.as_str())) {
            let topic = self.topic(clause);
            // What to remind of is no order.
            topics.extend(topic.filter(|topic| !reminds || *topic == Topic::Timer));
            reminds |= has_any(&joined(clause), &["remind me", "提 醒 我"]);
        }
        topics.len() > 1 && topics.iter().any(|topic| *topic != Topic::Home)
    }

    fn topic(&self, clause: &[String]) -> Option<Topic> {
        let whole = joined(clause);
        if timer_named(&whole).is_some() {
            return Some(Topic::Timer);
        }
        if asks_time(&whole) || asks_date(&whole) {
            return Some(Topic::Clock);
        }
        if sum(clause).is_some() || convert(clause).is_some() {
            return Some(Topic::Sum);
        }
        if volume(&whole).is_some() {
            return Some(Topic::Volume);
        }
        let understood = self.home.as_ref().is_some_and(|(home, _)| {
            let said = grammar::understand(home, &clause.join(" "), &[]);
            !matches!(said, Ok(Said::Nothing | Said::What(_)))
        });
        // For what is not at home, or a home that is not there, an order is still one.
        (understood || has_any(&whole, ORDERS)).then_some(Topic::Home)
    }

    /// Does what a sentence says of the home; `None` where it says nothing. The second is whether something was missing, and
    /// asked for; `chosen` of an answer to that.
    fn at_home(
        &mut self,
        text: &str,
        chosen: &[usize],
        reply: &mut Reply,
    ) -> anyhow::Result<(Option<Answer>, bool)> {
        let language = reply.language;
        let Some((home, commander)) = &mut self.home else { return Ok((None, false)) };
        let said = |text: String| (Some(("home", text)), false);
        let titles = |devices: &[usize]| {
            let titles: Vec<String> = devices.iter().map(|i| title(home, *i, language)).collect();
            titles.join(pick(language, ", ", "、"))
        };
        let mut unknown = None;
        let orders = match grammar::understand(home, text, chosen) {
            Err(error) => return Ok(said(sorry(&error, language))),
            Ok(Said::Nothing) => return Ok((None, false)),
            Ok(Said::Which(candidates)) => {
                self.pending = Some(Pending::Home(text.to_string(), candidates.clone()));
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
                        self.pending = Some(Pending::Home(text.to_string(), vec![]));
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
            Ok(Said::Part(orders, rest)) => {
                unknown = Some(rest);
                orders
            }
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
        let rest = unknown.map_or(String::new(), |rest| {
            pick(language, format!(" I have not understood: {rest}."), format!("没听懂：{rest}。"))
        });
        Ok(said(format!(
            "{}{}{rest}",
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
            if let Some(problem) = grammar::hindrance(home, text) {
                return Ok(("home", sorry(&problem, language)));
            }
            let kind = if plain.ends_with("socket") { Kind::Socket } else { Kind::Light };
            let room = home.devices.iter().filter(|device| device.kind == kind);
            let room =
                room.map(|device| &device.room).find(|room| whole.contains(&joined(&words(room))));
            let order = format!("{plain} {}", room.map_or("", |room| room));
            if let (Some(answer), _) = self.at_home(&order, &[], reply)? {
                return Ok(answer);
            }
        }
        match label.as_str() {
            "alarm_set" => {
                if let Some(answer) = self.set_timer(text, list, language)? {
                    return Ok(answer);
                }
                self.pending = Some(Pending::Timer(text.to_string()));
                Ok(("timer_set", "For how long, or for when?".into()))
            }
            "alarm_query" => Ok(self.tell_timers(language)),
            "alarm_remove" => self.cancel_timers(list, language),
            "datetime_query" | "datetime_convert" => {
                let date = ["day", "date", "month", "year", "week"];
                Ok(match has_any(whole, &date) {
                    true => tell_date(whole, language),
                    false => tell_time(whole, language),
                })
            }
            "audio_volume_up" => Ok(("volume", mixer::turn(Turn::Up, language))),
            "audio_volume_down" => Ok(("volume", mixer::turn(Turn::Down, language))),
            "audio_volume_mute" => Ok(("volume", mixer::turn(Turn::Mute, language))),
            "general_commandstop" => Ok(("stop", "All right.".into())),
            "" => Ok(("nothing", self.can(language))),
            other => {
                let can = self.can(language);
                let en = format!("This is about {other}, which I cannot do. {can}");
                Ok(("nothing", pick(language, en, format!("这是{other}，我不会。{can}"))))
            }
        }
    }

    /// What it offers: the home where there is one.
    fn can(&self, language: Language) -> String {
        let en =
            "I can set timers and alarms, tell the time and the date, calculate and convert units";
        let zh = "我可以设定时器和闹钟，报时间和日期，做计算和单位换算";
        let home = "switch lights and sockets, and set temperatures and scenes";
        let home_zh = "开关灯和插座，调温度和场景";
        match (&self.home, language) {
            (Some(_), Language::En) => format!("{en}, {home}."),
            (Some(_), Language::Zh) => format!("{zh}，{home_zh}。"),
            (None, Language::En) => format!("{en}; with --home FILE also {home}."),
            (None, Language::Zh) => format!("{zh}；有了 --home FILE，还可以{home_zh}。"),
        }
    }
}

/// What becomes of the volume, where the words say so.
fn volume(whole: &str) -> Option<Turn> {
    if !has_any(whole, &["volume", "音 量", "声 音", "静 音"]) {
        return None;
    }
    let table: [(Turn, &[&str]); 3] = [
        (Turn::Mute, &["mute", "静 音"]),
        (Turn::Up, &["up", "raise", "increase", "louder", "大", "高", "响"]),
        (Turn::Down, &["down", "lower", "reduce", "decrease", "quieter", "小", "低", "轻"]),
    ];
    table.iter().find(|(_, phrases)| has_any(whole, phrases)).map(|(turn, _)| *turn)
}

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
        let label = if text.contains("cosy") { "iot_hue_lighton" } else { "weather_query" };
        Some(Guess { label: label.into(), score: 0.9 })
    }

    #[track_caller]
    fn check(turns: &[(&str, &str, &str)]) {
        check_in(None, turns);
    }

    #[track_caller]
    fn check_in(home: Option<&Home>, turns: &[(&str, &str, &str)]) {
        let patience = Duration::from_millis(100);
        let mut assistant = Assistant::new(&guess, home, patience, Timers::open(None).unwrap());
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
            ("纽约现在几点", "time", "纽约现在"),
            ("东京时间几点", "time", "东京现在"),
            ("亚特兰蒂斯现在几点", "time", "不知道"),
            ("will it rain", "nothing", "weather_query, which I cannot do"),
            ("turn on the light", "nothing", "with --home FILE"),
            ("turn off the fan and set a timer for two minutes", "several", "one after"),
            ("打开灯", "nothing", "--home FILE"),
        ]);
    }

    /// Nobody listens at port 1: what would be done is told as not done.
    #[test]
    fn at_home() {
        let home = Home::parse(
            r#"
            version = 1
            name = "flat"
            broker = { host = "127.0.0.1", port = 1 }
            device = [
                { id = "kitchen-light", kind = "light", room = "kitchen", names = ["kitchen light", "厨房灯"] },
                { id = "desk", kind = "light", room = "study" },
                { id = "fan", kind = "socket", room = "study" },
            ]
            "#,
        )
        .unwrap();
        let dead = "127.0.0.1:1";
        check_in(
            Some(&home),
            &[
                ("打开灯", "home", "哪一个：厨房灯、study light？"),
                ("厨房", "home", dead),
                ("打开灯", "home", "哪一个"),
                ("客厅", "home", "还是不清楚"),
                ("turn on the light", "home", "Which one"),
                ("the study please", "home", dead),
                ("if it is dark turn on the kitchen light", "home", "`if`"),
                ("turn the kitchen light off at nine pm", "home", "a time"),
                ("make it cosy when it is dark", "home", "`when`"),
                ("make it cosy in ten minutes", "home", "a time"),
                ("turn off the fan and set a timer for two minutes", "several", "one after"),
                ("what time is it and turn on the fan", "several", "one after"),
                ("十分钟后提醒我关掉风扇", "timer_set", "10分后"),
                ("cancel all reminders", "timer_cancel", "Cancelled 1"),
                ("which timers are set", "timer_query", "Nothing"),
                (
                    "remind me in an hour to open the window and turn off the fan",
                    "timer_set",
                    "1 h",
                ),
                ("what is the weather", "nothing", "switch lights"),
            ],
        );
    }

    #[test]
    fn the_volume() {
        for (text, expected) in [
            ("把音量调大", Some(Turn::Up)),
            ("声音小一点", Some(Turn::Down)),
            ("静音", Some(Turn::Mute)),
            ("turn down the volume", Some(Turn::Down)),
            ("turn on the light", None),
            ("what is the volume", None),
        ] {
            assert_eq!(volume(&joined(&words(text))), expected, "{text}");
        }
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
            ("cancel all timers", "timer_cancel", "Cancelled 2"),
            ("which timers are set", "timer_query", "wake me up at 7:30"),
            ("set a timer for 0 seconds", "timer_set", "from a second"),
            ("set an alarm for tomorrow", "timer_set", "or for when"),
            ("at seven", "timer_set", "07:00 tomorrow"),
        ]);
    }

    /// Only the one that is meant is cancelled.
    #[test]
    fn cancelling() {
        check(&[
            ("cancel the timer", "timer_cancel", "Nothing is set"),
            ("set a timer for five minutes", "timer_set", "5 min"),
            ("set an alarm for 7 am", "timer_set", "07:00"),
            ("remind me to stop the oven in ten minutes", "timer_set", "10 min"),
            ("cancel the timer", "timer_cancel", "Cancelled 1: set a timer for five minutes."),
            ("取消定时器", "timer_cancel", "哪一个，还是全部："),
            ("算了", "cancelled", "好的"),
            ("set a timer for one hour", "timer_set", "1 h"),
            ("set a timer for two hours", "timer_set", "2 h"),
            ("cancel the timer", "timer_cancel", "Which one, or all: set a timer for one hour;"),
            ("the two hour one", "timer_cancel", "Cancelled 1: set a timer for two hours."),
            ("set a timer for two hours", "timer_set", "2 h"),
            ("cancel the timer", "timer_cancel", "Which one"),
            ("blue", "timer_cancel", "cancelled none"),
            ("cancel the timer", "timer_cancel", "Which one"),
            ("what time is it", "time", "It is"),
            ("取消全部提醒", "timer_cancel", "取消了1个"),
            ("which alarms are set", "timer_query", "set an alarm for 7 am"),
        ]);
    }
}
