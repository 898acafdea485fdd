//! Memory for time: activations that are computed again in the backward pass.

use burn::module::Param;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

use crate::LatentRecommender;
use crate::named::{NamedMapper, map_named};

impl LatentRecommender {
    /// A model in training whose backward passes keep of each block what goes in and its keys and values, and compute the rest again
    /// (gradient checkpointing; Chen et al., arXiv 1604.06174). Losses and gradients stay the same.
    ///
    /// # Panics
    ///
    /// If the model is not in training.
    pub fn with_gradient_checkpointing(self) -> Self {
        struct Marked;
        impl NamedMapper for Marked {
            fn map<const D: usize>(&mut self, _: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
                parameter
                    .map(|value| value.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced))
            }
        }
        map_named(self, &mut Marked)
    }
}

/// A tensor without gradient, for a tape of the given kind; absent, for one without gradient checkpointing.
pub fn on_tape<const D: usize>(tensor: Tensor<D>, strategy: Option<GradientCheckpointingStrategy>) -> Tensor<D> {
    let tensor = tensor.autodiff();
    match strategy {
        Some(strategy) => tensor.with_gradient_checkpointing_strategy(strategy),
        None => tensor,
    }
}
