//! The training loop: batch, step, log, validate, checkpoint.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use latentr3_models::LatentRecommender;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::adamw::AdamW;
use crate::batches::epoch_order;
use crate::checkpoint::Trained;
use crate::config::{OnNonfinite, Plan, TrainConfig};
use crate::gradients::trained_shapes;
use crate::guard::{Alarm, Guards, Watch, Watched};
use crate::likelihood::{Validation, unlikely_rows, validate};
use crate::optimizer::Optimizer;
use crate::run::{Metrics, RunFolder};
use crate::workers::{Share, Workers};
use crate::{Example, TrainError};

/// So many steps in a row that are skipped for figures that are not finite stop the run.
const MOST_SKIPPED: usize = 10;

/// What a stage does with a batch.
pub trait Stage {
    /// Moves the model by one batch, of which this worker computes its share; not if a figure is not finite, which the
    /// report says then. Reports and models are the same in all workers.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        share: &Share,
    ) -> Result<(LatentRecommender, StepReport), TrainError>;

    /// What the run must keep to, where the stage has anything to watch.
    fn guards(&self) -> Option<Guards> {
        None
    }
}

/// What a step has to say.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// The figure to show while training: the loss of stage 1, the reward of stage 2.
    pub headline: f64,
    /// Everything for the log.
    pub metrics: Map<String, Value>,
    /// What was not finite, for which the model was not moved; with several updates a step, not by the one that it came from and those
    /// after it.
    pub fault: Option<Fault>,
    /// What guards look at, where the stage has it.
    pub watched: Option<Watched>,
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
    /// Why it is to end before its last step, if it is.
    #[serde(default)]
    pub stopped: Option<String>,
    /// What guards remember.
    #[serde(default)]
    pub watch: Watch,
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
            stopped: None,
            watch: Watch::default(),
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
    /// A guard found something wrong.
    Alarmed {
        /// After this step.
        step: usize,
        /// What.
        alarm: &'a Alarm,
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
    /// Where checkpoints and metrics go; absent in workers other than the first.
    pub run: Option<&'a RunFolder>,
    /// The processes that train together.
    pub workers: &'a Workers,
    /// Told of every step.
    pub observer: &'a mut dyn FnMut(Event),
    /// Further figures at each validation, for the log only, and only where there is one.
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
        if self.config.gradient_checkpointing {
            model = model.with_gradient_checkpointing();
        }
        let folder = self.run.map_or_else(PathBuf::new, |run| run.last());
        adamw.check(&trained_shapes(&model), &folder)?;
        let mut optimizer = Optimizer { adamw, clip_norm: self.config.clip_norm, learning_rate: 0.0, step: 0 };
        let plan = Plan::new(self.config, self.train.len());
        if progress.step > plan.steps {
            let problem = format!("has done {} steps of {}", progress.step, plan.steps);
            return Err(TrainError::run(&folder, problem));
        }
        let metrics = self.run.map(|run| run.metrics(progress.metrics_bytes)).transpose()?;
        let mut log = Log { metrics, before: progress.seconds, clock: Instant::now(), guards: stage.guards() };
        if is_new {
            // From here on the run needs nothing but its own folder and the data.
            self.save(&model, &optimizer, &mut progress, &mut log)?;
        } else if let Some(run) = self.run {
            run.copy_last(&progress, self.config.keep)?;
        }
        let mut order: Option<(usize, Vec<usize>)> = None;
        while !progress.finished {
            if progress.validation_due {
                match self.validate(&model, &mut progress, &mut log) {
                    Ok(()) => progress.validation_due = false,
                    Err(TrainError::Interrupted) => {}
                    Err(error) => return Err(error),
                }
                let is_over = self.config.patience.is_some_and(|most| progress.validations_since_best >= most);
                let is_last = progress.step == plan.steps || is_over || progress.stopped.is_some();
                progress.finished = !progress.validation_due && is_last;
                self.save(&model, &optimizer, &mut progress, &mut log)?;
                if progress.validation_due {
                    break;
                }
                continue;
            }
            if self.workers.any(self.interrupted.load(Ordering::Relaxed)) {
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
            let (moved, report) = stage.step(model, &mut optimizer, &self.workers.share(&rows))?;
            model = moved;
            progress.step += 1;
            self.log_step(&model, &rows, report, &optimizer, &mut progress, &mut log)?;

            // A run that is stopped shows what has become of its model.
            progress.validation_due = plan.validates_after(progress.step) || progress.stopped.is_some();
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
        let (Some(run), Some(metrics)) = (self.run, &mut log.metrics) else {
            return Ok(());
        };
        progress.metrics_bytes = metrics.sync()?;
        progress.seconds = log.before + log.clock.elapsed().as_secs_f64();
        run.save(model, &optimizer.adamw, progress, self.config.keep)
    }

    /// Logs a step that was done and looks at it, or counts it where it was skipped.
    fn log_step(
        &mut self,
        model: &LatentRecommender,
        rows: &[&Example],
        report: StepReport,
        optimizer: &Optimizer,
        progress: &mut Progress,
        log: &mut Log,
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
            if let (Some(guards), Some(watched)) = (log.guards, report.watched) {
                let alarm = guards.after_step(&mut progress.watch, watched);
                line.insert("perplexity_growth".into(), json!(progress.watch.growth()));
                self.heed(alarm, &mut line, progress);
            }
            return log.append(&line);
        };
        progress.skipped += 1;
        progress.skipped_in_a_row += 1;
        if self.config.on_nonfinite == OnNonfinite::Stop || progress.skipped_in_a_row >= MOST_SKIPPED {
            let Fault { what, value } = fault;
            return Err(TrainError::NotFinite { step, what, value, rows: unlikely_rows(model, rows)? });
        }
        line.insert("skipped".into(), json!(fault.what));
        (self.observer)(Event::Skipped { step, fault });
        log.append(&line)
    }

    /// Notes and tells what a guard found.
    fn heed(&mut self, alarm: Option<Alarm>, line: &mut Map<String, Value>, progress: &mut Progress) {
        let Some(alarm) = alarm else {
            return;
        };
        line.insert(if alarm.stops { "stop" } else { "warning" }.into(), json!(alarm.reason));
        (self.observer)(Event::Alarmed { step: progress.step, alarm: &alarm });
        if alarm.stops {
            progress.stopped = Some(alarm.reason);
        }
    }

    /// Validates the model, logs it and notes whether it is the best so far.
    fn validate(
        &mut self,
        model: &LatentRecommender,
        progress: &mut Progress,
        log: &mut Log,
    ) -> Result<(), TrainError> {
        if self.valid.is_empty() {
            // Nothing to select by: the latest model is the best.
            progress.best_step = Some(progress.step);
            return Ok(());
        }
        let validation = validate(model, self.valid, self.config.micro_batch, self.interrupted, self.workers)?;
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
        (self.observer)(Event::Validated { step: progress.step, validation: &validation, is_best });
        // One that is stopped already needs no further reason.
        if let (Some(guards), None) = (log.guards, &progress.stopped) {
            let alarm = guards.after_validation(&mut progress.watch, &validation);
            self.heed(alarm, &mut line, progress);
        }
        log.append(&line)?;
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
    /// Absent in workers other than the first.
    metrics: Option<Metrics>,
    /// Seconds of training before this program took the run up.
    before: f64,
    clock: Instant,
    /// What its figures are looked at for.
    guards: Option<Guards>,
}

impl Log {
    fn append(&mut self, line: &Map<String, Value>) -> Result<(), TrainError> {
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.append(line))
    }
}
