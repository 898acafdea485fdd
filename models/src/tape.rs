//! Tensors for a tape.

use burn::tensor::{GradientCheckpointingStrategy, Tensor};

/// A tensor without gradient, for a tape of the given kind; absent, for one without gradient checkpointing.
pub fn on_tape<const D: usize>(tensor: Tensor<D>, strategy: Option<GradientCheckpointingStrategy>) -> Tensor<D> {
    let tensor = tensor.autodiff();
    match strategy {
        Some(strategy) => tensor.with_gradient_checkpointing_strategy(strategy),
        None => tensor,
    }
}
