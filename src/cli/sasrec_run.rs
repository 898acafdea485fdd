//! Runs of the baseline SASRec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::files::absolute;
use super::interrupt::interrupted;
use super::recorded::{check_data, recorded_as_json, warn_of_damage};
use super::scored_lists::EvaluationArgs;
use super::terminal::{Progress, duration};
use super::{CliError, DeviceArg};
use crate::data::{Prepared, PreparedRow, Split};
use crate::eval::sasrec_config;
use crate::models::device;
use crate::models::sasrec::{SasRec, SasRecConfig};
use crate::train::sasrec::{SasRecStage, SasRecTrainConfig, example};
use crate::train::{self, Event, RunFolder, RunPaths, TrainError, Training, World};

/// The stage that `run.json` names.
pub(super) const STAGE: &str = "sasrec";

/// Options of `baseline sasrec`.
#[derive(Debug, Args)]
#[command(
    after_help = "Trains on the training rows by cross-entropy over the whole catalog, keeps the epoch with the best NDCG@10 \
on the validation rows, and evaluates it on --split. Give --out to train, --model to evaluate a run again, --resume to go on \
with one that was stopped."
)]
pub(super) struct SasRecArgs {
    /// Prepared data
    #[arg(long, value_name = "PREPARED", required_unless_present = "resume")]
    data: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    pub evaluation: EvaluationArgs,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// Where the model is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RunArgs {
    /// Run folder to make: train, then evaluate
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// Run folder, or a folder with a model, to evaluate only
    #[arg(long, value_name = "RUN")]
    model: Option<PathBuf>,
    /// Resume this run, then evaluate it; it resumes with its original settings and seed, and takes --data
    /// if the data was moved
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
}

/// The model and its training, for a new run.
#[derive(Debug, Args)]
#[group(multiple = true, conflicts_with_all = ["model", "resume"])]
struct RecipeArgs {
    /// Width of the embeddings
    #[arg(long, value_name = "WIDTH", default_value_t = 64)]
    hidden: usize,
    /// Blocks of attention and feed-forward network
    #[arg(long, default_value_t = 2)]
    layers: usize,
    /// Attention heads
    #[arg(long, default_value_t = 1)]
    heads: usize,
    /// Width within the feed-forward networks [default: as --hidden]
    #[arg(long, value_name = "WIDTH")]
    ff: Option<usize>,
    /// Share of the activations that training sets to zero; the sparser the data, the more
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    dropout: f64,
    /// Passes over the training rows at most
    #[arg(long, default_value_t = 300)]
    epochs: usize,
    /// Rows a step
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Stop after this many epochs without a better NDCG@10 on the validation rows
    #[arg(long, value_name = "EPOCHS", default_value_t = 10)]
    patience: usize,
}

/// Everything that makes a run what it is; `run.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Version of the program that began the run.
    latentr3: String,
    stage: String,
    model: SasRecConfig,
    train: SasRecTrainConfig,
    data: PathBuf,
    /// SHA-256 of the data's files, so that a run does not go on with other data.
    data_files: BTreeMap<String, String>,
}

/// The data and the folder of the model, after training where that was asked for.
pub(super) fn trained(args: &SasRecArgs) -> Result<(Prepared, PathBuf), CliError> {
    let (data, device) = (args.data.as_deref(), device(&args.device.device)?);
    match (&args.run, data) {
        (RunArgs { model: Some(model), .. }, Some(data)) => Ok((Prepared::load(data)?, model.clone())),
        (RunArgs { out: Some(out), .. }, Some(data)) => {
            let prepared = Prepared::load(data)?;
            let description = args.recipe.description(&prepared, data, args.evaluation.seed.seed);
            description.train.check()?;
            let fresh = SasRec::new(description.model.clone(), description.train.seed, &device)?;
            let run = RunFolder::create(out, &recorded_as_json(&description)?, Vec::new())?;
            train(&description, &prepared, &run, |training, stage| training.start(stage, fresh))?;
            Ok((prepared, out.clone()))
        }
        (RunArgs { resume: Some(folder), .. }, data) => {
            let (description, prepared) = recorded(folder, data)?;
            let run = RunFolder::open(folder, Vec::new())?;
            let found = run.newest(description.train.training().optimizer, &device)?;
            found.iter().for_each(warn_of_damage);
            let fresh = SasRec::new(description.model.clone(), description.train.seed, &device)?;
            train(&description, &prepared, &run, |training, stage| match found {
                Some(found) => training.go_on(stage, found.trained),
                None => training.start(stage, fresh),
            })?;
            Ok((prepared, folder.clone()))
        }
        _ => Err(CliError::Usage("--data and one of --out, --model and --resume are needed".into())),
    }
}

impl RecipeArgs {
    fn description(&self, prepared: &Prepared, data: &Path, seed: u64) -> Description {
        let model = SasRecConfig {
            d_model: self.hidden,
            d_ff: self.ff.unwrap_or(self.hidden),
            blocks: self.layers,
            heads: self.heads,
            dropout: self.dropout,
            ..sasrec_config(prepared)
        };
        let Self { epochs, batch, lr: learning_rate, patience, .. } = *self;
        Description {
            latentr3: env!("CARGO_PKG_VERSION").into(),
            stage: STAGE.into(),
            model,
            train: SasRecTrainConfig { epochs, batch, learning_rate, patience, seed },
            data: absolute(data),
            data_files: prepared.files().clone(),
        }
    }
}

/// What a run that is to go on records, and its data, which may have been moved.
fn recorded(folder: &Path, data: Option<&Path>) -> Result<(Description, Prepared), CliError> {
    let path = RunPaths(folder).description();
    let error = |problem: String| CliError::Input { path: path.clone(), line: None, problem };
    let value = RunFolder::description(folder)?;
    let stage = value.get("stage").cloned().unwrap_or_default();
    if stage != STAGE {
        return Err(error("is no run of `baseline sasrec`".into()));
    }
    let description: Description =
        serde_json::from_value(value).map_err(|cause| error(format!("is damaged or of another version: {cause}")))?;
    description.train.check()?;
    let data = data.unwrap_or(&description.data).to_owned();
    let prepared = Prepared::load(&data)?;
    check_data(folder, &description.data_files, &data, &prepared)?;
    Ok((description, prepared))
}

fn train(
    description: &Description,
    prepared: &Prepared,
    run: &RunFolder,
    go: impl FnOnce(Training<SasRec>, &SasRecStage) -> Result<train::Progress, TrainError>,
) -> Result<(), CliError> {
    let rows = |split| {
        let example = |(at, row): (usize, &PreparedRow)| example(&row.history, row.item, at);
        prepared.rows.get(split).iter().enumerate().map(example).collect::<Vec<_>>()
    };
    let (train, valid) = (rows(Split::Train), rows(Split::Valid));
    let config = description.train.training();
    let per_epoch = config.steps_per_epoch(train.len());
    let mut progress = Progress::new(STAGE);
    let mut observer = |event: Event| match event {
        Event::Step { step, steps, headline, .. } => {
            progress.advance(step as u64, steps as u64, 0, &format!("steps, loss {headline:.4}"))
        }
        Event::Validated { step, validation, is_best } => {
            let best = if is_best { ", best so far" } else { "" };
            progress.say(&format!("epoch {}: valid NDCG@10 {:.4}{best}", step / per_epoch, validation.score))
        }
        Event::Skipped { .. } | Event::Alarmed { .. } => {}
    };
    let training = Training {
        config: &config,
        train: &train,
        valid: &valid,
        run: Some(run),
        world: &World::alone(),
        observer: &mut observer,
        extra_validation: None,
        interrupted: interrupted(),
    };
    let end = go(training, &SasRecStage { seed: config.seed, steps_per_epoch: per_epoch })?;
    if !end.finished {
        let also = " and the options from --split on, which say what is evaluated then";
        return Err(CliError::Interrupted { stage: "baseline sasrec", run: run.path().into(), also, step: end.step });
    }
    progress.say(&format!(
        "done after {} epochs in {}; the best, epoch {} with an NDCG@10 of {:.4} on valid, is {}",
        end.step / per_epoch,
        duration(end.seconds),
        end.best_step.unwrap_or(end.step) / per_epoch,
        end.best.map_or(f64::NAN, |best| best.score),
        run.best().display()
    ));
    Ok(())
}
