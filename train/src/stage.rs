//! What is trained: a step, a validation, and what the loop must know of both.

use std::sync::atomic::AtomicBool;

use crate::guard::Guards;
use crate::optimizer::Optimizer;
use crate::progress::{StepReport, Validation};
use crate::trainable::Trainable;
use crate::world::{LocalBatch, World};
use crate::{Example, TrainError};

/// What a training run does with a batch of examples, and how it measures a model.
pub trait Stage<M: Trainable> {
    /// Moves the model by one batch; this rank has a part of it. It does not move if a metric is not finite, which the
    /// report says then. Reports and models are the same on all ranks.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    fn step(&self, model: M, optimizer: &mut Optimizer, batch: &LocalBatch) -> Result<(M, StepReport), TrainError>;

    /// Measures a model on held-out examples, of which there is at least one; the same on all ranks. Without a measure
    /// the latest model counts as the best.
    ///
    /// # Errors
    ///
    /// What the model refuses, or [`TrainError::Interrupted`].
    fn validate(&self, model: &M, rows: &[Example], pass: &ValidationPass) -> Result<Option<Validation>, TrainError> {
        let _ = (model, rows, pass);
        Ok(None)
    }

    /// Freezes what the stage does not train.
    fn freeze(&self, model: M) -> M {
        model
    }

    /// What the run must keep to, where the stage has anything to watch.
    fn guards(&self) -> Option<Guards> {
        None
    }

    /// Numbers of those rows of a batch that may have made a metric NaN or infinite; all of them where the stage cannot
    /// tell.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    fn suspects(&self, model: &M, rows: &[&Example]) -> Result<Vec<usize>, TrainError> {
        let _ = model;
        Ok(rows.iter().map(|row| row.row).collect())
    }
}

/// How a validation is carried out.
#[derive(Debug, Clone, Copy)]
pub struct ValidationPass<'a> {
    /// Rows that run through the model at once.
    pub micro_batch: usize,
    /// The ranks that share the work.
    pub world: &'a World,
    /// Set where the run is to stop.
    pub interrupted: &'a AtomicBool,
}
