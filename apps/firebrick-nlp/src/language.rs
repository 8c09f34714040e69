//! Which language a text is in, as far as its script tells, and Chinese in simplified characters.

use ferrous_opencc::{OpenCC, config::BuiltinConfig};

/// Whether more than half of the first 200 texts have Chinese characters.
///
/// ```
/// use firebrick_nlp::language::mostly_chinese;
///
/// assert!(mostly_chinese(["你好", "再见", "tea"].into_iter()));
/// assert!(!mostly_chinese(["你好", "tea"].into_iter()));
/// ```
pub fn mostly_chinese<'a>(texts: impl Iterator<Item = &'a str>) -> bool {
    let (mut chinese, mut all) = (0, 0);
    for text in texts.take(200) {
        chinese += usize::from(is_chinese(text));
        all += 1;
    }
    2 * chinese > all
}

/// Whether a text has Chinese characters.
pub fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// OpenCC from traditional Chinese characters to simplified ones.
pub fn simplifier() -> anyhow::Result<OpenCC> {
    OpenCC::from_config(BuiltinConfig::T2s)
        .map_err(|e| anyhow::anyhow!("opening OpenCC's dictionaries: {e}"))
}
