//! Lengths and times of the day, as they are said.

use crate::words::{has, has_any, number};

/// Seconds of a length: `an hour and a half`, `90 seconds`, `1 个半小时`; of all that are said one after the other.
pub fn length(words: &[String]) -> Option<f64> {
    let at = |i: usize| words.get(i).map_or("", String::as_str);
    let unit = |i: usize| match [at(i), at(i + 1)] {
        ["second" | "seconds" | "sec" | "secs", _] => Some((1.0, 1)),
        ["minute" | "minutes" | "min" | "mins", _] => Some((60.0, 1)),
        ["hour" | "hours" | "h", _] => Some((3600.0, 1)),
        ["day" | "days", _] => Some((86_400.0, 1)),
        ["秒", "钟"] => Some((1.0, 2)),
        ["秒", _] => Some((1.0, 1)),
        ["分", "钟"] => Some((60.0, 2)),
        ["小", "时"] | ["钟", "头"] => Some((3600.0, 2)),
        _ => None,
    };
    let (mut total, mut found, mut i) = (0.0, false, 0);
    while i < words.len() {
        let (amount, taken) = match [at(i), at(i + 1), at(i + 2)] {
            ["half", "an" | "a", _] => (0.5, 2),
            ["half", _, _] => (0.5, 1),
            ["quarter", "of", "an"] => (0.25, 3),
            ["a" | "an", "quarter", _] => (0.25, 2),
            ["a" | "an", _, _] => (1.0, 1),
            ["半", "个", _] => (0.5, 2),
            ["半", _, _] => (0.5, 1),
            [digits, "个", "半"] => (number(digits).map_or(f64::NAN, |n| n + 0.5), 3),
            [digits, "个", _] => (number(digits).unwrap_or(f64::NAN), 2),
            [digits, ..] => (number(digits).unwrap_or(f64::NAN), 1),
        };
        match unit(i + taken).filter(|_| amount.is_finite()) {
            Some((seconds, length)) => {
                total += amount * seconds;
                found = true;
                i += taken + length;
                // `an hour and a half`, `一分半`
                if [at(i), at(i + 1), at(i + 2)] == ["and", "a", "half"] {
                    total += seconds / 2.0;
                    i += 3;
                } else if at(i) == "半" {
                    total += seconds / 2.0;
                    i += 1;
                }
            }
            None => i += 1,
        }
    }
    found.then_some(total)
}

/// A time of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// Whether it is known which half of the day is meant.
    pub exact: bool,
}

/// The time of the day that is said: `7:30 pm`, `half past seven`, `下午三点一刻`.
pub fn clock(words: &[String]) -> Option<Clock> {
    let joined = crate::words::joined(words);
    if has(&joined, "noon") || has(&joined, "中 午") && !words.iter().any(|w| number(w).is_some())
    {
        return Some(Clock { hour: 12, minute: 0, exact: true });
    }
    if has(&joined, "midnight") || has(&joined, "午 夜") {
        return Some(Clock { hour: 0, minute: 0, exact: true });
    }
    let at = |i: usize| words.get(i).map_or("", String::as_str);
    let whole = |i: usize| number(at(i)).filter(|n| n.fract() == 0.0).map(|n| n as i64);
    let before = |i: usize, back: usize| i.checked_sub(back).map_or("", at);
    let (hour, minute) = (0..words.len()).find_map(|i| {
        let hour = whole(i)?;
        match [at(i + 1), at(i + 2), at(i + 3)] {
            [":", _, _] => return Some((hour, whole(i + 2)?)),
            ["点", "半", _] => return Some((hour, 30)),
            ["点", "1", "刻"] => return Some((hour, 15)),
            ["点", "3", "刻"] => return Some((hour, 45)),
            ["点", ..] => return Some((hour, whole(i + 2).unwrap_or(0))),
            ["o'clock" | "am" | "pm", ..] => return Some((hour, 0)),
            ["a", "m", _] | ["p", "m", _] => return Some((hour, 0)),
            _ => {}
        }
        match [before(i, 2), before(i, 1)] {
            ["half", "past"] => return Some((hour, 30)),
            ["quarter", "past"] => return Some((hour, 15)),
            ["quarter", "to"] => return Some((hour - 1, 45)),
            [_, "past"] => return whole(i.checked_sub(2)?).map(|minute| (hour, minute)),
            [_, "to"] if whole(i.wrapping_sub(2)).is_some_and(|n| (1..60).contains(&n)) => {
                return whole(i - 2).map(|minute| (hour - 1, 60 - minute));
            }
            [_, "at"] => {
                // `at 9 30`
                let minute = whole(i + 1).filter(|m| (10..60).contains(m));
                return Some((hour, minute.unwrap_or(0)));
            }
            _ => {}
        }
        // `7 30 am`
        matches!(at(i + 2), "am" | "pm").then(|| whole(i + 1).map(|minute| (hour, minute)))?
    })?;
    let late = [
        "pm",
        "p m",
        "in the evening",
        "in the afternoon",
        "at night",
        "tonight",
        "下 午",
        "晚 上",
    ];
    let early = ["am", "a m", "in the morning", "早 上", "上 午", "凌 晨"];
    let hour = match (has_any(&joined, &late), has_any(&joined, &early)) {
        (true, _) if (1..12).contains(&hour) => hour + 12,
        (_, true) if hour == 12 => 0,
        (_, _) if hour == -1 => 23,
        _ => hour,
    };
    let exact = has_any(&joined, &late) || has_any(&joined, &early) || hour > 12 || hour == 0;
    let fits = (0..24).contains(&hour) && (0..60).contains(&minute);
    fits.then_some(Clock { hour: hour as u8, minute: minute as u8, exact })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;

    #[track_caller]
    fn long(text: &str, seconds: Option<f64>) {
        assert_eq!(length(&words(text)), seconds, "{text}");
    }

    #[test]
    fn lengths() {
        long("set a timer for five minutes", Some(300.0));
        long("an hour and a half", Some(5400.0));
        long("half an hour", Some(1800.0));
        long("two and a half hours", Some(9000.0));
        long("one hour 30 minutes and 5 seconds", Some(5405.0));
        long("十分钟", Some(600.0));
        long("一个半小时后叫我", Some(5400.0));
        long("半小时", Some(1800.0));
        long("一分半钟", None);
        long("set a timer", None);
    }

    #[track_caller]
    fn at(text: &str, expected: Option<(u8, u8)>) {
        let found = clock(&words(text)).map(|clock| (clock.hour, clock.minute));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn times() {
        at("wake me up at 7", Some((7, 0)));
        at("set an alarm for 7:30 pm", Some((19, 30)));
        at("half past six in the evening", Some((18, 30)));
        at("quarter to 8", Some((7, 45)));
        at("twenty past 9", Some((9, 20)));
        at("at nine thirty am", Some((9, 30)));
        at("12 am", Some((0, 0)));
        at("noon", Some((12, 0)));
        at("早上七点半叫我", Some((7, 30)));
        at("下午三点一刻", Some((15, 15)));
        at("晚上八点二十分", Some((20, 20)));
        at("25:00", None);
        at("set an alarm", None);
    }
}
