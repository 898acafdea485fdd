//! A small model with random weights, and a look at its values.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::Tensor;
use latentr3::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use latentr3::models::{
    LatentRecommender, NamedMapper, NamedVisitor, Objective, ThoughtKind, host, map_named, visit_named,
};

/// Prompts of several lengths with the same first two tokens.
pub const PROMPTS: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[1, 2, 9, 8, 7, 6, 5, 4], &[1, 2, 3]];

/// A small model with random weights large enough to matter.
pub fn small_model(thoughts: usize, seed: u64) -> LatentRecommender {
    let config = BackboneConfig::new(&NewBackbone {
        architecture: Architecture::Qwen2,
        vocab_size: 40,
        d_model: 16,
        d_ff: 24,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        max_positions: 64,
        end_token: 0,
    })
    .unwrap();
    let kind = ThoughtKind::LatentAttention;
    let model = LatentRecommender::new(config, kind, thoughts, seed, &super::device()).unwrap();
    scaled(model, 8.0)
}

/// The model with its matrices multiplied, so that attention and logits are far from uniform.
fn scaled(model: LatentRecommender, factor: f64) -> LatentRecommender {
    struct Scale(f64);
    impl NamedMapper for Scale {
        fn map<const D: usize>(&mut self, _name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            parameter.map(|value| if D > 1 { value.mul_scalar(self.0) } else { value })
        }
    }
    map_named(model, &mut Scale(factor))
}

/// Log-probabilities of the targets' tokens, one after another, by the objective of the vocabulary.
pub fn log_probs(model: &LatentRecommender, prompts: &[&[u32]], targets: &[&[u32]]) -> Vec<f32> {
    let mut state = model.prefill(prompts).unwrap();
    let thought = model.think(&mut state).unwrap();
    host::read(model.target_log_probs(&state, thought, targets, &Objective::vocabulary()).unwrap().values)
}

/// All weights by name.
pub fn weights(model: &LatentRecommender) -> BTreeMap<String, Vec<f32>> {
    struct Collect(BTreeMap<String, Vec<f32>>);
    impl NamedVisitor for Collect {
        fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            self.0.insert(name.to_owned(), host::read(parameter.val()));
        }
    }
    let mut collect = Collect(Default::default());
    visit_named(model, &mut collect);
    collect.0
}
