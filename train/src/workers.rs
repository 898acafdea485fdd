//! Several processes that train one model together, each on its share of every batch.
//!
//! All of them hold the whole model and take the same decisions: whatever a decision depends on is the same figure in
//! each. The first one writes the run folder.

use latentr3_models::{Objective, TargetSize};

use crate::{Example, TrainError};

/// The processes of a run, as one of them sees them.
#[derive(Debug)]
pub struct Workers {
    #[cfg(feature = "mpi")]
    world: Option<crate::mpi::World>,
}

/// One worker's share of a batch.
#[derive(Debug)]
pub struct Share<'a> {
    /// Its rows, none where there are fewer rows than workers.
    pub rows: Vec<&'a Example>,
    /// The rows' places in the batch.
    pub places: Vec<usize>,
    /// All rows of the batch, whoever has them.
    pub batch: Vec<&'a Example>,
    /// Who has the rest.
    pub workers: &'a Workers,
}

impl Workers {
    /// A process of its own.
    pub fn alone() -> Self {
        Self {
            #[cfg(feature = "mpi")]
            world: None,
        }
    }

    /// The processes that `mpirun` or a scheduler started together.
    ///
    /// # Errors
    ///
    /// The program was built without MPI, or MPI was begun in this process already.
    pub fn of_mpi() -> Result<Self, TrainError> {
        #[cfg(feature = "mpi")]
        return Ok(Self { world: Some(crate::mpi::World::begin()?) });
        #[cfg(not(feature = "mpi"))]
        Err(TrainError::config("mpi", "is not compiled in; build with `--features mpi`"))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            return world.count();
        }
        1
    }

    /// Number of this one, from 0.
    pub fn number(&self) -> usize {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            return world.number();
        }
        0
    }

    /// Whether this one writes what is written once.
    pub fn is_first(&self) -> bool {
        self.number() == 0
    }

    /// Adds up, over all workers, each of the values; all must call this with as many.
    pub fn sum<T: Summed>(&self, values: &mut [T]) {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            world.sum(values);
        }
        #[cfg(not(feature = "mpi"))]
        let _ = values;
    }

    /// Whether it holds for any of them.
    pub fn any(&self, holds: bool) -> bool {
        let mut count = [f64::from(u8::from(holds))];
        self.sum(&mut count);
        count[0] > 0.0
    }

    /// Comes back when all of them have called it.
    pub fn wait(&self) {
        self.any(false);
    }

    /// This worker's share of a batch: rows of every length, and as many as others have or one fewer.
    pub fn share<'a>(&'a self, batch: &[&'a Example]) -> Share<'a> {
        let mut places: Vec<usize> = (0..batch.len()).collect();
        if self.count() > 1 {
            places.sort_by_key(|&place| (batch[place].prompt.len() + batch[place].target.len(), place));
            places = places.into_iter().skip(self.number()).step_by(self.count()).collect();
            places.sort_unstable();
        }
        Share { rows: places.iter().map(|&place| batch[place]).collect(), places, batch: batch.to_vec(), workers: self }
    }

    /// Ends the work together. A worker that ends without this, for it failed, takes the others with it.
    pub fn finish(self) {
        #[cfg(feature = "mpi")]
        if let Some(world) = self.world {
            world.finish();
        }
    }
}

impl Share<'_> {
    /// What the targets of the whole batch consist of.
    ///
    /// # Errors
    ///
    /// A target that is no title of the objective's catalog.
    pub fn target_size(&self, objective: &Objective) -> Result<TargetSize, TrainError> {
        let mut all = TargetSize::default();
        for row in &self.batch {
            all += objective.size(&row.target)?;
        }
        Ok(all)
    }

    /// The figures of all rows of the batch, in their order, from those of this share; each row has `width` figures.
    pub fn of_all(&self, figures: &[f64], width: usize) -> Vec<f64> {
        let mut all = vec![0.0; self.batch.len() * width];
        for (&place, figures) in self.places.iter().zip(figures.chunks(width)) {
            all[place * width..(place + 1) * width].copy_from_slice(figures);
        }
        // Every figure is one worker's, and nothing to the others.
        self.workers.sum(&mut all);
        all
    }
}

/// Numbers that [`Workers::sum`] adds up.
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
    fn one_worker_has_the_whole_batch_in_its_order() {
        let example = |length: usize| Example { prompt: vec![1; length], target: vec![2, 0], item: 0, row: length };
        let examples: Vec<Example> = [5, 1, 4].into_iter().map(example).collect();
        let batch: Vec<&Example> = examples.iter().collect();
        let workers = Workers::alone();
        let share = workers.share(&batch);
        assert_eq!((&share.places[..], share.batch.len()), (&[0, 1, 2][..], 3));
        let size = share.target_size(&Objective::vocabulary()).unwrap();
        assert_eq!(size, TargetSize { titles: 3, choices: 6 });
        assert_eq!(share.of_all(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(workers.any(true) && !workers.any(false) && workers.is_first());
    }
}
