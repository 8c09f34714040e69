//! Chinese verse: poems as lines of text that say their form, and whether a poem keeps it.

use anyhow::Context;
use serde::Deserialize;

use crate::language::simplifier;

/// A regular form: so many lines of so many characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub name: &'static str,
    pub lines: usize,
    pub characters: usize,
}

/// Jueju and lüshi, of five and seven characters a line.
pub const FORMS: &[Form] = &[
    Form { name: "五绝", lines: 4, characters: 5 },
    Form { name: "七绝", lines: 4, characters: 7 },
    Form { name: "五律", lines: 8, characters: 5 },
    Form { name: "七律", lines: 8, characters: 7 },
];
/// Other poems of the Tang, and lyrics to a tune, which the title names.
const FREE: &str = "诗";
const LYRICS: &str = "词";
/// Between form, title and poem.
const BAR: char = '｜';

/// A line of the chinese-poetry set.
#[derive(Debug, Deserialize)]
struct Poem {
    /// `tang` or `ci`.
    form: String,
    title: String,
    text: String,
}

/// Lines of verse, without their punctuation.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|line| !line.is_empty())
}

impl Form {
    pub fn named(name: &str) -> Option<&'static Self> {
        FORMS.iter().find(|form| form.name == name)
    }

    /// The form that a poem keeps.
    pub fn of(text: &str) -> Option<&'static Self> {
        FORMS.iter().find(|form| form.is_kept_by(text))
    }

    /// Counts lines, and characters in each.
    pub fn is_kept_by(&self, text: &str) -> bool {
        lines(text).count() == self.lines
            && lines(text).all(|line| line.chars().count() == self.characters)
    }

    /// What a model that learned from [`read`] continues with a poem and the end of the line.
    pub fn prompt(&self, title: &str) -> String {
        format!("{}{BAR}{}{BAR}", self.name, plain(title))
    }
}

/// A title without what would end it.
fn plain(title: &str) -> String {
    title.chars().filter(|c| *c != BAR && !c.is_control()).collect()
}

/// Poems of JSON lines as text, one a line: form, title, poem, in simplified characters.
pub fn read(json_lines: &str) -> anyhow::Result<String> {
    let converter = simplifier()?;
    let mut text = String::new();
    for (number, line) in json_lines.lines().enumerate() {
        let poem: Poem =
            serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        let form = match Form::of(&poem.text) {
            _ if poem.form == "ci" => LYRICS,
            Some(form) => form.name,
            None => FREE,
        };
        let poem_text: String = poem.text.chars().filter(|c| !c.is_control()).collect();
        let row = format!("{form}{BAR}{}{BAR}{poem_text}\n", plain(&poem.title));
        text.push_str(&converter.convert(&row));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_counted() {
        let poem = "床前明月光，疑是地上霜。举头望明月，低头思故乡。";
        assert_eq!(Form::of(poem).unwrap().name, "五绝");
        let form = Form::named("五绝").unwrap();
        assert!(!form.is_kept_by("床前明月光，疑是地上霜。举头望明月，低头思故。"));
        assert!(!form.is_kept_by("床前明月光，疑是地上霜。"));
        assert!(Form::named("七律").unwrap().is_kept_by(&"一二三四五六七，".repeat(8)));
        assert_eq!(Form::of("明月几时有？把酒问青天。"), None);
    }

    #[test]
    fn poems_say_their_form_in_simplified_characters() {
        let rows = "{\"form\": \"tang\", \"author\": \"a\", \"title\": \"送別\", \"text\": \"山中相送罷，日暮掩柴扉。春草年年綠，王孫歸不歸。\"}\n\
                    {\"form\": \"ci\", \"author\": \"b\", \"title\": \"如梦令\", \"text\": \"昨夜雨疏风骤。\"}\n";
        let text = read(rows).unwrap();
        let first = "五绝｜送别｜山中相送罢，日暮掩柴扉。春草年年绿，王孙归不归。";
        assert_eq!(text, format!("{first}\n词｜如梦令｜昨夜雨疏风骤。\n"));
        assert!(first.starts_with(&Form::named("五绝").unwrap().prompt("送别")));
        assert!(read("{\"form\": 1}").unwrap_err().to_string().contains("line 1"));
    }
}
