//! From gradients to a moved model: clipping by the global norm, then AdamW.

use burn::tensor::Tensor;
use latentr3_models::LatentRecommender;

use crate::TrainError;
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
    /// Number of the present step, from 1, for messages.
    pub step: usize,
}

impl Optimizer {
    /// Moves the model; returns it with the gradients' norm before clipping.
    ///
    /// # Errors
    ///
    /// A norm that is not finite; the model is lost then, as it could not be moved.
    pub fn apply(
        &mut self,
        model: LatentRecommender,
        gradients: Gradients,
    ) -> Result<(LatentRecommender, f64), TrainError> {
        let Some(norm) = gradients.norm() else {
            return Ok((model, 0.0));
        };
        let norm = scalar(norm);
        if !norm.is_finite() {
            return Err(TrainError::NotFinite { step: self.step, what: "norm of the gradients", value: norm });
        }
        let factor = (self.clip_norm / (norm + 1e-6)).min(1.0);
        Ok((self.adamw.step(model, gradients, factor, self.learning_rate), norm))
    }
}

/// The value of a tensor of one element.
pub(crate) fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}
