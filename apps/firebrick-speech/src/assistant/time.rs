//! What the assistant does about time: timers, alarms, the time and the date.

use jiff::{Timestamp, ToSpan, ZonedDateTime, tz};

use super::{
    Answer, Assistant, Language, Pending, pick,
    timers::Timer,
    when::{Clock, clock, length},
};
use crate::words::{has, has_any};

/// Longest timer, in seconds: a month.
const LONGEST: f64 = 31.0 * 86_400.0;

impl Assistant<'_> {
    /// Timers, alarms, the time and the date, where the words say so.
    pub(super) fn about_time(
        &mut self,
        text: &str,
        list: &[String],
        whole: &str,
        language: Language,
    ) -> anyhow::Result<Option<Answer>> {
        const TIMERS: &[&str] = &[
            "timer",
            "timers",
            "alarm",
            "alarms",
            "remind me",
            "wake me",
            "wake me up",
            "计 时",
            "闹 钟",
            "提 醒",
            "叫 我",
            "定 时",
        ];
        if has_any(whole, TIMERS) {
            let off =
                ["cancel", "delete", "remove", "stop", "clear", "取 消", "删 除", "关 掉", "关 闭"];
            if has_any(whole, &off) {
                return self.cancel_timers(language).map(Some);
            }
            let asks = [
                "what", "which", "how long", "how much", "show", "list", "any", "哪 些", "还 有",
                "多 久",
            ];
            if has_any(whole, &asks) {
                return Ok(Some(self.tell_timers(language)));
            }
            if let Some(answer) = self.set_timer(text, list, language)? {
                return Ok(Some(answer));
            }
            self.pending = Some(Pending::Timer);
            let question = pick(language, "For how long, or for when?", "多长时间，或者几点？");
            return Ok(Some(("timer_set", question.into())));
        }
        let time =
            ["what time", "the time", "what's the time", "几 点", "什 么 时 间", "现 在 时 间"];
        let date = [
            "what day",
            "the date",
            "what date",
            "today's date",
            "几 号",
            "星 期 几",
            "什 么 日 期",
            "几 月",
        ];
        Ok(match (has_any(whole, &time), has_any(whole, &date)) {
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
        let now = ZonedDateTime::now();
        let what: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        let (due, said) = if let Some(seconds) = length(list) {
            if !(1.0..=LONGEST).contains(&seconds) {
                let text = pick(
                    language,
                    "A timer runs from a second to a month.",
                    "只能从一秒到一个月。",
                );
                return Ok(Some(("timer_set", text.into())));
            }
            let due = now.timestamp().as_millisecond() + (seconds * 1000.0) as i64;
            let length = told_length(seconds, language);
            (
                due,
                pick(language, format!("Timer set: {length}."), format!("好的，{length}后提醒。")),
            )
        } else if let Some(clock) = clock(list) {
            let at = next(&now, clock)?;
            let shown = at.strftime("%H:%M").to_string();
            let text =
                pick(language, format!("Alarm set for {shown}."), format!("闹钟设在{shown}。"));
            (at.timestamp().as_millisecond(), text)
        } else {
            return Ok(None);
        };
        self.timers.set(Timer { due, what })?;
        Ok(Some(("timer_set", said)))
    }

    pub(super) fn cancel_timers(&mut self, language: Language) -> anyhow::Result<Answer> {
        let count = self.timers.cancel()?;
        let en = format!("Cancelled: {count}.");
        Ok(("timer_cancel", pick(language, en, format!("取消了{count}个。"))))
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

/// The next time that a clock shows it; the nearer half of the day where none was said.
fn next(now: &ZonedDateTime, clock: Clock) -> anyhow::Result<ZonedDateTime> {
    let at = |hour: u8, days: i64| -> anyhow::Result<ZonedDateTime> {
        let date = now.date().checked_add(days.days())?;
        Ok(date
            .at(hour as i8, clock.minute as i8, 0, 0)
            .to_zoned_datetime(now.time_zone().clone())?)
    };
    let hours =
        if clock.exact { vec![clock.hour] } else { vec![clock.hour % 12, clock.hour % 12 + 12] };
    let mut all = vec![];
    for days in [0, 1] {
        for hour in &hours {
            all.push(at(*hour, days)?);
        }
    }
    all.sort();
    all.into_iter().find(|at| at > now).ok_or_else(|| anyhow::anyhow!("no such time of the day"))
}

/// The time here, or in a city that a time zone is named by.
pub(super) fn tell_time(whole: &str, language: Language) -> Answer {
    let now = ZonedDateTime::now();
    let city = tz::db().available().find_map(|name| {
        let name = name.as_str();
        let city = name.rsplit('/').next()?.replace('_', " ").to_lowercase();
        (name.contains('/') && has(whole, &format!("in {city}"))).then(|| name.to_string())
    });
    if let Some(there) = city.as_deref().and_then(|name| now.in_tz(name).ok()) {
        let name = city.as_deref().unwrap_or_default();
        return ("time", format!("It is {} in {name}.", there.strftime("%H:%M")));
    }
    if has_any(whole, &["time in", "it in"]) {
        return ("time", "I know no time zone of that name.".into());
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
    const ZH: [&str; 7] = ["一", "二", "三", "四", "五", "六", "日"];
    let weekday = ZH[date.weekday().to_monday_zero_offset() as usize];
    let zh = format!("{}年{}月{}日，星期{weekday}。", date.year(), date.month(), date.day());
    ("date", pick(language, date.strftime("%A, %-d %B %Y.").to_string(), zh))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_of_the_day() {
        let now: ZonedDateTime = "2026-03-01T18:40[UTC]".parse().unwrap();
        let at = |hour, minute, exact| {
            next(&now, Clock { hour, minute, exact }).unwrap().strftime("%d %H:%M").to_string()
        };
        assert_eq!(at(7, 0, false), "01 19:00");
        assert_eq!(at(6, 30, false), "02 06:30");
        assert_eq!(at(7, 0, true), "02 07:00");
        assert_eq!(at(23, 59, true), "01 23:59");
    }
}
