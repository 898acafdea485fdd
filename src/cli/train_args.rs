//! The options of the training commands, and how they become a run's description.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::pipeline::{RunDescription, StageConfig, resume, start};
use super::{
    CliError, CommonArgs,
    files::{check_json, write_json},
};
use crate::models::ThoughtKind;
use crate::train::grpo::{AdvantageKind, GrpoConfig};
use crate::train::{AdamWConfig, Schedule, TrainConfig};

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
    /// Go on with this run from its last checkpoint; the run folder knows everything else, and other options change nothing
    #[arg(long, value_name = "RUN", conflicts_with_all = ["model", "data", "out"])]
    resume: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

/// How every stage trains.
#[derive(Debug, Clone, Args)]
pub(super) struct LoopArgs {
    /// Passes over the training examples at most [default: 10 for pretrain, 3 for sft, 1 for grpo]
    #[arg(long)]
    epochs: Option<usize>,
    /// Highest learning rate [default: 1e-3 for pretrain, 3e-4 for sft, 5e-5 for grpo]
    #[arg(long)]
    lr: Option<f64>,
    /// Steps until the learning rate is at its highest [default: 20; for grpo the smaller of 200 and a tenth of all]
    #[arg(long, value_name = "STEPS")]
    warmup: Option<usize>,
    /// Stop after this many validations without a better loss; 0 for never [default: 1, for grpo 0]
    #[arg(long, value_name = "VALIDATIONS")]
    patience: Option<usize>,
    /// Prompts that run through the model at once, for grpo with all their samples; changes memory and speed, not results
    #[arg(long, value_name = "ROWS", default_value_t = 32)]
    micro_batch: usize,
    /// How the learning rate falls after the warm-up [default: linear for sft, cosine for pretrain and grpo]
    #[arg(long, value_enum)]
    schedule: Option<ScheduleArg>,
    /// Decoupled weight decay on matrices
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// Largest global norm of the gradients
    #[arg(long, default_value_t = 1.0)]
    clip_norm: f64,
    /// Validations in an epoch, or in the whole run where that is shorter [default: 1, for grpo 10]
    #[arg(long, value_name = "N")]
    validations: Option<usize>,
    /// Steps between checkpoints, besides those at validations
    #[arg(long, value_name = "STEPS", default_value_t = 50)]
    checkpoint_every: usize,
    /// Stop after this many steps, for trials
    #[arg(long, value_name = "STEPS")]
    max_steps: Option<usize>,
    /// Train on this many examples, drawn at random, for trials
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Validate on this many examples, drawn at random
    #[arg(long, value_name = "N")]
    valid_limit: Option<usize>,
    /// At each validation also rank the catalog for this many validation users
    #[arg(long, value_name = "USERS", default_value_t = 0)]
    rank_sample: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScheduleArg {
    Constant,
    Linear,
    Cosine,
}

impl From<ScheduleArg> for Schedule {
    fn from(schedule: ScheduleArg) -> Self {
        match schedule {
            ScheduleArg::Constant => Self::Constant,
            ScheduleArg::Linear => Self::Linear,
            ScheduleArg::Cosine => Self::Cosine,
        }
    }
}

/// Options of `pretrain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Stands in for the language model that the method presumes, where a model begins with random weights."
)]
pub(super) struct PretrainArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Windows a step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    #[command(flatten)]
    training: LoopArgs,
}

/// Options of `sft`.
#[derive(Debug, Args)]
#[command(
    after_help = "The defaults are the published settings (arXiv 2505.19092). `--thoughts 0` is the plain model, the baseline."
)]
pub(super) struct SftArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Thoughts before the target
    #[arg(long, default_value_t = 1)]
    thoughts: usize,
    /// Where a thought comes from
    #[arg(long, value_enum, default_value_t = SourceArg::LatentAttention)]
    source: SourceArg,
    /// Rows a step
    #[arg(long, default_value_t = 128)]
    batch: usize,
    #[command(flatten)]
    training: LoopArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SourceArg {
    /// Attention over the hidden states: the method
    LatentAttention,
    /// The last hidden state as it is
    LastHidden,
    /// One learnt embedding per thought
    Constants,
}

impl From<SourceArg> for ThoughtKind {
    fn from(source: SourceArg) -> Self {
        match source {
            SourceArg::LatentAttention => Self::LatentAttention,
            SourceArg::LastHidden => Self::LastHidden,
            SourceArg::Constants => Self::Constants,
        }
    }
}

/// Options of `grpo`.
#[derive(Debug, Args)]
#[command(
    after_help = "The defaults are the published settings (arXiv 2505.19092). Watch reward_noise_free, noise_norm and thought_norm in \
metrics.jsonl: sigma is absolute and can drown the thought of a small model; --sigma-relative cannot. The best checkpoint is \
chosen by validation loss and may be the start itself."
)]
pub(super) struct GrpoArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Rollouts a step: prompts times group
    #[arg(long, default_value_t = 256)]
    rollouts: usize,
    /// Samples of each prompt; the first is free of noise
    #[arg(long, default_value_t = 8)]
    group: usize,
    /// Standard deviation of the noise on each coordinate of the thought
    #[arg(long, default_value_t = 1.5)]
    sigma: f64,
    /// Instead of --sigma: the noise's norm as a share of the thought's; 0.3 is a beginning
    #[arg(long, value_name = "SHARE", conflicts_with = "sigma")]
    sigma_relative: Option<f64>,
    /// What a reward is compared with: the batch's noise-free samples, or its own group
    #[arg(long, value_enum, default_value_t = AdvantageArg::Batch)]
    advantage: AdvantageArg,
    /// Clip the probability ratio below 1 minus this
    #[arg(long, default_value_t = 0.2)]
    clip_low: f64,
    /// Clip the probability ratio above 1 plus this
    #[arg(long, default_value_t = 0.28)]
    clip_high: f64,
    /// Weight of the KL divergence to the model as it was at the start
    #[arg(long, default_value_t = 0.0)]
    kl: f64,
    /// Updates made on one rollout
    #[arg(long, default_value_t = 1)]
    updates: usize,
    /// Train the backbone too, not only the source of the thoughts
    #[arg(long)]
    train_backbone: bool,
    #[command(flatten)]
    training: LoopArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AdvantageArg {
    Batch,
    Group,
}

impl From<AdvantageArg> for AdvantageKind {
    fn from(advantage: AdvantageArg) -> Self {
        match advantage {
            AdvantageArg::Batch => Self::Batch,
            AdvantageArg::Group => Self::Group,
        }
    }
}

pub(super) fn pretrain(args: &PretrainArgs) -> Result<(), CliError> {
    let defaults = TrainConfig { epochs: 10, learning_rate: 1e-3, schedule: Schedule::Cosine, ..Default::default() };
    let train = TrainConfig { batch: args.batch, ..args.training.config(defaults, &args.run) };
    launch(&args.run, &args.training, StageConfig::Pretrain {}, train)
}

pub(super) fn sft(args: &SftArgs) -> Result<(), CliError> {
    let train = TrainConfig { batch: args.batch, ..args.training.config(TrainConfig::default(), &args.run) };
    launch(&args.run, &args.training, StageConfig::Sft { thoughts: args.thoughts, source: args.source.into() }, train)
}

pub(super) fn grpo(args: &GrpoArgs) -> Result<(), CliError> {
    let config = GrpoConfig {
        group: args.group,
        sigma: args.sigma,
        sigma_relative: args.sigma_relative,
        advantage: args.advantage.into(),
        clip_low: args.clip_low,
        clip_high: args.clip_high,
        kl: args.kl,
        updates: args.updates,
        train_backbone: args.train_backbone,
    };
    config.check()?;
    if args.rollouts == 0 || !args.rollouts.is_multiple_of(args.group) {
        return Err(CliError::Usage(format!(
            "--rollouts {} must be a multiple of --group {}",
            args.rollouts, args.group
        )));
    }
    let train = TrainConfig {
        batch: args.rollouts / args.group,
        ..args.training.config(GrpoConfig::train_defaults(), &args.run)
    };
    launch(&args.run, &args.training, StageConfig::Grpo { config }, train)
}

impl LoopArgs {
    /// The stage's defaults with what the user asked for in their place.
    fn config(&self, defaults: TrainConfig, run: &RunArgs) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs.unwrap_or(defaults.epochs),
            micro_batch: self.micro_batch,
            learning_rate: self.lr.unwrap_or(defaults.learning_rate),
            schedule: self.schedule.map_or(defaults.schedule, Schedule::from),
            warmup: self.warmup.or(defaults.warmup),
            optimizer: AdamWConfig { weight_decay: self.weight_decay, ..defaults.optimizer },
            clip_norm: self.clip_norm,
            validations: self.validations.unwrap_or(defaults.validations),
            patience: self.patience.map_or(defaults.patience, |most| (most > 0).then_some(most)),
            checkpoint_every: self.checkpoint_every,
            max_steps: self.max_steps,
            seed: run.common.seed,
            ..defaults
        }
    }
}

fn launch(run: &RunArgs, training: &LoopArgs, stage: StageConfig, train: TrainConfig) -> Result<(), CliError> {
    check_json(run.json.as_deref())?;
    let result = match (&run.resume, &run.model, &run.data, &run.out) {
        (Some(folder), ..) => resume(folder, stage.name(), run.common.quiet)?,
        (None, Some(model), Some(data), Some(out)) => {
            train.check()?;
            let description = RunDescription {
                latentr3: env!("CARGO_PKG_VERSION").into(),
                stage,
                model: model.clone(),
                data: data.clone(),
                data_fingerprint: String::new(),
                device: run.common.device.clone(),
                limit: training.limit,
                valid_limit: training.valid_limit,
                rank_sample: training.rank_sample,
                train,
            };
            start(description, out, run.common.quiet)?
        }
        _ => return Err(CliError::Usage("--model, --data and --out are needed, or --resume".into())),
    };
    write_json(run.json.as_deref(), &result)
}
