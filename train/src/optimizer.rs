//! From gradients to a moved model: clipping by the global norm, then AdamW.

use latentr3_models::{LatentRecommender, host};

use crate::adamw::AdamW;
use crate::progress::Fault;
use crate::share_update::ShareUpdate;
use crate::workers::Workers;

/// AdamW with clipping and the learning rate of the present step.
#[derive(Debug)]
pub struct Optimizer {
    /// The optimiser proper.
    pub adamw: AdamW,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Learning rate of the present step.
    pub learning_rate: f64,
    /// Number of the present step, from 1; stage 2's noise depends on it.
    pub step: usize,
    /// The temperature that the last step left, where it adapts.
    pub temperature: Option<f64>,
}

/// What an update came to.
#[derive(Debug)]
pub struct Applied {
    /// The figures of the update with their names, added up over all workers.
    pub figures: Vec<(&'static str, f64)>,
    /// Global norm of the gradients before clipping.
    pub norm: f64,
    /// What was not finite, for which the model was not moved.
    pub fault: Option<Fault>,
}

impl Optimizer {
    /// Adds up what all workers have, and moves the model unless the norm or one of the figures is not finite.
    ///
    /// All that decides on the update comes to the host in one read.
    pub fn apply(
        &mut self,
        model: LatentRecommender,
        update: ShareUpdate,
        workers: &Workers,
    ) -> (LatentRecommender, Applied) {
        let gradients = update.gradients.of_all(&model, workers);
        let (names, mut tensors) = update.figures.unzip();
        tensors.extend(gradients.norm());
        let mut values: Vec<f64> = host::read_all(tensors).iter().map(|values| f64::from(values[0])).collect();
        if !workers.is_first() {
            // Machines may round it differently, and all have to clip alike: the first one's counts.
            values[names.len()..].fill(0.0);
        }
        workers.sum(&mut values);
        let norm = values.drain(names.len()..).next().unwrap_or(0.0);
        let figures: Vec<(&str, f64)> = names.into_iter().zip(values).collect();
        let faults = figures.iter().find_map(|&(name, value)| Fault::of(name, value));
        let fault = faults.or(Fault::of("norm of the gradients", norm));
        let mut model = model;
        if fault.is_none() {
            let factor = (self.clip_norm / (norm + 1e-6)).min(1.0);
            model = self.adamw.step(model, gradients, factor, self.learning_rate);
        }
        (model, Applied { figures, norm, fault })
    }
}
