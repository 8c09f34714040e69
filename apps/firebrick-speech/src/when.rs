//! Lengths, times of the day and days, as they are said.

use crate::words::{has, has_any, joined, number};

/// Seconds of a length: `an hour and a half`, `90 seconds`, `1 个半小时`; of all that are said one after the other. `None` also
/// where there are two of them: `in 10 minutes for 5 minutes`.
pub fn length(words: &[String]) -> Option<f64> {
    let at = |i: usize| words.get(i).map_or("", String::as_str);
    let unit = |i: usize| match [at(i), at(i + 1)] {
        ["second" | "seconds" | "sec" | "secs", _] => Some((1.0, 1)),
        ["minute" | "minutes" | "min" | "mins", _] => Some((60.0, 1)),
        ["hour" | "hours" | "h", _] => Some((3600.0, 1)),
        ["day" | "days" | "天", _] => Some((86_400.0, 1)),
        ["week" | "weeks" | "周", _] => Some((7.0 * 86_400.0, 1)),
        ["星", "期"] => Some((7.0 * 86_400.0, 2)),
        ["秒", "钟"] => Some((1.0, 2)),
        ["秒", _] => Some((1.0, 1)),
        ["分", "钟"] => Some((60.0, 2)),
        ["小", "时"] | ["钟", "头"] => Some((3600.0, 2)),
        _ => None,
    };
    let (mut total, mut end, mut i) = (0.0, None, 0);
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
                let between = &words[end.unwrap_or(i)..i];
                if !between.iter().all(|word| matches!(word.as_str(), "and" | "," | "零")) {
                    return None;
                }
                let minus = i > 0 && matches!(at(i - 1), "-" | "minus" | "negative" | "负");
                total += if minus { -amount * seconds } else { amount * seconds };
                i += taken + length;
                // `an hour and a half`, `一分半`
                if [at(i), at(i + 1), at(i + 2)] == ["and", "a", "half"] {
                    total += seconds / 2.0;
                    i += 3;
                } else if at(i) == "半" {
                    total += seconds / 2.0;
                    i += 1;
                }
                end = Some(i);
            }
            None => i += 1,
        }
    }
    end.map(|_| total)
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
    let joined = joined(words);
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
    // `quarter to one`
    let hour_before = |hour: i64| if hour == 1 { 12 } else { hour - 1 };
    let told = (0..words.len()).find_map(|i| {
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
            ["quarter", "to"] => return Some((hour_before(hour), 45)),
            [_, "past"] => return whole(i.checked_sub(2)?).map(|minute| (hour, minute)),
            [_, "to"] if whole(i.wrapping_sub(2)).is_some_and(|n| (1..60).contains(&n)) => {
                return whole(i - 2).map(|minute| (hour_before(hour), 60 - minute));
            }
            // `at ten to seven` is below, by its last number.
            [_, "at"] if !matches!(at(i + 1), "past" | "to") => {
                // `at 9 30`
                let minute = whole(i + 1).filter(|m| (10..60).contains(m));
                return Some((hour, minute.unwrap_or(0)));
            }
            _ => {}
        }
        // `7 30 am`
        matches!(at(i + 2), "am" | "pm").then(|| whole(i + 1).map(|minute| (hour, minute)))?
    });
    // `an alarm for seven`; with a length it is something else: `in ten minutes, food for two`.
    let bare = || {
        (0..words.len()).find_map(|i| {
            let hour = whole(i)?;
            let minute = whole(i + 1).filter(|m| (10..60).contains(m));
            let next = at(i + 1 + usize::from(minute.is_some()));
            let day = WEEK.contains(&next) || matches!(next, "tomorrow" | "today" | "tonight");
            let ends = matches!(next, "" | "," | "on" | "in" | "this" | "please");
            (day || ends && before(i, 1) == "for").then_some((hour, minute.unwrap_or(0)))
        })
    };
    let (hour, minute) = told.or_else(|| length(words).is_none().then(bare).flatten())?;
    let late = ["pm", "p m", "evening", "afternoon", "night", "tonight", "下 午", "晚"];
    let early = ["am", "a m", "morning", "早", "上 午", "凌 晨"];
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

/// A day that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// So many days from today.
    In(i64),
    /// The next of these days of the week, which may be today; Monday is 0.
    Week(i8),
    /// One that is not known here: the fifth of May, the weekend, yesterday.
    Other,
    /// More than one.
    Every,
}

const WEEK: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
/// Longest first, where one is within another.
const AHEAD: &[(&str, i64)] = &[
    ("day after tomorrow", 2),
    ("tomorrow", 1),
    ("today", 0),
    ("tonight", 0),
    ("this morning", 0),
    ("this afternoon", 0),
    ("this evening", 0),
    ("大 后 天", 3),
    ("后 天", 2),
    ("明 天", 1),
    ("明 早", 1),
    ("明 晚", 1),
    ("今 天", 0),
    ("今 早", 0),
    ("今 晚", 0),
];

/// The day that is said: `tomorrow`, `on monday`, `后天`, `周五`.
pub fn day(words: &[String]) -> Option<Day> {
    let joined = joined(words);
    let at = |i: usize| words.get(i).map_or("", String::as_str);
    let is_number = |i: usize| number(at(i)).is_some();
    let after_number = |i: usize| i > 0 && is_number(i - 1);
    const OTHER: &[&str] =
        &["weekend", "next week", "next month", "yesterday", "周 末", "昨 天", "下 个 月"];
    const EVERY: &[&str] = &["daily", "weekdays", "工 作 日"];
    if has_any(&joined, EVERY) {
        return Some(Day::Every);
    }
    if has_any(&joined, OTHER) {
        return Some(Day::Other);
    }
    let found = (0..words.len()).find_map(|i| match at(i) {
        // Not `every light`.
        "every" => match at(i + 1) {
            "day" | "morning" | "afternoon" | "evening" | "night" | "week" | "hour" | "minute"
            | "other" | "half" => Some(Day::Every),
            next if WEEK.contains(&next) || is_number(i + 1) => Some(Day::Every),
            _ => None,
        },
        "每" => match at(i + 1) {
            "天" | "日" | "早" | "晚" | "周" | "星" | "小" | "分" | "隔" => {
                Some(Day::Every)
            }
            _ => is_number(i + 1).then_some(Day::Every),
        },
        "号" | "月" | "日" if after_number(i) => Some(Day::Other),
        month if MONTHS.contains(&month) && (is_number(i + 1) || after_number(i)) => {
            Some(Day::Other)
        }
        // That of the week after this one.
        "下" if matches!(at(i + 1), "周" | "星" | "礼") => Some(Day::Other),
        "下" if at(i + 1) == "个" && matches!(at(i + 2), "周" | "星" | "礼") => {
            Some(Day::Other)
        }
        // Not `2 周`, a length.
        "周" | "期" | "拜" if !after_number(i) => match (at(i + 1), number(at(i + 1))) {
            ("日" | "天", _) => Some(Day::Week(6)),
            (_, Some(day)) if (1.0..=6.0).contains(&day) => Some(Day::Week(day as i8 - 1)),
            _ => None,
        },
        word => WEEK.iter().position(|day| *day == word).map(|day| Day::Week(day as i8)),
    });
    let ahead = || AHEAD.iter().find(|(phrase, _)| has(&joined, phrase));
    found.or_else(|| ahead().map(|(_, days)| Day::In(*days)))
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
        long("三天后提醒我", Some(259_200.0));
        long("in two weeks", Some(1_209_600.0));
        long("明天", None);
        long("minus five minutes", Some(-300.0));
        long("负五分钟", Some(-300.0));
        long("in ten minutes to take a break of five minutes", None);
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
        at("at ten to seven", Some((6, 50)));
        at("quarter to one", Some((12, 45)));
        at("set an alarm for seven", Some((7, 0)));
        at("set an alarm for seven tomorrow", Some((7, 0)));
        at("set an alarm for 7 on monday", Some((7, 0)));
        at("tomorrow evening at eight", Some((20, 0)));
        at("今晚八点", Some((20, 0)));
        at("food for two in ten minutes", None);
        at("25:00", None);
        at("set an alarm", None);
    }

    #[track_caller]
    fn on(text: &str, expected: Option<Day>) {
        assert_eq!(day(&words(text)), expected, "{text}");
    }

    #[test]
    fn days() {
        on("tomorrow at seven", Some(Day::In(1)));
        on("the day after tomorrow", Some(Day::In(2)));
        on("tonight", Some(Day::In(0)));
        on("on monday", Some(Day::Week(0)));
        on("后天八点", Some(Day::In(2)));
        on("大后天", Some(Day::In(3)));
        on("星期一八点", Some(Day::Week(0)));
        on("周日早上", Some(Day::Week(6)));
        on("两周后", None);
        on("下周一", Some(Day::Other));
        on("on may 5", Some(Day::Other));
        on("五月三号", Some(Day::Other));
        on("every day at seven", Some(Day::Every));
        on("每天七点", Some(Day::Every));
        on("turn off every light", None);
        on("at seven", None);
    }
}
