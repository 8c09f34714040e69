//! Renames between checkpoint and field, both ways from one table.

/// Rows of `(checkpoint prefix, field prefix)`; `{}` stands for one number, a layer's index.
pub type Names = &'static [(&'static str, &'static str)];

/// Checkpoint name of a field path; `None` when no row begins it.
///
/// ```
/// use firebrick_core::checkpoint::names::{Names, rename};
///
/// const NAMES: Names = &[("h.{}.attn.", "layers.{}.attention.")];
/// assert_eq!(rename(NAMES, "layers.12.attention.weight").as_deref(), Some("h.12.attn.weight"));
/// assert_eq!(rename(NAMES, "layers.x.attention.weight"), None);
/// ```
pub fn rename(names: Names, field: &str) -> Option<String> {
    names.iter().find_map(|(to, from)| {
        let (number, rest) = strip(from, field)?;
        Some(format!("{}{rest}", to.replacen("{}", number, 1)))
    })
}

/// Takes `pattern` off the front of `name`: what stood for `{}` and what follows.
fn strip<'a>(pattern: &str, name: &'a str) -> Option<(&'a str, &'a str)> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return Some(("", name.strip_prefix(pattern)?));
    };
    let rest = name.strip_prefix(before)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    (digits > 0).then_some((number, rest.strip_prefix(after)?))
}
