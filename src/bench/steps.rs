use std::time::Instant;

use burn::module::Module;
use serde_json::Value;

use super::config::StepConfig;
use super::error::BenchError;
use super::result::StepTimes;
use crate::models::LatentRecommender;
use crate::run::peak_mib;
use crate::train::{AdamW, AdamWConfig, Example, Fault, Optimizer, Stage, TrainError, World};

/// Steps of a stage.
pub(super) struct Steps<'a> {
    pub config: &'a StepConfig,
    pub stage: &'a dyn Stage<LatentRecommender>,
    /// Samples of each prompt, where the batch is counted in rollouts.
    pub group: Option<usize>,
}

impl Steps<'_> {
    /// Times the steps that move a model.
    pub fn time(&self, mut model: LatentRecommender, rows: &[Example]) -> Result<StepTimes, BenchError> {
        let config = self.config;
        let prompts = config.batch / self.group.unwrap_or(1);
        let adamw = AdamW::new(AdamWConfig::default());
        let learning_rate = config.learning_rate;
        let mut optimizer =
            Optimizer { adamw, clip_norm: 1.0, learning_rate, groups: Vec::new(), step: 0, temperature: None };
        model = model.train().with_frozen_weights(config.frozen_weights)?;
        if config.gradient_checkpointing {
            model = model.with_gradient_checkpointing();
        }
        let world = World::alone();
        let (mut step_s, mut loss, mut reward, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for step in 0..config.steps {
            let batch: Vec<&Example> = (0..prompts).map(|i| &rows[(step * prompts + i) % rows.len()]).collect();
            optimizer.step = step + 1;
            let clock = Instant::now();
            let (moved, report) = self.stage.step(model, &mut optimizer, &world.local_batch(&batch))?;
            model = moved;
            step_s.push(clock.elapsed().as_secs_f64());
            if let Some(Fault { what, value }) = report.fault {
                return Err(TrainError::NotFinite { step: step + 1, what, value, rows: Vec::new() }.into());
            }
            loss.extend(report.metrics.get("loss").and_then(Value::as_f64));
            if self.group.is_some() {
                reward.push(report.headline);
            }
            tokens += batch.iter().map(|row| row.prompt.len() + row.target.len() + model.thoughts()).sum::<usize>();
        }
        let step_s_min = step_s.iter().copied().fold(f64::INFINITY, f64::min);
        Ok(StepTimes { step_s, loss, reward, tokens, step_s_min, peak_mib: peak_mib() })
    }
}
