//! What the pages of runs on pictures share.

use firebrick_data::image::{Picture, decode::png};
use firebrick_train::report;

/// A picture of the page, `plots/NAME.png`.
pub fn pictured(
    name: impl Into<String>,
    caption: impl Into<String>,
    picture: &Picture,
) -> report::Picture {
    report::Picture {
        name: name.into(),
        caption: caption.into(),
        width: picture.width,
        height: picture.height,
        png: png(picture),
    }
}

/// What was found of the data, beside what it was found of.
pub fn notes(remarks: Vec<String>) -> Vec<(String, String)> {
    let note = |remark: String| match remark.split_once(": ") {
        Some((what, found)) => (what.to_string(), found.to_string()),
        None => (remark, String::new()),
    };
    remarks.into_iter().map(note).collect()
}

/// `count` of `total` indices, evenly spread; all of them where there are fewer.
pub fn spread(count: usize, total: usize) -> Vec<usize> {
    let count = count.min(total);
    (0..count).map(|i| i * total / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_spread() {
        assert_eq!(spread(3, 9), [0, 3, 6]);
        assert_eq!(spread(4, 2), [0, 1]);
        assert_eq!(spread(4, 0), [0; 0]);
    }
}
