//! Data-parallel training: several processes, the ranks of a world, each with its local part of every batch.
//!
//! All of them hold the whole model and take the same decisions: whatever a decision depends on is the same number in
//! each. Rank 0 writes the run folder.

use latentr3_models::{Objective, TargetSize};

use crate::batches::micro_batches;
use crate::{Example, TrainError};

/// The processes that train one model, as one of them sees them.
#[derive(Debug)]
pub struct World {
    #[cfg(feature = "mpi")]
    mpi: Option<crate::mpi::MpiWorld>,
}

/// One rank's part of a batch.
#[derive(Debug)]
pub struct LocalBatch<'a> {
    /// Its rows, none where there are fewer rows than ranks.
    pub rows: Vec<&'a Example>,
    /// The rows' places in the batch.
    pub places: Vec<usize>,
    /// All rows of the batch, whichever rank has them.
    pub global: Vec<&'a Example>,
    /// The ranks that have the rest.
    pub world: &'a World,
}

impl World {
    /// A single process.
    pub fn alone() -> Self {
        Self {
            #[cfg(feature = "mpi")]
            mpi: None,
        }
    }

    /// The processes that `mpirun` or a scheduler started together.
    ///
    /// # Errors
    ///
    /// The program was built without MPI, or MPI was begun in this process already.
    pub fn of_mpi() -> Result<Self, TrainError> {
        #[cfg(feature = "mpi")]
        return Ok(Self { mpi: Some(crate::mpi::MpiWorld::begin()?) });
        #[cfg(not(feature = "mpi"))]
        Err(TrainError::config("mpi", "not compiled in; build with `--features mpi`"))
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = &self.mpi {
            return mpi.size();
        }
        1
    }

    /// The rank of this process, from 0.
    pub fn rank(&self) -> usize {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = &self.mpi {
            return mpi.rank();
        }
        0
    }

    /// Whether this is rank 0, which writes what is written once.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Replaces each value by its sum over all ranks, which must call this with equally many.
    pub fn all_reduce<T: Summed>(&self, values: &mut [T]) {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = &self.mpi {
            mpi.all_reduce(values);
        }
        #[cfg(not(feature = "mpi"))]
        let _ = values;
    }

    /// Whether it holds on any rank.
    pub fn any(&self, holds: bool) -> bool {
        let mut count = [f64::from(u8::from(holds))];
        self.all_reduce(&mut count);
        count[0] > 0.0
    }

    /// Returns when all ranks have called it.
    pub fn barrier(&self) {
        self.any(false);
    }

    /// This rank's part of a batch: rows of every length, and as many as others have or one fewer.
    pub fn local_batch<'a>(&'a self, batch: &[&'a Example]) -> LocalBatch<'a> {
        let mut places: Vec<usize> = (0..batch.len()).collect();
        if self.size() > 1 {
            places.sort_by_key(|&place| (batch[place].prompt.len() + batch[place].target.len(), place));
            places = places.into_iter().skip(self.rank()).step_by(self.size()).collect();
            places.sort_unstable();
        }
        LocalBatch {
            rows: places.iter().map(|&place| batch[place]).collect(),
            places,
            global: batch.to_vec(),
            world: self,
        }
    }

    /// Ends together. A rank that ends without this, because it failed, takes the others with it.
    pub fn finish(self) {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = self.mpi {
            mpi.finish();
        }
    }
}

impl<'a> LocalBatch<'a> {
    /// Its rows in micro-batches of at most `size`, those of like length together. What a batch computes depends on the
    /// split by rounding only.
    pub fn micro_batches(&self, size: usize) -> impl Iterator<Item = Vec<&'a Example>> + use<'a> {
        let rows = |places: Vec<usize>| places.into_iter().map(|place| self.rows[place]).collect::<Vec<_>>();
        micro_batches(&self.rows, size).into_iter().map(rows).collect::<Vec<_>>().into_iter()
    }

    /// What the targets of the whole batch consist of.
    ///
    /// # Errors
    ///
    /// A target that is no title of the objective's catalog.
    pub fn target_size(&self, objective: &Objective) -> Result<TargetSize, TrainError> {
        let mut all = TargetSize::default();
        for row in &self.global {
            all += objective.size(&row.target)?;
        }
        Ok(all)
    }

    /// The values of all rows of the batch, in their order, from those of its own rows; each row has `width` of them.
    pub fn all_gather(&self, values: &[f64], width: usize) -> Vec<f64> {
        let mut all = vec![0.0; self.global.len() * width];
        for (&place, values) in self.places.iter().zip(values.chunks(width)) {
            all[place * width..(place + 1) * width].copy_from_slice(values);
        }
        // Every value is one rank's, and 0 to the others.
        self.world.all_reduce(&mut all);
        all
    }
}

/// Numbers that [`World::all_reduce`] adds up.
#[cfg(not(feature = "mpi"))]
pub trait Summed: Copy {}
#[cfg(not(feature = "mpi"))]
impl Summed for f32 {}
#[cfg(not(feature = "mpi"))]
impl Summed for f64 {}
#[cfg(feature = "mpi")]
pub use crate::mpi::Summed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_rank_has_the_whole_batch_in_its_order() {
        let example = |length: usize| Example { prompt: vec![1; length], target: vec![2, 0], item: 0, row: length };
        let examples: Vec<Example> = [5, 1, 4].into_iter().map(example).collect();
        let batch: Vec<&Example> = examples.iter().collect();
        let world = World::alone();
        let batch = world.local_batch(&batch);
        assert_eq!((&batch.places[..], batch.global.len()), (&[0, 1, 2][..], 3));
        let size = batch.target_size(&Objective::vocabulary()).unwrap();
        assert_eq!(size, TargetSize { titles: 3, choices: 6 });
        assert_eq!(batch.all_gather(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(world.any(true) && !world.any(false) && world.is_root());
    }
}
