//! What somebody said as words that can be compared: small letters, Chinese characters one by one, and every number as
//! digits, however it was said.
//!
//! ```
//! use firebrick_speech::words::words;
//!
//! assert_eq!(words("Twenty-one and a half degrees!"), ["21.5", "degrees"]);
//! assert_eq!(words("把灯调到百分之三十"), ["把", "灯", "调", "到", "30", "%"]);
//! assert_eq!(words("3,000 m at 7:05pm"), ["3000", "m", "at", "7", ":", "5", "pm"]);
//! ```

/// Longest text that is looked at, in characters; nobody says more at a time.
const LONGEST: usize = 2000;

/// The words of `text`. Full stops, commas and the like are one `,`, but a question mark is `?`.
pub fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let spoken = english(raw(&chars));
    let mut spoken = chinese(spoken);
    while spoken.last().is_some_and(|word| word == ",") {
        spoken.pop();
    }
    spoken
}

/// The words with a space around each, for [`has`].
pub fn joined(words: &[String]) -> String {
    format!(" {} ", words.join(" "))
}

/// Whether whole words are among those of [`joined`].
pub fn has(joined: &str, phrase: &str) -> bool {
    joined.contains(&format!(" {phrase} "))
}

/// Whether one of the phrases is.
pub fn has_any(joined: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| has(joined, phrase))
}

/// The number that a word is.
pub fn number(word: &str) -> Option<f64> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    word.chars().all(digits).then(|| word.parse().ok()).flatten()
}

fn shown(number: f64) -> String {
    // Shortest digits that are the number: 21.5, not 21.50.
    format!("{}", (number * 1e6).round() / 1e6)
}

fn is_wide(c: char) -> bool {
    ('\u{2e80}'..='\u{9fff}').contains(&c) || ('\u{f900}'..='\u{faff}').contains(&c)
}

fn raw(chars: &[char]) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    let mut i = 0;
    let at = |i: usize| chars.get(i).copied().unwrap_or(' ');
    while i < chars.len() {
        let c = chars[i];
        let start = i;
        i += 1;
        if c.is_ascii_digit() {
            let mut digits = String::from(c);
            loop {
                let three =
                    (1..4).all(|k| at(i + k).is_ascii_digit()) && !at(i + 4).is_ascii_digit();
                match at(i) {
                    d if d.is_ascii_digit() => digits.push(d),
                    '.' if at(i + 1).is_ascii_digit() && !digits.contains('.') => digits.push('.'),
                    ',' if three && !digits.contains('.') => {}
                    _ => break,
                }
                i += 1;
            }
            words.push(digits.parse().map_or(digits, shown));
        } else if is_wide(c) {
            // Full stops among them are below.
            words.push(if matches!(c, '。' | '、') { ','.into() } else { c.into() });
        } else if c.is_alphabetic() {
            while at(i).is_alphabetic() && !is_wide(at(i))
                || matches!(at(i), '\'' | '’') && at(i + 1).is_alphabetic()
            {
                i += 1;
            }
            let word: String = chars[start..i].iter().collect();
            words.push(word.replace('’', "'"));
        } else {
            match c {
                '?' | '？' => words.push("?".into()),
                ',' | '.' | ';' | '!' | '，' | '；' | '！' => words.push(",".into()),
                '％' => words.push("%".into()),
                '：' => words.push(":".into()),
                // A hyphen between letters is none of arithmetic.
                '-' if start > 0 && chars[start - 1].is_alphabetic() => {}
                '%' | '°' | '+' | '-' | '*' | '/' | '×' | '÷' | '^' | '(' | ')' | ':' | '√'
                | '=' => words.push(c.into()),
                '−' => words.push("-".into()),
                '℃' => words.extend(["°".into(), "c".into()]),
                '℉' => words.extend(["°".into(), "f".into()]),
                '½' => words.push("0.5".into()),
                _ => {}
            }
        }
    }
    words
}

const UNITS: &[&str] = &[
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: &[&str] =
    &["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

fn small(word: &str) -> Option<f64> {
    UNITS.iter().position(|unit| *unit == word).map(|place| place as f64)
}

fn scale(word: &str) -> Option<f64> {
    match word {
        "hundred" => Some(100.0),
        "thousand" => Some(1000.0),
        "million" => Some(1e6),
        "billion" => Some(1e9),
        _ => None,
    }
}

/// Number words to digits.
fn english(words: Vec<String>) -> Vec<String> {
    let mut out = vec![];
    let mut i = 0;
    while i < words.len() {
        match spelled(&words[i..]) {
            Some((number, taken)) => {
                out.push(shown(number));
                i += taken;
            }
            None => {
                out.push(words[i].clone());
                i += 1;
            }
        }
    }
    out
}

/// A number at the start of `words`, and of how many words it is.
fn spelled(words: &[String]) -> Option<(f64, usize)> {
    let at = |i: usize| words.get(i).map_or("", String::as_str);
    let tens =
        |word: &str| TENS.iter().position(|ten| *ten == word).map(|i| 20.0 + 10.0 * i as f64);
    let (mut total, mut part, mut i) = (0.0, 0.0, 0);
    // What the last word leaves room for: nothing, ones after tens, anything after a scale.
    let mut room = f64::INFINITY;
    if let Some(digits) = number(at(0)) {
        (part, i, room) = (digits, 1, 0.0);
    } else if matches!(at(0), "a" | "an") && scale(at(1)).is_some() {
        (part, i, room) = (1.0, 1, 0.0);
    }
    loop {
        let word = if i > 0 && at(i) == "and" && room > 0.0 { at(i + 1) } else { at(i) };
        let skipped = usize::from(i > 0 && at(i) == "and" && room > 0.0);
        let next = small(word).or_else(|| tens(word));
        if let Some(value) = next.filter(|value| *value < room) {
            // `and` is within a number only after a hundred.
            if skipped == 1 && (part < 100.0 && total == 0.0) {
                break;
            }
            part += value;
            room = if tens(word).is_some() { 10.0 } else { 0.0 };
            i += 1 + skipped;
        } else if let Some(scale) = scale(at(i)).filter(|_| i > 0) {
            if scale == 100.0 {
                part *= scale;
            } else {
                total += part * scale;
                part = 0.0;
            }
            room = 100.0;
            i += 1;
        } else {
            break;
        }
    }
    if i == 0 {
        return None;
    }
    let mut number = total + part;
    if at(i) == "point" && small(at(i + 1)).is_some_and(|digit| digit < 10.0) {
        i += 1;
        let mut place = 0.1;
        while let Some(digit) = small(at(i)).filter(|digit| *digit < 10.0) {
            number += digit * place;
            place /= 10.0;
            i += 1;
        }
    } else if [at(i), at(i + 1), at(i + 2)] == ["and", "a", "half"] {
        number += 0.5;
        i += 3;
    }
    Some((number, i))
}

fn digit(word: &str) -> Option<f64> {
    let place = "零一二三四五六七八九".chars().position(|c| word.chars().eq([c]));
    match word {
        "两" => Some(2.0),
        "〇" => Some(0.0),
        _ => place.map(|place| place as f64),
    }
}

/// Chinese numerals to digits, `百分之` and a number to the number and `%`.
fn chinese(words: Vec<String>) -> Vec<String> {
    let at = |i: usize| words.get(i).map_or("", String::as_str);
    let mut out = vec![];
    let mut i = 0;
    while i < words.len() {
        let percent = [at(i), at(i + 1), at(i + 2)] == ["百", "分", "之"];
        let from = if percent { i + 3 } else { i };
        // A week day is one digit: 星期一八点.
        let weekday = i > 0 && matches!(at(i - 1), "期" | "周" | "拜");
        // `亮一点` is no number; `一点钟` and `一点半` are.
        let little = at(i) == "一"
            && !weekday
            && (matches!(at(i + 1), "些" | "下" | "会" | "样" | "起" | "定" | "直")
                || at(i + 1) == "点" && !clock(at(i + 2)));
        let to = if weekday { words.len().min(from + 1) } else { words.len() };
        match numeral(&words[from..to]).filter(|_| !little) {
            Some((number, taken)) => {
                out.push(shown(number));
                out.extend(percent.then(|| "%".to_string()));
                i = from + taken;
            }
            None if percent && number(at(from)).is_some() => {
                out.extend([words[from].clone(), "%".into()]);
                i = from + 1;
            }
            None => {
                out.push(words[i].clone());
                i += 1;
            }
        }
    }
    out
}

/// What comes after `点` where it is a time of the day.
fn clock(word: &str) -> bool {
    matches!(word, "钟" | "半" | "整" | "十") || digit(word).is_some()
}

fn numeral(words: &[String]) -> Option<(f64, usize)> {
    let at = |i: usize| words.get(i).map_or("", String::as_str);
    let (mut total, mut part, mut last, mut i) = (0.0, 0.0, None, 0);
    loop {
        let scale = match at(i) {
            "十" => 10.0,
            "百" => 100.0,
            "千" => 1000.0,
            "万" => 1e4,
            word => match digit(word) {
                // Two digits in a row are read one by one: 二零二六.
                Some(value) => {
                    last = Some(last.map_or(value, |before: f64| before * 10.0 + value));
                    i += 1;
                    continue;
                }
                None => break,
            },
        };
        if scale == 1e4 {
            total += (part + last.unwrap_or(0.0)).max(1.0) * scale;
            part = 0.0;
        } else {
            part += last.unwrap_or(1.0) * scale;
        }
        last = None;
        i += 1;
    }
    if i == 0 {
        return None;
    }
    let mut number = total + part + last.unwrap_or(0.0);
    // A decimal point, unless it is a time of the day: 七点五分, 三点一刻.
    let digits = (i + 1..words.len()).take_while(|k| digit(at(*k)).is_some()).count();
    let after = at(i + 1 + digits);
    if at(i) == "点" && digits > 0 && !matches!(after, "分" | "刻" | "十") {
        for k in 0..digits {
            number += digit(at(i + 1 + k)).unwrap_or(0.0) * 0.1f64.powi(k as i32 + 1);
        }
        i += 1 + digits;
    }
    Some((number, i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(words(text).join(" "), expected);
    }

    #[test]
    fn english_numbers() {
        check("one hundred and five", "105");
        check("a hundred", "100");
        check("two thousand three hundred", "2300");
        check("three point one four", "3.14");
        check("one and two", "1 and 2");
        check("five and twenty", "5 and 20");
        check("3 million", "3000000");
        check("twenty two", "22");
        check("nine thirty", "9 30");
        check("a light and a lamp", "a light and a lamp");
        check("2.5%", "2.5 %");
        check("don't", "don't");
    }

    #[test]
    fn chinese_numbers() {
        check("二十一点五度", "21.5 度");
        check("一百零五", "105");
        check("三千二百", "3200");
        check("一万五千", "15000");
        check("十分钟", "10 分 钟");
        check("亮一点", "亮 一 点");
        check("七点半", "7 点 半");
        check("七点五分", "7 点 5 分");
        check("三点十五分", "3 点 15 分");
        check("百分之50", "50 %");
        check("两个", "2 个");
        check("星期一八点", "星 期 1 8 点");
        check("周一下午", "周 1 下 午");
    }

    /// Nothing that somebody types is too odd.
    #[test]
    fn odd_texts() {
        for text in [
            "",
            "\0\u{7f}",
            "....",
            "1.2.3.4",
            "１２",
            "点",
            "百分之",
            "周百分之",
            "and a half",
            "-",
            "😀",
        ] {
            words(text);
        }
        assert!(words(&"9".repeat(100_000)).len() <= 1);
    }
}
