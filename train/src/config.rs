//! What is asked of a run, and the steps that follow from it.

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::adamw::AdamWConfig;
use crate::groups::{self, ParameterGroup};
use crate::regularization::check_share;
use crate::schedule::Schedule;

/// What all stages have in common. The defaults are stage 1's published settings (arXiv 2505.19092).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training examples at most.
    pub epochs: usize,
    /// Prompts a step.
    pub batch: usize,
    /// Prompts that run through the model at once in validations; stages have their own. Changes memory and speed, and
    /// results by rounding only.
    pub micro_batch: usize,
    /// Whether activations are computed again in the backward pass instead of being kept; changes memory and speed, not
    /// results.
    pub gradient_checkpointing: bool,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// Steps until the learning rate is at its highest; absent, the smaller of 200 and a tenth of the run's steps.
    pub warmup: Option<usize>,
    /// The optimiser's constants.
    pub optimizer: AdamWConfig,
    /// Parameters with learning rates of their own; those of no group have the run's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Validations in an epoch at most, equally far apart, or in the whole run where that is shorter.
    pub validations: usize,
    /// Whether to validate before the first step, so that the start itself may turn out to be the best.
    pub validate_first: bool,
    /// Stop after this many validations without a better loss; absent, never.
    pub patience: Option<usize>,
    /// Steps between checkpoints, besides those at validations.
    pub checkpoint_every: usize,
    /// Checkpoints to keep besides the latest and the best; absent, none.
    pub keep: Option<Keep>,
    /// What to do when a loss, reward or gradient is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Steps at most, for trials.
    pub max_steps: Option<usize>,
    /// Seed of the batches' order.
    pub seed: u64,
}

/// Which checkpoints are kept as `RUN/step-N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Steps between them.
    pub every: usize,
    /// How many at most; the oldest go.
    pub limit: usize,
}

/// What to do with a step whose loss, reward or gradient is NaN or infinite. Such a step never changes the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// Stop the run.
    Stop,
    /// Continue with the next batch and count the step; ten in a row stop the run in any case.
    Skip,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch: 128,
            micro_batch: 32,
            gradient_checkpointing: false,
            learning_rate: 3e-4,
            schedule: Schedule::Linear,
            warmup: Some(20),
            optimizer: AdamWConfig::default(),
            groups: Vec::new(),
            clip_norm: 1.0,
            validations: 1,
            validate_first: false,
            patience: Some(1),
            checkpoint_every: 50,
            keep: None,
            on_nonfinite: OnNonfinite::Stop,
            max_steps: None,
            seed: 0,
        }
    }
}

/// What most numbers must be.
const POSITIVE: &str = "a positive single-precision number";

fn is_positive(value: f64) -> bool {
    (value as f32).is_finite() && value as f32 > 0.0
}

/// Makes sure that a number is positive and that single precision has it.
pub(crate) fn check_positive(field: &'static str, value: f64) -> Result<(), TrainError> {
    match is_positive(value) {
        true => Ok(()),
        false => Err(TrainError::config(field, format!("must be {POSITIVE}, got {value:?}"))),
    }
}

/// Makes sure that a number is not negative and that single precision has it.
pub(crate) fn check_not_negative(field: &'static str, value: f64) -> Result<(), TrainError> {
    match (value as f32).is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(TrainError::config(field, format!("must be 0 or {POSITIVE}, got {value:?}"))),
    }
}

impl TrainConfig {
    /// Makes sure that every value makes sense.
    ///
    /// # Errors
    ///
    /// One that does not; the message names it.
    pub fn check(&self) -> Result<(), TrainError> {
        let at_least_one = [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("micro_batch", self.micro_batch),
            ("checkpoint_every", self.checkpoint_every),
            ("validations", self.validations),
            ("patience", self.patience.unwrap_or(1)),
            ("max_steps", self.max_steps.unwrap_or(1)),
            ("keep.every", self.keep.map_or(1, |keep| keep.every)),
            ("keep.limit", self.keep.map_or(1, |keep| keep.limit)),
        ];
        if let Some((field, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(TrainError::config(field, "must be at least 1, got 0"));
        }
        check_positive("learning_rate", self.learning_rate)?;
        groups::check(&self.groups)?;
        check_positive("clip_norm", self.clip_norm)?;
        check_not_negative("weight_decay", self.optimizer.weight_decay)?;
        check_share("average", self.optimizer.average.unwrap_or(0.0))?;
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.optimizer;
        if !((0.0..1.0).contains(&beta1) && (0.0..1.0).contains(&beta2) && is_positive(epsilon)) {
            let problem =
                format!("the betas ({beta1:?}, {beta2:?}) must be in [0, 1) and epsilon ({epsilon:?}) positive");
            return Err(TrainError::config("optimizer", problem));
        }
        Ok(())
    }

    /// Steps in an epoch of so many examples.
    pub fn steps_per_epoch(&self, examples: usize) -> usize {
        examples.div_ceil(self.batch)
    }

    /// Steps of the warm-up in a run of so many examples.
    pub fn warmup_steps(&self, examples: usize) -> usize {
        self.warmup.unwrap_or_else(|| (self.steps(examples) / 10).min(200))
    }

    /// Steps of the whole run, unless it stops early.
    pub fn steps(&self, examples: usize) -> usize {
        let steps = self.epochs.saturating_mul(self.steps_per_epoch(examples));
        self.max_steps.map_or(steps, |most| steps.min(most))
    }
}

/// What a run's steps are.
pub(crate) struct Plan<'a> {
    config: &'a TrainConfig,
    examples: usize,
    pub per_epoch: usize,
    pub steps: usize,
    warmup: usize,
    validate_every: usize,
}

impl<'a> Plan<'a> {
    pub fn new(config: &'a TrainConfig, examples: usize) -> Self {
        let (per_epoch, steps) = (config.steps_per_epoch(examples), config.steps(examples));
        let validate_every = per_epoch.min(steps).div_ceil(config.validations);
        Self { config, examples, per_epoch, steps, warmup: config.warmup_steps(examples), validate_every }
    }

    /// Places of a step's batch in the order of its epoch; steps count from 0.
    pub fn places(&self, step: usize) -> std::ops::Range<usize> {
        let start = step % self.per_epoch * self.config.batch;
        start..(start + self.config.batch).min(self.examples)
    }

    pub fn learning_rate(&self, step: usize) -> f64 {
        self.config.learning_rate * self.config.schedule.factor(step, self.warmup, self.steps)
    }

    /// Whether the model is validated when so many steps are done.
    pub fn validates_after(&self, done: usize) -> bool {
        done == self.steps || (done % self.per_epoch).is_multiple_of(self.validate_every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_each_epoch_once_and_the_last_one_may_be_smaller() {
        let config = TrainConfig { epochs: 2, batch: 4, ..Default::default() };
        let plan = Plan::new(&config, 10);
        assert_eq!((plan.per_epoch, plan.steps), (3, 6));
        let places: Vec<_> = (0..plan.steps).map(|step| plan.places(step)).collect();
        assert_eq!(places, [0..4, 4..8, 8..10, 0..4, 4..8, 8..10]);
    }

    #[test]
    fn validations_are_equally_far_apart_and_one_is_after_the_last_step() {
        let validated = |validations, max_steps| {
            let config = TrainConfig { epochs: 2, batch: 1, validations, max_steps, ..Default::default() };
            let plan = Plan::new(&config, 10);
            (1..=plan.steps).filter(|&done| plan.validates_after(done)).collect::<Vec<_>>()
        };
        assert_eq!(validated(1, None), [10, 20]);
        assert_eq!(validated(2, None), [5, 10, 15, 20]);
        assert_eq!(validated(2, Some(7)), [4, 7]);
        assert_eq!(validated(100, Some(3)), [1, 2, 3]);
    }

    #[test]
    fn the_warm_up_is_a_tenth_of_the_run_and_at_most_200_steps() {
        let warmup = |epochs, warmup| TrainConfig { epochs, batch: 1, warmup, ..Default::default() }.warmup_steps(100);
        assert_eq!([warmup(1, None), warmup(50, None), warmup(50, Some(3))], [10, 200, 3]);
        let config = TrainConfig { epochs: 1, batch: 1, warmup: None, learning_rate: 2.0, ..Default::default() };
        assert_eq!(Plan::new(&config, 100).learning_rate(10), 2.0);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let refused = |change: fn(&mut TrainConfig)| {
            let mut config = TrainConfig::default();
            change(&mut config);
            match config.check() {
                Err(TrainError::Config { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        TrainConfig::default().check().unwrap();
        assert_eq!(refused(|config| config.batch = 0), "batch");
        assert_eq!(refused(|config| config.keep = Some(Keep { every: 1, limit: 0 })), "keep.limit");
        assert_eq!(refused(|config| config.learning_rate = 1e-60), "learning_rate");
        assert_eq!(refused(|config| config.clip_norm = -1.0), "clip_norm");
        assert_eq!(refused(|config| config.optimizer.weight_decay = 1e39), "weight_decay");
        assert_eq!(refused(|config| config.optimizer.beta2 = 1.0), "optimizer");
    }
}
