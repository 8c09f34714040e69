//! Drops rows that nothing can be learned from, and says which and why.

use std::collections::{HashMap, HashSet};

use plsfix::TextFixerConfig;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    ledger::{DropReason, Entry, Ledger},
    normalise::normalise,
    quote::{quoted, quoted_list},
    table::{Row, Table},
};

/// Which rules apply; all by default. A row is dropped by the first rule that it breaks, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanRules {
    /// Drop texts of white space only.
    pub empty: bool,
    /// Mend mojibake; drop what cannot be mended.
    pub broken_encoding: bool,
    /// Drop texts of more characters than this.
    pub max_chars: Option<usize>,
    /// Drop every row of a text that comes with different labels.
    pub contradiction: bool,
    /// Drop a row whose text and label an earlier row has; the first stays.
    pub duplicate: bool,
}

impl Default for CleanRules {
    fn default() -> Self {
        Self {
            empty: true,
            broken_encoding: true,
            max_chars: Some(10_000),
            contradiction: true,
            duplicate: true,
        }
    }
}

/// As [`clean`], of all that a file holds: what could not be read is in the ledger, too.
pub fn clean_table(table: Table, rules: &CleanRules) -> (Vec<Row>, Ledger) {
    let (rows, mut ledger) = clean(table.rows, rules);
    let unreadable = table.bad.iter().map(|bad| Entry {
        row: bad.row,
        reason: DropReason::Unreadable,
        detail: bad.to_string(),
    });
    ledger.dropped.extend(unreadable);
    ledger.dropped.sort_by_key(|entry| entry.row);
    (rows, ledger)
}

/// Applies the rules; rows that stay keep their order and number.
///
/// Texts are the same when [`normalise`] says so.
///
/// ```
/// use firebrick_data::{clean::{CleanRules, clean}, table::Row};
///
/// let row = |row, text: &str| Row { row, text: text.to_owned(), label: Some("1".to_owned()) };
/// let (rows, ledger) = clean(vec![row(0, "Good"), row(1, " good "), row(2, "cafÃ©")], &CleanRules::default());
/// assert_eq!(rows[1].text, "café");
/// assert_eq!((ledger.dropped[0].row, ledger.dropped[0].detail.as_str()), (1, "repeats row 0"));
/// assert_eq!(ledger.mended, [2]);
/// ```
pub fn clean(rows: Vec<Row>, rules: &CleanRules) -> (Vec<Row>, Ledger) {
    let mut ledger = Ledger::default();
    // Row by row, in parallel: mended or not, its comparable form, and the first rule it breaks.
    let judged: Vec<_> = rows.into_par_iter().map(|row| judge(row, rules)).collect();

    let mut labels: HashMap<&str, Vec<Option<&str>>> = HashMap::new();
    for Judged { row, key, .. } in judged.iter().filter(|judged| judged.broken.is_none()) {
        let labels = labels.entry(key).or_default();
        if !labels.contains(&row.label.as_deref()) {
            labels.push(row.label.as_deref());
        }
    }
    let contradicted: HashSet<String> = match rules.contradiction {
        true => labels.iter().filter(|(_, l)| l.len() > 1).map(|(k, _)| (*k).to_owned()).collect(),
        false => HashSet::new(),
    };
    let named: HashMap<String, String> = contradicted
        .iter()
        .map(|key| {
            let mut labels: Vec<_> =
                labels[key.as_str()].iter().map(|label| label.unwrap_or("no label")).collect();
            labels.sort_unstable();
            (key.clone(), quoted_list(labels))
        })
        .collect();

    let mut first: HashMap<(String, Option<String>), usize> = HashMap::new();
    let mut kept = vec![];
    for Judged { row, key, mended, broken } in judged {
        if mended {
            ledger.mended.push(row.row);
        }
        let broken = broken.or_else(|| {
            let labels = named.get(&key)?;
            Some((DropReason::Contradiction, format!("the same text has the labels {labels}")))
        });
        let broken = broken.or_else(|| {
            if !rules.duplicate {
                return None;
            }
            let earlier = *first.entry((key, row.label.clone())).or_insert(row.row);
            (earlier != row.row).then(|| (DropReason::Duplicate, format!("repeats row {earlier}")))
        });
        match broken {
            Some((reason, detail)) => ledger.dropped.push(Entry { row: row.row, reason, detail }),
            None => kept.push(row),
        }
    }
    (kept, ledger)
}

struct Judged {
    row: Row,
    /// The text as it is compared.
    key: String,
    mended: bool,
    broken: Option<(DropReason, String)>,
}

fn judge(mut row: Row, rules: &CleanRules) -> Judged {
    // Length first: mending is the expensive part, and a giant is dropped anyway.
    let chars = row.text.chars().count();
    let long = rules.max_chars.filter(|max| chars > *max).map(|max| {
        (DropReason::TooLong, format!("{chars} characters, where at most {max} are taken"))
    });
    let mut mended = false;
    let mut broken = None;
    if rules.broken_encoding && long.is_none() {
        let text = mend(&row.text);
        broken = break_in(&text)
            .map(|near| (DropReason::BrokenEncoding, format!("broken at {}", quoted(near))));
        mended = text != row.text && broken.is_none();
        if mended {
            row.text = text;
        }
    }
    // Mending can leave nothing: a lone "Â " was a no-break space.
    let empty = rules.empty && row.text.trim().is_empty();
    let empty = empty.then(|| (DropReason::Empty, "no text".to_owned()));
    let broken = empty.or(broken).or(long);
    let key = if broken.is_none() { normalise(&row.text) } else { String::new() };
    Judged { row, key, mended, broken }
}

/// The text with its mojibake decoded; nothing else is changed (no HTML, quotes, widths or line ends).
fn mend(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let config = TextFixerConfig {
        unescape_html: Some(false),
        remove_terminal_escapes: false,
        fix_latin_ligatures: false,
        fix_character_width: false,
        uncurl_quotes: false,
        fix_line_breaks: false,
        remove_control_chars: false,
        normalization: None,
        // plsfix would cut a longer line at this byte, inside a character if need be.
        max_decode_length: i32::MAX,
        ..TextFixerConfig::default()
    };
    // plsfix 0.1.8 decodes HTML entities whatever the configuration says; without the `&` there are none.
    let fix = |part: &str| plsfix::fix_text(part, Some(&config));
    text.split('&').map(fix).collect::<Vec<_>>().join("&")
}

/// From the first sign on that bytes were decoded wrongly; `None` when there is none.
fn break_in(text: &str) -> Option<&str> {
    // Pairs that UTF-8 read as Windows-1252 makes and no language writes.
    const PAIRS: [&str; 4] = ["â€", "Ã¢", "ï¿½", "ðŸ"];
    let lost = |c: char| c == '\u{fffd}' || matches!(c, '\u{80}'..='\u{84}' | '\u{86}'..='\u{9f}');
    let at = PAIRS.iter().filter_map(|pair| text.find(pair)).chain(text.find(lost)).min()?;
    Some(&text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[(&str, &str)]) -> Vec<Row> {
        let row = |(row, &(text, label)): (usize, &(&str, &str))| Row {
            row,
            text: text.to_owned(),
            label: Some(label.to_owned()),
        };
        texts.iter().enumerate().map(row).collect()
    }

    #[track_caller]
    fn check(
        texts: &[(&str, &str)],
        rules: CleanRules,
        kept: &[usize],
        dropped: &[(usize, DropReason)],
    ) {
        let (rows, ledger) = clean(rows(texts), &rules);
        assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), kept);
        let found: Vec<_> = ledger.dropped.iter().map(|entry| (entry.row, entry.reason)).collect();
        assert_eq!(found, dropped, "{ledger:?}");
    }

    use DropReason::*;

    #[test]
    fn each_rule() {
        let all = CleanRules::default();
        check(&[("a", "1"), (" \u{3000}\n", "1")], all.clone(), &[0], &[(1, Empty)]);
        check(&[("Ａ b", "1"), ("a  B ", "1")], all.clone(), &[0], &[(1, Duplicate)]);
        check(
            &[("a", "1"), ("b", "1"), ("A", "0"), ("a", "1")],
            all.clone(),
            &[1],
            &[(0, Contradiction), (2, Contradiction), (3, Contradiction)],
        );
        check(&[("caf\u{fffd}", "1"), ("b", "1")], all.clone(), &[1], &[(0, BrokenEncoding)]);
        let short = CleanRules { max_chars: Some(3), ..all };
        check(&[("味道好", "1"), ("味道很好", "1")], short, &[0], &[(1, TooLong)]);
    }

    #[test]
    fn each_rule_can_be_switched_off() {
        let none = CleanRules {
            empty: false,
            broken_encoding: false,
            max_chars: None,
            contradiction: false,
            duplicate: false,
        };
        let long = "x".repeat(20_000);
        let texts =
            [("", "1"), ("\u{fffd}", "1"), (&long, "1"), ("a", "1"), ("a", "0"), ("a", "0")];
        check(&texts, none.clone(), &[0, 1, 2, 3, 4, 5], &[]);
        let duplicates = CleanRules { duplicate: true, ..none };
        check(&texts, duplicates, &[0, 1, 2, 3, 4], &[(5, Duplicate)]);
    }

    #[track_caller]
    fn check_mend(text: &str, expected: &str) {
        assert_eq!(mend(text), expected);
    }

    #[test]
    fn mojibake_is_mended_and_nothing_else() {
        check_mend("cafÃ© &amp; l’été", "café &amp; l’été");
        check_mend("âœ” No problems", "✔ No problems");
        // Sound text stays to the byte: widths, curly quotes, ligatures, entities, decomposed accents, line ends.
        for sound in
            ["“ｗｉｄｅ” ﬁne &eacute; e\u{301}\r\n", "味道不错，就是…", "naïve façade ½", "Ãngela"]
        {
            check_mend(sound, sound);
        }
    }

    #[test]
    fn what_cannot_be_mended() {
        assert_eq!(break_in("ok \u{92} x"), Some("\u{92} x"));
        assert_eq!(break_in("naïve ½ “ok” …"), None);
        let long = "é".repeat(600_000); // longer than what plsfix would cut
        check_mend(&long, &long);
    }
}
