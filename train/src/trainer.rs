//! The training loop: batch, step, log, validate, checkpoint.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::adamw::AdamW;
use crate::batches::epoch_order;
use crate::checkpoint::Trained;
use crate::config::{OnNonfinite, Plan, TrainConfig};
use crate::gradients::trained_shapes;
use crate::groups;
use crate::guard::{Alarm, Guards};
use crate::optimizer::Optimizer;
use crate::progress::{Event, Fault, Progress, StepReport};
use crate::run::{MetricsLog, RunFolder};
use crate::stage::{Stage, ValidationPass};
use crate::trainable::Trainable;
use crate::world::World;
use crate::{Example, TrainError};

/// So many steps in a row that are skipped for NaN or infinite metrics stop the run.
const MOST_SKIPPED: usize = 10;

/// A run: data, configuration and where it is kept.
///
/// # Example
///
/// ```
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// # #[cfg(feature = "flex")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::atomic::AtomicBool;
///
/// use latentr3_models::backbone::{BackboneConfig, NewBackbone};
/// use latentr3_models::{LatentRecommender, Objective, ThoughtKind, device};
/// use latentr3_train::sft::Sft;
/// use latentr3_train::{Event, Example, TrainConfig, Training, World};
///
/// let (config, thoughts) = (BackboneConfig::new(&NewBackbone::tiny(16, 0))?, ThoughtKind::LatentAttention); let model
/// = LatentRecommender::new(config, thoughts, 1, 0, &device("flex")?)?; let row = |row: usize| Example { prompt: vec![1
/// + row as u32, 2, 3], target: vec![5 + row as u32, 0], item: row, row }; let rows: Vec<Example> =
/// (0..8).map(row).collect(); let mut losses = Vec::new(); let training = Training {
///     config: &TrainConfig { epochs: 5, batch: 4, learning_rate: 1e-2, warmup: Some(0), ..Default::default() },
///     train: &rows,
///     valid: &rows,
///     run: None, // or a `RunFolder`, which keeps checkpoints and a log
///     world: &World::alone(),
///     observer: &mut |event| {
///         if let Event::Validated { validation, .. } = event {
///             losses.push(-validation.score);
///         }
///     },
///     interrupted: &AtomicBool::new(false),
/// };
/// let end = training.start(&Sft::new(4, Objective::vocabulary()), model)?;
/// assert!(end.finished && losses.last() < losses.first());
/// # Ok(())
/// # }
/// ```
pub struct Training<'a> {
    /// The configuration.
    pub config: &'a TrainConfig,
    /// Training examples.
    pub train: &'a [Example],
    /// Examples for model selection.
    pub valid: &'a [Example],
    /// Where checkpoints and metrics go; absent on ranks other than 0.
    pub run: Option<&'a RunFolder>,
    /// The processes that train together.
    pub world: &'a World,
    /// Told of every step.
    pub observer: &'a mut dyn FnMut(Event),
    /// Set to have the run stop after the present step or within the present validation, with a checkpoint.
    pub interrupted: &'a AtomicBool,
}

impl Training<'_> {
    /// Trains `model` from the start. The run was interrupted where it is not finished in the end.
    ///
    /// # Errors
    ///
    /// See [`TrainError`].
    pub fn start<M: Trainable>(self, stage: &dyn Stage<M>, model: M) -> Result<Progress, TrainError> {
        let adamw = AdamW::new(self.config.optimizer);
        let progress = Progress::start(self.config.validate_first);
        self.proceed(stage, Trained { model, adamw, progress }, true)
    }

    /// Resumes from a checkpoint with bit-identical results on the CPU. A finished run resumes if the configuration now
    /// has more steps, at the learning rates of the longer run.
    ///
    /// # Errors
    ///
    /// See [`TrainError`].
    pub fn resume<M: Trainable>(self, stage: &dyn Stage<M>, trained: Trained<M>) -> Result<Progress, TrainError> {
        self.proceed(stage, trained, false)
    }

    fn proceed<M: Trainable>(
        mut self,
        stage: &dyn Stage<M>,
        trained: Trained<M>,
        is_new: bool,
    ) -> Result<Progress, TrainError> {
        self.config.check()?;
        if self.train.is_empty() {
            return Err(TrainError::config("train", "there are no examples to train on"));
        }
        let Trained { model, adamw, mut progress } = trained;
        let mut model = groups::freeze(stage.freeze(model.train()), &self.config.groups)?;
        if self.config.gradient_checkpointing {
            model = model.with_gradient_checkpointing();
        }
        let folder = self.run.map_or_else(PathBuf::new, |run| run.last());
        adamw.check(&trained_shapes(&model), &folder)?;
        let temperature = progress.temperature;
        let mut optimizer = Optimizer {
            adamw,
            clip_norm: self.config.clip_norm,
            learning_rate: 0.0,
            groups: self.config.groups.clone(),
            step: 0,
            temperature,
        };
        let plan = Plan::new(self.config, self.train.len());
        if progress.step > plan.steps {
            let problem = format!("has already done {} steps, more than the {} configured", progress.step, plan.steps);
            return Err(TrainError::run(&folder, problem));
        }
        // A run that ended with its last step has more of them now.
        progress.finished &= self.is_over(&progress, &plan);
        // Its last step was not the last one when the checkpoint was written, if the run is to be shorter now.
        progress.validation_due |= !progress.finished && progress.step == plan.steps;
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
                match self.validate(stage, &optimizer.adamw.averaged(&model), &mut progress, &mut log) {
                    Ok(()) => progress.validation_due = false,
                    Err(TrainError::Interrupted) => {}
                    Err(error) => return Err(error),
                }
                progress.finished = !progress.validation_due && self.is_over(&progress, &plan);
                self.save(&model, &optimizer, &mut progress, &mut log)?;
                if progress.validation_due {
                    break;
                }
                continue;
            }
            if self.world.any(self.interrupted.load(Ordering::Relaxed)) {
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
            let (moved, report) = stage.step(model, &mut optimizer, &self.world.local_batch(&rows))?;
            model = moved;
            progress.step += 1;
            progress.temperature = optimizer.temperature;
            let stops = self.log_step(&rows, optimizer.learning_rate, report, &mut progress, &mut log)?;
            if let Some(Fault { what, value }) = stops {
                let rows = stage.suspects(&model, &rows)?;
                return Err(TrainError::NotFinite { step: progress.step, what, value, rows });
            }

            // A run that is stopped shows what has become of its model.
            progress.validation_due = plan.validates_after(progress.step) || progress.stopped.is_some();
            let keeps = self.config.keep.is_some_and(|keep| progress.step.is_multiple_of(keep.every));
            if !progress.validation_due && (keeps || progress.step.is_multiple_of(self.config.checkpoint_every)) {
                self.save(&model, &optimizer, &mut progress, &mut log)?;
            }
        }
        Ok(progress)
    }

    /// Whether no step is to follow those that were done.
    fn is_over(&self, progress: &Progress, plan: &Plan) -> bool {
        let is_patience_over = self.config.patience.is_some_and(|most| progress.validations_since_best >= most);
        progress.step == plan.steps || is_patience_over || progress.stopped.is_some()
    }

    /// Writes a checkpoint of the present state.
    fn save<M: Trainable>(
        &self,
        model: &M,
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

    /// Logs a step that was done and looks at it, or counts it where it was skipped; returns what the run has to stop
    /// for.
    fn log_step(
        &mut self,
        rows: &[&Example],
        learning_rate: f64,
        report: StepReport,
        progress: &mut Progress,
        log: &mut Log,
    ) -> Result<Option<Fault>, TrainError> {
        let step = progress.step;
        let mut line = Map::from_iter([("step".into(), json!(step)), ("learning_rate".into(), json!(learning_rate))]);
        line.extend(report.metrics);
        let Some(fault) = report.fault else {
            progress.skipped_in_a_row = 0;
            let tokens = rows.iter().map(|row| row.prompt.len() + row.target.len()).sum();
            let steps = self.config.steps(self.train.len());
            (self.observer)(Event::Step { step, steps, tokens, headline: report.headline });
            if let (Some(guards), Some(watched)) = (log.guards, report.watched) {
                let alarm = guards.after_step(&mut progress.watch, watched);
                line.insert("perplexity_growth".into(), json!(progress.watch.growth()));
                self.heed(alarm, &mut line, progress);
            }
            return log.append(&line).map(|()| None);
        };
        progress.skipped += 1;
        progress.skipped_in_a_row += 1;
        if self.config.on_nonfinite == OnNonfinite::Stop || progress.skipped_in_a_row >= MOST_SKIPPED {
            return Ok(Some(fault));
        }
        line.insert("skipped".into(), json!(fault.what));
        (self.observer)(Event::Skipped { step, fault });
        log.append(&line).map(|()| None)
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
    fn validate<M: Trainable>(
        &mut self,
        stage: &dyn Stage<M>,
        model: &M,
        progress: &mut Progress,
        log: &mut Log,
    ) -> Result<(), TrainError> {
        let (micro_batch, world, interrupted) = (self.config.micro_batch, self.world, self.interrupted);
        let pass = ValidationPass { micro_batch, world, interrupted };
        let found = if self.valid.is_empty() { None } else { stage.validate(model, self.valid, &pass)? };
        let Some(validation) = found else {
            // Nothing to select by: the latest model is the best.
            progress.best_step = Some(progress.step);
            return Ok(());
        };
        if let Some(Fault { what, value }) = Fault::of("validation score", validation.score) {
            return Err(TrainError::NotFinite { step: progress.step, what, value, rows: Vec::new() });
        }
        let mut line = Map::from_iter([("step".into(), json!(progress.step))]);
        line.extend(validation.metrics.clone());
        let is_best = progress.best.as_ref().is_none_or(|best| validation.score > best.score);
        line.insert("best".into(), json!(is_best));
        (self.observer)(Event::Validated { step: progress.step, validation: &validation, is_best });
        // One that is stopped already needs no further reason.
        if let (Some(guards), Some(watched), None) = (log.guards, validation.watched, &progress.stopped) {
            let alarm = guards.after_validation(&mut progress.watch, watched);
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
    /// Absent on ranks other than 0.
    metrics: Option<MetricsLog>,
    /// Seconds of training before this program took the run up.
    before: f64,
    clock: Instant,
    /// What its metrics are watched for.
    guards: Option<Guards>,
}

impl Log {
    fn append(&mut self, line: &Map<String, Value>) -> Result<(), TrainError> {
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.append(line))
    }
}
