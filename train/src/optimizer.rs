//! From gradients to a moved model: clipping by the global norm, then AdamW.

use burn::tensor::Tensor;
use latentr3_models::LatentRecommender;

use crate::adamw::AdamW;
use crate::gradients::Gradients;

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
}

impl Optimizer {
    /// Moves the model; returns it with the gradients' norm before clipping. If that is not finite, the model stays as it is.
    pub fn apply(&mut self, model: LatentRecommender, gradients: Gradients) -> (LatentRecommender, f64) {
        let Some(norm) = gradients.norm().map(scalar) else {
            return (model, 0.0);
        };
        if !norm.is_finite() {
            return (model, norm);
        }
        let factor = (self.clip_norm / (norm + 1e-6)).min(1.0);
        (self.adamw.step(model, gradients, factor, self.learning_rate), norm)
    }
}

/// The value of a tensor of one element.
pub(crate) fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}
