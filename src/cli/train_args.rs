//! The options of the training commands, and how they become a run's description.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use super::outputs::{check_json, write_json};
use super::run_display::RunDisplay;
use super::{CliError, DeviceArg, SeedArg, interrupt::interrupted, model::warn_of_software};
use crate::models::{LoraRequest, ObjectiveKind, Precision, ThoughtKind};
use crate::run::{
    Augmentation, Defaults, FromScratch, HeldOut, Recipe, Resumption, RunContext, RunDescription, RunEvent, RunOutcome,
    StageConfig, TrainingOptions, check_same, model_and_data, resume, start,
};
use crate::train::{Regularization, Temperature, World};

/// What a run reads and writes.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Model to start from: a Hugging Face folder, a run folder, or a name on the hub, org/name[@revision]
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["resume", "config"])]
    model: Option<PathBuf>,
    /// Prepared data (see `latentr3 prepare`)
    #[arg(long, value_name = "PREPARED", required_unless_present_any = ["resume", "config"])]
    data: Option<PathBuf>,
    /// Run folder to create, for checkpoints, metrics and configuration
    #[arg(long, value_name = "RUN", required_unless_present = "resume")]
    out: Option<PathBuf>,
    /// Resume this run from its last checkpoint with its original settings. Only --data (if it was moved), --device,
    /// --micro-batch, --gradient-checkpointing and --max-steps may change
    #[arg(long, value_name = "RUN", conflicts_with_all = ["model", "out"])]
    resume: Option<PathBuf>,
    /// Read options that the command line omits from this file: TOML (lr = 1e-3), or the run.json of a run
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,
    /// Train as one of several processes, each on its part of every batch: `mpirun -n 4 latentr3 ...`. A run can be
    /// resumed with another number of processes
    #[arg(long)]
    mpi: bool,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
    /// Options given on the command line.
    #[arg(skip)]
    pub(super) given: Vec<String>,
}

impl RunArgs {
    /// Whether this begins a run.
    pub(super) fn is_new(&self) -> bool {
        self.resume.is_none()
    }

    /// Whether the model of a new run began with random weights.
    pub(super) fn scratch(&self) -> Option<FromScratch> {
        let file = self.config.as_deref().and_then(model_and_data);
        let (model, data) = file.unwrap_or_default();
        FromScratch::of(self.model.as_ref().or(model.as_ref())?, self.data.as_ref().or(data.as_ref())?)
    }

    /// What is given against over-fitting, and the stage's defaults of what is not.
    fn regularization(&self, given: Regularization, defaults: &Defaults) -> Result<Regularization, CliError> {
        given.check()?;
        let dropout = if self.names("dropout") { given.dropout } else { defaults.regularization.dropout };
        Ok(Regularization { dropout, ..given })
    }

    /// Whether the command line named an option.
    pub(super) fn names(&self, option: &str) -> bool {
        self.given.iter().any(|given| given == option)
    }
}

/// Options of `pretrain`.
#[derive(Debug, Args)]
#[command(after_help = "The method assumes a pretrained language model. This stage makes one from random weights.")]
pub(super) struct PretrainArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Windows per step [default: 32]
    #[arg(long)]
    batch: Option<usize>,
    #[command(flatten)]
    objective: TrainedObjectiveArg,
    #[command(flatten)]
    training: TrainingOptions,
    #[command(flatten)]
    regularization: Regularization,
}

/// The option of commands that train a model for an objective.
#[derive(Debug, Clone, Args)]
struct TrainedObjectiveArg {
    /// Which tokens a title's tokens compete with: `catalog`, those that the prefix tree allows (loss in nats per
    /// item); `vocabulary`, all, as published (loss per token). The checkpoint records it [default: catalog]
    #[arg(long, value_name = "OBJECTIVE")]
    objective: Option<ObjectiveKind>,
}

/// Options of `sft`.
#[derive(Debug, Args)]
#[command(
    after_help = "The defaults are the published settings (arXiv 2505.19092), except for the objective and for a model \
from scratch. `--recipe latentr3` uses all published settings. `--thoughts 0` trains the plain model, the baseline."
)]
pub(super) struct SftArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Number of thoughts before the target
    #[arg(long, default_value_t = 1)]
    thoughts: usize,
    /// What computes a thought
    #[arg(long, value_enum, default_value_t = ThoughtKind::LatentAttention)]
    source: ThoughtKind,
    /// Rows per step [default: 128; 64 for a model from scratch]
    #[arg(long)]
    batch: Option<usize>,
    #[command(flatten)]
    objective: TrainedObjectiveArg,
    /// Temperature of the loss with the objective `catalog`: a number, or `adaptive` (MSL, arXiv 2504.04178)
    #[arg(long, value_name = "TEMPERATURE", default_value_t = Temperature::default())]
    temperature: Temperature,
    /// Hold out this fraction of the training rows, drawn at random, for stage 2 (grpo --rows held-out)
    #[arg(long, value_name = "SHARE")]
    hold_out: Option<f64>,
    /// Use a published set of settings
    #[arg(long, value_enum, conflicts_with = "objective")]
    recipe: Option<Recipe>,
    #[command(flatten)]
    lora: LoraRequest,
    #[command(flatten)]
    frozen: FrozenArgs,
    #[command(flatten)]
    training: TrainingOptions,
    #[command(flatten)]
    regularization: Regularization,
    #[command(flatten)]
    augmentation: Augmentation,
}

/// How a stage that freezes the backbone keeps it.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct FrozenArgs {
    /// Precision in which frozen matrices (sft with --lora-rank, grpo) are stored: f32, bf16 or f16, if the device
    /// supports it. 16 bits halve their memory; a run's checkpoints hold the rounded weights
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    pub(super) frozen_weights: Precision,
}

pub(super) fn pretrain(args: &PretrainArgs) -> Result<(), CliError> {
    let defaults = Defaults::pretrain(args.run.scratch()).with_batch(args.batch);
    let regularization = args.run.regularization(args.regularization, &defaults)?;
    let objective = Some(args.objective.objective.unwrap_or(ObjectiveKind::Catalog));
    let stage = StageConfig::Pretrain { regularization };
    launch(&args.run, &args.training, Precision::F32, stage, objective, defaults, None)
}

pub(super) fn sft(args: &SftArgs) -> Result<(), CliError> {
    let from_scratch = if args.recipe.is_some() { None } else { args.run.scratch() };
    let defaults = Defaults::sft(from_scratch).with_batch(args.batch);
    let lora = args.lora.config()?;
    args.temperature.check()?;
    args.augmentation.check().map_err(CliError::Usage)?;
    let stage = StageConfig::Sft {
        thoughts: args.thoughts,
        source: args.source,
        temperature: args.temperature,
        lora,
        regularization: args.run.regularization(args.regularization, &defaults)?,
        augmentation: args.augmentation,
        hold_out: args.hold_out.map(|share| HeldOut { share, seed: args.run.seed.seed }),
    };
    let objective = args.recipe.map(Recipe::objective).or(args.objective.objective).unwrap_or(ObjectiveKind::Catalog);
    if args.run.is_new() && objective == ObjectiveKind::Vocabulary && args.temperature != Temperature::default() {
        return Err(CliError::Usage("--temperature applies only to the objective `catalog`".into()));
    }
    launch(&args.run, &args.training, args.frozen.frozen_weights, stage, Some(objective), defaults, None)
}

pub(super) fn launch(
    run: &RunArgs,
    training: &TrainingOptions,
    frozen_weights: Precision,
    stage: StageConfig,
    objective: Option<ObjectiveKind>,
    defaults: Defaults,
    settings: Option<Map<String, Value>>,
) -> Result<(), CliError> {
    check_json(run.json.as_deref())?;
    let train = training.config(defaults.train, run.seed.seed);
    train.check()?;
    let [model, data] = [&run.model, &run.data].map(|path| path.clone().unwrap_or_default());
    let description = RunDescription::new(stage, &model, &data, &run.device.device, train);
    let description = RunDescription { objective, frozen_weights, ..description };
    let description = training.of_run(description, defaults.select).map_err(CliError::Usage)?;
    let description = match (&run.config, settings.filter(|_| run.is_new())) {
        (Some(file), _) => description.with_file(file, &|option| run.names(option))?,
        (None, Some(recipe)) => description
            .with_settings(recipe, &|option| run.names(option))
            .map_err(|problem| CliError::Usage(format!("the recipe {problem}")))?,
        (None, None) => description,
    };
    let world = if run.mpi { World::of_mpi()? } else { World::alone() };
    let stage = description.stage.name();
    let mut display = RunDisplay::new(stage, world.is_root());
    let mut observer = |event: RunEvent| display.show(event);
    let mut context = RunContext { world: &world, interrupted: interrupted(), observer: &mut observer };
    let result = match (&run.resume, &run.out) {
        (Some(folder), _) => resume_run(run, training, folder, &description, &mut context),
        (None, Some(out)) => {
            warn_of_software(&description.device)?;
            start(description, out, &mut context).map_err(|error| CliError::of_run(error, stage, ""))
        }
        (None, None) => Err(CliError::Usage("give --model, --data and --out, or --resume".into())),
    };
    if let Ok(outcome) = &result {
        display.end(outcome);
        if world.is_root() {
            write_json(run.json.as_deref(), outcome)?;
        }
    }
    // All have come to the same end; after any other error the rest could be waiting for this worker.
    if matches!(result, Ok(_) | Err(CliError::Interrupted { .. })) {
        world.finish();
    }
    result.map(drop)
}

/// Resumes a run of the command's own stage, if the other options are those that it began with.
fn resume_run(
    run: &RunArgs,
    training: &TrainingOptions,
    folder: &Path,
    asked: &RunDescription,
    context: &mut RunContext,
) -> Result<RunOutcome, CliError> {
    let stage = asked.stage.name();
    let recorded = RunDescription::read_of(folder, stage)?;
    check_same(&|option| run.names(option), asked, &recorded)?;
    let resumption = Resumption {
        data: run.data.clone(),
        device: run.names("device").then(|| run.device.device.clone()),
        gradient_checkpointing: training.gradient_checkpointing,
        micro_batch: run.names("micro_batch").then_some(training.micro_batch),
        max_steps: training.max_steps,
    };
    resume(folder, &resumption, context).map_err(|error| CliError::of_run(error, stage, ""))
}
