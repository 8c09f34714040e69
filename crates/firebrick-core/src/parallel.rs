//! Several processes that compute together: what layers and the training loop need of whatever connects them.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

/// The members of a group, of which this is one. All of them make the same calls in the same order.
pub trait Collective: fmt::Debug + Send + Sync {
    /// Number of this member, from 0.
    fn rank(&self) -> usize;

    /// Number of members.
    fn size(&self) -> usize;

    /// The sum of what the members give, element by element: all give as many, and get the same bytes.
    /// After the first failure every call fails at once.
    fn sum(&self, x: Vec<f32>) -> Result<Vec<f32>, Lost>;
}

/// A member does not answer any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// A group of one.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, x: Vec<f32>) -> Result<Vec<f32>, Lost> {
        Ok(x)
    }
}

/// Threads of one process as a group: they sum in the order of their ranks. For tests, which have no network.
#[derive(Debug, Clone)]
pub struct Threads {
    rank: usize,
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    laid: Mutex<Laid>,
    changed: Condvar,
}

#[derive(Debug)]
struct Laid {
    given: Vec<Option<Vec<f32>>>,
    /// Members that have yet to take the sum away.
    takers: usize,
    sum: Vec<f32>,
}

impl Threads {
    /// One handle for each of `size` threads.
    pub fn group(size: usize) -> Vec<Self> {
        let laid = Laid { given: vec![None; size], takers: 0, sum: vec![] };
        let table = Arc::new(Table { laid: Mutex::new(laid), changed: Condvar::new() });
        (0..size).map(|rank| Self { rank, table: table.clone() }).collect()
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.laid.lock().unwrap_or_else(PoisonError::into_inner).given.len()
    }

    fn sum(&self, x: Vec<f32>) -> Result<Vec<f32>, Lost> {
        let lost = || Lost(format!("a thread of rank {}'s group panicked", self.rank));
        let Table { laid, changed } = &*self.table;
        let laid = laid.lock().map_err(|_| lost())?;
        // The sum before this one is still being taken away.
        let mut laid = changed.wait_while(laid, |laid| laid.takers > 0).map_err(|_| lost())?;
        laid.given[self.rank] = Some(x);
        if laid.given.iter().all(Option::is_some) {
            let mut given = laid.given.iter_mut().filter_map(Option::take);
            let mut sum = given.next().unwrap_or_default();
            for x in given {
                assert_eq!(x.len(), sum.len(), "all members give as many numbers");
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
            (laid.sum, laid.takers) = (sum, laid.given.len());
            changed.notify_all();
        }
        let mut laid = changed.wait_while(laid, |laid| laid.takers == 0).map_err(|_| lost())?;
        laid.takers -= 1;
        changed.notify_all();
        Ok(laid.sum.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_sum_again_and_again() {
        let sums = |member: Threads| -> Vec<f32> {
            let sum = |round| member.sum(vec![round as f32 + member.rank() as f32]).unwrap()[0];
            (0..100).map(sum).collect()
        };
        let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
            let threads = Threads::group(3).into_iter().map(|member| scope.spawn(|| sums(member)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let expected: Vec<f32> = (0..100).map(|round| 3.0 * round as f32 + 3.0).collect();
        assert_eq!(sums, vec![expected; 3]);
    }
}
