//! The threads that compute on the CPU, kept awake while there is something to compute.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// How long a worker without work spins before it rests.
const SPIN_TIME: Duration = Duration::from_millis(2);

/// How long it rests before it looks again.
const REST: Duration = Duration::from_micros(100);

/// How long the work waits for the workers to wake up and spin: long enough for threads that a busy machine has only
/// just started, since one that comes later sleeps between the parts until the work has ended.
const GATHERING: Duration = Duration::from_millis(20);

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
        _ => Err(format!("{threads} threads are too many; the maximum is {MOST_THREADS}")),
    }
}

/// Runs `work` on a thread of the pool while the other workers spin, ready for parts of it.
///
/// A training step has hundreds of parallel sections. Waking a thread costs more than most of them take, in a virtual
/// machine above all, so idle workers spin, as PyTorch's do. It makes CPU training faster; where a GPU
/// computes, it would only keep the processor busy.
///
/// One call at a time has the threads; another one meanwhile, from another thread of the program, works as if it were
/// not for this function. What else runs in the global pool may have to wait until `work` has ended.
pub fn with_awake_threads<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static IN_USE: AtomicBool = AtomicBool::new(false);
    if IN_USE.swap(true, Ordering::AcqRel) {
        return work();
    }
    let _free = SetWhenDropped(&IN_USE, false);
    let watch = &Watch::default();
    rayon::scope(|scope| {
        let own = rayon::current_thread_index();
        // One on each thread: were they jobs like others, the working thread could take one and never come back.
        scope.spawn_broadcast(move |_, thread| {
            if Some(thread.index()) != own {
                watch.spin();
            }
        });
        // Also where the work panics, for the scope waits for all.
        let _end = SetWhenDropped(&watch.is_done, true);
        watch.close(rayon::current_num_threads() - 1);
        work()
    })
}

/// The spinning workers.
///
/// A thread that waits for a part of the work takes other jobs meanwhile. If it began to spin then, it would come
/// back only when the work is done, which waits for that part. So nobody begins to spin once the work has begun.
#[derive(Default)]
struct Watch {
    /// Workers that spin, and [`CLOSED`] when no more may begin.
    spinning: AtomicUsize,
    is_done: AtomicBool,
}

/// Set in [`Watch::spinning`] when the work begins.
const CLOSED: usize = 1 << (usize::BITS - 1);

impl Watch {
    /// Waits a little until so many workers spin, and lets no more begin.
    fn close(&self, threads: usize) {
        let since = Instant::now();
        while self.spinning.load(Ordering::Acquire) < threads && since.elapsed() < GATHERING {
            std::thread::yield_now();
        }
        self.spinning.fetch_or(CLOSED, Ordering::AcqRel);
    }

    fn spin(&self) {
        let begin = |spinning: usize| (spinning & CLOSED == 0).then_some(spinning + 1);
        if self.spinning.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin).is_err() {
            return;
        }
        let mut idle_since = Instant::now();
        while !self.is_done.load(Ordering::Relaxed) {
            if rayon::yield_now() == Some(Yield::Executed) {
                idle_since = Instant::now();
            } else if idle_since.elapsed() < SPIN_TIME {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(REST);
            }
        }
    }
}

struct SetWhenDropped<'a>(&'a AtomicBool, bool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Release);
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

    /// A thread that waits for a part that another one took must come back when that part is done.
    #[test]
    fn works_one_after_the_other_and_side_by_side_all_end() {
        let part = |i: usize| (0..i * 50).fold(i, usize::wrapping_add);
        let many_parts = || (0..64usize).into_par_iter().with_max_len(1).map(part).sum::<usize>();
        let expected = many_parts();
        for threads in [2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for _ in 0..4000 {
                assert_eq!(pool.install(|| with_awake_threads(many_parts)), expected);
            }
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    let work =
                        || (0..100).for_each(|_| assert_eq!(pool.install(|| with_awake_threads(many_parts)), expected));
                    scope.spawn(work);
                }
            });
        }
    }

    #[test]
    fn a_panic_of_the_work_is_not_waited_for() {
        let panics = std::panic::catch_unwind(|| with_awake_threads(|| panic!("on purpose")));
        assert!(panics.is_err());
    }
}
