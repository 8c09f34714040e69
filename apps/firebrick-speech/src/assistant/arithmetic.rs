//! Sums, as they are said: `what is twelve times three plus one`, `十二乘以三等于多少`.

use crate::words::number;

/// Brackets within brackets; nobody says more.
const DEEPEST: usize = 50;

/// Several words that are one sign; longest first.
const SIGNS: &[(&[&str], &str)] = &[
    (&["to", "the", "power", "of"], "^"),
    (&["the", "square", "root", "of"], "√"),
    (&["square", "root", "of"], "√"),
    (&["to", "the", "power"], "^"),
    (&["multiplied", "by"], "*"),
    (&["divided", "by"], "/"),
    (&["percent", "of"], "%*"),
    (&["%", "of"], "%*"),
    (&["的", "平", "方", "根"], "²√"),
    (&["的", "平", "方"], "²"),
    (&["平", "方"], "²"),
    (&["除", "以"], "/"),
    (&["乘", "以"], "*"),
    (&["减", "去"], "-"),
    (&["加", "上"], "+"),
    (&["squared"], "²"),
    (&["cubed"], "³"),
    (&["plus"], "+"),
    (&["minus"], "-"),
    (&["times"], "*"),
    (&["over"], "/"),
    (&["×"], "*"),
    (&["x"], "*"),
    (&["÷"], "/"),
    (&["乘"], "*"),
    (&["除"], "/"),
    (&["减"], "-"),
    (&["加"], "+"),
];

/// Words around a sum.
const AROUND: &[&str] = &[
    "what",
    "what's",
    "is",
    "whats",
    "calculate",
    "compute",
    "how",
    "much",
    "the",
    "result",
    "of",
    "equals",
    "equal",
    "to",
    "please",
    "=",
    "?",
    ",",
    "tell",
    "me",
    "can",
    "you",
    "请",
    "问",
    "计",
    "算",
    "一",
    "下",
    "等",
    "于",
    "多",
    "少",
    "是",
    "得",
    "几",
    "呢",
    "帮",
    "我",
];

/// The value of the sum that `words` are; `None` where they are none. Infinite or NaN where it has no value.
pub fn sum(words: &[String]) -> Option<f64> {
    let around = |word: &&String| AROUND.contains(&word.as_str());
    let front = words.iter().take_while(around).count();
    let words = &words[front..];
    let back = words.iter().rev().take_while(around).count();
    let mut signs: Vec<&str> = vec![];
    let mut rest = &words[..words.len() - back];
    while let Some(first) = rest.first() {
        let fits = |(phrase, _): &&(&[&str], &str)| {
            phrase.len() <= rest.len() && phrase.iter().zip(rest).all(|(a, b)| a == b)
        };
        match SIGNS.iter().find(fits) {
            Some((phrase, sign)) => {
                signs.push(sign);
                rest = &rest[phrase.len()..];
            }
            None => {
                signs.push(first);
                rest = &rest[1..];
            }
        }
    }
    // A number alone is no sum.
    if signs.len() < 2 {
        return None;
    }
    let mut parser = Parser { signs: &signs, depth: 0 };
    let value = parser.sum()?;
    parser.signs.is_empty().then_some(value)
}

/// sum = product (+ - product)*; product = power (* / power)*; power = factor (^ power)?
struct Parser<'a> {
    signs: &'a [&'a str],
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, wanted: &[&str]) -> Option<String> {
        let (first, rest) = self.signs.split_first()?;
        wanted.contains(first).then(|| {
            self.signs = rest;
            first.to_string()
        })
    }

    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product()?;
        while let Some(sign) = self.take(&["+", "-"]) {
            let next = self.product()?;
            value = if sign == "+" { value + next } else { value - next };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.power()?;
        while let Some(sign) = self.take(&["*", "/", "%*"]) {
            let next = self.power()?;
            value = match sign.as_str() {
                "*" => value * next,
                "/" => value / next,
                _ => value / 100.0 * next,
            };
        }
        Some(value)
    }

    fn power(&mut self) -> Option<f64> {
        let mut value = self.factor()?;
        while let Some(sign) = self.take(&["²", "³", "²√"]) {
            value = match sign.as_str() {
                "²" => value.powi(2),
                "³" => value.powi(3),
                _ => value.sqrt(),
            };
        }
        if self.take(&["^"]).is_some() {
            self.deeper()?;
            value = value.powf(self.power()?);
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<f64> {
        self.deeper()?;
        if self.take(&["-"]).is_some() {
            return Some(-self.factor()?);
        }
        if self.take(&["√"]).is_some() {
            return Some(self.factor()?.sqrt());
        }
        if self.take(&["("]).is_some() {
            let value = self.sum()?;
            self.take(&[")"])?;
            return Some(value);
        }
        let (first, rest) = self.signs.split_first()?;
        self.signs = rest;
        number(first)
    }

    /// So that no text is deeper than the stack.
    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= 20 * DEEPEST).then_some(())
    }
}

/// A number as it is told: ten digits at most, no zeros at its end.
pub fn told(value: f64) -> String {
    if value != 0.0 && !(1e-6..1e15).contains(&value.abs()) {
        return format!("{value:.6e}");
    }
    let whole = value.abs().max(1.0).log10().floor() as usize + 1;
    let text = format!("{value:.*}", 10usize.saturating_sub(whole));
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(sum(&words(text)).map(told).as_deref(), expected, "{text}");
    }

    #[test]
    fn sums() {
        check("What is twelve times three plus one?", Some("37"));
        check("1 + 2 * 3", Some("7"));
        check("(1 + 2) * 3", Some("9"));
        check("how much is twenty percent of 80", Some("16"));
        check("the square root of two", Some("1.414213562"));
        check("2 to the power of 10", Some("1024"));
        check("five squared minus three", Some("22"));
        check("minus three plus one", Some("-2"));
        check("3.5 divided by 7", Some("0.5"));
        check("十二乘以三等于多少", Some("36"));
        check("一百减去三十七是多少", Some("63"));
        check("九的平方根", Some("3"));
        check("1 divided by 0", Some("inf"));
        check("what is love", None);
        check("forty two", None);
        check("1 +", None);
        check("(1", None);
    }

    #[test]
    fn deep_sums_end() {
        assert_eq!(sum(&words(&"(".repeat(100_000))), None);
        assert_eq!(sum(&words(&"-".repeat(100_000))), None);
    }
}
