//! The options of the training commands, and how they become a run's description.

use std::path::{Path, PathBuf};

use clap::Args;

use super::outputs::{check_json, write_json};
use super::run_display::RunDisplay;
use super::{CliError, DeviceArg, SeedArg, interrupt::interrupted, model::warn_of_software, names_of};
use crate::models::{LoraRequest, ObjectiveKind, Precision, ThoughtKind};
use crate::run::{
    Augmentation, Defaults, FromScratch, HeldOut, Recipe, Resumption, RunContext, RunDescription, RunEvent, RunOutcome,
    Selection, StageConfig, check_same, resume, start,
};
use crate::train::{AdamWConfig, Keep, OnNonfinite, Regularization, Schedule, Temperature, TrainConfig, World};

/// What a run reads and writes.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Hugging Face folder or run folder to start from
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    model: Option<PathBuf>,
    /// Prepared data (see `latentr3 prepare`)
    #[arg(long, value_name = "PREPARED", required_unless_present = "resume")]
    data: Option<PathBuf>,
    /// Run folder to make: checkpoints, metrics, configuration
    #[arg(long, value_name = "RUN", required_unless_present = "resume")]
    out: Option<PathBuf>,
    /// Resume this run from its last checkpoint with its original settings; the only other options it takes are --data
    /// if the data was moved, another --device, --micro-batch or --gradient-checkpointing where memory is short, and
    /// --max-steps to end later or earlier
    #[arg(long, value_name = "RUN", conflicts_with_all = ["model", "out"])]
    resume: Option<PathBuf>,
    /// This is one of several processes that train together, each on its share of every batch: `mpirun -n 4 latentr3
    /// ...`; any number of them goes on with a run
    #[arg(long)]
    mpi: bool,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
    /// The options that the command line named.
    #[arg(skip)]
    pub(super) given: Vec<String>,
}

impl RunArgs {
    /// Whether this begins a run.
    pub(super) fn is_new(&self) -> bool {
        self.resume.is_none()
    }

    /// Whether the model of a new run began with random weights.
    fn scratch(&self) -> Option<FromScratch> {
        FromScratch::of(self.model.as_ref()?, self.data.as_ref()?)
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

/// How every stage trains.
#[derive(Debug, Clone, Args)]
pub(super) struct LoopArgs {
    /// Passes over the training examples at most [default: 10 for pretrain, 3 for sft, 1 for grpo; for a model from
    /// scratch 24 for pretrain, and for sft as many as show 200,000 rows, from 4 to 20]
    #[arg(long)]
    epochs: Option<usize>,
    /// Highest learning rate [default: 1e-3 for pretrain, 3e-4 for sft, 5e-5 for grpo; for a model from scratch 1.5e-3 for
    /// pretrain, 6e-4 for sft]
    #[arg(long)]
    lr: Option<f64>,
    /// Steps until the learning rate is at its highest [default: 20; for grpo the smaller of 200 and a tenth of all]
    #[arg(long, value_name = "STEPS")]
    warmup: Option<usize>,
    /// Select the best model by this on the validation rows: loss, or over the users of --rank-sample a metric of the
    /// ranked catalog such as ndcg@10 or hr@10 [default: loss; for sft of a model from scratch ndcg@10]
    #[arg(long, value_name = "METRIC")]
    select: Option<Selection>,
    /// Stop after this many validations without a better model; 0 for never [default: 1, for grpo 0; for a model from
    /// scratch 2 for pretrain, 4 for sft]
    #[arg(long, value_name = "VALIDATIONS")]
    patience: Option<usize>,
    /// Prompts that run through the model at once, for grpo with all their samples; changes memory and speed, and
    /// results by rounding only
    #[arg(long, value_name = "ROWS", default_value_t = 32)]
    micro_batch: usize,
    /// Compute activations again in the backward pass instead of keeping them; changes memory and speed, not results,
    /// and may be given beside --resume
    #[arg(long)]
    gradient_checkpointing: bool,
    /// What the blocks multiply in, forward and backward: f32, bf16 or f16, where the device computes in it; weights,
    /// losses, rewards and checkpoints stay f32
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// How the learning rate falls after the warm-up [default: linear for sft, cosine for pretrain, grpo and
    /// a model from scratch]
    #[arg(long, value_parser = names_of::<Schedule>())]
    schedule: Option<Schedule>,
    /// Decoupled weight decay on matrices
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// Validate and save an exponential average of the weights with this decay instead of the weights as they are, as
    /// 0.99; 0 for none
    #[arg(long, value_name = "DECAY")]
    average: Option<f64>,
    /// Largest global norm of the gradients
    #[arg(long, default_value_t = 1.0)]
    clip_norm: f64,
    /// Validations in an epoch at most, equally far apart, or in the whole run where that is shorter [default: 1, for
    /// grpo 10]
    #[arg(long, value_name = "N")]
    validations: Option<usize>,
    /// Steps between checkpoints, besides those at validations
    #[arg(long, value_name = "STEPS", default_value_t = 50)]
    checkpoint_every: usize,
    /// Keep a checkpoint of every so many steps as RUN/step-N, besides RUN/last and RUN/best
    #[arg(long, value_name = "STEPS")]
    keep_every: Option<usize>,
    /// Kept checkpoints at most; the oldest go
    #[arg(long, value_name = "N", default_value_t = 3, requires = "keep_every")]
    keep_limit: usize,
    /// What to do when a loss, reward or gradient is not finite: stop and name the rows, or skip the step and count;
    /// ten skipped in a row stop the run all the same
    #[arg(long, value_enum, value_parser = names_of::<OnNonfinite>(), default_value_t = OnNonfinite::Stop)]
    on_nonfinite: OnNonfinite,
    /// Stop after this many steps, for trials
    #[arg(long, value_name = "STEPS")]
    max_steps: Option<usize>,
    /// Train on this many examples, drawn at random, for trials
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Validate on this many examples, drawn at random
    #[arg(long, value_name = "N")]
    valid_limit: Option<usize>,
    /// At each validation also rank the catalog for this many validation users, drawn at random [default: 0, or 500
    /// where --select needs them]
    #[arg(long, value_name = "USERS")]
    rank_sample: Option<usize>,
}

/// Options of `pretrain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Stands in for the language model that the method presumes, where a model begins with random weights."
)]
pub(super) struct PretrainArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Windows a step [default: 32]
    #[arg(long)]
    batch: Option<usize>,
    #[command(flatten)]
    objective: TrainedObjectiveArg,
    #[command(flatten)]
    training: LoopArgs,
    #[command(flatten)]
    regularization: Regularization,
}

/// The option of commands that train a model for an objective.
#[derive(Debug, Clone, Args)]
struct TrainedObjectiveArg {
    /// What a title's tokens compete with: `catalog`, those that the catalog's prefix tree allows in their place, with
    /// a loss in nats per item; or `vocabulary`, all tokens, as published, with a loss per token. The checkpoint
    /// records it [default: catalog]
    #[arg(long, value_name = "OBJECTIVE")]
    objective: Option<ObjectiveKind>,
}

/// Options of `sft`.
#[derive(Debug, Args)]
#[command(
    after_help = "The defaults are the published settings (arXiv 2505.19092) but for the objective; `--recipe latentr3` is all of them. `--thoughts 0` is the \
plain model, the baseline."
)]
pub(super) struct SftArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Thoughts before the target
    #[arg(long, default_value_t = 1)]
    thoughts: usize,
    /// Where a thought comes from
    #[arg(long, value_enum, default_value_t = ThoughtKind::LatentAttention)]
    source: ThoughtKind,
    /// Rows a step [default: 128; for a model from scratch 64]
    #[arg(long)]
    batch: Option<usize>,
    #[command(flatten)]
    objective: TrainedObjectiveArg,
    /// With the objective `catalog`, divide the logits by this in the loss: a number, or `adaptive` (MSL, arXiv
    /// 2504.04178)
    #[arg(long, value_name = "TEMPERATURE", default_value_t = Temperature::default())]
    temperature: Temperature,
    /// Leave this share of the training rows, drawn at random, to stage 2: grpo --rows held-out
    #[arg(long, value_name = "SHARE")]
    hold_out: Option<f64>,
    /// Train by a published set of settings
    #[arg(long, value_enum, conflicts_with = "objective")]
    recipe: Option<Recipe>,
    #[command(flatten)]
    lora: LoraRequest,
    #[command(flatten)]
    frozen: FrozenArgs,
    #[command(flatten)]
    training: LoopArgs,
    #[command(flatten)]
    regularization: Regularization,
    #[command(flatten)]
    augmentation: Augmentation,
}

/// How a stage that freezes the backbone keeps it.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct FrozenArgs {
    /// What the matrices that do not train (sft with --lora-rank, grpo) are rounded to and kept in: f32, bf16 or f16,
    /// where the device has it; half the memory, and a run's checkpoints hold the rounded weights
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    pub(super) frozen_weights: Precision,
}

pub(super) fn pretrain(args: &PretrainArgs) -> Result<(), CliError> {
    let defaults = Defaults::pretrain(args.run.scratch()).with_batch(args.batch);
    let regularization = args.run.regularization(args.regularization, &defaults)?;
    let objective = Some(args.objective.objective.unwrap_or(ObjectiveKind::Catalog));
    let stage = StageConfig::Pretrain { regularization };
    launch(&args.run, &args.training, Precision::F32, stage, objective, defaults)
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
        return Err(CliError::Usage("--temperature is for the objective `catalog`".into()));
    }
    launch(&args.run, &args.training, args.frozen.frozen_weights, stage, Some(objective), defaults)
}

impl LoopArgs {
    /// The stage's defaults with what the user asked for in their place.
    fn config(&self, defaults: TrainConfig, run: &RunArgs) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs.unwrap_or(defaults.epochs),
            micro_batch: self.micro_batch,
            gradient_checkpointing: self.gradient_checkpointing,
            learning_rate: self.lr.unwrap_or(defaults.learning_rate),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            warmup: self.warmup.or(defaults.warmup),
            optimizer: AdamWConfig {
                weight_decay: self.weight_decay,
                average: self.average.filter(|&decay| decay != 0.0),
                ..defaults.optimizer
            },
            clip_norm: self.clip_norm,
            validations: self.validations.unwrap_or(defaults.validations),
            patience: self.patience.map_or(defaults.patience, |most| (most > 0).then_some(most)),
            checkpoint_every: self.checkpoint_every,
            keep: self.keep_every.map(|every| Keep { every, limit: self.keep_limit }),
            on_nonfinite: self.on_nonfinite,
            max_steps: self.max_steps,
            seed: run.seed.seed,
            ..defaults
        }
    }
}

pub(super) fn launch(
    run: &RunArgs,
    training: &LoopArgs,
    frozen_weights: Precision,
    stage: StageConfig,
    objective: Option<ObjectiveKind>,
    defaults: Defaults,
) -> Result<(), CliError> {
    check_json(run.json.as_deref())?;
    let train = training.config(defaults.train, run);
    train.check()?;
    let select = training.select.unwrap_or(defaults.select);
    let rank_sample = training.rank_sample.unwrap_or(if select == Selection::Loss { 0 } else { 500 });
    if select != Selection::Loss && rank_sample == 0 {
        return Err(CliError::Usage(format!("--select {select} needs users to rank for: --rank-sample")));
    }
    let [model, data] = [&run.model, &run.data].map(|path| path.clone().unwrap_or_default());
    let description = RunDescription {
        limit: training.limit,
        valid_limit: training.valid_limit,
        rank_sample,
        select,
        objective,
        precision: training.precision,
        frozen_weights,
        ..RunDescription::new(stage, &model, &data, &run.device.device, train)
    };
    let world = if run.mpi { World::of_mpi()? } else { World::alone() };
    let stage = description.stage.name();
    let mut display = RunDisplay::new(stage, world.is_root());
    let mut observer = |event: RunEvent| display.show(event);
    let mut context = RunContext { world: &world, interrupted: interrupted(), observer: &mut observer };
    let result = match (&run.resume, &run.out) {
        (Some(folder), _) => go_on(run, training, folder, &description, &mut context),
        (None, Some(out)) => {
            warn_of_software(&description.device)?;
            start(description, out, &mut context).map_err(|error| CliError::of_run(error, stage, ""))
        }
        (None, None) => Err(CliError::Usage("--model, --data and --out are needed, or --resume".into())),
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

/// Goes on with a run of the command's own stage, if the other options are those that it began with.
fn go_on(
    run: &RunArgs,
    training: &LoopArgs,
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
