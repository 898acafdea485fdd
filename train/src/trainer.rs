//! The training loop: batch, step, log, validate, checkpoint.

use burn::module::Module;
use latentr3_models::{LatentRecommender, NamedVisitor, visit_named};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Param;
use burn::tensor::Tensor;

use crate::adamw::{AdamW, AdamWConfig};
use crate::batches::epoch_order;
use crate::checkpoint::Trained;
use crate::likelihood::{Validation, unlikely_rows, validate};
use crate::optimizer::Optimizer;
use crate::run::{Metrics, RunFolder};
use crate::schedule::Schedule;
use crate::{Example, TrainError};

/// Steps in a row that may be skipped for figures that are not finite.
const MOST_SKIPPED: usize = 10;

/// What all stages have in common. The defaults are stage 1's published settings (arXiv 2505.19092).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training examples at most.
    pub epochs: usize,
    /// Prompts a step.
    pub batch: usize,
    /// Prompts that run through the model at once, in stage 2 with all their samples; changes memory and speed, not
    /// results.
    pub micro_batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// Steps until the learning rate is at its highest; absent, the smaller of 200 and a tenth of the run's steps.
    pub warmup: Option<usize>,
    /// The optimiser's constants.
    pub optimizer: AdamWConfig,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Validations in an epoch, or in the whole run where that is shorter.
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
    /// Seed of shuffling and noise.
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

/// What to do with a step whose loss, reward or gradient is not finite. The model is not moved by it in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// Stop the run.
    Stop,
    /// Go on with the next batch, and count; ten in a row stop the run all the same.
    Skip,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch: 128,
            micro_batch: 32,
            learning_rate: 3e-4,
            schedule: Schedule::Linear,
            warmup: Some(20),
            optimizer: AdamWConfig::default(),
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

impl TrainConfig {
    /// # Errors
    ///
    /// A value that makes no sense; the message names it.
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
            return Err(TrainError::config(field, "is 0; must be at least 1"));
        }
        let positive = |value: f64| (value as f32).is_finite() && value as f32 > 0.0;
        if !positive(self.learning_rate) {
            return Err(TrainError::config("learning_rate", format!("is {}; must be positive", self.learning_rate)));
        }
        if !positive(self.clip_norm) {
            return Err(TrainError::config("clip_norm", format!("is {}; must be positive", self.clip_norm)));
        }
        if !(self.optimizer.weight_decay.is_finite() && self.optimizer.weight_decay >= 0.0) {
            return Err(TrainError::config(
                "weight_decay",
                format!("is {}; must not be negative", self.optimizer.weight_decay),
            ));
        }
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.optimizer;
        if !((0.0..1.0).contains(&beta1) && (0.0..1.0).contains(&beta2) && positive(epsilon)) {
            let problem = format!("betas {beta1} and {beta2} must be in [0, 1) and epsilon {epsilon} positive");
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

/// What a stage does with a batch.
pub trait Stage {
    /// Moves the model by one batch; not if a figure is not finite, which the report says then.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &[&Example],
    ) -> Result<(LatentRecommender, StepReport), TrainError>;
}

/// What a step has to say.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// The figure to show while training: the loss of stage 1, the reward of stage 2.
    pub headline: f64,
    /// Everything for the log.
    pub metrics: Map<String, Value>,
    /// What was not finite, for which the model was not moved.
    pub fault: Option<Fault>,
}

/// A figure that is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Which.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
}

impl Fault {
    /// The fault that `value` is, if it is one.
    pub fn of(what: &'static str, value: f64) -> Option<Self> {
        (!value.is_finite()).then_some(Self { what, value })
    }
}

/// Where a run stands; with the model and the optimiser's state all that is needed to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Best validation so far.
    pub best: Option<Validation>,
    /// Step of the best validation.
    pub best_step: Option<usize>,
    /// Validations since then.
    pub validations_since_best: usize,
    /// Whether the model is to be validated before the next step.
    pub validation_due: bool,
    /// Steps skipped because a figure was not finite.
    pub skipped: usize,
    /// Those of them since the last step that was not skipped.
    pub skipped_in_a_row: usize,
    /// Whether the run is over.
    pub finished: bool,
    /// Bytes of the metrics file that belong to the steps done.
    pub metrics_bytes: u64,
    /// Seconds of training so far.
    pub seconds: f64,
}

impl Progress {
    fn start(validate_first: bool) -> Self {
        Self {
            step: 0,
            best: None,
            best_step: None,
            validations_since_best: 0,
            validation_due: validate_first,
            skipped: 0,
            skipped_in_a_row: 0,
            finished: false,
            metrics_bytes: 0,
            seconds: 0.0,
        }
    }
}

/// What an observer of a run is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Step {
        /// Number of the step, from 1.
        step: usize,
        /// Steps of the whole run.
        steps: usize,
        /// Prompt, thought and target tokens of the batch.
        tokens: usize,
        /// The stage's figure.
        headline: f64,
    },
    /// A step was skipped because a figure was not finite.
    Skipped {
        /// Number of the step, from 1.
        step: usize,
        /// The figure.
        fault: Fault,
    },
    /// The model was validated.
    Validated {
        /// After this step.
        step: usize,
        /// The figures.
        validation: &'a Validation,
        /// Whether it is the best so far.
        is_best: bool,
    },
}

/// Measures a model at a validation, for the log.
pub type ExtraValidation<'a> = dyn FnMut(&LatentRecommender) -> Result<Map<String, Value>, TrainError> + 'a;

/// A run: data, configuration and where it is kept.
pub struct Training<'a> {
    /// The configuration.
    pub config: &'a TrainConfig,
    /// Training examples.
    pub train: &'a [Example],
    /// Examples for model selection.
    pub valid: &'a [Example],
    /// Where checkpoints and metrics go.
    pub run: &'a RunFolder,
    /// Told of every step.
    pub observer: &'a mut dyn FnMut(Event),
    /// Further figures at each validation, for the log only.
    pub extra_validation: Option<&'a mut ExtraValidation<'a>>,
    /// Set to have the run stop after the present step or within the present validation, with a checkpoint.
    pub interrupted: &'a AtomicBool,
}

impl Training<'_> {
    /// Trains `model` from the start. The run was interrupted where it is not finished in the end.
    ///
    /// # Errors
    ///
    /// See [`TrainError`].
    pub fn start(self, stage: &dyn Stage, model: LatentRecommender) -> Result<Progress, TrainError> {
        let adamw = AdamW::new(self.config.optimizer);
        let progress = Progress::start(self.config.validate_first);
        self.proceed(stage, Trained { model, adamw, progress }, true)
    }

    /// Goes on from the latest checkpoint, to the same end as if the run had never stopped.
    ///
    /// # Errors
    ///
    /// See [`TrainError`].
    pub fn go_on(self, stage: &dyn Stage, trained: Trained) -> Result<Progress, TrainError> {
        self.proceed(stage, trained, false)
    }

    fn proceed(mut self, stage: &dyn Stage, trained: Trained, is_new: bool) -> Result<Progress, TrainError> {
        self.config.check()?;
        if self.train.is_empty() {
            return Err(TrainError::config("train", "there are no examples to train on"));
        }
        let Trained { model, adamw, mut progress } = trained;
        let mut model = model.train();
        adamw.check(&trained_shapes(&model), &self.run.last())?;
        let mut optimizer = Optimizer { adamw, clip_norm: self.config.clip_norm, learning_rate: 0.0, step: 0 };
        let plan = Plan::new(self.config, self.train.len());
        if progress.step > plan.steps {
            let problem = format!("has done {} steps of {}", progress.step, plan.steps);
            return Err(TrainError::run(self.run.path(), problem));
        }
        let mut log =
            Log { metrics: self.run.metrics(progress.metrics_bytes)?, before: progress.seconds, clock: Instant::now() };
        if is_new {
            // From here on the run needs nothing but its own folder and the data.
            self.save(&model, &optimizer, &mut progress, &mut log)?;
        } else {
            self.run.copy_last(&progress, self.config.keep)?;
        }
        let mut order: Option<(usize, Vec<usize>)> = None;
        while !progress.finished {
            if progress.validation_due {
                match self.validate(&model, &mut progress, &mut log.metrics) {
                    Ok(()) => progress.validation_due = false,
                    Err(TrainError::Interrupted) => {}
                    Err(error) => return Err(error),
                }
                let is_over = self.config.patience.is_some_and(|most| progress.validations_since_best >= most);
                progress.finished = !progress.validation_due && (progress.step == plan.steps || is_over);
                self.save(&model, &optimizer, &mut progress, &mut log)?;
                if progress.validation_due {
                    break;
                }
                continue;
            }
            if self.interrupted.load(Ordering::Relaxed) {
                self.save(&model, &optimizer, &mut progress, &mut log)?;
                break;
            }

            let epoch = progress.step / plan.per_epoch;
            if order.as_ref().is_none_or(|(of, _)| *of != epoch) {
                order = Some((epoch, epoch_order(self.train.len(), self.config.seed, epoch as u64)));
            }
            let (_, order) = order.as_ref().expect("it was just made");
            let rows: Vec<&Example> = order[plan.places(progress.step)].iter().map(|&row| &self.train[row]).collect();
            optimizer.learning_rate = plan.learning_rate(progress.step);
            optimizer.step = progress.step + 1;
            let (moved, report) = stage.step(model, &mut optimizer, &rows)?;
            model = moved;
            progress.step += 1;
            self.log_step(&model, &rows, report, &optimizer, &mut progress, &mut log.metrics)?;

            progress.validation_due = plan.validates_after(progress.step);
            let keeps = self.config.keep.is_some_and(|keep| progress.step.is_multiple_of(keep.every));
            if !progress.validation_due && (keeps || progress.step.is_multiple_of(self.config.checkpoint_every)) {
                self.save(&model, &optimizer, &mut progress, &mut log)?;
            }
        }
        Ok(progress)
    }

    /// Writes a checkpoint of the present state.
    fn save(
        &self,
        model: &LatentRecommender,
        optimizer: &Optimizer,
        progress: &mut Progress,
        log: &mut Log,
    ) -> Result<(), TrainError> {
        progress.metrics_bytes = log.metrics.sync()?;
        progress.seconds = log.before + log.clock.elapsed().as_secs_f64();
        self.run.save(model, &optimizer.adamw, progress, self.config.keep)
    }

    /// Logs a step that was done, or counts it where it was skipped.
    fn log_step(
        &mut self,
        model: &LatentRecommender,
        rows: &[&Example],
        report: StepReport,
        optimizer: &Optimizer,
        progress: &mut Progress,
        metrics: &mut Metrics,
    ) -> Result<(), TrainError> {
        let step = progress.step;
        let mut line =
            Map::from_iter([("step".into(), json!(step)), ("learning_rate".into(), json!(optimizer.learning_rate))]);
        line.extend(report.metrics);
        let Some(fault) = report.fault else {
            progress.skipped_in_a_row = 0;
            let tokens = rows.iter().map(|row| row.prompt.len() + model.thoughts() + row.target.len()).sum();
            let steps = self.config.steps(self.train.len());
            (self.observer)(Event::Step { step, steps, tokens, headline: report.headline });
            return metrics.append(&line);
        };
        progress.skipped += 1;
        progress.skipped_in_a_row += 1;
        if self.config.on_nonfinite == OnNonfinite::Stop || progress.skipped_in_a_row > MOST_SKIPPED {
            let Fault { what, value } = fault;
            return Err(TrainError::NotFinite { step, what, value, rows: unlikely_rows(model, rows)? });
        }
        line.insert("skipped".into(), json!(fault.what));
        (self.observer)(Event::Skipped { step, fault });
        metrics.append(&line)
    }

    /// Validates the model, logs it and notes whether it is the best so far.
    fn validate(
        &mut self,
        model: &LatentRecommender,
        progress: &mut Progress,
        metrics: &mut Metrics,
    ) -> Result<(), TrainError> {
        if self.valid.is_empty() {
            // Nothing to select by: the latest model is the best.
            progress.best_step = Some(progress.step);
            return Ok(());
        }
        let validation = validate(model, self.valid, self.config.micro_batch, self.interrupted)?;
        for (what, value) in [("validation loss", validation.loss), ("validation perplexity", validation.perplexity)] {
            if !value.is_finite() {
                return Err(TrainError::NotFinite { step: progress.step, what, value, rows: Vec::new() });
            }
        }
        let mut line = Map::from_iter([("step".into(), json!(progress.step))]);
        line.extend(validation.metrics());
        if let Some(extra) = &mut self.extra_validation {
            line.extend(extra(&model.valid())?);
        }
        let is_best = progress.best.as_ref().is_none_or(|best| validation.loss < best.loss);
        line.insert("best".into(), json!(is_best));
        metrics.append(&line)?;
        (self.observer)(Event::Validated { step: progress.step, validation: &validation, is_best });
        if is_best {
            (progress.best, progress.best_step) = (Some(validation), Some(progress.step));
            progress.validations_since_best = 0;
        } else {
            progress.validations_since_best += 1;
        }
        Ok(())
    }
}

/// The log of a run and its clock.
struct Log {
    metrics: Metrics,
    /// Seconds of training before this program took the run up.
    before: f64,
    clock: Instant,
}

/// What a run's steps are.
struct Plan<'a> {
    config: &'a TrainConfig,
    examples: usize,
    per_epoch: usize,
    steps: usize,
    warmup: usize,
    validate_every: usize,
}

impl<'a> Plan<'a> {
    fn new(config: &'a TrainConfig, examples: usize) -> Self {
        let (per_epoch, steps) = (config.steps_per_epoch(examples), config.steps(examples));
        let validate_every = per_epoch.min(steps).div_ceil(config.validations);
        Self { config, examples, per_epoch, steps, warmup: config.warmup_steps(examples), validate_every }
    }

    /// Places of a step's batch in the order of its epoch; steps count from 0.
    fn places(&self, step: usize) -> std::ops::Range<usize> {
        let start = step % self.per_epoch * self.config.batch;
        start..(start + self.config.batch).min(self.examples)
    }

    fn learning_rate(&self, step: usize) -> f64 {
        self.config.learning_rate * self.config.schedule.factor(step, self.warmup, self.steps)
    }

    /// Whether the model is validated when so many steps are done.
    fn validates_after(&self, done: usize) -> bool {
        done == self.steps || (done % self.per_epoch).is_multiple_of(self.validate_every)
    }
}

/// Shapes `[first dimension, the others]` of the parameters that train.
fn trained_shapes(model: &LatentRecommender) -> BTreeMap<String, [usize; 2]> {
    struct Shapes(BTreeMap<String, [usize; 2]>);
    impl NamedVisitor for Shapes {
        fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            if parameter.is_require_grad() {
                let dims = parameter.dims();
                self.0.insert(name.to_owned(), [dims[0], dims[1..].iter().product()]);
            }
        }
    }
    let mut shapes = Shapes(BTreeMap::new());
    visit_named(model, &mut shapes);
    shapes.0
}
