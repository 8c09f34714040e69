//! `firebrick speech home`.

use std::{
    io::BufRead,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Context;
use firebrick_speech::home::{
    HomeError,
    command::{Commander, Done},
    file::Home,
    grammar::{Said, understand},
    order::{Change, State, Wish},
    simulated::{self, Event},
};
use serde_json::{Value, json};

use super::{
    super::{Outcome, print, train},
    ears::{Ears, Heard},
};
use crate::{
    cli::{
        Global,
        speech::{HomeArgs, HomeCommand},
    },
    failure::{Failure, USAGE},
};

pub fn run(args: HomeArgs, global: &Global) -> Outcome {
    global.online("a home over MQTT")?;
    let home = Home::open(&args.home)?;
    let mut commander = Commander::new(&home, Duration::from_secs_f64(args.patience));
    match args.command {
        HomeCommand::Devices => devices(&home, &mut commander, global)?,
        HomeCommand::Set { name, value } => {
            let device = home.device(&name)?;
            let change = Change::parse(&home.devices[device], &value)?;
            let done = commander.send(device, change)?;
            tell(&home, &[done], global);
        }
        HomeCommand::Scene { name } => {
            let scene = home.scene(&name)?;
            tell(&home, &call(&home, scene, &mut commander)?, global);
        }
        HomeCommand::SayCommand { texts } => {
            for text in &texts {
                obey(&home, text, &mut commander, global)?;
            }
            if texts.is_empty() {
                for line in std::io::stdin().lock().lines() {
                    obey(&home, &line.context("reading stdin")?, &mut commander, global)?;
                }
            }
        }
        HomeCommand::Hear { files, target, model, threshold } => {
            let ears = Ears::open(&model, global)?;
            let device = target.map(|name| home.device(&name)).transpose()?;
            for file in &files {
                let heard = ears.hear(file, global)?;
                hear(&home, &heard, device, threshold, &mut commander, global)?;
            }
        }
        HomeCommand::DevicesRun => return devices_run(&home, global),
    }
    commander.leave();
    Ok(())
}

fn call(home: &Home, scene: usize, commander: &mut Commander) -> Result<Vec<Done>, HomeError> {
    let changes = home.changes(&home.scenes[scene])?.into_iter();
    changes.map(|(device, change)| commander.send(device, change)).collect()
}

/// Does what a sentence says.
fn obey(home: &Home, text: &str, commander: &mut Commander, global: &Global) -> Outcome {
    let titles = |devices: &[usize]| {
        let titles: Vec<String> = devices.iter().map(|i| home.devices[*i].title()).collect();
        titles.join(", ")
    };
    let not_understood = |problem: String| Err(HomeError::NotUnderstood(problem).into());
    match understand(home, text, &[])? {
        Said::Do(orders) => carry_out(home, orders, commander, global),
        Said::Part(orders, rest) => {
            carry_out(home, orders, commander, global)?;
            not_understood(format!("done, but for {rest:?}, which is no order for this home"))
        }
        Said::Scene(scene) => {
            tell(home, &call(home, scene, commander)?, global);
            Ok(())
        }
        Said::Ask(devices) => {
            let states = commander.states(&devices)?;
            show(home, devices.into_iter().zip(states), global);
            Ok(())
        }
        Said::Which(candidates) => not_understood(format!("which one: {}?", titles(&candidates))),
        Said::What(device) => {
            not_understood(format!("what shall become of {}?", titles(&[device])))
        }
        Said::Nothing => {
            let shown: String = text.chars().take(200).collect();
            not_understood(format!("no order for this home in {shown:?}"))
        }
    }
}

fn carry_out(
    home: &Home,
    orders: Vec<(usize, Wish)>,
    commander: &mut Commander,
    global: &Global,
) -> Outcome {
    let mut done = vec![];
    for (device, wish) in orders {
        done.push(commander.carry_out(device, wish)?);
    }
    tell(home, &done, global);
    Ok(())
}

fn hear(
    home: &Home,
    heard: &Heard,
    device: Option<usize>,
    threshold: f32,
    commander: &mut Commander,
    global: &Global,
) -> Outcome {
    let (word, score) = match heard {
        Heard::Word(word, score) => (word.as_str(), *score),
        Heard::Sentence(text) => return obey(home, text, commander, global),
    };
    let Some(device) = device else {
        let problem = "single words need --for DEVICE: `on` says nothing of what";
        return Err(Failure::text(USAGE, problem));
    };
    let about = &home.devices[device];
    let wish = match word {
        _ if score < threshold => None,
        "on" => Some(Wish::Become(Change::power(about, true)?)),
        "off" => Some(Wish::Become(Change::power(about, false)?)),
        "up" => Some(Wish::More),
        "down" => Some(Wish::Less),
        _ => None,
    };
    let Some(wish) = wish else {
        let problem = format!(
            "heard {word:?} with a score of {score:.2}, not on, off, up or down with {threshold} or \
             more"
        );
        return Err(HomeError::NotUnderstood(problem).into());
    };
    let done = commander.carry_out(device, wish)?;
    tell(home, &[done], global);
    Ok(())
}

fn describe(state: &State) -> String {
    let on = state.on.map(|on| if on { "on" } else { "off" }.to_string());
    let brightness = state.brightness.map(|percent| format!("{percent} %"));
    let temperature = state.temperature.map(|degrees| format!("{degrees} °C"));
    let all: Vec<String> = on.into_iter().chain(brightness).chain(temperature).collect();
    if all.is_empty() { "unknown".into() } else { all.join(", ") }
}

fn show(home: &Home, states: impl Iterator<Item = (usize, State)>, global: &Global) {
    let (mut text, mut list) = (String::new(), vec![]);
    for (place, state) in states {
        let device = &home.devices[place];
        let (id, room, kind) = (&device.id, &device.room, device.kind.name());
        text.push_str(&format!("{id:20} {kind:10} {room:14} {}\n", describe(&state)));
        list.push(json!({
            "id": id, "kind": kind, "room": room, "names": device.names,
            "topic": home.topic(device), "state": state.json(),
        }));
    }
    print(global, &Value::Array(list), &text);
}

fn devices(home: &Home, commander: &mut Commander, global: &Global) -> Outcome {
    let all: Vec<usize> = (0..home.devices.len()).collect();
    let states = commander.states(&all)?;
    show(home, all.into_iter().zip(states), global);
    Ok(())
}

fn tell(home: &Home, done: &[Done], global: &Global) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let (mut text, mut list) = (String::new(), vec![]);
    for one in done {
        let id = &home.devices[one.device].id;
        let end = match one.applied {
            Some(after) => format!("done after {:.1} ms", ms(after)),
            None => format!("the broker has it after {:.1} ms", ms(one.acknowledged)),
        };
        text.push_str(&format!("{id}  {}  {end}\n", one.change.json()));
        list.push(json!({
            "device": id, "change": one.change.json(), "id": one.id,
            "acknowledged_ms": ms(one.acknowledged), "applied_ms": one.applied.map(ms),
        }));
    }
    print(global, &Value::Array(list), &text);
}

fn devices_run(home: &Home, global: &Global) -> Outcome {
    train::listen()?;
    let start = Instant::now();
    let mut told = |event: &Event| {
        let name = |device: &usize| &home.devices[*device].id;
        let json = match event {
            Event::Online => json!({"event": "online"}),
            Event::Applied { device, state, id } => json!({
                "event": "applied", "device": name(device), "state": state.json(), "id": id,
            }),
            Event::Repeated { device, id } => {
                json!({"event": "repeated", "device": name(device), "id": id})
            }
            Event::Refused { device, problem } => {
                json!({"event": "refused", "device": name(device), "problem": problem})
            }
        };
        match (global.json, event) {
            (true, _) => say!("{json}"),
            (false, Event::Online) => say!("simulated devices of {:?} are online", home.name),
            (false, _) => say!("{:9.3} s  {json}", start.elapsed().as_secs_f64()),
        }
    };
    simulated::run(home, &|| train::stop().load(Ordering::SeqCst), &mut told)?;
    Ok(())
}
