//! Tensors for a tape.

use burn::tensor::{GradientCheckpointingStrategy, Tensor};

/// A constant as it goes into operations with `x`: on a tape if that is on one.
pub fn constant_with<const D: usize, const E: usize>(constant: Tensor<D>, x: &Tensor<E>) -> Tensor<D> {
    if x.is_autodiff() { Tensor::from_inner(constant) } else { constant }
}

/// A tensor without gradient, for a tape of the given kind; absent, for one without gradient checkpointing.
pub fn on_tape<const D: usize>(tensor: Tensor<D>, strategy: Option<GradientCheckpointingStrategy>) -> Tensor<D> {
    let tensor = tensor.autodiff();
    match strategy {
        Some(strategy) => tensor.with_gradient_checkpointing_strategy(strategy),
        None => tensor,
    }
}
