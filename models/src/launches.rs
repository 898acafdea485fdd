//! What the process asks of its GPUs.

use std::collections::BTreeMap;

use burn::tensor::Device;

use crate::device::driver;

/// Kernels that the process launched on GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launches {
    /// Launches by the kernels' names, without their type arguments.
    pub by_kernel: BTreeMap<String, u64>,
    /// Different kernels that the counter saw for the first time: each of them was compiled, or read from a cache.
    pub new_kernels: usize,
}

impl Launches {
    /// All launches.
    pub fn count(&self) -> u64 {
        self.by_kernel.values().sum()
    }
}

/// Counts the launches of the process, on all of its GPUs.
///
/// Operations are queued. What a step launches has been counted when a value of it was read.
pub struct LaunchCounter(counter::Counter);

impl LaunchCounter {
    /// Begins to count, if the device is a GPU. Another counter counts nothing meanwhile.
    pub fn of(device: &Device) -> Option<Self> {
        driver(device).map(|_| Self(counter::Counter::new()))
    }

    /// What was launched since the beginning, or since the last call.
    pub fn take(&mut self) -> Launches {
        self.0.take()
    }
}

#[cfg(feature = "gpu")]
mod counter {
    use std::collections::{BTreeMap, HashSet};
    use std::sync::{Arc, Mutex, PoisonError};

    use burn::cubecl::launched::LaunchedKernels;
    use burn::cubecl::logging::{LaunchObservation, LaunchObserver};

    use super::Launches;

    #[derive(Default)]
    struct ByName(Mutex<BTreeMap<&'static str, u64>>);

    impl LaunchObserver for ByName {
        fn launched(&self, kernel: &'static str) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kernel).or_default() += 1;
        }
    }

    pub struct Counter {
        counts: Arc<ByName>,
        _observation: LaunchObservation,
        kernels: LaunchedKernels,
        known: HashSet<u128>,
    }

    impl Counter {
        pub fn new() -> Self {
            let counts = Arc::<ByName>::default();
            let observation = LaunchObservation::new(counts.clone());
            Self { counts, _observation: observation, kernels: LaunchedKernels::new(), known: HashSet::new() }
        }

        pub fn take(&mut self) -> Launches {
            let seen = std::mem::replace(&mut self.kernels, LaunchedKernels::new()).finish();
            let new_kernels = seen.into_iter().filter(|kernel| self.known.insert(*kernel)).count();
            let counts = std::mem::take(&mut *self.counts.0.lock().unwrap_or_else(PoisonError::into_inner));
            let mut by_kernel = BTreeMap::new();
            for (name, count) in counts {
                *by_kernel.entry(short(name).to_owned()).or_default() += count;
            }
            Launches { by_kernel, new_kernels }
        }
    }

    /// A type's name without its path and arguments.
    fn short(name: &str) -> &str {
        let path = name.split('<').next().unwrap_or(name);
        path.rsplit("::").next().unwrap_or(path)
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn names_lose_paths_and_arguments() {
            for (name, short) in [("a::b::Fused<c::D<e>, f>", "Fused"), ("Plain", "Plain"), ("a::B", "B")] {
                assert_eq!(super::short(name), short);
            }
        }
    }
}

#[cfg(not(feature = "gpu"))]
mod counter {
    use super::Launches;

    /// There is no GPU to count on.
    pub struct Counter;

    impl Counter {
        pub fn new() -> Self {
            Self
        }

        pub fn take(&mut self) -> Launches {
            Launches::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LaunchCounter;
    use crate::ops::testing::{device, random};

    #[test]
    fn a_gpus_launches_are_counted_and_a_cpu_has_none() {
        let device = device();
        let Some(mut counter) = LaunchCounter::of(&device) else {
            assert!(crate::driver(&device).is_none());
            return;
        };
        let step = || random([40, 30], 1).matmul(random([30, 20], 2)).sum().into_scalar::<f32>();
        step();
        let first = counter.take();
        assert!(first.count() >= 2 && first.new_kernels >= 2, "{first:?}");
        assert!(counter.take().by_kernel.is_empty());
        step();
        assert!(counter.take().count() >= 2);
    }
}
