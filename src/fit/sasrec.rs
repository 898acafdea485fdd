//! SASRec: on the trial's data and once more on all.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::budget::{Clock, FOREVER, Stop, best_step, recorded};
use super::language_model::Workbench;
use crate::data::Prepared;
use crate::eval::sasrec_config;
use crate::models::files::write_json;
use crate::run::{RunContext, RunError, RunEvent, SasRecRun, is_run};
use crate::train::sasrec::SasRecTrainConfig;
use crate::train::{Event, World};

/// Share of the time that is left.
const SHARE: f64 = 0.12;

/// How its training ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TrainedSasRec {
    pub run: PathBuf,
    /// Epochs of the best model.
    epochs: usize,
    seconds_per_epoch: f64,
}

impl TrainedSasRec {
    /// Seconds until the best model.
    pub fn seconds(&self) -> f64 {
        self.epochs as f64 * self.seconds_per_epoch
    }
}

impl Workbench<'_> {
    /// Trains one within a share of the time that is left; nothing if that is too short for a single epoch.
    pub fn train_sasrec(
        &self,
        prepared: &Prepared,
        clock: &Clock,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<Option<TrainedSasRec>, RunError> {
        let train = SasRecTrainConfig { seed: self.config.seed, ..Default::default() };
        self.run_sasrec(prepared, train, clock.share(SHARE), observer)
    }

    /// Trains one on all rows, for as many epochs as the trial's best.
    pub fn refit_sasrec(
        &self,
        trial: &TrainedSasRec,
        prepared: &Prepared,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<Option<TrainedSasRec>, RunError> {
        let (epochs, seed) = (trial.epochs, self.config.seed);
        let train = SasRecTrainConfig { epochs, patience: epochs, seed, ..Default::default() };
        self.run_sasrec(prepared, train, FOREVER, observer)
    }

    fn run_sasrec(
        &self,
        prepared: &Prepared,
        train: SasRecTrainConfig,
        time: Duration,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<Option<TrainedSasRec>, RunError> {
        let folder = self.folder.join("sasrec");
        let record = folder.with_extension("json");
        if let Some(trained) = recorded(&record)? {
            return Ok(trained);
        }
        let run = SasRecRun::new(sasrec_config(prepared), train, &self.data, prepared);
        let began = Instant::now();
        let stop = Stop::after(time, self.interrupted);
        let mut steps = 0;
        let mut observe = |event: RunEvent| {
            steps += usize::from(matches!(event, RunEvent::Training(Event::Step { .. })));
            stop.check();
            observer("sasrec", event);
        };
        let mut context = RunContext { world: &World::alone(), interrupted: &stop.flag, observer: &mut observe };
        let ended = match is_run(&folder) {
            true => run.resume(prepared, &folder, &self.config.device, &mut context),
            false => run.start(prepared, &folder, &self.config.device, &mut context),
        };
        let per_epoch = run.steps_per_epoch(prepared);
        let best = match ended {
            Ok(progress) => progress.best_step,
            Err(error @ RunError::Interrupted { .. }) if stop.is_by_user() => return Err(error),
            Err(RunError::Interrupted { .. }) => best_step(&folder)?,
            Err(error) => return Err(error),
        };
        let seconds_per_epoch = began.elapsed().as_secs_f64() * per_epoch as f64 / steps.max(1) as f64;
        let of_best = |best: usize| TrainedSasRec { run: folder, epochs: (best / per_epoch).max(1), seconds_per_epoch };
        let trained = best.map(of_best);
        write_json(&record, &trained)?;
        Ok(trained)
    }
}
