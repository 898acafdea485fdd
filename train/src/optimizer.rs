//! From gradients to a moved model: clipping by the global norm, then AdamW.

use serde_json::{Map, json};

use crate::TrainError;
use crate::adamw::AdamW;
use crate::groups::{ParameterGroup, rate_of};
use crate::local_update::LocalUpdate;
use crate::progress::{Fault, StepReport};
use crate::trainable::Trainable;
use crate::world::{LocalBatch, World};

/// AdamW with clipping and the learning rate of the present step.
#[derive(Debug)]
pub struct Optimizer {
    /// The optimiser proper.
    pub adamw: AdamW,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Learning rate of the present step.
    pub learning_rate: f64,
    /// Parameters with learning rates of their own.
    pub groups: Vec<ParameterGroup>,
    /// Number of the present step, from 1; stage 2's noise depends on it.
    pub step: usize,
    /// The temperature that the last step left, where it adapts.
    pub temperature: Option<f64>,
}

impl Optimizer {
    /// Adds up what all ranks have, and moves the model unless the norm or one of the metrics is not finite. The report
    /// has the metrics in their order, `gradient_norm` (before clipping) after them; its headline is the first.
    ///
    /// All that decides on the update comes to the host in one read.
    ///
    /// # Errors
    ///
    /// No rank has a gradient of any parameter, or not all ranks have equally many metrics.
    pub fn apply<M: Trainable>(
        &mut self,
        model: M,
        update: LocalUpdate,
        batch: &LocalBatch,
    ) -> Result<(M, StepReport), TrainError> {
        let world = batch.world;
        let gradients = update.gradients.all_reduce(&model, world);
        let Some(norm) = gradients.norm() else {
            return Err(TrainError::config("loss", "has no gradient with respect to any trained parameter"));
        };
        let names = update.metrics.names();
        if !agree(world, names.len()) {
            let problem =
                "differ between ranks: name them with LocalUpdate::with_metrics, because a rank may have no rows";
            return Err(TrainError::config("metrics", problem));
        }
        let (mut values, norm) = update.metrics.read_with(norm);
        // Machines may round the norm differently, and all have to clip alike: the first one's counts.
        values.push(if world.is_root() { norm } else { 0.0 });
        world.all_reduce(&mut values);
        let norm = values.pop().unwrap_or_default();
        let faults = names.iter().zip(&values).find_map(|(&name, &value)| Fault::of(name, value));
        let fault = faults.or(Fault::of("norm of the gradients", norm));
        let mut model = model;
        if fault.is_none() {
            let factor = (self.clip_norm / (norm + 1e-6)).min(1.0);
            let rate = |name: &str| self.learning_rate * rate_of(&self.groups, name);
            model = self.adamw.step(model, gradients, factor, rate);
        }
        let headline = values.first().copied().unwrap_or_default();
        let metrics = names.into_iter().zip(values).chain([("gradient_norm", norm)]);
        let metrics: Map<_, _> = metrics.map(|(name, value)| (name.to_owned(), json!(value))).collect();
        Ok((model, StepReport { headline, metrics, fault, watched: None }))
    }
}

/// Whether all ranks have the same number, which all of them find alike: only of equal numbers the square of the sum is
/// as many times the sum of the squares as there are numbers.
fn agree(world: &World, number: usize) -> bool {
    let mut sums = [number as f64, (number * number) as f64];
    world.all_reduce(&mut sums);
    sums[0] * sums[0] == sums[1] * world.size() as f64
}
