//! Which language a text is in, as far as its script tells.

/// Whether more than 100 of the first 200 texts have Chinese characters.
pub fn mostly_chinese<'a>(texts: impl Iterator<Item = &'a str>) -> bool {
    texts.take(200).filter(|text| is_chinese(text)).count() > 100
}

/// Whether a text has Chinese characters.
pub fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}
