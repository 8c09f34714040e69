//! What the assistant does about time: timers, alarms, the time and the date.

use jiff::{Timestamp, ToSpan, ZonedDateTime, civil::Date, tz};

use super::{Answer, Assistant, Language, Pending, pick, timers::Timer};
use crate::{
    home::grammar::ALL,
    when::{Clock, Day, clock, day, length},
    words::{has, has_any, joined, words},
};

/// Longest timer, in seconds: a month.
const LONGEST: f64 = 31.0 * 86_400.0;

/// What timers, alarms and reminders are called.
const NAMES: [&[&str]; 3] = [
    &["timer", "timers", "计 时", "定 时"],
    &["alarm", "alarms", "wake me", "闹 钟", "叫 我", "叫 醒"],
    &["reminder", "reminders", "remind me", "提 醒"],
];

/// Which of [`NAMES`] is said first.
pub(super) fn timer_named(whole: &str) -> Option<usize> {
    let place = |name: &&str| whole.find(&format!(" {name} "));
    let first = NAMES
        .iter()
        .enumerate()
        .filter_map(|(kind, names)| Some((names.iter().filter_map(place).min()?, kind)));
    first.min().map(|(_, kind)| kind)
}

pub(super) fn asks_time(whole: &str) -> bool {
    let phrases =
        ["what time", "the time", "what's the time", "几 点", "什 么 时 间", "现 在 时 间"];
    has_any(whole, &phrases)
}

pub(super) fn asks_date(whole: &str) -> bool {
    let phrases = [
        "what day",
        "the date",
        "what date",
        "today's date",
        "几 号",
        "星 期 几",
        "什 么 日 期",
        "几 月",
    ];
    has_any(whole, &phrases)
}

/// Those of `among` that are meant: by what they are called, their length or time, or else by most of the other words.
fn meant(among: &[Timer], list: &[String]) -> Vec<Timer> {
    const AROUND: &[&str] = &[
        "the", "a", "an", "my", "me", "to", "for", "at", "in", "on", "of", "up", "set", "1",
        "please", "cancel", "delete", "remove", "stop", "clear", "timer", "alarm", "reminder",
        "取", "消", "删", "除", "关", "掉", "闭", "把", "的", "个", "那", "这", "我", "定", "计",
        "时", "器", "闹", "钟", "提", "醒", "叫", "设", "点",
    ];
    let whole = joined(list);
    let of = |timer: &Timer| words(&timer.what);
    let mut left = among.to_vec();
    if let Some(kind) = timer_named(&whole) {
        left.retain(|timer| timer_named(&joined(&of(timer))).unwrap_or(0) == kind);
    }
    let (said_length, said_clock) = (length(list), clock(list));
    let hour = |clock: Clock| (clock.hour % 12, clock.minute);
    if said_length.is_some() {
        left.retain(|timer| length(&of(timer)) == said_length);
    } else if let Some(said) = said_clock {
        left.retain(|timer| clock(&of(timer)).map(hour) == Some(hour(said)));
    } else if !has_any(&whole, ALL) {
        let own = |word: &&String| !AROUND.contains(&word.as_str());
        let score = |timer: &Timer| {
            let of = of(timer);
            list.iter().filter(own).filter(|word| of.contains(word)).count()
        };
        let best = left.iter().map(score).max().unwrap_or(0);
        left.retain(|timer| score(timer) == best);
    }
    left
}

/// When what `list` says is due, in Unix milliseconds, and what to answer. Not due: it cannot be set. `None` where no time is
/// said.
fn due(
    now: &ZonedDateTime,
    list: &[String],
    language: Language,
) -> anyhow::Result<Option<(Option<i64>, String)>> {
    let refused = |en: &str, zh: &str| Ok(Some((None, pick(language, en, zh).to_string())));
    let (length, clock, day) = (length(list), clock(list), day(list));
    if day == Some(Day::Every) || day == Some(Day::Other) && length.is_none() {
        let en = "I can set it for once, within the next days: today, tomorrow, on Monday.";
        return refused(en, "只能设定一次，而且是最近几天：今天、明天、星期一。");
    }
    if length.is_some_and(|seconds| !(1.0..=LONGEST).contains(&seconds)) {
        return refused("A timer runs from a second to a month.", "只能从一秒到一个月。");
    }
    let days =
        |seconds: f64| (seconds % 86_400.0 == 0.0).then_some(Day::In(seconds as i64 / 86_400));
    let (clock, day) = match (length, clock) {
        (Some(seconds), None) => {
            let due = now.timestamp().as_millisecond() + (seconds * 1000.0) as i64;
            let length = told_length(seconds, language);
            let zh = format!("好的，{length}后提醒。");
            let said = pick(language, format!("Timer set: {length}."), zh);
            return Ok(Some((Some(due), said)));
        }
        // `in three days at eight`
        (Some(seconds), Some(clock)) => match days(seconds) {
            Some(day) => (clock, Some(day)),
            None => return refused("Say a length or a time, not both.", "请只说时长或者时间。"),
        },
        (None, Some(clock)) => (clock, day),
        (None, None) => return Ok(None),
    };
    let Some(at) = next(now, clock, day)? else {
        return refused("That time is over.", "那个时间已经过了。");
    };
    let shown = told_day(now, &at, language)?;
    let said = pick(language, format!("Alarm set for {shown}."), format!("闹钟设在{shown}。"));
    Ok(Some((Some(at.timestamp().as_millisecond()), said)))
}

impl Assistant<'_> {
    /// Timers, alarms, the time and the date, where the words say so.
    pub(super) fn about_time(
        &mut self,
        text: &str,
        list: &[String],
        whole: &str,
        language: Language,
    ) -> anyhow::Result<Option<Answer>> {
        if timer_named(whole).is_some() {
            // What to remind of is no order.
            const CONTENT: &[&str] = &["remind me", "wake me", "提 醒 我", "叫 我", "叫 醒 我"];
            let end = CONTENT.iter().filter_map(|phrase| whole.find(&format!(" {phrase} "))).min();
            let order = end.map_or(whole, |end| &whole[..=end]);
            let off =
                ["cancel", "delete", "remove", "stop", "clear", "取 消", "删 除", "关 掉", "关 闭"];
            if has_any(order, &off) {
                return self.cancel_timers(list, language).map(Some);
            }
            let asks = [
                "what", "which", "how long", "how much", "show", "list", "any", "哪 些", "还 有",
                "多 久",
            ];
            if has_any(order, &asks) {
                return Ok(Some(self.tell_timers(language)));
            }
            if let Some(answer) = self.set_timer(text, list, language)? {
                return Ok(Some(answer));
            }
            self.pending = Some(Pending::Timer(text.to_string()));
            let question = pick(language, "For how long, or for when?", "多长时间，或者几点？");
            return Ok(Some(("timer_set", question.into())));
        }
        Ok(match (asks_time(whole), asks_date(whole)) {
            (true, _) => Some(tell_time(whole, language)),
            (_, true) => Some(tell_date(whole, language)),
            _ => None,
        })
    }

    /// `None` where no time is said.
    pub(super) fn set_timer(
        &mut self,
        text: &str,
        list: &[String],
        language: Language,
    ) -> anyhow::Result<Option<Answer>> {
        let Some((due, said)) = due(&ZonedDateTime::now(), list, language)? else {
            return Ok(None);
        };
        if let Some(due) = due {
            let what = text.chars().filter(|c| !c.is_control()).take(200).collect();
            self.timers.set(Timer { due, what })?;
        }
        Ok(Some(("timer_set", said)))
    }

    /// Cancels what is meant, or asks for it.
    pub(super) fn cancel_timers(
        &mut self,
        list: &[String],
        language: Language,
    ) -> anyhow::Result<Answer> {
        let among = self.timers.list().to_vec();
        if among.is_empty() {
            return Ok(("timer_cancel", pick(language, "Nothing is set.", "没有设定。").into()));
        }
        let meant = meant(&among, list);
        if let Some(answer) = self.cancel(&meant, list, language)? {
            return Ok(answer);
        }
        let among = if meant.is_empty() { among } else { meant };
        let shown: Vec<&str> = among.iter().take(10).map(|timer| timer.what.as_str()).collect();
        let which = shown.join("; ");
        let question = pick(
            language,
            format!("Which one, or all: {which}?"),
            format!("哪一个，还是全部：{which}？"),
        );
        self.pending = Some(Pending::Cancel(among));
        Ok(("timer_cancel", question))
    }

    /// An answer to that question; `None` where something else is said.
    pub(super) fn cancel_answer(
        &mut self,
        among: &[Timer],
        list: &[String],
        whole: &str,
        language: Language,
    ) -> anyhow::Result<Option<Answer>> {
        const NEW: &[&str] = &[
            "set",
            "start",
            "remind me",
            "wake me",
            "what",
            "which",
            "how",
            "turn",
            "switch",
            "设",
            "提 醒 我",
            "叫 我",
            "叫 醒 我",
            "什 么",
            "几",
            "打 开",
            "多 久",
        ];
        if has_any(whole, NEW) {
            return Ok(None);
        }
        let answer = self.cancel(&meant(among, list), list, language)?;
        let en = "I still do not know which one, so I have cancelled none.";
        let unclear = pick(language, en, "还是不清楚，什么都没取消。");
        Ok(Some(answer.unwrap_or_else(|| ("timer_cancel", unclear.into()))))
    }

    /// `None` where it is not clear which.
    fn cancel(
        &mut self,
        meant: &[Timer],
        list: &[String],
        language: Language,
    ) -> anyhow::Result<Option<Answer>> {
        if meant.is_empty() || meant.len() > 1 && !has_any(&joined(list), ALL) {
            return Ok(None);
        }
        self.timers.cancel(meant)?;
        let what: Vec<&str> = meant.iter().take(10).map(|timer| timer.what.as_str()).collect();
        let (what, count) = (what.join("; "), meant.len());
        let en = format!("Cancelled {count}: {what}.");
        Ok(Some(("timer_cancel", pick(language, en, format!("取消了{count}个：{what}。")))))
    }

    pub(super) fn tell_timers(&self, language: Language) -> Answer {
        let now = Timestamp::now().as_millisecond();
        let one = |timer: &Timer| {
            let left = told_length(((timer.due - now) as f64 / 1000.0).max(0.0), language);
            pick(
                language,
                format!("{left} left ({})", timer.what),
                format!("还有{left}（{}）", timer.what),
            )
        };
        let all: Vec<String> = self.timers.list().iter().take(10).map(one).collect();
        (
            "timer_query",
            match all.is_empty() {
                true => pick(language, "Nothing is set.", "没有设定。").into(),
                false => all.join("; "),
            },
        )
    }
}

fn told_length(seconds: f64, language: Language) -> String {
    let all = seconds.round() as u64;
    let parts = [
        (all / 86_400, "d", "天"),
        (all / 3600 % 24, "h", "小时"),
        (all / 60 % 60, "min", "分"),
        (all % 60, "s", "秒"),
    ];
    let shown = parts.iter().filter(|(n, ..)| *n > 0);
    let shown: Vec<String> =
        shown.map(|(n, en, zh)| pick(language, format!("{n} {en}"), format!("{n}{zh}"))).collect();
    match shown.is_empty() {
        true => pick(language, "0 s", "0秒").into(),
        false => shown.join(pick(language, " ", "")),
    }
}

/// A time with its day.
fn told_day(now: &ZonedDateTime, at: &ZonedDateTime, language: Language) -> anyhow::Result<String> {
    let time = at.strftime("%H:%M");
    let (month, day, weekday) = (at.month(), at.day(), weekday(at.date()));
    let date = at.strftime("%A, %-d %B");
    Ok(match (now.date().until(at.date())?.get_days(), language) {
        (0, Language::En) => format!("{time} today"),
        (1, Language::En) => format!("{time} tomorrow"),
        (_, Language::En) => format!("{time} on {date}"),
        (0, Language::Zh) => format!("今天{time}"),
        (1, Language::Zh) => format!("明天{time}"),
        (_, Language::Zh) => format!("{month}月{day}日星期{weekday}{time}"),
    })
}

/// In Chinese.
fn weekday(date: Date) -> &'static str {
    ["一", "二", "三", "四", "五", "六", "日"][date.weekday().to_monday_zero_offset() as usize]
}

/// The next time that a clock shows it, on the day that was said; the nearer half of the day where none was said. `None`
/// where that is over.
fn next(
    now: &ZonedDateTime,
    clock: Clock,
    day: Option<Day>,
) -> anyhow::Result<Option<ZonedDateTime>> {
    let at = |hour: u8, days: i64| -> anyhow::Result<ZonedDateTime> {
        let date = now.date().checked_add(days.days())?;
        Ok(date
            .at(hour as i8, clock.minute as i8, 0, 0)
            .to_zoned_datetime(now.time_zone().clone())?)
    };
    let hours =
        if clock.exact { vec![clock.hour] } else { vec![clock.hour % 12, clock.hour % 12 + 12] };
    let days = match day {
        None => vec![0, 1],
        Some(Day::In(days)) => vec![days],
        Some(Day::Week(day)) => {
            let today = now.date().weekday().to_monday_zero_offset();
            let ahead = i64::from((day - today).rem_euclid(7));
            vec![ahead, ahead + 7]
        }
        Some(Day::Other | Day::Every) => vec![],
    };
    let mut all = vec![];
    for days in days {
        for hour in &hours {
            all.push(at(*hour, days)?);
        }
    }
    all.sort();
    Ok(all.into_iter().find(|at| at > now))
}

/// Cities in Chinese, and the time zones that they are in.
const CITIES: &[(&str, &str)] = &[
    ("北 京", "Asia/Shanghai"),
    ("上 海", "Asia/Shanghai"),
    ("广 州", "Asia/Shanghai"),
    ("深 圳", "Asia/Shanghai"),
    ("香 港", "Asia/Hong_Kong"),
    ("澳 门", "Asia/Macau"),
    ("台 北", "Asia/Taipei"),
    ("东 京", "Asia/Tokyo"),
    ("大 阪", "Asia/Tokyo"),
    ("首 尔", "Asia/Seoul"),
    ("新 加 坡", "Asia/Singapore"),
    ("曼 谷", "Asia/Bangkok"),
    ("雅 加 达", "Asia/Jakarta"),
    ("新 德 里", "Asia/Kolkata"),
    ("孟 买", "Asia/Kolkata"),
    ("迪 拜", "Asia/Dubai"),
    ("莫 斯 科", "Europe/Moscow"),
    ("伊 斯 坦 布 尔", "Europe/Istanbul"),
    ("柏 林", "Europe/Berlin"),
    ("巴 黎", "Europe/Paris"),
    ("伦 敦", "Europe/London"),
    ("罗 马", "Europe/Rome"),
    ("马 德 里", "Europe/Madrid"),
    ("维 也 纳", "Europe/Vienna"),
    ("苏 黎 世", "Europe/Zurich"),
    ("开 罗", "Africa/Cairo"),
    ("纽 约", "America/New_York"),
    ("华 盛 顿", "America/New_York"),
    ("波 士 顿", "America/New_York"),
    ("多 伦 多", "America/Toronto"),
    ("芝 加 哥", "America/Chicago"),
    ("洛 杉 矶", "America/Los_Angeles"),
    ("旧 金 山", "America/Los_Angeles"),
    ("西 雅 图", "America/Los_Angeles"),
    ("温 哥 华", "America/Vancouver"),
    ("墨 西 哥 城", "America/Mexico_City"),
    ("圣 保 罗", "America/Sao_Paulo"),
    ("悉 尼", "Australia/Sydney"),
    ("墨 尔 本", "Australia/Melbourne"),
    ("奥 克 兰", "Pacific/Auckland"),
];
/// What a question for the time here is made of.
const HERE: &[&str] = &[
    "现", "在", "几", "点", "钟", "了", "呢", "啊", "呀", "吗", "请", "问", "什", "么", "时", "间",
    "候", "是", "告", "诉", "我", "你", "您", "好", "知", "道", "一", "下", "当", "前", "这", "里",
    "们", "的", "多", "少", "今", "天", "到", "说", "看", "报", "本", "地", "?", ",",
];

/// The time here, or in a city that is named.
pub(super) fn tell_time(whole: &str, language: Language) -> Answer {
    let now = ZonedDateTime::now();
    let chinese = CITIES.iter().find(|(city, _)| has(whole, city));
    if let Some((city, zone)) = chinese
        && let Ok(there) = now.in_tz(zone)
    {
        return ("time", format!("{}现在{}。", city.replace(' ', ""), there.strftime("%H:%M")));
    }
    let city = tz::db().available().find_map(|name| {
        let name = name.as_str();
        let city = name.rsplit('/').next()?.replace('_', " ").to_lowercase();
        (name.contains('/') && has(whole, &format!("in {city}"))).then(|| name.to_string())
    });
    if let Some(there) = city.as_deref().and_then(|name| now.in_tz(name).ok()) {
        let name = city.as_deref().unwrap_or_default();
        return ("time", format!("It is {} in {name}.", there.strftime("%H:%M")));
    }
    let elsewhere = match language {
        Language::En => has_any(whole, &["time in", "it in"]),
        Language::Zh => whole.split_whitespace().any(|word| !HERE.contains(&word)),
    };
    if elsewhere {
        let en = "I know no time zone of that name.";
        return ("time", pick(language, en, "我不知道那里的时间。").into());
    }
    let shown = now.strftime("%H:%M");
    ("time", pick(language, format!("It is {shown}."), format!("现在{shown}。")))
}

pub(super) fn tell_date(whole: &str, language: Language) -> Answer {
    let days = match () {
        _ if has_any(whole, &["tomorrow", "明 天"]) => 1,
        _ if has_any(whole, &["yesterday", "昨 天"]) => -1,
        _ => 0,
    };
    let today = ZonedDateTime::now().date();
    let date = today.checked_add(days.days()).unwrap_or(today);
    let (year, month, day, weekday) = (date.year(), date.month(), date.day(), weekday(date));
    let zh = format!("{year}年{month}月{day}日，星期{weekday}。");
    ("date", pick(language, date.strftime("%A, %-d %B %Y.").to_string(), zh))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_of_the_day() {
        let now: ZonedDateTime = "2026-03-01T18:40[UTC]".parse().unwrap();
        let at = |hour, minute, exact| {
            let at = next(&now, Clock { hour, minute, exact }, None).unwrap().unwrap();
            at.strftime("%d %H:%M").to_string()
        };
        assert_eq!(at(7, 0, false), "01 19:00");
        assert_eq!(at(6, 30, false), "02 06:30");
        assert_eq!(at(7, 0, true), "02 07:00");
        assert_eq!(at(23, 59, true), "01 23:59");
    }

    /// What is said on a Saturday evening: when it rings, and the answer.
    #[track_caller]
    fn on_saturday(text: &str, rings: Option<&str>, answer: &str) {
        let now: ZonedDateTime = "2026-11-28T18:22[UTC]".parse().unwrap();
        let (due, said) = due(&now, &words(text), Language::of(text)).unwrap().expect(text);
        let due = due.map(|due| {
            let at = Timestamp::from_millisecond(due).unwrap().in_tz("UTC").unwrap();
            at.strftime("%a %d %H:%M").to_string()
        });
        assert_eq!((due.as_deref(), said.as_str()), (rings, answer), "{text}");
    }

    #[test]
    fn alarms_have_a_day() {
        let tomorrow = "Alarm set for 07:00 tomorrow.";
        for text in [
            "wake me up at seven tomorrow morning",
            "set an alarm for tomorrow at seven",
            "set an alarm for seven tomorrow",
            "wake me up at 7 am",
        ] {
            on_saturday(text, Some("Sun 29 07:00"), tomorrow);
        }
        on_saturday("wake me up at 7", Some("Sat 28 19:00"), "Alarm set for 19:00 today.");
        on_saturday(
            "remind me tonight at nine",
            Some("Sat 28 21:00"),
            "Alarm set for 21:00 today.",
        );
        let monday = "Alarm set for 07:00 on Monday, 30 November.";
        on_saturday("set an alarm for 7 on monday", Some("Mon 30 07:00"), monday);
        let saturday = "Alarm set for 06:00 on Saturday, 5 December.";
        on_saturday("wake me at 6 am on saturday", Some("Sat 05 06:00"), saturday);
        let tuesday = "Alarm set for 08:00 on Tuesday, 1 December.";
        on_saturday("remind me in three days at eight", Some("Tue 01 08:00"), tuesday);
        on_saturday("明天早上七点叫醒我", Some("Sun 29 07:00"), "闹钟设在明天07:00。");
        on_saturday("今晚八点提醒我", Some("Sat 28 20:00"), "闹钟设在今天20:00。");
        on_saturday("后天八点提醒我", Some("Mon 30 08:00"), "闹钟设在11月30日星期一08:00。");
        on_saturday("星期一八点提醒我", Some("Mon 30 08:00"), "闹钟设在11月30日星期一08:00。");
        on_saturday("三天后提醒我", Some("Tue 01 18:22"), "好的，3天后提醒。");
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let long = "A timer runs from a second to a month.";
        let once = "I can set it for once, within the next days: today, tomorrow, on Monday.";
        on_saturday("set a timer for minus five minutes", None, long);
        on_saturday("set a timer for -5 minutes", None, long);
        on_saturday("wake me up at 6 am today", None, "That time is over.");
        on_saturday("wake me up at seven every day", None, once);
        on_saturday("wake me up at seven on the weekend", None, once);
        on_saturday("每天七点叫我", None, "只能设定一次，而且是最近几天：今天、明天、星期一。");
        let both = "Say a length or a time, not both.";
        on_saturday("set a timer for ten minutes at seven", None, both);
    }

    #[test]
    fn the_timer_that_is_meant() {
        let timer = |what: &str| Timer { due: 0, what: what.into() };
        let among = [
            timer("set a timer for five minutes"),
            timer("set a timer for one hour"),
            timer("wake me up at 7 am"),
            timer("remind me to call mum at 5 pm"),
            timer("下午三点提醒我开会"),
        ];
        for (text, expected) in [
            ("cancel the timer", vec![0, 1]),
            ("cancel the five minute timer", vec![0]),
            ("the hour", vec![1]),
            ("cancel the alarm", vec![2]),
            ("cancel the reminder to call mum", vec![3]),
            ("the one at five", vec![3]),
            ("cancel all timers", vec![0, 1]),
            ("all of them", vec![0, 1, 2, 3, 4]),
            ("取消闹钟", vec![2]),
            ("取消开会的提醒", vec![4]),
            ("取消三点的提醒", vec![4]),
            ("cancel the seven minute timer", vec![]),
        ] {
            let expected: Vec<Timer> = expected.iter().map(|i: &usize| among[*i].clone()).collect();
            assert_eq!(meant(&among, &words(text)), expected, "{text}");
        }
    }
}
