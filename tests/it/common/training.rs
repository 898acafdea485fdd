//! Steps, runs and validations of the small model.

use std::sync::atomic::AtomicBool;

use super::examples::examples;
use latentr3::models::{LatentRecommender, Objective};
use latentr3::train::{
    AdamW, AdamWConfig, Event, Example, Likelihood, Optimizer, RunFolder, Stage, TrainConfig, Training, ValidationPass,
    World,
};

/// Nobody interrupts.
pub static GO_ON: AtomicBool = AtomicBool::new(false);

pub fn optimizer() -> Optimizer {
    Optimizer {
        groups: Vec::new(),
        adamw: AdamW::new(AdamWConfig::default()),
        clip_norm: 1.0,
        learning_rate: 1e-2,
        step: 1,
        temperature: None,
    }
}

pub fn step(stage: &dyn Stage<LatentRecommender>, model: LatentRecommender) -> LatentRecommender {
    let examples = examples();
    let world = World::alone();
    stage.step(model, &mut optimizer(), &world.local_batch(&examples.iter().collect::<Vec<_>>())).unwrap().0
}

/// A run on the examples, which are also validated on.
pub fn training<'a>(
    config: &'a TrainConfig,
    examples: &'a [Example],
    run: &'a RunFolder,
    world: &'a World,
    observer: &'a mut dyn FnMut(Event),
    interrupted: &'a AtomicBool,
) -> Training<'a> {
    Training { config, train: examples, valid: examples, run: Some(run), world, observer, interrupted }
}

/// The loss on examples, in micro-batches of so many rows.
pub fn likelihood(
    model: &LatentRecommender,
    objective: &Objective,
    examples: &[Example],
    micro_batch: usize,
) -> Likelihood {
    let pass = ValidationPass { micro_batch, world: &World::alone(), interrupted: &GO_ON };
    latentr3::train::likelihood(model, objective, examples, &pass).unwrap()
}
