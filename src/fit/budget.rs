//! Training within a time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::config::read_record;
use crate::models::ModelError;
use crate::models::files::write_json;
use crate::run::{Resumption, RunContext, RunDescription, RunError, RunEvent, is_run, resume, start};
use crate::train::{Event, Progress, RunPaths, World};

/// Steps after which a run's speed is known; the first ones are slower.
const MEASURED: std::ops::Range<usize> = 3..13;

/// Estimated time of validations and checkpoints, as a share of the time of the steps.
const OVERHEAD: f64 = 0.25;

/// The time that is left of all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    begin: Instant,
    all: Duration,
}

impl Clock {
    pub fn start(minutes: f64) -> Self {
        Self { begin: Instant::now(), all: Duration::from_secs_f64(minutes * 60.0) }
    }

    /// A share of the time that is left.
    pub fn share(&self, share: f64) -> Duration {
        self.all.saturating_sub(self.begin.elapsed()).mul_f64(share)
    }

    pub fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}

/// More time than anything takes.
pub(super) const FOREVER: Duration = Duration::from_secs(1 << 40);

/// What a step recorded when it ended; nothing if it did not.
pub(super) fn recorded<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, RunError> {
    if file.is_file() { read_record(file).map(Some) } else { Ok(None) }
}

/// The step of the best model that a run in a folder has kept.
pub(super) fn best_step(run: &Path) -> Result<Option<usize>, RunError> {
    Ok(recorded::<Progress>(&RunPaths(run).progress())?.and_then(|progress| progress.best_step))
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainedRun {
    /// The folder of its model.
    pub model: PathBuf,
    /// Step of that model.
    pub step: usize,
    /// Seconds of a step, validations included.
    pub seconds_per_step: f64,
    /// Examples that it trained on.
    pub examples: usize,
}

/// Ends a training after a time, or when the user wants it.
pub(super) struct Stop<'a> {
    deadline: Instant,
    by_user: &'a AtomicBool,
    /// What the training looks at.
    pub flag: AtomicBool,
}

impl<'a> Stop<'a> {
    pub fn after(time: Duration, by_user: &'a AtomicBool) -> Self {
        Self { deadline: Instant::now() + time, by_user, flag: AtomicBool::new(by_user.load(Ordering::Relaxed)) }
    }

    /// Sets the flag if the deadline has passed or the user asked to stop; to be called after every event.
    pub fn check(&self) {
        if Instant::now() >= self.deadline || self.by_user.load(Ordering::Relaxed) {
            self.flag.store(true, Ordering::Relaxed);
        }
    }

    pub fn is_by_user(&self) -> bool {
        self.by_user.load(Ordering::Relaxed)
    }
}

/// Trains a run in a folder for about `time`. Where the measured speed shows that it would take longer, it starts again
/// with as many steps as fit, so that the learning rate still falls to zero. A finished run is reused; one that was
/// stopped resumes.
pub(super) fn train_within(
    description: &RunDescription,
    run: &Path,
    time: Duration,
    interrupted: &AtomicBool,
    observer: &mut dyn FnMut(RunEvent),
) -> Result<TrainedRun, RunError> {
    let record = run.with_extension("json");
    if let Some(trained) = recorded(&record)? {
        return Ok(trained);
    }
    let mut description = description.clone();
    loop {
        let began = Instant::now();
        let mut watch = Watch::default();
        // A run that takes one and a half times its time is stopped and keeps its best model.
        let stop = Stop::after(time.mul_f64(1.5), interrupted);
        let is_fitted = description.train.max_steps.is_some();
        let outcome = {
            let mut observe = |event: RunEvent| {
                watch.see(&event);
                let too_long = watch
                    .seconds()
                    .is_some_and(|seconds| seconds * (1.0 + OVERHEAD) * watch.steps as f64 > time.as_secs_f64());
                if too_long && !is_fitted && watch.step == MEASURED.end {
                    stop.flag.store(true, Ordering::Relaxed);
                    watch.is_too_long = true;
                }
                stop.check();
                observer(event);
            };
            let mut context = RunContext { world: &World::alone(), interrupted: &stop.flag, observer: &mut observe };
            match is_run(run) {
                true => resume(run, &Resumption::default(), &mut context),
                false => start(description.clone(), run, &mut context),
            }
        };
        let trained = match outcome {
            Ok(outcome) => TrainedRun {
                model: run.to_owned(),
                step: outcome.best_step.unwrap_or(outcome.steps),
                seconds_per_step: outcome.seconds / watch.seen.max(1) as f64,
                examples: outcome.train_examples,
            },
            Err(error @ RunError::Interrupted { .. }) if stop.is_by_user() => return Err(error),
            Err(RunError::Interrupted { .. }) if watch.is_too_long => {
                let left = time.saturating_sub(began.elapsed()).as_secs_f64();
                let step = watch.seconds().unwrap_or(1.0) * (1.0 + OVERHEAD);
                description.train.max_steps = Some(((left / step) as usize).max(1));
                std::fs::remove_dir_all(run).map_err(ModelError::io(run))?;
                continue;
            }
            Err(RunError::Interrupted { step, .. }) => {
                let best = best_step(run)?;
                TrainedRun {
                    model: if best.is_some() { run.to_owned() } else { RunPaths(run).last() },
                    step: best.unwrap_or(step),
                    seconds_per_step: began.elapsed().as_secs_f64() / watch.seen.max(1) as f64,
                    examples: watch.examples,
                }
            }
            Err(error) => return Err(error),
        };
        write_json(&record, &trained)?;
        return Ok(trained);
    }
}

/// What is seen of a run.
#[derive(Default)]
struct Watch {
    examples: usize,
    /// Steps of this process; a run that resumes has done others before.
    seen: usize,
    step: usize,
    steps: usize,
    first: Option<Instant>,
    measured: Option<Duration>,
    is_too_long: bool,
}

impl Watch {
    fn see(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Ready { train_examples, .. } => self.examples = *train_examples,
            RunEvent::Training(Event::Step { step, steps, .. }) => {
                (self.seen, self.step, self.steps) = (self.seen + 1, *step, *steps);
                if *step == MEASURED.start {
                    self.first = Some(Instant::now());
                }
                if *step == MEASURED.end {
                    self.measured = self.first.map(|first| first.elapsed());
                }
            }
            _ => {}
        }
    }

    /// Seconds of a step, once they are known.
    fn seconds(&self) -> Option<f64> {
        Some(self.measured?.as_secs_f64() / MEASURED.len() as f64)
    }
}
