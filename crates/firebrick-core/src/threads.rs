//! Whole pieces of work, each on one thread.

use std::{
    iter,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

/// What `work` makes of every item, in their order. A thread takes the next item when it has finished one.
///
/// The operations of a model share themselves among the threads too, but those of a small one are too short for that.
/// (With a task an item, a thread that waits for its part of a product would begin another item.)
pub fn each<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let share = |_| -> Result<Vec<(usize, R)>, E> {
        let indices = iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let taken = indices.map_while(|i| Some((i, items.get(i)?)));
        taken.map(|(i, item)| Ok((i, work(item)?))).collect()
    };
    let threads = (0..rayon::current_num_threads()).into_par_iter().with_max_len(1);
    let shares: Vec<_> = threads.map(share).collect::<Result<_, E>>()?;
    let mut done: Vec<(usize, R)> = shares.into_iter().flatten().collect();
    done.sort_by_key(|(i, _)| *i);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_errors_come_through() {
        let items: Vec<usize> = (0..100).collect();
        let double = |limit: usize| {
            each(&items, move |i| if *i < limit { Ok(2 * i) } else { Err(format!("{i}")) })
        };
        assert_eq!(double(100).unwrap(), (0..200).step_by(2).collect::<Vec<_>>());
        assert_eq!(double(99).unwrap_err(), "99");
    }
}
