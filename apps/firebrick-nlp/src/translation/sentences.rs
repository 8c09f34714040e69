//! A text cut into what a translator reads at once, so that the pieces and what stands between them make the text.

use unicode_segmentation::UnicodeSegmentation;

/// Ends of sentences that are none: what follows belongs to it.
const ABBREVIATIONS: &[&str] = &[
    "mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "etc.", "e.g.", "i.e.", "no.", "fig.",
    "u.s.", "u.k.", "z.b.", "d.h.", "bzw.", "hr.", "fr.", "usw.", "nr.", "ca.", "m.", "mme.",
    "mlle.",
];

/// A sentence, and the white space after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub text: &'a str,
    pub gap: &'a str,
}

/// Sentences by the rules of Unicode (UAX 29), but none ends at an abbreviation or an initial; a line's end always ends
/// one. White space before the first one is a piece with an empty text.
///
/// ```
/// use firebrick_nlp::translation::sentences::split;
///
/// let pieces = split("Mr. Smith left. He came back!\n\n你好。再见。");
/// let texts: Vec<&str> = pieces.iter().map(|piece| piece.text).collect();
/// assert_eq!(texts, ["Mr. Smith left.", "He came back!", "你好。", "再见。"]);
/// assert_eq!(pieces[1].gap, "\n\n");
/// ```
pub fn split(text: &str) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece> = vec![];
    let mut begin = 0;
    for sentence in text.split_sentence_bounds() {
        let end = sentence.as_ptr() as usize - text.as_ptr() as usize + sentence.len();
        if end < text.len() && unfinished(&text[begin..end]) {
            continue;
        }
        let whole = &text[begin..end];
        let trimmed = whole.trim_end();
        pieces.push(Piece { text: trimmed, gap: &whole[trimmed.len()..] });
        begin = end;
    }
    // What is white space only lengthens the gap before it.
    let mut joined: Vec<Piece> = vec![];
    for piece in pieces {
        match joined.last_mut() {
            Some(last) if piece.text.is_empty() => {
                let from = last.gap.as_ptr() as usize - text.as_ptr() as usize;
                last.gap = &text[from..from + last.gap.len() + piece.gap.len()];
            }
            _ => joined.push(piece),
        }
    }
    joined
}

/// Whether the last word is an abbreviation or an initial, and no line ends here.
fn unfinished(text: &str) -> bool {
    let trimmed = text.trim_end();
    if text[trimmed.len()..].contains(['\n', '\r', '\u{2028}', '\u{2029}']) {
        return false;
    }
    let last = trimmed.rsplit(char::is_whitespace).next().unwrap_or_default();
    let initial = last.chars().count() == 2
        && last.ends_with('.')
        && last.chars().next().is_some_and(char::is_uppercase);
    initial || ABBREVIATIONS.contains(&last.to_lowercase().as_str())
}

/// Cuts a sentence that is longer than the model reads, best behind a comma, else at a space, else anywhere;
/// `fits` says whether a piece is short enough.
pub fn shorten<'a>(sentence: &'a str, fits: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let mut pieces = vec![];
    let mut rest = sentence;
    loop {
        let limit = fitting(rest, fits);
        if limit == rest.len() {
            break;
        }
        let head = &rest[..limit];
        let behind = |marks: &[char]| {
            head.rfind(marks).map(|at| at + head[at..].chars().next().map_or(0, char::len_utf8))
        };
        let comma = behind(&[',', ';', ':', '，', '；', '：', '、', '。']);
        let comma = comma.filter(|at| *at > limit / 3);
        let cut = comma.or_else(|| behind(&[' ', '\t', '\u{3000}'])).unwrap_or(limit);
        pieces.push(&rest[..cut]);
        rest = &rest[cut..];
    }
    pieces.push(rest);
    pieces
}

/// Where the longest beginning ends that fits: a character at least.
fn fitting(text: &str, fits: &dyn Fn(&str) -> bool) -> usize {
    // Twice as far each time: what is cut off a long text costs by its own length, not by that of the rest.
    let mut reach = 64;
    let end = loop {
        let end = text.floor_char_boundary(reach);
        match fits(&text[..end]) {
            true if end == text.len() => return end,
            true => reach *= 2,
            false => break end,
        }
    };
    // By bisection over characters.
    let ends: Vec<usize> = text[..end].char_indices().map(|(at, _)| at).skip(1).collect();
    let long = ends.partition_point(|end| fits(&text[..*end]));
    ends.get(long.saturating_sub(1)).copied().unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_make_the_text(text in "[a-zA-Z.!? \n你。，]{0,60}|\\PC{0,40}") {
            let whole: String = split(&text).iter().flat_map(|p| [p.text, p.gap]).collect();
            prop_assert_eq!(&whole, &text);
            let short = |piece: &str| piece.chars().count() <= 5;
            let pieces = shorten(&text, &short);
            prop_assert_eq!(&pieces.concat(), &text);
            prop_assert!(pieces.iter().all(|piece| short(piece)));
        }
    }

    /// Each piece costs by its own length, however much is behind it.
    #[test]
    fn a_long_text_is_read_a_few_times() {
        let (text, read) = ("ab".repeat(50_000), Cell::new(0));
        let fits = |piece: &str| {
            read.set(read.get() + piece.len());
            piece.len() <= 100
        };
        assert_eq!(shorten(&text, &fits).len(), 1000);
        assert!(read.get() < 20 * text.len(), "{} bytes", read.get());
    }

    #[test]
    fn long_sentences_are_cut_behind_commas() {
        let pieces = shorten("one two, three four five", &|piece| piece.len() <= 12);
        assert_eq!(pieces, ["one two,", " three four ", "five"]);
    }
}
