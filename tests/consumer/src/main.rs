//! Somebody else's program: it chooses one backend, and trains by a stage, rewards and a source of thoughts of its
//! own.

mod contrast;
mod mean_thought;
mod variety;

use std::path::Path;

use burn::module::Module;
use latentr3_models::{Objective, ThoughtKind, compiled_backends, device, hub};
use latentr3_train::grpo::{Grpo, GrpoConfig, Sample, freeze_untrained};
use latentr3_train::{AdamW, AdamWConfig, Example, Optimizer, Stage, Trainable, World, forward};

use contrast::Contrast;
use mean_thought::{MeanThought, ThinkInMeans};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    assert_eq!(compiled_backends(), ["ndarray"]);
    let folder = std::env::args().nth(1).ok_or("usage: consumer MODEL")?;
    let model = hub::load(Path::new(&folder), &device("ndarray")?)?;
    let examples = [example(&[1, 2, 3], &[4, 0]), example(&[1, 2, 5, 6], &[7, 8, 0])];
    let rows: Vec<&Example> = examples.iter().collect();
    let objective = Objective::vocabulary();
    println!("log-likelihoods: {}", forward(&model, &objective, &rows)?.sums().into_data());

    let stage = Contrast { objective: objective.clone(), micro_batch: 1 };
    train("a stage of its own", &stage, model.clone().train(), &rows)?;

    let config = GrpoConfig { group: 4, ..GrpoConfig::default() };
    let thinking = model.clone().with_thoughts(ThoughtKind::LatentAttention, 1, 0)?;
    let policy = freeze_untrained(thinking, &config);
    let grpo = Grpo::new(config, 2, 0, &policy, objective.clone())?;
    // Only the first token counts.
    let grpo = grpo.with_reward(|sample: &Sample| f64::from(sample.log_probs[0]));
    train("a reward of its own", &grpo, policy, &rows)?;

    train("a reward of items", &variety::stage(&model)?, model.clone().train(), &rows)?;

    let model = MeanThought::new(model, 1);
    train("a source of thoughts of its own", &ThinkInMeans { objective }, model.train(), &rows)
}

fn example(prompt: &[u32], target: &[u32]) -> Example {
    Example { prompt: prompt.to_vec(), target: target.to_vec(), item: 0, row: 0 }
}

/// Three steps on the same batch.
fn train<M: Trainable>(
    name: &str,
    stage: &dyn Stage<M>,
    mut model: M,
    rows: &[&Example],
) -> Result<(), Box<dyn std::error::Error>> {
    let (adamw, world) = (AdamW::new(AdamWConfig::default()), World::alone());
    let mut optimizer =
        Optimizer { adamw, clip_norm: 1.0, learning_rate: 1e-3, groups: Vec::new(), step: 0, temperature: None };
    for step in 1..=3 {
        optimizer.step = step;
        let (moved, report) = stage.step(model, &mut optimizer, &world.local_batch(rows))?;
        model = moved;
        println!("{name}, {}, step {step}: {}", M::NAME, report.headline);
    }
    Ok(())
}
