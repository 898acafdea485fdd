use std::time::Instant;

use burn::module::Module;
use serde_json::Value;

use super::config::StepConfig;
use super::error::BenchError;
use super::result::StepTimes;
use crate::models::host::Transfers;
use crate::models::{LatentRecommender, LaunchCounter};
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
        let mut counter = LaunchCounter::of(&model.device());
        let mut times = StepTimes::default();
        for step in 0..config.warm_up.saturating_add(config.steps) {
            let first = if config.repeat { 0 } else { step * prompts };
            let batch: Vec<&Example> = (first..first + prompts).map(|row| &rows[row % rows.len()]).collect();
            optimizer.step = step + 1;
            let (before, clock) = (Transfers::so_far(), Instant::now());
            let (moved, report) = self.stage.step(model, &mut optimizer, &world.local_batch(&batch))?;
            model = moved;
            let seconds = clock.elapsed().as_secs_f64();
            let (launches, transfers) = (counter.as_mut().map(LaunchCounter::take), Transfers::since(before));
            if let Some(Fault { what, value }) = report.fault {
                return Err(TrainError::NotFinite { step: step + 1, what, value, rows: Vec::new() }.into());
            }
            if step < config.warm_up {
                continue;
            }
            times.step_s.push(seconds);
            times.loss.extend(report.metrics.get("loss").and_then(Value::as_f64));
            if self.group.is_some() {
                times.reward.push(report.headline);
            }
            if let Some(launches) = launches {
                times.launches.push(launches.count());
                times.new_kernels.push(launches.new_kernels);
                times.uploads.push(transfers.uploads);
                times.downloads.push(transfers.downloads);
                times.bytes_moved.push(transfers.bytes);
                times.kernels = launches.by_kernel;
            }
            let length = |row: &&Example| row.prompt.len() + row.target.len() + model.thoughts();
            times.tokens += batch.iter().map(length).sum::<usize>();
        }
        times.step_s_min = times.step_s.iter().copied().fold(f64::INFINITY, f64::min);
        times.peak_mib = peak_mib();
        Ok(times)
    }
}
