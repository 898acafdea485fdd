//! Memory for time: activations that are computed again in the backward pass.

use burn::module::Param;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

use super::LatentRecommender;
use crate::named::{NamedMapper, map_named};

impl LatentRecommender {
    /// A model in training whose backward passes keep of each block what goes in and its keys and values, and compute
    /// the rest again (gradient checkpointing; Chen et al., arXiv 1604.06174). Losses and gradients stay the same.
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

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use crate::backbone::{Architecture, BackboneConfig, NewBackbone};
    use crate::ops::{operations_done_again, testing::device};
    use crate::{LatentRecommender, LoraConfig, Objective, ThoughtKind};

    /// Projections with biases, frozen and trained: nothing between the marks may be kept for them.
    #[test]
    fn blocks_are_done_again() {
        let new = NewBackbone {
            architecture: Architecture::Qwen2,
            vocab_size: 20,
            d_model: 16,
            d_ff: 24,
            layers: 3,
            heads: 2,
            kv_heads: 1,
            max_positions: 16,
            end_token: 0,
        };
        let config = BackboneConfig::new(&new).unwrap();
        let trained = LatentRecommender::new(config, ThoughtKind::LastHidden, 0, 1, &device()).unwrap();
        let adapted = trained.clone().with_lora(&LoraConfig::of_rank(2), 1).unwrap();
        for (model, per_layer) in [(trained, 9), (adapted, 18)] {
            let done_again = |model: &LatentRecommender| {
                let before = operations_done_again();
                let state = model.prefill(&[&[1, 2, 3], &[4, 5]]).unwrap();
                let targets: [&[u32]; 2] = [&[6, 0], &[7, 0]];
                let found = model.target_log_probs(&state, None, &targets, &Objective::vocabulary()).unwrap();
                found.values.sum().backward();
                operations_done_again() - before
            };
            let model = model.train();
            assert_eq!(done_again(&model), 0);
            let again = done_again(&model.with_gradient_checkpointing());
            // For the prompts and for the targets.
            assert!(again >= 2 * new.layers * per_layer, "{again}");
        }
    }
}
