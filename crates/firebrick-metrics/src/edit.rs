//! Edits between what was said and what was understood: word and character error rate.

use std::ops::AddAssign;

/// Word error rate: `(substitutions + deletions + insertions) / reference words`.
///
/// Counts add up before the division, so ten short utterances weigh as their words do; averaging the rates of utterances
/// would give a different (wrong) number. May exceed 1. NIST `sclite` is the reference implementation.
///
/// ```
/// use firebrick_metrics::edit::Errors;
///
/// let mut total = Errors::default();
/// total += Errors::in_words("the cat sat", "the cat sat down"); // 1 insertion / 3 words
/// total += Errors::in_words("on the mat", "on a mat");          // 1 substitution / 3 words
/// assert_eq!(total.rate(), Some(2.0 / 6.0));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Errors {
    pub errors: usize,
    /// Words, or characters, of the reference.
    pub of: usize,
}

impl Errors {
    /// Between the words of two texts, which white space separates.
    pub fn in_words(reference: &str, hypothesis: &str) -> Self {
        let reference: Vec<&str> = reference.split_whitespace().collect();
        let hypothesis: Vec<&str> = hypothesis.split_whitespace().collect();
        Self { errors: distance(&reference, &hypothesis), of: reference.len() }
    }

    /// Between their characters: the character error rate. White space counts.
    pub fn in_characters(reference: &str, hypothesis: &str) -> Self {
        let reference: Vec<char> = reference.chars().collect();
        let hypothesis: Vec<char> = hypothesis.chars().collect();
        Self { errors: distance(&reference, &hypothesis), of: reference.len() }
    }

    /// `None` when nothing of a reference has been seen.
    pub fn rate(self) -> Option<f64> {
        (self.of > 0).then(|| self.errors as f64 / self.of as f64)
    }
}

impl AddAssign for Errors {
    fn add_assign(&mut self, other: Self) {
        self.errors += other.errors;
        self.of += other.of;
    }
}

/// Least number of substitutions, deletions and insertions between two sequences (Levenshtein 1966).
fn distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_hand() {
        let words = |reference, hypothesis| {
            let found = Errors::in_words(reference, hypothesis);
            (found.errors, found.of)
        };
        assert_eq!(words("a b c", "a b c"), (0, 3));
        assert_eq!(words("a b c", ""), (3, 3));
        assert_eq!(words("", "a b"), (2, 0));
        assert_eq!(words("a b c d", "b c x d"), (2, 4)); // one gone, one come
        assert_eq!(Errors::in_characters("kitten", "sitting").errors, 3);
        assert_eq!(Errors::default().rate(), None);
    }
}
