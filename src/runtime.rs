//! The threads that compute on the CPU, kept awake while there is something to compute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// How long a thread without work looks out for it before it rests.
const LOOKOUT: Duration = Duration::from_millis(2);

/// How long it rests before it looks again.
const REST: Duration = Duration::from_micros(100);

/// Most threads of a pool.
const MOST_THREADS: usize = 1024;

/// Has all that is computed on the CPU use so many threads, 0 for one per core; before anything was computed.
///
/// # Errors
///
/// More than 1024 threads, or a pool that is there already.
pub fn use_threads(threads: usize) -> Result<(), String> {
    match threads {
        0 => Ok(()),
        1..=MOST_THREADS => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
            pool.map_err(|error| format!("{threads} threads: {error}"))
        }
        _ => Err(format!("{threads} threads are too many; there are up to {MOST_THREADS}")),
    }
}

/// Runs `work` on a thread of the pool while the other threads look out for parts of it.
///
/// A training step has hundreds of parallel parts, most of them shorter than a sleeping thread takes to wake up, in a
/// virtual machine above all. PyTorch's threads wait in the same way. It makes CPU training faster; where a GPU
/// computes, it would only keep the processor busy.
pub fn with_awake_threads<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let is_done = &AtomicBool::new(false);
    rayon::scope(|scope| {
        let own = rayon::current_thread_index();
        // One on each thread: were they jobs like others, the working thread could take one and never come back.
        scope.spawn_broadcast(move |_, thread| {
            if Some(thread.index()) != own {
                look_out(is_done);
            }
        });
        // Also where the work panics, for the scope waits for all.
        let _end = SetWhenDropped(is_done);
        work()
    })
}

fn look_out(is_done: &AtomicBool) {
    let mut idle_since = Instant::now();
    while !is_done.load(Ordering::Relaxed) {
        if rayon::yield_now() == Some(Yield::Executed) {
            idle_since = Instant::now();
        } else if idle_since.elapsed() < LOOKOUT {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(REST);
        }
    }
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn the_work_is_done_by_the_pool_and_its_result_comes_back() {
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sum =
                pool.install(|| with_awake_threads(|| (0..10_000u64).into_par_iter().map(|i| i * i).sum::<u64>()));
            assert_eq!(sum, 333_283_335_000);
        }
    }

    #[test]
    fn a_panic_of_the_work_is_not_waited_for() {
        let panics = std::panic::catch_unwind(|| with_awake_threads(|| panic!("on purpose")));
        assert!(panics.is_err());
    }
}
