//! Orders in what somebody said, English or Chinese: by rules over the names of a home file, not by a model.
//!
//! A sentence is cut into clauses at `and`, commas and their like. A clause has devices, by name, by room and kind, or all
//! of a kind, and a wish; what one lacks it takes from the clause before: `turn on the lamp and the heater`. Orders are for
//! now: a sentence with a time, a condition or an exception is refused as a whole.

use super::{
    HomeError,
    file::{Device, Home, Kind},
    order::{Change, Wish},
};
use crate::{
    when::{clock, day, length},
    words::{has, has_any, joined, number, words},
};

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Wishes for devices, by place, in order.
    Do(Vec<(usize, Wish)>),
    /// The same, and what was said besides that is no order for this home.
    Part(Vec<(usize, Wish)>, String),
    /// A scene, by place.
    Scene(usize),
    /// Somebody asks how these are.
    Ask(Vec<usize>),
    /// There is a wish, but for which of these?
    Which(Vec<usize>),
    /// There is a device, but what shall become of it?
    What(usize),
    /// It is not about the home.
    Nothing,
}

/// What devices of a kind are called: one, many, in Chinese.
const KINDS: &[(Kind, &[&str], &[&str])] = &[
    (Kind::Light, &["light", "lamp", "灯"], &["lights", "lamps"]),
    (Kind::Socket, &["socket", "plug", "outlet", "插 座"], &["sockets", "plugs", "outlets"]),
    (
        Kind::Thermostat,
        &[
            "thermostat",
            "heating",
            "heater",
            "radiator",
            "temperature",
            "暖 气",
            "温 度",
            "空 调",
            "恒 温 器",
        ],
        &["thermostats", "heaters", "radiators"],
    ),
];

pub(crate) const ALL: &[&str] =
    &["all", "every", "everything", "all of", "所 有", "全 部", "全", "都"];
/// Cut a sentence. `和` and `with` join devices and do not.
pub(crate) const CUTS: &[&str] = &["and", "then", ",", "并", "然", "再"];
const NOT: &[&str] =
    &["don't", "do not", "never", "dont", "not", "shouldn't", "不 要", "别", "不 用", "不 许"];
/// With these an order is not for now, or not for all that it names.
const CONDITIONS: &[&str] = &[
    "if",
    "when",
    "whenever",
    "unless",
    "until",
    "till",
    "while",
    "before",
    "after",
    "as soon as",
    "later",
    "sunset",
    "sunrise",
    "except",
    "but",
    "without",
    "other than",
    "apart from",
    "besides",
    "instead",
    "rather than",
    "or",
    "如 果",
    "要 是",
    "假 如",
    "的 话",
    "时 候",
    "除 了",
    "除",
    "以 外",
    "之 外",
    "以 后",
    "之 后",
    "直 到",
    "等 到",
    "等 一 下",
    "一 会",
    "天 黑",
    "日 落",
    "但",
    "或 者",
    "还 是",
];
/// Words around an order that change nothing of it.
const AROUND: &[&str] = &[
    "turn", "switch", "set", "make", "put", "bring", "the", "a", "an", "my", "our", "it", "them",
    "that", "those", "is", "are", "to", "at", "in", "by", "of", "please", "thanks", "thank", "you",
    "now", "then", "ok", "okay", "hey", "hello", "hi", "so", "just", "also", "again", "back",
    "could", "can", "would", "will", "i", "want", "percent", "degrees", "degree", "celsius", "%",
    "°", "c", "half", "halfway", "full", "maximum", "?", "-", "把", "将", "它", "的", "到", "成",
    "为", "调", "度", "请", "谢", "你", "您", "好", "吧", "吗", "了", "一", "下", "后", "帮", "我",
    "给", "也", "还", "就", "现", "在", "里", "和",
];
const ON: &[&str] = &["on", "enable", "activate", "打 开", "开 启", "开", "亮 起 来", "点 亮"];
const OFF: &[&str] =
    &["off", "disable", "kill", "deactivate", "关 掉", "关 闭", "关 上", "关", "熄 灭"];
const BRIGHTER: &[&str] = &[
    "brighter",
    "too dark",
    "太 暗",
    "brighten",
    "亮 一 点",
    "亮 一 些",
    "亮 点",
    "调 亮",
    "更 亮",
];
const DARKER: &[&str] = &[
    "dim",
    "too bright",
    "太 亮",
    "dimmer",
    "darker",
    "darken",
    "暗 一 点",
    "暗 一 些",
    "暗 点",
    "调 暗",
    "更 暗",
];
const WARMER: &[&str] =
    &["warmer", "hotter", "warm", "热 一 点", "暖 一 点", "更 热", "更 暖", "too cold", "太 冷"];
const COLDER: &[&str] = &[
    "colder",
    "cooler",
    "cool",
    "冷 一 点",
    "凉 一 点",
    "更 冷",
    "更 凉",
    "too hot",
    "too warm",
    "太 热",
];
const MORE: &[&str] = &[
    "up",
    "raise",
    "increase",
    "higher",
    "more",
    "boost",
    "调 高",
    "升 高",
    "提 高",
    "高 一 点",
    "高 点",
];
const LESS: &[&str] = &[
    "down",
    "lower",
    "reduce",
    "decrease",
    "less",
    "调 低",
    "降 低",
    "低 一 点",
    "低 点",
    "调 小",
];
const CALLS: &[&str] = &[
    "scene",
    "mode",
    "activate",
    "start",
    "run",
    "set",
    "turn on",
    "switch to",
    "场 景",
    "模 式",
    "启 动",
    "开 启",
    "切 换",
    "打 开",
    "进 入",
];

/// What a clause wants, before it is known of which device.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Want {
    Power(bool),
    Number(f64),
    More,
    Less,
}

/// A want, and what kind of device it can only be for.
type Wanted = (Want, Option<Kind>);

/// Finds what `text` asks of the home. Where it could be several devices, `chosen` are those that are meant.
pub fn understand(home: &Home, text: &str, chosen: &[usize]) -> Result<Said, HomeError> {
    let said = parse(home, text, chosen)?;
    let order = !matches!(said, Said::Ask(_) | Said::Nothing);
    match hindrance(home, text).filter(|_| order) {
        Some(hindrance) => Err(hindrance),
        None => Ok(said),
    }
}

/// Why an order in `text` must not be carried out: it is not for now, or not for all that it names.
pub fn hindrance(home: &Home, text: &str) -> Option<HomeError> {
    let names = Names::of(home);
    let (_, mut rest) = names.devices(&joined(&words(text)));
    for (name, _) in &names.scenes {
        rest = rest.replace(name.as_str(), " ");
    }
    let problem = |what: &str| {
        Some(HomeError::NotUnderstood(format!(
            "only orders for now, without conditions and exceptions, are carried out, and this one \
             has {what}"
        )))
    };
    if let Some(word) = CONDITIONS.iter().chain(NOT).find(|word| has(&rest, word)) {
        return problem(&format!("`{}`", shown(word)));
    }
    let switches = has_any(&rest, ON) || has_any(&rest, OFF);
    let list: Vec<String> = rest.split_whitespace().map(str::to_string).collect();
    let at = |i: usize| list.get(i).map_or("", String::as_str);
    // A value is no time: `at 20 degrees`, and where nothing is switched `at 20`.
    let value = |i: usize| {
        let clock = matches!(at(i + 1), ":" | "am" | "pm" | "a" | "p" | "o'clock" | "点");
        let unit =
            matches!(at(i + 1), "%" | "percent" | "°" | "degrees" | "degree" | "celsius" | "度");
        number(at(i)).is_some() && (unit || !switches && !clock && i > 0 && at(i - 1) == "at")
    };
    let list: Vec<String> =
        (0..list.len()).filter(|i| !value(*i)).map(|i| list[i].clone()).collect();
    let time = length(&list).is_some() || clock(&list).is_some() || day(&list).is_some();
    if time { problem("a time") } else { None }
}

/// As it is written; of `然后` the first half has cut it off.
fn shown(clause: &str) -> String {
    let clause = clause.trim().trim_start_matches("后 ");
    if clause.is_ascii() { clause.to_string() } else { clause.replace(' ', "") }
}

/// Whether a clause says nothing but orders, rooms and kinds of devices.
fn plain(home: &Home, clause: &str) -> bool {
    let phrases = [ALL, ON, OFF, BRIGHTER, DARKER, WARMER, COLDER, MORE, LESS, AROUND];
    let kinds = KINDS.iter().flat_map(|(_, one, many)| [*one, *many]);
    let known: Vec<&str> =
        phrases.into_iter().chain(kinds).flatten().flat_map(|p| p.split(' ')).collect();
    let rooms: Vec<String> = home.devices.iter().flat_map(|device| words(&device.room)).collect();
    clause.split_whitespace().all(|word| {
        number(word).is_some() || known.contains(&word) || rooms.iter().any(|room| room == word)
    })
}

fn parse(home: &Home, text: &str, chosen: &[usize]) -> Result<Said, HomeError> {
    let fits = |candidates: &[usize]| {
        !chosen.is_empty() && chosen.iter().all(|device| candidates.contains(device))
    };
    let all = words(text);
    let whole = joined(&all);
    if has_any(&whole, NOT) {
        return Ok(Said::Nothing);
    }
    let names = Names::of(home);
    let clauses: Vec<String> = all
        .split(|word| CUTS.contains(&word.as_str()))
        .map(joined)
        .filter(|c| c.len() > 2)
        .collect();
    let mut orders: Vec<(usize, Wish)> = vec![];
    // Devices still without a wish, and the last wish and devices.
    let (mut waiting, mut last_wanted, mut last_devices) = (vec![], None::<Wanted>, vec![]);
    let (mut which, mut unknown) = (None, vec![]);
    for clause in &clauses {
        let (devices, rest) = names.devices(clause);
        if devices.is_empty()
            && let Some(scene) = names.scene(clause)
        {
            if clauses.len() == 1 {
                return Ok(Said::Scene(scene));
            }
            let changes = home.changes(&home.scenes[scene])?.into_iter();
            orders.extend(changes.map(|(device, change)| (device, Wish::Become(change))));
            continue;
        }
        if !devices.is_empty() && has(&rest, "everything") {
            let problem = "say either everything or single devices".to_string();
            return Err(HomeError::NotUnderstood(problem));
        }
        let wanted = wanted(&rest);
        let kind = wanted.and_then(|(_, kind)| kind);
        let devices = match devices.is_empty() {
            false => devices,
            true => match names.by_kind(&rest, kind) {
                Found::Devices(devices) => devices,
                Found::Which(candidates) if fits(&candidates) => chosen.to_vec(),
                Found::Which(candidates) if wanted.is_some() || last_wanted.is_some() => {
                    which = Some(candidates);
                    continue;
                }
                _ => vec![],
            },
        };
        let asks = rest.starts_with(" is ") || rest.starts_with(" are ") || has(&rest, "吗");
        if asks && !devices.is_empty() && orders.is_empty() {
            return Ok(Said::Ask(devices));
        }
        let plain = plain(home, &rest);
        let (wanted, devices) = match (wanted, devices.is_empty()) {
            // `turn on the lamp and set it to 50 percent`, but not `and turn off the radio`
            (Some(wanted), true) if !last_devices.is_empty() && plain => {
                (Some(wanted), last_devices.clone())
            }
            (Some(wanted), true) if last_devices.is_empty() => {
                last_wanted = Some(wanted);
                if !plain {
                    unknown.push(shown(clause));
                }
                continue;
            }
            (Some(wanted), false) if !asks => (Some(wanted), devices),
            // `turn on the lamp and the heater`, but not `and spare the heater`
            (None, false) if plain || last_wanted.is_none() => (last_wanted, devices),
            (None, true) if plain => continue,
            _ => {
                unknown.push(shown(clause));
                continue;
            }
        };
        match wanted {
            None => waiting.extend(&devices),
            Some(wanted) => {
                for device in waiting.drain(..).chain(devices.iter().copied()) {
                    orders.push((device, wish(&home.devices[device], wanted.0)?));
                }
                last_wanted = Some(wanted);
            }
        }
        last_devices = devices;
    }
    match (orders.is_empty(), which, waiting.first(), last_wanted) {
        (_, Some(candidates), _, _) => Ok(Said::Which(candidates)),
        (false, None, _, _) if unknown.is_empty() => Ok(Said::Do(orders)),
        (false, None, _, _) => Ok(Said::Part(orders, unknown.join(", "))),
        (true, None, Some(device), _) => Ok(Said::What(*device)),
        // A wish for nothing in particular is about the home only where it can be nothing else.
        (true, None, None, Some((want, Some(kind)))) => {
            let candidates = names.of_kind(kind);
            if fits(&candidates) {
                let one = |device: &usize| Ok((*device, wish(&home.devices[*device], want)?));
                return chosen.iter().map(one).collect::<Result<_, _>>().map(Said::Do);
            }
            Ok(if candidates.is_empty() { Said::Nothing } else { Said::Which(candidates) })
        }
        _ => Ok(Said::Nothing),
    }
}

/// Those of `candidates` that an answer to [`Said::Which`] means: all, the one whose names and room have most of its words, or
/// none.
pub fn choose(home: &Home, candidates: &[usize], answer: &str) -> Vec<usize> {
    let said = words(answer);
    if has_any(&joined(&said), ALL) || has(&joined(&said), "both") {
        return candidates.to_vec();
    }
    let score = |place: &&usize| {
        let device = &home.devices[**place];
        let names = device.names.iter().chain([&device.id, &device.room]);
        let known: Vec<String> = names.flat_map(|name| words(name)).collect();
        said.iter().filter(|word| known.contains(word)).count()
    };
    let best = candidates.iter().map(|place| score(&place)).max().unwrap_or(0);
    let chosen: Vec<usize> =
        candidates.iter().filter(|place| score(place) == best).copied().collect();
    if best > 0 && chosen.len() == 1 { chosen } else { vec![] }
}

fn wish(device: &Device, want: Want) -> Result<Wish, HomeError> {
    match want {
        Want::Power(on) => Change::power(device, on).map(Wish::Become),
        Want::Number(number) => Change::number(device, number).map(Wish::Become),
        Want::More => Ok(Wish::More),
        Want::Less => Ok(Wish::Less),
    }
}

/// What a clause without its devices' names wants.
fn wanted(clause: &str) -> Option<Wanted> {
    // 开关 is a switch.
    let clause = clause.replace(" 开 关 ", " ");
    let clause = clause.as_str();
    let list: Vec<&str> = clause.split_whitespace().collect();
    let place = list.iter().rposition(|word| number(word).is_some());
    if let Some(place) = place {
        let minus = place > 0 && list[place - 1] == "-";
        let value = number(list[place]).expect("just found");
        let value = if minus { -value } else { value };
        let after = list.get(place + 1).copied().unwrap_or_default();
        let kind = match after {
            "%" | "percent" => Some(Kind::Light),
            "°" | "degrees" | "degree" | "celsius" | "度" => Some(Kind::Thermostat),
            _ => None,
        };
        // `lamp 2 on` is no brightness, nor is `on at 9`.
        let switches = has_any(clause, ON) || has_any(clause, OFF);
        let set = has_any(clause, &["to", "到", "成", "为", "调"])
            || !switches && has_any(clause, &["at", "set"]);
        if kind.is_some() || set || list.len() <= 2 {
            // `up by 5 degrees` is more than can be told from here.
            let relative = has(clause, "by");
            return (!relative).then_some((Want::Number(value), kind));
        }
    }
    let table: &[(&[&str], Want, Option<Kind>)] = &[
        (BRIGHTER, Want::More, Some(Kind::Light)),
        (DARKER, Want::Less, Some(Kind::Light)),
        (WARMER, Want::More, Some(Kind::Thermostat)),
        (COLDER, Want::Less, Some(Kind::Thermostat)),
        (OFF, Want::Power(false), None),
        (&["up"], Want::More, None),
        (&["down"], Want::Less, None),
        (MORE, Want::More, None),
        (LESS, Want::Less, None),
        (ON, Want::Power(true), None),
    ];
    let row = table.iter().find(|(phrases, _, _)| has_any(clause, phrases));
    let found = row.map(|(_, want, kind)| (*want, *kind));
    match list.last() {
        // The middle of a scale.
        Some(&"half") | Some(&"halfway") => Some((Want::Number(50.0), Some(Kind::Light))),
        Some(&"maximum") | Some(&"full") => Some((Want::Number(100.0), Some(Kind::Light))),
        _ => found,
    }
}

/// What can be said for each device and scene, longest first.
struct Names<'a> {
    home: &'a Home,
    devices: Vec<(String, usize)>,
    scenes: Vec<(String, usize)>,
}

enum Found {
    Devices(Vec<usize>),
    Which(Vec<usize>),
    None,
}

impl<'a> Names<'a> {
    fn of(home: &'a Home) -> Self {
        let (mut devices, mut scenes) = (vec![], vec![]);
        for (place, device) in home.devices.iter().enumerate() {
            let names = device.names.iter().chain([&device.id]);
            devices.extend(names.map(|name| (joined(&words(name)), place)));
        }
        for (place, scene) in home.scenes.iter().enumerate() {
            let names = scene.names.iter().chain([&scene.id]);
            scenes.extend(names.map(|name| (joined(&words(name)), place)));
        }
        devices.retain(|(name, _)| name.trim() != "");
        scenes.retain(|(name, _)| name.trim() != "");
        devices.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        scenes.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { home, devices, scenes }
    }

    /// Devices whose names are in a clause, in the order of their names there, and the clause without these.
    fn devices(&self, clause: &str) -> (Vec<usize>, String) {
        let mut rest = clause.to_string();
        let mut found: Vec<(usize, usize)> = vec![];
        for (name, device) in &self.devices {
            while let Some(at) = rest.find(name.as_str()) {
                found.push((at, *device));
                // As long as it was, so that places stay places.
                let blank = format!(" {}", "_".repeat(name.len() - 2));
                rest.replace_range(at..at + name.len() - 1, &blank);
            }
        }
        found.sort();
        let mut devices = vec![];
        for (_, device) in found {
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
        let kept: Vec<String> = rest
            .split_whitespace()
            .filter(|word| !word.starts_with('_'))
            .map(str::to_string)
            .collect();
        (devices, joined(&kept))
    }

    fn scene(&self, clause: &str) -> Option<usize> {
        let (name, scene) = self.scenes.iter().find(|(name, _)| clause.contains(name))?;
        (clause == name || has_any(clause, CALLS)).then_some(*scene)
    }

    fn of_kind(&self, kind: Kind) -> Vec<usize> {
        let all = self.home.devices.iter().enumerate();
        all.filter(|(_, device)| device.kind == kind).map(|(place, _)| place).collect()
    }

    /// Devices by their kind, or by the only kind that the wish is for; by room, where one is named.
    fn by_kind(&self, clause: &str, only: Option<Kind>) -> Found {
        let named =
            KINDS.iter().find(|(_, one, many)| has_any(clause, one) || has_any(clause, many));
        let many = named.is_some_and(|(_, _, many)| has_any(clause, many));
        let all = many || has_any(clause, ALL);
        let kind = named.map(|(kind, _, _)| *kind);
        let room = |device: &Device| clause.contains(&joined(&words(&device.room)));
        let some_room = self.home.devices.iter().any(room);
        let is = |device: &Device| {
            let fits = match kind.or(only) {
                Some(kind) => device.kind == kind,
                // `everything off`
                None => all && device.kind != Kind::Thermostat,
            };
            fits && (!some_room || room(device))
        };
        if kind.is_none() && !all && !(some_room && only.is_some()) {
            return Found::None;
        }
        let devices = self.home.devices.iter().enumerate();
        let found: Vec<usize> =
            devices.filter(|(_, device)| is(device)).map(|(place, _)| place).collect();
        match found.len() {
            0 => Found::None,
            1 => Found::Devices(found),
            _ if all => Found::Devices(found),
            _ => Found::Which(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = r#"
        version = 1
        name = "flat"
        broker = { host = "localhost" }
        device = [
            { id = "kitchen-light", kind = "light", room = "kitchen", names = ["kitchen light", "厨房灯", "厨房的灯"] },
            { id = "bedroom-light", kind = "light", room = "bedroom", names = ["卧室灯"] },
            { id = "heating", kind = "thermostat", room = "bedroom", range = [12, 24], names = ["暖气"] },
            { id = "fan", kind = "socket", room = "bedroom", names = ["fan", "风扇"] },
        ]
        scene = [{ id = "evening", names = ["晚上"], set = { kitchen-light = 40, heating = 20 } }]
    "#;
    const KITCHEN: usize = 0;
    const BEDROOM: usize = 1;
    const HEATING: usize = 2;
    const FAN: usize = 3;
    const ON: Wish = Wish::Become(Change::Power(true));
    const OFF: Wish = Wish::Become(Change::Power(false));

    #[track_caller]
    fn check(text: &str, expected: Said) {
        let home = Home::parse(HOME).unwrap();
        assert_eq!(understand(&home, text, &[]).unwrap(), expected, "{text}");
    }

    #[test]
    fn english() {
        check("Turn on the kitchen light.", Said::Do(vec![(KITCHEN, ON)]));
        check("switch the fan off please", Said::Do(vec![(FAN, OFF)]));
        check("turn off the light in the bedroom", Said::Do(vec![(BEDROOM, OFF)]));
        check("turn off all the lights", Said::Do(vec![(KITCHEN, OFF), (BEDROOM, OFF)]));
        check("turn on the fan and the bedroom light", Said::Do(vec![(FAN, ON), (BEDROOM, ON)]));
        check(
            "turn on the fan and turn off the kitchen light",
            Said::Do(vec![(FAN, ON), (KITCHEN, OFF)]),
        );
        let warm = Wish::Become(Change::Temperature(21.5));
        check("set the heating to twenty one and a half degrees", Said::Do(vec![(HEATING, warm)]));
        check("set the temperature to 21.5", Said::Do(vec![(HEATING, warm)]));
        check("it is too dark in the bedroom", Said::Do(vec![(BEDROOM, Wish::More)]));
        check("make the bedroom warmer", Said::Do(vec![(HEATING, Wish::More)]));
        check("turn the kitchen light down", Said::Do(vec![(KITCHEN, Wish::Less)]));
        let half = Wish::Become(Change::Brightness(50));
        check(
            "turn on the kitchen light and set it to fifty percent",
            Said::Do(vec![(KITCHEN, ON), (KITCHEN, half)]),
        );
        check("activate evening", Said::Scene(0));
        check("is the kitchen light on?", Said::Ask(vec![KITCHEN]));
    }

    #[test]
    fn chinese() {
        check("打开厨房的灯", Said::Do(vec![(KITCHEN, ON)]));
        check("把卧室灯关掉", Said::Do(vec![(BEDROOM, OFF)]));
        check("关掉所有的灯", Said::Do(vec![(KITCHEN, OFF), (BEDROOM, OFF)]));
        check("厨房灯亮一点", Said::Do(vec![(KITCHEN, Wish::More)]));
        let warm = Wish::Become(Change::Temperature(21.0));
        check("把暖气调到二十一度", Said::Do(vec![(HEATING, warm)]));
        check(
            "把厨房灯调到百分之五十",
            Said::Do(vec![(KITCHEN, Wish::Become(Change::Brightness(50)))]),
        );
        check("晚上模式", Said::Scene(0));
        check("风扇开着吗", Said::Ask(vec![FAN]));
    }

    /// Else they would be carried out at once, whatever the case, or for what they leave out.
    #[test]
    fn orders_with_a_condition_or_a_time_are_refused() {
        let home = Home::parse(HOME).unwrap();
        for text in [
            "turn the kitchen light off at nine pm",
            "turn the kitchen light off at nine",
            "turn off the kitchen light at half past nine",
            "turn the kitchen light off at a quarter to nine",
            "turn on the kitchen light in ten minutes",
            "turn on the fan for an hour",
            "turn on the fan tomorrow morning",
            "turn on everything except the fan",
            "turn off all the lights but the kitchen light",
            "if it is dark turn on the kitchen light",
            "when it is dark, turn on the kitchen light",
            "leave the fan on until midnight",
            "turn on the light unless it is day",
            "turn on the fan or the kitchen light",
            "除了风扇都打开",
            "如果天黑就打开厨房灯",
            "十分钟以后打开厨房灯",
            "十分钟后打开厨房灯",
            "晚上九点关掉厨房灯",
            "明天打开厨房灯",
        ] {
            let said = understand(&home, text, &[]);
            assert!(matches!(said, Err(HomeError::NotUnderstood(_))), "{text}: {said:?}");
        }
        // Values, not times.
        let bright = Wish::Become(Change::Brightness(9));
        check("turn on the kitchen light at 9 percent", Said::Do(vec![(KITCHEN, bright)]));
        check("set the kitchen light at 9", Said::Do(vec![(KITCHEN, bright)]));
        check("is the kitchen light on or off?", Said::Ask(vec![KITCHEN]));
    }

    #[test]
    fn what_is_no_order_is_named() {
        let part = |orders: Vec<(usize, Wish)>, rest: &str| Said::Part(orders, rest.into());
        check("turn on the fan and then explode", part(vec![(FAN, ON)], "explode"));
        check(
            "turn on the fan and turn off the radio",
            part(vec![(FAN, ON)], "turn off the radio"),
        );
        check(
            "turn on the bedroom light and spare the fan",
            part(vec![(BEDROOM, ON)], "spare the fan"),
        );
        check("打开风扇，然后唱歌", part(vec![(FAN, ON)], "唱歌"));
        check("hey, turn on the fan, please", Said::Do(vec![(FAN, ON)]));
        let warm = Wish::Become(Change::Temperature(20.0));
        let dim = Wish::Become(Change::Brightness(40));
        check(
            "turn off the fan and activate evening",
            Said::Do(vec![(FAN, OFF), (HEATING, warm), (KITCHEN, dim)]),
        );
    }

    #[test]
    fn answers_choose() {
        let home = Home::parse(HOME).unwrap();
        for (answer, expected) in [
            ("the kitchen", vec![KITCHEN]),
            ("厨房", vec![KITCHEN]),
            ("卧室的", vec![BEDROOM]),
            ("bedroom light, please", vec![BEDROOM]),
            ("all of them", vec![KITCHEN, BEDROOM]),
            ("两个都开", vec![KITCHEN, BEDROOM]),
            ("the attic", vec![]),
            ("the light", vec![]),
        ] {
            assert_eq!(choose(&home, &[KITCHEN, BEDROOM], answer), expected, "{answer}");
        }
        let chosen = |text: &str| understand(&home, text, &[BEDROOM]).unwrap();
        assert_eq!(chosen("Turn on the light, please."), Said::Do(vec![(BEDROOM, ON)]));
        assert_eq!(chosen("开灯"), Said::Do(vec![(BEDROOM, ON)]));
        assert_eq!(chosen("it is too dark"), Said::Do(vec![(BEDROOM, Wish::More)]));
        assert_eq!(chosen("turn on the fan"), Said::Do(vec![(FAN, ON)]));
    }

    #[test]
    fn what_is_missing() {
        check("turn on the light", Said::Which(vec![KITCHEN, BEDROOM]));
        check("开灯", Said::Which(vec![KITCHEN, BEDROOM]));
        check("the kitchen light please", Said::What(KITCHEN));
        check("don't turn on the kitchen light", Said::Nothing);
        check("what is on this evening", Said::Nothing);
        check("turn on the radio", Said::Nothing);
        check("", Said::Nothing);
    }

    #[test]
    fn unsafe_values_are_refused() {
        let home = Home::parse(HOME).unwrap();
        for text in ["set the heating to 60 degrees", "暖气调到六十度", "set the fan to 50 percent"]
        {
            assert!(
                matches!(understand(&home, text, &[]), Err(HomeError::Refused { .. })),
                "{text}"
            );
        }
    }
}
