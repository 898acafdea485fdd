//! The training loop: batch, step, log, validate, checkpoint.

use burn::module::Module;
use latentr3_models::{LatentRecommender, NamedVisitor, visit_named};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

use burn::module::Param;
use burn::tensor::Tensor;

use crate::adamw::{AdamW, AdamWConfig};
use crate::batches::epoch_order;
use crate::likelihood::{Validation, validate};
use crate::optimizer::Optimizer;
use crate::run::{RunFolder, Trained};
use crate::schedule::Schedule;
use crate::{Example, TrainError};

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
    /// Steps at most, for trials.
    pub max_steps: Option<usize>,
    /// Seed of shuffling and noise.
    pub seed: u64,
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
    /// Moves the model by one batch.
    ///
    /// # Errors
    ///
    /// What the model refuses, and figures that are not finite.
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
    pub best_step: usize,
    /// Validations since then.
    pub validations_since_best: usize,
    /// Whether the run is over.
    pub finished: bool,
    /// Bytes of the metrics file that belong to the steps done.
    pub metrics_bytes: u64,
    /// Seconds of training so far.
    pub seconds: f64,
}

impl Progress {
    fn start() -> Self {
        Self {
            step: 0,
            best: None,
            best_step: 0,
            validations_since_best: 0,
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
}

impl Training<'_> {
    /// Trains `model` from the start.
    ///
    /// # Errors
    ///
    /// See [`TrainError`].
    pub fn start(self, stage: &dyn Stage, model: LatentRecommender) -> Result<Progress, TrainError> {
        let adamw = AdamW::new(self.config.optimizer);
        self.proceed(stage, Trained { model, adamw, progress: Progress::start() }, true)
    }

    /// Goes on from a checkpoint, to the same end as if it had never stopped.
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
        let mut metrics = self.run.metrics(progress.metrics_bytes)?;
        let (per_epoch, steps) = (self.config.steps_per_epoch(self.train.len()), self.config.steps(self.train.len()));
        let warmup = self.config.warmup_steps(self.train.len());
        let validate_every = per_epoch.min(steps).div_ceil(self.config.validations);
        let before = progress.seconds;
        let clock = Instant::now();
        let mut order: Option<(usize, Vec<usize>)> = None;

        if progress.step > steps {
            let problem = format!("has done {} steps of {steps}", progress.step);
            return Err(TrainError::run(self.run.path(), problem));
        }
        if is_new {
            if self.config.validate_first {
                self.validate(&model, &mut progress, &mut metrics)?;
            }
            // From here on the run needs nothing but its own folder and the data.
            progress.metrics_bytes = metrics.sync()?;
            self.run.save_last(&model, &optimizer.adamw, &progress)?;
        }
        while !progress.finished && progress.step < steps {
            let (epoch, batch) = (progress.step / per_epoch, progress.step % per_epoch);
            if order.as_ref().is_none_or(|(of, _)| *of != epoch) {
                order = Some((epoch, epoch_order(self.train.len(), self.config.seed, epoch as u64)));
            }
            let (_, order) = order.as_ref().expect("it was just made");
            let end = ((batch + 1) * self.config.batch).min(order.len());
            let rows: Vec<&Example> =
                order[batch * self.config.batch..end].iter().map(|&row| &self.train[row]).collect();

            let factor = self.config.schedule.factor(progress.step, warmup, steps);
            optimizer.learning_rate = self.config.learning_rate * factor;
            optimizer.step = progress.step + 1;
            let (moved, report) = stage.step(model, &mut optimizer, &rows)?;
            model = moved;
            progress.step += 1;

            let mut line = Map::from_iter([
                ("step".into(), json!(progress.step)),
                ("learning_rate".into(), json!(optimizer.learning_rate)),
            ]);
            line.extend(report.metrics);
            metrics.append(&line)?;
            let tokens = rows.iter().map(|row| row.prompt.len() + model.thoughts() + row.target.len()).sum();
            (self.observer)(Event::Step { step: progress.step, steps, tokens, headline: report.headline });

            let is_last = progress.step == steps;
            let validates = is_last || (progress.step % per_epoch).is_multiple_of(validate_every);
            if validates {
                self.validate(&model, &mut progress, &mut metrics)?;
                progress.finished =
                    is_last || self.config.patience.is_some_and(|most| progress.validations_since_best >= most);
            }
            if validates || progress.step.is_multiple_of(self.config.checkpoint_every) {
                progress.metrics_bytes = metrics.sync()?;
                progress.seconds = before + clock.elapsed().as_secs_f64();
                self.run.save_last(&model, &optimizer.adamw, &progress)?;
            }
        }
        Ok(progress)
    }

    fn validate(
        &mut self,
        model: &LatentRecommender,
        progress: &mut Progress,
        metrics: &mut crate::run::Metrics,
    ) -> Result<(), TrainError> {
        if self.valid.is_empty() {
            // Nothing to select by: the latest model is the best.
            progress.best_step = progress.step;
            return self.run.save_best(model);
        }
        let validation = validate(model, self.valid, self.config.micro_batch)?;
        for (what, value) in [("validation loss", validation.loss), ("validation perplexity", validation.perplexity)] {
            if !value.is_finite() {
                return Err(TrainError::NotFinite { step: progress.step, what, value });
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
            self.run.save_best(model)?;
            (progress.best, progress.best_step, progress.validations_since_best) = (Some(validation), progress.step, 0);
        } else {
            progress.validations_since_best += 1;
        }
        Ok(())
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
