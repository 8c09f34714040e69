//! Renames between checkpoint and field, both ways from one table.

/// Rows of `(checkpoint prefix, field prefix)`; a `{}` stands for one number, a layer's index, and stands as
/// often on both sides.
pub type Names = &'static [(&'static str, &'static str)];

/// Checkpoint name of a field path; `None` when no row begins it.
///
/// ```
/// use firebrick_core::checkpoint::names::{Names, rename};
///
/// const NAMES: Names = &[
///     ("h.{}.attn.", "layers.{}.attention."),
///     ("stages.{}.layers.{}.", "stages.{}.blocks.{}."),
/// ];
/// assert_eq!(rename(NAMES, "layers.12.attention.weight").as_deref(), Some("h.12.attn.weight"));
/// assert_eq!(rename(NAMES, "stages.1.blocks.0.weight").as_deref(), Some("stages.1.layers.0.weight"));
/// assert_eq!(rename(NAMES, "layers.x.attention.weight"), None);
/// ```
pub fn rename(names: Names, field: &str) -> Option<String> {
    names.iter().find_map(|(to, from)| {
        let (numbers, rest) = strip(from, field)?;
        let name = numbers.iter().fold(to.to_string(), |name, n| name.replacen("{}", n, 1));
        Some(name + rest)
    })
}

/// Takes `pattern` off the front of `name`: what stood for each `{}`, and what follows.
fn strip<'a>(pattern: &str, name: &'a str) -> Option<(Vec<&'a str>, &'a str)> {
    let mut parts = pattern.split("{}");
    let mut rest = name.strip_prefix(parts.next()?)?;
    let mut numbers = vec![];
    for part in parts {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        numbers.push((digits > 0).then_some(number)?);
        rest = after.strip_prefix(part)?;
    }
    Some((numbers, rest))
}
