//! Runs of the baseline SASRec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::carry_out::{RunContext, RunEvent};
use super::error::RunError;
use super::model_folder::absolute;
use super::recorded::{check_data, damage, from_json, to_json};
use crate::data::{Prepared, PreparedRow, Split};
use crate::input_error::InputError;
use crate::models::sasrec::{SasRec, SasRecConfig};
use crate::models::{Precision, device};
use crate::train::sasrec::{SasRecStage, SasRecTrainConfig, example};
use crate::train::{Progress, RunFolder, RunPaths, TrainError, Training};

/// The stage that `run.json` names.
const STAGE: &str = "sasrec";

/// Everything that makes a run what it is; `run.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SasRecRun {
    /// Version of the program that began the run.
    latentr3: String,
    stage: String,
    /// The model.
    pub model: SasRecConfig,
    /// How it trains.
    pub train: SasRecTrainConfig,
    data: PathBuf,
    /// SHA-256 of the data's files, so that a run does not resume with other data.
    data_files: BTreeMap<String, String>,
}

impl SasRecRun {
    /// A run of a model on prepared data, which lies in the folder `data`.
    pub fn new(model: SasRecConfig, train: SasRecTrainConfig, data: &Path, prepared: &Prepared) -> Self {
        Self {
            latentr3: env!("CARGO_PKG_VERSION").into(),
            stage: STAGE.into(),
            model,
            train,
            data: absolute(data),
            data_files: prepared.files().clone(),
        }
    }

    /// Steps of an epoch over the training rows.
    pub fn steps_per_epoch(&self, prepared: &Prepared) -> usize {
        self.train.training().steps_per_epoch(prepared.rows.train.len())
    }

    /// What the run in a folder was asked for, and its data, which lies in the folder `data` if it was moved.
    ///
    /// # Errors
    ///
    /// It is no run of SASRec, damaged, or its data is not what it was.
    pub fn read(folder: &Path, data: Option<&Path>) -> Result<(Self, Prepared), RunError> {
        let value = RunFolder::description(folder)?;
        if value["stage"] != STAGE {
            return Err(InputError::new(RunPaths(folder).description(), "is not a run of `baseline sasrec`").into());
        }
        let description: Self = from_json(folder, value)?;
        description.train.check()?;
        let data = data.unwrap_or(&description.data);
        let prepared = Prepared::load(data)?;
        check_data(folder, &description.data_files, data, &prepared)?;
        Ok((description, prepared))
    }

    /// Trains in a new folder.
    ///
    /// # Errors
    ///
    /// Settings that make no sense, a folder that is in use, and [`RunError::Interrupted`] where the run was stopped
    /// before its end.
    pub fn start(
        &self,
        prepared: &Prepared,
        out: &Path,
        device_name: &str,
        context: &mut RunContext,
    ) -> Result<Progress, RunError> {
        self.train.check()?;
        let fresh = SasRec::new(self.model.clone(), self.train.seed, &device(device_name)?)?;
        let run = RunFolder::create(out, &to_json(self)?, Vec::new())?;
        self.train(prepared, &run, context, |training, stage| training.start(stage, fresh))
    }

    /// Goes on with the run in a folder where its last checkpoint left it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); also a run that is damaged.
    pub fn resume(
        &self,
        prepared: &Prepared,
        folder: &Path,
        device_name: &str,
        context: &mut RunContext,
    ) -> Result<Progress, RunError> {
        let device = device(device_name)?;
        let run = RunFolder::open(folder, Vec::new())?;
        let found = run.newest(self.train.training().optimizer, &device, Precision::F32)?;
        for damage in found.iter().flat_map(damage) {
            (context.observer)(RunEvent::Warning(damage));
        }
        let fresh = SasRec::new(self.model.clone(), self.train.seed, &device)?;
        self.train(prepared, &run, context, |training, stage| match found {
            Some(found) => training.resume(stage, found.trained),
            None => training.start(stage, fresh),
        })
    }

    fn train(
        &self,
        prepared: &Prepared,
        run: &RunFolder,
        context: &mut RunContext,
        go: impl FnOnce(Training, &SasRecStage) -> Result<Progress, TrainError>,
    ) -> Result<Progress, RunError> {
        let rows = |split| {
            let example = |(at, row): (usize, &PreparedRow)| example(&row.history, row.item, at);
            prepared.rows.get(split).iter().enumerate().map(example).collect::<Vec<_>>()
        };
        let (train, valid) = (rows(Split::Train), rows(Split::Valid));
        let config = self.train.training();
        let training = Training {
            config: &config,
            train: &train,
            valid: &valid,
            run: Some(run),
            world: context.world,
            observer: &mut |event| (context.observer)(RunEvent::Training(event)),
            interrupted: context.interrupted,
        };
        let (steps_per_epoch, loss) = (config.steps_per_epoch(train.len()), self.train.loss);
        let stage = SasRecStage { seed: config.seed, steps_per_epoch, loss };
        let end = go(training, &stage)?;
        match end.finished {
            true => Ok(end),
            false => Err(RunError::Interrupted { run: run.path().into(), step: end.step }),
        }
    }
}
