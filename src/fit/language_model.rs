//! The language model: from random weights or fine-tuned, on the trial's data and once more on all.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::budget::{Clock, FOREVER, TrainedRun, recorded, train_within};
use super::config::FitConfig;
use crate::models::backbone::Architecture;
use crate::models::{Precision, ThoughtKind};
use crate::run::{
    Augmentation, Defaults, FromScratch, InitRequest, ModelOrigin, ModelSizes, RunDescription, RunError, RunEvent,
    Selection, StageConfig, TOKENIZER_FILE,
};
use crate::train::{RunPaths, Temperature};

/// Validation users that a checkpoint is selected by, and examples of its loss.
const VALIDATED: usize = 1000;

/// Shares of the time that is left for pretraining and then for stage 1.
const SHARES: [f64; 2] = [0.15, 0.4];

/// A small model, which two cores train in minutes.
const SIZES: ModelSizes = ModelSizes {
    architecture: Architecture::Qwen2,
    d_model: 128,
    d_ff: 384,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    max_positions: 1024,
};

/// The runs that made a language model.
#[derive(Debug, Clone)]
pub(super) struct LanguageModel {
    /// Absent for a model that came pretrained.
    pub pretrained: Option<TrainedRun>,
    pub tuned: TrainedRun,
}

/// What ends a training.
enum Limit {
    /// So much time, unless the model gets worse before.
    Time(Duration),
    /// Just so many, whether the model gets worse or not.
    Steps(usize),
}

/// Where and on what a language model is trained.
pub(super) struct Workbench<'a> {
    pub config: &'a FitConfig,
    /// Prepared data.
    pub data: PathBuf,
    /// The folder of the runs.
    pub folder: PathBuf,
    pub interrupted: &'a AtomicBool,
}

impl Workbench<'_> {
    /// Trains one within shares of the time that is left.
    pub fn train(
        &self,
        clock: &Clock,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<LanguageModel, RunError> {
        let [pretraining, tuning] = SHARES;
        self.make([&|| Limit::Time(clock.share(pretraining)), &|| Limit::Time(clock.share(tuning))], observer)
    }

    /// Trains one on all rows for as many steps as the trial's best took, in proportion to the rows.
    pub fn refit(
        &self,
        trial: &LanguageModel,
        rows: usize,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<LanguageModel, RunError> {
        let scaled = |run: &TrainedRun| scaled(run, trial.tuned.examples, rows);
        let pretraining = trial.pretrained.as_ref().map_or(1, scaled);
        self.make([&|| Limit::Steps(pretraining), &|| Limit::Steps(scaled(&trial.tuned))], observer)
    }

    /// Pretrains, unless the model came pretrained, and fine-tunes.
    fn make(
        &self,
        [pretraining, tuning]: [&dyn Fn() -> Limit; 2],
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<LanguageModel, RunError> {
        let (pretrained, model) = match &self.config.model {
            Some(model) => (None, model.clone()),
            None => {
                let run = self.pretrain(&self.base()?, pretraining(), observer)?;
                let model = run.model.clone();
                (Some(run), model)
            }
        };
        let tuned = self.tune(&model, tuning(), observer)?;
        Ok(LanguageModel { pretrained, tuned })
    }

    fn pretrain(
        &self,
        model: &Path,
        limit: Limit,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<TrainedRun, RunError> {
        let defaults = Defaults::pretrain(FromScratch::of(model, &self.data));
        let stage = StageConfig::Pretrain { regularization: defaults.regularization };
        self.run(stage, defaults, model, limit, observer)
    }

    fn tune(
        &self,
        model: &Path,
        limit: Limit,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<TrainedRun, RunError> {
        let defaults = Defaults::sft(FromScratch::of(model, &self.data));
        let stage = StageConfig::Sft {
            thoughts: 1,
            source: ThoughtKind::LatentAttention,
            temperature: Temperature::default(),
            lora: None,
            regularization: defaults.regularization,
            augmentation: Augmentation::default(),
            hold_out: None,
        };
        self.run(stage, Defaults { select: Selection::NDCG_10, ..defaults }, model, limit, observer)
    }

    fn run(
        &self,
        stage: StageConfig,
        defaults: Defaults,
        model: &Path,
        limit: Limit,
        observer: &mut dyn FnMut(&'static str, RunEvent),
    ) -> Result<TrainedRun, RunError> {
        let name = stage.name();
        let mut train = defaults.train;
        train.seed = self.config.seed;
        let time = match limit {
            Limit::Time(time) => time,
            Limit::Steps(steps) => {
                (train.max_steps, train.epochs, train.patience) = (Some(steps), usize::MAX, None);
                FOREVER
            }
        };
        let ranks = defaults.select != Selection::Loss;
        let description = RunDescription {
            select: defaults.select,
            rank_sample: if ranks { VALIDATED } else { 0 },
            valid_limit: Some(VALIDATED),
            ..RunDescription::new(stage, model, &self.data, &self.config.device, train)
        };
        train_within(&description, &self.folder.join(name), time, self.interrupted, &mut |event| observer(name, event))
    }

    /// The model with random weights.
    fn base(&self) -> Result<PathBuf, RunError> {
        let out = self.folder.join("base");
        if !out.exists() {
            let tokenizer = self.data.join(TOKENIZER_FILE);
            let request = InitRequest {
                out: out.clone(),
                origin: ModelOrigin::Random { tokenizer, end_token: None, sizes: SIZES },
                dtype: Precision::F32,
                thoughts: None,
                device: self.config.device.clone(),
                seed: self.config.seed,
            };
            request.carry_out()?;
        }
        Ok(out)
    }
}

/// The language model of a shop's trial, fine-tuned; nothing where there is none.
pub(super) fn trial_model(shop: &Path) -> Result<Option<PathBuf>, RunError> {
    let run = shop.join("trial/sft");
    let Some(trained) = recorded::<TrainedRun>(&run.with_extension("json"))? else {
        return Ok(None);
    };
    // The folder may have been moved since.
    let is_last = trained.model.ends_with(RunPaths(Path::new("")).last());
    Ok(Some(if is_last { RunPaths(&run).last() } else { run }))
}

impl LanguageModel {
    /// Seconds that the same takes on so many rows.
    pub fn seconds(&self, rows: usize) -> f64 {
        let examples = self.tuned.examples;
        self.pretrained
            .iter()
            .chain([&self.tuned])
            .map(|run| scaled(run, examples, rows) as f64 * run.seconds_per_step)
            .sum()
    }
}

/// The steps of a run's best model in proportion to the rows.
fn scaled(run: &TrainedRun, examples: usize, rows: usize) -> usize {
    (run.step.max(1) as f64 * rows as f64 / examples.max(1) as f64).ceil() as usize
}
