//! What a regular expression from a file may cost, before Oniguruma runs it.
//!
//! Oniguruma backtracks. A pattern such as `(a+)+$` takes time exponential in the text, and past ten
//! million steps the binding panics. So a pattern is taken only if at most one of its loops may be
//! given back piece by piece, and no loop stands in a loop: then its time grows at most with the
//! square of the text, with a factor that is counted here and bounds the text ([`text_limit`]).
//! Every pattern of the published tokenizers (GPT-2, GPT-4, Llama 3, Qwen 2, DeepSeek) is taken.

/// Longest pattern, in bytes.
const LENGTH_LIMIT: usize = 8192;

/// Groups and classes in each other.
const DEPTH_LIMIT: usize = 24;

/// Characters that the pattern spans when its counted repeats are written out.
const WIDTH_LIMIT: u64 = 10_000;

/// Ways of matching at one place, loops aside.
const CHOICES_LIMIT: u64 = 256;

/// Ways of matching around a loop that is given back.
const SQUARE_LIMIT: u64 = 16;

/// Steps that the patterns of a tokenizer may take on a text: one to two seconds.
const STEPS_LIMIT: u64 = 100_000_000;

/// What a pattern that is taken does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// Matches the empty text.
    pub nullable: bool,
    /// Its time is at most this many times the square of the text, over two; 0 when it is linear.
    pub square: u64,
}

/// Longest text, in bytes, for patterns whose squares add up to `square`; `None` when all are linear.
pub fn text_limit(square: u64) -> Option<usize> {
    (square > 0).then(|| (2 * STEPS_LIMIT / square).isqrt() as usize)
}

/// Checks a pattern.
pub fn check(pattern: &str) -> Result<Pattern, String> {
    if pattern.len() > LENGTH_LIMIT {
        return Err(format!("{} bytes long, above the limit of {LENGTH_LIMIT}", pattern.len()));
    }
    let chars: Vec<char> = pattern.chars().collect();
    let mut parser = Parser { chars: &chars, at: 0, depth: 0 };
    let (mut nullable, mut square, mut choices, mut width) = (false, 0u64, 0u64, 0u64);
    loop {
        let cost = parser.sequence()?;
        nullable |= cost.nullable;
        choices = choices.saturating_add(cost.choices);
        width = width.saturating_add(cost.width);
        match cost.loops {
            0 => {}
            1 => square = square.saturating_add(cost.choices),
            _ => return Err("it can try too many ways of matching the same text".into()),
        }
        if !parser.eat("|") {
            break;
        }
    }
    if parser.at < chars.len() {
        return Err("a closing bracket too many".into());
    }
    if square > SQUARE_LIMIT || choices > CHOICES_LIMIT {
        return Err("it can try too many ways of matching the same text".into());
    }
    if width > WIDTH_LIMIT {
        return Err("its repeats are too long".into());
    }
    Ok(Pattern { nullable, square })
}

/// What a part of a pattern can do.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Ways of matching, loops aside, that are tried when what follows them fails.
    choices: u64,
    /// The same at the end, where nothing has followed yet.
    open: u64,
    /// Loops that something which can fail follows: they are given back piece by piece.
    loops: u64,
    /// Loops at the end, which nothing has followed yet.
    tail: u64,
    width: u64,
    /// Matches the empty text.
    nullable: bool,
    can_fail: bool,
}

impl Cost {
    const EMPTY: Self =
        Self { choices: 1, open: 1, loops: 0, tail: 0, width: 0, nullable: true, can_fail: false };
    const CHAR: Self = Self { width: 1, nullable: false, can_fail: true, ..Self::EMPTY };
    const ANCHOR: Self = Self { can_fail: true, ..Self::EMPTY };

    fn then(self, next: Self) -> Self {
        let (given_back, tail, retried, open) = match next.can_fail {
            true => (self.tail, next.tail, self.open, next.open),
            false => (0, self.tail + next.tail, 1, self.open.saturating_mul(next.open)),
        };
        Self {
            choices: self.choices.saturating_mul(retried).saturating_mul(next.choices),
            open,
            loops: self.loops + given_back + next.loops,
            tail,
            width: self.width.saturating_add(next.width),
            nullable: self.nullable && next.nullable,
            can_fail: self.can_fail || next.can_fail,
        }
    }

    fn any_of(parts: &[Self]) -> Self {
        let sum = |field: fn(&Self) -> u64| parts.iter().map(field).fold(0, u64::saturating_add);
        let plain = parts.iter().all(|part| part.choices == 1 && part.loops == 0);
        Self {
            // A plain text that fails does so at its first character: some eight cost a step.
            choices: if plain { 1 + parts.len() as u64 / 8 } else { sum(|part| part.choices) },
            open: sum(|part| part.open),
            loops: parts.iter().map(|part| part.loops).max().unwrap_or(0),
            tail: parts.iter().map(|part| part.tail).max().unwrap_or(0),
            width: sum(|part| part.width),
            nullable: parts.iter().any(|part| part.nullable),
            can_fail: parts.iter().all(|part| part.can_fail),
        }
    }

    fn repeat(self, min: u64, max: Option<u64>) -> Result<Self, String> {
        let varied = self.choices > 1 || self.open > 1 || self.loops + self.tail > 0;
        if max != Some(1) && max != Some(0) && (varied || self.nullable) {
            return Err("a repeat of something that can match in several ways".into());
        }
        let ways = max.map_or(1, |max| max - min + 1);
        Ok(Self {
            choices: self.choices,
            open: if max == Some(1) { self.open + (1 - min) } else { ways },
            loops: self.loops,
            tail: self.tail + u64::from(max.is_none()),
            width: self.width.saturating_mul(max.unwrap_or(min).max(1)),
            nullable: self.nullable || min == 0,
            can_fail: self.can_fail && min > 0,
        })
    }
}

/// Reads as much of Oniguruma's syntax as tokenizers use; what it does not know is refused.
struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c));
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn alternatives(&mut self) -> Result<Cost, String> {
        let mut parts = vec![self.sequence()?];
        while self.eat("|") {
            parts.push(self.sequence()?);
        }
        Ok(Cost::any_of(&parts))
    }

    fn sequence(&mut self) -> Result<Cost, String> {
        let mut cost = Cost::EMPTY;
        while let Some(c) = self.peek() {
            if c == '|' || c == ')' {
                break;
            }
            let atom = self.atom()?;
            cost = cost.then(self.repeats(atom)?);
        }
        Ok(cost)
    }

    fn atom(&mut self) -> Result<Cost, String> {
        match self.next() {
            Some('(') => self.nested(Self::group),
            Some('[') => self.nested(Self::class),
            Some('\\') => self.escape(),
            Some('^' | '$') => Ok(Cost::ANCHOR),
            Some('*' | '+' | '?') => Err("a repeat of nothing".into()),
            _ => Ok(Cost::CHAR),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Cost, String>) -> Result<Cost, String> {
        if self.depth == DEPTH_LIMIT {
            return Err(format!("groups more than {DEPTH_LIMIT} deep"));
        }
        self.depth += 1;
        let cost = read(self);
        self.depth -= 1;
        cost
    }

    /// Behind `(`.
    fn group(&mut self) -> Result<Cost, String> {
        if self.peek() == Some('*') {
            return Err("a callout".into());
        }
        let mut look_around = false;
        if self.eat("?") {
            if self.eat("#") {
                while self.next().ok_or("a comment without end")? != ')' {}
                return Ok(Cost::EMPTY);
            }
            look_around = ["=", "!", "<=", "<!"].iter().any(|mark| self.eat(mark));
            if !look_around && !self.eat(":") && !self.eat(">") {
                if self.eat("<") {
                    while self.next().ok_or("a group's name without end")? != '>' {}
                } else {
                    while self.peek().is_some_and(|c| "im-".contains(c)) {
                        self.at += 1;
                    }
                    match self.next() {
                        Some(':') => {}
                        // Options for the rest of the group around it.
                        Some(')') => return Ok(Cost::EMPTY),
                        _ => return Err("a kind of group that is not supported".into()),
                    }
                }
            }
        }
        let cost = self.alternatives()?;
        if !self.eat(")") {
            return Err("a group without end".into());
        }
        match look_around {
            // What it has looked at is looked at again from the next place.
            true => Ok(Cost {
                loops: cost.loops + cost.tail,
                tail: 0,
                open: 1,
                nullable: true,
                can_fail: true,
                ..cost
            }),
            false => Ok(cost),
        }
    }

    /// Behind `[`.
    fn class(&mut self) -> Result<Cost, String> {
        self.eat("^");
        let mut first = true;
        loop {
            match self.next().ok_or("a class without end")? {
                ']' if !first => return Ok(Cost::CHAR),
                '[' => {
                    self.nested(Self::class)?;
                }
                '\\' => {
                    self.escape()?;
                }
                _ => {}
            }
            first = false;
        }
    }

    /// Behind `\`.
    fn escape(&mut self) -> Result<Cost, String> {
        match self.next().ok_or("a backslash at the end")? {
            '1'..='9' | 'k' | 'g' => Err("a reference to a group".into()),
            'A' | 'z' | 'Z' | 'b' | 'B' | 'G' | 'y' | 'Y' | 'K' => Ok(Cost::ANCHOR),
            'C' | 'M' | 'c' => Err("an escape that is not supported".into()),
            'p' | 'P' | 'x' | 'o' | 'u' if self.eat("{") => {
                while self.next().ok_or("a brace without end")? != '}' {}
                Ok(Cost::CHAR)
            }
            _ => Ok(Cost::CHAR),
        }
    }

    /// `*`, `+`, `?`, `{m,n}` behind an atom.
    fn repeats(&mut self, atom: Cost) -> Result<Cost, String> {
        let (min, max) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => match self.counts()? {
                Some(counts) => counts,
                None => return Ok(atom),
            },
            _ => return Ok(atom),
        };
        let counted = self.peek() == Some('}');
        self.at += 1;
        // Lazy or possessive; behind braces a `+` would be a second repeat.
        if !self.eat("?") && !counted {
            self.eat("+");
        }
        if self.peek().is_some_and(|c| "*+?".contains(c)) {
            return Err("a repeat of a repeat".into());
        }
        if self.peek() == Some('{') && self.counts()?.is_some() {
            return Err("a repeat of a repeat".into());
        }
        atom.repeat(min, max)
    }

    /// `{m}`, `{m,}`, `{,n}` and `{m,n}`: then stands at the closing brace. Other braces are text.
    fn counts(&mut self) -> Result<Option<(u64, Option<u64>)>, String> {
        let rest = &self.chars[self.at + 1..];
        let Some(len) = rest.iter().take(24).position(|c| *c == '}') else { return Ok(None) };
        let text: String = rest[..len].iter().collect();
        let (min, max) = text.split_once(',').unwrap_or((&text, &text));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !digits(min) || !digits(max) || (min.is_empty() && max.is_empty()) {
            return Ok(None);
        }
        let number = |text: &str| match text.parse::<u64>() {
            Ok(n) if n <= 1000 => Ok(n),
            _ => Err(format!("a repeat of {text}, above the limit of 1000")),
        };
        let min = if min.is_empty() { 0 } else { number(min)? };
        let max = if max.is_empty() { None } else { Some(number(max)?) };
        if max.is_some_and(|max| max < min) {
            return Err("a repeat from more to less".into());
        }
        self.at += 1 + len;
        Ok(Some((min, max)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use tokenizers::{PreTokenizedString, PreTokenizer, pre_tokenizers::split::Split};

    use super::*;

    #[track_caller]
    fn check_taken(pattern: &str) {
        check(pattern).unwrap_or_else(|problem| panic!("{pattern}: {problem}"));
    }

    #[test]
    fn patterns_in_use_are_taken() {
        // GPT-2
        check_taken(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+");
        // GPT-4, Llama 3
        check_taken(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        );
        // GPT-4o
        check_taken(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        );
        // DeepSeek
        check_taken(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        );
        // BLOOM, CLIP, thousands
        check_taken(r" ?[^(\s|[.,!?…。，、।۔،])]+");
        check_taken(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+");
        check_taken(r"(?=(\d{3})+(?!\d))");
        check_taken(r"\s+$");
        check_taken(r" {2,}");
        check_taken(r"a{b");
    }

    #[test]
    fn squares_are_counted() {
        let square = |pattern: &str| check(pattern).unwrap().square;
        assert_eq!(square(r" ?\p{L}+| ?[^\s\p{L}]+[\r\n]*|\p{N}{1,3}|[^a]?b+(?i:'s|'t)?"), 0);
        assert_eq!(square(r"\s*[\r\n]+|\s+(?!\S)|\s+"), 2);
        assert_eq!(square(r"[^\r]?\p{Lu}*\p{Ll}+(?i:'s|'t)?"), 2);
        assert_eq!(square(r"(?=a+)b"), 1);
        assert_eq!(text_limit(0), None);
        assert_eq!(text_limit(2), Some(10_000));
    }

    #[track_caller]
    fn check_refused(pattern: &str) {
        assert!(check(pattern).is_err(), "{pattern:.80} was taken");
    }

    #[test]
    fn costly_patterns_are_refused() {
        for pattern in [
            "(a+)+$",
            "(a|a)*b",
            "(a|ab|b)*c",
            "(a*)*",
            "(a?){50}",
            "a*a*b",
            r"\s*\s*\s*x",
            "(?=a*b)a*c",
            "(?:a{1,9}){1,9}",
            "((a{900}){900}){900}",
            "a{2}+",
            "a{1,2}{3}",
            "a**",
            "(?>a+)+b",
            r"(a)\1",
            "(?<x>a)\\g<x>",
            "(?~a)",
            "(?{x})",
            "(?(1)a|b)",
            "(?x: a )",
            "(*FAIL)",
            "a{1,100000}",
            "*a",
            "(?:)*",
            "(?:^)*",
            "(",
            ")",
            "[",
            "[a",
            "\\",
            "(?",
            "a{2,1}",
        ] {
            check_refused(pattern);
        }
        check_refused(&format!("x*({}b)", "a|".repeat(2000)));
        check_refused(&format!("({}a+b)", "a+b|".repeat(40)));
        check_refused(&format!("{}b", "a?".repeat(12)));
        check_refused(&"(".repeat(1000));
        check_refused(&"a".repeat(10_000));
    }

    #[test]
    fn empty_matches_are_known() {
        let nullable =
            [r"a*", r"a?b*", r"(?=a)", r"^", "a|"].map(|pattern| check(pattern).unwrap().nullable);
        assert_eq!(nullable, [true; 5]);
        let solid =
            [r"a+", r"a?b", r"\s{2,}", r"(?!b)a"].map(|pattern| check(pattern).unwrap().nullable);
        assert_eq!(solid, [false; 4]);
    }

    fn pattern() -> impl Strategy<Value = String> {
        let leaf =
            prop_oneof![Just("a"), Just("b"), Just("[ab]"), Just("$"), Just(r"\b"), Just(".")];
        leaf.prop_map(String::from).prop_recursive(5, 24, 3, |inner| {
            let repeat = prop_oneof![
                Just("*"),
                Just("+"),
                Just("?"),
                Just("{1,3}"),
                Just("{2}"),
                Just("*?")
            ];
            prop_oneof![
                (inner.clone(), repeat).prop_map(|(p, repeat)| format!("(?:{p}){repeat}")),
                prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(?:{a}|{b})")),
                inner.prop_map(|p| format!("(?={p})")),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in r"[ab()\[\]{}|*+?\\^$:=!<>,0-9-]{0,24}") {
            let _ = check(&pattern);
        }

        /// Whatever is taken runs on a hostile text in bounded time, without the binding's panic.
        #[test]
        fn what_is_taken_runs(pattern in pattern()) {
            if let Ok(Pattern { square, .. }) = check(&pattern)
                && let Ok(split) = Split::new(
                    tokenizers::pre_tokenizers::split::SplitPattern::Regex(pattern.clone()),
                    tokenizers::SplitDelimiterBehavior::Isolated,
                    false,
                )
            {
                let start = Instant::now();
                let text = format!("{}c", "a".repeat(text_limit(square).unwrap_or(30_000) / 2));
                let mut text = PreTokenizedString::from(text);
                let _ = split.pre_tokenize(&mut text);
                prop_assert!(start.elapsed() < Duration::from_secs(4), "{} {:?}", pattern, start.elapsed());
            }
        }
    }
}
