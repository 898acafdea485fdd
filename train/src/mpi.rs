//! The ranks as processes of MPI.
//!
//! Burn's own all-reduce works between the GPUs of one process, with CUDA only: its CPU backends have none, and its
//! remote devices refuse one across peers. MPI works between any processes, on one machine or many, whatever they
//! compute on, and its launcher ends the others when one of them dies.

use std::mem::ManuallyDrop;

use mpi::collective::SystemOperation;
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;

use crate::TrainError;

/// Numbers added up in one message: a count is 32 bits wide in MPI.
const MOST_NUMBERS: usize = 1 << 28;

/// The processes that were started together.
pub(crate) struct MpiWorld {
    /// Let go of by [`MpiWorld::finish`] only. What drops it otherwise is a failure, in which others may be waiting for
    /// this process in a collective operation and the end of MPI would wait for them: its launcher ends them all
    /// instead.
    universe: ManuallyDrop<Universe>,
    world: SimpleCommunicator,
}

impl std::fmt::Debug for MpiWorld {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "MpiWorld({} of {})", self.rank(), self.size())
    }
}

/// Numbers that ranks add up.
pub trait Summed: Copy + Equivalence {}
impl Summed for f32 {}
impl Summed for f64 {}

impl MpiWorld {
    pub fn begin() -> Result<Self, TrainError> {
        // Only the thread that trains calls MPI.
        let (universe, _) = mpi::initialize_with_threading(mpi::Threading::Funneled)
            .ok_or_else(|| TrainError::config("mpi", "is already initialised in this process"))?;
        let world = universe.world();
        Ok(Self { universe: ManuallyDrop::new(universe), world })
    }

    pub fn size(&self) -> usize {
        self.world.size() as usize
    }

    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    pub fn all_reduce<T: Summed>(&self, values: &mut [T]) {
        for part in values.chunks_mut(MOST_NUMBERS) {
            let own = part.to_vec();
            self.world.all_reduce_into(&own[..], part, SystemOperation::sum());
        }
    }

    pub fn finish(self) {
        drop(ManuallyDrop::into_inner(self.universe));
    }
}
