//! The gradient of looking rows up in a table: every row gets the sum of what its uses got.
//!
//! Axis letters: `N` look-ups, `V` rows of the table, `C` channels.

use rayon::prelude::*;

use crate::matmul::add;

/// Numbers of the table in a task; most of the work is to zero rows that nobody used.
const TASK: usize = 1 << 16;

/// `dtable[ids[n]] = sum of dy[n]`, zero where there is none; in the order of `n`, whatever the number of threads.
///
/// - `ids`: `[N]`, each in `0..V`
/// - `dy`: `[N, width]`
/// - `dtable`: `[V, width]`
pub fn gradient(ids: &[i32], dy: &[f32], width: usize, dtable: &mut [f32]) {
    assert!(width > 0 && dtable.len().is_multiple_of(width));
    assert_eq!(dy.len(), ids.len() * width);
    let uses = Uses::new(ids, dtable.len() / width);
    let rows = (TASK / width).max(1);
    dtable.par_chunks_mut(rows * width).enumerate().for_each(|(task, dtable)| {
        for (row, total) in dtable.chunks_exact_mut(width).enumerate() {
            total.fill(0.0);
            for n in uses.of(task * rows + row) {
                let n = *n as usize;
                dispatch_add(total, &dy[n * width..][..width]);
            }
        }
    });
}

/// Look-ups by row, in order: a counting sort.
struct Uses {
    /// Where a row's look-ups begin in `order`; one more than rows.
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl Uses {
    fn new(ids: &[i32], rows: usize) -> Self {
        let mut starts = vec![0; rows + 1];
        for (n, id) in ids.iter().enumerate() {
            assert!((0..rows as i64).contains(&(*id).into()), "id {id} at {n} of {rows} rows");
            starts[*id as usize + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let (mut order, mut next) = (vec![0; ids.len()], starts.clone());
        for (n, id) in ids.iter().enumerate() {
            let place = &mut next[*id as usize];
            order[*place as usize] = n as u32;
            *place += 1;
        }
        Self { starts, order }
    }

    fn of(&self, row: usize) -> &[u32] {
        &self.order[self.starts[row] as usize..self.starts[row + 1] as usize]
    }
}

#[inline(always)]
fn add_row(total: &mut [f32], x: &[f32]) {
    add(total, x);
}

crate::for_this_cpu!(dispatch_add = add_row(total: &mut [f32], x: &[f32]));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_sums_of_their_uses(
            width in 1usize..40,
            (rows, ids) in (1usize..300)
                .prop_flat_map(|v| (Just(v), prop::collection::vec(0..v as i32, 0..500))),
        ) {
            // Small integers: sums are exact in any order.
            let dy: Vec<f32> = (0..ids.len() * width).map(|i| (i * 7 % 31) as f32 - 15.0).collect();
            let mut found = vec![f32::NAN; rows * width];
            gradient(&ids, &dy, width, &mut found);
            let mut expected = vec![0.0; rows * width];
            for (n, id) in ids.iter().enumerate() {
                for c in 0..width {
                    expected[*id as usize * width + c] += dy[n * width + c];
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    /// More than one task, and the last one smaller.
    #[test]
    fn a_large_table() {
        let (rows, width) = (2 * TASK / 64 + 3, 64);
        let ids = [0, rows as i32 - 1, 0, 5];
        let mut found = vec![f32::NAN; rows * width];
        gradient(&ids, &[1.0; 4 * 64], width, &mut found);
        assert_eq!(found.iter().sum::<f32>(), 4.0 * 64.0);
        assert_eq!([found[0], found[5 * 64], found[(rows - 1) * 64]], [2.0, 1.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "id 3 at 1 of 3 rows")]
    fn an_id_too_far() {
        gradient(&[0, 3], &[0.0; 2], 1, &mut [0.0; 3]);
    }
}
