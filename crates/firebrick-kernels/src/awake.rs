//! Threads that look for the next kernel's work before they go to sleep.
//!
//! Rayon's threads sleep after some 20 us without work. To wake one takes 50 us, and many layers of a model take no more: half of
//! what a second thread could do is gone. So a kernel has the others look for [`IDLE`] longer, as the threads of OpenMP do; they
//! let other processes run meanwhile.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Without work.
const IDLE: Duration = Duration::from_micros(500);
/// Altogether, so that a thread gets back to what it had waited for.
const LONGEST: Duration = Duration::from_millis(20);

/// Threads that look.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// Has the other threads of the pool stay awake until some time after this kernel.
pub(crate) fn keep_awake() {
    let Some(here) = rayon::current_thread_index() else { return };
    let others = rayon::current_num_threads() - 1;
    if others == 0 || LOOKING.compare_exchange(0, others, Relaxed, Relaxed).is_err() {
        return;
    }
    rayon::spawn_broadcast(move |context| {
        if context.index() == here {
            return;
        }
        let start = Instant::now();
        let mut busy = start;
        while busy.elapsed() < IDLE && start.elapsed() < LONGEST {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => busy = Instant::now(),
                _ => std::thread::yield_now(),
            }
        }
        LOOKING.fetch_sub(1, Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn work_is_done_meanwhile_and_an_end_comes() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sums: Vec<u64> = pool.install(|| {
            let sum = |n: u64| {
                keep_awake();
                (0..1000 * n).into_par_iter().sum()
            };
            (1..40).map(sum).collect()
        });
        assert!((1..40).zip(sums).all(|(n, sum): (u64, _)| sum == 500 * n * (1000 * n - 1)));
        let start = Instant::now();
        while LOOKING.load(Relaxed) > 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "threads that never sleep");
            std::thread::sleep(IDLE);
        }
    }
}
