//! Parts of a table with the same mix of labels.

use std::collections::BTreeMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{error::DataError, quote, table::Row};

/// An error if a part that is to be judged has no rows, or some with a label that is not `known`, as no training row has it:
/// a score without them would be that of other data.
pub fn check_judged<'a>(
    part: &str,
    labels: impl IntoIterator<Item = &'a str>,
    known: &[String],
) -> Result<(), DataError> {
    let (mut count, mut unknown) = (0, BTreeMap::new());
    for label in labels {
        count += 1;
        if !known.iter().any(|known| known == label) {
            *unknown.entry(label).or_insert(0usize) += 1;
        }
    }
    if count == 0 {
        let next = "give some, or a larger share of the training rows";
        return Err(DataError::TooLittle(format!("part {part} has no rows: {next}")));
    }
    let Some((first, _)) = unknown.first_key_value() else { return Ok(()) };
    let rows: usize = unknown.values().sum();
    let first = quote::quoted(first);
    Err(DataError::TooLittle(format!(
        "{rows} of {count} rows of {part} have a label that no training row has, the first {first}: take them out, or \
         add training rows with it"
    )))
}

/// Splits `rows` into named parts; every row lands in exactly one.
///
/// Of each label, a part gets its fraction rounded up or down, and the roundings even out over the labels. The same
/// rows, fractions and seed give the same parts on every machine (ChaCha8). Rows keep their order within a part.
/// `fractions` must be above 0 and add up to 1.
///
/// ```
/// use firebrick_data::{split::stratified, table::Row};
///
/// let rows: Vec<Row> = (0..10)
///     .map(|row| Row { row, text: row.to_string(), label: Some((row % 2).to_string()) })
///     .collect();
/// let parts = stratified(rows, &[("train", 0.8), ("test", 0.2)], 7).unwrap();
/// assert_eq!((parts[0].1.len(), parts[1].1.len()), (8, 2));
/// ```
pub fn stratified(
    rows: Vec<Row>,
    fractions: &[(&str, f64)],
    seed: u64,
) -> Result<Vec<(String, Vec<Row>)>, DataError> {
    let sum: f64 = fractions.iter().map(|(_, fraction)| fraction).sum();
    let sound = fractions.iter().all(|(_, f)| f.is_finite() && *f > 0.0);
    if !sound || (sum - 1.0).abs() > 1e-9 {
        return Err(DataError::BadOption {
            name: "the list of fractions",
            value: format!("{:?}", fractions.iter().map(|(_, f)| f).collect::<Vec<_>>()),
            expected: "numbers above 0 that add up to 1",
        });
    }
    let mut by_label: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_label.entry(row.label.as_deref()).or_default().push(index);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut part_of = vec![0; rows.len()];
    // How many rows each part has got too few so far.
    let mut owed = vec![0.0; fractions.len()];
    for members in by_label.values_mut() {
        members.shuffle(&mut rng);
        let counts = shares(members.len(), fractions, &mut owed);
        let mut members = members.iter();
        for (part, &count) in counts.iter().enumerate() {
            members.by_ref().take(count).for_each(|&index| part_of[index] = part);
        }
    }
    let mut parts: Vec<_> =
        fractions.iter().map(|(name, _)| ((*name).to_owned(), vec![])).collect();
    for (row, part) in rows.into_iter().zip(part_of) {
        parts[part].1.push(row);
    }
    Ok(parts)
}

/// `n` rows of one label by part: each fraction rounded down, the rest to the parts that are owed most.
fn shares(n: usize, fractions: &[(&str, f64)], owed: &mut [f64]) -> Vec<usize> {
    const EPSILON: f64 = 1e-9; // 0.7 * 10 is 7, not 6.999…
    let exact: Vec<f64> = fractions.iter().map(|(_, fraction)| fraction * n as f64).collect();
    let mut counts: Vec<usize> = exact.iter().map(|x| (x + EPSILON).floor() as usize).collect();
    for (part, owed) in owed.iter_mut().enumerate() {
        *owed += exact[part] - counts[part] as f64;
    }
    // Only a part whose fraction was cut may be rounded up, else it would be off by more than one row.
    let mut cut: Vec<usize> =
        (0..counts.len()).filter(|&p| exact[p] - counts[p] as f64 > EPSILON).collect();
    cut.sort_by(|&a, &b| owed[b].total_cmp(&owed[a]));
    let left = n.saturating_sub(counts.iter().sum());
    for &part in cut.iter().take(left) {
        counts[part] += 1;
        owed[part] -= 1.0;
    }
    // Rounding of the sum may leave a row that no part claims.
    let left = n.saturating_sub(counts.iter().sum());
    counts[0] += left;
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(labels: &[u8]) -> Vec<Row> {
        let row = |(row, label): (usize, &u8)| Row {
            row,
            text: format!("text {row}"),
            label: Some(label.to_string()),
        };
        labels.iter().enumerate().map(row).collect()
    }

    proptest! {
        #[test]
        fn complete_disjoint_deterministic_and_fair(
            labels in prop::collection::vec(0u8..6, 0..300),
            weights in prop::collection::vec(1u32..20, 1..5),
            seed: u64,
        ) {
            let sum: u32 = weights.iter().sum();
            let names = ["a", "b", "c", "d"];
            let fractions: Vec<_> =
                names.into_iter().zip(&weights).map(|(n, &w)| (n, f64::from(w) / f64::from(sum))).collect();
            let parts = stratified(rows(&labels), &fractions, seed).unwrap();

            let mut seen: Vec<usize> = parts.iter().flat_map(|(_, rows)| rows.iter().map(|row| row.row)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..labels.len()).collect::<Vec<_>>());
            prop_assert_eq!(&parts, &stratified(rows(&labels), &fractions, seed).unwrap());
            for label in 0..6u8 {
                let n = labels.iter().filter(|&&l| l == label).count() as f64;
                for ((_, part), (_, fraction)) in parts.iter().zip(&fractions) {
                    let got = part.iter().filter(|row| row.label == Some(label.to_string())).count() as f64;
                    prop_assert!((got - n * fraction).abs() < 1.0 + 1e-6, "{got} of {n} at {fraction}");
                }
            }
        }
    }

    /// 100 labels of 5 rows: each alone would round 0.5 test rows the same way; together 50 are due.
    #[test]
    fn rare_labels_even_out() {
        let labels: Vec<u8> = (0..500).map(|row| (row % 100) as u8).collect();
        let parts = stratified(rows(&labels), &[("train", 0.9), ("test", 0.1)], 1).unwrap();
        assert_eq!(parts[1].1.len(), 50);
    }

    #[test]
    fn another_seed_gives_other_parts() {
        let split = |seed| stratified(rows(&[0; 50]), &[("a", 0.5), ("b", 0.5)], seed).unwrap();
        assert_ne!(split(1), split(2));
    }

    #[track_caller]
    fn check_refused(fractions: &[(&str, f64)]) {
        assert_eq!(stratified(rows(&[0, 1]), fractions, 0).unwrap_err().kind(), "BadValue");
    }

    #[test]
    fn fractions_that_make_no_sense() {
        check_refused(&[]);
        check_refused(&[("a", 0.5)]);
        check_refused(&[("a", 1.5), ("b", -0.5)]);
        check_refused(&[("a", f64::NAN)]);
    }
}
