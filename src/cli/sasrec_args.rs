//! Runs of the baseline SASRec.

use std::path::{Path, PathBuf};

use clap::Args;

use super::interrupt::interrupted;
use super::run_display::best;
use super::scored_lists::EvaluationArgs;
use super::terminal::{Progress, note};
use super::{CliError, DeviceArg};
use crate::data::Prepared;
use crate::eval::sasrec_config;
use crate::models::sasrec::{EncoderKind, SasRecConfig};
use crate::run::{RunContext, RunError, RunEvent, SasRecRun};
use crate::text;
use crate::train::sasrec::{SasRecLoss, SasRecTrainConfig};
use crate::train::{self, Event, RunPaths, World};

/// Options of `baseline sasrec`.
#[derive(Debug, Args)]
#[command(after_help = "Trains on the training rows, keeps the epoch with the best NDCG@10 \
on the validation rows, and evaluates it on --split. Use --out to train, --model to evaluate an existing run, and \
--resume to continue one that was stopped.")]
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
    /// Run folder to create: train, then evaluate
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// Run folder or model folder to evaluate without training
    #[arg(long, value_name = "RUN")]
    model: Option<PathBuf>,
    /// Run folder to resume with its original settings and seed, then evaluate; needs --data only if the data was moved
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
}

/// The model and its training, for a new run.
#[derive(Debug, Args)]
#[group(multiple = true, conflicts_with_all = ["model", "resume"])]
struct RecipeArgs {
    /// What reads a user's items: attention for SASRec, gru for GRU4Rec
    #[arg(long, value_enum, default_value_t = EncoderKind::Attention)]
    encoder: EncoderKind,
    /// Embedding width
    #[arg(long, value_name = "WIDTH", default_value_t = 64)]
    hidden: usize,
    /// Transformer blocks, or layers of recurrent units
    #[arg(long, default_value_t = 2)]
    layers: usize,
    /// Attention heads
    #[arg(long, default_value_t = 1)]
    heads: usize,
    /// Inner width of the feed-forward networks [default: as --hidden]
    #[arg(long, value_name = "WIDTH")]
    ff: Option<usize>,
    /// Dropout rate; sparser data needs more
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    dropout: f64,
    /// Maximum number of passes over the training rows
    #[arg(long, default_value_t = 300)]
    epochs: usize,
    /// Rows per step
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Early stopping: stop after this many epochs without a better NDCG@10 on the validation rows
    #[arg(long, value_name = "EPOCHS", default_value_t = 10)]
    patience: usize,
    /// Loss at the end of each history
    #[arg(long, value_enum, default_value_t = SasRecLoss::Softmax)]
    loss: SasRecLoss,
}

/// The data and the folder of the model, after training where that was asked for.
pub(super) fn trained(args: &SasRecArgs) -> Result<(Prepared, PathBuf), CliError> {
    let (data, device) = (args.data.as_deref(), args.device.device.as_str());
    match (&args.run, data) {
        (RunArgs { model: Some(model), .. }, Some(data)) => Ok((Prepared::load(data)?, model.clone())),
        (RunArgs { out: Some(out), .. }, Some(data)) => {
            let prepared = Prepared::load(data)?;
            let run = args.recipe.run(&prepared, data, args.evaluation.seed.seed);
            shown(&run, &prepared, out, |context| run.start(&prepared, out, device, context))?;
            Ok((prepared, out.clone()))
        }
        (RunArgs { resume: Some(folder), .. }, data) => {
            let (run, prepared) = SasRecRun::read(folder, data)?;
            shown(&run, &prepared, folder, |context| run.resume(&prepared, folder, device, context))?;
            Ok((prepared, folder.clone()))
        }
        _ => Err(CliError::Usage("give --resume, or --data with --out or --model".into())),
    }
}

impl RecipeArgs {
    fn run(&self, prepared: &Prepared, data: &Path, seed: u64) -> SasRecRun {
        let model = SasRecConfig {
            encoder: self.encoder,
            d_model: self.hidden,
            d_ff: self.ff.unwrap_or(self.hidden),
            blocks: self.layers,
            heads: self.heads,
            dropout: self.dropout,
            ..sasrec_config(prepared)
        };
        let Self { epochs, batch, lr: learning_rate, patience, loss, .. } = *self;
        SasRecRun::new(model, SasRecTrainConfig { epochs, batch, learning_rate, patience, loss, seed }, data, prepared)
    }
}

/// Trains and shows it.
fn shown(
    run: &SasRecRun,
    prepared: &Prepared,
    folder: &Path,
    train: impl FnOnce(&mut RunContext) -> Result<train::Progress, RunError>,
) -> Result<(), CliError> {
    run.train.check()?;
    let per_epoch = run.steps_per_epoch(prepared);
    let mut progress = Progress::new("sasrec");
    let mut observer = |event: RunEvent| match event {
        RunEvent::Warning(text) => note(&format!("warning: {text}")),
        RunEvent::Training(Event::Step { step, steps, headline, .. }) => {
            progress.advance(step as u64, steps as u64, 0, &format!("steps, loss {headline:.4}"))
        }
        RunEvent::Training(Event::Validated { step, validation, is_best }) => {
            let (epoch, ndcg, best) = (step / per_epoch, validation.score, best(is_best));
            progress.say(&format!("epoch {epoch}: validation NDCG@10 {ndcg:.4}{best}"))
        }
        RunEvent::Training(Event::Skipped { .. } | Event::Alarmed { .. }) | RunEvent::Ready { .. } => {}
    };
    let world = World::alone();
    let mut context = RunContext { world: &world, interrupted: interrupted(), observer: &mut observer };
    let also = " and the options of the evaluation, from --split on";
    let end = train(&mut context).map_err(|error| CliError::of_run(error, "baseline sasrec", also))?;
    progress.say(&text::of_sasrec(&end, RunPaths(folder), per_epoch));
    Ok(())
}
